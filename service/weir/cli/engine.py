"""An inference server as `weir check-backend` meets it: one question, one answer, or a sentence why there is none.

Asked through `OpenAIBackend`, since what a library of OpenAI's makes good would not be there in production.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from weir.backend.backend import BackendResponse, Call
from weir.backend.http1 import Broken, Connection, Pool, origin_of
from weir.backend.openai import IDLE_SECONDS, OpenAIBackend
from weir.core.errors import GatewayError, UpstreamUnreachable
from weir.core.sse import EventReader
from weir.core.types import Endpoint, Timeouts

# Answers are other people's JSON, of any shape: Any is its honest type.
Json = dict[str, Any]

CONNECT_SECONDS = 5.0
MOST_TOKENS = 256  # of an answer; a thinking model needs some before it says a word
NOTHING_THERE = (404, 405, 501)
NOTHING_HERE = "There is nothing at this address"


class Away(Exception):
    """Nobody takes a connection; the sentence says how."""


class Silent(Exception):
    """No answer in time."""


class Missing(Exception):
    """It does not do this, and says so."""


class Wrong(Exception):
    """It answers, and not as the API says."""


@dataclass(slots=True)
class Answer:
    """One whole answer."""

    status: int
    content_type: bytes
    body: bytes
    seconds: float

    def json(self) -> Json:
        """The object of a 200. Raises Missing for a refusal, Wrong for anything else."""
        if self.status != 200:
            raise self.refused()
        return self.object()

    def object(self) -> Json:
        """The JSON object, whatever the status. Raises Wrong."""
        try:
            said = json.loads(self.body)
        except ValueError:
            said = None
        if b"json" not in self.content_type or not isinstance(said, dict):
            kind = self.content_type.decode("latin-1")[:40] or "no content type"
            raise Wrong(f"Status {self.status} with {kind}, where a JSON object belongs.")
        return said

    def choices(self) -> list[Json]:
        choices = objects_in(self.json().get("choices"))
        if not choices:
            raise Wrong("The answer has no choices.")
        return choices

    def message(self) -> Json:
        message = self.choices()[0].get("message")
        if not isinstance(message, dict):
            raise Wrong("The first choice has no message.")
        return message

    def text(self) -> str:
        """What was said; "" where the model only thought."""
        content = self.message().get("content")
        return content if isinstance(content, str) else ""

    def refused(self) -> Missing | Wrong:
        """Most of 4xx says "I do not do this"; a refused key, too many requests and a 5xx say nothing of it."""
        told = self.complaint()
        if self.status in NOTHING_THERE and told is None:
            return Missing(f"{NOTHING_HERE} (status {self.status}).")
        sentence = f"Status {self.status}: {told}" if told else f"Status {self.status}, without a word why."
        return Missing(sentence) if self.status in (*NOTHING_THERE, 400, 413, 415, 422) else Wrong(sentence)

    def complaint(self) -> str | None:
        """The message of OpenAI's error object, shortened."""
        try:
            error = json.loads(self.body)["error"]
            message = error["message"] if isinstance(error, dict) else None
        except (ValueError, TypeError, LookupError):
            return None
        return " ".join(message.split())[:100] if isinstance(message, str) and message.strip() else None


@dataclass(slots=True)
class Stream:
    """One event stream, as it came."""

    chunks: list[Json] = field(default_factory=list)
    done: bool = False  # [DONE] came
    broke: str = ""  # how it broke off
    begun: float = 0.0  # seconds until its first event
    seconds: float = 0.0

    def deltas(self) -> list[Json]:
        return [delta for choice in self._choices() if isinstance(delta := choice.get("delta"), dict)]

    def usage(self) -> Json | None:
        """Of the chunk that was asked for: the one without choices."""
        for chunk in reversed(self.chunks):
            if isinstance(chunk.get("usage"), dict):
                return chunk["usage"] if chunk.get("choices") == [] else None
        return None

    def finish_reason(self) -> str | None:
        """The last one."""
        return next((str(why) for one in reversed(self._choices()) if (why := one.get("finish_reason"))), None)

    def _choices(self) -> list[Json]:
        return [choice for chunk in self.chunks for choice in objects_in(chunk.get("choices"))]


