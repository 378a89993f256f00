"""An upload's connection on a transport of our own: what is written when, and when nothing more is taken."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from weir.backend.http1 import Broken
from weir.backend.http1_upload import UploadConnection
from weir.core.errors import BodyTooLarge

ANSWER = b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\n{}"


class Transport(asyncio.Transport):
    """Remembers what was written."""

    def __init__(self) -> None:
        super().__init__({"sslcontext": "so that nobody looks for a socket"})
        self.written = b""
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closing
        self.written += data

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True


class Pieces:
    """See `Upload`: gives what the test puts in; None is the end."""

    content_type = b"multipart/form-data; boundary=x"

    def __init__(self, rest: int | None) -> None:
        self.rest = rest
        self.begun = False
        self.asked = 0
        self._given: asyncio.Queue[bytes | Exception] = asyncio.Queue()

    def put(self, *pieces: bytes | Exception) -> None:
        for piece in pieces:
            self._given.put_nowait(piece)

    async def read(self) -> bytes:
        self.asked += 1
        piece = await self._given.get()
        if isinstance(piece, Exception):
            raise piece
        return piece


class Scene:
    def __init__(self, rest: int | None = 10, body: bytes = b"first") -> None:
        self.transport = Transport()
        self.pieces = Pieces(rest)
        self.connection = UploadConnection(asyncio.get_running_loop(), body, self.pieces)
        self.connection.connection_made(self.transport)
        self.asking = asyncio.ensure_future(self.connection.request(b"HEAD "))

    async def settle(self) -> bytes:
        for _ in range(10):
            await asyncio.sleep(0)
        return self.transport.written


Play = Callable[[Scene], Awaitable[None]]


def play(*, rest: int | None = 10, body: bytes = b"first") -> Callable[[Play], Callable[[], None]]:
    def made(scene: Play) -> Callable[[], None]:
        async def run() -> None:
            await scene(Scene(rest, body))

        def test() -> None:
            asyncio.run(run())

        return test

    return made


@play()
async def test_each_piece_as_it_comes(scene: Scene) -> None:
    assert await scene.settle() == b"HEAD first"
    scene.pieces.put(b"12345")
    assert await scene.settle() == b"HEAD first12345"
    scene.pieces.put(b"67890", b"")
    assert await scene.settle() == b"HEAD first1234567890"
    assert not scene.asking.done()
    scene.connection.data_received(ANSWER % 200)
    await scene.asking
    assert await scene.connection.read() == b"{}"


@play(rest=None)
async def test_in_chunks(scene: Scene) -> None:
    scene.pieces.put(b"x" * 17, b"")
    assert await scene.settle() == b"HEAD 5\r\nfirst\r\n11\r\n" + b"x" * 17 + b"\r\n0\r\n\r\n"
    scene.asking.cancel()


@play(rest=None, body=b"")
async def test_no_empty_chunk(scene: Scene) -> None:
    """It would be the end."""
    scene.pieces.put(b"x")
    assert await scene.settle() == b"HEAD 1\r\nx\r\n"
    scene.asking.cancel()


@play()
async def test_nothing_is_taken_while_the_server_takes_nothing(scene: Scene) -> None:
    scene.connection.pause_writing()
    scene.pieces.put(b"12345", b"67890", b"")
    assert await scene.settle() == b"HEAD first"
    assert scene.pieces.asked == 0
    scene.connection.resume_writing()
    scene.connection.pause_writing()
    assert await scene.settle() == b"HEAD first12345"
    assert scene.pieces.asked == 1
    scene.connection.resume_writing()
    assert await scene.settle() == b"HEAD first1234567890"
    scene.asking.cancel()


@play()
async def test_a_refusal_stops_it(scene: Scene) -> None:
    await scene.settle()
    scene.connection.data_received(ANSWER % 413)
    await scene.asking
    scene.pieces.put(b"12345")
    assert await scene.settle() == b"HEAD first"
    assert await scene.connection.read() == b"{}"
    assert scene.connection.complete


@play()
async def test_an_answer_of_another_kind_does_not(scene: Scene) -> None:
    await scene.settle()
    scene.connection.data_received(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n")
    await scene.asking
    scene.pieces.put(b"12345", b"")
    assert await scene.settle() == b"HEAD first12345"
    scene.connection.data_received(b"{}")
    assert await scene.connection.read() == b"{}"


@pytest.mark.parametrize("answered", [False, True], ids=["before-the-answer", "while-it-is-read"])
def test_what_goes_wrong_with_the_client_ends_it(answered: bool) -> None:
    async def play() -> None:
        scene = Scene()
        await scene.settle()
        waits: Awaitable[object] = scene.asking
        if answered:
            scene.connection.data_received(b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n")
            await scene.asking
            waits = asyncio.ensure_future(scene.connection.read())
            await scene.settle()
        scene.pieces.put(BodyTooLarge())
        with pytest.raises(BodyTooLarge):
            await waits

    asyncio.run(play())


@play()
async def test_a_server_that_goes_away(scene: Scene) -> None:
    scene.connection.pause_writing()
    await scene.settle()
    scene.transport.closing = True
    scene.connection.connection_lost(ConnectionResetError("gone"))
    with pytest.raises(Broken, match="gone"):
        await scene.asking
    await scene.settle()
    assert scene.pieces.asked == 0


@play()
async def test_cut(scene: Scene) -> None:
    await scene.settle()
    scene.asking.cancel()
    scene.transport.get_extra_info = lambda name, default=None: _Deaf()  # type: ignore[method-assign]
    scene.connection.abort()
    scene.pieces.put(b"12345")
    assert await scene.settle() == b"HEAD first"
    assert scene.transport.closing


class _Deaf:
    def setsockopt(self, *_: object) -> None:
        raise OSError("gone already")
