"""Plays the table of `faults.py`: a real Weir, a real Redis and a real model's server, each behind a fault proxy.

One Weir for each `redis.on_outage`, each with a Redis of its own. Each cell has a team, a key and, on the upstream
side, a model of its own, so that what one leaves behind is not the next one's. After each the fault is taken away, and
all has to be well again.
"""

import contextlib
import hashlib
import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from tests.fakes.fault_proxy import Fault, FaultProxy
from tests.fakes.redis_server import Kind, RedisServer
from tests.system import faults
from tests.system.faults import (
    ALONE,
    AWAY,
    CLOSED,
    COUNTED,
    DEGRADED,
    EJECTED,
    FALLBACK,
    FALLS_BACK,
    NOTHING,
    OPEN,
    PAGE,
    REDIS,
    REPLAYED,
    RETRY,
    RETRY_AFTER,
    TIMEOUTS,
    TWO,
    UPSTREAM,
    WAITING,
    Cell,
)
from tests.system.harness import (
    Key,
    Process,
    RawExchange,
    Upstream,
    Weir,
    chat_bytes,
    choose_redis,
    configuration,
    eventually,
    free_port,
    model,
)

LATE = Fault(latency_ms=300)
UPSTREAM_EVENTS = {RETRY, EJECTED, FALLBACK}
ARRIVAL = 0.05  # seconds until what was reset has heard of it
SEEN_WITHIN = 4.0  # seconds: metrics are gauged once a second, a silent Redis is given up after one
WELL_WITHIN = 8.0  # seconds: pauses between attempts to connect grow to 2
USAGE = (300, 200)
WHOLE_DAY = {"burst_seconds": 86_400, "rpm": 1, "tpm": 1, "concurrency": 2}  # 1440 of each; one comes back a minute
THREE = {"burst_seconds": 180, "rpm": 1}


def program() -> str:
    found = choose_redis().program or shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        pytest.skip("a container cannot take over another's address: needs a redis-server on the PATH")
    return found


class BlackHole:
    """An address that takes no connection and refuses none, because its backlog is full."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.port = self._listener.getsockname()[1]
        self._fillers = [socket.socket() for _ in range(2)]
        for filler in self._fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))

    def close(self) -> None:
        for one in (*self._fillers, self._listener):
            one.close()


class Surroundings:
    """What all Weirs share: the model's server, and a Redis that loads for longer than the tests last."""

    def __init__(self, directory: Path) -> None:
        self.program = program()
        with contextlib.ExitStack() as ends:
            self.upstream = Upstream()
            ends.callback(self.upstream.close)
            self.hole = BlackHole()
            ends.callback(self.hole.close)
            self.loading_port = self._loading(directory, ends)
            self._ends = ends.pop_all()

    def close(self) -> None:
        self._ends.close()

    def _loading(self, directory: Path, ends: contextlib.ExitStack) -> int:
        """20 ms for each of 20,000 keys; it answers in between."""
        with RedisServer(Kind("filled", self.program, self.program), "--rdbcompression", "no") as filled:
            with filled.client() as client:
                client.eval("for i = 1, 20000 do redis.call('SET', i, string.rep('x', 1024)) end", 0)
                client.save()
                where = client.config_get("dir")["dir"]
            shutil.copy(Path(where) / "dump.rdb", directory)
        port = free_port()
        slowly = ["--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024"]
        where = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)]
        server = Process(self.program, *where, "--save", "", *slowly)
        ends.callback(server.kill)
        with redis.Redis(port=port) as client:
            server.wait_ready(lambda: loads(client))
        return port


def loads(client: redis.Redis) -> bool:
    try:
        client.get("weir")
    except redis.BusyLoadingError:
        return True
    except redis.ConnectionError:
        return False
    raise AssertionError("it has loaded already")


