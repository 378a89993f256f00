"""The chart as Helm renders it: what every set of values must give, and what none may."""

import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import yaml

from tests.deploy import helm, schemas
from tests.deploy.helm import CHART, EXAMPLES, LEAST, Object
from tests.fakes.certificates import Authority, there_is_openssl
from weir.app import FLUSH_SECONDS
from weir.cli.server import MARGIN_SECONDS
from weir.configured import FIXED
from weir.settings import BadSettings, Settings, load
from weir.store.connect import Place
from weir.telemetry.tracing import CLOSE_SECONDS

VALUES = sorted((EXAMPLES / "values").glob("*.yaml"))
SECRETS = {"existingSecret": "weir"}
SECURED = {"redis.addresses": [], "valkey.enabled": True}
ROUTE = {"enabled": True, "parentRefs": [{"name": "internal"}], "hostnames": ["llm.example"]}
MODEL = {"name": "m", "endpoints": [{"url": "http://vllm.models:8000/v1"}]}


class Case(NamedTuple):
    title: str
    files: tuple[Path, ...] = ()
    values: Mapping[str, Any] = MappingProxyType({})

    def objects(self) -> list[Object]:
        return helm.template(*self.files, **self.values)


MATRIX = [
    Case("the least"),
    *(Case(path.stem, (path,)) for path in VALUES),
    Case("valkey", values=SECURED),
    Case("valkey that forgets", values=SECURED | {"valkey.persistence.enabled": False}),
    Case("valkey with a password", values=SECURED | {"secrets": SECRETS | {"redisPassword": {"key": "p"}}}),
    Case("cluster", values={"redis": {"mode": "cluster", "addresses": ["a:6379", "b:6379"], "tls": {"enabled": True}}}),
    Case("client certificate", values={"redis.tls": {"enabled": True, "caSecret": "ca", "clientCertSecret": "us"}}),
    Case("autoscaling", values={"autoscaling": {"enabled": True, "targetInFlightRequests": 100}}),
    Case("keda", values={"keda": {"enabled": True, "prometheusAddress": "http://p:9090", "fallbackReplicas": 3}}),
    Case("route", values={"httpRoute": ROUTE | {"filters": [{"type": "RequestHeaderModifier"}]}}),
    *(
        Case(f"ingress {controller}", values={"ingress": {"enabled": True, "hosts": ["a.example"], "controller": controller}})
        for controller in ("none", "nginx", "ingress-nginx", "haproxy", "traefik")
    ),
    Case("load balancer", values={"service": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}}),
    Case("monitors", values={"metrics": {"monitor": {"enabled": True}, "rules": {"enabled": True}}}),
    Case("pod monitor", values={"metrics.monitor": {"enabled": True, "kind": "PodMonitor"}}),
    Case("dashboards", values={"metrics.dashboards.enabled": True}),
    Case("workers", values={"config.server.workers": 4, "resources.limits.memory": "2Gi"}),
    Case("roll", values={"configReload": "roll"}),
    Case("names", values={"fullnameOverride": "a" * 80, "nameOverride": "b" * 80}),
    Case("no policy, no account, no test", values={"networkPolicy.enabled": False, "serviceAccount.create": False, "helmTest.enabled": False}),
    Case(
        "whatever users add",
        values={
            "extraEnv": [{"name": "TZ", "value": "UTC"}],
            "extraEnvFrom": [{"configMapRef": {"name": "more"}}],
            "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
            "podAnnotations": {"a": "b"},
            "commonAnnotations": {"c": "d"},
            "commonLabels": {"e": "f"},
            "tolerations": [{"operator": "Exists"}],
            "hostUsers": False,
            "imagePullSecrets": ["registry"],
        },
    ),
]  # fmt: skip

every_case = pytest.mark.parametrize("case", MATRIX, ids=lambda case: case.title)


def workloads(objects: list[Object]) -> list[tuple[str, Object]]:
    """Every pod's spec, by whose it is."""
    found = []
    for thing in objects:
        spec = thing["spec"] if thing["kind"] == "Pod" else thing.get("spec", {}).get("template", {}).get("spec")
        if spec and "containers" in spec:
            found.append((f"{thing['kind']} {thing['metadata']['name']}", spec))
    return found


# -- what every set of values gives


@pytest.mark.parametrize("minor", schemas.MINORS)
@every_case
def test_kubernetes_would_take_it(case: Case, minor: str) -> None:
    assert [problem for thing in case.objects() for problem in schemas.problems(thing, minor)] == []


