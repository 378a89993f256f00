"""Teams and keys for the people who hand them out: create, show, change, rotate, revoke. Not on the request path.

A secret exists here only on its way out: what stays is its digest.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from weir.auth.keys import FOREIGN_MAX, FOREIGN_MIN, digest, mistyped, new_key, new_key_id
from weir.auth.records import (
    KEY_NAME_MAX,
    Invalid,
    Key,
    Team,
    check_limits,
    check_team_name,
    key_from_hash,
    limits_to_hash,
    team_from_hash,
)
from weir.core import layout
from weir.core.errors import StoreUnavailable
from weir.core.types import Limits

# Makes a record of a name and its values, unless there is one. Returns 1 where it did.
CREATE = """
if redis.call('HEXISTS', KEYS[1], 'version') == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
"""


class NoSuchTeam(LookupError):
    pass


class NoSuchKey(LookupError):
    pass


class AlreadyThere(ValueError):
    pass


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key at the one moment when its secret can be seen. `secret` is empty where only a digest was given."""

    key: Key
    secret: str


class Directory:
    """Raises Invalid, NoSuchTeam, NoSuchKey and AlreadyThere, each with its sentence; redis-py's errors pass through.

    Key records are written before the index that leads to them, and never the other way round: a half-made key is one
    that does not work yet. A cluster has team and index in different slots, so that no transaction can hold both; each
    command here names keys of one slot only, and their order is what counts.
    """

    def __init__(
        self,
        redis: "Redis | RedisCluster",
        *,
        pepper: bytes | None = None,
        # Wall time: people and their calendars read it.
        clock: Callable[[], float] = time.time,  # noqa: TID251
    ) -> None:
        self._redis = redis
        self._pepper = pepper
        self._clock = clock

    # -- teams

    async def create_team(self, name: str, limits: Limits) -> Team:
        check_limits(limits)
        record = layout.team(check_team_name(name))
        await self._redis.sadd(layout.TEAMS, name)
        if await self._redis.hexists(record, "version"):
            raise AlreadyThere(f"There is a team '{name}' already. 'weir teams update {name}' changes it.")
        # Of a team of this name whose deletion was cut short: its keys must not come back with the name.
        await self._delete_keys(name)
        fields = {**limits_to_hash(limits), "created": str(int(self._clock())), "version": "1"}
        words = [word for field in fields.items() for word in field]
        if not await self._redis.eval(CREATE, 1, record, *words):
            raise AlreadyThere(f"Somebody else has just made a team '{name}'.")
        return await self.team(name)

    async def team(self, name: str) -> Team:
        fields = await self._read(layout.team(name))
        if not fields.get("version"):
            raise NoSuchTeam(f"There is no team '{name}'. 'weir teams list' shows those that are.")
        return team_from_hash(name, fields)

    async def teams(self) -> list[Team]:
        names = sorted(_text(name) for name in await self._redis.smembers(layout.TEAMS))
        records = await self._read_all([layout.team(name) for name in names])
        return [
            team_from_hash(name, fields) for name, fields in zip(names, records, strict=True) if fields.get("version")
        ]

    async def update_team(self, name: str, change: Callable[[Limits], Limits]) -> Team:
        limits = check_limits(change((await self.team(name)).limits))
        record = layout.team(name)
        await self._redis.hset(record, mapping=_mapping(limits_to_hash(limits)))
        await self._redis.hincrby(record, "version", 1)
        return await self.team(name)

    async def delete_team(self, name: str) -> int:
        """The team and all of its keys; returns how many keys. They are refused from the next request on.

        Cut short anywhere, it can be done again.
        """
        if not await self._redis.sismember(layout.TEAMS, name):
            await self.team(name)
        record = layout.team(name)
        # The record first: without it, admission refuses every key of the team at once.
        await self._redis.delete(record)
        count = await self._delete_keys(name)
        await self._redis.delete(layout.use(record), layout.live(record))
        await self._redis.srem(layout.TEAMS, name)
        return count

    async def _delete_keys(self, team: str) -> int:
        keys = [_text(key_id) for key_id in await self._redis.smembers(layout.team_keys(team))]
        for key_id in keys:
            record = layout.key(team, key_id)
            for known in await self._redis.hmget(record, ["digest", "old_digest"]):
                if known:
                    await self._redis.delete(layout.index(_text(known)))
            await self._redis.delete(record, layout.use(record), layout.live(record))
            await self._redis.delete(layout.owner(key_id))
            await self._redis.srem(layout.team_keys(team), key_id)
        return len(keys)

    # -- keys

    async def create_key(self, team: str, name: str, limits: Limits, expires: int = 0) -> NewKey:
        key_id = new_key_id()
        secret = new_key(key_id)
        key = await self._write_key(team, key_id, name, limits, expires, digest(secret.encode(), self._pepper), secret)
        return NewKey(key, secret)

    async def import_key(
        self, team: str, name: str, limits: Limits, expires: int = 0, *, secret: str = "", known_digest: str = ""
    ) -> NewKey:
        """A key that somebody else made, by its text or by its digest alone (hexadecimal, made with our pepper)."""
        if secret:
            raw = secret.encode()
            if not FOREIGN_MIN <= len(raw) <= FOREIGN_MAX or not secret.isprintable() or " " in secret:
                raise Invalid(f"A key is {FOREIGN_MIN} to {FOREIGN_MAX} printable characters without spaces.")
            if mistyped(raw):
                raise Invalid("This begins like one of Weir's own keys, but its checksum is wrong: a letter is off.")
            known_digest = digest(raw, self._pepper)
        elif len(known_digest) != 64 or not set(known_digest) <= set("0123456789abcdef"):
            raise Invalid("A digest is 64 hexadecimal digits in small letters.")
        key = await self._write_key(team, new_key_id(), name, limits, expires, known_digest, secret)
        return NewKey(key, "")

    async def key(self, key_id: str) -> Key:
        team = await self._redis.get(layout.owner(key_id))
        fields = await self._read(layout.key(_text(team), key_id)) if team else {}
        if not fields.get("digest"):
            raise NoSuchKey(f"There is no key '{key_id}'. 'weir keys list' shows those that are.")
        return key_from_hash(_text(team), key_id, fields)

    async def keys(self, team: str | None = None) -> list[Key]:
        teams = [(await self.team(team)).name] if team else [t.name for t in await self.teams()]
        found: list[Key] = []
        for name in teams:
            ids = [_text(key_id) for key_id in await self._redis.smembers(layout.team_keys(name))]
            records = await self._read_all([layout.key(name, key_id) for key_id in ids])
            found += [
                key_from_hash(name, key_id, fields)
                for key_id, fields in zip(ids, records, strict=True)
                if fields.get("digest")
            ]
        return sorted(found, key=lambda key: (key.team, key.created, key.id))

    async def update_key(
        self,
        key_id: str,
        change: Callable[[Limits], Limits],
        *,
        name: str | None = None,
        expires: int | None = None,
    ) -> Key:
        key = await self.key(key_id)
        fields = limits_to_hash(check_limits(change(key.limits)))
        if name is not None:
            fields["name"] = _check_name(name)
        if expires is not None:
            fields["expires"] = str(expires)
        return await self._change_key(key, fields)

    async def rotate_key(self, key_id: str, overlap_seconds: int) -> NewKey:
        """A new secret under the same id; the old one works for `overlap_seconds` more."""
        key = await self.key(key_id)
        if key.revoked:
            raise Invalid(f"Key '{key_id}' is revoked. Create a new one instead.")
        secret = new_key(key_id)
        new = digest(secret.encode(), self._pepper)
        old, older = await self._redis.hmget(layout.key(key.team, key_id), ["digest", "old_digest"])
        changed = await self._change_key(
            key,
            {
                "digest": new,
                "old_digest": _text(old),
                "old_until": str(int(self._clock()) + overlap_seconds),
                "hint": _hint(secret),
            },
        )
        await self._redis.set(layout.index(new), f"{key.team} {key_id}")
        if older:
            await self._redis.delete(layout.index(_text(older)))
        return NewKey(changed, secret)

    async def revoke_key(self, key_id: str) -> Key:
        return await self._change_key(await self.key(key_id), {"state": "revoked", "revoked": str(int(self._clock()))})

    # -- from the configuration: what is written there wins

    async def put_team(self, name: str, limits: Limits) -> None:
        """Create or update; nothing is written where it is so already, as it is after a restart.

        Raises StoreUnavailable in place of redis-py's errors, as does `put_key`.
        """
        with _reached():
            try:
                if (await self.team(name)).limits == check_limits(limits):
                    return
            except NoSuchTeam:
                with suppress(AlreadyThere):  # another replica starts with the same file
                    await self.create_team(name, limits)
                    return
            await self.update_team(name, lambda _: limits)

    async def put_key(self, team: str, name: str, limits: Limits, known_digest: str) -> None:
        with _reached():
            owner = await self._redis.get(layout.index(known_digest))
            if owner is None:
                try:
                    await self.import_key(team, name, limits, known_digest=known_digest)
                except AlreadyThere:  # another replica starts with the same file
                    owner = await self._redis.get(layout.index(known_digest))
            if owner is None:
                return
            owning_team, _, key_id = _text(owner).partition(" ")
            if owning_team != team:
                return
            key = await self.key(key_id)
            if key.limits != check_limits(limits) or (name and key.name != name):
                await self.update_key(key_id, lambda _: limits, name=name or None)

    async def eviction_policy(self) -> str:
        """Redis' maxmemory-policy where memory is bounded, else ""; of a cluster, that of a node that may evict.

        Raises StoreUnavailable.
        """
        with _reached():
            if isinstance(self._redis, RedisCluster):
                nodes = [*(await self._redis.info("memory", target_nodes=RedisCluster.PRIMARIES)).values()]
            else:
                nodes = [await self._redis.info("memory")]
        policies = [str(memory.get("maxmemory_policy", "")) for memory in nodes if memory.get("maxmemory")]
        return next((policy for policy in policies if policy != "noeviction"), policies[0] if policies else "")

    async def empty(self) -> bool:
        """Nobody has a key yet."""
        return not await self._redis.scard(layout.TEAMS) or not await self.keys()

    # -- details

    async def _write_key(
        self, team: str, key_id: str, name: str, limits: Limits, expires: int, known_digest: str, secret: str
    ) -> Key:
        check_limits(limits)
        await self.team(team)
        owner = f"{team} {key_id}"
        index = layout.index(known_digest)
        if await self._redis.exists(index):
            raise AlreadyThere("This key is known already; a key belongs to one team for ever.")
        fields = {
            **limits_to_hash(limits),
            "name": _check_name(name),
            "hint": _hint(secret),
            "digest": known_digest,
            "state": "active",
            "created": str(int(self._clock())),
            "expires": str(expires),
            "version": "1",
        }
        record = layout.key(team, key_id)
        # Into the team's set first: what is cut short here is found when the team goes.
        await self._redis.sadd(layout.team_keys(team), key_id)
        await self._redis.hset(record, mapping=_mapping(fields))
        await self._redis.set(layout.owner(key_id), team)
        if not await self._redis.set(index, owner, nx=True):
            await self._redis.delete(record, layout.owner(key_id))
            await self._redis.srem(layout.team_keys(team), key_id)
            raise AlreadyThere("This key is known already; a key belongs to one team for ever.")
        return await self.key(key_id)

    async def _change_key(self, key: Key, fields: dict[str, str]) -> Key:
        record = layout.key(key.team, key.id)
        await self._redis.hset(record, mapping=_mapping(fields))
        await self._redis.hincrby(record, "version", 1)
        return await self.key(key.id)

    async def _read(self, record: str) -> dict[str, str]:
        return (await self._read_all([record]))[0]

    async def _read_all(self, records: Sequence[str]) -> list[dict[str, str]]:
        """In one round trip a thousand: a listing of ten thousand keys takes less than a second."""
        found: list[dict[str, str]] = []
        for start in range(0, len(records), 1000):
            pipeline = self._redis.pipeline(transaction=False)
            for record in records[start : start + 1000]:
                pipeline.hgetall(record)
            replies = await pipeline.execute()
            found += [{_text(name): _text(value) for name, value in fields.items()} for fields in replies]
        return found


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(reason=str(error)) from error


def _mapping(fields: dict[str, str]) -> Any:
    """redis-py's types want a mapping of unions, which a dict of one of them is not."""
    return fields


def _check_name(name: str) -> str:
    if len(name) > KEY_NAME_MAX or not name.isprintable():
        raise Invalid(f"A key's name is at most {KEY_NAME_MAX} printable characters.")
    return name


def _hint(secret: str) -> str:
    if secret.startswith("sk-weir-"):
        return f"{secret[:12]}...{secret[-4:]}"
    return f"...{secret[-4:]}" if len(secret) >= 16 else "imported"


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
