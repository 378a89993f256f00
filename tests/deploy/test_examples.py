"""Every example of an installation is what its tool would read, and leads to values that the chart takes."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import helm, schemas
from tests.deploy.helm import CHART, EXAMPLES
from tests.system.harness import ROOT
from weir.settings import Settings, TimeoutSettings

DOCUMENTS = sorted(
    path
    for folder in ("argocd", "flux", "envoy-gateway", "kustomize", "terraform", "values")
    for path in (EXAMPLES / folder).rglob("*.yaml")
)


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def objects(folder: str, kind: str) -> list[dict[str, Any]]:
    return [one for path in (EXAMPLES / folder).glob("*.yaml") for one in documents(path) if one.get("kind") == kind]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_it_is_yaml_and_begins_with_what_it_is(path: Path) -> None:
    assert documents(path)
    if path.name not in {"values.yaml", "deployment.yaml"}:
        assert path.read_text().startswith("# ")


def test_there_is_an_example_of_each_kind() -> None:
    found = {path.stem for path in (EXAMPLES / "values").glob("*.yaml")}
    assert found == {"small", "production", "vllm", "openai", "air-gapped"}
    readme = (CHART / "README.md").read_text()
    assert all(f"deploy/examples/values/{name}.yaml" in readme for name in found)


def test_envoy_cuts_no_stream_and_closes_before_weir() -> None:
    (policy,) = objects("envoy-gateway", "BackendTrafficPolicy")
    http = policy["spec"]["timeout"]["http"]
    assert http["requestTimeout"] == http["maxStreamDuration"] == "0s"
    assert int(http["connectionIdleTimeout"].removesuffix("s")) < Settings().server.keepalive_seconds
    assert int(http["streamIdleTimeout"].removesuffix("h")) * 3600 >= TimeoutSettings().total, "silent until its end"
    assert "retry" not in policy["spec"], "an answer that began was paid for"
    (route,) = (one for one in helm.template(EXAMPLES / "values" / "production.yaml") if one["kind"] == "HTTPRoute")
    assert policy["spec"]["targetRefs"][0]["name"] == route["metadata"]["name"]
    (gateway,) = objects("envoy-gateway", "Gateway")
    parent = route["spec"]["parentRefs"][0]
    assert (parent["name"], parent["namespace"]) == (gateway["metadata"]["name"], gateway["metadata"]["namespace"])
    assert parent["sectionName"] in [listener["name"] for listener in gateway["spec"]["listeners"]]
    assert route["spec"]["hostnames"] == [gateway["spec"]["listeners"][0]["hostname"]]


def test_argocd_finds_the_chart_and_leaves_the_scale_alone() -> None:
    (application,) = objects("argocd", "Application")
    source = application["spec"]["sources"][0]
    assert (ROOT / source["path"] / "Chart.yaml").exists()
    assert {"group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/replicas"]} in application["spec"][
        "ignoreDifferences"
    ]
    assert "ServerSideApply=true" in application["spec"]["syncPolicy"]["syncOptions"]


def test_flux_installs_what_the_chart_takes(tmp_path: Path) -> None:
    (release,) = objects("flux", "HelmRelease")
    assert (ROOT / release["spec"]["chart"]["spec"]["chart"] / "Chart.yaml").exists()
    (repository,) = objects("flux", "GitRepository")
    assert release["spec"]["chart"]["spec"]["sourceRef"]["name"] == repository["metadata"]["name"]
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(release["spec"]["values"]))
    grace = helm.pod(helm.template(values))["terminationGracePeriodSeconds"]
    assert int(release["spec"]["timeout"].removesuffix("m")) * 60 > grace, (
        "a rollout would be given up while streams run"
    )


def test_terraform_waits_longer_than_streams() -> None:
    text = (EXAMPLES / "terraform" / "main.tf").read_text()
    assert text.count("{") == text.count("}")
    assert text.count('"') % 2 == 0
    assert (EXAMPLES / "terraform" / "../../../helm/weir/Chart.yaml").resolve() == CHART / "Chart.yaml"
    grace = helm.pod(helm.template(EXAMPLES / "terraform" / "values.yaml"))["terminationGracePeriodSeconds"]
    (timeout,) = (
        int(line.split("=")[1].split("#")[0]) for line in text.splitlines() if line.strip().startswith("timeout")
    )
    assert timeout > grace


def test_kustomize_patches_what_the_chart_makes() -> None:
    kustomization = documents(EXAMPLES / "kustomize" / "kustomization.yaml")[0]
    home = EXAMPLES / "kustomize" / kustomization["helmGlobals"]["chartHome"]
    (chart,) = kustomization["helmCharts"]
    assert (home / chart["name"] / "Chart.yaml").exists()
    made = helm.template(EXAMPLES / "kustomize" / chart["valuesFile"])
    (patch,) = documents(EXAMPLES / "kustomize" / kustomization["patches"][0]["path"])
    # The chart writes its namespace into every object, so kustomize looks for the target there.
    assert patch["metadata"]["namespace"] == chart["namespace"]
    target = helm.one(made, patch["kind"], patch["metadata"]["name"])
    target["spec"]["template"]["spec"] |= patch["spec"]["template"]["spec"]
    assert schemas.problems(target, schemas.MINORS[0]) == []


def test_the_first_command_of_the_readme() -> None:
    text = (CHART / "README.md").read_text()
    command = shlex.split(text.partition("```sh\n")[2].partition("```")[0].replace("\\\n", " "))
    assert command[:4] == ["helm", "install", "weir", "helm/weir"]
    given = [part for part in command[4:] if part != "--create-namespace"]
    done = helm.run("helm", "template", *command[2:4], *given)
    assert done.returncode == 0, done.stderr
    made = [one for one in yaml.safe_load_all(done.stdout) if one]
    assert helm.environment(made)["WEIR_REDIS__URL"] == "redis://redis.example:6379/0"


@pytest.mark.parametrize("path", [ROOT / "README.md", EXAMPLES / "values" / "small.yaml"], ids=lambda path: path.name)
def test_the_small_installation_makes_what_it_needs_and_in_this_order(path: Path) -> None:
    lines = [line.removeprefix("#").strip() for line in path.read_text().splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith(("kubectl ", "helm install weir"))]
    assert commands[0] == ["kubectl", "create", "namespace", "weir"]
    *secrets, install = commands[1:]
    assert install[:6] == ["helm", "install", "weir", "helm/weir", "-n", "weir"]
    done = helm.run("helm", "template", *install[2:])
    assert done.returncode == 0, done.stderr
    made = [one for one in yaml.safe_load_all(done.stdout) if one]
    references = (
        variable["valueFrom"]["secretKeyRef"] for variable in helm.container(made)["env"] if "valueFrom" in variable
    )
    wanted = {(reference["name"], reference["key"]) for reference in references}
    start = ["kubectl", "-n", "weir", "create", "secret", "generic"]
    assert all(command[:6] == start for command in secrets)
    literals = (re.match(r"--from-literal=(\w+)=", command[7]) for command in secrets)
    given = {(command[6], found[1]) for command, found in zip(secrets, literals, strict=True) if found}
    assert given == wanted
