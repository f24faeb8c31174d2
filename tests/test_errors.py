import pickle

import pytest

from pirn_jax.errors import (
    BadInputError,
    ConfigError,
    MissingDependencyError,
    PirnError,
    WeightsError,
)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (BadInputError, ValueError),
        (WeightsError, ValueError),
        (ConfigError, ValueError),
        (MissingDependencyError, ImportError),
    ],
)
def test_an_error_says_where_what_and_what_to_do_and_crosses_processes(kind, builtin):
    error = kind("expected 3 channels, got 4", "save it as RGB", path="part.png")
    assert isinstance(error, PirnError)
    assert isinstance(error, builtin)
    assert str(error) == "part.png: expected 3 channels, got 4\n  → save it as RGB"
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.path == "part.png"


def test_without_a_file_or_a_remedy_the_message_is_the_problem():
    assert str(ConfigError("shots must be at least 1, got 0")) == "shots must be at least 1, got 0"
