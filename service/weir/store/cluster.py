"""The port `Commands` on a Redis Cluster: one batcher for each master, and a map that says whose a key is.

A command that comes back because its slot lives elsewhere is sent there, so that callers see one Redis. One master that
is away fails those whose slots it has; the others do not notice, where the cluster itself is told so
(`cluster-require-full-coverage no`).
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError

from weir.core.commands import CommandRefused, Word
from weir.core.errors import StoreUnavailable
from weir.store.batcher import PAUSE_FIRST, PENDING_MAX, Batcher, Waiting
from weir.store.connect import COMMAND_SECONDS, CONNECT_SECONDS, Address, Asking
from weir.store.refusals import NOT_SERVED, kind_of, reason_of, user_of

PAUSE_MAX = 1.0  # between looks at the cluster while something is wrong: a failover should be seen soon
HOPS_MAX = 5
TRY_AGAIN_SECONDS = 0.01

KEYLESS = frozenset(
    (
        *("ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "ECHO", "FLUSHALL", "INFO", "LATENCY", "MEMORY"),
        *("PING", "PUBLISH", "ROLE", "SCRIPT", "SLOWLOG", "TIME", "WAIT"),
    )
)
SCRIPTS = frozenset(("EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"))


class ClusterCommands:
    """See `Commands`. A script's keys share one slot (see core/layout.py); the first of them says which.

    `up`: some master answers, so that asking may help. `on_change` hears, once per change, whether all slots are
    served: (True, "") or (False, who is away and why).
    """

    def __init__(
        self,
        seeds: Sequence[Address],
        client_of: Callable[[Address], "Redis"],
        *,
        command_seconds: float = COMMAND_SECONDS,
        on_change: Callable[[bool, str], None] = lambda _up, _why: None,
        on_batch: Callable[[int], None] = lambda _commands: None,
        on_reply: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self.on_batch, self.on_reply = on_batch, on_reply
        self._seeds = tuple(seeds)
        self._client_of = client_of
        self._deadline = command_seconds
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._nodes: dict[Address, _Node] = {}
        self._known: set[Address] = set(seeds)  # masters and replicas: whom to ask when the masters are away
        self._slots: list[_Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._early: list[tuple[Waiting, int | None]] | None = []  # before there is a map
        self._whole: bool | None = None
        self._why = ""
        self._asking = Asking()
        self._closing: set[asyncio.Task[None]] = set()
        self._stale = asyncio.Event()
        self._task = self._loop.create_task(self._follow(), name="weir redis cluster")

    @property
    def up(self) -> bool:
        return any(node.batcher.up for node in self._nodes.values())

    def call(self, *words: Word) -> asyncio.Future[Any]:
        slot = _slot_of(words)
        node = self._any() if slot is None else self._slots[slot]
        if node is not None:
            return node.batcher.call(*words)
        future = self._loop.create_future()
        packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub knows tuples of one word only
        self._wait_for_map(Waiting(future, self._loop.time(), packed), slot)
        return future

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        self._end_waiting("closing")
        nodes, self._nodes = list(self._nodes.values()), {}
        self._slots, self._why = [None] * REDIS_CLUSTER_HASH_SLOTS, "closing"
        for leaving in self._closing:
            leaving.cancel()
        await asyncio.gather(*(node.batcher.close() for node in nodes), *self._closing, return_exceptions=True)
        await self._asking.end()

    # -- commands that come back

    def came_back(self, node: "_Node", text: str, waiting: Waiting) -> bool:
        """What one node has refused; True if somebody looks after it now."""
        kind = kind_of(text)
        if kind in ("MOVED", "ASK"):
            _, slot, where = text.split(" ")[:3]
            to = self._node(_address(where, node.address[0]))
            if kind == "MOVED":
                self._slots[int(slot)] = to
                self._stale.set()
            if waiting.hops < HOPS_MAX:
                to.batcher.take_over(waiting._replace(hops=waiting.hops + 1, asking=kind == "ASK"))
                return True
        elif kind == "TRYAGAIN":
            # Half of a script's keys are there and half here, for as long as the slot is on its way.
            if self._loop.time() + TRY_AGAIN_SECONDS < waiting.since + self._deadline:
                self._loop.call_later(TRY_AGAIN_SECONDS, node.batcher.take_over, waiting)
                return True
        elif kind == "CLUSTERDOWN" and NOT_SERVED in text:
            self._stale.set()
        else:
            return False
        if not waiting.future.done():
            waiting.future.set_exception(StoreUnavailable(reason=text, retry_after=1.0))
        return True

    # -- before there is a map

    def _wait_for_map(self, waiting: Waiting, slot: int | None) -> None:
        self._stale.set()
        if self._early is None or len(self._early) >= PENDING_MAX:
            why = self._why or "no node of the cluster serves this slot"
            waiting.future.set_exception(StoreUnavailable(reason=why, retry_after=1.0))
            return
        self._early.append((waiting, slot))
        self._loop.call_later(self._deadline + CONNECT_SECONDS, _too_late, waiting.future)

    def _end_waiting(self, why: str) -> None:
        """Whoever waits for the map gets on its way, or is told why not."""
        early, self._early = self._early or [], None
        for waiting, slot in early:
            node = self._any() if slot is None else self._slots[slot]
            if node is not None:
                node.batcher.take_over(waiting)
            elif not waiting.future.done():
                waiting.future.set_exception(StoreUnavailable(reason=why, retry_after=1.0))

    # -- the map

    async def _follow(self) -> None:
        """For ever: look at the cluster when something has changed, and again after pauses until all is well."""
        pause = PAUSE_FIRST
        while True:
            self._stale.clear()
            well = await self._look_around() and self._whole
            if well:
                pause = PAUSE_FIRST
                await self._stale.wait()
            await asyncio.sleep(pause)  # however many changes come together, they cost one look
            pause = min(pause * 2, PAUSE_MAX)

    async def _look_around(self) -> bool:
        try:
            self._learn(*await self._ask_around())
        except (StoreUnavailable, CommandRefused, RedisError, OSError, TimeoutError) as error:
            why = (error.reason if isinstance(error, StoreUnavailable) else str(error)) or type(error).__name__
        except (ValueError, TypeError, IndexError):
            why = "what it says of its slots cannot be read"
        else:
            self._look()
            return True
        self._end_waiting(why)
        if not self.up:
            self._change(whole=False, why=why)
        return False

    async def _ask_around(self) -> tuple[list[Any], str]:
        """Slots as one node sees them, and that node's host. Raises the error of the last that was asked."""
        for node in self._living():
            try:
                return await node.batcher.call("CLUSTER", "SLOTS"), node.address[0]
            except (StoreUnavailable, CommandRefused):
                continue
        # All at once: who is dead without refusing would make the others wait.
        asked = [self._asking.start(self._ask(address)) for address in sorted(self._known | {*self._seeds})]
        error: Exception = StoreUnavailable(reason="there are no nodes to ask")
        for answer in asyncio.as_completed(asked):
            try:
                return await answer
            except (RedisError, OSError, TimeoutError) as its:
                error = its
        raise error

    async def _ask(self, address: Address) -> tuple[list[Any], str]:
        client = self._client_of(address)
        try:
            async with asyncio.timeout(2 * CONNECT_SECONDS + self._deadline):
                connection = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
                try:
                    await connection.send_command("CLUSTER", "SLOTS")
                    return await connection.read_response(), address[0]
                finally:
                    await client.connection_pool.release(connection)
        except RedisError as error:
            raise RedisError(reason_of(error, user_of(client))) from error
        finally:
            await client.aclose()

    def _learn(self, ranges: Iterable[Any], asked: str) -> None:
        slots: list[_Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        known: set[Address] = set()
        for first, last, *nodes in ranges:
            addresses = [(_host(host, asked), int(port)) for host, port, *_ in nodes]
            known.update(addresses)
            slots[first : last + 1] = [self._node(addresses[0])] * (last + 1 - first)
        if not known:
            raise StoreUnavailable(reason="the cluster has no slots yet")
        self._slots, self._known = slots, known
        self._end_waiting("no node of the cluster serves this slot")
        masters = {node.address for node in slots if node is not None}
        for address in [address for address in self._nodes if address not in masters]:
            self._leave(self._nodes.pop(address))

    def _node(self, address: Address) -> "_Node":
        if address not in self._nodes:
            self._nodes[address] = _Node(self, address, self._client_of(address), self._deadline)
        return self._nodes[address]

    def _leave(self, node: "_Node") -> None:
        task = self._loop.create_task(node.leave())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _any(self) -> "_Node | None":
        return next(iter(self._living()), next(iter(self._nodes.values()), None))

    def _living(self) -> list["_Node"]:
        return [node for node in self._nodes.values() if node.batcher.up]

    # -- how it is

    def node_changed(self, up: bool) -> None:  # noqa: FBT001 - a callback's form
        if not up:
            self._stale.set()
        self._look()

    def _look(self) -> None:
        serving = {node.address: node for node in self._slots if node is not None}
        away = [f"{host}:{port} is away: {node.why}" for (host, port), node in serving.items() if node.away]
        if None in self._slots:
            away.append("some slots are served by no node")
        if away and self._early is None:
            self._change(whole=False, why="; ".join(away))
        elif not away and serving and all(node.batcher.up for node in serving.values()):
            self._change(whole=True, why="")

    def _change(self, *, whole: bool, why: str) -> None:
        self._why = why
        if self._whole is not whole:
            self._whole = whole
            self._on_change(whole, why)


class _Node:
    """One master and its batcher."""

    def __init__(self, cluster: ClusterCommands, address: Address, client: "Redis", command_seconds: float) -> None:
        self.address = address
        self.why = ""
        self._cluster = cluster
        self._patience = command_seconds + CONNECT_SECONDS
        self.batcher = Batcher(
            client,
            command_seconds=command_seconds,
            on_change=self._changed,
            on_batch=cluster.on_batch,
            on_reply=cluster.on_reply,
            owns=True,
            elsewhere=self._elsewhere,
        )

    @property
    def away(self) -> bool:
        """It was tried and does not answer; one that is being connected to is neither up nor away."""
        return self.batcher.tried and not self.batcher.up

    async def leave(self) -> None:
        """It has no slots any more; what it was asked before is answered first."""
        try:
            await asyncio.sleep(self._patience)
        finally:
            await self.batcher.close()

    def _changed(self, up: bool, why: str) -> None:  # noqa: FBT001 - a callback's form
        self.why = why
        self._cluster.node_changed(up)

    def _elsewhere(self, text: str, waiting: Waiting) -> bool:
        return self._cluster.came_back(self, text, waiting)


def _slot_of(words: Sequence[Word]) -> int | None:
    """None where any node will do. Raises TypeError or ValueError for a word that cannot be sent."""
    name = words[0]
    name = (name.decode() if isinstance(name, bytes) else str(name)).upper()
    if name in SCRIPTS:
        key = words[3] if int(words[2]) else None
    else:
        key = words[1] if len(words) > 1 and name not in KEYLESS else None
    if key is None:
        return None
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def _host(host: bytes | None, asked: str) -> str:
    """A node that does not know its own name is where it was asked."""
    return asked if host in (None, b"", b"?") else host.decode()


def _address(where: str, asked: str) -> Address:
    host, _, port = where.rpartition(":")
    return _host(host.encode(), asked), int(port)


def _too_late(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(StoreUnavailable(reason="no reply from redis in time", retry_after=1.0, sent=True))
