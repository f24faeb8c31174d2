"""A lot judged against itself: a token is odd that finds its like in few of the other scans.

    d_j(x) = min over tokens y of scan j of |x - y|² / 2C
    d(x)   = mean of the lowest 30 % of d_j(x) over the other scans j of the lot

Most parts of a lot are good, so what is normal is found again in many of them; a defect is found
again in few, even where several parts have one: the lowest distances are those to the scans most
like it, and the mean over 30 % of them is small only if so many have it too. No label is asked for,
and no good scan.

Of tokens whose channels have variance 1, d_j is how unlikely x is, in nats a channel, where every
token of scan j is the mean of a Gaussian as wide as all tokens are: the unit of method mixture.

Source: Li et al. 2024 (MuSc, arXiv 2401.16753), mutual scoring and its interval average.
Differs from it: squared distances; one scale of neighbourhoods; image scores are not smoothed over
the lot.

Dimension letters: M modalities, S scans of the lot, N tokens, T tokens to compare with, C channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Float32, Int

from pirn_jax.errors import BadInputError

LOWEST = 0.3
"""Share of the other scans whose distances are averaged; one of them at least."""


def lot_distances(
    tokens: Float[Array | np.ndarray, "M S N C"],
    others: Float[Array | np.ndarray, "M S T C"],
    valid: Bool[Array | np.ndarray, "S T"],
) -> Float32[np.ndarray, "M S N"]:
    """How far each token is from its like in the other scans of the lot, in nats a channel.

    The order of the scans changes nothing but the order of the result. One pair of scans is
    compared at a time, so memory beyond the tokens is that of N x T distances.

    Args:
        tokens: to be judged; those that are not valid are given distances too.
        others: of the same scans, to be looked among: the same tokens, or also those of each scan
            turned.
        valid: which of `others` are looked at. A scan of which none is does not count as another.

    Raises:
        BadInputError: no scan has another to be compared with.
    """
    there = np.asarray(valid).any(1)
    if there.sum() < 2:
        raise BadInputError(
            f"a lot of {int(there.sum())}: each scan is judged against the others",
            "give two scans of the part or more",
        )
    shown = jnp.moveaxis(jnp.asarray(others), 1, 0), jnp.asarray(valid)
    found = [
        # Who alone shows nothing has no token to be judged by; all others have one another.
        _distances(jnp.asarray(tokens[:, place]), *shown, jnp.asarray(place))
        for place in range(there.size)
    ]
    return np.stack([np.asarray(one) for one in found], 1)


@jax.jit
def _distances(
    tokens: Float[Array, "M N C"],
    others: Float[Array, "S M T C"],
    valid: Bool[Array, "S T"],
    own: Int[Array, ""],
) -> Float[Array, "M N"]:
    """Of one scan, whose place among the others is `own`."""
    precise = jax.lax.Precision.HIGHEST

    def nearest(other: tuple[Array, Array]) -> Array:
        some, looked_at = other
        # Largest x·y - |y|²/2 is smallest |x - y|.
        near = jnp.einsum("mnc,mtc->mnt", tokens, some, precision=precise)
        near = near - 0.5 * (some * some).sum(-1)[:, None]
        near = jnp.where(looked_at, near, -jnp.inf).max(-1)
        return (tokens * tokens).sum(-1) - 2.0 * near

    count = valid.any(1) & (jnp.arange(len(valid)) != own)
    squared = jax.lax.map(nearest, (others, valid))
    squared = jnp.where(count[:, None, None], jnp.maximum(squared, 0.0), jnp.inf)
    kept = jnp.maximum((LOWEST * count.sum().astype(jnp.float32)).astype(jnp.int32), 1)
    lowest = (jnp.arange(len(valid)) < kept)[:, None, None]
    total = jnp.where(lowest, jnp.sort(squared, 0), 0.0).sum(0)
    return total / (2 * tokens.shape[-1] * kept).astype(tokens.dtype)
