"""Real processes, as in tests/system: a Redis, and a Weir with a tiny model inside. Run by `python -m tests.local`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.local.__main__ import HOME
from tests.system.harness import Admin, Key, Weir, choose_redis, configuration, redis_server

# torch is not installed where everything else runs: this ring has an environment of its own.
OURS = Path(sys.prefix) == HOME
collect_ignore_glob = [] if OURS else ["test_*.py"]


def pytest_report_collectionfinish() -> str | list[str]:
    return [] if OURS else "tests/local: run by `python -m tests.local`, in an environment of its own"


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with redis_server(choose_redis()) as address, redis.Redis.from_url(url := f"{address}/1") as client:
        client.flushdb()
        yield url


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model as it should be, one whose tokenizer has no chat template, and one that is soon full."""
    from tests.local.tiny import make  # noqa: PLC0415  torch is not where this file may be looked at

    home = tmp_path_factory.mktemp("models")
    return {
        "tiny": make(home / "tiny"),
        "plain": make(home / "plain", template=False),
        "short": make(home / "short", length=64),
    }


@pytest.fixture(scope="session")
def tokenizer(folders: dict[str, Path]) -> Any:
    from transformers import AutoTokenizer  # noqa: PLC0415  as above

    return AutoTokenizer.from_pretrained(folders["tiny"])


@pytest.fixture(scope="session")
def admin(redis_url: str) -> Admin:
    return Admin(redis_url)


@pytest.fixture(scope="session")
def weir(redis_url: str, folders: dict[str, Path]) -> Iterator[Weir]:
    models = [local(name, folder) for name, folder in folders.items()]
    with Weir(configuration(redis_url, models)) as weir:
        yield weir


@pytest.fixture(scope="session")
def key(admin: Admin) -> Key:
    return admin.key()


def local(name: str, folder: Path | str, **options: Any) -> dict[str, Any]:
    """A model of the configuration that is in Weir's own process."""
    return {
        "name": name,
        "backend": "transformers",
        "upstream_model": str(folder),
        "transformers": {"device": "cpu", "threads": 1} | options,
    }
