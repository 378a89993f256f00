"""What the chart hands to programs, handed to them: the configuration, the test's script, the Valkey's command line."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml

from tests.deploy import helm
from tests.fakes.redis_server import NAMES
from tests.system.harness import (
    Admin,
    Process,
    Weir,
    answers_200,
    choose_redis,
    clean_environment,
    eventually,
    free_port,
    redis_server,
    unique,
)

BODY = {"model": "echo", "messages": [{"role": "user", "content": "Hello, river!"}]}


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server(choose_redis()) as address:
        yield f"{address}/7"


def file_of(objects: list[helm.Object]) -> str:
    text: str = helm.one_of([thing for thing in objects if "weir.yaml" in thing.get("data", ())], "ConfigMap")["data"][
        "weir.yaml"
    ]
    return text


def test_helm_test_as_the_pod_runs_it(redis_url: str) -> None:
    """Ready, 401 without a key, an answer with one; and it fails where one of them is not so."""
    objects = helm.template(**{"helmTest.keySecret": "k"})
    (test,) = (thing for thing in objects if thing["kind"] == "Pod")
    (box,) = test["spec"]["containers"]
    with Weir({**yaml.safe_load(file_of(objects)), "server": {}, "redis": {"url": redis_url}}) as weir:
        given = {variable["name"]: variable.get("value", "") for variable in box["env"]}
        given |= {"WEIR_TEST_OPS": weir.ops_url, "WEIR_TEST_API": f"http://127.0.0.1:{weir.port}"}

        def run(**changed: str) -> subprocess.CompletedProcess[str]:
            script = [sys.executable, *box["command"][1:], *box["args"]]
            environment = clean_environment(**given) | changed
            return subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60, check=False)

        key = Admin(redis_url).key()
        done = run(WEIR_TEST_KEY=key.secret)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines() == [
            "ok: it is ready: 200", "ok: no key is refused: 401", "ok: a wrong key is refused: 401", "ok: echo answers: 200",
        ]  # fmt: skip
        assert "not asked: an answer" in run().stdout
        refused = run(WEIR_TEST_KEY="sk-nobodys")
        assert refused.returncode == 1
        assert "NOT OK: echo answers: 401" in refused.stdout
        assert run(WEIR_TEST_OPS=f"http://127.0.0.1:{weir.port}").returncode == 1, "the API's port is not the ops port"


def test_a_pod_takes_models_and_teams_from_the_directory_as_the_kubelet_swaps_it(
    redis_url: str, tmp_path: Path
) -> None:
    """The mount is a directory of links to `..data`, which is one rename away from the next; as a pod has it."""
    secret = "sk-" + unique("key")
    digest = hashlib.sha256(secret.encode()).hexdigest()
    team = {"name": unique("team"), "rpm": 1000, "keys": [{"digest": digest, "name": "by file"}]}
    first = file_of(helm.template())
    second = file_of(
        helm.template(**{"config.teams": [team], "config.models": [{"name": "echo-two", "backend": "echo"}]})
    )
    directory = tmp_path / "config"
    directory.mkdir()
    mount(directory, first, 1)
    (directory / "weir.yaml").symlink_to("..data/weir.yaml")
    ports = free_port(), free_port()
    env = clean_environment(
        WEIR_CONFIG=str(directory / "weir.yaml"), WEIR_REDIS__URL=redis_url, WEIR_SERVER__HOST="127.0.0.1",
        WEIR_SERVER__PORT=str(ports[0]), WEIR_SERVER__OPS_PORT=str(ports[1]),
    )  # fmt: skip
    command = helm.container(helm.template())["command"]
    process = Process(Path(sys.executable).parent / command[0], *command[1:], env=env)
    try:
        process.wait_ready(lambda: answers_200(f"http://127.0.0.1:{ports[1]}/readyz"))
        ask = client(ports[0], secret)
        assert ask("echo") == 401
        mount(directory, second, 2)
        eventually(lambda: ask("echo-two") == 200, why="the swapped file was taken")
        assert ask("echo") == 404
    finally:
        process.stop()


def mount(directory: Path, text: str, number: int) -> None:
    """As the kubelet's atomic writer does it."""
    data = directory / f"..{number}"
    data.mkdir()
    (data / "weir.yaml").write_text(text)
    (directory / "..data_tmp").symlink_to(data.name)
    (directory / "..data_tmp").rename(directory / "..data")


def client(port: int, secret: str) -> Any:
    def ask(model: str) -> int:
        headers = {"authorization": f"Bearer {secret}"}
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json=BODY | {"model": model},
            headers=headers,
            trust_env=False,
        )
        return answer.status_code

    return ask


@pytest.mark.parametrize("password", [None, "s3cret"], ids=["open", "with a password"])
def test_valkeys_command_line_is_one_that_a_server_takes(password: str | None, tmp_path: Path) -> None:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip("needs valkey-server or redis-server on the PATH")
    secrets = {"existingSecret": "weir", "redisPassword": {"key": "p"}} if password else {}
    objects = helm.template(**{"redis.addresses": [], "valkey.enabled": True, "secrets": secrets})
    (box,) = helm.one(objects, "StatefulSet", "weir-valkey")["spec"]["template"]["spec"]["containers"]
    port = free_port()
    places = {"6379": str(port), "/data": str(tmp_path), "$(VALKEYCLI_AUTH)": password or ""}
    command = [places.get(part, part) for part in box["command"][1:]]
    process = Process(found, *command, "--bind", "127.0.0.1", env=dict(os.environ))
    try:
        with redis.Redis(port=port, password=password) as asked:
            eventually(lambda: answers(asked))
            told = asked.config_get("maxmemory*") | asked.config_get("append*") | asked.config_get("save")
        assert told["maxmemory-policy"] == "noeviction"
        assert int(told["maxmemory"]) == 192 * 1024 * 1024
        assert (told["appendonly"], told["save"]) == ("yes", "")
        if password:
            with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()
    finally:
        process.stop()


def answers(asked: "redis.Redis") -> bool:
    try:
        return bool(asked.ping())
    except redis.ConnectionError:
        return False


def test_memory_leaves_room_above_what_valkey_may_hold() -> None:
    """The limit kills; `maxmemory` only refuses. Writing its file doubles some pages."""
    objects = helm.template(**{"redis.addresses": [], "valkey.enabled": True})
    (box,) = helm.one(objects, "StatefulSet", "weir-valkey")["spec"]["template"]["spec"]["containers"]
    most = int(re.fullmatch(r"(\d+)mb", box["command"][box["command"].index("--maxmemory") + 1])[1])  # type: ignore[index]
    limit = int(re.fullmatch(r"(\d+)Mi", box["resources"]["limits"]["memory"])[1])  # type: ignore[index]
    assert limit >= most * 4 / 3
