"""Pixel metrics against slow writings of the definitions, scikit-learn, and each other."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from pirn_jax.errors import BadInputError, ConfigError, PirnError
from pirn_jax.metrics import cfm99, evaluate_maps, pixel, ranking
from tests.metrics.references import area_to, brute_force, ninety_nine, sort_everything

LIMITS = (0.3, 0.1, 0.05, 0.01)


def draw(seed, images=4, height=13, width=11, levels=None, dtype=np.float32):
    """Random maps and masks; few levels mean heavy ties."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(images, height, width))
    masks = np.stack([ndimage.gaussian_filter(n, 1.2) > 0.25 for n in noise])
    masks[0] = False
    masks[1, 3:6, 4:7] = True
    masks[1, 0, 0] = False
    maps = generator.normal(size=masks.shape) + generator.uniform(0, 2) * masks
    if levels is not None:
        maps = np.round(maps * levels) / levels
    return maps.astype(dtype), (masks * generator.integers(1, 250)).astype(np.uint8)


def same(got, want, tolerance=1e-7):
    assert want
    assert set(want) <= set(got)
    for name, value in want.items():
        assert got[name] == pytest.approx(value, abs=tolerance), name


@pytest.mark.parametrize("levels", [1, 2, 5, 40, None])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_brute_force_and_the_published_curve(levels, dtype):
    """20 x 5 tie levels x 2 types = 200 cases; with one level per unit most pixels are tied."""
    for seed in range(20):
        maps, masks = draw(seed, levels=levels, dtype=dtype)
        got = evaluate_maps(maps, masks, LIMITS)
        same(got, brute_force(maps, masks, LIMITS))
        published = sort_everything(maps, masks, LIMITS)
        for limit, value in zip(LIMITS, published, strict=True):
            assert got[f"aupro_{limit:g}"] == pytest.approx(value, abs=1e-7)
        truth = masks.reshape(-1) > 0
        assert got["p_auroc"] == pytest.approx(roc_auc_score(truth, maps.reshape(-1)), abs=1e-7)
        want = average_precision_score(truth, maps.reshape(-1))
        assert got["p_ap"] == pytest.approx(want, abs=1e-7)


@pytest.mark.parametrize("chunk", [1, 3, 64, 1000])
def test_chunks_and_bands_change_nothing(monkeypatch, chunk):
    maps, masks = draw(5, levels=3)
    want = evaluate_maps(maps, masks, curves=50, threshold=0.4)
    monkeypatch.setattr(pixel, "CHUNK", chunk)
    assert evaluate_maps(maps, masks, curves=50, threshold=0.4) == want


@pytest.mark.parametrize(
    "rescale",
    [
        lambda s: s.astype(np.float64) ** 3,
        lambda s: np.exp(s.astype(np.float64)),
        lambda s: s * 1024,
        lambda s: np.searchsorted(np.unique(s), s).astype(np.uint16),
    ],
    ids=["cube", "exp", "power of two", "rank"],
)
def test_invariant_under_increasing_maps_exactly(rescale):
    for seed in range(20):
        maps, masks = draw(seed, levels=7)
        assert evaluate_maps(rescale(maps), masks) == evaluate_maps(maps, masks)


def test_order_of_images_and_way_of_passing_do_not_matter(tmp_path):
    maps, masks = draw(3, images=6)
    want = evaluate_maps(maps, masks)
    order = [4, 2, 0, 5, 1, 3]
    same(evaluate_maps(maps[order], masks[order]), want, 1e-14)
    np.save(tmp_path / "maps.npy", maps)
    assert evaluate_maps(np.load(tmp_path / "maps.npy", mmap_mode="r"), list(masks)) == want

    class Source:
        def __iter__(self):
            return (row for row in maps)

    assert evaluate_maps(Source(), masks) == want
    assert evaluate_maps(maps.astype(">f4"), masks) == want


def test_maps_of_different_sizes_in_one_set():
    """Cutting a map in two between its regions changes nothing that is pooled over pixels."""
    maps, masks = draw(9, images=2, height=30, width=20)
    masks[:] = 0
    masks[0, 2:6, 3:9], masks[0, 20:28, 5:7], masks[1, 25:29, 10:18] = 1, 2, 3
    cut_maps = [maps[0, :11], maps[0, 11:], maps[1]]
    cut_masks = [masks[0, :11], masks[0, 11:], masks[1]]
    same(evaluate_maps(cut_maps, cut_masks), evaluate_maps(maps, masks), 1e-14)


