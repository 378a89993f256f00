"""Half a minute in the life of two replicas, with all that a dashboard is for: streams, refusals, clients who leave, an
endpoint that dies, a Redis that is away, reloads good and bad, a replica that stops and comes back.

One replica traces and the other does not, so that exemplars can be seen to come from the one alone.
"""

import contextlib
import hashlib
import http.client
import http.server
import json
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from tests.deploy.prometheus import Prometheus
from tests.fakes.fault_proxy import FaultProxy
from tests.fakes.redis_server import RedisServer, kinds
from tests.system.harness import ROOT, Key, RawExchange, Upstream, Weir, chat_bytes, configuration, eventually, model

RULES = sorted((ROOT / "helm" / "weir" / "rules").glob("*.yaml"))

USAGE = {
    "prompt_tokens": 40,
    "completion_tokens": 20,
    "total_tokens": 60,
    "prompt_tokens_details": {"cached_tokens": 30},
    "completion_tokens_details": {"reasoning_tokens": 12},
}
TEAMS: dict[str, dict[str, Any]] = {
    "search": {"tpm": 10_000_000},  # or there would be nothing to settle
    "batch": {"rpm": 30},
    "chatbot": {"tpm": 1200},
    "trial": {"rpm": 1, "shadow": ["rpm"]},
    "agents": {"concurrency": 1},
}


def key_of(team: str) -> Key:
    return Key(team, f"a-key-for-{team}", team)


