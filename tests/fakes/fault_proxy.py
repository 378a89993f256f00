"""A TCP proxy that does to its connections what networks and dying servers do; for Redis and upstreams alike.

    with FaultProxy("127.0.0.1", port) as proxy:
        connect_to(proxy.port)
        proxy.switch(to_client=Fault(latency_ms=50, jitter_ms=20))
        proxy.hang()
        proxy.heal()

It runs on an event loop in a thread of its own. Its words return within a moment once they are obeyed, by every open
connection too, so that they can be said from synchronous and from asynchronous tests.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self, TypeVar

CHUNK = 65536
CHUNKS_HELD = 16  # on the way in one direction; beyond it the sender feels the pressure
STEP = 0.02  # seconds of bandwidth that are sent at once
ARRIVAL = 0.05  # seconds that bytes have to arrive before the reset behind them
OBEYED = 10.0  # seconds; only a proxy that is broken takes longer

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the bytes of one direction. Nothing given: they pass."""

    latency_ms: float = 0.0
    jitter_ms: float = 0.0  # up to so much more, another for each chunk; the order stays
    bytes_per_second: int = 0  # 0: as fast as they come
    slice_bytes: int = 0  # pieces of 1 to so many bytes, each in a packet of its own
    slice_pause_ms: float = 0.2  # between two of them
    silent: bool = False  # nothing passes, ends and resets included; it is held until another switch
    reset_after: int | None = None  # the connection is reset behind so many bytes, counted from the switch

    def due(self, arrived: float, luck: float) -> float:
        return arrived + (self.latency_ms + self.jitter_ms * luck) / 1000

    def piece(self) -> int:
        """How many bytes may go at once."""
        size = CHUNK
        if self.slice_bytes:
            size = random.randint(1, self.slice_bytes)
        if self.bytes_per_second:
            size = min(size, max(1, int(self.bytes_per_second * STEP)))
        return size

    def pause(self, sent: int) -> float:
        """Seconds until the next piece."""
        pause = self.slice_pause_ms / 1000 if self.slice_bytes else 0.0
        return max(pause, sent / self.bytes_per_second if self.bytes_per_second else 0.0)


PASS = Fault()
SILENT = Fault(silent=True)


