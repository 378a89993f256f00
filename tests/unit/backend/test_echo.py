"""The echo says what it heard, in every form that a client asks for, and counts its own words honestly."""

import asyncio
import base64
import json
import math
import struct
from collections.abc import Awaitable
from typing import Any

import pytest

from tests.fakes.clock import run
from tests.fakes.streams import events_of
from weir.backend import Call
from weir.backend.echo import EchoBackend
from weir.core.types import Endpoint, Timeouts

CHAT, TEXT, EMBEDDINGS = "/chat/completions", "/completions", "/embeddings"
HELLO = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello out there"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}},
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def heard(path: str, body: bytes, *, delay: float = 0.0) -> tuple[int, bytes, bytes, float]:
    """Status, content type, the whole answer, and how long it took."""

    async def scene() -> tuple[int, bytes, bytes, float]:
        loop = asyncio.get_running_loop()
        since, parts = loop.time(), []
        backend = EchoBackend(delay_seconds=delay)
        async with backend.send(Endpoint("embedded"), Call(path, body, [], Timeouts())) as response:
            while part := await response.read():
                parts.append(part)
            assert await response.read() == b"", "an end stays one"
        await backend.close()
        return response.status, response.content_type, b"".join(parts), loop.time() - since

    return run(scene)


def whole(path: str = CHAT, **fields: Any) -> dict[str, Any]:
    status, content_type, body, _ = heard(path, json.dumps({"model": "echo"} | fields).encode())
    assert (status, content_type) == (200, b"application/json")
    said: dict[str, Any] = json.loads(body)
    assert said["model"] == "echo"
    return said


def streamed(path: str = CHAT, **fields: Any) -> list[dict[str, Any]]:
    """The events before [DONE], which is always the last."""
    status, content_type, body, _ = heard(path, json.dumps({"model": "echo", "stream": True} | fields).encode())
    assert status == 200
    assert content_type.startswith(b"text/event-stream")
    *events, done = events_of(body)
    assert done == b"[DONE]"
    return [json.loads(event) for event in events]


def joined(events: list[dict[str, Any]], index: int = 0) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for event in events
        for choice in event["choices"]
        if choice["index"] == index
    )


class TestChat:
    def test_says_the_last_words_and_counts_them(self) -> None:
        said = whole(messages=HELLO)
        assert said["object"] == "chat.completion"
        assert said["choices"][0]["message"] == {"role": "assistant", "content": "hello out there"}
        assert said["choices"][0]["finish_reason"] == "stop"
        assert said["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}

    @pytest.mark.parametrize("content", ["a  b\nc ", " leading", "\u6d41\u308c \U0001f30a", '"quotes" \\ {}'])
    def test_words_put_together_are_the_text(self, content: str) -> None:
        messages = [{"role": "user", "content": content}]
        assert whole(messages=messages)["choices"][0]["message"]["content"] == content.lstrip()
        assert joined(streamed(messages=messages)) == content.lstrip()

    def test_stream_is_word_by_word(self) -> None:
        events = streamed(messages=HELLO)
        assert [event["object"] for event in events] == ["chat.completion.chunk"] * len(events)
        deltas = [event["choices"][0]["delta"] for event in events]
        assert deltas == [
            {"role": "assistant", "content": ""},
            {"content": "hello "},
            {"content": "out "},
            {"content": "there"},
            {},
        ]
        assert [event["choices"][0]["finish_reason"] for event in events] == [None] * 4 + ["stop"]
        assert len({event["id"] for event in events}) == 1

    def test_usage_comes_where_it_is_asked_for(self) -> None:
        assert not any("usage" in event for event in streamed(messages=HELLO))
        last = streamed(messages=HELLO, stream_options={"include_usage": True})[-1]
        assert last["choices"] == []
        assert last["usage"] == whole(messages=HELLO)["usage"]

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
    def test_stops_at_its_maximum(self, name: str) -> None:
        said = whole(messages=HELLO, **{name: 2})
        assert said["choices"][0]["message"]["content"] == "hello out "
        assert said["choices"][0]["finish_reason"] == "length"
        assert said["usage"]["completion_tokens"] == 2
        assert joined(streamed(messages=HELLO, **{name: 2})) == "hello out "

    def test_every_choice_counts(self) -> None:
        said = whole(messages=HELLO, n=3)
        assert [choice["index"] for choice in said["choices"]] == [0, 1, 2]
        assert said["usage"]["completion_tokens"] == 9
        events = streamed(messages=HELLO, n=2, stream_options={"include_usage": True})
        assert [joined(events, index) for index in (0, 1)] == ["hello out there"] * 2
        assert events[-1]["usage"]["completion_tokens"] == 6

    @pytest.mark.parametrize(
        ("stop", "said"), [("out", "hello "), (["x", "there"], "hello out "), ([], "hello out there")]
    )
    def test_stops_at_its_stops(self, stop: Any, said: str) -> None:
        assert whole(messages=HELLO, stop=stop)["choices"][0]["message"]["content"] == said

    def test_parts_of_text_are_text(self) -> None:
        content = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "u"}}]
        assert whole(messages=[{"role": "user", "content": content}])["choices"][0]["message"]["content"] == "see"

    def test_where_nobody_spoke_it_says_so(self) -> None:
        assert whole(messages=[{"role": "system", "content": "quiet"}])["choices"][0]["message"]["content"]


