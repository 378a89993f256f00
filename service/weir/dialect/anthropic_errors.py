"""Anthropic's error object (Messages API, "Errors"): its types by status, and how one is written."""

import orjson

from weir.dialect.fields import read_json, write_json

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",  # Anthropic itself says 529 for it
    504: "timeout_error",
    529: "overloaded_error",
}


def error_type(status: int) -> str:
    """Anthropic's type for a status; every other 4xx is the request's fault, all else the server's."""
    return _TYPES.get(status) or ("invalid_request_error" if 400 <= status < 500 else "api_error")


def status_of(kind: str) -> int:
    """The status that belongs to a type: in a stream only the type is told."""
    return next((status for status, known in _TYPES.items() if known == kind), 500)


def error_body(status: int, message: str, request_id: str) -> bytes:
    return orjson.dumps({**error(status, message), "request_id": request_id})


def error(status: int, message: str) -> dict[str, object]:
    return {"type": "error", "error": {"type": error_type(status), "message": message}}


def with_request_id(body: bytes, request_id: str) -> bytes:
    """An error object of ours with the id that it has to bear."""
    return write_json({**read_json(body), "request_id": request_id})
