"""Agents of Pydantic AI, by chat completions, responses and messages."""

import asyncio
from collections.abc import Callable

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError, NativeOutput
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.ring import left_and_freed, waited_as_told
from tests.system.harness import Key, Upstream, Weir

Make = Callable[[str, Key], Model]


class Town(BaseModel):
    name: str
    people: int


@pytest.fixture(params=["chat", "responses", "messages"])
def make(request: pytest.FixtureRequest, weir: Weir, root: str) -> Make:
    """A model of this name, asked with this key, in one of three languages."""

    def model(name: str, key: Key) -> Model:
        if request.param == "messages":
            return AnthropicModel(name, provider=AnthropicProvider(base_url=root, api_key=key.secret))
        kind = OpenAIChatModel if request.param == "chat" else OpenAIResponsesModel
        return kind(name, provider=OpenAIProvider(base_url=weir.base_url, api_key=key.secret))

    return model


def test_answers(make: Make, key: Key) -> None:
    answer = Agent(make("echo", key)).run_sync("hello there")
    assert answer.output == "hello there"
    assert answer.usage.output_tokens == 2


async def first_words(agent: Agent[None, str]) -> list[str]:
    async with agent.run_stream("hello there") as answer:
        pieces: list[str] = []
        async for piece in answer.stream_text(delta=True, debounce_by=None):
            pieces.append(piece)
            if len(pieces) == 3:
                break
        await answer.cancel()
    return pieces


def test_a_stream_comes_in_pieces_and_leaving_it_frees_the_place(
    make: Make, key: Key, weir: Weir, upstream: Upstream
) -> None:
    assert asyncio.run(first_words(Agent(make("endless", key)))) == ["word0 ", "word1 ", "word2 "]
    left_and_freed(weir, upstream)


def test_runs_tools_and_tells_their_answers(make: Make, key: Key) -> None:
    agent = Agent(make("echo", key))

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"it rains in {city}"

    assert agent.run_sync("Oslo").output == "it rains in Oslo"


def test_gives_structured_output_by_a_tool(make: Make, key: Key) -> None:
    assert Agent(make("echo", key), output_type=Town).run_sync("Oslo").output == Town(name="Oslo", people=1)


# Not by messages: it believes that of models alone whose names it knows to be Anthropic's.
@pytest.mark.parametrize("make", ["chat", "responses"], indirect=True)
def test_gives_structured_output_by_a_schema(make: Make, key: Key) -> None:
    agent = Agent(make("echo", key), output_type=NativeOutput(Town))
    assert agent.run_sync("Oslo").output == Town(name="Oslo", people=1)


@pytest.mark.parametrize(
    ("whose", "model", "status", "words"),
    [
        pytest.param("strange", "echo", 401, "Incorrect API key provided", id="401"),
        pytest.param("ours", "nobody", 404, "does not exist", id="404"),
        pytest.param("ours", "bad_request", 400, "context_length_exceeded", id="400"),
    ],
)
def test_refusals_are_its_own_error(
    make: Make, key: Key, strange_key: Key, whose: str, model: str, status: int, words: str
) -> None:
    with pytest.raises(ModelHTTPError, match=words) as caught:
        Agent(make(model, key if whose == "ours" else strange_key)).run_sync("hello there")
    assert caught.value.status_code == status


def test_it_waits_as_told(make: Make, weir: Weir, tight_key: Key) -> None:
    agent = Agent(make("echo", tight_key))
    for _ in range(2):
        agent.run_sync("hello there")
    waited_as_told(weir, tight_key)
