"""The interface over HTTP, with a stand-in for the model."""

import asyncio
import dataclasses
import threading
import time

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from pirn_jax.deploy.service.guard import check_bind, is_this_machine, read_keys
from pirn_jax.errors import ConfigError, MachineError
from pirn_jax.scans.datasets.marked import is_log, list_marked
from tests.deploy.service.stand_in import Brightness, app_of, make, png

KEY = b"a-key-of-some-length"


def client_of(parts):
    return TestClient(app_of(parts), base_url="http://127.0.0.1:8000")


@pytest.fixture
def parts(tmp_path):
    return make(tmp_path)


@pytest.fixture
def client(parts):
    with client_of(parts) as found:
        yield found


def send(client, content=None, name="a.png", role="rgb", **more):
    return client.post("/v1/judge", files={role: (name, content or png())}, **more)


def test_a_part_is_judged(client, parts, tmp_path):
    answer = send(client, data={"key": "part 17"})
    record = answer.json()
    assert answer.status_code == 200
    assert (record["key"], record["label"], record["rule"]) == ("part 17", 1, "part threshold")
    assert send(client, png(50)).json()["label"] == 0
    assert send(client, name="C:\\x\\b.PNG").json()["key"].endswith("b")
    known = client.get(f"/v1/results/{record['id']}").json()
    assert (known["state"], known["record"]) == ("judged", record)
    assert [one["record"]["label"] for one in client.get("/v1/results").json()] == [1, 0, 1]
    heat = client.get(f"/v1/results/{record['id']}/heat.png")
    (tmp_path / "heat.png").write_bytes(heat.content)
    assert Image.open(tmp_path / "heat.png").getextrema() == (200, 200)
    for missing in ("points.bin", "rgb.png", "..%2F..%2Fjournal.sqlite", "journal.sqlite"):
        assert client.get(f"/v1/results/{record['id']}/{missing}").status_code == 404
    assert client.get("/v1/results/unknown").status_code == 404


def test_a_part_that_cannot_be_judged_has_the_record_that_predict_gives_it(client):
    record = send(client, b"GIF89a nothing").json()
    assert record["not_judged"] == record["error"]
    assert (record["score"], record["label"]) == (None, None)


def test_nothing_is_brought_before_the_queue_is_there_or_after_it_has_ended(tmp_path):
    seen = []

    class Bringing:
        def __init__(self, name):
            self.name, self.start = name, lambda: seen.append((name, "start", parts.batcher.alive))

        def stop(self):
            seen.append((self.name, "stop", parts.batcher.alive))

    parts = make(tmp_path)
    parts = dataclasses.replace(parts, sources=[Bringing("watch")], couriers=[Bringing("sink")])
    with client_of(parts):
        assert seen == [("sink", "start", True), ("watch", "start", True)]
    assert seen[2:] == [("watch", "stop", True), ("sink", "stop", False)]


def test_the_heatmap_is_the_answer_where_it_is_asked_for(client):
    answer = send(client, params={"format": "heatmap"})
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")
    assert client.get(f"/v1/results/{answer.headers['x-request-id']}").status_code == 200


def test_what_is_no_part_is_refused_by_name(client):
    for answer, status, said in (
        (send(client, b"GIF89a nothing", "a.png"), 422, "not a readable"),
        (send(client, name="a.exe"), 422, "ends in one of"),
        (send(client, name="a"), 422, "ends in one of"),
        (send(client, role="rbg"), 422, "did you mean 'rgb'"),
        (send(client, data={"model": "cop"}), 422, "did you mean 'cap'"),
        (send(client, data={"key": "k" * 201}), 422, "200 letters"),
        (client.post("/v1/judge"), 422, "no file"),
        (client.post("/v1/judge", data={"rgb": "text"}), 422, "no file"),
        (client.post("/v1/judge", files=[("rgb", ("a.png", png()))] * 2), 422, "two files"),
        (client.post("/v1/judge", files=[("rgb", ("a.png", b"x"))] * 9), 400, "Too many files"),
        (send(client, b"0" * (1 << 21)), 413, "1,048,576 bytes"),
        (client.post("/v1/judge", content=b"--x\r\n", headers={
            "content-type": "multipart/form-data; boundary=x"}), 422, "no file"),
    ):  # fmt: skip
        assert (answer.status_code, said in answer.text) == (status, True), answer.text