class Stage:
    """One Weir with its own Redis, and the proxies before that and before the model's server."""

    def __init__(self, around: Surroundings, on_outage: str) -> None:
        self.around, self.upstream = around, around.upstream
        self.spectator = key_of("spectator")
        kind = Kind("own", around.program, around.program)
        options = ("--repl-diskless-sync-delay", "0")
        with contextlib.ExitStack() as ends:
            self.server, self.other = (ends.enter_context(RedisServer(kind, *options)) for _ in range(2))
            self.to_redis = ends.enter_context(FaultProxy("127.0.0.1", self.server.port))
            self.to_model = ends.enter_context(FaultProxy("127.0.0.1", self.upstream.port))
            self.weir = ends.enter_context(Weir(self._configuration(on_outage)))
            self._ends = ends.pop_all()

    def close(self) -> None:
        self._ends.close()

    def _configuration(self, on_outage: str) -> dict[str, Any]:
        here = [cell for cell in CELLS if stage_of(cell) == on_outage]
        models: list[dict[str, Any]] = [model("chat", self.upstream.url), {"name": "echo", "backend": "echo"}]
        models += [self._model(cell) for cell in here if cell.row.side == UPSTREAM]
        settings = {"url": f"redis://127.0.0.1:{self.to_redis.port}/0", "on_outage": on_outage}
        teams = [team("spectator", {}), *(team(cell.name, limits_of(cell)) for cell in here)]
        return configuration("", models, redis=settings, teams=teams)

    def _model(self, cell: Cell) -> dict[str, Any]:
        row = cell.row
        port = self.around.hole.port if cell.fault == "drop" else self.to_model.port
        endpoints = [{"url": f"http://127.0.0.1:{port}/v1", "weight": 1000}]
        if row.setting == TWO:  # the first is asked first, but for one request in a million
            endpoints.append({"url": self.upstream.url, "weight": 0.001})
        more: dict[str, Any] = {"retries": 0 if row.setting in {ALONE, FALLS_BACK} else 2}
        if row.setting == FALLS_BACK:
            more["fallbacks"] = ["chat"]
        return model(cell.name, "", endpoints=endpoints, timeouts=TIMEOUTS, **more)

    # What goes wrong, and well again

    def begin(self, cell: Cell) -> None:
        redis_side = cell.row.side == REDIS
        proxy = self.to_redis if redis_side else self.to_model
        match cell.fault:
            case "refuse":
                proxy.refuse(keep=not redis_side and cell.row.moment == "stream")
            case "reset" if redis_side:
                proxy.refuse(accept=True)
            case "reset":  # not while it connects, which would be another fault
                proxy.reset()
                proxy.switch(to_client=Fault(reset_after=0))
            case "hang":
                proxy.hang()
            case "half-open":
                proxy.half_open()
            case "slow":
                proxy.switch(to_client=LATE, to_server=None if redis_side else LATE)
            case "cut":
                proxy.switch(to_client=Fault(reset_after=250))
            case "loading":
                proxy.target = ("127.0.0.1", self.around.loading_port)
                proxy.reset()
            case "readonly":
                with self.server.client() as client:
                    client.replicaof("127.0.0.1", str(free_port()))
            case "failover":
                self._take_over()
            case "drop" | "busy":
                pass  # the one is where its model's endpoint leads, the other is what its request says
            case _:
                raise AssertionError(f"nobody knows how to do {cell.fault}")
        time.sleep(ARRIVAL)

    def end(self) -> None:
        if self.to_redis.target[1] == self.around.loading_port:
            self.to_redis.target = ("127.0.0.1", self.server.port)
            self.to_redis.reset()
        with self.server.client() as client:
            client.replicaof("NO", "ONE")
        self.to_redis.heal()
        self.to_model.heal()

    def _take_over(self) -> None:
        """The other server, as a replica of the first until now; it knows its data and none of its scripts."""
        with self.server.client() as first, self.other.client() as second:
            second.replicaof("127.0.0.1", str(self.server.port))
            eventually(lambda: second.info("replication")["master_link_status"] == "up", why="the replica follows")
            first.wait(1, 2000)
            second.replicaof("NO", "ONE")
            second.script_flush()
        self.server, self.other = self.other, self.server
        self.to_redis.target = ("127.0.0.1", self.server.port)
        back = len(self.logged("redis is there"))
        self.to_redis.reset()
        # Who asks in the blink in between finds Redis away; the cells of `reset` look at that.
        eventually(lambda: len(self.logged("redis is there")) > back, 2.0, "connected to the other server")

    # What can be seen

    def logged(self, event: str) -> list[dict[str, Any]]:
        found = []
        for line in list(self.weir.process.out):
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and record.get("event") == event:
                    found.append(record)
        return found

    def read(self, selector: str, **more: str) -> float:
        """A metric as the table names it, with some labels more."""
        name, _, labels = selector.rstrip("}").partition("{")
        return self.weir.metric(name, *filter(None, labels.split(",")), *(f'{k}="{v}"' for k, v in more.items()))

    def ready(self) -> int:
        return self.weir_ops("/readyz")

    def weir_ops(self, path: str) -> int:
        return self.weir.http.get(f"{self.weir.ops_url}{path}").status_code

    def left(self, key: Key) -> dict[str, int] | None:
        """What is left by the key's own limits, by unit; None while nobody can say."""
        answer = self.weir.get("/v1/limits", key)
        if answer.status_code != 200 or DEGRADED in answer.headers:
            return None
        return {one["unit"]: one["remaining"] for one in answer.json()["limits"] if one["scope"] == "key"}

    def well(self) -> bool:
        answer = self.weir.chat(self.spectator, model="echo")
        return answer.status_code == 200 and DEGRADED not in answer.headers

    def quiet(self) -> bool:
        gauges = self.weir.metrics()
        names = (AWAY, WAITING, "weir_in_flight_requests", "weir_waiting_requests")
        return not any(gauges[name] for name in names)