class TestTools:
    @pytest.mark.parametrize(
        ("fields", "names"),
        [
            pytest.param({}, ["weather"], id="the-first"),
            pytest.param({"parallel_tool_calls": True}, ["weather", "clock"], id="all"),
            pytest.param({"tool_choice": {"type": "function", "function": {"name": "clock"}}}, ["clock"], id="chosen"),
            pytest.param({"tool_choice": "none"}, [], id="none"),
        ],
    )
    def test_are_called(self, *, fields: dict[str, Any], names: list[str]) -> None:
        asked = {"messages": HELLO, "tools": [WEATHER, CLOCK], **fields}
        choice = whole(**asked)["choices"][0]
        calls = choice["message"].get("tool_calls", [])
        assert [call["function"]["name"] for call in calls] == names
        assert len({call["id"] for call in calls}) == len(calls)
        assert choice["finish_reason"] == ("tool_calls" if names else "stop")
        events = streamed(**asked)
        put_together: dict[int, dict[str, Any]] = {}
        for event in events:
            for delta in event["choices"][0]["delta"].get("tool_calls", []):
                call = put_together.setdefault(delta["index"], {"id": "", "name": "", "arguments": ""})
                call["id"] += delta.get("id", "")
                call["name"] += delta["function"].get("name", "")
                call["arguments"] += delta["function"]["arguments"]
        assert [call["name"] for call in put_together.values()] == names
        assert [call["id"] for call in put_together.values()] == [call["id"] for call in calls]
        assert [call["arguments"] for call in put_together.values()] == [c["function"]["arguments"] for c in calls]

    def test_arguments_fit_their_schema(self) -> None:
        calls = whole(messages=HELLO, tools=[WEATHER])["choices"][0]["message"]["tool_calls"]
        assert json.loads(calls[0]["function"]["arguments"]) == {"city": "hello out there", "days": 3}

    def test_are_not_called_again_when_they_have_answered(self) -> None:
        messages = [*HELLO, {"role": "tool", "tool_call_id": "c", "content": "sunny"}]
        assert whole(messages=messages, tools=[WEATHER])["choices"][0]["message"]["content"] == "sunny"


