"""Gaussians of low rank: their densities, a mixture of them fitted by EM, and the same widened.

    C_k = V_k Λ_k V_k^T + s_k (I - V_k V_k^T)

with R principal directions V_k of variances Λ_k, and s_k the mean variance of all others.

Source: Tipping and Bishop 1999 (mixtures of probabilistic principal component analysers).

Dimension letters: K Gaussians, P means (fewer where several share one), C channels, R directions,
S of them that are followed, T tokens, B images, N tokens of an image, M modalities.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Float32, Int

_PRECISE = jax.lax.Precision.HIGHEST
_NEVER = -1e30  # log weight of a Gaussian that stands for nothing
_CLUSTERED = 4000  # tokens, at most, that the first clusters are made from
_SPARE = 8  # directions followed beyond those kept, so that these are found faster
_SMALLEST = 1e-6  # variance of a channel at the tokens' scale
_MOVED = 0.25  # of the largest squared move of an image's tokens: more is a defect's


class Gaussians(NamedTuple):
    """A mixture; of several modalities with an axis M in front.

    Attributes:
        mean: (K, C), μ: the prototypes. (P, C) where K is a multiple of P: Gaussian k has mean k
            modulo P, and what only means decide is computed once.
        basis: (K, C, R), V: orthonormal columns.
        variance: (K, R), Λ.
        rest: (K,), s: variance of every other direction.
        log_weight: (K,), log π.
    """

    mean: Float[Array | np.ndarray, "*M P C"]
    basis: Float[Array | np.ndarray, "*M K C R"]
    variance: Float[Array | np.ndarray, "*M K R"]
    rest: Float[Array | np.ndarray, "*M K"]
    log_weight: Float[Array | np.ndarray, "*M K"]


def log_joint(
    known: Gaussians, x: Float[Array | np.ndarray, "*batch C"]
) -> Float[Array, "*batch K"]:
    """Log π_k + log N(x; μ_k, C_k), without the constant -C/2 log 2π.

    One matrix product gives all tokens' coordinates in all prototypes' directions.
    """
    mean, basis, variance, rest, log_weight = (jnp.asarray(part) for part in known)
    leading = (1,) * (x.ndim - 1)
    _, channels, rank = basis.shape
    shared = basis.reshape(-1, *mean.shape, rank)

    def each(value: Array) -> Array:  # one for all tokens
        return value.reshape(leading + value.shape)

    inside = jnp.einsum("...c,kcr->...kr", x, basis, precision=_PRECISE)
    own = jnp.einsum("pc,npcr->npr", mean, shared, precision=_PRECISE)
    inside = inside - each(own.reshape(-1, rank))
    squared = jnp.concatenate([_squared_distances(jnp.asarray(x), mean)] * len(shared), -1)
    beyond = jnp.maximum(squared - (inside * inside).sum(-1), 0.0)
    determinant = jnp.log(variance).sum(-1) + (channels - rank) * jnp.log(rest)
    mahalanobis = (inside * inside / each(variance)).sum(-1) + beyond / each(rest)
    return each(log_weight - 0.5 * determinant) - 0.5 * mahalanobis


def _squared_distances(
    x: Float[Array, "*batch C"], mean: Float[Array, "P C"]
) -> Float[Array, "*batch P"]:
    """|x - μ|², from the nearest μ on.

    |x|² - 2 x·μ + |μ|² would leave of a short distance between long vectors little but rounding.
    """

    def product(pattern: str, one: Array, other: Array) -> Array:
        return jnp.einsum(pattern, one, other, precision=_PRECISE)

    half = (0.5 * (mean * mean).sum(-1)).reshape((1,) * (x.ndim - 1) + (-1,))
    place = (product("...c,pc->...p", x, mean) - half).argmax(-1)
    nearest = jax.nn.one_hot(place, len(mean), dtype=x.dtype)
    left = x - product("...p,pc->...c", nearest, mean)
    between = jnp.square(mean[:, None] - mean[None]).sum(-1)
    along = product("...c,pc->...p", left, mean)
    along = (along * nearest).sum(-1, keepdims=True) - along
    return (
        (left * left).sum(-1, keepdims=True)
        + 2.0 * along
        + product("...p,pq->...q", nearest, between)
    )


_log_joint = jax.jit(log_joint)


def fit_mixture(
    tokens: Float32[np.ndarray, "T C"],
    *,
    prototypes: int,
    rank: int,
    prior: float,
    rounds: int,
    seed: int,
) -> Gaussians:
    """Hard EM from k-means++.

    Gaussians beyond the number of tokens stand for nothing: their weight is 0.

    Args:
        tokens: of the shots, at the method's scale.
        prototypes: K.
        rank: R.
        prior: pseudo-tokens with the covariance of all tokens that each Gaussian is given.
        rounds: of EM, at most.
        seed: of the clusters' start.
    """
    count, channels = tokens.shape
    used = min(prototypes, count)
    centre = tokens.mean(0)
    everything = _scatter(tokens - centre) / count
    random = np.random.default_rng(seed)
    start = random.standard_normal((channels, min(rank + _SPARE, channels)))
    basis = np.broadcast_to(start.astype(np.float32), (used, *start.shape))
    owner = _clusters(tokens, used, random)
    for step in range(rounds):
        known, basis = _maximise(tokens, owner, used, prior, everything, basis, rank)
        if step + 1 == rounds or used == 1:
            break
        nearest = log_joint_of(known, tokens).argmax(-1)
        if (nearest != owner).mean() < 1e-3:
            break
        owner = nearest
    spare = prototypes - used
    if not spare:
        return known
    filled = (np.concatenate([part, part[:1].repeat(spare, 0)]) for part in known)
    known = Gaussians(*filled)
    known.log_weight[used:] = _NEVER
    return known


def _clusters(
    tokens: Float32[np.ndarray, "T C"], count: int, random: np.random.Generator
) -> Int[np.ndarray, " T"]:
    """The cluster of each token: k-means on some of them, then the nearest centre."""
    from scipy.cluster.vq import kmeans2, vq

    some = tokens
    if len(tokens) > _CLUSTERED:
        some = tokens[random.choice(len(tokens), _CLUSTERED, replace=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster: its centre stays
        centres, _ = kmeans2(some, count, iter=8, minit="++", rng=random)
    return vq(tokens, centres, check_finite=False)[0]


def _maximise(
    tokens: Float32[np.ndarray, "T C"],
    owner: Int[np.ndarray, " T"],
    count: int,
    prior: float,
    everything: Float32[np.ndarray, "C C"],
    start: Float32[np.ndarray, "K C S"],
    rank: int,
) -> tuple[Gaussians, Float32[np.ndarray, "K C S"]]:
    """The Gaussians of the tokens that each owns, and the directions to start from next time."""
    channels = tokens.shape[1]
    own = np.bincount(owner, minlength=count)
    mean = np.empty((count, channels), np.float32)
    covariance = np.empty((count, channels, channels), np.float32)
    for k in range(count):
        members = tokens[owner == k]
        mean[k] = members.mean(0) if len(members) else tokens.mean(0)
        weight = len(members) + prior
        total = _scatter(members - mean[k]) + np.float32(prior) * everything
        covariance[k] = total / weight if weight else everything
    kept, directions, rest, basis = _directions(covariance, start, rank)
    known = Gaussians(
        mean=mean,
        basis=directions,
        variance=kept,
        rest=rest,
        log_weight=np.log((own + 1) / (len(tokens) + count)).astype(np.float32),
    )
    return known, basis


def _directions(
    covariance: Float32[np.ndarray, "K C C"], start: Float32[np.ndarray, "K C S"], rank: int
) -> tuple[
    Float32[np.ndarray, "K R"],
    Float32[np.ndarray, "K C R"],
    Float32[np.ndarray, " K"],
    Float32[np.ndarray, "K C S"],
]:
    """Variances and directions of the largest, the mean variance of all others, what to go on from.

    By subspace iteration, which finds them the faster the nearer `start` is.
    """
    basis = start
    for _ in range(4):
        basis, _ = np.linalg.qr(covariance @ basis)
    inner = np.swapaxes(basis, 1, 2) @ covariance @ basis
    variance, turn = np.linalg.eigh(inner)
    basis = basis @ turn
    total = np.trace(covariance, axis1=1, axis2=2)
    kept, channels = variance[:, -rank:], covariance.shape[-1]
    rest = np.maximum((total - kept.sum(-1)) / (channels - rank), _SMALLEST).astype(np.float32)
    return np.maximum(kept, rest[:, None]), basis[:, :, -rank:], rest, basis


def moves_of(
    move: Float32[np.ndarray, "B N C"], counted: Bool[np.ndarray, "B N"]
) -> Float32[np.ndarray, "_ C"]:
    """The moves of the tokens that pseudo-defects moved most in their picture.

    Args:
        move: of each token, at the method's scale.
        counted: tokens that show the part.
    """
    squared = np.where(counted, (move * move).sum(-1), 0.0)
    return move[squared > _MOVED * squared.max(-1, keepdims=True)]


def widened(known: Gaussians, moves: Float32[np.ndarray, "_ C"]) -> Gaussians:
    """The prototypes, then each with the second moment of the moves added to its covariance.

    Args:
        known: K prototypes.
        moves: of tokens that a defect covers; of none, any move is as likely, of unit variance.
    """
    mean, basis, variance, rest, log_weight = map(np.asarray, known)
    _, channels, rank = basis.shape
    second = np.eye(channels, dtype=np.float32)
    if len(moves):
        second = _scatter(moves) / len(moves)
    covariance = (basis * (variance - rest[:, None])[:, None]) @ np.swapaxes(basis, 1, 2)
    covariance += second
    covariance[:, np.arange(channels), np.arange(channels)] += rest[:, None]
    leading = np.linalg.eigh(second)[1][:, -rank:]
    start = np.concatenate([basis, np.broadcast_to(leading, basis.shape)], -1)[..., :channels]
    variance, basis, rest, _ = _directions(covariance, start, rank)
    wide = Gaussians(mean, basis, variance, rest, log_weight)
    return Gaussians(*(np.concatenate(pair) for pair in zip(known, wide, strict=True)))


def _scatter(centred: Float32[np.ndarray, "T C"]) -> Float32[np.ndarray, "C C"]:
    return centred.T @ centred


def log_joint_of(
    known: Gaussians, tokens: Float32[np.ndarray, "T C"]
) -> Float32[np.ndarray, "T K"]:
    """`log_joint` of many tokens, a piece at a time, all of one shape."""
    piece = 2048
    parts = math.ceil(len(tokens) / piece)
    padded = np.pad(tokens, ((0, parts * piece - len(tokens)), (0, 0)))
    found = [np.asarray(_log_joint(known, one)) for one in np.split(padded, parts)]
    return np.concatenate(found)[: len(tokens)]
