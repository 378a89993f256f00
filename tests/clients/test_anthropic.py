"""Anthropic's SDK for Python: messages, tools, images, token counts, by either of its two headers for a key."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from pydantic import BaseModel

from tests.clients.ring import CITIES, CITY, PIXEL, left_and_freed, waited_as_told
from tests.system.harness import Key, Upstream, Weir

HELLO: Any = {"max_tokens": 64, "messages": [{"role": "user", "content": "hello there"}]}
TOOL: Any = {"name": "get_weather", "description": "The weather of a city.", "input_schema": CITY}


class Town(BaseModel):
    name: str
    people: int


@pytest.fixture
def client(root: str, key: Key) -> Iterator[Anthropic]:
    with Anthropic(base_url=root, api_key=key.secret, max_retries=0) as client:
        yield client


def test_answers(client: Anthropic) -> None:
    answer = client.messages.create(model="echo", system="be brief", **HELLO)
    assert [(block.type, block.text) for block in answer.content if block.type == "text"] == [("text", "hello there")]
    assert (answer.role, answer.stop_reason) == ("assistant", "end_turn")
    assert answer.usage.output_tokens == 2
    assert answer.usage.input_tokens >= 2


def test_takes_the_key_as_a_bearer_too(root: str, key: Key) -> None:
    with Anthropic(base_url=root, auth_token=key.secret) as client:
        assert client.messages.create(model="echo", **HELLO).content


def test_says_why_it_stopped(client: Anthropic) -> None:
    assert client.messages.create(model="echo", **HELLO | {"max_tokens": 1}).stop_reason == "max_tokens"


def test_a_stream_comes_in_pieces_and_leaving_it_frees_the_place(
    client: Anthropic, weir: Weir, upstream: Upstream
) -> None:
    with client.messages.stream(model="endless", **HELLO) as stream:
        pieces = [piece for piece, _ in zip(stream.text_stream, range(3), strict=False)]
        assert weir.metric("weir_in_flight_requests") == 1
    assert pieces == ["word0 ", "word1 ", "word2 "]
    left_and_freed(weir, upstream)


def test_a_stream_ends_with_the_whole(client: Anthropic) -> None:
    with client.messages.stream(model="chat", **HELLO) as stream:
        kinds = [event.type for event in stream]
        whole = stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert [block.text for block in whole.content if block.type == "text"] == ["word0 word1 word2 "]
    assert whole.stop_reason == "end_turn"
    assert whole.usage.output_tokens == 3


@pytest.mark.parametrize("play", CITIES)
def test_calls_tools(client: Anthropic, play: str) -> None:
    with client.messages.stream(model=play, tools=[TOOL], **HELLO) as stream:
        said = stream.get_final_message()
    whole = client.messages.create(model=play, tools=[TOOL], **HELLO)
    for answer in (said, whole):
        calls: list[Any] = [block for block in answer.content if block.type == "tool_use"]
        assert [call.name for call in calls] == ["get_weather"] * len(CITIES[play])
        assert [call.input for call in calls] == [{"city": city} for city in CITIES[play]]
        assert len({call.id for call in calls}) == len(calls)
        assert answer.stop_reason == "tool_use"


def test_a_tools_answer_goes_back(client: Anthropic) -> None:
    first = client.messages.create(model="echo", tools=[TOOL], **HELLO)
    (call,) = [block for block in first.content if block.type == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "it rains"}
    history: Any = [
        *HELLO["messages"],
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    answer: Any = client.messages.create(model="echo", max_tokens=64, messages=history, tools=[TOOL])
    assert answer.content[0].text == "it rains"


def test_shows_images(client: Anthropic, upstream: Upstream) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    content: Any = [image, {"type": "text", "text": "what is this?"}]
    assert client.messages.create(model="chat", max_tokens=64, messages=[{"role": "user", "content": content}])
    (record,) = upstream.records()
    parts = {part["type"]: part for part in record["json"]["messages"][-1]["content"]}
    assert parts["image_url"]["image_url"]["url"] == f"data:image/png;base64,{PIXEL}"
    assert parts["text"]["text"] == "what is this?"


def test_parses_structured_output(client: Anthropic) -> None:
    answer = client.messages.parse(model="echo", output_format=Town, **HELLO)
    assert answer.parsed_output == Town(name="hello there", people=1)


def test_counts_tokens_before_it_asks(client: Anthropic) -> None:
    few = client.messages.count_tokens(model="echo", messages=HELLO["messages"]).input_tokens
    more = client.messages.count_tokens(model="echo", messages=HELLO["messages"], system="word " * 200).input_tokens
    assert 0 < few < more


REFUSED = [
    # whose key, which model                 the SDK's word             type in Anthropic's words  ours
    pytest.param(
        "strange", "echo", anthropic.AuthenticationError, "authentication_error", "Incorrect API key", id="401"
    ),
    pytest.param("ours", "nobody", anthropic.NotFoundError, "not_found_error", "does not exist", id="404"),
    pytest.param(
        "ours", "bad_request", anthropic.BadRequestError, "invalid_request_error", "context_length_exceeded", id="400"
    ),
]


@pytest.mark.parametrize(("whose", "model", "error", "kind", "words"), REFUSED)
def test_refusals_are_its_own_errors(
    client: Anthropic,
    strange_key: Key,
    whose: str,
    model: str,
    error: type[anthropic.APIStatusError],
    kind: str,
    words: str,
) -> None:
    client = client if whose == "ours" else client.with_options(api_key=strange_key.secret)
    with pytest.raises(error, match=words) as caught:
        client.messages.create(model=model, **HELLO)
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["request_id"] == caught.value.request_id


def test_a_bad_request_of_ours_says_what_is_wrong(client: Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.messages.create(model="echo", **HELLO | {"max_tokens": -1})


def test_a_stream_that_fails_says_so(client: Anthropic) -> None:
    with (
        pytest.raises(anthropic.APIStatusError, match="engine died"),
        client.messages.stream(model="error_event", **HELLO) as stream,
    ):
        list(stream)


def test_it_waits_as_told(weir: Weir, root: str, tight_key: Key) -> None:
    with Anthropic(base_url=root, api_key=tight_key.secret) as client:
        for _ in range(2):
            client.messages.create(model="echo", **HELLO)
    waited_as_told(weir, tight_key)
