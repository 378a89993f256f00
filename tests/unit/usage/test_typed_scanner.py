"""TypedEventScanner: what every dialect's stream says of its usage and its end, wherever the network cuts it.

Each stream is written as its API documents it, and again as engines and proxies write it: without `event:` lines, with
spaces, with CRLF, with a byte order mark, with `[DONE]` behind it. No form and no cut may change what is read.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weir.core.errors import ClientGone, UpstreamFailed
from weir.core.types import TokensFrom, Usage
from weir.usage import EventScanner, Meter, TypedEventScanner, scanner_for

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"
PNG = "iVBORw0KGgo" * 400
LOOKALIKE = 'event: error\n\ndata: {"type":"message_stop"} "usage":{"input_tokens":999,"output_tokens":999}'


class Read(NamedTuple):
    """What the scanner knows when all is over."""

    usage: Usage | None
    finished: bool
    failed: bool
    finish_reason: str | None
    events: int
    complete: bool


class Play(NamedTuple):
    events: list[Json]
    read: Read


def whole(usage: Usage | None, reason: str | None, events: int) -> Read:
    return Read(usage, True, False, reason, events, True)


def cut(usage: Usage | None, events: int, reason: str | None = None) -> Read:
    return Read(usage, False, False, reason, events, False)


def failure(usage: Usage | None, events: int, reason: str | None = None) -> Read:
    return Read(usage, False, True, reason, events, True)


# -- Messages ----------------------------------------------------------------------------------------------------------


def message_start(**usage: Any) -> Json:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "stop_reason": None}
    return {"type": "message_start", "message": {**message, "usage": usage}}


def block(index: int, *deltas: Json) -> list[Json]:
    start = {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
    inside = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [start, *inside, {"type": "content_block_stop", "index": index}]


def said(text: str) -> Json:
    return {"type": "text_delta", "text": text}


def message_delta(reason: str | None = "end_turn", **usage: Any) -> Json:
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}


STOP, PING = {"type": "message_stop"}, {"type": "ping"}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
HELLO = block(0, said("Hel"), said("lo"))
CACHED = {"input_tokens": 4, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 6, "output_tokens": 1}

# -- Responses ---------------------------------------------------------------------------------------------------------


def response(kind: str, usage: Json | None = None, **more: Any) -> Json:
    status = {"created": "in_progress"}.get(kind, kind)
    head = {"id": "resp_1", "object": "response", "status": status, "error": None, "incomplete_details": None}
    return {
        "type": f"response.{kind}",
        "sequence_number": 1,
        "response": {**head, "output": [], "usage": usage, **more},
    }


def wrote(text: str, kind: str = "output_text") -> Json:
    return {"type": f"response.{kind}.delta", "sequence_number": 2, "item_id": "m", "output_index": 0, "delta": text}


USED = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 16},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 8},
    "total_tokens": 42,
}
BEGUN = response("created")
ITEM = {"type": "response.output_item.done", "item": {"type": "message", "content": [{"text": "Hello.delta"}]}}

# -- sound and images --------------------------------------------------------------------------------------------------

TRANSCRIBED = {"type": "transcript.text.done", "text": "Hello"}
PART = {"type": "image_generation.partial_image", "b64_json": PNG, "partial_image_index": 0}
PICTURE = {"type": "image_generation.completed", "b64_json": PNG}
SOUND = {"type": "speech.audio.delta", "audio": PNG}

PLAYS = {
    "messages": Play(
        [message_start(input_tokens=25, output_tokens=1), PING, *HELLO, message_delta(output_tokens=15), STOP],
        whole(Usage(25, 15), "end_turn", 2),
    ),
    "messages-cached": Play(
        [message_start(**CACHED), *HELLO, message_delta("max_tokens", output_tokens=9), STOP],
        whole(Usage(40, 9, 30), "max_tokens", 2),
    ),
    "messages-input-again": Play(  # the later wins; what it leaves out, or has as null, stays
        [
            message_start(**CACHED),
            *HELLO,
            message_delta(input_tokens=7, cache_read_input_tokens=None, output_tokens=9),
            STOP,
        ],
        whole(Usage(43, 9, 30), "end_turn", 2),
    ),
    "messages-input-late": Play(
        [message_start(input_tokens=0, output_tokens=0), *HELLO, message_delta(input_tokens=11, output_tokens=3), STOP],
        whole(Usage(11, 3), "end_turn", 2),
    ),
    "messages-thinking-and-tool": Play(
        [
            message_start(input_tokens=25, output_tokens=1),
            *block(0, {"type": "thinking_delta", "thinking": "Hm"}, {"type": "signature_delta", "signature": "c2ln"}),
            *block(
                1,
                {"type": "input_json_delta", "partial_json": '{"a":'},
                {"type": "input_json_delta", "partial_json": "1}"},
            ),
            message_delta("tool_use", output_tokens=20, output_tokens_details={"thinking_tokens": 5}),
            STOP,
        ],
        whole(Usage(25, 20, 0, 5), "tool_use", 4),
    ),
    "messages-twice-cumulative": Play(
        [
            message_start(input_tokens=5, output_tokens=1),
            message_delta(None, output_tokens=4),
            message_delta(output_tokens=6),
            STOP,
        ],
        whole(Usage(5, 6), "end_turn", 0),
    ),
    "messages-lookalike": Play(
        [
            message_start(input_tokens=5, output_tokens=1),
            *block(0, said(LOOKALIKE)),
            message_delta(output_tokens=6),
            STOP,
        ],
        whole(Usage(5, 6), "end_turn", 1),
    ),
    "messages-no-usage": Play([{"type": "message_start", "message": {}}, *HELLO, STOP], whole(None, None, 2)),
    "messages-vendor-reason": Play(
        [message_delta("caller's own words", output_tokens=6), STOP], whole(Usage(0, 6), None, 0)
    ),
    "messages-cut": Play([message_start(input_tokens=25, output_tokens=1), *HELLO], cut(Usage(25, 2), 2)),
    "messages-cut-after-start": Play([message_start(input_tokens=25, output_tokens=1)], cut(Usage(25, 1), 0)),
    "messages-error": Play(
        [message_start(input_tokens=25, output_tokens=1), *HELLO, OVERLOADED], failure(Usage(25, 2), 2)
    ),
    "messages-error-at-once": Play([message_start(input_tokens=25, output_tokens=1), OVERLOADED], failure(None, 0)),
    "responses": Play(
        [BEGUN, wrote("Hel"), wrote("lo"), ITEM, response("completed", USED)],
        whole(Usage(30, 12, 16, 8), "completed", 2),
    ),
    "responses-incomplete": Play(
        [BEGUN, wrote("H"), response("incomplete", USED, incomplete_details={"reason": "max_output_tokens"})],
        whole(Usage(30, 12, 16, 8), "max_output_tokens", 1),
    ),
    "responses-failed": Play(
        [BEGUN, wrote("H"), response("failed", None, error={"code": "server_error", "message": "no"})],
        failure(None, 1, "failed"),
    ),
    "responses-error": Play([BEGUN, {"type": "error", "code": "x", "message": "no"}], failure(None, 0)),
    "responses-reasoning-and-tool": Play(
        [
            BEGUN,
            wrote("Hm", "reasoning_summary_text"),
            wrote("{}", "function_call_arguments"),
            response("completed", USED),
        ],
        whole(Usage(30, 12, 16, 8), "completed", 2),
    ),
    "responses-cut": Play([BEGUN, wrote("Hel"), ITEM], cut(None, 1)),
    "transcription": Play(
        [
            {"type": "transcript.text.delta", "delta": "Hello"},
            {**TRANSCRIBED, "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 5, "total_tokens": 19}},
        ],
        whole(Usage(14, 5), None, 1),
    ),
    "transcription-by-the-second": Play(
        [
            {"type": "transcript.text.delta", "delta": "Hello"},
            {**TRANSCRIBED, "usage": {"type": "duration", "seconds": 9}},
        ],
        whole(None, None, 1),
    ),
    "speech": Play(
        [SOUND, SOUND, {"type": "speech.audio.done", "usage": {"input_tokens": 14, "output_tokens": 101}}],
        whole(Usage(14, 101), None, 2),
    ),
    "images": Play(  # complete, and yet more may come: of several images each has its end
        [
            PART,
            {
                **PICTURE,
                "usage": {"input_tokens": 50, "output_tokens": 60, "input_tokens_details": {"text_tokens": 10}},
            },
        ],
        Read(Usage(50, 60), False, False, None, 1, True),
    ),
    "error-without-a-type": Play([BEGUN, wrote("H"), {"error": {"message": "no", "code": 500}}], failure(None, 1)),
    "error-null": Play(
        [BEGUN, {**wrote("H"), "error": None}, response("completed", USED)], whole(Usage(30, 12, 16, 8), "completed", 1)
    ),
    "unknown-types": Play([{"type": "x"}, {"a": 1}, {"type": 7}, STOP], whole(None, None, 0)),
}
EVERY = pytest.mark.parametrize("play", PLAYS.values(), ids=PLAYS)


def written(
    events: Iterable[Json], *, named: bool = True, spaces: bool = False, end: bytes = b"\n", last: bool = False
) -> bytes:
    """The bytes of a stream. `last` is pydantic's order of some engines: the type behind everything else."""
    out = b""
    for event in events:
        kind = str(event.get("type", "")).encode()
        behind = {**{k: v for k, v in event.items() if k != "type"}, "type": event["type"]} if last and kind else event
        text = json.dumps(behind, separators=(", ", ": ") if spaces else (",", ":"), ensure_ascii=False)
        out += (b"event: " + kind + end if named and kind else b"") + b"data: " + text.encode() + end + end
    return out


