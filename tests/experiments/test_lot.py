"""How test scans are dealt into lots."""

import numpy as np
import pytest

from lot import dealt, tenth


@pytest.mark.parametrize(("count", "size"), [(28, 8), (9, 8), (16, 4)])
def test_each_scan_is_judged_once_in_a_full_lot(count, size):
    lots = dealt(count, size, np.random.default_rng(0))
    assert sorted(np.concatenate([judged for _, judged in lots])) == list(range(count))
    for scans, judged in lots:
        assert len(set(scans)) == len(scans) == size
        assert np.array_equal(scans[: len(judged)], judged)
    assert dealt(size, size, np.random.default_rng(0)) == []


@pytest.mark.parametrize(("good", "defective", "size", "share"), [(24, 36, 16, 2), (8, 20, 8, 1)])
def test_a_tenth_of_a_lot_is_defective(good, defective, size, share):
    bad = np.arange(good + defective) >= good
    lots = tenth(bad, size, np.random.default_rng(0))
    assert sorted(np.concatenate([judged for _, judged in lots])) == list(range(len(bad)))
    for scans, judged in lots:
        assert len(set(scans)) == len(scans) == size
        assert bad[scans].sum() == share
        assert np.array_equal(scans[: len(judged)], judged)
    assert tenth(bad, 4, np.random.default_rng(0)) == []  # a tenth of four is none
    assert tenth(bad, 32, np.random.default_rng(0)) == []  # too few good ones
