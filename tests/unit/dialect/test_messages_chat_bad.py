"""What is bent out of shape is refused or failed in our words, never with a bug: any member may hold anything."""

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.dialect.messages_conversations import CONVERSATIONS, PIXEL, asked, text
from weir.core.errors import InvalidValue, UpstreamFailed
from weir.dialect.chat.as_messages import ChatAsMessages
from weir.dialect.messages.as_chat import MessagesAsChat

DEEP: Any = []
for _ in range(190):  # as deep as a body may be, with what stands around it
    DEEP = [DEEP]
DEEP_TEXT = '{"a":' * 300 + "1" + "}" * 300
ANYTHING = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1.5,
        "",
        "a",
        [],
        ["a"],
        [[]],
        {},
        {"type": "text"},
        {"type": ["a"]},
        [{"type": {}}],
        DEEP,
        DEEP_TEXT,
    ]
)
ANYHOW = settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])

RICH = asked(
    metadata={"user_id": "u"},
    thinking={"type": "enabled", "budget_tokens": 2000},
    system=[text("a")],
    messages=[
        {
            "role": "user",
            "content": [
                {
                    "type": "document",
                    "source": {"type": "text", "data": "a"},
                    "title": "t",
                    "context": "c",
                    "citations": {"enabled": False},
                },
                {"type": "document", "source": {"type": "content", "content": [text("a")]}, "title": "t"},
                {"type": "search_result", "title": "t", "source": "s", "content": [text("a")]},
                {"type": "tool_result", "tool_use_id": "a", "content": [text("a")], "is_error": True},
            ],
        },
        {"role": "system", "content": [text("a")]},
    ],
    tools=[{"name": "f", "input_schema": {}, "input_examples": [{}]}],
    tool_choice={"type": "any"},
)
TOLD = asked(
    messages=[
        {"role": "developer", "content": [text("a")]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "a"}], "refusal": "b"},
        {
            "role": "user",
            "content": [{"type": "file", "file": {"file_data": "data:text/plain;base64,YQ==", "filename": "a"}}],
        },
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]},
    ],
    stream_options={"include_usage": True},
    reasoning_effort="low",
    stop="a",
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in inner:
        yield from places(held, (*path, key))


def bent(values: list[Any]) -> st.SearchStrategy[Any]:
    """One of the values with one member replaced."""
    known = [(value, path) for value in values for path in places(value)]

    def replace(where: tuple[Any, tuple[Any, ...]], by: Any) -> Any:
        out = copy.deepcopy(where[0])
        *way, last = where[1]
        holder = out
        for key in way:
            holder = holder[key]
        holder[last] = by
        return out

    return st.builds(replace, st.sampled_from(known), ANYTHING)


def passes(work: Callable[[], bytes], refusal: type[Exception]) -> None:
    with suppress(refusal):
        orjson.loads(work())


@ANYHOW
@given(request=bent([row.messages_request for row in CONVERSATIONS] + [RICH]))
def test_requests_to_chat(request):
    passes(lambda: MessagesAsChat(orjson.dumps(request)).body, InvalidValue)


@ANYHOW
@given(request=bent([row.chat_request for row in CONVERSATIONS] + [TOLD]))
def test_requests_to_messages(request):
    passes(lambda: ChatAsMessages(orjson.dumps(request), default_max_tokens=1).body, InvalidValue)


CHAT = MessagesAsChat(b'{"messages":[]}')
MESSAGES = ChatAsMessages(b'{"messages":[],"stream_options":{"include_usage":true}}', default_max_tokens=1)


@ANYHOW
@given(answer=bent([row.chat_answer for row in CONVERSATIONS]))
def test_answers_to_messages(answer):
    passes(lambda: CHAT.answer(orjson.dumps(answer)), UpstreamFailed)


@ANYHOW
@given(answer=bent([row.messages_answer for row in CONVERSATIONS]))
def test_answers_to_chat(answer):
    passes(lambda: MESSAGES.answer(orjson.dumps(answer)), UpstreamFailed)


@ANYHOW
@given(
    answer=bent(
        [
            {"error": {"message": "a", "type": "b", "code": 400}},
            {"error": "a", "error_type": "b"},
            {"object": "error", "message": "a"},
            {"detail": [{"loc": ["body", 0], "msg": "a"}]},
        ]
    )
)
@pytest.mark.parametrize("translation", [CHAT, MESSAGES], ids=["messages", "chat"])
def test_refusals(translation, answer):
    passes(lambda: translation.refusal(400, orjson.dumps(answer)), UpstreamFailed)


CHUNKS = [
    {"id": "a", "model": "m", "choices": [{"index": 0, "delta": {"content": "a", "reasoning": "b", "refusal": "c"}}]},
    {
        "id": "a",
        "choices": [{"delta": {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}]}}],
    },
    {
        "choices": [
            {"delta": {"function_call": {"name": "f", "arguments": ""}}, "finish_reason": "stop", "stop_reason": "a"}
        ]
    },
    {
        "choices": [],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}},
    },
    {"error": {"message": "a", "type": "b", "code": 400}},
]
EVENTS = [
    {"type": "message_start", "message": {"id": "a", "model": "m", "usage": {"input_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "a"}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "a", "name": "f", "input": {"a": 1}}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": "a", "stop_details": {"explanation": "b"}}, "usage": {"output_tokens": 2, "output_tokens_details": {"thinking_tokens": 1}}},
    {"type": "error", "error": {"type": "api_error", "message": "a"}},
]  # fmt: skip


@ANYHOW
@given(said=st.lists(bent(CHUNKS) | st.sampled_from(CHUNKS[:-1]), max_size=6))
def test_events_to_messages(said):
    events = CHAT.events()
    out = b"".join(events.feed(b"data: " + orjson.dumps(one) + b"\n\n") for one in said)
    out += events.feed(b"data: [DONE]\n\n") + events.flush()
    assert (b"event: error" in out) != out.endswith(b'data: {"type":"message_stop"}\n\n')


@ANYHOW
@given(said=st.lists(bent(EVENTS) | st.sampled_from(EVENTS[:-1]), max_size=6))
def test_events_to_chat(said):
    events = MESSAGES.events()
    out = b"".join(events.feed(b"data: " + orjson.dumps(one) + b"\n\n") for one in said)
    out += events.feed(b'data: {"type":"message_stop"}\n\n') + events.flush()
    assert (b'data: {"error"' in out) != out.endswith(b"data: [DONE]\n\n")
