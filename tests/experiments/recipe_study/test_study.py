"""The recipe study with detectors whose quality is made up: what it chooses, counts and writes."""

import json
import re
import subprocess
import sys
from argparse import Namespace
from functools import lru_cache
from pathlib import Path

import jax
import numpy as np
import pytest

from harness.evaluation import evaluation_of
from harness.jobs import Job
from harness.runner import Result
from pirn_jax.detector import Inferred, Truth
from pirn_jax.geometry.views import fit_frame
from pirn_jax.metrics import evaluate_maps, image_metrics
from pirn_jax.scans.synthetic.generator import HELD_OUT, open_synthetic
from pirn_jax.storage import read_object
from recipe_study import analysis, command
from recipe_study.analysis import choose, quality, record
from recipe_study.cells import Analysis, Cell, mean_of
from recipe_study.evaluation import evaluate_for_study
from recipe_study.report import BEGIN, END, conclusions, write_report
from recipe_study.rows import (
    BASELINES,
    CANDIDATES,
    DEFAULT,
    GENERATED,
    GRIDS,
    PAPER,
    POOLS,
    QUESTIONS,
    REAL,
    Variant,
)
from recipe_study.study import Study, run_main, run_selection

ROWS = [
    *CANDIDATES,
    PAPER,
    *(row for rows in BASELINES.values() for row in rows),
    *(row for rows in QUESTIONS.values() for row in rows),
]
SIDE = 32
ROOT = Path(__file__).resolve().parents[3]


def options(**changes) -> Namespace:
    found = command.parse(["--grid", "tiny", "--encoder", "pirn-tiny", "--data-root", "somewhere"])
    return Namespace(**vars(found) | changes)


def inference_of(key: str, defect: str, strength: float, noise_seed: str) -> tuple[Inferred, Truth]:
    """A map with noise of its own and a defect that shows by so much."""
    rng = np.random.default_rng(list(noise_seed.encode() + key.encode()))
    mask = np.zeros((SIDE, SIDE), bool)
    if defect != "good":
        mask[5:20, 8:24] = True
    fused = rng.random((SIDE, SIDE)).astype(np.float32) + strength * mask.astype(np.float32)
    bad = int(defect != "good")
    truth = Truth(key, bad, defect, mask, None, fit_frame((SIDE, SIDE), (SIDE, SIDE)))
    return Inferred(float(fused.max()), fused, fused[None], None), truth


@lru_cache
def invented_document(dataset: str, category: str, noise: str, strength: float) -> str:
    """What a detector's evaluation would be stored as; many of them are as good as each other."""
    if dataset == "synthetic":
        entries = open_synthetic(category, train=1, test=12).test.entries
        scans = [(entry.key, entry.defect) for entry in entries]
    else:
        scans = [(f"{k}", "good" if k < 6 else "hole") for k in range(12)]
    pairs = [inference_of(key, defect, strength, noise) for key, defect in scans]
    return json.dumps(evaluate_for_study(*zip(*pairs, strict=True), modalities=("rgb",)))


class Invented(Study):
    """Detectors are as good as `strength` says, by method, change and category."""

    def __init__(self, *args, strength):
        super().__init__(*args)
        self.strength = strength
        self.asked: list[Job] = []

    def run(self, jobs):
        for job in dict.fromkeys(jobs):
            self.asked.append(job)
            strength = self.strength(job) - (0.1 if job.shift != "none" else 0.0)
            noise = f"{job.category}{job.draw}"
            document = invented_document(job.dataset, job.category, noise, strength)
            self._found[job] = Result(job, json.loads(document))


# --- the rows -------------------------------------------------------------------------------------


def test_every_row_is_a_detector_on_every_kind_of_set():
    study = Study(options(), [GENERATED[0], *REAL])
    for row in ROWS:
        configs = [study.config(row, one, 224) for one in study.sets.values()]
        assert any(config is not None for config in configs), row.name
    names = [row.name for row in {*ROWS}]
    assert len(set(names)) == len(names)


def test_what_cannot_be_chosen_keeps_a_part_of_the_papers_system_out():
    for row in CANDIDATES:
        config = Study(options(), [REAL[0]]).config(row, REAL[0], 224)
        assert config is not None
        decoder = config.settings.decoder
        assert config.modalities == ("rgb", "normals")
        assert decoder.communicate, row.name
        assert decoder.assignment == "ot", row.name
        assert decoder.context == "ot", row.name


