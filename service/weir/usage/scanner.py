"""Reads usage aside while an answer passes. Sans I/O: bytes in, bytes out, and what was seen in the attributes.

A network chunk is not an event: a scanner keeps the unfinished event's bytes, within a bound, and is tested with every
split position. The stream format is WHATWG's server-sent events (html.spec.whatwg.org, section 9.2); what stands in an
event here is OpenAI's chat.completion.chunk. Streams whose events name their type are in `typed_scanner.py`, answers
that are no stream in `body_scanner.py`.
"""

import re
from typing import Any, Protocol

from weir.core.types import Usage
from weir.usage.outline import Outline
from weir.usage.reported import FINISH, USAGE, as_usage, ending_of, parsed
from weir.usage.written import text_bytes

HELD_MAX = 64 * 1024  # bytes; an event above this is content, never the usage chunk, and is not held back
SAMPLE_EVERY = 16  # events, of which one, and the first three, are parsed to see how much text they hold
CONTENT = b'"content":"'
STRANGERS_MAX = 64  # a server whose events differ in more than the word is not asked for ever what they have in common
TAIL = 3  # bytes kept of a larger event: a blank line is at most four, and these may be its beginning

# A blank line. Atomic groups, or `\r\n` would be taken for two line ends; a `\r` that ends the buffer may yet be the
# first half of `\r\n`, so it waits for one byte more.
BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r(?!\Z))(?>\r\n|\n|\r(?!\Z))")
LINE_END = re.compile(rb"\r\n|\n|\r")
BOM = b"\xef\xbb\xbf"


class Scanner(Protocol):
    """What the relay asks of either kind: pass this on, and say what was used."""

    failed: bool
    finish_reason: str | None
    events: int

    @property
    def usage(self) -> Usage | None: ...
    @property
    def told_last(self) -> bool: ...  # `usage` is of the whole answer, and not of what there was so far
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
        "_head",
        "_outline",
        "_released",
        "_sampled",
        "_samples",
        "_searched",
        "_started",
        "_strangers",
        "_strip",
        "_tail",
        "_told_at",
        "events",
        "failed",
        "finish_reason",
        "finished",
        "usage",
    )

    def __init__(self, *, strip_usage: bool = False) -> None:
        self.usage: Usage | None = None
        self._told_at = -1  # how many events had passed when a chunk of nothing but usage came
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
        self._outline: Outline | None = None  # of the event whose beginning is gone from the buffer
        self._samples = 0
        self._sampled = 0  # bytes of text in the samples
        self._head = self._tail = b""  # of the last event of content, around its word
        self._strangers = 0  # events that were not like the one before

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
    def told_last(self) -> bool:
        """Some servers begin with a usage, or have one in each event: while more may follow, it is no last word."""
        return self.finished or self.finish_reason is not None or self._told_at == self.events

    @property
    def content_bytes(self) -> int:
        """About how many bytes of text passed, from one event in SAMPLE_EVERY."""
        return self._sampled * self.events // self._samples if self._samples else 0

    def feed(self, chunk: bytes) -> bytes:
        """Take what upstream sent, return what the client gets now: without `strip_usage` the very same object.

        With it, b"" while an event that might have to go is unfinished; at most HELD_MAX bytes are held.
        """
        # The usual chunk is one whole event of content, and differs from the one before in its word alone.
        word, end = len(self._head), -len(self._tail)
        if (
            end
            and not self._buffer
            and chunk.startswith(self._head)
            and chunk.endswith(self._tail, word)
            and chunk.find(b'"', word, end) == -1
            and chunk.find(b"\n", word, end) == -1
        ):
            self.events += 1
            if not self.events % SAMPLE_EVERY or self.events < SAMPLE_EVERY // 4:
                self._sample(parsed(chunk[6:]))
            return chunk
        # Or it is one that says no more than content: seven searches, no copy, no parse.
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
            elif self._strangers < STRANGERS_MAX:
                self._learn(chunk)
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

    def _learn(self, event: bytes) -> None:
        """What stands before and behind the word in this event, which says nothing but content. In the next one like it
        nothing else can be said, if in place of the word is one without a quotation mark.
        """
        self._strangers += 1
        word = event.find(CONTENT) + len(CONTENT)
        end = event.find(b'"', word)
        if word > len(CONTENT) and event.find(b"\\", word, end) == -1:
            self._head, self._tail = event[:word], event[end:]

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
            passed.append(bytes(buffer[self._released :]))
            if len(buffer) > HELD_MAX:
                self._outline = shortened(buffer, self._outline)
            self._released = len(buffer)
        self._searched = max(len(buffer) - TAIL, 0)
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
        if self._outline is not None:
            self._read_large(self._outline, event)
            return False
        data = b"\n".join(
            line[6:] if line.startswith(b"data: ") else line[5:]
            for line in (LINE_END.split(event) if self._carriage_returns else event.split(b"\n"))
            if line.startswith(b"data:")
        )
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
                self._told_at = self.events
                return True
        self.events += 1
        if not self.events % SAMPLE_EVERY or self.events < SAMPLE_EVERY // 4:
            self._sample(parsed(data))
        return False

    def _read_large(self, outline: Outline, end: bytes) -> None:
        """Content that was too large to keep; its end is here, and of the rest its outline."""
        self._outline = None
        outline.feed(end)
        said = outline.read()
        if said.get("error"):
            self.failed = True
            return
        self.events += 1
        self.finish_reason = ending_of(said) or self.finish_reason
        self.usage = as_usage(said.get("usage")) or self.usage


def shortened(event: bytearray, outline: Outline | None) -> Outline:
    """All but the last bytes of a large event go, into its outline."""
    if outline is None:
        outline = Outline()
        begin = max(event.find(b"{"), 0)  # behind the names of the event and its field
    else:
        begin = 0
    outline.feed(bytes(event[begin:-TAIL]))
    del event[:-TAIL]
    return outline
