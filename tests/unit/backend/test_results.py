"""What functions give, in every form that is known, as OpenAI's objects."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from weir.backend.results import AsItIs, Chunks, Gathering, NoAnswer, chunks_of, completion_of, pieces_of, text_of
from weir.backend.results_refused import Refused, place_of, refusal_of

HEAD = {"id": "chatcmpl-1", "created": 7, "model": "m"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
WEATHER = {"name": "weather", "arguments": '{"city": "Paris"}'}


@dataclass
class ToolCallDelta:
    """The form of Haystack's."""

    index: int
    tool_name: str | None = None
    arguments: str | None = None
    id: str | None = None


@dataclass
class StreamingChunk:
    """The form of Haystack's."""

    content: str
    meta: dict[str, Any] = field(default_factory=dict)
    tool_calls: list[ToolCallDelta] | None = None
    finish_reason: str | None = None
    reasoning: Any = None


class Status:
    def to_event_dict(self) -> dict[str, Any]:
        return {"type": "status", "data": {"done": True}}


class Own(BaseModel, AsItIs):
    object: str = "chat.completion.chunk"
    choices: list[dict[str, Any]] = []


def wire(*choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": "theirs", "object": "chat.completion.chunk", "choices": list(choices), **fields}


def streamed(*pieces: Any, mapper: Any = None, with_usage: bool = False) -> list[dict[str, Any]]:
    chunks = Chunks(HEAD, mapper, with_usage=with_usage)
    return [chunk for piece in pieces for chunk in chunks.of(piece)] + chunks.end()


def said(events: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str | None]]:
    """Delta and finish reason of each."""
    return [(choice["delta"], choice["finish_reason"]) for event in events for choice in event.get("choices", ())]


STOP = ({"content": ""}, "stop")
ROLE = {"role": "assistant"}
STREAMS = [
    pytest.param([], [({**ROLE, "content": ""}, "stop")], id="nothing"),
    pytest.param(["a", "b"], [({**ROLE, "content": "a"}, None), ({"content": "b"}, None), STOP], id="texts"),
    pytest.param([SimpleNamespace(content="a")], [({**ROLE, "content": "a"}, None), STOP], id="content"),
    pytest.param([SimpleNamespace(content=None)], [({**ROLE, "content": ""}, None), STOP], id="content-none"),
    pytest.param([None, 5], [({**ROLE, "content": ""}, None), ({"content": "5"}, None), STOP], id="none-and-a-number"),
    pytest.param([StreamingChunk("a", finish_reason="length")], [({**ROLE, "content": "a"}, "length")], id="a-finish"),
    pytest.param(
        [
            StreamingChunk("", tool_calls=[ToolCallDelta(1, "weather", "", "call_1")]),
            StreamingChunk(
                "", tool_calls=[ToolCallDelta(1, arguments='{"city": "Paris"}')], finish_reason="tool_calls"
            ),
        ],
        [
            (
                {
                    **ROLE,
                    "content": None,
                    "tool_calls": [
                        {
                            "index": 1,
                            "id": "call_1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": ""},
                        }
                    ],
                },
                None,
            ),
            (
                {
                    "content": None,
                    "tool_calls": [{"index": 1, "type": "function", "function": {"arguments": WEATHER["arguments"]}}],
                },
                "tool_calls",
            ),
        ],
        id="tool-call-deltas",
    ),
    pytest.param(
        [SimpleNamespace(content="", tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "c"}])],
        [
            (
                {
                    **ROLE,
                    "content": None,
                    "tool_calls": [
                        {
                            "index": 0,
                            "type": "function",
                            "id": "c",
                            "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
                        }
                    ],
                },
                None,
            ),
            STOP,
        ],
        id="tool-calls-as-dictionaries",
    ),
    pytest.param(
        [
            StreamingChunk("", reasoning=SimpleNamespace(reasoning_text="hm")),
            SimpleNamespace(reasoning="so"),
            StreamingChunk("42"),
        ],
        [
            ({**ROLE, "content": None, "reasoning_content": "hm"}, None),
            ({"content": None, "reasoning_content": "so"}, None),
            ({"content": "42"}, None),
            STOP,
        ],
        id="reasoning",
    ),
    pytest.param(
        [wire({"index": 0, "delta": {"content": "a"}}), wire({"index": 0, "delta": {}, "finish_reason": "length"})],
        [({"content": "a"}, None), ({}, "length")],
        id="chunks-as-dictionaries",
    ),
    pytest.param(
        [wire({"index": 0, "delta": {"content": "a"}})], [({"content": "a"}, None), STOP], id="chunks-without-an-end"
    ),
    pytest.param(
        [{**HEAD, "object": "chat.completion", "choices": [{"index": 0, "message": {**ROLE, "content": "a"}}]}],
        [({**ROLE, "content": "a"}, None), ({}, "stop")],
        id="a-completion-among-pieces",
    ),
]


