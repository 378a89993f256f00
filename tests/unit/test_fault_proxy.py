"""The fault proxy does what it says; else the tests that use it would prove nothing."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.fakes.fault_proxy import Fault, FaultProxy

PATIENCE = 10.0
A_MOMENT = 0.15  # what is silent for this long is silent


class EchoServer:
    """Says what it hears, in a thread for each connection, and counts who has left and how."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.endings: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
                self.endings.append("end")
            except OSError:
                self.endings.append("reset")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def server() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture
def proxy(server: EchoServer) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.port) as proxy:
        yield proxy


@contextlib.contextmanager
def connected(proxy: FaultProxy) -> Iterator[socket.socket]:
    with socket.create_connection((proxy.host, proxy.port), timeout=PATIENCE) as client:
        yield client


def heard(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return data


def asked(client: socket.socket, text: bytes = b"hello") -> bytes:
    client.sendall(text)
    return heard(client, len(text))


def silent(client: socket.socket) -> bool:
    client.settimeout(A_MOMENT)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    else:
        return False  # a byte, or the end
    finally:
        client.settimeout(PATIENCE)


def eventually_ended(server: EchoServer, how: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while how not in server.endings:
        assert time.monotonic() < deadline, server.endings
        time.sleep(0.01)


def test_passes_much_both_ways_unchanged_and_an_end_as_an_end(proxy: FaultProxy, server: EchoServer) -> None:
    sent = bytes(range(256)) * 8192
    with connected(proxy) as client:
        threading.Thread(target=lambda: (client.sendall(sent), client.shutdown(socket.SHUT_WR)), daemon=True).start()
        assert heard(client, len(sent) + 1) == sent
    eventually_ended(server, "end")


def test_latency_is_added_and_ends_at_once_when_switched_off(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        asked(client)
        proxy.switch(to_client=Fault(latency_ms=100, jitter_ms=50))
        started = time.monotonic()
        assert asked(client) == b"hello"
        assert time.monotonic() - started >= 0.1
        proxy.switch(to_client=Fault(latency_ms=3_600_000))
        client.sendall(b"held")
        assert silent(client)
        proxy.heal()
        assert heard(client, 4) == b"held"


def test_jitter_keeps_the_order(proxy: FaultProxy) -> None:
    proxy.switch(Fault(jitter_ms=20))
    with connected(proxy) as client:
        for i in range(50):
            client.sendall(b"%02d" % i)
            time.sleep(0.001)
        assert heard(client, 100) == b"".join(b"%02d" % i for i in range(50))


def test_bandwidth_is_what_was_given(proxy: FaultProxy) -> None:
    proxy.switch(to_client=Fault(bytes_per_second=100_000))
    with connected(proxy) as client:
        started = time.monotonic()
        assert len(asked(client, b"x" * 30_000)) == 30_000
        assert time.monotonic() - started >= 0.2


def test_slices_arrive_in_small_pieces(proxy: FaultProxy) -> None:
    proxy.switch(to_client=Fault(slice_bytes=3, slice_pause_ms=2))
    with connected(proxy) as client:
        client.sendall(b"0123456789" * 3)
        pieces = []
        while sum(map(len, pieces)) < 30:
            pieces.append(client.recv(100))
    assert b"".join(pieces) == b"0123456789" * 3
    assert len(pieces) > 2, "a slow reader may find several at once, not all of them"


def test_refuses_and_takes_again_on_the_same_port(proxy: FaultProxy, server: EchoServer) -> None:
    with connected(proxy) as client:
        asked(client)
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with pytest.raises(ConnectionRefusedError), connected(proxy):
            pass
        eventually_ended(server, "reset")
        proxy.heal()
        with connected(proxy) as again:
            assert asked(again) == b"hello"


def test_accepts_and_resets(proxy: FaultProxy) -> None:
    with connected(proxy) as kept:
        asked(kept)
        proxy.refuse(accept=True, keep=True)
        with pytest.raises(ConnectionResetError), connected(proxy) as client:
            client.recv(1)
        assert asked(kept) == b"hello"


def test_hangs_in_old_and_new_connections_and_goes_on_where_it_was(proxy: FaultProxy) -> None:
    with connected(proxy) as old:
        asked(old)
        proxy.hang()
        with connected(proxy) as new:
            old.sendall(b"old")
            new.sendall(b"new")
            assert silent(old)
            assert silent(new)
            proxy.heal()
            assert heard(old, 3) == b"old"
            assert heard(new, 3) == b"new"


def test_hangs_in_the_middle_of_slow_bytes(proxy: FaultProxy) -> None:
    proxy.switch(to_client=Fault(bytes_per_second=50))
    with connected(proxy) as client:
        client.sendall(b"x" * 1000)
        assert client.recv(1) == b"x"
        proxy.hang()
        client.settimeout(A_MOMENT)
        with contextlib.suppress(TimeoutError):
            client.recv(1000)  # what was on its way
        assert silent(client)


@pytest.mark.parametrize("count", [0, 1, 700])
def test_resets_behind_so_many_bytes(proxy: FaultProxy, count: int) -> None:
    with connected(proxy) as client:
        asked(client)
        proxy.switch(to_client=Fault(reset_after=count))
        client.sendall(b"x" * 1000)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while more := client.recv(1000):
                got += more
            pytest.fail("it ended instead")
        assert len(got) == count


def test_resets_all_and_takes_new_ones(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        asked(client)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with connected(proxy) as again:
            assert asked(again) == b"hello"


def test_half_open_tells_the_client_nothing(proxy: FaultProxy, server: EchoServer) -> None:
    with connected(proxy) as client:
        asked(client)
        proxy.half_open()
        eventually_ended(server, "reset")
        for _ in range(3):
            client.sendall(b"anybody there?")
            assert silent(client)
        proxy.heal()
        assert silent(client), "what is lost stays lost"
        with connected(proxy) as again:
            assert asked(again) == b"hello"


def test_a_server_that_is_not_there_resets_the_client(server: EchoServer) -> None:
    with FaultProxy("127.0.0.1", server.port) as proxy:
        server.close()
        with pytest.raises(ConnectionResetError), connected(proxy) as client:
            client.recv(1)
        server._socket = socket.create_server(("127.0.0.1", 0))


def test_counts_its_connections_and_leaves_none_behind(proxy: FaultProxy) -> None:
    with connected(proxy) as client, connected(proxy) as other:
        asked(client)
        asked(other)
        assert (proxy.accepted, proxy.open) == (2, 2)
    deadline = time.monotonic() + PATIENCE
    while proxy.open:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_can_be_used_from_a_running_loop(server: EchoServer) -> None:
    async def play() -> None:
        with FaultProxy("127.0.0.1", server.port) as proxy:
            reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
            writer.write(b"one")
            assert await reader.readexactly(3) == b"one"
            proxy.hang()
            writer.write(b"two")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), A_MOMENT)
            proxy.heal()
            assert await reader.readexactly(3) == b"two"
            writer.close()
            await writer.wait_closed()

    asyncio.run(play())