def test_sets_that_choose_nothing_and_pools_of_known_sets():
    assert {one.name for one in GENERATED if not one.selects} == set(HELD_OUT)
    known = {one.name for one in (*GENERATED, *REAL)}
    assert {name for groups in POOLS.values() for group in groups for name in group} <= known
    for grid in GRIDS.values():
        assert not set(grid.kinds) & set(HELD_OUT)
        assert grid.draws_selection <= grid.draws


# --- cells ----------------------------------------------------------------------------------------


def test_what_is_kept_gives_the_figures_of_the_maps():
    pairs = [inference_of(f"{k}", "good" if k < 5 else "hole", 0.4, "a") for k in range(11)]
    document = evaluate_for_study(*zip(*pairs, strict=True), modalities=("rgb",))
    masks = [t.mask for _, t in pairs]
    exact = evaluate_maps([i.fused for i, _ in pairs], masks)
    exact |= image_metrics([i.score for i, _ in pairs], [t.label for _, t in pairs])
    for name, value in document["figures"].items():
        assert value == pytest.approx(exact[name], abs=2e-3)
    # The defects lie in the middle: with them cut out, what is left is noise as in good scans.
    assert all(cut <= 1 for cut in document["images"]["score_cut"])
    assert max(document["images"]["score"]) > 1.2
    assert document["images"]["share"] == [0.0] * 5 + [15 * 16 / SIDE**2] * 6
    evaluation, bad = evaluation_of(document, "score_cut")
    assert bad.sum() == 6
    assert evaluation.scores.max() <= 1


def test_means_pass_over_metrics_that_do_not_count():
    one = Cell(dict.fromkeys(("i_auroc", "p_auroc", "aupro_0.3"), 0.5), {}, 2)
    one = one._replace(replicates={m: np.full(3, 0.5) for m in one.value})
    other = Cell({**one.value, "i_auroc": float("nan"), "p_auroc": 0.7},
                 {m: np.full(3, 0.7) for m in one.value}, 1)  # fmt: skip
    mean = mean_of([one, other])
    assert mean is not None
    assert mean.value == {"i_auroc": 0.5, "p_auroc": 0.6, "aupro_0.3": 0.5}
    np.testing.assert_allclose(mean.replicates["i_auroc"], 0.5)
    assert mean.draws == 1
    assert "i_auroc" not in other.intervals()
    assert mean_of([]) is None
    assert quality(other.value) == pytest.approx(0.6)


# --- selection ------------------------------------------------------------------------------------

SETS = [
    *(one for one in GENERATED if one.name in ("flange", "rope")),
    *(one for one in REAL if one.name in ("road", "road, RGB", "tire", "cookie")),
]


def memory_by_set(job: Job) -> float:
    """One memory is right on tire alone, another everywhere but there."""
    if job.config.method != "memory":
        return 0.5
    raw = not job.config.changed
    centred = job.config.changed == {"centre_image": True}
    if job.category == "tire":
        return 0.9 if raw else 0.1
    return 0.6 if centred else 0.3


def test_an_option_is_chosen_without_the_set_it_is_reported_on():
    study = Invented(options(rows=["K = 50"]), SETS, strength=memory_by_set)
    run_selection(study)
    chosen, qualities = choose(study)
    assert qualities["memory"]["memory raw"]["tire"] > 0.85
    for name in study.sets:
        assert chosen["memory"][name].name == "memory centred"
    # Nothing was judged on held-out parts, and nothing shifted.
    assert {job.category for job in study.asked}.isdisjoint(HELD_OUT)
    assert {job.shift for job in study.asked} == {"none"}
    assert {job.shots for job in study.asked} == {5}
    # Of two that tie, the first.
    assert chosen["ours, chosen"]["tire"] == DEFAULT


def test_both_views_of_the_road_are_left_out_together():
    def strength(job: Job) -> float:
        raw = job.config.method == "memory" and not job.config.changed
        return 0.9 if raw and job.category == "road" else 0.3 if raw else 0.4

    study = Invented(options(rows=["K = 50"]), SETS, strength=strength)
    run_selection(study)
    chosen, _ = choose(study)
    assert chosen["memory"]["tire"].name == "memory raw"
    for name in ("road", "road, RGB"):
        assert chosen["memory"][name].name != "memory raw"


