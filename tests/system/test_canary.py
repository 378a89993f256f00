"""Canary secrets go through every kind of request and every ending, and then are looked for in all that Weir lets out.

Each secret is a word that is nowhere else, so that ten letters of it in a log are a leak and no coincidence. What an
upstream answers goes to the client as it is, and only what we say ourselves is searched: logs, metrics, refusals, the
ops port, Redis, spans, what the commands print, and what a crash leaves behind.
"""

import base64
import contextlib
import gzip
import json
import secrets
import shutil
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml

from tests.system import planted
from tests.system.harness import (
    PATIENCE,
    Key,
    Process,
    RawExchange,
    Upstream,
    Weir,
    choose_redis,
    clean_environment,
    configuration,
    eventually,
    free_port,
    model,
    raw_request,
    run_weir,
    unique,
)

PART = 10  # letters of a secret that are a leak
NAMES = (
    "prompt", "completion", "tool_argument", "tool_result", "cookie", "custom_header", "forwarded_for", "query",
    "unknown_key", "unknown_model", "upstream_key", "pepper", "redis_password", "otlp_header",
)  # fmt: skip


@dataclass
class Canaries:
    """Secrets by their names; `known` grows with the keys that are made."""

    known: dict[str, str] = field(default_factory=lambda: {name: "k" + secrets.token_hex(16) for name in NAMES})

    def __getattr__(self, name: str) -> str:
        try:
            return self.__dict__["known"][name]
        except KeyError:
            raise AttributeError(name) from None

    def leaks(self, where: str, said: str | bytes) -> list[str]:
        """A sentence for each secret of which a part is in there, plainly or in base64."""
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        found = []
        for name, secret in self.known.items():
            for part in _parts(secret):
                at = text.find(part)
                if at >= 0:
                    found.append(f"{name} in {where}: ...{text[max(at - 200, 0) : at + 60]}...")
                    break
        return found


def _parts(secret: str) -> Iterator[str]:
    for at in range(len(secret) - PART + 1):
        yield secret[at : at + PART]
    for shift in range(3):  # base64 of any text that holds it
        whole = base64.b64encode(b"x" * shift + secret.encode()).decode()
        yield whole[4:-4]


PLANTED = [
    pytest.param("plainly: {}", id="plain"),
    pytest.param('{{"why": "Authorization: Bearer {}\\n"}}', id="json"),
    pytest.param("redis://weir:{}@localhost:6379", id="url"),
]


@pytest.mark.parametrize("line", PLANTED)
def test_a_planted_line_is_found(line: str) -> None:
    canaries = Canaries()
    for name, secret in canaries.known.items():
        (leak,) = canaries.leaks("a log", line.format(secret))
        assert leak.startswith(f"{name} in a log")
        assert canaries.leaks("a log", line.format(secret[3:15])), "a part of it"
        assert canaries.leaks("a log", line.format(base64.b64encode(f"user:{secret}".encode()).decode()))
        assert not canaries.leaks("a log", line.format(secret[:3] + "..."))


def test_a_bug_would_be_found_in_a_traceback() -> None:
    """What this file relies on: a process that lets an exception's text out is seen doing so."""
    canaries = Canaries()
    process = Process(sys.executable, "-c", f"raise ValueError('cannot read {canaries.prompt}')")
    assert process.wait() == 1
    assert canaries.leaks("crash", process.said)


# -- the surroundings


