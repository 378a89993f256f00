"""A chat answer, whole or in chunks, as a response object and its events."""

from collections.abc import Iterator

from weir.core.errors import UpstreamFailed
from weir.dialect.openai_errors import GAVE_UP
from weir.dialect.responses.fields import Fields
from weir.dialect.responses.output import Output
from weir.dialect.responses.request import WayBack

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_BROKEN_OFF = {"code": "server_error", "message": "The model's server gave up in the middle of its answer."}


class Answer:
    """One response. `begin` comes first, `end` or `fail` last; each gives events without their numbers."""

    def __init__(self, way_back: WayBack) -> None:
        self._way_back = way_back
        self._shown: Fields = {"id": "", "object": "response", "created_at": 0, "status": "in_progress"}
        self._shown |= {"error": None, "incomplete_details": None, "output": [], "usage": None}
        self._shown |= way_back.repeated
        self._output = Output("", way_back.toolbox, seals=way_back.seals)
        self._finish: str | None = None

    @property
    def shown(self) -> Fields:
        return self._shown

    @property
    def prompt_tokens(self) -> int:
        """0 while the server has not said it."""
        usage: Fields = self._shown["usage"] or {}
        return int(usage.get("input_tokens", 0))

    def begin(self, head: Fields) -> Iterator[Fields]:
        """`head` is the answer, or its first chunk: everything is named after its id."""
        suffix = str(head.get("id") or "unnamed").removeprefix("chatcmpl-")
        self._output = Output(suffix, self._way_back.toolbox, seals=self._way_back.seals)
        self._shown["id"] = f"resp_{suffix}"
        self._shown["created_at"] = _count(head.get("created"))
        if isinstance(head.get("model"), str):
            self._shown["model"] = head["model"]
        yield self._event("response.created")
        yield self._event("response.in_progress")

    def read(self, head: Fields, message: str) -> Iterator[Fields]:
        """The first choice of an answer or a chunk (a response has one); `message` is "message" or "delta"."""
        try:
            if head.get("usage") is not None:
                self._shown["usage"] = _usage(head["usage"])
            if isinstance(head.get("service_tier"), str):
                self._shown["service_tier"] = head["service_tier"]
            if not head.get("choices"):
                return
            choice = head["choices"][0]
            logprobs = _logprobs(choice.get("logprobs") or {})
            yield from self._told(choice.get(message) or {}, logprobs, numbered=message == "delta")
            if isinstance(choice.get("finish_reason"), str):
                self._finish = choice["finish_reason"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UpstreamFailed(reason=f"a choice of another shape: {error!r}") from error

    def end(self) -> Iterator[Fields]:
        if self._finish in GAVE_UP:
            yield from self.fail(_BROKEN_OFF)
            return
        reason = _INCOMPLETE.get(self._finish or "")
        status = "incomplete" if reason else "completed"
        yield from self._output.end(status)
        self._shown |= {"status": status, "output": self._output.items}
        if reason:
            self._shown["incomplete_details"] = {"reason": reason}
        yield self._event(f"response.{status}")

    def fail(self, error: Fields) -> Iterator[Fields]:
        for _ in self._output.end("incomplete"):
            pass  # no item is told to be done: an agent would run a call that was cut in the middle
        self._shown |= {"status": "failed", "output": self._output.items, "error": error}
        yield self._event("response.failed")

    def _told(self, said: Fields, logprobs: list[Fields], *, numbered: bool) -> Iterator[Fields]:
        """`numbered`: pieces of calls are told apart by their index; in a whole message each is a call."""
        reasoning = said.get("reasoning_content") or said.get("reasoning")  # vLLM and Ollama say `reasoning` today
        if reasoning:
            yield from self._output.think(_text(reasoning))
        if said.get("content"):
            yield from self._output.say("output_text", _text(said["content"]), logprobs)
        if said.get("refusal"):
            yield from self._output.say("refusal", _text(said["refusal"]), [])
        for position, call in enumerate(said.get("tool_calls") or ()):
            function = call.get("function") or {}
            index = call.get("index") if numbered else None
            yield from self._output.call(
                position if index is None else index,
                _text(call.get("id") or ""),
                _text(function.get("name") or ""),
                _text(function.get("arguments") or ""),
            )

    def _event(self, kind: str) -> Fields:
        return {"type": kind, "response": dict(self._shown)}


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError(f"{type(value).__name__} where a string belongs")


def _logprobs(logprobs: Fields) -> list[Fields]:
    """The bytes of a token may be null in chat; here they have to be there."""
    return [
        _token(entry) | {"top_logprobs": [_token(top) for top in entry.get("top_logprobs") or ()]}
        for entry in logprobs.get("content") or ()
    ]


def _token(entry: Fields) -> Fields:
    token = _text(entry["token"])
    in_bytes = entry.get("bytes")
    return {
        "token": token,
        "bytes": list(token.encode()) if in_bytes is None else in_bytes,
        "logprob": entry["logprob"],
    }


def _usage(usage: Fields) -> Fields:
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    read, written = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": _count(read.get("cached_tokens")),
            "cache_write_tokens": _count(read.get("cache_write_tokens")),
        },
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": _count(written.get("reasoning_tokens"))},
        "total_tokens": _count(usage.get("total_tokens")) or prompt + completion,
    }


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
