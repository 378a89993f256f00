"""The settings of a file, the environment and the command line together, or everything that is wrong with them."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from weir.settings import environment
from weir.settings.document import read
from weir.settings.problems import BadSettings, Path_, Problem, dotted, path_of, sentence
from weir.settings.tree import VARIABLE, Settings


def load(path: Path | None, overrides: Mapping[str, Any] | None = None, *, to_serve: bool = False) -> Settings:
    """The settings of a file, the environment, and the command line's overrides, which win over both.

    `to_serve` wants a model too, which teams and keys do without.

    Raises:
        BadSettings: with all that is wrong.

    """
    document, lines = read(path) if path else ({}, {})
    unreadable = list(environment.unreadable())
    problems = [*environment.unknown(), *unreadable]
    said = {problem.where for problem in problems}
    given: Mapping[str, Any] = {}
    settings: Settings | None = None
    try:
        settled = _settled(document, given, with_environment=not unreadable)  # a flag does not excuse what it replaces
        if overrides:
            given = overrides
            settled = _settled(document, given, with_environment=not unreadable)
        settings = settled
    except ValidationError as error:
        found = [_problem(path_of(detail), sentence(detail), lines, given) for detail in map(dict, error.errors())]
        problems += [problem for problem in found if problem.where not in said]
    except (ValueError, TypeError) as error:  # an environment variable that is not what it should be
        problems.append(Problem("environment", str(error), in_file=False))
    problems += [
        _problem(at, what, lines, given)
        for at, what in (*_unset_secrets(settings, document), *(_nothing(settings, document) if to_serve else ()))
    ]
    if problems or settings is None:
        raise BadSettings(sorted(set(problems), key=lambda p: (p.line, p.where)))
    return settings


def _problem(path: Path_, what: str, lines: Mapping[Path_, int], given: Mapping[str, Any]) -> Problem:
    """Blamed on who says it: the command line, a variable, or the file with its line."""
    if _in(given, path):
        return Problem(dotted(path), what, in_file=False)
    if variable := environment.variable_of(path):
        exact = len(path) == variable.count("__") + 1
        return Problem(variable if exact else f"{variable}, {dotted(path)}", what, in_file=False)
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 0)
    return Problem(dotted(path), what, line)


def _in(given: Any, path: Path_) -> bool:
    """Whether these overrides reach to `path`; what is missing inside of a list is theirs too."""
    for step in path:
        if not isinstance(given, Mapping):
            return True
        if step not in given:
            return False
        given = given[step]
    return bool(path)


def _settled(document: Mapping[str, Any], overrides: Mapping[str, Any], *, with_environment: bool) -> Settings:
    """The command line wins over the environment, that over the file, that over the defaults; value by value."""

    class Settled(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class' form
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            line, file = (InitSettingsSource(settings_cls, dict(source)) for source in (overrides, document))
            return (line, env_settings, file) if with_environment else (line, file)

    settled = Settled()
    values = {name: getattr(settled, name) for name in Settings.model_fields}
    return Settings.model_construct(settled.model_fields_set, **values)


def remarks(settings: Settings) -> list[str]:
    """What is no mistake, and still not what somebody may expect; a sentence each."""
    names = {model.name for model in settings.models}
    found = [
        f"the fallback '{name}' of model '{model.name}' is no other model here, and never asked"
        for model in settings.models
        for name in model.fallbacks
        if name not in names - {model.name}
    ]
    found += [
        f"the url {endpoint.url} of model '{model.name}' has no path, and most servers want /v1 at its end"
        for model in settings.models
        for endpoint in model.endpoints
        if not urlsplit(endpoint.url).path and model.kind_of(endpoint) not in ("anthropic", "azure")
    ]
    if "*" in settings.server.cors_origins:
        found.append("any page that somebody opens may call with a key that it knows, as server.cors_origins says *")
    if settings.telemetry.capture_content and settings.telemetry.otlp_endpoint:
        found.append("prompts and answers of sampled requests go to the collector, as telemetry.capture_content says")
    return found


# -- what no single value shows -------------------------------------------------------------------------------------


def _nothing(settings: Settings | None, document: Mapping[str, Any]) -> Iterator[tuple[Path_, str]]:
    """Where the settings are wrong otherwise, `models:` without a list behind it is wrong by itself."""
    if not (settings.models if settings else document.get("models", []) != [] or "WEIR_MODELS" in os.environ):
        yield ("models",), "there is nothing to serve; add a model"


def _unset_secrets(settings: Settings | None, document: Mapping[str, Any]) -> Iterator[tuple[Path_, str]]:
    """Also of a document that is wrong otherwise: whoever mends it wants to hear of everything."""
    for path, variable in _named_in(settings) if settings else _named_in_raw(document):
        if not os.environ.get(variable):
            # Somebody may have written the key itself here; names of variables are in capitals.
            name = variable if variable.isupper() else "that is named here"
            yield path, f"the environment variable {name} is not set"


def _named_in(settings: Settings) -> Iterator[tuple[Path_, str]]:
    for m, model in enumerate(settings.models):
        for e, endpoint in enumerate(model.endpoints):
            if endpoint.api_key_env:
                yield ("models", m, "endpoints", e, "api_key_env"), endpoint.api_key_env


def _named_in_raw(document: Mapping[str, Any]) -> Iterator[tuple[Path_, str]]:
    if "WEIR_MODELS" in os.environ:
        return
    for m, model in _each(document.get("models")):
        for e, endpoint in _each(model.get("endpoints")):
            variable = endpoint.get("api_key_env")
            if isinstance(variable, str) and VARIABLE.fullmatch(variable):
                yield ("models", m, "endpoints", e, "api_key_env"), variable


def _each(value: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The objects of what may be a list."""
    for number, one in enumerate(value if isinstance(value, list) else ()):
        if isinstance(one, Mapping):
            yield number, one
