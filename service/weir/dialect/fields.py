"""Fields of a request, read with their types; what is wrong with one is said by its name."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from weir.core.errors import InvalidValue, MalformedBody

Json = dict[str, Any]  # what a member holds is known only once it has been looked at
DEPTH_MAX = 200  # levels of what others say that we wrap and write again; orjson reads 1024 and writes 254


class Fields(NamedTuple):
    """How the top-level fields of one dialect stand in another, called `other` in refusals.

    `hints` change no answer and are left out. Any further field is refused, unless its value asks for nothing:
    null, empty, or one of `neutral`.
    """

    other: str
    carried: frozenset[str]
    hints: frozenset[str]
    neutral: Mapping[str, tuple[object, ...]]

    def refuse_others(self, asked: Json) -> None:
        for name, value in asked.items():
            if name in self.carried or name in self.hints or value in (None, [], {}):
                continue
            if value not in self.neutral.get(name, ()):
                raise no_counterpart(name, self.other, name)


def parsed(body: bytes) -> Json:
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody from error
    if not isinstance(asked, dict):
        raise MalformedBody("The request body is not a JSON object.")
    return asked


def read_json(data: bytes) -> Any:
    """What a server says; raises ValueError, also where it is nested above DEPTH_MAX. A few cut their text between the
    halves of a surrogate pair, as JavaScript counts it, which orjson refuses.
    """
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            said = json.loads(data)
        except RecursionError as error:
            raise ValueError("nested too deep") from error
    if data.count(b"{") + data.count(b"[") > DEPTH_MAX and _too_deep(said):
        raise ValueError("nested too deep")
    return said


class AsWritten(Json):
    """An object that is to be written as it was: read, a whole number above 64 bits is a rounded one."""

    __slots__ = ("text",)
    text: str


def write_json(said: Json) -> bytes:
    """With a half pair as it came, so that it meets its other half at the client."""
    try:
        return orjson.dumps(said, option=orjson.OPT_PASSTHROUGH_SUBCLASS, default=_as_it_was)
    except TypeError:
        return json.dumps(said).encode()


def _as_it_was(given: object) -> orjson.Fragment:
    if isinstance(given, AsWritten):
        return orjson.Fragment(given.text)
    raise TypeError


def no_counterpart(what: str, other: str, param: str) -> InvalidValue:
    return InvalidValue(
        f"'{what}' has no counterpart in {other}, the only API that this model's server speaks. "
        "Leave it out, or ask a model whose server understands it.",
        param=param,
    )


def an_object(value: Any, param: str) -> Json:
    if not isinstance(value, dict):
        raise InvalidValue(f"'{param}' must be an object.", param=param)
    return value


def a_list(value: Any, param: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidValue(f"'{param}' must be a list.", param=param)
    return value


def a_string(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise InvalidValue(f"'{param}' must be a string.", param=param)
    return value


def string_in(holder: Json, key: str, at: str) -> str:
    """The place is put together only for who asks: a long history has ten thousand of them."""
    value = holder.get(key)
    return value if isinstance(value, str) else a_string(value, f"{at}.{key}")


def a_number(value: Any, param: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValue(f"'{param}' must be a number.", param=param)
    return value


def blocks(content: Any, at: str) -> list[tuple[Json, str]]:
    """Content's blocks or parts, each with the place at which it stands; both dialects let a string stand for one."""
    if isinstance(content, str):
        return [({"type": "text", "text": content}, at)]
    if content is None:
        return []
    return [(an_object(block, where := f"{at}[{n}]"), where) for n, block in enumerate(a_list(content, at))]


def as_object(written: str) -> Json:
    """Messages takes objects only; what a model wrote instead is kept in one, so that it can be told of it. So is what
    is nested too deep to be written again.
    """
    if not written.strip():
        return {}
    try:
        given = orjson.loads(written)
    except orjson.JSONDecodeError:
        given = None
    deep = written.count("{") + written.count("[") > DEPTH_MAX and _too_deep(given)
    if not isinstance(given, dict) or deep:
        return {"arguments": written}
    kept = AsWritten(given)
    kept.text = written
    return kept


def _too_deep(said: Any) -> bool:
    """Level by level, as recursion would be what it looks for."""
    level = [said]
    for _ in range(DEPTH_MAX):
        level = [
            held
            for one in level
            if isinstance(one, dict | list)
            for held in (one.values() if isinstance(one, dict) else one)
        ]
    return any(isinstance(one, dict | list) for one in level)
