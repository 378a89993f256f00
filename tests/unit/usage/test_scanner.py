"""EventScanner over the corpus: wherever the network cuts a stream, the same bytes go out and the same is read.

A cut must change nothing, so each stream is cut in two at every position, into single bytes and at random; and its
upstream dies at every position, after which nothing may be missing.
"""

import json
import random
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from operator import attrgetter
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.streams import BOM, STREAMS, Stream, events_of
from weir.core.types import Usage
from weir.usage.scanner import EventScanner

SMALL = [stream for stream in STREAMS if len(stream.body) < 10_000]
EVERY = pytest.mark.parametrize("stream", STREAMS, ids=attrgetter("name"))
EVERY_SMALL = pytest.mark.parametrize("stream", SMALL, ids=attrgetter("name"))
BOTH = pytest.mark.parametrize("strip", [False, True], ids=["as-it-is", "stripped"])
ANYHOW = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PING = b": ping\n\n"


class Seen(NamedTuple):
    """What went out, and what the scanner knows when all is over."""

    out: bytes
    usage: tuple[int, int, int, int] | None
    finished: bool
    failed: bool
    finish_reason: str | None
    events: int


def scan(pieces: Iterable[bytes], *, strip: bool) -> Seen:
    scanner = EventScanner(strip_usage=strip)
    out = []
    for piece in pieces:
        passed = scanner.feed(piece)
        assert strip or passed is piece, "without strip_usage the very same object goes out"
        out.append(passed)
    out.append(scanner.flush())
    usage = None if scanner.usage is None else tuple(scanner.usage)
    return Seen(b"".join(out), usage, scanner.finished, scanner.failed, scanner.finish_reason, scanner.events)


def usage_of(said: dict[str, Any]) -> tuple[int, int, int, int] | None:
    usage = said.get("usage")
    if not usage or not usage["total_tokens"]:
        return None
    prompt, output = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    cached, reasoning = prompt.get("cached_tokens") or 0, output.get("reasoning_tokens") or 0
    return usage["prompt_tokens"], usage["completion_tokens"], cached, reasoning


def read_slowly(body: bytes) -> Seen:
    """The whole stream by the specification and the json module: the reference that the scanner is held against."""
    usage, finish_reason, events, finished, failed = None, None, 0, False, False
    for data in events_of(body + b"\n\n"):
        if data == b"[DONE]":
            finished = True
            continue
        try:
            said = json.loads(data)
        except ValueError:  # empty, or cut off
            continue
        for choice in said.get("choices", ()):
            finish_reason = choice["finish_reason"] or finish_reason
        if said.get("error"):
            failed = True
            continue
        usage = usage_of(said) or usage
        events += not (said["choices"] == [] and said.get("usage"))
    return Seen(body, usage, finished, failed, finish_reason, events)


def expected(stream: Stream, *, strip: bool) -> Seen:
    seen = read_slowly(stream.body)
    if is_cut_off(stream):  # whether half an event counts as one is the scanner's own, but not the cut's
        seen = seen._replace(events=scan([stream.body], strip=strip).events)
    return seen._replace(
        out=stream.stripped if strip else stream.body,
        usage=stream.usage,
        finished=stream.finished,
        failed=stream.error,
    )


def is_cut_off(stream: Stream) -> bool:
    return events_of(stream.body) != events_of(stream.body + b"\n\n")


def difference(seen: Seen, wanted: Seen) -> str:
    """The fields that differ, and of the bytes only the place."""
    told = [
        f"{field}: {got!r}, not {want!r}"
        for field, got, want in zip(Seen._fields[1:], seen[1:], wanted[1:], strict=True)
        if got != want
    ]
    if seen.out != wanted.out:
        at = next((i for i, (a, b) in enumerate(zip(seen.out, wanted.out, strict=False)) if a != b), len(wanted.out))
        told.append(f"out at {at}: {seen.out[at : at + 60]!r}, not {wanted.out[at : at + 60]!r}")
    return "; ".join(told)


