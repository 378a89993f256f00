"""Reads usage aside from event streams whose events name their type: all that are not chat. Sans I/O, see `scanner.py`.

    Messages        message_start, content_block_delta, message_delta, message_stop     (Anthropic)
    Responses       response.output_text.delta ..., response.completed | incomplete | failed
    transcription   transcript.text.delta, transcript.text.done
    speech          speech.audio.delta, speech.audio.done
    images          image_generation.partial_image, image_generation.completed

The type stands in the data, and mostly in an `event:` line before it. Nothing is ever taken out of these streams: the
very chunk that came in goes out.
"""

from typing import Any

from weir.core.types import Usage
from weir.usage.estimate import counted_output
from weir.usage.outline import Outline
from weir.usage.reported import as_usage, ending_of, parsed
from weir.usage.scanner import BLANK_LINE, BOM, HELD_MAX, LINE_END, SAMPLE_EVERY, TAIL, EventScanner, shortened
from weir.usage.written import text_bytes

# Behind one of these nothing comes that matters. Of images there may be several, each with its end, so that theirs
# makes a stream complete and does not finish it.
_TERMINATORS = {
    "message_stop",
    "response.completed",
    "response.incomplete",
    "transcript.text.done",
    "speech.audio.done",
}
_ENDS_OF_IMAGES = {"image_generation.completed", "image_edit.completed"}
_ENDS_OF_RESPONSES = {"response.completed", "response.incomplete", "response.failed"}
_FAILURES = {"error", "response.failed"}
_LAST_WORDS = _TERMINATORS | _ENDS_OF_IMAGES | _FAILURES | {"message_delta"}
_WRITTEN = ("text", "thinking", "partial_json")
_NOTHING_USUAL = b"\0"  # no event begins so


