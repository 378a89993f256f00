"""Keys on a real Redis, from their making to their end: what people do with `Directory`, what requests see of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Lost

from tests.contract.clocked import Clock, ClockedScripts
from tests.contract.world import ask
from tests.fakes.redis_server import RedisServer
from weir.admission.limiter_redis import RedisLimiter
from weir.auth import Authenticator
from weir.auth.authenticator import UNKNOWN_MAX, UNKNOWN_SECONDS
from weir.auth.directory_redis import AlreadyThere, Directory, NoSuchKey, NoSuchTeam
from weir.auth.key_store_redis import RedisKeyStore
from weir.auth.keys import digest, new_key, new_key_id
from weir.auth.records import Invalid
from weir.core import layout
from weir.core.errors import ModelNotFound, StoreUnavailable, Unauthenticated
from weir.core.types import Limits, Principal
from weir.store import Batcher

LIMITS = Limits(rpm=100, tpm=1_000, concurrency=5)
FOREIGN = "sk-proj-QuXzKwJvYqPhTgLbMdRfCsNaWx"
OVERLAP = 3_600


class Office:
    """A directory, and a gateway that knows of it only through Redis. Time is ours."""

    def __init__(self, client: "Redis", batcher: Batcher, pepper: bytes | None) -> None:
        self.clock = Clock()
        self.redis = client
        self.pepper = pepper
        self.directory = Directory(client, pepper=pepper, clock=self.clock.seconds)
        self.asked: list[str] = []
        self._store = RedisKeyStore(batcher)
        self._limiter = RedisLimiter(ClockedScripts(batcher, self.clock))
        self.authenticator = self.new_gateway()

    def new_gateway(self) -> Authenticator:
        """One that has seen nobody yet."""
        self.authenticator = Authenticator(_Counting(self._store, self.asked), self.clock.seconds, pepper=self.pepper)
        return self.authenticator

    async def admit(self, secret: str, model: str = "m") -> Principal:
        """The whole way of a request, as the gateway goes it: known here, still good there, asked again if not."""
        principal = await self.authenticator.authenticate(f"Bearer {secret}".encode())
        try:
            grant = await self._limiter.take(principal, ask(model=model))
        except Unauthenticated:
            if not self.authenticator.forget(principal):
                raise
            principal = await self.authenticator.authenticate(f"Bearer {secret}".encode())
            grant = await self._limiter.take(principal, ask(model=model))
        self._limiter.settle(grant, None)
        assert await self._limiter.flush(10.0) == 0
        return principal

    async def turned_away(self, secret: str) -> str:
        """The reason that is logged; the caller is told the same thing always."""
        try:
            principal = await self.admit(secret)
        except Unauthenticated as error:
            assert (error.text, error.status, error.code, error.retry_after) == (
                (Unauthenticated.message, 401, "invalid_api_key", None)
            )
            return error.reason or ""
        raise AssertionError(f"was let in as {principal}")


class _Counting:
    """The store, and what it was asked."""

    def __init__(self, store: RedisKeyStore, asked: list[str]) -> None:
        self._store = store
        self._asked = asked
        self.models = store.models

    async def find(self, digest: str) -> Principal | None:
        self._asked.append(digest)
        return await self._store.find(digest)


@asynccontextmanager
async def office_at(url: str, pepper: bytes | None = None) -> AsyncIterator[Office]:
    client = Redis.from_url(url, socket_connect_timeout=20, socket_timeout=20, protocol=2)
    batcher = Batcher(client, command_seconds=10.0)
    try:
        yield Office(client, batcher, pepper)
    finally:
        await batcher.close()
        await client.aclose()


@pytest.fixture(params=[None, b"a pepper of the house"], ids=["plain", "peppered"])
def office(request: pytest.FixtureRequest, every_redis: RedisServer) -> contextlib.AbstractAsyncContextManager[Office]:
    return office_at(every_redis.url, request.param)


# -- the life of a key


async def test_a_new_key_works_at_once_and_is_shown_once(office: Office) -> None:
    await office.directory.create_team("search", LIMITS)
    made = await office.directory.create_key("search", "laptop", Limits(rpm=7))
    principal = await office.admit(made.secret)
    assert principal == Principal("search", made.key.id, digest(made.secret.encode(), office.pepper))
    shown = await office.directory.key(made.key.id)
    assert (shown.team, shown.name, shown.limits, shown.expires, shown.revoked) == (
        "search",
        "laptop",
        Limits(rpm=7),
        0,
        0,
    )
    assert made.secret not in repr(shown)
    assert await office.directory.keys("search") == [shown]


async def test_a_known_key_asks_nobody_again(office: Office) -> None:
    await office.directory.create_team("search", LIMITS)
    made = await office.directory.create_key("search", "", LIMITS)
    for _ in range(5):
        await office.admit(made.secret)
    assert len(office.asked) == 1


async def test_an_imported_key_works_by_its_text_and_by_its_digest(office: Office) -> None:
    await office.directory.create_team("search", LIMITS)
    by_text = await office.directory.import_key("search", "text", LIMITS, secret=FOREIGN)
    assert by_text.secret == ""
    other = "another-foreign-key"
    known = digest(other.encode(), office.pepper)
    by_digest = await office.directory.import_key("search", "digest", LIMITS, known_digest=known)
    assert (await office.admit(FOREIGN)).key_id == by_text.key.id
    assert (await office.admit(other)).key_id == by_digest.key.id


IMPORTS = [
    # id                    secret                known digest
    ("too-short", "1234567", ""),
    ("too-long", "x" * 513, ""),
    ("with-a-space", "12345678 9", ""),
    ("with-a-line-break", "123456789\n", ""),
    ("one-of-ours-mistyped", new_key(new_key_id())[:-1] + "-", ""),
    ("nothing", "", ""),
    ("half-a-digest", "", "ab" * 16),
    ("a-digest-in-capitals", "", "AB" * 32),
]


@pytest.mark.parametrize(("secret", "known"), [r[1:] for r in IMPORTS], ids=[r[0] for r in IMPORTS])
async def test_what_can_be_no_key_is_not_imported(redis_server: RedisServer, secret: str, known: str) -> None:
    async with office_at(redis_server.url) as office:
        await office.directory.create_team("search", LIMITS)
        before = await everything(office.redis)
        with pytest.raises(Invalid):
            await office.directory.import_key("search", "", LIMITS, secret=secret, known_digest=known)
        assert await everything(office.redis) == before


async def test_a_digest_belongs_to_one_team_for_ever(office: Office) -> None:
    for team in ("first", "second"):
        await office.directory.create_team(team, LIMITS)
    await office.directory.import_key("first", "", LIMITS, secret=FOREIGN)
    before = await everything(office.redis)
    for team in ("first", "second"):
        with pytest.raises(AlreadyThere):
            await office.directory.import_key(team, "", LIMITS, secret=FOREIGN)
    assert await everything(office.redis) == before
    assert (await office.admit(FOREIGN)).team == "first"


async def test_of_many_who_import_one_key_at_once_one_gets_it_and_nothing_else_is_left(
    every_redis: RedisServer,
) -> None:
    async with office_at(every_redis.url) as office:
        teams = [f"team-{number}" for number in range(8)]
        for team in teams:
            await office.directory.create_team(team, LIMITS)
        results = await asyncio.gather(
            *(office.directory.import_key(team, "", LIMITS, secret=FOREIGN) for team in teams), return_exceptions=True
        )
        (won,) = [result for result in results if not isinstance(result, BaseException)]
        assert all(isinstance(result, AlreadyThere) for result in results if result is not won)
        assert [key.id for key in await office.directory.keys()] == [won.key.id]
        assert (await office.admit(FOREIGN)).team == won.key.team
        records = [name async for name in office.redis.scan_iter(match="weir:{*}:key:*") if name.count(b":") == 3]
        assert len(records) == 1


async def test_a_rotated_key_has_two_secrets_until_the_overlap_ends(office: Office) -> None:
    await office.directory.create_team("search", LIMITS)
    old = await office.directory.create_key("search", "", LIMITS)
    await office.admit(old.secret)
    new = await office.directory.rotate_key(old.key.id, OVERLAP)
    assert new.key.id == old.key.id
    assert new.secret != old.secret
    for gateway in ("who has seen it", "who has not"):
        assert (await office.admit(old.secret)).key_id == old.key.id, gateway
        assert (await office.admit(new.secret)).key_id == old.key.id, gateway
        office.new_gateway()
    office.clock.advance(OVERLAP - 1)
    await office.admit(old.secret)
    office.clock.advance(1)
    assert await office.turned_away(old.secret) == "expired"
    await office.admit(new.secret)


async def test_a_key_rotated_twice_has_its_last_two_secrets(office: Office) -> None:
    await office.directory.create_team("search", LIMITS)
    first = await office.directory.create_key("search", "", LIMITS)
    await office.admit(first.secret)
    second = await office.directory.rotate_key(first.key.id, OVERLAP)
    third = await office.directory.rotate_key(first.key.id, OVERLAP)
    await office.turned_away(first.secret)
    await office.admit(second.secret)
    await office.admit(third.secret)
    assert not await office.redis.exists(layout.index(digest(first.secret.encode(), office.pepper)))


async def test_rotation_without_overlap_ends_the_old_secret_at_once(office: Office) -> None:
    await office.directory.create_team("search", LIMITS)
    old = await office.directory.create_key("search", "", LIMITS)
    await office.admit(old.secret)
    new = await office.directory.rotate_key(old.key.id, 0)
    await office.turned_away(old.secret)
    await office.admit(new.secret)


async def test_both_secrets_of_a_key_share_its_limits(office: Office) -> None:
    await office.directory.create_team("search", Limits())
    old = await office.directory.create_key("search", "", Limits(rpm=1, burst_seconds=120))
    new = await office.directory.rotate_key(old.key.id, OVERLAP)
    for secret in (old.secret, new.secret):
        principal = await office.authenticator.authenticate(f"Bearer {secret}".encode())
        await office._limiter.take(principal, ask())
    windows = await office._limiter.standing(principal)
    assert windows[0].remaining == 0


ENDINGS: list[tuple[str, Callable[[Office, str], Awaitable[Any]], str]] = [
    ("revoked", lambda office, key_id: office.directory.revoke_key(key_id), "revoked"),
    ("team-deleted", lambda office, key_id: office.directory.delete_team("search"), "unknown"),
    (
        "expired",
        lambda office, key_id: office.directory.update_key(key_id, lambda limits: limits, expires=1),
        "expired",
    ),
]


@pytest.mark.parametrize(("end", "reason"), [r[1:] for r in ENDINGS], ids=[r[0] for r in ENDINGS])
async def test_an_end_acts_on_the_next_request_of_every_gateway(
    office: Office, end: Callable[[Office, str], Awaitable[Any]], reason: str
) -> None:
    await office.directory.create_team("search", LIMITS)
    made = await office.directory.create_key("search", "", LIMITS)
    rotated = await office.directory.rotate_key(made.key.id, OVERLAP)
    for secret in (made.secret, rotated.secret):
        await office.admit(secret)
    await end(office, made.key.id)
    for _ in range(2):
        for secret in (made.secret, rotated.secret):
            assert await office.turned_away(secret) == reason
        office.new_gateway()


async def test_a_key_expires_to_the_second(office: Office) -> None:
    await office.directory.create_team("search", LIMITS)
    ends = int(office.clock.seconds()) + 60
    made = await office.directory.create_key("search", "", LIMITS, expires=ends)
    office.clock.now = ends * 1_000_000 - 1
    await office.admit(made.secret)
    office.clock.now += 1
    assert await office.turned_away(made.secret) == "expired"
    await office.directory.update_key(made.key.id, lambda limits: limits, expires=0)
    await office.admit(made.secret)


async def test_a_running_request_of_a_key_that_ends_can_still_settle(office: Office) -> None:
    for number, end in enumerate(ENDINGS):
        await office.directory.create_team("search", LIMITS)
        made = await office.directory.create_key("search", "", LIMITS)
        principal = await office.authenticator.authenticate(f"Bearer {made.secret}".encode())
        grants = [await office._limiter.take(principal, ask()) for _ in range(3)]
        await end[1](office, made.key.id)
        for grant, used in zip(grants, (None, 5, 500), strict=True):
            office._limiter.settle(grant, used)
        assert await office._limiter.flush(10.0) == 0
        left = [name async for name in office.redis.scan_iter(match="weir:{search}:*")]
        assert not [name for name in left if b":res:" in name], number
        if end[0] == "team-deleted":
            assert left == [], "a settlement brought something back"
        else:
            await office.directory.delete_team("search")


async def test_a_revoked_key_is_not_rotated_back_to_life(office: Office) -> None:
    await office.directory.create_team("search", LIMITS)
    made = await office.directory.create_key("search", "", LIMITS)
    await office.directory.revoke_key(made.key.id)
    with pytest.raises(Invalid):
        await office.directory.rotate_key(made.key.id, OVERLAP)
    assert await office.turned_away(made.secret) == "revoked"


async def test_a_deleted_team_leaves_nothing_and_its_name_and_keys_can_be_used_again(office: Office) -> None:
    before = await everything(office.redis)
    await office.directory.create_team("search", LIMITS)
    made = [await office.directory.create_key("search", f"{number}", LIMITS) for number in range(3)]
    imported = await office.directory.import_key("search", "", LIMITS, secret=FOREIGN)
    rotated = await office.directory.rotate_key(made[0].key.id, OVERLAP)
    for secret in (made[0].secret, rotated.secret, made[1].secret, FOREIGN):
        await office.admit(secret)
    assert await office.directory.delete_team("search") == 4
    assert await everything(office.redis) == before
    assert await office.directory.teams() == []
    for key in (*(one.key for one in made), imported.key):
        with pytest.raises(NoSuchKey):
            await office.directory.key(key.id)

    # The same foreign key in another team: the gateway that knew it as the old team's asks again.
    await office.directory.create_team("other", LIMITS)
    await office.directory.import_key("other", "", LIMITS, secret=FOREIGN)
    assert (await office.admit(FOREIGN)).team == "other"
    await office.directory.create_team("search", LIMITS)
    await office.turned_away(made[1].secret)


async def test_limits_and_models_change_on_the_next_request(office: Office) -> None:
    await office.directory.create_team("search", Limits(models=("m*",)))
    made = await office.directory.create_key("search", "", Limits())
    principal = await office.admit(made.secret)
    await office.directory.update_key(made.key.id, lambda limits: replace(limits, models=("other",)))
    with pytest.raises(ModelNotFound):
        await office.admit(made.secret)
    assert await office.authenticator.may_use(principal, ["m1", "other"]) == set()
    await office.directory.update_team("search", lambda limits: replace(limits, models=("*",)))
    assert await office.authenticator.may_use(principal, ["m1", "other"]) == {"other"}
    await office.admit(made.secret, model="other")


# -- what is not there

UNKNOWN = [
    # id                       header                                    asks Redis
    ("nothing", None, False),
    ("empty", b"", False),
    ("no-scheme", b"sk-weir-abc", False),
    ("another-scheme", b"Basic c2VjcmV0OnNlY3JldA==", False),
    ("a-scheme-alone", b"Bearer ", False),
    ("two-words", b"Bearer QuXzKw JvYqPh", False),
    ("far-too-long", b"Bearer " + b"x" * 100_000, False),
    ("mistyped", b"Bearer " + new_key(new_key_id()).encode()[:-2] + b"!!", False),
    ("cut-short", b"Bearer sk-weir-abc", False),
    ("one-of-ours-that-nobody-made", f"Bearer {new_key(new_key_id())}".encode(), True),
    ("a-foreign-one", b"Bearer sk-nobodys-key", True),
    ("no-letters", b"Bearer \xff\xfe\x00\x01", True),
]


@pytest.mark.parametrize(("header", "asks"), [r[1:] for r in UNKNOWN], ids=[r[0] for r in UNKNOWN])
async def test_what_is_no_key_is_refused_alike(redis_server: RedisServer, header: bytes | None, asks: bool) -> None:
    async with office_at(redis_server.url) as office:
        with pytest.raises(Unauthenticated) as error:
            await office.authenticator.authenticate(header)
        assert (error.value.status, error.value.code) == (401, "invalid_api_key")
        assert error.value.text.startswith("Incorrect API key provided")
        assert error.value.reason
        assert bool(office.asked) is asks
        for part in (header or b"").split()[1:]:
            assert part.decode("latin-1") not in error.value.text + str(error.value) + error.value.reason


async def test_an_unknown_key_is_asked_for_once_in_a_while(office: Office) -> None:
    for _ in range(10):
        assert await office.turned_away(FOREIGN) == "unknown"
    assert len(office.asked) == 1
    office.clock.advance(UNKNOWN_SECONDS + 0.001)
    assert await office.turned_away(FOREIGN) == "unknown"
    assert len(office.asked) == 2

    await office.directory.create_team("search", LIMITS)
    await office.directory.import_key("search", "", LIMITS, secret=FOREIGN)
    office.clock.advance(UNKNOWN_SECONDS + 0.001)
    await office.admit(FOREIGN)


async def test_what_is_remembered_of_unknown_keys_is_bounded(redis_server: RedisServer) -> None:
    async with office_at(redis_server.url) as office:
        for start in range(0, UNKNOWN_MAX + 2_000, 1_000):
            await asyncio.gather(
                *(office.turned_away(f"unknown-key-{number}") for number in range(start, start + 1_000))
            )
            assert len(office.authenticator._unknown) <= UNKNOWN_MAX
        assert len(office.asked) == UNKNOWN_MAX + 2_000


async def test_an_outage_is_no_verdict_and_is_not_remembered_as_one(own_redis: RedisServer) -> None:
    async with office_at(own_redis.url) as office:
        await office.directory.create_team("search", LIMITS)
        made = await office.directory.create_key("search", "", LIMITS)
        await office.redis.config_set("maxmemory", 0)
        # As if the value were of another kind: Redis answers with an error.
        index = layout.index(digest(FOREIGN.encode(), None))
        await office.redis.hset(index, "not", "a string")
        with pytest.raises(StoreUnavailable):
            await office.admit(FOREIGN)
        await office.redis.delete(index)
        await office.directory.import_key("search", "", LIMITS, secret=FOREIGN)
        await office.admit(FOREIGN)
        await office.admit(made.secret)


WRONG: list[tuple[str, Callable[[Directory], Awaitable[Any]], type[Exception]]] = [
    ("team-twice", lambda d: d.create_team("search", LIMITS), AlreadyThere),
    ("team-with-a-bad-name", lambda d: d.create_team("Search!", LIMITS), Invalid),
    ("team-with-a-brace", lambda d: d.create_team("a}b", LIMITS), Invalid),
    ("team-with-no-requests", lambda d: d.create_team("other", Limits(rpm=0)), Invalid),
    ("team-with-more-than-can-be-counted", lambda d: d.create_team("other", Limits(tpm=2**53)), Invalid),
    ("team-that-is-not-there", lambda d: d.team("nobody"), NoSuchTeam),
    ("update-of-no-team", lambda d: d.update_team("nobody", lambda limits: limits), NoSuchTeam),
    ("deletion-of-no-team", lambda d: d.delete_team("nobody"), NoSuchTeam),
    ("key-of-no-team", lambda d: d.create_key("nobody", "", LIMITS), NoSuchTeam),
    ("keys-of-no-team", lambda d: d.keys("nobody"), NoSuchTeam),
    ("key-with-a-bad-name", lambda d: d.create_key("search", "a\nb", LIMITS), Invalid),
    ("key-with-a-bad-pattern", lambda d: d.create_key("search", "", Limits(models=("a b",))), Invalid),
    ("no-key", lambda d: d.key("nothing"), NoSuchKey),
    ("update-of-no-key", lambda d: d.update_key("nothing", lambda limits: limits), NoSuchKey),
    ("rotation-of-no-key", lambda d: d.rotate_key("nothing", 1), NoSuchKey),
    ("revocation-of-no-key", lambda d: d.revoke_key("nothing"), NoSuchKey),
]


@pytest.mark.parametrize(("wrong", "error"), [r[1:] for r in WRONG], ids=[r[0] for r in WRONG])
async def test_what_cannot_be_done_is_said_and_changes_nothing(
    redis_server: RedisServer, wrong: Callable[[Directory], Awaitable[Any]], error: type[Exception]
) -> None:
    async with office_at(redis_server.url) as office:
        await office.directory.create_team("search", LIMITS)
        await office.directory.create_key("search", "", LIMITS)
        before = await everything(office.redis)
        with pytest.raises(error) as said:
            await wrong(office.directory)
        assert str(said.value).strip().endswith((".", "them."))
        assert await everything(office.redis) == before


# -- what is written down


async def everything(client: "Redis") -> dict[bytes, Any]:
    """Each name and value that Redis has, of whatever kind."""
    found: dict[bytes, Any] = {}
    async for name in client.scan_iter():
        kind = await client.type(name)
        if kind == b"hash":
            found[name] = await client.hgetall(name)
        elif kind == b"set":
            found[name] = await client.smembers(name)
        elif kind == b"zset":
            found[name] = await client.zrange(name, 0, -1)
        else:
            found[name] = await client.get(name)
    return found


async def test_only_digests_are_in_redis(office: Office) -> None:
    """No secret, and no piece of one that would help to guess it: searched for in every name and every value."""
    await office.directory.create_team("search", LIMITS)
    made = await office.directory.create_key("search", "laptop", LIMITS)
    rotated = await office.directory.rotate_key(made.key.id, OVERLAP)
    await office.directory.import_key("search", "foreign", LIMITS, secret=FOREIGN)
    short = "qXzWvKjY"
    await office.directory.import_key("search", "short", LIMITS, secret=short)
    for secret in (made.secret, rotated.secret, FOREIGN, short):
        await office.admit(secret)
    await office.turned_away("an-unknown-key-of-somebody")

    whole = repr(await everything(office.redis))
    assert digest(made.secret.encode(), office.pepper) in whole, "or this looks at the wrong place"
    random_parts = [secret.partition("_")[2] for secret in (made.secret, rotated.secret)]
    for secret in (*random_parts, FOREIGN, short, "an-unknown-key-of-somebody"):
        for start in range(len(secret) - 4):
            assert secret[start : start + 5] not in whole, f"{secret[start : start + 5]} of {secret}"
    if office.pepper:
        assert digest(made.secret.encode(), None) not in whole
        assert "pepper of the house" not in whole


async def test_another_pepper_knows_no_key(redis_server: RedisServer) -> None:
    async with office_at(redis_server.url, b"one") as one, office_at(redis_server.url, b"two") as two:
        await one.directory.create_team("search", LIMITS)
        made = await one.directory.create_key("search", "", LIMITS)
        await one.admit(made.secret)
        assert await two.turned_away(made.secret) == "unknown"


async def test_last_use_is_noted_once_a_minute(office: Office) -> None:
    await office.directory.create_team("search", LIMITS)
    made = await office.directory.create_key("search", "", LIMITS)
    assert made.key.used == 0
    first = int(office.clock.seconds())
    for seconds, used in ((0, first), (59, first), (1, first + 60), (30, first + 60)):
        office.clock.advance(seconds)
        await office.admit(made.secret)
        assert (await office.directory.key(made.key.id)).used == used


# -- cut short


class Faltering:
    """A client whose connection is lost at its n-th command, before it is sent or after it was carried out."""

    def __init__(self, client: "Redis", at: int, *, carried_out: bool) -> None:
        self._client = client
        self._left = at
        self._carried_out = carried_out
        self.lost = False

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name == "pipeline":
            return self._pipeline
        return self._faltering(getattr(self._client, name))

    def _pipeline(self, **options: Any) -> Any:
        """Its commands are collected as they are, and sent as one."""
        pipeline = self._client.pipeline(**options)
        pipeline.execute = self._faltering(pipeline.execute)  # type: ignore[method-assign]
        return pipeline

    def _faltering(self, command: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*words: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                self.lost = True
                if self._carried_out:
                    await command(*words, **options)
            if self.lost:
                raise Lost("connection lost")
            return await command(*words, **options)

        return call


INTERRUPTED: list[tuple[str, Callable[[Directory, str], Awaitable[Any]]]] = [
    ("create-team", lambda d, key_id: d.create_team("new", LIMITS)),
    ("delete-team", lambda d, key_id: d.delete_team("search")),
    ("create-key", lambda d, key_id: d.create_key("search", "", LIMITS)),
    ("import-key", lambda d, key_id: d.import_key("search", "", LIMITS, secret="a-second-foreign-key")),
    ("rotate-key", lambda d, key_id: d.rotate_key(key_id, OVERLAP)),
    ("update-key", lambda d, key_id: d.update_key(key_id, lambda limits: limits)),
    ("revoke-key", lambda d, key_id: d.revoke_key(key_id)),
]


@pytest.mark.parametrize("carried_out", [False, True], ids=["not-sent", "carried-out"])
@pytest.mark.parametrize(("name", "act"), INTERRUPTED, ids=[r[0] for r in INTERRUPTED])
async def test_what_is_cut_short_anywhere_can_be_done_again_and_breaks_nothing(
    redis_server: RedisServer, name: str, act: Callable[[Directory, str], Awaitable[Any]], carried_out: bool
) -> None:
    """A connection lost, or a Ctrl-C, between any two commands: lists still list, keys that should work do, and the
    same command again gets there."""
    made_digest = digest(FOREIGN.encode(), None).encode()
    for at in range(1, 40):
        async with office_at(redis_server.url) as office:
            await office.redis.flushdb()
            await office.directory.create_team("search", LIMITS)
            await office.directory.create_team("bystander", LIMITS)
            bystander = await office.directory.create_key("bystander", "", LIMITS)
            made = await office.directory.import_key("search", "", LIMITS, secret=FOREIGN)
            await office.directory.create_key("search", "", LIMITS)
            faltering = Faltering(office.redis, at, carried_out=carried_out)
            with contextlib.suppress(Lost):
                await act(Directory(faltering, clock=office.clock.seconds), made.key.id)  # type: ignore[arg-type]
            if not faltering.lost:
                assert at > 1
                return

            await office.directory.teams()
            await office.directory.keys()
            await office.admit(bystander.secret)
            if name not in {"delete-team", "revoke-key"}:
                await office.admit(FOREIGN)
            # A rotation that was carried out and not heard is a rotation: the next one ends the secret before it.
            rotated = await office.redis.hget(layout.key("search", made.key.id), "digest") != made_digest
            again: Any = None
            with contextlib.suppress(AlreadyThere if name in {"create-team", "import-key"} else NoSuchTeam):
                again = await act(office.directory, made.key.id)

            await office.directory.teams()
            await office.directory.keys()
            if name in {"delete-team", "revoke-key"}:
                await office.turned_away(FOREIGN)
            elif name != "rotate-key" or not rotated:
                await office.admit(FOREIGN)
            match name:
                case "create-team":
                    await office.directory.create_key("new", "", LIMITS)
                case "create-key" | "rotate-key":
                    await office.admit(again.secret)
                case "import-key":
                    await office.admit("a-second-foreign-key")
                case "delete-team":
                    left = [
                        n for n in await everything(office.redis) if b"search" in n or b"search" in repr(n).encode()
                    ]
                    assert left == [], f"cut short at {at}"
                    await office.directory.create_team("search", LIMITS)
                    await office.directory.import_key("search", "", LIMITS, secret=FOREIGN)
                    office.new_gateway()
                    await office.admit(FOREIGN)
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("carried_out", [False, True], ids=["not-sent", "carried-out"])
async def test_keys_of_a_team_whose_deletion_was_cut_short_do_not_come_back_with_its_name(
    redis_server: RedisServer, carried_out: bool
) -> None:
    for at in range(1, 40):
        async with office_at(redis_server.url) as office:
            await office.redis.flushdb()
            await office.directory.create_team("search", LIMITS)
            await office.directory.import_key("search", "", LIMITS, secret=FOREIGN)
            faltering = Faltering(office.redis, at, carried_out=carried_out)
            with contextlib.suppress(Lost):
                await Directory(faltering).delete_team("search")  # type: ignore[arg-type]
            if not faltering.lost:
                return
            try:
                await office.directory.create_team("search", LIMITS)
            except AlreadyThere:
                assert (await office.directory.team("search")).name == "search"
                continue  # nothing is deleted yet
            await office.turned_away(FOREIGN)
    raise AssertionError("it never came to its end")
