"""Any assignment, any ε: how sharp, how balanced, how differentiable, how fast.

    python experiments/studies/ot_variants.py --assignments ot softmax --epsilons 0.02 0.05 0.2
    PYTHONPATH=. python experiments/studies/ot_variants.py --assignments my_module:mine --quick

The research entry point for transport: write `assignment(cost, *, epsilon, iterations, row_mass)`
in a file of your own on PYTHONPATH, name it as module:function, and compare it with the family on
the same clustered costs (10 clusters, shares falling from 39 % to 0.4 %, 256 tokens). One line
each:

* effective: mean over tokens of exp(entropy of its weights), 1 to K;
* used: exp(entropy of arg-max usage), 1 to K;
* row sum: mean over tokens;
* column error: largest relative distance of a column from N/K;
* gradient error: relative error of the gradient along a random direction against central
  differences in float64, of the map itself for `unroll`, of its limit for `implicit`;
* ms: of one compiled call, both modalities of an image, median of 30 on the default device.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from pirn_jax.errors import PirnError
from pirn_jax.transport import FAMILY, assign, cosine_cost

# Central differences of a saturated assignment are rounding: below this the error is absolute.
SMALLEST_SLOPE = 1e-2


@dataclass(frozen=True)
class Sweep:
    """Compare assignments on clustered costs."""

    assignments: tuple[str, ...] = tuple(FAMILY)
    """Names of the family, or your own as package.module:function."""
    epsilons: tuple[float, ...] = (0.02, 0.05, 0.2)
    """Regularisation or temperature, in units of the cosine cost."""
    iterations: tuple[int, ...] = (50,)
    """Sinkhorn iterations."""
    gradients: tuple[str, ...] = ("unroll",)
    """unroll, implicit (ot only), stop."""
    heads: tuple[int, ...] = (1,)
    """Cut the channels into so many problems (multi-head); must divide 96."""
    seed: int = 0
    """Of the generated costs."""
    quick: bool = False
    """One ε, the middle one, and fewer timing runs."""


def clustered(seed: int, heads: int) -> np.ndarray:
    """Costs (2, heads, 256, 10), float64."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(2, 10, 96))
    share = np.exp(-0.5 * np.arange(10))
    which = rng.choice(10, (2, 256), p=share / share.sum())
    tokens = np.take_along_axis(centres, which[..., None], 1) + 0.3 * rng.normal(size=(2, 256, 96))
    prototypes = centres + 0.5 * rng.normal(size=centres.shape)
    with jax.enable_x64(True):
        return np.asarray(cosine_cost(jnp.asarray(tokens), jnp.asarray(prototypes), heads=heads))


def gradient_error(cost: np.ndarray, name: str, gradient: str, epsilon: float, n: int) -> float:
    """Relative error against central differences along one direction, in float64."""
    if gradient == "stop":
        return 0.0
    rng = np.random.default_rng(1)
    iterations = 3000 if gradient == "implicit" else n
    with jax.enable_x64(True):
        point, direction, weight = (
            jnp.asarray(x) for x in (cost, rng.normal(size=cost.shape), rng.normal(size=cost.shape))
        )

        def total(c: jax.Array) -> jax.Array:
            plan = assign(c, name, epsilon=epsilon, iterations=iterations, gradient=gradient)
            return (plan.matrix * weight).sum()

        value = jax.jit(total)
        step = 1e-6
        exact = (value(point + step * direction) - value(point - step * direction)) / (2 * step)
        found = (jax.jit(jax.grad(total))(point) * direction).sum()
        return float(abs(found - exact) / max(abs(float(exact)), SMALLEST_SLOPE))


def milliseconds(cost: jax.Array, name: str, epsilon: float, n: int, runs: int) -> float:
    """Median time of one compiled call."""
    call = jax.jit(lambda c: assign(c, name, epsilon=epsilon, iterations=n).matrix)
    jax.block_until_ready(call(cost))
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(call(cost))
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


def main(sweep: Sweep) -> None:
    """Print one line per combination."""
    header = "assignment        ε     iter  heads gradient  effective  used  row sum  column error"
    print(header + "  gradient error      ms")
    middle = len(sweep.epsilons) // 2
    epsilons = sweep.epsilons[middle : middle + 1] if sweep.quick else sweep.epsilons
    for heads in sweep.heads:
        exact = clustered(sweep.seed, heads)
        cost = jnp.asarray(exact, jnp.float32)
        for name in sweep.assignments:
            for epsilon in epsilons:
                for n in sweep.iterations:
                    plan = assign(cost, name, epsilon=epsilon, iterations=n)
                    matrix = np.asarray(plan.matrix, np.float64)
                    shares = matrix / np.maximum(matrix.sum(-1, keepdims=True), 1e-12)
                    entropy = -(shares * np.log(np.maximum(shares, 1e-30))).sum(-1)
                    chosen = (
                        np.bincount(matrix.argmax(-1).ravel(), minlength=10) / matrix[..., 0].size
                    )
                    used = np.exp(-(chosen * np.log(np.maximum(chosen, 1e-30))).sum())
                    took = milliseconds(cost, name, epsilon, n, 5 if sweep.quick else 30)
                    for gradient in sweep.gradients:
                        if gradient == "implicit" and name != "ot":
                            continue
                        error = gradient_error(exact, name, gradient, epsilon, n)
                        print(
                            f"{name[-16:]:16} {epsilon:5.3f} {n:6d} {heads:6d} {gradient:9}"
                            f" {np.exp(entropy).mean():9.2f} {used:5.2f}"
                            f" {matrix.sum(-1).mean():8.3f} {float(plan.column_error.max()):13.2e}"
                            f" {error:15.1e} {took:7.2f}"
                        )


if __name__ == "__main__":
    try:
        main(tyro.cli(Sweep, description=__doc__))
    except PirnError as error:
        raise SystemExit(f"error: {error}") from None
