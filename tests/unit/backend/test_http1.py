"""The upstream connection on a transport of our own: what tests/system/test_upstream_wire.py cannot time."""

import asyncio
import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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


# Behind the first digit of its head begins what looks like a chunk of 15 bytes, and behind those one of 9.
TWO_IN_ONE = b"a" * 15 + b"\r\n" + b"9\r\n123456789\r\n"
# Chunks of a transfer as servers write them, and as nobody should: each with what of it is the body.
FRAMED = [
    (b"f\r\n%b\r\n" % (b"a" * 15), b"a" * 15),
    (b"5\r\nhello\r\n", b"hello"),
    (b"3\r\n\r\n\r\r\n", b"\r\n\r"),
    (b"0A\r\n0123456789\r\n", b"0123456789"),
    (b"A\r\n0123456789\r\n", b"0123456789"),
    (b"5;name=value\r\nhello\r\n", b"hello"),
    (b"1f\r\n%b\r\n" % TWO_IN_ONE, TWO_IN_ONE),
    (b"801\r\n%b\r\n" % (b"z" * 2049), b"z" * 2049),
]  # fmt: skip
ENDS = [b"0\r\n\r\n", b"0\r\nx-trailer: 1\r\n\r\n"]
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@given(
    chunks=st.lists(st.sampled_from(FRAMED), max_size=8),
    end=st.sampled_from(ENDS),
    cuts=st.lists(st.integers(0, 2500), max_size=12),
    whole=st.booleans(),
)
@example(chunks=[FRAMED[1], FRAMED[6]], end=ENDS[0], cuts=[11, 31], whole=False)
@example(chunks=[FRAMED[1], FRAMED[6]], end=ENDS[0], cuts=[31, 45], whole=False)
def test_chunks_are_read_alike_however_they_are_cut(
    chunks: list[tuple[bytes, bytes]], end: bytes, cuts: list[int], *, whole: bool
) -> None:
    """One that comes by itself is not parsed; what is handed on is the same, and its framing is what it says."""

    async def scene() -> None:
        transport = Transport()
        connection = Connection(asyncio.get_running_loop())
        connection.connection_made(transport)
        asking = asyncio.ensure_future(connection.request(b"POST / HTTP/1.1\r\n\r\n"))
        await asyncio.sleep(0)
        connection.data_received(CHUNKED)
        await asking
        got: list[bytes] = []

        def sink(chunk: bytes, framed: bytes | None = None) -> None:
            got.append(chunk)
            assert framed is None or framed == b"%x\r\n%b\r\n" % (len(chunk), chunk)

        pumping = asyncio.ensure_future(connection.pump(sink))
        await asyncio.sleep(0)
        stream = b"".join(framed for framed, _ in chunks) + end
        if whole:
            pieces = [framed for framed, _ in chunks] + [end]
        else:
            edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
            pieces = [stream[begin:stop] for begin, stop in itertools.pairwise(edges)]
        for piece in pieces:
            connection.data_received(piece)
        async with asyncio.timeout(5):
            await pumping
        assert b"".join(got) == b"".join(body for _, body in chunks)
        assert connection.complete
        assert connection.reusable

    asyncio.run(scene())


def test_a_chunk_that_comes_alone_is_handed_on_as_it_came() -> None:
    """Or nothing would be won, and nobody would see it."""

    async def scene() -> None:
        connection = Connection(asyncio.get_running_loop())
        connection.connection_made(Transport())
        asking = asyncio.ensure_future(connection.request(b"POST / HTTP/1.1\r\n\r\n"))
        await asyncio.sleep(0)
        connection.data_received(CHUNKED + FRAMED[1][0])
        await asking
        framings: list[bytes | None] = []
        pumping = asyncio.ensure_future(connection.pump(lambda _chunk, framed=None: framings.append(framed)))
        await asyncio.sleep(0)
        for framed, _ in FRAMED[:3]:
            connection.data_received(framed)
        connection.data_received(ENDS[0])
        await pumping
        assert framings == [None, *(framed for framed, _ in FRAMED[:3])]

    asyncio.run(scene())
