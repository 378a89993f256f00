"""Changes a few top-level members of a JSON object in its bytes, so that everything else stays as the client wrote it.

The body has been parsed before, so it is known to be valid JSON; what is looked for here is only where things stand.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from weir.core.errors import InvalidValue

DECIDED_ON = (
    *("model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"),
    *("n_predict", "n_cmpl"),
)
# Who writes these asks the upstream for other models than the one that was checked: OpenRouter's, LiteLLM's and
# Anthropic's words (openrouter.ai/docs, "Model Fallbacks"; platform.claude.com/docs, "Fallbacks").
OTHER_MODELS = ("models", "fallbacks")
DECIDED_ON_SET = frozenset(DECIDED_ON)
_LITERAL = {name: b'"' + name.encode() + b'"' for name in DECIDED_ON}
# A letter written as \u00XX: no encoder does that, but somebody who hides a second "model" might.
_ESCAPED_LETTER = re.compile(rb"\\u00[4567]")
# Possessive, since there is but one way to read a string: or each escape in it would be remembered, 100 bytes each.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],:]', re.DOTALL)
_STRING_VALUE = re.compile(rb'\s*:\s*("[^"\\]*+(?:\\.[^"\\]*+)*+")', re.DOTALL)
_OPEN, _CLOSE = b"{[", b"}]"


# Of a body, however large: nobody else's request moves while it is parsed, 40 ms for as many as these.
VALUES_MAX, NAMES_MAX = 1_000_000, 200_000


class Member(NamedTuple):
    """Where a top-level member's value stands: body[start:end]."""

    name: str
    start: int
    end: int


def refuse_too_many(body: bytes) -> None:
    """More values than anybody sends, or more lists, objects and names of members: parsed they would be a gigabyte.
    Raises InvalidValue.

    What stands in strings counts for nothing, and a look at those is taken only where there are that many marks in all.
    """
    if body.count(b",") <= VALUES_MAX and sum(map(body.count, (b"{", b"[", b":"))) <= NAMES_MAX:
        return
    values = names = 0
    for token in _TOKEN.finditer(body):
        if token[0] == b",":
            values += 1
        elif token[0] in (b"{", b"[", b":"):
            names += 1
        if values > VALUES_MAX or names > NAMES_MAX:
            raise InvalidValue(
                f"The request body holds more than {VALUES_MAX} values, or {NAMES_MAX} lists, objects and names. "
                "Send it as several requests."
            )


def refuse_duplicates(body: bytes, fields: Mapping[str, Any]) -> None:
    """Two members of one name, and the upstream may read the other one. Raises InvalidValue.

    One count per field that is there (0.1 us each in a body of 1 KB); only a second sighting costs a scan.
    """
    if not _has_escaped_letter(body):
        for name in DECIDED_ON_SET.intersection(fields):
            if body.count(_LITERAL[name]) != 1:
                break
        else:
            return
    seen: set[str] = set()
    for member in members(body):
        if member.name in seen and member.name in _LITERAL:
            raise InvalidValue(f"'{member.name}' is given twice.", param=member.name)
        seen.add(member.name)


def refuse_lookalikes(fields: Iterable[str], ours: Collection[str] = (*DECIDED_ON, *OTHER_MODELS)) -> None:
    """A name that is one of `ours` but for its case: some servers do not mind that (Go's encoding/json takes the last),
    and would read another model or bound than we do. Raises InvalidValue.
    """
    for name in fields:
        usual = name.isascii() and name.islower()
        if not usual and name.casefold() in ours:
            raise InvalidValue(f"'{name}' must be written in small letters: '{name.casefold()}'.", param=name)


def refuse_other_models(fields: Mapping[str, Any]) -> None:
    """A caller has the models that were given to it, and no others. Raises InvalidValue."""
    for name in OTHER_MODELS:
        if fields.get(name):
            raise InvalidValue(
                f"'{name}' is not taken: a request is for its one 'model'. Which others stand in for that is the "
                "operator's to say, as 'fallbacks' of the model in Weir's configuration.",
                param=name,
            )


def replace(body: bytes, changes: Mapping[str, Any], fields_there: frozenset[str]) -> bytes:
    """The body with these top-level members set. `fields_there` says which of them it has already."""
    missing = {name: value for name, value in changes.items() if name not in fields_there}
    present = {name: value for name, value in changes.items() if name in fields_there}
    if present:
        only = next(iter(present)) if len(present) == 1 else None
        body = (_replace_text(body, only, present[only]) if only else None) or _replace_members(body, present)
    if missing:
        start = body.index(b"{") + 1
        rest = body[start:]
        comma = b"" if rest.lstrip()[:1] == b"}" else b","
        body = body[:start] + orjson.dumps(missing)[1:-1] + comma + rest
    return body


def rename(body: bytes, old: str, new: str) -> bytes:
    """The body with this top-level member under another name, which none in it has."""
    literal, named = _LITERAL[old], _LITERAL[new]
    if body.count(literal) == 1 and not _has_escaped_letter(body):
        return body.replace(literal, named)  # the common case: as in `_replace_text`
    for member in members(body):
        if member.name == old:
            at = body.rfind(literal, 0, member.start)
            if at >= 0 and body[at + len(literal) : member.start].strip() == b":":
                return body[:at] + named + body[at + len(literal) :]
            # Its name is escaped: both stay then, with one value.
            return replace(body, {new: orjson.loads(body[member.start : member.end])}, frozenset())
    return body


def members(body: bytes) -> list[Member]:
    """The top-level members of an object, in order. About 0.2 us for each string or bracket in it."""
    found: list[Member] = []
    depth = 0
    name: str | None = None
    start = 0
    for token in _TOKEN.finditer(body):
        mark = token[0]
        if mark in (b"{", b"["):
            depth += 1
        elif mark in (b"}", b"]"):
            depth -= 1
            if depth == 0 and name is not None:
                found.append(_member(body, name, start, token.start()))
        elif depth != 1:
            continue
        elif mark == b":":
            start = token.end()
        elif mark == b",":
            if name is not None:
                found.append(_member(body, name, start, token.start()))
            name = None
        elif name is None:
            name = orjson.loads(mark)
    return found


def _has_escaped_letter(body: bytes) -> bool:
    # The search by itself looks at each byte of a long text: 35 ms in 8 MB, where this needs 0.5.
    return b"\\u00" in body and _ESCAPED_LETTER.search(body) is not None


def _member(body: bytes, name: str, start: int, end: int) -> Member:
    value = body[start:end]
    return Member(name, start + len(value) - len(value.lstrip()), end - (len(value) - len(value.rstrip())))


def _replace_text(body: bytes, name: str, value: object) -> bytes | None:
    """The common case, a text whose name stands once in the body: then that is the one. None where it is not so."""
    literal = _LITERAL.get(name)
    if literal is None or not isinstance(value, str):
        return None
    at = body.find(literal)
    if at < 0 or body.find(literal, at + 1) >= 0 or _has_escaped_letter(body):
        return None
    there = _STRING_VALUE.match(body, at + len(literal))
    return None if there is None else body[: there.start(1)] + orjson.dumps(value) + body[there.end(1) :]


def _replace_members(body: bytes, present: Mapping[str, Any]) -> bytes:
    for member in reversed(members(body)):
        if member.name in present:
            body = body[: member.start] + orjson.dumps(present[member.name]) + body[member.end :]
    return body
