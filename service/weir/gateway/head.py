"""Reads a request's head, strictly: what two parsers could read in two ways is refused.

httptools lets through duplicate Host and Content-Type, names with '_' that some servers take for '-', control
characters and odd Transfer-Encodings (RFC 9112, sections 6.1 and 11.2 on smuggling); so they are refused here.
"""

import re
from collections.abc import Mapping
from random import getrandbits
from typing import NamedTuple

from weir.core.asgi import Headers, Scope
from weir.core.errors import BadRequest, HeadersTooLarge, UnsupportedEncoding

HEADERS_MAX = 32 * 1024  # bytes of names and values
FIELDS_MAX = 100
TRACESTATE_MAX = 512
_ONCE = frozenset(
    {b"host", b"content-length", b"content-type", b"authorization", b"content-encoding", b"transfer-encoding"}
    | {b"x-api-key", b"api-key"}
)
_VERSIONS = (b"anthropic-version", b"anthropic-beta")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# Ids of nothing but 0 and the version ff are invalid, and then there is no parent.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Head(NamedTuple):
    """What the request path reads of a head. `content_length` in bytes, None for a chunked body.

    `authorization` is a bearer key, however the client's dialect says that. `versions` are Anthropic's headers, which
    belong to the request as its body does.
    """

    authorization: bytes | None
    content_length: int | None
    traceparent: bytes | None
    tracestate: bytes | None
    versions: Headers


def _bounded(digits: bytes) -> int:
    """A number; beyond what anybody could send it is just very large."""
    return int(digits) if len(digits) <= 20 else 10**20


def request_id(scope: Scope) -> str:
    """The client's own x-request-id where it has one of the right form, else a new one of 32 hexadecimal digits."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return new_request_id()


def new_request_id() -> str:
    """An id and no secret, so not from the system's randomness: 0.3 us instead of 8."""
    return f"{getrandbits(128):032x}"


def content_type(scope: Scope) -> bytes:
    """Of the body, b"" where the client says none; looked up by those alone who decide on it."""
    return next((value for name, value in scope["headers"] if name == b"content-type"), b"")


def read_head(scope: Scope) -> Head:
    """Raises BadRequest, UnsupportedEncoding, HeadersTooLarge."""
    headers = scope["headers"]
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in found and name in _ONCE:
            raise BadRequest(f"The header '{name.decode('latin-1')}' is given twice.", reason="duplicate header")
        found[name] = value
    names, values = b"".join([name for name, _ in headers]), b" ".join([value for _, value in headers])
    if len(headers) > FIELDS_MAX or len(names) + len(values) > HEADERS_MAX:
        raise HeadersTooLarge
    if b"_" in names:
        raise BadRequest("A header's name contains '_'. Write it with '-'.", reason="underscore in a header's name")
    if _CONTROL.search(values):
        raise BadRequest("A header's value contains a control character.", reason="control character")
    encoding = found.get(b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise UnsupportedEncoding
    transfer = found.get(b"transfer-encoding")
    if transfer is not None and (transfer.lower() != b"chunked" or b"content-length" in found):
        raise BadRequest("The only Transfer-Encoding taken is 'chunked', without a Content-Length.")
    length = found.get(b"content-length")
    if length is not None and not length.isdigit():
        raise BadRequest("Content-Length is not a number.")
    trace = found.get(b"traceparent")
    state = found.get(b"tracestate")
    traced = trace is not None and _TRACEPARENT.fullmatch(trace) is not None
    return Head(
        found.get(b"authorization") or _other_key(found),
        _bounded(length) if length is not None else None if transfer is not None else 0,
        trace if traced else None,
        state if traced and state is not None and len(state) <= TRACESTATE_MAX else None,
        [(name, found[name]) for name in _VERSIONS if name in found] if _VERSIONS[0] in found else [],
    )


def _other_key(found: Mapping[bytes, bytes]) -> bytes | None:
    """Anthropic's clients send the key as x-api-key, Azure's as api-key."""
    key = found.get(b"x-api-key") or found.get(b"api-key")
    return b"Bearer " + key if key else None
