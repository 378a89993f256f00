"""How many bytes of text a model wrote, in every dialect's fields: what is counted where nobody says. Pure."""

from collections.abc import Mapping
from typing import Any

# Of an event's choices, and of a whole answer's choices, content or output. What stands beside these is the request's.
_FIELDS = frozenset(
    (
        *("delta", "message", "content", "text", "refusal"),
        *("reasoning", "reasoning_content", "thinking", "summary"),
        *("tool_calls", "function", "function_call", "custom", "arguments", "input", "code"),
    )
)
_ANSWERS = ("choices", "content", "output", "text")
_NUMBERS = ("data", "results")


def text_bytes(written: object) -> int:
    """Bytes of everything that a model wrote: content, reasoning, arguments of tools, text."""
    size = 0
    parts = [written]  # and not a function that calls itself: how deep a tool's input goes is not ours to say
    while parts:
        part = parts.pop()
        if isinstance(part, str):
            size += len(part.encode(errors="replace"))
        elif isinstance(part, list):
            parts += part
        elif isinstance(part, dict):
            for name, value in part.items():
                if name in _FIELDS:
                    parts.append(_everything(value) if name == "input" else value)
    return size


def answer_bytes(said: Mapping[str, Any]) -> int | None:
    """The text in an answer; None where it is none that we know. What it repeats of its request is not counted."""
    for name in _ANSWERS:  # only the first: Responses' `text` is beside its output, and the request's
        if name in said:
            return text_bytes(said[name])
    return 0 if is_numbers(said) else None


def is_numbers(said: Mapping[str, Any]) -> bool:
    """Vectors, scores or pictures: nothing in it was written."""
    return any(name in said for name in _NUMBERS) and not any(name in said for name in _ANSWERS)


def _everything(said: object) -> list[str]:
    """All words of a tool's input, which in Messages is an object: the model wrote its names and numbers too."""
    words: list[str] = []
    parts = [said]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            words += part
            parts += part.values()
        elif isinstance(part, list):
            parts += part
        elif part is not None:
            words.append(part if isinstance(part, str) else repr(part))
    return words
