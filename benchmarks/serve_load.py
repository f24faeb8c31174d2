"""The service under load: times, memory, and whether anything is lost, also when it is killed.

    python benchmarks/serve_load.py RUN [--requests 10000] [--clients 8] [--kills 20] [--size 256]
        [--json FILE]

RUN holds a trained model of generated parts, or is a file exported of one. A service of its own is
started on this machine, with a folder as sink. First so many requests are sent by so many clients
at once, each of its own generated part out of eight; then, under the same load, the process is
killed by SIGKILL so many times and started again. In the end every request whose files were
accepted must have its record, once, in the log and in the sink, and every request that a client
sent either its answer, or an error that the client saw.

`seconds` are the client's, from the first byte sent to the last received; `memory_mib` is the
process's resident memory each time a tenth of the requests is done.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import secrets
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import tifffile
from PIL import Image

from bench.measure import environment, write
from pirn_jax.scans import open_dataset

PARTS = 8


class Service:
    """The process under test."""

    def __init__(self, run: Path, folder: Path, category: str, batch: int):
        self._folder, self.port = folder, free_port()
        which = [] if run.is_file() else ["--category", category]
        self._command = [
            *(sys.executable, "-m", "pirn_jax.serve", str(run), *which),
            *("--port", str(self.port), "--state", str(folder / "state"), "--keep", "100"),
            *("--to-folder", str(folder / "out"), "--batch", str(batch), "--queue", "64"),
        ]
        self.process: subprocess.Popen | None = None

    def start(self) -> float:
        """Start it, and wait until it judges; returns the seconds that took."""
        began = time.monotonic()
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        while True:
            if self.process.poll() is not None:
                sys.exit((self._folder / "log").read_text())
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return time.monotonic() - began
            except OSError:
                time.sleep(0.1)

    def modalities(self) -> list[str]:
        """What the model looks at."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request("GET", "/v1/models")
        return json.loads(connection.getresponse().read())[0]["modalities"]

    def memory(self) -> float:
        """Resident memory, MiB."""
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no VmRSS")

    def end(self, how: signal.Signals) -> None:
        """Send the signal, and wait."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(120)


class Load:
    """Clients that send parts until so many were answered, or they are told to stop."""

    def __init__(self, port: int, bodies: list[tuple[bytes, str]], clients: int):
        self._port, self._bodies = port, bodies
        self.seconds: list[float] = []
        self.statuses: dict[int, int] = {}
        self.answered: list[str] = []
        self.failed = 0
        self._left = 0
        self._lock = threading.Lock()
        self._clients = clients

    def run(self, requests: int) -> list[threading.Thread]:
        """Start the clients; they share so many requests."""
        self._left = requests
        threads = [threading.Thread(target=self._client) for _ in range(self._clients)]
        for thread in threads:
            thread.start()
        return threads

    @property
    def left(self) -> int:
        """Requests that were not begun yet."""
        return self._left

    def stop(self) -> None:
        """Begin no further requests."""
        with self._lock:
            self._left = 0

    def _client(self) -> None:
        while True:
            with self._lock:
                if self._left <= 0:
                    return
                self._left -= 1
                body, kind = self._bodies[self._left % len(self._bodies)]
            start = time.monotonic()
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
                connection.request("POST", "/v1/judge", body, {"Content-Type": kind})
                answer = connection.getresponse()
                said = answer.read()
                connection.close()
            except (OSError, http.client.HTTPException):
                with self._lock:
                    self.failed += 1  # which the client saw
                time.sleep(0.05)
                continue
            seconds = time.monotonic() - start
            with self._lock:
                self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
                if answer.status == 200:
                    self.seconds.append(seconds)
                    self.answered.append(json.loads(said)["id"])
            if answer.status == 429:
                time.sleep(0.2)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def bodies(category: str, size: int, modalities: list[str]) -> list[tuple[bytes, str]]:
    """Requests, each a generated part as the model wants it, and their content type."""
    found = []
    for scan in open_dataset("synthetic", None, category, test=PARTS, size=size).test:
        picture, points = io.BytesIO(), io.BytesIO()
        Image.fromarray(scan.rgb).save(picture, "PNG")
        tifffile.imwrite(points, scan.xyz, photometric="rgb")
        boundary = secrets.token_hex(12)
        body = b""
        files = {"rgb": ("rgb", "a.png", picture), "normals": ("xyz", "a.tiff", points)}
        for role, name, content in (files[modality] for modality in modalities):
            head = f'Content-Disposition: form-data; name="{role}"; filename="{name}"'
            body += f"--{boundary}\r\n{head}\r\n\r\n".encode() + content.getvalue() + b"\r\n"
        found.append(
            (body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}")
        )
    return found


def account(folder: Path, answered: list[str]) -> dict[str, int]:
    """What became of every request that was accepted."""
    base = sqlite3.connect(folder / "state" / "journal.sqlite")
    rows = base.execute("SELECT id, state FROM requests").fetchall()
    waiting = base.execute("SELECT COUNT(*) FROM deliveries WHERE done = 0").fetchone()[0]
    delivered = {path.stem for path in (folder / "out").glob("*.json")}
    ids = {request for request, _ in rows}
    return {
        "accepted": len(rows),
        "judged": sum(state == "judged" for _, state in rows),
        "failed": sum(state == "failed" for _, state in rows),
        "without_verdict": sum(state == "accepted" for _, state in rows),
        "undelivered": waiting,
        "not_in_the_sink": len(ids - delivered),
        "answered_and_unknown": len(set(answered) - ids),
        "answered_twice": len(answered) - len(set(answered)),
    }


def settle(folder: Path) -> None:
    """Wait until nothing waits."""
    while True:
        found = account(folder, [])
        if not found["without_verdict"] and not found["undelivered"]:
            return
        time.sleep(0.5)


def under_load(
    service: Service, folder: Path, sent: list[tuple[bytes, str]], clients: int, requests: int
) -> dict:
    """So many requests, and what became of them."""
    load, memory, began = Load(service.port, sent, clients), [], time.monotonic()
    threads, done = load.run(requests), 0
    while any(thread.is_alive() for thread in threads):
        if len(load.seconds) >= done:
            memory.append(service.memory())
            done += max(1, requests // 10)
        time.sleep(0.05)
    wall = time.monotonic() - began
    settle(folder)
    cuts = statistics.quantiles(load.seconds, n=100)
    return {
        "requests": requests,
        "per_second": len(load.seconds) / wall,
        "seconds": {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]},
        "statuses": load.statuses,
        "errors_seen": load.failed,
        "memory_mib": [*memory, service.memory()],
        **account(folder, load.answered),
    }


def under_kills(
    service: Service, folder: Path, sent: list[tuple[bytes, str]], clients: int, kills: int
) -> dict:
    """So many kills under load, and what became of the requests."""
    load, restarts = Load(service.port, sent, clients), []
    threads = load.run(10**9)
    for _ in range(kills):
        time.sleep(1 + 3 * secrets.randbelow(1000) / 1000)
        service.end(signal.SIGKILL)
        restarts.append(service.start())
    load.stop()
    for thread in threads:
        thread.join()
    settle(folder)
    return {
        "kills": kills,
        "statuses": load.statuses,
        "errors_seen": load.failed,
        "seconds_to_start": statistics.median(restarts),
        **account(folder, load.answered),
    }


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--category", default="flange")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    document: dict = {"environment": environment(), "run": str(given.run.name)} | {
        name: getattr(given, name) for name in ("clients", "batch", "size")
    }
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as place:
        folder = Path(place)
        service = Service(given.run, folder, given.category, given.batch)
        try:
            document["seconds_to_start"] = service.start()
            document["modalities"] = service.modalities()
            sent = bodies(given.category, given.size, document["modalities"])
            for name, what, count in (
                ("load", under_load, given.requests),
                ("kills", under_kills, given.kills),
            ):
                if count:
                    document[name] = what(service, folder, sent, given.clients, count)
                    print(json.dumps(document[name]), flush=True)
        finally:
            service.end(signal.SIGTERM)
    if given.json is not None:
        write(given.json, document)


if __name__ == "__main__":
    main()
