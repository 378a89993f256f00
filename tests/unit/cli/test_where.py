"""What is said of a Redis that cannot be used: what is the matter, once, and what to do about that."""

import pytest

from weir.cli.where import DEFAULT_URL, unusable

SAID = [
    # url, why, whether somebody named it, what to do
    pytest.param("redis://a/0", "Connection refused.", True, "Is it running? --redis-url", id="away"),
    pytest.param("redis://a/0", "Authentication required.", True, "user and the password", id="no-password"),
    pytest.param("redis://a/0", "invalid username-password pair", True, "user and the password", id="wrong-password"),
    pytest.param("redis://a/0", "NOPERM this user has no permissions", True, "allowed enough", id="no-permission"),
    pytest.param("rediss://a/0", "Timeout connecting to server", True, "speak TLS, as rediss://", id="no-tls"),
    pytest.param("rediss+cluster://a", "Timeout", True, "speak TLS, as rediss+cluster://", id="no-tls-in-a-cluster"),
    pytest.param("rediss://a/0", "WRONGPASS", True, "user and the password", id="tls-and-wrong-password"),
    pytest.param(DEFAULT_URL, "Connection refused", False, "No `weir serve` runs here", id="nobody-named-it"),
]


@pytest.mark.parametrize(("url", "why", "named", "advice"), SAID)
def test_what_to_do(*, url: str, why: str, named: bool, advice: str) -> None:
    said = unusable(url, why, named=named)
    assert said.startswith(f"Redis at {url} cannot be used: {why.rstrip('.')}. ")
    assert advice in said
    assert ".." not in said
    assert ("Is it running?" in said) is (
        named and "user" not in advice and "enough" not in advice and "TLS" not in advice
    )
