"""Plays: what Claude streams, and what a client of chat completions sees of it, wherever it is cut."""

from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from openai.types.chat import ChatCompletionChunk

from weir.core.errors import UpstreamFailed
from weir.core.sse import EVENT_MAX, EventReader
from weir.dialect.chat.as_messages import ChatAsMessages
from weir.dialect.chat.events import ChatEvents
from weir.dialect.messages.as_chat import MessagesAsChat

PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def events() -> ChatEvents:
    return ChatEvents(created=1, tells_usage=True)


def read(pieces: Iterable[bytes]) -> bytes:
    reader = events()
    return b"".join([*(reader.feed(piece) for piece in pieces), reader.flush()])


def event(kind: str, **said: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind, **said}) + b"\n\n"


def begin(**usage: int | None) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    return event("message_start", message=message)


def start(index: int, **block: Any) -> bytes:
    return event("content_block_start", index=index, content_block=block)


def delta(index: int, kind: str, **said: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": kind, **said})


def stop(index: int) -> bytes:
    return event("content_block_stop", index=index)


def end(reason: str, details: Any = None, sequence: str | None = None, **usage: Any) -> bytes:
    said = {"stop_reason": reason, "stop_sequence": sequence, "stop_details": details}
    return event("message_delta", delta=said, usage=usage) + event("message_stop")


def text(index: int, *pieces: str) -> bytes:
    said = b"".join(delta(index, "text_delta", text=piece) for piece in pieces)
    return start(index, type="text", text="") + said + stop(index)


def call(index: int, call_id: str, name: str, *pieces: str) -> bytes:
    said = b"".join(delta(index, "input_json_delta", partial_json=piece) for piece in pieces)
    return start(index, type="tool_use", id=call_id, name=name, input={}) + said + stop(index)


def short(said: dict[str, Any]) -> Any:
    """A chunk in a word or two, so that a play fits into its row."""
    if "error" in said:
        return "error"
    if not said["choices"]:
        return said["usage"]["prompt_tokens"], said["usage"]["completion_tokens"]
    choice = said["choices"][0]
    if choice["finish_reason"]:
        return "." + choice["finish_reason"]
    told = choice["delta"]
    if "tool_calls" in told:
        (tool,) = told["tool_calls"]
        return tool["index"], tool.get("id"), tool["function"]["arguments"]
    return told.get("content") if "content" in told else "~" + told["reasoning_content"]


def told(stream: bytes) -> list[Any]:
    """The chunks, each as OpenAI's own client reads it; the terminator as it stands."""
    reader = EventReader()
    out: list[Any] = []
    for said in reader.feed(stream):
        if said.data == b"[DONE]":
            out.append("[DONE]")
            continue
        out.append(orjson.loads(said.data))
        if "error" not in out[-1]:
            ChatCompletionChunk.model_validate_json(said.data, strict=True)
    assert reader.flush() is None
    return out


DONE = "[DONE]"
THINKING = (
    start(0, type="thinking", thinking="", signature="")
    + delta(0, "thinking_delta", thinking="H")
    + delta(0, "thinking_delta", thinking="m")
    + delta(0, "signature_delta", signature="c2ln")
    + stop(0)
)
ERROR = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
BEGIN = begin(input_tokens=20, cache_read_input_tokens=5, cache_creation_input_tokens=0, output_tokens=1)

PLAYS = [
    # name                    Claude says                                                     the client sees
    ("text", BEGIN + PING + text(0, "Hi", " there") + end("end_turn", output_tokens=7), ["", "Hi", " there", ".stop", (25, 7), DONE]),
    ("usage-told-again-at-the-end", BEGIN + text(0, "Hi") + end("end_turn", input_tokens=21, cache_read_input_tokens=None, output_tokens=7), ["", "Hi", ".stop", (26, 7), DONE]),
    ("usage-never-told", begin() + text(0, "Hi") + end("end_turn"), ["", "Hi", ".stop", (0, 0), DONE]),
    ("thinking", BEGIN + THINKING + text(1, "Hi") + end("end_turn", output_tokens=7), ["", "~H", "~m", "Hi", ".stop", (25, 7), DONE]),
    ("sealed-thinking", BEGIN + start(0, type="redacted_thinking", data="s") + stop(0) + text(1, "Hi") + end("end_turn", output_tokens=7), ["", "Hi", ".stop", (25, 7), DONE]),
    ("text-within-its-start", BEGIN + start(0, type="text", text="Hi") + stop(0) + end("end_turn", output_tokens=7), ["", "Hi", ".stop", (25, 7), DONE]),
    ("citations", BEGIN + start(0, type="text", text="") + delta(0, "citations_delta", citation={}) + delta(0, "text_delta", text="Hi") + stop(0) + end("end_turn", output_tokens=7), ["", "Hi", ".stop", (25, 7), DONE]),
    ("call", BEGIN + call(0, "a", "f", "", '{"x"', ":1}") + end("tool_use", output_tokens=7), ["", (0, "a", ""), (0, None, '{"x"'), (0, None, ":1}"), ".tool_calls", (25, 7), DONE]),
    ("two-calls-after-a-text", BEGIN + text(0, "Hi") + call(1, "a", "f", "{}") + call(2, "b", "g", "{}") + end("tool_use", output_tokens=7), ["", "Hi", (0, "a", ""), (0, None, "{}"), (1, "b", ""), (1, None, "{}"), ".tool_calls", (25, 7), DONE]),
    ("input-within-its-start", BEGIN + start(0, type="tool_use", id="a", name="f", input={"x": 1}) + stop(0) + end("tool_use", output_tokens=7), ["", (0, "a", '{"x":1}'), ".tool_calls", (25, 7), DONE]),
    ("cut-off-by-length", BEGIN + text(0, "Hi") + end("max_tokens", output_tokens=7), ["", "Hi", ".length", (25, 7), DONE]),
    ("unknown-events", BEGIN + event("weather", sky="blue") + start(0, type="hologram") + delta(0, "hologram_delta") + stop(0) + end("end_turn", output_tokens=7), ["", ".stop", (25, 7), DONE]),
    ("end-without-its-blank-line", (BEGIN + text(0, "Hi") + end("end_turn", output_tokens=7))[:-1], ["", "Hi", ".stop", (25, 7), DONE]),
    ("breaks-off", BEGIN + text(0, "Hi", " there")[:-100], ["", "Hi"]),
    ("breaks-off-before-the-end", BEGIN + text(0, "Hi") + end("end_turn", output_tokens=7)[:-10], ["", "Hi", ".stop"]),
    ("error", BEGIN + text(0, "Hi") + ERROR + end("end_turn"), ["", "Hi", "error"]),
    ("error-at-once", ERROR, ["error"]),
    ("no-json", BEGIN + b"data: <html>\n\n" + end("end_turn"), ["", "error"]),
    ("no-object", b"data: [1]\n\n", ["error"]),
    ("no-delta", BEGIN + event("content_block_delta", index=0), ["", "error"]),
]  # fmt: skip
EVERY = pytest.mark.parametrize(("stream", "seen"), [row[1:] for row in PLAYS], ids=[row[0] for row in PLAYS])


@EVERY
def test_plays(stream, seen):
    assert [said if said == DONE else short(said) for said in told(read([stream]))] == seen


@EVERY
def test_cut_at_every_position(stream, seen):
    whole = read([stream])
    for at in range(len(stream) + 1):
        assert read([stream[:at], stream[at:]]) == whole, at
    assert read(stream[n : n + 1] for n in range(len(stream))) == whole
    assert read([stream.replace(b"\n", b"\r\n")]) == whole


def test_every_chunk_has_the_same_head():
    for said in told(read([PLAYS[0][1]]))[:-1]:
        assert [said[key] for key in ("id", "object", "created", "model")] == ["msg_1", "chat.completion.chunk", 1, "m"]


PROMPTS = [
    ("nothing-yet", PING, 0),
    ("with-the-cache's", begin(input_tokens=20, cache_read_input_tokens=5, cache_creation_input_tokens=3), 28),
    ("not-told", begin(), 0),
    ("no-numbers", begin(input_tokens=None), 0),
]


@pytest.mark.parametrize(("said", "tokens"), [row[1:] for row in PROMPTS], ids=[row[0] for row in PROMPTS])
def test_the_prompt_s_tokens_are_known_from_the_start(said, tokens):
    reader = events()
    reader.feed(said)
    assert reader.prompt_tokens == tokens


ASKS = [
    ("not-asked", {}, 0),
    ("null", {"stream_options": None}, 0),
    ("asked", {"stream_options": {"include_usage": True}}, 1),
    ("asked-not-to", {"stream_options": {"include_usage": False}}, 0),
]


@pytest.mark.parametrize(("asked", "chunks"), [row[1:] for row in ASKS], ids=[row[0] for row in ASKS])
def test_usage_is_told_who_asks_for_it(asked, chunks):
    body = orjson.dumps({"model": "m", "stream": True, "messages": [], **asked})
    reader = ChatAsMessages(body, default_max_tokens=1).events()
    out = reader.feed(PLAYS[0][1]) + reader.flush()
    assert out.count(b'"usage":') == chunks
    assert out.endswith(b"data: [DONE]\n\n")


def test_each_delta_goes_out_at_once():
    reader = events()
    reader.feed(BEGIN)
    assert b'"content":"Hi"' in reader.feed(delta(0, "text_delta", text="Hi"))
    assert b'"reasoning_content":"Hm"' in reader.feed(delta(0, "thinking_delta", thinking="Hm"))


def test_a_refusal_has_its_words():
    why = {"type": "refusal", "category": None, "explanation": "I may not."}
    choice = told(read([BEGIN + end("refusal", why)]))[1]["choices"][0]
    assert choice["delta"] == {"refusal": "I may not."}
    assert choice["finish_reason"] == "content_filter"


def test_a_stop_sequence_is_told_as_vllm_tells_it():
    choice = told(read([BEGIN + end("stop_sequence", sequence="END")]))[1]["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "END")


def test_an_error_is_openai_s():
    assert told(read([ERROR])) == [
        {"error": {"message": "Overloaded", "type": "upstream_error", "param": None, "code": "overloaded_error"}}
    ]


def test_an_event_without_an_end_is_no_answer():
    reader = events()
    (said,) = told(reader.feed(b"data: " + b"a" * EVENT_MAX))
    assert said["error"]["message"] == UpstreamFailed.message
    assert reader.feed(b"\n\n" + BEGIN) == b""


def gathered(chunks: list[Any]) -> dict[str, Any]:
    """What a client has in its hands at the end: text, reasoning, each call's id and arguments, finish and usage."""
    out: dict[str, Any] = {"finish": None, "usage": None, "end": chunks[-1]}
    for said in chunks[:-1]:
        out["usage"] = said.get("usage")
        for choice in said["choices"]:
            out["finish"] = choice["finish_reason"]
            for key in ("content", "reasoning_content"):
                out[key] = out.get(key, "") + choice["delta"].get(key, "")
            for tool in choice["delta"].get("tool_calls", ()):
                known = out.setdefault(tool["index"], [tool.get("id"), ""])
                known[1] += tool["function"]["arguments"]
    return out


@pytest.mark.parametrize(
    "stream", [row[1] for row in PLAYS if DONE in row[2]], ids=[row[0] for row in PLAYS if DONE in row[2]]
)
def test_there_and_back_says_the_same(stream):
    back = MessagesAsChat(b'{"messages":[]}').events()
    there = read([stream])
    assert gathered(told(read([back.feed(there) + back.flush()]))) == gathered(told(there))
