"""What engines say, through a translation: in the client's dialect, with the server's words and its count of tokens."""

import json
from operator import attrgetter
from typing import Any

import pytest

from tests.fakes.clock import run
from tests.fakes.streams import events_of
from tests.unit.backend.engines.clouds import ANTHROPIC, CLOUDS
from tests.unit.backend.engines.says import CHAT, MESSAGES, WORDS, Refusal, Says
from tests.unit.backend.engines.served import EVENTS, JSON, ask, http, model, served
from tests.unit.backend.engines.servers import LMSTUDIO, OLLAMA, SERVERS
from weir.dialect.anthropic_errors import error_type

RESPONSES = "/responses"
ALL = (*CLOUDS, *SERVERS)
OF_CHAT = [says for says in ALL if says.path == CHAT]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "of-the-upstream")


def of_chat_alone(says: Says) -> dict[str, Any]:
    """Also those that know more by now: their older versions did not."""
    return model(says.engine, serves=["chat"])


EACH = pytest.mark.parametrize("says", OF_CHAT, ids=attrgetter("engine"))
ASKED = pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
STREAMING = pytest.mark.parametrize("says", [says for says in OF_CHAT if says.stream], ids=attrgetter("engine"))
BREAKING = pytest.mark.parametrize("says", [says for says in OF_CHAT if says.broken], ids=attrgetter("engine"))
REFUSALS = [
    pytest.param(says, refusal, id=f"{says.engine}-{refusal.status}-{number}")
    for says in OF_CHAT
    for number, refusal in enumerate(says.refusals)
]


def text_in(path: str, answer: Any) -> str:
    if path == MESSAGES:
        return "".join(block["text"] for block in answer["content"] if block["type"] == "text")
    messages = (item for item in answer["output"] if item["type"] == "message")
    return "".join(part["text"] for message in messages for part in message["content"])


def last_event(body: bytes) -> Any:
    return json.loads(events_of(body)[-1])


@ASKED
@EACH
def test_a_whole_answer(says: Says, path: str) -> None:
    async def scene() -> None:
        async with served(of_chat_alone(says), http(200, JSON, says.answer)) as (house, _):
            answer = await ask(house, path)
            assert answer.status == 200
            assert text_in(path, answer.json()) == WORDS
            assert house.record["tokens_from"] == "reported"
            assert await house.charged() == (1, says.usage)

    run(scene)


@STREAMING
def test_a_stream_in_messages(says: Says) -> None:
    stream = says.stream
    assert stream is not None
    assert stream.usage is not None

    async def scene() -> None:
        async with served(of_chat_alone(says), http(200, EVENTS, stream.body)) as (house, _):
            answer = await ask(house, MESSAGES, stream=True)
            assert answer.status == 200
            assert last_event(answer.body)["type"] == "message_stop"
            assert house.record["tokens_from"] == "reported"
            assert await house.charged() == (1, sum(stream.usage[:2]))

    run(scene)


@ASKED
@BREAKING
def test_a_stream_that_fails_tells_the_servers_words(says: Says, path: str) -> None:
    broken = says.broken
    assert broken is not None

    async def scene() -> None:
        async with served(of_chat_alone(says), http(200, EVENTS, broken.body)) as (house, _):
            answer = await ask(house, path, stream=True)
            events = [json.loads(event) for event in events_of(answer.body)]
            (error,) = [event for event in events if event["type"] == "error"]
            assert error.get("error", error)["message"] == says.last_words
            assert events[-1]["type"] in {"error", "response.failed"}
            assert house.record["outcome"] == "upstream_error"

    run(scene)


@ASKED
def test_ollama_swallows_its_error_and_ends_without_a_word(path: str) -> None:
    """Its middleware reads {"error": ...} as an empty piece of an answer, and closes."""
    assert OLLAMA.stream is not None
    pieces = OLLAMA.stream.body.split(b"\n\n")
    body = pieces[0] + b"\n\n" + pieces[0].replace(b'"Hm."', b'""') + b"\n\n"

    async def scene() -> None:
        async with served(of_chat_alone(OLLAMA), http(200, EVENTS, body)) as (house, _):
            answer = await ask(house, path, stream=True)
            assert last_event(answer.body)["type"] == "error"
            assert house.record["outcome"] == "upstream_error"

    run(scene)


@pytest.mark.parametrize(("says", "refusal"), REFUSALS)
def test_a_refusal_in_messages(says: Says, refusal: Refusal) -> None:
    async def scene() -> None:
        async with served(of_chat_alone(says), http(refusal.status, JSON, refusal.body)) as (house, _):
            answer = await ask(house, MESSAGES)
            assert answer.status == refusal.status
            error = {"type": error_type(refusal.status), "message": refusal.words}
            assert answer.json().items() >= {"type": "error", "error": error}.items()
            assert house.record["outcome"] == "upstream_refused"
            assert await house.untouched()

    run(scene)


@pytest.mark.parametrize("refusal", ANTHROPIC.refusals, ids=attrgetter("status"))
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_a_refusal_of_claude(path: str, refusal: Refusal) -> None:
    async def scene() -> None:
        given = model("anthropic", "https://api.anthropic.com/v1")
        async with served(given, http(refusal.status, JSON, refusal.body)) as (house, _):
            answer = await ask(house, path)
            assert answer.status == refusal.status
            assert answer.error["message"] == refusal.words
            assert await house.untouched()

    run(scene)


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_a_stream_of_claude_that_fails(path: str) -> None:
    broken = ANTHROPIC.broken
    assert broken is not None

    async def scene() -> None:
        given = model("anthropic", "https://api.anthropic.com/v1")
        async with served(given, http(200, EVENTS, broken.body)) as (house, _):
            answer = await ask(house, path, stream=True)
            assert ANTHROPIC.last_words in str([json.loads(event) for event in events_of(answer.body)][-2:])
            assert b"[DONE]" not in answer.body
            assert house.record["outcome"] == "upstream_error"

    run(scene)


NO_ANSWER = b'{"error":"Unexpected endpoint or method. (POST /v1/chat/completions)"}'


@ASKED
def test_lm_studios_200_with_an_error_is_no_answer(path: str) -> None:
    async def scene() -> None:
        async with served(of_chat_alone(LMSTUDIO), http(200, JSON, NO_ANSWER)) as (house, _):
            answer = await ask(house, path)
            assert answer.status == 502
            assert await house.untouched()

    run(scene)