def assert_no_cut_matters(stream: Stream, cuts: Iterable[tuple[str, Iterable[bytes]]], *, strip: bool) -> None:
    wanted = expected(stream, strip=strip)
    wrong = {}
    for name, pieces in cuts:
        seen = scan(pieces, strip=strip)
        if seen != wanted:
            wrong[name] = difference(seen, wanted)
    if wrong:
        told = "\n".join(f"  {name}: {what}" for name, what in list(wrong.items())[:8])
        pytest.fail(f"{stream.name}: {len(wrong)} cuts matter\n{told}", pytrace=False)


def in_pieces_of(size: int, body: bytes) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


def positions(stream: Stream) -> Iterable[int]:
    """Every position of a small stream; of a large one those around each event's ends and around 16 and 64 KiB."""
    body = stream.body
    if stream in SMALL:
        return range(len(body) + 1)
    near: set[int] = set()
    at = -1
    while (at := body.find(b"\n\n", at + 1)) >= 0:
        near.update(range(at - 2, at + 4))
    for size in (1 << 14, 1 << 16):
        near.update((size - 1, size, size + 1, len(body) - size))
    chosen = random.Random(stream.name)
    near.update(chosen.randrange(len(body)) for _ in range(60))
    return sorted(at for at in near if 0 <= at <= len(body))


# -- the corpus itself -------------------------------------------------------------------------------------------------


@EVERY
def test_corpus_says_what_it_holds(stream):
    seen = read_slowly(stream.body)
    assert (seen.usage, seen.finished, seen.failed) == (stream.usage, stream.finished, stream.error)


@EVERY
def test_corpus_marks_its_usage_chunk(stream):
    whole, stripped = events_of(stream.body), events_of(stream.stripped)
    gone = [data for data in whole if data not in stripped]
    said = [(data, json.loads(data)) for data in whole if data.lstrip().startswith(b"{")]
    assert gone == [data for data, value in said if value.get("choices") == [] and value.get("usage")]
    assert stream.body.count(stream.usage_chunk or b"[]?") == len(gone)


def test_corpus_has_unique_names():
    assert len({stream.name for stream in STREAMS}) == len(STREAMS)


# -- cuts --------------------------------------------------------------------------------------------------------------


@BOTH
@EVERY
def test_in_one_piece(stream, strip):
    assert_no_cut_matters(stream, [("whole", [stream.body])], strip=strip)


@BOTH
@EVERY
def test_cut_in_two_anywhere(stream, strip):
    body = stream.body
    cuts = ((f"cut at {at}", (body[:at], body[at:])) for at in positions(stream))
    assert_no_cut_matters(stream, cuts, strip=strip)


@BOTH
@EVERY_SMALL
def test_in_pieces(stream, strip):
    cuts = ((f"pieces of {size}", in_pieces_of(size, stream.body)) for size in (1, 2, 3, 7, 64, 500))
    assert_no_cut_matters(stream, cuts, strip=strip)


@BOTH
@EVERY_SMALL
def test_event_by_event(stream, strip):
    """What an engine really sends: a piece is an event; or only its data. And the worst proxy: each newline alone."""
    events = [piece + b"\n\n" for piece in stream.body.split(b"\n\n")]
    events[-1] = events[-1].removesuffix(b"\n\n")
    lines = stream.body.replace(b"\n", b"\x00\n\x00").split(b"\x00")
    fields = re.split(rb"(?<=[\r\n])(?=data)", stream.body)
    assert_no_cut_matters(stream, [("events", events), ("fields", fields), ("lines", lines)], strip=strip)


@ANYHOW
@given(st.sampled_from(SMALL), st.lists(st.floats(0, 1), max_size=9), st.booleans())
def test_cut_anyhow(stream, where, strip):
    ends = sorted({0, len(stream.body), *(int(share * len(stream.body)) for share in where)})
    pieces = [stream.body[start:end] for start, end in pairwise(ends)]
    assert_no_cut_matters(stream, [(f"cut at {ends}", pieces)], strip=strip)


# -- streams that nobody wrote -----------------------------------------------------------------------------------------

WORDS = ['"usage":{"prompt_tokens":999}', '"error":{"m":1}', '"choices":[]', "data: [DONE]", "\n\n", "\r\n", "\\", '"']
TEXT = st.lists(st.sampled_from([*WORDS, "usage", "error", "weir", "\u00fc", "\u2028", "\U0001f30a", "{", "}"])).map(
    "".join
)
COUNT = st.integers(1, 9999)


