"""What Messages clients get is what Anthropic's own models and accumulator of streams take."""

from operator import attrgetter
from typing import Any

import httpx2
import orjson
import pytest
from anthropic import Anthropic
from anthropic.types import ErrorResponse, Message, MessageCreateParams, RawMessageStreamEvent
from pydantic import TypeAdapter

from tests.unit.dialect.messages_conversations import CONVERSATIONS
from tests.unit.dialect.test_messages_events import DONE, PLAYS, USAGE, call, chunk, read, told
from weir.dialect.anthropic_errors import error_body
from weir.dialect.chat.as_messages import ChatAsMessages
from weir.dialect.messages.as_chat import MessagesAsChat

EVERY = pytest.mark.parametrize("row", CONVERSATIONS, ids=attrgetter("name"))
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
REQUEST: TypeAdapter[Any] = TypeAdapter(MessageCreateParams)


@EVERY
def test_answers(row):
    translation = MessagesAsChat(orjson.dumps(row.messages_request))
    Message.model_validate_json(translation.answer(orjson.dumps(row.chat_answer)), strict=True)


@EVERY
def test_requests(row):
    request = orjson.loads(ChatAsMessages(orjson.dumps(row.chat_request), default_max_tokens=1).body)
    named = REQUEST.validate_python(request)
    assert named["model"] == "m"


@pytest.mark.parametrize("pieces", [row[1] for row in PLAYS], ids=[row[0] for row in PLAYS])
def test_events(pieces):
    for event in told(read(pieces)):
        if event["type"] == "error":
            ErrorResponse.model_validate(event)
        else:
            EVENT.validate_python(event, strict=True)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503, 504])
def test_errors(status):
    ErrorResponse.model_validate_json(error_body(status, "No.", "r"))


ENDINGS = [
    # name          the server says                                                             the SDK has gathered
    ("text", [chunk({"content": "Hi"}), chunk({"content": " there"}, "stop")], "end_turn", [{"type": "text", "text": "Hi there"}]),
    ("thinking", [chunk({"reasoning": "Hm"}), chunk({"content": "Hi"}, "length")], "max_tokens", [{"type": "thinking", "thinking": "Hm", "signature": ""}, {"type": "text", "text": "Hi"}]),
    ("calls-interleaved", [call(0, "a", "f", "{"), call(1, "b", "g", '{"x"'), call(0, arguments="}"), call(1, arguments=":1}"), chunk({}, "tool_calls")], "tool_use", [{"type": "tool_use", "id": "a", "name": "f", "input": {}}, {"type": "tool_use", "id": "b", "name": "g", "input": {"x": 1}}]),
]  # fmt: skip


@pytest.mark.parametrize(("pieces", "reason", "content"), [row[1:] for row in ENDINGS], ids=[row[0] for row in ENDINGS])
def test_a_stream_as_the_sdk_gathers_it(pieces, reason, content):
    stream = read([*pieces, USAGE, DONE])
    answer = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    transport = httpx2.MockTransport(lambda _: answer)
    with (
        httpx2.Client(transport=transport) as http,
        Anthropic(api_key="k", base_url="http://weir.test", http_client=http, max_retries=0) as client,
        client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]) as events,
    ):
        message = events.get_final_message()
    assert [block.model_dump(exclude_none=True) for block in message.content] == content
    assert message.stop_reason == reason
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens, message.usage.output_tokens) == (
        20,
        5,
        7,
    )
