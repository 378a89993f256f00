"""Objects against the schemas of Kubernetes' own minors, strictly, and of the kinds that others bring (`crds/`)."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

MINORS = ("1.30", "1.34", "1.37")  # the oldest that the chart takes, one between, the newest that there are schemas of
CRDS = Path(__file__).parent / "crds"
BUNDLED = files("kubernetes_validate") / "kubernetes-json-schema"


def problems(thing: Mapping[str, Any], minor: str) -> list[str]:
    """What is wrong with an object, and where."""
    return [*_problems(json.dumps(thing, sort_keys=True), minor)]


@cache  # most objects are the same whatever the values
def _problems(text: str, minor: str) -> tuple[str, ...]:
    thing = json.loads(text)
    validator = _validator(thing["apiVersion"], thing["kind"], minor)
    return tuple(f"{thing['kind']} {error.json_path}: {error.message}" for error in validator.iter_errors(thing))


@cache
def _validator(api_version: str, kind: str, minor: str) -> Draft202012Validator:
    ours = CRDS / f"{kind}.yaml"
    if ours.exists():
        return Draft202012Validator(yaml.safe_load(ours.read_text()))
    group, _, version = api_version.rpartition("/")
    name = "-".join(filter(None, (kind.lower(), group.partition(".")[0], version)))
    schema = json.loads((_folder(minor) / f"{name}.json").read_text())
    return Draft202012Validator(schema, registry=_definitions(minor))


@cache
def _definitions(minor: str) -> Registry[Any]:
    content = json.loads((_folder(minor) / "_definitions.json").read_text())
    return Registry().with_resource("_definitions.json", Resource.from_contents(content))


def _folder(minor: str) -> Any:
    return BUNDLED / f"v{minor}.0-local-strict"
