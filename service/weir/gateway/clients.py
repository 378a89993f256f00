"""Who calls, by address: the connection's other end, or what a proxy that we were told to trust says of it."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network

from weir.core.asgi import Scope


class Clients:
    """`trusted` are addresses and networks of proxies, as in 10.0.0.0/8. Of anybody else no word is taken."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        networks = tuple(ip_network(network) for network in trusted)
        self._none_trusted = not networks

        @lru_cache(maxsize=10_000)
        def is_trusted(address: str) -> bool:
            try:
                found = ip_address(address)
            except ValueError:
                return False
            return any(found in network for network in networks)

        self._is_trusted = is_trusted

    def address(self, scope: Scope) -> str:
        """The nearest address that is no trusted proxy; "" where the server does not know (a Unix socket).

        X-Forwarded-For is read from its end: each proxy adds whom it saw, and all before that is hearsay.
        """
        peer = plain(scope["client"][0]) if scope.get("client") else ""
        if self._none_trusted or not self._is_trusted(peer):
            return peer
        hops = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
        for hop in reversed(hops.split(",")):
            address = _address(hop.strip())
            if not address:
                break
            peer = address
            if not self._is_trusted(address):
                break
        return peer


def _address(word: str) -> str:
    """Of a hop, which some proxies write with a port; "" where it is none, for then anybody may have written it."""
    if "%" in word:
        return ""  # an IPv6 zone may be any text of any length, and names a network card of somebody else's
    for one in (word, word.rpartition(":")[0].strip("[]")):
        try:
            ip_address(one)
        except ValueError:
            continue
        return plain(one)
    return ""


def plain(address: str) -> str:
    """An IPv4 address as such, also where it came to an IPv6 socket."""
    return address.removeprefix("::ffff:") if "." in address else address
