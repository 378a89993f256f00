"""What holds the limits while Redis is away: nobody, somebody generous, or this process with its share of each limit.

Stands around the shared limiter and is in nobody's way while that answers.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from weir.admission.known import Known
from weir.admission.limiter import Grant, Limiter
from weir.admission.limiter_local import LocalLimiter
from weir.admission.token_bucket import PARTS, Rate
from weir.core.errors import LimitExceeded, RequestTooLargeForLimit, StoreUnavailable, Unauthenticated
from weir.core.types import Ask, Limits, Principal, Window

OnOutage = Literal["degrade", "closed", "open"]

# A lease is for processes that die; here nobody outlives the limiter, so a place is held for as long as its request.
LEASE_SECONDS = 86_400.0
# Buckets that were used here are kept for a while after Redis is back. Where it only stumbles, so that now and then a
# command comes too late, or where one node of a cluster is away and others answer, each request that is decided here
# would else find a full bucket, and nobody's limit would hold any more.
KEPT_SECONDS = 60.0


class FailoverLimiter:
    """See `Limiter`. What `on_outage` says is done whenever the shared limiter raises StoreUnavailable:

    `closed`: it is raised on. `open`: keys that were good within the hour pass without limits. `degrade`: they pass
    within their limits divided by the number of replicas. A model passes if all are allowed to the key, or if it was
    admitted within the hour; all else hears StoreUnavailable. Grants that are given here say `degraded`.

    Buckets begin full with an outage, and places empty: what was running when Redis went is not counted here.
    """

    def __init__(
        self,
        shared: Limiter,
        known: Known,
        *,
        on_outage: OnOutage,
        replicas: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        """`known` is what the shared limiter tells; `replicas` how many live; `clock` gives seconds."""
        self._shared = shared
        self._known = known
        self._on_outage = on_outage
        self._replicas = replicas
        self._clock = clock
        self._local = LocalLimiter(self._share, lambda: int(clock() * 1e6), lease_seconds=LEASE_SECONDS)
        self._open_ids = itertools.count()
        self._used: float | None = None  # when the local limiter last decided; None: it is as on the first day
        self.standing_in = False
        """Whether the last that was admitted was admitted here."""

    async def take(self, principal: Principal, ask: Ask) -> Grant:
        # What is around the shared limiter costs 0.1 us a request, and what `known` is told 0.25 us.
        try:
            grant = await self._shared.take(principal, ask)
        except StoreUnavailable as outage:
            return await self._stand_in(principal, ask, outage)
        if self._used is not None:
            self._stand_back(self._used)
        return grant

    def settle(self, grant: Grant, tokens: int | None) -> None:
        (self._local if grant.degraded else self._shared).settle(grant, tokens)

    async def standing(self, principal: Principal) -> Sequence[Window]:
        try:
            return await self._shared.standing(principal)
        except StoreUnavailable as outage:
            if self._on_outage == "closed":
                raise
            if self._known.limits(principal) is None:
                raise _nobody_knows(outage, "whether this key is good") from outage
        return await self._local.standing(principal) if self._on_outage == "degrade" else ()

    # -- while Redis is away

    async def _stand_in(self, principal: Principal, ask: Ask, outage: StoreUnavailable) -> Grant:
        if self._on_outage == "closed":
            raise outage
        limits = self._known.limits(principal)
        if limits is None:
            raise _nobody_knows(outage, "whether this key is good") from outage
        if not self._known.allows(principal, ask):
            raise _nobody_knows(outage, "whether this key may use this model") from outage
        self._used, self.standing_in = self._clock(), True
        if self._on_outage == "open":
            return self._unlimited(principal, ask)
        try:
            grant = await self._local.take(principal, ask)
        except RequestTooLargeForLimit as refused:
            if all(_holds(one, refused.needed) for one in limits):
                # It fits the limit and only not a replica's share of it: another time it will pass.
                raise _nobody_knows(outage, "whether there is room for so large a request") from outage
            refused.degraded = True
            raise
        except LimitExceeded as refused:
            refused.degraded = True
            raise
        grant.degraded = True
        return grant

    def _stand_back(self, used: float) -> None:
        """Redis decides again."""
        self.standing_in = False
        if self._clock() - used > KEPT_SECONDS:
            self._used = None
            self._local.clear()

    def _unlimited(self, principal: Principal, ask: Ask) -> Grant:
        output = ask.default_output_tokens if ask.output_tokens is None else ask.output_tokens
        return Grant(
            id=f"open-{next(self._open_ids)}",
            principal=principal,
            tokens=ask.prompt_tokens + output * ask.choices,
            output_tokens=output,
            bounded=False,
            held=False,
            windows=(),
            degraded=True,
        )

    def _share(self, principal: Principal) -> tuple[Limits, Limits]:
        limits = self._known.limits(principal)
        if limits is None:
            raise Unauthenticated(reason="not good within the hour")
        replicas = self._replicas()
        return _divided(limits[0], replicas), _divided(limits[1], replicas)


def _divided(limits: Limits, replicas: int) -> Limits:
    """Rounded down, so that all shares together are no more than the limit; but who may do something may do one."""
    return replace(
        limits,
        rpm=limits.rpm and max(limits.rpm // replicas, 1),
        tpm=limits.tpm and max(limits.tpm // replicas, 1),
        concurrency=limits.concurrency and max(limits.concurrency // replicas, 1),
    )


def _holds(limits: Limits, tokens: int) -> bool:
    """Whether a full bucket would."""
    if limits.tpm is None or "tokens" in limits.shadow:
        return True
    return tokens * PARTS <= Rate(limits.tpm, limits.burst_seconds).capacity


def _nobody_knows(outage: StoreUnavailable, what: str) -> StoreUnavailable:
    return StoreUnavailable(reason=f"{outage.reason}; nobody knows {what}", retry_after=outage.retry_after or 1.0)
