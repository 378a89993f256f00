"""The wire of our own server against uvicorn's own `send`, byte by byte; and turns against the law they are named for.

No socket: uvicorn's protocol is driven by hand, over a transport that only remembers.
"""

import asyncio
import gc
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from tests.fakes.clock import run
from weir.cli.protocol import Protocol
from weir.core.asgi import Receive, Scope, Send
from weir.core.errors import Overloaded, ServerDraining
from weir.gateway.replies import LAST, Reply
from weir.gateway.turnstile import Turnstile
from weir.gateway.wire import EXTENSION, AsgiWire, Wire, wire_of
from weir.usage import EventScanner

Play = Callable[[Wire], Awaitable[None]]


class Transport(asyncio.Transport):
    """Remembers what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closing = self.aborted = self.ended = False
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("10.0.0.1", 1), "sockname": ("10.0.0.2", 80)}.get(name, default)

    def write(self, data: Any) -> None:
        assert not self.closing, f"written to a closed transport: {data!r}"
        assert not self.ended, f"written behind the end: {data!r}"
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def request(version: str = "1.1", *more: str, body: bytes = b"{}", method: str = "POST") -> bytes:
    head = [f"{method} /v1/chat/completions HTTP/{version}", "host: x", f"content-length: {len(body)}", *more, "", ""]
    return "\r\n".join(head).encode() + body


class Connection:
    """One client's connection, on which the application plays `play` for each request."""

    def __init__(self, play: Play, *, own: bool = True) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if own:
                wire = wire_of(scope, receive, send)
                assert not isinstance(wire, AsgiWire)
                assert EXTENSION not in scope["extensions"], "scope and wire would hold each other"
            else:
                wire = AsgiWire(receive, send, lambda: None)
            await play(wire)

        config = uvicorn.Config(app, http=Protocol, log_config=None, access_log=False, lifespan="off", ws="none")
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"Sat, 01 Jan 2000 00:00:00 GMT")]
        self.transport = Transport()
        self.protocol = Protocol(config, self.state, {})
        self.protocol.connection_made(self.transport)

    def says(self, data: bytes) -> None:
        self.protocol.data_received(data)

    async def rests(self) -> None:
        while self.state.tasks:
            await asyncio.sleep(0.01)


async def exchange(play: Play, *requests: bytes, own: bool = True) -> Transport:
    connection = Connection(play, own=own)
    for one in requests:
        connection.says(one)
    await connection.rests()
    return connection.transport


async def whole(wire: Wire) -> None:
    assert wire.answer(200, [(b"content-type", b"application/json"), (b"x-request-id", b"a1")], b'{"a": 1}') is None


async def empty(wire: Wire) -> None:
    assert wire.answer(429, [(b"retry-after", b"1")], b"") is None


async def last(wire: Wire) -> None:
    assert wire.answer(413, [LAST], b"{}") is None


async def stream(wire: Wire) -> None:
    assert wire.start(200, [(b"content-type", b"text/event-stream")]) is None
    for chunk in (b"data: 1\n\n", b"", b"data: " + b"x" * 5000 + b"\n\n"):
        assert wire.write(chunk) is None
    assert wire.write(b"", more=False) is None


async def stream_that_ends_with_its_last_chunk(wire: Wire) -> None:
    wire.start(200, [])
    wire.write(b"data: [DONE]\n\n", more=False)


async def last_stream(wire: Wire) -> None:
    wire.start(200, [LAST])
    wire.write(b"data: [DONE]\n\n", more=False)


PLAYS: list[Play] = [whole, empty, last, stream, stream_that_ends_with_its_last_chunk, last_stream]
REQUESTS = [
    pytest.param(request(), id="1.1"),
    pytest.param(request("1.1", "connection: close"), id="1.1-close"),
    pytest.param(request("1.1", "connection: keep-alive"), id="1.1-keep-alive"),
    pytest.param(request("1.1", "expect: 100-continue"), id="1.1-expect"),
]


def parts(data: bytes) -> tuple[bytes, Counter[bytes], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    return first, Counter(lines), body


@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.__name__)
@pytest.mark.parametrize("asked", REQUESTS)
def test_on_the_wire_is_what_uvicorn_itself_would_send(play: Play, asked: bytes) -> None:
    ours, uvicorns = run(lambda: exchange(play, asked)), run(lambda: exchange(play, asked, own=False))
    assert parts(bytes(ours.written)) == parts(bytes(uvicorns.written))
    assert ours.closing == uvicorns.closing


