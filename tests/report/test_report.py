"""The report as its readers meet it: whole, self-contained, true to the files, and never fooled."""

import json
import os
import re
import shutil
import statistics
import sys

import numpy as np
import pytest

from pirn_jax.command import results_table
from pirn_jax.errors import BadInputError
from pirn_jax.geometry import surface_normals
from pirn_jax.report import write_report
from pirn_jax.scans.synthetic.generator import render
from tests.report.make_run import dump, write_run
from tests.report.page import Page


def report_of(folder) -> Page:
    page = Page(write_report(folder))
    page.check_self_contained()
    return page


def test_it_is_one_file_with_every_part(tmp_path):
    page = report_of(write_run(tmp_path / "run"))
    for part in (
        "Generated data", "Random encoder weights", "vit-tiny-16, 224 px",
        "default, decoder.prototypes=50",
        "geometry grid", "background auto", "foreground mask",
        "rgb, normals", "shots 5", "seeds 0",
        "I‑AUROC", "P‑AUROC", "AUPRO at 30 %", "F1max", "F1 at threshold", "flange", "housing",
        "Scores", "ROC", "PRO", "Training", "Prototypes", "largest score of 5 normal scans",
        "By kind of defect", "Defective scans, hardest first", "Good scans, hardest first",
        "anomaly map", "rgb map", "normals map", "truth", "python -m pirn_jax.train --shots 5",
        "train/good/004", "packages.jax", "0.10.2",
    ):  # fmt: skip
        assert part in page.text, part
    assert "Left out" not in page.text
    images = page.having("img")
    assert len(images) == 2 * 10 * 6  # categories, scans of each, pictures of each
    assert all(image["alt"] and image["width"] and image["height"] for image in images)
    assert all(drawing["aria-label"] for drawing in page.having("svg"))
    assert len(page.having("svg")) == 2 * 6
    assert sorted(p.name for p in (tmp_path / "run").iterdir() if "report" in p.name) == [
        "report.html"
    ]


def test_real_data_and_weights_carry_no_banner(tmp_path):
    page = report_of(write_run(tmp_path / "run", data="real", random=False))
    assert "Generated data" not in page.text
    assert "Random encoder weights" not in page.text
    assert not [a for a in page.having("p") if a.get("class") == "banner"]


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    folder = write_run(tmp_path / "run", ("flange",))
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_the_table_holds_the_metrics_and_their_mean(tmp_path):
    folder = write_run(tmp_path / "run")
    page = report_of(folder)
    every = json.loads((folder / "metrics.json").read_text())["categories"]
    for key in ("i_auroc", "p_auroc", "aupro_0.3", "i_f1max", "i_f1"):
        values = [seeds["seed0"][key] for seeds in every.values()]
        for value in (*values, statistics.fmean(values)):
            assert f"<td>{value:.3f}</td>" in page.source, key


def test_seeds_are_shown_as_mean_and_standard_deviation(tmp_path):
    folder = write_run(tmp_path / "run", seeds=(0, 1, 2))
    page = report_of(folder)
    every = json.loads((folder / "metrics.json").read_text())["categories"]
    table = {
        name: np.array([found["aupro_0.3"] for found in seeds.values()])
        for name, seeds in every.items()
    }
    table["mean"] = np.mean(list(table.values()), axis=0)
    for values in table.values():
        wanted = f"<td>{values.mean():.3f}<small>± {values.std(ddof=1):.3f}</small></td>"
        assert wanted in page.source
    assert "Scores and pictures are those of seed 0" in page.text


def test_verdicts_are_counted(tmp_path):
    folder = write_run(tmp_path / "run", ("flange",))
    table = folder / "flange" / "seed0" / "scores.csv"
    rows = [line.split(",") for line in table.read_text().split()[1:]]
    found = sum(row[1] == "1" and row[4] == "1" for row in rows)
    missed = sum(row[1] == "1" and row[4] == "0" for row in rows)
    assert found > 0
    assert missed > 0
    page = report_of(folder)
    assert f"At the threshold: {found} of 6 defective scans found, 0 false alarms on" in page.text
    assert page.text.count("missed") == missed  # every one has a picture here
    page = report_of(relabelled(folder, lambda row: [*row[:4], "1" if row[1] == "0" else row[4]]))
    assert "4 false alarms on 4 good scans" in page.text


