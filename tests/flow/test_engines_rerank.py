"""Jina's rerank for a model on TEI, whose own is at the server's root."""

import json

import pytest

from tests.fakes.clock import run
from tests.unit.backend.engines.served import JSON, Heard, ask, http, model, served

RANKS = b'[{"index":1,"score":0.98},{"index":0,"score":0.02}]'
TEI = "http://upstream:8000/v1"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "of-the-upstream")


def test_what_goes_out_and_what_comes_back() -> None:
    async def scene() -> None:
        async with served(model("tei", TEI), http(200, JSON, RANKS)) as (house, server):
            answer = await ask(house, "/rerank", top_n=1)
            assert answer.status == 200
            assert answer.json()["results"] == [{"index": 1, "relevance_score": 0.98, "document": {"text": "b"}}]
            heard = Heard.of(server.heard[0])
            assert heard.line == "POST /rerank HTTP/1.1"
            assert heard.headers["authorization"] == "Bearer of-the-upstream"
            assert heard.body == {"query": "what?", "texts": ["a", "b"]}
            assert (house.record["outcome"], house.record["output_tokens"]) == ("ok", 0)

    run(scene)


def test_a_refusal_is_openais_with_the_servers_words() -> None:
    said = {"error": "batch size 64 > maximum allowed batch size 32", "error_type": "validation"}

    async def scene() -> None:
        async with served(model("tei", TEI), http(413, JSON, json.dumps(said).encode())) as (house, _):
            answer = await ask(house, "/rerank")
            assert (answer.status, answer.error["message"]) == (413, said["error"])
            assert await house.untouched()

    run(scene)


def test_what_tei_has_no_word_for_is_refused_before_anybody_is_asked() -> None:
    async def scene() -> None:
        async with served(model("tei", TEI), http(200, JSON, RANKS)) as (house, server):
            answer = await ask(house, "/rerank", max_tokens_per_doc=100)
            assert (answer.status, answer.error["param"]) == (400, "max_tokens_per_doc")
            assert server.heard == []
            assert await house.untouched()

    run(scene)