class Collector:
    """An OTLP collector that repeats all it was told in its answer, and refuses every other time."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[str] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length", 0)))
                collector.bodies.append(_unpacked(raw))
                collector.headers.append(str(self.headers))
                self.send_response(200 if len(collector.bodies) % 2 else 403)
                answer = b"" if len(collector.bodies) % 2 else f"I refuse {self.headers}".encode()
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class' form
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _unpacked(raw: bytes) -> bytes:
    for unpack in (gzip.decompress, zlib.decompress):
        with contextlib.suppress(OSError, zlib.error):
            return unpack(raw)
    return raw


class LockedRedis:
    """One that asks for a password, and can be taken away."""

    def __init__(self, program: str, directory: Path, password: str) -> None:
        self.port = free_port()
        self.url = f"redis://:{password}@127.0.0.1:{self.port}/0"
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(directory)]
        self._command = [program, *where, "--requirepass", password, "--appendonly", "yes", "--save", ""]
        self.start()

    def start(self) -> None:
        self.process = Process(*self._command)
        self.process.wait_ready(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.url, socket_timeout=1) as client:
            return bool(client.ping())
        return False

    def contents(self) -> str:
        """Every key with all that it holds."""
        with redis.Redis.from_url(self.url) as client:
            return "\n".join(f"{name!r} {_held(client, name)!r}" for name in client.scan_iter(count=1000))


def _held(client: "redis.Redis", name: Any) -> Any:
    kind = client.type(name)
    reads: dict[Any, Callable[[], Any]] = {
        b"string": lambda: client.get(name),
        b"hash": lambda: client.hgetall(name),
        b"set": lambda: client.smembers(name),
        b"zset": lambda: client.zrange(name, 0, -1, withscores=True),
        b"list": lambda: client.lrange(name, 0, -1),
    }
    assert kind in reads, f"{name!r} is a {kind!r}, which nobody has searched yet"
    return reads[kind]()


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


@contextlib.contextmanager
def running_redis(canaries: Canaries, directory: Path) -> Iterator[LockedRedis]:
    program = choose_redis().program or shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("needs a redis-server on the PATH, to take it away")
    own = LockedRedis(program, directory, canaries.redis_password)
    try:
        yield own
    finally:
        own.process.kill()


@pytest.fixture
def locked_redis(tmp_path: Path, canaries: Canaries) -> Iterator[LockedRedis]:
    with running_redis(canaries, tmp_path) as own:
        yield own


class Planted(Weir):
    """With the bugs of planted.py."""

    program = (sys.executable, "-m", "tests.system.planted")


def environment(canaries: Canaries) -> dict[str, str]:
    return clean_environment(COLUMNS="200", CANARY_UPSTREAM_KEY=canaries.upstream_key)


def the_configuration(canaries: Canaries, redis_url: str, upstream: str, collector: str) -> dict[str, Any]:
    def keyed(name: str, url: str, **more: Any) -> dict[str, Any]:
        return model(name, url) | {"endpoints": [{"url": url, "api_key_env": "CANARY_UPSTREAM_KEY"}]} | more

    timeouts = {"connect": 0.5, "first_byte": 0.3, "idle": 0.3}
    return configuration(
        redis_url,
        [
            keyed("chat", upstream),
            keyed("fragile", upstream, timeouts=timeouts, retries=1),
            keyed("nobody", f"http://127.0.0.1:{free_port()}/v1"),
            {"name": "echo", "backend": "echo"},
        ],
        server={"max_body_bytes": 65536, "trusted_proxies": ["127.0.0.1"], "body_timeout_seconds": 1},
        keys={"pepper": canaries.pepper},
        drain={"announce_seconds": 0, "deadline_seconds": 1},
        telemetry={
            "log_level": "debug",
            "otlp_endpoint": collector,
            "otlp_headers": {"x-secret": canaries.otlp_header},
            "trace_sample": 1.0,
        },
    )


# -- every kind of request


class Scene:
    """Asks, with all canaries in everything, and remembers what we said ourselves."""

    def __init__(self, weir: Weir, canaries: Canaries, key: Key) -> None:
        self.weir = weir
        self.canaries = canaries
        self.key = key
        self.heard: list[tuple[str, str]] = []
        self.statuses: dict[str, int] = {}

    @property
    def headers(self) -> dict[str, str]:
        canaries = self.canaries
        return {
            "cookie": f"session={canaries.cookie}",
            "x-custom": canaries.custom_header,
            "x-api-key": canaries.custom_header,
            "x-forwarded-for": canaries.forwarded_for,
            "referer": f"http://intranet/?token={canaries.query}",
        }

    def body(self, model: str = "chat", **fields: Any) -> dict[str, Any]:
        canaries = self.canaries
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": canaries.tool_argument}}
        return {
            "model": model,
            "user": canaries.prompt,
            "messages": [
                {"role": "user", "content": canaries.prompt},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "1", "content": canaries.tool_result},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "description": canaries.tool_argument}}],
        } | fields

    def says(self, **script: Any) -> dict[str, Any]:
        return {"x_script": {"content": f"it is {self.canaries.completion}"} | script}

    def raw(self, what: str, sent: bytes, *, ours: bool = True) -> int:
        """These bytes; `ours` if the whole answer is of our making."""
        with RawExchange(self.weir.port, sent, timeout=10) as exchange:
            try:
                answer = exchange.read()
            except (OSError, ValueError):
                self.statuses[what] = 0
                return 0
        self._hear(what, answer.status, answer.body if ours else b"", repr(answer.headers))
        return answer.status

    def ask(self, what: str, *, ours: bool = True, key: Key | None = None, path: str = "", **body: Any) -> int:
        key = key or self.key
        sent = key.headers | self.headers | {"content-type": "application/json"}
        url = (path or "/v1/chat/completions") + f"?api_key={self.canaries.query}"
        return self.raw(what, raw_request(json.dumps(body).encode(), list(sent.items()), url), ours=ours)

    def get(self, what: str, path: str, port: int | None = None, **headers: str) -> httpx.Response:
        where = f"http://127.0.0.1:{port or self.weir.port}"
        sent = self.headers | self.key.headers | headers
        answer = httpx.get(where + path, headers=sent, trust_env=False, timeout=PATIENCE)
        self._hear(what, answer.status_code, answer.content, repr(answer.headers.raw))
        return answer

    def _hear(self, what: str, status: int, body: bytes, headers: str) -> None:
        self.statuses[what] = status
        self.heard += [(f"the answer to {what}", body.decode(errors="replace")), (f"the headers of {what}", headers)]


def good_and_bad(scene: Scene, upstream: Upstream, tight: Key, revoked: Key) -> None:
    """Everything that ends by itself."""
    body, says, canaries, key = scene.body, scene.says, scene.canaries, scene.key
    for stream in (False, True):
        scene.ask(f"ok, stream {stream}", ours=False, **body(stream=stream), **says())
        scene.ask(f"echo, stream {stream}", ours=False, **body("echo", stream=stream))
        scene.ask(
            f"no [DONE], stream {stream}",
            ours=False,
            **body("fragile", stream=stream),
            **says(play="unfinished_stream"),
        )
        scene.ask(f"cut, stream {stream}", ours=False, **body("fragile", stream=stream), **says(play="cut_stream"))
        scene.ask(
            f"upstream's error event {stream}", ours=False, **body("fragile", stream=stream), **says(play="error_event")
        )
        scene.ask(f"nobody there {stream}", **body("nobody", stream=stream))
        scene.ask(f"first byte too late {stream}", **body("fragile", stream=stream), **says(play="hang"))
    scene.ask("silence in the middle", ours=False, **body("fragile", stream=True), **says(play="silent"))
    scene.ask("completions", ours=False, path="/v1/completions", model="chat", prompt=canaries.prompt)
    scene.ask(
        "embeddings", ours=False, path="/v1/embeddings", model="chat", input=canaries.prompt, x_script="embeddings"
    )
    in_other_words(scene)
    for play in ("html", "unauthorized", "broken", "overloaded", "cut_body", "zipped"):
        scene.ask(f"upstream is {play}", **body("fragile"), **says(play=play))
    for play in ("bad_request", "rate_limited"):
        scene.ask(f"upstream says {play}", ours=False, **body("fragile"), **says(play=play))
    scene.ask("an odd content type", **body("fragile"), **says(play="raw", raw=_odd(canaries), close=True))
    scene.ask("no HTTP at all", **body("fragile"), **says(play="raw", raw=f"{canaries.completion}\r\n\r\n", close=True))
    scene.ask(
        "tools in the answer", ours=False, **body(stream=True), **says(play="raw", raw=_tools(canaries), close=True)
    )
    # 401
    scene.ask("an unknown key", key=Key("", canaries.unknown_key, ""), **body())
    scene.ask("a mistyped key", key=Key("", key.secret[:-1] + "!", ""), **body())
    scene.ask("a revoked key", key=revoked, **body())
    scene.raw("another scheme", _with(body(), ("authorization", f"Basic {canaries.unknown_key}")))
    scene.raw("no scheme", _with(body(), ("authorization", canaries.unknown_key)))
    scene.get("models, unknown key", "/v1/models", authorization=f"Bearer {canaries.unknown_key}")
    # 400, 404, 405, 408, 413, 415, 431
    bearer = ("authorization", f"Bearer {key.secret}")
    whole = json.dumps(body()).encode()
    for what, sent in (
        ("half a body", whole[:-9]),
        ("a text", json.dumps(canaries.prompt).encode()),
        ("no JSON", canaries.prompt.encode()),
    ):
        scene.raw(what, raw_request(sent, [bearer, ("content-type", "application/json")]))
    for name in ("n", "stream", "max_tokens", "messages", "stream_options"):
        scene.ask(f"a bad {name}", **body(**{name: canaries.prompt}))
    twice = f'{{"model": "chat", "model": "{canaries.unknown_model}", "messages": [{{}}]}}'
    scene.raw("a model named twice", raw_request(twice.encode(), [bearer]))
    scene.ask("an unknown model", **body(canaries.unknown_model))
    scene.get("one unknown model", "/v1/models/of-no-such-name")
    scene.get("GET where POST belongs", "/v1/chat/completions")
    scene.raw("compressed", _with(body(), bearer, ("content-encoding", "gzip")))
    scene.ask("too large", **body(more=canaries.prompt * 4000))
    scene.raw("a header too large", _with(body(), bearer, ("x-long", canaries.custom_header * 1200)))
    scene.raw("a header twice", _with(body(), bearer, ("authorization", f"Bearer {canaries.unknown_key}")))
    scene.raw("an underscore", _with(body(), bearer, ("x_secret", canaries.custom_header)))
    scene.raw("a control character", _with(body(), bearer, ("x-secret", f"{canaries.custom_header}\x01")))
    scene.raw("no HTTP", f"{canaries.prompt} {canaries.cookie}\r\n\r\n".encode())
    scene.raw("a bad length", raw_request(b"{}", [bearer, ("content-length", canaries.custom_header)]))
    scene.raw(
        "a body that does not come", raw_request(b"{", [bearer, ("content-length", "900"), ("cookie", canaries.cookie)])
    )
    # 429, and the FastAPI side
    for what in ("the last one", "one too many"):
        scene.ask(what, ours=False, key=tight, **body("echo", max_tokens=20))
    scene.ask("larger than the limit", key=tight, **body("echo", max_tokens=60_000))
    for path in ("/", "/v1/models", "/v1/models/chat", "/v1/limits", "/docs", "/openapi.json"):
        scene.get(path, f"{path}?key={canaries.query}")


def in_other_words(scene: Scene) -> None:
    """The other dialects, translated; what cannot be is named to its caller, and to nobody else."""
    canaries = scene.canaries
    user = [{"role": "user", "content": canaries.prompt}]
    for stream in (False, True):
        messages = {"path": "/v1/messages", "max_tokens": 9, "stream": stream}
        responses = {"path": "/v1/responses", "stream": stream}
        scene.ask(f"messages {stream}", ours=False, **messages, model="chat", messages=user)
        scene.ask(f"responses {stream}", ours=False, **responses, model="chat", input=canaries.prompt)
        scene.ask(
            f"messages that break off {stream}",
            ours=False,
            **messages,
            model="fragile",
            messages=user,
            metadata={"user_id": canaries.prompt},
        )
        odd = [{"role": "user", "content": [{"type": canaries.prompt, "text": canaries.prompt}]}]
        scene.ask(f"an odd block {stream}", ours=False, **messages, model="chat", messages=odd)
        scene.ask(f"an odd item {stream}", ours=False, **responses, model="chat", input=[{"type": canaries.prompt}])
    scene.ask("an odd field", ours=False, path="/v1/responses", model="chat", input="x", **{canaries.prompt: 1})
    scene.ask("nobody there, messages", path="/v1/messages", model="nobody", max_tokens=9, messages=user)
    scene.ask("a count", ours=False, path="/v1/messages/count_tokens", model="chat", messages=user)
    scene.ask("ranks", ours=False, path="/v1/rerank", model="chat", query=canaries.prompt, documents=[canaries.prompt])
    for name in ("model", "nothing"):
        sent = "".join(
            f'--b\r\nContent-Disposition: form-data; name="{part}"{more}\r\n\r\n{value}\r\n'
            for part, more, value in (
                ("prompt", "", canaries.prompt),
                (name, "", "chat"),
                ("file", f'; filename="{canaries.tool_argument}"', canaries.completion),
            )
        )
        head = [*scene.key.headers.items(), ("content-type", "multipart/form-data; boundary=b")]
        what = f"a sound with its {name}"
        scene.raw(what, raw_request(f"{sent}--b--\r\n".encode(), head, "/v1/audio/transcriptions"), ours=False)


def _with(body: dict[str, Any], *headers: tuple[str, str]) -> bytes:
    return raw_request(json.dumps(body).encode(), list(headers))


def _odd(canaries: Canaries) -> str:
    return f"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx-reason: {canaries.completion}\r\ncontent-length: 32\r\n\r\n{canaries.completion[:32]}"


def _tools(canaries: Canaries) -> str:
    calls = [{"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": canaries.completion}}]
    chunk = {
        "choices": [
            {
                "index": 0,
                "delta": {"tool_calls": calls, "reasoning": canaries.completion},
                "finish_reason": "tool_calls",
            }
        ]
    }
    events = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    return f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {len(events)}\r\n\r\n{events}"


EXPECTED = {
    "ok, stream False": 200, "ok, stream True": 200, "completions": 200, "tools in the answer": 200,
    "messages False": 200, "messages True": 200, "responses False": 200, "responses True": 200, "an odd block True": 400,
    "an odd item False": 400, "an odd field": 400, "nobody there, messages": 502, "a count": 200,
    "a sound with its nothing": 400, "nobody there True": 502, "first byte too late False": 504, "upstream is html": 502, "upstream is unauthorized": 502,
    "upstream says bad_request": 400, "an unknown key": 401, "a mistyped key": 401, "a revoked key": 401,
    "half a body": 400, "no JSON": 400, "a bad n": 400, "an unknown model": 404, "one unknown model": 404,
    "GET where POST belongs": 405, "compressed": 415, "too large": 413, "a header too large": 431, "a header twice": 400,
    "a body that does not come": 408, "one too many": 429, "larger than the limit": 429, "/v1/limits": 200, "/docs": 200,
}  # fmt: skip


def those_who_leave(scene: Scene, upstream: Upstream) -> None:
    for stream in (False, True):
        gate = unique("gate")
        sent = _gated(scene, gate, stream=stream)
        with RawExchange(scene.weir.port, sent) as exchange:
            if stream:
                exchange.read_event()
            else:
                time.sleep(0.2)
        upstream.open_gate(gate)


def _gated(scene: Scene, gate: str, *, stream: bool) -> bytes:
    headers = scene.key.headers | scene.headers | {"content-type": "application/json"}
    return raw_request(json.dumps(scene.body(stream=stream) | scene.says(gate=gate)).encode(), list(headers.items()))


def a_bug(scene: Scene) -> None:
    for stream in (False, True):
        assert scene.ask(f"a bug, stream {stream}", **scene.body(planted.MODEL, stream=stream)) == 500
    # Of several workers, one has not had such a request yet.
    eventually(lambda: scene.get("a bug on the other side", "/v1/models").status_code == 500)
    eventually(lambda: any('"event":"bug"' in line for line in scene.weir.process.out), why="the bug is reported")


def without_redis(scene: Scene, own: LockedRedis) -> None:
    own.process.kill()
    scene.ask("redis away", ours=False, **scene.body("echo"))
    scene.ask("redis away, unknown key", key=Key("", scene.canaries.unknown_key, ""), **scene.body("echo"))
    scene.get("readyz without redis", "/readyz", scene.weir.ops_port)
    own.start()
    eventually(lambda: scene.weir.metric("weir_degraded") == 0, why="redis is there again")


def bad_files(canaries: Canaries) -> dict[str, str]:
    """Ways to be wrong, each with a secret at the place of the mistake."""
    secret, key = canaries.pepper, canaries.upstream_key

    def endpoint(**more: Any) -> str:
        return yaml.safe_dump({"models": [{"name": "m", "endpoints": [{"url": "http://a/v1"} | more]}]})

    return {
        "a key in the place of its variable": endpoint(api_key_env=key),
        "a key of small letters": endpoint(api_key_env=f"hf_{key}"),
        "a password in a url": endpoint(url=f"http://user:{key}@a/v1"),
        "half a password in a url": endpoint(url=f"http://user:{key}/x@a/v1"),
        "a key in a url's query": endpoint(url=f"https://a/v1?key={key}"),
        "a key for a port": endpoint(url=f"http://a:{key}/v1"),
        "a key in no url": endpoint(url=f"user:{key}@a/v1"),
        "a pepper that is an alias": f"keys: {{pepper: *{secret}}}",
        "a pepper that is a tag": f"keys: {{pepper: !{secret} }}",
        "a pepper that is a tag with a value": f"keys: {{pepper: !!int {secret}}}",
        "a pepper that is a directive": f"keys:\n  pepper: %{secret}",
        "a pepper in brackets": f"keys: {{pepper: [{secret}]}}",
        "a pepper that is a map": f"keys: {{pepper: {{{secret}: 1}}}}",
        "a pepper without a colon": f"keys:\n  pepper {secret}\n",
        "a pepper as a section": f"keys: {secret}",
        "a pepper as a name": f"keys: {{{secret}: 1}}",
        "a section that is a secret": f"{secret}: 1",
        "a redis url in the wrong place": f"redis: redis://:{secret}@host:6379",
        "a redis url as a name": f'redis: {{"redis://:{secret}@host:6379": 1}}',
        "a redis url with a question": f"redis: {{url: 'redis://:pa?{secret}@host:6379/0'}}",
        "a redis url with a bad port": f"redis: {{url: 'redis://:{secret}@host:port/0'}}",
        "a redis url without a scheme": f"redis: {{url: '{secret}@host:6379'}}",
        "a redis url with a bad option": f"redis: {{url: 'redis://host/0?pasword={secret}'}}",
        "a key where its digest belongs": yaml.safe_dump({"teams": [{"name": "t", "keys": [{"digest": secret}]}]}),
        "a key where a list belongs": yaml.safe_dump({"teams": [{"name": "t", "keys": secret}]}),
        "otlp headers as a text": yaml.safe_dump({"telemetry": {"otlp_headers": f"authorization={secret}"}}),
        "otlp headers as a list": yaml.safe_dump({"telemetry": {"otlp_headers": [f"authorization={secret}"]}}),
        "otlp headers as numbers": yaml.safe_dump({"telemetry": {"otlp_headers": {"authorization": [secret]}}}),
        "a password in the collector's url": yaml.safe_dump(
            {"telemetry": {"otlp_endpoint": f"http://u:{secret}@host"}}
        ),
        "a token in the collector's query": yaml.safe_dump({"telemetry": {"otlp_endpoint": f"http://host?t={secret}"}}),
        "a key for a trusted proxy": yaml.safe_dump({"server": {"trusted_proxies": [secret]}}),
        "no text at all": f"\x00{secret}",
        "not even closed": f'keys: {{pepper: "{secret}',
        "a tab": f"keys:\n\tpepper: {secret}",
    }


def bad_reloads(scene: Scene, good: dict[str, Any]) -> None:
    """Each is refused with a line; the last good one stays."""
    files = bad_files(scene.canaries)
    for what in (
        "a key in the place of its variable",
        "a pepper that is an alias",
        "half a password in a url",
        "a pepper as a name",
    ):
        before = scene.weir.metric("weir_config_reload_failures_total")
        scene.weir.file.write_text(files[what])
        eventually(
            lambda before=before: scene.weir.metric("weir_config_reload_failures_total") > before,
            why=f"{what} is refused",
        )
    scene.weir.file.write_text(yaml.safe_dump(good))


def the_ops_port(scene: Scene) -> None:
    ops = scene.weir.ops_port
    for path in ("/livez", "/readyz", "/metrics", "/requests", "/docs", "/openapi.json", "/nothing"):
        scene.get(f"ops {path}", path, ops)
    scene.get("ops /metrics as OpenMetrics", "/metrics", ops, accept="application/openmetrics-text")
    scene.get("ops /requests with a mistake", "/requests?limit=none", ops)


def the_commands(scene: Scene, config: Path, env: dict[str, str]) -> None:
    """As a program and as a person use them."""
    where, secret = ("--config", str(config)), scene.key.secret
    commands: list[tuple[str, ...]] = [
        *((what, "list", *form) for what in ("teams", "keys", "logs") for form in ((), ("--json",), ("--csv",))),
        ("keys", "show", scene.key.id), ("keys", "show", scene.key.id, "--json"),
        ("keys", "update", scene.key.id, "--rpm", "none", "--json"),
        ("logs", "level", "debug", "--key", scene.key.id, "--for", "never", "--json"),
        ("teams", "show", scene.key.team, "--json"),
    ]  # fmt: skip
    for command in commands:
        done = run_weir(*command, *where, env=env)
        assert done.returncode == 0, done.stderr
        scene.heard.append((f"weir {' '.join(command)}", done.stdout + done.stderr))
    for command in (("keys", "import", "--team", scene.key.team), ("keys", "import", "--team", "nobody-s")):
        done = run_weir(*command, *where, env=env, stdin=secret)
        assert done.returncode == 1
        scene.heard.append((f"weir {' '.join(command)}", done.stdout + done.stderr))
    done = run_weir("check", *where, env=env)
    assert done.returncode == 0, done.stderr
    scene.heard.append(("weir check", done.stdout + done.stderr))
    for form in ((), ("--json",)):
        done = run_weir("top", "--ops-url", scene.weir.ops_url, "--interval", "0.2", "--once", *form)
        assert done.returncode == 0, done.stderr
        scene.heard.append(("weir top", done.stdout + done.stderr))


def the_end(scene: Scene, upstream: Upstream) -> None:
    """Drained while a stream runs that nobody ends."""
    gate = unique("gate")
    with RawExchange(scene.weir.port, _gated(scene, gate, stream=True)) as exchange:
        exchange.read_event()
        scene.weir.process.send(signal.SIGTERM)
        left = exchange.read().body
    assert b"server_draining" in left
    scene.heard.append(("the last event", left.decode().rpartition("data: ")[2]))
    scene.weir.process.wait(30)


def new_key(canaries: Canaries, name: str, config: Path, env: dict[str, str], *flags: str) -> Key:
    """Its secret is a canary from now on; the part before the underscore is its id, which everybody may see."""
    team = unique("team")
    for command in (("teams", "create", team), ("keys", "create", "--team", team, *flags)):
        done = run_weir(*command, "--config", str(config), "--json", env=env)
        assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    canaries.known[name] = made["key"].partition("_")[2]
    assert canaries.leaks("a new key", done.stdout), "it is shown once"
    return Key(made["id"], made["key"], team)


# -- the whole of it


@dataclass
class Played:
    """What is left of the whole play, for the tests to look through."""

    canaries: Canaries
    key: Key
    statuses: dict[str, int]
    heard: list[tuple[str, str]]  # what we said ourselves, and where
    log: str
    redis: str
    spans: list[bytes]
    upstream: list[dict[str, Any]]


@pytest.fixture(scope="module", params=[1, 2], ids=["1-worker", "2-workers"])
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Everything, once: every kind of request and ending, with one process and with two."""
    canaries, directory = Canaries(), tmp_path_factory.mktemp("canary")
    with (
        running_redis(canaries, directory) as locked_redis,
        contextlib.closing(Upstream()) as upstream,
        contextlib.closing(Collector()) as collector,
    ):
        env, file = environment(canaries), directory / "weir.yaml"
        config = the_configuration(canaries, locked_redis.url, upstream.url, collector.url)
        file.write_text(yaml.safe_dump(config))
        key = new_key(canaries, "key", file, env)
        tight = new_key(canaries, "tight_key", file, env, "--rpm", "1", "--tpm", "50000", "--burst-seconds", "60")
        revoked = new_key(canaries, "revoked_key", file, env)
        assert run_weir("keys", "revoke", revoked.id, "--config", str(file), env=env).returncode == 0

        with Planted(config, "--workers", str(request.param), env=env) as weir:
            scene = Scene(weir, canaries, key)
            good_and_bad(scene, upstream, tight, revoked)
            those_who_leave(scene, upstream)
            without_redis(scene, locked_redis)
            the_ops_port(scene)
            the_commands(scene, file, env)
            bad_reloads(scene, config)
            records = upstream.records()
            a_bug(scene)
            the_ops_port(scene)
            contents = locked_redis.contents()
            the_end(scene, upstream)
        yield Played(
            canaries, key, scene.statuses, scene.heard, weir.process.said, contents, list(collector.bodies), records
        )


