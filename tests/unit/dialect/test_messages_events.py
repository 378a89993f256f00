"""Plays: what a server of chat completions streams, and what a Messages client sees of it, wherever it is cut."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import orjson
import pytest

from tests.fakes.streams import STREAMS
from weir.core.errors import UpstreamFailed
from weir.core.sse import EVENT_MAX, EventReader
from weir.dialect.messages.as_chat import MessagesAsChat

TRANSLATION = MessagesAsChat(b'{"model":"m","stream":true,"messages":[]}')
DONE = b"data: [DONE]\n\n"
FAILED = {"type": "error", "error": {"type": "api_error", "message": UpstreamFailed.message}}


def read(pieces: Iterable[bytes]) -> bytes:
    events = TRANSLATION.events()
    return b"".join([*(events.feed(piece) for piece in pieces), events.flush()])


def told(stream: bytes) -> list[Any]:
    """The events' data; each event is named as its data says."""
    reader = EventReader()
    events = list(reader.feed(stream))
    assert reader.flush() is None
    read = [orjson.loads(event.data) for event in events]
    assert [event.name.decode() for event in events] == [said["type"] for said in read]
    return read


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    said = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}
    return b"data: " + orjson.dumps(said) + b"\n\n"


def call(index: int | None, call_id: str | None = None, name: str | None = None, arguments: Any = None) -> bytes:
    told = {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}
    return chunk({"tool_calls": [{key: value for key, value in told.items() if value is not None}]})


USAGE = chunk(
    choices=[], usage={"prompt_tokens": 25, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 5}}
)
USED = {"input_tokens": 20, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 5, "output_tokens": 7}
UNUSED = dict.fromkeys(USED, 0)


def short(event: dict[str, Any]) -> Any:
    """An event in a word or two, so that a play fits into its row."""
    kind = event["type"]
    if kind == "content_block_start":
        block = event["content_block"]
        return event["index"], block["type"], *([block["id"], block["name"]] if block["type"] == "tool_use" else [])
    if kind == "content_block_delta":
        return event["index"], event["delta"][
            {"text_delta": "text", "thinking_delta": "thinking"}.get(event["delta"]["type"], "partial_json")
        ]
    if kind == "content_block_stop":
        return event["index"], "."
    if kind == "message_delta":
        return event["delta"]["stop_reason"]
    return kind


START = "message_start"
END = "message_stop"
TEXT = [START, (0, "text"), (0, "Hi"), (0, " there"), (0, "."), "end_turn", END]

