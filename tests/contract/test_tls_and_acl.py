"""What stands in the URL: forms and options, TLS on every path, and the least user that is enough."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from tests.contract.lines import LineWorld, eventually, line_world
from tests.contract.world import ask
from tests.fakes.certificates import Authority, there_is_openssl
from tests.fakes.redis_cluster import Cluster, Sentinels, Server, one, program
from weir.auth.directory_redis import NoSuchTeam
from weir.core.errors import StoreUnavailable
from weir.core.types import Limits
from weir.store import Batcher, ClusterCommands, commands_for, connect
from weir.store.connect import Place, printable
from weir.store.connect import __doc__ as url_forms
from weir.telemetry.levels import EVERYBODY
from weir.telemetry.levels_redis import LevelBook

needs_server = pytest.mark.skipif(program() is None, reason="no redis-server or valkey-server on the PATH")
needs_openssl = pytest.mark.skipif(not there_is_openssl(), reason="no openssl command")


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    factory: Callable[[], asyncio.AbstractEventLoop] = request.param
    return factory


# -- the forms of the URL

FORMS = [
    # id               URL                                                      form        addresses                            service  options
    ("plain", "redis://localhost", "one", [("localhost", 6379)], "", {}),
    ("nothing", "redis://", "one", [("localhost", 6379)], "", {}),
    ("port-and-db", "redis://h:7000/3", "one", [("h", 7000)], "", {"db": 3}),
    ("user", "redis://u:p%40%2F%3A@h", "one", [("h", 6379)], "", {"username": "u", "password": "p@/:"}),
    ("slash-in-password", "redis://u:a/b#c@h/1", "one", [("h", 6379)], "", {"username": "u", "password": "a/b#c", "db": 1}),
    ("password-only", "redis://:p@h", "one", [("h", 6379)], "", {"password": "p"}),
    ("ipv6", "redis://[::1]:7000", "one", [("::1", 7000)], "", {}),
    ("tls", "rediss://h?ssl_cert_reqs=none", "one", [("h", 6379)], "", {"ssl_cert_reqs": "none"}),
    ("socket", "unix:///run/redis.sock?db=2", "one", [("/run/redis.sock", 0)], "", {"db": 2}),
    ("socket-with-an-at", "unix:///run/a@b.sock", "one", [("/run/a@b.sock", 0)], "", {}),
    ("socket-user", "unix://u:p@/run/r.sock", "one", [("/run/r.sock", 0)], "", {"username": "u", "password": "p"}),
    ("sentinel", "redis+sentinel://a,b:2,[::1]:3/main/1", "sentinel", [("a", 26379), ("b", 2), ("::1", 3)], "main", {"db": 1}),
    ("sentinel-no-db", "redis+sentinel://u:p@a/main", "sentinel", [("a", 26379)], "main", {"username": "u", "password": "p"}),
    ("sentinel-tls", "rediss+sentinel://a/main", "sentinel", [("a", 26379)], "main", {}),
    ("cluster", "redis+cluster://:p@a:1,b", "cluster", [("a", 1), ("b", 6379)], "", {"password": "p"}),
    ("cluster-zero", "redis+cluster://a:1/0", "cluster", [("a", 1)], "", {}),
    ("cluster-tls", "rediss+cluster://a:1", "cluster", [("a", 1)], "", {}),
    ("in-capitals", "REDIS://h", "one", [("h", 6379)], "", {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "form", "addresses", "service", "options"), [row[1:] for row in FORMS], ids=[row[0] for row in FORMS]
)
async def test_a_url_is_read(
    url: str, form: str, addresses: list[tuple[str, int]], service: str, options: dict[str, Any]
) -> None:
    place = Place.of(url)
    assert (place.form, list(place.addresses), place.service, place.options) == (form, addresses, service, options)
    assert place.tls == url.startswith("rediss")
    await connect(url).aclose()
    line = commands_for(url)
    assert isinstance(line, ClusterCommands if form == "cluster" else Batcher)
    await line.close()


WRONG = [
    # id                URL                                                   says
    ("empty", "", "begins with"),
    ("no-scheme", "sesame:6379", "begins with"),
    ("another-scheme", "http://u:sesame@h", "begins with"),
    ("port-of-letters", "redis://h:sesame", "number for a port"),
    ("port-too-large", "redis://h:70000", "number for a port"),
    ("question-in-password", "redis://u:ses?ame@h", "%3F"),
    ("question-and-word", "redis://u:x?sesame&y@h", "%3F"),
    ("hash-in-password", "redis://u:ses#ame/x@h:1/sesame", "number of a database"),
    ("database-of-letters", "redis://h/sesame", "number of a database"),
    ("two-hosts", "redis://a,b", "several addresses"),
    ("ipv6-open", "redis://[::1:7000", "IPv6"),
    ("unknown-option", "redis://h?ssl_ca_cert=x", "meant"),
    ("unknown-timeout", "redis://h?decode_responses=1", "decode_responses"),
    ("bad-value", "redis://h?socket_connect_timeout=soon", "socket_connect_timeout"),
    ("tls-option-without", "redis://h?ssl_cert_reqs=none", "rediss://"),
    ("sentinel-option-without", "redis://h?sentinel_password=sesame", "redis\\+sentinel"),
    ("sentinel-without-name", "redis+sentinel://a:1", "name of the master"),
    ("sentinel-without-host", "redis+sentinel:///main", "host:port"),
    ("cluster-database", "redis+cluster://a/2", "no database but 0"),
    ("cluster-without-host", "redis+cluster://", "host:port"),
    ("socket-without-path", "unix://run/redis.sock", "absolute path"),
    ("no-such-ca", "rediss://h?ssl_ca_certs=/none/ca.pem", "/none/ca.pem"),
    ("no-such-certificate", "rediss+cluster://h?ssl_certfile=/none/c.pem", "/none/c.pem"),
    ("ca-that-is-none", f"rediss://h?ssl_ca_certs={__file__}", "cannot be used"),
    ("bad-cert-reqs", "rediss://h?ssl_cert_reqs=perhaps", "none, optional or required"),
]


@pytest.mark.parametrize(("url", "says"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
async def test_a_url_that_is_wrong_is_refused_with_a_sentence_that_holds_no_secret(url: str, says: str) -> None:
    for use in (connect, commands_for):
        with pytest.raises(ValueError, match=says) as error:
            use(url)
        for part in ("sesame", "ses/", "/ame", "ses?"):
            assert part not in str(error.value)


PRINTED = [
    ("redis://localhost:6379/0", "redis://localhost:6379/0"),
    ("redis://u:sesame@h:1/0", "redis://h:1/0"),
    ("redis://:sesame@h", "redis://h"),
    ("redis://u:ses@ame/sesame@h/1", "redis://h/1"),
    ("redis://u:x?sesame@h", "redis://..."),
    ("redis://h?password=sesame", "redis://h"),
    ("redis://h?password=ses@sesame", "redis://..."),
    ("redis://h?db=3&password=sesame&client_name=me", "redis://h?db=3&client_name=me"),
    ("rediss://u:sesame@h?ssl_ca_certs=/ca.pem&ssl_keyfile=/k", "rediss://h?ssl_ca_certs=/ca.pem"),
    ("unix://u:sesame@/run/r.sock?db=1", "unix:///run/r.sock?db=1"),
    ("redis+sentinel://u:sesame@a:1,b:2/main/0?sentinel_password=sesame", "redis+sentinel://a:1,b:2/main/0"),
    ("rediss+cluster://u:sesame@a:1,b:2", "rediss+cluster://a:1,b:2"),
    ("u:sesame@h:6379", "h:6379"),
    ("redis://u:sesame://x@h", "h"),
]


@pytest.mark.parametrize(("url", "shown"), PRINTED)
def test_what_is_printed_of_a_url_holds_no_secret(url: str, shown: str) -> None:
    assert printable(url) == shown
    assert "sesame" not in printable(url)


# -- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "ours")


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other-ca"), "other")


def tls_options(authority: Authority, *, clients: str = "no") -> tuple[str, ...]:
    pair = authority.sign("server")
    return (
        *("--tls-cert-file", str(pair.certificate), "--tls-key-file", str(pair.key)),
        *("--tls-ca-cert-file", str(authority.certificate), "--tls-auth-clients", clients),
    )


def knowing(authority: Authority, client: str = "") -> dict[str, Any]:
    """What redis-py's own client needs for the same."""
    options: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(authority.certificate)}
    if client:
        pair = authority.sign(client)
        options |= {"ssl_certfile": str(pair.certificate), "ssl_keyfile": str(pair.key)}
    return options


