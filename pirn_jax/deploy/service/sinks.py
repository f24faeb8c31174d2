"""Where records go: a folder, a web address, an MQTT topic; each tried until it takes them.

A sink that is away holds up no other and nothing else: each has a thread, which asks the journal
what is due. A record that was not taken is tried again after 1, 2, 4, … seconds, at most five
minutes, for ever; others go on meanwhile, so that one which a sink refuses does not block the rest.
"""

from __future__ import annotations

import http.client
import json
import logging
import re
import shutil
import sqlite3
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from pirn_jax.deploy.service.journal import Delivery, Journal
from pirn_jax.errors import ConfigError, MachineError, MissingDependencyError
from pirn_jax.report.schema import Document
from pirn_jax.storage import write_json

_log = logging.getLogger("pirn_jax")
_PATIENCE = 10.0  # seconds that a sink may take
_LONGEST = 300.0  # between two attempts
_WRITTEN = re.compile("[!-~]+")  # letters that an address of HTTP may hold


@runtime_checkable
class Sink(Protocol):
    """What takes records."""

    name: str

    def deliver(self, record: Document, pictures: Path) -> None:
        """Take one; raises whatever kept it from that. The same may come again, with its id."""
        ...


class FolderSink:
    """`<folder>/<id>.json` and, of what was judged, `<id>_heatmap.png` beside it."""

    name = "folder"

    def __init__(self, folder: Path):
        self._folder = folder

    def deliver(self, record: Document, pictures: Path) -> None:
        """See `Sink`; the record comes last, so that whoever sees it finds the picture."""
        self._folder.mkdir(parents=True, exist_ok=True)
        heatmap = pictures / "heatmap.png"
        if heatmap.is_file():
            beside = self._folder / f".{record['id']}.tmp"
            shutil.copyfile(heatmap, beside)
            beside.replace(self._folder / f"{record['id']}_heatmap.png")
        write_json(self._folder / f"{record['id']}.json", record)


class WebhookSink:
    """POST of the record as JSON; whatever is not 2xx is a failure. Redirections are not followed.

    Args:
        url: http or https, in the letters that an address has: others as %20.

    Raises:
        ConfigError: another kind of address, or one that no request can be sent to.
    """

    name = "webhook"

    def __init__(self, url: str):
        if _address(url, ("http", "https")) is None or not _WRITTEN.fullmatch(url):
            raise _no_address("webhook", "http://host/path or https://host/path")
        self._url = url

        class NoRedirect(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None

        self._opener = urllib.request.build_opener(NoRedirect)

    def deliver(self, record: Document, pictures: Path) -> None:
        """See `Sink`."""
        del pictures
        request = urllib.request.Request(
            self._url,
            json.dumps(record).encode(),
            {"Content-Type": "application/json", "Idempotency-Key": str(record["id"])},
        )
        with self._opener.open(request, timeout=_PATIENCE) as answer:
            answer.read(1 << 16)


class MqttSink:
    """The record as JSON to a topic, quality of service 1: the broker has said that it has it.

    Args:
        address: mqtt://host:port/topic

    Raises:
        ConfigError: another kind of address.
        MissingDependencyError: without paho-mqtt.
    """

    name = "mqtt"

    def __init__(self, address: str):
        known = _address(address, ("mqtt",))
        topic = "" if known is None else known.path.strip("/")
        if known is None or not topic or set(address) & set("+#?"):
            raise _no_address("mqtt", "mqtt://host:port/topic, without + # ?")
        try:
            from paho.mqtt import client, enums
        except ImportError as error:
            raise MissingDependencyError(
                f"MQTT needs paho-mqtt ({error})", "pip install 'pirn-jax[mqtt]'"
            ) from error
        self._host, self._port, self._topic = known.host, known.port or 1883, topic
        self._client = client.Client(enums.CallbackAPIVersion.VERSION2)
        self._client.connect_timeout = _PATIENCE
        self._started = False

    def deliver(self, record: Document, pictures: Path) -> None:
        """See `Sink`."""
        del pictures
        if not self._started:
            self._client.connect(self._host, self._port)
            self._client.loop_start()  # which connects again by itself from now on
            self._started = True
        end = time.monotonic() + _PATIENCE
        while not self._client.is_connected():  # else the client would keep it, again each time
            if time.monotonic() > end:
                raise ConnectionError(f"no connection within {_PATIENCE:g} s")
            time.sleep(0.02)
        message = self._client.publish(self._topic, json.dumps(record), qos=1)
        message.wait_for_publish(_PATIENCE)
        if not message.is_published():
            raise TimeoutError(f"the broker did not confirm within {_PATIENCE:g} s")


class _Address(NamedTuple):
    host: str
    port: int | None
    path: str


def _address(text: str, schemes: Sequence[str]) -> _Address | None:
    """An address of one of those kinds; None for what is none, or has a user or password."""
    try:
        parts = urllib.parse.urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is none, or half an IPv6 address
        return None
    if parts.scheme not in schemes or not host or port == 0 or "@" in parts.netloc:
        return None
    return _Address(host, port, parts.path)


def _no_address(sink: str, expected: str) -> ConfigError:
    # What came is not said again: a password may be part of it.
    return ConfigError(
        f"{sink}: expected {expected}, with a port below 65536 and without user and password",
        f"give --{sink} such an address",
    )


class Courier:
    """The thread that brings a sink what is due."""

    def __init__(self, journal: Journal, sink: Sink):
        self._journal, self._sink = journal, sink
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"sink {sink.name}", daemon=True)

    def start(self) -> None:
        """Begin with what an earlier process left."""
        self._thread.start()

    def stop(self) -> None:
        """End after the delivery at hand; what is left is kept for the next process."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            due = []
            try:
                due = self._journal.due(self._sink.name, time.time())
                for delivery in due:
                    if self._stop.is_set():
                        return
                    self._deliver(delivery)
            except (MachineError, sqlite3.Error) as error:  # it is delivered again
                _log.warning("%s: %s", self._sink.name, error)
                self._stop.wait(1.0)
            self._stop.wait(0.0 if due else 0.2)

    def _deliver(self, delivery: Delivery) -> None:
        try:
            self._sink.deliver(delivery.record, self._journal.place(delivery.id))
        except (OSError, http.client.HTTPException, ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0][:200] or type(error).__name__
            wait = min(_LONGEST, 2.0 ** min(delivery.tries, 10))
            _log.warning("%s: %s; again in %g s", self._sink.name, reason, wait)
            self._journal.postpone(delivery, self._sink.name, reason, time.time() + wait)
        else:
            self._journal.delivered(delivery, self._sink.name)
