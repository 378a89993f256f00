"""Each engine through the whole house, by the real HTTP client: what it is asked, and what of its answer comes back.

What servers say stands in tests/unit/backend/engines/says.py.
"""

from operator import attrgetter
from typing import Any

import pytest

from tests.fakes.clock import run
from tests.unit.backend.engines.clouds import CLOUDS
from tests.unit.backend.engines.says import CHAT, EMBEDDINGS, MESSAGES, Refusal, Says
from tests.unit.backend.engines.served import EVENTS, JSON, KEY, Heard, ask, http, model, served
from tests.unit.backend.engines.servers import SERVERS


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)


SENT = [
    # the model, what a client asks for, the request line, the headers that matter
    pytest.param(
        model("generic"), CHAT, "POST /v1/chat/completions HTTP/1.1", {"authorization": f"Bearer {KEY}"}, id="generic"
    ),
    pytest.param(
        model("openai", "https://api.openai.com/v1"),
        "/responses",
        "POST /v1/responses HTTP/1.1",
        {"authorization": f"Bearer {KEY}", "host": "api.openai.com"},
        id="openai-responses",
    ),
    pytest.param(
        model("azure", "https://weir.openai.azure.com", api_version="2024-10-21", upstream_model="gpt 4o"),
        CHAT,
        "POST /openai/deployments/gpt%204o/chat/completions?api-version=2024-10-21 HTTP/1.1",
        {"api-key": KEY, "host": "weir.openai.azure.com"},
        id="azure",
    ),
    pytest.param(
        model("azure", "https://weir.openai.azure.com", api_version="2024-10-21"),
        EMBEDDINGS,
        "POST /openai/deployments/vendor%2FM/embeddings?api-version=2024-10-21 HTTP/1.1",
        {"api-key": KEY},
        id="azure-embeddings",
    ),
    pytest.param(
        model("azure", "https://weir.openai.azure.com/openai/v1"),
        CHAT,
        "POST /openai/v1/chat/completions HTTP/1.1",
        {"api-key": KEY},
        id="azure-v1",
    ),
    pytest.param(
        model("azure", "https://weir.openai.azure.com/openai/v1"),
        "/responses",
        "POST /openai/v1/responses HTTP/1.1",
        {"api-key": KEY},
        id="azure-v1-responses",
    ),
    pytest.param(
        model("azure", "https://weir.openai.azure.com", api_version="2024-10-21"),
        "/responses",
        "POST /openai/deployments/vendor%2FM/chat/completions?api-version=2024-10-21 HTTP/1.1",
        {"api-key": KEY},
        id="azure-has-no-responses-below-a-deployment",
    ),
    pytest.param(
        model("anthropic", "https://api.anthropic.com/v1"),
        MESSAGES,
        "POST /v1/messages HTTP/1.1",
        {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
        id="anthropic",
    ),
    pytest.param(
        model("anthropic", "https://api.anthropic.com/v1"),
        CHAT,
        "POST /v1/messages HTTP/1.1",
        {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
        id="anthropic-asked-for-chat",
    ),
    pytest.param(
        model("vllm"),
        "/messages/count_tokens",
        "POST /v1/messages/count_tokens HTTP/1.1",
        {"authorization": f"Bearer {KEY}", "anthropic-version": "2023-06-01"},
        id="vllm-count-tokens",
    ),
    pytest.param(
        model("vllm", serves=["chat", "messages", "tokenize"]),
        "/messages/count_tokens",
        "POST /tokenize HTTP/1.1",
        {"authorization": f"Bearer {KEY}"},
        id="an-older-vllm-count-tokens",
    ),
    pytest.param(
        model("llamacpp"), "/rerank", "POST /v1/rerank HTTP/1.1", {"authorization": f"Bearer {KEY}"}, id="llamacpp"
    ),
    pytest.param(
        model("tgi"),
        MESSAGES,
        "POST /v1/chat/completions HTTP/1.1",
        {"authorization": f"Bearer {KEY}"},
        id="tgi-asked-for-messages",
    ),
    pytest.param(
        model("ollama"), MESSAGES, "POST /v1/messages HTTP/1.1", {"authorization": f"Bearer {KEY}"}, id="ollama"
    ),
    pytest.param(
        model("openrouter", "https://openrouter.ai/api/v1"),
        CHAT,
        "POST /api/v1/chat/completions HTTP/1.1",
        {"authorization": f"Bearer {KEY}", "host": "openrouter.ai"},
        id="openrouter",
    ),
]


@pytest.mark.parametrize(("given", "path", "line", "headers"), SENT)
def test_what_goes_out(given: dict[str, Any], path: str, line: str, headers: dict[str, str]) -> None:
    async def scene() -> None:
        async with served(given, http(400, JSON, b'{"error":{"message":"No."}}')) as (house, server):
            await ask(house, path)
            heard = Heard.of(server.heard[0])
            assert heard.line == line
            assert heard.headers.items() >= headers.items()
            assert heard.body["model"] == given["upstream_model"]
            bearers = {"authorization", "api-key", "x-api-key"} & heard.headers.keys()
            assert len(bearers) == 1, "the key goes out once"

    run(scene)


@pytest.mark.parametrize("engine", ["tgi", "openai"])
def test_a_cap_has_the_name_that_the_engine_knows(engine: str) -> None:
    """Put there by us for who named none, and carried over from Messages."""
    field, other = ("max_tokens", "max_completion_tokens")[:: 1 if engine == "tgi" else -1]

    async def scene() -> None:
        for path, fields in ((CHAT, {"max_tokens": None}), (MESSAGES, {})):
            async with served(model(engine, default_max_tokens=50), http(400, JSON, b"{}")) as (house, server):
                await ask(house, path, **fields)
                body = Heard.of(server.heard[0]).body
                assert body[field] == 50
                assert other not in body

    run(scene)


ALL = (*CLOUDS, *SERVERS)


def url_of(says: Says) -> str:
    return "https://api.anthropic.com/v1" if says.engine == "anthropic" else "http://upstream:8000/v1"


EACH = pytest.mark.parametrize("says", ALL, ids=attrgetter("engine"))
STREAMING = pytest.mark.parametrize("says", [says for says in ALL if says.stream], ids=attrgetter("engine"))
REFUSALS = [
    pytest.param(says, refusal, id=f"{says.engine}-{refusal.status}-{number}")
    for says in ALL
    for number, refusal in enumerate(says.refusals)
]


@EACH
def test_a_whole_answer_comes_back_untouched(says: Says) -> None:
    async def scene() -> None:
        async with served(model(says.engine, url_of(says)), http(200, JSON, says.answer)) as (house, _):
            answer = await ask(house, says.path)
            assert (answer.status, answer.body) == (200, says.answer)
            assert house.record["tokens_from"] == "reported"
            assert await house.charged() == (1, says.usage)

    run(scene)


@STREAMING
def test_a_stream_comes_back_untouched(says: Says) -> None:
    stream = says.stream
    assert stream is not None
    assert stream.usage is not None
    options = {"stream_options": {"include_usage": True}} if says.path == CHAT else {}

    async def scene() -> None:
        async with served(model(says.engine, url_of(says)), http(200, EVENTS, stream.body)) as (house, _):
            answer = await ask(house, says.path, stream=True, **options)
            assert (answer.status, answer.body) == (200, stream.body)
            assert house.record["tokens_from"] == "reported"
            assert await house.charged() == (1, sum(stream.usage[:2]))

    run(scene)


@pytest.mark.parametrize(("says", "refusal"), REFUSALS)
def test_a_refusal_comes_back_untouched(says: Says, refusal: Refusal) -> None:
    async def scene() -> None:
        async with served(model(says.engine, url_of(says)), http(refusal.status, JSON, refusal.body)) as (house, _):
            answer = await ask(house, says.path)
            assert (answer.status, answer.body) == (refusal.status, refusal.body)
            assert house.record["outcome"] == "upstream_refused"
            assert await house.untouched()

    run(scene)


ERRORS_WITH_200 = [
    # engine, and what it says where others have a status
    pytest.param("lmstudio", b'{"error":"Unexpected endpoint or method. (POST /v1/x)"}', id="lmstudio"),
    pytest.param(
        "openrouter", b'{"error":{"code":502,"message":"Provider returned error"},"user_id":"u"}', id="router"
    ),
]


@pytest.mark.parametrize(("engine", "said"), ERRORS_WITH_200)
def test_an_error_with_status_200_comes_back_untouched(engine: str, said: bytes) -> None:
    async def scene() -> None:
        async with served(model(engine), http(200, JSON, said)) as (house, _):
            answer = await ask(house, CHAT)
            assert (answer.status, answer.body) == (200, said)

    run(scene)
