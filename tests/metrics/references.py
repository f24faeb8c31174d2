"""Slow writings of the metrics from their definitions, to compare with. Nothing here is clever."""

import numpy as np
from scipy import ndimage


def regions_of(masks, ignore=None):
    """Boolean maps of each 8-connected region, as (image, map) pairs, ignored pixels taken out."""
    for image, mask in enumerate(masks):
        labels, count = ndimage.label(np.asarray(mask) > 0, np.ones((3, 3)))
        for label in range(1, count + 1):
            region = labels == label
            if ignore is not None and ignore[image] is not None:
                region &= ~np.asarray(ignore[image]).astype(bool)
            if region.any():
                yield image, region


def area_to(x, y, limit):
    """Area under straight lines through (x, y), x ascending, from 0 to the limit."""
    total = 0.0
    for x0, x1, y0, y1 in zip(x[:-1], x[1:], y[:-1], y[1:], strict=True):
        if x1 <= limit:
            total += (x1 - x0) * (y0 + y1) / 2
        elif x0 < limit:
            at_limit = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            total += (limit - x0) * (y0 + at_limit) / 2
    return total


def brute_force(maps, masks, limits, ignore=None):
    """One binary map per distinct score; FPR, recall, precision and PRO counted in each."""
    seen = [
        np.ones(m.shape, bool) if ignore is None or ignore[i] is None else ~ignore[i].astype(bool)
        for i, m in enumerate(maps)
    ]
    scores = np.concatenate([m[s].astype(np.float64) for m, s in zip(maps, seen, strict=True)])
    truth = np.concatenate([(m > 0)[s] for m, s in zip(masks, seen, strict=True)])
    regions = list(regions_of(masks, ignore))
    fpr, tpr, pro, precision, f1 = [0.0], [0.0], [0.0], [], []
    for threshold in np.unique(scores)[::-1]:
        called = scores >= threshold
        tp, fp = int((called & truth).sum()), int((called & ~truth).sum())
        fpr.append(fp / int((~truth).sum()))
        tpr.append(tp / int(truth.sum()))
        precision.append(tp / (tp + fp))
        f1.append(2 * tp / (tp + fp + int(truth.sum())))
        pro.append(
            np.mean([(maps[i][r].astype(np.float64) >= threshold).mean() for i, r in regions])
        )
    result = {
        "p_auroc": area_to(fpr, tpr, 1.0),
        "p_ap": float(np.sum(np.diff(tpr) * precision)),
        "p_f1max": max(f1),
    }
    return result | {f"aupro_{limit:g}": area_to(fpr, pro, limit) / limit for limit in limits}


def sort_everything(maps, masks, limits):
    """AUPRO as MVTec publish it: sort all pixels, accumulate false positives and overlap, keep the
    last of each tie, join by straight lines, divide by the limit. All maps of one size."""
    maps, masks = np.asarray(maps), np.asarray(masks) > 0
    per_pixel_pro = np.zeros(maps.shape)
    count = 0
    for image, region in regions_of(masks):
        per_pixel_pro[image][region] = 1.0 / region.sum()
        count += 1
    order = np.argsort(maps, axis=None)[::-1]
    scores = maps.reshape(-1)[order]
    fpr = np.cumsum(~masks.reshape(-1)[order]) / (~masks).sum()
    pro = np.cumsum(per_pixel_pro.reshape(-1)[order]) / count
    last = np.append(scores[1:] != scores[:-1], True)
    fpr, pro = np.append(0.0, fpr[last]), np.append(0.0, pro[last])
    return [_interpolated_area(fpr, pro, limit) / limit for limit in limits]


def _interpolated_area(x, y, limit):
    inside = x < limit
    at_limit = np.interp(limit, x[np.argmax(~inside) - 1 :][:2], y[np.argmax(~inside) - 1 :][:2])
    return float(np.trapezoid(np.append(y[inside], at_limit), np.append(x[inside], limit)))


def ninety_nine(maps, masks, limits):
    """AUPRO as CFM compute it, maps and masks at their evaluation size already."""
    maps, masks = np.asarray(maps, np.float64), np.asarray(masks) > 0
    regions = list(regions_of(masks))
    normal = sorted(maps[~masks].tolist())
    x, y = [1.0], [1.0]
    for position in np.linspace(0, len(normal) - 1, num=99, dtype=int):
        x.append(1.0 - (int(position) + 1) / len(normal))
        y.append(float(np.mean([(maps[i][r] > normal[position]).mean() for i, r in regions])))
    return [area_to(x[::-1], y[::-1], limit) / limit for limit in limits]