def chunk(delta: dict[str, str], finish: str | None, usage: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": usage}


def tokens(prompt: int, output: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


KINDS = st.one_of(
    st.builds(lambda text: chunk({"content": text}, None, None), TEXT),
    st.builds(lambda text, a, b: chunk({"content": text}, None, tokens(a, b)), TEXT, COUNT, COUNT),
    st.builds(lambda finish: chunk({}, finish, None), st.sampled_from(["stop", "length", "tool_calls"])),
    st.builds(lambda a, b: {"id": "c", "choices": [], "usage": tokens(a, b)}, COUNT, COUNT),
    st.builds(lambda text: {"choices": [], "x-vendor": text}, TEXT),
    st.builds(lambda text: {"error": {"message": text, "code": None}}, TEXT),
)


@st.composite
def written_event(draw: st.DrawFn) -> tuple[bytes, bool]:
    """The bytes of one event or comment, and whether it is a usage chunk."""
    end = draw(st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"]))
    if draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from([b": ping", b":", b"retry: 9", b"event: x", b"data:"])) + end + end, False
    said = draw(KINDS)
    text = json.dumps(said, separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")])))
    data = draw(st.sampled_from([b"data: ", b"data:", b"id: 1" + end + b"data: "])) + text.encode() + end + end
    return data, said["choices"] == [] and "usage" in said if "choices" in said else False


@ANYHOW
@given(
    st.lists(written_event(), max_size=8),
    st.sampled_from([b"", BOM + b": x\n\n"]),
    st.sampled_from([b"", b"data: [DONE]\n\n"]),
    st.lists(st.floats(0, 1), max_size=6),
    st.booleans(),
)
def test_any_stream_cut_anyhow(events, start, end, where, strip):
    body = start + b"".join(data for data, _ in events) + end
    out = start + b"".join(data for data, pure in events if not (strip and pure)) + end
    ends = sorted({0, len(body), *(int(share * len(body)) for share in where)})
    pieces = [body[a:b] for a, b in pairwise(ends)]
    assert scan(pieces, strip=strip) == read_slowly(body)._replace(out=out)


# -- an upstream that dies ---------------------------------------------------------------------------------------------


@BOTH
@EVERY_SMALL
def test_cut_off_anywhere_nothing_is_missing(stream, strip):
    """What is whole of the usage chunk goes; what was begun of it may go or stay; all else has been passed on."""
    body, pure = stream.body, stream.usage_chunk if strip else None
    start = body.index(pure) if pure else len(body)
    end = start + len(pure or b"")
    said = body.rindex(b"[DONE]") + len(b"[DONE]") if stream.finished else len(body) + 1
    for at in range(0, len(body), max(1, len(body) // 150)):
        seen = scan([body[:at]], strip=strip)
        allowed = {body[: min(at, start)] + body[end:at]} | ({body[:at]} if at < end else set())
        assert seen.out in allowed, f"cut off at {at}"
        assert seen.finished == (at >= said), f"cut off at {at}"


@BOTH
def test_flush_says_nothing_twice(strip):
    scanner = EventScanner(strip_usage=strip)
    passed = scanner.feed(b'data: {"choices"')
    assert passed + scanner.flush() == b'data: {"choices"'
    assert scanner.flush() == b""


# -- where a comment may be written ------------------------------------------------------------------------------------


@BOTH
@EVERY_SMALL
def test_comment_at_a_boundary_changes_no_event(stream, strip):
    body, whole = stream.body, stream.stripped if strip else stream.body
    for at in range(1, len(body)):
        scanner = EventScanner(strip_usage=strip)
        out = scanner.feed(body[:at])
        if scanner.at_boundary:
            assert events_of(out + PING + whole[len(out) :]) == events_of(whole), f"boundary at {at}"


@BOTH
@EVERY_SMALL
def test_boundary_after_each_event(stream, strip):
    body = stream.body
    scanner = EventScanner(strip_usage=strip)
    assert scanner.at_boundary, "before the first byte"
    for end in (b"\n\n", b"\r\n\r\n"):
        for event in body.split(end)[:-1]:
            if b"\n\n" in event or b"\r\n\r\n" in event or not event:
                break  # mixed line ends
            scanner.feed(event)
            assert not scanner.at_boundary
            scanner.feed(end)
            assert scanner.at_boundary, event


# -- what is taken out -------------------------------------------------------------------------------------------------

STAYS = {
    "usage-beside-choices": b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"total_tokens":3}}',
    "no-choices-no-usage": b'data: {"choices":[],"prompt_filter_results":[]}',
    "no-choices-usage-null": b'data: {"choices":[],"usage":null}',
    "usage-without-choices": b'data: {"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}',
    "choices-null": b'data: {"choices":null,"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}',
    "nested": b'data: {"x":{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}}',
    "in-a-string": rb'data: {"choices":[{"delta":{"content":"\"choices\":[],\"usage\":{}"},"finish_reason":null}]}',
    "in-a-comment": b': {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}',
    "in-another-field": b'x: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}',
    "error-with-usage": b'data: {"error":{"message":"no"},"choices":[],"usage":{"prompt_tokens":1,"total_tokens":1}}',
    "not-json": b'data: {"choices":[],"usage":{"prompt_tokens":1,}}',
    "not-an-object": b'data: [{"choices":[],"usage":{"prompt_tokens":1}}]',
}

GOES = {
    "as-openai": b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}',
    "spaces": b'data: { "usage" : { "prompt_tokens" : 1 , "completion_tokens" : 2 } , "choices" : [ ] }',
    "two-lines": b'data: {"choices":[],\ndata: "usage":\ndata:{"prompt_tokens":1,"completion_tokens":2}}',
    "with-fields": b'event: message\nid: 7\ndata: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
    "with-timings": b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2},"timings":{"n":[1]}}',
    "lookalike-beside": rb'data: {"id":"\"}","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
}