@pytest.mark.parametrize(("pieces", "expected"), STREAMS)
def test_the_deltas_of_a_stream(pieces: list[Any], expected: list[Any]) -> None:
    events = streamed(*pieces)
    assert said(events) == expected
    assert {event["object"] for event in events} == {"chat.completion.chunk"}


def test_openai_chunks_keep_what_they_say() -> None:
    given = ChatCompletionChunk.model_validate(
        {
            "id": "theirs",
            "object": "chat.completion.chunk",
            "created": 9,
            "model": "gpt",
            "choices": [{"index": 0, "delta": {"content": "a", "reasoning": "new"}, "finish_reason": None}],
        }
    )
    first = streamed(given)[0]
    assert (first["id"], first["created"], first["model"]) == ("theirs", 9, "gpt")
    assert first["choices"][0]["delta"]["reasoning"] == "new"


def test_events_of_its_own_leave_the_chunks_alone() -> None:
    events = streamed(Status(), "a", Status())
    assert events[0] == events[2] == {"event": {"type": "status", "data": {"done": True}}}
    assert said(events) == [({**ROLE, "content": "a"}, None), STOP]


def test_a_mapper_comes_before_all_but_our_own_types() -> None:
    own = Own(choices=[{"index": 0, "delta": {"content": "own"}, "finish_reason": "stop"}])
    events = streamed("a", wire(), own, mapper=lambda chunk: "mapped")
    assert said(events) == [
        ({**ROLE, "content": "mapped"}, None),
        ({"content": "mapped"}, None),
        ({"content": "own"}, "stop"),
    ]


USAGES = [
    pytest.param(wire(usage=USAGE), id="openai"),
    pytest.param(StreamingChunk("", meta={"usage": USAGE}), id="haystack"),
    pytest.param(SimpleNamespace(content="", usage=USAGE), id="attribute"),
]


@pytest.mark.parametrize("piece", USAGES)
@pytest.mark.parametrize("with_usage", [False, True])
def test_usage_is_told_at_the_end_to_those_who_asked(piece: Any, with_usage: bool) -> None:
    events = streamed("a", piece, with_usage=with_usage)
    assert len(events) == 2 + with_usage
    if with_usage:
        assert events[-1] == {**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}


def test_usage_is_never_invented() -> None:
    assert all("usage" not in event for event in streamed("a", with_usage=True))


WHOLE = {**HEAD, "id": "own", "object": "chat.completion", "choices": [{"index": 0, "message": {"content": "x"}}]}
COMPLETIONS = [
    pytest.param("hi", "hi", id="text"),
    pytest.param(WHOLE, "x", id="dictionary"),
    pytest.param(Own.model_construct(**WHOLE), "x", id="pydantic"),
]


@pytest.mark.parametrize(("result", "text"), COMPLETIONS)
def test_a_whole_answer(result: Any, text: str) -> None:
    made = completion_of(result, HEAD)
    assert made is not None
    assert made["object"] == "chat.completion"
    assert made["choices"][0]["message"]["content"] == text


PIECES = [
    pytest.param(["a"], True, id="list"),
    pytest.param(wire({"index": 0, "delta": {}}), False, id="one-chunk"),
    pytest.param(SimpleNamespace(content="a"), False, id="one-content"),
    pytest.param(StreamingChunk("a"), False, id="one-streaming-chunk"),
    pytest.param(Own(), False, id="a-model-that-is-iterable"),
]


@pytest.mark.parametrize(("result", "itself"), PIECES)
def test_pieces(result: Any, itself: bool) -> None:
    assert completion_of(result, HEAD) is None
    pieces = pieces_of(result, None)
    assert pieces is result if itself else pieces == (result,)


@pytest.mark.parametrize("result", [None, 5, b"bytes", {"role": "assistant"}, object()], ids=str)
def test_no_answer(result: Any) -> None:
    assert completion_of(result, HEAD) is None
    with pytest.raises(NoAnswer):
        pieces_of(result, None)


def test_a_mapper_makes_an_answer_of_what_is_none() -> None:
    assert pieces_of({"payload": "a"}, lambda chunk: chunk["payload"]) == ({"payload": "a"},)


