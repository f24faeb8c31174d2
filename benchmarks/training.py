"""Training on cached features: 5 shots of 2 × 256 × 768 (ViT-B/14 at 224²), beside plain PyTorch.

    python benchmarks/training.py [--recipes R R] [--quick] [--json FILE]

Both sides take the same batches of the same tokens with Adam. The PyTorch
peers are eager: `reference_torch.py` in each recipe, and for `paper` also `torch_pirn.py` where
PIRN_SHARED holds it. All of them take turns, a stretch of epochs at a time, and the medians are
scaled to 60 epochs. The matrix-product floor is the time XLA takes for the large dense products of
the same stretch, forward and backward, and nothing else.

Compilation is timed in processes of their own, twice with one cache folder: the first fills it, the
second reads it. That time is tracing, and compiling or reading: what a training takes the first
time beyond what it takes again in the same process.

Then the default recipe with 5, 10 and 50 shots, and three categories together, on a GPU ten. Last,
six categories of the size of ViT-Ti's features, each alone and all in one call, every time compiled
anew. With --quick neither the 50 shots nor the six. Each part is written as soon as it is known.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.measure import environment, in_process, interleaved, result_file, write
from bench.peers import shared_reference, torch_device
from pirn_jax.decoder import Tokens
from pirn_jax.decoder.config import DecoderConfig
from pirn_jax.methods.pirn import RECIPES
from pirn_jax.training import TrainingJob, train, use_compilation_cache
from pirn_jax.training.batches import epoch_order, make_batches
from pirn_jax.training.jobs import stack_shots
from pirn_jax.training.parallel import Program, choose_layout
from pirn_jax.training.step import create_states

SHOTS, N, C, EPOCHS = 5, 256, 768, 60
PIECE = 3  # epochs a turn


def features(shots: int = SHOTS) -> Tokens:
    """Tokens with a common mean, as a ViT's have."""
    random = np.random.default_rng(0)
    tokens = random.standard_normal((2, shots, N, C)) + random.standard_normal((2, 1, 1, C))
    return Tokens(tokens.astype(np.float32), np.ones((shots, N), bool))


def compile_time(recipe: str, folder: str) -> None:
    """Print the seconds a training of one epoch takes in a fresh process beyond what it takes then.

    That is tracing, and compiling or reading; initial parameters and the epoch are in both.
    """
    use_compilation_cache(folder)
    jax.block_until_ready(jnp.zeros(()) + 1)  # the device is up
    job = TrainingJob("one", features(), 0)
    settings = replace(RECIPES[recipe], epochs=1)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        train([job], settings, parallel="none")
        seconds.append(time.perf_counter() - start)
    print(seconds[0] - min(seconds[1:]))


