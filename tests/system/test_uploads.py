"""Sound goes up while it comes: what the server gets, what is held of it, and every way in which an upload can end.

The upstream here is a socket with a script, because what matters is what it takes and when, and not only what it says.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.system.harness import (
    Admin,
    Key,
    RawAnswer,
    RawExchange,
    Weir,
    configuration,
    eventually,
    free_port,
    model,
    raw_request,
    unique,
)

PATH = "/v1/audio/transcriptions"
MAX_BODY = 32 << 20
BODY_SECONDS = 1.0
FIRST_BYTE_SECONDS = 0.8  # less than a client may be silent: whose silence it is shows in who is blamed
ESTABLISHED = 1  # of tcp_info
LET_GO = 2.0  # the design says 250 ms; what it took goes into the report
B = "--------------------------b0undary"
TYPE = {"content-type": f"multipart/form-data; boundary={B}"}
SAID = {"text": "hello", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 3, "total_tokens": 17}}
Script = Callable[["Visit"], None]


@dataclass
class Visit:
    """One connection of Weir's, and what came over it. `body` is without its chunks' framing."""

    socket: socket.socket
    head: str = ""
    body: bytearray = field(default_factory=bytearray)
    gone_at: float = 0.0
    chunked: bool = False
    length: int = 0
    _buffer: bytearray = field(default_factory=bytearray)

    def read_head(self) -> None:
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        self.chunked = self.header("transfer-encoding") == "chunked"
        self.length = int(self.header("content-length") or 0)

    def header(self, name: str) -> str | None:
        found = [line.partition(": ")[2] for line in self.head.split("\r\n") if line.startswith(f"{name}: ")]
        assert len(found) <= 1
        return found[0] if found else None

    def read_body(self, most: int | None = None) -> None:
        """All of it, or so many bytes more."""
        until = None if most is None else len(self.body) + most
        while until is None or len(self.body) < until:
            if self.chunked:
                while b"\r\n" not in self._buffer:
                    self._more()
                size = int(self._buffer.partition(b"\r\n")[0], 16)
                start = self._buffer.index(b"\r\n") + 2
                while len(self._buffer) < start + size + 2:
                    self._more()
                self.body += self._buffer[start : start + size]
                del self._buffer[: start + size + 2]
                if not size:
                    return
            else:
                self.body += self._buffer
                self._buffer.clear()
                if len(self.body) >= self.length:
                    return
                self._more()

    def say(self, status: int, body: bytes, kind: str = "application/json", *, more: str = "") -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
        self.socket.sendall(head.encode() + body)

    def wait_for_end(self) -> None:
        """Until Weir is gone, whatever it still sends."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except OSError:
            pass
        self.gone_at = time.monotonic()

    def _more(self) -> None:
        piece = self.socket.recv(1 << 16)
        if not piece:
            self.gone_at = time.monotonic()
            raise ConnectionError
        self._buffer += piece