def test_scans_of_unknown_truth_get_scores_and_no_figures(tmp_path):
    folder = relabelled(write_run(tmp_path / "run", ("flange",)), lambda r: [r[0], "", "", *r[3:]])
    for name in ("metrics.json", "curves.json"):
        (folder / "flange" / "seed0" / name).unlink()
    dump(folder / "metrics.json", {"data": "real", "categories": {}})
    page = report_of(folder)
    assert "The truth of the test scans is not known" in page.text
    assert "of 10 scans called defective; no truth is known" in page.text
    assert "Scans of unknown truth, highest score first" in page.text
    assert "ROC" not in page.text


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ((), "There are no test scans"),
        (("0",), "There are no defective test scans"),
        (("1",), "There are no good test scans"),
    ],
)
def test_what_was_not_measured_has_its_reason_and_the_threshold_stands(tmp_path, kept, words):
    folder = write_run(tmp_path / "run", ("flange",))
    model = folder / "flange" / "seed0"
    for name in ("metrics.json", "curves.json"):
        (model / name).unlink()
    header, *lines = (model / "scores.csv").read_text().splitlines()
    lines = [line for line in lines if line.split(",")[1] in kept]
    (model / "scores.csv").write_text("\n".join([header, *lines]) + "\n")
    dump(folder / "metrics.json", {"data": "real", "categories": {}})
    page = report_of(folder)
    threshold = json.loads((model / "calibration.json").read_text())["threshold"]
    assert f"Threshold {threshold:.6g}" in page.text
    assert page.text.count(words) == 2  # under the results, and with the category
    assert "no truth is known" not in page.text


def relabelled(folder, change):
    """The scores of the one model there is, each line changed."""
    table = folder / "flange" / "seed0" / "scores.csv"
    head, *rows = table.read_text().split()
    lines = [head, *(",".join(change(row.split(","))) for row in rows)]
    table.write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(
    ("options", "absent"),
    [
        ({"masks": False}, ("P‑AUROC", "AUPRO", "per-region overlap", "truth")),
        ({"calibrated": False}, ("At the threshold", "F1 at threshold", "A white line", "missed")),
        ({"categories": ("flange",)}, ("housing", "categories")),
        ({"modalities": ("rgb",)}, ("normals",)),
        ({"modalities": ("normals",), "masks": False, "calibrated": False}, ("rgb map",)),
        ({"defects": ()}, ()),
    ],
    ids=["no masks", "no threshold", "one category", "rgb only", "bare", "good only"],
)
def test_what_a_run_lacks_is_left_out(tmp_path, options, absent):
    if options.get("defects") == ():  # no metrics are defined
        folder = write_run(tmp_path / "run", ("flange",))
        table = folder / "flange" / "seed0" / "scores.csv"
        table.write_text("".join(table.read_text().splitlines(keepends=True)[:5]))
    else:
        folder = write_run(tmp_path / "run", **options)
    page = report_of(folder)
    for words in absent:
        assert words not in page.text.replace("normal scans", ""), words
    assert "How to repeat it" in page.text
    assert "Left out" not in page.text


OPTIONAL = (
    "config.json", "environment.json", "split.json", "history.jsonl", "metrics.json",
    "flange/seed0/metrics.json", "flange/seed0/scores.csv", "flange/seed0/curves.json",
    "flange/seed0/usage.json", "flange/seed0/calibration.json", "flange/seed0/maps",
    "flange/seed0/pictures",
)  # fmt: skip


@pytest.mark.parametrize("name", OPTIONAL)
def test_any_file_may_be_missing(tmp_path, name):
    folder = write_run(tmp_path / "run", ("flange",), each=1, good=1)
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = report_of(folder)
    assert "flange" in page.text
    assert "Left out" not in page.text


def test_only_the_config_is_enough(tmp_path):
    dump(tmp_path / "config.json", {"dataset": "mvtec3d"})
    assert "mvtec3d" in report_of(tmp_path).text


