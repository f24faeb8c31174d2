"""Metrics: maps and masks → AUROC, AP, F1 and AUPRO, exact and at any size.

Numpy and scipy are all it needs.

>>> from pirn_jax.metrics import evaluate_maps, image_metrics
>>> evaluate_maps(maps, masks)              # p_auroc, p_ap, p_f1max, aupro_0.3, ...
>>> image_metrics(scores, labels)           # i_auroc, i_ap, i_f1max

For any detector's maps: `python -m pirn_jax.metrics MAPS MASKS`.
"""

from pirn_jax.metrics.image import image_intervals, image_metrics
from pirn_jax.metrics.pixel import evaluate_maps

__all__ = ["evaluate_maps", "image_intervals", "image_metrics"]
