"""The FastAPI side in process: which models a key sees, how it stands, and errors in the same dialect."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.fakes.clock import run
from tests.flow.house import (
    KEY,
    KEY_LIMITS,
    PRINCIPAL,
    REVOKED_KEY,
    TEAM_LIMITS,
    UNKNOWN_KEY,
    House,
    chat,
    open_house,
    route,
)
from weir.api import models as models_api
from weir.api import ops, public
from weir.api.errors import WithHeaders
from weir.core.types import Limits
from weir.gateway.head import read_head
from weir.gateway.replies import limit_headers

ROUTES = (route("llama-3", aliases=("gpt-4o-mini",), owned_by="meta"), route("qwen/qwen-32b"), route("hidden"))


@asynccontextmanager
async def open_api(
    key: str | None = KEY, *, docs: bool = True, key_limits: Limits = KEY_LIMITS, team_limits: Limits = TEAM_LIMITS
) -> AsyncIterator[tuple[httpx.AsyncClient, House]]:
    async with open_house(routes=ROUTES, key_limits=key_limits, team_limits=team_limits) as house:
        house.keys.globs[PRINCIPAL.key_id] = (key_limits.models, team_limits.models)
        rooms = house.rooms
        api = models_api.router(rooms.auth, rooms.admission, rooms.routes, limit_headers, read_head)
        app = WithHeaders(public.create(api, docs=docs), rooms.drain.headers_of)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://weir", headers=headers) as client:
            yield client, house


def ids(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 200
    assert answer.json()["object"] == "list"
    return {model["id"] for model in answer.json()["data"]}


def error_of(answer: httpx.Response) -> dict[str, Any]:
    said = answer.json()
    assert set(said) == {"error"}
    assert set(said["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = said["error"]
    return error


ALL = {"llama-3", "gpt-4o-mini", "qwen/qwen-32b", "hidden"}
VISIBLE = [
    # models of the key    of the team        what it sees
    pytest.param((), (), ALL, id="no-patterns-are-all"),
    pytest.param(("*",), ("*",), ALL, id="star"),
    pytest.param(("llama-*",), (), {"llama-3", "gpt-4o-mini"}, id="a-model-and-so-its-alias"),
    pytest.param(("gpt-*",), (), {"gpt-4o-mini"}, id="an-alias-alone"),
    pytest.param((), ("qwen/*",), {"qwen/qwen-32b"}, id="of-the-team"),
    pytest.param(("llama-*", "hidden"), ("hidden", "qwen*"), {"hidden"}, id="both-must-allow"),
    pytest.param(("nothing",), (), set(), id="none"),
]


class TestModels:
    @pytest.mark.parametrize(("key", "team", "seen"), VISIBLE)
    def test_only_what_the_key_may_use(self, *, key: tuple[str, ...], team: tuple[str, ...], seen: set[str]) -> None:
        async def scene() -> None:
            async with open_api(key_limits=Limits(models=key), team_limits=Limits(models=team)) as (client, house):
                for path in ("/v1/models", "/models"):
                    assert ids(await client.get(path)) == seen
                for name in ALL:
                    one = await client.get(f"/v1/models/{name}")
                    assert one.status_code == (200 if name in seen else 404)
                    # The request path says the same, one for one.
                    house.backend.script = []
                    asked = await house.ask(chat(model=name)).over()
                    assert (asked.status == 404) == (name not in seen)

        run(scene)

    def test_one(self) -> None:
        async def scene() -> None:
            async with open_api() as (client, _):
                answer = await client.get("/v1/models/gpt-4o-mini")
                assert answer.json()["id"] == "gpt-4o-mini"
                assert answer.json()["object"] == "model"
                assert answer.json()["owned_by"] == "meta"
                assert isinstance(answer.json()["created"], int)
                assert (await client.get("/models/qwen/qwen-32b")).json()["id"] == "qwen/qwen-32b"

        run(scene)

    def test_hidden_ones_are_refused_as_if_they_were_not_there(self) -> None:
        async def scene() -> None:
            async with open_api(key_limits=Limits(models=("llama-*",))) as (client, _):
                hidden = await client.get("/v1/models/hidden")
                absent = await client.get("/v1/models/absent")
                assert error_of(hidden)["code"] == "model_not_found"
                assert hidden.json() == absent.json()

        run(scene)

    @pytest.mark.parametrize("key", [None, UNKNOWN_KEY, REVOKED_KEY], ids=["none", "unknown", "revoked"])
    @pytest.mark.parametrize("path", ["/v1/models", "/v1/models/llama-3", "/v1/limits"])
    def test_nobody_unknown_is_told(self, *, key: str | None, path: str) -> None:
        async def scene() -> None:
            async with open_api(key) as (client, _):
                answer = await client.get(path)
                assert answer.status_code == 401
                assert error_of(answer)["code"] == "invalid_api_key"
                assert error_of(answer)["message"].startswith("Incorrect API key provided")
                assert answer.headers["x-request-id"]

        run(scene)

    def test_two_authorizations_are_refused_here_too(self) -> None:
        async def scene() -> None:
            async with open_api(None) as (client, _):
                twice = [("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {UNKNOWN_KEY}")]
                answer = await client.get("/v1/models", headers=twice)
                assert answer.status_code in {400, 401}

        run(scene)


class TestLimits:
    def test_what_is_left_and_when_it_is_back(self) -> None:
        async def scene() -> None:
            limits = Limits(rpm=60, tpm=6_000, concurrency=3)
            async with open_api(key_limits=limits, team_limits=Limits(tpm=12_000, shadow=frozenset({"tokens"}))) as (
                client,
                house,
            ):
                house.backend.script = [b'data: {"choices":[],"usage":{"prompt_tokens":600}}\n\ndata: [DONE]\n\n']
                assert (await house.ask(chat(model="llama-3", stream=True)).over()).status == 200
                answer = await client.get("/v1/limits")
                said = answer.json()
                assert (said["object"], said["team"], said["key_id"]) == ("limits", "search", "key1")
                rows = {(row["scope"], row["unit"]): row for row in said["limits"]}
                assert rows["key", "requests"] == {
                    "scope": "key",
                    "unit": "requests",
                    "limit": 60,
                    "remaining": 59,
                    "shadow": False,
                    "window_seconds": 60,
                    "reset_seconds": 1.0,
                }
                assert rows["key", "tokens"]["remaining"] == 5_400
                assert rows["key", "tokens"]["reset_seconds"] == 6.0
                assert rows["key", "concurrency"]["limit"] == 3
                assert rows["key", "concurrency"]["remaining"] == 3
                assert rows["team", "tokens"]["shadow"] is True
                assert answer.headers["x-ratelimit-remaining-requests"] == "59"
                assert answer.headers["x-ratelimit-remaining-tokens"] == "5400"
                assert '"key-requests";r=59' in answer.headers["ratelimit"]
                assert (await client.get("/limits")).json() == said, "looking costs nothing"

        run(scene)

    def test_of_somebody_without_any(self) -> None:
        async def scene() -> None:
            async with open_api(key_limits=Limits(), team_limits=Limits()) as (client, _):
                answer = await client.get("/v1/limits")
                assert answer.json()["limits"] == []
                assert "ratelimit" not in answer.headers

        run(scene)


class TestOutage:
    def test_is_503_with_the_time_to_come_back(self) -> None:
        async def scene() -> None:
            async with open_api() as (client, house):
                house.keys.away = True
                answer = await client.get("/v1/models")
                assert answer.status_code == 503
                assert error_of(answer)["code"] == "limits_unavailable"
                assert answer.headers["retry-after"] == "1"

        run(scene)


class TestAround:
    def test_the_root_says_what_this_is(self) -> None:
        async def scene() -> None:
            async with open_api(None) as (client, _):
                said = (await client.get("/")).json()
                assert said["name"] == "weir"
                assert said["docs"] == "/docs"

        run(scene)

    def test_docs_describe_the_hot_paths(self) -> None:
        async def scene() -> None:
            async with open_api(None) as (client, _):
                schema = (await client.get("/openapi.json")).json()
                for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
                    responses = schema["paths"][path]["post"]["responses"]
                    assert {"200", "400", "401", "404", "413", "429", "502", "503", "504"} <= set(responses)
                assert {"/v1/models", "/v1/limits"} <= set(schema["paths"])
                assert (await client.get("/docs")).status_code == 200

        run(scene)

    def test_docs_can_be_switched_off(self) -> None:
        async def scene() -> None:
            async with open_api(None, docs=False) as (client, _):
                for path in ("/docs", "/openapi.json", "/redoc"):
                    assert (await client.get(path)).status_code == 404
                assert (await client.get("/")).json()["docs"] is None

        run(scene)

    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            pytest.param("GET", "/v1/nothing", 404, "not_found", id="no-such-path"),
            pytest.param("DELETE", "/v1/models", 405, "method_not_allowed", id="no-such-method"),
            pytest.param("GET", "/metrics", 404, "not_found", id="metrics-are-elsewhere"),
            pytest.param("GET", "/livez", 404, "not_found", id="health-is-elsewhere"),
            pytest.param("GET", "/v1/messages-of-mine", 404, "not_found", id="nothing-of-anthropics"),
        ],
    )
    def test_no_such_door(self, *, method: str, path: str, status: int, code: str) -> None:
        async def scene() -> None:
            async with open_api() as (client, _):
                answer = await client.request(method, path, headers={"x-request-id": "of-the-client"})
                assert answer.status_code == status
                assert error_of(answer)["code"] == code
                assert answer.headers["x-request-id"] == "of-the-client"
                if status == 405:
                    assert "GET" in answer.headers["allow"]

        run(scene)

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
    def test_a_door_for_post_alone_says_so(self, method: str) -> None:
        async def scene() -> None:
            async with open_api() as (client, _):
                answer = await client.request(method, "/v1/chat/completions")
                assert (answer.status_code, answer.headers["allow"]) == (405, "POST")

        run(scene)

    @pytest.mark.parametrize(("path", "status"), [("/v1/messages", 405), ("/v1/messages/batches", 404)])
    def test_no_such_door_where_anthropics_clients_knock(self, *, path: str, status: int) -> None:
        async def scene() -> None:
            async with open_api() as (client, _):
                answer = await client.get(path)
                said = answer.json()
                assert (answer.status_code, said["type"]) == (status, "error")
                assert set(said["error"]) == {"type", "message"}

        run(scene)


class TestOps:
    """The other port's application."""

    def test_ready_and_not_ready_and_alive(self) -> None:
        async def scene() -> None:
            reasons: list[str | None] = [None]
            drained: list[bool] = []
            caught_up: list[bool] = []

            app = ops.create(
                why_not_ready=lambda: reasons[0],
                catch_up=lambda: caught_up.append(True),
                exposition=lambda accept: (f"for {accept}".encode(), "text/plain; version=9"),
                drain=lambda: drained.append(True),
                requests=lambda limit: {"requests": [limit]},
            )
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://ops") as client:
                assert (await client.get("/readyz")).status_code == 200
                reasons[0] = "it is draining"
                answer = await client.get("/readyz")
                assert answer.status_code == 503
                assert "it is draining" in answer.text
                assert (await client.get("/livez")).status_code == 200
                metrics = await client.get("/metrics", headers={"accept": "x/y"})
                assert (metrics.text, caught_up) == ("for x/y", [True])
                assert metrics.headers["content-type"].startswith("text/plain; version=9")
                assert (await client.get("/requests")).json() == {"requests": [50]}
                assert (await client.get("/requests?limit=3")).json() == {"requests": [3]}
                assert (await client.get("/requests?limit=0")).status_code == 422
                assert drained == []
                assert (await client.post("/drain")).status_code == 202
                assert drained == [True]

        asyncio.run(scene())  # in real time: a scrape has a thread