# --- the whole ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The record of a study in which default is better than all others by a known order."""

    def strength(job: Job) -> float:
        if job.config.method != "pirn":
            return {"memory": 0.25, "subspace": 0.15, "inp-former": 0.1}[job.config.method]
        if job.config.recipe_name == "paper":
            return 0.0
        return 0.2 if job.config.settings.decoder.assignment == "softmax" else 0.35

    with pytest.MonkeyPatch.context() as patch:
        nothing = {"border distance": 0.5, "border oracle": 0.55}
        patch.setattr(analysis, "border_figures", lambda *_: dict(nothing))
        patch.setattr(analysis, "cache_folder", lambda _: None)
        study = Invented(
            options(rows=["softmax for BPA", "normals alone", "K = 50"]), SETS, strength=strength
        )
        run_selection(study)
        chosen, qualities = choose(study)
        run_main(study, chosen)
        return study, json.loads(json.dumps(record(study, chosen, qualities), allow_nan=False))


def test_the_record_says_who_is_ahead_and_by_how_much(made):
    _, found = made
    main = found["main"]["224 px, 5 shots"]
    for name in ("rope", "road", "RGB + geometry", "real RGB", "all"):
        for system in ("paper", "memory", "subspace"):
            value, low, high = main["default ahead by"][name][system]["clean"]["p_auroc"]
            own = main["figures"][name]["default"]["clean"]["p_auroc"][0]
            other = main["figures"][name][system]["clean"]["p_auroc"][0]
            assert value == pytest.approx(own - other, abs=2e-4)
            assert 0 < low <= value <= high, (name, system)
    # INP-Former is slow: run on the road alone, on one draw, and compared on that draw.
    assert main["figures"]["road"]["inp_former"]["draws"] == 1
    assert main["default ahead by"]["road"]["inp_former"]["clean"]["p_auroc"][1] > 0
    assert "inp_former" not in main["figures"]["rope"]
    assert "inp_former" not in main["figures"]["RGB + geometry"]
    # cookie's image scores do not count, so it leaves the mean of the others.
    figures = main["figures"]
    assert "i_auroc" not in figures["cookie"]["default"]["clean"]
    real = [figures[n]["default"]["clean"]["i_auroc"][0] for n in ("tire", "road, RGB")]
    pooled = figures["real RGB"]["default"]["clean"]["i_auroc"][0]
    assert pooled == pytest.approx(np.mean(real), abs=2e-4)
    # Under shift all lose, and a drop is clean less shifted.
    one = figures["road"]["default"]
    drop = one["clean"]["p_auroc"][0] - one["shifted"]["p_auroc"][0]
    assert one["drop"]["p_auroc"][0] == pytest.approx(drop, abs=0.02)  # of fewer draws
    assert one["drop"]["p_auroc"][0] > 0
    assert set(found["main"]) == {"224 px, 5 shots", "224 px, 10 shots", "224 px, 1 shot"}
    assert "inp_former" not in found["main"]["224 px, 10 shots"]["figures"]["road"]
    assert found["about"]["configurations"] > len(BASELINES["memory"])


def test_larger_pictures_repeat_the_comparison_on_real_sets():
    study = Invented(options(image_size=[224, 448]), SETS, strength=lambda _: 0.3)
    run_main(study, {s: dict.fromkeys(study.sets, r[0]) for s, r in study.systems.items()})
    larger = [job for job in study.asked if job.config.image_size == 448]
    assert {job.config.method for job in larger} == {"pirn", "memory", "subspace", "inp-former"}
    assert {job.shots for job in larger} == {5}
    for method in ("pirn", "memory"):
        assert {job.category for job in larger if job.config.method == method} == {
            one.place for one in SETS if not one.generated
        }
    slow = [job for job in larger if job.config.method == "inp-former"]
    assert {(job.category, job.draw) for job in slow} == {("road", 0)}


def test_questions_are_asked_where_rows_have_something_to_look_at(made):
    _, found = made
    rows = {row["row"]: row for row in found["questions"]}
    assert set(rows) == {"softmax for BPA", "normals alone", "K = 50"}
    softmax = rows["softmax for BPA"]["ahead of default by"]["all"]["p_auroc"]
    assert softmax[2] < 0
    assert rows["K = 50"]["ahead of default by"]["all"]["p_auroc"] == [0, 0, 0]
    assert set(rows["normals alone"]["sets"]) == {"flange", "road"}
    assert not rows["K = 50"]["is default"]


def test_kinds_of_defect_are_listed_apart(made):
    _, found = made
    assert {"texture (generated)", "geometry (generated)", "both (generated)"} <= set(
        found["apart"]
    )
    # Every invented real defect covers 23 % of the picture.
    assert "over 20 % of the picture (real)" in found["apart"]
    assert "up to 20 % of the picture (real)" not in found["apart"]


