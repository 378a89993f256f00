"""A fake inference server that costs next to nothing, so that what a benchmark sees is the gateway before it.

Raw asyncio protocol on uvloop: canned bytes, keep-alive, no pipelining, no TLS. A single answer costs about 10 us of
CPU. `"stream": true` in the body streams server-sent events in vLLM's wire format, one TCP write an event. Three fields
that no real server knows set the pace: `bench_chunks` (default 100), `bench_gap_ms` (milliseconds between two, default
10), and `bench_grain_ms`: chunks leave at whole multiples of it only, so that those of several streams leave together
(default 0: each stream keeps its own time).

Run: python -m tests.speed.upstream --port 8000
"""

import argparse
import asyncio
import ctypes
import gc
import heapq
import itertools
import os
import re
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from math import ceil
from random import random

import orjson
import uvloop

CHUNKS = 100
GAP_MS = 10
GRAIN_MS = 0

COMPLETION = orjson.dumps(
    {
        "id": "chatcmpl-6f1c1f0a9d9e4d0f8b7a5c3e2d1f0a9b",
        "object": "chat.completion",
        "created": 1760000000,
        "model": "bench",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "A weir is a low dam across a river. It holds the water above it to a level, lets what "
                    "is too much run over, and, as the height tells how much of it passes, measures the flow.",
                    "tool_calls": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
            }
        ],
        "usage": {"prompt_tokens": 212, "total_tokens": 260, "completion_tokens": 48, "prompt_tokens_details": None},
        "prompt_logprobs": None,
    }
)

_ANSWER = (
    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    % len(COMPLETION)
) + COMPLETION
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
_LENGTH_REQUIRED = b"HTTP/1.1 411 Length Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

_TFD_TIMER_ABSTIME = 1

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_STREAMING = re.compile(rb'"stream"\s*:\s*true')


def _event(**fields: object) -> bytes:
    chunk = {"id": "chatcmpl-6f1c1f0a9d9e4d0f8b7a5c3e2d1f0a9b", "object": "chat.completion.chunk"}
    return b"data: " + orjson.dumps(chunk | {"created": 1760000000, "model": "bench"} | fields) + b"\n\n"


def _choice(delta: dict[str, str], finish_reason: str | None = None) -> list[dict[str, object]]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]


def stream_events(chunks: int, *, usage: bool) -> list[bytes]:
    """The events of one stream: the role, `chunks` words, the usage if asked for, `[DONE]`."""
    events = [_event(choices=_choice({"role": "assistant", "content": ""}))]
    events += [_event(choices=_choice({"content": f" word{n:04}"})) for n in range(chunks - 1)]
    events.append(_event(choices=_choice({"content": " end."}, "stop")))
    if usage:
        counts = {"prompt_tokens": 212, "total_tokens": 212 + chunks, "completion_tokens": chunks}
        events.append(_event(choices=[], usage=counts))
    return [*events, b"data: [DONE]\n\n"]


@lru_cache
def _writes(chunks: int, *, usage: bool) -> tuple[bytes, ...]:
    """What goes to the socket at each tick; usage, `[DONE]` and the end of the body leave together, as from vLLM."""
    frames = [b"%x\r\n%s\r\n" % (len(event), event) for event in stream_events(chunks, usage=usage)]
    return (_STREAM_HEAD + frames[0], *frames[1 : chunks + 1], b"".join(frames[chunks + 1 :]) + b"0\r\n\r\n")


class Clock:
    """Calls at moments told to the microsecond, by a timer of the kernel's.

    The loop's own timers know only whole milliseconds: the chunks of a hundred streams with 10 ms between them would
    leave ten at a time, and a gateway would wake once for ten of them, as it does for no real server.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)  # os.timerfd_create is there from Python 3.13 on
        self._timer = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._calls: list[tuple[float, int, Callable[[], None]]] = []  # a heap; the number keeps calls from comparison
        self._numbers = itertools.count()
        self._armed_for = 0.0
        loop.add_reader(self._timer, self._ring)

    def call_at(self, moment: float, call: Callable[[], None]) -> None:
        """`moment` in seconds of time.monotonic()."""
        heapq.heappush(self._calls, (moment, next(self._numbers), call))
        self._arm()

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # armed again since it rang
            os.read(self._timer, 8)
        due = []
        while self._calls and self._calls[0][0] <= time.monotonic():
            due.append(heapq.heappop(self._calls)[2])
        for call in due:
            call()
        self._armed_for = 0.0
        self._arm()

    def _arm(self) -> None:
        if self._calls and self._calls[0][0] != self._armed_for:
            self._armed_for = self._calls[0][0]
            seconds, rest = divmod(self._armed_for, 1)
            once_at = struct.pack("qqqq", 0, 0, int(seconds), int(rest * 1e9))
            self._libc.timerfd_settime(self._timer, _TFD_TIMER_ABSTIME, once_at, None)


class Upstream(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._received + data
        while (head := data.find(b"\r\n\r\n")) >= 0:
            length = _CONTENT_LENGTH.search(data, 0, head)
            if length is None and data.startswith(b"POST"):
                self._transport.write(_LENGTH_REQUIRED)
                self._transport.close()
                return
            end = head + 4 + (int(length[1]) if length else 0)
            if len(data) < end:
                break
            self._answer(data[:head], data[head + 4 : end])
            data = data[end:]
        self._received = data

    def _answer(self, head: bytes, body: bytes) -> None:
        if not head.startswith(b"POST /v1/chat/completions "):
            self._transport.write(_NOT_FOUND)
        elif _STREAMING.search(body):
            request = orjson.loads(body)
            usage = bool((request.get("stream_options") or {}).get("include_usage"))
            self._writes = _writes(request.get("bench_chunks", CHUNKS), usage=usage)
            self._gap = request.get("bench_gap_ms", GAP_MS) / 1e3
            self._grain = request.get("bench_grain_ms", GRAIN_MS) / 1e3
            self._sent = 0
            self._due = time.monotonic()
            self._send_next()
        else:
            self._transport.write(_ANSWER)

    def _send_next(self) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(self._writes[self._sent])
        self._sent += 1
        left = len(self._writes) - self._sent
        if left > 1:
            # The second chunk comes after a part of the gap, the others after a whole one: no two streams keep step.
            self._due += self._gap * (random() if self._sent == 1 else 1)
            moment = ceil(self._due / self._grain) * self._grain if self._grain else self._due
            self._clock.call_at(moment, self._send_next)
        elif left:
            self._loop.call_soon(self._send_next)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    clock = Clock(loop)
    server = await loop.create_server(lambda: Upstream(loop, clock), "127.0.0.1", port, backlog=4096)
    gc.freeze()
    gc.disable()  # a pause here would look like the gateway's
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))
