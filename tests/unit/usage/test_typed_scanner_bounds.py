"""TypedEventScanner and large events: what it keeps is bounded, and what stands at an event's end is read."""

import json
import tracemalloc
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import pytest

from weir.core.types import Usage
from weir.usage.typed_scanner import TypedEventScanner

MEGABYTE = 1 << 20
BOUND = 64 * 1024
USED = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 16},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 8},
}
READ = Usage(30, 12, 16, 8)
LOOKALIKE = '{"usage":{"input_tokens":999,"output_tokens":999}} '
OUTPUT = [{"type": "message", "content": [{"type": "output_text", "text": LOOKALIKE * 20_000}]}]
CUT = {"reason": "max_output_tokens"}
SIZES = pytest.mark.parametrize("size", [1000, 4096, 70_000, 4 * MEGABYTE], ids=lambda size: f"pieces-of-{size}")


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def response(status: str, **more: Any) -> dict[str, Any]:
    return {"id": "r", "object": "response", "status": status, "output": OUTPUT, "usage": USED, "metadata": {}, **more}


def in_pieces_of(size: int, body: bytes) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


def scan(body: bytes, size: int) -> TypedEventScanner:
    scanner = TypedEventScanner()
    for piece in in_pieces_of(size, body):
        assert scanner.feed(piece) is piece
    scanner.flush()
    return scanner


LARGE = {
    # the event's lines, and what it says of the end
    "as-openai": (
        b"event: response.completed\ndata: "
        + compact({"type": "response.completed", "response": response("completed")}),
        "completed",
    ),
    "no-event-line": (
        b"data: " + compact({"type": "response.completed", "response": response("completed")}),
        "completed",
    ),
    "spaces": (
        b"data: " + json.dumps({"type": "response.completed", "response": response("completed")}).encode(),
        "completed",
    ),
    "type-last": (b"data: " + compact({"response": response("completed"), "type": "response.completed"}), "completed"),
    "name-behind-an-id": (
        b"id: 7\nevent: response.completed\ndata: " + compact({"response": response("completed")}),
        "completed",
    ),
    "cut-short-said-before": (
        b"data: "
        + compact({"type": "response.incomplete", "response": {"incomplete_details": CUT, **response("incomplete")}}),
        "max_output_tokens",
    ),
    "cut-short-said-behind": (
        b"data: "
        + compact({"type": "response.incomplete", "response": response("incomplete", incomplete_details=CUT)}),
        "max_output_tokens",
    ),
}


@SIZES
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize(("event", "reason"), LARGE.values(), ids=LARGE)
def test_usage_at_the_end_of_a_megabyte(event, reason, end, size):
    scanner = scan(event.replace(b"\n", end[: len(end) // 2]) + end, size)
    assert (scanner.usage, scanner.finish_reason, scanner.finished, scanner.events) == (READ, reason, True, 0)


FORGED = {"usage": {"input_tokens": 1, "output_tokens": 1}, "incomplete_details": {"reason": "content_filter"}}
TOOLS = [{"type": "function", "parameters": {"properties": FORGED, "response": FORGED}}] * 1000
ECHO = {"tools": TOOLS, "metadata": FORGED, "text": {"format": {"schema": FORGED}}}


@SIZES
@pytest.mark.parametrize(("used", "read"), [(USED, READ), (None, None)], ids=["reported", "silent"])
def test_what_a_response_repeats_is_not_its_own(used, read, size):
    said = {**response("completed"), "output": [], "usage": used, **ECHO}
    for event in ({"type": "response.completed", "response": said}, {"response": said, "type": "response.completed"}):
        scanner = scan(b"event: response.completed\ndata: " + compact(event) + b"\n\n", size)
        assert (scanner.usage, scanner.finish_reason, scanner.finished) == (read, "completed", True)


@SIZES
def test_a_large_failure_is_a_failure(size):
    """Engines quote the input in what they say of it."""
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "no " * 100_000}}
    scanner = scan(b"event: error\ndata: " + compact(error) + b"\n\n", size)
    assert (scanner.failed, scanner.finished, scanner.complete, scanner.usage) == (True, False, True, None)


@SIZES
def test_a_large_image(size):
    picture = {"type": "image_generation.completed", "b64_json": "iVBOR" * 400_000, "usage": USED}
    part = {"type": "image_generation.partial_image", "b64_json": "iVBOR" * 100_000}
    scanner = scan(b"".join(b"data: " + compact(event) + b"\n\n" for event in (part, part, picture)), size)
    assert (scanner.usage, scanner.events, scanner.complete, scanner.content_bytes) == (READ, 2, True, 0)


@SIZES
def test_a_large_delta_is_content_and_what_follows_is_read(size):
    delta = {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": LOOKALIKE * 5000}}
    last = {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use"},
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }
    stop = {"type": "message_stop"}
    scanner = scan(b"".join(b"data: " + compact(event) + b"\n\n" for event in (delta, last, stop)), size)
    assert (scanner.usage, scanner.events, scanner.finish_reason, scanner.finished) == (
        Usage(3, 4),
        1,
        "tool_use",
        True,
    )


@pytest.mark.parametrize("size", [BOUND + off for off in range(-4, 5)])
def test_an_event_about_as_large_as_the_bound(size):
    """Its blank line comes before, at and behind the bound, and is cut anywhere."""
    event = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"%s"}}\n\n'
    event %= b"x" * (size - len(event) + 2)
    assert len(event) == size
    body = (
        event
        + b'data: {"type":"message_delta","delta":{},"usage":{"output_tokens":4}}\n\ndata: {"type":"message_stop"}\n\n'
    )
    for cut in (*range(size - 6, size + 8), BOUND - 1, BOUND, BOUND + 1):
        scanner = TypedEventScanner()
        scanner.feed(body[:cut])
        scanner.feed(body[cut:])
        assert (scanner.usage, scanner.finished, scanner.events) == (Usage(0, 4), True, 1), f"cut at {cut}"


def test_keeps_no_more_than_the_bound():
    """An event of 16 MB that never ends: memory stays flat, though no byte of it is a line end."""
    piece = b"x" * 16_384
    scanner = TypedEventScanner()
    scanner.feed(b"event: response.completed\ndata: ")
    tracemalloc.start()
    try:
        for same in repeat(piece, 16 * MEGABYTE // len(piece)):
            scanner.feed(same)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEGABYTE
    assert (scanner.at_boundary, scanner.half_out, scanner.complete) == (False, True, False)


@pytest.mark.timeout(20)  # takes 0.2 s; half a minute where each piece is searched from the buffer's beginning
def test_small_pieces():
    assert scan(LARGE["as-openai"][0] + b"\n\n", 16).usage == READ
