"""EventScanner and large events: what it holds back is bounded, what it costs is not quadratic, and nothing is lost."""

import tracemalloc
from collections.abc import Iterator
from itertools import repeat

import pytest

from tests.fakes.streams import BIG_EVENT, BIG_ONLY_EVENT, MEGABYTE
from weir.core.types import Usage
from weir.usage.scanner import EventScanner

BOUND = 64 * 1024
BIG = pytest.mark.parametrize("stream", [BIG_EVENT, BIG_ONLY_EVENT], ids=["big-event", "big-only-event"])
BOTH = pytest.mark.parametrize("strip", [False, True], ids=["as-it-is", "stripped"])

CONTENT = b'data: {"choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":6,"completion_tokens":2,"total_tokens":8}}\n\n'
DONE = b"data: [DONE]\n\n"


def in_pieces_of(size: int, body: bytes) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


@pytest.mark.parametrize("size", [100, 1024, 16_384, 65_536, 65_537])
@BIG
def test_holds_no_more_than_the_bound(stream, size):
    scanner = EventScanner(strip_usage=True)
    came = went = most = 0
    for piece in in_pieces_of(size, stream.body):
        came += len(piece)
        went += len(scanner.feed(piece))
        most = max(most, came - went - (len(stream.usage_chunk or b"") if scanner.finished else 0))
    assert most <= BOUND + size


@BOTH
def test_keeps_no_more_than_the_bound(strip):
    """An event of 16 MB that never ends: memory stays flat, though no byte of it is a line end."""
    piece = b"x" * 16_384
    scanner = EventScanner(strip_usage=strip)
    scanner.feed(b"data: ")
    tracemalloc.start()
    try:
        for same in repeat(piece, 16 * MEGABYTE // len(piece)):
            scanner.feed(same)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEGABYTE
    assert not scanner.at_boundary


def test_event_above_the_bound_flows():
    """The client reads along: it does not wait for the end of a large event."""
    scanner = EventScanner(strip_usage=True)
    body = BIG_EVENT.body
    out = b"".join(map(scanner.feed, in_pieces_of(4096, body[: len(body) // 2])))
    assert len(out) > len(body) // 2 - BOUND - 4096
    assert not scanner.at_boundary
    out += scanner.flush()
    assert out == body[: len(body) // 2]


@pytest.mark.timeout(20)  # takes 0.1 s; half a minute where each piece is searched from the buffer's beginning
@BOTH
@BIG
def test_small_pieces(stream, strip):
    scanner = EventScanner(strip_usage=strip)
    out = b"".join(map(scanner.feed, in_pieces_of(16, stream.body))) + scanner.flush()
    assert out == (stream.stripped if strip else stream.body)
    assert (scanner.usage, scanner.finished, scanner.failed) == (stream.usage, True, False)


@BOTH
def test_many_events_in_one_piece(strip):
    body = CONTENT % b"drop" * 20_000
    scanner = EventScanner(strip_usage=strip)
    assert scanner.feed(body + USAGE + DONE) == body + (b"" if strip else USAGE) + DONE
    assert (scanner.events, scanner.usage, scanner.finished) == (20_000, Usage(6, 2), True)


@BOTH
@pytest.mark.parametrize("size", [BOUND + off for off in (-4, -3, -2, -1, 0, 1, 2, 3, 4)])
def test_event_about_as_large_as_the_bound(size, strip):
    """The blank line of the event comes before, at and behind the bound, and is cut anywhere; usage follows it."""
    event = CONTENT % (b"x" * (size - len(CONTENT) + 2))
    assert len(event) == size
    body = event + USAGE + DONE
    for cut in (*range(size - 6, size + 8), BOUND - 1, BOUND, BOUND + 1):
        scanner = EventScanner(strip_usage=strip)
        out = scanner.feed(body[:cut]) + scanner.feed(body[cut:]) + scanner.flush()
        assert out == event + (b"" if strip else USAGE) + DONE, f"cut at {cut}"
        assert (scanner.usage, scanner.finished, scanner.events) == (Usage(6, 2), True, 1), f"cut at {cut}"


def test_usage_chunk_below_the_bound_goes():
    """A vendor's block of 60 KB beside usage is still only a usage chunk."""
    event = USAGE.replace(b'"choices":[]', b'"timings":[%s0],"choices":[]' % (b"0.25," * 12_000))
    for size in (100, 5000, len(event)):
        scanner = EventScanner(strip_usage=True)
        assert b"".join(map(scanner.feed, in_pieces_of(size, event + DONE))) + scanner.flush() == DONE
        assert scanner.usage == Usage(6, 2)


END_OF_BIG = {
    "usage-last": b'","finish_reason":"stop"}],"usage":{"prompt_tokens":6,"completion_tokens":2}}\n\n',
    "usage-then-timings": b'","finish_reason":"stop"}],"usage":{"prompt_tokens":6,"completion_tokens":2},"t":{}}\n\n',
    "pretty": b'", "finish_reason" : "stop"}], "usage" : {"prompt_tokens" : 6, "completion_tokens" : 2} }\r\n\r\n',
}


@BOTH
@pytest.mark.parametrize("size", [1000, 4096, 70_000, 1 << 20], ids=lambda size: f"pieces-of-{size}")
@pytest.mark.parametrize("end", END_OF_BIG.values(), ids=END_OF_BIG)
def test_end_of_a_large_event_is_read(end, size, strip):
    body = b'data: {"choices":[{"text":"' + rb"\"usage\":{\"prompt_tokens\":9}," * 8000 + end
    scanner = EventScanner(strip_usage=strip)
    out = b"".join(map(scanner.feed, in_pieces_of(size, body))) + scanner.flush()
    assert out == body
    assert (scanner.usage, scanner.finish_reason, scanner.events) == (Usage(6, 2), "stop", 1)


@pytest.mark.parametrize("size", [1000, 70_000, 1 << 20], ids=lambda size: f"pieces-of-{size}")
def test_large_error_is_an_error(size):
    """Some engines quote the input in their message, and send [DONE] after it."""
    body = b'data: {"error":{"message":"' + b"no " * 50_000 + b'","type":"server_error","code":500}}\n\n' + DONE
    scanner = EventScanner()
    for piece in in_pieces_of(size, body):
        scanner.feed(piece)
    assert (scanner.failed, scanner.finished, scanner.usage) == (True, True, None)
