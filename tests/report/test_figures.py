"""Figures and pictures: what is drawn is what was given, in the page's own colours."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from pirn_jax.report import figures, pictures
from pirn_jax.report.contents import read_run
from pirn_jax.report.schema import Curve
from pirn_jax.report.tables import ScoreRow
from tests.report.make_run import write_run

CASES = {
    "scores": lambda: figures.score_histogram([0.1, 0.2], [0.3], 0.25, "a"),
    "one score": lambda: figures.score_histogram([0.0], [], None, "a"),
    "equal scores": lambda: figures.score_histogram([2.0, 2.0], [2.0], 2.0, "a"),
    "roc": lambda: figures.rate_curves(
        {"scans": [Curve([0.0, 1.0], [0.0, 1.0])], "pixels": []}, 1.0, "a", "b"
    ),
    "pro": lambda: figures.rate_curves(
        {"": [Curve([0.0, 0.5, 1.0], [0.0, 0.9, 1.0])] * 2}, 0.3, "a", "b"
    ),
    "loss": lambda: figures.loss_curve([[(1.0, 0.9), (2.0, 0.01)], [(1.0, 0.8)]], "a"),
    "loss of 0": lambda: figures.loss_curve([[(1.0, 0.5), (2.0, 0.0)]], "a"),
    "usage": lambda: figures.usage_bars([0.175, 0.025, 0.8], "a"),
}


@pytest.mark.parametrize("name", CASES)
def test_colours_and_font_are_the_page_s(name):
    drawn = CASES[name]()
    assert drawn.startswith("<svg viewBox=")
    assert drawn.endswith("</svg>")
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", drawn)) <= {
        "none", "var(--ink)", "var(--soft)", "var(--accent)",
    }  # fmt: skip
    assert "DejaVu" not in drawn
    assert "mathdefault" not in drawn


def test_labels_keep_their_digits_while_coordinates_are_rounded():
    drawn = figures.usage_bars([0.172, 0.128, 0.7 / 3, 0.7 / 3, 0.7 / 3], "a")
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
    assert {"0.00", "0.05", "0.10", "0.15", "0.20"} <= set(labels)
    assert not re.search(r"[ML] \d+\.\d{3}", drawn)


def test_a_label_cannot_end_the_attribute():
    drawn = figures.usage_bars([0.5, 0.5], '"><script>')
    assert "<script>" not in drawn


def test_curves_run_through_their_points():
    """The last point of a curve lies in the upper right corner of its axes, the first at zero."""
    drawn = figures.rate_curves({"": [Curve([0.0, 0.25, 1.0], [0.0, 0.5, 1.0])]}, 1.0, "a", "b")
    path = next(match[1] for match in re.finditer(r'<path d="([^"]*)"[^>]*var\(--accent\)', drawn))
    (x0, y0), (x1, y1), (x2, y2) = np.array(re.findall(r"[\d.]+", path), float).reshape(-1, 2)
    assert x1 - x0 == pytest.approx(0.25 * (x2 - x0), abs=0.02)
    assert y0 - y1 == pytest.approx(0.5 * (y0 - y2), abs=0.02)


def contrast(first: str, second: str) -> float:
    """WCAG 2.2, relative luminance and contrast ratio."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_words_can_be_read(theme):
    from importlib import resources

    style = resources.files("pirn_jax.report").joinpath("style.css").read_text()
    block = re.findall(r":root \{([^}]*)\}", style)[theme]
    colour = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
    assert contrast(colour["ink"], colour["paper"]) > 12
    for front, back in (
        ("soft", "paper"), ("accent", "paper"), ("on-accent", "accent"), ("ink", "wash"),
    ):  # fmt: skip
        assert contrast(colour[front], colour[back]) >= 4.5, (front, back)


def decoded(tile) -> np.ndarray:
    data = base64.b64decode(tile.uri.removeprefix("data:image/jpeg;base64,"))
    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


def test_tiles_show_truth_and_what_lies_above_the_threshold():
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:45] = True
    fused = np.where(mask, 0.9, 0.1).astype(np.float32)
    rgb = np.full((40, 60, 3), 200, np.uint8)
    row = ScoreRow("test/crack/000", 1, "crack", 0.9, 1)
    shown = pictures.Shown(row, 1, rgb, None, mask, {"fused": fused})
    tiles = pictures.tiles(shown, pictures.scales([shown], 0.5), 0.5)
    assert [tile.name for tile in tiles] == ["RGB", "truth", "anomaly map"]
    assert all((tile.width, tile.height) == (60, 40) for tile in tiles)
    truth, heat = decoded(tiles[1]), decoded(tiles[2])
    red = truth[..., 0] - truth[..., 2]
    assert red[12:18, 33:42].min() > 100
    assert np.abs(red[:8]).max() < 20
    line = heat.min(axis=2) > 200
    assert line[10, 32:43].all()
    assert line[19, 32:43].all()
    assert not line[:8].any()
    assert heat[30:].sum(axis=2).max() < 30  # the ordinary is black


def test_a_highlight_in_a_dark_photograph_stays_bright_beside_the_truth():
    rgb = np.full((64, 64, 3), 20, np.uint8)
    rgb[:4, :8] = 255  # less than the brightest hundredth
    row = ScoreRow("a", 0, "good", 0.3, 0)
    shown = pictures.Shown(row, 1, rgb, None, np.zeros((64, 64), bool), {})
    truth = decoded(pictures.tiles(shown, {}, None)[1])
    assert truth[:3, :7].min() > 200
    assert 20 <= truth[32:].min() <= truth[32:].max() <= 120


def test_one_modality_shows_its_map_once():
    fused = np.zeros((8, 8), np.float32)
    row = ScoreRow("a", 0, "good", 0.3, 0)
    shown = pictures.Shown(row, 1, None, None, None, {"fused": fused, "rgb": fused})
    tiles = pictures.tiles(shown, pictures.scales([shown], None), None)
    assert [tile.name for tile in tiles] == ["anomaly map"]


def test_the_colour_scale_places_the_threshold_at_two_thirds():
    row = ScoreRow("a", 0, "good", 0.3, 0)
    fused = np.linspace(0, 1, 401, dtype=np.float32).reshape(1, -1)
    shown = pictures.Shown(row, 1, None, None, None, {"fused": fused, "rgb": fused})
    low, high = pictures.scales([shown], 0.55)["fused"]
    assert (low, high) == (pytest.approx(0.25), pytest.approx(0.25 + 1.5 * 0.3))
    assert pictures.scales([shown], None)["fused"] == pictures.scales([shown], 0.5)["rgb"]


def test_the_hardest_come_first_and_ranks_are_of_their_kind(tmp_path):
    run = read_run(write_run(tmp_path / "run", ("flange",), good=6, each=5))
    shown = pictures.select(run.models[0], 8, [])
    bad = [scan for scan in shown if scan.row.label == 1]
    good = [scan for scan in shown if scan.row.label == 0]
    assert shown == bad + good
    assert [len(bad), len(good)] == [4, 4]
    assert [s.row.score for s in bad] == sorted(s.row.score for s in bad)
    assert [s.row.score for s in good] == sorted((s.row.score for s in good), reverse=True)
    assert (bad[0].rank, bad[-1].rank) == (10, 1)
    assert (good[0].rank, good[-1].rank) == (1, 6)
