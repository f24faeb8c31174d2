"""Documents of a run folder: what is written is read back equal, whatever else they hold."""

import itertools
import json

import numpy as np
import pytest

from pirn_jax.metrics import evaluate_maps
from pirn_jax.report import schema
from pirn_jax.report.contents import read_run
from pirn_jax.report.layout import (
    CALIBRATION,
    CONFIG,
    CURVES,
    ENVIRONMENT,
    HISTORY,
    METRICS,
    SCORES,
    SPLIT,
    USAGE,
    model_folder,
)
from pirn_jax.report.tables import HistoryLine, ScoreRow, join_scores, write_history, write_scores
from pirn_jax.scans import Note
from pirn_jax.scoring import Calibration, calibrate
from pirn_jax.storage import write_json, write_whole

PROVENANCES = [
    schema.Provenance(data, random) for data in ("generated", "real") for random in (True, False)
]
LOUD = PROVENANCES[0]
FIGURES = {"scans": 20.0, "i_auroc": 1 / 3, "aupro_0.3": 0.0, "p_ap": -1e-9}
CURVE = schema.Curve([0.0, 0.1, 1.0], [0.0, 1 / 3, 1.0])
METRICS_OF_A_RUN = schema.RunMetrics(
    {"flange": {0: FIGURES, 10: FIGURES}, "ü\n": {2: {}}},
    {"i_auroc": 0.5},
    schema.EncoderFacts("vit-tiny-16", "ab" * 32, (2, 3, 10), 224),
    schema.RecipeFacts("default", {"decoder.prototypes": 50, "loss.form": "mean"}),
    LOUD,
    {"flange": (Note("no mask for a", "pixels"), Note("left out: ü"), Note("b", "all"))},
    2,
)
MADE = schema.Environment(
    ("python", "-m", "pirn_jax.train", "--out", "a b"), "2026-01-02T03:04:05+00:00", "0.1", "3.11",
    "Linux", 8, {"jax": "0.10", "optax": None}, ("cpu: cpu",), "runs/other",
)  # fmt: skip
SHOTS = [
    schema.Shots("flange", 0, ("train/good/001", "train/good/000")),
    schema.Shots("flange", 1, ()),
    schema.Shots("biscuit", 0, ("ü",)),
]


def through_json(document: dict) -> dict:
    """As a file would give it back."""
    return json.loads(json.dumps(document, allow_nan=False))


@pytest.mark.parametrize("provenance", PROVENANCES)
def test_every_document_says_where_it_came_from(provenance):
    documents = [
        provenance.document(),
        schema.figures_document(FIGURES, provenance),
        schema.curves_document({"roc": CURVE}, provenance),
        schema.usage_document({"rgb": [1.0]}, provenance),
        schema.calibration_document(calibrate([0.1, 0.2]), provenance),
        schema.split_document({}, provenance),
        schema.environment_document(MADE, provenance),
        schema.run_metrics_document(METRICS_OF_A_RUN._replace(provenance=provenance)),
    ]
    for document in documents[:-1]:
        assert schema.read_provenance(through_json(document)) == provenance
    assert schema.read_run_metrics(through_json(documents[-1])).provenance == provenance


def test_the_loudest_provenance_counts():
    quiet, generated, random = (
        schema.Provenance("real", False),
        schema.Provenance("generated", False),
        schema.Provenance("real", True),
    )
    documents = [one.document() for one in (quiet, generated, random)]
    for some in itertools.permutations(documents):
        assert schema.read_provenance(*some) == LOUD
    assert schema.read_provenance(documents[0], {}) == quiet
    assert schema.read_provenance() == quiet


def test_a_model_s_documents_are_read_back_equal():
    assert schema.read_figures(through_json(schema.figures_document(FIGURES, LOUD))) == FIGURES
    for curves in ({}, {"roc": CURVE}, {"pro": CURVE}, {"roc": CURVE, "pro": CURVE}):
        assert schema.read_curves(through_json(schema.curves_document(curves, LOUD))) == curves
    for usage in ({}, {"rgb": [0.5, 0.25, 0.25]}, {"rgb": [1.0], "normals": [1 / 3]}):
        assert schema.read_usage(through_json(schema.usage_document(usage, LOUD))) == usage


