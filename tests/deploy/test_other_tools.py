"""What other people's tools say of what the chart renders: kubeconform over three minors, kube-score, and Helm 3."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy import helm, schemas

VALUES = [helm.LEAST, *sorted((helm.EXAMPLES / "values").glob("*.yaml"))]
LIKE_4 = ("--kube-version", "1.37.0")  # built without its linker flags, it would take itself for one of 1.20
KINDS = (  # of Kubernetes' own, as its schemas' files are named
    *("configmap-v1", "deployment-apps-v1", "horizontalpodautoscaler-autoscaling-v2", "ingress-networking-v1"),
    *("networkpolicy-networking-v1", "pod-v1", "poddisruptionbudget-policy-v1", "secret-v1", "service-v1"),
    *("serviceaccount-v1", "statefulset-apps-v1"),
)
every_set = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)


@pytest.fixture(scope="session")
def locations(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Where kubeconform finds schemas, each a file of its own: Kubernetes', and those of the kinds that others bring."""
    folder = tmp_path_factory.mktemp("schemas")
    for crd in schemas.CRDS.glob("*.yaml"):
        (folder / f"{crd.stem.lower()}.json").write_text(json.dumps(yaml.safe_load(crd.read_text())))
    for minor in schemas.MINORS:
        ours = folder / f"v{minor}.0"
        ours.mkdir()
        theirs = Path(str(schemas.BUNDLED)) / f"v{minor}.0-local-strict"
        definitions = json.loads(_whole(theirs / "_definitions.json"))
        for kind in KINDS:
            schema = json.loads(_whole(theirs / f"{kind}.json")) | definitions
            schema.pop("$schema", None)  # it names an address, and nothing is fetched here
            (ours / f"{kind}.json").write_text(json.dumps(schema))
    name = "{{.ResourceKind}}{{.KindSuffix}}.json"
    places = (folder / "{{.NormalizedKubernetesVersion}}" / name, folder / "{{.ResourceKind}}.json")
    return [part for place in places for part in ("-schema-location", str(place))]


def _whole(path: Path) -> str:
    """A schema whose references stay in its own file."""
    return re.sub(r"[^\"]*_definitions\.json#", "#", path.read_text())


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


SPOILED = [
    pytest.param("Deployment", ("spec", "replicaz"), 1, id="a-name-that-there-is-not"),
    pytest.param("Service", ("spec", "ports"), "8080", id="a-text-for-a-list"),
]


@pytest.mark.parametrize(("kind", "path", "value"), SPOILED)
def test_kubeconform_would_find_it(kind: str, path: tuple[str, ...], value: object, locations: list[str]) -> None:
    objects = json.loads(json.dumps(helm.template(helm.LEAST)))
    thing = next(one for one in objects if one["kind"] == kind)
    for step in path[:-1]:
        thing = thing[step]
    thing[path[-1]] = value
    assert conform(yaml.safe_dump_all(objects), schemas.MINORS[-1], locations).returncode == 1


# What kube-score asks for and we do not do, each with its reason.
OTHERWISE = {
    "container-image-pull-policy": "an image is named by its version or digest, which never changes",
    "container-ephemeral-storage-request-and-limit": "the root is read-only, and /tmp is memory with a size",
    "deployment-has-host-podantiaffinity": "topologySpreadConstraints do it, and leave room for a rollout",
    "container-security-context-user-group-id": "Valkey's official image has its own user, 999; ours is 65532",
    "statefulset-has-servicename": "one Valkey, reached by an ordinary service and never by a replica's name",
    "deployment-replicas": "where KEDA scales, which it does not know; else the chart says what one replica means",
    "pod-networkpolicy": "of the test's pod, which ends after seconds, and of what has policies switched off",
}


@every_set
def test_kube_score_finds_nothing_else(values: Path) -> None:
    """CPU limits aside, which would pause streams."""
    skipped = [part for check in OTHERWISE for part in ("--ignore-test", check)]
    done = subprocess.run(
        [str(helm.tool("kube-score")), "score", "--ignore-container-cpu-limit", *skipped, "-o", "json", "-"],
        input=rendered(values),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = [
        f"{thing['object_name']}: {check['check']['name']}: {comment['summary']}"
        for thing in json.loads(done.stdout)
        for check in thing["checks"]
        if check["grade"] < 10 and not check["skipped"]
        for comment in check["comments"] or ()
    ]
    assert found == []


def test_kube_score_would_find_it() -> None:
    objects = json.loads(json.dumps(helm.template(helm.LEAST)))
    helm.pod(objects)["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False
    done = subprocess.run(
        [str(helm.tool("kube-score")), "score", "-"],
        input=yaml.safe_dump_all(objects),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "ReadOnlyRootFilesystem" in done.stdout.replace(" ", "")


@every_set
def test_helm_3_makes_the_same_of_it(values: Path) -> None:
    done = helm.run("helm3", "template", "weir", helm.CHART, "--namespace", helm.NAMESPACE, "--values", values, *LIKE_4)
    assert done.returncode == 0, done.stderr
    assert [one for one in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if one] == helm.template(values)


def test_helm_3_refuses_the_same() -> None:
    done = helm.run("helm3", "template", "weir", helm.CHART, "--values", helm.LEAST, "--set", "replicaCuont=3", *LIKE_4)
    assert done.returncode != 0
    assert "replicaCuont" in done.stderr
