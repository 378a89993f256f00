"""What the environment says: which variable a value comes from, and what is wrong with variables themselves."""

import json
import os
from collections.abc import Iterator
from typing import Any, get_origin

from pydantic import BaseModel

from weir.settings.problems import Path_, Problem, close_to, names_at, nearest
from weir.settings.tree import Settings

PREFIX = "WEIR_"
# Read by others than the settings: by the command line, and by the programs of clients, who often share a shell with
# it. They are the names in deploy/examples/clients.
OTHER_VARIABLES = frozenset({"WEIR_CONFIG", "WEIR_URL", "WEIR_API_KEY", "WEIR_MODEL"})
CLOSE = 0.7  # of the names of variables, which are long


def unknown() -> Iterator[Problem]:
    """A typo in a limit is a limit not set."""
    variables = {name: _path(name) for name in _given()}
    for variable, path in variables.items():
        known = list(names_at(Settings, path[:-1]))
        if path[-1] not in known and path[0] not in ("models", "teams"):
            yield Problem(variable, f"there is no such setting{_instead(variable, path)}", in_file=False)


def unreadable() -> Iterator[Problem]:
    """Lists and sections are JSON there."""
    for variable in _given():
        if not _holds_json(_path(variable)):
            continue
        try:
            json.loads(os.environ[variable])
        except ValueError as error:
            why = f": {error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
            yield Problem(variable, f"must be JSON, and is not{why}", in_file=False)


def variable_of(path: Path_) -> str | None:
    """The variable that says what is at `path`; it wins over the file. None where no variable does."""
    for length in range(len(path), 0, -1):
        variable = PREFIX + "__".join(map(str, path[:length])).upper()
        if variable in os.environ and (length == len(path) or _says(os.environ[variable], path[length])):
            return variable
    return None


def _given() -> list[str]:
    return [name for name in os.environ if name.startswith(PREFIX) and name not in OTHER_VARIABLES]


def _path(variable: str) -> tuple[str, ...]:
    return tuple(variable.removeprefix(PREFIX).lower().split("__"))


def _instead(variable: str, path: tuple[str, ...]) -> str:
    """The variable that was meant: very often an underscore too few."""
    variables = [
        f"{PREFIX}{section}__{name}".upper()
        for section in Settings.model_fields
        for name in names_at(Settings, (section,))
    ]
    joined = "_".join(path).upper()
    same = [name for name in variables if name.removeprefix(PREFIX).replace("__", "_") == joined]
    tails = {name.removeprefix(PREFIX): name for name in variables}
    close = same or [tails[tail] for tail in close_to(variable.removeprefix(PREFIX), list(tails), CLOSE)]
    if close:
        return f"; did you mean '{close[0]}'?"
    inside = path[0] in Settings.model_fields
    return nearest(path[-1] if inside else path[0], list(names_at(Settings, path[:-1] if inside else ())))


def _holds_json(path: tuple[str, ...]) -> bool:
    model: type[BaseModel] = Settings
    annotation: Any = None
    for step in path:
        field = model.model_fields.get(step)
        if field is None:
            return False
        annotation = field.annotation
        model = annotation if _is_section(annotation) else BaseModel
    return _is_section(annotation) or get_origin(annotation) in (tuple, dict)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _says(value: str, step: str | int) -> bool:
    try:
        said = json.loads(value)
    except ValueError:
        return False
    return isinstance(said, list) or (isinstance(said, dict) and step in said)
