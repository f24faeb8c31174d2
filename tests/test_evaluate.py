"""Where the results of `evaluate` go that no folder was named for."""

from pathlib import Path

import pytest

from pirn_jax.evaluate import beside


@pytest.mark.parametrize("given", [".", "../run", "deeper/..", "{place}/run"])
def test_they_lie_beside_the_run(given, tmp_path, monkeypatch):
    (tmp_path / "run" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run")
    assert beside(Path(given.format(place=tmp_path))) == tmp_path / "run-evaluated"


def test_those_of_a_run_in_a_store_lie_there():
    assert beside(Path("s3://bucket/run")) == Path("s3://bucket/run-evaluated")
