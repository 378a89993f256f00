"""deploy/compose.yaml and what belongs to it, as far as it can be told without images: that the files are there, are
good, and agree with each other; and that the load makes a real Weir do what dashboards show.
"""

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.system.harness import ROOT, Weir, choose_redis, clean_environment, redis_server, run_weir

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
LOAD = DEPLOY / "load" / "load.py"


def document(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def compose() -> Any:
    return document(COMPOSE)


@pytest.fixture(scope="module")
def services(compose: Any) -> dict[str, Any]:
    return compose["services"]


@pytest.fixture(scope="module")
def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("load", LOAD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["load"] = module  # dataclasses look there for what a name means
    spec.loader.exec_module(module)
    return module


def mounts(service: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for volume in service.get("volumes", ()):
        source, target, *_ = volume.split(":")
        yield source, target


def mounted(services: dict[str, Any], name: str, target: str) -> Path:
    """What lies at this path inside of the service's container."""
    for source, inside in mounts(services[name]):
        if target == inside:
            return DEPLOY / source
        if target.startswith(inside + "/"):
            return DEPLOY / source / target.removeprefix(inside + "/")
    raise AssertionError(f"nothing is mounted at {target} of {name}")


class TestFiles:
    def test_all_are_yaml(self) -> None:
        found = [COMPOSE, *(DEPLOY / "compose").rglob("*.yaml")]
        assert len(found) >= 7
        assert all(isinstance(document(path), dict) for path in found)

    def test_what_is_mounted_is_there(self, compose: Any, services: dict[str, Any]) -> None:
        for name, service in services.items():
            for source, target in mounts(service):
                if source in compose["volumes"]:
                    continue
                assert source.startswith("."), f"{name} mounts {source}, which is no volume of compose.yaml"
                assert (DEPLOY / source).exists(), f"{name} mounts {source} at {target}, which is not there"
                if (DEPLOY / source).is_dir():
                    assert [*(DEPLOY / source).iterdir()], f"{source} is empty"

    def test_what_a_command_names_is_mounted(self, services: dict[str, Any]) -> None:
        named = [
            (name, path)
            for name, service in services.items()
            for path in re.findall(r"/etc/[\w./-]+\.yaml", " ".join(map(str, service.get("command", ()))))
        ]
        assert len(named) == 5
        for name, path in named:
            assert mounted(services, name, path).is_file()

    def test_everything_in_its_folder_is_used(self, services: dict[str, Any]) -> None:
        used = [DEPLOY / source for service in services.values() for source, _ in mounts(service)]
        for path in (DEPLOY / "compose").rglob("*.yaml"):
            assert any(path == one or one.resolve() in path.resolve().parents for one in used), f"{path} is not used"


class TestServices:
    def test_images_are_pinned(self, services: dict[str, Any]) -> None:
        for name, service in services.items():
            repository, _, tag = service["image"].partition(":")
            assert tag, f"{name}: {repository} has no tag"
            assert "latest" not in tag
            if "build" not in service:
                assert re.match(r"v?\d+\.\d+\.\d+", tag), f"{name}: {tag} is no whole version"

    def test_ports_are_this_machines_alone_and_differ(self, services: dict[str, Any]) -> None:
        published = [port for service in services.values() for port in service.get("ports", ())]
        assert all(port.startswith("127.0.0.1:") for port in published), published
        outside = [port.split(":")[1] for port in published]
        assert len(outside) == len(set(outside))

    def test_who_is_waited_for_exists_and_can_say_that_it_is_well(self, services: dict[str, Any]) -> None:
        for name, service in services.items():
            for other in service.get("depends_on", ()):
                assert other in services, f"{name} waits for {other}"
                waits = service["depends_on"]
                if isinstance(waits, dict) and waits[other]["condition"] == "service_healthy":
                    assert "healthcheck" in services[other], f"{name} waits for {other}, which has no health check"

    def test_it_is_given_time_to_drain(self, services: dict[str, Any]) -> None:
        drain = document(DEPLOY / "compose/weir.yaml")["drain"]
        assert services["gateway"]["stop_grace_period"] == "1m"
        assert drain["announce_seconds"] + drain["deadline_seconds"] + 15 < 60


def urls(node: Any) -> Iterator[str]:
    """Every address in a document."""
    if isinstance(node, dict):
        for child in node.values():
            yield from urls(child)
    elif isinstance(node, list):
        for child in node:
            yield from urls(child)
    elif isinstance(node, str) and "://" in node:
        yield node


# Who listens where, inside.
LISTENS = {
    "gateway": {8080, 9090}, "upstream": {8080, 9090}, "valkey": {6379}, "ollama": {11434},
    "prometheus": {9090}, "collector": {4317, 4318}, "tempo": {3200, 4317}, "grafana": {3000},
}  # fmt: skip
NOBODY = {"nobody"}  # an upstream that is meant not to be there


class TestAgreement:
    @pytest.mark.parametrize(
        "name", ["weir.yaml", "upstream.yaml", "grafana/datasources/weir.yaml"], ids=["weir", "upstream", "grafana"]
    )
    def test_an_address_is_a_service_that_listens_there(self, services: dict[str, Any], name: str) -> None:
        found = list(urls(document(DEPLOY / "compose" / name)))
        assert found
        for url in found:
            parts = urlsplit(url)
            if parts.hostname not in NOBODY:
                assert parts.hostname in services, f"{url}: there is no such service"
                assert parts.port in LISTENS[parts.hostname], f"{url}: {parts.hostname} does not listen there"

    def test_nobody_is_nobody(self, services: dict[str, Any]) -> None:
        assert not NOBODY & services.keys()

    def test_services_listen_where_their_files_say(self, services: dict[str, Any]) -> None:
        for name, file in (("gateway", "weir.yaml"), ("upstream", "upstream.yaml")):
            server = document(DEPLOY / "compose" / file)["server"]
            assert {server["port"], server["ops_port"]} == LISTENS[name]
        collector = document(DEPLOY / "compose/collector.yaml")
        protocols = collector["receivers"]["otlp"]["protocols"]
        assert {int(one["endpoint"].rpartition(":")[2]) for one in protocols.values()} == LISTENS["collector"]
        tempo = document(DEPLOY / "compose/tempo.yaml")
        grpc = tempo["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
        assert {tempo["server"]["http_listen_port"], int(grpc.rpartition(":")[2])} == LISTENS["tempo"]
        for name, service in services.items():
            for port in service.get("ports", ()):
                assert int(port.rpartition(":")[2]) in LISTENS[name]

    def test_spans_go_from_the_gateway_to_the_store(self) -> None:
        collector = document(DEPLOY / "compose/collector.yaml")
        (pipeline,) = collector["service"]["pipelines"].values()
        assert set(pipeline["receivers"]) <= collector["receivers"].keys()
        assert set(pipeline["processors"]) <= collector["processors"].keys()
        (exporter,) = pipeline["exporters"]
        assert collector["exporters"][exporter]["endpoint"] == "tempo:4317"
        assert document(DEPLOY / "compose/weir.yaml")["telemetry"]["otlp_endpoint"] == "http://collector:4318"

    def test_prometheus_scrapes_the_ops_port_as_the_dashboards_expect(self, services: dict[str, Any]) -> None:
        config = document(DEPLOY / "compose/prometheus.yaml")
        (job,) = config["scrape_configs"]
        (static,) = job["static_configs"]
        assert static["targets"] == ["gateway:9090"]
        assert {"namespace", "pod"} <= static["labels"].keys()
        assert "--enable-feature=exemplar-storage" in services["prometheus"]["command"]
        assert config["storage"]["exemplars"]["max_exemplars"] > 0
        (rules,) = config["rule_files"]
        assert [*mounted(services, "prometheus", str(Path(rules).parent)).glob("*.yaml")]

    def test_grafana_has_the_datasources_that_are_referred_to(self, services: dict[str, Any]) -> None:
        sources = {one["uid"]: one for one in document(DEPLOY / "compose/grafana/datasources/weir.yaml")["datasources"]}
        (exemplars,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
        assert exemplars == {"name": "trace_id", "datasourceUid": "tempo"}
        assert sources["tempo"]["type"] == "tempo"
        (provider,) = document(DEPLOY / "compose/grafana/dashboards/weir.yaml")["providers"]
        folder = mounted(services, "grafana", provider["options"]["path"])
        assert [*folder.glob("*.json")]
        home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        assert mounted(services, "grafana", home).is_file()

    def test_the_upstream_serves_what_the_gateway_asks_for_with_the_key_that_it_takes(
        self, services: dict[str, Any]
    ) -> None:
        serves = {one["name"] for one in document(DEPLOY / "compose/upstream.yaml")["models"]}
        asked = [
            one
            for one in document(DEPLOY / "compose/weir.yaml")["models"]
            if any("//upstream:" in endpoint["url"] for endpoint in one["endpoints"])
        ]
        assert len(asked) == 3
        assert {one["upstream_model"] for one in asked} <= serves
        command = services["upstream"]["command"]
        given = command[command.index("--api-key") + 1]
        assert services["gateway"]["environment"]["UPSTREAM_API_KEY"] == given

    def test_the_load_has_the_keys_and_models_of_the_gateway(self, load: ModuleType) -> None:
        config = document(DEPLOY / "compose/weir.yaml")
        digests = {team["name"]: team["keys"][0]["digest"] for team in config["teams"]}
        pairs = [word.partition("=") for word in load.KEYS]
        assert {team: hashlib.sha256(key.encode()).hexdigest() for team, _, key in pairs} == digests
        assert set(load.MODELS.split(",")) <= {one["name"] for one in config["models"]}


class TestTools:
    @pytest.mark.parametrize("name", ["weir.yaml", "upstream.yaml"])
    def test_weir_check(self, services: dict[str, Any], name: str) -> None:
        env = clean_environment(**services["gateway"]["environment"])
        done = run_weir("check", "--config", str(DEPLOY / "compose" / name), env=env)
        assert done.returncode == 0, done.stderr

    @pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: apt-get install prometheus)")
    def test_promtool_check(self, services: dict[str, Any], tmp_path: Path) -> None:
        rules = mounted(services, "prometheus", "/etc/prometheus/rules").resolve()
        text = (DEPLOY / "compose/prometheus.yaml").read_text().replace("/etc/prometheus/rules", str(rules))
        (tmp_path / "prometheus.yaml").write_text(text)
        command = ["promtool", "check", "config", str(tmp_path / "prometheus.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "rules found" in done.stdout


# -- the load, against a real one


@pytest.fixture
def redis_url() -> Iterator[str]:
    with redis_server(choose_redis()) as address:
        yield f"{address}/0"


@pytest.fixture
def weir(redis_url: str) -> Iterator[Weir]:
    """Of compose/weir.yaml what needs no other service: its teams and limits, with the echo behind every name."""
    config = document(DEPLOY / "compose/weir.yaml")
    config["redis"]["url"] = redis_url
    config["models"] = [
        *({"name": name, "backend": "echo", "echo": {"delay_ms": 5}} for name in ("chat", "slow", "flaky")),
        {"name": "broken", "endpoints": [{"url": "http://127.0.0.1:1/v1"}], "retries": 0},
    ]
    config["drain"] = {"announce_seconds": 0, "deadline_seconds": 1}
    del config["telemetry"]["otlp_endpoint"]
    with Weir(config) as weir:
        yield weir


def test_the_load_makes_everything_move(weir: Weir) -> None:
    command = [sys.executable, str(LOAD), "--url", weir.base_url, "--seconds", "8", "--rate", "40", "--seed", "7"]
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, timeout=90, check=False, env=clean_environment()
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["requests"] > 100
    assert said["requests"] == sum(said["by_status"].values()) == sum(said["by_team"].values())
    assert {"200", "400", "401", "404", "429", "502"} <= said["by_status"].keys(), said
    assert said["by_team"].keys() == {"search", "ads", "support"}
    assert said["left_early"] > 0
    assert said["unreached"] == 0
    assert said["first_byte_ms"]["p50"] > 0
    # What it says is what Weir counted.
    assert weir.metric("weir_requests_total") == said["requests"]
    assert weir.metric("weir_requests_total", 'status="4xx"') > 10
    assert weir.metric("weir_requests_total", 'outcome="client_disconnect"') > 0
    for limit in ("team_tokens", "team_requests", "team_concurrency"):
        assert weir.metric("weir_limit_decisions_total", f'limit="{limit}"', 'decision="refused"') > 0, limit


def test_the_load_says_that_nobody_is_there() -> None:
    command = [sys.executable, str(LOAD), "--url", "http://127.0.0.1:1/v1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "nobody answers" in done.stderr
    assert "Traceback" not in done.stderr
