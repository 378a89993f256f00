"""What is wrong with a configuration, and where: all of it at once, in sentences, and without repeating a secret."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import (
    BaseModel,
)

from weir.auth.records import GLOB
from weir.settings.tree import API_VERSION, DIGEST, HEALTH_PATH, MODEL_NAME, Misfit, Settings

Path_ = tuple[str | int, ...]
# Where pydantic speaks of Python's types and of patterns.
SENTENCES = {
    "tuple_type": "must be a list: [a, b], or a line with a dash for each",
    "dict_type": "must hold names and values, like 'port: 8080'",
    "model_type": "must hold names and values, like 'port: 8080'",
    "model_attributes_type": "must hold names and values, like 'port: 8080'",
    "string_type": "must be a text; put quotes around it",
}
PATTERNS = {
    MODEL_NAME: "must be letters, digits and ._:/@+- and begin with a letter or digit, at most 200 of them",
    GLOB.pattern: "must be a model's name, in which * and ? stand for anything, like 'llama-*'",
    HEALTH_PATH: "must be a path that begins with / and holds no space",
    API_VERSION: "must be a version of Azure's API, like 2024-10-21",
    DIGEST: (
        'is no digest: 64 small hexadecimal digits, as printf %s "$KEY" | sha256sum prints them, and with keys.pepper '
        'printf %s "$KEY" | openssl dgst -sha256 -hmac "$PEPPER"'
    ),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where. `line` counts from 1; 0 where it is not known.

    `in_file` is False where a variable or the command line says it: nobody shall look for it in the file.
    """

    where: str
    what: str
    line: int = 0
    in_file: bool = True

    def told(self, file: Path | None) -> str:
        """With the file's name before what is wrong in it."""
        return f"{file}: {self}" if file and self.in_file else str(self)

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.where}: {self.what}" if self.where else f"{place}{self.what}"


class BadSettings(Exception):
    """Everything that is wrong, at once."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def sentence(detail: Mapping[str, Any]) -> str:
    """What one of pydantic's errors says, in our words where its own are about Python."""
    kind = detail["type"]
    if kind == "extra_forbidden":
        *path, name = detail["loc"]
        return f"there is no such setting{nearest(str(name), list(names_at(Settings, tuple(path))))}"
    if kind in SENTENCES and detail["input"] is None:
        return "has no value; give it one, or leave it out"
    if kind == "string_pattern_mismatch" and detail["ctx"]["pattern"] in PATTERNS:
        return PATTERNS[detail["ctx"]["pattern"]]
    return SENTENCES.get(kind) or str(detail["msg"]).removeprefix("Value error, ")


def path_of(detail: Mapping[str, Any]) -> Path_:
    """Where it is; of what is wrong with several settings together, the one that `Misfit` names."""
    error = detail.get("ctx", {}).get("error")
    return (*detail["loc"], *(error.path if isinstance(error, Misfit) else ()))


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


def close_to(name: str, known: list[str], cutoff: float = 0.5) -> list[str]:
    return difflib.get_close_matches(name, known, n=1, cutoff=cutoff)


def nearest(name: str, known: list[str]) -> str:
    close = close_to(name, known)
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
