"""Transport: cost → plan."""

from pirn_jax.transport.assignments import FAMILY, Assignment, assign, find_assignment
from pirn_jax.transport.cost import cosine_cost
from pirn_jax.transport.plan import Plan
from pirn_jax.transport.sinkhorn import balanced_plan

__all__ = [
    "FAMILY",
    "Assignment",
    "Plan",
    "assign",
    "balanced_plan",
    "cosine_cost",
    "find_assignment",
]