def test_the_page_is_written_from_the_record_and_keeps_what_was_typed(made, tmp_path):
    _, found = made
    page = tmp_path / "RECIPE.md"
    write_report(found, command.__doc__, page, tmp_path / "results")
    text = page.read_text()
    assert "Not written yet." in text
    for part in ("Leave one set out", "softmax for BPA", "*RGB + geometry*", "rope (generated)"):
        assert part in text
    # What was wanted is said of the best baseline, with a verdict that follows from the interval.
    wanted = [line for line in text.splitlines() if line.startswith("| above the best baseline")]
    assert len(wanted) == 8  # two pools, two metrics, 5 and 10 shots
    assert all(line.split("|")[4].strip() == "memory" for line in wanted)
    for line in wanted:
        low, high = (float(x) for x in re.findall(r"\[(.*), (.*)\]", line)[0])
        shows = "ahead" if low > 0 else "behind" if high < 0 else "not told apart"
        assert line.endswith(f"| {shows} |")
    assert all(line.endswith("| ahead |") for line in wanted if "P-AUROC" in line)
    parts = [line for line in text.splitlines() if line.startswith("| every part earns")]
    assert any("| softmax for BPA |" in line and "| ahead |" in line for line in parts)
    for name in ("systems", "shifts", "questions"):
        picture = tmp_path / "results" / f"recipe_{name}.png"
        assert f"(results/{picture.name})" in text
        assert picture.stat().st_size < 200_000
    own = "Default wins.\n\n- because | of this"
    page.write_text(text.replace("Not written yet.", own))
    write_report(found, command.__doc__, page, tmp_path / "results")
    again = page.read_text()
    assert conclusions(again) == own
    assert again == text.replace("Not written yet.", own)
    assert again.count(BEGIN) == again.count(END) == 1
    assert conclusions("no marks") is None


def test_rows_that_are_default_are_said_to_be(made):
    study, _ = made
    width = study.config(DEFAULT, REAL[0], 224).settings.decoder.prototypes
    same, other = (Variant(f"{k}", {"decoder.prototypes": k}) for k in (width, 3))
    assert study.jobs(same, REAL[0]) == study.jobs(DEFAULT, REAL[0])
    assert study.jobs(other, REAL[0]) != study.jobs(DEFAULT, REAL[0])


def test_a_cell_that_was_not_run_is_none(made):
    study, _ = made
    cells = Analysis(study)
    road = study.sets["road"]
    assert cells.cell(Variant("never", {"decoder.prototypes": 3}), road, 1) is None
    assert cells.cell(DEFAULT, road, 99) is None


@pytest.fixture
def _as_a_user():
    """The compiler's cache as it was before."""
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.slow
@pytest.mark.usefixtures("_as_a_user")
def test_the_command_runs_the_study_and_goes_on_where_it_was(tmp_path, capsys):
    """With seeded weights on generated parts: everything is trained, judged and written."""
    words = [
        "--grid",
        "tiny",
        "--encoder",
        "dinov2-small",
        "--weights",
        "random",
        "--image-size",
        "28",
        "--sets",
        "flange",
        "rope",
    ]
    words += ["--rows", "softmax for BPA", "--out", str(tmp_path / "out")]
    words += ["--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "results")]
    words += ["--report", str(tmp_path / "RECIPE.md")]
    command.main(words)
    capsys.readouterr()
    first = (tmp_path / "results" / "recipe.json").read_bytes()
    text = (tmp_path / "RECIPE.md").read_text()
    assert "Random weights: the figures mean nothing" in " ".join(text.split())
    assert "softmax for BPA" in text
    command.main(words)  # everything is there
    assert "0 to do" in capsys.readouterr().err
    assert (tmp_path / "results" / "recipe.json").read_bytes() == first
    assert (tmp_path / "RECIPE.md").read_text() == text


@pytest.mark.parametrize(
    "words",
    [
        ["experiments/recipe_study"],
        pytest.param(["-m", "experiments.recipe_study"], marks=pytest.mark.slow),
    ],
    ids=["folder", "module"],
)
def test_the_command_starts_from_a_bare_checkout(words):
    done = subprocess.run(
        [sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "--report-only" in done.stdout


def test_the_committed_record_makes_the_committed_page(tmp_path):
    """What older code stored is read by the code there is."""
    stored = read_object(ROOT / "experiments" / "results" / "recipe.json")
    page = tmp_path / "recipe.md"
    committed = (ROOT / "experiments" / "results" / "recipe.md").read_text()
    page.write_text(committed)
    write_report(stored, command.__doc__ or "", page, tmp_path)
    assert page.read_text() == committed
