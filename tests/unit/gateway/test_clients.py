"""Whose word counts for a client's address."""

import pytest

from weir.gateway.clients import Clients


def address(peer: str | None, *forwarded: str, trusted: tuple[str, ...] = ()) -> str:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return Clients(trusted).address({"client": (peer, 1) if peer else None, "headers": headers})


PROXIES = ("10.0.0.0/8", "fd00::/8", "192.0.2.1")


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "client"),
    [
        pytest.param("198.51.100.7", (), (), "198.51.100.7", id="the-peer"),
        pytest.param("198.51.100.7", ("1.1.1.1",), (), "198.51.100.7", id="nobody-is-trusted"),
        pytest.param("198.51.100.7", ("1.1.1.1",), PROXIES, "198.51.100.7", id="a-stranger's-word"),
        pytest.param("10.1.2.3", ("198.51.100.7",), PROXIES, "198.51.100.7", id="a-proxy's-word"),
        pytest.param("10.1.2.3", ("6.6.6.6, 198.51.100.7",), PROXIES, "198.51.100.7", id="not-what-it-was-told"),
        pytest.param("10.1.2.3", ("6.6.6.6", "198.51.100.7, 10.9.9.9"), PROXIES, "198.51.100.7", id="through-two"),
        pytest.param("10.1.2.3", (), PROXIES, "10.1.2.3", id="a-proxy-that-says-nothing"),
        pytest.param("10.1.2.3", ("10.0.0.9",), PROXIES, "10.0.0.9", id="a-client-inside"),
        pytest.param("10.1.2.3", ("198.51.100.7, ",), PROXIES, "10.1.2.3", id="an-empty-word"),
        pytest.param("::ffff:10.1.2.3", ("198.51.100.7",), PROXIES, "198.51.100.7", id="ipv4-on-an-ipv6-socket"),
        pytest.param("fd00::1", ("2001:db8::7",), PROXIES, "2001:db8::7", id="ipv6"),
        pytest.param("192.0.2.1", ("unknown",), PROXIES, "192.0.2.1", id="a-word-that-is-no-address"),
        pytest.param(
            "192.0.2.1", ("6.6.6.6, sk-a-secret, 10.0.0.1",), PROXIES, "10.0.0.1", id="nothing-behind-it-counts"
        ),
        pytest.param("192.0.2.1", ("fe80::1%sk-a-secret, 10.0.0.1",), PROXIES, "10.0.0.1", id="a-zone-of-any-text"),
        pytest.param("192.0.2.1", ("[fe80::1%sk-a-secret]:4711",), PROXIES, "192.0.2.1", id="a-zone-and-a-port"),
        pytest.param("192.0.2.1", ("198.51.100.7:4711",), PROXIES, "198.51.100.7", id="with-a-port"),
        pytest.param("192.0.2.1", ("[2001:db8::7]:4711",), PROXIES, "2001:db8::7", id="ipv6-with-a-port"),
        pytest.param(None, ("198.51.100.7",), PROXIES, "", id="no-address-at-all"),
    ],
)
def test_address(peer: str | None, forwarded: tuple[str, ...], trusted: tuple[str, ...], client: str) -> None:
    assert address(peer, *forwarded, trusted=trusted) == client
