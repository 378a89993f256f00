"""The command line: `weir serve`, `check`, `teams`, `keys`. Knows everything; nobody imports it."""

from weir.cli.main import main

__all__ = ["main"]
