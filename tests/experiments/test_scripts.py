"""Every table and figure by its command: what it would do, and that the real path runs."""

import csv
import re
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import paper
import table01
import table04
import table08
import table11
from harness import all as everything
from harness import sheet
from harness.options import Options
from harness.sheet import Figure, Line, Sheet
from harness.table import plan_jobs
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.methods import METHODS
from pirn_jax.scans.synthetic.generator import write_mvtec3d
from table02 import TABLE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def compiler_cache():
    """A command turns the compiler's cache on, which no other test may notice."""
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def run(script: Path, *flags: str) -> None:
    given, sys.argv = sys.argv, [str(script), *flags]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv = given


def test_all_tables_and_figures_are_there():
    names = {path.stem for path in everything.SCRIPTS}
    assert names == {f"table{n:02d}" for n in range(1, 12)} | {
        f"figure{n:02d}" for n in (1, 3, 4, 5, 6, 7, 8)
    }


def test_the_folder_shows_tables_and_figures_and_nothing_else():
    there = {path.name for path in (ROOT / "experiments").iterdir() if path.name != "__pycache__"}
    scripts = {path.name for path in everything.SCRIPTS}
    rooms = {"distil", "harness", "recipe_study", "studies", "results"}
    assert there == scripts | rooms | {
        "lot.py",
        "paper.py",
        "real_sets.py",
        "README.md",
        "RECIPE.md",
    }


def test_no_script_changes_the_path_of_modules():
    """Spelled apart here, or the search would find itself."""
    for folder in ("experiments", "benchmarks", "tests/experiments", "tests/benchmarks"):
        for file in (ROOT / folder).rglob("*.py"):
            assert "sys.path" + "." not in file.read_text(), file


def test_all_goes_on_past_a_script_that_fails_and_names_it(tmp_path, monkeypatch, capfd):
    scripts = [tmp_path / name for name in ("table01.py", "table02.py", "table03.py")]
    scripts[0].write_text("import sys; print('first', sys.argv[1:])")
    scripts[1].write_text("raise RuntimeError('out of memory')")
    scripts[2].write_text("print('third')")
    monkeypatch.setattr(everything, "SCRIPTS", scripts)
    assert everything.main(["--quick"]) == 1
    said = capfd.readouterr()
    assert said.out.splitlines() == ["first ['--quick']", "third"]
    assert said.err.splitlines()[-1] == "failed: table02"


def test_a_recipe_keeps_its_own_geometry_and_epochs_where_data_are_real():
    full, quick = Options(dataset="mvtec3d"), Options(quick=True)
    assert full.config("paper", shots=10).geometry_method == "open3d"
    assert full.config("default", shots=10).geometry_method == "grid"
    assert quick.config("paper", shots=10).geometry_method == "grid"
    assert Options().config("paper", shots=10).geometry_method == "grid"  # generated parts
    assert full.config("paper", shots=0).settings.epochs == 8
    assert full.config("paper", shots=10).settings.epochs == 60
    assert quick.config("paper", shots=0).settings.epochs == 6
    assert quick.config("paper", 0, {"epochs": 2}).settings.epochs == 2
    assert quick.baseline("memory").geometry_method == "grid"


QUICKLY = ("table04", "figure08")
"""Scripts whose dry run is looked at each time; that of the others with the slow tests."""


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem in QUICKLY else pytest.mark.slow)
        for path in everything.SCRIPTS
    ],
)
def test_a_quick_dry_run_says_what_there_is_to_do(script, tmp_path, capsys):
    where = ["--jobs", str(tmp_path), "--out", str(tmp_path), "--cache", str(tmp_path / "cache")]
    run(script, "--quick", "--dry-run", "--image-size", "56", *where)
    said = "".join(capsys.readouterr())
    assert re.search(r"to do in \d+ programs: about|models, about|no jobs|nothing to run", said)
    assert not list(tmp_path.glob("*.md")) + list(tmp_path.glob("*.png"))
    head = script.read_text().split('"""')[1]
    for needed in ("python experiments/", "Expected (paper", "Cost:"):
        assert needed in head or script.stem == "table08", f"{script.name} does not say {needed!r}"


