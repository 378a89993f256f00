"""LangChain's ChatOpenAI."""

from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.clients.ring import CITIES, left_and_freed, waited_as_told
from tests.system.harness import Key, Upstream, Weir


class Town(BaseModel):
    """A town."""

    name: str
    people: int


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"it rains in {city}"


def chat(weir: Weir, key: Key, model: str, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=weir.base_url, api_key=SecretStr(key.secret), model=model, **options)


def test_answers(weir: Weir, key: Key) -> None:
    answer = chat(weir, key, "echo").invoke("hello there")
    assert answer.text == "hello there"
    assert answer.usage_metadata
    assert answer.usage_metadata["output_tokens"] == 2


def test_a_stream_comes_in_pieces_and_leaving_it_frees_the_place(weir: Weir, key: Key, upstream: Upstream) -> None:
    stream = chat(weir, key, "endless").stream("hello there")
    pieces = [piece.text for piece, _ in zip(stream, range(3), strict=False)]
    stream.close()  # type: ignore[attr-defined]  # a generator, though its type says iterator
    assert pieces == ["word0 ", "word1 ", "word2 "]
    left_and_freed(weir, upstream)


@pytest.mark.parametrize("play", CITIES)
def test_calls_tools(weir: Weir, key: Key, play: str) -> None:
    model = chat(weir, key, play).bind_tools([get_weather])
    whole = model.invoke("weather?")
    said = AIMessageChunk("")
    for piece in model.stream("weather?"):
        said += piece  # type: ignore[assignment]  # chunks add up to a chunk
    for answer in (whole, said):
        assert [call["args"]["city"] for call in answer.tool_calls] == CITIES[play]
        assert {call["name"] for call in answer.tool_calls} == {"get_weather"}


def test_a_tools_answer_goes_back(weir: Weir, key: Key) -> None:
    model = chat(weir, key, "echo").bind_tools([get_weather])
    asked = HumanMessage("weather?")
    first = model.invoke([asked])
    told = [ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]) for call in first.tool_calls]
    assert model.invoke([asked, first, *told]).text == "it rains in weather?"


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_gives_structured_output(weir: Weir, key: Key, method: Any) -> None:
    model = chat(weir, key, "echo").with_structured_output(Town, method=method)
    assert model.invoke("hello there") == Town(name="hello there", people=1)


def test_speaks_responses(weir: Weir, key: Key) -> None:
    assert chat(weir, key, "echo", use_responses_api=True).invoke("hello there").text == "hello there"


def test_embeds(weir: Weir, key: Key) -> None:
    # Without `check_embedding_ctx_length=False` it fetches a tokenizer, and sends tokens instead of text.
    embeddings = OpenAIEmbeddings(
        base_url=weir.base_url, api_key=SecretStr(key.secret), model="echo", check_embedding_ctx_length=False
    )
    assert [len(vector) for vector in embeddings.embed_documents(["one", "two"])] == [64, 64]


def test_refusals_are_the_sdks_errors(weir: Weir, key: Key, strange_key: Key) -> None:
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
        chat(weir, strange_key, "echo").invoke("hello there")
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        chat(weir, key, "nobody").invoke("hello there")
    with pytest.raises(openai.BadRequestError, match="context_length_exceeded"):
        chat(weir, key, "bad_request").invoke("hello there")


def test_it_waits_as_told(weir: Weir, tight_key: Key) -> None:
    model = chat(weir, tight_key, "echo")
    for _ in range(2):
        model.invoke("hello there")
    waited_as_told(weir, tight_key)
