"""LlamaIndex's OpenAILike."""

from pathlib import Path
from typing import Any

import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from tests.clients.ring import CITIES, left_and_freed, run_example, waited_as_told
from tests.system.harness import Key, Upstream, Weir

HELLO = [ChatMessage("hello there")]


class Town(BaseModel):
    """A town."""

    name: str
    people: int


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"it rains in {city}"


def get_time(city: str) -> str:
    """The time in a city."""
    return f"it is late in {city}"


WEATHER, TIME = map(FunctionTool.from_defaults, (get_weather, get_time))


def llm(weir: Weir, key: Key, model: str, **options: Any) -> OpenAILike:
    kind = {"is_chat_model": True, "is_function_calling_model": True, "context_window": 8192} | options
    return OpenAILike(model=model, api_base=weir.base_url, api_key=key.secret, **kind)


def test_answers(weir: Weir, key: Key) -> None:
    assert llm(weir, key, "echo").chat(HELLO).message.content == "hello there"


def test_completes(weir: Weir, key: Key) -> None:
    assert llm(weir, key, "echo", is_chat_model=False).complete("once upon a time").text == "once upon a time"


def test_a_stream_comes_in_pieces_and_leaving_it_frees_the_place(weir: Weir, key: Key, upstream: Upstream) -> None:
    stream: Any = llm(weir, key, "endless").stream_chat(HELLO)
    pieces = [piece.delta for piece, _ in zip(stream, range(3), strict=False)]
    stream.close()
    assert pieces == ["word0 ", "word1 ", "word2 "]
    left_and_freed(weir, upstream)


@pytest.mark.parametrize("play", CITIES)
def test_calls_tools(weir: Weir, key: Key, play: str) -> None:
    model = llm(weir, key, play)
    answer = model.chat_with_tools([WEATHER], "weather?", allow_parallel_tool_calls=True)
    calls = model.get_tool_calls_from_response(answer)
    assert [call.tool_kwargs for call in calls] == [{"city": city} for city in CITIES[play]]


def test_streams_calls_of_tools(weir: Weir, key: Key) -> None:
    # Of the echo model, which ends one call before the next: LlamaIndex does not put interleaved ones together.
    model = llm(weir, key, "echo")
    *_, last = model.stream_chat_with_tools([WEATHER, TIME], "Oslo", allow_parallel_tool_calls=True)
    calls = model.get_tool_calls_from_response(last)
    assert [(call.tool_name, call.tool_kwargs) for call in calls] == [
        ("get_weather", {"city": "Oslo"}),
        ("get_time", {"city": "Oslo"}),
    ]


def test_runs_tools(weir: Weir, key: Key) -> None:
    assert llm(weir, key, "echo").predict_and_call([WEATHER], "Oslo").response == "it rains in Oslo"


@pytest.mark.parametrize("by_schema", [False, True], ids=["by-a-tool", "by-a-schema"])
def test_gives_structured_output(weir: Weir, key: Key, by_schema: bool) -> None:
    model = llm(weir, key, "echo", should_use_structured_outputs=by_schema)
    assert model.structured_predict(Town, PromptTemplate("Oslo")) == Town(name="Oslo", people=1)


def test_refusals_are_the_sdks_errors(weir: Weir, key: Key, strange_key: Key) -> None:
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
        llm(weir, strange_key, "echo").chat(HELLO)
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        llm(weir, key, "nobody").chat(HELLO)
    with pytest.raises(openai.BadRequestError, match="context_length_exceeded"):
        llm(weir, key, "bad_request").chat(HELLO)


def test_it_waits_as_told(weir: Weir, tight_key: Key) -> None:
    model = llm(weir, tight_key, "echo")
    for _ in range(2):
        model.chat(HELLO)
    waited_as_told(weir, tight_key)


def test_the_example_runs(root: str, key: Key, tmp_path: Path) -> None:
    assert run_example(tmp_path, root, key, "with_llama_index.py") == "Good morning!\nIt rains in Oslo.\n"
