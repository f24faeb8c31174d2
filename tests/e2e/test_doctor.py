"""The doctor as a user meets it."""

import pytest

from pirn_jax.scans.synthetic.generator import write_mvtec3d
from tests.e2e.commands import command


@pytest.mark.slow
def test_the_doctor_finds_a_file_without_its_partner(tmp_path):
    root = tmp_path / "data"
    write_mvtec3d(root, "flange", size=96, train=2, validation=1, test=3)
    well = command("doctor", "--dataset", "mvtec3d", "--data-root", root)
    assert well.returncode == 0, well.stdout
    assert "nothing is wrong" in well.stdout
    (root / "flange" / "train" / "good" / "xyz" / "000.tiff").unlink()
    ill = command("doctor", "--dataset", "mvtec3d", "--data-root", root)
    assert ill.returncode == 2
    assert "wrong" in ill.stdout
    assert "000" in ill.stdout
