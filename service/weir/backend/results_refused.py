"""How a Python function says no: an exception with a 4xx status, told to the client as OpenAI's error object.

Every other exception is a failure, of which nobody outside sees the text: it may quote a prompt or a key.
"""

import traceback
from pathlib import PurePath
from typing import Any, NamedTuple

Json = dict[str, Any]


class Refused(Exception):
    """Raised by a function that serves a model: the client gets this message, with this status."""

    def __init__(self, message: str, status: int = 400, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        if not 400 <= status < 500:
            raise ValueError(f"a refusal has a status between 400 and 499, and not {status}")
        self.message = message
        self.status = status
        self.code = code
        self.param = param


class Refusal(NamedTuple):
    """A status, OpenAI's error object, and an HTTP `retry-after` if one was given."""

    status: int
    error: Json
    retry_after: str | None = None


def refusal_of(error: BaseException) -> Refusal | None:
    """None where `error` is a failure, and no refusal.

    Known by form: `Refused` by `status` and `message`, FastAPI's HTTPException by `status_code` and `detail`, and what
    HTTP clients raise for an answer that they got. A 401 or 403 of the last kind is about the function's own key.
    """
    status = getattr(error, "status_code", None) or getattr(error, "status", None)
    if not isinstance(status, int) or not 400 <= status < 500:
        return None
    detail = getattr(error, "detail", None)
    if detail is None:
        if status in (401, 403) and not isinstance(error, Refused):
            return None
        detail = getattr(error, "message", None)
    if detail is None:
        return None
    headers = getattr(error, "headers", None)
    retry_after = {str(key).lower(): str(value) for key, value in dict(headers or {}).items()}.get("retry-after")
    return Refusal(status, _error_object(error, status, detail), retry_after)


def _error_object(error: BaseException, status: int, detail: Any) -> Json:
    given = detail.get("error", detail) if isinstance(detail, dict) else {"message": detail}
    if not isinstance(given, dict):
        given = {"message": given}
    return {
        "message": str(given.get("message", detail)),
        "type": given.get("type") or ("rate_limit_error" if status == 429 else "invalid_request_error"),
        "param": given.get("param", getattr(error, "param", None)),
        "code": given.get("code", getattr(error, "code", None)),
    }


def place_of(error: BaseException) -> str:
    """Which kind, and where: for the log. Never the text."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    last = frames[-1]
    return f"{type(error).__name__} at {PurePath(last.filename).name}:{last.lineno} in {last.name}"