@pytest.mark.parametrize(
    "calibration",
    [calibrate([0.1]), calibrate(np.linspace(0, 1, 40), 0.2, leave_one_out=True)],
)
def test_a_calibration_is_read_back_equal(calibration):
    document = through_json(schema.calibration_document(calibration, LOUD))
    found = schema.read_calibration(document)
    assert found == calibration
    assert isinstance(found, Calibration)
    assert found.statement() == calibration.statement()


def test_evaluated_curves_can_be_written():
    scores, labels = np.array([[0.1, 0.4, 0.3, 0.9]]), np.array([[0, 0, 1, 1]])
    figures = evaluate_maps([scores], [labels], curves=50)
    curves = schema.read_curves(figures)
    assert set(curves) == {"roc", "pro"}
    assert curves["roc"] == schema.Curve(figures["roc"]["fpr"], figures["roc"]["tpr"])
    assert curves["pro"] == schema.Curve(figures["pro"]["fpr"], figures["pro"]["pro"])


@pytest.mark.parametrize(
    "metrics",
    [
        METRICS_OF_A_RUN,
        METRICS_OF_A_RUN._replace(categories={}, mean={}, encoder=None, recipe=None),
        METRICS_OF_A_RUN._replace(recipe=schema.RecipeFacts("paper", {})),
        METRICS_OF_A_RUN._replace(encoder=schema.EncoderFacts("pirn-tiny", "", (12,), 56, "by us")),
    ],
)
@pytest.mark.parametrize("provenance", PROVENANCES)
def test_a_run_s_metrics_are_read_back_equal(metrics, provenance):
    metrics = metrics._replace(
        provenance=provenance, categories={c: s for c, s in metrics.categories.items() if s}
    )
    found = schema.read_run_metrics(through_json(schema.run_metrics_document(metrics)))
    assert found == metrics
    assert list(found.categories) == list(metrics.categories)


def test_the_recipe_of_an_older_run_is_its_name():
    found = schema.read_run_metrics({"recipe": "paper"})
    assert found.recipe == schema.RecipeFacts("paper", {})


@pytest.mark.parametrize("made", [MADE, schema.Environment()])
def test_an_environment_is_read_back_equal(made):
    document = through_json(schema.environment_document(made, LOUD))
    assert schema.read_environment(document) == made
    assert ("run" in document) == bool(made.run)


def split_of(shots: schema.Shots) -> dict:
    keys = [{"key": key, "sha256": {"rgb": "0" * 64}} for key in shots.keys]
    return {"format": "pirn_jax split 1", "seed": shots.seed, "shots": keys}


def test_splits_are_read_back_equal():
    splits = {(one.category, one.seed): split_of(one) for one in SHOTS}
    extra = {"generator": {"version": 1, "hash": "d1"}}
    document = through_json(schema.split_document(splits, LOUD, extra))
    assert schema.read_shots(document) == SHOTS
    assert document["generator"] == extra["generator"]
    assert document["flange"]["seed0"] == split_of(SHOTS[0])


# --- hostile documents ----------------------------------------------------------------------------

