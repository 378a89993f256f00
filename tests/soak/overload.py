"""`python -m tests.soak.overload`: what ten times the load does to what is served, and one greedy team to another.

The engine is the echo model behind `PLACES` places, each taken for some three seconds, as those of a GPU would be; what
it can serve in a second is first measured, by more than it can. Each team's load comes from a process of its own, so
that the modest team's clock does not wait for the greedy team's clients.
"""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from time import perf_counter, sleep

from tests.soak.arrivals import Seen, arrive, ask, p99
from tests.system.harness import Admin, Key, Weir, choose_redis, configuration, redis_server

PLACES, WORD_SECONDS = 128, 0.3
WORDS = range(1, 12)  # were all of one length, all places would become free at one moment, again and again
SERVICE = (sum(WORDS) / len(WORDS) + 3) * WORD_SECONDS  # the role, the end and the usage are events too
CAPACITY = PLACES / SERVICE  # requests a second, were there nothing but waiting
WAITING, WAIT_SECONDS = 512, 2.0
MODEST = 0.2  # of the capacity: less than half, which is its share
SETTLE = 5.0  # seconds until a load is what it will be


def drive(port: int, key: Key, rate: float, seconds: float) -> tuple[list[Seen], float]:
    """In a process of its own: what was seen, and how many seconds it took."""
    began = perf_counter()
    seen = asyncio.run(arrive(port, key, WORDS, rate, seconds))
    return seen, perf_counter() - began


@contextmanager
def engine() -> Iterator[tuple[Weir, Admin]]:
    models = [{"name": "echo", "backend": "echo", "echo": {"delay_ms": WORD_SECONDS * 1000}}]
    server = {"max_in_flight": PLACES, "max_waiting": WAITING, "wait_seconds": WAIT_SECONDS}
    with redis_server(choose_redis()) as address:
        url = f"{address}/3"
        with Weir(configuration(url, models, server=server)) as weir:
            yield weir, Admin(url)


def flood(weir: Weir, key: Key, pool: ProcessPoolExecutor, seconds: float) -> bool:
    """More than can be served: does it serve less than it could, and is it well at once when the load is gone?"""

    def load(times: float, how_long: float) -> float:
        seen, took = pool.submit(drive, weir.port, key, CAPACITY * times, how_long).result()
        served = [one for one in seen if one.status == 200]
        first = p99([one.first for one in served])
        statuses = dict(Counter(one.status for one in seen))
        print(
            f"{times:4g} x: {statuses} in {took:.1f} s, served {len(served) / took:.1f}/s, first token p99 {first:.2f} s"
        )
        return len(served) / took

    ratio = load(1.2, seconds), load(10, seconds)
    after = asyncio.run(ask(weir.port, key, "river"))
    print(
        f"goodput at 10 x is {ratio[1] / ratio[0]:.3f} of the most; the next request: {after.status} in {after.whole:.2f} s"
    )
    return ratio[1] > 0.9 * ratio[0] and after.status == 200 and after.whole < 2 + 4 * WORD_SECONDS


def greed(weir: Weir, admin: Admin, pool: ProcessPoolExecutor, seconds: float) -> bool:
    """One team asks for ten times what there is: does another one notice?"""
    greedy, modest = admin.key(admin.team()), admin.key(admin.team())

    def first_token(times: float) -> float:
        other: Future[tuple[list[Seen], float]] | None = None
        if times:
            other = pool.submit(drive, weir.port, greedy, CAPACITY * times, seconds + 2 * SETTLE)
            sleep(SETTLE)
        seen, _ = pool.submit(drive, weir.port, modest, CAPACITY * MODEST, seconds).result()
        if other is not None:
            other.result()
        firsts = [one.first for one in seen if one.status == 200]
        print(
            f"the other team at {times:4g} x: {len(firsts)} of {len(seen)} served,"
            f" first token p50 {sorted(firsts)[len(firsts) // 2]:.3f} s, p99 {p99(firsts):.3f} s"
        )
        return p99(firsts)

    alone, usual, flooded = first_token(0), first_token(1), first_token(10)
    print(f"first token p99 at 10 x is {flooded / usual:.2f} of that at 1 x, and {flooded / alone:.2f} of that alone")
    return flooded < 1.2 * usual


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load")
    seconds = parser.parse_args().seconds
    with engine() as (weir, admin), ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        held = flood(weir, admin.key(admin.team()), pool, seconds)
        return 0 if greed(weir, admin, pool, seconds) and held else 1


if __name__ == "__main__":
    sys.exit(main())