def key_of(name: str) -> Key:
    return Key(name, f"a-key-for-{name}", name)


def team(name: str, limits: dict[str, int]) -> dict[str, Any]:
    """With one key, both by the configuration: the command line takes half a second for each."""
    digest = hashlib.sha256(key_of(name).secret.encode()).hexdigest()
    return {"name": name, "keys": [{"digest": digest, "name": name} | limits]}


def limits_of(cell: Cell) -> dict[str, int]:
    return THREE if cell.row.moment == "limit" else WHOLE_DAY


def stage_of(cell: Cell) -> str:
    return cell.row.setting if cell.row.side == REDIS else faults.DEGRADE


CELLS = [*faults.cells(REDIS), *faults.cells(UPSTREAM)]
CELLS.sort(key=stage_of)


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    surroundings = Surroundings(tmp_path_factory.mktemp("loading"))
    yield surroundings
    surroundings.close()


@pytest.fixture(scope="module")
def stages(around: Surroundings) -> Iterator[Callable[[str], Stage]]:
    made: dict[str, Stage] = {}
    with contextlib.ExitStack() as ends:

        def stage(on_outage: str) -> Stage:
            if on_outage not in made:
                made[on_outage] = Stage(around, on_outage)
                ends.callback(made[on_outage].close)
            return made[on_outage]

        yield stage


# -- what a client sees ----------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    status: int
    code: str
    headers: dict[str, str]
    seconds: float
    served: int = 1  # answers of 200
    done: bool = False  # a stream's [DONE]


