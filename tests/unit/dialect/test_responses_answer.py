"""A chat answer as a response: each row is told whole and as a stream, and both come to the same."""

import itertools
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from openai import omit
from openai.lib._parsing._responses import parse_response
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from weir.core.errors import UpstreamFailed
from weir.core.sse import EVENT_MAX
from weir.dialect.responses.as_chat import ResponsesAsChat
from weir.dialect.responses.sealed import unsealed

Json = dict[str, Any]
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
PATCH = {"type": "custom", "name": "apply_patch"}
DOCS = {
    "type": "namespace",
    "name": "mcp__docs",
    "description": "The manuals.",
    "tools": [{"type": "function", "name": "search", "parameters": {"type": "object"}, "strict": False}],
}
SHELL = {"type": "function", "name": "shell", "parameters": {"type": "object"}, "strict": False}
REQUEST = {
    "model": "asked",
    "instructions": "Be brief.",
    "input": "hi",
    "tools": [PATCH, DOCS, SHELL],
    "metadata": {"k": "v"},
    "max_output_tokens": 9,
    "reasoning": {"effort": "low", "summary": "auto"},
    "text": {"format": {"type": "text"}, "verbosity": "low"},
    "temperature": 0.5,
    "prompt_cache_key": "thread",
    "stream": True,
}
REPEATED = {
    "background": False,
    "instructions": "Be brief.",
    "max_output_tokens": 9,
    "metadata": {"k": "v"},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": "thread",
    "reasoning": {"effort": "low", "summary": "auto"},
    "store": False,
    "temperature": 0.5,
    "text": {"format": {"type": "text"}, "verbosity": "low"},
    "tool_choice": "auto",
    "tools": [PATCH, DOCS, SHELL],
    "top_p": None,
    "truncation": "disabled",
}
HEAD = {"id": "chatcmpl-7", "created": 1700000000, "model": "answered", "service_tier": "default"}
USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 7,
    "total_tokens": 27,
    "prompt_tokens_details": {"cached_tokens": 16},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
TOLD_USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 16, "cache_write_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 27,
}
LOGPROB = {
    "token": "He",
    "logprob": -0.1,
    "bytes": None,
    "top_logprobs": [{"token": "He", "logprob": -0.1, "bytes": [72, 101]}],
}
TOLD_LOGPROB = {
    "token": "He",
    "bytes": [72, 101],
    "logprob": -0.1,
    "top_logprobs": [{"token": "He", "bytes": [72, 101], "logprob": -0.1}],
}


def text(said: str, status: str = "completed", index: int = 0, **part: Any) -> Json:
    content = {"type": "output_text", "text": said, "annotations": [], "logprobs": [], **part}
    return {"id": f"msg_7_{index}", "type": "message", "role": "assistant", "content": [content], "status": status}


def reasoning(said: str, status: str = "completed") -> Json:
    return {
        "id": "rs_7_0",
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": said}],
        "encrypted_content": None,
        "status": status,
    }


def calls(*named: tuple[str, str, str]) -> list[Json]:
    return [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for call_id, name, arguments in named
    ]


def function_call(call_id: str, name: str, arguments: str, index: int, **more: Any) -> Json:
    return {
        "id": f"fc_7_{index}",
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        **more,
        "arguments": arguments,
        "status": "completed",
    }


def custom_call(call_id: str, given: str, index: int, status: str = "completed") -> Json:
    return {
        "id": f"ctc_7_{index}",
        "type": "custom_tool_call",
        "call_id": call_id,
        "name": "apply_patch",
        "input": given,
        "status": status,
    }


