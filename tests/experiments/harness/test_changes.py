"""What a row changes: kept so that it can be hashed, shown, and found again in a detector."""

import dataclasses

import pytest

from harness.changes import changes_of, labels_of, pairs_of
from harness.table import TableRow
from pirn_jax.config import Config, with_settings
from pirn_jax.errors import ConfigError
from recipe_study.rows import Variant


@pytest.mark.parametrize("kind", [TableRow, Variant])
def test_a_mapping_is_kept_as_pairs_that_can_be_hashed(kind):
    change = {"decoder.prototypes": 50, "epochs": 30}
    one, same = kind("wide", change), kind("wide", tuple(change.items()))
    assert one == same
    assert len({one, same, kind("wide", {"epochs": 30})}) == 2
    assert one.change == (("decoder.prototypes", 50), ("epochs", 30))
    assert dataclasses.replace(one, change={}).change == ()


def test_settings_are_shown_as_name_and_value():
    assert labels_of({"augment": False, "epochs": 20}) == ["augment=False", "epochs=20"]
    assert labels_of(pairs_of({"loss.form": "mean"})) == ["loss.form=mean"]


def test_what_was_changed_of_a_detector_is_found_again():
    for config in (Config(), Config(recipe="paper"), Config(method="memory")):
        assert changes_of(config) == ()
        assert changes_of(dataclasses.replace(config, modalities=("rgb",))) == ()
    change = {"decoder.prototypes": 50, "loss.exponent": 2.0, "epochs": 30}
    found = changes_of(with_settings(Config(), change))
    assert dict(found) == change
    with pytest.raises(ConfigError, match="prototypes"):
        with_settings(Config(), {"decoder.prototype": 50})
