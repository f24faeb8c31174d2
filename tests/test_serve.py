"""What keeps the service from starting is said; a stand-in judges."""

import signal
import socket
from pathlib import Path

import pytest

from pirn_jax import serve
from pirn_jax.errors import ConfigError, MachineError
from pirn_jax.storage import sole_writer

pytest.importorskip("uvicorn")


@pytest.mark.parametrize(
    ("state", "to_folder"),
    [("in", None), ("in/state", None), ("state", "in/out"), ("state", "in")],
)
def test_what_is_written_is_not_watched(tmp_path, state, to_folder):
    arguments = serve.Arguments(
        run=tmp_path / "run",
        watch=tmp_path / "in",
        state=tmp_path / state,
        to_folder=None if to_folder is None else tmp_path / to_folder,
    )
    with pytest.raises(ConfigError, match="would be judged again"):
        serve.serve(arguments)


@pytest.mark.parametrize("flag", ["state", "to_folder", "watch"])
def test_folders_of_a_store_are_refused(tmp_path, flag):
    arguments = serve.Arguments(run=tmp_path, **{flag: Path("s3://bucket/folder")})
    name = flag.replace("_", "-")
    with pytest.raises(ConfigError, match=f"--{name} s3://bucket/folder: expected a folder of"):
        serve.serve(arguments)


def test_a_second_service_is_told_of_its_own_flag(tmp_path):
    arguments = serve.Arguments(run=tmp_path / "run", state=tmp_path)
    with sole_writer(tmp_path), pytest.raises(MachineError, match="another with --state"):
        serve.serve(arguments)


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Of a service whose port is taken."""
    from pirn_jax.deploy.service.judge import Served
    from tests.deploy.service.stand_in import ABOUT, Brightness

    served = Served("cap", Brightness(), ("rgb",), ABOUT)
    monkeypatch.setattr(serve, "_models", lambda _: {"cap": served})
    before = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        yield serve.Arguments(run=tmp_path / "run", state=tmp_path / "state", port=port)
    signal.signal(signal.SIGTERM, before)


def fail(_):
    raise MachineError("no room")


@pytest.mark.parametrize(
    ("step", "said"),
    [(None, "--port names another"), ("start", "could not start"), ("_resume", "no room")],
)
def test_only_a_port_that_is_taken_is_to_be_changed(arguments, monkeypatch, step, said):
    from pirn_jax.deploy.service.batcher import Batcher

    if step is not None:
        monkeypatch.setattr(Batcher, step, fail)
    with pytest.raises(MachineError, match=said):
        serve.serve(arguments)
