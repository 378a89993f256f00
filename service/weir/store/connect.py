"""A redis-py client from the settings' URL. These are its forms:

    redis://user:password@host:6379/0                                one server; rediss:// with TLS
    unix:///run/redis.sock?db=0                                      one server on a socket of this machine
    redis+sentinel://user:password@h1:26379,h2:26379/mymaster/0      the master that the sentinels name
    redis+cluster://user:password@h1:6379,h2:6379                    a cluster, found from any of its nodes

`rediss+sentinel://` and `rediss+cluster://` speak TLS with all of them. User and password are the servers' ACL user,
percent-encoded where they hold any of `:/?#@`; sentinels that ask for a password get `?sentinel_password=` (and
`?sentinel_username=`). TLS is set as redis-py names it: `?ssl_ca_certs=/path/ca.pem`, `ssl_certfile` and `ssl_keyfile`
for a certificate of our own, `ssl_cert_reqs=none` to check nothing. `OPTIONS` lists every option there is.

The least that a user must be allowed:

    user weir on >PASSWORD ~weir:* resetchannels -@all +@read +@write -@dangerous +eval +evalsha +time +ping
        +info +role +select +client|setname            and on a cluster
        +asking +command +cluster|slots

and one of a sentinel:

    user weir on >PASSWORD resetkeys resetchannels -@all +ping +sentinel|masters +client|setname
"""

import asyncio
import difflib
import re
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar
from urllib.parse import unquote

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, ClusterPipeline, RedisCluster
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError

CONNECT_SECONDS = 0.25
COMMAND_SECONDS = 0.1

FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
TLS = (*FILES, "ssl_ca_data", "ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers")
SENTINEL = ("sentinel_username", "sentinel_password")
OPTIONS = ("db", "username", "password", "client_name", "socket_connect_timeout", "socket_keepalive", *TLS, *SENTINEL)
SHOWN = ("db", "client_name", "socket_connect_timeout", "ssl_ca_certs", "ssl_cert_reqs", "ssl_check_hostname")
SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")

T = TypeVar("T")
Client: TypeAlias = "Redis | RedisCluster"
Address: TypeAlias = tuple[str, int]


def connect(url: str, *, command_seconds: float | None = 5.0) -> Client:
    """A client that retries nothing by itself: whoever calls knows better how long there is to wait.

    `command_seconds` None leaves deadlines to the caller altogether, as the batcher has it.

    Raises ValueError for a URL that is none of the forms above, or whose TLS files cannot be read. Its sentence holds
    nothing of the user and the password.
    """
    return Place.of(url).client(command_seconds)


def printable(url: str) -> str:
    """The URL without its user, its passwords and whatever might be part of one, for logs and messages."""
    scheme, separator, rest = url.rpartition("://") if url.count("://") == 1 else ("", "", url)
    place, question, query = rest.partition("?")
    if "@" in query:  # a question mark inside of a password, or an @ inside of a parameter: nobody knows
        return f"{scheme}{separator}..."
    place = place.rpartition("@")[2]
    shown = "&".join(part for part in query.split("&") if part.partition("=")[0] in SHOWN)
    return scheme + separator + place + (question + shown if shown else "")


@dataclass(frozen=True, slots=True)
class Place:
    """A URL, read. `options` are what redis-py's connections take; `address` has a port of 0 where it is a socket."""

    form: Literal["one", "sentinel", "cluster"]
    tls: bool
    addresses: tuple[Address, ...]
    service: str
    options: dict[str, Any]
    sentinel_options: dict[str, Any]

    @staticmethod
    def of(url: str) -> "Place":
        """Raises ValueError, as `connect`."""
        place = _read(url)
        _try_out(place)
        return place

    def client(self, command_seconds: float | None) -> Client:
        match self.form:
            case "one":
                return self.one(self.addresses[0], command_seconds)
            case "sentinel":
                return _SentinelRedis.of(self, command_seconds)
            case "cluster":
                return _Cluster.of(self, command_seconds)

    def one(self, address: Address, command_seconds: float | None) -> "Redis":
        """A client of one server; of one node of the cluster, if it is one."""
        kwargs = self.connection(command_seconds)
        host, port = address
        if not port:
            pool = ConnectionPool(connection_class=UnixDomainSocketConnection, path=host, **kwargs)
        else:
            kind = SSLConnection if self.tls else Connection
            pool = ConnectionPool(connection_class=kind, host=host, port=port, **kwargs)
        return Redis.from_pool(pool)

    def connection(self, command_seconds: float | None) -> dict[str, Any]:
        return _unhurried(command_seconds) | self.options

    @property
    def tls_options(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if name in TLS} | (
            {"ssl": True} if self.tls else {}
        )


def _unhurried(command_seconds: float | None) -> dict[str, Any]:
    return {
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": command_seconds,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "client_name": "weir",
    }