def test_mixed_float_types_compare_exactly():
    maps, masks = draw(4, images=4, dtype=np.float64)
    mixed = [maps[0].astype(np.float32), maps[1], maps[2].astype(np.float16), maps[3]]
    same(evaluate_maps(mixed, masks), brute_force(mixed, masks, LIMITS))


def test_known_values():
    """One row of ten normals 0..9 and a two-pixel region at 8.5 and 3 (a tie): counted by hand."""
    scores = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 8.5, 3]], np.float32)
    mask = np.array([[0] * 10 + [1, 1]])
    got = evaluate_maps([scores], [mask], (1.0, 0.3))
    assert got["p_auroc"] == pytest.approx(1 - (0.1 + 0.65) / 2)
    assert got["p_ap"] == pytest.approx((1 / 2 + 2 / 9) / 2)
    assert got["p_f1max"] == pytest.approx(0.5)
    assert got["aupro_1"] == pytest.approx(got["p_auroc"])
    assert got["aupro_0.3"] == pytest.approx(0.5 * (0.3 - 0.1) / 0.3)


def test_perfect_is_one_inverted_is_nought_constant_is_half_the_limit():
    _, masks = draw(1)
    perfect = masks.astype(np.float32)
    figures = evaluate_maps(perfect, masks, LIMITS)
    assert set(figures.values()) == {1.0}
    figures = evaluate_maps(-perfect, masks, LIMITS)
    assert figures["p_auroc"] == 0.0
    assert all(figures[f"aupro_{limit:g}"] == pytest.approx(0, abs=1e-12) for limit in LIMITS)
    figures = evaluate_maps(np.ones_like(perfect), masks, LIMITS)
    assert figures["p_auroc"] == pytest.approx(0.5)
    assert [figures[f"aupro_{limit:g}"] for limit in LIMITS] == pytest.approx(
        [limit / 2 for limit in LIMITS]
    )


def test_regions_are_eight_connected():
    """Two pixels that touch at a corner are one region: found one gives an overlap of 1/2."""
    mask = np.zeros((6, 6), np.uint8)
    mask[1, 1] = mask[2, 2] = 1
    mask[4, 4] = mask[4, 5] = mask[5, 4] = mask[5, 5] = 1
    scores = np.zeros((6, 6))
    scores[1, 1] = 1
    scores[4:, 4:] = 1
    # As one region the overlap is (1/2 + 1) / 2 at no false positive; as two it would be 2/3.
    want = 0.75 + (1.0 - 0.75) * 0.1 / 2
    assert evaluate_maps([scores], [mask], (0.1,))["aupro_0.1"] == pytest.approx(want)


def test_ignored_pixels_are_neither_good_nor_bad():
    for seed in range(10):
        maps, masks = draw(seed, levels=4)
        ignore = [np.random.default_rng(seed + i).random(maps[0].shape) < 0.3 for i in range(4)]
        ignore[2] = None
        same(
            evaluate_maps(maps, masks, LIMITS, ignore=ignore),
            brute_force(maps, masks, LIMITS, ignore),
        )
    with pytest.raises(BadInputError, match="no defective pixel"):
        evaluate_maps(maps, masks, ignore=masks > 0)


def test_f1_at_a_threshold():
    maps, masks = draw(2, levels=4)
    for threshold in (-0.25, 0.3, 0.5, 1.0):
        called, truth = maps > threshold, masks > 0
        tp = (called & truth).sum()
        want = 2 * tp / (called.sum() + truth.sum())
        assert evaluate_maps(maps, masks, threshold=threshold)["p_f1"] == pytest.approx(want)


def test_a_threshold_between_two_float32_scores():
    below = np.float32(0.1)
    above = np.nextafter(below, np.float32(1))
    scores = np.array([[below, above, below, above]], np.float32)
    mask = np.array([[0, 0, 1, 1]])
    halfway = (float(below) + float(above)) / 2  # rounds to one of them in float32
    for threshold, want in ((halfway, 2 / 4), (float(below), 2 / 4), (float(above), 0.0)):
        assert evaluate_maps([scores], [mask], threshold=threshold)["p_f1"] == want


