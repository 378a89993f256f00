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
from typing import Any, NamedTuple

from weir.admission.known import Known
from weir.admission.limiter import Grant
from weir.admission.refusals import refusal
from weir.admission.windows import shadow_names, windows_of
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


class _Settlement(NamedTuple):
    """What Redis is to hear: `tokens` -1 gives all back. `since` is when it should have."""

    grant: Grant
    tokens: int
    since: float


class RedisLimiter:
    """See `Limiter`. `known` is told what Redis says of keys, for whoever decides when it says nothing.

    `dropped` are settlements that Redis will never hear, so that all they had reserved stays charged; `replayed` are
    those that it heard late.
    """

    def __init__(self, commands: Commands, *, lease_seconds: float = 60.0, known: Known | None = None) -> None:
        self.dropped = self.replayed = 0
        self._commands = commands
        self._known = known if known is not None else Known(asyncio.get_running_loop().time)
        self._lease_ms = int(lease_seconds * 1000)
        self._admit, self._settle, self._renew = Script("admit.lua"), Script("settle.lua"), Script("renew.lua")
        self._ids = itertools.count()
        self._prefix = secrets.token_hex(6)
        self._keys: dict[tuple[str, str], tuple[str, ...]] = {}
        self._live: dict[str, tuple[Grant, float]] = {}
        self._unsettled: deque[_Settlement] = deque()
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
            self._known.note(principal, ask, numbers)
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
            self._known.note(principal, ask, numbers)  # it is as good as one that was admitted
            scope, unit = SCOPES[(which - 1) // 3], UNITS[(which - 1) % 3]
            raise refusal(scope, unit, wait, needed, windows_of(numbers))
        if code == MODEL:
            scope = SCOPES[reply[1]]
            self._known.forbid(principal, ask, scope)
            raise ModelNotFound(param="model", reason=f"not allowed to this {scope}")
        raise self._unauthenticated(principal, code)

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
            raise self._unauthenticated(principal, reply[0])
        return windows_of(reply[6:])

    # -- behind it

    async def tend(self) -> None:
        """For ever: renew the leases of long requests, deliver again what Redis has not heard."""
        pause = min(RETRY_SECONDS, self._lease_ms / 3000)
        while True:
            await asyncio.sleep(pause)
            await self._deliver_again(RETRY_SECONDS)
            due = self._loop.time() - self._lease_ms / 3000
            for reservation, (grant, renewed) in list(self._live.items()):
                if renewed < due:
                    self._live[reservation] = (grant, self._loop.time())
                    self._renew_lease(grant)

    async def flush(self, seconds: float) -> int:
        """Wait until Redis has heard every settlement, at most `seconds`; returns how many it has not."""
        end = self._loop.time() + seconds
        while (self._unsettled or self._under_way) and self._loop.time() < end:
            await self._deliver_again(max(end - self._loop.time(), 0))
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

    def _unauthenticated(self, principal: Principal, code: int) -> Unauthenticated:
        self._known.forget(principal, revoked=code == REVOKED)
        return Unauthenticated(reason=KEY_REASONS[code])

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

    async def _deliver_again(self, seconds: float) -> None:
        """Some at a time: what waits for Redis must not keep everybody else from being served.

        Of each team one goes before the others, for at most `seconds`: while Redis is away trying costs 15 us each, for
        nothing; and of a cluster a part may be away, which is some teams.
        """
        batch = [self._unsettled.popleft() for _ in range(min(len(self._unsettled), DELIVERED_AT_ONCE))]
        firsts: dict[str, _Settlement] = {}
        others = [one for one in batch if firsts.setdefault(one.grant.principal.team, one) is not one]
        self._unsettled.extendleft(reversed(others))  # not lost if this is cancelled
        replies = {team: self._deliver(*first, again=True) for team, first in firsts.items()}
        if under_way := [reply for reply in replies.values() if reply is not None]:
            await asyncio.wait(under_way, timeout=seconds)
        away = {team for team, reply in replies.items() if reply is not None and _unheard(reply)}
        for _ in range(min(len(others), len(self._unsettled))):
            one = self._unsettled.popleft()
            if one.grant.principal.team in away:
                self._unsettled.append(one)
            else:
                self._deliver(*one, again=True)

    def _deliver(self, grant: Grant, tokens: int, since: float, *, again: bool = False) -> asyncio.Future[Any] | None:
        if self._loop.time() - since > KEEP_MS / 1000:
            self.dropped += 1  # Redis has forgotten the reservation by now, and charged it in full
            return None
        words: tuple[Word, ...] = (
            *self._names(grant.principal),
            layout.reservation(grant.principal.team, grant.id),
            grant.id,
            tokens,
        )
        reply = self._commands.call("EVALSHA", self._settle.sha, 7, *words)
        self._watch(reply, _Settlement(grant, tokens, since), words, again=again)
        return reply

    def _watch(
        self, reply: asyncio.Future[Any], settlement: _Settlement, words: Sequence[Word], *, again: bool
    ) -> None:
        self._under_way.add(reply)

        def heard(done: asyncio.Future[Any]) -> None:
            self._under_way.discard(done)
            error = asyncio.CancelledError() if done.cancelled() else done.exception()
            if error is None:
                self.replayed += again
            elif isinstance(error, CommandRefused) and error.kind == "NOSCRIPT":
                filled = self._commands.call("EVAL", self._settle.source, 7, *words)
                self._watch(filled, settlement, words, again=again)
            else:
                self._keep(settlement)

        reply.add_done_callback(heard)

    def _keep(self, settlement: _Settlement) -> None:
        if len(self._unsettled) >= UNSETTLED_MAX:
            self._unsettled.popleft()
            self.dropped += 1
        self._unsettled.append(settlement)

    def _give_back_unheard(self, reservation: str, principal: Principal) -> None:
        grant = Grant(reservation, principal, 0, 0, bounded=False, held=True, windows=())
        self._keep(_Settlement(grant, -1, self._loop.time()))

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


def _unheard(reply: asyncio.Future[Any]) -> bool:
    """No word came back, not even an error."""
    return not reply.done() or reply.cancelled() or isinstance(reply.exception(), StoreUnavailable)
