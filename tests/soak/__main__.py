"""`python -m tests.soak --minutes 10`: prints a table, and exits with 1 and a sentence for each thing that does not hold."""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.soak import gaps
from tests.soak.soak import Plan, run


def main() -> int:
    usual = Plan(0)
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=usual.clients)
    parser.add_argument("--rate", type=float, default=usual.requests_per_second, help="requests a second, about")
    arguments = parser.parse_args()
    seconds = arguments.minutes * 60
    plan = Plan(
        seconds,
        redis_every=min(60.0, seconds / 2),
        clients=arguments.clients,
        requests_per_second=arguments.rate,
        warm_up=min(60.0, seconds / 4),
    )
    with ThreadPoolExecutor(1) as beside:
        # Nearly free, and as long as they are: beside the rest where there is time for them.
        silent = beside.submit(gaps.run) if seconds > gaps.SECONDS * 1.2 else None
        broken = run(plan).broken
        if silent is not None:
            broken += silent.result()
            print(
                f"streams with {gaps.GAP:g} s between two events, through {' and '.join(gaps.KINDS)}: {gaps.EVENTS} events each"
            )
    for sentence in broken:
        print(f"does not hold: {sentence}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
