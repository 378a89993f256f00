"""One conversation in two dialects: what the table says, both ways, and that nothing is lost on the way there and back."""

from operator import attrgetter
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from tests.unit.dialect.messages_conversations import CONVERSATIONS, SCHEMA
from weir.dialect.chat.as_messages import ChatAsMessages
from weir.dialect.messages.as_chat import MessagesAsChat

EVERY = pytest.mark.parametrize("row", CONVERSATIONS, ids=attrgetter("name"))


def as_chat(request: dict[str, Any]) -> Any:
    return orjson.loads(MessagesAsChat(orjson.dumps(request)).body)


def as_messages(request: dict[str, Any]) -> Any:
    return orjson.loads(ChatAsMessages(orjson.dumps(request), default_max_tokens=4096).body)


@EVERY
def test_request_to_chat(row):
    assert as_chat(row.messages_request) == row.chat_request


@EVERY
def test_request_to_messages(row):
    assert as_messages(row.chat_request) == row.messages_request


@EVERY
def test_answer_to_messages(row):
    translation = MessagesAsChat(orjson.dumps(row.messages_request))
    assert orjson.loads(translation.answer(orjson.dumps(row.chat_answer))) == row.messages_answer


@EVERY
def test_answer_to_chat(row):
    translation = ChatAsMessages(orjson.dumps(row.chat_request), default_max_tokens=4096)
    answer = orjson.loads(translation.answer(orjson.dumps(row.messages_answer)))
    assert answer.pop("created") > 1_700_000_000
    assert answer | {"created": 1} == row.chat_answer
    ChatCompletion.model_validate(row.chat_answer, strict=True)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=3)
TEXT = st.builds(lambda said: {"type": "text", "text": said}, TEXTS)
IMAGE = st.sampled_from(
    [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}},
        {"type": "image", "source": {"type": "url", "url": "https://a.test/b.png"}},
    ]
)
CALLS = st.lists(st.tuples(NAMES, NAMES, OBJECTS, TEXTS), min_size=1, max_size=3, unique_by=lambda call: call[0])
SAID = TEXTS | st.lists(TEXT | IMAGE, min_size=2, max_size=3)


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """In the form in which our own translation writes them: what is one text is a string, one turn is one message."""
    messages: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 4))):
        said = draw(SAID)
        if messages and messages[-1]["role"] == "user":  # results: what the user says stands behind them
            said = [{"type": "text", "text": said}] if isinstance(said, str) else said
            messages[-1]["content"] += said
        else:
            messages.append({"role": "user", "content": said})
        if draw(st.booleans()):
            messages.append({"role": "assistant", "content": draw(TEXTS)})
        else:
            calls = draw(CALLS)
            uses = [{"type": "tool_use", "id": call, "name": name, "input": given} for call, name, given, _ in calls]
            messages.append({"role": "assistant", "content": [*draw(st.lists(TEXT, max_size=1)), *uses]})
            results = [{"type": "tool_result", "tool_use_id": call, "content": told} for call, _, _, told in calls]
            messages.append({"role": "user", "content": results})
    return messages


REQUESTS = st.fixed_dictionaries(
    {"model": TEXTS, "max_tokens": st.integers(1, 100_000), "messages": histories()},
    optional={
        "system": TEXTS,
        "temperature": st.floats(0, 1),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(1, 100),
        "stop_sequences": st.lists(TEXTS, min_size=1, max_size=3),
        "metadata": st.builds(lambda name: {"user_id": name}, NAMES),
        "stream": st.just(True),
        "tools": st.lists(
            st.fixed_dictionaries({"name": NAMES, "input_schema": st.just(SCHEMA)}, optional={"description": TEXTS}),
            min_size=1,
            max_size=2,
        ),
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(request=REQUESTS)
def test_a_conversation_comes_back_as_it_went(request):
    there = as_chat(request)
    assert as_messages(there) == request
    assert as_chat(as_messages(there)) == there


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(said=st.lists(TEXT, max_size=1), thought=st.none() | TEXTS, calls=st.just([]) | CALLS)
def test_an_answer_comes_back_as_it_went(said, thought, calls):
    content = [{"type": "thinking", "thinking": thought, "signature": ""}] if thought else []
    content += said
    content += [{"type": "tool_use", "id": call, "name": name, "input": given} for call, name, given, _ in calls]
    row = CONVERSATIONS[0]
    answer = row.messages_answer | {"content": content, "stop_reason": "tool_use" if calls else "end_turn"}
    translation = ChatAsMessages(orjson.dumps(row.chat_request), default_max_tokens=1)
    there = translation.answer(orjson.dumps(answer))
    ChatCompletion.model_validate_json(there, strict=True)
    assert orjson.loads(MessagesAsChat(orjson.dumps(row.messages_request)).answer(there)) == answer
