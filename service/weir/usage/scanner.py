"""Reads usage aside while an answer passes. Sans I/O: bytes in, bytes out, and what was seen in the attributes.

A network chunk is not an event: a scanner keeps the unfinished event's bytes, within a bound, and is tested with every
split position. The stream format is WHATWG's server-sent events (html.spec.whatwg.org, section 9.2); what stands in an
event here is OpenAI's chat.completion.chunk. Streams whose events name their type are in `typed_scanner.py`.
"""

import re
from typing import Any, Protocol

import orjson

from weir.core.types import Usage
from weir.usage.reported import FINISH, STOP, USAGE, as_usage, ending_of, parsed, usage_at_end

HELD_MAX = 64 * 1024  # bytes; an event above this is content, never the usage chunk, and is not held back
SAMPLE_EVERY = 16  # events, of which one, and the first three, are parsed to see how much text they hold
TAIL = 16 * 1024  # bytes kept of a larger event or body, enough for the usage object at its end

# A blank line. Atomic groups, or `\r\n` would be taken for two line ends; a `\r` that ends the buffer may yet be the
# first half of `\r\n`, so it waits for one byte more.
BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r(?!\Z))(?>\r\n|\n|\r(?!\Z))")
LINE_END = re.compile(rb"\r\n|\n|\r")
_ERROR_EVENT = re.compile(rb'data: ?\{\s*"error"\s*:\s*[^\sn]')
_WRITTEN = ("delta", "content", "reasoning", "reasoning_content", "tool_calls", "function", "arguments", "text")
BOM = b"\xef\xbb\xbf"


class Scanner(Protocol):
    """What the relay asks of either kind: pass this on, and say what was used."""

    failed: bool
    finish_reason: str | None
    events: int

    @property
    def usage(self) -> Usage | None: ...
    @property
    def content_bytes(self) -> int: ...
    @property
    def complete(self) -> bool: ...
    @property
    def at_boundary(self) -> bool: ...
    @property
    def half_out(self) -> bool: ...
    def feed(self, chunk: bytes) -> bytes: ...
    def flush(self) -> bytes: ...


class EventScanner:
    """An event stream. With `strip_usage` the usage chunk that only we asked for is taken out; nothing else changes."""

    __slots__ = (
        "_buffer",
        "_carriage_returns",
        "_ended_within",
        "_large_error",
        "_released",
        "_sampled",
        "_samples",
        "_searched",
        "_started",
        "_strip",
        "events",
        "failed",
        "finish_reason",
        "finished",
        "usage",
    )

    def __init__(self, *, strip_usage: bool = False) -> None:
        self.usage: Usage | None = None
        self.finished = False
        self.failed = False
        self.finish_reason: str | None = None
        self.events = 0
        self._strip = strip_usage
        self._buffer = bytearray()  # the unfinished event
        self._searched = 0  # how far a blank line was looked for in it
        self._released = 0  # how much of it is out already: above 0 only where it grew beyond HELD_MAX
        self._started = False
        self._carriage_returns = False
        self._ended_within = False
        self._large_error = False  # the event of which only the end is kept began as an error
        self._samples = 0
        self._sampled = 0  # bytes of text in the samples

    @property
    def at_boundary(self) -> bool:
        """No event is half relayed: a comment may be written now."""
        return not self._buffer

    @property
    def half_out(self) -> bool:
        """The client has the beginning of an event and not its end."""
        return self._ended_within or bool(self._released if self._strip else self._buffer)

    @property
    def complete(self) -> bool:
        """The stream said that it ended, or that it failed; otherwise its end is a failure."""
        return self.finished or self.failed

    @property
    def content_bytes(self) -> int:
        """About how many bytes of text passed, from one event in SAMPLE_EVERY."""
        return self._sampled * self.events // self._samples if self._samples else 0

    def feed(self, chunk: bytes) -> bytes:
        """Take what upstream sent, return what the client gets now: without `strip_usage` the very same object.

        With it, b"" while an event that might have to go is unfinished; at most HELD_MAX bytes are held.
        """
        # The usual chunk is one whole event of content: four searches, no copy, no parse.
        if (
            not self._buffer
            and self._started
            and chunk.startswith(b"data: {")
            and chunk.endswith(b"}\n\n")
            and chunk.find(b"\n", 0, -2) == -1
            and b'"usage"' not in chunk
            and b'"error"' not in chunk
        ):
            self.events += 1
            if not self.events % SAMPLE_EVERY or self.events < SAMPLE_EVERY // 4:
                self._sample(parsed(chunk[6:]))
            if b'"finish_reason":null' not in chunk or b'"finish_reason":"' in chunk:
                self._note_finish(chunk)
            return chunk
        passed = self._take_apart(chunk)
        return passed if self._strip else chunk

    def flush(self) -> bytes:
        """Upstream ended: what was still held. A last event without its blank line is read all the same."""
        event, released = bytes(self._buffer), self._released
        self._ended_within = self.half_out
        drop = bool(event) and self._read(event)
        self._buffer.clear()
        self._searched = self._released = 0
        return event[released:] if self._strip and not drop else b""

    def _take_apart(self, chunk: bytes) -> bytes:
        buffer = self._buffer
        buffer += chunk
        passed: list[bytes] = []
        self._carriage_returns = self._carriage_returns or b"\r" in chunk
        while end := self._event_end():
            event = bytes(buffer[:end])
            del buffer[:end]
            if not self._read(event):
                passed.append(event[self._released :])
            self._searched = self._released = 0
        if self._released or len(buffer) > HELD_MAX:
            if not self._released:
                self._large_error = _ERROR_EVENT.match(buffer) is not None
            passed.append(bytes(buffer[self._released :]))
            if len(buffer) > HELD_MAX:
                del buffer[:-TAIL]
            self._released = len(buffer)
        # A blank line is at most four bytes, so the last three may be its beginning.
        self._searched = max(len(buffer) - 3, 0)
        return b"".join(passed)

    def _event_end(self) -> int:
        """Where the first event in the buffer ends, behind its blank line; 0 if it is unfinished."""
        if not self._carriage_returns:  # nearly always: a find is 1 ns a byte, the pattern 14
            at = self._buffer.find(b"\n\n", self._searched)
            return at + 2 if at >= 0 else 0
        found = BLANK_LINE.search(self._buffer, self._searched)
        return found.end() if found else 0

    def _sample(self, said: dict[str, Any]) -> None:
        self._samples += 1
        self._sampled += text_bytes(said.get("choices"))

    def _note_finish(self, event: bytes) -> None:
        for found in FINISH.finditer(event):
            self.finish_reason = found[1].decode()

    def _read(self, event: bytes) -> bool:
        """Note what an event says; True if it is a usage chunk and nothing else."""
        if not self._started:
            self._started = True
            event = event.removeprefix(BOM)
        data = b"\n".join(
            line[6:] if line.startswith(b"data: ") else line[5:]
            for line in (LINE_END.split(event) if self._carriage_returns else event.split(b"\n"))
            if line.startswith(b"data:")
        )
        if self._released:  # only its last part is here
            if self._large_error:
                self.failed = True
                return False
            self.events += 1
            self._note_finish(event)
            self.usage = as_usage(usage_at_end(event)) or self.usage
            return False
        if not data:
            return False
        if data == b"[DONE]":
            self.finished = True
            return False
        self._note_finish(data)
        if b'"error"' in data or USAGE.search(data):
            said = parsed(data)
            if said.get("error"):
                self.failed = True
                return False
            self.usage = as_usage(said.get("usage")) or self.usage
            if said.get("choices") == [] and isinstance(said.get("usage"), dict):
                return True
        self.events += 1
        if not self.events % SAMPLE_EVERY or self.events < SAMPLE_EVERY // 4:
            self._sample(parsed(data))
        return False


