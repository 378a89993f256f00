"""The settings of a file, the environment and the command line together, or everything that is wrong with them."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    ValidationError,
)
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from weir.settings.document import read
from weir.settings.problems import BadSettings, Path_, Problem, dotted, names_at, nearest, problem
from weir.settings.tree import Settings


def load(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a file, the environment, and the command line's overrides, which win over both.

    Raises:
        BadSettings: with all that is wrong.

    """
    document, lines = read(path) if path else ({}, {})
    problems = list(_unknown_in_environment())
    try:
        settings = _settled(document, {})  # a flag does not excuse the value that it replaces
        if overrides:
            settings = _settled(document, overrides)
    except ValidationError as error:
        problems += [problem(dict(detail), lines) for detail in error.errors()]
    except (ValueError, TypeError) as error:  # an environment variable that is not the JSON it should be
        problems.append(Problem("environment", str(error)))
    else:
        problems += list(_unset_secrets(settings, lines))
    if problems:
        raise BadSettings(sorted(set(problems), key=lambda p: (p.line, p.where)))
    return settings


def _settled(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> Settings:
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
            return line, env_settings, file

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
    if "*" in settings.server.cors_origins:
        found.append("any page that somebody opens may call with a key that it knows, as server.cors_origins says *")
    if settings.telemetry.capture_content and settings.telemetry.otlp_endpoint:
        found.append("prompts and answers of sampled requests go to the collector, as telemetry.capture_content says")
    return found


# -- what the environment says ---------------------------------------------------------------------------------------

OTHER_VARIABLES = frozenset({"WEIR_ADMIN_KEY", "WEIR_CONFIG"})  # read by others than the settings


def _unknown_in_environment() -> Iterator[Problem]:
    known = list(Settings.model_fields)
    for variable in os.environ:
        if not variable.startswith("WEIR_") or variable in OTHER_VARIABLES:
            continue
        path = tuple(variable.removeprefix("WEIR_").lower().split("__"))
        if path[0] not in known:
            yield Problem(variable, f"there is no such setting{nearest(path[0], known)}")
            continue
        if len(path) > 1 and path[0] not in ("models", "teams"):
            inner = list(names_at(Settings, path[:-1]))
            if path[-1] not in inner:
                yield Problem(variable, f"there is no such setting{nearest(path[-1], inner)}")


def _unset_secrets(settings: Settings, lines: Mapping[Path_, int]) -> Iterator[Problem]:
    for m, model in enumerate(settings.models):
        for e, endpoint in enumerate(model.endpoints):
            if endpoint.api_key_env and not os.environ.get(endpoint.api_key_env):
                path: Path_ = ("models", m, "endpoints", e, "api_key_env")
                # Somebody may have written the key itself here; names of variables are in capitals.
                name = endpoint.api_key_env if endpoint.api_key_env.isupper() else "that is named here"
                yield Problem(
                    dotted(path),
                    f"the environment variable {name} is not set",
                    lines.get(path, lines.get(path[:-1], 0)),
                )
