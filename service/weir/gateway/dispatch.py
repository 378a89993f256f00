"""Sends a request to one of its model's endpoints."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from weir.backend import Backend, BackendResponse, Call
from weir.core.types import Endpoint, Route
from weir.routing import choose


class Dispatch:
    """Knows the backends by the name of their kind, and counts what is in flight where."""

    __slots__ = ("_backends",)

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = backends

    def send(self, route: Route, call: Call) -> "Dispatched":
        """Enter the result for the answer's beginning; raises what `Backend.send` raises."""
        endpoint = choose(route.endpoints)
        return Dispatched(endpoint, self._backends[route.backend].send(endpoint, call))


class Dispatched:
    """One request at one endpoint, counted there until its last byte."""

    __slots__ = ("_sending", "endpoint")

    def __init__(self, endpoint: Endpoint, sending: AbstractAsyncContextManager[BackendResponse]) -> None:
        self.endpoint = endpoint
        self._sending = sending

    async def __aenter__(self) -> BackendResponse:
        self.endpoint.in_flight += 1
        try:
            return await self._sending.__aenter__()
        except BaseException:
            self.endpoint.in_flight -= 1
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.endpoint.in_flight -= 1
        await self._sending.__aexit__(kind, error, trace)