@pytest.mark.timeout(240)
def test_it_was_all_played(played: Played) -> None:
    """Else nothing below would mean anything."""
    assert {what: played.statuses[what] for what in EXPECTED} == EXPECTED
    for event in ("request", "request_detail", "bug", "redis is away", "configuration refused", "draining"):
        assert f'"event":"{event}' in played.log
    assert any("weir_requests_total{" in text for what, text in played.heard if what == "the answer to ops /metrics")
    assert played.key.id in played.redis
    assert any(b"weir.team" in batch for batch in played.spans)
    assert any(played.canaries.upstream_key in json.dumps(record["headers"]) for record in played.upstream)


def test_no_secret_is_in_the_log(played: Played) -> None:
    assert nothing(played.canaries.leaks("the log", played.log))


def test_no_secret_is_in_what_we_answer_or_print(played: Played) -> None:
    assert nothing(leak for where, text in played.heard for leak in played.canaries.leaks(where, text))


def test_no_secret_is_in_redis(played: Played) -> None:
    assert nothing(played.canaries.leaks("redis", played.redis))


def test_no_secret_is_in_a_span(played: Played) -> None:
    assert nothing(leak for batch in played.spans for leak in played.canaries.leaks("a batch of spans", batch))


def test_upstream_learns_nothing_of_the_clients_head(played: Played) -> None:
    """It gets the prompt, and its own key."""
    theirs = {"prompt", "completion", "tool_argument", "tool_result", "upstream_key"}
    ours = Canaries({name: secret for name, secret in played.canaries.known.items() if name not in theirs})
    for record in played.upstream:
        head = json.dumps([record["target"], record["headers"]])
        assert nothing(ours.leaks("the head that upstream got", head))
        assert nothing(ours.leaks("the body that upstream got", base64.b64decode(record["body"])))