class Asking:
    """Questions to several servers of which the first answers are enough.

    The others are not cancelled: they end at their own deadlines, and a cancelled attempt to connect may leave a socket
    behind that nobody closes.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def end(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # it is heard now


# -- reading


def _read(url: str) -> Place:
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in SCHEMES:
        raise ValueError(
            "a Redis URL begins with " + ", ".join(f"{one}://" for one in SCHEMES[:-1]) + f" or {SCHEMES[-1]}://"
        )
    base, _, form = scheme.partition("+")
    rest, _, query = rest.partition("?")
    options = _options(query)
    credentials, _, rest = ("", "", rest) if base == "unix" and rest.startswith("/") else rest.rpartition("@")
    username, _, password = (unquote(part) for part in credentials.partition(":"))
    options = {name: value for name, value in (("username", username), ("password", password)) if value} | options
    _check_options(base, form, options)
    if base == "unix":
        if not rest.startswith("/"):
            raise ValueError("unix:// wants the absolute path of a socket, as in unix:///run/redis.sock")
        return Place("one", False, ((unquote(rest), 0),), "", options, {})
    tls = base == "rediss"
    hosts, _, path = rest.partition("/")
    if form == "sentinel":
        service, _, database = path.partition("/")
        _set_database(options, database)
        if not service:
            raise ValueError("redis+sentinel:// wants the name of the master after the sentinels: .../mymaster/0")
        sentinel_options = {name.removeprefix("sentinel_"): options.pop(name) for name in SENTINEL if name in options}
        return Place("sentinel", tls, _addresses(hosts, 26379), unquote(service), options, sentinel_options)
    _set_database(options, path)
    if form == "cluster":
        if options.pop("db", 0):
            raise ValueError("a cluster has no database but 0")
        return Place("cluster", tls, _addresses(hosts, 6379), "", options, {})
    addresses = _addresses(hosts or "localhost", 6379)
    if len(addresses) > 1:
        raise ValueError("several addresses are for redis+sentinel:// and redis+cluster://")
    return Place("one", tls, addresses, "", options, {})


def _check_options(base: str, form: str, options: dict[str, Any]) -> None:
    if form != "sentinel" and any(name in options for name in SENTINEL):
        raise ValueError("sentinel_password and sentinel_username belong to redis+sentinel://")
    if base != "rediss" and (tls := [name for name in options if name in TLS]):
        raise ValueError(f"{tls[0]} is for TLS, which is rediss://, rediss+sentinel:// and rediss+cluster://")


def _options(query: str) -> dict[str, Any]:
    names = [part.partition("=")[0] for part in query.split("&") if part]
    for name in names:
        if name not in OPTIONS:
            if "@" in query or not re.fullmatch("[a-z_]+", name):  # it may be half a password with a ? in it
                raise ValueError("a Redis URL has an option that there is not; write %3F for a ? inside of a password")
            near = difflib.get_close_matches(name, OPTIONS, 1)
            raise ValueError(f"a Redis URL has no option '{name}'" + (f"; is '{near[0]}' meant?" if near else ""))
    try:
        options: dict[str, Any] = dict(parse_url(f"redis://host?{query}"))
    except ValueError as error:
        raise ValueError(f"the Redis URL's options: {error}") from None
    options.pop("host", None)
    return options


def _set_database(options: dict[str, Any], database: str) -> None:
    # redis-py takes what is no number for 0.
    if database and not database.isdecimal():
        raise ValueError("what follows the last / of a Redis URL is the number of a database")
    if database:
        options.setdefault("db", int(database))


def _addresses(hosts: str, default_port: int) -> tuple[Address, ...]:
    # What stands here may be half a password whose / is not percent-encoded, so it is not repeated.
    found: list[Address] = []
    for one in filter(None, hosts.split(",")):
        if one.startswith("["):
            host, bracket, port = one[1:].partition("]")
            if not bracket or (port and not port.startswith(":")):
                raise ValueError("an IPv6 address in a Redis URL is written [address]:port")
            port = port[1:]
        else:
            host, _, port = one.partition(":")
        if not host or (port and not (port.isdecimal() and 0 < int(port) < 65536)):
            raise ValueError(
                "the addresses of a Redis URL are host:port, with a number for a port (a : / ? # or @ inside of a user "
                "or password is percent-encoded)"
            )
        found.append((unquote(host), int(port or default_port)))
    if not found:
        raise ValueError("a Redis URL wants at least one host:port")
    return tuple(found)


def _try_out(place: Place) -> None:
    """Everything that fails without a server fails here, and not with each attempt to connect."""
    if place.options.get("ssl_cert_reqs", "none") not in ("none", "optional", "required"):
        raise ValueError("ssl_cert_reqs of the Redis URL is none, optional or required")
    for name in FILES:
        if name in place.options and not Path(place.options[name]).is_file():
            raise ValueError(f"{name} of the Redis URL: there is no file {place.options[name]}")
    connection = place.one(place.addresses[0], None).connection_pool.make_connection()  # type: ignore[no-untyped-call]
    if isinstance(connection, SSLConnection):
        try:
            connection.ssl_context.get()
        except (OSError, ValueError) as error:
            raise ValueError(f"the certificates of the Redis URL cannot be used: {error}") from None


# -- Sentinel


class _Sentinels(Sentinel):
    """All sentinels are asked at once, and of a majority the one with the newest configuration is believed.

    One after another, a sentinel that is dead but does not refuse would cost each attempt to connect its deadline.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._asking = Asking()

    async def discover_master(self, service_name: str) -> Address:
        asked = [self._asking.start(_masters(sentinel)) for sentinel in self.sentinels]
        answers: list[dict[str, Any]] = []
        errors: list[str] = []
        for answer in asyncio.as_completed(asked):
            try:
                answers.append((await answer).get(service_name, {}))
            except (RedisError, OSError, TimeoutError) as error:
                errors.append(str(error) or type(error).__name__)
            if len(answers) > len(asked) // 2:
                break
        masters = [one for one in answers if one and self.check_master_state(one, service_name)]
        if not masters:
            known = any(answers) or not answers
            why = "; ".join(errors) or ("it is down and no other is elected yet" if known else "they do not know it")
            raise MasterNotFoundError(f"the sentinels name no master '{service_name}': {why}")
        newest = max(masters, key=lambda one: int(one.get("config-epoch", 0)))
        return newest["ip"], newest["port"]

    async def aclose(self) -> None:
        await self._asking.end()
        await super().aclose()


