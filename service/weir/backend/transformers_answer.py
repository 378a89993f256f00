"""What a local model has said as OpenAI's objects: of a chat, or of a text completion. Pure.

Source: OpenAI's API reference, "The chat completion object", "The chat completion chunk object", "The completion
object"; a completion's chunks are completions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import uuid4

import orjson

Json = dict[str, Any]


class Totals(NamedTuple):
    """Tokens, and why there are no more: "stop" or "length". The one that ends a text counts: it was made, too."""

    prompt_tokens: int
    completion_tokens: int
    finish_reason: str

    def usage(self) -> Json:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


class Form(NamedTuple):
    """What the answers of an operation are called, and how they hold a text: the first, one more, or all of it."""

    id: str
    whole: str
    chunk: str
    first: Callable[[str], Json]
    more: Callable[[str], Json]
    all: Callable[[str], Json]


def _text(text: str) -> Json:
    return {"text": text}


CHAT = Form(
    "chatcmpl",
    "chat.completion",
    "chat.completion.chunk",
    first=lambda text: {"delta": {"role": "assistant", "content": text}},
    more=lambda text: {"delta": {"content": text} if text else {}},
    all=lambda text: {"message": {"role": "assistant", "content": text, "refusal": None}},
)
TEXT = Form("cmpl", "text_completion", "text_completion", first=_text, more=_text, all=_text)


class Writer:
    """One answer. `created` is a date in seconds, `model` the name that clients know."""

    def __init__(self, form: Form, model: str, created: int) -> None:
        self._form = form
        self._head = {"id": f"{form.id}-{uuid4().hex}", "created": created, "model": model}
        self._begun = False

    def piece(self, text: str) -> bytes:
        """An event with some text."""
        return self._event(self._said(text), None)

    def end(self, totals: Totals, *, with_usage: bool) -> bytes:
        """The last events of a stream."""
        last = self._event(self._said(""), totals.finish_reason)
        usage = _line({**self._head, "object": self._form.chunk, "choices": [], "usage": totals.usage()})
        return last + (usage if with_usage else b"") + b"data: [DONE]\n\n"

    def whole(self, text: str, totals: Totals) -> bytes:
        """The answer of who wants no stream."""
        choice = {"index": 0, **self._form.all(text), "logprobs": None, "finish_reason": totals.finish_reason}
        return orjson.dumps({**self._head, "object": self._form.whole, "choices": [choice], "usage": totals.usage()})

    def _said(self, text: str) -> Json:
        # The role once: clients that join deltas key by key would read "assistantassistant".
        say = self._form.more if self._begun else self._form.first
        self._begun = True
        return say(text)

    def _event(self, said: Json, finish_reason: str | None) -> bytes:
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}
        return _line({**self._head, "object": self._form.chunk, "choices": [choice]})


def _line(event: Json) -> bytes:
    return b"data: " + orjson.dumps(event) + b"\n\n"
