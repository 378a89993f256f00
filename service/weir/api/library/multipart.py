"""A multipart/form-data body cut into its parts. Pure. RFC 7578, on RFC 2046 section 5.1.1."""

from email.message import Message
from email.parser import HeaderParser
from typing import NamedTuple


class Malformed(ValueError):
    """The body is no multipart/form-data."""


class Part(NamedTuple):
    """`filename` and `content_type` are None where the client gave none."""

    name: str
    filename: str | None
    content_type: str | None
    content: bytes


def parts(content_type: str, body: bytes) -> list[Part]:
    """Raises Malformed."""
    head = Message()
    head["content-type"] = content_type
    boundary = head.get_param("boundary")
    if head.get_content_type() != "multipart/form-data" or not isinstance(boundary, str) or not boundary:
        raise Malformed("the content type is not multipart/form-data with a boundary")
    # A delimiter owns the line end before it; the first one may stand at the very beginning, or behind a preamble.
    _, *pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1", "replace"))
    found: list[Part] = []
    for piece in pieces:
        if piece.startswith(b"--"):
            return found
        # After a delimiter, blanks may stand before its line ends.
        padding, separator, part = piece.partition(b"\r\n")
        if not separator or padding.strip(b" \t"):
            break
        found.append(_part(part))
    raise Malformed("the body ends before its last boundary")


def _part(part: bytes) -> Part:
    lines, separator, content = (b"\r\n" + part).partition(b"\r\n\r\n")
    if not separator:
        raise Malformed("a part has no end of its headers")
    headers = HeaderParser().parsestr(lines[2:].decode("utf-8", "replace").replace("\r\n", "\n"))
    name = headers.get_param("name", header="content-disposition")
    if not isinstance(name, str):
        raise Malformed("a part has no name")
    return Part(name, headers.get_filename(), headers.get("content-type"), content)
