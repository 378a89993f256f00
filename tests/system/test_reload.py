"""A changed configuration file becomes live while requests run; a bad one does not."""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.system.harness import (
    Admin,
    Key,
    RawExchange,
    Upstream,
    Weir,
    chat_bytes,
    configuration,
    eventually,
    model,
    unique,
)

ECHO = {"name": "echo", "backend": "echo"}


@pytest.fixture
def config(redis_url: str, upstream: Upstream) -> dict[str, Any]:
    return configuration(redis_url, [ECHO, model("chat", upstream.url)])


@pytest.fixture
def weir(config: dict[str, Any]) -> Iterator[Weir]:
    with Weir(config) as weir:
        yield weir


def models(weir: Weir, key: Key) -> set[str]:
    return {entry["id"] for entry in weir.get("/v1/models", key).json()["data"]}


def write(weir: Weir, config: dict[str, Any], **changed: Any) -> None:
    weir.file.write_text(yaml.safe_dump(config | changed))


def test_a_new_model_is_there_and_an_old_one_gone(weir: Weir, config: dict[str, Any], admin: Admin) -> None:
    key = admin.key()
    write(weir, config, models=[ECHO, {"name": "second", "backend": "echo"}])
    eventually(lambda: weir.chat(key, model="second").status_code == 200, why="the new model answers")
    assert models(weir, key) == {"echo", "second"}
    assert weir.chat(key, model="chat").status_code == 404
    assert weir.metric("weir_config_generation") == 2


def test_a_stream_that_runs_meanwhile_goes_on(
    weir: Weir, config: dict[str, Any], admin: Admin, upstream: Upstream
) -> None:
    """Though its model is not there any more."""
    key, gate, prompt = admin.key(), unique("gate"), unique("canary-prompt")
    with RawExchange(weir.port, chat_bytes(key, "chat", prompt, stream=True, x_script={"gate": gate})) as stream:
        assert stream.read_event().startswith(b"data: ")
        write(weir, config, models=[ECHO])
        eventually(lambda: weir.chat(key, model="chat").status_code == 404, why="the model is gone")
        upstream.open_gate(gate)
        assert stream.read().body.rstrip().endswith(b"data: [DONE]")


def test_a_bad_file_is_refused_and_counted_and_the_last_good_one_stays(
    weir: Weir, config: dict[str, Any], admin: Admin
) -> None:
    key = admin.key()
    write(weir, config, modles=[])
    eventually(lambda: weir.metric("weir_config_reload_failures_total") == 1, why="it is counted")
    assert weir.chat(key, model="echo").status_code == 200
    said = eventually(lambda: [line for line in weir.process.out if "configuration refused" in line])
    assert "did you mean 'models'" in said[0]
    write(weir, config, models=[ECHO, {"name": "second", "backend": "echo"}])
    eventually(lambda: weir.chat(key, model="second").status_code == 200, why="after a bad one a good one is taken")


def test_a_team_of_the_file_and_its_key(weir: Weir, config: dict[str, Any]) -> None:
    secret, team = unique("sk-foreign"), unique("team")
    digest = hashlib.sha256(secret.encode()).hexdigest()
    teams = [{"name": team, "rpm": 5, "burst_seconds": 60, "keys": [{"name": "first", "digest": digest}]}]
    write(weir, config, teams=teams)
    key = Key("", secret, team)
    eventually(lambda: weir.chat(key, model="echo").status_code == 200, why="the key of the file is good")
    assert weir.get("/v1/limits", key).headers["x-ratelimit-limit-requests"] == "5"


def test_what_needs_a_restart_is_named(weir: Weir, config: dict[str, Any]) -> None:
    write(weir, config, drain={"announce_seconds": 1})
    said = eventually(lambda: [line for line in weir.process.out if "configuration reloaded" in line])
    assert '"needs_restart":["drain.announce_seconds"' in said[0]
