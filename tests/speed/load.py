"""The load generator: a process of its own, raw sockets on uvloop, every answer checked to its last byte.

    single   closed loop: each of C connections sends its next request when the answer is complete
    stream   closed loop of S streams, their starts spread over one stream's length
    paced    open loop: requests arrive at random (Poisson) with a fixed mean rate whether or not answers come; latency
             counts from the moment a request was due, so a server that stalls cannot hide it
    open     S slow streams, opened and then held; says so on stdout, so that memory can be read meanwhile

An answer is right if its status is 200 and its body is byte for byte what the upstream sends; all else is an error and
counted. Prints JSON lines: `{"open": n}` while streams are held (only `open`), and at the end the result. Durations are
in seconds.

Run: python -m tests.speed.load single --port 8000 --seconds 4
"""

import argparse
import asyncio
import gc
import itertools
import os
import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from time import perf_counter, sleep
from typing import TypeAlias

import httptools
import orjson
import uvloop

from tests.speed import upstream

PATIENCE = 30.0  # seconds after the end of the load before what is still open counts as an error

_CHAT = {
    "model": "bench",
    "messages": [
        {
            "role": "system",
            "content": "You are the assistant of the platform team. Answer in a few plain sentences, name the page of "
            "the handbook that you rely on, and say so when you do not know. Never invent a command.",
        },
        {
            "role": "user",
            "content": "Our batch job gets 429 since this morning. What does that mean and where do I look first?",
        },
        {
            "role": "assistant",
            "content": "It means that a limit of your key or of your team was reached. The error says which one, how "
            "much of it is left and when to come back; GET /v1/limits shows all of them (handbook, page 12).",
        },
        {
            "role": "user",
            "content": 'It says "tokens per minute, team". We send about four hundred requests a minute with long '
            "prompts. Should we ask for a higher limit, or is there something that we can do on our side first?",
        },
    ],
    "max_tokens": 64,
    "temperature": 0.7,
}