def query(options: dict[str, Any]) -> str:
    return "?" + "&".join(f"{name}={value}" for name, value in options.items() if name != "ssl")


@pytest.fixture(scope="module")
def tls_server(authority: Authority) -> Iterator[Server]:
    with one(tls=tls_options(authority), client_options=knowing(authority)) as server:
        yield server


@pytest.fixture(scope="module")
def strict_server(authority: Authority) -> Iterator[Server]:
    """It wants a certificate of its clients too."""
    options = knowing(authority, "helper")
    with one(tls=tls_options(authority, clients="yes"), client_options=options) as server:
        yield server


def own(world: LineWorld, number: int) -> asyncio.Future[Any]:
    """A reply that only one caller may get, of a command that Weir may give."""
    return world.line.call("EVAL", "return ARGV[1]", 1, "weir:{own}", number)


async def works(world: LineWorld) -> None:
    """Admission, settlement and the directory, and a value that fills many records of TLS."""
    principal = await world.caller(Limits(tpm=1, burst_seconds=60_000), Limits(concurrency=3))
    grant = await world.limiter.take(principal, ask(100, 0))
    world.limiter.settle(grant, 40)
    await world.heard()
    assert await world.left(principal, "key tokens") == 960
    assert await world.keys.find(principal.digest) == principal
    assert [key.id for key in await world.directory.keys()] == [principal.key_id]
    big = "x" * 3_000_000
    assert await world.line.call("SET", "weir:big", big) == b"OK"
    echoes = await asyncio.gather(world.line.call("GET", "weir:big"), *(own(world, n) for n in range(99)))
    assert echoes == [big.encode(), *(str(number).encode() for number in range(99))]
    await world.line.call("DEL", "weir:big")
    await world.dismiss(principal)
    with pytest.raises(NoSuchTeam):
        await world.directory.team(principal.team)
    assert world.ups == [True]


