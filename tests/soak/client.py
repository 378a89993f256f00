"""A client of many connections in one process: HTTP/1.1 by hand, since a library's client would be the bottleneck.

It says what came and whether it came whole, and judges nothing.
"""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any, Self

LIMIT = 1 << 20


class CutShortError(Exception):
    """The connection ended, or was reset, before the answer did."""


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[bytes]:
        """The data of each event of a stream."""
        return [block.removeprefix(b"data: ") for block in self.body.split(b"\n\n") if block.startswith(b"data: ")]

    @property
    def text(self) -> str:
        """What a chat stream said."""
        deltas = [json.loads(event)["choices"] for event in self.events if event != b"[DONE]"]
        return "".join(choices[0]["delta"].get("content") or "" for choices in deltas if choices)

    @property
    def done(self) -> bool:
        return self.events[-1:] == [b"[DONE]"]


class Connection:
    """One of them; opened by the first request, and again whenever it was closed after an answer."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Close it, whatever is going on."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def close(self) -> None:
        """Close it once all that was sent has left; what nobody read yet is dropped."""
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def ask(self, path: str, body: Any = None, *, request_id: str = "") -> Answer:
        """The whole answer. Raises CutShortError, and OSError where nobody listens."""
        await self.send(path, body, request_id=request_id)
        answer = await self.head()
        try:
            async with contextlib.aclosing(self.pieces(answer)) as pieces:
                answer.body = b"".join([piece async for piece in pieces])
        finally:
            if answer.headers.get("connection", "").lower() == "close":
                self.leave()
        return answer

    async def chat(self, model: str, text: str, *, request_id: str = "", **fields: Any) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": text}]} | fields
        return await self.ask("/v1/chat/completions", body, request_id=request_id)

    # Step by step, for those who leave in the middle

    async def send(self, path: str, body: Any = None, *, request_id: str = "") -> None:
        written = b"" if body is None else json.dumps(body).encode()
        head = [
            f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
            "host: localhost",
            f"authorization: Bearer {self._key}",
            *([f"x-request-id: {request_id}"] if request_id else []),
            *(["content-type: application/json", f"content-length: {len(written)}"] if body is not None else []),
        ]
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=LIMIT)
        self._streams[1].write("\r\n".join([*head, "", ""]).encode() + written)

    async def head(self) -> Answer:
        first, *lines = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        fields = (line.partition(":") for line in lines)
        return Answer(int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in fields})

    async def pieces(self, answer: Answer) -> Any:
        """The body as it comes."""
        if answer.headers.get("transfer-encoding") != "chunked":
            yield await self._exactly(int(answer.headers.get("content-length", "0")))
            return
        while size := int(await self._until(b"\r\n"), 16):
            yield (await self._exactly(size + 2))[:-2]
        await self._until(b"\r\n")

    async def _until(self, mark: bytes) -> bytes:
        assert self._streams is not None
        try:
            return await self._streams[0].readuntil(mark)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.leave()
            raise CutShortError from error

    async def _exactly(self, count: int) -> bytes:
        assert self._streams is not None
        try:
            return await self._streams[0].readexactly(count)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.leave()
            raise CutShortError from error