SCHEMAS = [
    pytest.param({"type": "object", "properties": {"a": {"type": "string"}}}, {"a": "hello out there"}, id="text"),
    pytest.param({"type": "object", "properties": {"a": {"enum": ["x", "y"]}}}, {"a": "x"}, id="enum"),
    pytest.param({"type": "object", "properties": {"a": {"const": 7}}}, {"a": 7}, id="const"),
    pytest.param({"properties": {"a": {"type": ["null", "string"]}}}, {"a": None}, id="nullable"),
    pytest.param(
        {"properties": {"a": {"type": "boolean"}, "b": {"type": "number"}}}, {"a": True, "b": 1.0}, id="plain"
    ),
    pytest.param(
        {"properties": {"a": {"type": "array", "items": {"type": "integer"}, "minItems": 2}}}, {"a": [1, 1]}, id="array"
    ),
    pytest.param(
        {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "integer", "minimum": 9}}},
        {"a": 9},
        id="reference",
    ),
    pytest.param({"properties": {"a": {"anyOf": [{"type": "null"}, {"type": "string"}]}}}, {"a": None}, id="any-of"),
]


class TestForms:
    @pytest.mark.parametrize(("schema", "value"), SCHEMAS)
    def test_of_a_schema(self, *, schema: dict[str, Any], value: Any) -> None:
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        said = whole(messages=HELLO, response_format=form)["choices"][0]["message"]["content"]
        assert json.loads(said) == value
        assert json.loads(joined(streamed(messages=HELLO, response_format=form))) == value

    def test_of_any_object(self) -> None:
        said = whole(messages=HELLO, response_format={"type": "json_object"})["choices"][0]["message"]["content"]
        assert json.loads(said) == {"echo": "hello out there"}

    def test_a_schema_that_contains_itself_comes_to_an_end(self) -> None:
        schema = {"$ref": "#/$defs/x", "$defs": {"x": {"properties": {"a": {"$ref": "#/$defs/x"}}}}}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        assert whole(messages=HELLO, response_format=form)["choices"]


class TestText:
    @pytest.mark.parametrize(
        ("prompt", "texts"),
        [
            pytest.param("a b", ["a b"], id="one"),
            pytest.param(["a b", "c"], ["a b", "c"], id="two"),
            pytest.param([1, 2], None, id="token-ids"),
            pytest.param([[1, 2], [3]], ["1 2", "3"], id="lists-of-token-ids"),
        ],
    )
    def test_whole_and_streamed_say_the_same(self, *, prompt: Any, texts: list[str] | None) -> None:
        said = whole(TEXT, prompt=prompt)
        assert said["object"] == "text_completion"
        if texts is not None:
            assert [choice["text"] for choice in said["choices"]] == texts
        events = streamed(TEXT, prompt=prompt, stream_options={"include_usage": True})
        assert events[-1]["usage"] == said["usage"]
        for choice in said["choices"]:
            parts = [c["text"] for event in events for c in event["choices"] if c["index"] == choice["index"]]
            assert "".join(parts) == choice["text"]

    def test_n_answers_for_each_prompt(self) -> None:
        said = whole(TEXT, prompt=["a", "b"], n=2)
        assert [choice["text"] for choice in said["choices"]] == ["a", "a", "b", "b"]
        assert said["usage"]["completion_tokens"] == 4


class TestEmbeddings:
    @pytest.mark.parametrize(
        ("given", "count"), [("a b", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1], [2, 3]], 2)], ids=str
    )
    def test_one_vector_for_each(self, *, given: Any, count: int) -> None:
        said = whole(EMBEDDINGS, input=given)
        assert [row["index"] for row in said["data"]] == list(range(count))
        for row in said["data"]:
            assert math.isclose(sum(number * number for number in row["embedding"]), 1.0, rel_tol=1e-6)
        assert said["usage"]["prompt_tokens"] == said["usage"]["total_tokens"] > 0

    def test_same_text_same_vector_other_text_another(self) -> None:
        rows = whole(EMBEDDINGS, input=["a", "b", "a"])["data"]
        assert rows[0]["embedding"] == rows[2]["embedding"] != rows[1]["embedding"]

    def test_as_base64_it_is_the_same(self) -> None:
        numbers = whole(EMBEDDINGS, input="a", dimensions=8)["data"][0]["embedding"]
        text = whole(EMBEDDINGS, input="a", dimensions=8, encoding_format="base64")["data"][0]["embedding"]
        assert struct.unpack("<8f", base64.b64decode(text)) == pytest.approx(numbers)