class BodyScanner:
    """A single JSON answer. Small ones are parsed when complete; large ones (embeddings) are searched as they pass."""

    __slots__ = ("_kept", "_large", "_size", "_usage", "cut", "events", "failed", "finish_reason")

    at_boundary = False  # a comment never fits into JSON
    complete = True  # the transport knows where a body ends
    half_out = False

    def __init__(self) -> None:
        self._kept = bytearray()
        self._size = 0
        self._large = False
        self.cut = False
        self._usage: Usage | None = None
        self.events = 0
        self.failed = False
        self.finish_reason: str | None = None

    @property
    def content_bytes(self) -> int:
        return 0 if self.failed else self._size

    def feed(self, chunk: bytes) -> bytes:
        self._size += len(chunk)
        self._kept += chunk
        if len(self._kept) > HELD_MAX:
            self._large = True
            self._search()
            del self._kept[:-TAIL]  # a usage object that is cut here is whole in what is kept
        return chunk

    def flush(self) -> bytes:
        """The body is complete: read it. `cut` says that it is only the beginning of one."""
        if self._kept:
            if self._large:
                self._search()
                self.cut = not self._kept.rstrip().endswith((b"}", b"]"))
            else:
                self._parse()
            self._kept.clear()
        return b""

    @property
    def usage(self) -> Usage | None:
        """Of the complete body; the last one where it names several."""
        self.flush()
        return self._usage

    def _search(self) -> None:
        self._usage = as_usage(usage_at_end(bytes(self._kept))) or self._usage
        self._note_finish()

    def _note_finish(self) -> None:
        for found in FINISH.finditer(self._kept):
            self.finish_reason = found[1].decode()
        if self.finish_reason is None and (stopped := STOP.search(self._kept)):
            self.finish_reason = stopped[1].decode()

    def _parse(self) -> None:
        """The top level decides. What is not quite JSON (half a surrogate, NaN in logprobs) keeps what was found."""
        try:
            said = orjson.loads(self._kept)
        except orjson.JSONDecodeError as error:
            self.cut = error.msg.startswith("unexpected end")
            if not self.cut and self._kept.rstrip().endswith(b"}"):
                self._search()
            return
        if isinstance(said, dict):
            meta = said.get("meta")  # where Cohere's rerank has it
            billed = meta.get("billed_units") if isinstance(meta, dict) else None
            self._usage = as_usage(said.get("usage")) or as_usage(billed)
            # LM Studio and OpenRouter say 200 and then that they could not: that is no answer, and costs nothing.
            self.failed = bool(said.get("error")) and self._usage is None and not said.get("choices")
            self.finish_reason = ending_of(said)
            if found := FINISH.search(self._kept):
                self.finish_reason = found[1].decode()


def text_bytes(written: object) -> int:
    """Bytes of everything that a model wrote in an event: content, reasoning, arguments of tools, text."""
    if isinstance(written, str):
        return len(written.encode(errors="replace"))
    if isinstance(written, list):
        return sum(map(text_bytes, written))
    if isinstance(written, dict):
        return sum(text_bytes(written.get(name)) for name in _WRITTEN)
    return 0
