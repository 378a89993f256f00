"""Raw sockets against a real `weir serve`: what a client can do with a connection besides asking one thing and reading it."""

import contextlib
import os
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.harness import (
    Admin,
    Key,
    RawExchange,
    Upstream,
    Weir,
    chat_bytes,
    configuration,
    eventually,
    model,
    raw_request,
    unique,
)

HEAD_SECONDS, KEEPALIVE_SECONDS, WRITE_SECONDS = 2, 1, 1


@pytest.fixture(scope="module")
def narrow(redis_url: str, upstream: Upstream) -> Iterator[Weir]:
    """Short time limits everywhere, one place at the model `single`."""
    models: list[dict[str, Any]] = [
        model("chat", upstream.url),
        model("single", upstream.url, endpoints=[{"url": upstream.url, "max_in_flight": 1}]),
        {"name": "echo", "backend": "echo"},
    ]
    server = {
        "keepalive_seconds": KEEPALIVE_SECONDS,
        "write_timeout_seconds": WRITE_SECONDS,
        "body_timeout_seconds": HEAD_SECONDS,
        "wait_seconds": 30,
    }
    with Weir(configuration(redis_url, models, server=server)) as weir:
        yield weir


@pytest.fixture(scope="module")
def key(admin: Admin) -> Key:
    return admin.key()


def models_bytes(key: Key) -> bytes:
    return raw_request(None, list(key.headers.items()), "/v1/models", "GET")


def heard(connection: RawExchange, seconds: float) -> tuple[bytes, bool]:
    """All that comes within so long, and whether the connection was closed."""
    connection.socket.settimeout(0.1)
    got, until = b"", time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            piece = connection.socket.recv(1 << 20)
        except TimeoutError:
            continue
        except OSError:
            return got, True
        if not piece:
            return got, True
        got += piece
    return got, False


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


# -- pipelining


def test_pipelined_requests_are_answered_in_order(weir: Weir, key: Key) -> None:
    slow = chat_bytes(key, "chat", stream=True, x_script={"chunks": 3, "delay_ms": 30})
    quick = chat_bytes(key, "echo", "the second one")
    with RawExchange(weir.port, slow + quick + models_bytes(key) + slow) as client:
        got, closed = heard(client, 2)
    assert statuses(got) == [200] * 4
    assert not closed
    order = [got.find(b"[DONE]"), got.find(b"the second one"), got.find(b'"object":"list"'), got.rfind(b"[DONE]")]
    assert order == sorted(order)


def test_one_that_pipelines_in_one_write_and_leaves_is_gone(weir: Weir, key: Key, upstream: Upstream) -> None:
    mark, never = unique("mark"), unique("mark")
    sent = chat_bytes(key, "chat", user=mark, x_script="hang") + chat_bytes(key, "chat", user=never)
    with RawExchange(weir.port, sent) as client:
        upstream.record(mark)
        client.leave()
    upstream.record(mark, "client_left")
    assert not upstream.records(never), "nobody waits for that any more"


def test_one_that_asks_again_meanwhile_and_leaves_is_gone(weir: Weir, key: Key, upstream: Upstream) -> None:
    mark, gate = unique("mark"), unique("gate")
    with RawExchange(weir.port, chat_bytes(key, "chat", user=mark, x_script={"gate": gate})) as client:
        upstream.record(mark)
        client.send(chat_bytes(key, "chat"))
        time.sleep(0.2)
        client.leave()
    time.sleep(1.5)
    outcome = upstream.record(mark)["outcome"]
    upstream.open_gate(gate)  # so that nothing of it is left for other tests
    assert outcome == "client_left"


@pytest.mark.parametrize(
    "beginning", [b"P", b"GET /v1/models HTTP/1.1\r\na: " + b"b" * 70_000], ids=["a-byte", "a-long-one"]
)
def test_the_beginning_of_a_next_request_does_not_end_a_stream(narrow: Weir, key: Key, beginning: bytes) -> None:
    sent = chat_bytes(key, "chat", stream=True, x_script={"chunks": 45, "delay_ms": 100})
    with RawExchange(narrow.port, sent) as client:
        assert client.read_event().startswith(b"data: ")
        client.send(beginning)
        assert client.read().body.rstrip().endswith(b"[DONE]")