FORMS = {
    "as-documented": {},
    "no-event-lines": {"named": False},
    "spaces": {"spaces": True},
    "spaces-no-event-lines": {"spaces": True, "named": False},
    "type-last": {"last": True},
    "type-last-no-event-lines": {"last": True, "named": False},
    "crlf": {"end": b"\r\n"},
    "cr": {"end": b"\r"},
}


def scan(pieces: Iterable[bytes]) -> Read:
    scanner = TypedEventScanner()
    for piece in pieces:
        assert scanner.feed(piece) is piece, "the very same object goes out"
    assert scanner.flush() == b""
    return Read(
        scanner.usage,
        scanner.finished,
        scanner.failed,
        scanner.finish_reason,
        scanner.events,
        scanner.complete,
    )


def in_pieces_of(size: int, body: bytes) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


# -- every form, every cut ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@EVERY
def test_read_in_every_form(play, form):
    body = written(play.events, **form)
    for pieces in ([body], [written([event], **form) for event in play.events], in_pieces_of(1, body)):
        assert scan(pieces) == play.read


@pytest.mark.parametrize("form", ["as-documented", "no-event-lines", "crlf"])
@EVERY
def test_cut_in_two_anywhere(play, form):
    body = written(play.events, **FORMS[form])
    for at in range(0, len(body) + 1, 1 if len(body) < 3000 else 37):
        assert scan([body[:at], body[at:]]) == play.read, f"cut at {at}"