class TypedEventScanner:
    """See `Scanner`. `events` are those in which the model said something: each is a token, or about one."""

    __slots__ = (
        "_buffer",
        "_carriage_returns",
        "_ended_within",
        "_enough",
        "_name",
        "_outline",
        "_reported",
        "_said",
        "_sampled",
        "_samples",
        "_searched",
        "_started",
        "_usual",
        "events",
        "failed",
        "finish_reason",
        "finished",
    )

    def __init__(self) -> None:
        self.finished = False
        self.failed = False
        self.finish_reason: str | None = None
        self.events = 0
        self._usual = _NOTHING_USUAL  # how the last event of content began, up to its data or its type
        self._said: dict[str, Any] = {}  # the fields of usage objects, the latest of each
        self._reported = False  # the numbers are the last ones, and not those of the beginning
        self._enough = False
        self._samples = 0
        self._sampled = 0  # bytes of text in the samples
        self._buffer = bytearray()  # the unfinished event; of one above HELD_MAX only its end
        self._searched = 0  # how far a blank line was looked for in it
        self._started = False
        self._carriage_returns = False
        self._ended_within = False
        self._outline: Outline | None = None  # of the event whose beginning is gone from the buffer
        self._name = ""  # what the line before its data called it

    @property
    def usage(self) -> Usage | None:
        """What was said; of a stream that ended early the prompt that its beginning named, and what was counted."""
        usage = as_usage(self._said)
        if usage is None or self._reported:
            return usage
        if self.failed and not self.events:
            return None  # it failed before it said anything: that costs nothing
        relayed = counted_output(self.events, self.content_bytes)
        return usage._replace(output_tokens=max(usage.output_tokens, relayed))

    @property
    def told_last(self) -> bool:
        return True  # see `usage`

    @property
    def content_bytes(self) -> int:
        """About how many bytes of text passed, from one event in SAMPLE_EVERY; sound and images are none."""
        return self._sampled * self.events // self._samples if self._samples else 0

    @property
    def complete(self) -> bool:
        """The stream said that it ended, or that it failed; otherwise its end is a failure."""
        return self.finished or self.failed or self._enough

    @property
    def at_boundary(self) -> bool:
        """No event is half relayed: a comment may be written now."""
        return not self._buffer

    @property
    def half_out(self) -> bool:
        """The client has the beginning of an event and not its end."""
        return self._ended_within or bool(self._buffer)

    def feed(self, chunk: bytes) -> bytes:
        """Take what upstream sent; the very same object is what the client gets now."""
        # The usual chunk is one whole event of content that begins as the last one did: a few searches and no parse,
        # 0.8 us instead of 4.8.
        usual = self._usual
        if (
            not self._buffer
            and chunk.startswith(usual)
            and chunk.endswith(b"}\n\n")
            and chunk.find(b"\n", len(usual), -2) == -1
            and b"\r" not in chunk
        ):
            self.events += 1
            if not self.events % SAMPLE_EVERY or self.events < SAMPLE_EVERY // 4:
                self._sample(chunk[chunk.index(b"{") :])
            return chunk
        self._take_apart(chunk)
        return chunk

    def flush(self) -> bytes:
        """Upstream ended. A last event without its blank line is read all the same; nothing was held back."""
        self._ended_within = self.half_out
        if self._buffer:
            self._read(bytes(self._buffer))
            self._buffer.clear()
            self._searched = 0
        return b""

    def _take_apart(self, chunk: bytes) -> None:
        buffer = self._buffer
        buffer += chunk
        self._carriage_returns = self._carriage_returns or b"\r" in chunk
        while end := self._event_end():
            event = bytes(buffer[:end])
            del buffer[:end]
            self._read(event)
            self._searched = 0
        if len(buffer) > HELD_MAX:
            if self._outline is None:
                self._name = _fields(bytes(buffer if self._started else buffer.removeprefix(BOM)))[0]
            self._outline = shortened(buffer, self._outline)
        self._searched = max(len(buffer) - TAIL, 0)

    def _event_end(self) -> int:
        """Where the first event in the buffer ends, behind its blank line; 0 if it is unfinished."""
        if not self._carriage_returns:
            at = self._buffer.find(b"\n\n", self._searched)
            return at + 2 if at >= 0 else 0
        found = BLANK_LINE.search(self._buffer, self._searched)
        return found.end() if found else 0

    def _read(self, event: bytes) -> None:
        """Note what an event says."""
        if not self._started:
            self._started = True
            event = event.removeprefix(BOM)
        if self._outline is not None:
            self._read_large(self._outline, event)
            return
        if event.startswith(self._usual):
            self._count(event)
            return
        name, data = _fields(event)
        if not data:
            return
        if data == b"[DONE]":  # how vLLM ends each of its streams, behind the end or instead of it
            self.finished = True
            return
        said = parsed(data)
        kind = _kind(said, name)
        if _is_content(kind, said):
            self._count(event)
            self._learn(kind, event)
        self._note(kind, said)

    def _read_large(self, outline: Outline, end: bytes) -> None:
        """Of a large event its end is here, and of the rest its outline."""
        self._outline = None
        outline.feed(end)
        said = outline.read()
        kind = _kind(said, self._name)
        if _is_content(kind, said):
            self.events += 1
        self._note(kind, said)

    def _note(self, kind: str, said: dict[str, Any]) -> None:
        inner = said.get("response") or said.get("message")
        inner = inner if isinstance(inner, dict) else {}
        self._note_usage(kind, said.get("usage") or inner.get("usage"))
        if kind == "message_delta":
            delta = said.get("delta")
            self.finish_reason = (ending_of(delta) if isinstance(delta, dict) else None) or self.finish_reason
        self._note_ending("error" if said.get("error") else kind, inner)

    def _note_usage(self, kind: str, said: object) -> None:
        """The later wins, field by field: what a later object leaves out, or has as null, stays."""
        if isinstance(said, dict) and said:
            self._said.update((name, value) for name, value in said.items() if value is not None)
            self._reported = self._reported or kind in _LAST_WORDS or not kind

    def _note_ending(self, kind: str, response: dict[str, Any]) -> None:
        if kind in _FAILURES:
            self.failed = True
        elif kind in _TERMINATORS:
            self.finished = True
        elif kind in _ENDS_OF_IMAGES:
            self._enough = True
        if kind in _ENDS_OF_RESPONSES:
            self.finish_reason = ending_of({**response, "object": "response"})

    def _count(self, event: bytes) -> None:
        self.events += 1
        if not self.events % SAMPLE_EVERY or self.events < SAMPLE_EVERY // 4:
            self._sample(_fields(event)[1])

    def _learn(self, kind: str, event: bytes) -> None:
        """Remember how this event began, where its first bytes say what it is: the next one will be like it."""
        word = kind.encode()
        for beginning in (b"event: %b\ndata: {" % word, b'data: {"type":"%b"' % word, b'data: {"type": "%b"' % word):
            if word and event.startswith(beginning):
                self._usual = beginning

    def _sample(self, data: bytes) -> None:
        self._samples += 1
        said = parsed(data)
        delta = said.get("delta")
        if isinstance(delta, dict):
            self._sampled += sum(text_bytes(delta.get(name)) for name in _WRITTEN)
        elif not str(said.get("type")).endswith("audio.delta"):
            self._sampled += text_bytes(delta) + text_bytes(said.get("choices"))


StreamScanner = EventScanner | TypedEventScanner


def scanner_for(operation: str, *, strip_usage: bool) -> StreamScanner:
    """The scanner of an operation's event stream; `strip_usage` is chat's and completions' alone."""
    if operation in ("chat", "text_completion"):
        return EventScanner(strip_usage=strip_usage)
    return TypedEventScanner()


def _fields(event: bytes) -> tuple[str, bytes]:
    """The event's name and its data."""
    name, data = "", []
    for line in LINE_END.split(event):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ").decode(errors="replace")
    return name, b"\n".join(data)


def _is_content(kind: str, said: dict[str, Any]) -> bool:
    """A piece of an answer. Without a type but with choices it is vLLM's piece of a transcription."""
    if kind.endswith(("delta", "partial_image")):
        return kind != "message_delta"
    return not kind and bool(said.get("choices"))


def _kind(said: dict[str, Any], name: str) -> str:
    kind = said.get("type")
    return kind if isinstance(kind, str) else name
