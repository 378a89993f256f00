"""What servers say when they refuse, in the forms in which they say it, and OpenAI's error object."""

from typing import Any, NamedTuple

from weir.core.errors import UpstreamFailed
from weir.dialect.fields import Json, read_json, write_json

GAVE_UP = frozenset({"abort", "error"})  # vLLM's finish reasons of an answer that its engine gave up: a failure, no end


class Told(NamedTuple):
    """`kind` is the server's own word for it, "" if it has none; `status` what it says itself, if it does."""

    message: str
    kind: str = ""
    status: int | None = None


def told(body: bytes) -> Told:
    """Raises UpstreamFailed for what is no error object."""
    try:
        said = read_json(body)
    except ValueError:
        said = None
    found = told_in(said) if isinstance(said, dict) else None
    if found is None:
        raise UpstreamFailed(reason="refusal without a message")
    return found


def told_in(said: Json) -> Told | None:
    """The error in an answer or event, or None: OpenAI's and Anthropic's object, TGI's bare string, older vLLM's
    members at the top, FastAPI's `detail`.
    """
    error = said.get("error")
    if isinstance(error, str):
        return Told(error, _word(said.get("error_type")))
    if error is None and said.get("object") == "error":
        error = said
    if error is None and (words := _detail(said.get("detail"))):
        return Told(words)
    if not isinstance(error, dict) or not error:
        return None
    code = error.get("code")
    message = error.get("message")
    status = code if isinstance(code, int) and 400 <= code < 600 else None
    return Told(message if isinstance(message, str) else write_json(error).decode(), _word(error.get("type")), status)


def _detail(said: Any) -> str:
    """FastAPI's: a text, or a list of what is wrong, each with its place and a message."""
    if isinstance(said, str):
        return said
    problems = [one for one in said if isinstance(one, dict)] if isinstance(said, list) else []
    return "; ".join(f"{_place(one.get('loc'))}{one['msg']}" for one in problems if isinstance(one.get("msg"), str))


def _place(loc: Any) -> str:
    return ".".join(map(str, loc)) + ": " if isinstance(loc, list) else ""


def openai_error(status: int, error: Told) -> Json:
    """OpenAI has few types and many codes, Anthropic many types: Anthropic's type becomes the code."""
    kind = "invalid_request_error" if status < 500 else "upstream_error"
    if status == 429:
        kind = "rate_limit_error"
    code = error.kind if error.kind != kind else None
    return {"error": {"message": error.message, "type": kind, "param": None, "code": code or None}}


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""
