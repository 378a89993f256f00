"""A client of an ASGI application, in process: it can send in pieces, leave, and stop reading, all to the moment.

It plays the server's part as uvicorn does (0.54): `send` waits while the client does not read, and after the client
has left is silently nothing; `receive` gives the body, then waits for the leaving. What uvicorn would refuse with a
RuntimeError (a body before the head, anything after the end) fails the test.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from weir.core.asgi import App, Message, Receive, Scope
from weir.gateway.wire import AsgiWire


async def stays() -> Message:
    """The `receive` of a client that stays."""
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


async def unheard(message: Message) -> None:
    """A `send` for what should send nothing."""
    raise AssertionError(f"nothing was to be sent, and now {message}")


def wire_of_client(receive: Receive = stays) -> AsgiWire:
    """A wire to a client of which only the leaving matters, or the body."""
    return AsgiWire(receive, unheard, lambda: None)


@dataclass
class Answer:
    """What the client got. `complete` is False where the application ended without an end: the connection breaks.
    `cut` says that the application asked for that at once, with whatever was still to be written.
    """

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    complete: bool = False
    cut: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object, whole."""
        said = self.json()
        assert set(said) == {"error"}
        assert set(said["error"]) == {"message", "type", "param", "code"}
        assert said["error"]["message"]
        error: dict[str, Any] = said["error"]
        return error

    def header(self, name: str) -> str | None:
        """Its only value; a header that is there twice with two values is one that two readers read in two ways."""
        values = [value.decode("latin-1") for key, value in self.headers if key.decode("latin-1").lower() == name]
        assert len(values) <= 1, f"{name} is there {len(values)} times: {values}"
        return values[0] if values else None

    def names(self) -> list[str]:
        return [name.decode("latin-1") for name, _ in self.headers]


class Conversation:
    """One request under way. Start it with `start`, wait for its end with `over`."""

    def __init__(self, app: App, scope: Scope, pieces: Iterable[bytes | None]) -> None:
        self.answer = Answer()
        self.taken = 0  # pieces of the body that the application has asked for
        self.waiting_in_send = False
        self._app = app
        self._scope = {**scope, "extensions": {"weir.cut": self._cut}}
        self._pieces = list(pieces)
        self._gone = asyncio.Event()
        self._reading = asyncio.Event()  # set again and again: `_appetite` says how many messages the client takes
        self._appetite = float("inf")
        self._news = asyncio.Event()
        self._began = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> "Conversation":
        self._task = asyncio.get_running_loop().create_task(self._app(self._scope, self._receive, self._send))  # type: ignore[arg-type]
        self._task.add_done_callback(lambda _: self._news.set())
        return self

    async def over(self) -> Answer:
        """The whole answer, once the application has returned; raises what it raised."""
        assert self._task is not None
        await self._task
        return self.answer

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def leave(self) -> None:
        self._gone.set()

    def stop_reading(self) -> None:
        self._appetite = 0

    def read_on(self, messages: float = float("inf")) -> None:
        """Read so many messages more; all of them unless said."""
        self._appetite += messages
        self._reading.set()

    def kill(self) -> None:
        """The server gives up on the request, as when its process is torn down."""
        assert self._task is not None
        self._task.cancel()

    async def until(self, seen: Callable[["Conversation"], bool]) -> None:
        """Wait until it is so; looks again whenever something was sent."""
        while not seen(self):
            assert self.running, f"it ended before: {self.answer}"
            self._news.clear()
            await self._news.wait()

    async def has(self, part: bytes) -> None:
        """Wait until this has arrived."""
        await self.until(lambda conversation: part in conversation.answer.body)

    def _cut(self) -> None:
        self.answer.cut = True
        self._gone.set()

    async def _receive(self) -> Message:
        if self._gone.is_set():
            return {"type": "http.disconnect"}
        if self.taken < len(self._pieces):
            piece = self._pieces[self.taken]
            self.taken += 1
            if piece is None:  # a body that goes no further
                await self._gone.wait()
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": piece, "more_body": self.taken < len(self._pieces)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        while self._appetite < 1 and not self._gone.is_set():
            await self._wait_for_reader()
        if self._gone.is_set():
            return
        self._appetite -= 1
        self._take(message)
        self._news.set()

    async def _wait_for_reader(self) -> None:
        self.waiting_in_send = True
        self._news.set()
        self._reading.clear()
        waits = [asyncio.ensure_future(event.wait()) for event in (self._reading, self._gone)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.waiting_in_send = False
            for wait in waits:
                wait.cancel()

    def _take(self, message: Message) -> None:
        assert not self.answer.complete, f"after the answer's end came {message}"
        if message["type"] == "http.response.start":
            assert not self._began, "a second head"
            self._began = True
            self.answer.status = message["status"]
            self.answer.headers = list(message["headers"])
            return
        assert message["type"] == "http.response.body"
        assert self._began, "a body before its head"
        self.answer.chunks.append(bytes(message.get("body", b"")))
        self.answer.complete = not message.get("more_body", False)
        if self.answer.complete and (length := self.answer.header("content-length")) is not None:
            assert int(length) == len(self.answer.body)


class Client:
    """Makes requests of one application."""

    def __init__(self, app: App) -> None:
        self._app = app

    def post(
        self,
        path: str,
        body: bytes | Iterable[bytes | None],
        headers: Iterable[tuple[str, str]] = (),
    ) -> Conversation:
        """Starts at once. A body in pieces is sent piece by piece; None in it is a client that sends no more.

        Content-Length is set for a body that is bytes, where the headers do not say otherwise.
        """
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        given = {name for name, _ in raw}
        if isinstance(body, bytes):
            pieces: list[bytes | None] = [body]
            if not given & {b"content-length", b"transfer-encoding"}:
                raw.append((b"content-length", str(len(body)).encode()))
        else:
            pieces = list(body)
            if not given & {b"content-length", b"transfer-encoding"}:
                raw.append((b"transfer-encoding", b"chunked"))
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": raw,
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 8080),
        }
        return Conversation(self._app, scope, pieces).start()
