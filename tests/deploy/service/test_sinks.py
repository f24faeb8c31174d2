"""Sinks that are away, slow or wrong: every record arrives in the end."""

import http.server
import json
import socket
import threading
import time

import pytest

from pirn_jax.deploy.service.sinks import Courier, FolderSink, MqttSink, WebhookSink
from pirn_jax.errors import ConfigError
from tests.deploy.service.stand_in import accepted, make


def judged(folder, sink, count=2):
    parts = make(folder, sinks=[sink])
    parts.batcher.start()
    futures = []
    for place in range(count):
        parts.batcher.take_slot()
        futures.append(parts.batcher.put(accepted(parts.journal, f"p{place}")))
    records = [future.result(30) for future in futures]
    parts.batcher.stop()
    return parts.journal, records


def deliver(journal, sink, seconds=20.0):
    courier = Courier(journal, sink)
    courier.start()
    end = time.monotonic() + seconds
    while journal.undelivered() and time.monotonic() < end:
        time.sleep(0.02)
    courier.stop()
    assert journal.undelivered() == {}


def test_a_folder(tmp_path):
    journal, records = judged(tmp_path / "state", "folder")
    deliver(journal, FolderSink(tmp_path / "out"))
    for record in records:
        text = (tmp_path / "out" / f"{record['id']}.json").read_text()
        assert json.loads(text) == json.loads(json.dumps(record))
        assert (tmp_path / "out" / f"{record['id']}_heatmap.png").stat().st_size > 50
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_web_address_that_fails_first(tmp_path):
    journal, records = judged(tmp_path, "webhook")
    seen, answers = [], [302, 500, 200, 200]

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers["Idempotency-Key"] == body["id"]
            code = answers[len(seen)]
            seen.append((body["id"], code))
            self.send_response(code)
            self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        deliver(journal, WebhookSink(f"http://127.0.0.1:{server.server_port}/"))
        server.shutdown()
    first, second = (record["id"] for record in records)
    assert sorted(seen) == sorted([(first, 302), (second, 500), (first, 200), (second, 200)])


def broker(listener, seen, unconfirmed):
    """As much of an MQTT 3.1.1 broker as takes messages; the first few connections drop them."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        stream = connection.makefile("rwb")
        while head := stream.read(1):
            length, shift = 0, 0
            while True:
                (byte,) = stream.read(1)
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            body, kind = stream.read(length), head[0] >> 4
            if kind == 1:
                stream.write(b"\x20\x02\x00\x00")
            elif kind == 3:
                size = int.from_bytes(body[:2], "big")
                identifier, payload = body[2 + size : 4 + size], body[4 + size :]
                if unconfirmed:
                    unconfirmed.pop()
                    break
                seen.append((body[2 : 2 + size].decode(), json.loads(payload)["id"]))
                stream.write(b"\x40\x02" + identifier)
            elif kind == 12:
                stream.write(b"\xd0\x00")
            stream.flush()
        stream.close()
        connection.close()


def test_mqtt_confirms(tmp_path):
    journal, records = judged(tmp_path, "mqtt")
    seen: list = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=broker, args=(listener, seen, [1]), daemon=True).start()
        sink = MqttSink(f"mqtt://127.0.0.1:{listener.getsockname()[1]}/line/3")
        deliver(journal, sink)
        sink._client.disconnect()
        sink._client.loop_stop()
    assert {topic for topic, _ in seen} == {"line/3"}
    assert [request for _, request in seen] == [record["id"] for record in records]


def test_a_sink_that_is_away_is_asked_again_later(tmp_path):
    journal, _ = judged(tmp_path / "state", "folder", count=1)
    (tmp_path / "out").write_text("a file is in the way")
    courier = Courier(journal, FolderSink(tmp_path / "out"))
    (delivery,) = journal.due("folder", time.time())
    courier._deliver(delivery)
    assert journal.due("folder", time.time()) == []
    (again,) = journal.due("folder", time.time() + 2)
    assert again.tries == 1
    assert journal.undelivered() == {"folder": 1}


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        (WebhookSink, "file:///etc/passwd"),
        (WebhookSink, "example.com"),
        (WebhookSink, "http:///path"),
        (WebhookSink, "http://user:secret@host/"),
        (WebhookSink, "http://host:99999/"),
        (WebhookSink, "http://[::1/"),
        (WebhookSink, "http://host/a b"),
        (MqttSink, "mqtt://host"),
        (MqttSink, "mqtt://host/#"),
        (MqttSink, "mqtt://host/line/#"),
        (MqttSink, "mqtt://host:99999/topic"),
        (MqttSink, "mqtt://user:secret@host/topic"),
        (MqttSink, "http://host/topic"),
    ],
)
def test_addresses_of_another_kind_are_refused(kind, address):
    with pytest.raises(ConfigError, match="expected") as said:
        kind(address)
    assert "secret" not in str(said.value)
