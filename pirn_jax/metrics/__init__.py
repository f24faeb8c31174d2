"""Metrics: maps and masks → figures, exact and at any size. Numpy and scipy are all it needs.

>>> from pirn_jax.metrics import evaluate_maps, image_metrics
>>> evaluate_maps(maps, masks)              # p_auroc, p_ap, p_f1max, aupro_0.3, ...
>>> image_metrics(scores, labels)           # i_auroc, i_ap, i_f1max

For any detector's maps: `python -m pirn_jax.metrics MAPS MASKS`.
"""

from pirn_jax.metrics.defects import defect_recall
from pirn_jax.metrics.image import image_intervals, image_metrics, summarise
from pirn_jax.metrics.pixel import evaluate_maps

__all__ = ["defect_recall", "evaluate_maps", "image_intervals", "image_metrics", "summarise"]