@EVERY
def test_with_a_byte_order_mark_comments_and_done(play):
    body = b"\xef\xbb\xbf: hello\n\n" + written(play.events).replace(b"\n\n", b"\n\n: ping\n\n") + DONE
    for pieces in ([body], in_pieces_of(1, body), in_pieces_of(11, body)):
        assert scan(pieces) == play.read._replace(finished=True, complete=True)


@EVERY
def test_last_event_without_its_blank_line(play):
    body = written(play.events).removesuffix(b"\n\n")
    assert scan([body]) == scan(in_pieces_of(1, body)) == play.read


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.sampled_from(sorted(PLAYS)), st.sampled_from(sorted(FORMS))), min_size=1, max_size=3),
    st.lists(st.floats(0, 1), max_size=8),
)
def test_whatever_follows_whatever_no_cut_matters(chosen, where):
    """Nobody sends such a stream; the scanner must not depend on where it is cut even then."""
    body = b"".join(written(PLAYS[name].events, **FORMS[form]) for name, form in chosen)
    ends = sorted({0, len(body), *(int(share * len(body)) for share in where)})
    assert scan(body[a:b] for a, b in pairwise(ends)) == scan([body])


def test_vllm_pieces_of_a_transcription():
    """vLLM streams a transcription in chunks like chat's, without a type, and ends it with [DONE]."""
    pieces = [{"object": "transcription.chunk", "choices": [{"delta": {"content": word}}]} for word in ("He", "llo")]
    used = {"object": "transcription.chunk", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
    assert scan([written([*pieces, used]) + DONE]) == whole(Usage(9, 2), None, 2)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("chat", EventScanner),
        ("text_completion", EventScanner),
        *((name, TypedEventScanner) for name in ("messages", "responses", "transcription", "speech", "image")),
    ],
)
def test_scanner_for(operation, kind):
    assert type(scanner_for(operation, strip_usage=True)) is kind


def test_only_chat_loses_its_usage_chunk():
    chunk = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
    assert scanner_for("chat", strip_usage=True).feed(chunk) == b""
    assert scanner_for("chat", strip_usage=False).feed(chunk) == chunk
    assert scanner_for("responses", strip_usage=True).feed(chunk) == chunk