class FaultProxy:
    """Listens on a free port of 127.0.0.1 and passes to `target_host:target_port`, until told otherwise."""

    def __init__(self, target_host: str, target_port: int) -> None:
        self.target = (target_host, target_port)
        self.host, self.port = "127.0.0.1", 0
        self.accepted = 0  # connections so far
        self.to_server = self.to_client = PASS
        self._resetting = False
        self._links: set[_Link] = set()
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def open(self) -> int:
        """Connections that a client holds at the moment."""
        return len(self._links)

    # What can be said to it

    def switch(
        self, both: Fault | None = None, *, to_server: Fault | None = None, to_client: Fault | None = None
    ) -> None:
        """Each direction that is named obeys at once, in open connections too; the other stays as it is."""
        self._do(self._switch(to_server or both or self.to_server, to_client or both or self.to_client))

    def heal(self) -> None:
        """All passes again, what was held first; new connections are taken."""
        self._do(self._heal())

    def hang(self) -> None:
        """Takes connections and bytes, and answers nothing, as a stopped process does."""
        self.switch(SILENT)

    def refuse(self, *, accept: bool = False, keep: bool = False) -> None:
        """Nobody listens any more; `accept`: connections are taken and reset at once. Open ones are reset, or kept."""
        self._do(self._refuse(accept=accept, keep=keep))

    def reset(self) -> None:
        """Resets every open connection, both sides of it, and takes new ones as before."""
        self._do(self._reset())

    def half_open(self) -> None:
        """The server's sides are gone and the clients hear nothing of it, ever; new connections are as before."""
        self._do(self._half_open())

    # What it does, on its own loop

    def _do(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(OBEYED)

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, self.host, self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def _deafen(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._resetting:
            abort(writer)
            return
        link = _Link(self, reader, writer)
        self._links.add(link)
        link.run(self._links.discard)

    async def _switch(self, to_server: Fault, to_client: Fault) -> None:
        self.to_server, self.to_client = to_server, to_client
        for link in self._links:
            link.obey()

    async def _heal(self) -> None:
        self._resetting = False
        await self._switch(PASS, PASS)
        await self._listen()

    async def _refuse(self, *, accept: bool, keep: bool) -> None:
        self._resetting = accept
        if not accept:
            await self._deafen()
        if not keep:
            await self._reset()

    async def _reset(self) -> None:
        for link in tuple(self._links):
            link.reset()

    async def _half_open(self) -> None:
        for link in self._links:
            link.lose_server()

    async def _close(self) -> None:
        await self._deafen()
        links = tuple(self._links)
        for link in links:
            link.reset()
        await asyncio.gather(*(link.ended() for link in links))
        await asyncio.sleep(0)  # the transports' own last word


class _Link:
    """One client's connection and, where there is one, ours to the server for it."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = (reader, writer)
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._pipes: list[_Pipe] = []
        self.lost_server = False
        self.news = asyncio.Event()  # replaced at every switch, so that whoever waits for the old one looks again

    def run(self, ended: Callable[["_Link"], None]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(lambda _: ended(self))

    async def ended(self) -> None:
        await asyncio.wait([self._task])

    def obey(self) -> None:
        for pipe in self._pipes:
            pipe.passed = 0
        self._tell()

    def reset(self) -> None:
        self._task.cancel()

    def lose_server(self) -> None:
        if self._server is not None:
            self.lost_server = True
            abort(self._server[1])
            self._tell()

    async def wait(self, seconds: float | None = None) -> None:
        """Until the next switch, or for so long."""
        news = self.news
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(news.wait(), seconds)

    def _tell(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()

    async def _run(self) -> None:
        writers = [self._client[1]]
        try:
            while self._proxy.to_server.silent:  # the kernel has taken the connection; nobody else has
                await self.wait()
            self._server = await asyncio.open_connection(*self._proxy.target)
            writers.append(self._server[1])
            no_delay(*writers)
            await self._pass()
            while self.lost_server and await self._client[0].read(CHUNK):
                pass
        except (OSError, asyncio.CancelledError):  # refused by the server, reset by one of them, or by us
            for writer in writers:
                abort(writer)
        finally:
            for writer in writers:
                writer.close()

    async def _pass(self) -> None:
        """Returns when both have ended, or the server is lost; raises when one of them resets."""
        assert self._server is not None
        self._pipes = [
            _Pipe(self, lambda: self._proxy.to_server, self._client[0], self._server[1]),
            _Pipe(self, lambda: self._proxy.to_client, self._server[0], self._client[1]),
        ]
        tasks = [asyncio.ensure_future(pipe.run()) for pipe in self._pipes]
        try:
            while not all(task.done() for task in tasks) and not self.lost_server:
                await self._news_or_end_of(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _news_or_end_of(self, tasks: list[asyncio.Future[None]]) -> None:
        told = asyncio.ensure_future(self.news.wait())
        try:
            running = [task for task in tasks if not task.done()]
            await asyncio.wait([told, *running], return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
        if not self.lost_server:
            for task in tasks:
                if task.done():
                    task.result()


class _Pipe:
    """One direction of one connection. Raises ConnectionResetError to reset it."""

    def __init__(
        self, link: _Link, fault: Callable[[], Fault], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._link = link
        self._fault = fault
        self._reader = reader
        self._writer = writer
        self._held: asyncio.Queue[tuple[float, float, bytes | None]] = asyncio.Queue(CHUNKS_HELD)
        self.passed = 0  # bytes since the last switch

    async def run(self) -> None:
        reading = asyncio.ensure_future(self._read())
        try:
            await self._write()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self) -> None:
        chunk: bytes | None = b"-"
        while chunk:
            try:
                chunk = await self._reader.read(CHUNK)
            except OSError:
                chunk = None
            await self._held.put((asyncio.get_running_loop().time(), random.random(), chunk))

    async def _write(self) -> None:
        while True:
            arrived, luck, chunk = await self._held.get()
            await self._until_due(arrived, luck)
            if self._link.lost_server:
                return  # whatever it looks like from here, the client hears nothing of it
            if chunk is None:
                raise ConnectionResetError
            if not chunk:
                with contextlib.suppress(OSError):
                    self._writer.write_eof()
                return
            await self._pass(chunk)

    async def _until_due(self, arrived: float, luck: float) -> None:
        now = asyncio.get_running_loop().time
        while self._fault().silent or now() < self._fault().due(arrived, luck):
            fault = self._fault()
            await self._link.wait(None if fault.silent else fault.due(arrived, luck) - now())

    async def _pass(self, chunk: bytes) -> None:
        while chunk:
            await self._until_due(0.0, 0.0)  # may have fallen silent in the middle
            fault = self._fault()
            size = fault.piece()
            if fault.reset_after is not None:
                size = min(size, fault.reset_after - self.passed)
                if size <= 0:
                    await asyncio.sleep(ARRIVAL)
                    raise ConnectionResetError
            piece, chunk = chunk[:size], chunk[size:]
            self._writer.write(piece)
            await self._writer.drain()
            self.passed += len(piece)
            if fault.pause(len(piece)):
                await self._link.wait(fault.pause(len(piece)))


def abort(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN; what was written and has not left is dropped."""
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def no_delay(*writers: asyncio.StreamWriter) -> None:
    """One packet for each write."""
    for writer in writers:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
