"""Real processes, as in tests/system: a Redis, a Weir, a scripted upstream. Run by `python -m tests.clients`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.clients.__main__ import BUILD
from tests.clients.ring import models
from tests.system.harness import Admin, Key, Upstream, Weir, choose_redis, configuration, redis_server

# The clients are not installed where everything else runs: this ring has environments of its own.
OURS = Path(sys.prefix).parent == BUILD
collect_ignore_glob = [] if OURS else ["test_*.py"]


def pytest_report_collectionfinish() -> str | list[str]:
    return [] if OURS else "tests/clients: run by `python -m tests.clients`, in environments of their own"


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with redis_server(choose_redis()) as address, redis.Redis.from_url(url := f"{address}/1") as client:
        client.flushdb()
        yield url


@pytest.fixture(scope="session")
def _upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def upstream(_upstream: Upstream) -> Upstream:
    """It has heard nothing yet."""
    _upstream.forget()
    return _upstream


@pytest.fixture(scope="session")
def admin(redis_url: str) -> Admin:
    return Admin(redis_url)


@pytest.fixture(scope="session")
def weir(redis_url: str, _upstream: Upstream) -> Iterator[Weir]:
    with Weir(configuration(redis_url, models(_upstream))) as weir:
        yield weir


@pytest.fixture(scope="session")
def root(weir: Weir) -> str:
    """Weir's address without /v1, as clients of Anthropic want it."""
    return weir.base_url.removesuffix("/v1")


@pytest.fixture(scope="session")
def key(admin: Admin) -> Key:
    return admin.key()


@pytest.fixture
def tight_key(admin: Admin) -> Key:
    """One request at once, and then one a second."""
    return admin.key(rpm=60, burst_seconds=1)


@pytest.fixture(scope="session")
def strange_key() -> Key:
    """Nobody's."""
    return Key("none", "sk-not-one-of-ours", "none")