@needs_server
@needs_openssl
async def test_everything_works_over_tls(
    tls_server: Server, authority: Authority, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async with line_world(f"rediss://127.0.0.1:{tls_server.port}/0" + query(knowing(authority))) as world:
        await works(world)


@needs_server
@needs_openssl
async def test_a_tls_connection_that_breaks_is_made_again(
    tls_server: Server, authority: Authority, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """In the middle of a load, so that replies of the old connection could slip into the new one."""
    async with line_world(f"rediss://127.0.0.1:{tls_server.port}/0" + query(knowing(authority))) as world:
        await world.line.call("PING")
        lost = 0
        for number in range(5):
            calls = [world.line.call("ECHO", f"{number}-{n}-" + "x" * 20_000) for n in range(200)]
            if number % 2:
                await asyncio.sleep(0.002)
            await asyncio.to_thread(tls_server.say, "CLIENT", "KILL", "TYPE", "normal")
            for n, result in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
                if isinstance(result, bytes):
                    assert result.startswith(f"{number}-{n}-".encode())
                else:
                    assert isinstance(result, StoreUnavailable)
                    lost += 1
            await eventually(lambda: pings(world))
            for n in range(20):
                assert await world.line.call("ECHO", n) == str(n).encode()
        assert world.ups == [True, *[False, True] * (len(world.ups) // 2)]


async def pings(world: LineWorld) -> bool:
    with contextlib.suppress(StoreUnavailable):
        return await world.line.call("PING") == b"PONG"
    return False


@needs_server
@needs_openssl
async def test_a_client_certificate_opens_what_wants_one(
    strict_server: Server, authority: Authority, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async with line_world(f"rediss://127.0.0.1:{strict_server.port}/0" + query(knowing(authority, "weir"))) as world:
        await works(world)


async def refused(url: str) -> tuple[str, float]:
    """Why it is away, and how long its first caller waited to hear so."""
    changes: list[tuple[bool, str]] = []
    line = commands_for(url, command_seconds=2.0, on_change=lambda *change: changes.append(change))
    try:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await line.call("PING")
        taken = time.monotonic() - started
        await eventually(lambda: told(changes))
        await asyncio.sleep(0.4)
        assert [up for up, _ in changes] == [False]
        return changes[0][1], taken
    finally:
        await line.close()


async def told(changes: list[tuple[bool, str]]) -> bool:
    return bool(changes)


@needs_server
@needs_openssl
async def test_a_certificate_of_somebody_else_is_refused_at_once_and_the_reason_says_so(
    tls_server: Server,
    other_authority: Authority,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    for form in ("rediss://", "rediss+cluster://"):
        why, taken = await refused(f"{form}127.0.0.1:{tls_server.port}" + query(knowing(other_authority)))
        assert "certificate verify failed" in why.lower()
        assert taken < 10.0


@needs_server
@needs_openssl
async def test_who_shows_no_certificate_where_one_is_wanted_is_told(
    strict_server: Server, authority: Authority, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    why, taken = await refused(f"rediss://127.0.0.1:{strict_server.port}" + query(knowing(authority)))
    assert why
    assert taken < 10.0


@needs_server
@needs_openssl
async def test_plain_text_to_a_tls_port_and_tls_to_a_plain_port_fail_soon(
    tls_server: Server, authority: Authority
) -> None:
    why, taken = await refused(f"redis://127.0.0.1:{tls_server.port}")
    assert why
    assert taken < 10.0
    with one() as plain:
        why, taken = await refused(f"rediss://127.0.0.1:{plain.port}" + query(knowing(authority)))
        assert why
        assert taken < 10.0


@needs_server
@needs_openssl
async def test_a_cluster_works_over_tls(authority: Authority) -> None:
    with Cluster(tls=tls_options(authority), client_options=knowing(authority)) as cluster:
        url = cluster.url.replace("redis+", "rediss+") + query(knowing(authority))
        async with line_world(url) as world:
            for _ in range(6):
                await works(world)


@needs_server
@needs_openssl
async def test_sentinels_work_over_tls(authority: Authority) -> None:
    with Sentinels(tls=tls_options(authority), client_options=knowing(authority)) as group:
        url = group.url.replace("redis+", "rediss+") + query(knowing(authority))
        async with line_world(url) as world:
            await works(world)


# -- users


def documented(user: str) -> list[str]:
    """The words of a user in the docstring, with the part for clusters."""
    assert url_forms
    begin = url_forms.index(user)
    return url_forms[begin:].split("\n\n")[0].replace("and on a cluster", "").split()


LEAST = [word.replace(">PASSWORD", ">open-sesame") for word in documented("user weir on >PASSWORD ~weir:*")]


def allowed(*without: str) -> tuple[str, ...]:
    return ("--user", *(word for word in LEAST[1:] if word not in without))


@needs_server
async def test_the_least_user_is_enough_for_one_server(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with one(*allowed()) as server:
        async with line_world(f"redis://weir:open-sesame@127.0.0.1:{server.port}/0") as world:
            await works(world)
            await everything(world)
            for words in (("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("GET", "another")):
                with pytest.raises(StoreUnavailable):
                    await world.line.call(*words)
                await eventually(lambda: pings(world))
        async with line_world(f"redis://weir:open-sesame@127.0.0.1:{server.port}/3") as world:
            await works(world)


@needs_server
async def test_the_least_user_is_enough_for_a_cluster() -> None:
    with Cluster(server_options=allowed()) as cluster:
        async with line_world(cluster.url.replace("://", "://weir:open-sesame@")) as world:
            await works(world)
            await everything(world)


@needs_server
async def test_the_least_user_is_enough_behind_sentinels() -> None:
    with Sentinels(server_options=allowed()) as group:
        async with line_world(group.url.replace("://", "://weir:open-sesame@")) as world:
            await works(world)
            await everything(world)


async def everything(world: LineWorld) -> None:
    """All else that Weir asks of Redis."""
    directory = world.directory
    assert await directory.eviction_policy() == ""
    await directory.put_team("by-file", Limits(rpm=10, concurrency=2))
    await directory.put_team("by-file", Limits(rpm=20, concurrency=2))
    await directory.put_key("by-file", "one", Limits(), "0" * 64)
    new = await directory.create_key("by-file", "two", Limits(tpm=100))
    await directory.rotate_key(new.key.id, 60)
    principal = await world.caller(Limits(concurrency=2))
    world.limiter._renew_lease(await world.limiter.take(principal, ask()))
    await world.keys.models(principal)
    await world.limiter.standing(principal)
    await directory.update_key(new.key.id, lambda _: Limits(), name="three", expires=0)
    await directory.revoke_key(new.key.id)
    assert len(await directory.keys()) == 3
    await directory.delete_team("by-file")
    await world.dismiss(principal)
    assert await directory.empty()
    levels = LevelBook(world.line)
    await levels.set(EVERYBODY, "debug", 60)
    assert EVERYBODY in (await levels.read())[1]
    await levels.reset()


MISSING = [
    ("+evalsha", "evalsha"),
    ("+@write", "del"),
    ("+client|setname", "client|setname"),
]


@needs_server
@pytest.mark.parametrize(("without", "word"), MISSING, ids=[row[0] for row in MISSING])
async def test_what_a_user_may_not_is_named_with_the_user(without: str, word: str) -> None:
    with one(*allowed(without)) as server:
        why, _ = await refused(f"redis://weir:open-sesame@127.0.0.1:{server.port}")
        assert "'weir'" in why
        assert word in why
        assert "sesame" not in why


@needs_server
async def test_a_wrong_password_is_named_with_the_user_everywhere() -> None:
    with one(*allowed()) as server, Cluster(server_options=allowed()) as cluster:
        for url in (f"redis://weir:sesame@127.0.0.1:{server.port}", cluster.url.replace("://", "://weir:sesame@")):
            why, taken = await refused(url)
            assert "user 'weir'" in why
            assert "invalid username-password" in why
            assert "sesame" not in why
            assert taken < 10.0
