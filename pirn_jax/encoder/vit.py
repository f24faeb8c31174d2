"""The Vision Transformer: pictures to patch tokens, raw block outputs, stopping where it may.

Covers DINOv2 (LayerScale, SwiGLU, registers), DINO and AugReg by configuration. A block computes

    x ← x + λ₁ · Attention(LayerNorm(x)),    x ← x + λ₂ · MLP(LayerNorm(x))

with exact (erf) GELU. What feeds PIRN is the mean over some blocks of the patch tokens, before any
final normalisation (PIRN section 4; docs/decisions.md, 1: the layers are 1-based), so the network
ends at the last block asked for. A distilled network (pirn-tiny) gives the mean its teacher has
through a final LayerNorm and a linear head instead. In bfloat16 the matrix products run in
bfloat16; sums, the residual stream, LayerNorm, GELU, softmax and the mean stay in float32.

Dimension letters: B pictures, h w pixels, P patch side, N patch tokens, R registers,
T = 1 + R + N tokens, C channels, G groups of layers, H heads, D channels per head.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pirn_jax.encoder.catalog import EncoderConfig

# In bfloat16 the first block still computes in float32: its rounding is what the later blocks
# amplify. On real weights the worst token's cosine to float32 rises from 0.9989 to 0.9997.
EXACT_BLOCKS = 1


def attention(
    query: Float[Array, "B T H D"], key: Float[Array, "B T H D"], value: Float[Array, "B T H D"]
) -> Float[Array, "B T H D"]:
    """Softmax attention: cuDNN's fused kernel for bfloat16 on a GPU that has it, XLA elsewhere."""
    fused = query.dtype == jnp.bfloat16 and _has_fused_attention()
    with jax.numpy_dtype_promotion("standard"):  # jax 0.10's bfloat16 path mixes in float32
        return jax.nn.dot_product_attention(
            query, key, value, implementation="cudnn" if fused else "xla"
        )


def _has_fused_attention() -> bool:
    """Whether the default device is an NVIDIA GPU of the Ampere generation or later."""
    device = getattr(jax.config, "jax_default_device", None) or jax.local_devices()[0]
    return float(getattr(device, "compute_capability", None) or 0) >= 8.0


