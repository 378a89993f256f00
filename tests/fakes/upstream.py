"""A scripted OpenAI-compatible upstream, alone in its process: `python -m tests.fakes.upstream --port P`.

What it says is written in the request: `"x_script": "html"` or `"x_script": {"play": "answer", "chunks": 5, ...}`
in the body, else the model's name where that is the name of a play. It writes down what it was sent, raw, what it
answered, and when a client left before its answer had ended:

    GET    /__requests          all records, oldest first
    DELETE /__requests          forget them
    POST   /__gates/NAME        let every answer go on that waits at gate NAME

Plain asyncio, so that nothing tidies up what comes in. Times are `time.monotonic()`, which is one clock for all
processes of a machine.
"""

import argparse
import asyncio
import base64
import contextlib
import gzip
import itertools
import json
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

REMEMBERED_ANSWER_BYTES = 4_000_000
FOREVER = 3600.0


class ClientLeftError(Exception):
    """The connection was closed on us before the answer had ended."""


@dataclass(slots=True)
class Record:
    """One request as it came in, and how its answer went."""

    number: int
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    received_at: float
    outcome: str = "answering"  # then complete, cut (by us) or client_left
    left_at: float | None = None
    sent_bytes: int = 0
    answer: bytearray = field(default_factory=bytearray)  # the body without transfer framing

    def parsed(self) -> Any:
        with contextlib.suppress(ValueError):
            return json.loads(self.body)
        return None

    def as_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "method": self.method,
            "target": self.target,
            "headers": self.headers,
            "body": base64.b64encode(self.body).decode(),
            "json": self.parsed(),
            "received_at": self.received_at,
            "outcome": self.outcome,
            "left_at": self.left_at,
            "sent_bytes": self.sent_bytes,
            "answer": base64.b64encode(self.answer).decode(),
        }


class Wire(asyncio.Protocol):
    """One connection: reads as asked, writes with back-pressure, and knows at once when the other side has left."""

    def __init__(self, play_answers: Callable[["Wire"], Awaitable[None]]) -> None:
        self._play_answers = play_answers
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._gone = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.left_at: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        # The loop holds tasks weakly, so the connection holds its own.
        self._task = asyncio.get_running_loop().create_task(self._converse())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._news.set()

    def eof_received(self) -> bool:
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def _leave(self) -> None:
        if self.left_at is None:
            self.left_at = time.monotonic()
        self._gone.set()
        self._news.set()
        self._room.set()

    async def _converse(self) -> None:
        with contextlib.suppress(ClientLeftError):
            await self._play_answers(self)
        self.transport.close()

    async def _more(self) -> None:
        if self._gone.is_set():
            raise ClientLeftError
        self._news.clear()
        await self._news.wait()

    async def read_until(self, mark: bytes) -> bytes:
        while (at := self._buffer.find(mark)) < 0:
            await self._more()
        return await self.read_exactly(at + len(mark))

    async def read_exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def write(self, data: bytes) -> None:
        if self._gone.is_set():
            raise ClientLeftError
        self.transport.write(data)
        await self._room.wait()
        if self._gone.is_set():
            raise ClientLeftError

    async def wait(self, seconds: float, for_what: asyncio.Event | None = None) -> None:
        """Wait for so long, or for an event; raises at once when the client leaves meanwhile."""
        waits = [asyncio.ensure_future(self._gone.wait())]
        if for_what is not None:
            waits.append(asyncio.ensure_future(for_what.wait()))
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
        if self._gone.is_set():
            raise ClientLeftError

    def no_delay(self) -> None:
        """One packet for each write."""
        self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def reset(self) -> None:
        """Cut the connection with RST, after what was written has had time to arrive."""
        self.transport.set_write_buffer_limits(0)
        await self._room.wait()
        await self.wait(0.05)
        raw: socket.socket = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