MESSAGE = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "c1", "type": "function", "function": WEATHER},
        {"id": "c2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
    ],
}
THERE_AND_BACK = [
    pytest.param({"role": "assistant", "content": "hello"}, "stop", id="text"),
    pytest.param(MESSAGE, "tool_calls", id="tool-calls"),
    pytest.param({"role": "assistant", "content": None, "refusal": "no"}, "stop", id="refusal"),
    pytest.param({"role": "assistant", "content": "4", "reasoning_content": "2+2"}, "stop", id="reasoning"),
]


@pytest.mark.parametrize(("message", "finish"), THERE_AND_BACK)
def test_a_stream_and_its_completion_say_the_same(message: dict[str, Any], finish: str) -> None:
    logprobs = {"content": [{"token": "a", "logprob": -1.0}]}
    choices = [
        {"index": index, "message": message, "finish_reason": finish, "logprobs": logprobs} for index in range(2)
    ]
    whole = {**HEAD, "object": "chat.completion", "choices": choices, "usage": USAGE}
    gathering = Gathering(HEAD)
    *chunks, usage = chunks_of(whole, with_usage=True)
    gathering.add(chunks)
    assert usage["choices"] == []
    assert gathering.completion(usage["usage"]) == whole


def test_parts_of_tool_calls_are_joined_by_index() -> None:
    chunks, gathering = Chunks(HEAD), Gathering(HEAD)
    for calls in (
        [ToolCallDelta(0, "weather", '{"ci', "c1"), ToolCallDelta(1, "clock", "{", "c2")],
        [ToolCallDelta(1, arguments="}")],
        [ToolCallDelta(0, arguments='ty": "Paris"}')],
    ):
        gathering.add(chunks.of(StreamingChunk("", tool_calls=calls)))
    message = gathering.completion(None)["choices"][0]["message"]
    assert message == MESSAGE


def test_text_of_anything() -> None:
    assert [text_of(chunk) for chunk in ("a", SimpleNamespace(content=3), 5, None)] == ["a", "3", "5", ""]


class HTTPException(Exception):
    """The form of FastAPI's."""

    def __init__(self, status_code: int, detail: Any, headers: dict[str, str] | None = None) -> None:
        self.status_code, self.detail, self.headers = status_code, detail, headers


class StatusError(Exception):
    """The form of an HTTP client's."""

    def __init__(self, status: int) -> None:
        self.status, self.message = status, "from elsewhere"


REFUSALS = [
    # error                                                      status  message           type                     code
    pytest.param(Refused("no"), 400, "no", "invalid_request_error", None, id="refused"),
    pytest.param(Refused("no", 404, code="gone"), 404, "no", "invalid_request_error", "gone", id="refused-with-a-code"),
    pytest.param(HTTPException(429, "slow"), 429, "slow", "rate_limit_error", None, id="http-exception"),
    pytest.param(HTTPException(401, "who"), 401, "who", "invalid_request_error", None, id="http-exception-401"),
    pytest.param(
        HTTPException(400, {"error": {"message": "m", "type": "t", "code": "c"}}), 400, "m", "t", "c", id="an-object"
    ),
    pytest.param(HTTPException(400, ["a"]), 400, "['a']", "invalid_request_error", None, id="a-list"),
    pytest.param(StatusError(413), 413, "from elsewhere", "invalid_request_error", None, id="client-413"),
]


@pytest.mark.parametrize(("error", "status", "message", "kind", "code"), REFUSALS)
def test_refusals(error: Exception, status: int, message: str, kind: str, code: str | None) -> None:
    refusal = refusal_of(error)
    assert refusal is not None
    assert refusal.status == status
    assert refusal.error == {"message": message, "type": kind, "param": None, "code": code}


FAILURES = [
    ValueError("secret"),
    HTTPException(500, "secret"),
    HTTPException(302, "x"),
    StatusError(401),
    StatusError(503),
]


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_failures_are_no_refusals(error: Exception) -> None:
    assert refusal_of(error) is None


def test_a_refusal_may_say_when_to_come_back() -> None:
    refusal = refusal_of(HTTPException(429, "slow", {"Retry-After": "7"}))
    assert refusal is not None
    assert refusal.retry_after == "7"


def test_a_refusal_is_no_failure() -> None:
    with pytest.raises(ValueError, match="400 and 499"):
        Refused("broken", 500)


def test_the_place_of_an_error_has_none_of_its_text() -> None:
    def broken() -> None:
        raise ValueError("secret")

    with pytest.raises(ValueError, match="secret") as raised:
        broken()
    place = place_of(raised.value)
    assert place.startswith("ValueError at test_results.py:")
    assert place.endswith(" in broken")
    assert place_of(KeyError("secret")) == "KeyError"