@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.__name__)
@pytest.mark.parametrize("more", [(), ("connection: keep-alive",)], ids=["plain", "keep-alive"])
def test_http_1_0_ends_with_the_connection_and_knows_no_chunks(play: Play, more: tuple[str, ...]) -> None:
    transport = run(lambda: exchange(play, request("1.0", *more)))
    _, headers, body = parts(bytes(transport.written))
    assert headers[b"connection: close"] == 1
    assert b"transfer-encoding: chunked" not in headers
    assert not re.search(rb"^[0-9a-f]+\r\n", body)
    assert transport.closing


@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.__name__)
def test_one_framing_and_never_both(play: Play) -> None:
    _, headers, _ = parts(bytes(run(lambda: exchange(play, request())).written))
    framings = [name for name in headers if name.startswith((b"content-length:", b"transfer-encoding:"))]
    assert len(framings) == 1


def test_pipelined_requests_are_answered_in_their_order_one_after_the_other() -> None:
    under_way = most = number = 0

    async def play(wire: Wire) -> None:
        nonlocal under_way, most, number
        number += 1
        mine = b"%d" % number
        under_way += 1
        most = max(most, under_way)
        wire.start(200, [])
        await asyncio.sleep(1)
        wire.write(mine)
        await asyncio.sleep(1)
        under_way -= 1
        wire.write(b"", more=False)

    written = bytes(run(lambda: exchange(play, request() * 3)).written)
    assert re.findall(rb"\r\n1\r\n(\d)\r\n0\r\n\r\n", written) == [b"1", b"2", b"3"]
    assert most == 1


def test_whoever_has_left_is_heard_of_once_also_where_it_was_before_anybody_listened() -> None:
    heard: list[str] = []

    async def early(wire: Wire) -> None:
        await asyncio.sleep(1)
        wire.listen(lambda: heard.append("early"))
        await asyncio.sleep(1)
        wire.listen(None)
        assert wire.answer(200, [], b"{}") is None
        wire.start(200, [])
        wire.write(b"x", more=False)

    async def scene(play: Play, leaves_after: float) -> None:
        connection = Connection(play)
        connection.says(request())
        await asyncio.sleep(leaves_after)
        connection.transport.closing = True
        connection.protocol.connection_lost(None)
        await connection.rests()
        assert not connection.protocol.listening
        assert not connection.transport.written, "nothing is written to nobody"

    run(lambda: scene(early, 0.5))
    run(lambda: scene(early, 1.5))
    assert heard == ["early", "early"]


def test_a_request_leaves_no_circle_behind() -> None:
    """Nor a connection: the collector has nothing to do."""

    async def scene() -> int:
        for play in (whole, stream):
            connection = Connection(play)
            for _ in range(3):
                connection.says(request())
                await connection.rests()
            connection.protocol.connection_lost(None)
            connection.protocol.flow._transport = connection.protocol.transport = None  # type: ignore[assignment]
            del connection
        await asyncio.sleep(0)
        return len([one for one in gc.get_objects() if isinstance(one, Protocol)])

    gc.collect()
    gc.disable()
    try:
        assert run(scene) == 0
    finally:
        gc.enable()


# -- DEFECTS: each of these fails today, and says so when it does not any more


def test_a_connection_that_asks_nothing_more_is_closed() -> None:
    async def scene() -> None:
        connection = Connection(whole)
        protocol, since = connection.protocol, asyncio.get_running_loop().time()
        connection.says(request())
        protocol.look(since + 1000, 2000)
        assert not connection.transport.closing, "it waits for an answer"
        await connection.rests()
        protocol.look(since + protocol.timeout_keep_alive - 1, 2000)
        assert not connection.transport.closing
        connection.says(request()[:9])
        protocol.look(since + 1000, 2000)
        assert not connection.transport.closing, "a head has begun, which has its own limit"
        connection.says(request()[9:])
        await connection.rests()
        protocol.look(since + 1000, 2000)
        assert connection.transport.closing

    run(scene)


def test_who_is_refused_is_refused_once() -> None:
    """Its head was late and nonsense besides, and what it is told is on its way: a second look finds nothing to do."""

    async def scene() -> None:
        connection = Connection(whole)
        protocol, since = connection.protocol, asyncio.get_running_loop().time()
        connection.says(request())
        await connection.rests()
        connection.says(b"GET / HT")
        connection.says(b"TP/1.1\r\nbad\x00: x\r\n\r\n")
        told = len(connection.transport.written)
        assert protocol.deaf
        protocol.look(since + 1000, 0.5)
        assert len(connection.transport.written) == told

    run(scene)


def test_a_body_that_was_read_is_not_kept_twice() -> None:
    kept: list[int] = []

    async def scene() -> None:
        async def play(wire: Wire) -> None:
            assert wire.body() == b"x" * 50_000
            kept.append(len(connection.protocol.cycle.body))
            await whole(wire)

        connection = Connection(play)
        connection.says(request(body=b"x" * 50_000))
        await connection.rests()

    run(scene)
    assert kept == [0]


