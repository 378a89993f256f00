"""Whose requests are logged how, changed at run time: one key's, one team's, or everybody's. Pure: no clock, no store.

The narrowest that is set counts, a key's before its team's before everybody's; nothing set is `telemetry.log_level`.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from math import inf
from typing import Any, Literal, NamedTuple, get_args

from weir.core.exchange import Attempt, Exchange
from weir.core.types import Principal

Level = Literal["debug", "info", "warning", "error"]
Scope = Literal["all", "team", "key"]
LEVELS: tuple[Level, ...] = get_args(Level)
_END = re.compile(r"[0-9]{1,14}")  # milliseconds up to the year 5138: `datetime` ends with 9999
# What came of a request that nobody here or upstream has broken.
_UNBROKEN = frozenset({"ok", "client_disconnect", "client_stalled", "upstream_refused"})


class Whose(NamedTuple):
    """`name` is a team's name or a key's id; "" where it is everybody."""

    scope: Scope
    name: str = ""


EVERYBODY = Whose("all")


class Setting(NamedTuple):
    """A level that is set. `until` is in Unix seconds of Redis' clock, infinite for one without an end."""

    level: Level
    until: float = inf


class Change(NamedTuple):
    """What became of one of them: `now` is None where it is no more."""

    whose: Whose
    now: Setting | None


class Levels:
    """`plain` while there is nothing to decide: every request has its one line, and no details."""

    def __init__(self, base: Level = "info") -> None:
        self._base = base
        self._known: dict[Whose, Setting] = {}
        self._teams: dict[str, Level] = {}
        self._keys: dict[str, Level] = {}
        self._everybody = base
        self.plain = base == "info"

    def of(self, principal: Principal | None) -> Level:
        """Of a caller, or of one who is not known."""
        if principal is None:
            return self._everybody
        return self._keys.get(principal.key_id) or self._teams.get(principal.team, self._everybody)

    def take(self, found: Mapping[Whose, Setting], now: float) -> list[Change]:
        """Those of `found` that have not ended count from now on, and no others. Returns what that changed."""
        live = {whose: one for whose, one in found.items() if one.until > now}
        changes = [Change(whose, None) for whose in self._known if whose not in live]
        changes += [Change(whose, one) for whose, one in live.items() if self._known.get(whose) != one]
        self._known = live
        self._teams = {whose.name: one.level for whose, one in live.items() if whose.scope == "team"}
        self._keys = {whose.name: one.level for whose, one in live.items() if whose.scope == "key"}
        self._everybody = live[EVERYBODY].level if EVERYBODY in live else self._base
        self.plain = not live and self._base == "info"
        return changes

    def end(self, now: float) -> list[Change]:
        """Without news: what has come to its end meanwhile."""
        return self.take(self._known, now)


def shows(level: Level, exchange: Exchange) -> bool:
    """Whether a finished request has its line: from `warning` on if it did not end well, at `error` if it is broken."""
    if level == "warning":
        return exchange.outcome != "ok"
    if level == "error":
        return exchange.status >= 500 or (exchange.status in (0, 200) and exchange.outcome not in _UNBROKEN)
    return True


def details(exchange: Exchange) -> dict[str, Any]:
    """What helps to understand one caller's request: how its limits stood, what it asked of them, when it came where.

    Times are milliseconds since it began, None where it never came to that. Numbers and configured names only.
    """
    began = exchange.started
    principal = exchange.principal
    return {
        "event": "request_detail",
        "request_id": exchange.request_id,
        "trace_id": (exchange.trace.trace_id or None) if exchange.trace else None,
        "team": principal.team if principal else None,
        "key_id": principal.key_id if principal else None,
        "model": exchange.model or None,
        "asked_ms": _since(began, exchange.asked),
        "admitted_ms": _since(began, exchange.admitted),
        "queued_ms": round(exchange.queued * 1000, 3),
        "sent_ms": _since(began, exchange.sent),
        "answered_ms": _since(began, exchange.answered),
        "first_byte_ms": _since(began, exchange.first_byte),
        "ended_ms": _since(began, exchange.ended),
        "estimated_input_tokens": exchange.estimated_input,
        "reserved_tokens": exchange.reserved_tokens,
        "cached_tokens": exchange.cached_tokens,
        "reasoning_tokens": exchange.reasoning_tokens,
        "cost_usd": exchange.cost,
        "degraded": exchange.degraded,
        "limit": exchange.limit or None,
        "limits": [
            {
                "limit": f"{window.scope} {window.unit}",
                "of": window.limit,
                "remaining": window.remaining,
                "seconds": window.seconds,
                "shadow": window.shadow,
            }
            for window in exchange.windows
        ],
        "attempts": [_attempt(began, attempt) for attempt in exchange.attempts],
    }


def as_fields(change: Change) -> dict[str, Any]:
    """A change as its log line says it; `level` is the line's own severity."""
    whose, now = change
    fields: dict[str, Any] = {"of": whose.scope, "now": now.level if now else None}
    if whose.name:
        fields["team" if whose.scope == "team" else "key_id"] = whose.name
    if now is not None:
        fields["until"] = moment(now.until)
    return fields


def moment(until: float) -> str | None:
    """As people write it; None for never."""
    return None if until == inf else datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _attempt(began: float, attempt: Attempt) -> dict[str, Any]:
    return {
        "endpoint": attempt.endpoint,
        "model": attempt.model,
        "began_ms": _since(began, attempt.began),
        "ended_ms": _since(began, attempt.ended),
        "result": attempt.result or None,
        "status": attempt.status or None,
        "request_bytes": attempt.request_bytes,
    }


def _since(began: float, then: float) -> float | None:
    return round((then - began) * 1000, 3) if then else None


def whose_of(field: str) -> Whose | None:
    """A field of the store; None for one that a newer version wrote."""
    scope, _, name = field.partition(":")
    for known in get_args(Scope):
        if scope == known:
            return Whose(known, name)
    return None


def level_of(text: str) -> Level | None:
    return next((level for level in LEVELS if level == text), None)


def field_of(whose: Whose) -> str:
    return f"{whose.scope}:{whose.name}"


def found_in(fields: Iterable[tuple[str, str]]) -> dict[Whose, Setting]:
    """What the store holds: pairs of a field and "LEVEL END", the end in Unix milliseconds and 0 for never."""
    found: dict[Whose, Setting] = {}
    for field, value in fields:
        word, _, end = value.partition(" ")
        whose, level = whose_of(field), level_of(word)
        if whose is not None and level is not None and _END.fullmatch(end):
            found[whose] = Setting(level, int(end) / 1000 or inf)
    return found
