"""`make kind` as far as it can be told without a cluster: the objects that it makes are good, and its load can tell a
stream that was cut.
"""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tests.deploy import helm, schemas
from tests.system.harness import ROOT, Admin, Weir, choose_redis, clean_environment, redis_server

KIND = ROOT / "deploy" / "kind"
SCRIPT = (KIND / "run.sh").read_text()
LOAD = ROOT / "deploy" / "load" / "streams.py"


def job() -> helm.Object:
    found: helm.Object = yaml.safe_load((KIND / "load.yaml").read_text().replace("IMAGE", "weir:0.1.0"))
    return found


@pytest.mark.parametrize("minor", schemas.MINORS)
def test_kubernetes_would_take_it(minor: str) -> None:
    digest = {"config.teams[0].keys[0].digest": "0" * 64, "config.teams[0].name": "load"}
    for thing in [*helm.template(KIND / "values.yaml", **digest), job()]:
        assert schemas.problems(thing, minor) == []


def test_the_load_asks_the_service_and_the_model_that_are_there() -> None:
    objects = helm.template(KIND / "values.yaml")
    service = helm.one(objects, "Service")
    (box,) = job()["spec"]["template"]["spec"]["containers"]
    assert service["spec"]["ports"][0]["port"] == 80
    assert "http://weir/v1" in box["command"]
    values = yaml.safe_load((KIND / "values.yaml").read_text())
    assert [model["name"] for model in values["config"]["models"]] == ["echo"]
    for thing in ("secret generic load", "configmap load", "deployment/weir", "-f deploy/kind/values.yaml"):
        assert thing in SCRIPT
    # It has to outlast both rollouts, or they would have replaced pods that nobody asks.
    assert int(box["command"][-1]) > 2 * 90


@pytest.fixture(scope="module")
def weir() -> Iterator[tuple[Weir, str]]:
    with (
        redis_server(choose_redis()) as address,
        Weir({"models": [{"name": "echo", "backend": "echo"}], "redis": {"url": address}}) as started,
    ):
        yield started, Admin(address).key().secret


def load(port: int, key: str = "sk-any") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, LOAD, "--url", f"http://127.0.0.1:{port}/v1", "--seconds", "0.5", "--clients", "2"]
    return subprocess.run(
        command, env=clean_environment(KEY=key), capture_output=True, text=True, timeout=60, check=False
    )


def test_whole_streams_are_whole(weir: tuple[Weir, str]) -> None:
    done = load(weir[0].port, weir[1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(json.loads(done.stdout)) == ["whole"]


def test_a_refusal_is_none(weir: tuple[Weir, str]) -> None:
    done = load(weir[0].port, "sk-nobodys")
    assert done.returncode == 1
    assert list(json.loads(done.stdout)) == ["refused: 401"]


class Play(BaseHTTPRequestHandler):
    """A stream that ends as the server's `ending` says."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        ending: str = self.server.ending  # type: ignore[attr-defined]
        if ending != "silence":
            said = b"data: {}\n\n" + (b"data: [DONE]\n\n" if ending == "whole, then closed" else b"")
            self.send_response(200)
            self.send_header("content-length", str(len(said) + (100 if ending == "cut" else 0)))
            self.end_headers()
            self.wfile.write(said)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        pass


@pytest.mark.parametrize(
    ("ending", "words", "result"),
    [
        ("no end", {"ended without its [DONE]"}, 1),
        ("cut", {"cut: IncompleteRead"}, 1),
        ("silence", {"closed before an answer"}, 1),
        # A server may close between two answers, also in the moment in which it is asked again; nothing was cut then.
        ("whole, then closed", {"whole", "asked again on a new connection"}, 0),
    ],
)
def test_a_stream_that_is_not_whole_is_told(ending: str, words: set[str], result: int) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Play) as server:
        server.ending = ending  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            done = load(server.server_port)
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == result, done.stdout + done.stderr
    assert json.loads(done.stdout).keys() <= words


def test_a_server_that_is_not_there_is_told() -> None:
    done = load(1)
    assert done.returncode == 1
    assert list(json.loads(done.stdout)) == ["nobody there"]


@pytest.fixture
def played(tmp_path: Path) -> Path:
    """The script where no real tool is, and programs that write down how they were called."""
    script = tmp_path / "deploy" / "kind" / "run.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(KIND / "run.sh", script)
    shutil.copy(KIND / "load.yaml", script.parent)
    (tmp_path / "bin").mkdir()
    for name in ("docker", "kind", "kubectl", "helm"):
        program = tmp_path / "bin" / name
        program.write_text(
            f"""#!/bin/sh
            echo "{name} $*" >>{tmp_path}/calls
            case "$*" in
            *"$FAILS"*) [ -z "$FAILS" ] || exit 3 ;;
            esac
            case "$*" in *"get job load"*) printf %s "$ACTIVE" ;; *"apply -f -") cat >/dev/null ;; esac
            """
        )
        program.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("fails", "active", "result", "rollouts"),
    [
        ("", "1", 0, 2),
        ("test weir", "1", 3, 0),
        ("rollout status", "1", 3, 1),
        ("wait job/load", "1", 3, 2),
        ("", "", 1, 2),
    ],
    ids=["all is well", "the chart's test fails", "no new pod is ready", "a stream was cut", "the load ended first"],
)
def test_it_ends_as_it_went_and_leaves_no_cluster(
    played: Path, fails: str, active: str, result: int, rollouts: int
) -> None:
    env = clean_environment(IMAGE="weir:0.1.0", FAILS=fails, ACTIVE=active)
    env["PATH"] = f"{played}/bin:{env['PATH']}"
    done = subprocess.run(
        [played / "deploy" / "kind" / "run.sh"], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == result, done.stderr
    calls = (played / "calls").read_text().splitlines()
    created = calls[0].removeprefix("kind create cluster --name ").split()[0]
    assert calls[-1] == f"kind delete cluster --name {created}"
    assert any("job/load --tail" in call for call in calls) == bool(result), "what was wrong is shown"
    assert len([call for call in calls if "rollout restart" in call]) == rollouts
    (installed,) = (call for call in calls if call.startswith("helm install"))
    assert "image.repository=weir " in installed
    assert "image.tag=0.1.0 " in installed
