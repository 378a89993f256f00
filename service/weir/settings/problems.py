"""What is wrong with a configuration, and where: all of it at once, in sentences, and without repeating a secret."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import (
    BaseModel,
)

from weir.settings.tree import Settings

Path_ = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where. `line` counts from 1; 0 where it is not in the file."""

    where: str
    what: str
    line: int = 0

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.where}: {self.what}" if self.where else f"{place}{self.what}"


class BadSettings(Exception):
    """Everything that is wrong, at once."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def problem(detail: dict[str, Any], lines: Mapping[Path_, int]) -> Problem:
    path: Path_ = tuple(detail["loc"])
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 0)
    if detail["type"] == "extra_forbidden":
        known = list(names_at(Settings, path[:-1]))
        return Problem(dotted(path), f"there is no such setting{nearest(str(path[-1]), known)}", line)
    return Problem(dotted(path), detail["msg"].removeprefix("Value error, "), line)


def names_at(model: type[BaseModel], path: Path_) -> Iterator[str]:
    """The settings that exist where `path` leads."""
    for step in path:
        if isinstance(step, int):
            continue
        inner = model.model_fields.get(step)
        if inner is None:
            return
        candidates = [inner.annotation, *get_args(inner.annotation)]
        found = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if found is None:
            return
        model = found
    yield from model.model_fields


def nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known are {', '.join(sorted(known))}" if known else ""


def dotted(path: Path_) -> str:
    text = ""
    for step in path:
        name = step if isinstance(step, int) or _looks_like_a_name(step) else "..."
        text += f"[{name}]" if isinstance(name, int) else f".{name}" if text else name
    return text


def _looks_like_a_name(step: str) -> bool:
    """Of a setting; what else stands in the place of one may be a secret."""
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,39}", step) is not None and sum(map(str.isdigit, step)) <= 3


# -- what the environment says ---------------------------------------------------------------------------------------
