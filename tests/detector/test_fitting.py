"""A model that is fitted again is as one that was never fitted."""

import pytest

from pirn_jax.config import Config
from pirn_jax.detector import PIRN, Lot, open_encoder, view_shots
from pirn_jax.errors import BadInputError
from pirn_jax.scans import open_dataset


def test_fitted_again_it_keeps_nothing():
    """Parts of another size: what was decided for the first would show a corner of the others."""
    asked = Config(encoder="pirn-tiny", method="memory", image_size=56, modalities=("rgb",))
    data = open_dataset("synthetic", None, "biscuit", size=96, train=2, validation=0)
    shots, encoder = list(data.train), open_encoder(asked)
    larger = [scan._replace(xyz=3 * scan.xyz) for scan in shots]
    model = PIRN(asked, encoder=encoder).fit(shots)
    model.set_fixed_threshold(0.1)
    model.origin = {"data": "generated"}
    first, known = model.config, model.sight
    assert Lot(PIRN(asked, encoder=encoder)).asked == asked
    model.fit(larger)
    assert model.config == view_shots(larger, asked)[0]
    assert model.config.part_side == pytest.approx(3 * first.part_side, rel=0.05)
    assert model.sight.size == pytest.approx([3 * size for size in known.size], rel=0.05)
    assert (model.asked, model.calibration, model.origin) == (asked, None, {})
    with pytest.raises(BadInputError, match="learn from good scans only"):
        model.fit([shots[0]._replace(label=1)])
    assert not model.fitted  # and no model of two kinds
    assert model.config == asked