def test_every_method_is_measured_beside_what_is_published_of_it():
    others = [name for name in METHODS if name != "pirn"]
    for table in (table01, table08, table11):
        options = Options(quick=True)
        planned = plan_jobs(table.choose(options), options)
        rows = {row.method: row for row, _, jobs in planned if jobs}
        assert [name for name in rows if name != "pirn"] == others
        assert rows["cfm"].paper == {}  # what is published was not of these shots
        two = Options(quick=True, methods=("cfm", "ast"))
        planned = plan_jobs(table.choose(two), two)
        assert {row.method for row, _, jobs in planned if jobs} == {"pirn", "cfm", "ast"}
    assert dict(rows["inp-former"].change) == {"augment": False, "epochs": 20}
    with pytest.raises(ConfigError, match="did you mean 'cfm'"):
        Options(methods=("cmf",))


def test_a_row_of_the_paper_is_run_by_both_recipes():
    planned = plan_jobs(TABLE, Options(quick=True))
    labels = [(row.label, recipe) for row, recipe, _ in planned]
    assert labels[:2] == [("without BPA and APR and MNC", r) for r in ("paper", "default")]
    assert len(labels) == 10
    jobs = planned[0][2]
    assert {(job.category, job.draw, job.config.seed) for job in jobs} == {
        (category, draw, draw) for category in ("flange", "rope") for draw in (0, 1)
    }
    decoder = jobs[0].config.settings.decoder
    assert (decoder.assignment, decoder.context, decoder.communicate) == ("softmax", "none", False)