PLAYS = [
    # name                  the server says                                                              the client sees
    ("text", [chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi"}), chunk({"content": " there"}), chunk({}, "stop"), USAGE, DONE], TEXT),
    ("usage-with-the-finish", [chunk({"content": "Hi"}), chunk({"content": " there"}, "stop", usage={"prompt_tokens": 25}), DONE], TEXT),
    ("no-usage", [chunk({"content": "Hi"}), chunk({"content": " there"}), chunk({}, "stop"), DONE], TEXT),
    ("comments-and-pings", [b": ping\n\n", chunk({"content": "Hi"}), b": ping\n\ndata:\n\n", chunk({"content": " there"}, "stop"), DONE], TEXT),
    ("no-choices", [chunk(choices=[]), chunk({"content": "Hi"}), chunk(choices=None), chunk({"content": " there"}, "stop"), DONE], TEXT),
    ("no-finish", [chunk({"content": "Hi"}), chunk({"content": " there"}), DONE], TEXT),
    ("terminator-without-its-blank-line", [chunk({"content": "Hi"}), chunk({"content": " there"}, "stop"), b"data: [DONE]"], TEXT),
    ("nothing-said", [chunk({}, "stop"), DONE], [START, "end_turn", END]),
    ("nothing-but-the-end", [DONE], ["error"]),
    ("nothing-but-the-end-and-no-blank-line", [b"data: [DONE]"], ["error"]),
    ("nothing-but-usage", [USAGE, DONE], ["error"]),
    ("after-the-end", [chunk({}, "stop"), DONE, chunk({"content": "Hi"}), DONE], [START, "end_turn", END]),
    ("given-up", [chunk({"content": "Hi"}), chunk({}, "abort"), DONE], [START, (0, "text"), (0, "Hi"), "error"]),
    ("given-up-in-a-call", [call(0, "a", "f", '{"x"'), chunk({}, "error"), DONE], [START, (0, "tool_use", "a", "f"), (0, '{"x"'), "error"]),
    ("cut-off-by-length", [chunk({"content": "Hi"}, "length"), DONE], [START, (0, "text"), (0, "Hi"), (0, "."), "max_tokens", END]),
    ("filtered", [chunk({}, "content_filter"), DONE], [START, "refusal", END]),
    ("refusal", [chunk({"refusal": "No"}), chunk({"refusal": "."}, "stop"), DONE], [START, (0, "text"), (0, "No"), (0, "."), (0, "."), "refusal", END]),
    ("thinking", [chunk({"reasoning_content": "H"}), chunk({"reasoning": "m"}), chunk({"content": "Hi"}, "stop"), DONE], [START, (0, "thinking"), (0, "H"), (0, "m"), (0, "."), (1, "text"), (1, "Hi"), (1, "."), "end_turn", END]),
    ("both-in-one-chunk", [chunk({"reasoning_content": "H", "content": "Hi"}, "stop"), DONE], [START, (0, "thinking"), (0, "H"), (0, "."), (1, "text"), (1, "Hi"), (1, "."), "end_turn", END]),
    ("one-call", [chunk({"content": "Hi"}), call(0, "a", "f", ""), call(0, arguments='{"x"'), call(0, arguments=":1}"), chunk({}, "tool_calls"), DONE], [START, (0, "text"), (0, "Hi"), (0, "."), (1, "tool_use", "a", "f"), (1, '{"x"'), (1, ":1}"), (1, "."), "tool_use", END]),
    ("one-call-that-ends-with-stop", [call(0, "a", "f", "{}"), chunk({}, "stop"), DONE], [START, (0, "tool_use", "a", "f"), (0, "{}"), (0, "."), "tool_use", END]),
    ("call-without-arguments", [call(0, "a", "f"), chunk({}, "tool_calls"), DONE], [START, (0, "tool_use", "a", "f"), (0, "."), "tool_use", END]),
    ("arguments-as-an-object", [call(0, "a", "f", {"x": 1}), chunk({}, "tool_calls"), DONE], [START, (0, "tool_use", "a", "f"), (0, '{"x":1}'), (0, "."), "tool_use", END]),
    ("calls-one-after-the-other", [call(0, "a", "f", "{}"), call(1, "b", "g", '{"x'), call(1, arguments='":1}'), chunk({}, "tool_calls"), DONE], [START, (0, "tool_use", "a", "f"), (0, "{}"), (0, "."), (1, "tool_use", "b", "g"), (1, '{"x'), (1, '":1}'), (1, "."), "tool_use", END]),
    ("calls-interleaved", [call(0, "a", "f", "{"), call(1, "b", "g", "{"), call(0, arguments='"x":1'), call(1, arguments='"y":2'), call(0, arguments="}"), call(1, arguments="}"), chunk({}, "tool_calls"), DONE], [START, (0, "tool_use", "a", "f"), (0, "{"), (0, '"x":1'), (0, "}"), (0, "."), (1, "tool_use", "b", "g"), (1, '{"y":2}'), (1, "."), "tool_use", END]),
    ("three-interleaved", [call(0, "a", "f", "{"), call(1, "b", "g", "{"), call(2, "c", "h", "{"), call(1, arguments="}"), call(2, arguments="}"), call(0, arguments="}"), chunk({}, "tool_calls"), DONE], [START, (0, "tool_use", "a", "f"), (0, "{"), (0, "}"), (0, "."), (1, "tool_use", "b", "g"), (1, "{}"), (1, "."), (2, "tool_use", "c", "h"), (2, "{}"), (2, "."), "tool_use", END]),
    ("calls-in-one-chunk", [chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}, {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]}, "tool_calls"), DONE], [START, (0, "tool_use", "a", "f"), (0, "{}"), (0, "."), (1, "tool_use", "b", "g"), (1, "{}"), (1, "."), "tool_use", END]),
    ("calls-without-an-index", [call(None, "a", "f", "{}"), call(None, "b", "g", "{"), call(None, arguments="}"), chunk({}, "tool_calls"), DONE], [START, (0, "tool_use", "a", "f"), (0, "{}"), (0, "."), (1, "tool_use", "b", "g"), (1, "{"), (1, "}"), (1, "."), "tool_use", END]),
    ("calls-of-one-index", [call(0, "a", "f", "{}"), call(0, "b", "g", "{}"), chunk({}, "tool_calls"), DONE], [START, (0, "tool_use", "a", "f"), (0, "{}"), (0, "."), (1, "tool_use", "b", "g"), (1, "{}"), (1, "."), "tool_use", END]),
    ("id-told-again", [call(0, "a", "f", "{"), call(0, "a", "f", "}"), chunk({}, "tool_calls"), DONE], [START, (0, "tool_use", "a", "f"), (0, "{"), (0, "}"), (0, "."), "tool_use", END]),
    ("name-told-late", [call(0, "a"), call(0, arguments="{"), call(0, name="f", arguments="}"), chunk({}, "tool_calls"), DONE], [START, (0, "tool_use", "a", "f"), (0, "{}"), (0, "."), "tool_use", END]),
    ("text-within-a-call-waits", [call(0, "a", "f", "{"), chunk({"content": "Hi"}), call(0, arguments="}"), chunk({"content": "!"}), chunk({}, "tool_calls"), DONE], [START, (0, "tool_use", "a", "f"), (0, "{"), (0, "}"), (0, "."), (1, "text"), (1, "Hi!"), (1, "."), "tool_use", END]),
    ("text-after-a-call-does-not", [call(0, "a", "f", "{}"), chunk({"content": "Hi"}), call(0, arguments="\n"), chunk({"content": "!"}), chunk({}, "tool_calls"), DONE], [START, (0, "tool_use", "a", "f"), (0, "{}"), (0, "."), (1, "text"), (1, "Hi"), (1, "!"), (1, "."), "tool_use", END]),
    ("calls-cut-off-by-length", [call(0, "a", "f", "{"), call(1, "b", "g", "{"), chunk({}, "length"), DONE], [START, (0, "tool_use", "a", "f"), (0, "{"), (0, "."), (1, "tool_use", "b", "g"), (1, "{"), (1, "."), "max_tokens", END]),
    ("breaks-off", [chunk({"content": "Hi"}), chunk({"content": " there"})[:-9]], [START, (0, "text"), (0, "Hi")]),
    ("breaks-off-in-a-call", [call(0, "a", "f", "{"), call(1, "b", "g", "{}")], [START, (0, "tool_use", "a", "f"), (0, "{")]),
    ("breaks-off-in-the-terminator", [chunk({"content": "Hi"}), b"data: [DO"], [START, (0, "text"), (0, "Hi")]),
    ("breaks-off-before-the-terminator", [chunk({"content": "Hi"}, "stop"), USAGE], [START, (0, "text"), (0, "Hi"), (0, ".")]),
    ("error", [chunk({"content": "Hi"}), b'data: {"error": {"message": "CUDA", "type": "x", "code": 500}}\n\n', DONE], [START, (0, "text"), (0, "Hi"), "error"]),
    ("error-at-once", [b'data: {"error": {"message": "CUDA"}}\n\n', DONE], ["error"]),
    ("no-json", [chunk({"content": "Hi"}), b"data: <html>\n\n", DONE], [START, (0, "text"), (0, "Hi"), "error"]),
    ("no-object", [b"data: [1]\n\n", DONE], ["error"]),
    ("no-text", [chunk({"content": [1]}), DONE], [START, "error"]),
]  # fmt: skip
EVERY = pytest.mark.parametrize(("pieces", "seen"), [row[1:] for row in PLAYS], ids=[row[0] for row in PLAYS])