def nothing(leaks: Iterable[str]) -> bool:
    """Fails with all of them."""
    found = sorted(set(leaks))
    assert not found, "\n".join(found)
    return True


def test_a_wrong_configuration_is_told_without_its_secrets(canaries: Canaries, tmp_path: Path) -> None:
    """By `weir check`, and by `weir serve` that does not start."""
    env, file, leaks = environment(canaries), tmp_path / "weir.yaml", list[str]()
    for what, text in bad_files(canaries).items():
        file.write_text(text)
        done = run_weir("check", "--config", str(file), env=env)
        assert done.returncode == 1, f"{what} is good: {done.stdout}"
        assert "Traceback" not in done.stderr, f"{what}: {done.stderr}"
        leaks += canaries.leaks(f"weir check of {what}", done.stdout + done.stderr)
    file.write_text(bad_files(canaries)["a key in the place of its variable"])
    for command in (("serve", "--config"), ("keys", "list", "--config")):
        done = run_weir(*command, str(file), env=env)
        assert done.returncode == 1
        leaks += canaries.leaks(f"weir {command[0]}", done.stdout + done.stderr)
    assert not leaks, "\n".join(leaks)


def test_a_wrong_environment_is_told_without_its_secrets(canaries: Canaries) -> None:
    leaks = []
    for name, value in (
        ("WEIR_REDIS", canaries.redis_password),
        ("WEIR_REDIS__URL", f"redis://:{canaries.redis_password}/x@host:6379"),
        ("WEIR_KEYS", f"pepper={canaries.pepper}"),
        ("WEIR_TELEMETRY__OTLP_HEADERS", f"authorization={canaries.otlp_header}"),
        ("WEIR_KEYS__PEPER", canaries.pepper),
    ):
        done = run_weir("keys", "list", env=environment(canaries) | {name: value})
        assert done.returncode == 1
        assert "Traceback" not in done.stderr, f"{name}: {done.stderr}"
        leaks += canaries.leaks(f"{name}", done.stdout + done.stderr)
    assert not leaks, "\n".join(leaks)


