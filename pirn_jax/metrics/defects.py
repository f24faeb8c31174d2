"""What a threshold finds, defect by defect.

AUPRO weighs every region alike and hides which kind is missed. Where masks carry a defect's id
(MVTec 3D-AD's grey values, Eyecandies' and Real-IAD D3's kinds) recall is told per kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.metrics.pairs import Pairs
from pirn_jax.metrics.pixel import label_regions


def defect_recall(
    maps: Iterable[Any],
    masks: Iterable[Any],
    threshold: float,
    names: Mapping[int, str] | None = None,
    *,
    ignore: Iterable[Any] | None = None,
) -> dict[str, dict[str, float | int]]:
    """Recall of each kind of defect at a threshold.

    Args:
        maps: as for `evaluate_maps`.
        masks: as for `evaluate_maps`; whole numbers, the value > 0 is the defect's id.
        threshold: a pixel is called defective where its score is > threshold.
        names: what to call an id; its number otherwise.
        ignore: as for `evaluate_maps`.

    Returns:
        For each kind: "pixels", "pixel_recall" (share of its pixels found), "regions" (8-connected,
        of this id), "regions_hit" (with at least one pixel found), "region_recall" (their share)
        and "mean_overlap" (mean share of a region found).

    Raises:
        BadInputError: as for `evaluate_maps`; also for masks that are not whole numbers.
        ConfigError: for a threshold that is not finite.
    """
    if not np.isfinite(threshold):
        raise ConfigError(f"threshold must be finite, got {threshold}")
    overlaps: dict[int, list[tuple[int, int]]] = {}
    for pair in Pairs(maps, masks, ignore):
        if pair.mask.dtype.kind == "f" and (pair.mask != np.round(pair.mask)).any():
            raise BadInputError(
                f"{pair.name}: its mask must hold whole defect ids", "do not resize it smoothly"
            )
        # Compared in float64: numpy would round the threshold to a float32 map's type.
        found = pair.scores.astype(np.float64) > threshold
        for value in np.unique(pair.mask[pair.mask > 0]):
            labels = label_regions(pair.mask == value)
            seen = labels > 0 if pair.seen is None else (labels > 0) & pair.seen
            sizes = np.bincount(labels[seen])
            hits = np.bincount(labels[seen & found], minlength=len(sizes))
            kept = np.flatnonzero(sizes)
            entry = overlaps.setdefault(int(value), [])
            entry += zip(sizes[kept].tolist(), hits[kept].tolist(), strict=True)
    overlaps = {value: entry for value, entry in overlaps.items() if entry}
    if not overlaps:
        raise BadInputError(
            "no defective pixel in any mask: recall is undefined",
            "check that the masks are read (> 0 is defective) and not all ignored",
        )
    result: dict[str, dict[str, float | int]] = {}
    for value, entry in sorted(overlaps.items()):
        sizes, hits = np.array(entry).T
        name = str(value) if names is None else names.get(value, str(value))
        if name in result:
            raise ConfigError(f"names calls two ids {name!r}", "give each id its own name")
        result[name] = {
            "pixels": int(sizes.sum()),
            "pixel_recall": float(hits.sum() / sizes.sum()),
            "regions": len(sizes),
            "regions_hit": int((hits > 0).sum()),
            "region_recall": float((hits > 0).mean()),
            "mean_overlap": float((hits / sizes).mean()),
        }
    return result
