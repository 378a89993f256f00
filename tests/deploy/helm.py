"""Helm, as `make tools` builds it or as it is on the PATH, and what it makes of the chart."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.harness import ROOT

CHART = ROOT / "helm" / "weir"
EXAMPLES = ROOT / "deploy" / "examples"
LEAST = CHART / "tests" / "values.yaml"
TOOLS = ROOT / ".tools" / "bin"
NAMESPACE = "llm"

Object = dict[str, Any]


def tool(name: str) -> Path:
    """Where a program is; skips the test where it is not."""
    found = shutil.which(name, path=str(TOOLS)) or shutil.which(name)
    if not found:
        pytest.skip(f"needs {name}: `make tools` builds it, where there is Go")
    return Path(found)


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(tool(name)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=ROOT)


def template(*files: Path, **values: Any) -> list[Object]:
    """The objects of a release `weir`, of the least values, files over them, and single values over those."""
    return list(_rendered(files, json.dumps(values, sort_keys=True)))


def refusal(*files: Path, **values: Any) -> str:
    done = _helm_template(files, json.dumps(values))
    assert done.returncode != 0, "it was taken"
    return done.stderr


@cache
def _rendered(files: tuple[Path, ...], values: str) -> tuple[Object, ...]:
    done = _helm_template(files, values)
    assert done.returncode == 0, done.stderr
    return tuple(one for one in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if one)


def _helm_template(files: tuple[Path, ...], values: str) -> subprocess.CompletedProcess[str]:
    given = [part for file in files or (LEAST,) for part in ("--values", file)]
    single = [
        part for name, value in json.loads(values).items() for part in ("--set-json", f"{name}={json.dumps(value)}")
    ]
    return run("helm", "template", "weir", CHART, "--namespace", NAMESPACE, *given, *single)


def one(objects: list[Object], kind: str, name: str = "weir") -> Object:
    found = [thing for thing in objects if thing["kind"] == kind and thing["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def one_of(objects: list[Object], kind: str) -> Object:
    """The only one of its kind, whatever its name."""
    (found,) = (thing for thing in objects if thing["kind"] == kind)
    return found


def pod(objects: list[Object]) -> Object:
    spec: Object = one_of(objects, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(objects: list[Object]) -> Object:
    found: Object = pod(objects)["containers"][0]
    return found


def environment(objects: list[Object], secrets: Mapping[str, str] | None = None) -> dict[str, str]:
    """The container's variables, as the kubelet would set them: $(NAME) of an earlier one is put in."""
    given: dict[str, str] = {}
    for variable in container(objects)["env"]:
        value = variable.get("value")
        if value is None:
            source = variable["valueFrom"]["secretKeyRef"]
            value = (secrets or {}).get(variable["name"], f"{source['name']}-{source['key']}")
        for name, earlier in given.items():
            value = value.replace(f"$({name})", earlier)
        given[variable["name"]] = value
    return given