@dataclass(slots=True)
class Script:
    """What the request asks us to play; every field may stand in its `x_script` object."""

    play: str = "answer"
    chunks: int = 3  # pieces of content in a stream
    delay_ms: int = 0  # between two pieces
    wait_ms: int = 0  # before the headers
    content: str | None = None  # what to say, instead of word0 word1 word2
    usage: tuple[int, int] | None = None  # prompt and completion tokens to report
    no_usage: bool = False  # report none at all, as old servers do
    gate: str | None = None  # wait here: after the first piece of a stream, before the headers of a JSON answer
    retry_after: int = 7
    chunk_bytes: int = 0  # pad each piece to this size
    eol: str = "\n"
    comments: bool = False  # ": comment" lines between the events
    raw: str = ""  # of the play `raw`: the very bytes of the answer, as Latin-1
    drip: bool = False  # of the play `raw`: byte by byte
    close: bool = False  # of the play `raw`: close the connection after them


def script_of(body: Any) -> Script:
    if not isinstance(body, dict):
        return Script()
    written = body.get("x_script", body.get("model"))
    if isinstance(written, dict):
        return Script(**written)
    return Script(play=written if written in PLAYS else "answer")


def words_in(body: dict[str, Any]) -> int:
    text = json.dumps(body.get("messages", body.get("input", body.get("prompt", ""))))
    return len(text.split())


