"""What is kept of a test set is what the metrics say of its maps, each stream's own among them."""

import numpy as np
import pytest

from harness.evaluation import evaluate, evaluation_of
from pirn_jax.detector import Inferred, Truth
from pirn_jax.geometry.views import fit_frame
from pirn_jax.metrics import evaluate_maps, image_metrics

SIDE, COUNT = 24, 9


def scans(modalities: int, with_masks: bool = True) -> tuple[list[Inferred], list[Truth]]:
    """Maps of the model's size for scans of that size, every third of them good."""
    rng = np.random.default_rng(0)
    frame = fit_frame((SIDE, SIDE), (SIDE, SIDE))
    inferences, truths = [], []
    for k in range(COUNT):
        mask = np.zeros((SIDE, SIDE), bool)
        if k % 3:
            mask[4:12, 6 : 10 + k] = True
        maps = rng.random((modalities, SIDE, SIDE)) + 0.4 * mask
        maps = maps.astype(np.float32)
        fused = maps.mean(0)
        inferences.append(Inferred(float(np.sort(fused.ravel())[-5:].mean()), fused, maps, None))
        kept = mask if with_masks else None
        defect = "hole" if k % 3 else "good"
        truths.append(Truth(f"{k}", int(k % 3 > 0), defect, kept, None, frame))
    return inferences, truths


def test_both_streams_have_figures_of_their_own():
    inferences, truths = scans(2)
    found = evaluate(inferences, truths, ("rgb", "normals"))
    labels, masks = np.array([t.label for t in truths]), [t.mask for t in truths]
    fused, scores = [i.fused for i in inferences], np.array([i.score for i in inferences])
    expected = image_metrics(scores, labels) | evaluate_maps(fused, masks)
    assert found["figures"] == pytest.approx(expected)
    assert found["cfm99"] == pytest.approx(evaluate_maps(fused, masks, protocol="cfm99"))
    for place, name in enumerate(("rgb", "normals")):
        maps = [i.maps[place] for i in inferences]
        highest = np.array([one.max() for one in maps])
        expected = image_metrics(highest, labels) | evaluate_maps(maps, masks)
        assert found["modalities"][name] == pytest.approx(expected)
        assert found["images"][f"score_{name}"] == pytest.approx(list(highest))
    evaluation, bad = evaluation_of(found)
    np.testing.assert_array_equal(bad, labels == 1)
    assert evaluation.pixels is not None


def test_the_map_of_one_stream_is_the_fused_one():
    inferences, truths = scans(1)
    found = evaluate(inferences, truths, ("rgb",))
    own = found["modalities"]["rgb"]
    assert own.keys() == found["figures"].keys()
    for name, value in own.items():
        if not name.startswith("i_"):
            assert value == found["figures"][name]
    highest = np.array([i.maps[0].max() for i in inferences])
    labels = np.array([t.label for t in truths])
    assert own["i_auroc"] == pytest.approx(image_metrics(highest, labels)["i_auroc"])


def test_without_masks_there_are_image_figures_alone():
    inferences, truths = scans(2, with_masks=False)
    found = evaluate(inferences, truths, ("rgb", "normals"))
    assert found["figures"]
    assert all(name.startswith("i_") for name in found["figures"])
    assert found["cfm99"] == {}
    assert "histograms" not in found
    assert evaluation_of(found)[0].pixels is None