def test_a_redis_that_refuses_the_password(canaries: Canaries, locked_redis: LockedRedis) -> None:
    wrong = canaries.known["wrong_password"] = "k" + secrets.token_hex(16)
    url = f"redis://:{wrong}@127.0.0.1:{locked_redis.port}/0"
    done = run_weir("keys", "list", "--redis-url", url)
    assert done.returncode == 1
    assert str(locked_redis.port) in done.stderr
    assert not canaries.leaks("weir keys list", done.stdout + done.stderr)
    process = Process(
        *Weir.program,
        "serve",
        "--backend",
        "echo",
        "--redis-url",
        url,
        "--port",
        str(free_port()),
        "--ops-port",
        str(free_port()),
    )
    assert process.wait(30) == 1
    assert not canaries.leaks("weir serve", process.said)


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV], ids=["abort", "segfault"])
def test_a_crash_leaves_no_secret(
    canaries: Canaries, locked_redis: LockedRedis, upstream: Upstream, tmp_path: Path, number: signal.Signals
) -> None:
    """As the image has it, with PYTHONFAULTHANDLER: places, and nothing of what was held there."""
    env = environment(canaries) | {"PYTHONFAULTHANDLER": "1"}
    config = the_configuration(canaries, locked_redis.url, upstream.url, "http://127.0.0.1:1")
    file = tmp_path / "weir.yaml"
    file.write_text(yaml.safe_dump(config))
    key = new_key(canaries, "key", file, env)
    with Weir(config, env=env) as weir:
        gate = unique("gate")
        with RawExchange(weir.port, _gated(Scene(weir, canaries, key), gate, stream=True)) as exchange:
            exchange.read_event()
            weir.process.send(number)
            assert weir.process.wait() == -number
        upstream.open_gate(gate)
        assert "Fatal Python error" in weir.process.said
        assert not canaries.leaks("the crash", weir.process.said)


def test_a_key_given_at_start_is_not_repeated(canaries: Canaries) -> None:
    port, given = free_port(), "sk-given-" + secrets.token_hex(16)
    canaries.known["given"] = given.removeprefix("sk-given-")
    process = Process(
        *Weir.program, "serve", "--ephemeral", "--api-key", given, "--port", str(port), "--ops-port", str(free_port())
    )
    try:
        headers = {"authorization": f"Bearer {given}"}
        eventually(lambda: _status(f"http://127.0.0.1:{port}/v1/models", headers) == 200, within=30)
    finally:
        process.stop()
    assert not canaries.leaks("weir serve", process.said)


def _status(url: str, headers: dict[str, str]) -> int:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, headers=headers, trust_env=False).status_code
    return 0
