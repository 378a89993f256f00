"""What is nested deep is refused or failed in our words: orjson reads 1024 levels and writes 254, json runs into Python's
own bound.
"""

from typing import Any

import orjson
import pytest

from weir.core.errors import UpstreamFailed
from weir.dialect.anthropic_errors import with_request_id
from weir.dialect.between import translate
from weir.dialect.chat.as_messages import ChatAsMessages
from weir.dialect.fields import DEPTH_MAX, as_object, read_json
from weir.dialect.translation import Translation


def nest(levels: int) -> bytes:
    return (
        b'{"a":' * (levels // 2) + b"[" * (levels - levels // 2) + b"]" * (levels - levels // 2) + b"}" * (levels // 2)
    )


READ = [
    pytest.param(nest(DEPTH_MAX), True, id="as-deep-as-may-be"),
    pytest.param(nest(DEPTH_MAX + 1), False, id="a-level-more"),
    pytest.param(nest(900), False, id="deeper-than-orjson-writes"),
    pytest.param(nest(1020), False, id="deeper-than-json-reads"),
    pytest.param(nest(3000), False, id="deeper-than-anybody-reads"),
    pytest.param(b"[" + b'"{[",' * 300 + b"1]", True, id="brackets-in-texts"),
    pytest.param(b"[" + b"[[]]," * 300 + b"1]", True, id="many-and-flat"),
    pytest.param(b'["\\ud83d"]', True, id="half-a-pair"),
]


@pytest.mark.parametrize(("said", "reads"), READ)
def test_what_a_server_says(said: bytes, reads: bool) -> None:
    if reads:
        assert read_json(said)
    else:
        with pytest.raises(ValueError, match=r"deep|depth"):
            read_json(said)


ARGUMENTS = [
    pytest.param(1, True, id="flat"),
    pytest.param(DEPTH_MAX, True, id="as-deep-as-may-be"),
    pytest.param(DEPTH_MAX + 1, False, id="a-level-more"),
    pytest.param(3000, False, id="deeper-than-anybody-reads"),
]


@pytest.mark.parametrize(("levels", "as_they_are"), ARGUMENTS)
def test_arguments_of_a_call(levels: int, as_they_are: bool) -> None:
    """A body may hold a text that is deeper than it may be itself."""
    written = (b'{"a":' * levels + b"1" + b"}" * levels).decode()
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": written}}
    body = {"model": "m", "messages": [{"role": "assistant", "tool_calls": [call]}]}
    (said,) = orjson.loads(ChatAsMessages(orjson.dumps(body), default_max_tokens=1).body)["messages"]
    assert said["content"][0]["input"] == (orjson.loads(written) if as_they_are else {"arguments": written})
    assert as_object(written) == said["content"][0]["input"]


def test_arguments_keep_numbers_that_no_double_holds() -> None:
    """A sum in a currency's smallest unit, an id of 96 bits: rounded it is another one."""
    written = '{"wei": 12345678901234567890123, "of": [0.10, -98765432109876543210]}'
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": written}}
    asked_for = {"model": "m", "messages": [{"role": "assistant", "tool_calls": [call]}]}
    assert written.encode() in ChatAsMessages(orjson.dumps(asked_for), default_max_tokens=1).body
    message = {"role": "assistant", "content": "said", "tool_calls": [call]}
    answer = orjson.dumps({"id": "c1", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
    assert written.encode() in asked("messages", SAID, "chat").answer(answer)
    # Beside half a pair of surrogates, which another writer writes, it is at least the same object.
    told = orjson.loads(
        asked("messages", SAID, "chat").answer(answer.replace(b"said", b"\\ud83d")).replace(b"\\ud83d", b"")
    )
    assert told["content"][1]["input"] == orjson.loads(written)


def asked(operation: str, body: dict[str, Any], serves: str) -> Translation:
    return translate(operation, orjson.dumps({"model": "m", **body}), frozenset({serves}))


SAID = {"messages": [{"role": "user", "content": "a"}]}
TRANSLATIONS = {
    "messages": asked("messages", SAID, "chat"),
    "chat": asked("chat", SAID, "messages"),
    "responses": asked("responses", {"input": "a"}, "chat"),
    "responses of Claude's": asked("responses", {"input": "a"}, "messages"),
    "count": asked("count_tokens", SAID, "tokenize"),
    "rerank": asked("rerank", {"query": "a", "documents": ["b"]}, "rerank_texts"),
}
EVERY = pytest.mark.parametrize("name", TRANSLATIONS)
DEEP = pytest.mark.parametrize("levels", [240, 260, 900, 1010, 3000])
# Where an answer of either dialect holds what it pleases: the head's members, an object instead of a text.
ANSWERS = [
    b'{"id":%b,"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}',
    b'{"choices":[{"message":{"tool_calls":[{"id":"c","function":{"name":"f","arguments":%b}}]}}]}',
    b'{"choices":[{"message":{"content":"\\ud83d","x":%b}}]}',
    b'{"id":"a","model":%b,"content":[]}',
    b'{"id":"a","model":"m","content":[{"type":"tool_use","id":"c","name":"f","input":%b}]}',
    b'{"count":%b}',
    b"[%b]",
]
EVENTS = [
    b'{"id":%b,"choices":[{"index":0,"delta":{"content":"a"}}]}',
    b'{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":%b}}]}}]}',
    b'{"type":"message_start","message":{"id":"a","model":%b}}',
    b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"c","name":"f","input":%b}}',
]


@EVERY
@DEEP
def test_answers(name: str, levels: int) -> None:
    for answer in ANSWERS:
        with pytest.raises(UpstreamFailed):
            TRANSLATIONS[name].answer(answer % nest(levels))


@pytest.mark.parametrize("name", [name for name in TRANSLATIONS if name not in {"count", "rerank"}])
@DEEP
def test_events(name: str, levels: int) -> None:
    for event in EVENTS:
        events = TRANSLATIONS[name].events()
        try:
            told = events.feed(b"data: %b\n\n" % (event % nest(levels))) + events.flush()
        except UpstreamFailed:
            continue  # before anything was told
        assert b'"error"' in told


@EVERY
@DEEP
def test_refusals(name: str, levels: int) -> None:
    """Of Responses an error object passes as it came."""
    body = b'{"error":{"code":%b}}' % nest(levels)
    try:
        assert TRANSLATIONS[name].refusal(400, body) == body
    except UpstreamFailed as failed:
        assert failed.reason == "refusal without a message"


def test_half_a_pair_in_a_refusal_passes() -> None:
    refusal = TRANSLATIONS["messages"].refusal(400, b'{"error":{"message":"\\ud83d"}}')
    assert b'"\\ud83d"' in with_request_id(refusal, "r")