def compile_times(recipe: str) -> dict[str, float]:
    """Seconds without and with the cache filled."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = (in_process(__file__, "--compile", recipe, folder) for _ in range(2))
    return {"first_run_s": first, "second_run_s": second}


def ours(recipe: str, shots: int = SHOTS, jobs: int = 1) -> Callable[[], Any]:
    """A stretch of epochs by `Program`, as `train` runs it, of so many jobs at once."""
    settings, layout = RECIPES[recipe], choose_layout("none", jobs)
    several = [TrainingJob(str(seed), features(shots), seed) for seed in range(jobs)]
    stacked = stack_shots(several)
    program = Program(layout, settings, stacked)
    seeds = np.arange(jobs, dtype=np.uint32)
    state = [program.place(create_states(settings, stacked, seeds))]
    batches = make_batches(several, 0, PIECE, settings, layout.padded_scans)

    def run() -> None:
        state[0], losses = program.run(state[0], batches)
        assert np.isfinite(losses).all()

    return run


def more_work(quick: bool) -> dict[str, dict[str, float]]:
    """Seconds of 60 epochs in the default recipe: of more shots, and of categories together.

    Each beside one category of 5 shots: ten times the shots are ten times the steps; three
    categories together are to cost no more than three times one.
    """
    work = {"5 shots": (5, 1), "10 shots": (10, 1), "3 categories": (5, 3)}
    if not quick:
        work["50 shots"] = (50, 1)
    if jax.default_backend() == "gpu":
        work["10 categories"] = (5, 10)
    tasks = {name: ours("default", *size) for name, size in work.items()}
    times = interleaved(tasks, 1 if quick else 10, seconds=300)
    one = times["5 shots"]["median_ms"]
    return {
        name: {
            "seconds": t["median_ms"] / 1e3 * EPOCHS / PIECE,
            "ratio_to_5_shots": t["median_ms"] / one,
        }
        for name, t in times.items()
    }


def six_categories() -> dict[str, float]:
    """Seconds of six trainings one after the other, and in one call, compilation and all."""
    random = np.random.default_rng(0)
    valid = np.ones((SHOTS, 196), bool)
    jobs = [
        TrainingJob(
            str(seed), Tokens(random.standard_normal((2, SHOTS, 196, 192), "f4"), valid), seed
        )
        for seed in range(6)
    ]

    def seconds(parts: list[list[TrainingJob]]) -> float:
        start = time.perf_counter()
        for part in parts:
            jax.clear_caches()
            train(part, RECIPES["default"], parallel="none")
        return time.perf_counter() - start

    alone, together = seconds([[job] for job in jobs]), seconds([jobs])
    return {"alone_s": alone, "together_s": together, "ratio": together / alone}


def floor(config: DecoderConfig, batch_size: int) -> Callable[[], Any]:
    """The large products of a stretch alone: forward, and two backward for each."""
    key = jax.random.key(0)
    k = config.prototypes
    rows = [(k, 2 * C, 3 * C), *[(k, C, C)] * 3]  # GRU; keys, queries and values of MNC
    if config.attention:
        rows += [(N, C, C), *[(k, C, C)] * 3]
    if config.mlp_ratio:
        rows += [(N, C, config.mlp_ratio * C), (N, config.mlp_ratio * C, C)]
    if config.mnc_residual == "bottleneck":
        rows += [(N, C, C // 2), (N, C // 2, C)]
    steps = [len(p) for _ in range(PIECE) for p in epoch_order(0, 0, SHOTS, batch_size)]
    draw = partial(jax.random.normal, key)
    arrays = {
        size: [
            (draw((2, size * n, a)), draw((2, a, b)), draw((2, size * n, b))) for n, a, b in rows
        ]
        for size in set(steps)
    }

    @jax.jit
    def products(arrays: list) -> list:
        flip = partial(jnp.swapaxes, axis1=-1, axis2=-2)
        return [(x @ w, y @ flip(w), flip(x) @ y) for x, w, y in arrays]

    def run() -> None:
        for size in steps:
            for _ in range(config.layers):
                jax.block_until_ready(products(arrays[size]))

    return run


def peers(recipe: str) -> dict[str, Callable[[], Any]]:
    """Plain PyTorch loops over the same stretch; none where PyTorch is missing."""
    found = torch_device()
    if found is None:
        return {}
    torch, device, wait = found
    import torch.nn.functional as F

    from bench import reference_torch

    models: dict[str, Any] = {f"torch {recipe}": reference_torch.Decoder(recipe)}
    shared = shared_reference()
    if recipe == "paper" and shared is not None:
        models["torch_pirn.py (paper)"] = shared.Decoder()
    settings = RECIPES[recipe]
    rgb, normals = (torch.from_numpy(np.asarray(x)).to(device) for x in features().values)
    parts = [p for e in range(PIECE) for p in epoch_order(0, e, SHOTS, settings.batch_size)]
    batches = [torch.from_numpy(p.copy()).to(device) for p in parts]

    def loss(target: Any, rebuilt: Any) -> Any:
        if settings.decoder.distance == "squared":
            return ((target - rebuilt) ** 2).mean()
        distance = 1 - F.cosine_similarity(target, rebuilt, dim=-1)
        factor = (distance.detach() / distance.detach().mean()) ** settings.loss.exponent
        rebuilt.register_hook(lambda slope: slope * factor[..., None])
        return (1 - F.cosine_similarity(target.flatten(1), rebuilt.flatten(1), dim=-1)).mean()

    def loop(model: Any) -> Callable[[], Any]:
        optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)

        def run() -> None:
            for some in batches:
                targets = (rgb[some], normals[some])
                given = [
                    F.dropout(t, settings.dropout) + settings.noise * torch.randn_like(t)
                    for t in targets
                ]
                parts = zip(targets, model(*given), strict=True)
                total = torch.stack([loss(t, z) for t, z in parts]).sum()
                optimizer.zero_grad()
                total.backward()
                optimizer.step()
            wait()

        return run

    return {name: loop(model.to(device)) for name, model in models.items()}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--quick", action="store_true", help="few turns, little more")
    parser.add_argument("--json", type=Path, help="results/training.json; quick: elsewhere")
    parser.add_argument("--compile", nargs=2, metavar=("RECIPE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.compile:
        compile_time(*arguments.compile)
        return
    target = result_file(arguments, "training")
    result: dict[str, Any] = {"environment": environment(), "epochs": EPOCHS, "recipes": {}}
    ratios: dict[str, float] = {}
    for recipe in arguments.recipes:
        settings = RECIPES[recipe]
        tasks = {
            "ours": ours(recipe),
            "floor": floor(settings.decoder, settings.batch_size),
            **peers(recipe),
        }
        times = interleaved(tasks, 5 if arguments.quick else 30, seconds=120)
        seconds = {name: t["median_ms"] / 1e3 * EPOCHS / PIECE for name, t in times.items()}
        compiled = compile_times(recipe)
        steps = len(epoch_order(0, 0, SHOTS, settings.batch_size)) * EPOCHS
        result["recipes"][recipe] = {
            "turns_ms": times,
            "seconds": seconds,
            "steps_per_second": {name: steps / value for name, value in seconds.items()},
            "compile": compiled,
        }
        print(f"{recipe}: {EPOCHS} epochs, from {times['ours']['runs']} turns of {PIECE}")
        for name, value in seconds.items():
            print(f"  {name:24} {value:8.2f} s")
            if name.startswith("torch"):
                label = "reference" if name.startswith("torch ") else "shared"
                ratios[f"training_{recipe}_{label}"] = seconds["ours"] / value
                print(f"  {'':24} ours / this: {seconds['ours'] / value:.2f}")
        print(
            f"  compiling {compiled['first_run_s']:.1f} s, "
            f"{compiled['second_run_s']:.1f} s from the cache"
        )
        result["ratio_to_torch"] = ratios
        write(target, result)
    result["more"] = more_work(arguments.quick)
    for name, row in result["more"].items():
        print(f"{name:12} {row['seconds']:8.2f} s, {row['ratio_to_5_shots']:.2f} x 5 shots")
    write(target, result)
    if arguments.quick:
        return
    result["six_categories"] = six = six_categories()
    print(
        f"six categories {six['together_s']:.1f} s together, {six['alone_s']:.1f} s one by one: "
        f"{six['ratio']:.2f}"
    )
    write(target, result)


if __name__ == "__main__":
    main()
