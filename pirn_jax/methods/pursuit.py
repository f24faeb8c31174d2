"""Orthogonal matching pursuit: a vector as a sum of few others, out of those nearest to it.

The atom with the largest product with what is not yet explained is chosen; what all chosen ones
explain together is taken away; and again. Each atom is first freed of what those before it explain
(Gram and Schmidt), so that no system of equations is solved.

Source: Pati, Rezaiifar and Krishnaprasad 1993 (OMP). Atoms are taken as long as they are, as
scikit-learn's `orthogonal_mp` takes them.

Dimension letters: Q vectors, T of a bank, A atoms of each, C channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from pirn_jax.methods.layers import product

_DEPENDENT = 1e-6  # of an atom's square: less is left of one that those before it make up


def closest(
    queries: Float[Array, "Q C"], bank: Float[Array, "T C"], out: Bool[Array, "q T"], count: int
) -> tuple[Int[Array, "Q A"], Float[Array, "Q A C"]]:
    """The nearest of a bank, as places and as atoms.

    Args:
        queries: tokens or codes.
        bank: what is searched.
        out: what of it counts as infinitely far, for all queries or each; found all the same where
            too little is left, it is an atom of zeros.
        count: how many.
    """
    near = product(queries, bank.T) - 0.5 * (bank * bank).sum(-1)[None]
    value, places = jax.lax.top_k(jnp.where(out, -jnp.inf, near), min(count, len(bank)))
    return places, jnp.where(jnp.isfinite(value)[..., None], bank[places], 0.0)


def pursue(
    vectors: Float[Array, "Q C"], atoms: Float[Array, "Q A C"], count: int
) -> Float[Array, "Q C"]:
    """Each vector as rebuilt from so many of its own atoms.

    Args:
        vectors: to be rebuilt.
        atoms: of each vector; one of zeros is never of use.
        count: steps: the most atoms in a sum.
    """
    left, found = vectors, []
    for _ in range(count):
        best = jnp.abs((atoms * left[:, None]).sum(-1)).argmax(-1)
        atom = jnp.take_along_axis(atoms, best[:, None, None], axis=1)[:, 0]
        own = (atom * atom).sum(-1, keepdims=True)
        for before in found:
            atom = atom - (atom * before).sum(-1, keepdims=True) * before
        square = (atom * atom).sum(-1, keepdims=True)
        new = square > _DEPENDENT * own
        unit = jnp.where(new, atom / jnp.sqrt(jnp.where(new, square, 1.0)), 0.0)
        left = left - (left * unit).sum(-1, keepdims=True) * unit
        found.append(unit)
    return vectors - left