TWO_CALLS = calls(
    ("c1", "mcp__docs__search", '{"q":"x"}'), ("c2", "apply_patch", '{"input":"*** \\"\\ud83d\\ude00\\n"}')
)
ANSWERS = [
    # the message                                                    finish          output                                            status
    pytest.param({"content": "Hello"}, "stop", [text("Hello")], "completed", id="words"),
    pytest.param({"content": ""}, "stop", [], "completed", id="nothing"),
    pytest.param({"content": "Hel"}, "length", [text("Hel", "incomplete")], "max_output_tokens", id="cut short"),
    pytest.param({"content": "Hel"}, "content_filter", [text("Hel", "incomplete")], "content_filter", id="filtered"),
    pytest.param({"content": "Hel"}, "abort", [text("Hel", "incomplete")], "failed", id="given up"),
    pytest.param(
        {"reasoning_content": "hm", "content": "Hello"},
        "stop",
        [reasoning("hm"), text("Hello", index=1)],
        "completed",
        id="reasoning_content",
    ),
    pytest.param(
        {"reasoning": "hm", "content": "Hello"},
        "stop",
        [reasoning("hm"), text("Hello", index=1)],
        "completed",
        id="reasoning",
    ),
    pytest.param(
        {"reasoning_content": "hm", "content": None},
        "length",
        [reasoning("hm", "incomplete")],
        "max_output_tokens",
        id="only reasoning",
    ),
    pytest.param(
        {"content": None, "refusal": "No."},
        "stop",
        [
            {
                "id": "msg_7_0",
                "type": "message",
                "role": "assistant",
                "content": [{"type": "refusal", "refusal": "No."}],
                "status": "completed",
            }
        ],
        "completed",
        id="refusal",
    ),
    pytest.param(
        {"content": "Well.", "refusal": "No."},
        "stop",
        [{**text("Well."), "content": [*text("Well.")["content"], {"type": "refusal", "refusal": "No."}]}],
        "completed",
        id="words and a refusal",
    ),
    pytest.param(
        {"content": "ok", "tool_calls": TWO_CALLS},
        "tool_calls",
        [
            text("ok"),
            function_call("c1", "search", '{"q":"x"}', 1, namespace="mcp__docs"),
            custom_call("c2", '*** "😀\n', 2),
        ],
        "completed",
        id="calls",
    ),
    pytest.param(
        {"tool_calls": calls(("", "shell", ""))},
        "tool_calls",
        [function_call("call_7_0", "shell", "", 0)],
        "completed",
        id="a call without id and arguments",
    ),
    pytest.param(
        {"tool_calls": calls(("c1", "rm", "{}"))},
        "tool_calls",
        [function_call("c1", "rm", "{}", 0)],
        "completed",
        id="a call that nobody offered",
    ),
    pytest.param(
        {"tool_calls": calls(("c1", "apply_patch", "*** Begin"))},
        "stop",
        [custom_call("c1", "*** Begin", 0)],
        "completed",
        id="a custom call without JSON",
    ),
    pytest.param(
        {"tool_calls": calls(("c1", "apply_patch", '{"input": "*** \\u00e'))},
        "length",
        [custom_call("c1", "*** \\u00e", 0, "incomplete")],
        "max_output_tokens",
        id="a custom call cut short",
    ),
]


def ending(status: str) -> Json:
    if status == "failed":
        return {
            "status": "failed",
            "incomplete_details": None,
            "error": {"code": "server_error", "message": "The model's server gave up in the middle of its answer."},
        }
    return {
        "status": "completed" if status == "completed" else "incomplete",
        "incomplete_details": None if status == "completed" else {"reason": status},
        "error": None,
    }


def whole(message: Json, finish: str, logprobs: Any = None) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, "logprobs": logprobs}
    return orjson.dumps({**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE})


