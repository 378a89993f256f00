"""The port to Redis as the request path sees it: a command goes out now, its reply comes later."""

import asyncio
from typing import Any, Protocol

Word = bytes | str | int


class Commands(Protocol):
    """What is called in one turn of the event loop travels together."""

    def call(self, *words: Word) -> asyncio.Future[Any]:
        """Send one command; replies are bytes, integers, lists of them, or None.

        The future raises `StoreUnavailable` if no reply comes in time or no server is there, and `CommandRefused` if
        the server answered with an error. A word that cannot be sent raises TypeError or ValueError at once.
        """
        ...


class CommandRefused(Exception):
    """The server's own error reply; its first word is its kind (NOSCRIPT, READONLY, WRONGTYPE ...)."""

    @property
    def kind(self) -> str:
        return str(self).partition(" ")[0]