# -- forms of requests


FORMS = [
    pytest.param({}, "1.0", False, id="1.0"),
    pytest.param({"connection": "keep-alive"}, "1.0", False, id="1.0-keep-alive"),
    pytest.param({"connection": "close"}, "1.1", False, id="close"),
    pytest.param({}, "1.1", True, id="1.1"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize(("headers", "version", "stays"), FORMS)
def test_framing(*, weir: Weir, key: Key, headers: dict[str, str], version: str, stays: bool, stream: bool) -> None:
    sent = chat_bytes(key, "chat", stream=stream, headers=headers).replace(b"HTTP/1.1", b"HTTP/" + version.encode())
    with RawExchange(weir.port, sent) as client:
        got, closed = heard(client, 1)
    head, _, body = got.partition(b"\r\n\r\n")
    assert closed is not stays
    assert (b"connection: close" in head) is not stays
    assert (b"content-length: " in head) is not stream
    assert (b"transfer-encoding: chunked" in head) is (stream and version == "1.1")
    assert body.endswith(b"\r\n0\r\n\r\n" if stream and version == "1.1" else b"[DONE]\n\n" if stream else b"}")


def test_expect_100_continue(weir: Weir, key: Key) -> None:
    head, _, body = chat_bytes(key, "chat", headers={"expect": "100-continue"}).partition(b"\r\n\r\n")
    with RawExchange(weir.port, head + b"\r\n\r\n") as client:
        assert heard(client, 0.3) == (b"HTTP/1.1 100 Continue\r\n\r\n", False)
        client.send(body)
        assert statuses(heard(client, 0.5)[0]) == [200]


REUSED = [
    pytest.param({}, 200, id="json"),
    pytest.param({"stream": True}, 200, id="stream"),
    pytest.param({"x_script": "html"}, 502, id="upstream-error"),
    pytest.param({"x_script": "bad_request"}, 400, id="upstream-refusal"),
    pytest.param({"stream": True, "x_script": "error_event"}, 200, id="error-event"),
    pytest.param({"stream": True, "x_script": "cut_stream"}, 200, id="cut-stream"),
    pytest.param({"x_script": {"content": "x" * 2_000_000}}, 200, id="two-megabytes"),
]


@pytest.mark.parametrize(("fields", "status"), REUSED)
def test_the_connection_can_be_used_again(weir: Weir, admin: Admin, fields: dict[str, Any], status: int) -> None:
    key = admin.key()
    with RawExchange(weir.port, chat_bytes(key, "fragile", **fields)) as client:
        answer = client.read()
        assert answer.status == status
        names = {name.lower() for name, _ in answer.headers}
        assert len(names & {"content-length", "transfer-encoding"}) == 1
        client.send(models_bytes(key))
        assert statuses(heard(client, 0.5)[0]) == [200]


# -- bodies in pieces


@pytest.mark.parametrize("size", [1000, 70_000, 300_000, 3_000_000])
def test_one_with_a_large_body_that_leaves_is_gone(weir: Weir, key: Key, upstream: Upstream, size: int) -> None:
    mark = unique("mark")
    with RawExchange(weir.port, chat_bytes(key, "chat", "x" * size, user=mark, x_script="hang")) as client:
        upstream.record(mark)
        left_at = client.leave()
    assert upstream.record(mark, "client_left")["left_at"] - left_at < 2


def test_one_that_leaves_behind_its_body_is_not_sent_upstream_for_long(
    weir: Weir, key: Key, upstream: Upstream
) -> None:
    marks = [unique("mark") for _ in range(30)]
    for mark in marks:
        RawExchange(weir.port, chat_bytes(key, "chat", user=mark, x_script="hang")).leave()
    time.sleep(1)
    assert not [
        r for r in upstream.records() if r["json"] and r["json"].get("user") in marks and r["outcome"] == "answering"
    ]
    eventually(lambda: weir.metric("weir_in_flight_requests") == 0)


def test_the_rest_of_a_refused_body_is_passed_over(weir: Weir, key: Key) -> None:
    refused = chat_bytes(Key("", "nobodys", ""), "chat", "x" * 300_000)
    with RawExchange(weir.port, refused[:1000]) as client:
        assert statuses(heard(client, 0.3)[0]) == [401]
        for at in range(1000, len(refused), 50_000):
            assert client.send(refused[at : at + 50_000])
            time.sleep(0.02)
        assert client.send(models_bytes(key))
        assert statuses(heard(client, 0.5)[0]) == [200]


# -- clients that do not read


def test_who_still_sends_hears_why_it_is_refused(weir: Weir, key: Key) -> None:
    """Closed at once, the connection would be reset by what nobody has read, and the reset overtake the answer."""
    with RawExchange(weir.port) as client:
        head = [*key.headers.items(), ("content-type", "application/json"), ("content-length", str(1 << 30))]
        client.send(raw_request(None, head))
        piece = b"x" * 65536
        for _ in range(64):
            assert client.send(piece), "it is listened to for a moment"
            time.sleep(0.002)
        refused = client.read()
        assert refused.status == 413
        assert refused.values["connection"] == "close"
        since = time.monotonic()
        with contextlib.suppress(OSError):
            while client.socket.recv(65536):
                pass
        assert time.monotonic() - since < 10, "and not for ever"


def one_that_reads(port: int, sent: bytes, bytes_a_second: int, seconds: float) -> bytes:
    """With a small buffer, so that Weir's own begins to fill at once."""
    got = b""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(2)
        client.connect(("127.0.0.1", port))
        client.sendall(sent)
        until = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            while time.monotonic() < until and (piece := client.recv(bytes_a_second // 50)):
                got += piece
                time.sleep(0.02)
    return got


@pytest.mark.parametrize("size", [900_000, 20_000_000])
def test_one_that_stops_reading_is_cut_and_leaves_nothing_behind(
    narrow: Weir, key: Key, upstream: Upstream, size: int
) -> None:
    mark, request_id = unique("mark"), unique("id")
    play = {"content": "x" * size}
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", narrow.port))
        client.sendall(chat_bytes(key, "chat", headers={"x-request-id": request_id}, user=mark, x_script=play))
        record = narrow.record(request_id=request_id)
        # Nine hundred kilobytes may fit into the kernel's buffers, and then all of it was delivered as far as we know.
        assert record["outcome"] in ({"ok", "client_stalled"} if size < 1_000_000 else {"client_stalled"})
    eventually(lambda: narrow.metric("weir_in_flight_requests") == 0)


def test_one_that_reads_slowly_but_steadily_is_not_cut(narrow: Weir, key: Key) -> None:
    request_id, play = unique("id"), {"content": "x" * 8_000_000}
    sent = chat_bytes(key, "chat", headers={"x-request-id": request_id}, x_script=play)
    one_that_reads(narrow.port, sent, 200_000, 5)
    assert narrow.record(request_id=request_id)["outcome"] == "client_disconnect", "it left at the end, and was not cut"


# -- the turnstile


def test_one_that_leaves_while_it_waits_for_a_place(narrow: Weir, key: Key, upstream: Upstream) -> None:
    first, second, third = unique("mark"), unique("mark"), unique("mark")
    with RawExchange(narrow.port, chat_bytes(key, "single", user=first, x_script="hang")) as holds:
        upstream.record(first)
        with RawExchange(narrow.port, chat_bytes(key, "single", user=second)) as waits:
            eventually(lambda: narrow.metric("weir_waiting_requests") == 1)
            waits.leave()
        eventually(lambda: narrow.metric("weir_waiting_requests") == 0)
        with RawExchange(narrow.port, chat_bytes(key, "single", user=third)) as stays:
            eventually(lambda: narrow.metric("weir_waiting_requests") == 1)
            holds.leave()
            assert stays.read().status == 200
    assert not upstream.records(second)


def test_a_model_that_goes_while_requests_wait_for_it(redis_url: str, admin: Admin, upstream: Upstream) -> None:
    """Those that wait have its route, and are answered; others hear that there is no such model."""
    key, gate, held = admin.key(), unique("gate"), unique("mark")
    single = model("single", upstream.url, endpoints=[{"url": upstream.url, "max_in_flight": 1}])
    echo = {"name": "echo", "backend": "echo"}
    with Weir(configuration(redis_url, [single, echo])) as weir:
        first = RawExchange(weir.port, chat_bytes(key, "single", user=held, x_script={"gate": gate}))
        upstream.record(held)
        second = RawExchange(weir.port, chat_bytes(key, "single"))
        eventually(lambda: weir.metric("weir_waiting_requests") == 1)
        weir.file.write_text(yaml.safe_dump(configuration(redis_url, [echo])))
        eventually(lambda: [line for line in weir.process.out if "configuration reloaded" in line])
        assert weir.chat(key, model="single").status_code == 404
        upstream.open_gate(gate)
        with first, second:
            assert (first.read().status, second.read().status) == (200, 200)


def test_drain_while_requests_wait_for_a_place(redis_url: str, admin: Admin, upstream: Upstream) -> None:
    key, gate, held = admin.key(), unique("gate"), unique("mark")
    models = [model("single", upstream.url, endpoints=[{"url": upstream.url, "max_in_flight": 1}])]
    sections = {"server": {"wait_seconds": 60}, "drain": {"announce_seconds": 1, "deadline_seconds": 3}}
    with Weir(configuration(redis_url, models, **sections)) as weir:
        holds = RawExchange(weir.port, chat_bytes(key, "single", user=held, x_script={"gate": gate}))
        upstream.record(held)
        turn = RawExchange(weir.port, chat_bytes(key, "single"))
        eventually(lambda: weir.metric("weir_waiting_requests") == 1)
        hangs = RawExchange(weir.port, chat_bytes(key, "single", x_script="hang"))
        never = RawExchange(weir.port, chat_bytes(key, "single"))
        eventually(lambda: weir.metric("weir_waiting_requests") == 3)
        weir.process.send(signal.SIGTERM)
        time.sleep(1.5)
        with RawExchange(weir.port, chat_bytes(key, "single")) as late:
            answer = late.read()
            assert (answer.status, answer.values["connection"]) == (503, "close")
        upstream.open_gate(gate)
        with holds, turn, hangs, never:
            assert [one.read().status for one in (holds, turn, hangs, never)] == [200, 200, 503, 503]
        assert weir.process.wait(10) == 0


# -- what stays


def test_a_thousand_connections_leave_nothing_open(weir: Weir, key: Key) -> None:
    def sockets() -> int:
        return len(list(Path(f"/proc/{weir.process.pid}/fd").iterdir()))

    before, sent = sockets(), chat_bytes(key, "echo")

    def come_and_go(number: int) -> None:
        for turn in range(250):
            with RawExchange(weir.port, sent[: 30 * turn] if turn % 3 == 0 else sent) as client:
                if turn % 3 == 1:
                    assert client.read().status == 200
                if turn % 2:
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: sockets() <= before + 3, why="every connection is closed")
    eventually(lambda: weir.metric("weir_in_flight_requests") == 0)


def test_a_worker_that_is_started_again_has_the_file_as_it_is(redis_url: str, admin: Admin) -> None:
    key, echo, second = admin.key(), {"name": "echo", "backend": "echo"}, {"name": "second", "backend": "echo"}

    def ask(weir: Weir) -> int:
        with RawExchange(weir.port, chat_bytes(key, "second", headers={"connection": "close"})) as client:
            return client.read().status

    with Weir(configuration(redis_url, [echo]), "--workers", "2") as weir:
        weir.file.write_text(yaml.safe_dump(configuration(redis_url, [echo, second])))
        eventually(lambda: {ask(weir) for _ in range(20)} == {200}, why="the new model is everywhere")
        children = Path(f"/proc/{weir.process.pid}/task/{weir.process.pid}/children")
        workers = set(children.read_text().split())
        os.kill(int(min(workers)), signal.SIGKILL)
        eventually(lambda: len(set(children.read_text().split()) - workers) == 1)
        time.sleep(4)  # to start, and to look at the file
        assert {ask(weir) for _ in range(40)} == {200}
