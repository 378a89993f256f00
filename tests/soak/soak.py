"""A soak: mixed load on a real Weir, whose Redis is killed again and again; afterwards nothing may have grown or be missing.

Clients ask for single answers and streams, and a few leave, before the first byte or behind it. What is held in the end:

* every request is answered or left, and in exactly one outcome of `weir_requests_total`, and in one line of the log
* 503 comes only while Redis is away, and never a hang
* all limits are given back, nothing is in flight
* memory and descriptors are flat: the least-squares line through the samples, over the whole of them
"""

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import psutil

from tests.fakes.redis_server import RedisServer, kinds
from tests.soak.client import Answer, Connection, CutShortError
from tests.system.harness import Admin, Key, Upstream, Weir, configuration, eventually, model, unique

HANG = 20.0  # seconds; the longest honest answer takes two
AFTER_AN_OUTAGE = 10.0  # seconds in which 503 is still understood
LEASE = 5.0  # seconds; what a settlement that was lost would have held
MB = 2**20
LIMITS = {"rpm": 600_000, "tpm": 120_000_000, "concurrency": 10_000}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, and what is still called flat."""

    seconds: float
    redis_every: float = 60.0
    redis_away: float = 2.0
    clients: int = 32
    requests_per_second: float = 120.0
    aborts: float = 0.05
    warm_up: float = 60.0
    rss_growth_mb: float = 8.0  # from the line's beginning to its end
    fd_growth: float = 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    rss: int
    fds: int
    threads: int
    in_flight: float


@dataclass(slots=True)
class Report:
    """What was seen, and in `broken` a sentence for each thing that does not hold."""

    counts: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    slowest: float = 0.0
    broken: list[str] = field(default_factory=list)

    def check(self, holds: object, sentence: str) -> None:
        if not holds and len(self.broken) < 50:
            self.broken.append(sentence)


def growth(samples: Sequence[tuple[float, float]]) -> float:
    """How much the least-squares line through them rises from the first to the last."""
    if len(samples) < 3:
        return 0.0
    times, values = zip(*samples, strict=True)
    return statistics.linear_regression(times, values).slope * (times[-1] - times[0])


def run(plan: Plan, say: Callable[[str], None] = print) -> Report:
    """Raises RuntimeError where there is no Redis that can be killed and keeps what it knew."""
    program = next((kind for kind in kinds() if kind.program is not None), None)
    if program is None:
        raise RuntimeError("needs a redis-server or valkey-server on the PATH: a container forgets when it is killed")
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(program, "--appendonly", "yes", "--appendfsync", "everysec"))
        upstream = Upstream()
        stack.callback(upstream.close)
        config = configuration(
            redis.url,
            [model("chat", upstream.url, default_max_tokens=64), {"name": "echo", "backend": "echo"}],
            redis={"url": redis.url, "on_outage": "closed"},
            limits={"lease_seconds": LEASE},
        )
        admin = Admin(redis.url)
        key = admin.key(admin.team(**LIMITS), **LIMITS)
        weir = stack.enter_context(Weir(config))
        return Soak(plan, redis, upstream, weir, key, say).run()


class Soak:
    """One run."""

    def __init__(
        self, plan: Plan, redis: RedisServer, upstream: Upstream, weir: Weir, key: Key, say: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._redis = redis
        self._upstream = upstream
        self._weir = weir
        self._key = key
        self._say = say
        self._process = psutil.Process(weir.process.pid)
        self._sent: set[str] = set()
        self._report = Report()

    def run(self) -> Report:
        before = self._weir.what_is_left(self._key)
        started = time.monotonic()
        self._end = started + self._plan.seconds
        self._say(f"{'s':>5} {'sent':>8} {'200':>8} {'503':>6} {'left':>6} {'RSS MB':>7} {'fds':>5} {'in flight':>9}")
        asyncio.run(self._load())
        self._judge(before, started)
        return self._report

    # The load

    async def _load(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._plan.clients):
                group.create_task(self._client())
            group.create_task(self._kill_redis())
            group.create_task(asyncio.to_thread(self._look))

    async def _client(self) -> None:
        pause = self._plan.clients / self._plan.requests_per_second
        async with Connection(self._weir.port, self._key.secret) as connection:
            while time.monotonic() < self._end:
                await asyncio.sleep(random.uniform(0, 2 * pause))
                number = unique("soak")
                self._sent.add(number)
                began = time.monotonic()
                try:
                    async with asyncio.timeout(HANG):
                        outcome = await self._ask(connection, number)
                except TimeoutError:
                    outcome = "hang"
                except (CutShortError, OSError) as error:
                    outcome = f"cut: {error!r}"
                if outcome not in ("ok", "left"):
                    connection.leave()
                self._count(outcome, number, began)

    async def _ask(self, connection: Connection, number: str) -> str:
        name, stream = random.choice(("chat", "chat", "echo")), random.random() < 0.5
        said = f"what is said in {number}"
        if random.random() < self._plan.aborts:
            return await self._leave(connection, number, said)
        script = {"chunks": random.randint(1, 20), "delay_ms": random.choice((0, 5, 50)), "usage": [7, 11]}
        answer = await connection.chat(name, said, request_id=number, stream=stream, x_script=script)
        if answer.status != 200:
            return str(answer.status)
        return self._whole(answer, said, script["chunks"], stream=stream, echo=name == "echo")

    def _whole(self, answer: Answer, said: str, chunks: int, *, stream: bool, echo: bool) -> str:
        expected = said if echo else "".join(f"word{i} " for i in range(chunks))
        heard = answer.text if stream else answer.json()["choices"][0]["message"]["content"]
        if heard != expected or (stream and not answer.done):
            return f"not whole: {answer.body[-300:]!r}"
        return "ok"

    async def _leave(self, connection: Connection, number: str, said: str) -> str:
        """Before the first byte by closing, so that what was sent has arrived; behind it by a reset."""
        behind = random.random() < 0.5
        script = {"chunks": 40, "delay_ms": 50} if behind else {"wait_ms": 2000}
        body = {"model": "chat", "messages": [{"role": "user", "content": said}], "stream": True, "x_script": script}
        await connection.send("/v1/chat/completions", body, request_id=number)
        if not behind:
            await asyncio.sleep(random.uniform(0, 0.1))
            await connection.close()
            return "left"
        answer = await connection.head()
        if answer.status != 200:
            connection.leave()
            return str(answer.status)
        async for _ in connection.pieces(answer):
            break
        connection.leave()
        return "left"

    def _count(self, outcome: str, number: str, began: float) -> None:
        report, now = self._report, time.monotonic()
        report.slowest = max(report.slowest, now - began)
        report.counts[outcome if outcome in ("ok", "left", "503", "hang") else "failed"] += 1
        if outcome == "503":
            excused = any(start <= now and began <= end + AFTER_AN_OUTAGE for start, end in report.outages)
            report.check(excused, f"{number} got 503 while Redis was there")
        elif outcome not in ("ok", "left"):
            report.check(holds=False, sentence=f"{number}: {outcome}")

    async def _kill_redis(self) -> None:
        """Kills and starts it again; the first time in the middle of the first interval."""
        wait = self._plan.redis_every / 2
        while time.monotonic() + wait + self._plan.redis_away + AFTER_AN_OUTAGE / 2 < self._end:
            await asyncio.sleep(wait)
            outage = len(self._report.outages)
            began = time.monotonic()
            self._report.outages.append((began, float("inf")))
            await asyncio.to_thread(self._redis.stop)
            await asyncio.sleep(self._plan.redis_away)
            await asyncio.to_thread(self._redis.start)
            self._report.outages[outage] = (began, time.monotonic())
            wait = self._plan.redis_every

    def _look(self) -> None:
        """A sample a second, and a line of the table now and then."""
        started, told = time.monotonic(), 0.0
        while (now := time.monotonic()) < self._end:
            with self._process.oneshot():
                rss, threads = self._process.memory_info().rss, self._process.num_threads()
            in_flight = self._weir.metric("weir_in_flight_requests")
            sample = Sample(now, rss, self._process.num_fds(), threads, in_flight)
            self._report.samples.append(sample)
            if now - told >= max(5.0, self._plan.seconds / 40):
                told = now
                counts = self._report.counts
                self._say(
                    f"{now - started:5.0f} {len(self._sent):8} {counts['ok']:8} {counts['503']:6} {counts['left']:6} "
                    f"{rss / MB:7.1f} {sample.fds:5} {in_flight:9.0f}"
                )
                self._upstream.forget()  # it remembers all that it was asked, which is not ours to measure
            time.sleep(max(0.0, 1.0 - (time.monotonic() - now)))

    # The judgement

    def _judge(self, before: dict[str, float], started: float) -> None:
        report, weir, sent = self._report, self._weir, len(self._sent)
        for sentence, holds in {
            "nothing is in flight": lambda: weir.metric("weir_in_flight_requests") == 0,
            "no settlement waits for Redis": lambda: weir.metric("weir_unsettled_reservations") == 0,
            "all limits are given back": lambda: weir.what_is_left(self._key) == before,
            f"weir_requests_total has all {sent} requests": lambda: weir.metric("weir_requests_total") == sent,
        }.items():
            try:
                eventually(holds, within=4 * LEASE + 10, why=sentence)
            except AssertionError:
                report.check(holds=False, sentence=f"it does not hold that {sentence}: {self._now()}")
        with suppress(AssertionError):
            eventually(lambda: set(self._logged()) >= self._sent, why="lines are written some tenths of a second later")
        logged = Counter(self._logged())
        report.check(
            set(logged) == self._sent and set(logged.values()) <= {1},
            f"{sent} were sent, and the log has {logged.total()} lines of {len(logged)} requests",
        )
        report.check("Traceback" not in weir.process.said, "there is a traceback in the log")
        warm = [sample for sample in report.samples if sample.at - started >= self._plan.warm_up]
        rss = growth([(sample.at, sample.rss / MB) for sample in warm])
        fds = growth([(sample.at, sample.fds) for sample in warm])
        flying = growth([(sample.at, sample.in_flight) for sample in warm])
        report.check(
            rss <= self._plan.rss_growth_mb, f"memory grows: by {rss:.1f} MB, {self._plan.rss_growth_mb} allowed"
        )
        report.check(fds <= self._plan.fd_growth, f"descriptors grow: by {fds:.1f}, {self._plan.fd_growth} allowed")
        report.check(
            flying <= self._plan.clients / 4, f"requests in flight grow: by {flying:.1f} at a load that stays the same"
        )
        report.check(report.counts["ok"], "nothing was served")
        self._say(
            f"{sent} requests in {self._plan.seconds:.0f} s: {dict(report.counts)}, slowest {report.slowest:.2f} s, "
            f"Redis killed {len(report.outages)} times"
        )
        self._say(
            f"over {len(warm)} samples after {self._plan.warm_up:.0f} s: memory {rss:+.1f} MB, descriptors {fds:+.1f}, "
            f"in flight {flying:+.1f}"
        )

    def _now(self) -> str:
        counted = {
            name: self._weir.metric(name)
            for name in ("weir_in_flight_requests", "weir_unsettled_reservations", "weir_requests_total")
        }
        return f"{counted}, {self._weir.what_is_left(self._key)}"

    def _logged(self) -> Iterator[str]:
        for line in list(self._weir.process.out):
            if line.startswith("{") and (record := json.loads(line)).get("event") == "request":
                yield record["request_id"]