def thinking_answer() -> str:
    """A whole answer, as bytes, that says how much of it was cached and how much was thought."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "42"}, "finish_reason": "stop"}
    body = json.dumps(
        {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}
    )
    return f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"  # fmt: skip


class Collector(http.server.ThreadingHTTPServer):
    """Takes spans and forgets them."""

    daemon_threads = True

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.Handler)
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class Scene:
    """As a block: everything runs. `play` is the half minute; afterwards `prometheus` knows it from `start` to `end`."""

    def __init__(self) -> None:
        self.start = self.end = 0.0
        self._over = threading.Event()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            redis = stack.enter_context(RedisServer(kinds()[0]))
            self.to_redis = stack.enter_context(FaultProxy("127.0.0.1", redis.port))
            self.upstream = Upstream()
            stack.callback(self.upstream.close)
            self.to_model = stack.enter_context(FaultProxy("127.0.0.1", self.upstream.port))
            collector = stack.enter_context(Collector())
            self.config = self._configuration()
            traced = self.config | {"telemetry": {"otlp_endpoint": collector.url, "trace_sample": 1.0}}
            self.weirs = [stack.enter_context(Weir(config)) for config in (traced, self.config)]
            self.configs = [traced, self.config]
            targets = {f"weir-{number}": weir.ops_port for number, weir in enumerate(self.weirs)}
            self.prometheus = stack.enter_context(Prometheus(targets, RULES))
            eventually(lambda: self.prometheus.targets_up() == len(self.weirs), why="both replicas are scraped")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._stack.close()

    def _configuration(self) -> dict[str, Any]:
        url, flaky = self.upstream.url, f"http://127.0.0.1:{self.to_model.port}/v1"
        models = [
            model("llama-70b", url, price={"input": 1.5, "output": 6.0}, default_max_tokens=64, endpoints=[{"url": url}, {"url": flaky}]),
            model("qwen-32b", flaky, retries=1, fallbacks=["llama-70b"], timeouts={"connect": 0.5, "first_byte": 5, "idle": 5}),
            model("narrow", "", endpoints=[{"url": url, "max_in_flight": 1}]),
            {"name": "echo", "backend": "echo"},
            {"name": "slow-echo", "backend": "echo", "echo": {"delay_ms": 60}},
        ]  # fmt: skip
        teams = [
            {"name": name, **limits, "keys": [{"digest": hashlib.sha256(key_of(name).secret.encode()).hexdigest()}]}
            for name, limits in TEAMS.items()
        ]
        redis = {"url": f"redis://127.0.0.1:{self.to_redis.port}/0"}
        drain = {"announce_seconds": 1, "deadline_seconds": 2}
        return configuration("", models, redis=redis, teams=teams, drain=drain)

    # What happens

    def play(self) -> None:
        """About 35 s. Requests go on all the while, and their failures are the point."""
        self.start = time.time()  # noqa: TID251  Prometheus' clock
        clients = [
            threading.Thread(target=self._client, args=(work, pause), daemon=True) for work, pause in self._works()
        ]
        for client in clients:
            client.start()
        time.sleep(7)
        self.to_model.refuse()
        time.sleep(4)
        self._reload()
        time.sleep(1)
        self.to_model.heal()
        time.sleep(3)
        self._lose_redis()
        time.sleep(3)
        self._restart(self.weirs[1])
        time.sleep(6)
        self._over.set()
        for client in clients:
            client.join(10)
        time.sleep(2)  # two scrapes more
        self.end = time.time()  # noqa: TID251

    def _reload(self) -> None:
        """A good one everywhere, then a bad one on one."""
        for weir, config in zip(self.weirs, self.configs, strict=True):
            more = [*config["models"], {"name": "new", "backend": "echo"}]
            weir.file.write_text(yaml.safe_dump(config | {"models": more}))
        eventually(lambda: all(weir.metric("weir_config_generation") == 2 for weir in self.weirs))
        good = Path(self.weirs[0].file).read_text()
        for wrong in ("modles: []", "modles: [1]"):
            before = self.weirs[0].metric("weir_config_reload_failures_total")
            self.weirs[0].file.write_text(wrong)
            eventually(lambda before=before: self.weirs[0].metric("weir_config_reload_failures_total") > before)
        self.weirs[0].file.write_text(good)

    def _lose_redis(self) -> None:
        """While streams run that Redis has admitted, and that end before it is back: they are settled late."""
        with self._stream(self.weirs[0]), self._stream(self.weirs[1]):
            self.to_redis.refuse()
            time.sleep(2)
        time.sleep(2)
        self.to_redis.heal()

    def _restart(self, weir: Weir) -> None:
        """While a stream runs that does not end in time."""
        with self._stream(weir):
            weir.process.send(signal.SIGTERM)
            time.sleep(2)
            with contextlib.suppress(httpx.HTTPError):
                weir.chat(key_of("search"), model="echo")
            weir.process.wait(20)
        weir.start_again()

    def _client(self, work: Callable[[Weir], object], pause: float) -> None:
        while not self._over.is_set():
            with contextlib.suppress(httpx.HTTPError, http.client.HTTPException, OSError):
                work(random.choice(self.weirs))
            self._over.wait(pause * random.uniform(0.6, 1.4))

    def _works(self) -> list[tuple[Callable[[Weir], object], float]]:
        """What is asked, and how many seconds apart."""
        search, quick = key_of("search"), {"chunks": 8, "delay_ms": 15}
        raw = {"play": "raw", "raw": thinking_answer()}
        works: list[tuple[Callable[[Weir], object], float]] = [
            (lambda weir: weir.chat(search, "a question of some length " * 8, "llama-70b", stream=True, x_script=quick), 0.1),
            (lambda weir: weir.chat(search, model="llama-70b", x_script=raw), 0.2),
            (lambda weir: weir.chat(search, model="qwen-32b", stream=True, x_script={"chunks": 4, "wait_ms": 60}), 0.15),
            (lambda weir: weir.post(search, "/v1/embeddings", model="llama-70b", input="some text"), 0.5),
            (lambda weir: weir.chat(search, model="echo", stream=True), 0.3),
            (lambda weir: weir.chat(key_of("nobody"), model="echo"), 0.5),  # 401
            (lambda weir: weir.chat(search, model="no-such-model"), 1),  # 404
            (lambda weir: weir.post(search, model="echo"), 1),  # 400
            (lambda weir: weir.chat(search, model="llama-70b", x_script="bad_request"), 1),  # theirs, passed on
            (lambda weir: weir.chat(search, model="llama-70b", x_script="unauthorized"), 0.7),  # ours: 502
            (lambda weir: weir.chat(search, model="llama-70b", stream=True, x_script="cut_stream"), 1),
            (lambda weir: weir.chat(key_of("batch"), model="echo"), 0.4),  # 429 by requests
            (lambda weir: weir.chat(key_of("chatbot"), "many words " * 100, "echo", max_tokens=300), 0.5),  # 429 by tokens
            (lambda weir: weir.chat(key_of("trial"), model="echo"), 0.3),  # 429 in shadow
            (self._leave, 0.5),
        ]  # fmt: skip
        slow = {"chunks": 3, "delay_ms": 60}
        works += [(lambda weir: weir.chat(key_of("agents"), model="slow-echo", stream=True), 0.2)] * 2
        works += [(lambda _: self.weirs[0].chat(search, model="narrow", stream=True, x_script=slow), 0.1)] * 3
        return works

    @staticmethod
    def _stream(weir: Weir) -> RawExchange:
        """One that has begun and never ends."""
        stream = RawExchange(weir.port, chat_bytes(key_of("search"), "llama-70b", stream=True, x_script="endless"), 5)
        stream.read_event()
        return stream

    def _leave(self, weir: Weir) -> None:
        """After the second event."""
        with self._stream(weir) as stream:
            stream.read_event()
