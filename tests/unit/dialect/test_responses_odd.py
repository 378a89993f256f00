"""Whatever stands where, the caller gets an InvalidValue and upstream an UpstreamFailed: never a bug of ours."""

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weir.core.errors import InvalidValue, UpstreamFailed
from weir.dialect.responses.as_chat import ResponsesAsChat

REQUEST: dict[str, Any] = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_image", "image_url": "data:,", "detail": "low"},
                {"type": "input_file", "file_data": "data:,", "filename": "a"},
                {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
            ],
        },
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "b"}],
            "content": [{"type": "reasoning_text", "text": "c"}],
            "encrypted_content": "weir1.",
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "d"}, {"type": "refusal", "refusal": "e"}],
        },
        {"type": "function_call", "call_id": "1", "name": "f", "namespace": "n", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "2", "name": "g", "input": "h"},
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "i"}]},
        {"type": "custom_tool_call_output", "call_id": "2", "output": "j"},
        {"type": "additional_tools", "role": "developer", "tools": []},
    ],
    "tools": [
        {"type": "function", "name": "k", "description": "l", "parameters": {}, "strict": True},
        {
            "type": "custom",
            "name": "g",
            "description": "m",
            "format": {"type": "grammar", "syntax": "lark", "definition": "n"},
        },
        {"type": "namespace", "name": "n", "description": "o", "tools": [{"type": "function", "name": "f"}]},
    ],
    "tool_choice": {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "f", "namespace": "n"}],
    },
    "text": {"format": {"type": "json_schema", "name": "p", "schema": {}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "user": "q",
    "max_output_tokens": 1,
    "metadata": {"r": "s"},
    "stream": True,
}
ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {
                "role": "assistant",
                "content": "a",
                "reasoning_content": "b",
                "refusal": "c",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            "logprobs": {
                "content": [
                    {
                        "token": "a",
                        "logprob": -1.0,
                        "bytes": [97],
                        "top_logprobs": [{"token": "a", "logprob": -1.0, "bytes": None}],
                    }
                ]
            },
        }
    ],
    "usage": {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
    "service_tier": "default",
}
DEEP: Any = []
for _ in range(190):  # as deep as a body may be, with what stands around it
    DEEP = [DEEP]
ODD = st.sampled_from(
    [
        None,
        0,
        -1,
        1.5,
        True,
        "",
        "x",
        "message",
        "function",
        [],
        [None],
        ["x"],
        [[]],
        {},
        {"type": "x"},
        {"type": ["x"]},
        [{}],
        [{"type": "input_text"}],
        DEEP,
    ]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [path, *(place for name in value for place in places(value[name], (*path, name)))]
    if isinstance(value, list):
        return [path, *(place for index, item in enumerate(value) for place in places(item, (*path, index)))]
    return [path]


def replaced(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    changed = copy.deepcopy(value)
    at = changed
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = odd
    return changed


@settings(max_examples=600, deadline=None)
@given(path=st.sampled_from(places(REQUEST)), odd=ODD)
def test_requests(*, path: tuple[Any, ...], odd: Any) -> None:
    try:
        translated = ResponsesAsChat(orjson.dumps(replaced(REQUEST, path, odd)))
    except InvalidValue as refused:
        assert refused.param
        return
    assert orjson.loads(translated.body)["messages"]
    assert orjson.loads(translated.answer(orjson.dumps(ANSWER)))["object"] == "response"


@settings(max_examples=400, deadline=None)
@given(path=st.sampled_from(places(ANSWER)), odd=ODD)
def test_answers(*, path: tuple[Any, ...], odd: Any) -> None:
    body = orjson.dumps(replaced(ANSWER, path, odd))
    translated = ResponsesAsChat(orjson.dumps(REQUEST))
    try:
        assert orjson.loads(translated.answer(body))["object"] == "response"
    except UpstreamFailed as failed:
        assert failed.reason
    chunk = b"data: %b\n\ndata: [DONE]\n\n" % body.replace(b'"message"', b'"delta"')
    events = translated.events()
    try:
        assert events.feed(chunk) + events.flush()
    except UpstreamFailed as failed:
        assert failed.reason


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"choices":[]}', b'{"choices":{}}', b'{"error":{"message":"no"}}']
)
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        ResponsesAsChat(orjson.dumps(REQUEST)).answer(body)