BEFORE = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("event", STAYS.values(), ids=STAYS)
def test_stays(event, end):
    body = BEFORE + event + end + BEFORE
    assert scan([body], strip=True).out == body
    assert scan([BEFORE, event + end, BEFORE], strip=True).out == body
    assert scan(in_pieces_of(1, body), strip=True).out == body


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("event", GOES.values(), ids=GOES)
def test_goes(event, end):
    body, wanted = BEFORE + event + end + BEFORE, BEFORE + BEFORE
    for pieces in ([body], [BEFORE, event + end, BEFORE], list(in_pieces_of(1, body))):
        seen = scan(pieces, strip=True)
        assert (seen.out, seen.usage, seen.events) == (wanted, (1, 2, 0, 0), 2)


@pytest.mark.parametrize("usage", [b"{}", b'{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'])
def test_usage_of_nothing_goes_too(usage):
    body = BEFORE + b'data: {"choices":[],"usage":' + usage + b"}\n\n"
    assert scan([body], strip=True)[:2] == (BEFORE, None)


def test_usage_chunk_is_held_only_until_it_is_known():
    scanner = EventScanner(strip_usage=True)
    event = GOES["as-openai"] + b"\n\n"
    assert scanner.feed(BEFORE + event[:30]) == BEFORE
    assert scanner.feed(event[30:] + b"data: [DONE]\n\n") == b"data: [DONE]\n\n"
    assert scanner.usage == Usage(1, 2)
    assert (scanner.finished, scanner.failed, scanner.events) == (True, False, 1)


# -- what is read while it flows ---------------------------------------------------------------------------------------


def test_counts_as_it_flows():
    """Usage may never come, so what was relayed until now must be known at any moment."""
    scanner = EventScanner()
    known = []
    for data in (
        b'{"choices":[{"delta":{"content":"a"},"finish_reason":null}]}',
        b'{"choices":[{"delta":{"content":"b"},"finish_reason":"length"}],"usage":{"prompt_tokens":4,"completion_tokens":1}}',
        b'{"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":2}}',
        b"[DONE]",
    ):
        scanner.feed(b"data: " + data + b"\n\n")
        known.append((scanner.events, scanner.finish_reason, scanner.usage, scanner.finished))
    assert known == [
        (1, None, None, False),
        (2, "length", Usage(4, 1), False),
        (2, "length", Usage(4, 2), False),
        (2, "length", Usage(4, 2), True),
    ]


