"""The encoder on a CPU by OpenVINO, an optional package: the network of `vit.py`, written again.

XLA's products on a CPU are slower than OpenVINO's oneDNN kernels, most of all in bfloat16. The
graph is made from the parameters themselves: no other format, file or framework is between. What is
constant is folded into the products: the affine part of LayerNorm, the softmax temperature,
LayerScale. JAX stays the reference: tests hold this to it. A graph generated from JAX's trace takes
a fifth to a quarter longer (`benchmarks/generated_encoder.py`).

In bfloat16 OpenVINO rounds nearly everything, not only the products as `vit.py` does. The first
block is therefore a float32 graph of its own, as it is there. On real weights (vit-tiny-16) and 24
real pictures the worst token's cosine to float32 is then 0.9995, the median 0.99994; with all
blocks in bfloat16 the worst is 0.995. In float32 the worst is 0.9999998.

Dimension letters: B pictures, h w pixels, N patch tokens, T = N + class token and registers,
C channels, H heads, D channels per head.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

from pirn_jax.encoder.catalog import EncoderConfig
from pirn_jax.encoder.vit import EXACT_BLOCKS
from pirn_jax.errors import MissingDependencyError

_log = logging.getLogger("pirn_jax")
Pictures = Float32[np.ndarray, "B h w 3"]
Run = Callable[[Pictures], Float32[np.ndarray, "B N C"]]


def compile_encoder(
    config: EncoderConfig,
    parameters: Mapping[str, Any],
    image_size: tuple[int, int],
    layers: tuple[int, ...],
    dtype: str,
    normalised: bool = False,
) -> Run:
    """The mean patch tokens of `layers`, compiled once for any number of pictures.

    Args:
        config: which network.
        parameters: nested, as `vit.ViT` holds them; they are copied.
        image_size: height and width of the pictures in pixels.
        layers: 1-based blocks that are averaged; nothing after the last of them is computed.
        dtype: "float32" or "bfloat16"; float32 where the processor has no bfloat16, with a warning.
        normalised: each block's tokens are normalised before they are averaged.

    Returns:
        A function of colours in [0, 1], for one thread at a time.

    Raises:
        MissingDependencyError: openvino is not installed, or does not load.
    """
    openvino, ops = _openvino()
    core, last = openvino.Core(), max(layers)
    if dtype == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        _log.warning("this processor has no bfloat16 arithmetic; the encoder runs in float32")
        dtype = "float32"
    exact = last if dtype == "float32" else min(EXACT_BLOCKS, last)
    graph = _Graph(openvino, ops, config, image_size, parameters, layers, normalised)
    requests = []
    for start, end, precision in ((0, exact, "f32"), (exact, last, "bf16")):
        if start < end:
            options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
            compiled = core.compile_model(graph.blocks(start, end), "CPU", options)
            requests.append(compiled.create_infer_request())

    def run(images: Pictures) -> Float32[np.ndarray, "B N C"]:
        given, means = np.ascontiguousarray(images), []
        for request in requests:
            request.infer([given], share_inputs=True)
            given = request.get_output_tensor(0).data
            if len(request.model_outputs) > 1:
                means.append(request.get_output_tensor(1).data)
        # A copy: the next call writes to the same memory.
        return sum(means[1:], start=means[0].copy())

    return run


def _openvino() -> tuple[Any, Any]:
    try:
        return importlib.import_module("openvino"), importlib.import_module("openvino.opset13")
    except ImportError as error:
        raise MissingDependencyError(
            f"runtime openvino needs the package openvino, which cannot be imported ({error})",
            "pip install 'pirn-jax[openvino]', or leave out --runtime",
        ) from error


class _Graph:
    """Makes the nodes of one network.

    Args:
        openvino: the package.
        ops: its operations.
        config: which network.
        image_size: height and width in pixels.
        parameters: of `vit.ViT`.
        layers: 1-based blocks that are averaged.
        normalised: each block's tokens are normalised first.
    """

    def __init__(
        self,
        openvino: Any,
        ops: Any,
        config: EncoderConfig,
        image_size: tuple[int, int],
        parameters: Mapping[str, Any],
        layers: tuple[int, ...],
        normalised: bool,
    ):
        self.openvino, self.ops, self.config = openvino, ops, config
        self.image_size, self.parameters, self.layers = image_size, parameters, layers
        self.normalised = normalised
        self.grid = image_size[0] // config.patch, image_size[1] // config.patch
        self.front = 1 + config.registers

    def blocks(self, start: int, end: int) -> Any:
        """Blocks `start` to `end`, from 0: from pictures, or from the tokens before `start`.

        Its outputs are the tokens (B, T, C) and, if any of `layers` is among these blocks, their
        share of the mean (B, N, C).
        """
        ops, rows = self.ops, self.front + self.grid[0] * self.grid[1]
        shape = [rows, self.config.width] if start else [*self.image_size, 3]
        given = ops.parameter([-1, *shape], np.float32)
        tokens = given if start else self.embed(given)
        kept = []
        for number in range(start + 1, end + 1):
            tokens = self.block(tokens, self.parameters["blocks"][number - 1])
            if number in self.layers:
                kept.append(self.normal(tokens) if self.normalised else tokens)
        outputs = [tokens]
        if kept:
            bounds = (self.whole([value]) for value in (self.front, rows, 1, 1))
            patches = ops.slice(functools.reduce(ops.add, kept), *bounds)
            mean = ops.multiply(patches, self.real([[[1 / len(self.layers)]]]))
            own = self.config.teacher and self.layers == self.config.layers  # a single one
            if own and not self.normalised:
                mean = self.after(self.parameters["norm"], mean, self.parameters["head"])
            outputs.append(mean)
        return self.openvino.Model(outputs, [given], self.config.name)

    def embed(self, images: Any) -> Any:
        """Patches as tokens with their positions, after the class token and the registers."""
        ops, config, (rows, columns), side = self.ops, self.config, self.grid, self.config.patch
        parameters = self.parameters
        mean, std = (np.reshape(x, (1, 1, 1, 3)) for x in (config.mean, config.std))
        colours = ops.divide(ops.subtract(images, self.real(mean)), self.real(std))
        cut = ops.transpose(
            self.shaped(colours, -1, rows, side, columns, side, 3), self.whole([0, 1, 3, 2, 4, 5])
        )
        flat = self.shaped(cut, -1, rows * columns, 3 * side * side)
        patches = parameters["patches"]
        tokens = self.product(flat, patches["kernel"], patches["bias"])
        tokens = ops.add(tokens, self.real(np.asarray(parameters["positions"])[None]))
        prefix = np.asarray(parameters["prefix"])
        batch = ops.gather(ops.shape_of(images), self.whole([0]), self.whole(0))
        shape = ops.concat([batch, self.whole(prefix.shape)], 0)
        return ops.concat([ops.broadcast(self.real(prefix[None]), shape), tokens], 1)

    def block(self, x: Any, weights: Mapping[str, Any]) -> Any:
        """One pre-norm transformer block."""
        attention, mlp = weights["attention"], weights["mlp"]
        mixed = self.attention(self.after(weights["norm1"], x, attention["qkv"], self.heat()))
        x = self.ops.add(x, self.scaled(mixed, attention["out"], weights.get("scale1", 1.0)))
        inner = self.after(weights["norm2"], x, mlp["fc1"])
        if self.config.mlp == "swiglu":
            gate, value = self.ops.split(inner, self.whole(2), 2).outputs()
            inner = self.ops.multiply(self.ops.swish(gate), value)
        else:
            inner = self.ops.gelu(inner, "erf")
        return self.ops.add(x, self.scaled(inner, mlp["fc2"], weights.get("scale2", 1.0)))

    def attention(self, qkv: Any) -> Any:
        """Heads of softmax attention over the fused projections (B, T, 3C)."""
        ops, width, heads = self.ops, self.config.width, self.config.heads
        tokens = self.front + self.grid[0] * self.grid[1]
        cut = self.shaped(qkv, -1, tokens, 3, heads, width // heads)
        parts = ops.split(ops.transpose(cut, self.whole([2, 0, 3, 1, 4])), self.whole(0), 3)
        query, key, value = (ops.squeeze(part, self.whole([0])) for part in parts.outputs())
        weights = ops.softmax(ops.matmul(query, key, False, True), 3)
        mixed = ops.transpose(ops.matmul(weights, value, False, False), self.whole([0, 2, 1, 3]))
        return self.shaped(mixed, -1, tokens, width)

    def heat(self) -> Float32[np.ndarray, " three_C"]:
        """1/√D for the queries, 1 for keys and values."""
        width = self.config.width
        factors = np.ones(3 * width, np.float32)
        factors[:width] = (width // self.config.heads) ** -0.5
        return factors

    def normal(self, x: Any) -> Any:
        """Each token with mean 0 and variance 1."""
        return self.ops.mvn(x, self.whole([2]), True, self.config.epsilon, "inside_sqrt")

    def after(
        self, norm: Mapping[str, Any], x: Any, weights: Mapping[str, Any], factors: Any = 1.0
    ) -> Any:
        """Projection of the normalised tokens, LayerNorm's own scale and bias folded into it."""
        plain = self.normal(x)
        kernel, bias = (np.asarray(weights[name], np.float64) for name in ("kernel", "bias"))
        scale, shift = (np.asarray(norm[name], np.float64) for name in ("scale", "bias"))
        return self.product(
            plain, scale[:, None] * kernel * factors, (shift @ kernel + bias) * factors
        )

    def scaled(self, x: Any, weights: Mapping[str, Any], factors: Any) -> Any:
        """Projection whose outputs are scaled channel by channel."""
        kernel, bias = (np.asarray(weights[name], np.float32) for name in ("kernel", "bias"))
        factors = np.asarray(factors, np.float32)
        return self.product(x, kernel * factors, bias * factors)

    def product(self, x: Any, kernel: Any, bias: Any) -> Any:
        """Tokens times a matrix, plus a bias."""
        found = self.ops.matmul(x, self.real(kernel), False, False)
        return self.ops.add(found, self.real(np.reshape(bias, (1, 1, -1))))

    def shaped(self, x: Any, *shape: int) -> Any:
        """Reshaped; -1 is the batch."""
        return self.ops.reshape(x, self.whole(shape), False)

    def real(self, values: Any) -> Any:
        """A float32 constant."""
        return self.ops.constant(np.ascontiguousarray(values, np.float32))

    def whole(self, values: Any) -> Any:
        """An integer constant."""
        return self.ops.constant(np.asarray(values, np.int64))
