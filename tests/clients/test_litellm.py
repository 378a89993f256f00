"""LiteLLM as a client, which many tools have inside: by chat completions, and by Anthropic's messages."""

import json
from typing import Any

import litellm
import pytest
from pydantic import BaseModel

from tests.clients.ring import CITIES, CITY, left_and_freed, waited_as_told
from tests.system.harness import Key, Upstream, Weir

HELLO = [{"role": "user", "content": "hello there"}]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}


class Town(BaseModel):
    name: str
    people: int


def ask(weir: Weir, key: Key, model: str, **fields: Any) -> Any:
    """Whole answers and streams come from one function of theirs."""
    whom = {"model": f"openai/{model}", "api_base": weir.base_url, "api_key": key.secret, "max_retries": 0}
    return litellm.completion(**whom | {"messages": HELLO} | fields)


def test_answers(weir: Weir, key: Key) -> None:
    answer = ask(weir, key, "echo")
    assert answer.choices[0].message.content == "hello there"
    assert answer.usage.completion_tokens == 2


def test_speaks_messages(root: str, key: Key) -> None:
    answer: Any = litellm.completion("anthropic/echo", HELLO, api_base=root, api_key=key.secret, max_tokens=64)
    assert answer.choices[0].message.content == "hello there"


def test_a_stream_comes_in_pieces_and_leaving_it_frees_the_place(weir: Weir, key: Key, upstream: Upstream) -> None:
    stream = ask(weir, key, "endless", stream=True)
    pieces = [chunk.choices[0].delta.content for chunk, _ in zip(stream, range(3), strict=False)]
    stream.completion_stream.close()
    assert pieces == ["word0 ", "word1 ", "word2 "]
    left_and_freed(weir, upstream)


@pytest.mark.parametrize("play", CITIES)
def test_calls_tools(weir: Weir, key: Key, play: str) -> None:
    whole = ask(weir, key, play, tools=[TOOL])
    said: Any = litellm.stream_chunk_builder(list(ask(weir, key, play, tools=[TOOL], stream=True)))
    for answer in (whole, said):
        calls = answer.choices[0].message.tool_calls
        assert [json.loads(call.function.arguments)["city"] for call in calls] == CITIES[play]


def test_gives_structured_output(weir: Weir, key: Key) -> None:
    answer = ask(weir, key, "echo", response_format=Town)
    assert Town.model_validate_json(answer.choices[0].message.content) == Town(name="hello there", people=1)


def test_embeds(weir: Weir, key: Key) -> None:
    answer = litellm.embedding("openai/echo", ["one", "two"], api_base=weir.base_url, api_key=key.secret)
    assert [len(one["embedding"]) for one in answer.data] == [64, 64]


def test_refusals_are_its_own_errors(weir: Weir, key: Key, strange_key: Key) -> None:
    with pytest.raises(litellm.AuthenticationError, match="Incorrect API key provided"):
        ask(weir, strange_key, "echo")
    with pytest.raises(litellm.NotFoundError, match="does not exist"):
        ask(weir, key, "nobody")
    with pytest.raises(litellm.BadRequestError, match="context_length_exceeded"):
        ask(weir, key, "bad_request")


def test_it_waits_as_told(weir: Weir, tight_key: Key) -> None:
    for _ in range(2):
        ask(weir, tight_key, "echo", max_retries=2)
    waited_as_told(weir, tight_key)
