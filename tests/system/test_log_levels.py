"""`weir logs`: a running Weir says more of one caller, or less of everybody, seconds after a command, and not for ever."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.system.harness import Admin, Key, Upstream, Weir, configuration, eventually, model, run_weir, unique


@pytest.fixture
def admin(new_redis_url: Callable[[], str]) -> Admin:
    return Admin(new_redis_url())  # of its own: a level of everybody is everybody's


@pytest.fixture
def weir(admin: Admin, upstream: Upstream) -> Iterator[Weir]:
    models = [model("chat", upstream.url), {"name": "echo", "backend": "echo"}]
    with Weir(configuration(admin.redis_url, models)) as weir:
        yield weir


def lines(weir: Weir, event: str, **fields: Any) -> list[dict[str, Any]]:
    said = [json.loads(line) for line in list(weir.process.out) if f'"event":"{event}"' in line]
    return [line for line in said if all(line.get(name) == value for name, value in fields.items())]


def level(admin: Admin, weir: Weir, *arguments: str) -> Any:
    """Set, and heard by the running one."""
    before = len(lines(weir, "log level set"))
    made = admin.json("logs", "level", *arguments)
    eventually(lambda: len(lines(weir, "log level set")) > before, within=5, why="the change is a log line")
    return made


def asked(weir: Weir, key: Key, model: str = "chat", **fields: Any) -> str:
    """A request's id, once it is over and either logged or not."""
    answer = weir.chat(key, model=model, **fields)
    marker = weir.http.post("/v1/chat/completions", content=b"{", headers=key.headers).headers["x-request-id"]
    eventually(lambda: lines(weir, "request", request_id=marker), why="a later request's line, which no level hides")
    return answer.headers["x-request-id"]


def test_debug_for_one_team(weir: Weir, admin: Admin) -> None:
    team = admin.team(rpm=600, tpm=100_000)
    key, stranger = admin.key(team, concurrency=5), admin.key(admin.team())
    prompt = unique("canary-prompt")
    made = level(admin, weir, "debug", "--team", team)
    assert (made["of"], made["name"], made["level"]) == ("team", team, "debug")
    assert 3590 < made["seconds_left"] <= 3600

    wanted, other = asked(weir, key, text=prompt, max_tokens=40), asked(weir, stranger)
    (detail,) = lines(weir, "request_detail", request_id=wanted)
    assert lines(weir, "request_detail", request_id=other) == []
    assert (detail["level"], detail["team"], detail["key_id"]) == ("debug", team, key.id)
    assert {limit["limit"] for limit in detail["limits"]} == {"key concurrency", "team requests", "team tokens"}
    assert detail["reserved_tokens"] == detail["estimated_input_tokens"] + 40
    times = [detail[f"{name}_ms"] for name in ("asked", "admitted", "sent", "answered", "first_byte", "ended")]
    assert times == sorted(times)
    (attempt,) = detail["attempts"]
    assert attempt["request_bytes"] > 50
    assert attempt["result"] == "ok"
    assert prompt not in weir.process.said
    assert key.secret not in weir.process.said


def test_only_what_is_not_well_and_only_what_is_broken(weir: Weir, admin: Admin) -> None:
    key = admin.key()
    level(admin, weir, "warning")
    well, unknown = asked(weir, key), asked(weir, key, model="nothing-of-this-name")
    assert lines(weir, "request", request_id=well) == []
    assert lines(weir, "request", request_id=unknown)[0]["status"] == 404

    level(admin, weir, "error", "--key", key.id)
    unknown = weir.chat(key, model="nothing-of-this-name").headers["x-request-id"]
    broken = weir.chat(key, x_script="broken").headers["x-request-id"]
    eventually(lambda: lines(weir, "request", request_id=broken), why="what is broken is logged")
    assert lines(weir, "request", request_id=unknown) == []

    assert admin.run("logs", "reset").returncode == 0
    eventually(lambda: len(lines(weir, "log level ended")) == 2, within=5)
    assert lines(weir, "request", request_id=asked(weir, key))


def test_it_ends_by_itself(weir: Weir, admin: Admin) -> None:
    key = admin.key()
    level(admin, weir, "debug", "--key", key.id, "--for", "4s")
    assert lines(weir, "request_detail", request_id=asked(weir, key))
    eventually(lambda: lines(weir, "log level ended", key_id=key.id), within=8)
    assert not lines(weir, "request_detail", request_id=asked(weir, key))
    assert admin.json("logs", "list") == []


def test_both_workers_hear_of_it(admin: Admin, start_weir: Callable[..., Weir]) -> None:
    weir = start_weir(configuration(admin.redis_url, [{"name": "echo", "backend": "echo"}]), "--workers", "2")
    admin.json("logs", "level", "error", "--for", "never")
    eventually(
        lambda: len(lines(weir, "log level set", of="all", level="info", now="error", until=None)) >= 1, within=5
    )
    eventually(lambda: len(lines(weir, "log level set")) == 2, within=5, why="one line from each process")


def test_listed_and_taken_away(admin: Admin) -> None:
    team = admin.team()
    admin.json("logs", "level", "debug", "--team", team, "--for", "never")
    admin.json("logs", "level", "error", "--for", "2d")
    rows = admin.json("logs", "list")
    assert [(row["of"], row["name"], row["level"], row["until"] == "never") for row in rows] == [
        ("all", "", "error", False),
        ("team", team, "debug", True),
    ]
    assert [row["until"] for row in admin.json("logs", "show")] == [row["until"] for row in rows]
    assert team in admin.run("logs", "list").stdout
    assert admin.run("logs", "list", "--csv").stdout.splitlines()[0] == "of,name,level,until,seconds_left"
    admin.run("logs", "reset", "--team", team)
    assert [row["of"] for row in admin.json("logs", "list")] == ["all"]


MISTAKES = [
    pytest.param(("loud",), "loud", id="no-such-level"),
    pytest.param(("debug", "--team", "nobody"), "nobody", id="no-such-team"),
    pytest.param(("debug", "--key", "nokey"), "nokey", id="no-such-key"),
    pytest.param(("debug", "--for", "soon"), "soon", id="no-time-span"),
    pytest.param(("debug", "--for", "0s"), "0s", id="ends-at-once"),
    pytest.param(("debug", "--for", "99999999999d"), "36500d", id="beyond-every-calendar"),
    pytest.param(("debug", "--team", "a", "--key", "b"), "--team or --key", id="both"),
]


@pytest.mark.parametrize(("typed", "named"), MISTAKES)
def test_a_mistake_is_answered_with_a_sentence(admin: Admin, typed: tuple[str, ...], named: str) -> None:
    done = admin.run("logs", "level", *typed)
    assert done.returncode == 1
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert admin.json("logs", "list") == []


def test_without_redis_it_says_so() -> None:
    done = run_weir("logs", "list", "--redis-url", "redis://127.0.0.1:1/0")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
