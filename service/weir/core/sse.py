"""Server-sent events (WHATWG HTML, section 9.2) cut out of a stream of bytes, at any cut. Sans I/O."""

import re
from collections.abc import Iterator
from typing import NamedTuple

EVENT_MAX = 32 << 20  # bytes of one unfinished event; an image in base64 fits
# Atomic groups, or `\r\n` would be taken for two line ends; a `\r` at the end may be the first half of `\r\n`.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r(?!\Z))(?>\r\n|\n|\r(?!\Z))")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """`name` is b"" where the stream gives none."""

    name: bytes
    data: bytes


class TooLong(Exception):
    """An event without an end: more than EVENT_MAX bytes are held."""


class EventReader:
    """Feed it what comes; what it gives are the events that are complete. Comments and empty events are left out."""

    __slots__ = ("_carriage_returns", "_held", "_searched", "_started")

    def __init__(self) -> None:
        self._held = bytearray()
        self._searched = 0
        self._started = False
        self._carriage_returns = False

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Raises TooLong."""
        held = self._held
        held += chunk
        if not self._started:
            if len(held) < len(_BOM) and _BOM.startswith(bytes(held)):
                return  # it may be one yet
            self._started = True
            if held.startswith(_BOM):
                del held[: len(_BOM)]
        self._carriage_returns = self._carriage_returns or b"\r" in chunk
        while end := self._end():
            event = _event(bytes(held[:end]))
            del held[:end]
            self._searched = 0
            if event is not None:
                yield event
        if len(held) > EVENT_MAX:
            raise TooLong
        self._searched = max(len(held) - 3, 0)  # the last three bytes may begin a blank line of four

    def flush(self) -> Event | None:
        """The stream has ended: a last event without its blank line, if there is one."""
        event = _event(bytes(self._held))
        self._held.clear()
        return event

    def _end(self) -> int:
        if not self._carriage_returns:
            at = self._held.find(b"\n\n", self._searched)
            return at + 2 if at >= 0 else 0
        found = _BLANK_LINE.search(self._held, self._searched)
        return found.end() if found else 0


def _event(raw: bytes) -> Event | None:
    name, data = b"", []
    for line in _LINE_END.split(raw):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(name, b"\n".join(data)) if data else None
