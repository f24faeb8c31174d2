"""What the benchmarks count and print; the scripts themselves are in `test_scripts.py`."""

import json
from argparse import Namespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import all as everything
from bench.measure import RESULTS, interleaved, result_file
from flops import by_formula, xla_flops
from lowered import counted
from tables import BEGIN, END, rewritten, section

N = 16


def test_quick_figures_do_not_take_the_place_of_measured_ones(tmp_path):
    named = Namespace(quick=True, json=tmp_path / "a.json")
    assert result_file(named, "a") == tmp_path / "a.json"
    assert result_file(Namespace(quick=False, json=None), "a") == RESULTS / "a.json"
    elsewhere = result_file(Namespace(quick=True, json=None), "a")
    assert elsewhere.name == "a.json"
    assert RESULTS not in elsewhere.parents


@pytest.mark.parametrize("unroll", [1, 2, 3, 10])
def test_loops_are_counted_by_their_trips(unroll):
    """Seven products in a scan, and as many in a scan in a scan, are as many products."""
    product, length = 2 * N**3, 7

    def step(x, _):
        return x @ x, None

    def outer(x, _):
        return jax.lax.scan(step, x, None, length=length, unroll=unroll)

    def nested(x):
        return jax.jit(lambda y: jax.lax.scan(outer, y, None, length=3)[0])(x)

    x = jnp.ones((N, N))
    # Loop counters add a handful.
    assert xla_flops(lambda x: outer(x, None)[0], x) == pytest.approx(length * product, rel=0.01)
    assert xla_flops(nested, x) == pytest.approx(3 * length * product, rel=0.01)


def test_loops_of_unknown_length_are_refused():
    def halve(x):
        return jax.lax.while_loop(lambda y: y.sum() > 1, lambda y: y / 2, x)

    with pytest.raises(ValueError, match="while"):
        xla_flops(halve, jnp.ones(3))


def test_the_default_pair_costs_what_the_paper_leaves_room_for():
    default, paper = (by_formula("dinov2-base", r, executed=False) for r in ("default", "paper"))
    encoder = sum(value for name, value in default.items() if name.startswith("encoder"))
    assert 76 < encoder < 78
    assert sum(default.values()) < 103.36
    # docs/decisions.md, 12: one MLP of ratio 4 per layer and modality is 9.66 G of the difference.
    assert default["decoder: feed-forward"] == pytest.approx(9.66, abs=0.01)
    assert sum(paper.values()) < sum(default.values())


def test_tasks_take_turns_and_medians_lie_between():
    order = []
    tasks = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    times = interleaved(tasks, runs=5)
    assert order[4:] == ["a", "b"] * 5  # after two each to warm up
    for found in times.values():
        assert found["runs"] == 5
        assert found["min_ms"] <= found["median_ms"] <= found["p95_ms"] <= found["p99_ms"]


def test_tables_say_what_is_not_measured_and_change_nothing_else(tmp_path):
    made = rewritten(f"before\n{BEGIN}\nstale figures\n{END}\nafter\n", tmp_path)
    assert made.startswith(f"before\n{BEGIN}\n")
    assert made.endswith(f"{END}\nafter\n")
    assert "stale" not in made
    assert made.count("Not measured") == 6 * 2 + 6  # six files of a CPU and of a GPU, six of one
    assert rewritten(made, tmp_path) == made
    with pytest.raises(ValueError, match="expected one"):
        rewritten("no marks", tmp_path)


def test_tables_show_what_the_files_hold(tmp_path):
    where = {"processor": "P", "cores": 2, "device": "cpu", "date": "2026-01-02T03:04:05+00:00"}
    where |= {"platform": "cpu", "load_at_start": [0.1], "versions": {"jax": "1", "torch": None}}
    median = {kind: {"first heatmap": 1.25} for kind in ("none", "filled")}
    document = {"environment": where, "encoder": "E", "median": median}
    (tmp_path / "cold_start.json").write_text(json.dumps(document))
    text = section(tmp_path)
    assert "| first heatmap | 1.25 | 1.25 |" in text
    assert "2026-01-02; jax 1, torch missing" in text
    assert text.count("Not measured") == 17


