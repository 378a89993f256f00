"""Real processes for every test here: a Redis, a Weir, a scripted upstream. Nothing is patched."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tests.system.harness import (
    DATABASES,
    Admin,
    RedisChoice,
    Upstream,
    Weir,
    choose_redis,
    configuration,
    model,
    redis_server,
)

CHOICE = pytest.StashKey[RedisChoice]()
SHOWN = pytest.StashKey[bool]()
_numbers = itertools.cycle(range(1, DATABASES))


def _choice(config: pytest.Config) -> RedisChoice:
    if CHOICE not in config.stash:
        config.stash[CHOICE] = choose_redis()
    return config.stash[CHOICE]


def pytest_report_header(config: pytest.Config) -> str:
    config.stash[SHOWN] = True
    return f"redis of the system tests: {_choice(config).name}"


def pytest_report_collectionfinish(config: pytest.Config) -> str | list[str]:
    """Pytest asks for headers before it finds this file when it is called without a path; so say it here."""
    return [] if config.stash.get(SHOWN, False) else pytest_report_header(config)


@pytest.fixture(scope="session")
def redis_address(pytestconfig: pytest.Config) -> Iterator[str]:
    with redis_server(_choice(pytestconfig)) as address:
        yield address


@pytest.fixture(scope="session")
def new_redis_url(redis_address: str) -> Callable[[], str]:
    """Each call gives a database of its own, with nothing in it."""

    def new() -> str:
        url = f"{redis_address}/{next(_numbers)}"
        with redis.Redis.from_url(url) as client:
            client.flushdb()
        return url

    return new


@pytest.fixture(scope="session")
def redis_url(new_redis_url: Callable[[], str]) -> str:
    """The database of the Weir that most tests share; they keep apart by their own teams and keys."""
    return new_redis_url()


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="session")
def admin(redis_url: str) -> Admin:
    return Admin(redis_url)


@pytest.fixture(scope="session")
def shared_config(redis_url: str, upstream: Upstream) -> dict[str, Any]:
    models = [
        model("chat", upstream.url, default_max_tokens=64),
        model("long", upstream.url),  # for long prompts alone, so that its estimate learns from nothing else
        model("fragile", upstream.url),  # alone with its failures, so that they touch no other test
        model("embed", upstream.url),
        model("hidden", upstream.url),
        {"name": "echo", "backend": "echo"},
        {"name": "slow-echo", "backend": "echo", "echo": {"delay_ms": 20}},
    ]
    return configuration(redis_url, models)


@pytest.fixture(scope="session")
def weir(shared_config: dict[str, Any]) -> Iterator[Weir]:
    with Weir(shared_config) as weir:
        yield weir


@pytest.fixture
def start_weir() -> Iterator[Callable[..., Weir]]:
    """Starts more of them, for the length of one test."""
    started: list[Weir] = []

    def start(config: dict[str, Any], *arguments: str, env: dict[str, str] | None = None) -> Weir:
        started.append(Weir(config, *arguments, env=env))
        return started[-1]

    yield start
    for weir in started:
        weir.close()