def test_curves_lie_on_the_exact_curve():
    maps, masks = draw(7, levels=6)
    thick = evaluate_maps(maps, masks, (0.3,), curves=100_000)
    assert area_to(thick["roc"]["fpr"], thick["roc"]["tpr"], 1.0) == pytest.approx(
        thick["p_auroc"], abs=1e-12
    )
    assert area_to(thick["pro"]["fpr"], thick["pro"]["pro"], 0.3) / 0.3 == pytest.approx(
        thick["aupro_0.3"], abs=1e-12
    )
    thin = evaluate_maps(maps, masks, curves=20)
    for name, rise in (("roc", "tpr"), ("pro", "pro")):
        every = set(zip(thick[name]["fpr"], thick[name][rise], strict=True))
        assert set(zip(thin[name]["fpr"], thin[name][rise], strict=True)) <= every
        assert 2 <= len(thin[name]["fpr"]) <= 22
        for curve in (thick, thin):
            assert (curve[name]["fpr"][0], curve[name][rise][0]) == (0.0, 0.0)
            assert (curve[name]["fpr"][-1], curve[name][rise][-1]) == (1.0, pytest.approx(1.0))


def test_counts_beyond_32_bits_and_beyond_float32():
    """More than 2^31 normal and 2^24 defective pixels: against exact fractions."""
    counts = np.array([3 * 10**9, 2**24 + 1, 7], np.int64)
    above = np.array([5 * 10**9, 2 * 10**9 + 1, 3], np.int64)
    above_or_equal = above + np.array([10**9, 0, 1])
    normal = 9 * 10**10
    weights = counts / counts.sum()
    ranked = ranking.Ranking(np.arange(3.0), counts, above, above_or_equal, normal, weights)
    total = int(counts.sum())
    pairs = list(zip(counts.tolist(), above.tolist(), above_or_equal.tolist(), strict=True))
    want = 1 - sum(Fraction(c * (a + b), 2 * total * normal) for c, a, b in pairs)
    assert ranking.auroc(ranked) == pytest.approx(float(want), abs=1e-15)
    found = [total, total - pairs[0][0], 7]
    precisions = [Fraction(t, t + b) for (_, _, b), t in zip(pairs, found, strict=True)]
    want = sum(Fraction(c, total) * p for (c, _, _), p in zip(pairs, precisions, strict=True))
    assert ranking.average_precision(ranked) == pytest.approx(float(want), abs=1e-15)
    want = max(Fraction(2 * t, t + b + total) for (_, _, b), t in zip(pairs, found, strict=True))
    assert ranking.f1_max(ranked) == pytest.approx(float(want), abs=1e-15)


