"""Colours of a map, against matplotlib's own table."""

import matplotlib
import numpy as np
import pytest

from pirn_jax.report.heatmap import colour_map

TABLE = np.array([matplotlib.colormaps["inferno"](n, bytes=True)[:3] for n in range(256)])


def test_colours_are_inferno_s_from_low_to_high():
    values = np.linspace(-1, 3, 400, dtype=np.float32).reshape(20, 20)
    found = colour_map(values, 0.5, 1.5)
    assert (found.dtype, found.shape) == (np.uint8, (20, 20, 3))
    places = np.clip(np.floor((values.astype(np.float64) - 0.5) * 256), 0, 255).astype(int)
    np.testing.assert_array_equal(found, TABLE[places])
    assert found.flags.writeable


@pytest.mark.parametrize("high", [1.0, 0.5])
def test_without_a_range_all_is_black(high):
    found = colour_map(np.full((2, 3), 7.0, np.float32), 1.0, high)
    np.testing.assert_array_equal(found, np.broadcast_to(TABLE[0], (2, 3, 3)))


def test_what_is_not_a_number_is_black():
    found = colour_map(np.array([[np.nan, 1.0, np.inf]]), 0.0, 1.0)
    np.testing.assert_array_equal(found[0], [[0, 0, 0], TABLE[255], TABLE[255]])
