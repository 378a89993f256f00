"""A fake inference server that costs next to nothing, so that what a benchmark sees is the gateway before it.

Raw asyncio protocol on uvloop: canned bytes, keep-alive, no pipelining, no TLS. A single answer costs about 10 us of
CPU. `"stream": true` in the body streams server-sent events in vLLM's wire format, one TCP write an event. Two fields
that no real server knows set the pace: `bench_chunks` (default 100) and `bench_gap_ms` (milliseconds, default 10).

Run: python -m tests.speed.upstream --port 8000
"""

import argparse
import asyncio
import gc
import re
from functools import lru_cache

import orjson
import uvloop

CHUNKS = 100
GAP_MS = 10

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


class Upstream(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._received = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()

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
            self._sent = 0
            self._send_next()
        else:
            self._transport.write(_ANSWER)

    def _send_next(self) -> None:
        self._transport.write(self._writes[self._sent])
        self._sent += 1
        left = len(self._writes) - self._sent
        # A timer a stream, and not one tick for all: a gateway must wake for each chunk, as it does for real ones.
        self._timer = self._loop.call_later(self._gap if left > 1 else 0, self._send_next) if left else None


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(loop), "127.0.0.1", port, backlog=4096)
    gc.freeze()
    gc.disable()  # a pause here would look like the gateway's
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))