FILES = [name for name in OPTIONAL if "." in name]


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_costs_no_more_than_its_part(tmp_path, name):
    folder = write_run(tmp_path / "run", ("flange",), each=1, good=1)
    (folder / name).write_text("{" if name.endswith("json") else "key,score\na,nan\n")
    page = report_of(folder)
    assert "Left out" in page.text
    assert name in page.text
    assert bool(page.having("img")) == (name != "flange/seed0/scores.csv")


@pytest.mark.parametrize(
    "document", ["[1]", "null", '{"a": 1e999}', "\xff", "[" * 100_000, "[" * 900 + "]" * 900, ""]
)
def test_all_files_may_be_damaged(tmp_path, document):
    folder = write_run(tmp_path / "run", ("flange",), each=1, good=1)
    for name in FILES:
        (folder / name).write_bytes(document.encode("latin-1"))
    assert "flange" in report_of(folder).text


def test_a_recipe_of_an_older_run_is_its_name_alone(tmp_path):
    folder = write_run(tmp_path / "run", ("flange",), each=1, good=1)
    document = json.loads((folder / "metrics.json").read_text())
    dump(folder / "metrics.json", document | {"recipe": "literal"})
    assert re.search("recipe literal modalities", report_of(folder).text)
    dump(folder / "metrics.json", {})
    assert re.search("recipe default modalities", report_of(folder).text)  # as in the config


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes there")
def test_what_is_no_file_is_not_waited_for(tmp_path):
    folder = write_run(tmp_path / "run", ("flange",), each=1, good=1)
    for name in FILES:
        (folder / name).unlink()
        os.mkfifo(folder / name)
    assert "flange" in report_of(folder).text


def test_calibration_of_another_version_is_shown_as_it_stands(tmp_path):
    folder = write_run(tmp_path / "run", ("flange",), each=1, good=1)
    dump(folder / "flange" / "seed0" / "calibration.json", {"threshold": 0.4, "wanted_rate": 0})
    assert re.search("Threshold threshold 0.4 wanted_rate 0", report_of(folder).text)


def test_scores_no_figure_can_hold_are_left_out(tmp_path):
    folder = write_run(tmp_path / "run", ("flange",), each=1, good=1)
    table = folder / "flange" / "seed0" / "scores.csv"
    table.write_text(table.read_text() + "test/crack/009,1,crack,1e308,1\ntest/a,0,good,-inf,0\n")
    page = report_of(folder)
    assert "scores.csv: 2 lines without a finite score" in page.text
    assert "of 2 defective scans found" in page.text


def test_damaged_pictures_are_named_and_never_unpickled(tmp_path):
    folder = write_run(tmp_path / "run", ("flange",))
    pictures = sorted((folder / "flange" / "seed0" / "pictures").iterdir())
    trap = np.array([Trap()], dtype=object)
    np.savez(pictures[0], rgb=trap)
    pictures[1].write_bytes(b"PK\x03\x04 and no more")
    pictures[2].write_bytes(pictures[2].read_bytes()[:300])
    np.savez(pictures[3], rgb=np.zeros((4, 4), np.uint8), map_rgb=np.full((4, 4), np.nan))
    np.save(folder / "flange" / "seed0" / "maps" / f"{pictures[4].stem}.npy", trap)
    page = report_of(folder)
    assert page.text.count("picture of test/") == 4
    assert not Trap.sprung
    assert len(page.having("img")) == 5 * 6 + 1  # of the fourth only its fused map is left


class Trap:
    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


NAMES = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "$title ${style} $$ $\\frac{1",
    "&lt;b&gt; & ' \" `",
    "</style></svg><!-- -->",
]


