"""ASGI 3.0 in five names (asgiref's specification); the request path is written against these and nothing else."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

# An ASGI message and scope are open dictionaries by specification: Any is their honest type.
Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class App(Protocol):
    """Anything that answers one connection scope."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...