def test_what_a_cut_off_run_left_has_tables_too(tmp_path):
    where = {"processor": "P", "cores": 2, "device": "cpu", "date": "2026-01-02T03:04:05+00:00"}
    where |= {"platform": "gpu", "load_at_start": [0.1], "versions": {"jax": "1", "torch": None}}
    row = {"ms": 3.0, "efficiency": 1.0, "largest_difference": 0.0}
    document = {"environment": where, "pairs": 8, "devices": {"1": row}}
    (tmp_path / "scaling_gpu.json").write_text(json.dumps(document))
    assert "| 1 | 3 | 1.00 | 0e+00 |" in section(tmp_path)


def test_what_a_gpu_is_handed_is_counted_by_call():
    """A function called twice counts twice, a loop's body once, arrays that are not used never."""

    @jax.jit
    def product(x):
        return x @ x

    def program(x, unused):
        y = product(jnp.matmul(product(x), x, precision="highest"))
        return jax.lax.fori_loop(0, 5, lambda _, z: jnp.sort(z @ z), y)

    with jax.default_matmul_precision("default"):
        row = counted(program, jnp.ones((N, N)), jnp.ones(3))
    shown = ("arrays", "products", "exact", "loops", "sorts", "kernels")
    assert {name: row[name] for name in shown} == {
        "arrays": 1,
        "products": 4,
        "exact": 1,
        "loops": 1,
        "sorts": 1,
        "kernels": 0,
    }


def test_a_step_that_is_cut_off_leaves_what_it_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr(everything, "HERE", tmp_path)
    write = "import sys, time; open(sys.argv[2], 'w').write('{}')"
    (tmp_path / "slow.py").write_text(f"{write}; time.sleep(60)")
    (tmp_path / "quick.py").write_text(write)
    (tmp_path / "broken.py").write_text("raise SystemExit(3)")
    found = [
        everything.run(everything.Step(name, ()), tmp_path / f"{name}.json", {}, seconds)
        for name, seconds in (("slow", 2.0), ("quick", 20.0), ("broken", 20.0))
    ]
    assert [row["state"] for row in found] == ["cut off", "done", "failed (3)"]
    assert [row["file"] for row in found] == ["slow.json", "quick.json", None]
    assert found[0]["seconds"] < 30


@pytest.mark.torch
def test_the_torch_pair_computes_what_ours_does():
    """The same encoder, block for block, so that timings compare the same work."""
    torch = pytest.importorskip("torch")
    from bench import reference_torch
    from pirn_jax.encoder import load_encoder

    ours = load_encoder("dinov2-small", "random", 224, (1, 2))
    theirs = reference_torch.Pair(384, 6, 2, (1, 2)).eval()
    weights = jax.tree.map(np.asarray, ours.parameters)

    def put(module, part):
        module.weight.copy_(torch.from_numpy(part["kernel"].T.copy()))
        module.bias.copy_(torch.from_numpy(part["bias"].copy()))

    with torch.no_grad():
        kernel = weights["patches"]["kernel"].reshape(14, 14, 3, 384).transpose(3, 2, 0, 1)
        theirs.patches.weight.copy_(torch.from_numpy(kernel.copy()))
        theirs.patches.bias.copy_(torch.from_numpy(weights["patches"]["bias"].copy()))
        theirs.first.copy_(torch.from_numpy(weights["prefix"][None].copy()))
        theirs.positions[:, :1] = 0  # ours has it in the class token
        theirs.positions[:, 1:] = torch.from_numpy(weights["positions"][None].copy())
        for number, block in enumerate(theirs.blocks):
            part = weights["blocks"][number]
            put(block.qkv, part["attention"]["qkv"])
            put(block.out, part["attention"]["out"])
            put(block.fc1, part["mlp"]["fc1"])
            put(block.fc2, part["mlp"]["fc2"])
        images = np.random.RandomState(0).rand(1, 224, 224, 3).astype(np.float32)
        found = theirs.tokens(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(found, ours(images), atol=2e-4)
