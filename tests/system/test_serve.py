"""The command on a laptop and in production: starts with nothing, keeps what it should, stops well, tells no secret."""

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis
import yaml

from tests.system.harness import (
    WEIR,
    Admin,
    Key,
    Process,
    RawExchange,
    Upstream,
    Weir,
    answers_200,
    chat_bytes,
    clean_environment,
    configuration,
    events_of,
    eventually,
    free_port,
    model,
    run_weir,
    unique,
)

KEY = re.compile(r"sk-weir-[0-9A-Za-z]{12}_[0-9A-Za-z]{38}")


class Laptop:
    """`weir serve` as a person types it, with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.children: list[psutil.Process] = []
        self._started: list[Process] = []

    def env(self) -> dict[str, str]:
        """A home of its own, and no time for a load balancer that is not there."""
        state = str(self.home / "state")
        return clean_environment(HOME=str(self.home), XDG_STATE_HOME=state, WEIR_DRAIN__ANNOUNCE_SECONDS="0")

    def serve(self, *arguments: str, ready: bool = True) -> Process:
        self.port, self.ops_port = free_port(), free_port()
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--ops-port", str(self.ops_port)]
        process = Process(WEIR, "serve", *where, *arguments, env=self.env())
        self._started.append(process)
        if ready:
            process.wait_ready(lambda: answers_200(f"http://127.0.0.1:{self.ops_port}/readyz"))
            self.children += psutil.Process(process.pid).children(recursive=True)
        return process

    def children_left(self) -> list[psutil.Process]:
        return [child for child in self.children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]

    def ask(self, secret: str, name: str = "echo") -> httpx.Response:
        return httpx.post(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            json={"model": name, "messages": [{"role": "user", "content": "hello there"}]},
            headers={"authorization": f"Bearer {secret}"},
            timeout=10,
            trust_env=False,
        )

    def close(self) -> None:
        for process in self._started:
            process.stop()
        for child in self.children_left():
            child.kill()


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    laptop = Laptop(tmp_path)
    yield laptop
    laptop.close()


def printed_key(process: Process) -> str:
    """The one key that the start has printed, for people."""
    keys = set(eventually(lambda: KEY.findall("\n".join(process.err)), why="a key on stderr"))
    assert len(keys) == 1
    return keys.pop()


def printed_curl(process: Process) -> str:
    """The curl command on stderr with its continued lines, as a person would mark and copy it."""
    lines = iter(list(process.err))
    for line in lines:
        if line.strip().startswith("curl "):
            command = [line]
            while command[-1].rstrip().endswith("\\"):
                command.append(next(lines))
            return "\n".join(command)
    raise AssertionError(f"no curl line on stderr\n{process.said}")


class TestWithNothing:
    def test_prints_a_key_and_a_curl_line_that_works_as_pasted(self, laptop: Laptop) -> None:
        process = laptop.serve()
        secret = printed_key(process)
        curl = eventually(lambda: printed_curl(process))
        assert secret in curl
        pasted = subprocess.run(["sh", "-c", curl], env=laptop.env(), capture_output=True, timeout=30, check=False)
        assert pasted.returncode == 0, pasted.stderr
        if pasted.stdout.startswith(b"data:"):
            assert pasted.stdout.rstrip().endswith(b"data: [DONE]")
        else:
            assert json.loads(pasted.stdout)["choices"][0]["message"]["content"]
        assert not KEY.search("\n".join(process.out)), "stdout is for log lines"

    def test_keys_survive_a_restart(self, laptop: Laptop) -> None:
        first = laptop.serve()
        secret = printed_key(first)
        assert laptop.ask(secret).status_code == 200
        first.stop()
        second = laptop.serve()
        assert laptop.ask(secret).status_code == 200
        second.stop()
        assert not KEY.search(second.said), "a key is shown once"

    def test_commands_say_that_it_is_its_redis(self, laptop: Laptop) -> None:
        process = laptop.serve()
        secret = printed_key(process)
        found = run_weir("keys", "list", "--json", env=laptop.env())
        assert [key["id"] for key in json.loads(found.stdout)] == [secret.removeprefix("sk-weir-").partition("_")[0]]
        assert "in the Redis of the `weir serve` that runs here" in found.stderr

    def test_keys_survive_a_crash(self, laptop: Laptop) -> None:
        first = laptop.serve()
        secret = printed_key(first)
        first.kill()
        laptop.serve()
        assert laptop.ask(secret).status_code == 200

    def test_ephemeral_keeps_nothing(self, laptop: Laptop) -> None:
        first = laptop.serve("--ephemeral")
        secret = printed_key(first)
        assert laptop.ask(secret).status_code == 200
        first.stop()
        second = laptop.serve("--ephemeral")
        assert printed_key(second) != secret
        assert laptop.ask(secret).status_code == 401
        second.stop()
        assert [path for path in laptop.home.rglob("*") if path.is_file()] == []

    def test_leaves_no_process_behind(self, laptop: Laptop) -> None:
        process = laptop.serve()
        assert laptop.children, "there is a Redis of its own"
        process.stop()
        eventually(lambda: not laptop.children_left(), why="its Redis ended with it")

    def test_ctrl_c_ends_it_without_a_traceback(self, laptop: Laptop) -> None:
        process = laptop.serve()
        process.send(signal.SIGINT)
        process.wait(20)
        assert "Traceback" not in process.said
        eventually(lambda: not laptop.children_left(), why="its Redis ended with it")

    def test_its_embedded_redis_listens_to_nobody_else(self, laptop: Laptop) -> None:
        process = laptop.serve()
        for child in psutil.Process(process.pid).children(recursive=True):
            for connection in child.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip in {"127.0.0.1", "::1"}


class TestQuickStart:
    def test_an_upstream_and_a_key_of_ones_own(
        self, laptop: Laptop, upstream: Upstream, new_redis_url: Callable[[], str]
    ) -> None:
        url, own = new_redis_url(), unique("sk-own")
        backend = ["--backend", "openai", "--upstream", upstream.url, "--model", "m"]
        process = laptop.serve(*backend, "--api-key", own, "--redis-url", url)
        answer = laptop.ask(own, "m")
        assert answer.status_code == 200
        assert answer.json()["choices"][0]["message"]["content"] == "word0 word1 word2 "
        assert laptop.ask("sk-other", "m").status_code == 401
        assert [team["name"] for team in Admin(url).json("teams", "list")] == ["demo"]
        process.stop()
        assert own not in "\n".join(process.out), "the log tells no key, whoever made it"


TYPOS = [
    # id, change, in the complaint
    pytest.param("serverr:\n  port: 1\n", ["serverr", "server", "line 1"], id="section"),
    pytest.param("server:\n  prot: 1\n", ["prot", "port", "line 2"], id="key"),
    pytest.param(
        "models:\n  - name: m\n    backend: echo\n    alises: [a]\n",
        ["alises", "aliases", "line 4"],
        id="key-of-a-model",
    ),
    pytest.param(
        "models:\n  - name: m\n    backend: openai\n    endpoints:\n      - {url: 'http://a/v1', wieght: 1}\n",
        ["wieght", "weight", "line 5"],
        id="key-of-an-endpoint",
    ),
    pytest.param("server:\n  port: many\n", ["port", "line 2"], id="value"),
    pytest.param("models:\n  - name: m\n    backend: opnai\n", ["backend", "openai", "line 3"], id="backend"),
    pytest.param("server: {port: 1\nmodels: []\n", ["line"], id="not-yaml"),
    pytest.param("- a\n- b\n", [""], id="not-a-mapping"),
    pytest.param("# nothing yet\n", ["models", "nothing to serve"], id="no-models"),
    pytest.param(
        "models: [{name: m, backend: echo}]\nredis: {url: http://a}\n",
        ["weir.yaml: line 2: redis.url", "redis+sentinel://"],
        id="url-of-something-else",
    ),
    pytest.param("server:\n  prot: 1\nredis:\n  ulr: redis://x\n", ["prot", "port", "ulr", "url"], id="two-at-once"),
]


# Section 2.3 as it stands there, and the model that it names as a fallback.
DESIGN = """
server:   {host: "::", port: 8080, ops_port: 9090, max_body_bytes: 33554432, sse_keepalive_seconds: 15}
redis:    {url: redis://localhost:6379/0, on_outage: degrade}        # degrade | closed | open
models:
  - name: llama-3.3-70b            # what clients ask for
    aliases: [gpt-4o-mini]
    backend: openai                # openai | anthropic | echo | python | transformers
    upstream_model: meta-llama/Llama-3.3-70B-Instruct
    endpoints:
      - {url: "http://vllm-0.vllm:8000/v1", weight: 1, api_key_env: VLLM_API_KEY}
    timeouts: {connect: 2, first_byte: 300, idle: 120, total: 3600}  # seconds
    retries: 2                     # before the first byte only
    fallbacks: [qwen-32b]
    price: {input: 0.15, output: 0.60}   # USD per million tokens
    default_max_tokens: 4096
  - name: qwen-32b
    backend: openai
    endpoints: [{url: "http://vllm-1.vllm:8000/v1"}]
teams:                             # optional: teams and keys as files (keys by digest only)
  - {name: search, rpm: 600, tpm: 200000, concurrency: 50, models: ["*"]}
drain:    {announce_seconds: 5, deadline_seconds: 300}
telemetry: {log_level: info, otlp_endpoint: null, trace_sample: 0.01, capture_content: false}
"""


class TestCheck:
    @pytest.mark.parametrize(("text", "named"), TYPOS)
    def test_says_what_is_wrong_and_serve_does_not_start(self, *, tmp_path: Path, text: str, named: list[str]) -> None:
        file = tmp_path / "weir.yaml"
        file.write_text(text)
        checked = run_weir("check", "--config", str(file))
        assert checked.returncode == 1
        said = checked.stdout + checked.stderr
        for word in named:
            assert word in said
        assert "Traceback" not in said
        where = ["--port", str(free_port()), "--ops-port", str(free_port())]
        served = run_weir("serve", "--config", str(file), *where)
        assert served.returncode != 0
        for word in named:
            assert word in served.stdout + served.stderr
        assert "Traceback" not in served.stderr

    def test_finds_nothing_wrong_with_a_good_one(self, tmp_path: Path) -> None:
        file = tmp_path / "weir.yaml"
        config = configuration("redis://127.0.0.1:1/0", [model("m", "http://127.0.0.1:1/v1")])
        file.write_text(yaml.safe_dump(config))
        checked = run_weir("check", "--config", str(file))
        assert checked.returncode == 0, checked.stdout + checked.stderr

    def test_knows_every_setting_of_the_design(self, tmp_path: Path) -> None:
        file = tmp_path / "weir.yaml"
        file.write_text(DESIGN)
        checked = run_weir("check", "--config", str(file), env=clean_environment(VLLM_API_KEY="x"))
        assert checked.returncode == 0, checked.stdout + checked.stderr

    def test_blames_the_environment_for_what_it_says(self, tmp_path: Path) -> None:
        file = tmp_path / "weir.yaml"
        file.write_text("server: {prot: 1}\nmodels: [{name: m, backend: echo}]\n")
        checked = run_weir("check", "--config", str(file), env=clean_environment(WEIR_SERVER__PORT="many"))
        assert checked.returncode == 1
        variable, in_file, summary = checked.stderr.splitlines()
        assert variable.startswith("WEIR_SERVER__PORT: ")
        assert in_file.startswith(f"{file}: line 1: server.prot: ")
        assert summary == f"2 problems in {file} and the environment."

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        checked = run_weir("check", "--config", str(tmp_path / "nowhere.yaml"))
        assert checked.returncode != 0
        assert "nowhere.yaml" in checked.stdout + checked.stderr
        assert "Traceback" not in checked.stderr

    def test_a_port_that_is_taken_is_said_in_a_sentence(self, laptop: Laptop, weir: Weir, redis_url: str) -> None:
        taken = run_weir(
            "serve", "--host", "127.0.0.1", "--port", str(weir.port), "--ops-port", str(free_port()),
            "--redis-url", redis_url,
        )  # fmt: skip
        assert taken.returncode != 0
        assert str(weir.port) in taken.stdout + taken.stderr
        assert "Traceback" not in taken.stderr


class TestStopping:
    @pytest.fixture
    def stopping(self, redis_url: str, upstream: Upstream, start_weir: Callable[..., Weir]) -> Callable[[int], Weir]:
        def start(deadline: int) -> Weir:
            drain = {"announce_seconds": 0, "deadline_seconds": deadline}
            return start_weir(configuration(redis_url, [model("chat", upstream.url)], drain=drain))

        return start

    def test_a_stream_runs_to_its_end(self, stopping: Callable[[int], Weir], upstream: Upstream, admin: Admin) -> None:
        weir, key, gate = stopping(60), admin.key(tpm=6, burst_seconds=60_000), unique("gate")
        script = {"gate": gate, "usage": [3, 97]}
        with RawExchange(weir.port, chat_bytes(key, "chat", stream=True, x_script=script)) as stream:
            assert stream.read_event().startswith(b"data: ")
            weir.process.send(signal.SIGTERM)
            eventually(lambda: httpx.get(f"{weir.ops_url}/readyz", trust_env=False).status_code == 503)
            assert answers_200(f"{weir.ops_url}/livez")
            refused = eventually(lambda: (a := weir.chat(key)).status_code == 503 and a)
            assert int(refused.headers["retry-after"]) >= 1
            assert set(refused.json()["error"]) == {"message", "type", "param", "code"}
            assert weir.process.running
            upstream.open_gate(gate)
            body = stream.read().body
        assert body.rstrip().endswith(b"data: [DONE]")
        assert b"error" not in body
        weir.process.wait(20)
        assert "Traceback" not in weir.process.said
        record = weir.record(key_id=key.id, status=200)
        assert record["output_tokens"] == 97

    def test_a_stream_beyond_the_deadline_is_told(
        self, *, stopping: Callable[[int], Weir], weir: Weir, upstream: Upstream, admin: Admin
    ) -> None:
        stops, key, mark = stopping(1), admin.key(tpm=6, burst_seconds=60_000, concurrency=1), unique("mark")
        sent = chat_bytes(key, "chat", stream=True, user=mark, max_tokens=5000, x_script="silent")
        with RawExchange(stops.port, sent) as stream:
            assert stream.read_event().startswith(b"data: ")
            stops.process.send(signal.SIGTERM)
            events = events_of(stream.read().body)
        assert events, "it was cut without a word"
        assert set(events[-1]["error"]) == {"message", "type", "param", "code"}
        assert "[DONE]" not in events
        stops.process.wait(20)
        upstream.record(mark, "client_left")
        # It was settled before Redis was left: another process has the slot and the tokens at once.
        assert weir.chat(key, max_tokens=10).status_code == 200
        assert weir.remaining(key, "tokens") > 5000

    def test_nothing_open_means_at_once(self, stopping: Callable[[int], Weir]) -> None:
        weir = stopping(60)
        weir.process.send(signal.SIGTERM)
        assert weir.process.wait(20) in {0, -signal.SIGTERM, 128 + signal.SIGTERM}


def content(client: redis.Redis, name: bytes) -> object:
    """All that is under this name, read and not dumped, since a dump may be compressed."""
    kind = client.type(name)
    readers: dict[bytes, Callable[[bytes], object]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda n: client.zrange(n, 0, -1, withscores=True),
        b"list": lambda n: client.lrange(n, 0, -1),
        b"stream": client.xrange,
    }
    return readers[kind](name) if kind != b"none" else None


class TestSecrets:
    PROMPT = "canary-prompt-a1b2c3"
    COMPLETION = "canary-completion-d4e5f6"

    @pytest.mark.parametrize("level", ["info", "debug"])
    def test_no_key_prompt_or_completion_is_told(
        self, *, level: str, redis_url: str, upstream: Upstream, admin: Admin, start_weir: Callable[..., Weir]
    ) -> None:
        names = ["chat", "html", "broken", "cut_body", "unauthorized", "cut_stream"]
        models = [model(name, upstream.url) for name in names] + [{"name": "echo", "backend": "echo"}]
        weir = start_weir(configuration(redis_url, models, telemetry={"log_level": level}))
        key, narrow = admin.key(), admin.key(tpm=10)
        foreign = unique("canary-foreign-key")
        spoken = {"x_script": {"content": f"I say {self.COMPLETION} twice {self.COMPLETION}"}}
        answers = [
            weir.chat(key, self.PROMPT, **spoken),
            weir.chat(key, self.PROMPT, stream=True, **spoken),
            weir.chat(key, self.PROMPT, model="echo"),
            *(weir.chat(key, self.PROMPT, model=name, stream=name == "cut_stream") for name in names[1:]),
            weir.chat(narrow, self.PROMPT, max_tokens=1000),
            weir.chat(Key("", foreign, ""), self.PROMPT),
            weir.chat(key, self.PROMPT, model="no-such-model"),
            weir.chat(key, self.PROMPT, max_tokens=-1),
            weir.http.post("/v1/chat/completions", content=self.PROMPT.encode(), headers=key.headers),
        ]
        assert [a.status_code for a in answers] == [200, 200, 200, 502, 502, 502, 502, 200, 429, 401, 404, 400, 400]
        gone = chat_bytes(key, "chat", self.PROMPT, stream=True, x_script="endless")
        with RawExchange(weir.port, gone) as leaves:
            leaves.read_event()
        metrics = httpx.get(f"{weir.ops_url}/metrics", trust_env=False).text
        # One more line than answers: the client that left.
        eventually(lambda: len(weir.records) >= len(answers) + 1, why="a line for each request")
        weir.process.stop()
        told = weir.process.said + metrics + "".join(a.text for a in answers if a.status_code >= 400)
        for secret in (key.secret, narrow.secret, foreign, self.PROMPT, self.COMPLETION):
            assert secret not in told
        for own in (key, narrow):
            assert own.secret.split("_", 1)[1] not in told, "not even its secret half"
        assert key.id in told, "the key's id is what stands for it"

    def test_redis_holds_no_key(self, weir: Weir, admin: Admin, redis_url: str) -> None:
        foreign, team = unique("foreign-key"), admin.team()
        key = admin.key(team)
        admin.json("keys", "import", "--team", team, stdin=foreign)
        assert weir.chat(key).status_code == 200
        with redis.Redis.from_url(redis_url) as client:
            names = list(client.scan_iter(count=1000))
            assert all(name.startswith(b"weir:") for name in names)
            held = repr([(name, content(client, name)) for name in names])
        assert key.id in held
        assert key.secret.split("_", 1)[1] not in held
        assert foreign not in held


class TestLog:
    FIELDS = (
        "event request_id trace_id team key_id model endpoint status outcome ttft_ms duration_ms overhead_ms "
        "input_tokens output_tokens tokens_from"
    )

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
    def test_a_line_for_a_request(self, *, weir: Weir, admin: Admin, upstream: Upstream, stream: bool) -> None:
        key = admin.key()
        answer = weir.chat(key, stream=stream, x_script={"usage": [3, 12]})
        record = weir.record(request_id=answer.headers["x-request-id"])
        assert set(self.FIELDS.split()) <= set(record)
        told = {name: record[name] for name in ("team", "key_id", "model", "status")}
        assert told == {"team": key.team, "key_id": key.id, "model": "chat", "status": 200}
        assert (record["input_tokens"], record["output_tokens"], record["tokens_from"]) == (3, 12, "reported")
        assert 0 < record["ttft_ms"] <= record["duration_ms"]
        assert 0 <= record["overhead_ms"] <= record["duration_ms"]

    def test_a_refusal_has_its_line_too(self, weir: Weir) -> None:
        answer = weir.chat(None)
        record = weir.record(request_id=answer.headers["x-request-id"])
        assert record["status"] == 401
        assert not record.get("key_id")

    def test_each_line_is_json(self, weir: Weir, admin: Admin) -> None:
        answer = weir.chat(admin.key(), "two\nlines")
        weir.record(request_id=answer.headers["x-request-id"])
        for line in list(weir.process.out):
            assert isinstance(json.loads(line), dict)


class TestOpsPort:
    @pytest.mark.parametrize("path", ["/livez", "/readyz"])
    def test_probes(self, weir: Weir, path: str) -> None:
        assert answers_200(weir.ops_url + path)

    def test_metrics(self, weir: Weir, admin: Admin) -> None:
        assert weir.chat(admin.key()).status_code == 200
        answer = httpx.get(f"{weir.ops_url}/metrics", trust_env=False)
        assert answer.status_code == 200
        for name in ("weir_requests_total", "weir_request_duration_seconds", "weir_tokens_total"):
            assert re.search(rf"^{name}", answer.text, re.MULTILINE)

    def test_unknown_models_are_one_series(self, weir: Weir, admin: Admin) -> None:
        key = admin.key()

        def series() -> int:
            return len(httpx.get(f"{weir.ops_url}/metrics", trust_env=False).text.splitlines())

        weir.chat(key, model="unknown-first")
        eventually(lambda: weir.records_with(key_id=key.id))
        before = series()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: weir.chat(key, model=f"unknown-{i}"), range(200)))
        eventually(lambda: len(weir.records_with(key_id=key.id)) == 201, why="all of them logged")
        assert series() <= before + 5

    def test_the_data_port_has_no_probes(self, weir: Weir) -> None:
        assert weir.get("/metrics").status_code == 404

    def test_not_ready_says_why(self, tmp_path: Path) -> None:
        """No Redis at the start: alive, not ready, and says so instead of hanging."""
        file, port, ops = tmp_path / "weir.yaml", free_port(), free_port()
        file.write_text(
            yaml.safe_dump(configuration(f"redis://127.0.0.1:{free_port()}/0", [{"name": "echo", "backend": "echo"}]))
        )
        command = [WEIR, "serve", "--config", file, "--host", "127.0.0.1", "--port", port, "--ops-port", ops]
        process = Process(*(str(part) for part in command))
        try:
            process.wait_ready(lambda: answers_200(f"http://127.0.0.1:{ops}/livez"))
            answer = httpx.get(f"http://127.0.0.1:{ops}/readyz", trust_env=False)
            assert answer.status_code == 503
            assert "redis" in answer.text.lower()
            asked = httpx.get(
                f"http://127.0.0.1:{port}/v1/models", headers={"authorization": "Bearer sk-x"}, trust_env=False
            )
            assert asked.status_code == 503
            assert "retry-after" in asked.headers
        finally:
            process.stop()


class TestPages:
    def test_the_root_says_what_this_is(self, weir: Weir) -> None:
        answer = weir.get("/")
        assert answer.status_code == 200
        assert "weir" in answer.text.lower()
        assert "/docs" in answer.text

    def test_docs(self, weir: Weir) -> None:
        answer = weir.get("/docs")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")

    @pytest.mark.parametrize(
        ("path", "method"),
        [
            ("/v1/chat/completions", "post"),
            ("/v1/completions", "post"),
            ("/v1/embeddings", "post"),
            ("/v1/models", "get"),
            ("/v1/models/{id}", "get"),
            ("/v1/limits", "get"),
        ],
    )
    def test_openapi_has_the_hot_routes_too(self, weir: Weir, path: str, method: str) -> None:
        paths: dict[str, Any] = weir.get("/openapi.json").json()["paths"]
        found = {re.sub(r"\{[^}]*\}", "{id}", name): methods for name, methods in paths.items()}
        assert found[path][method]["summary"]

    @pytest.mark.parametrize("path", ["/v1/limits", "/v1/models", "/limits", "/models"])
    def test_what_a_key_sees_needs_a_key(self, weir: Weir, admin: Admin, path: str) -> None:
        assert weir.get(path).status_code == 401
        assert weir.get(path, admin.key()).status_code == 200

    def test_limits_name_the_key_and_the_team(self, weir: Weir, admin: Admin) -> None:
        key = admin.key(admin.team(rpm=100, tpm=200_000), rpm=10, concurrency=3)
        text = json.dumps(weir.get("/v1/limits", key).json())
        for expected in ("key", "team", "100", "200000", "10", "3"):
            assert expected in text
