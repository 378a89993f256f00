"""`weir top` and the ops port's /requests against a real Weir that has something to do."""

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.system.harness import (
    ROOT,
    WEIR,
    Admin,
    Key,
    RawExchange,
    Upstream,
    Weir,
    chat_bytes,
    clean_environment,
    configuration,
    eventually,
    free_port,
    model,
    run_weir,
    unique,
)


@pytest.fixture
def weir(redis_url: str, upstream: Upstream) -> Iterator[Weir]:
    models = [model("chat", upstream.url), {"name": "echo", "backend": "echo"}]
    with Weir(configuration(redis_url, models)) as weir:
        yield weir


@contextlib.contextmanager
def load(weir: Weir, *keys: Key) -> Iterator[None]:
    """Requests of these keys, one after the other, until the block is left."""
    stop = threading.Event()

    def ask(key: Key) -> None:
        while not stop.is_set():
            weir.chat(key, model="echo", stream=True)
            time.sleep(0.01)

    with ThreadPoolExecutor(len(keys)) as pool:
        asking = [pool.submit(ask, key) for key in keys]
        yield
        stop.set()
        for one in asking:
            one.result()


def once(weir: Weir) -> Any:
    done = run_weir("top", "--ops-url", weir.ops_url, "--interval", "1", "--once", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_frame_under_load(weir: Weir, admin: Admin, upstream: Upstream) -> None:
    key, tight = admin.key(admin.team()), admin.key(admin.team(), rpm=1, burst_seconds=60)
    gate = unique("gate")
    sent = chat_bytes(key, "chat", stream=True, x_script={"gate": gate})
    with RawExchange(weir.port, sent) as stream, load(weir, key, tight):
        stream.read_event()
        said = once(weir)
        frame = run_weir("top", "--ops-url", weir.ops_url, "--interval", "0.5", "--once").stdout
        upstream.open_gate(gate)
        stream.read()
    assert said["requests_per_second"] > 1
    assert said["tokens_per_second"]["output"] > 1
    assert said["refused_by"]["requests"] > 0.5
    assert 0 < said["overhead_seconds"]["p50"] <= said["overhead_seconds"]["p99"] < 1
    assert said["time_to_first_token_seconds"]["p50"] > 0
    assert said["in_flight"] >= 1
    assert (said["degraded"], said["draining"]) == (False, False)
    teams = {team["team"]: team for team in said["teams"]}
    assert teams[tight.team]["refusals_per_second"] > 0.5
    assert teams[key.team]["refusals_per_second"] == 0
    held = [one for one in said["streams"] if one["model"] == "chat"]
    assert [(one["team"], one["key_id"], one["phase"]) for one in held] == [(key.team, key.id, "streaming")]
    assert key.secret not in json.dumps(said)
    for shown in ("requests/s", key.team, "p50/p99", "streams under way", "streaming"):
        assert shown in frame


def test_requests_under_way(weir: Weir, admin: Admin, upstream: Upstream) -> None:
    key, gate, prompt = admin.key(), unique("gate"), unique("canary-prompt")
    with contextlib.ExitStack() as stack:
        for script in ({"play": "hang"}, {"gate": gate}):
            stream = stack.enter_context(
                RawExchange(weir.port, chat_bytes(key, "chat", prompt, stream=True, x_script=script))
            )
            if "gate" in script:
                stream.read_event()
            else:
                eventually(lambda: weir.metric("weir_in_flight_requests") == 1)
        said = httpx.get(f"{weir.ops_url}/requests", trust_env=False).json()
        assert (said["count"], said["processes"]) == (2, 1)
        assert [one["phase"] for one in said["requests"]] == ["upstream", "streaming"], "the older one first"
        assert said["requests"][0]["age_seconds"] >= said["requests"][1]["age_seconds"] > 0
        assert said["requests"][0]["time_to_first_token"] is None
        assert 0 < said["requests"][1]["time_to_first_token"] <= said["requests"][1]["age_seconds"]
        assert {(one["team"], one["key_id"], one["operation"]) for one in said["requests"]} == {
            (key.team, key.id, "chat")
        }
        only = httpx.get(f"{weir.ops_url}/requests?limit=1", trust_env=False).json()
        assert [one["phase"] for one in only["requests"]] == ["upstream"]
        assert only["count"] == 2
        text = json.dumps(said)
        assert prompt not in text
        assert key.secret not in text
    eventually(lambda: httpx.get(f"{weir.ops_url}/requests", trust_env=False).json()["count"] == 0)


def test_each_worker_answers_for_its_own(redis_url: str, admin: Admin, start_weir: Callable[..., Weir]) -> None:
    weir = start_weir(configuration(redis_url, [{"name": "echo", "backend": "echo"}]), "--workers", "2")
    said = once(weir)
    assert said["process"]["of"] == 2
    assert said["process"]["pid"] != weir.process.pid
    assert "of one of 2 processes" in run_weir("top", "--ops-url", weir.ops_url, "--interval", "0.1", "--once").stdout


MISTAKES = [
    pytest.param(("--ops-url", "http://127.0.0.1:1", "--once"), "does not answer", id="nobody-there"),
    pytest.param(("--ops-url", "localhost:9090", "--once"), "no address", id="no-scheme"),
    pytest.param(("--json",), "--once", id="json-for-ever"),
]


@pytest.mark.parametrize(("typed", "said"), MISTAKES)
def test_a_mistake_is_answered_with_a_sentence(typed: tuple[str, ...], said: str) -> None:
    done = run_weir("top", *typed)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_data_port_is_not_taken_for_the_ops_port(weir: Weir) -> None:
    done = run_weir("top", "--ops-url", f"http://127.0.0.1:{weir.port}", "--once")
    assert done.returncode == 1
    assert "ops port" in done.stderr


class Terminal:
    """A command at a terminal of its own, and all that it has drawn."""

    def __init__(self, *command: str) -> None:
        self._master, slave = pty.openpty()
        env = clean_environment(TERM="xterm-256color", COLUMNS="120", LINES="40")
        del env["NO_COLOR"]
        self.popen = subprocess.Popen(
            [str(WEIR), *command], cwd=ROOT, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.drawn = ""

    def look(self) -> str:
        while select.select([self._master], [], [], 0)[0]:
            try:
                new = os.read(self._master, 65536)
            except OSError:  # its other end is closed
                break
            if not new:
                break
            self.drawn += new.decode(errors="replace")
        return self.drawn

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        os.close(self._master)


def test_at_a_terminal_it_survives_an_ops_port_that_goes_and_ends_cleanly(
    redis_url: str, start_weir: Callable[..., Weir]
) -> None:
    weir = start_weir(configuration(redis_url, [{"name": "echo", "backend": "echo"}]))
    terminal = Terminal("top", "--ops-url", weir.ops_url, "--interval", "0.2")
    try:
        eventually(lambda: "requests/s" in terminal.look(), why="a page is drawn")
        weir.process.stop()
        eventually(lambda: "does not answer" in terminal.look(), why="it says that nobody is there")
        assert terminal.popen.poll() is None
        seen = len(terminal.look())
        weir.start_again()
        eventually(lambda: "well" in terminal.look()[seen:].rpartition("does not answer")[2], why="it is back")
        terminal.popen.send_signal(signal.SIGINT)

        def ended() -> bool:
            terminal.look()  # or it would wait for whoever reads the end of its last page
            return terminal.popen.poll() is not None

        eventually(ended, why="Ctrl-C ends it")
        assert terminal.popen.returncode == 0
        drawn = terminal.look()
        assert drawn.rfind("\x1b[?1049l") > drawn.rfind("\x1b[?1049h") >= 0, "the screen from before is back"
        assert drawn.rfind("\x1b[?25h") > drawn.rfind("\x1b[?25l") >= 0, "the cursor is visible again"
        assert "Traceback" not in drawn
    finally:
        terminal.close()


def test_it_waits_for_one_that_is_not_there_yet() -> None:
    terminal = Terminal("top", "--ops-url", f"http://127.0.0.1:{free_port()}", "--interval", "0.2")
    try:
        eventually(lambda: "Trying again" in terminal.look())
        assert terminal.popen.poll() is None
    finally:
        terminal.close()
