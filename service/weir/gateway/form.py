"""Finds in a multipart/form-data body (RFC 7578, RFC 2046 section 5.1) the fields that we decide on, while it passes.

Pure: bytes in, what was found in the attributes. A file's content is searched for the boundary and never kept. What two
readers could take in two ways is refused, because the model's server has a reader of its own: a limit that stands at
one model may not be passed by with another that only the server sees.
"""

import re
from typing import NamedTuple

from weir.core.errors import BadRequest, InvalidValue, MalformedBody

MODEL, STREAM = "model", "stream"
FIELDS = frozenset({MODEL, STREAM})
FILE = b"file"  # no text, even where a client gives it no file name
VALUE_MAX = 1024  # bytes of a field that we decide on
HEADERS_MAX = 4 * 1024  # bytes of a part's headers
PARTS_MAX = 100  # each costs up to a millisecond, and nobody has so many
_PLAIN_ENCODINGS = (b"", b"7bit", b"8bit", b"binary")

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PLAIN = re.compile(_TOKEN)
_HEADER = re.compile(rb"(%b):(.*)" % _TOKEN)
# At most so many blanks: any number would make the search of a long run of them quadratic.
_PARAMETER = rb'[ \t]{0,4};[ \t]{0,4}(%b)[ \t]{0,4}=[ \t]{0,4}("(?:[^"\\]|\\.)*"|[^ \t";]+)' % _TOKEN
_PARAMETERS = re.compile(_PARAMETER)
_DISPOSITION = re.compile(rb"(?i:form-data)(?:%b)+[ \t]{0,4};?" % _PARAMETER)
_CONTENT_TYPE = re.compile(rb"(?i:multipart/form-data)((?:%b)*)[ \t]{0,4};?[ \t]{0,4}" % _PARAMETER)
# Wherever it stands, also between quotes: readers differ in what a backslash before a quote means.
_READ_AS_NAME = re.compile(rb"(?<![0-9a-z_-])name\*?[ \t]*=", re.IGNORECASE)
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")


class Value(NamedTuple):
    """A field's text, and where that stands in the body."""

    text: str
    start: int
    end: int


class _Part(NamedTuple):
    """What a part's headers say. `start` is where its content begins in the body."""

    name: str
    file: bool
    start: int

    @property
    def decides(self) -> bool:
        return self.name in FIELDS


_PREAMBLE, _EPILOGUE = _Part("", True, 0), _Part("", True, 0)


def boundary_of(content_type: bytes) -> bytes:
    """Raises BadRequest where it is another type, or has no boundary that everybody reads alike."""
    found = _CONTENT_TYPE.fullmatch(content_type)
    if found is None:
        kind = content_type.partition(b";")[0].strip().decode("latin-1")[:60]
        said = f", and not '{kind}'" if kind else ""
        raise BadRequest(f"Send a form: the Content-Type must be 'multipart/form-data' with its boundary{said}.")
    given = [_unquoted(value) for name, value in _PARAMETERS.findall(found[1]) if name.lower() == b"boundary"]
    if len(given) != 1 or not _BOUNDARY.fullmatch(given[0]):
        raise BadRequest(
            "The Content-Type 'multipart/form-data' must name one boundary, of at most 70 plain characters."
        )
    return given[0]


def content_type_of(boundary: bytes) -> bytes:
    """The header that names it."""
    quote = b"" if _PLAIN.fullmatch(boundary) else b'"'
    return b"multipart/form-data; boundary=%b%b%b" % (quote, boundary, quote)


