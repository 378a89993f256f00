"""What is written down of a team and of a key, and how: pure translation to and from Redis' hashes, and validation."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from weir.core.types import BURST_SECONDS, MAX_PER_MINUTE_TIMES_BURST, UNITS, Limits, Unit

TEAM_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
KEY_NAME_MAX = 100
GLOB = re.compile(r"^[A-Za-z0-9._:/@+*?-]{1,200}$")
PER_SECOND_NAMES = {"requests": "rpm", "tokens": "tpm", "concurrency": "concurrency"}


class Invalid(ValueError):
    """A value that nobody can mean; the sentence says what would do."""


@dataclass(frozen=True, slots=True)
class Team:
    """`created` in Unix seconds."""

    name: str
    limits: Limits
    created: int
    version: int = 1


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. Times are Unix seconds, 0 for never. `hint` is what a person may see of the key."""

    id: str
    team: str
    name: str
    hint: str
    limits: Limits
    created: int
    expires: int = 0
    revoked: int = 0
    used: int = 0
    old_until: int = 0
    version: int = 1

    def state(self, now: float) -> str:
        if self.revoked:
            return "revoked"
        if self.expires and self.expires <= now:
            return "expired"
        return "rotating" if self.old_until > now else "active"


def check_team_name(name: str) -> str:
    if not TEAM_NAME.fullmatch(name):
        raise Invalid(
            f"'{name}' is no team name: small letters, digits, '.', '_' and '-', beginning with a letter or digit, "
            "at most 63."
        )
    return name


def check_limits(limits: Limits) -> Limits:  # noqa: C901 - one sentence after another
    """Raises Invalid with the sentence that helps."""
    for name in ("rpm", "tpm", "concurrency"):
        value = getattr(limits, name)
        if value is not None and value < 1:
            raise Invalid(f"{name} must be at least 1, or 'none' for no limit; to lock a key out, revoke it.")
    if not 1 <= limits.burst_seconds <= 86_400:
        raise Invalid("burst-seconds must be between 1 and 86400.")
    for name in ("rpm", "tpm"):
        value = getattr(limits, name)
        if value is not None and value * limits.burst_seconds > MAX_PER_MINUTE_TIMES_BURST:
            most = MAX_PER_MINUTE_TIMES_BURST // limits.burst_seconds
            raise Invalid(f"{name} can be at most {most} with a burst of {limits.burst_seconds} seconds.")
    if limits.concurrency is not None and limits.concurrency > 1_000_000:
        raise Invalid("concurrency can be at most 1000000.")
    for pattern in limits.models:
        if not GLOB.fullmatch(pattern):
            raise Invalid(f"'{pattern}' is no model pattern: a model's name, with '*' and '?' as wildcards.")
    for unit in limits.shadow:
        if unit not in UNITS:
            raise Invalid(f"'{unit}' is no limit: shadow takes rpm, tpm and concurrency.")
    return limits


def limits_to_hash(limits: Limits) -> dict[str, str]:
    """Absent limits are written as "", so that an update takes them away."""
    return {
        "rpm": str(limits.rpm or ""),
        "tpm": str(limits.tpm or ""),
        "concurrency": str(limits.concurrency or ""),
        "burst": str(limits.burst_seconds),
        "models": ",".join(limits.models),
        "allow": "\n".join(lua_pieces(glob) for glob in limits.models if glob != "*")
        if "*" not in limits.models
        else "",
        "shadow": ",".join(sorted(limits.shadow)),
    }


def limits_from_hash(fields: Mapping[str, str]) -> Limits:
    return Limits(
        rpm=_number(fields, "rpm") or None,
        tpm=_number(fields, "tpm") or None,
        concurrency=_number(fields, "concurrency") or None,
        burst_seconds=_number(fields, "burst") or BURST_SECONDS,
        models=tuple(filter(None, fields.get("models", "").split(","))),
        shadow=frozenset(unit for unit in UNITS if unit in fields.get("shadow", "").split(",")),
    )


def team_from_hash(name: str, fields: Mapping[str, str]) -> Team:
    return Team(name, limits_from_hash(fields), _number(fields, "created"), _number(fields, "version"))


def key_from_hash(team: str, key_id: str, fields: Mapping[str, str]) -> Key:
    return Key(
        id=key_id,
        team=team,
        name=fields.get("name", ""),
        hint=fields.get("hint", ""),
        limits=limits_from_hash(fields),
        created=_number(fields, "created"),
        expires=_number(fields, "expires"),
        revoked=_number(fields, "revoked"),
        used=_number(fields, "used"),
        old_until=_number(fields, "old_until"),
        version=_number(fields, "version"),
    )


def lua_pieces(glob: str) -> str:
    """A glob as admission reads it: Lua patterns to be found one after the other, with `*` between them.

    `gpt-*` is `^gpt%-*$`. None of the pieces can stretch, so finding them never has to go back over a name: its time
    grows with the name and not, as with `.*` in a pattern, with the name to the power of the stars.
    """
    return "^" + "".join(c if c == "*" or c.isalnum() else "." if c == "?" else "%" + c for c in glob) + "$"


def unit_of(name: str) -> Unit:
    """A limit by the name of its flag. Raises Invalid."""
    for unit, flag in PER_SECOND_NAMES.items():
        if name == flag:
            return unit  # type: ignore[return-value]  # the keys of the table are the units
    raise Invalid(f"'{name}' is no limit: shadow takes rpm, tpm and concurrency, or none.")


def _number(fields: Mapping[str, str], name: str) -> int:
    return int(fields.get(name) or 0)
