"""Helm's own client against a small API server: what an install, an upgrade and a rollback write, and what they restart.

Nothing runs here. That the objects are good is asked of Kubernetes' own schemas, as a real server would.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import helm, schemas
from tests.deploy.helm import CHART, EXAMPLES, LEAST
from tests.fakes.kubernetes import Kubernetes
from tests.system.harness import clean_environment

Run = Callable[..., subprocess.CompletedProcess[str]]
VALUES = sorted((EXAMPLES / "values").glob("*.yaml"))
MINOR = schemas.MINORS[1]


@pytest.fixture
def kubernetes() -> Iterator[Kubernetes]:
    with Kubernetes(check=lambda thing: schemas.problems(thing, MINOR), version=MINOR) as server:
        yield server
        assert server.unknown == [], "Helm asked for what a real server knows"


@pytest.fixture
def run(kubernetes: Kubernetes, tmp_path: Path) -> Run:
    """Helm, with a home of its own."""
    program = helm.tool("helm")
    homes = {f"HELM_{one}_HOME": str(tmp_path / one) for one in ("CACHE", "CONFIG", "DATA")}
    env = clean_environment(HOME=str(tmp_path), KUBECONFIG=str(tmp_path / "none"), **homes)

    def run(command: str, *arguments: str | Path, good: bool = True, **values: Any) -> subprocess.CompletedProcess[str]:
        single = [part for name, value in values.items() for part in ("--set-json", f"{name}={json.dumps(value)}")]
        server = ["--namespace", helm.NAMESPACE, "--kube-apiserver", kubernetes.url, "--kube-token", "anybody"]
        done = subprocess.run(
            [program, command, "weir", *map(str, arguments), *single, *server],
            env=env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) == good, done.stdout + done.stderr
        kubernetes.asked.clear()
        return done

    return run


@pytest.mark.parametrize("values", [LEAST, *VALUES], ids=lambda path: path.stem)
def test_install_and_uninstall(kubernetes: Kubernetes, run: Run, values: Path) -> None:
    done = run("install", CHART, "--values", values)
    wanted = sorted(thing["kind"] for thing in helm.template(values) if thing["kind"] != "Pod")  # which is the test's
    assert kubernetes.kinds() == wanted
    assert "The first key" in done.stdout
    run("uninstall")
    # A StatefulSet's volume is not Helm's, and so is not here.
    assert kubernetes.kinds() == []


def written(kubernetes: Kubernetes, change: Callable[[], object]) -> list[str]:
    kubernetes.writes.clear()
    change()
    return sorted(kubernetes.writes)


def test_an_upgrade_writes_what_changed_and_restarts_who_must(kubernetes: Kubernetes, run: Run) -> None:
    def upgrade(**values: Any) -> list[str]:
        return written(kubernetes, lambda: run("upgrade", CHART, "--values", LEAST, **values))

    run("install", CHART, "--values", LEAST)
    first = kubernetes.get("Deployment", "weir")["spec"]
    assert kubernetes.rollouts("weir") == 1
    assert upgrade() == [], "the same values change nothing, and no secret is made anew"

    teams = {"config.teams": [{"name": "search", "rpm": 600}]}
    assert upgrade(**teams) == ["apply ConfigMap weir"]
    assert "name: search" in kubernetes.get("ConfigMap", "weir")["data"]["weir.yaml"]
    assert kubernetes.rollouts("weir") == 1, "running pods read it"

    drain = {"config.drain.deadline_seconds": 60}
    assert upgrade(**teams, **drain) == ["apply ConfigMap weir", "apply Deployment weir"]
    assert kubernetes.rollouts("weir") == 2

    assert upgrade(**teams, **drain, **{"image.tag": "2"}) == ["apply Deployment weir"]
    assert kubernetes.rollouts("weir") == 3
    strategy = kubernetes.get("Deployment", "weir")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": "25%"}

    assert upgrade(**teams, **drain, **{"image.tag": "2", "replicas": 5}) == ["apply Deployment weir"]
    assert kubernetes.rollouts("weir") == 3, "more pods are no new pods"

    assert written(kubernetes, lambda: run("rollback", "1")) == ["apply ConfigMap weir", "apply Deployment weir"]
    assert kubernetes.get("Deployment", "weir")["spec"] == first


def test_a_new_chart_alone_restarts_nobody(kubernetes: Kubernetes, run: Run, tmp_path: Path) -> None:
    run("install", CHART, "--values", LEAST, **{"metrics.rules.enabled": True})
    done = helm.run("helm", "package", CHART, "--version", "9.9.9", "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    run("upgrade", tmp_path / "weir-9.9.9.tgz", "--values", LEAST, **{"metrics.rules.enabled": True})
    assert kubernetes.get("Deployment", "weir")["metadata"]["labels"]["helm.sh/chart"] == "weir-9.9.9"
    assert kubernetes.rollouts("weir") == 1


def test_what_is_switched_off_goes(kubernetes: Kubernetes, run: Run) -> None:
    ingress = {"ingress": {"enabled": True, "hosts": ["llm.example"]}}
    run("install", CHART, "--values", LEAST, **ingress)
    assert "Ingress" in kubernetes.kinds()
    assert written(kubernetes, lambda: run("upgrade", CHART, "--values", LEAST)) == ["delete Ingress weir"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"replicas": "three"}, "at '/replicas': got string, want integer"),
        ({"replicsa": 3}, "additional properties 'replicsa' not allowed"),
        ({"redis.addresses": []}, "There is no Redis: give redis.addresses"),
        ({"extraVolumeMounts": [{"name": "a", "mountPath": "/a", "mountpath": "/b"}]}, "Deployment weir is invalid"),
    ],
    ids=["a wrong type", "an unknown name", "no Redis", "what only the server knows"],
)
def test_a_bad_upgrade_changes_no_pod(kubernetes: Kubernetes, run: Run, values: dict[str, Any], sentence: str) -> None:
    run("install", CHART, "--values", LEAST)
    before = kubernetes.get("Deployment", "weir")
    refused = run("upgrade", CHART, "--values", LEAST, good=False, **values)
    assert sentence in refused.stderr
    assert kubernetes.get("Deployment", "weir") == before
    run("upgrade", CHART, "--values", LEAST)  # and the next good one passes
