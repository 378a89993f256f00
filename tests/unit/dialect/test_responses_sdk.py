"""The official SDK asks for responses, and an engine that knows only chat completions answers it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import orjson
import pytest
from openai import OpenAI, omit
from pydantic import BaseModel

from weir.dialect.responses.as_chat import ResponsesAsChat

Json = dict[str, Any]


class Engine(httpx.BaseTransport):
    """A chat engine behind the translation: `says` gives a chat message for a chat request."""

    def __init__(self, says: Callable[[Json], Json]) -> None:
        self._says = says
        self.asked: list[Json] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/responses"
        translated = ResponsesAsChat(request.read())
        chat = orjson.loads(translated.body)
        self.asked.append(chat)
        message = {"role": "assistant", **self._says(chat)}
        head = {
            "id": f"chatcmpl-{len(self.asked)}",
            "created": 1,
            "model": chat["model"],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
        finish = "tool_calls" if "tool_calls" in message else "stop"
        if not chat.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": finish}
            return httpx.Response(
                200,
                content=translated.answer(orjson.dumps({**head, "choices": [choice]})),
                headers={"content-type": "application/json"},
            )
        for index, call in enumerate(message.get("tool_calls", [])):
            call["index"] = index
        chunk = {**head, "choices": [{"index": 0, "delta": message, "finish_reason": finish}]}
        events = translated.events()
        content = events.feed(b"data: %b\n\ndata: [DONE]\n\n" % orjson.dumps(chunk)) + events.flush()
        return httpx.Response(200, content=content, headers={"content-type": "text/event-stream"})


@contextmanager
def client(engine: Engine) -> Iterator[OpenAI]:
    with (
        httpx.Client(transport=engine) as http,
        OpenAI(api_key="sk", base_url="http://weir/v1", http_client=http, max_retries=0) as openai,
    ):
        yield openai


class Weather(BaseModel):
    city: str
    degrees: int


WEATHER: Json = {
    "type": "function",
    "name": "weather",
    "description": "Now.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def looks_first(chat: Json) -> Json:
    """Asks for the weather, then says what it was told."""
    last = chat["messages"][-1]
    if last["role"] == "tool":
        return {
            "content": orjson.dumps({"city": "Bonn", "degrees": int(last["content"])}).decode(),
            "reasoning_content": "Easy.",
        }
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bonn"}'}}
    return {"content": None, "reasoning_content": "I need the weather.", "tool_calls": [call]}


def test_create() -> None:
    engine = Engine(lambda chat: {"content": chat["messages"][-1]["content"].upper()})
    with client(engine) as openai:
        response = openai.responses.create(model="m", instructions="Shout.", input="hi")
    assert (response.output_text, response.status, response.usage and response.usage.total_tokens) == (
        "HI",
        "completed",
        2,
    )
    assert engine.asked == [
        {"model": "m", "messages": [{"role": "system", "content": "Shout."}, {"role": "user", "content": "hi"}]}
    ]


def test_create_with_stream() -> None:
    with (
        client(Engine(lambda chat: {"content": "hello"})) as openai,
        openai.responses.create(model="m", input="hi", stream=True) as stream,
    ):
        events = list(stream)
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["hello"]
    assert events[-1].type == "response.completed"


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_parse_and_two_turns(streams: bool) -> None:
    """What the SDK was given goes back as it is, as its guide says."""
    engine = Engine(looks_first)

    def ask(openai: OpenAI, conversation: list[Any]) -> Any:
        asked: Json = {
            "model": "m",
            "input": conversation,
            "tools": [WEATHER],
            "text_format": Weather if len(conversation) > 1 else omit,
        }
        if not streams:
            return openai.responses.parse(**asked)
        with openai.responses.stream(**asked) as stream:
            return stream.get_final_response()

    conversation: list[Any] = [{"role": "user", "content": "How warm is it in Bonn?"}]
    with client(engine) as openai:
        first = ask(openai, conversation)
        call = next(item for item in first.output if item.type == "function_call")
        assert call.parsed_arguments == {"city": "Bonn"}
        conversation += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": "21"}]
        second = ask(openai, conversation)
    assert second.output_parsed == Weather(city="Bonn", degrees=21)
    assert engine.asked[1]["messages"][1:] == [
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "I need the weather.",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bonn"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "21"},
    ]
    assert engine.asked[1]["response_format"]["json_schema"]["name"] == "Weather"
    assert engine.asked[1]["tools"] == [
        {
            "type": "function",
            "function": {name: WEATHER[name] for name in ("name", "description", "parameters", "strict")},
        }
    ]
