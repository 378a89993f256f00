"""Which trouble it was: what may be tried again depends on whether a byte of an answer has come."""

import pytest

from tests.fakes.clock import run
from tests.fakes.server import Says, Server
from weir.backend.openai import _Sending
from weir.core.errors import UpstreamBroke, UpstreamFailed, UpstreamTimeout, UpstreamTrouble, UpstreamUnreachable

MESSAGE = b"POST / HTTP/1.1\r\n\r\n"
OK: Says = (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n"

TROUBLE = [
    pytest.param(ConnectionRefusedError("no"), UpstreamUnreachable, id="refused"),
    pytest.param(OSError("no such host"), UpstreamUnreachable, id="no-such-host"),
    pytest.param(TimeoutError(), UpstreamTimeout, id="connect-timeout"),
    pytest.param((None,), UpstreamBroke, id="closed-before-a-byte"),
    pytest.param((b"H", None), UpstreamFailed, id="closed-after-one-byte"),
    pytest.param((HEAD, None), UpstreamFailed, id="closed-in-the-head"),
    pytest.param((b"SSH-2.0\r\n",), UpstreamFailed, id="another-protocol"),
    pytest.param((b"\x00",), UpstreamFailed, id="garbage"),
    pytest.param((HEAD + b"content-encoding: gzip\r\n\r\n",), UpstreamFailed, id="compressed"),
    pytest.param((b"HTTP/1.1 100 Continue\r\n\r\n", None), UpstreamFailed, id="closed-after-100"),
]


@pytest.mark.parametrize(("says", "kind"), TROUBLE)
def test_trouble_before_an_answer(says: Says, kind: type[UpstreamTrouble]) -> None:
    async def scene() -> None:
        server = Server(says)
        with pytest.raises(UpstreamTrouble) as raised:
            async with _Sending(server, MESSAGE, 2):
                raise AssertionError("never entered")
        assert type(raised.value) is kind
        assert server.open == 0, "a connection is left"

    run(scene)


@pytest.mark.parametrize("reused", [False, True])
def test_a_connection_that_had_served_before(reused: bool) -> None:
    """Closed as idle in the moment in which it is used again: nobody has read the request."""

    async def scene() -> None:
        server = Server(*([OK] * reused), (None,))
        if reused:
            async with _Sending(server, MESSAGE, 2) as response:
                assert await response.read() == b"ok"
        with pytest.raises(UpstreamBroke) as raised:
            async with _Sending(server, MESSAGE, 2):
                raise AssertionError("never entered")
        assert raised.value.reused is reused
        assert server.opened == 1

    run(scene)


def test_a_second_answer_begins_anew() -> None:
    """What is known of an answer is not known of the next one on its connection."""

    async def scene() -> None:
        server = Server(OK, OK, (None,))
        for _ in range(2):
            async with _Sending(server, MESSAGE, 2) as response:
                await response.read()
        with pytest.raises(UpstreamBroke):
            await _Sending(server, MESSAGE, 2).__aenter__()

    run(scene)


def test_the_request_is_not_kept_while_its_answer_streams() -> None:
    async def scene() -> None:
        sending = _Sending(Server(OK), MESSAGE, 2)
        async with sending:
            assert sending._message == b""

    run(scene)
