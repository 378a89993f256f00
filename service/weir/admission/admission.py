"""Holds what a request may cost while it runs, and settles at its end what it did cost."""

from collections.abc import Callable, Sequence
from types import TracebackType

from weir.admission.limiter import Grant, Limiter
from weir.core.types import Ask, Principal, Window

Charge = Callable[[BaseException | None], int | None]


class Reservation:
    """What one request holds. Leaving the block asks `charge`, once, what this ending costs in tokens (None: nothing,
    not even the request), and settles. Where nobody can say, because of a bug, all of it is charged.
    """

    __slots__ = ("_ask", "_charge", "_limiter", "_principal", "grant")

    def __init__(self, limiter: Limiter, principal: Principal, ask: Ask, charge: Charge) -> None:
        self._limiter = limiter
        self._principal = principal
        self._ask = ask
        self._charge = charge
        self.grant: Grant

    async def __aenter__(self) -> Grant:
        self.grant = await self._limiter.take(self._principal, self._ask)
        return self.grant

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tokens: int | None = self.grant.tokens
        try:
            tokens = self._charge(error)
        finally:
            # Sent, not awaited: a cancelled request settles like any other.
            self._limiter.settle(self.grant, tokens)


class Admission:
    """The room's door."""

    __slots__ = ("_limiter",)

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def reserve(self, principal: Principal, ask: Ask, charge: Charge) -> Reservation:
        """Enter the result: raises what `Limiter.take` raises. Leaving it settles, exactly once, however it ended."""
        return Reservation(self._limiter, principal, ask, charge)

    async def standing(self, principal: Principal) -> Sequence[Window]:
        """All limits as they are now; raises what `Limiter.standing` raises."""
        return await self._limiter.standing(principal)