@dataclass
class Result:
    """What one load saw. `seconds` runs from the first request to the last answer."""

    requests: int = 0
    events: int = 0
    errors: int = 0
    first_error: str = ""
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    first_events: list[float] = field(default_factory=list)

    def fail(self, why: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or why

    def summary(self) -> dict[str, object]:
        lists = {name: _percentiles(getattr(self, name)) for name in ("latencies", "first_events")}
        return asdict(self) | lists


def _percentiles(values: list[float]) -> dict[str, float]:
    values = sorted(values)
    return {f"p{p}": values[min(len(values) - 1, len(values) * p // 100)] for p in (50, 99)} if values else {}


def _request(key: str, **fields: object) -> bytes:
    body = orjson.dumps(_CHAT | fields)
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: 127.0.0.1",
        "User-Agent: weir-speed",
        "Accept: application/json",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


Done: TypeAlias = Callable[["Connection"], None]


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request at a time; `done` is called once for each request, right or wrong."""

    def __init__(self, result: Result, expected: bytes, done: Done) -> None:
        self._result, self._expected, self._done = result, expected, done
        self._waiting = False
        self.transport: asyncio.Transport | None = None
        self.events = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._parser = httptools.HttpResponseParser(self)

    def send(self, request: bytes, due: float) -> None:
        """Send `request`, whose latency counts from `due` (perf_counter seconds)."""
        self._body: list[bytes] = []
        self.events = 0
        self._due = due
        self._waiting = True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._finish(f"malformed answer: {error}")
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        if not self._body:
            self._result.first_events.append(perf_counter() - self._due)
        self._body.append(body)
        self.events += body.count(b"\n\n")  # what a cut hides is counted at the end

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self.events = body.count(b"\n\n")
        if (status := self._parser.get_status_code()) != 200:
            self._finish(f"status {status}: {body[:300].decode(errors='replace')}")
        elif body != self._expected:
            self._finish(f"body of {len(body)} bytes instead of {len(self._expected)}, ends with {body[-80:]!r}")
        else:
            self._finish("")

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._finish("connection lost before the end of the answer")

    def _finish(self, error: str) -> None:
        if not self._waiting:
            return
        self._waiting = False
        result = self._result
        if error:
            result.fail(error)
        else:
            result.requests += 1
            result.events += self.events
            result.latencies.append(perf_counter() - self._due)
        self._done(self)

    def leave(self) -> None:
        """Close without a word, as a client that goes away does."""
        self._waiting = False
        if self.transport:
            self.transport.abort()


class Load:
    """What the four scenarios share: where to, what to send, what must come back."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.result = Result()
        self.loop = asyncio.get_running_loop()
        if args.scenario in ("single", "paced"):
            self.request = _request(args.key)
            self.expected = upstream.COMPLETION
        else:
            pace = {"bench_chunks": args.chunks, "bench_gap_ms": args.gap_ms, "bench_grain_ms": args.grain_ms}
            self.request = _request(args.key, stream=True, **pace)
            self.expected = b"".join(upstream.stream_events(args.chunks, usage=False))

    async def connect(self, done: Done) -> Connection:
        create = lambda: Connection(self.result, self.expected, done)  # noqa: E731 - a factory is what asyncio wants
        _, connection = await self.loop.create_connection(create, "127.0.0.1", self.args.port)
        return connection

    async def closed_loop(self, connections: int, spread: float) -> None:
        """Each connection always waits for an answer, until `seconds` are over; starts are `spread` over seconds."""
        ended = asyncio.Event()
        left = connections
        start = perf_counter()
        stop = start + self.args.seconds

        def done(connection: Connection) -> None:
            nonlocal left
            if connection.transport and perf_counter() < stop and self.result.errors < connections:
                connection.send(self.request, perf_counter())
                return
            left -= 1
            if not left:
                ended.set()

        async def begin(delay: float) -> None:
            await asyncio.sleep(delay)
            connection = await self.connect(done)
            connection.send(self.request, perf_counter())

        await asyncio.gather(*(begin(spread * n / connections) for n in range(connections)))
        try:
            await asyncio.wait_for(ended.wait(), self.args.seconds + PATIENCE)
        except TimeoutError:
            self.result.errors += left
            self.result.first_error = (
                self.result.first_error or f"{left} answers not complete {PATIENCE:.0f} s after the end"
            )
        self.result.seconds = perf_counter() - start

    async def paced(self) -> None:
        """Requests at `rate` a second, at random moments, over `connections` kept connections."""
        idle: deque[Connection] = deque()
        waiting: deque[float] = deque()
        ended = asyncio.Event()
        draw = random.Random(1)
        start = perf_counter() + 0.2
        gaps = (draw.expovariate(self.args.rate) for _ in itertools.count())
        arrivals = list(
            itertools.takewhile(lambda at: at < start + self.args.seconds, itertools.accumulate(gaps, initial=start))
        )
        answered = 0

        def done(connection: Connection) -> None:
            nonlocal answered
            answered += 1
            if answered == len(arrivals):
                ended.set()
            if not connection.transport:
                return
            if waiting:
                connection.send(self.request, waiting.popleft())
            else:
                idle.append(connection)

        due = iter(arrivals)

        def arrive() -> None:
            for _ in range(os.eventfd_read(bell)):
                at = next(due)
                if idle:
                    idle.popleft().send(self.request, at)
                else:
                    waiting.append(at)

        idle.extend(await asyncio.gather(*(self.connect(done) for _ in range(self.args.connections))))
        bell = os.eventfd(0, os.EFD_NONBLOCK)
        self.loop.add_reader(bell, arrive)
        # A thread rings for each arrival: the loop's own timers know only whole milliseconds, which would make bursts.
        threading.Thread(target=_ring, args=(bell, arrivals), daemon=True).start()
        try:
            await asyncio.wait_for(ended.wait(), self.args.seconds + PATIENCE)
        except TimeoutError:
            self.result.fail(f"{len(arrivals) - answered} of {len(arrivals)} requests without an answer")
        self.result.seconds = perf_counter() - start

    async def hold_open(self) -> None:
        """Open slow streams, report when all of them have begun, hold them, then go away in the middle of them all."""
        streams: list[Connection] = []
        start = perf_counter()
        for _ in range(self.args.connections):
            stream = await self.connect(lambda _: None)
            stream.send(self.request, perf_counter())
            streams.append(stream)
            await asyncio.sleep(0.001)
        while any(not stream.events for stream in streams) and perf_counter() < start + PATIENCE:
            await asyncio.sleep(0.05)
        print(orjson.dumps({"open": sum(stream.events > 0 for stream in streams)}).decode(), flush=True)
        await asyncio.sleep(self.args.seconds)
        for stream in streams:
            stream.leave()  # an answer that came to its end before this is counted already, as an error
        self.result.requests = sum(stream.events > 1 for stream in streams)
        self.result.events = sum(stream.events for stream in streams)
        if self.result.requests < self.args.connections and not self.result.errors:
            self.result.fail(f"{self.args.connections - self.result.requests} held streams did not go on")
        self.result.seconds = perf_counter() - start


def _ring(bell: int, arrivals: list[float]) -> None:
    for at in arrivals:
        if (wait := at - perf_counter()) > 0:
            sleep(wait)
        os.eventfd_write(bell, 1)


async def run(args: argparse.Namespace) -> Result:
    load = Load(args)
    gc.freeze()
    gc.disable()  # the load is short, and a pause here would look like the gateway's
    match args.scenario:
        case "single":
            await load.closed_loop(args.connections, spread=0)
        case "stream":
            await load.closed_loop(args.connections, spread=args.chunks * args.gap_ms / 1e3)
        case "paced":
            await load.paced()
        case "open":
            await load.hold_open()
    return load.result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=["single", "stream", "paced", "open"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", default="none", help="the bearer key")
    parser.add_argument("--connections", type=int, default=32, help="connections, or streams")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rate", type=float, default=1000.0, help="paced: requests per second")
    parser.add_argument("--chunks", type=int, default=upstream.CHUNKS, help="stream, open: chunks a stream")
    parser.add_argument(
        "--gap-ms", type=float, default=upstream.GAP_MS, help="stream, open: milliseconds between chunks"
    )
    parser.add_argument(
        "--grain-ms", type=float, default=upstream.GRAIN_MS, help="stream, open: chunks leave at multiples of this only"
    )
    print(orjson.dumps(uvloop.run(run(parser.parse_args())).summary()).decode(), flush=True)
