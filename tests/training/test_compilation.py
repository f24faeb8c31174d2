"""The folder of compiled programs: the user's own, or none."""

import os
import stat

import jax
import pytest

from pirn_jax.training import use_compilation_cache

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def _settings_as_before():
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize("there", [False, True])
def test_nobody_else_may_look_into_it(tmp_path, there):
    folder = tmp_path / "cache" / "xla"
    if there:
        folder.mkdir(parents=True)
        folder.chmod(0o777)
    assert use_compilation_cache(folder) == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert jax.config.jax_compilation_cache_dir == str(folder)


def test_anothers_is_not_used(tmp_path, monkeypatch, caplog):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    assert use_compilation_cache(tmp_path / "xla") is None
    assert "belongs to another user" in caplog.text
    assert jax.config.jax_compilation_cache_dir == before
