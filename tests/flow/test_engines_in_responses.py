"""What engines of chat say, told as Responses: their streams, and their refusals in OpenAI's error object."""

import json
from operator import attrgetter

import pytest

from tests.fakes.clock import run
from tests.fakes.streams import events_of
from tests.unit.backend.engines.clouds import CLOUDS
from tests.unit.backend.engines.says import CHAT, Refusal, Says
from tests.unit.backend.engines.served import EVENTS, JSON, ask, http, model, served
from tests.unit.backend.engines.servers import SERVERS

RESPONSES = "/responses"
OF_CHAT = [says for says in (*CLOUDS, *SERVERS) if says.path == CHAT]
REFUSALS = [
    pytest.param(says, refusal, id=f"{says.engine}-{refusal.status}-{number}")
    for says in OF_CHAT
    for number, refusal in enumerate(says.refusals)
]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "of-the-upstream")


@pytest.mark.parametrize("says", OF_CHAT, ids=attrgetter("engine"))
def test_a_stream(says: Says) -> None:
    stream = says.stream
    assert stream is not None
    assert stream.usage is not None

    async def scene() -> None:
        async with served(model(says.engine, serves=["chat"]), http(200, EVENTS, stream.body)) as (house, _):
            answer = await ask(house, RESPONSES, stream=True)
            assert answer.status == 200
            last = json.loads(events_of(answer.body)[-1])
            assert last["type"] in {"response.completed", "response.incomplete"}
            assert last["response"]["usage"]["total_tokens"] == sum(stream.usage[:2])
            assert await house.charged() == (1, sum(stream.usage[:2]))

    run(scene)


@pytest.mark.parametrize(("says", "refusal"), REFUSALS)
def test_a_refusal(says: Says, refusal: Refusal) -> None:
    async def scene() -> None:
        given = model(says.engine, serves=["chat"])
        async with served(given, http(refusal.status, JSON, refusal.body)) as (house, _):
            answer = await ask(house, RESPONSES)
            assert answer.status == refusal.status
            error = answer.json()["error"]
            assert error["message"] == refusal.words
            assert await house.untouched()

    run(scene)