def test_a_pipelined_request_does_not_hide_that_the_client_leaves() -> None:
    async def scene() -> None:
        async def play(wire: Wire) -> None:
            wire.listen(lambda: None)
            await asyncio.sleep(5)
            wire.listen(None)
            await whole(wire)

        connection = Connection(play)
        connection.says(request())
        await asyncio.sleep(1)
        connection.says(request())
        assert connection.transport.reading
        await connection.rests()

    run(scene)


def test_nothing_is_written_behind_the_end_of_an_answer() -> None:
    async def play(wire: Wire) -> None:
        await stream(wire)
        wire.write(b'data: {"error": {}}\n\n', more=False)

    assert bytes(run(lambda: exchange(play, request())).written).endswith(b"\n\n\r\n0\r\n\r\n")
    assert bytes(run(lambda: exchange(play, request())).written).count(b"\r\n0\r\n\r\n") == 1


def test_no_error_is_sent_behind_the_terminator() -> None:
    """The deadline of a drain comes between the terminator and the transport's own end, or its client reads slowly."""

    async def play(wire: Wire) -> None:
        reply = Reply(wire, "a1")
        reply.scanner = EventScanner()
        reply.streaming = True
        reply.start(200, b"text/event-stream", [])
        wire.write(reply.scanner.feed(b'data: {"choices":[{"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'))
        assert reply.delivered
        await reply.fail(ServerDraining(), ())

    assert b"error" not in bytes(run(lambda: exchange(play, request())).written)


def test_the_rest_of_a_refused_body_is_no_head() -> None:
    async def scene() -> None:
        connection = Connection(whole)
        asked = request(body=b"x" * 300_000)
        connection.says(asked[:1000])
        await connection.rests()
        for at in range(1000, len(asked), 20_000):
            connection.says(asked[at : at + 20_000])
        connection.says(request())
        await connection.rests()
        assert bytes(connection.transport.written).count(b"HTTP/1.1 200") == 2

    run(scene)


def test_a_first_request_with_a_bad_target_is_refused_without_a_fault() -> None:
    async def scene() -> None:
        connection = Connection(whole)
        connection.says(b"GET http://elsewhere/ HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.transport.written.startswith(b"HTTP/1.1 400 ")

    run(scene)


def test_the_beginning_of_a_second_request_does_not_end_the_first() -> None:
    async def scene() -> None:
        async def play(wire: Wire) -> None:
            wire.start(200, [])
            await asyncio.sleep(10)
            wire.write(b"data: [DONE]\n\n", more=False)

        connection = Connection(play)
        connection.says(request() + b"POST /v1/ch")
        await asyncio.sleep(5)
        connection.protocol.look(asyncio.get_running_loop().time(), 1.0)
        written = bytes(connection.transport.written)
        closed = connection.transport.closing
        connection.transport.closing = False
        await connection.rests()
        assert b"408" not in written
        assert not closed

    run(scene)


# -- turns -----------------------------------------------------------------------------------------------------------


async def visit(turns: Turnstile, team: str, route: str, limit: int | None, tokens: int, stays: float) -> str:
    try:
        async with turns.place(team, route, limit, tokens):
            await asyncio.sleep(stays)
    except Overloaded as error:
        assert error.retry_after is not None
        assert 1 <= error.retry_after <= 30
        return "refused"
    return "served"


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(st.integers(1, 1000), min_size=1, max_size=25), min_size=2, max_size=4),
    st.randoms(use_true_random=False),
)
def test_while_two_teams_wait_they_are_served_alike(costs: list[list[int]], draw: Any) -> None:
    """The law of start-time fair queueing: their tokens never lie further apart than the largest request of each."""

    async def scene() -> None:
        turns = Turnstile(places=1, max_waiting=1000, wait_seconds=1e6)
        order: list[tuple[int, int]] = []
        arrivals = [(team, cost) for team, of_team in enumerate(costs) for cost in of_team]
        draw.shuffle(arrivals)

        async def one(team: int, cost: int) -> None:
            async with turns.place(f"t{team}", "m", None, cost):
                order.append((team, cost))
                await asyncio.sleep(1)

        holder = asyncio.ensure_future(visit(turns, "other", "m", None, 1, 1.0))
        await asyncio.sleep(0)
        await asyncio.gather(holder, *(one(*arrival) for arrival in arrivals))
        left = [len(of_team) for of_team in costs]
        served = [0] * len(costs)
        for team, cost in order:
            left[team] -= 1
            served[team] += cost
            waiting = [number for number, count in enumerate(left) if count or number == team]
            for a in waiting:
                for b in waiting:
                    assert abs(served[a] - served[b]) <= max(costs[a]) + max(costs[b])

    run(scene)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.sampled_from([("m", None), ("n", 1), ("n", 2), ("n", None), ("o", 1)]),  # limits change, as on reload
            st.floats(0, 10),
            st.floats(0, 8),
            st.integers(0, 5000),
            st.none() | st.floats(0, 8),
        ),
        max_size=40,
    ),
    st.integers(1, 4),
    st.integers(0, 6),
)
def test_no_waiter_is_lost_or_served_twice(story: list[Any], places: int, room: int) -> None:
    """Whoever comes, leaves, is cancelled in the moment of its turn, while limits change: counts are exact at all times."""

    async def scene() -> None:
        turns = Turnstile(places=places, max_waiting=room, wait_seconds=3)
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[str]] = []

        def comes(team: str, route: tuple[str, int | None], stays: float, tokens: int, leaves: float | None) -> None:
            tasks.append(loop.create_task(visit(turns, team, *route, tokens, stays)))
            if leaves is not None:
                loop.call_later(leaves, tasks[-1].cancel)

        for team, route, at, stays, tokens, leaves in story:
            loop.call_later(at, comes, team, route, stays, tokens, leaves)
        for _ in range(400):
            await asyncio.sleep(0.1)
            assert 0 <= turns.in_flight <= places
            assert 0 <= turns.waiting <= room
        ends = Counter(task.result() if not task.cancelled() else "left" for task in tasks)
        assert sum(ends.values()) == len(story)
        assert ends["refused"] == turns.refused
        assert (turns.in_flight, turns.waiting) == (0, 0)
        assert not turns._queues
        assert not turns._count_of
        assert not turns._on_route

    run(scene)


