"""What a row changes: kept so that it can be hashed, shown, and found again in a detector."""

import dataclasses

import pytest

from harness.changes import labels_of, pairs_of
from harness.table import TableRow
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
