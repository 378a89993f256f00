"""Listening sockets, made before anything else, so that a port that is taken is told at once."""

import contextlib
import socket

BACKLOG = 2048


class CannotListen(Exception):
    """The sentence says where, and why not."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; `::` is both families, and IPv4 alone where the machine has no IPv6. Raises CannotListen."""
    both = host == "::"
    try:
        if both and not (socket.has_ipv6 and socket.has_dualstack_ipv6()):
            host, both = "0.0.0.0", False
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        if both:
            with contextlib.suppress(CannotListen):
                return listen("0.0.0.0", port)
        raise CannotListen(
            f"Cannot listen on {host} port {port}: {error.strerror}. Choose another one, see 'weir serve --help'."
        ) from error
    made.set_inheritable(True)
    return made
