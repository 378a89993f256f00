"""Weir beside a bare nginx and a plain FastAPI gateway, in one run: what a request, a chunk and a stream cost.

A benchmark and not a test: it prints figures and passes no judgement. It fails only where something did not work: a
gateway that does not start, an answer that is not the upstream's to the last byte. See README.md for how to read it.
"""

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import psutil

from tests.speed import report, scenarios
from tests.speed.report import Rounds, middle
from tests.speed.scenarios import Outcome
from tests.speed.servers import SEEN, NotAvailable, Rig, Server

GATEWAYS = ("nginx", "weir", "plain")
# nginx' requests a second where the reach was set: its CPU a request halves from there to what this load makes of it.
REFERENCE_RATE = 18_900
LONG = 400  # chunks of a stream that is to show what a chunk costs by itself
TOGETHER_MS = 1  # a grain of time that makes the chunks of 100 streams with 10 ms between them leave ten at a time
SCENARIOS = ("single", "stream", "latency", "open", "seen")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.speed", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one load (default 3)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="interleaved rounds, of which the medians are shown (default 3)"
    )
    parser.add_argument("--connections", type=int, default=32, help="connections for single answers (default 32)")
    parser.add_argument("--streams", type=int, default=100, help="streams at once, 10 ms between chunks (default 100)")
    parser.add_argument("--open", type=int, default=1000, help="open streams whose memory is measured (default 1000)")
    names = ", ".join(GATEWAYS + SCENARIOS)
    parser.add_argument(
        "--only", default="", help=f"comma-separated, of {names}; a kind of which none is named runs whole"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures there")
    python_help = (
        "interpreter for Weir and the plain gateway, of this minor version; it runs on this environment's packages"
    )
    parser.add_argument("--python", default=sys.executable, help=python_help)
    args = parser.parse_args()
    only = set(filter(None, args.only.split(",")))
    if unknown := only - set(GATEWAYS + SCENARIOS):
        parser.error(f"--only knows {names}; not {', '.join(sorted(unknown))}")
    args.gateways = [name for name in GATEWAYS if name in only] or list(GATEWAYS)
    args.scenarios = [name for name in SCENARIOS if name in only] or list(SCENARIOS)
    return args


class Benchmark:
    """The rounds of one run, and what did not work in it."""

    def __init__(self, rig: Rig, args: argparse.Namespace) -> None:
        self.rig, self.args = rig, args
        self.rounds: dict[str, dict[str, Rounds]] = defaultdict(lambda: defaultdict(list))
        self.troubles: list[str] = []
        self.servers: list[Server] = []

    def run(self) -> None:
        for name in self.args.gateways:
            try:
                self.servers.append(self.rig.start(name))
            except NotAvailable as reason:
                self.troubles.append(f"{name}, not measured: {reason}")
        plays = {
            "single": self.single,
            "stream": self.stream,
            "latency": self.latency,
            "open": self.held_open,
            "seen": self.seen,
        }
        for scenario in self.args.scenarios:
            plays[scenario]()

    def single(self) -> None:
        for server in self.servers:
            scenarios.single(self.rig, server, connections=self.args.connections, seconds=1)  # warm, not counted
        load = {"connections": self.args.connections, "seconds": self.args.seconds}
        for number in range(self.args.rounds):
            for server in self.servers:
                self.measure(scenarios.single, "single", number, server, **load)
                if server.name == "nginx":
                    self.measure(scenarios.paced, "reference", number, server, rate=REFERENCE_RATE, **load)

    def stream(self) -> None:
        load = {"streams": self.args.streams, "seconds": self.args.seconds}
        for number in range(self.args.rounds):
            for server in self.servers:
                self.measure(scenarios.stream, "stream", number, server, **load)
                if server.name != "plain":  # which cannot keep up
                    self.measure(scenarios.stream, "long", number, server, chunks=LONG, **load)
                    self.measure(scenarios.stream, "together", number, server, grain_ms=TOGETHER_MS, **load)

    def latency(self) -> None:
        """Half of what Weir can do, for all; a gateway that cannot carry that gets half of what it can do itself."""
        capacity = {server.name: self.capacity(server) for server in self.servers}
        if not capacity:
            return
        rate = capacity.get("weir", min(capacity.values())) / 2
        direct = replace(self.rig.upstream, name="direct")
        rates = {name: min(rate, own / 2) for name, own in capacity.items()} | {"direct": rate}
        load = {"connections": self.args.connections, "seconds": self.args.seconds * 3 / 4}
        for number in range(self.args.rounds):
            for server in (direct, *self.servers):
                self.measure(scenarios.paced, "latency", number, server, rate=rates[server.name], **load)

    def capacity(self, server: Server) -> float:
        """Requests a second in a closed loop: as measured in this run, or in a second spent on it now."""
        if measured := middle(self.rounds["single"][server.name], "per_second"):
            return measured
        return scenarios.single(self.rig, server, connections=self.args.connections, seconds=1).figures["per_second"]

    def held_open(self) -> None:
        for number in range(min(2, self.args.rounds)):
            for server in self.servers:
                self.measure(scenarios.held_open, "open", number, server, streams=self.args.open)

    def seen(self) -> None:
        """What it costs to see what Weir does: gateways that differ in nothing else, side by side."""
        servers = [self.rig.start(name) for name in SEEN]
        for server in servers:
            scenarios.single(self.rig, server, connections=self.args.connections, seconds=1)  # warm, not counted
        for number in range(self.args.rounds):
            for server in servers:
                load = {"connections": self.args.connections, "seconds": self.args.seconds}
                self.measure(scenarios.single, "seen", number, server, **load)
                load = {"streams": self.args.streams, "seconds": self.args.seconds}
                self.measure(scenarios.stream, "seen, streams", number, server, **load)
        for server in servers:
            self.rig.stop(server)

    def measure(self, play: Callable[..., Outcome], scenario: str, number: int, server: Server, **load: float) -> None:
        """One round of one scenario against one server; its figures are kept, its troubles too."""
        where = f"{server.name}, {scenario}, round {number + 1}"
        print(f"\r\033[K{where}", end="", file=sys.stderr, flush=True)
        try:
            outcome = play(self.rig, server, **load)
        except (NotAvailable, RuntimeError, psutil.Error, subprocess.TimeoutExpired) as reason:
            self.troubles.append(f"{where}: {reason}; it said on stderr: {server.said()}")
            return
        self.rounds[scenario][server.name].append(outcome.figures)
        if outcome.errors:
            first = f"{outcome.errors} errors, the first: {outcome.first_error}"
            self.troubles.append(f"{where}: {first}; it said on stderr: {server.said()}")

    def print(self) -> None:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
        names = [server.name for server in self.servers]
        tables = [report.overview(self.rounds, names)]
        if timed := self.rounds.get("latency"):
            tables.append(report.latency(timed))
        if seen := self.rounds.get("seen"):
            tables.append(report.seen(seen, self.rounds["seen, streams"], next(iter(SEEN))))
        tables.append(report.goals(self.rounds))
        print("\n\n".join(filter(None, tables)))
        if self.troubles:
            print("\nDid not work:\n" + "\n".join(f"  {trouble}" for trouble in self.troubles))


def main() -> int:
    args = arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 2 * args.open + 200:
        sys.exit(f"--open {args.open} needs {2 * args.open + 200} files; the limit is {hard}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended, too
    begun = perf_counter()
    machine = report.machine(args.python)
    with tempfile.TemporaryDirectory(prefix="weir-speed-") as home, Rig(Path(home), args.python) as rig:
        benchmark = Benchmark(rig, args)
        try:
            benchmark.run()
        finally:
            benchmark.print()
    print(
        f"\n{machine}; {args.connections} connections, {args.streams} streams, {args.open} open streams, "
        f"{args.rounds} rounds of {args.seconds:g} s; {perf_counter() - begun:.0f} s in all"
    )
    if args.json:
        figures = {"machine": machine, "rounds": benchmark.rounds, "troubles": benchmark.troubles}
        args.json.write_text(json.dumps(figures, indent=2))
    return 1 if benchmark.troubles else 0


if __name__ == "__main__":
    sys.exit(main())