def test_a_body_without_a_length_is_capped_too(client):
    head = b'--x\r\nContent-Disposition: form-data; name="rgb"; filename="a.png"\r\n\r\n'
    chunks = iter([head, *[b"0" * 65536] * 20, b"\r\n--x--\r\n"])
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/judge", content=chunks, headers=kind).status_code == 413
    assert send(client).status_code == 200  # its slot was given back


def test_an_unforeseen_error_takes_no_other_part_with_it(tmp_path):
    parts = make(tmp_path, batch=4, gather=0.2)
    with client_of(parts) as client:
        answers = together(client, [13, 200, 50])
    assert sorted(answer.status_code for answer in answers) == [200, 200, 500]
    assert "ZeroDivisionError: unlucky" in max(answers, key=lambda a: a.status_code).json()["error"]


def together(client, levels):
    answers = [None] * len(levels)

    def one(place, level):
        answers[place] = send(client, png(level))

    threads = [threading.Thread(target=one, args=pair) for pair in enumerate(levels)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_what_arrives_together_is_judged_together_and_what_does_not_fit_is_refused(tmp_path):
    judge = Brightness()
    parts = make(tmp_path, judge=judge, batch=3, gather=0.3, capacity=3)
    with client_of(parts) as client:
        assert {answer.status_code for answer in together(client, [200, 50, 60])} == {200}
        assert [len(call) for call in judge.calls] == [3]
        judge.go_on.clear()
        waiting = [threading.Thread(target=send, args=(client,)) for _ in range(3)]
        for thread in waiting:
            thread.start()
        while len(parts.journal.unfinished()) < 3:
            time.sleep(0.01)
        refused = send(client)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        judge.go_on.set()
        for thread in waiting:
            thread.join()
        assert send(client).status_code == 200
        said = client.get("/metrics").text
    assert 'pirn_verdicts_total{outcome="not_ok"} 5.0' in said
    assert 'pirn_refused_total{status="429"} 1.0' in said
    assert "pirn_queue_parts 0.0" in said


def test_marks(client, parts):
    request = send(client).json()["id"]
    place = f"/v1/results/{request}/mark"
    assert client.put(place, json={"mark": "false_alarm"}).json()["mark"] == "false_alarm"
    assert [one["id"] for one in client.get("/v1/results?mark=false_alarm").json()] == [request]
    send(client)
    (entry,) = list_marked(parts.journal.folder, "another")  # what `train --add` learns from
    assert entry.key == request
    assert entry.files["rgb"].path.read_bytes() == png()
    assert not is_log(parts.journal.requests)
    assert client.put(place, json={"mark": None}).json()["mark"] is None
    assert client.put(place, json={"mark": "ugly"}).status_code == 422
    assert client.put("/v1/results/x/mark", json={"mark": "missed"}).status_code == 404


def test_health_and_models(client, parts):
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").status_code == 200
    assert client.get("/v1/models").json()[0]["scale"]["scores"] == [1.0, 3.0, 5.0]
    parts.batcher.stop()
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_a_key_is_asked_for(tmp_path):
    with client_of(make(tmp_path, keys=(b"another-key-of-some-length", KEY))) as client:
        for header in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer é"}):
            headers = {name: value.encode() for name, value in header.items()}
            for path in ("/v1/models", "/v1/results", "/metrics"):
                assert client.get(path, headers=headers).status_code == 401
            assert send(client, headers=headers).status_code == 401
        for header in ({"X-API-Key": KEY}, {"Authorization": b"Bearer " + KEY}):
            assert send(client, headers=header).status_code == 200
        for path in ("/", "/docs", "/healthz", "/readyz", "/app.js", "/openapi.json"):
            assert client.get(path).status_code == 200
        for path, verbs in client.get("/openapi.json").json()["paths"].items():
            for verb in verbs:
                refused = client.request(verb, path).status_code == 401
                assert refused == (path not in ("/healthz", "/readyz")), path


def test_without_a_key_no_body_is_read(tmp_path):
    app, said = app_of(make(tmp_path, keys=(KEY,))), []

    async def receive():
        raise AssertionError("a body was read")

    async def send(message):
        said.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "PUT", "path": "/v1/results/x/mark", "query_string": b""}
    asyncio.run(app({**scope, "headers": headers}, receive, send))
    assert said[0]["status"] == 401


