"""A house with one model of the configuration, whose server is asked by the real HTTP client and answers from a list."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.fakes.client import Answer
from tests.fakes.server import Server
from tests.flow.house import House, open_house
from tests.unit.backend.engines.compiled import compiled
from tests.unit.backend.engines.says import CHAT, EMBEDDINGS, MESSAGES
from weir.backend.http1 import origin_of
from weir.backend.openai import OpenAIBackend

KEY = "of-the-upstream"
HELLO = [{"role": "user", "content": "hello"}]
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": HELLO, "max_tokens": 50},
    EMBEDDINGS: {"model": "m", "input": "hello"},
    MESSAGES: {"model": "m", "messages": HELLO, "max_tokens": 50},
    "/messages/count_tokens": {"model": "m", "messages": HELLO},
    "/responses": {"model": "m", "input": "hello", "max_output_tokens": 50},
    "/rerank": {"model": "m", "query": "what?", "documents": ["a", "b"]},
}
JSON, EVENTS = "application/json", "text/event-stream"


def model(engine: str, url: str = "http://upstream:8000/v1", **more: Any) -> dict[str, Any]:
    """As in weir.yaml; what begins with `api_` is the endpoint's."""
    own = {name: more.pop(name) for name in [*more] if name.startswith("api_")}
    kind = {"backend": "anthropic"} if engine == "anthropic" else {"engine": engine}
    endpoint = {"url": url, "api_key_env": "UPSTREAM_KEY", **own}
    return {"upstream_model": "vendor/M", "retries": 0, "endpoints": [endpoint], **kind, **more}


def http(status: int, content_type: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %d x\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        status,
        content_type.encode(),
        len(body),
        body,
    )


class Heard(NamedTuple):
    """A request as a server reads it."""

    line: str
    headers: dict[str, str]
    body: dict[str, Any]

    @classmethod
    def of(cls, message: bytes) -> "Heard":
        head, _, body = message.partition(b"\r\n\r\n")
        line, *rest = head.decode("latin-1").split("\r\n")
        headers = dict(header.split(": ", 1) for header in rest)
        assert len(headers) == len(rest), "a header is there twice"
        assert int(headers["content-length"]) == len(body)
        return cls(line, headers, json.loads(body))


@asynccontextmanager
async def served(given: dict[str, Any], *answer: bytes) -> AsyncIterator[tuple[House, Server]]:
    """A house with this one model, whose server says this to whoever asks."""
    route = compiled(**given)
    backend = OpenAIBackend()
    server = Server(answer)
    backend._pools[origin_of(route.endpoints[0].url)] = server
    async with open_house(routes=[route], backends={"openai": backend}) as house:
        yield house, server
    await backend.close()


async def ask(house: House, path: str, **fields: Any) -> Answer:
    """A small request there; fields that are None are left out."""
    whole = {name: value for name, value in (ASKED[path] | fields).items() if value is not None}
    return await house.ask(json.dumps(whole).encode(), path=f"/v1{path}").over()
