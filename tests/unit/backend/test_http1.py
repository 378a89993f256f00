"""The upstream connection on a transport of our own: what tests/system/test_upstream_wire.py cannot time."""

import asyncio

import pytest

from weir.backend.http1 import HIGH_WATER, Connection

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"


class Transport(asyncio.Transport):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False


@pytest.mark.parametrize("by", ["pump", "read"])
def test_what_came_with_the_head_does_not_stop_the_rest(by: str) -> None:
    """A burst behind the head, before anybody read: reading pauses, and goes on when somebody does."""

    async def scene() -> None:
        transport = Transport()
        connection = Connection(asyncio.get_running_loop())
        connection.connection_made(transport)
        burst = b"x" * (HIGH_WATER + 1)
        asking = asyncio.ensure_future(connection.request(b"POST / HTTP/1.1\r\n\r\n"))
        await asyncio.sleep(0)
        connection.data_received(HEAD % (len(burst) + 1) + burst)
        await asking
        assert not transport.reading
        got: list[bytes] = []
        if by == "pump":
            pumping = asyncio.ensure_future(connection.pump(got.append))
            await asyncio.sleep(0)
        else:
            got.append(await connection.read())
        assert transport.reading
        connection.data_received(b"y")
        if by == "pump":
            await pumping
        else:
            got.append(await connection.read())
        assert b"".join(got) == burst + b"y"
        assert connection.complete

    asyncio.run(scene())
