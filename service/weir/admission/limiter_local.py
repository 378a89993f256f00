"""The limiter in one process' memory: the reference for the shared one, decision by decision.

Knows limits, not keys: whether a key is good is for whoever gives the limits to say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

from weir.admission.limiter import Grant
from weir.admission.refusals import NEVER, UNKNOWN, refusal
from weir.admission.token_bucket import PARTS, Bucket, Rate, left, refill, take, until_full, wait
from weir.core.errors import LimitExceeded, ModelNotFound, Unauthenticated
from weir.core.types import SCOPES, UNITS, Ask, Limits, Principal, Scope, Unit, Window

LimitsOf = Callable[[Principal], tuple[Limits, Limits]]  # of the key and of its team; raises Unauthenticated


@dataclass(slots=True)
class _Use:
    """What one key or team has used."""

    requests: Bucket | None = None
    tokens: Bucket | None = None
    live: dict[str, int] = field(default_factory=dict)  # reservation -> end of its lease, in microseconds


class _Held(NamedTuple):
    """What one reservation holds of one scope."""

    requests: bool
    tokens: bool


class LocalLimiter:
    """See `Limiter`. `clock` gives microseconds."""

    def __init__(self, limits_of: LimitsOf, clock: Callable[[], int], *, lease_seconds: float = 60.0) -> None:
        self._limits_of = limits_of
        self._clock = clock
        self._lease = int(lease_seconds * 1_000_000)
        self._uses: dict[tuple[str, ...], _Use] = {}
        self._held: dict[str, tuple[int, tuple[_Held, _Held]]] = {}
        self._count = 0

    async def take(self, principal: Principal, ask: Ask) -> Grant:
        limits, uses, now = self._limits_of(principal), self._uses_of(principal), self._clock()
        for one in limits:
            if one.models and not any(fnmatchcase(n, glob) for glob in one.models for n in (ask.model, ask.asked_as)):
                raise ModelNotFound(param="model", reason="not allowed to this key")
        uses = (self._as_of(limits[0], uses[0], now), self._as_of(limits[1], uses[1], now))
        output = self._output(ask, limits)
        tokens = ask.prompt_tokens + output * ask.choices
        refusals = self._refusals(limits, uses, tokens)
        binding = [r for r in refusals if r[1] not in limits[SCOPES.index(r[0])].shadow]
        if binding:
            raise self._refused(binding, tokens, self._windows(limits, uses))
        self._count += 1
        grant_id = f"local-{self._count}"
        shadow = {(scope, unit) for scope, unit, _ in refusals}
        held = tuple(
            self._charge(scope, one, use, tokens, shadow, grant_id, now + self._lease)
            for scope, one, use in zip(SCOPES, limits, uses, strict=True)
        )
        self._held[grant_id] = (tokens, (held[0], held[1]))
        self._keep(principal, uses)
        return Grant(
            id=grant_id,
            principal=principal,
            tokens=tokens,
            output_tokens=output,
            bounded=any(one.tpm and "tokens" not in one.shadow for one in limits),
            held=any(one.rpm or one.tpm or one.concurrency for one in limits)
            and any(
                parts.requests or parts.tokens or grant_id in use.live for parts, use in zip(held, uses, strict=True)
            ),
            windows=self._windows(limits, uses),
            shadow_refusals=tuple(f"{s} {u}" for s in SCOPES for u in UNITS if (s, u) in shadow),
        )

    def settle(self, grant: Grant, tokens: int | None) -> None:
        reserved, held = self._held.pop(grant.id, (0, None))
        if held is None:
            return
        uses = self._uses_of(grant.principal)
        for use in uses:
            use.live.pop(grant.id, None)
        back = (reserved - (tokens or 0)) * PARTS
        if back < 0:
            # Brought up to now first, or what a bucket could not hold would pay for it.
            try:
                limits, now = self._limits_of(grant.principal), self._clock()
            except Unauthenticated:
                return  # gone meanwhile, and nobody is left to owe anything
            uses = (self._as_of(limits[0], uses[0], now), self._as_of(limits[1], uses[1], now))
            self._keep(grant.principal, uses)
        for use, parts in zip(uses, held, strict=True):
            if parts.tokens and use.tokens:
                use.tokens = Bucket(use.tokens.level + back, use.tokens.at)
            if parts.requests and use.requests and tokens is None:
                use.requests = Bucket(use.requests.level + PARTS, use.requests.at)

    async def standing(self, principal: Principal) -> Sequence[Window]:
        limits, uses, now = self._limits_of(principal), self._uses_of(principal), self._clock()
        uses = (self._as_of(limits[0], uses[0], now), self._as_of(limits[1], uses[1], now))
        return self._windows(limits, uses)

    def clear(self) -> None:
        """Everybody's buckets are full again, and what is held now changes nothing when it settles."""
        self._uses.clear()
        self._held.clear()

    # -- details, in the order of the script

    def _uses_of(self, principal: Principal) -> tuple[_Use, _Use]:
        return (
            self._uses.setdefault(("key", principal.team, principal.key_id), _Use()),
            self._uses.setdefault(("team", principal.team), _Use()),
        )

    def _keep(self, principal: Principal, uses: tuple[_Use, _Use]) -> None:
        self._uses["key", principal.team, principal.key_id], self._uses["team", principal.team] = uses

    def _as_of(self, limits: Limits, use: _Use, now: int) -> _Use:
        """What was used, as it stands now; kept only where something is charged, so that a look changes nothing.

        A limit that is gone takes its level with it.
        """
        rpm, tpm, burst = limits.rpm, limits.tpm, limits.burst_seconds
        use.requests = use.requests if rpm else None
        use.tokens = use.tokens if tpm else None
        return _Use(
            refill(use.requests, Rate(rpm, burst), now) if rpm else None,
            refill(use.tokens, Rate(tpm, burst), now) if tpm else None,
            {reservation: end for reservation, end in use.live.items() if end > now},
        )

    def _output(self, ask: Ask, limits: tuple[Limits, Limits]) -> int:
        """Tokens per choice: what was asked for, or the default, cut to what the smallest bucket can ever hold."""
        if ask.output_tokens is not None:
            return ask.output_tokens
        output = ask.default_output_tokens
        capacities = [
            Rate(one.tpm, one.burst_seconds).capacity // PARTS
            for one in limits
            if one.tpm and "tokens" not in one.shadow
        ]
        if capacities and ask.prompt_tokens + output * ask.choices > min(capacities):
            output = max((min(capacities) - ask.prompt_tokens) // ask.choices, 1)
        return output

    def _refusals(
        self, limits: tuple[Limits, Limits], uses: tuple[_Use, _Use], tokens: int
    ) -> list[tuple[Scope, Unit, int]]:
        """Every limit that says no, and for how many microseconds."""
        found: list[tuple[Scope, Unit, int]] = []
        for scope, one, use in zip(SCOPES, limits, uses, strict=True):
            if one.rpm and use.requests and (us := wait(use.requests, Rate(one.rpm, one.burst_seconds), 1)):
                found.append((scope, "requests", us))
            if one.tpm and use.tokens:
                us_or_never = wait(use.tokens, Rate(one.tpm, one.burst_seconds), tokens)
                if us_or_never != 0:
                    found.append((scope, "tokens", NEVER if us_or_never is None else us_or_never))
            if one.concurrency and len(use.live) >= one.concurrency:
                found.append((scope, "concurrency", UNKNOWN))
        return found

    def _refused(
        self, refusals: list[tuple[Scope, Unit, int]], tokens: int, windows: Sequence[Window]
    ) -> LimitExceeded:
        scope, unit, us = max(refusals, key=lambda r: float("inf") if r[2] == NEVER else r[2])
        return refusal(scope, unit, us, tokens, windows)

    def _charge(
        self,
        scope: Scope,
        limits: Limits,
        use: _Use,
        tokens: int,
        spared: set[tuple[Scope, Unit]],
        grant_id: str,
        lease_end: int,
    ) -> _Held:
        by_request = bool(limits.rpm) and (scope, "requests") not in spared
        by_token = bool(limits.tpm) and (scope, "tokens") not in spared
        if by_request and use.requests:
            use.requests = take(use.requests, 1)
        if by_token and use.tokens:
            use.tokens = take(use.tokens, tokens)
        if limits.concurrency and (scope, "concurrency") not in spared:
            use.live[grant_id] = lease_end
        return _Held(by_request, by_token)

    def _windows(self, limits: tuple[Limits, Limits], uses: tuple[_Use, _Use]) -> tuple[Window, ...]:
        found: list[Window] = []
        for scope, one, use in zip(SCOPES, limits, uses, strict=True):
            for unit, per_minute, bucket in (("requests", one.rpm, use.requests), ("tokens", one.tpm, use.tokens)):
                if per_minute and bucket:
                    rate = Rate(per_minute, one.burst_seconds)
                    found.append(
                        Window(
                            scope,
                            "requests" if unit == "requests" else "tokens",
                            rate.capacity // PARTS,
                            left(bucket),
                            one.burst_seconds,
                            until_full(bucket, rate),
                            unit in one.shadow,
                        )
                    )
            if one.concurrency:
                free = one.concurrency - len(use.live)
                found.append(Window(scope, "concurrency", one.concurrency, free, 0, 0.0, "concurrency" in one.shadow))
        return tuple(found)