# -- what is known while it flows --------------------------------------------------------------------------------------


@EVERY
def test_boundary_after_each_event_and_nowhere_else(play):
    scanner = TypedEventScanner()
    assert scanner.at_boundary
    for event in play.events:
        raw = written([event])
        scanner.feed(raw[:-1])
        assert (scanner.at_boundary, scanner.half_out) == (False, True)
        scanner.feed(raw[-1:])
        assert (scanner.at_boundary, scanner.half_out) == (True, False)


def test_half_an_event_stays_half_out():
    scanner = TypedEventScanner()
    scanner.feed(written([message_start(input_tokens=5, output_tokens=1)])[:-9])
    scanner.flush()
    assert scanner.half_out


TEXTS = [
    # events of which each says ten bytes, or none
    pytest.param(block(0, *[said("0123456789")] * 100)[1:-1], 1000, id="text"),
    pytest.param(block(0, *[{"type": "thinking_delta", "thinking": "0123456789"}] * 100)[1:-1], 1000, id="thinking"),
    pytest.param(block(0, *[{"type": "input_json_delta", "partial_json": "0123456789"}] * 100)[1:-1], 1000, id="input"),
    pytest.param([wrote("01234\u00fc\u4e00")] * 100, 1000, id="responses-in-utf-8"),
    pytest.param([wrote("0123456789", "function_call_arguments")] * 100, 1000, id="arguments"),
    pytest.param([{"type": "transcript.text.delta", "delta": "0123456789"}] * 100, 1000, id="transcription"),
    pytest.param([SOUND] * 100, 0, id="speech"),
    pytest.param([wrote(PNG, "audio")] * 100, 0, id="sound-in-responses"),
    pytest.param([PART] * 100, 0, id="images"),
]


@pytest.mark.parametrize("form", ["as-documented", "no-event-lines", "type-last", "crlf"])
@pytest.mark.parametrize(("events", "size"), TEXTS)
def test_text_is_estimated_from_samples(events, size, form):
    body = written(events, **FORMS[form])
    for pieces in ([body], [written([event], **FORMS[form]) for event in events]):
        scanner = TypedEventScanner()
        for piece in pieces:
            scanner.feed(piece)
        assert (scanner.events, scanner.content_bytes) == (100, size)


BEFORE = message_start(input_tokens=25, output_tokens=1)
ENDINGS: list[Any] = [
    # what passed, the ending, what it costs; the estimate of the prompt is 40
    pytest.param(
        [BEFORE, *HELLO, message_delta(output_tokens=15), STOP], None, (Usage(25, 15), "reported"), id="complete"
    ),
    pytest.param(
        [BEFORE, *HELLO, message_delta(output_tokens=15)],
        ClientGone(),
        (Usage(25, 15), "reported"),
        id="left-behind-the-report",
    ),
    pytest.param([BEFORE, *HELLO], ClientGone(), (Usage(25, 2), "reported"), id="left-early"),
    pytest.param(
        [BEFORE, *block(0, said("word " * 200))], ClientGone(), (Usage(25, 300), "reported"), id="left-early-much-text"
    ),
    pytest.param([BEFORE], ClientGone(), (Usage(25, 1), "reported"), id="left-at-once"),
    pytest.param([BEFORE, OVERLOADED], None, (None, "none"), id="failed-at-once"),
    pytest.param([BEFORE, *HELLO, OVERLOADED], None, (Usage(25, 2), "reported"), id="failed-later"),
    pytest.param([BEGUN, wrote("a"), wrote("b")], ClientGone(), (Usage(40, 2), "counted"), id="responses-left-early"),
    pytest.param([BEGUN], UpstreamFailed(), (None, "none"), id="responses-died-at-once"),
    pytest.param([BEGUN, wrote("a")], UpstreamFailed(), (Usage(40, 1), "counted"), id="responses-died"),
    pytest.param([BEGUN, response("failed")], None, (None, "none"), id="responses-failed-at-once"),
    pytest.param(
        [BEGUN, wrote("a"), response("failed", USED)],
        None,
        (Usage(30, 12, 16, 8), "reported"),
        id="responses-failed-and-said",
    ),
]


@pytest.mark.parametrize(("events", "ending", "costs"), ENDINGS)
def test_what_an_ending_costs(events, ending, costs: tuple[Usage | None, TokensFrom]):
    meter = Meter(40)
    meter.sent()
    meter.scanner = TypedEventScanner()
    meter.scanner.feed(written(events))
    assert meter.reading(ending) == costs
