"""EventReader against the specification (WHATWG HTML, section 9.2), wherever the network cuts the stream."""

import re
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weir.core.sse import EVENT_MAX, Event, EventReader, TooLong

BOM = b"\xef\xbb\xbf"

STREAMS = [
    # name                 bytes                                                       events
    ("one", b"data: a\n\n", [(b"", b"a")]),
    ("named", b"event: ping\ndata: {}\n\n", [(b"ping", b"{}")]),
    ("two", b"data: a\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
    ("several-lines", b"data: a\ndata: b\ndata\n\n", [(b"", b"a\nb\n")]),
    ("one-space-is-taken", b"data:a\n\ndata:  b\n\n", [(b"", b"a"), (b"", b" b")]),
    ("colons-inside", b"data: a: b\n\n", [(b"", b"a: b")]),
    ("empty-data", b"data\n\ndata:\n\n", [(b"", b""), (b"", b"")]),
    ("comments", b": ping\n\n: ping\ndata: a\n: pong\n\n", [(b"", b"a")]),
    ("no-data", b"event: a\n\nid: 1\nretry: 5\n\ndata: b\n\n", [(b"", b"b")]),
    ("many-blank-lines", b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n", [(b"", b"a"), (b"", b"b")]),
    ("last-name-wins", b"event: a\nevent: b\ndata: c\n\n", [(b"b", b"c")]),
    ("carriage-returns-and-line-feeds", b"event: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", [(b"a", b"b"), (b"", b"c")]),
    ("carriage-returns", b"event: a\rdata: b\r\rdata: c\r\rdata: d\r\r", [(b"a", b"b"), (b"", b"c"), (b"", b"d")]),
    ("mixed-line-ends", b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\ndata: d\n\rdata: e\n\n", [(b"", bytes([x])) for x in b"abcde"]),
    ("bom", BOM + b"data: a\n\n", [(b"", b"a")]),
    ("bom-and-carriage-returns", BOM + b"data: a\r\n\r\n", [(b"", b"a")]),
    ("bom-is-for-the-start-only", b"\n\n" + BOM + b"data: a\n\ndata: b\n\n", [(b"", b"b")]),
    ("bom-within-data", b"data: " + BOM + b"\n\n", [(b"", BOM)]),
    ("text-in-utf-8", "data: \u00e9\u2028\u0085\x0b\n\n".encode(), [(b"", "\u00e9\u2028\u0085\x0b".encode())]),
    ("unfinished", b"data: a\n\ndata: b", [(b"", b"a"), (b"", b"b")]),
    ("unfinished-by-one-line-end", b"data: a\n\ndata: b\n", [(b"", b"a"), (b"", b"b")]),
    ("nothing", b"", []),
    ("half-a-bom", BOM[:2], []),
]  # fmt: skip
EVERY = pytest.mark.parametrize(("body", "told"), [row[1:] for row in STREAMS], ids=[row[0] for row in STREAMS])


def read(pieces: Iterable[bytes]) -> list[Event]:
    reader = EventReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    last = reader.flush()
    return events if last is None else [*events, last]


@EVERY
def test_whole(body, told):
    assert read([body]) == told


@EVERY
def test_cut_at_every_position(body, told):
    for at in range(len(body) + 1):
        assert read([body[:at], body[at:]]) == told, at


@EVERY
def test_cut_into_three_anywhere(body, told):
    for one in range(len(body) + 1):
        for two in range(one, len(body) + 1):
            assert read([body[:one], body[one:two], body[two:]]) == told, (one, two)


@EVERY
def test_byte_by_byte(body, told):
    assert read([body[n : n + 1] for n in range(len(body))]) == told


def read_slowly(body: bytes) -> list[tuple[bytes, bytes]]:
    """By the specification, line by line, with the whole stream at hand; a last event needs no blank line here."""
    events, name, data = [], b"", []
    for line in [*re.split(rb"\r\n|\n|\r", body.removeprefix(BOM)), b""]:
        field, _, value = line.partition(b":")
        if not line:
            if data:
                events.append((name, b"\n".join(data)))
            name, data = b"", []
        elif field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return events


LINES = st.lists(
    st.sampled_from([b"data: a", b"data", b"event: x", b": c", b"", b"\r", b"\n", b"\r\n", BOM]), max_size=14
)


@settings(max_examples=400, deadline=None)
@given(lines=LINES, cuts=st.lists(st.integers(0, 80), max_size=6))
def test_anything_is_read_as_the_specification_reads_it(lines, cuts):
    body = b"\n".join(lines) + b"\n"
    ends = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
    assert read([body[a:b] for a, b in pairwise(ends)]) == read_slowly(body)


def test_an_event_is_given_with_the_byte_that_ends_it():
    reader = EventReader()
    assert list(reader.feed(b"data: a\n")) == []
    assert list(reader.feed(b"\n")) == [Event(b"", b"a")]


def test_flush_gives_nothing_twice():
    reader = EventReader()
    assert list(reader.feed(b"data: a")) == []
    assert reader.flush() == Event(b"", b"a")
    assert reader.flush() is None


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["line-feeds", "carriage-returns"])
def test_what_never_ends_is_refused(end):
    reader = EventReader()
    assert list(reader.feed(b"data: a" + end + end)) == [Event(b"", b"a")]
    assert list(reader.feed(b"d" * EVENT_MAX)) == []
    with pytest.raises(TooLong):
        list(reader.feed(b"d"))


def test_what_is_long_but_ends_is_given():
    data = b"d" * EVENT_MAX
    assert read([b"data: " + data + b"\n\n"]) == [(b"", data)]
