"""What a look at an endpoint finds, how often it looks, and that nothing a server does is more than a report."""

import asyncio

import pytest

from tests.fakes.clock import run
from tests.fakes.server import Says, Server
from weir.backend.health import HealthChecks, why_not
from weir.core.types import Endpoint, HealthCheck

CHECK = HealthCheck("/health", interval=10.0, timeout=2.0)
WELL: Says = (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",)


def answer(status: str) -> Says:
    return (f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode(),)


LOOKS = [
    pytest.param(WELL, None, id="200"),
    pytest.param(answer("204 No Content"), None, id="204"),
    pytest.param((b"HTTP/1.1 200 OK\r\n", b"\r\n"), None, id="in-pieces"),
    pytest.param((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",), None, id="the-body-is-no-matter"),
    pytest.param(answer("302 Found"), "status 302", id="302"),
    pytest.param(answer("404 Not Found"), "status 404", id="404"),
    pytest.param(answer("503 Service Unavailable"), "status 503", id="503"),
    pytest.param((), "nothing within 2 s", id="silence"),
    pytest.param((b"HTTP/1.1 200",), "nothing within 2 s", id="half-a-head"),
    pytest.param((None,), "Broken: the connection was closed", id="closes"),
    pytest.param((b"SSH-2.0\r\n",), "Broken: not HTTP", id="another-protocol"),
    pytest.param(ConnectionRefusedError("refused"), "ConnectionRefusedError: refused", id="refused"),
    pytest.param(TimeoutError(), "nothing within 2 s", id="connect-timeout"),
    pytest.param(OSError("no such host"), "OSError: no such host", id="no-such-host"),
    pytest.param(UnicodeError("label too long"), "UnicodeError: label too long", id="impossible-host"),
]


@pytest.mark.parametrize(("says", "found"), LOOKS)
def test_a_look(says: Says, found: str | None) -> None:
    async def scene() -> None:
        server = Server(says)
        why = await why_not(Endpoint("http://vllm-0:8000/v1"), CHECK, server)
        assert (why or "").startswith(found or "")
        assert (why is None) is (found is None)
        assert server.open == 0, "no connection is left"

    run(scene)


def test_what_is_asked() -> None:
    """At the server's root, not below the API's path; with the endpoint's own key."""

    async def scene() -> None:
        server = Server(WELL)
        endpoint = Endpoint("http://vllm-0:8000/v1", headers=(("authorization", "Bearer canary"),))
        await why_not(endpoint, HealthCheck("/health?deep=1"), server)
        (asked,) = server.heard
        head = asked.decode().split("\r\n")
        assert head[0] == "GET /health?deep=1 HTTP/1.1"
        assert {"host: vllm-0:8000", "authorization: Bearer canary", "connection: close"} <= set(head)
        assert asked.endswith(b"\r\n\r\n")

    run(scene)


class TestWatching:
    def test_every_interval_with_jitter_and_a_first_look_anywhere_in_it(self) -> None:
        async def scene() -> None:
            loop = asyncio.get_running_loop()
            began, times = loop.time(), []
            jitter = iter([0.3, 0.0, 0.999999, 0.5, 0.5])
            server = Server(WELL)
            checks = HealthChecks(lambda *_: times.append(loop.time()), lambda: next(jitter), lambda _: server)
            await checks.watch([Endpoint("http://a/v1", health=CHECK)])
            await asyncio.sleep(40)
            await checks.close()
            gaps = [round(after - before, 3) for before, after in zip([began, *times], times, strict=False)]
            assert gaps == [3, 9, 11, 10]

        run(scene)

    def test_whatever_happens_it_goes_on(self) -> None:
        async def scene() -> None:
            server = Server(WELL, (), ConnectionRefusedError("no"), (b"nonsense\r\n",), (None,), WELL)
            said: list[bool] = []
            checks = HealthChecks(lambda _, why: said.append(why is None), lambda: 0.5, lambda _: server)
            await checks.watch([Endpoint("http://a/v1", health=CHECK)])
            await asyncio.sleep(60)
            assert said == [True, False, False, False, False, True]
            await checks.close()
            assert server.open == 0

        run(scene)

    def test_only_those_that_want_it(self) -> None:
        async def scene() -> None:
            server = Server(WELL)
            said: list[str] = []
            checks = HealthChecks(lambda endpoint, _: said.append(endpoint.url), lambda: 0.5, lambda _: server)
            await checks.watch([Endpoint("http://a"), Endpoint("http://b", health=CHECK)])
            await asyncio.sleep(20)
            assert set(said) == {"http://b"}
            await checks.watch([Endpoint("http://c", health=CHECK)])
            said.clear()
            await asyncio.sleep(20)
            assert set(said) == {"http://c"}, "a new configuration replaces the old one"
            await checks.close()
            said.clear()
            await asyncio.sleep(100)
            assert said == []

        run(scene)

    def test_stopped_in_the_middle_of_a_look(self) -> None:
        async def scene() -> None:
            server = Server(())
            checks = HealthChecks(lambda *_: None, lambda: 0.0, lambda _: server)
            await checks.watch([Endpoint("http://a", health=CHECK)])
            await asyncio.sleep(1)
            assert server.open == 1
            await checks.close()
            await asyncio.sleep(0)
            assert server.open == 0

        run(scene)
