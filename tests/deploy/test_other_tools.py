"""What other people's tools say of what the chart renders: kubeconform over three minors, and Helm 3."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy import helm, schemas

VALUES = [helm.LEAST, *sorted((helm.EXAMPLES / "values").glob("*.yaml"))]
every_set = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)


@pytest.fixture(scope="session")
def locations(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Where kubeconform finds schemas: Kubernetes' own, and those of the kinds that others bring."""
    folder = tmp_path_factory.mktemp("crds")
    for crd in schemas.CRDS.glob("*.yaml"):
        (folder / f"{crd.stem.lower()}.json").write_text(json.dumps(yaml.safe_load(crd.read_text())))
    minors = f"{schemas.BUNDLED}/{{{{.NormalizedKubernetesVersion}}}}-local-strict/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    return ["-schema-location", minors, "-schema-location", f"{folder}/{{{{.ResourceKind}}}}.json"]


def rendered(values: Path) -> str:
    return yaml.safe_dump_all(helm.template(values))


def conform(text: str, minor: str, locations: list[str]) -> subprocess.CompletedProcess[str]:
    command = [str(helm.tool("kubeconform")), "-strict", "-summary", "-output", "json"]
    return subprocess.run(
        [*command, "-kubernetes-version", f"{minor}.0", *locations],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("minor", schemas.MINORS)
@every_set
def test_kubeconform_finds_nothing(values: Path, minor: str, locations: list[str]) -> None:
    done = conform(rendered(values), minor, locations)
    said = json.loads(done.stdout)
    assert (done.returncode, said.get("resources") or []) == (0, []), done.stderr
    assert said["summary"]["valid"] == len(helm.template(values)), "each object was looked at, and none left out"


def spoiled() -> Iterator[object]:
    yield pytest.param("Deployment", ("spec", "replicaz"), 1, id="a-name-that-there-is-not")
    yield pytest.param("Service", ("spec", "ports"), "8080", id="a-text-for-a-list")


@pytest.mark.parametrize(("kind", "path", "value"), spoiled())
def test_kubeconform_would_find_it(kind: str, path: tuple[str, ...], value: object, locations: list[str]) -> None:
    objects = json.loads(json.dumps(helm.template(helm.LEAST)))
    thing = next(one for one in objects if one["kind"] == kind)
    for step in path[:-1]:
        thing = thing[step]
    thing[path[-1]] = value
    assert conform(yaml.safe_dump_all(objects), schemas.MINORS[-1], locations).returncode == 1


@every_set
def test_helm_3_makes_the_same_of_it(values: Path) -> None:
    done = helm.run("helm3", "template", "weir", helm.CHART, "--namespace", helm.NAMESPACE, "--values", values)
    assert done.returncode == 0, done.stderr
    assert [one for one in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if one] == helm.template(values)


def test_helm_3_refuses_the_same() -> None:
    done = helm.run("helm3", "template", "weir", helm.CHART, "--values", helm.LEAST, "--set", "replicaCuont=3")
    assert done.returncode != 0
    assert "replicaCuont" in done.stderr
