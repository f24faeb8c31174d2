"""The PyTorch peers as functions to be timed; none where PyTorch is missing."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pirn_jax.encoder import encoder_config
from pirn_jax.methods.pirn import RECIPES


def shared_reference() -> Any:
    """The module `torch_pirn.py`, None where PIRN_SHARED does not hold it."""
    root = Path(os.environ.get("PIRN_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    path = root / "reference" / "torch_pirn.py"
    spec = importlib.util.spec_from_file_location("torch_pirn", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torch_device() -> Any:
    """PyTorch, ready; its device and a function that waits for it. None where it is missing."""
    try:
        import torch
    except ImportError:
        return None
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # what XLA uses too
    gpu = torch.cuda.is_available()
    return torch, "cuda" if gpu else "cpu", torch.cuda.synchronize if gpu else lambda: None


def _call(model: Any, given: tuple[Any, ...], half: bool) -> Callable[[], Any]:
    torch, device, wait = torch_device()

    def run() -> None:
        cast = torch.autocast(device, torch.bfloat16) if half else contextlib.nullcontext()
        with torch.inference_mode(), cast:
            model(*given)
        wait()

    return run


def pair_peers(name: str, compiled: bool) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Pictures to heatmap and score, by row; and what does not run here, with the reason."""
    found = torch_device()
    if found is None:
        return {}, {"torch": "not installed"}
    torch, device, _ = found
    from bench import reference_torch

    config = encoder_config(name)
    pictures = tuple(torch.rand(2, 1, 3, 224, 224, device=device))
    models = {
        blocks: reference_torch.Pair(config.width, config.heads, blocks, config.layers)
        .eval()
        .to(device)
        for blocks in (config.depth, max(config.layers))
    }
    rows, missing = {}, {}
    # All blocks, and those up to the last one needed.
    for label, model in zip(("all", "needed"), models.values(), strict=True):
        rows[f"torch pair {label} eager float32"] = _call(model, pictures, False)
        rows[f"torch pair {label} eager bfloat16"] = _call(model, pictures, True)
    # On a GPU only what is fastest there, which records its launches as CUDA graphs.
    kinds = [("default", False), ("reduce-overhead", False)]
    if device == "cuda":
        kinds = [("reduce-overhead", True)]
    for mode, half in kinds if compiled else ():
        try:
            run = _call(torch.compile(models[max(config.layers)], mode=mode), pictures, half)
            run()
            rows[f"torch pair needed compile {mode} {'bfloat16' if half else 'float32'}"] = run
        except Exception as error:  # a compiler that is not there raises anything
            missing[f"torch.compile {mode}"] = str(error).splitlines()[0]
            print(f"left out, torch.compile {mode}: {error}")
    shared = shared_reference()
    if shared is not None and name in ("dinov2-small", "dinov2-base"):
        with contextlib.suppress(ImportError):  # it needs transformers
            model = shared.PIRN(name=name.removeprefix("dinov2-")).eval().to(device)
            rows["torch pair all eager float32 torch_pirn.py"] = _call(model, pictures, False)
    return rows, missing


def decoder_peers(width: int, batch: int = 1) -> dict[str, Callable[[], Any]]:
    """Decoders alone, tokens on the device."""
    found = torch_device()
    if found is None:
        return {}
    torch, device, _ = found
    from bench import reference_torch

    tokens = tuple(torch.randn(2, batch, 256, width, device=device))
    models = {r: reference_torch.Decoder(r, width) for r in RECIPES}
    shared = shared_reference()
    if shared is not None:
        models["paper torch_pirn.py"] = shared.Decoder(width)
    return {
        f"torch decoder {label}": _call(model.eval().to(device), tokens, False)
        for label, model in models.items()
    }
