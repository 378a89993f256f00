"""How a Python function says no: an exception with a 4xx status, told to the client as OpenAI's error object.

Every other exception is a failure, of which nobody outside sees the text: it may quote a prompt or a key.
"""

import traceback
from pathlib import PurePath
from typing import Any, NamedTuple

import orjson

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
    return Refusal(status, _error_object(error, status, detail), _retry_after(getattr(error, "headers", None)))


def _retry_after(headers: Any) -> str | None:
    try:
        return {str(key).lower(): str(value) for key, value in dict(headers or {}).items()}.get("retry-after")
    except Exception:  # noqa: BLE001 - whatever these are, they are no headers, and the refusal is one without them
        return None


def _error_object(error: BaseException, status: int, detail: Any) -> Json:
    given = detail.get("error", detail) if isinstance(detail, dict) else {"message": detail}
    if not isinstance(given, dict):
        given = {"message": given}
    return {
        "message": _text(given.get("message", detail)),
        "type": _plain(given.get("type") or ("rate_limit_error" if status == 429 else "invalid_request_error")),
        "param": _plain(given.get("param", getattr(error, "param", None))),
        "code": _plain(given.get("code", getattr(error, "code", None))),
    }


def _plain(value: Any) -> Any:
    """As JSON has it: a refusal in which something cannot be written is a refusal still, and no failure."""
    try:
        return orjson.loads(orjson.dumps(value, default=_text, option=orjson.OPT_NON_STR_KEYS))
    except (TypeError, ValueError):  # what orjson raises, of either way
        return _text(value)


def _text(value: Any) -> str:
    try:
        return str(value).encode("utf-8", "replace").decode()
    except Exception:  # noqa: BLE001 - other people's `__str__`
        return type(value).__name__


def place_of(error: BaseException) -> str:
    """Which kind, and where: for the log. Never the text."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    last = frames[-1]
    return f"{type(error).__name__} at {PurePath(last.filename).name}:{last.lineno} in {last.name}"