def test_more_pixels_than_float32_can_count():
    """17.6 million pixels: sums kept in float32 would stall at 2^24."""
    scores = np.zeros((4200, 4200), np.uint8)
    mask = np.zeros(scores.shape, np.uint8)
    mask[:100], scores[:50], scores[-1] = 1, 2, 1
    normal, hot = 4100 * 4200, 4200
    got = evaluate_maps([scores], [mask], (0.3,))
    assert got["p_auroc"] == pytest.approx(1 - 0.5 * (hot / normal + 1) / 2, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_cfm99_equals_an_independent_writing(seed):
    generator = np.random.default_rng(seed)
    maps = ndimage.gaussian_filter(generator.normal(size=(3, 224, 224)), (0, 4, 4))
    masks = np.zeros(maps.shape, np.uint8)
    masks[1, 30:60, 40:90], masks[2, 100:110, 20:200], masks[2, 150:152, 150:152] = 255, 254, 253
    maps += 0.03 * (masks > 0) * generator.random(maps.shape)
    if seed > 2:
        maps = np.round(maps, 2)
    got = evaluate_maps(maps.astype(np.float32), masks, LIMITS, protocol="cfm99")
    want = ninety_nine(maps.astype(np.float32), masks, LIMITS)
    assert [got[f"aupro_{limit:g}"] for limit in LIMITS] == pytest.approx(want, abs=1e-7)
    exact = evaluate_maps(maps.astype(np.float32), masks, LIMITS)
    assert got["p_auroc"] == exact["p_auroc"]  # at 224 x 224 only AUPRO differs
    assert 0 < abs(exact["aupro_0.01"] - got["aupro_0.01"]) < 0.2


@pytest.mark.torch
def test_cfm99_sizes_follow_pillow_and_torch():
    torch = pytest.importorskip("torch")
    image = pytest.importorskip("PIL.Image")
    generator = np.random.default_rng(0)
    for height, width in ((300, 400), (450, 200), (223, 224), (97, 31)):
        side = max(height, width)
        scores = generator.normal(size=(height, width))  # float64: torch's float32 places drift
        square = cfm99.pad_square(scores, scores.min())
        assert square.shape == (side, side)
        want = torch.nn.functional.interpolate(
            torch.from_numpy(square)[None, None], size=(224, 224), mode="bilinear"
        )[0, 0]
        np.testing.assert_allclose(cfm99.resize_map(square), want, atol=1e-10)
        mask = generator.integers(0, 256, (side, side)).astype(np.uint8)
        want = np.asarray(image.fromarray(mask).resize((224, 224), image.Resampling.NEAREST))
        np.testing.assert_array_equal(cfm99.nearest(mask), want)


def test_cfm99_takes_any_size_and_ignores():
    maps, masks = draw(0, images=3, height=90, width=120)
    got = evaluate_maps(maps, masks, protocol="cfm99", ignore=[None, maps[1] > 1, None])
    assert all(0 <= value <= 1 for value in got.values())


def bad_cases():
    maps, masks = draw(0)
    nan, infinite = maps.copy(), maps.copy()
    nan[2, 3, 4], infinite[3, 0, 0] = np.nan, -np.inf
    yield "no anomaly", (maps, np.zeros_like(masks)), "no defective pixel in any of 4 masks"
    yield "no good", (maps, np.ones_like(masks)), "no good pixel"
    yield "NaN", (nan, masks), r"map 2: scores must be finite, got 1 NaN and 0 infinite"
    yield "infinite", (infinite, masks), r"map 3: .* got 0 NaN and 1 infinite"
    yield (
        "shape",
        (maps, [*masks[:3], masks[3][:-1]]),
        "map 3: its mask has shape",
    )
    yield "channels", (maps[..., None], masks), r"map 0: a map has two dimensions"
    yield "empty", ([], []), "there are no maps"
    yield "empty map", ([np.zeros((0, 3))], [np.zeros((0, 3))]), "two dimensions"
    yield "fewer masks", (maps, masks[:3]), "masks ended after 3"
    yield "fewer maps", (maps[:2], masks), "maps ended after 2"
    yield "no mask", (maps, [*masks[:3], None]), "map 3: its mask is None"
    yield "generator", ((m for m in maps), masks), "one-shot generator"
    yield "words", ([[["a"]]], [[[1]]]), "real numbers"
    yield "complex", (maps * 1j, masks), "real numbers"
    yield "negative mask", (maps, -(masks > 0).astype(np.int8)), "negative values"
    yield "NaN mask", (maps, np.where(masks, np.nan, 0.0)), "holds NaN"
    yield "huge integers", ([np.array([[2**60, 0]])], [np.array([[1, 0]])]), "2\\^53"


BAD = [pytest.param(arguments, message, id=name) for name, arguments, message in bad_cases()]


@pytest.mark.parametrize("protocol", ["exact", "cfm99"])
@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_never_a_plausible_number(arguments, message, protocol):
    with pytest.raises(BadInputError, match=message):
        evaluate_maps(*arguments, protocol=protocol)


@pytest.mark.parametrize("limits", [(0.0,), (1.5,), (-0.1,), (math.nan,), (0.3, 0.3)])
def test_limits_out_of_range(limits):
    with pytest.raises(ConfigError, match="limits must"):
        evaluate_maps(*draw(0), limits)


def test_options_out_of_range():
    for options in ({"threshold": math.nan}, {"curves": 1}, {"curves": -5}):
        with pytest.raises(ConfigError):
            evaluate_maps(*draw(0), **options)


def test_a_source_that_changes_is_noticed():
    maps, masks = draw(0)

    class Shrinking:
        """Gives a map less each time it is read."""

        reads = 0

        def __init__(self, items):
            self.items = items

        def __iter__(self):
            self.reads += 1
            return iter(self.items[: len(self.items) + 1 - self.reads])

    with pytest.raises(PirnError, match="4 maps the first time and 3 the second"):
        evaluate_maps(Shrinking(list(maps)), Shrinking(list(masks)))


def test_names_of_a_source_are_used_in_messages():
    class Named(list):
        names = ("crack/000", "crack/001")

    maps, masks = draw(0, images=2)
    maps[1, 0, 0] = np.nan
    with pytest.raises(BadInputError, match="crack/001: scores must be finite"):
        evaluate_maps(Named(maps), masks)
