"""The command line: `weir serve`, `check`, `teams`, `keys`. Knows everything; nobody imports it."""

import signal
import sys

from weir.cli.main import main as commands

__all__ = ["main"]


def main() -> None:
    """The console script."""
    # A container's first process gets no signal that it does not handle: told to stop while it starts, it would go on
    # until it is killed. Whoever drains puts a handler of their own in this one's place.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    commands()