VALUES = (
    None, True, 3, -1, 0.5, 1e300, float("nan"), float("-inf"), 10**400, "", "seed0", "x" * 10_000,
    [], [[]], [None], [1, "a"], [float("inf")], {}, {"a": 1}, {"seed0": 1}, {"seed0": {}},
    {"seed0": {"shots": 1}}, {"seed0": {"shots": [1, None, {"key": 1}, {}]}},
    {"seed" + "9" * 5000: {"shots": []}}, {"fpr": [1], "tpr": [1, 2], "pro": []},
    {"fpr": "ab", "tpr": "ab", "pro": "ab"}, {"name": 1, "changed": 1},
)  # fmt: skip
NAMES = (
    "categories", "mean", "encoder", "recipe", "data", "random_weights", "roc", "pro", "rgb",
    "command", "started", "processors", "packages", "devices", "run", "threshold", "flange", "",
    *Calibration._fields,
)  # fmt: skip
READERS = (
    schema.read_provenance, schema.read_figures, schema.read_curves, schema.read_usage,
    schema.read_calibration, schema.read_run_metrics, schema.read_environment, schema.read_shots,
)  # fmt: skip


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_a_value_of_any_kind_is_left_out(read):
    """Each value under every name at once, and under each alone: types are checked by the hook."""
    whole = through_json(schema.calibration_document(calibrate([0.1]), LOUD))
    for value in VALUES:
        read(dict.fromkeys(NAMES, value))
        for name in NAMES:
            read({**whole, name: value})
            read({name: value})


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_nothing_is_made_of_what_does_not_fit(value):
    metrics = schema.read_run_metrics({"encoder": {"name": value}, "recipe": {"name": value}})
    named = isinstance(value, str) and bool(value)
    assert (metrics.encoder is None) == (metrics.recipe is None) == (not named)
    assert all(abs(v) < 1e30 for v in schema.read_figures({"a": value}).values())
    assert schema.read_curves({"roc": value, "pro": value}) == {}
    assert schema.read_calibration({"threshold": value}) is None
    assert schema.read_provenance({"data": value, "random_weights": value}) == schema.Provenance(
        "real", value is True
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("scans", 2.5), ("scans", True), ("rank", "1"), ("leave_one_out", 1), ("threshold", "0.1"),
     ("threshold", 1e40), ("threshold", True), ("spread", None)],
)  # fmt: skip
def test_a_calibration_with_a_field_of_another_kind_is_none(field, value):
    document = schema.calibration_document(calibrate([0.1, 0.2, 0.4]), LOUD)
    assert schema.read_calibration(document) is not None
    assert schema.read_calibration({**document, field: value}) is None


# --- a whole folder -------------------------------------------------------------------------------


def test_a_folder_written_by_the_schema_is_what_the_report_reads(tmp_path):
    rows = {0: [ScoreRow("test/good/0", 0, "good", 0.1, 0)], 10: [ScoreRow("b", 1, "c", 0.9, 1)]}
    lines = [HistoryLine(f"flange/seed{seed}", e, e, 1 / e) for e in (1, 2) for seed in rows]
    calibration = calibrate([0.1, 0.2, 0.4])
    curves, usage = {"roc": CURVE, "pro": CURVE}, {"rgb": [0.75, 0.25]}
    metrics = METRICS_OF_A_RUN._replace(categories={"flange": dict.fromkeys(rows, FIGURES)})
    config = {"dataset": "synthetic", "settings": {"decoder": {"prototypes": 50}}}
    for seed, table in rows.items():
        place = model_folder(tmp_path, "flange", seed).path
        write_whole(place / SCORES, write_scores(table, LOUD))
        write_json(place / METRICS, schema.figures_document(FIGURES, LOUD))
        write_json(place / CURVES, schema.curves_document(curves, LOUD))
        write_json(place / USAGE, schema.usage_document(usage, LOUD))
        write_json(place / CALIBRATION, schema.calibration_document(calibration, LOUD))
    write_json(tmp_path / CONFIG, config)
    write_json(tmp_path / METRICS, schema.run_metrics_document(metrics))
    write_json(tmp_path / ENVIRONMENT, schema.environment_document(MADE, LOUD))
    splits = {(one.category, one.seed): split_of(one) for one in SHOTS}
    write_json(tmp_path / SPLIT, schema.split_document(splits, LOUD))
    write_whole(tmp_path / HISTORY, write_history(lines, LOUD))
    both = [write_scores(r, LOUD, {"category": "flange", "seed": s}) for s, r in rows.items()]
    write_whole(tmp_path / SCORES, join_scores(both))

    run = read_run(tmp_path)
    assert run.notes == []
    assert (run.config, run.made, run.shots) == (config, MADE, SHOTS)
    assert (run.metrics, run.provenance) == (metrics, LOUD)
    assert [(model.category, model.seed) for model in run.models] == [("flange", 0), ("flange", 10)]
    for model in run.models:
        assert model.folder == model_folder(tmp_path, "flange", model.seed)
        assert model.rows == tuple(rows[model.seed])
        assert (model.metrics, model.curves, model.usage) == (FIGURES, curves, usage)
        assert model.threshold == calibration.threshold
        assert schema.read_calibration(model.calibration) == calibration
        assert model.losses == [(1.0, 1.0), (2.0, 0.5)]