@dataclass
class Ear:
    """A server with one script for whoever comes."""

    script: Script
    visits: list[Visit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", free_port()))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        visit = Visit(connection)
        try:
            visit.read_head()
            self.visits.append(visit)
            self.script(visit)
            visit.wait_for_end()
        except OSError:
            visit.gone_at = visit.gone_at or time.monotonic()
        finally:
            connection.close()

    @property
    def visit(self) -> Visit:
        (visit,) = eventually(lambda: list(self.visits), why="somebody came")
        return visit

    def close(self) -> None:
        self._socket.close()


def answers(body: bytes = json.dumps(SAID).encode(), kind: str = "application/json") -> Script:
    def script(visit: Visit) -> None:
        visit.read_body()
        visit.say(200, body, kind)

    return script


def says(status: int, *, reading: int = 0) -> Script:
    """Answers when it has so many bytes of the body."""

    def script(visit: Visit) -> None:
        visit.read_body(reading)
        visit.say(status, json.dumps({"error": {"message": "no", "code": "c"}}).encode())

    return script


def dies(visit: Visit) -> None:
    visit.read_body(100_000)
    visit.socket.close()


def hangs_up(visit: Visit) -> None:
    visit.socket.close()


def takes_nothing(visit: Visit) -> None:
    """Of what it is sent; that Weir is gone shows by the connection's state."""
    while visit.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED:
        time.sleep(0.01)


def reads_all_and_is_silent(visit: Visit) -> None:
    visit.read_body()


UPSTREAM_NAME = "whisper-large-v3"
BOUNDS = {"max_body_bytes": MAX_BODY, "body_timeout_seconds": BODY_SECONDS}


def models_at(number: int, ears: list[Ear]) -> list[dict[str, Any]]:
    """Three names for the same three servers, so that a test has models that no other has failed with."""
    first, second, third = ({"url": ear.url} for ear in ears)
    timeouts = {"first_byte": FIRST_BYTE_SECONDS}
    return [
        model(f"sound-{number}", "", endpoints=[first], timeouts=timeouts, retries=0),
        model(f"renamed-{number}", "", endpoints=[first], upstream_model=UPSTREAM_NAME),
        model(f"many-{number}", "", endpoints=[first, second], retries=2, fallbacks=[f"other-{number}"]),
        model(f"other-{number}", "", endpoints=[third]),
    ]


@dataclass
class Scene:
    """One test's models, key and servers."""

    weir: Weir
    key: Key
    ears: list[Ear]
    number: int
    request_id: str

    @property
    def sound(self) -> str:
        return f"sound-{self.number}"

    def plays(self, *scripts: Script) -> "Scene":
        """What each server does; the last for the rest of them."""
        for ear, script in zip(self.ears, (*scripts, *[scripts[-1]] * 2), strict=False):
            ear.script = script
        return self

    @property
    def visit(self) -> Visit:
        return self.ears[0].visit

    @property
    def visits(self) -> list[Visit]:
        return [visit for ear in self.ears for visit in ear.visits]

    @property
    def record(self) -> dict[str, Any]:
        """The log's line of the only upload."""
        return self.weir.record(operation="transcription", request_id=self.request_id)

    def at_rest(self) -> bool:
        """Every place of the key is free again, and every server is let go."""
        left = self.weir.get("/v1/limits", self.key).json()["limits"]
        places = [one["remaining"] for one in left if one["unit"] == "concurrency"]
        return places == [PLACES] and all(visit.gone_at for visit in self.visits)


SCENES, PLACES = 70, 4


@pytest.fixture(scope="module")
def scenes(redis_url: str, admin: Admin) -> Iterator[Iterator[Scene]]:
    """Each test takes its own."""
    ears = [[Ear(answers()) for _ in range(3)] for _ in range(SCENES)]
    models = [one for number in range(SCENES) for one in models_at(number, ears[number])]
    with Weir(configuration(redis_url, models, server=BOUNDS, telemetry={"log_level": "debug"})) as weir:
        key = admin.key(concurrency=PLACES)
        yield (Scene(weir, key, ears[number], number, unique("upload")) for number in range(SCENES))
    for ear in (ear for three in ears for ear in three):
        ear.close()


@pytest.fixture
def scene(scenes: Iterator[Scene]) -> Scene:
    return next(scenes)


def part(name: str, content: bytes, more: str = "") -> bytes:
    head = f'--{B}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def sound(size: int) -> bytes:
    return part("file", bytes(range(256)) * (size // 256), '; filename="a.wav"\r\nContent-Type: audio/wav')


END = f"--{B}--\r\n".encode()
MODEL = b"MODEL"  # stands in a test's body for the field of its model


def named(body: bytes, name: str) -> bytes:
    return body.replace(MODEL, part("model", name.encode()))


def head_of(scene: Scene, length: int | None, **more: str) -> bytes:
    framing = {"content-length": str(length)} if length is not None else {"transfer-encoding": "chunked"}
    headers = scene.key.headers | TYPE | framing | {"x-request-id": scene.request_id} | more
    return raw_request(None, [*headers.items()], PATH)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def ask(scene: Scene, body: bytes, *, chunked: bool = False, **more: str) -> RawAnswer:
    with RawExchange(scene.weir.port) as client:
        client.send(head_of(scene, None if chunked else len(body), **more))
        if chunked:
            for at in range(0, len(body), 50_000):
                client.send(chunk(body[at : at + 50_000]))
            client.send(b"0\r\n\r\n")
        else:
            client.send(body)
        return client.read()


def detail(scene: Scene) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        said = [json.loads(line) for line in list(scene.weir.process.out) if '"event":"request_detail"' in line]
        return [line for line in said if line["request_id"] == scene.request_id]

    (said,) = eventually(found)
    return said


# -- what the server gets --------------------------------------------------------------------------------------------

BODIES = {
    "model-first": MODEL + sound(200_000) + END,
    "file-first": sound(200_000) + MODEL + END,
    "in-the-middle": part("language", b"en") + MODEL + sound(200_000) + part("prompt", b"hello") + END,
    "small": MODEL + sound(256) + END,
}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("name", ["sound", "renamed"])
def test_the_bytes_are_the_clients(scene: Scene, body: bytes, chunked: bool, name: str) -> None:
    scene.plays(answers())
    name = f"{name}-{scene.number}"
    answer = ask(scene, named(body, name), chunked=chunked)
    assert (answer.status, answer.json()) == (200, SAID)
    visit = scene.visit
    expected = named(body, UPSTREAM_NAME if "renamed" in name else name)
    assert visit.body == expected
    assert visit.head.startswith("POST /v1/audio/transcriptions HTTP/1.1\r\n")
    assert visit.header("content-type") == TYPE["content-type"]
    assert visit.header("content-length") == (None if chunked else str(len(expected)))
    assert visit.header("authorization") is None
    assert [attempt["request_bytes"] for attempt in detail(scene)["attempts"]] == [len(expected)]
    record = scene.record
    assert (record["outcome"], record["input_tokens"], record["output_tokens"]) == ("ok", 14, 3)
    assert record["tokens_from"] == "reported"


EVENTS = [
    {"type": "transcript.text.delta", "delta": "hel"},
    {"type": "transcript.text.delta", "delta": "lo"},
    {"type": "transcript.text.done", "text": "hello", "usage": SAID["usage"]},
]


@pytest.mark.parametrize(
    ("kind", "said", "tokens_from", "tokens"),
    [
        pytest.param("json", json.dumps(SAID), "reported", (14, 3), id="json"),
        pytest.param(
            "json", '{"text":"hello","usage":{"type":"duration","seconds":9}}', "counted", (1000, 0), id="duration"
        ),
        pytest.param("text", "hello", "estimated", (1000, 0), id="text"),
        pytest.param("srt", "1\n00:00:00,000 --> 00:00:01,000\nhello", "estimated", (1000, 0), id="subtitles"),
        pytest.param("stream", "".join(f"data: {json.dumps(e)}\n\n" for e in EVENTS), "reported", (14, 3), id="stream"),
    ],
)
def test_the_openai_sdk(scene: Scene, kind: str, said: str, tokens_from: str, tokens: tuple[int, int]) -> None:
    types = {"json": "application/json", "stream": "text/event-stream"}
    scene.plays(answers(said.encode(), types.get(kind, "text/plain; charset=utf-8")))
    told = {"x-request-id": scene.request_id}
    with openai.OpenAI(
        api_key=scene.key.secret, base_url=scene.weir.base_url, max_retries=0, default_headers=told
    ) as client:
        asked = {"model": scene.sound, "file": ("a.wav", bytes(300_000))}
        if kind == "stream":
            events = list(client.audio.transcriptions.create(**asked, stream=True))
            assert [event.type for event in events] == [event["type"] for event in EVENTS]
        elif kind == "json":
            assert client.audio.transcriptions.create(**asked).text == "hello"
        else:
            assert client.audio.transcriptions.create(**asked, response_format=kind) == said
    record = scene.record
    assert (record["status"], record["stream"]) == (200, kind == "stream")
    assert record["tokens_from"] == tokens_from
    assert record["input_tokens"] == pytest.approx(tokens[0], abs=20)
    assert record["output_tokens"] == tokens[1]


# -- how much is held ------------------------------------------------------------------------------------------------


def resident(weir: Weir) -> int:
    """Bytes."""
    status = Path(f"/proc/{weir.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_a_long_upload_is_never_held(scene: Scene, record_property: Callable[[str, object], None]) -> None:
    """Four of 30 MB each, to a server that reads slowly: the client waits, and not its bytes."""
    uploads, size = PLACES, 30 << 20

    def slow(visit: Visit) -> None:
        while len(visit.body) < visit.length:
            visit.read_body(1 << 20)
            time.sleep(0.05)
        visit.say(200, json.dumps(SAID).encode())

    scene.plays(slow)
    body = named(MODEL + sound(size) + END, f"many-{scene.number}")
    before, peak = resident(scene.weir), 0

    def upload(_: int) -> int:
        with RawExchange(scene.weir.port) as client:
            client.send(head_of(scene, len(body)))
            client.send(body)
            return client.read().status

    with ThreadPoolExecutor(uploads) as pool:
        sending = [pool.submit(upload, number) for number in range(uploads)]
        while not all(one.done() for one in sending):
            peak = max(peak, resident(scene.weir))
            time.sleep(0.01)
    assert [one.result() for one in sending] == [200] * uploads
    assert [visit.body == body for visit in scene.visits] == [True] * uploads
    record_property("held_bytes_per_upload", (peak - before) // uploads)
    assert peak - before < uploads << 20


def test_the_client_waits_for_a_server_that_takes_nothing(scene: Scene) -> None:
    scene.plays(takes_nothing)
    with RawExchange(scene.weir.port) as client:
        client.send(head_of(scene, MAX_BODY))
        client.socket.settimeout(0.3)
        beginning = named(MODEL, scene.sound) + part("file", b"", '; filename="a"')[:-2]
        sent = 0
        with contextlib.suppress(TimeoutError):
            for piece in (beginning, *[bytes(1 << 16)] * 500):
                client.socket.sendall(piece)
                sent += len(piece)
        assert sent < 24 << 20  # what the kernel's buffers take on both ways
        client.socket.settimeout(10)
        assert client.read().status == 504


# -- endings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 429])
@pytest.mark.parametrize("reading", [0, 300_000], ids=["at-once", "in-the-middle"])
def test_an_answer_before_the_end_is_heard_at_once(scene: Scene, status: int, reading: int) -> None:
    scene.plays(says(status, reading=reading))
    with RawExchange(scene.weir.port) as client:
        client.send(head_of(scene, 20 << 20))
        client.send(named(MODEL, scene.sound) + sound(500_000)[:-2])
        answer = client.read()
        assert answer.seconds < BODY_SECONDS
        assert (answer.status, answer.json()["error"]["message"]) == (status, "no")
        assert answer.values["connection"] == "close"
        assert client.socket.recv(1) == b""
    assert scene.record["outcome"] == "upstream_refused"
    assert eventually(scene.at_rest)


def test_an_answer_behind_the_end_keeps_the_connection(scene: Scene) -> None:
    scene.plays(answers())
    body = named(MODEL + sound(500_000) + END, scene.sound)
    with RawExchange(scene.weir.port) as client:
        for _ in range(3):
            client.send(head_of(scene, len(body)) + body)
            answer = client.read()
            assert answer.status == 200
            assert "connection" not in answer.values
            client._answer = None


def test_a_server_that_dies(scene: Scene) -> None:
    scene.plays(dies)
    answer = ask(scene, named(MODEL + sound(10 << 20) + END, f"many-{scene.number}"))
    assert (answer.status, answer.json()["error"]["code"]) == (502, "upstream_error")
    assert len(scene.visits) == 1, "what was taken from a client cannot be sent again"
    record = scene.record
    assert (record["outcome"], record["input_tokens"]) == ("upstream_error", 0)
    assert eventually(scene.at_rest)


@pytest.mark.parametrize("trouble", [says(503), hangs_up], ids=["503", "hangs-up"])
def test_what_is_held_is_sent_again(scene: Scene, trouble: Script) -> None:
    """A small upload is here as a whole: each other server gets it, and then the fallback, with its own name in it."""
    scene.plays(trouble, trouble, answers())
    assert ask(scene, named(sound(1024) + MODEL + END, f"many-{scene.number}")).status == 200
    assert [len(ear.visits) for ear in scene.ears] == [1, 1, 1]
    assert scene.ears[2].visit.body == named(sound(1024) + MODEL + END, f"other-{scene.number}")


def unread(weir: Weir, client: RawExchange) -> int:
    """Bytes that the kernel holds of what this client sent to Weir."""
    ends = f"0100007F:{weir.port:04X} 0100007F:{client.socket.getsockname()[1]:04X}"
    (line,) = [line for line in Path("/proc/net/tcp").read_text().splitlines() if ends in line]
    return int(line.split()[4].partition(":")[2], 16)


def send_until_weir_waits(weir: Weir, client: RawExchange) -> None:
    """Until it reads no more, and has all that it would read next, and the client's leaving behind it."""
    still = 0
    while still < 3:
        if not still:
            client.send(bytes(1 << 14))
        time.sleep(0.005)
        still = still + 1 if unread(weir, client) else 0


@pytest.mark.parametrize("clogged", [False, True], ids=["while-it-comes", "while-the-server-takes-nothing"])
def test_a_client_that_leaves(scene: Scene, record_property: Callable[[str, object], None], clogged: bool) -> None:
    scene.plays(takes_nothing if clogged else reads_all_and_is_silent)
    with RawExchange(scene.weir.port) as client:
        client.send(head_of(scene, MAX_BODY))
        client.send(named(MODEL, scene.sound) + sound(200_000)[:-2])
        assert scene.visit.head
        if clogged:
            send_until_weir_waits(scene.weir, client)
        left_at = client.leave()
    assert eventually(scene.at_rest)
    took = max(visit.gone_at for visit in scene.visits) - left_at
    record_property("upstream_let_go_ms", round(took * 1000, 1))
    assert took < LET_GO
    assert scene.record["outcome"] == "client_disconnect"


@pytest.mark.parametrize("first", [MODEL + sound(1024)[:-2], sound(1024)[:-2]], ids=["model-known", "model-unknown"])
def test_a_client_that_stalls(scene: Scene, first: bytes) -> None:
    scene.plays(reads_all_and_is_silent)
    with RawExchange(scene.weir.port) as client:
        client.send(head_of(scene, 1 << 20) + named(first, scene.sound))
        answer = client.read()
    assert (answer.status, answer.json()["error"]["code"]) == (408, "request_timeout")
    assert BODY_SECONDS <= answer.seconds < BODY_SECONDS + 1
    assert scene.record["input_tokens"] == 0
    assert eventually(scene.at_rest)


def test_the_time_to_the_first_byte_begins_behind_the_upload(scene: Scene) -> None:
    """It takes longer than the server may be silent; only then is it that the server's silence counts."""
    scene.plays(reads_all_and_is_silent)
    body = named(MODEL + sound(1024) + END, scene.sound)
    pieces = [body[at : at + 300] for at in range(0, len(body), 300)]
    with RawExchange(scene.weir.port) as client:
        client.send(head_of(scene, len(body)))
        for piece in pieces:
            time.sleep(FIRST_BYTE_SECONDS / 2)
            client.send(piece)
        sent_at = time.monotonic()
        answer = client.read()
        took = time.monotonic() - sent_at
    assert (answer.status, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    assert "first byte" in answer.json()["error"]["message"]
    assert FIRST_BYTE_SECONDS - 0.1 <= took < FIRST_BYTE_SECONDS + 0.8


# -- refusals --------------------------------------------------------------------------------------------------------

LONG = sound(600_000)
OTHER = part("model", b"other")
REFUSED = {
    #                          body                         status  code           param    may have come to a server
    "no-model": (sound(1024) + END, 400, "invalid_value", "model", False),
    "empty-model": (part("model", b"") + LONG + END, 400, "invalid_value", "model", False),
    "unknown-model": (part("model", b"nobody") + LONG + END, 404, "model_not_found", "model", False),
    "two-models": (MODEL + OTHER + END, 400, "invalid_value", "model", False),
    "two-models-around-the-file": (MODEL + LONG + OTHER + END, 400, "invalid_value", "model", True),
    "no-end": (MODEL + LONG, 400, "malformed_body", None, True),
    "json": (b'{"model": "sound"}', 400, "malformed_body", None, False),
    "empty": (b"", 400, "malformed_body", None, False),
}


@pytest.mark.parametrize(("body", "status", "code", "param", "comes"), REFUSED.values(), ids=REFUSED)
def test_refused(scene: Scene, body: bytes, status: int, code: str, param: str | None, comes: bool) -> None:
    scene.plays(answers())
    answer = ask(scene, named(body, scene.sound))
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["param"]) == (status, code, param)
    assert scene.record["input_tokens"] == 0
    assert eventually(scene.at_rest)
    assert len(scene.visits) <= comes
    for visit in scene.visits:
        assert len(visit.body) < len(body), "it never had the whole"


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", ""])
def test_what_is_no_form(scene: Scene, kind: str) -> None:
    answer = ask(scene, b'{"model": "sound"}', **{"content-type": kind})
    assert (answer.status, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert "multipart/form-data" in answer.json()["error"]["message"]


def test_a_key_is_asked_for_before_the_body(scene: Scene) -> None:
    with RawExchange(scene.weir.port) as client:
        client.send(head_of(scene, 1 << 20, expect="100-continue", authorization="Bearer sk-nobody"))
        answer = client.read()
    assert (answer.status, answer.first_line) == (401, b"HTTP/1.1 401 Unauthorized")


def test_a_client_that_asks_before_it_sends(scene: Scene) -> None:
    scene.plays(answers())
    body = named(MODEL + sound(100_000) + END, scene.sound)
    with RawExchange(scene.weir.port) as client:
        client.send(head_of(scene, len(body), expect="100-continue"))
        assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(body)
        assert client.read().status == 200


TOO_LARGE = {
    "by-its-length": (False, MODEL, False),
    "in-chunks": (True, MODEL, True),
    "in-chunks-the-model-unknown": (True, b"", False),
}


@pytest.mark.parametrize(("chunked", "first", "comes"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_too_large(scene: Scene, chunked: bool, first: bytes, comes: bool) -> None:
    scene.plays(reads_all_and_is_silent)
    body = named(first, scene.sound) + sound(MAX_BODY + 1024)[:-2]
    with RawExchange(scene.weir.port) as client:
        client.send(head_of(scene, None if chunked else len(body)))
        if chunked:
            client.send(chunk(body))
        sent_at = time.monotonic()
        answer = client.read()
    assert time.monotonic() - sent_at < BODY_SECONDS, "as soon as it is known"
    assert (answer.status, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert len(scene.visits) == comes
    assert scene.record["input_tokens"] == 0
    assert eventually(scene.at_rest)