def test_a_body_that_brings_no_part_is_small(client):
    place = f"/v1/results/{send(client).json()['id']}/mark"
    kind = {"content-type": "application/json"}
    content = b'{"mark": null' + b" " * (1 << 16) + b"}"
    halves = iter((content[:40_000], content[40_000:]))  # without a length
    for large in (content, halves):
        assert client.put(place, content=large, headers=kind).status_code == 413
    assert 'pirn_refused_total{status="413"} 2.0' in client.get("/metrics").text
    assert client.put(place, json={"mark": "missed"}).status_code == 200


def test_pages_of_other_origins_and_other_names_for_this_machine_are_refused(client, tmp_path):
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/", headers={"Host": "localhost:8000"}).status_code == 200
    assert client.get("/", headers={"Host": "[::1]:8000"}).status_code == 200
    assert send(client, headers={"Origin": "http://evil.example"}).status_code == 403
    assert send(client, headers={"Origin": "null"}).status_code == 403
    assert send(client, headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200
    with client_of(make(tmp_path / "far", local=False)) as far:
        assert far.get("/", headers={"Host": "line-3.example"}).status_code == 200


def test_where_it_listens(tmp_path):
    check_bind("127.0.0.1", ())
    check_bind("0.0.0.0", (KEY,))
    for host in ("0.0.0.0", "192.168.1.7", "line-3.example", "::"):
        assert not is_this_machine(host)
        with pytest.raises(ConfigError, match="there is no key"):
            check_bind(host, ())
    file = tmp_path / "keys"
    file.write_bytes(b"# the line's\n" + KEY + b"\n\n")
    assert read_keys(file) == (KEY,)
    for content in (b"", b"# none\n", b"short\n"):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match="16 letters or more"):
            read_keys(file)


def test_the_page_is_whole_and_asks_nobody_else(client):
    for path in ("/", "/docs", "/app.js", "/docs.js", "/surface.js", "/colours.js", "/style.css"):
        answer = client.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        for word in ("http://", "https://", "//cdn"):
            assert word not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert client.get("/?content=mine&kind=text/x").content == client.get("/").content
    described = client.get("/openapi.json").json()
    assert {"/v1/judge", "/v1/results", "/v1/models", "/metrics", "/healthz"} <= set(
        described["paths"]
    )
    form = described["paths"]["/v1/judge"]["post"]["requestBody"]["content"]
    assert {"rgb", "xyz", "depth", "normals"} <= set(
        form["multipart/form-data"]["schema"]["properties"]
    )


def test_a_verdict_that_cannot_be_written_down_is_said_and_made_after_a_restart(tmp_path):
    parts = make(tmp_path)
    with client_of(parts) as client:
        finish, parts.journal.finish = parts.journal.finish, full
        answer = send(client)
        assert answer.status_code == 503
        assert "accepted as" in answer.json()["error"]
        parts.journal.finish = finish
        assert send(client).status_code == 200  # the thread that judges goes on
    parts.journal.close()
    again = make(tmp_path)
    again.batcher.start()
    again.batcher.stop()
    assert [one["state"] for one in again.journal.results()] == ["judged", "judged"]


def full(*_):
    raise MachineError("the log cannot be written: database or disk is full")