class Play:
    """One cell's request. `prepare` before the fault, `ask` under it."""

    def __init__(self, stage: Stage, cell: Cell) -> None:
        self.stage, self.cell = stage, cell
        self.weir, self.key = stage.weir, key_of(cell.name)
        self.model = "chat" if cell.row.side == REDIS else cell.name
        self.moment = cell.row.moment
        self._pool = ThreadPoolExecutor(1)

    def prepare(self) -> None:
        script: dict[str, Any] = {"gate": self.cell.name, "usage": USAGE}
        if self.moment != "unknown key" and self.cell.fault != "drop":
            warm = self.weir.chat(self.key, model=self.model, max_tokens=5, x_script={"usage": [1, 1]})
            assert warm.status_code == 200, warm.text
        self.before = self._standing()
        if self.moment == "stream":
            sent = chat_bytes(self.key, self.model, stream=True, max_tokens=500, x_script=script)
            self.stream = RawExchange(self.weir.port, sent)
            assert self.stream.read_event().startswith(b"data:")
        elif self.moment == "settlement":
            self.waiting = self._pool.submit(self._chat, user=self.cell.name, x_script=script)
            self.stage.upstream.record(self.cell.name)

    def _standing(self) -> dict[str, int]:
        if self.moment == "unknown key":
            return {"requests": 1440, "tokens": 1440, "concurrency": 2}
        full = limits_of(self.cell).get("concurrency")

        def settled() -> dict[str, int] | None:
            left = self.stage.left(self.key)
            return left if left and left.get("concurrency") == full else None

        standing = eventually(settled, why="the first request is settled")
        assert standing is not None
        return standing

    def ask(self) -> Seen:
        match self.moment:
            case "stream":
                return self._read_stream()
            case "settlement":
                self._open_gate()
                return self.waiting.result()
            case "limit":
                return self._until_refused()
            case _:
                play = "overloaded" if self.cell.fault == "busy" else "answer"
                return self._chat(x_script={"play": play, "usage": USAGE})

    def close(self) -> None:
        self._open_gate()  # whatever went wrong
        self._pool.shutdown()
        if self.moment == "stream" and hasattr(self, "stream"):
            self.stream.leave()

    def _open_gate(self) -> None:
        self.opened = time.monotonic()
        self.stage.upstream.open_gate(self.cell.name)

    def _chat(self, **fields: Any) -> Seen:
        began = time.monotonic()
        answer = self.weir.chat(self.key, model=self.model, max_tokens=500, **fields)
        if self.moment == "settlement":
            began = self.opened
        seconds = time.monotonic() - began
        code = answer.json()["error"]["code"] if answer.status_code != 200 else ""
        return Seen(answer.status_code, code, dict(answer.headers), seconds, int(answer.status_code == 200))

    def _until_refused(self) -> Seen:
        served, slowest = 0, 0.0
        for _ in range(5):
            seen = self._chat(x_script={"usage": [1, 1]})
            slowest = max(slowest, seen.seconds)
            served += seen.served
            if seen.status != 200:
                break
        return seen._replace(served=served, seconds=slowest)

    def _read_stream(self) -> Seen:
        began = time.monotonic()
        self._open_gate()
        head = self.stream.read_head()
        events = []
        while event := self.stream.read_event():
            events.append(event.strip().removeprefix(b"data: "))
        seconds = time.monotonic() - began
        errors = [json.loads(event)["error"]["code"] for event in events if b'"error"' in event]
        assert len(errors) <= 1
        headers = {name.lower(): value for name, value in head.getheaders()}
        return Seen(head.status, errors[0] if errors else "", headers, seconds, 1, events[-1:] == [b"[DONE]"])


# -- the tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS, ids=[cell.name for cell in CELLS])
def test_cell(cell: Cell, stages: Callable[[str], Stage]) -> None:
    stage = stages(stage_of(cell))
    eventually(lambda: stage.well() and stage.quiet(), WELL_WITHIN, "all is well before")
    play = Play(stage, cell)
    try:
        play.prepare()
        counted = Counted(stage, cell)
        try:
            stage.begin(cell)
            seen = play.ask()
            as_promised(cell, seen)
            counted.while_it_lasts()
        finally:
            stage.end()
        eventually(stage.well, WELL_WITHIN, "served by Redis' word again")
        eventually(stage.quiet, SEEN_WITHIN, "nothing waits, nothing is degraded")
        assert_charged(play, seen)
        counted.in_the_end(seen)
        if cell.row.side == UPSTREAM and cell.fault != "drop":
            eventually(lambda: recovered(stage, cell), WELL_WITHIN, "its endpoint is used again")
    finally:
        play.close()


def as_promised(cell: Cell, seen: Seen) -> None:
    row = cell.row
    assert (seen.status, seen.code) == (row.status, row.code)
    bound = row.seconds + TIMEOUTS.get(row.timeout, 0.0)
    assert seen.seconds < bound, f"{seen.seconds:.2f} s"
    # Half of it, because a stream's silence began with its last byte and not with our asking.
    assert seen.seconds > TIMEOUTS.get(row.timeout, 0.0) / 2, "an answer before its time was out"
    for header in {DEGRADED, RETRY_AFTER} & {row.header}:
        assert int(seen.headers[header]) >= 1
    if row.header != DEGRADED:
        assert DEGRADED not in seen.headers
    if row.moment == "stream":
        assert seen.done is (row.code == ""), "a [DONE], or an error event, and never both"
    if row.moment == "limit":
        # One of three was used before. Buckets here begin full with an outage; Redis' own go on where they were.
        served = {OPEN: 5, CLOSED: 0}.get(row.setting, 2 if cell.fault == "failover" else 3)
        assert seen.served == served


