"""Haystack's OpenAIChatGenerator."""

from typing import Any

import openai
import pytest
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage, StreamingChunk
from haystack.tools import Tool
from haystack.utils import Secret
from pydantic import BaseModel

from tests.clients.ring import CITIES, CITY, left_and_freed, waited_as_told
from tests.system.harness import Key, Upstream, Weir

HELLO = [ChatMessage.from_user("hello there")]
TOOL = Tool("get_weather", "The weather of a city.", CITY, function=lambda city: f"it rains in {city}")


class Town(BaseModel):
    name: str
    people: int


class EnoughError(Exception):
    """Raised by a callback, which is how one leaves a stream of Haystack's."""


def generator(weir: Weir, key: Key, model: str, **options: Any) -> OpenAIChatGenerator:
    secret = Secret.from_token(key.secret)
    return OpenAIChatGenerator(api_key=secret, api_base_url=weir.base_url, model=model, **options)


def test_answers(weir: Weir, key: Key) -> None:
    (answer,) = generator(weir, key, "echo").run(HELLO)["replies"]
    assert answer.text == "hello there"
    assert answer.meta["usage"]["completion_tokens"] == 2


def test_a_stream_comes_in_pieces_and_leaving_it_frees_the_place(weir: Weir, key: Key, upstream: Upstream) -> None:
    pieces: list[str] = []

    def take(chunk: StreamingChunk) -> None:
        pieces.append(chunk.content)
        if len(pieces) == 3:
            raise EnoughError

    model = generator(weir, key, "endless", streaming_callback=take)
    with pytest.raises(EnoughError):
        model.run(HELLO)
    assert pieces == ["word0 ", "word1 ", "word2 "]
    left_and_freed(weir, upstream)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("play", CITIES)
def test_calls_tools(weir: Weir, key: Key, play: str, streamed: bool) -> None:
    callback = (lambda _: None) if streamed else None
    (answer,) = generator(weir, key, play, tools=[TOOL], streaming_callback=callback).run(HELLO)["replies"]
    assert [call.arguments for call in answer.tool_calls] == [{"city": city} for city in CITIES[play]]
    assert {call.tool_name for call in answer.tool_calls} == {"get_weather"}


def test_a_tools_answer_goes_back(weir: Weir, key: Key) -> None:
    model = generator(weir, key, "echo", tools=[TOOL])
    (first,) = model.run(HELLO)["replies"]
    told = [ChatMessage.from_tool(TOOL.invoke(**call.arguments), origin=call) for call in first.tool_calls]
    (answer,) = model.run([*HELLO, first, *told])["replies"]
    assert answer.text == "it rains in hello there"


def test_gives_structured_output(weir: Weir, key: Key) -> None:
    (answer,) = generator(weir, key, "echo", generation_kwargs={"response_format": Town}).run(HELLO)["replies"]
    assert Town.model_validate_json(answer.text or "") == Town(name="hello there", people=1)


def test_refusals_are_the_sdks_errors(weir: Weir, key: Key, strange_key: Key) -> None:
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
        generator(weir, strange_key, "echo").run(HELLO)
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        generator(weir, key, "nobody").run(HELLO)
    with pytest.raises(openai.BadRequestError, match="context_length_exceeded"):
        generator(weir, key, "bad_request").run(HELLO)


def test_it_waits_as_told(weir: Weir, tight_key: Key) -> None:
    model = generator(weir, tight_key, "echo")
    for _ in range(2):
        model.run(HELLO)
    waited_as_told(weir, tight_key)
