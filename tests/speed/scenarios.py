"""What is measured: one function a scenario, each one round against one gateway, each giving back one dict of numbers.

CPU is user and system time of the gateway's whole process tree, read before the load generator starts and after it has
ended, divided by all that was answered in between: settlement, logging and idle housekeeping are in it.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import sleep
from typing import Any

import orjson
from redis import Redis

from tests.speed import upstream
from tests.speed.servers import ROOT, Rig, Server

LOAD_DEADLINE = 120  # seconds a load generator may take beyond its own length

Figures = dict[str, float]


@dataclass
class Outcome:
    """The figures of one round, and what went wrong in it."""

    figures: Figures
    errors: int = 0
    first_error: str = ""


def single(rig: Rig, server: Server, *, connections: int, seconds: float) -> Outcome:
    """Closed loop of whole answers. cpu_us and redis_us are a request's; script_us is Redis' time inside EVALSHA."""
    before, cpu, redis_cpu, script = server.rss_bytes(), server.cpu_seconds(), rig.redis.cpu_seconds(), _script_us(rig)
    seen = _load(server, "single", connections=connections, seconds=seconds)
    requests = max(1, seen["requests"])
    return _outcome(
        seen,
        cpu_us=(server.cpu_seconds() - cpu) / requests * 1e6,
        redis_us=(rig.redis.cpu_seconds() - redis_cpu) / requests * 1e6,
        script_us=(_script_us(rig) - script) / requests,
        per_second=seen["requests"] / seen["seconds"],
        rss_before=before,
        rss_after=server.rss_bytes(),
        requests=seen["requests"],
    )


def stream(
    rig: Rig,
    server: Server,
    *,
    streams: int,
    seconds: float,
    chunks: int = upstream.CHUNKS,
    grain_ms: float = upstream.GRAIN_MS,
) -> Outcome:
    """Closed loop of streams, 10 ms between chunks. cpu_us is a chunk's: one event, with its share of the request."""
    cpu = server.cpu_seconds()
    seen = _load(server, "stream", connections=streams, seconds=seconds, chunks=chunks, grain_ms=grain_ms)
    return _outcome(
        seen,
        cpu_us=(server.cpu_seconds() - cpu) / max(1, seen["events"]) * 1e6,
        per_second=seen["events"] / seen["seconds"],
        first_event_ms=seen["first_events"].get("p50", 0) * 1e3,
        stream_ms=seen["latencies"].get("p50", 0) * 1e3,
        rss_after=server.rss_bytes(),
        chunks=seen["events"],
        events_a_stream=seen["events"] / max(1, seen["requests"]),
    )


def paced(rig: Rig, server: Server, *, connections: int, seconds: float, rate: float) -> Outcome:
    """Open loop at `rate` requests a second: milliseconds from the moment a request was due; cpu_us is a request's."""
    cpu = server.cpu_seconds()
    seen = _load(server, "paced", connections=connections, seconds=seconds, rate=rate)
    cpu_us = (server.cpu_seconds() - cpu) / max(1, seen["requests"]) * 1e6
    latencies = {f"{name}_ms": value * 1e3 for name, value in seen["latencies"].items()}
    return _outcome(seen, rate=rate, cpu_us=cpu_us, **latencies)


def held_open(rig: Rig, server: Server, *, streams: int) -> Outcome:
    """Memory of open streams, on another gateway like `server` started for it, and the time that start took.

    The fresh gateway is warmed with a second of single answers and of streams, so that what a first request allocates
    is not counted. `left` is what it keeps 2 s after all clients went away in the middle of their streams.
    """
    server = rig.start(server.name)
    try:
        _load(server, "single", connections=32, seconds=1)
        _load(server, "stream", connections=20, seconds=1, chunks=20)
        before = server.rss_bytes()
        seen = _load(
            server, "open", connections=streams, seconds=2, chunks=1000, gap_ms=500, while_open=server.rss_bytes
        )
        sleep(2)
        left = server.rss_bytes() - before
        # A thousand clients that leave at once are a storm of settlements: it must still answer after it.
        after = _load(server, "single", connections=4, seconds=0.5)
        seen["errors"] += after["errors"]
        if after["errors"]:
            seen["first_error"] = seen["first_error"] or f"after all clients had left: {after['first_error']}"
        return _outcome(
            seen,
            start_seconds=server.start_seconds,
            rss_before=before,
            rss_open=seen["while_open"],
            bytes_a_stream=(seen["while_open"] - before) / streams,
            left=left,
            streams=seen["requests"],
        )
    finally:
        rig.stop(server)


def _outcome(seen: dict[str, Any], **figures: float) -> Outcome:
    return Outcome(figures, seen["errors"], seen["first_error"])


def _script_us(rig: Rig) -> float:
    """Microseconds that Redis spent inside EVALSHA since its start."""
    with Redis.from_url(rig.redis_url) as redis:
        return redis.info("commandstats").get("cmdstat_evalsha", {}).get("usec", 0)


def _load(
    server: Server, scenario: str, *, while_open: Callable[[], float] | None = None, **options: float
) -> dict[str, Any]:
    """Run the load generator to its end; its result, with what `while_open()` gave while streams were held."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [
        sys.executable,
        "-m",
        "tests.speed.load",
        scenario,
        f"--port={server.port}",
        f"--key={server.key}",
        *words,
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as generator:
        held = 0
        if while_open and generator.stdout.readline():
            sleep(1)
            held = while_open()
        try:
            output, complaint = generator.communicate(timeout=options["seconds"] + LOAD_DEADLINE)
        finally:
            generator.kill()
    if generator.returncode:
        raise RuntimeError(f"the load generator failed: {complaint.decode()[-500:]}")
    return orjson.loads(output) | {"while_open": held}
