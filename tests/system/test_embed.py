"""All of Weir inside somebody else's program: mounted in FastAPI, or served by itself."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

import weir
from tests.system.harness import unique
from weir.settings import BadSettings

QUESTION = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def given(new_redis_url: Callable[[], str]) -> tuple[dict[str, Any], dict[str, str]]:
    secret = unique("sk-of-the-program")
    settings = {
        "redis": {"url": new_redis_url()},
        "models": [{"name": "echo", "backend": "echo"}],
        "drain": {"announce_seconds": 0, "deadline_seconds": 1},
        "teams": [{"name": "us", "rpm": 100, "keys": [{"digest": hashlib.sha256(secret.encode()).hexdigest()}]}],
    }
    return settings, {"authorization": f"Bearer {secret}"}


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://program")


async def ready(http: httpx.AsyncClient, path: str) -> None:
    async with asyncio.timeout(10):
        while (await http.get(path)).status_code != 200:
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("capsys")
def test_mounted(given: tuple[dict[str, Any], dict[str, str]]) -> None:
    settings, key = given
    endpoint = weir.create_app(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with endpoint.running():
            yield

    program = FastAPI(lifespan=lifespan)
    program.mount("/llm", endpoint)
    program.mount("/inside", endpoint.ops)

    async def scene() -> None:
        async with lifespan(program), client(program) as http:
            await ready(http, "/inside/readyz")
            answer = await http.post("/llm/v1/chat/completions", json=QUESTION, headers=key)
            assert answer.json()["choices"][0]["message"]["content"] == "hello"
            assert answer.headers["x-ratelimit-limit-requests"] == "100"
            assert (await http.post("/llm/v1/chat/completions", json=QUESTION)).status_code == 401
            assert (await http.get("/llm/v1/models", headers=key)).json()["data"][0]["id"] == "echo"
            assert "weir_requests_total" in (await http.get("/inside/metrics")).text

    asyncio.run(scene())


@pytest.mark.usefixtures("capsys")
def test_by_itself_its_lifespan_starts_and_ends_it(given: tuple[dict[str, Any], dict[str, str]]) -> None:
    settings, key = given
    endpoint = weir.create_app(settings)

    async def scene() -> None:
        told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        living = asyncio.ensure_future(endpoint({"type": "lifespan"}, told.get, said.put))
        await told.put({"type": "lifespan.startup"})
        assert (await said.get())["type"] == "lifespan.startup.complete"
        async with client(endpoint) as http:
            await ready(http, "/")
            async with asyncio.timeout(10):
                while (await http.post("/v1/chat/completions", json=QUESTION, headers=key)).status_code != 200:
                    await asyncio.sleep(0.02)  # until the team is written
        await told.put({"type": "lifespan.shutdown"})
        assert (await said.get())["type"] == "lifespan.shutdown.complete"
        await living
        with pytest.raises(RuntimeError, match="not running"):
            await endpoint({"type": "http", "path": "/", "headers": []}, told.get, said.put)

    asyncio.run(scene())


def test_settings_that_cannot_be() -> None:
    with pytest.raises(BadSettings, match="modles"):
        weir.create_app({"modles": []})
    with pytest.raises(BadSettings, match="nothing to serve"):
        weir.create_app({})