async def _masters(sentinel: "Redis") -> dict[str, Any]:
    masters: Any = await sentinel.sentinel_masters()  # redis-py's type knows a list too, of another protocol
    return dict(masters)


class _SentinelRedis(Redis):
    """A client of whichever server is the master; its connections to the sentinels go with it."""

    _sentinels: _Sentinels

    @classmethod
    def of(cls, place: Place, command_seconds: float | None) -> "_SentinelRedis":
        kwargs = place.connection(command_seconds)
        patience = kwargs["socket_connect_timeout"]
        sentinels = _Sentinels(
            place.addresses,
            sentinel_kwargs=_unhurried(patience)
            | {"socket_connect_timeout": patience}
            | place.tls_options
            | place.sentinel_options,
        )
        pool = SentinelConnectionPool(place.service, sentinels, **kwargs, ssl=place.tls)  # type: ignore[no-untyped-call]
        client = cls(connection_pool=pool)
        client.auto_close_connection_pool = True
        client._sentinels = sentinels
        return client

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - redis-py's form
        await super().aclose(close_connection_pool)
        await self._sentinels.aclose()


# -- Cluster


class _Cluster(RedisCluster):
    """redis-py's own, but all of its errors are RedisErrors, each makes it look at the cluster anew, and closing it
    closes every connection.
    """

    __slots__ = ()

    @classmethod
    def of(cls, place: Place, command_seconds: float | None) -> "_Cluster":
        kwargs = place.connection(command_seconds) | place.tls_options
        nodes = [ClusterNode(host, port) for host, port in place.addresses]
        return cls(startup_nodes=nodes, **kwargs)

    async def initialize(self, *args: Any, **kwargs: Any) -> "RedisCluster":
        try:
            return await super().initialize(*args, **kwargs)
        except RedisClusterException as error:
            raise RedisConnectionError(str(error)) from error

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().execute_command(*args, **kwargs)
        except RedisClusterException as error:
            raise RedisConnectionError(str(error)) from error

    def pipeline(self, transaction: Any | None = None, shard_hint: Any | None = None) -> ClusterPipeline:  # noqa: ARG002
        return _Pipeline(self, transaction)  # type: ignore[abstract]  # it declares an attribute that it never sets

    async def aclose(self) -> None:
        await super().aclose()
        # After an error redis-py means to look at the cluster anew, and forgets that there are connections.
        manager = self.nodes_manager
        nodes = [*manager.nodes_cache.values(), *manager.startup_nodes.values()]
        tasks = [*manager._background_tasks]  # noqa: SLF001 - they close connections too
        tasks += [task for node in nodes for task in node._background_tasks]  # noqa: SLF001
        await asyncio.gather(*tasks, return_exceptions=True)
        await manager.aclose()
        await manager.aclose("startup_nodes")


class _Pipeline(ClusterPipeline):
    __slots__ = ()

    async def execute(self, raise_on_error: bool = True, allow_redirections: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - redis-py's form
        try:
            return await super().execute(raise_on_error, allow_redirections)
        except (RedisError, RedisClusterException) as error:
            # redis-py does so only where it tries again by itself; without it, a failover would never be noticed.
            self.cluster_client._initialize = True  # noqa: SLF001 - there is no public way
            if isinstance(error, RedisError):
                raise
            raise RedisConnectionError(str(error)) from error