class Engine:
    """Each of its methods may raise Away, Silent, Missing and Wrong."""

    def __init__(self, url: str, key: str | None, timeout: float, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self.url = url.rstrip("/")
        self.key = key
        self.timeout = timeout
        self.idle_seconds = idle_seconds  # how long production keeps a connection that nobody uses
        self.model = ""
        self.silences = 0
        self._cap = "max_tokens"
        self._kept: dict[str, Stream] = {}
        self._backend = OpenAIBackend()
        self._api = _endpoint(self.url, key)
        self._root = _endpoint(self.url.removesuffix("/v1"), key)
        self._stranger = _endpoint(self.url, "not-a-key-of-yours")

    async def close(self) -> None:
        await self._backend.close()

    async def post(self, path: str, body: Json | bytes, *, at_root: bool = False, as_stranger: bool = False) -> Answer:
        endpoint = self._stranger if as_stranger else self._root if at_root else self._api
        start = perf_counter()
        async with self._asking(endpoint, path, body) as response:
            whole = [chunk async for chunk in _pieces(response)]
        return Answer(response.status, response.content_type, b"".join(whole), perf_counter() - start)

    async def chat(self, text: str, **fields: Any) -> Answer:
        answer = await self.post("/chat/completions", self.asked(text, fields))
        if answer.status == 400 and self._cap == "max_tokens" and b"max_completion_tokens" in answer.body:
            self._cap = "max_completion_tokens"  # OpenAI's thinking models refuse the old name
            answer = await self.post("/chat/completions", self.asked(text, fields))
        return answer

    async def stream(self, text: str, **fields: Any) -> Stream:
        """As Weir asks: with the usage chunk. Kept, so that several checks may look at one."""
        fields = {"stream": True, "stream_options": {"include_usage": True}, **fields}
        asked = json.dumps([text, fields])
        if asked not in self._kept:
            try:
                self._kept[asked] = await self._streamed(self.asked(text, fields))
            except Silent as silence:  # nobody waits for it twice
                self._kept[asked] = Stream(broke=str(silence))
                raise
        return self._kept[asked]

    async def leave_a_stream(self, text: str, tokens: int) -> None:
        """Ask for a long answer, and go at its first bytes."""
        body = self.asked(text, {"stream": True, self._cap: tokens})
        async with self._asking(self._api, "/chat/completions", body) as response:
            if response.status != 200 or not await response.read():
                raise Wrong(f"The stream to be left did not begin (status {response.status}).")

    async def get(self, path: str) -> Answer:
        pool = Pool(origin_of(self.url), idle_seconds=0)
        connection = await self.connected(pool)
        try:
            return await self.ask_again(connection, path)
        finally:
            connection.abort()

    async def connected(self, pool: Pool) -> Connection:
        try:
            return await pool.acquire(CONNECT_SECONDS)
        except (OSError, ValueError) as error:  # ValueError: a host's name that none can have
            raise Away(f"It cannot be reached: {str(error) or type(error).__name__}.") from error

    async def ask_again(self, connection: Connection, path: str) -> Answer:
        """A GET on a connection of one's own, which stays open if the engine leaves it so."""
        start = perf_counter()
        headers = {"host": urlsplit(self.url).netloc, "accept-encoding": "identity", "user-agent": "weir"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in (*headers.items(), *self._api.headers))
        body = b""
        try:
            async with asyncio.timeout(self.timeout):
                await connection.request(
                    f"GET {urlsplit(self.url).path}{path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
                )
                while chunk := await connection.read():
                    body += chunk
        except TimeoutError:
            raise self._silent() from None
        except Broken as error:
            raise Wrong(f"The connection broke: {error}.") from error
        content_type = dict(connection.headers).get(b"content-type", b"").lower()
        return Answer(connection.status, content_type, body, perf_counter() - start)

    def asked(self, text: str, fields: Json) -> Json:
        """The body of a chat request of one message; `fields` come on top."""
        cap = {} if {"max_tokens", "max_completion_tokens"} & fields.keys() else {self._cap: MOST_TOKENS}
        return {"model": self.model, "messages": [{"role": "user", "content": text}], **cap, **fields}

    async def _streamed(self, body: Json) -> Stream:
        stream, reader, start = Stream(), EventReader(), perf_counter()
        async with self._asking(self._api, "/chat/completions", body) as response:
            if response.status != 200:
                whole = b"".join([chunk async for chunk in _pieces(response)])
                raise Answer(response.status, response.content_type, whole, 0).refused()
            if not response.content_type.startswith(b"text/event-stream"):
                kind = response.content_type.decode("latin-1")[:40]
                raise Wrong(f"A stream was asked for, and {kind or 'something without a type'} came.")
            try:
                async for chunk in _pieces(response):
                    for event in reader.feed(chunk):
                        stream.begun = stream.begun or perf_counter() - start
                        _note(stream, event.data)
            except Wrong as error:
                stream.broke = str(error)
            if (last := reader.flush()) is not None:
                _note(stream, last.data)
        stream.seconds = perf_counter() - start
        return stream

    @asynccontextmanager
    async def _asking(self, endpoint: Endpoint, path: str, body: Json | bytes) -> AsyncIterator[BackendResponse]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        call = Call(path, raw, [], Timeouts(connect=CONNECT_SECONDS))
        try:
            async with asyncio.timeout(self.timeout), self._backend.send(endpoint, call) as response:
                yield response
        except UpstreamUnreachable as error:
            raise Away(f"It cannot be reached: {error.reason}.") from error
        except GatewayError as error:
            raise Wrong(f"The connection broke: {error.reason or error.text}.") from error
        except TimeoutError:
            raise self._silent() from None

    def _silent(self) -> Silent:
        self.silences += 1
        return Silent(f"No answer, or not its end, within {self.timeout:g} s.")


def objects_in(value: object) -> list[Json]:
    """The objects of a list; none where it is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _endpoint(url: str, key: str | None) -> Endpoint:
    return Endpoint(url, headers=(("authorization", f"Bearer {key}"),) if key else ())


async def _pieces(response: BackendResponse) -> AsyncIterator[bytes]:
    try:
        while chunk := await response.read():
            yield chunk
    except GatewayError as error:
        raise Wrong("The answer broke off before its end.") from error


def _note(stream: Stream, data: bytes) -> None:
    if data == b"[DONE]":
        stream.done = True
        return
    try:
        said = json.loads(data)
    except ValueError:
        raise Wrong("An event of the stream is no JSON.") from None
    if not isinstance(said, dict):
        raise Wrong("An event of the stream is no JSON object.")
    if said.get("error"):
        raise Wrong("The stream ended in an error.")
    stream.chunks.append(said)