USAGES = [
    # usage object, as ours
    ('{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}', Usage(3, 4)),
    ('{"total_tokens":7,"completion_tokens":4,"prompt_tokens":3}', Usage(3, 4)),
    ('{"prompt_tokens":3,"completion_tokens":0,"total_tokens":3}', Usage(3, 0)),
    ('{"prompt_tokens":3,"completion_tokens":4,"prompt_tokens_details":null}', Usage(3, 4)),
    ('{"prompt_tokens":3,"completion_tokens":4,"completion_tokens_details":{"reasoning_tokens":null}}', Usage(3, 4)),
    ('{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens":4}', Usage(3, 4, 2)),
    ('{"completion_tokens":4,"completion_tokens_details":{"reasoning_tokens":1},"prompt_tokens":3}', Usage(3, 4, 0, 1)),
    ('{"prompt_tokens":3,"completion_tokens":null,"total_tokens":3}', Usage(3, 0)),
    ('{"prompt_tokens":3,"completion_tokens":4,"vendor":{"deep":[{"er":{}}],"text":"}"}}', Usage(3, 4)),
]


@pytest.mark.parametrize(("said", "usage"), USAGES, ids=[said for said, _ in USAGES])
@pytest.mark.parametrize("choices", ["[]", '[{"delta":{},"finish_reason":"stop"}]'], ids=["alone", "beside-choices"])
def test_usage_as_servers_write_it(said, usage, choices):
    body = f'data: {{"choices":{choices},"usage":{said}}}\n\n'.encode()
    assert scan([BEFORE, body], strip=False).usage == usage


def test_no_word_but_of_a_closed_list():
    scanner = EventScanner()
    for word in (b"stop", b"canary_secret_word"):
        scanner.feed(b'data: {"choices":[{"delta":{},"finish_reason":"%b"}]}\n\n' % word)
    assert scanner.finish_reason == "stop"


# What may stand between the beginning of an event and its end, both as in the one before. Some of it is no word.
NEXT = '"},"logprobs":null,"finish_reason":%s},{"index":1,"delta":{"content":"'
USED = '"},"finish_reason":null}],"usage":{"prompt_tokens":7,"completion_tokens":%d,"total_tokens":9},"x":[{"y":{"content":"'
BETWEEN = st.one_of(
    st.text(alphabet="ab {}[]:,é🧀", max_size=6),
    st.sampled_from(
        ['\\"', "\\\\", '\\"usage\\"', "\\n", "[DONE]", "a" + NEXT % '"stop"' + "b", "a" + NEXT % "null" + "b"]
    ),
    st.integers(1, 2).map(lambda output: "a" + USED % output + "b"),
    st.just('a"},"finish_reason":null}]}\n\ndata: {"choices":[{"index":0,"delta":{"content":"b'),
)


@ANYHOW
@given(st.lists(st.tuples(BETWEEN, st.integers(0, 5)), min_size=1, max_size=40), st.booleans())
def test_events_that_begin_and_end_alike(between, strip):
    """Each by itself, as an engine sends them: what the one before was like changes nothing of what is read."""
    usual = 'data: {"choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]%s}\n\n'
    events = [(usual % (word, ',"of":2' if kind == 5 else "")).encode() for word, kind in between]
    events.append(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n')
    events.append(b"data: [DONE]\n\n")
    assert scan(events, strip=strip) == read_slowly(b"".join(events))


def test_content_that_is_broken_off_inside_of_a_word_hides_nothing():
    """A word that ends in a backslash, so that its closing mark is none: it is counted and read like any other."""
    usual = b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
    scanner = EventScanner(strip_usage=True)
    for word in (b"a", b"b", b"c\\", b"d"):
        assert scanner.feed(usual % word) == usual % word
    last = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":4,"total_tokens":5}}\n\n'
    assert scanner.feed(last) == b""
    assert scanner.usage is not None
    assert scanner.events == 4


def test_an_end_in_the_middle_of_what_looks_usual_is_seen():
    usual = b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
    scanner = EventScanner()
    for word in (b"a", b"b", b"c"):
        scanner.feed(usual % word)
    assert not scanner.finished
    scanner.feed(usual % b"d\n\ndata: [DONE]\n\ne")
    assert scanner.finished
