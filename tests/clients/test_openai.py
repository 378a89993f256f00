"""OpenAI's own SDK for Python, in the two major versions that people hold: chat, responses, embeddings."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.clients.ring import CITIES, CITY, left_and_freed, waited_as_told
from tests.system.harness import Key, Upstream, Weir

HELLO: Any = [{"role": "user", "content": "hello there"}]
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
FLAT_TOOL: Any = {"type": "function", "name": "get_weather", "parameters": CITY, "strict": True}


class Town(BaseModel):
    name: str
    people: int


@pytest.fixture
def client(weir: Weir, key: Key) -> Iterator[OpenAI]:
    with OpenAI(base_url=weir.base_url, api_key=key.secret, max_retries=0) as client:
        yield client


class TestChat:
    def test_answers(self, client: OpenAI) -> None:
        answer = client.chat.completions.create(model="echo", messages=HELLO)
        assert answer.choices[0].message.content == "hello there"
        assert answer.usage
        assert answer.usage.completion_tokens == 2

    def test_a_stream_comes_in_pieces_and_leaving_it_frees_the_place(
        self, client: OpenAI, weir: Weir, upstream: Upstream
    ) -> None:
        with client.chat.completions.create(model="endless", messages=HELLO, stream=True) as stream:
            pieces = [chunk.choices[0].delta.content for chunk, _ in zip(stream, range(3), strict=False)]
            assert weir.metric("weir_in_flight_requests") == 1
        assert pieces == ["word0 ", "word1 ", "word2 "]
        left_and_freed(weir, upstream)

    @pytest.mark.parametrize("play", CITIES)
    def test_calls_tools(self, client: OpenAI, play: str) -> None:
        with client.chat.completions.stream(model=play, messages=HELLO, tools=[TOOL]) as stream:
            said = stream.get_final_completion().choices[0]
        whole = client.chat.completions.create(model=play, messages=HELLO, tools=[TOOL]).choices[0]
        for choice in (said, whole):
            calls: Any = choice.message.tool_calls
            assert [json.loads(call.function.arguments)["city"] for call in calls] == CITIES[play]
            assert choice.finish_reason == "tool_calls"

    def test_parses_structured_output(self, client: OpenAI) -> None:
        answer = client.chat.completions.parse(model="echo", messages=HELLO, response_format=Town)
        assert answer.choices[0].message.parsed == Town(name="hello there", people=1)

    def test_a_stream_that_fails_says_so(self, client: OpenAI) -> None:
        with pytest.raises(openai.APIError, match="engine died"):
            list(client.chat.completions.create(model="error_event", messages=HELLO, stream=True))


class TestEmbeddings:
    def test_come_as_numbers(self, client: OpenAI) -> None:
        answer = client.embeddings.create(model="echo", input=["one", "two"])
        assert [len(one.embedding) for one in answer.data] == [64, 64]


class TestResponses:
    def test_answers(self, client: OpenAI) -> None:
        answer = client.responses.create(model="echo", input="hello there", instructions="be brief")
        assert answer.output_text == "hello there"
        assert answer.status == "completed"
        assert answer.usage
        assert answer.usage.output_tokens == 2

    def test_a_stream_comes_in_pieces_and_leaving_it_frees_the_place(
        self, client: OpenAI, weir: Weir, upstream: Upstream
    ) -> None:
        pieces: list[str] = []
        with client.responses.create(model="endless", input="hello there", stream=True) as stream:
            for event in stream:
                if event.type == "response.output_text.delta":
                    pieces.append(event.delta)
                if len(pieces) == 3:
                    break
        assert pieces == ["word0 ", "word1 ", "word2 "]
        left_and_freed(weir, upstream)

    def test_a_stream_ends_with_the_whole(self, client: OpenAI) -> None:
        with client.responses.stream(model="chat", input="hello there") as stream:
            deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            whole = stream.get_final_response()
        assert deltas == whole.output_text == "word0 word1 word2 "

    @pytest.mark.parametrize("play", CITIES)
    def test_calls_tools(self, client: OpenAI, play: str) -> None:
        with client.responses.stream(model=play, input="weather?", tools=[FLAT_TOOL]) as stream:
            said = stream.get_final_response()
        whole = client.responses.create(model=play, input="weather?", tools=[FLAT_TOOL])
        for answer in (said, whole):
            calls = [item for item in answer.output if item.type == "function_call"]
            assert [json.loads(call.arguments)["city"] for call in calls] == CITIES[play]
            assert all(call.call_id for call in calls)

    def test_a_tools_answer_goes_back(self, client: OpenAI) -> None:
        first = client.responses.create(model="echo", input="weather?", tools=[FLAT_TOOL])
        (call,) = [item for item in first.output if item.type == "function_call"]
        told: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "it rains"}
        history: Any = [{"role": "user", "content": "weather?"}, call.model_dump(exclude_none=True), told]
        assert client.responses.create(model="echo", input=history, tools=[FLAT_TOOL]).output_text == "it rains"

    def test_parses_structured_output(self, client: OpenAI) -> None:
        answer = client.responses.parse(model="echo", input="hello there", text_format=Town)
        assert answer.output_parsed == Town(name="hello there", people=1)


REFUSED = [
    # whose key, which model      the SDK's word              ours
    pytest.param("strange", "echo", openai.AuthenticationError, "Incorrect API key provided", id="401"),
    pytest.param("ours", "nobody", openai.NotFoundError, "does not exist", id="404"),
    pytest.param("ours", "bad_request", openai.BadRequestError, "context_length_exceeded", id="400"),
]


def ask(client: OpenAI, path: str, model: str) -> Any:
    if path == "chat":
        return client.chat.completions.create(model=model, messages=HELLO)
    return client.responses.create(model=model, input="hello there")


@pytest.mark.parametrize(("whose", "model", "error", "words"), REFUSED)
@pytest.mark.parametrize("path", ["chat", "responses"])
def test_refusals_are_its_own_errors(
    client: OpenAI,
    strange_key: Key,
    whose: str,
    model: str,
    error: type[openai.APIStatusError],
    words: str,
    path: str,
) -> None:
    client = client if whose == "ours" else client.with_options(api_key=strange_key.secret)
    with pytest.raises(error, match=words) as caught:
        ask(client, path, model)
    assert caught.value.request_id
    assert caught.value.type


@pytest.mark.parametrize("path", ["chat", "responses"])
def test_it_waits_as_told(weir: Weir, tight_key: Key, path: str) -> None:
    with OpenAI(base_url=weir.base_url, api_key=tight_key.secret) as client:
        for _ in range(2):
            ask(client, path, "echo")
    waited_as_told(weir, tight_key)