class Counted:
    """What metrics and log said before the fault."""

    def __init__(self, stage: Stage, cell: Cell) -> None:
        self.stage, self.row, self.fault = stage, cell.row, cell.fault
        self.outcome = f'weir_requests_total{{outcome="{cell.row.outcome}"}}'
        self.labels = {"model": cell.name} if cell.row.side == UPSTREAM else {}
        self.at_first = {name: self._read(name) for name in (self.outcome, REPLAYED, *UPSTREAM_EVENTS)}
        self.lines = len(stage.logged(cell.row.line)) if cell.row.line else 0

    def while_it_lasts(self) -> None:
        for gauge in {AWAY, WAITING} & set(self.row.looks):
            eventually(lambda: self._read(gauge) >= 1, SEEN_WITHIN, f"{gauge} moves")  # noqa: B023  asked at once
        if self.row.side == REDIS and self.row.setting == CLOSED and AWAY in self.row.looks:
            eventually(lambda: self.stage.ready() == 503, SEEN_WITHIN, "nothing can be served, and the probe says so")
        else:
            assert self.stage.ready() == (503 if self.row.setting == CLOSED else 200)
        assert self.stage.weir_ops("/livez") == 200

    def in_the_end(self, seen: Seen) -> None:
        assert self._moved(self.outcome) >= 1
        record = self.stage.weir.record(request_id=seen.headers["x-request-id"])
        assert (record["outcome"], record["status"]) == (self.row.outcome, self.row.status)
        if self.row.status >= 500:
            assert record["reason"], "the log says what the client does not hear"
        for counter in {REPLAYED, *UPSTREAM_EVENTS} & set(self.row.looks):
            eventually(lambda: self._moved(counter) >= 1, SEEN_WITHIN, f"{counter} moves")  # noqa: B023
        if self.row.side == UPSTREAM:
            for counter in UPSTREAM_EVENTS - set(self.row.looks):
                assert self._moved(counter) == 0, f"{counter} moves, and nobody promised so"
        if self.row.line:
            lines = eventually(lambda: self.stage.logged(self.row.line)[self.lines :], SEEN_WITHIN, self.row.line)
            why = next(one.why for one in faults.FAULTS[self.row.side] if one.name == self.fault)
            assert re.search(why, lines[0].get("why", "")), lines
            assert len(lines) == 1, "once per change of state"

    def _read(self, selector: str) -> float:
        return self.stage.read(selector, **self.labels if selector in {self.outcome, *UPSTREAM_EVENTS} else {})

    def _moved(self, selector: str) -> float:
        return self._read(selector) - self.at_first[selector]


def assert_charged(play: Play, seen: Seen) -> None:
    """What Redis' buckets say in the end. One unit may have come back in the meantime."""
    row, before = play.cell.row, play.before
    served = 0 if row.charged == NOTHING else seen.served
    tokens = (2, 150) if row.charged == COUNTED else (sum(USAGE), sum(USAGE))
    bounds = {"requests": (served, served), "tokens": tokens if served else (0, 0), "concurrency": (0, 0)}
    left: dict[str, int] = {}

    def charged() -> bool:
        left.update(play.stage.left(play.key) or {})
        used = {unit: before[unit] - left.get(unit, 0) for unit in before}
        return all(bounds[unit][0] - (unit != "concurrency") <= n <= bounds[unit][1] for unit, n in used.items())

    with contextlib.suppress(AssertionError):
        eventually(charged, WELL_WITHIN)
        return
    raise AssertionError(f"charged {row.charged} of {before} leaves {left}")


def recovered(stage: Stage, cell: Cell) -> bool:
    answer = stage.weir.chat(stage.spectator, model=cell.name)
    restored = EJECTED.replace("ejected", "restored")
    return answer.status_code == 200 and stage.read(EJECTED, model=cell.name) == stage.read(restored, model=cell.name)


def test_the_page_has_the_tables_that_are_tested() -> None:
    written = PAGE.read_text()
    assert list(faults.missing(written)) == []
    assert written == faults.page(written), "run: python -m tests.system.faults"


def test_every_fault_is_played_and_told() -> None:
    for side, told in faults.FAULTS.items():
        assert {fault.name for fault in told} == {cell.fault for cell in faults.cells(side)}
    assert {row.moment for row in faults.ROWS} == set(faults.MOMENTS)