@pytest.fixture(scope="module")
def plain_tags(tmp_path_factory) -> set[str]:
    """Those of a report in which no name means harm."""
    folder = tmp_path_factory.mktemp("clean") / "run"
    page = report_of(write_run(folder, ("flange",), defects=("crack",)))
    return {tag for tag, _ in page.tags}


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be given to files there")
@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_are_text_and_nothing_else(tmp_path, plain_tags, name):
    folder = write_run(
        tmp_path / "run", (name.replace("/", "|"),), defects=(name.replace("/", "|"),)
    )
    seen = name.replace("/", "|")
    dump(folder / "config.json", {"dataset": name, name: {name: [name]}, "recipe": name})
    dump(folder / "environment.json", {"command": [name], name: name, "started": name})
    split = {"shots": [{"key": name}], "category": name, "seed": name}
    dump(folder / "split.json", {name: {"seed0": split, name: split}})
    recipe = {"name": name, "changed": {name: name}}
    dump(folder / "metrics.json", {"recipe": recipe, "categories": {name: {name: {name: name}}}})
    model = folder / seen / "seed0"
    usage = json.loads((model / "usage.json").read_text())
    dump(model / "usage.json", {name: usage["rgb"]})
    page = report_of(folder)
    assert {tag for tag, _ in page.tags} <= plain_tags
    assert re.sub(r"\s+", " ", seen) in page.text
    assert any(seen in image["alt"] for image in page.having("img"))


@pytest.mark.skipif(sys.platform != "linux", reason="only there may a name be any bytes")
def test_a_name_that_is_no_text_can_be_written(tmp_path):
    folder = write_run(tmp_path / "run", ("flange",))
    os.rename(folder / "flange", folder / os.fsdecode(b"fl\xffnge"))
    assert "fl\\udcffnge" in report_of(folder).text


def test_a_key_does_not_lead_out_of_the_folder(tmp_path):
    folder = write_run(tmp_path / "run", ("flange",))
    model = folder / "flange" / "seed0"
    secret = next((model / "pictures").iterdir())
    shutil.copy(secret, folder / "secret.npz")
    table = model / "scores.csv"
    table.write_text("key,label,defect,score,pred_label\n../../../secret,1,crack,0.5,1\n")
    assert not report_of(folder).having("img")


def test_no_run_folder(tmp_path):
    with pytest.raises(BadInputError, match="expected a run folder"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_three_categories_stay_below_five_megabytes(tmp_path):
    def rendered(_, key):
        found = render("flange", key)
        return found._replace(normals=np.asarray(surface_normals(found.xyz, found.valid)))

    folder = write_run(tmp_path / "run", ("a",), good=6, each=3, scans=rendered)
    page = report_of(folder)
    assert len(page.having("img")) == 12 * 6
    assert (folder / "report.html").stat().st_size < 5e6 / 3


def test_many_categories_show_fewer_scans_each(tmp_path):
    names = [f"part {n}" for n in range(12)]
    page = report_of(write_run(tmp_path / "run", names, masks=False, modalities=("rgb",)))
    assert len(page.having("img")) == 12 * 4 * 2


@pytest.mark.parametrize(
    ("touches", "marked"),
    [("pixels", ["P‑AUROC", "AUPRO at 30 %"]), ("scans", ["I‑AUROC"]), ("", [])],
)
def test_figures_that_a_note_makes_doubtful_are_marked(tmp_path, touches, marked):
    folder = write_run(tmp_path / "run", categories=("flange",))
    path = folder / "metrics.json"
    document = json.loads(path.read_text())
    words = "no mask for <b>gr\udcf6\udcdfe</b>"
    document["notes"] = {"flange": [{"words": words, "touches": touches}]}
    path.write_text(json.dumps(document))
    text = write_report(folder).read_text()
    assert "flange: no mask for &lt;b&gt;gr\\udcf6\\udcdfe" in text
    table = text.split('<table class="wide">')[1].split("</table>")[0]
    names = re.findall(r'<th scope="col">([^<]+)</th>', table)[1:]
    cells = re.findall(r"<td>(.*?)</td>", table)
    found = [name for name, cell in zip(names, cells, strict=False) if cell.endswith("*")]
    assert [name for name in found if "F1" not in name] == marked
    printed = results_table(document)
    shown = [column.header for column in printed.columns if next(iter(column.cells)).endswith("*")]
    assert len([name for name in shown if name != "F1max"]) == len(marked)
