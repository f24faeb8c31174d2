"""`python -m pirn_jax.train` where nothing is trained."""

import json

from pirn_jax import train


def test_settings_are_printed_and_nothing_is_done(tmp_path, capsys):
    train.main(["--config", "debug", "--shots", "4", "--out", str(tmp_path / "run"),
                "--print-config"])  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    assert (document["shots"], document["encoder"]) == (4, "pirn-tiny")
    assert not (tmp_path / "run").exists()
