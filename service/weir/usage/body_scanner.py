"""Reads usage aside from an answer that is a single JSON document. Sans I/O, see `scanner.py`."""

from typing import Any

import orjson

from weir.core.types import Usage
from weir.usage.outline import Outline
from weir.usage.reported import as_usage, ending_of, parsed
from weir.usage.scanner import HELD_MAX
from weir.usage.written import answer_bytes, is_numbers

WHOLE_MAX = 1 << 20  # bytes; of a larger body (vectors, pictures) only the outline is kept


class BodyScanner:
    """See `Scanner`. Its top level decides: what stands deeper, or in what it repeats of the request, is not read."""

    __slots__ = ("_kept", "_outline", "_size", "_usage", "_written", "cut", "events", "failed", "finish_reason")

    at_boundary = False  # a comment never fits into JSON
    complete = True  # the transport knows where a body ends
    half_out = False
    told_last = True

    def __init__(self) -> None:
        self._kept = bytearray()
        self._outline: Outline | None = None
        self._size = 0
        self._written: int | None = None
        self.cut = False
        self._usage: Usage | None = None
        self.events = 0
        self.failed = False
        self.finish_reason: str | None = None

    @property
    def content_bytes(self) -> int:
        """Bytes of text in the answer; of one that cannot be read, and says nothing of what it used, its size."""
        if self.failed or (self._written is None and self._usage is not None):
            return 0
        return self._size if self._written is None else self._written

    def feed(self, chunk: bytes) -> bytes:
        self._size += len(chunk)
        if self._outline is not None:
            self._outline.feed(chunk)
            return chunk
        self._kept += chunk
        if len(self._kept) > WHOLE_MAX:
            self._outline = _outline_of(self._kept)
            self._kept.clear()
        return chunk

    def flush(self) -> bytes:
        """The body is complete: read it. `cut` says that it is only the beginning of one."""
        # Above HELD_MAX the outline first: of 460 KB of vectors it takes 0.5 ms and a parse 1.1.
        outline = _outline_of(self._kept) if len(self._kept) > HELD_MAX else self._outline
        if outline is not None:
            self.cut = outline.unfinished
            said = outline.read()
            self._note(said)
            if is_numbers(said):
                self._written = 0
        if self._kept:
            if self._usage is None:
                self._parse()
            self._kept.clear()
        return b""

    @property
    def usage(self) -> Usage | None:
        """Of the complete body."""
        self.flush()
        return self._usage

    def _parse(self) -> None:
        """What is not quite JSON (half a surrogate, NaN in logprobs) is read all the same."""
        try:
            said = orjson.loads(self._kept)
        except orjson.JSONDecodeError as error:
            self.cut = error.msg.startswith("unexpected end")
            if self.cut or not self._kept.rstrip().endswith(b"}"):
                return
            said = parsed(self._kept) or _outline_of(self._kept).read()
        if isinstance(said, dict):
            self._note(said)
            if self._usage is None or not self._usage.output_tokens:
                self._written = answer_bytes(said)

    def _note(self, said: dict[str, Any]) -> None:
        meta = said.get("meta")  # where Cohere's rerank has it
        billed = meta.get("billed_units") if isinstance(meta, dict) else None
        self._usage = as_usage(said.get("usage")) or as_usage(billed)
        # LM Studio and OpenRouter say 200 and then that they could not: that is no answer, and costs nothing.
        self.failed = bool(said.get("error")) and self._usage is None and not said.get("choices")
        self.finish_reason = ending_of(said)


def _outline_of(body: bytearray) -> Outline:
    outline = Outline()
    outline.feed(bytes(body))
    return outline