def chunk(delta: Json, finish: str | None = None, logprobs: Any = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    return b"data: %b\n\n" % orjson.dumps(
        {**HEAD, "object": "chat.completion.chunk", "choices": [choice], "usage": None}
    )


def streamed(message: Json, finish: str, logprobs: Any = None) -> bytes:
    """As engines do it: three characters at a time, and the arguments of parallel calls by turns."""
    chunks = [chunk({"role": "assistant", "content": ""})]
    for name in ("reasoning_content", "reasoning", "content", "refusal"):
        said = message.get(name) or ""
        chunks += [
            chunk({name: said[at : at + 3]}, logprobs=logprobs if not at else None) for at in range(0, len(said), 3)
        ]
    named = message.get("tool_calls", [])
    chunks += [
        chunk(
            {"tool_calls": [{**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}]}
        )
        for index, call in enumerate(named)
    ]
    for at in range(0, max([len(call["function"]["arguments"]) for call in named], default=0), 3):
        pieces = [(index, call["function"]["arguments"][at : at + 3]) for index, call in enumerate(named)]
        chunks += [
            chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
            for index, piece in pieces
            if piece
        ]
    usage = b"data: %b\n\n" % orjson.dumps({**HEAD, "choices": [], "usage": USAGE})
    return b"".join([*chunks, chunk({}, finish), usage, b"data: [DONE]\n\n"])


def told(stream: bytes) -> list[Json]:
    """The events, each with the name that its line gives it."""
    events = []
    for block in stream.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        event = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def fed(stream: bytes, cuts: Iterable[int] = (), **request: Any) -> bytes:
    events = ResponsesAsChat(orjson.dumps({**REQUEST, **request})).events()
    edges = [0, *cuts, len(stream)]
    return b"".join(events.feed(stream[start:end]) for start, end in itertools.pairwise(edges)) + events.flush()


class TestAnswers:
    @pytest.mark.parametrize(("message", "finish", "output", "status"), ANSWERS)
    def test_whole(self, message: Json, finish: str, output: list[Json], status: str) -> None:
        answer = orjson.loads(ResponsesAsChat(orjson.dumps(REQUEST)).answer(whole(message, finish)))
        assert answer == {
            "id": "resp_7",
            "object": "response",
            "created_at": 1700000000,
            "model": "answered",
            "service_tier": "default",
            "output": output,
            "usage": TOLD_USAGE,
            **REPEATED,
            **ending(status),
        }
        Response.model_validate(answer)

    @pytest.mark.parametrize(("message", "finish", "output", "status"), ANSWERS)
    def test_streamed(self, message: Json, finish: str, output: list[Json], status: str) -> None:
        answer = orjson.loads(ResponsesAsChat(orjson.dumps(REQUEST)).answer(whole(message, finish)))
        events = told(fed(streamed(message, finish)))
        assert events[-1]["response"] == answer
        assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
        begun = {**answer, "output": [], "usage": None, **ending("completed"), "status": "in_progress"}
        del begun["service_tier"]  # the engine's own, which it may say late
        assert events[0]["response"] == events[1]["response"] == begun
        done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        assert done == ([] if status == "failed" else output)

    @pytest.mark.parametrize(("message", "finish", "output", "status"), ANSWERS)
    def test_the_sdks_accumulator(self, message: Json, finish: str, output: list[Json], status: str) -> None:
        state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
        for event in told(fed(streamed(message, finish))):
            state.handle_event(EVENT.validate_python(event))
        at_once = Response.model_validate_json(ResponsesAsChat(orjson.dumps(REQUEST)).answer(whole(message, finish)))
        if status == "completed":
            wanted: Any = parse_response(response=at_once, input_tools=omit, text_format=omit)
            assert state._completed_response == wanted
        else:
            assert state._completed_response is None

    @pytest.mark.parametrize(("message", "finish", "output", "status"), ANSWERS)
    def test_deltas_come_to_what_is_done(self, message: Json, finish: str, output: list[Json], status: str) -> None:
        said: dict[tuple[str, int], str] = {}
        for event in told(fed(streamed(message, finish))):
            place = (event.get("item_id", ""), event.get("content_index", 0))
            if event["type"].endswith(".delta"):
                assert event["delta"]
                said[place] = said.get(place, "") + event["delta"]
            elif event["type"].endswith(("text.done", "refusal.done", "arguments.done", "input.done")):
                assert said.pop(place, "") == next(
                    event[name] for name in ("text", "refusal", "arguments", "input") if name in event
                )

    @pytest.mark.parametrize(("message", "finish", "output", "status"), ANSWERS)
    def test_any_cut_gives_the_same_bytes(self, message: Json, finish: str, output: list[Json], status: str) -> None:
        stream = streamed(message, finish)
        at_once = fed(stream)
        assert all(fed(stream, [cut]) == at_once for cut in range(1, len(stream)))
        assert fed(stream, range(1, len(stream))) == at_once


class TestDetails:
    def test_logprobs(self) -> None:
        message, logprobs = {"content": "Hel"}, {"content": [LOGPROB]}
        answer = orjson.loads(ResponsesAsChat(orjson.dumps(REQUEST)).answer(whole(message, "stop", logprobs)))
        assert answer["output"] == [text("Hel", logprobs=[TOLD_LOGPROB])]
        events = told(fed(streamed(message, "stop", logprobs)))
        assert events[-1]["response"]["output"] == answer["output"]
        assert [EVENT.validate_python(event).type for event in events]
        assert [event["logprobs"] for event in events if event["type"].startswith("response.output_text.")] == [
            [TOLD_LOGPROB]
        ] * 2

    def test_reasoning_is_sealed_for_who_asks(self) -> None:
        items = told(fed(streamed({"reasoning_content": "hm"}, "stop"), include=["reasoning.encrypted_content"]))[-1][
            "response"
        ]["output"]
        assert unsealed(items[0]["encrypted_content"]) == "hm"

    def test_an_engine_that_tells_little(self) -> None:
        answer = ResponsesAsChat(b'{"model":"m","input":"hi"}').answer(b'{"choices":[{"message":{"content":"a"}}]}')
        response = Response.model_validate(orjson.loads(answer))
        assert (response.id, response.model, response.output_text, response.usage) == ("resp_unnamed", "m", "a", None)

    def test_calls_without_ids_that_are_all_number_0(self) -> None:
        named = [{"index": 0, **call} for call in calls(("", "shell", "{}"), ("", "shell", "[]"))]
        answer = orjson.loads(ResponsesAsChat(orjson.dumps(REQUEST)).answer(whole({"tool_calls": named}, "tool_calls")))
        assert [item["arguments"] for item in answer["output"]] == ["{}", "[]"]

    def test_a_refused_request(self) -> None:
        assert ResponsesAsChat(orjson.dumps(REQUEST)).refusal(400, b'{"error":{}}') == b'{"error":{}}'


class TestStreams:
    def test_each_delta_goes_out_at_once(self) -> None:
        events = ResponsesAsChat(orjson.dumps(REQUEST)).events()
        stream = streamed({"reasoning_content": "hmm", "content": "hello", "tool_calls": TWO_CALLS}, "tool_calls")
        for line in stream.split(b"\n\n")[:-1]:
            said = events.feed(line + b"\n\n")
            choice = (
                (orjson.loads(line.removeprefix(b"data: ")).get("choices") or [{}])[0] if b"[DONE]" not in line else {}
            )
            words = [piece for name in ("reasoning_content", "content") if (piece := choice.get("delta", {}).get(name))]
            assert all(b'"delta":"%b"' % word.encode() in said for word in words)

    def test_calls_that_are_all_number_0(self) -> None:
        stream = (
            b"".join(
                chunk({"tool_calls": [{"index": 0, **call}]})
                for call in calls(("c1", "shell", "{}"), ("c2", "shell", "[]"))
            )
            + chunk({}, "tool_calls")
            + b"data: [DONE]\n\n"
        )
        output = told(fed(stream))[-1]["response"]["output"]
        assert output == [function_call("c1", "shell", "{}", 0), function_call("c2", "shell", "[]", 1)]

    def test_words_after_a_call_are_another_message(self) -> None:
        stream = (
            chunk({"content": "a"})
            + chunk({"tool_calls": calls(("c1", "shell", "{}"))})
            + chunk({"content": "b"})
            + chunk({}, "stop")
            + b"data: [DONE]\n\n"
        )
        assert [item["type"] for item in told(fed(stream))[-1]["response"]["output"]] == [
            "message",
            "function_call",
            "message",
        ]

    @pytest.mark.parametrize(
        ("end", "last"),
        [
            pytest.param(b"", "response.output_text.delta", id="none"),
            pytest.param(chunk({}, "stop"), "response.output_text.delta", id="only a finish"),
            pytest.param(chunk({}, "stop") + b"data: [DONE]", "response.completed", id="no last line end"),
            pytest.param(
                chunk({}, "stop") + b"data: [DONE]\n\n" + chunk({"content": "b"}) + b"data: [DONE]\n\n",
                "response.completed",
                id="more after the end",
            ),
            pytest.param(b"data: [DONE]\n\n", "response.completed", id="no finish"),
            pytest.param(b"data:\n\ndata: [DONE]\n\n", "response.completed", id="an empty event before"),
        ],
    )
    def test_only_done_ends_it(self, *, end: bytes, last: str) -> None:
        assert told(fed(chunk({"content": "a"}) + end))[-1]["type"] == last

    @pytest.mark.parametrize(
        ("broken", "error"),
        [
            pytest.param(
                b'data: {"error":{"message":"Too long.","type":"invalid_request_error","param":"input","code":"context_length_exceeded"}}\n\n',
                ("context_length_exceeded", "Too long.", "input"),
                id="an error",
            ),
            pytest.param(
                b'data: {"error":{"message":"Oh.","code":500}}\n\n',
                ("server_error", "Oh.", None),
                id="an error with a number",
            ),
            pytest.param(b'data: {"error":"Oh."}\n\n', ("server_error", "Oh.", None), id="an error in words"),
            pytest.param(
                b"data: <html>\n\n",
                ("server_error", "The model's server failed in the middle of its answer.", None),
                id="no JSON",
            ),
            pytest.param(
                b"data: []\n\n",
                ("server_error", "The model's server failed in the middle of its answer.", None),
                id="no object",
            ),
            pytest.param(
                b'data: {"choices":[{"delta":{"content":1}}]}\n\n',
                ("server_error", "The model's server failed in the middle of its answer.", None),
                id="no text",
            ),
        ],
    )
    def test_a_failure_in_the_middle(self, *, broken: bytes, error: tuple[Any, ...]) -> None:
        stream = chunk({"content": "a"}) + broken + chunk({"content": "b"}) + b"data: [DONE]\n\n"
        at_once = fed(stream)
        assert all(fed(stream, [cut]) == at_once for cut in range(1, len(stream)))
        *_, plain, failed = told(at_once)
        assert (plain["code"], plain["message"], plain["param"]) == error
        assert plain["type"] == "error"
        assert failed["type"] == "response.failed"
        assert failed["response"]["error"] == {"code": error[0], "message": error[1]}
        assert failed["response"]["output"] == [text("a", "incomplete")]

    def test_a_failure_at_the_beginning_is_told_as_one(self) -> None:
        kinds = [event["type"] for event in told(fed(b'data: {"error":{"message":"Oh."}}\n\n'))]
        assert kinds == ["response.created", "response.in_progress", "error", "response.failed"]

    @pytest.mark.parametrize("stream", [b"data: <html>\n\n", b"data: []\n\n"])
    def test_what_is_no_stream(self, stream: bytes) -> None:
        with pytest.raises(UpstreamFailed):
            fed(stream)

    def test_an_event_without_an_end(self) -> None:
        endless = b"data: " + bytes(EVENT_MAX)
        with pytest.raises(UpstreamFailed):
            fed(endless)
        assert told(fed(chunk({"content": "a"}) + endless))[-1]["type"] == "response.failed"
        ended = chunk({"content": "a"}, "stop") + b"data: [DONE]\n\n"
        assert told(fed(ended + endless))[-1]["type"] == "response.completed"

    def test_an_empty_event_at_the_beginning_says_nothing(self) -> None:
        stream = chunk({"content": "a"}, "stop") + b"data: [DONE]\n\n"
        assert fed(b"data\n\ndata:\n\n" + stream) == fed(stream)

    def test_a_stream_of_nothing_but_its_end(self) -> None:
        assert fed(b"data: [DONE]\n\n") == b""