class FormReader:
    """Feed it the body, piece by piece, then say `end`.

    `values` are the fields of FIELDS that are complete; `text_bytes` is the size of the other texts so far.
    """

    __slots__ = ("_at", "_buffer", "_mark", "_part", "_parts", "_searched", "text_bytes", "values")

    def __init__(self, boundary: bytes) -> None:
        self.values: dict[str, Value] = {}
        self.text_bytes = 0
        self._mark = b"--" + boundary
        self._part: _Part | None = _PREAMBLE  # None: its headers are yet to come
        self._parts = 0
        self._buffer = bytearray()  # what is not understood yet: headers, a value, what may become a boundary
        self._at = 0  # where in the body the buffer begins
        self._searched = 0  # how far the buffer holds no boundary

    def feed(self, piece: bytes) -> None:
        """Raises MalformedBody, InvalidValue."""
        self._buffer += piece
        while self._read_headers() if self._part is None else self._read_content(self._part):
            pass

    def end(self) -> None:
        """The body is complete. Raises MalformedBody where the form is not."""
        part, mark = self._part, self._mark
        if part is _EPILOGUE:
            return
        if part is not None and self._buffer.endswith(mark + b"--"):
            # A close delimiter with nothing behind it: what was waited for is this end.
            self.feed(b"\r\n")
        if self._part is not _EPILOGUE:
            raise MalformedBody("The form ends before its last boundary.")

    def _read_headers(self) -> bool:
        """True where there may be more to read."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", 0, HEADERS_MAX)
        if end < 0 and not buffer.startswith(b"\r\n"):
            if len(buffer) >= HEADERS_MAX:
                raise MalformedBody(f"A part of the form has headers of more than {HEADERS_MAX} bytes.")
            return False
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise MalformedBody(f"The form has more than {PARTS_MAX} parts.")
        name, file = _described(bytes(buffer[: max(end, 0)]), self._mark)
        self._part = _Part(name, file, self._at + end + 4)
        if self._part.decides and (file or name in self.values):
            said = "must be a text and not a file" if file else "is given twice"
            raise InvalidValue(f"'{name}' {said}.", param=name)
        self._drop(end + 4)
        return True

    def _read_content(self, part: _Part) -> bool:
        """Up to the next boundary; True where there may be more to read."""
        buffer, size = self._buffer, len(self._mark)
        found = self._next_mark()
        if part is _PREAMBLE and (self._at + found > 2 or (found < 0 and len(buffer) >= size + 2)):
            # RFC 2046 allows words before it; there readers differ, and no client has any.
            raise MalformedBody("The body does not begin with the boundary that the Content-Type names.")
        if found < 0:
            # The last bytes may be the beginning of a boundary, with the line end before it.
            self._searched = max(len(buffer) - size + 1, self._searched)
            if part.decides:
                self._check_size(part, len(buffer) - size - 1)
            else:
                self._drop(max(len(buffer) - size - 1, 0))
            return False
        behind = bytes(buffer[found + size : found + size + 4])
        self._check_line(part, found)
        if len(behind) < 2 or (behind.startswith(b"--") and len(behind) < 4):
            self._searched = found
            return False
        if part is _EPILOGUE or (behind != b"--\r\n" and not behind.startswith(b"\r\n")):
            raise MalformedBody("A line of the form begins with its boundary and is none.")
        self._finish(part, found)
        closing = behind.startswith(b"--")
        self._part = _EPILOGUE if closing else None
        self._drop(found + size + (4 if closing else 2))
        return True

    def _next_mark(self) -> int:
        """Where a line begins with the boundary; -1 if none does yet. Only there it is one: within a line, where a
        short one may stand a million times, it is not even looked for.
        """
        buffer, mark = self._buffer, self._mark
        if not self._searched and buffer.startswith(mark):
            return 0
        behind = max(self._searched - 1, 0)
        ends = [end for end in (buffer.find(b"\n" + mark, behind), buffer.find(b"\r" + mark, behind)) if end >= 0]
        return min(ends) + 1 if ends else -1

    def _check_line(self, part: _Part, found: int) -> None:
        """A line that ends in another way than by CR LF ends for some readers only."""
        if self._at + found == 0:
            return
        before = bytes(self._buffer[max(found - 2, 0) : found])
        if before != b"\r\n" or self._at + found - 2 < part.start:
            raise MalformedBody("A boundary of the form must stand on a line of its own, behind CR LF.")

    def _finish(self, part: _Part, found: int) -> None:
        end = self._at + found - 2
        if not part.decides:
            self.text_bytes += 0 if part.file else end - part.start
            return
        self._check_size(part, end - part.start)
        try:
            text = self._buffer[part.start - self._at : found - 2].decode()
        except UnicodeDecodeError as error:
            raise InvalidValue(f"'{part.name}' is not UTF-8.", param=part.name) from error
        self.values[part.name] = Value(text, part.start, end)

    def _check_size(self, part: _Part, size: int) -> None:
        if size > VALUE_MAX:
            raise InvalidValue(f"'{part.name}' is longer than {VALUE_MAX} bytes.", param=part.name)

    def _drop(self, size: int) -> None:
        del self._buffer[:size]
        self._at += size
        self._searched = max(self._searched - size, 0)


def _described(headers: bytes, mark: bytes) -> tuple[str, bool]:
    """A part's name, and whether it is a file. Raises MalformedBody."""
    found: dict[bytes, bytes] = {}
    for line in headers.split(b"\r\n"):
        header = _HEADER.fullmatch(line)
        if header is None or _CONTROL.search(line) or mark in line:
            raise MalformedBody("A part of the form has a header that cannot be read.")
        name = header[1].lower()
        if name in found:
            raise MalformedBody("A part of the form has the same header twice.")
        found[name] = header[2].strip()
    disposition = found.get(b"content-disposition", b"")
    if not _DISPOSITION.fullmatch(disposition) or len(_READ_AS_NAME.findall(disposition)) != 1:
        raise MalformedBody("Each part of the form needs a Content-Disposition of 'form-data' with one name.")
    given = {name.lower(): value for name, value in _PARAMETERS.findall(disposition)}
    name = _unquoted(given.get(b"name", b""))
    if not name or b"\\" in name or b"%" in name or name != name.strip():
        raise MalformedBody("The name of a part of the form cannot be read in one way only.")
    if (
        name.decode("latin-1") in FIELDS
        and found.get(b"content-transfer-encoding", b"").lower() not in _PLAIN_ENCODINGS
    ):
        raise MalformedBody(f"'{name.decode()}' is encoded. Send it as plain text.")
    return name.decode("latin-1"), b"filename" in given or b"filename*" in given or name == FILE


def _unquoted(value: bytes) -> bytes:
    return value[1:-1] if value.startswith(b'"') else value
