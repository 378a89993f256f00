"""Reading a Responses request: what is not there, not of its type or not known is refused by its place in the body."""

from collections.abc import Set as AbstractSet
from typing import Any, TypeAlias

from weir.core.errors import InvalidValue

Fields: TypeAlias = dict[str, Any]  # an object of JSON; what its values are is found out by the functions below


def refuse(what: str, where: str) -> InvalidValue:
    return InvalidValue(f"{where}: {what}", param=where)


def an_object(value: object, where: str) -> Fields:
    if isinstance(value, dict):
        return value
    raise refuse("an object is expected here.", where)


def a_list(value: object, where: str) -> list[Any]:
    if isinstance(value, list):
        return value
    raise refuse("a list is expected here.", where)


def a_string(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    raise refuse("a string is expected here.", where)


def member(fields: Fields, name: str, where: str) -> str:
    """A string that has to be there."""
    value = fields.get(name)
    if isinstance(value, str):
        return value
    raise refuse(f"'{name}' is missing or is not a string.", f"{where}.{name}")


def optional(fields: Fields, name: str, where: str) -> str | None:
    value = fields.get(name)
    return None if value is None else a_string(value, f"{where}.{name}")


def only(known: AbstractSet[str], fields: Fields, where: str) -> None:
    """Nothing is dropped in silence. A null says nothing and may stand anywhere, as SDKs write it."""
    for name in fields:
        if name not in known and fields[name] is not None:
            place = f"{where}.{name}" if where else name
            raise InvalidValue(
                f"{place} is not understood: the model behind this endpoint speaks chat completions, which have no "
                "word for it. Leave it out.",
                param=place,
            )