def test_pump_hands_out_what_read_does_and_waits_for_whoever_is_slow() -> None:
    async def scene() -> None:
        loop, taken = asyncio.get_running_loop(), list[bytes]()

        def slow(piece: bytes) -> Awaitable[None] | None:
            taken.append(piece)
            return asyncio.sleep(3) if len(taken) == 1 else None

        body = json.dumps({"model": "echo", "messages": HELLO, "stream": True}).encode()
        since = loop.time()
        async with EchoBackend().send(Endpoint("embedded"), Call(CHAT, body, [], Timeouts())) as response:
            await response.pump(slow)
        assert loop.time() - since == pytest.approx(3, abs=0.01)
        assert joined([json.loads(event) for event in events_of(b"".join(taken))[:-1]]) == "hello out there"

    run(scene)


class TestDelay:
    def test_passes_before_each_event_of_a_stream(self) -> None:
        body = json.dumps({"model": "echo", "messages": HELLO, "stream": True}).encode()
        *_, took = heard(CHAT, body, delay=2.0)
        assert took == pytest.approx(2.0 * 5, abs=0.01)

    def test_stops_when_nobody_listens(self) -> None:
        async def scene() -> None:
            body = json.dumps({"model": "echo", "messages": HELLO, "stream": True}).encode()
            loop = asyncio.get_running_loop()
            since = loop.time()
            backend = EchoBackend(delay_seconds=2.0)
            async with backend.send(Endpoint("embedded"), Call(CHAT, body, [], Timeouts())) as response:
                await response.read()
            assert loop.time() - since == pytest.approx(2.0, abs=0.01)

        run(scene)


NONSENSE = [
    pytest.param(CHAT, b"no json", id="no-json"),
    pytest.param(CHAT, b'{"model":"echo"}', id="no-messages"),
    pytest.param(CHAT, b'{"messages":[{"role":"user"}]}', id="no-model"),
    pytest.param(CHAT, b'{"model":"echo","messages":["a"]}', id="messages-of-text"),
    pytest.param(CHAT, b'{"model":"echo","messages":5}', id="messages-a-number"),
    pytest.param(CHAT, b'{"model":"echo","messages":[{"role":"user","content":"a"}],"tools":[5]}', id="tools"),
    pytest.param(
        CHAT,
        b'{"model":"echo","messages":[],"tools":[{"type":"function","function":{"name":"a"}}]}',
        id="tools-for-nobody",
    ),
    pytest.param(
        CHAT,
        b'{"model":"echo","messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{}}]}',
        id="a-tool-without-a-name",
    ),
    pytest.param(
        CHAT,
        b'{"model":"echo","messages":[{"role":"user","content":"a"}],'
        b'"response_format":{"type":"json_schema","json_schema":{"schema":{"type":[]}}}}',
        id="a-schema-of-no-type",
    ),
    pytest.param(
        CHAT,
        b'{"model":"echo","messages":[{"role":"user","content":"a"}],'
        b'"response_format":{"type":"json_schema","json_schema":{"schema":{"$ref":"#/nowhere"}}}}',
        id="a-schema-that-leads-nowhere",
    ),
    pytest.param(CHAT, b'{"model":"echo","messages":[{"role":"user","content":"a"}],"stop":[""]}', id="empty-stop"),
    pytest.param(EMBEDDINGS, b'{"model":"echo","input":"a","dimensions":-1}', id="dimensions"),
    pytest.param(EMBEDDINGS, b'{"model":"echo","input":"a","dimensions":"many"}', id="dimensions-in-words"),
    pytest.param("/moderations", b'{"model":"echo","input":"a"}', id="another-path"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), NONSENSE)
def test_nonsense_is_refused_as_an_upstream_would(path: str, body: bytes) -> None:
    status, content_type, answer, _ = heard(path, body)
    assert (status, content_type) == (400, b"application/json")
    assert set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}
