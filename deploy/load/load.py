# ruff: noqa: INP001 - a script, run by its path
"""A while of mixed traffic, so that dashboards move: `python deploy/load/load.py --url URL --key TEAM=KEY`.

Several teams ask for small answers, streams, long prompts and embeddings; some leave in the middle, some ask for what
there is not, for more than their limits, or with a key that is none. It keeps to its own time and not to the answers',
as people do, and ends by itself with a summary. Standard library only.
"""

import argparse
import http.client
import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

# Of ../compose/weir.yaml.
KEYS = ["search=sk-demo-search-4Vd0tPqk", "ads=sk-demo-ads-9fKx2LmZ", "support=sk-demo-support-Q7w1YhBn"]
MODELS = "chat,chat,chat,slow,flaky,broken"
AT_ONCE = 64  # what comes while so many are under way is left out and counted
TIMEOUT_SECONDS = 60.0
SAID = "the river runs past the old weir and every boat that waits above it knows how high the water stands"
WORDS = SAID.split()


@dataclass
class Summary:
    """Written by many threads."""

    kinds: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    teams: Counter[str] = field(default_factory=Counter)
    first_bytes: list[float] = field(default_factory=list)
    left: int = 0
    skipped: int = 0
    unreached: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def as_json(self, seconds: float) -> dict[str, Any]:
        waits = sorted(self.first_bytes)
        return {
            "seconds": round(seconds, 1),
            "requests": sum(self.kinds.values()),
            "by_kind": dict(self.kinds.most_common()),
            "by_status": dict(sorted(self.statuses.items())),
            "by_team": dict(self.teams.most_common()),
            "left_early": self.left,
            "unreached": self.unreached,
            "skipped": self.skipped,
            "first_byte_ms": {
                name: round(waits[min(int(len(waits) * share), len(waits) - 1)] * 1000, 1) if waits else None
                for name, share in (("p50", 0.5), ("p99", 0.99))
            },
        }


@dataclass(frozen=True)
class Ask:
    """One request. `leave_after` bytes of its answer its client is gone."""

    kind: str
    body: dict[str, Any] | bytes
    path: str = "/chat/completions"
    key: str | None = None
    leave_after: int | None = None


def text(words: int) -> str:
    return " ".join(random.choices(WORDS, k=words))


def chat(model: str, words: int, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text(words)}]} | fields


# How often, and what: `model` is one of those that were named.
KINDS: list[tuple[int, Callable[[str], Ask]]] = [
    (30, lambda model: Ask("small", chat(model, random.randint(3, 12), max_tokens=64))),
    (25, lambda model: Ask("stream", chat(model, random.randint(20, 80), stream=True))),
    (8, lambda model: Ask("long stream", chat(model, random.randint(150, 300), stream=True))),
    (6, lambda model: Ask("long prompt", chat(model, random.randint(1000, 3000), max_tokens=8))),
    (8, lambda model: Ask("leaves", chat(model, 200, stream=True), leave_after=random.randint(200, 4000))),
    (5, lambda model: Ask("embeddings", {"model": model, "input": [text(30)] * 3}, "/embeddings")),
    (4, lambda model: Ask("greedy", chat(model, 5, max_tokens=1_000_000))),
    (3, lambda _: Ask("no such model", chat("no-such-model", 5))),
    (3, lambda model: Ask("no such key", chat(model, 5), key="sk-nobody-at-all")),
    (2, lambda _: Ask("no JSON", b'{"model": "chat", "messages": [')),
]


def play(url: SplitResult, ask: Ask, team: str, key: str, summary: Summary) -> None:
    """Send it, and take the answer as far as its client would."""
    made = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = made(url.hostname or "", url.port, timeout=TIMEOUT_SECONDS)
    body = ask.body if isinstance(ask.body, bytes) else json.dumps(ask.body).encode()
    headers = {"Authorization": f"Bearer {ask.key or key}", "Content-Type": "application/json"}
    began, first, left = time.perf_counter(), None, False
    status = "none"
    try:
        connection.request("POST", url.path.rstrip("/") + ask.path, body, headers)
        answer = connection.getresponse()
        status = str(answer.status)
        taken = 0
        while piece := answer.read1(4096):
            first = first or time.perf_counter()
            taken += len(piece)
            if ask.leave_after is not None and taken >= ask.leave_after:
                left = True
                break
    except (OSError, http.client.HTTPException):
        pass  # counted below: what came until then counts
    finally:
        connection.close()
    with summary.lock:
        summary.kinds[ask.kind] += 1
        summary.statuses[status] += 1
        summary.teams[team] += 1
        summary.left += left
        summary.unreached += status == "none"
        if first is not None and status == "200":
            summary.first_bytes.append(first - began)


def run(url: SplitResult, keys: list[tuple[str, str]], models: list[str], rate: float, seconds: float) -> Summary:
    """So many requests a second, for so long, swelling and ebbing once; then wait for those under way."""
    summary, room = Summary(), threading.Semaphore(AT_ONCE)
    weights = [weight for weight, _ in KINDS]
    began = time.monotonic()

    def one(ask: Ask, team: str, key: str) -> None:
        try:
            play(url, ask, team, key, summary)
        finally:
            room.release()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        while (gone := time.monotonic() - began) < seconds:
            if room.acquire(blocking=False):
                team, key = random.choice(keys)
                _, make = random.choices(KINDS, weights)[0]
                pool.submit(one, make(random.choice(models)), team, key)
            else:
                summary.skipped += 1
            tide = 0.5 + 2 * (gone / seconds) * (1 - gone / seconds)  # half, once full, half
            time.sleep(random.expovariate(rate * tide))
    return summary


def main() -> int:
    """0 if anything was answered."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--url", default="http://localhost:8080/v1", help="of the API, with its /v1")
    parser.add_argument("--key", action="append", help="TEAM=KEY or KEY, as often as there are; those of compose")
    parser.add_argument("--models", default=MODELS, help="by comma; one that stands twice is asked twice as often")
    parser.add_argument("--rate", type=float, default=15.0, help="requests a second, at most")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, help="the same mix again")
    parser.add_argument("--json", action="store_true", help="the summary as JSON")
    given = parser.parse_args()
    random.seed(given.seed)
    url = urlsplit(given.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        parser.error("--url is an address like http://localhost:8080/v1")
    pairs = [word.rpartition("=") for word in given.key or KEYS]
    keys = [(team or "one", key) for team, _, key in pairs]
    try:
        with socket.create_connection((url.hostname, url.port or (443 if url.scheme == "https" else 80)), timeout=5):
            pass
    except OSError as error:
        sys.stderr.write(f"nobody answers at {given.url}: {error}\n")
        return 1
    began = time.monotonic()
    summary = run(url, keys, given.models.split(","), given.rate, given.seconds)
    said = summary.as_json(time.monotonic() - began)
    sys.stdout.write(json.dumps(said, indent=2) + "\n" if given.json else as_text(said))
    return 0 if said["requests"] > said["unreached"] else 1


def as_text(said: dict[str, Any]) -> str:
    lines = []
    for name, value in said.items():
        shown = ", ".join(f"{inner} {count}" for inner, count in value.items()) if isinstance(value, dict) else value
        lines.append(f"{name.replace('_', ' '):<14} {shown}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