@pytest.mark.slow
def test_the_readme_adds_a_row(tmp_path, monkeypatch, capsys):
    """Its Python, word for word, with an assignment of one's own."""
    (tmp_path / "mine.py").write_text(
        "import jax\n\n"
        "def assign(cost, *, epsilon, iterations, row_mass):\n"
        "    return jax.nn.softmax(-cost / epsilon) * row_mass[..., None]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (ROOT / "experiments" / "README.md").read_text()
    block = re.search(r"```python\n(.*?)```", text, re.S)
    assert block
    code = block.group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    where = ["--jobs", str(tmp_path), "--cache", str(tmp_path / "cache")]
    monkeypatch.setattr(sys, "argv", ["mine", "--quick", "--dry-run", "--image-size", "56", *where])
    exec(compile(code, "README", "exec"), {"__name__": "__main__"})
    assert "assignment=mine:assign" in capsys.readouterr().err


# What is written


def example() -> Sheet:
    ours = {"i_auroc": Figure(0.9, 0.01, 3, 0.85, 0.95), "aupro_0.3": Figure(0.8, 0.02, 3)}
    lines = [
        Line("a", "paper", ours, {"aupro_0.3": Figure(0.79, 0.02, 3)}, {"aupro_0.3": 0.75}),
        Line("b", paper.CITED, {}, {}, {"i_auroc": 0.7}),
    ]
    return Sheet("table99", "Table 99", lines, ["about"], [sheet.GENERATED], ["a note"])


def test_markdown_compares_by_the_papers_protocol():
    text = sheet.markdown(example())
    assert "GENERATED DATA" in text.splitlines()[2]
    cells = [cell.strip() for cell in re.search(r"\| a \|.*", text).group().split("|")[1:-1]]
    assert cells == [
        "a", "paper", "3", "0.900 ± 0.010 [0.850, 0.950]", "", "",
        "0.800 ± 0.020", "0.790 ± 0.020", "0.750", "+0.040",
    ]  # fmt: skip
    assert "| b | cited, other sampling |" in text


def test_csv_has_a_line_per_figure_and_protocol():
    rows = list(csv.DictReader(sheet.comma_separated(example()).splitlines()))
    found = {(row["row"], row["metric"], row["protocol"]): row for row in rows}
    assert float(found["a", "aupro_0.3", "cfm99"]["difference"]) == pytest.approx(0.04)
    assert found["b", "i_auroc", "exact"]["mean"] == ""
    assert all(row["warning"] == "GENERATED DATA." for row in rows)
    assert r"\begin{tabular}" in sheet.for_latex(example())


def test_table_4_reads_what_the_benchmark_wrote(tmp_path):
    assert table04.measured(tmp_path) == []
    (tmp_path / "latency_x.json").write_text(
        '{"environment": {"device": "cpu", "processor": "p"}, "table_4": ['
        '{"system": "cited", "gflops": 1, "ms": 2, "measured": false},'
        '{"system": "ours", "gflops": null, "ms": 3.14159, "measured": true}]}'
    )
    rows = table04.lines(table04.measured(tmp_path))
    assert rows[-1] == ["ours", "", "3.14", "measured: cpu (p), latency_x.json"]
    assert len(rows) == 5
    (tmp_path / "latency_448_gpu.json").write_text(
        '{"encoders": {"B": {"size": 448}}, "table_4": ['
        '{"system": "larger", "gflops": null, "ms": 9, "measured": true}]}'
    )
    assert table04.lines(table04.measured(tmp_path)) == rows  # the table is of 224²
    (tmp_path / "latency_y.json").write_text("{}")
    with pytest.raises(BadInputError, match="Table 4"):
        table04.measured(tmp_path)


# The paper


def test_the_papers_means_are_those_of_its_categories_but_where_it_is_noted():
    wrong = {
        (metric, method)
        for metric, table in paper.TABLE11.items()
        for method, row in table.items()
        if abs(np.mean([row[name] for name in paper.MVTEC3D]) - row["mean"]) > 0.0011
    }
    assert wrong == {
        ("i_auroc", "BTF"), ("i_auroc", "Shape Guided"), ("aupro_0.3", "BTF"), ("aupro_0.3", "CFM"),
    }  # fmt: skip
    kinds = [name for name in paper.TABLE8 if name != "mean"]
    assert len(kinds) == 20
    for method, mean in paper.TABLE8["mean"].items():
        for metric, value in mean.items():
            own = np.mean([paper.TABLE8[kind][method][metric] for kind in kinds])
            assert (abs(own - value) <= 0.0011) == (method != "AST")


def test_the_papers_tables_agree_where_they_show_the_same_model():
    full = paper.TABLE1["mvtec3d", 10]["PIRN"]
    same = [paper.TABLE2["BPA APR MNC"], paper.TABLE7["balanced optimal transport"]]
    same.append(paper.TABLE9["balanced optimal transport"])
    assert all(row == full for row in same)
    for shots in (5, 10, 0):
        row = paper.TABLE3[shots, "RGB + normals"]
        assert {k: v for k, v in row.items() if k != "i_f1max"} == (
            paper.TABLE1["mvtec3d", shots]["PIRN"]
        )
    assert full != paper.TABLE6["2"] != paper.TABLE10["DINOv2 ViT-B/14"]  # as noted


@pytest.mark.slow
def test_table_1_on_files_of_the_mvtec3d_layout(tmp_path):
    """The real path: files, background, normals, tokens, training, figures, table."""
    numbers = {"size": 96, "train": 5, "validation": 0, "test": 8}
    write_mvtec3d(tmp_path / "data", "biscuit", **numbers)
    where = ["--jobs", str(tmp_path), "--out", str(tmp_path), "--cache", str(tmp_path / "cache")]
    run(
        ROOT / "experiments" / "table01.py", "--dataset", "mvtec3d",
        "--data-root", str(tmp_path / "data"), "--quick", "--draws", "1", "--recipes", "paper",
        "--methods", "memory", "cfm", "--latex", *where,
    )  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "table01.csv").read_text().splitlines()))
    ours = {row["row"]: row for row in rows if row["metric"] == "i_auroc" and row["mean"]}
    assert set(ours) == {
        f"{k} shots (for {of} shots): {name}"
        for k, of in ((2, 5), (5, 10))
        for name in ("memory", "cfm steps=40", "PIRN")
    }
    assert all(0 <= float(row["mean"]) <= 1 for row in ours.values())
    assert "BTF" in (tmp_path / "table01.md").read_text()
    assert (tmp_path / "table01.tex").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 3, 4, 5, 6, 7, 8])
def test_a_figure_is_drawn(number, tmp_path):
    from PIL import Image

    where = ["--jobs", str(tmp_path), "--out", str(tmp_path), "--cache", str(tmp_path / "cache")]
    name = f"figure{number:02d}"
    flags = ("--quick", "--draws", "1", "--recipes", "paper", "--category", "biscuit", *where)
    run(ROOT / "experiments" / f"{name}.py", *flags)
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert min(picture.size) > 200
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100