class Answer:
    """Writes one answer on the wire and keeps the record of it."""

    def __init__(self, wire: Wire, record: Record, gates: dict[str, asyncio.Event]) -> None:
        self.wire = wire
        self.record = record
        self.gates = gates
        body = record.parsed()
        self.script = script_of(body)
        self.body: dict[str, Any] = body if isinstance(body, dict) else {}

    async def _write(self, data: bytes) -> None:
        await self.wire.write(data)
        self.record.sent_bytes += len(data)

    async def head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        await self._write("\r\n".join([*lines, "", ""]).encode())

    async def whole(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        content_type: str = "application/json",
        missing: int = 0,
    ) -> None:
        """An answer with Content-Length; `missing` bytes of it never come."""
        length = {"content-type": content_type, "content-length": str(len(body) + missing)}
        await self.head(status, length | (headers or {}))
        self.record.answer += body
        await self._write(body)

    async def json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        await self.whole(status, json.dumps(body).encode(), headers)

    async def error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        message = f"upstream says {code}"
        await self.json(status, {"error": {"message": message, "type": code, "param": None, "code": code}}, headers)

    async def start_stream(self) -> None:
        await self.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})

    async def piece(self, text: bytes) -> None:
        if len(self.record.answer) < REMEMBERED_ANSWER_BYTES:
            self.record.answer += text
        await self._write(b"%x\r\n%b\r\n" % (len(text), text))

    async def event(self, data: Any) -> None:
        eol = self.script.eol
        comment = f": thinking{eol}{eol}" if self.script.comments else ""
        written = data if isinstance(data, str) else json.dumps(data)
        await self.piece(f"{comment}data: {written}{eol}{eol}".encode())

    async def end_stream(self) -> None:
        await self._write(b"0\r\n\r\n")

    async def pass_gate(self) -> None:
        if self.script.gate is not None:
            await self.wire.wait(FOREVER, self.gates[self.script.gate])

    # What is said

    @property
    def kind(self) -> str:
        return "text_completion" if self.record.target.endswith("/completions") and "prompt" in self.body else "chat"

    @property
    def wants_usage_chunk(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, dict) and bool(options.get("include_usage")) and not self.script.no_usage

    def pieces(self) -> list[str]:
        if self.script.content is not None:
            words = self.script.content.split(" ")
            return [*(f"{word} " for word in words[:-1]), words[-1]]
        return [f"word{i} ".ljust(self.script.chunk_bytes) for i in range(self.script.chunks)]

    def usage(self, said: int) -> dict[str, Any]:
        prompt, completion = self.script.usage or (words_in(self.body), said)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def frame(self, choices: list[dict[str, Any]], *, streamed: bool) -> dict[str, Any]:
        if self.kind == "chat":
            name = "chat.completion.chunk" if streamed else "chat.completion"
        else:
            name = "text_completion"
        identity = "chatcmpl-fake" if self.kind == "chat" else "cmpl-fake"
        return {"id": identity, "object": name, "created": 1, "model": self.body.get("model"), "choices": choices}

    def delta(self, delta: dict[str, Any], finish: str | None = None, index: int = 0) -> dict[str, Any]:
        if self.kind == "chat":
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        else:
            choice = {"index": index, "text": delta.get("content", ""), "logprobs": None, "finish_reason": finish}
        return self.frame([choice], streamed=True)

    def message(self, message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
        choices: list[dict[str, Any]] = []
        for index in range(self.body.get("n") or 1):
            if self.kind == "chat":
                said = {"role": "assistant", "content": None, "refusal": None} | message
                choices.append({"index": index, "message": said, "logprobs": None, "finish_reason": finish})
            else:
                text = message.get("content", "")
                choices.append({"index": index, "text": text, "logprobs": None, "finish_reason": finish})
        return self.frame(choices, streamed=False)

    async def say(self, deltas: Iterator[dict[str, Any]], finish: str = "stop", end: str = "done") -> None:
        """Stream these deltas; `end` is done, cut (RST), unfinished (no [DONE]) or error (an event of the upstream)."""
        await self.start_stream()
        said = 0
        for delta in deltas:
            if said == 1:
                await self.pass_gate()
            if said and self.script.delay_ms:
                await self.wire.wait(self.script.delay_ms / 1000)
            await self.event(self.delta(delta))
            said += 1
        if said == 1:
            await self.pass_gate()
        if end == "cut":
            self.record.outcome = "cut"
            await self.wire.reset()
            return
        if end == "error":
            await self.event({"error": {"message": "engine died", "type": "server_error", "code": "engine_dead"}})
        if end == "done":
            await self.event(self.delta({}, finish))
            if self.wants_usage_chunk:
                await self.event(self.frame([], streamed=True) | {"usage": self.usage(said)})
            await self.event("[DONE]")
        await self.end_stream()

    async def reply(self, message: dict[str, Any], finish: str = "stop", **more: Any) -> None:
        """A whole JSON answer."""
        await self.pass_gate()
        body = self.message(message, finish) | more
        if not self.script.no_usage:
            body["usage"] = self.usage(len(self.pieces()))
        await self.json(200, body)


# The plays. Each is one way in which an inference server behaves.


async def answer(a: Answer) -> None:
    if a.record.target.endswith("/embeddings"):
        await embeddings(a)
    elif a.body.get("stream"):
        opening = [{"role": "assistant"}]
        deltas = itertools.zip_longest(opening, a.pieces(), fillvalue={})
        await a.say({**role, "content": piece} for role, piece in deltas)
    else:
        await a.reply({"content": "".join(a.pieces())})


async def embeddings(a: Answer) -> None:
    given = a.body.get("input")
    texts = given if isinstance(given, list) else [given]
    data = []
    for index, text in enumerate(texts):
        vector: Any = [float(len(str(text))), 0.5, -1.0]
        if a.body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = a.usage(0)
    counted = {"prompt_tokens": usage["prompt_tokens"], "total_tokens": usage["prompt_tokens"]}
    await a.json(200, {"object": "list", "data": data, "model": a.body.get("model"), "usage": counted})


async def html(a: Answer) -> None:
    await a.whole(200, b"<html><body>502 Bad Gateway, says a proxy with 200</body></html>", None, "text/html")


async def unauthorized(a: Answer) -> None:
    await a.error(401, "invalid_api_key")


async def bad_request(a: Answer) -> None:
    await a.error(400, "context_length_exceeded")


async def rate_limited(a: Answer) -> None:
    await a.error(429, "engine_busy", {"retry-after": str(a.script.retry_after)})


async def broken(a: Answer) -> None:
    await a.error(500, "engine_dead")


async def overloaded(a: Answer) -> None:
    await a.error(503, "engine_overloaded", {"retry-after": str(a.script.retry_after)})


async def hang(a: Answer) -> None:
    await a.wire.wait(FOREVER)


async def silent(a: Answer) -> None:
    """One event, then nothing for ever."""
    await a.start_stream()
    await a.event(a.delta({"role": "assistant", "content": "word0 "}))
    await a.wire.wait(FOREVER)


async def endless(a: Answer) -> None:
    """A stream that ends only when its client leaves."""
    pause = (a.script.delay_ms or 20) / 1000
    await a.start_stream()
    for i in itertools.count():
        await a.event(a.delta({"content": f"word{i} "}))
        await a.wire.wait(pause)


async def flood(a: Answer) -> None:
    """As much as the wire takes, for ever."""
    await a.start_stream()
    event = a.delta({"content": "x" * 65536})
    while True:
        await a.event(event)


async def cut_stream(a: Answer) -> None:
    await a.say(({"content": piece} for piece in a.pieces()), end="cut")


async def unfinished_stream(a: Answer) -> None:
    await a.say(({"content": piece} for piece in a.pieces()), end="unfinished")


async def error_event(a: Answer) -> None:
    await a.say(({"content": piece} for piece in a.pieces()), end="error")


async def zipped(a: Answer) -> None:
    """Compressed, whether or not anybody asked for it."""
    whole = gzip.compress(json.dumps(a.message({"content": "zipped"}) | {"usage": a.usage(1)}).encode())
    await a.whole(200, whole, {"content-encoding": "gzip"})


async def in_chunks(a: Answer) -> None:
    """A whole JSON answer without a Content-Length."""
    whole = json.dumps(a.message({"content": "in chunks"}) | {"usage": a.usage(2)}).encode()
    await a.head(200, {"content-type": "application/json", "transfer-encoding": "chunked"})
    for start in range(0, len(whole), 50):
        await a.piece(whole[start : start + 50])
    await a.end_stream()


async def hangs_up(a: Answer) -> None:
    """Answers, and closes the connection without having said so, as servers do with idle ones."""
    await answer(a)
    a.wire.transport.close()


async def raw(a: Answer) -> None:
    """Exactly these bytes, framing and all."""
    told = a.script.raw.encode("latin-1")
    if a.script.drip:
        a.wire.no_delay()
        for at in range(len(told)):
            await a.wire.write(told[at : at + 1])
            await asyncio.sleep(0)
    else:
        await a.wire.write(told)
    if a.script.close:
        a.wire.transport.close()


async def cut_body(a: Answer) -> None:
    whole = json.dumps(a.message({"content": "half a"}) | {"usage": a.usage(2)}).encode()
    await a.whole(200, whole[: len(whole) // 2], missing=len(whole) - len(whole) // 2)
    a.record.outcome = "cut"
    await a.wire.reset()


def tool_call(index: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"index": index, "id": f"call_{index}", "type": "function", "function": function}


async def _call_tools(a: Answer, calls: list[dict[str, Any]]) -> None:
    if not a.body.get("stream"):
        whole = [{k: v for k, v in call.items() if k != "index"} for call in calls]
        await a.reply({"tool_calls": whole}, "tool_calls")
        return

    def deltas() -> Iterator[dict[str, Any]]:
        # As vLLM streams them: the name first, then the arguments in parts, the calls interleaved.
        for number, call in enumerate(calls):
            opened = call | {"function": {"name": call["function"]["name"], "arguments": ""}}
            yield ({} if number else {"role": "assistant"}) | {"tool_calls": [opened]}
        for part in (slice(0, 5), slice(5, None)):
            for call in calls:
                text = call["function"]["arguments"][part]
                yield {"tool_calls": [{"index": call["index"], "function": {"arguments": text}}]}

    await a.say(deltas(), "tool_calls")


async def tools(a: Answer) -> None:
    await _call_tools(a, [tool_call(0, "get_weather", {"city": "Paris"})])


async def parallel_tools(a: Answer) -> None:
    cities = ["Paris", "Oslo", "Lima"]
    await _call_tools(a, [tool_call(i, "get_weather", {"city": city}) for i, city in enumerate(cities)])


async def reasoning(a: Answer) -> None:
    if not a.body.get("stream"):
        await a.reply({"content": "42", "reasoning_content": "six by seven", "reasoning": "six by seven"})
        return
    said = [
        {"role": "assistant", "reasoning_content": "six by ", "reasoning": "six by "},
        {"reasoning_content": "seven", "reasoning": "seven"},
        {"content": "42"},
    ]
    await a.say(iter(said))


async def vendor(a: Answer) -> None:
    extra = {"x_vendor": {"nested": [1, 2.50, "drei"]}, "kv_transfer_params": None, "prompt_logprobs": [None]}
    if not a.body.get("stream"):
        await a.reply({"content": "with extras", "x_said_by": "gpu-7"}, **extra)
        return
    await a.say(iter([{"content": "with ", "x_said_by": "gpu-7"}, {"content": "extras", "x_score": 0.10}]))


PLAYS: dict[str, Callable[[Answer], Awaitable[None]]] = {
    play.__name__: play
    for play in (
        answer,
        html,
        unauthorized,
        bad_request,
        rate_limited,
        broken,
        overloaded,
        hang,
        silent,
        endless,
        flood,
        cut_stream,
        unfinished_stream,
        error_event,
        cut_body,
        zipped,
        in_chunks,
        hangs_up,
        raw,
        tools,
        parallel_tools,
        reasoning,
        vendor,
    )
}


class Upstream:
    """Reads requests off its connections, answers them by their script and remembers them."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._numbers = itertools.count(1)
        self._gates: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def serve(self, wire: Wire) -> None:
        while True:
            record = await self._read(wire)
            if record.target.startswith("/__"):
                await self._control(Answer(wire, record, self._gates))
                continue
            self._records.append(record)
            try:
                await self._play(Answer(wire, record, self._gates))
            except ClientLeftError:
                if record.outcome == "answering":
                    record.outcome = "client_left"
                    record.left_at = wire.left_at
                raise
            if record.outcome == "cut":
                return
            record.outcome = "complete"

    async def _read(self, wire: Wire) -> Record:
        head = (await wire.read_until(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")[:-2]
        method, target, _ = first.split(" ", 2)
        headers = []
        for line in lines:
            name, _, value = line.partition(":")
            headers.append((name, value.strip()))
        lowered = {name.lower(): value for name, value in headers}
        if lowered.get("expect", "").lower() == "100-continue":
            await wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if lowered.get("transfer-encoding", "").lower() == "chunked":
            body = await self._read_chunked(wire)
        else:
            body = await wire.read_exactly(int(lowered.get("content-length", "0")))
        return Record(next(self._numbers), method, target, headers, body, time.monotonic())

    async def _read_chunked(self, wire: Wire) -> bytes:
        body = b""
        while True:
            size = int((await wire.read_until(b"\r\n")).split(b";")[0], 16)
            body += (await wire.read_exactly(size + 2))[:-2]
            if size == 0:
                return body

    async def _play(self, a: Answer) -> None:
        if a.script.wait_ms:
            await a.wire.wait(a.script.wait_ms / 1000)
        if a.record.method == "GET" and a.record.target.endswith("/models"):
            await a.json(200, {"object": "list", "data": [{"id": "fake", "object": "model", "created": 1}]})
            return
        await PLAYS[a.script.play](a)

    async def _control(self, a: Answer) -> None:
        match a.record.method, a.record.target.strip("/").split("/"):
            case "GET", ["__requests"]:
                await a.json(200, [record.as_json() for record in self._records])
            case "DELETE", ["__requests"]:
                self._records.clear()
                await a.json(200, {})
            case "POST", ["__gates", name]:
                self._gates[name].set()
                await a.json(200, {})
            case _:
                await a.error(404, "not_found")


async def main(port: int) -> None:
    upstream = Upstream()
    server = await asyncio.get_running_loop().create_server(lambda: Wire(upstream.serve), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--port", type=int, required=True)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(arguments.parse_args().port))
