"""The port to whatever holds the limits."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from weir.core.types import Ask, Principal, Window


@dataclass(slots=True)
class Grant:
    """A taken reservation: `tokens` are held under `id`. `output_tokens` is what one choice may produce.

    `bounded` says that a token limit stands behind it, so that an open request has to be capped upstream. `held` is
    False where nothing limits the caller, and so nothing needs to be given back. `shadow_refusals` are limits, as
    "key requests", that would have refused. `degraded` says that it was decided without the shared limits.
    """

    id: str
    principal: Principal
    tokens: int
    output_tokens: int
    bounded: bool
    held: bool
    windows: Sequence[Window]
    shadow_refusals: tuple[str, ...] = ()
    degraded: bool = False


class Limiter(Protocol):
    """Checks every limit of key and team at once; charges all or none."""

    def take(self, principal: Principal, ask: Ask) -> Awaitable[Grant]:
        """Reserve for one request.

        Raises:
            Unauthenticated: the key is unknown, revoked or expired, now.
            ModelNotFound: neither name of the model is allowed to key and team.
            LimitExceeded: one of its four kinds; nothing was charged.
            StoreUnavailable: nobody can say.

        """
        ...

    def settle(self, grant: Grant, tokens: int | None) -> None:
        """Charge what was used and give back the rest, in the background and exactly once; also frees the place.

        `tokens` None gives everything back, the request itself too. Calling it again changes nothing.
        """
        ...

    def standing(self, principal: Principal) -> Awaitable[Sequence[Window]]:
        """All limits as they are now; takes nothing.

        Raises:
            Unauthenticated: as `take`.
            StoreUnavailable: as `take`.

        """
        ...
