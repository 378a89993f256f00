"""The limiter that every replica shares: one script call decides, one settles (see admit.lua and settle.lua).

Touches Redis through `Commands` only. Settlements are sent without waiting, and again until Redis has heard them: they
are idempotent by reservation.
"""

import asyncio
import hashlib
import itertools
import secrets
from collections import deque
from collections.abc import Sequence
from importlib import resources
from typing import Any

from weir.admission.limiter import Grant
from weir.admission.refusals import refusal
from weir.admission.token_bucket import PARTS
from weir.core import layout
from weir.core.commands import CommandRefused, Commands, Word
from weir.core.errors import ModelNotFound, StoreUnavailable, Unauthenticated
from weir.core.types import SCOPES, UNITS, Ask, Principal, Window

KEEP_MS = 3_600_000  # a reservation outlives its lease by an hour, so that a late settlement still corrects it
UNSETTLED_MAX = 100_000
RETRY_SECONDS = 0.5
DELIVERED_AT_ONCE = 2_000

ADMITTED, UNKNOWN, REVOKED, EXPIRED, MODEL, REFUSED = range(6)
KEY_REASONS = {UNKNOWN: "unknown", REVOKED: "revoked", EXPIRED: "expired"}


class Script:
    """A Lua file and its SHA1, which is the name that Redis knows it by."""

    __slots__ = ("sha", "source")

    def __init__(self, name: str) -> None:
        self.source = resources.files("weir.admission").joinpath(name).read_text()
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class RedisLimiter:
    """See `Limiter`."""

    def __init__(self, commands: Commands, *, lease_seconds: float = 60.0) -> None:
        self._commands = commands
        self._lease_ms = int(lease_seconds * 1000)
        self._admit, self._settle, self._renew = Script("admit.lua"), Script("settle.lua"), Script("renew.lua")
        self._ids = itertools.count()
        self._prefix = secrets.token_hex(6)
        self._keys: dict[tuple[str, str], tuple[str, ...]] = {}
        self._live: dict[str, tuple[Grant, float]] = {}
        self._unsettled: deque[tuple[Grant, int, float]] = deque(maxlen=UNSETTLED_MAX)
        self._under_way: set[asyncio.Future[Any]] = set()
        self._loop = asyncio.get_running_loop()

    # -- the request path

    async def take(self, principal: Principal, ask: Ask) -> Grant:
        reservation = f"{self._prefix}-{next(self._ids):x}"
        words: tuple[Word, ...] = (
            *self._names(principal),
            layout.reservation(principal.team, reservation),
            principal.digest,
            ask.model,
            ask.asked_as,
            ask.prompt_tokens,
            -1 if ask.output_tokens is None else ask.output_tokens,
            ask.choices,
            ask.default_output_tokens,
            self._lease_ms,
            KEEP_MS,
            reservation,
        )
        try:
            reply = await self._run(self._admit, 7, words)
        except (StoreUnavailable, asyncio.CancelledError) as error:
            # It may have been charged before the reply was lost: nobody will use it, so give it back when we can.
            if not isinstance(error, StoreUnavailable) or error.sent:
                self._give_back_unheard(reservation, principal)
            raise
        code = reply[0]
        if code == ADMITTED:
            _, tokens, output, bounded, held, shadow, *numbers = reply
            grant = Grant(
                reservation,
                principal,
                tokens,
                output,
                bounded == 1,
                held == 1,
                windows_of(numbers),
                shadow_names(shadow) if shadow else (),
            )
            if grant.held:
                self._live[reservation] = (grant, self._loop.time())
            return grant
        if code == REFUSED:
            _, which, wait, needed, *numbers = reply
            scope, unit = SCOPES[(which - 1) // 3], UNITS[(which - 1) % 3]
            raise refusal(scope, unit, wait, needed, windows_of(numbers))
        if code == MODEL:
            raise ModelNotFound(param="model", reason="not allowed to this key")
        raise Unauthenticated(reason=KEY_REASONS[code])

    def settle(self, grant: Grant, tokens: int | None) -> None:
        if self._live.pop(grant.id, None) is not None:
            self._deliver(grant, -1 if tokens is None else tokens, self._loop.time())

    async def standing(self, principal: Principal) -> Sequence[Window]:
        words: tuple[Word, ...] = (
            *self._names(principal),
            layout.reservation(principal.team, ""),
            principal.digest,
            *("", "", 0, 0, 1, 0, 0, 0, ""),
        )
        reply = await self._run(self._admit, 7, words)
        if reply[0] != ADMITTED:
            raise Unauthenticated(reason=KEY_REASONS[reply[0]])
        return windows_of(reply[6:])

    # -- behind it

    async def tend(self) -> None:
        """For ever: renew the leases of long requests, deliver again what Redis has not heard."""
        pause = min(RETRY_SECONDS, self._lease_ms / 3000)
        while True:
            await asyncio.sleep(pause)
            # Some at a time: what waits for Redis must not keep everybody else from being served.
            for _ in range(min(len(self._unsettled), DELIVERED_AT_ONCE)):
                self._deliver(*self._unsettled.popleft())
            due = self._loop.time() - self._lease_ms / 3000
            for reservation, (grant, renewed) in list(self._live.items()):
                if renewed < due:
                    self._live[reservation] = (grant, self._loop.time())
                    self._renew_lease(grant)

    async def flush(self, seconds: float) -> int:
        """Wait until Redis has heard every settlement, at most `seconds`; returns how many it has not."""
        end = self._loop.time() + seconds
        while (self._unsettled or self._under_way) and self._loop.time() < end:
            for _ in range(len(self._unsettled)):
                self._deliver(*self._unsettled.popleft())
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=max(end - self._loop.time(), 0))
            if self._unsettled:
                await asyncio.sleep(0.05)
        return len(self._unsettled) + len(self._under_way)

    @property
    def held(self) -> int:
        """Reservations that this process holds now."""
        return len(self._live)

    @property
    def unsettled(self) -> int:
        """Settlements that wait for Redis to come back."""
        return len(self._unsettled)

    # -- details

    def _names(self, principal: Principal) -> tuple[str, ...]:
        """The six names that all of a caller's decisions share; kept, bounded, because building them costs 1.5 us."""
        cached = self._keys.get((principal.team, principal.key_id))
        if cached is None:
            if len(self._keys) >= 10_000:
                self._keys.clear()
            key, team = layout.key(principal.team, principal.key_id), layout.team(principal.team)
            cached = (key, team, layout.use(key), layout.use(team), layout.live(key), layout.live(team))
            self._keys[principal.team, principal.key_id] = cached
        return cached

    async def _run(self, script: Script, keys: int, words: Sequence[Word]) -> Any:
        try:
            return await self._commands.call("EVALSHA", script.sha, keys, *words)
        except CommandRefused as error:
            if error.kind != "NOSCRIPT":
                raise StoreUnavailable(reason=str(error), retry_after=1.0) from error
        # A restart and a failover empty the script cache; EVAL fills it again.
        try:
            return await self._commands.call("EVAL", script.source, keys, *words)
        except CommandRefused as error:
            raise StoreUnavailable(reason=str(error), retry_after=1.0) from error

    def _deliver(self, grant: Grant, tokens: int, since: float) -> None:
        if self._loop.time() - since > KEEP_MS / 1000:
            return  # Redis has forgotten the reservation by now, and charged it in full
        words: tuple[Word, ...] = (
            *self._names(grant.principal),
            layout.reservation(grant.principal.team, grant.id),
            grant.id,
            tokens,
        )
        reply = self._commands.call("EVALSHA", self._settle.sha, 7, *words)
        self._watch(reply, grant, tokens, since, words)

    def _watch(
        self, reply: asyncio.Future[Any], grant: Grant, tokens: int, since: float, words: Sequence[Word]
    ) -> None:
        self._under_way.add(reply)

        def heard(done: asyncio.Future[Any]) -> None:
            self._under_way.discard(done)
            error = asyncio.CancelledError() if done.cancelled() else done.exception()
            if error is None:
                return
            if isinstance(error, CommandRefused) and error.kind == "NOSCRIPT":
                again = self._commands.call("EVAL", self._settle.source, 7, *words)
                self._watch(again, grant, tokens, since, words)
            else:
                self._unsettled.append((grant, tokens, since))

        reply.add_done_callback(heard)

    def _give_back_unheard(self, reservation: str, principal: Principal) -> None:
        grant = Grant(reservation, principal, 0, 0, bounded=False, held=True, windows=())
        self._unsettled.append((grant, -1, self._loop.time()))

    def _renew_lease(self, grant: Grant) -> None:
        names = self._names(grant.principal)
        reply = self._commands.call(
            "EVAL",
            self._renew.source,
            3,
            *(names[4], names[5], layout.reservation(grant.principal.team, grant.id)),
            *(grant.id, self._lease_ms, KEEP_MS),
        )
        # A lost renewal is made up for by the next: there are three in a lease.
        reply.add_done_callback(lambda done: done.cancelled() or done.exception())


