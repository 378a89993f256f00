"""Clients leave, or stop reading: the upstream is let go at once, the log says so, and the next client is served.

The design gives 250 ms from the client's leaving to the upstream's. What is measured goes into the report of the run
(`record_property`); what is asserted has slack for a busy machine.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.system.harness import Admin, Key, RawExchange, Upstream, Weir, chat_bytes, eventually, unique

AT_MOST = 2.0


@pytest.fixture(scope="module")
def key(admin: Admin) -> Key:
    return admin.key()


LEAVINGS = [
    # id                             play       stream  events read before leaving
    pytest.param("endless", True, 3, id="mid-stream"),
    pytest.param("silent", True, 1, id="in-a-silent-stream"),
    pytest.param("hang", True, 0, id="before-the-first-byte-of-a-stream"),
    pytest.param("hang", False, 0, id="before-the-answer"),
]


@pytest.mark.parametrize(("play", "stream", "read"), LEAVINGS)
def test_the_upstream_is_let_go(
    *,
    weir: Weir,
    key: Key,
    upstream: Upstream,
    record_property: Callable[[str, object], None],
    play: str,
    stream: bool,
    read: int,
) -> None:
    upstream.forget()  # what others sent may be megabytes, and it is the upstream that tells the time here
    mark, request_id = unique("mark"), unique("id")
    sent = chat_bytes(key, "chat", headers={"x-request-id": request_id}, stream=stream, user=mark, x_script=play)
    with RawExchange(weir.port, sent) as client:
        for _ in range(read):
            assert client.read_event().startswith(b"data: ")
        upstream.record(mark)
        left_at = client.leave()
    seen = upstream.record(mark, "client_left")
    took = seen["left_at"] - left_at
    record_property("upstream_let_go_ms", round(took * 1000, 1))
    assert took < AT_MOST
    record = weir.record(request_id=request_id)
    assert record["outcome"] == "client_disconnect"
    assert record["key_id"] == key.id
    assert record["output_tokens"] >= read - 1


def test_a_client_that_resets_is_gone_too(weir: Weir, key: Key, upstream: Upstream) -> None:
    """Unread bytes in its buffer make the kernel send RST instead of FIN."""
    mark = unique("mark")
    with RawExchange(weir.port, chat_bytes(key, "chat", stream=True, user=mark, x_script="endless")) as client:
        eventually(lambda: upstream.record(mark)["sent_bytes"] > 2000)
        left_at = client.leave()
    assert upstream.record(mark, "client_left")["left_at"] - left_at < AT_MOST


def test_many_leave_at_once(weir: Weir, key: Key, upstream: Upstream) -> None:
    marks = [unique("mark") for _ in range(50)]

    def come_and_go(mark: str) -> None:
        with RawExchange(weir.port, chat_bytes(key, "chat", stream=True, user=mark, x_script="endless")) as client:
            assert client.read_event().startswith(b"data: ")

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(come_and_go, marks))

    def all_let_go() -> bool:
        outcomes = {r["json"].get("user"): r["outcome"] for r in upstream.records() if r["json"]}
        return all(outcomes[mark] == "client_left" for mark in marks)

    eventually(all_let_go)
    assert weir.chat(key).status_code == 200


def test_one_that_stays_is_not_disturbed(weir: Weir, key: Key, upstream: Upstream) -> None:
    """A stream goes on to its end while others around it are cut."""
    mark = unique("mark")
    sent = chat_bytes(key, "chat", stream=True, user=mark, x_script={"chunks": 40, "delay_ms": 20})
    with RawExchange(weir.port, sent) as stays:
        assert stays.read_event().startswith(b"data: ")
        for _ in range(5):
            with RawExchange(weir.port, chat_bytes(key, "chat", stream=True, x_script="endless")) as leaves:
                assert leaves.read_event().startswith(b"data: ")
        body = stays.read().body
    assert b"word39 " in body
    assert body.rstrip().endswith(b"data: [DONE]")
    assert upstream.record(mark, "complete")


def test_a_client_that_does_not_read_holds_the_upstream_back(weir: Weir, key: Key, upstream: Upstream) -> None:
    """Back-pressure: what nobody reads is not fetched, beyond what the buffers of the kernel hold on the way."""
    mark = unique("mark")
    with RawExchange(weir.port, chat_bytes(key, "chat", stream=True, user=mark, x_script="flood")) as client:
        assert client.read_head().status == 200
        sizes = [-1.0, *(float(i) for i in range(4))]

        def stands_still() -> bool:
            time.sleep(0.2)
            sizes.append(upstream.record(mark)["sent_bytes"])
            return len(set(sizes[-5:])) == 1

        eventually(stands_still, within=30, why="the upstream was held back")
        assert sizes[-1] < 64_000_000
        client.leave()
    upstream.record(mark, "client_left")


def test_a_whole_answer_that_nobody_waits_for_is_charged(weir: Weir, admin: Admin, upstream: Upstream) -> None:
    key, mark = admin.key(tpm=6, burst_seconds=60_000), unique("mark")
    sent = chat_bytes(key, "chat", "some words that were asked", user=mark, max_tokens=500, x_script="hang")
    with RawExchange(weir.port, sent):
        upstream.record(mark)
    record = weir.record(key_id=key.id)
    assert record["outcome"] == "client_disconnect"
    assert record["input_tokens"] > 0
    eventually(lambda: 5500 < weir.remaining(key, "tokens") < 6000, why="the prompt is charged, the answer is not")