class Projection(nnx.Module):
    """x W + b with the product taken in `dtype`, summed and returned in float32.

    Rounding each product's result to bfloat16 as well, as nnx.Linear does, costs half the accuracy
    (1 - cosine of the median token on real weights 2e-4 instead of 7e-5).
    """

    def __init__(self, inputs: int, outputs: int, dtype: jnp.dtype):
        self.kernel = nnx.Param(jnp.zeros((inputs, outputs), dtype))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Project the last axis."""
        kernel = self.kernel[...]
        product = jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)
        return product + self.bias[...].reshape((1,) * (x.ndim - 1) + (-1,))


class Attention(nnx.Module):
    """Multi-head self-attention with one fused projection to query, key and value."""

    def __init__(self, config: EncoderConfig, dtype: jnp.dtype):
        self.heads, self.dtype = config.heads, dtype
        self.qkv = Projection(config.width, 3 * config.width, dtype)
        self.out = Projection(config.width, config.width, dtype)

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        """Let every token attend to every other of its picture."""
        batch, tokens, channels = x.shape
        qkv = self.qkv(x).astype(self.dtype)
        qkv = qkv.reshape(batch, tokens, 3, self.heads, channels // self.heads)
        mixed = attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        return self.out(mixed.reshape(batch, tokens, channels))


class Mlp(nnx.Module):
    """Two matrices around an exact GELU, or SwiGLU, whose first matrix holds [gate; value]."""

    def __init__(self, config: EncoderConfig, dtype: jnp.dtype):
        self.gated = config.mlp == "swiglu"
        self.fc1 = Projection(config.width, config.hidden * (1 + self.gated), dtype)
        self.fc2 = Projection(config.hidden, config.width, dtype)

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        """Change each token by itself."""
        inner = self.fc1(x)
        if self.gated:
            gate, value = jnp.split(inner, 2, axis=-1)
            return self.fc2(jax.nn.silu(gate) * value)
        return self.fc2(jax.nn.gelu(inner, approximate=False))


class Block(nnx.Module):
    """One pre-norm transformer block."""

    def __init__(self, config: EncoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        # Two passes for the variance: with outlier channels one pass cancels catastrophically.
        norm = {"epsilon": config.epsilon, "use_fast_variance": False, "rngs": rngs}
        self.norm1 = nnx.LayerNorm(config.width, **norm)
        self.attention = Attention(config, dtype)
        self.norm2 = nnx.LayerNorm(config.width, **norm)
        self.mlp = Mlp(config, dtype)
        if config.layer_scale:
            self.scale1 = nnx.Param(jnp.ones(config.width))
            self.scale2 = nnx.Param(jnp.ones(config.width))
        self.layer_scale = config.layer_scale

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        """Add the attention's change, then the MLP's."""
        mixed = self.attention(self.norm1(x))
        x = x + (self.scale1[...][None, None] * mixed if self.layer_scale else mixed)
        changed = self.mlp(self.norm2(x))
        return x + (self.scale2[...][None, None] * changed if self.layer_scale else changed)


class ViT(nnx.Module):
    """The network for pictures of one size; its parameters are laid out by `weights.py`.

    Args:
        config: which network.
        grid: rows and columns of patches.
        blocks: how many blocks to build, from the first.
        dtype: of the matrix products, float32 or bfloat16.
        rngs: asked for by LayerNorm, and unused: real parameters come from files.
    """

    def __init__(
        self,
        config: EncoderConfig,
        grid: tuple[int, int],
        blocks: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.config, self.grid = config, grid
        self.patches = Projection(3 * config.patch**2, config.width, jnp.dtype("float32"))
        # The class token with its position added, then the registers, which have none.
        self.prefix = nnx.Param(jnp.zeros((1 + config.registers, config.width)))
        self.positions = nnx.Param(jnp.zeros((grid[0] * grid[1], config.width)))
        exact = jnp.dtype("float32")
        self.blocks = nnx.List(
            [Block(config, exact if i < EXACT_BLOCKS else dtype, rngs) for i in range(blocks)]
        )
        if config.teacher:
            self.norm = nnx.LayerNorm(
                config.width, epsilon=config.epsilon, use_fast_variance=False, rngs=rngs
            )
            self.head = Projection(config.width, config.width, exact)

    def embed(self, images: Float[Array, "B h w 3"]) -> Float[Array, "B T C"]:
        """Normalise the colours, cut into patches, add positions, prepend class and registers."""
        (rows, columns), side = self.grid, self.config.patch
        mean, std = jnp.asarray(self.config.mean), jnp.asarray(self.config.std)
        colours = (images.astype(jnp.float32) - mean[None, None, None]) / std[None, None, None]
        cut = colours.reshape(images.shape[0], rows, side, columns, side, 3).swapaxes(2, 3)
        tokens = self.patches(cut.reshape(images.shape[0], rows * columns, 3 * side * side))
        tokens = tokens + self.positions[...][None]
        prefix = jnp.broadcast_to(self.prefix[...], (tokens.shape[0], *self.prefix[...].shape))
        return jnp.concatenate([prefix, tokens], axis=1)

    def outputs(self, images: Float[Array, "B h w 3"], last: int) -> Iterator[Array]:
        """The patch tokens (B, N, C) after each block in turn, not normalised.

        Args:
            images: colours in [0, 1].
            last: the 1-based block after which the network ends.
        """
        tokens = self.embed(images)
        for block in itertools.islice(self.blocks, last):
            tokens = block(tokens)
            yield tokens[:, 1 + self.config.registers :]

    def mean_of(
        self,
        images: Float[Array, "B h w 3"],
        layers: tuple[int, ...],
        groups: int = 1,
        normalised: bool = False,
    ) -> Float[Array, "B N GC"]:
        """The mean of some blocks' patch tokens, kept as a running sum.

        Of a distilled network's own layers (`EncoderConfig.teacher`), what its head makes of it.

        Args:
            images: colours in [0, 1].
            layers: 1-based blocks; nothing after the last of them is computed.
            groups: the layers fall into so many groups of equal size, in order; their means lie
                side by side on the channel axis.
            normalised: each block's tokens are brought to mean 0 and variance 1 over their channels
                first (LayerNorm without scale and bias).
        """
        outputs = self.outputs(images, max(layers))
        wanted = (tokens for number, tokens in enumerate(outputs, 1) if number in layers)
        if normalised:
            wanted = (normalise(tokens, self.config.epsilon) for tokens in wanted)
        each = len(layers) // groups
        means = [
            functools.reduce(jnp.add, itertools.islice(wanted, each)) / each for _ in range(groups)
        ]
        if self.config.teacher and layers == self.config.layers and groups == 1 and not normalised:
            return self.head(self.norm(means[0]))
        return means[0] if groups == 1 else jnp.concatenate(means, axis=-1)


def normalise(tokens: Float[Array, "*B C"], epsilon: float) -> Float[Array, "*B C"]:
    """Each token with mean 0 and variance 1 over its channels."""
    centred = tokens - tokens.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + epsilon)