def windows_of(numbers: Sequence[int]) -> tuple[Window, ...]:
    """The script's sixteen numbers as windows; limits that are not there are left out."""
    found: list[Window] = []
    for scope, first in (("key", 0), ("team", 8)):
        rpm, burst, requests, tpm, tokens, places, taken, shadow = numbers[first : first + 8]
        if rpm > 0:
            found.append(_rate(scope, "requests", rpm * burst * 1_000_000, rpm, requests, burst, shadow & 1))
        if tpm > 0:
            found.append(_rate(scope, "tokens", tpm * burst * 1_000_000, tpm, tokens, burst, shadow & 2))
        if places > 0:
            found.append(_window(Window, (scope, "concurrency", places, places - taken, 0, 0.0, bool(shadow & 4))))
    return tuple(found)


_window = tuple.__new__  # a named tuple by its fields' names costs three times as much, six times a request


def _rate(scope: str, unit: str, full: int, speed: int, level: int, burst: int, shadow: int) -> Window:
    """`full` and `level` in parts, `speed` in units a minute, which is parts a microsecond."""
    full = max(full, PARTS)
    reset = (full - level) / speed / 1e6
    return _window(Window, (scope, unit, full // PARTS, level // PARTS, burst, reset if reset > 0 else 0.0, shadow > 0))


def shadow_names(bits: int) -> tuple[str, ...]:
    return tuple(
        f"{scope} {unit}" for i, (scope, unit) in enumerate((s, u) for s in SCOPES for u in UNITS) if bits >> i & 1
    )