@EVERY
def test_plays(pieces, seen):
    assert [short(event) for event in told(read(pieces))] == seen


@EVERY
def test_cut_at_every_position(pieces, seen):
    stream, whole = b"".join(pieces), read(pieces)
    for at in range(len(stream) + 1):
        assert read([stream[:at], stream[at:]]) == whole, at
    assert read(stream[n : n + 1] for n in range(len(stream))) == whole
    assert read([stream.replace(b"\n", b"\r\n")]) == whole


@EVERY
def test_what_goes_out_is_in_its_order(pieces, seen):
    """One block at a time, numbered from 0; nothing after the end or an error."""
    events = told(read(pieces))
    open_, number = None, -1
    for event in events:
        kind = event["type"]
        if kind == "content_block_start":
            assert open_ is None
            assert event["index"] == number + 1
            open_ = number = event["index"]
        elif kind.startswith("content_block"):
            assert event["index"] == open_
            open_ = open_ if kind == "content_block_delta" else None
        elif kind == "message_delta":
            assert open_ is None
    kinds = [event["type"] for event in events]
    assert kinds.count("message_start") <= 1
    assert not {"message_stop", "error"} & set(kinds[:-1])


@pytest.mark.parametrize("stream", STREAMS, ids=attrgetter("name"))
def test_what_engines_say_ends_as_they_end_it(stream):
    """The corpus has streams of other operations too, which hold no message; but none may be ended that did not end,
    and of nothing but an end comes no message.
    """
    out = read([stream.body])
    says = stream.body != DONE
    assert (b"event: message_stop" in out) == (stream.finished and not stream.error and says)
    for at in range(0, len(stream.body), max(1, len(stream.body) // 50)):
        assert read([stream.body[:at], stream.body[at:]]) == out, at


def test_usage_stands_at_the_end_whole():
    events = told(read([chunk({"content": "Hi"}, "stop"), USAGE, DONE]))
    assert events[0]["message"] == {
        "id": "c-1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": UNUSED,
    }
    assert events[-2]["usage"] == USED


def test_a_stop_sequence_is_told_where_the_server_tells_it():
    said = {"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}
    assert told(read([chunk(choices=[said]), DONE]))[-2]["delta"] == {
        "stop_reason": "stop_sequence",
        "stop_sequence": "END",
    }


def test_the_prompt_s_tokens_are_known_once_the_server_has_told_them():
    events = TRANSLATION.events()
    events.feed(chunk({"content": "Hi"}))
    assert events.prompt_tokens == 0
    events.feed(USAGE)
    assert events.prompt_tokens == 25


def test_each_delta_goes_out_at_once():
    events = TRANSLATION.events()
    assert b'"text":"Hi"' in events.feed(chunk({"content": "Hi"}))
    assert b'"text":"there"' in events.feed(chunk({"content": "there"}))
    assert b'"thinking":"Hm"' in events.feed(chunk({"reasoning": "Hm"}))
    assert b'"partial_json":"{"' in events.feed(call(0, "a", "f", "{"))


ERRORS = [
    ("vllm", {"error": {"message": "No.", "type": "BadRequestError", "param": None, "code": 400}}, "invalid_request_error", "No."),
    ("vllm-once", {"object": "error", "message": "No.", "type": "InternalServerError", "code": 500}, "api_error", "No."),
    ("openai", {"error": {"message": "No.", "type": "server_error", "code": None}}, "api_error", "No."),
    ("tgi", {"error": "No.", "error_type": "overloaded"}, "api_error", "No."),
    ("overloaded", {"error": {"message": "No.", "code": 503}}, "overloaded_error", "No."),
]  # fmt: skip


@pytest.mark.parametrize(("said", "kind", "words"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS])
def test_errors(said, kind, words):
    out = read([b"data: " + orjson.dumps(said) + b"\n\n", DONE])
    assert told(out) == [{"type": "error", "error": {"type": kind, "message": words}}]


def test_an_event_without_an_end_is_no_answer():
    events = TRANSLATION.events()
    assert told(events.feed(b"data: " + b"a" * EVENT_MAX)) == [FAILED]
    assert events.feed(b"a" + DONE) == b""


def test_halves_of_a_pair_pass_as_they_came():
    out = read(
        [
            b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n',
            b'data: {"choices":[{"delta":{"content":"\\ude00"}}]}\n\n',
        ]
    )
    assert b'"text": "\\ud83d"' in out
    assert b'"text": "\\ude00"' in out


def test_the_message_has_the_id_of_the_first_chunk_that_says_something():
    out = read([chunk(choices=[], id="", prompt_filter_results=[]), chunk({"content": "Hi"}, "stop"), DONE])
    assert told(out)[0]["message"]["id"] == "c-1"


def test_ids_that_are_missing_are_made():
    events = told(
        read([b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}\n\n', DONE])
    )
    assert events[0]["message"]["id"].startswith("msg_")
    assert events[1]["content_block"]["id"].startswith("toolu_")
