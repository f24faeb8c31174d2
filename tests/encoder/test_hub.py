"""Downloads against a small hub of our own on the loopback interface."""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors.numpy import save

from pirn_jax.encoder import hub, load_encoder
from pirn_jax.encoder.catalog import CATALOG, encoder_config
from pirn_jax.encoder.embedded import SHA256
from pirn_jax.errors import WeightsError
from tests.encoder.test_weights import timm_tensors

REVISION = "0123456789abcdef0123456789abcdef01234567"
AUTO = """
import json
from pirn_jax.encoder import load_encoder
print(json.dumps(load_encoder("auto").source._asdict()))
"""


class Hub(ThreadingHTTPServer):
    """Serves one file as the Hugging Face hub serves it."""

    def __init__(self, content: bytes, stated: str, status: int = 200, cut: bool = False):
        self.content, self.stated, self.status, self.cut = content, stated, status, cut
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        hub = self.server
        if hub.status != 200:
            self.send_error(hub.status)
            return
        if self.path.endswith("config.json"):
            content, etag = b"{}", hashlib.sha1(b"{}").hexdigest()
        elif self.path.endswith("model.safetensors"):
            content, etag = hub.content, hub.stated
        else:
            self.send_error(404)
            return
        self.send_response(200)
        for key, value in {
            "Content-Length": str(len(content)),
            "Content-Type": "application/octet-stream",
            "ETag": f'"{etag}"',
            "X-Repo-Commit": REVISION,
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if hub.cut else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def load_from(monkeypatch, tmp_path):
    """Loads an encoder as if the hub's client had been imported with these settings."""
    from huggingface_hub import constants

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def load(endpoint: str, offline: bool = False):
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        return load_encoder("vit-tiny-16", layers=(1,)).source

    return load


def auto_from(endpoint: str, cache: Path, offline: str) -> dict:
    """The source `auto` finds in a process of its own; "log" is what it said on stderr."""
    settings = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": offline,
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", AUTO],
        env=settings,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) | {"log": done.stderr}


@pytest.fixture(scope="module")
def weights() -> bytes:
    return save(timm_tensors(blocks=1))


@pytest.fixture
def serve():
    hubs = []

    def start(content: bytes, stated: str, **behaviour) -> str:
        hub = Hub(content, stated, **behaviour)
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        hubs.append(hub)
        return f"http://127.0.0.1:{hub.server_port}"

    yield start
    for server in hubs:
        server.shutdown()
        server.server_close()


def test_a_download_records_repository_revision_and_checksum_and_is_cached(
    weights, serve, load_from
):
    digest = hashlib.sha256(weights).hexdigest()
    source = load_from(serve(weights, digest))
    assert source.repository == "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    assert source.revision == REVISION
    assert source.sha256 == digest
    again = load_from("http://127.0.0.1:9", offline=True)
    assert again.sha256 == digest
    assert again.path == source.path


def test_the_commit_of_the_catalog_is_asked_for_and_its_checksum_checked(
    weights, serve, load_from, monkeypatch
):
    digest, asked = hashlib.sha256(weights).hexdigest(), []
    monkeypatch.setattr(Hub, "handle_error", lambda *_: None)
    answer = Handler.answer

    def noted(self, body):
        asked.append(self.path)
        answer(self, body)

    monkeypatch.setattr(Handler, "answer", noted)
    endpoint = serve(weights, digest)
    load_from(endpoint)  # sets the endpoint
    asked.clear()
    pinned = replace(encoder_config("vit-tiny-16"), revision=REVISION, sha256=digest)
    assert hub.download_weights(pinned).revision == REVISION
    assert hub.cached_weights(pinned).sha256 == digest
    assert asked
    assert all(f"/resolve/{REVISION}/" in path for path in asked)
    other = replace(pinned, sha256="0" * 64)
    with pytest.raises(WeightsError, match=f"{digest} is not the {'0' * 64} that the catalog"):
        hub.cached_weights(other)
    assert hub.cached_weights(pinned) is None  # it was deleted


def test_every_commit_of_the_catalog_is_one():
    pinned = {c.name: c.revision for c in CATALOG.values() if c.revision}
    assert {name for name in CATALOG if name.startswith("dinov2-")} == set(pinned)
    assert len(set(pinned.values())) == len(pinned)
    assert all(re.fullmatch("[0-9a-f]{40}", revision) for revision in pinned.values())
    assert all(re.fullmatch("([0-9a-f]{64})?", c.sha256) for c in CATALOG.values())


def test_a_file_that_is_not_what_the_hub_states_is_refused_and_not_kept(weights, serve, load_from):
    endpoint = serve(weights, "0" * 64)
    for _ in range(2):  # the second time it must not be found in the cache
        with pytest.raises(WeightsError, match=f"is not the {'0' * 64}"):
            load_from(endpoint)


def test_a_download_that_breaks_off_is_taken_up_again(weights, serve, load_from):
    digest = hashlib.sha256(weights).hexdigest()
    with pytest.raises(WeightsError, match="broke off"):
        load_from(serve(weights, digest, cut=True))
    assert load_from(serve(weights, digest)).sha256 == digest


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "holds no model.safetensors"), (401, "asks for a login"), (500, "cannot reach the hub")],
)
def test_a_hub_that_refuses_is_understood(serve, load_from, status, message):
    with pytest.raises(WeightsError, match=message):
        load_from(serve(b"", "", status=status))


def test_a_network_that_never_answers_is_given_up(load_from):
    """A server that takes the connection and is silent: the slowest way to have no network."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(WeightsError, match="cannot reach the hub for timm/vit_tiny") as caught,
    ):
        load_from(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "--weights" in str(caught.value)


def test_offline_mode_is_respected(load_from):
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        load_from("http://127.0.0.1:9", offline=True)


@pytest.mark.slow
def test_auto_without_an_answer_is_the_encoder_of_the_package(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = auto_from(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path, offline="0")
    assert answer["sha256"] == SHA256
    assert "cannot reach the hub for facebook/dinov2-small" in answer["log"]


def test_auto_offline_is_the_encoder_of_the_package_in_one_line_and_asks_no_one(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        answer = auto_from(f"http://127.0.0.1:{listening.getsockname()[1]}", tmp_path, "1")
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):  # no connection waits to be taken
            listening.accept()
    assert answer["sha256"] == SHA256
    said = answer["log"].strip().splitlines()
    assert len(said) == 1
    for part in ("facebook/dinov2-small is not in the cache", "pirn-tiny", "--weights"):
        assert part in said[0]


def test_a_page_of_an_error_becomes_a_line():
    """As an HTTP client words it that explains itself at length."""
    page = "404 Client Error. (Request ID: Root=1-2)\n\nRepository Not Found.\nSee " + "x" * 300
    assert hub._in_a_line(ValueError(page)) == "404 Client Error"
    assert len(hub._in_a_line(ValueError("word " * 100))) <= 120
    assert hub._in_a_line(TimeoutError()) == "TimeoutError"
