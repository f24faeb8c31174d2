"""Which figures there are, where truth is of one kind alone or ignored."""

import numpy as np
import pytest

from pirn_jax.detector import Evaluator, Inferred, Truth
from pirn_jax.geometry.views import fit_frame

SIZE = (6, 6)


def evaluator(scores, labels, masks=None, ignore=None, threshold=0.5):
    found = Evaluator(threshold)
    for place, (score, label) in enumerate(zip(scores, labels, strict=True)):
        mask = None if masks is None else masks[place]
        truth = Truth(str(place), label, "", mask, ignore, fit_frame(SIZE, SIZE))
        fused = np.full(SIZE, score, np.float32)
        found.add(truth, Inferred(score, fused, fused[None], None))
    return found


@pytest.mark.parametrize(
    ("label", "rate", "value"), [(0, "i_false_alarm_rate", 0.25), (1, "i_recall", 0.25)]
)
def test_of_one_kind_alone_its_rate_is_known(label, rate, value):
    scores = [0.1, 0.5, 0.6, 0.2]
    figures, _ = evaluator(scores, [label] * 4).figures()
    assert figures == {"scans": 4.0, "defective": 4.0 * label, rate: value}
    for without in (evaluator(scores, [label] * 4, threshold=None), evaluator([0.6], [None])):
        assert without.figures()[0].keys() == {"scans", "defective"}


def test_masks_of_which_every_defect_or_every_good_pixel_is_ignored_measure_nothing():
    mask = np.zeros(SIZE, bool)
    mask[:2] = True
    for ignore, measured in ((mask, False), (~mask, False), (None, True)):
        figures, _ = evaluator([0.1], [1], [mask], ignore).figures()
        assert ("p_auroc" in figures) == measured
