"""The upper floors of a JSON document that is too large to keep, bytes in, a small object out. Sans I/O.

Only where a value stands says what it is: an answer repeats tools, schemas and metadata of its request, and in these a
caller may write a `usage` of their own. So nothing is searched for; brackets are counted, and what lies deep is left
out: `{"id":"r","tools":[{"usage":{...}}],"usage":{...}}` becomes `{"id":"r","tools":[],"usage":{...}}`.
"""

import re
from typing import Any

from weir.usage.reported import parsed

WORD_MAX = 64  # bytes; a longer string is text, and becomes ""
OUTLINE_MAX = 64 * 1024  # bytes; what is wider than this is no answer that we know, and says nothing

# Top-level values of which two floors are kept: enough for `choices[].finish_reason` and for a usage's details.
_KEPT = frozenset((b"usage", b"meta", b"choices", b"error", b"incomplete_details", b"delta"))
_FLOORS = 2
_ENVELOPES = frozenset((b"response", b"message"))  # an event's, around what would be the top level of a body

_MARK = re.compile(rb'["{}\[\]:]')
_BRACKET = re.compile(rb"[{}\[\]]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_OPENING = b"{["
_WINDOW = 4096  # bytes; looked at again where a container ends in it


class Outline:
    """Feed it the pieces, cut anywhere; `read` gives the object. 1 ns a byte of vectors, 10 of short strings."""

    __slots__ = ("_depth", "_escape", "_floor", "_level", "_long", "_lost", "_name", "_out", "_quoted", "_word")

    def __init__(self) -> None:
        self._out = bytearray()
        self._depth = 0  # open brackets
        self._floor = 1  # the deepest that is kept now
        self._level = 1  # whose names decide that: 2 within an envelope
        self._quoted = False
        self._escape = b""  # a backslash that ended a piece: the next byte belongs to it
        self._word = 0  # where the string that is open began in `_out`
        self._long = False
        self._name = b""  # the last string that ended
        self._lost = False

    @property
    def unfinished(self) -> bool:
        """What passed is only the beginning of a document."""
        return self._quoted or self._depth > 0

    def feed(self, piece: bytes) -> None:
        plain = self._without_escapes(piece)
        at, end = 0, len(plain)
        while at < end:
            if self._quoted:
                at = self._pass_string(plain, at)
            elif self._depth > self._floor:
                at = self._pass_below(plain, at)
            else:
                at = self._pass_kept(plain, at)

    def read(self) -> dict[str, Any]:
        """The outline; {} where it is unfinished, too wide or no object."""
        return {} if self._lost or self.unfinished else parsed(self._out)

    def _without_escapes(self, piece: bytes) -> bytes:
        """As many bytes, and every quote in them begins or ends a string."""
        plain = self._escape + piece
        self._escape = b""
        if b"\\" in plain:
            plain = plain.replace(b"\\\\", b"__").replace(b'\\"', b"__")
            if plain.endswith(b"\\"):
                self._escape, plain = b"\\", plain[:-1]
        return plain

    def _keep(self, part: bytes) -> None:
        if len(self._out) + len(part) > OUTLINE_MAX:
            self._lost = True
        else:
            self._out += part

    def _pass_string(self, plain: bytes, at: int) -> int:
        quote = plain.find(b'"', at)
        end = quote if quote >= 0 else len(plain)
        kept = self._depth <= self._floor
        if kept and not self._long:
            if len(self._out) - self._word + end - at > WORD_MAX:
                self._long = True
                del self._out[self._word :]
            else:
                self._keep(plain[at:end])
        if quote < 0:
            return end
        if kept:
            self._name = bytes(self._out[self._word :])
            self._keep(b'"')
        self._quoted = self._long = False
        return end + 1

    def _pass_kept(self, plain: bytes, at: int) -> int:
        found = _MARK.search(plain, at)
        if found is None:
            self._keep(plain[at:])
            return len(plain)
        self._keep(plain[at : found.end()])
        mark = found[0]
        if mark == b'"':
            self._quoted = True
            self._word = len(self._out)
        elif mark == b":":
            if self._depth <= self._level:
                self._choose(self._name)
        else:
            self._depth += 1 if mark in _OPENING else -1
        return found.end()

    def _choose(self, name: bytes) -> None:
        """How much is kept of the value that follows."""
        self._level = self._depth
        if self._depth == 1 and name in _ENVELOPES:
            self._level = self._floor = 2
        else:
            self._floor = self._level + (_FLOORS if name in _KEPT else 0)

    def _pass_below(self, plain: bytes, at: int) -> int:
        """To behind the end of a container that is left out, or to the end of the piece or of a string in it."""
        while at < len(plain):
            parts = plain[at : at + _WINDOW].split(b'"')  # every other one is a string
            brackets = b"".join(parts[::2]).translate(None, _NO_BRACKETS)
            for number, mark in enumerate(brackets):
                self._depth += 1 if mark in _OPENING else -1
                if self._depth == self._floor:
                    self._keep(brackets[number : number + 1])
                    return at + _behind(parts, number)
            at += _WINDOW
            if len(parts) % 2 == 0:
                self._quoted = True
                break
        return min(at, len(plain))


def _behind(parts: list[bytes], number: int) -> int:
    """The place behind a bracket, counted from 0 over all that are in no string."""
    start = 0
    for index, part in enumerate(parts):
        if index % 2 == 0:
            ends = [found.end() for found in _BRACKET.finditer(part)]
            if number < len(ends):
                return start + ends[number]
            number -= len(ends)
        start += len(part) + 1
    raise AssertionError(f"fewer brackets than counted: {number} more")
