"""What goes wrong with one request's answer is that request's, and no later one's on the same connection."""

import asyncio
from contextlib import suppress

import pytest

from weir.backend.http1 import Pool, origin_of

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9\r\n\r\ndata: []\n"
ASKED = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Each request in one segment: head and body, and so the whole answer, are there at once."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(ANSWER)
            await writer.drain()
    writer.close()


def refuses(chunk: bytes) -> None:
    raise ValueError(f"cannot read {chunk!r}")


def test_a_fault_of_the_sink_is_nobody_elses() -> None:
    async def scene() -> None:
        server = await asyncio.start_server(answers, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        pool = Pool(origin_of(f"http://127.0.0.1:{port}"), idle_seconds=60)
        for _ in range(3):
            connection = await pool.acquire(1)
            await connection.request(ASKED)
            with pytest.raises(ValueError, match="cannot read"):
                await connection.pump(refuses)
            pool.release(connection)
            heard: list[bytes] = []
            connection = await pool.acquire(1)
            await connection.request(ASKED)
            await connection.pump(heard.append)
            assert heard == [b"data: []\n"]
            pool.release(connection)
        pool.close()
        server.close()
        await asyncio.sleep(0.1)  # the server hears that we left

    asyncio.run(scene())