def test_the_refused_are_forgotten() -> None:
    async def scene() -> None:
        turns = Turnstile(places=1, max_waiting=10, wait_seconds=1)
        holder = asyncio.ensure_future(visit(turns, "a", "m", None, 1, 1000))
        await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.gather(*(visit(turns, "a", "m", None, 1, 0) for _ in range(10)))
        holder.cancel()
        assert sum(map(len, turns._queues.values())) <= 20

    run(scene)


def test_a_flood_that_was_refused_is_no_debt() -> None:
    """What a team did not get is not held against it: both want all, both get half."""

    async def scene() -> Counter[str]:
        turns, served = Turnstile(places=8, max_waiting=400, wait_seconds=4), Counter[str]()
        loop = asyncio.get_running_loop()
        since = loop.time()

        async def one(team: str) -> None:
            if await visit(turns, team, "m", None, 100, 0.2) == "served" and loop.time() > since + 30:
                served[team] += 1

        tasks = []
        for _ in range(600):
            tasks += [loop.create_task(one("flood")) for _ in range(12)] + [
                loop.create_task(one("b")) for _ in range(5)
            ]
            await asyncio.sleep(0.1)
        await asyncio.gather(*tasks)
        return served

    served = run(scene)
    assert served["flood"] > 0.8 * served["b"], served


def test_a_model_that_flows_does_not_undo_the_turns_of_one_that_is_full() -> None:
    async def scene() -> float:
        turns = Turnstile(places=100, max_waiting=1000, wait_seconds=1000)
        greedy = [asyncio.ensure_future(visit(turns, "greedy", "full", 1, 100, 1)) for _ in range(30)]
        await asyncio.sleep(0)
        for _ in range(100):
            await visit(turns, "other", "free", None, 1000, 0)
        since = asyncio.get_running_loop().time()
        await visit(turns, "modest", "full", 1, 100, 0)
        waited = asyncio.get_running_loop().time() - since
        await asyncio.gather(*greedy)
        return waited

    assert run(scene) < 3


def test_more_places_by_a_reload_are_for_those_who_wait() -> None:
    async def scene() -> list[str]:
        turns, order = Turnstile(places=100, max_waiting=10, wait_seconds=10), list[str]()
        loop = asyncio.get_running_loop()
        begin = loop.time()

        async def one(name: str, limit: int, stays: float) -> None:
            async with turns.place("a", "m", limit, 1):
                order.append(f"{name} at {loop.time() - begin:.0f}")
                await asyncio.sleep(stays)

        tasks = [asyncio.ensure_future(one("holds", 1, 5)), asyncio.ensure_future(one("waits", 1, 1))]
        await asyncio.sleep(1)
        tasks.append(asyncio.ensure_future(one("comes", 3, 1)))
        await asyncio.gather(*tasks)
        return order

    assert sorted(run(scene)) == ["comes at 1", "holds at 0", "waits at 1"]