@every_case
def test_every_pod_is_restricted(case: Case) -> None:
    """The restricted Pod Security Standard, with a root file system that nobody writes to and no token."""
    for name, spec in workloads(case.objects()):
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert all("hostPath" not in volume for volume in spec.get("volumes", ())), name
        for one in spec["containers"]:
            security = one["securityContext"]
            assert security.get("runAsNonRoot") or spec["securityContext"]["runAsNonRoot"], name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name


@every_case
def test_what_linters_look_for(case: Case) -> None:
    objects = case.objects()
    names = [(thing["kind"], thing["metadata"].get("namespace"), thing["metadata"]["name"]) for thing in objects]
    assert len(set(names)) == len(names), "two objects of one name"
    for name, spec in workloads(objects):
        for one in spec["containers"]:
            assert not one["image"].endswith(":latest"), name
            assert ":" in one["image"].rpartition("/")[2], name
            assert one["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in one["resources"]["limits"], name
            variables = [variable["name"] for variable in one.get("env", ())]
            assert len(set(variables)) == len(variables), f"{name}: a server-side apply refuses this"
            mounts = {mount["name"] for mount in one.get("volumeMounts", ())}
            claims = {"data"} if name.startswith("StatefulSet") else set()
            assert mounts - claims <= {volume["name"] for volume in spec.get("volumes", ())} | claims, name


@every_case
def test_every_selector_finds_somebody(case: Case) -> None:
    objects = case.objects()
    pods = [
        thing["spec"]["template"]["metadata"]["labels"]
        for thing in objects
        if thing["kind"] in {"Deployment", "StatefulSet"}
    ]
    for thing in objects:
        spec = thing.get("spec", {})
        wanted = {"Service": spec.get("selector"), "NetworkPolicy": spec.get("podSelector", {}).get("matchLabels")}.get(
            thing["kind"], (spec.get("selector") or {}).get("matchLabels")
        )
        if thing["kind"] == "ServiceMonitor":
            services = [other for other in objects if other["kind"] == "Service"]
            (found,) = (other for other in services if wanted.items() <= other["metadata"]["labels"].items())
            assert spec["endpoints"][0]["port"] in {port["name"] for port in found["spec"]["ports"]}
        elif wanted:
            assert sum(wanted.items() <= labels.items() for labels in pods) == 1, thing["metadata"]["name"]


@every_case
def test_every_name_fits_and_every_object_says_whose_it_is(case: Case) -> None:
    for thing in case.objects():
        metadata = thing["metadata"]
        assert len(metadata["name"]) <= 63
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "weir"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert all(len(value) <= 63 for value in metadata["labels"].values())
        assert metadata["namespace"] == helm.NAMESPACE


@every_case
def test_weir_takes_what_it_is_given(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `weir check` in the container would: the file, every variable, and the URL."""
    objects = case.objects()
    name = helm.one_of(objects, "Deployment")["metadata"]["name"]
    file = tmp_path / "weir.yaml"
    file.write_text(helm.one(objects, "ConfigMap", name)["data"]["weir.yaml"])
    secrets = {"WEIR_REDIS__URL": "rediss://u:p@cache.example:6380/0", "WEIR_TELEMETRY__OTLP_HEADERS": '{"a": "b"}'}
    given = helm.environment(objects, secrets)
    # Without the files that are mounted, which are not here: the next test has some.
    given["WEIR_REDIS__URL"] = re.sub(r"ssl_\w+=/etc/weir/redis-[^&]*&?", "", given["WEIR_REDIS__URL"])
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    settings = load(file)
    assert settings.models
    url = settings.redis.url
    assert url is not None
    assert "$(" not in url.get_secret_value()
    assert Place.of(url.get_secret_value())
    for variable in given:
        section, _, key = variable.removeprefix("WEIR_").lower().partition("__")
        known = variable == "WEIR_CONFIG" or not variable.startswith("WEIR_")  # of the command line, and of others
        assert known or key in type(getattr(settings, section)).model_fields, variable


def test_weir_finds_its_certificates_where_they_are_mounted(tmp_path: Path) -> None:
    if not there_is_openssl():
        pytest.skip("needs openssl")
    tls = {"enabled": True, "caSecret": "ca", "caKey": "root.pem", "clientCertSecret": "us"}
    objects = helm.template(**{"redis.tls": tls, "redis.mode": "cluster"})
    authority = Authority(tmp_path, "ca")
    pair = authority.sign("weir")
    # What each Secret holds: the CA under the key that is named, the pair under Kubernetes' own names.
    secrets = {"ca": {"root.pem": authority.certificate}, "us": {"tls.crt": pair.certificate, "tls.key": pair.key}}
    volumes = {
        volume["name"]: volume["secret"]["secretName"] for volume in helm.pod(objects)["volumes"] if "secret" in volume
    }
    url = helm.environment(objects)["WEIR_REDIS__URL"]
    for mount in helm.container(objects)["volumeMounts"]:
        for key, file in secrets.get(volumes.get(mount["name"], ""), {}).items():
            assert f"{mount['mountPath']}/{key}" in url
            url = url.replace(f"{mount['mountPath']}/{key}", str(file))
    place = Place.of(url)  # which reads them
    assert place.tls
    assert place.form == "cluster"


@every_case
def test_nothing_secret_stands_in_an_object(case: Case) -> None:
    for thing in case.objects():
        assert thing["kind"] != "Secret", "the chart makes none, so that no upgrade changes one"


# -- how a pod ends


@pytest.mark.parametrize(
    ("announce", "deadline", "pre_stop", "workers"),
    [(5, 300, 5, 1), (0, 0, 0, 1), (600, 86_400, 600, 1), (2.5, 0.5, 3, 1), (5, 300, 5, 8), (0, 30, 0, 2)],
)
def test_there_is_time_to_end(announce: float, deadline: float, pre_stop: int, workers: int) -> None:
    objects = helm.template(
        preStopSeconds=pre_stop,
        **{
            "config.drain": {"announce_seconds": announce, "deadline_seconds": deadline},
            "config.server.workers": workers,
            "resources.limits.memory": "2Gi",
        },
    )
    grace = helm.pod(objects)["terminationGracePeriodSeconds"]
    # As cli/workers.py counts until its master kills, and as cli/server.py closes: servers, settlements, spans.
    servers = FLUSH_SECONDS + max(2 * MARGIN_SECONDS, MARGIN_SECONDS + FLUSH_SECONDS + CLOSE_SECONDS)
    assert grace >= pre_stop + announce + deadline + servers + 5, "SIGKILL would come before the last settlement"
    assert grace <= pre_stop + announce + deadline + servers + 10, "a node would wait for nothing"


def test_the_ingress_lets_go_before_weir_does() -> None:
    """A connection that is kept open must end on the proxy's side first, which is 60 s nearly everywhere."""
    assert Settings().server.keepalive_seconds > 60


# -- what a change restarts


def checksums(**values: Any) -> dict[str, str]:
    annotations: dict[str, str] = helm.one(helm.template(**values), "Deployment")["spec"]["template"]["metadata"][
        "annotations"
    ]
    return annotations


def test_models_and_teams_restart_nobody_and_all_else_does() -> None:
    plain = checksums()
    assert checksums(**{"config.models": [MODEL]}) == plain
    assert checksums(**{"config.teams": [{"name": "search", "rpm": 5}]}) == plain
    changes = {
        "server": {"max_waiting": 5},
        "redis": {"on_outage": "closed"},
        "limits": {"lease_seconds": 30},
        "drain": {"deadline_seconds": 20},
        "telemetry": {"log_level": "debug"},
    }
    for section, change in changes.items():
        assert checksums(**{f"config.{section}": change}) != plain, section
    # keys.pepper is a Secret's; everything else that stays fixed is here.
    assert {*FIXED} == {*changes, "keys"}


def test_roll_restarts_for_everything() -> None:
    plain = checksums(configReload="roll")
    assert checksums(configReload="roll", **{"config.models": [MODEL]}) != plain


# -- what the schema refuses

REFUSED = [
    ("an unknown name", {"replicsa": 3}, "additional properties 'replicsa' not allowed"),
    ("an unknown name below", {"ingress.class": "nginx"}, "at '/ingress': additional properties 'class' not allowed"),
    ("an unknown setting", {"config.server.prot": 1}, "at '/config/server': additional properties 'prot' not allowed"),
    ("a word for a number", {"replicas": "three"}, "at '/replicas': got string, want integer"),
    ("a number for a word", {"image.tag": 1.5}, "at '/image/tag': got number, want string"),
    ("a plain key", {"config.teams": [{"name": "a", "keys": [{"key": "sk-1"}]}]}, "'key' not allowed"),
    ("a model that is none", {"config.models": [{"name": "a", "backend": "gpt"}]}, "value must be one of"),
    ("a port that is none", {"config.server.port": 70000}, "at '/config/server/port': maximum"),
    ("an unknown controller", {"ingress.controller": "apache"}, "at '/ingress/controller': value must be one of"),
    ("half a digest", {"image.digest": "sha256:abc"}, "at '/image/digest'"),
    ("a Redis URL for an address", {"redis.addresses": ["redis://u:p@h"]}, "at '/redis/addresses/0'"),
    ("a wait before the end of days", {"preStopSeconds": 5000}, "at '/preStopSeconds': maximum"),
    ("a secret itself", {"secrets.pepper": "hunter2"}, "at '/secrets/pepper': got string, want object"),
    ("a label that is no text", {"commonLabels": {"a": 1}}, "at '/commonLabels/a': got number, want string"),
]


@pytest.mark.parametrize(("title", "values", "sentence"), REFUSED, ids=[title for title, *_ in REFUSED])
def test_the_schema_refuses(title: str, values: dict[str, Any], sentence: str) -> None:
    assert sentence in helm.refusal(**values)


def test_a_chart_above_may_switch_it_and_share_values() -> None:
    assert helm.template(enabled=True, **{"global.imageRegistry": "theirs"})


# -- Helm's own opinions


@pytest.mark.parametrize("values", [None, LEAST, *VALUES], ids=lambda path: path.stem if path else "nothing given")
def test_helm_lints_it(values: Path | None) -> None:
    done = helm.run("helm", "lint", "--strict", CHART, *(["--values", values] if values else []))
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_old_kubernetes_is_refused() -> None:
    done = helm.run("helm", "template", "weir", CHART, "--values", LEAST, "--kube-version", "1.29.5")
    assert "incompatible with Kubernetes v1.29.5" in done.stderr


def test_a_package_holds_what_it_needs_and_no_more(tmp_path: Path) -> None:
    done = helm.run("helm", "package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    package = next(tmp_path.glob("weir-*.tgz"))
    listed = {path.removeprefix("weir/") for path in _members(package)}
    assert {"templates/tests/test.yaml", "files/helm_test.py", "values.schema.json"} <= listed
    assert {path for path in listed if path.startswith("tests/")} == set()
    boards = {path.name for path in (CHART / "dashboards").glob("*.json")}
    assert {f"dashboards/{name}" for name in boards} <= listed
    # A release is a Secret, which holds a MiB, and the package is in it.
    assert package.stat().st_size < 200_000


def _members(package: Path) -> list[str]:
    with tarfile.open(package) as archive:
        return archive.getnames()


def test_unit_tests_of_the_chart() -> None:
    picture = CHART / "tests" / "__snapshot__" / "default_test.yaml.snap"
    before = picture.read_text()  # one that is missing would be taken anew, and be right
    done = helm.run("helm-unittest", CHART, "--strict")
    assert picture.read_text() == before
    assert done.returncode == 0, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)[-6000:]


# -- what goes in whole


def test_rules_and_dashboards_arrive_unchanged() -> None:
    objects = helm.template(**{"metrics.rules.enabled": True, "metrics.dashboards.enabled": True})
    rules = [yaml.safe_load(path.read_text())["groups"] for path in sorted((CHART / "rules").glob("*.yaml"))]
    assert helm.one(objects, "PrometheusRule")["spec"]["groups"] == [group for groups in rules for group in groups]
    boards = {path.name: path.read_text().strip() for path in (CHART / "dashboards").glob("*.json")}
    found = {
        name: text.strip()
        for thing in objects
        if thing["kind"] == "ConfigMap" and "grafana_dashboard" in thing["metadata"]["labels"]
        for name, text in thing["data"].items()
    }
    assert found == boards
    assert all(len(text) < 900_000 for text in boards.values()), "a ConfigMap holds a MiB"


def test_check_says_what_the_schema_cannot(tmp_path: Path) -> None:
    """Only Weir knows what a team may be called; the schema lets this pass, and the pods would refuse it by its line."""
    file = tmp_path / "weir.yaml"
    file.write_text(
        helm.one(helm.template(**{"config.teams": [{"name": "Not A Team"}]}), "ConfigMap")["data"]["weir.yaml"]
    )
    with pytest.raises(BadSettings, match="no team name"):
        load(file)
