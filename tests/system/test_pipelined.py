"""Requests that come behind one another on one connection, on the server that runs: answers keep their order."""

import asyncio
import socket
import time

import pytest
import uvicorn

from weir.cli.protocol import Protocol
from weir.core.asgi import Receive, Scope, Send
from weir.core.outbox import MANY
from weir.gateway.wire import wire_of

CLIENTS = MANY * 2
TWO = b"POST /hot HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\nGET /other HTTP/1.1\r\nhost: a\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/hot":
        wire_of(scope, receive, send).answer(200, [], b"first")
    else:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        await send({"type": "http.response.body", "body": b"second"})


@pytest.mark.parametrize("clients", [1, CLIENTS], ids=["alone", "many-at-once"])
def test_an_answer_never_overtakes_the_one_before(clients: int) -> None:
    """Many at once, so that what is answered at once is held for a moment; the other answer is uvicorn's to write."""
    asyncio.run(answers_in_order(clients))


async def answers_in_order(clients: int) -> None:
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http=Protocol, ws="none", lifespan="off", log_config=None))
    serving = loop.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    connections = [socket.create_connection(listener.getsockname()) for _ in range(clients)]
    await asyncio.sleep(0.1)  # all of them are accepted
    for connection in connections:
        connection.sendall(TWO)
    time.sleep(0.05)  # noqa: ASYNC251 - the loop is to find all of it in one turn
    readers = [await asyncio.open_connection(sock=connection) for connection in connections]
    try:
        async with asyncio.timeout(10):
            for reader, _ in readers:
                seen = await reader.readuntil(b"second")
                assert seen.count(b"HTTP/1.1 200") == 2
                assert seen.index(b"first") < seen.index(b"second")
    finally:
        for _, writer in readers:
            writer.close()
        server.should_exit = True
        await serving
