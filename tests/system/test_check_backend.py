"""`weir check-backend` against engines that are well, that have one fault each, and that are not there.

An engine here speaks through the echo model; a fault is one thing that it does otherwise. A fault must be seen, be
blamed on nothing else, and decide the exit code only where Weir needs what is broken.
"""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer
import uvicorn

from tests.system.harness import Admin, Weir, eventually, free_port
from weir.backend.backend import Call
from weir.backend.echo import EchoBackend
from weir.cli.check_backend import Asked, as_json, check_backend
from weir.cli.checks import LONG
from weir.cli.conformance import CHECKS, Result, examine
from weir.cli.engine import Engine
from weir.core.types import Endpoint, Timeouts

Json = dict[str, Any]
NOWHERE = ("responses", "messages", "tokenize", "rerank", "logprobs", "wrong key")  # what the echo model has not


class Well:
    """An ASGI app: an honest engine. Its faulty sisters change one of these methods."""

    def __init__(self) -> None:
        self.slot = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            body = b""
            while (message := await receive())["type"] == "http.request":
                body += message["body"]
                if not message["more_body"]:
                    break
            await self.answer(scope["path"].removeprefix("/v1"), body, send)

    async def answer(self, path: str, body: bytes, send: Any) -> None:
        if path == "/models":
            await self.say(send, 200, self.models())
            return
        try:
            request = json.loads(body)
        except ValueError:
            await self.refuse(send, 400, "The body is no JSON.")
            return
        if path not in ("/chat/completions", "/completions", "/embeddings"):
            await self.say(send, 404, {"detail": "Not Found"})
        elif request["model"] != "echo":
            await self.refuse(send, 404, "There is no such model.")
        elif complaint := self.complaint(request):
            await self.refuse(send, 400, complaint)
        else:
            await self.serve(path, self.heard(request), send)

    async def serve(self, path: str, request: Json, send: Any) -> None:
        call = Call(path, json.dumps(request).encode(), [], Timeouts())
        async with EchoBackend().send(Endpoint("echo"), call) as response:
            if not request.get("stream"):
                await self.say(send, response.status, self.whole(json.loads(await response.read())))
                return
            events = []
            while piece := await response.read():
                if (event := self.event(piece)) is not None:
                    events.append(event)
        await self.stream(send, events)

    def models(self) -> Json:
        return {"object": "list", "data": [{"id": "echo", "object": "model"}]}

    def complaint(self, request: Json) -> str | None:
        return None

    def heard(self, request: Json) -> Json:
        return request

    def whole(self, said: Json) -> Json:
        return said

    def event(self, event: bytes) -> bytes | None:
        return event

    async def stream(self, send: Any, events: list[bytes]) -> None:
        await self.head(send, 200, b"text/event-stream")
        for event in events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def refuse(self, send: Any, status: int, message: str) -> None:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        await self.say(send, status, {"error": error})

    async def head(self, send: Any, status: int, content_type: bytes) -> None:
        headers = [(b"content-type", content_type)]
        await send({"type": "http.response.start", "status": status, "headers": headers})

    async def say(self, send: Any, status: int, body: Json) -> None:
        await self.head(send, status, b"application/json")
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


def changed(event: bytes, change: Callable[[Json], Json | None]) -> bytes | None:
    if event.startswith(b"data: [DONE]"):
        return event
    said = change(json.loads(event[6:]))
    return None if said is None else b"data: " + json.dumps(said).encode() + b"\n\n"


class NoDone(Well):
    def event(self, event: bytes) -> bytes | None:
        return None if event.startswith(b"data: [DONE]") else event


class NoUsage(Well):
    def whole(self, said: Json) -> Json:
        return {name: value for name, value in said.items() if name != "usage"}

    def event(self, event: bytes) -> bytes | None:
        return changed(event, lambda said: said if said["choices"] else None)


class HtmlErrors(Well):
    async def refuse(self, send: Any, status: int, message: str) -> None:
        await self.head(send, status, b"text/html")
        await send({"type": "http.response.body", "body": b"<html>Bad</html>"})


class IgnoresStop(Well):
    def heard(self, request: Json) -> Json:
        return {name: value for name, value in request.items() if name != "stop"}


class IgnoresN(Well):
    def heard(self, request: Json) -> Json:
        return {name: value for name, value in request.items() if name != "n"}


class NoSchemas(Well):
    def heard(self, request: Json) -> Json:
        return {name: value for name, value in request.items() if name != "response_format"}


class ObjectArguments(Well):
    def whole(self, said: Json) -> Json:
        for choice in said.get("choices") or ():
            for call in choice.get("message", {}).get("tool_calls") or ():
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        return said

    def event(self, event: bytes) -> bytes | None:
        def as_object(said: Json) -> Json:
            for choice in said["choices"]:
                for call in choice["delta"].get("tool_calls") or ():
                    if call["function"]["arguments"]:
                        call["function"]["arguments"] = {"city": "Rome"}
            return said

        return changed(event, as_object)


class NoCallIds(Well):
    def event(self, event: bytes) -> bytes | None:
        return event.replace(b'"id":"call_', b'"was":"call_')


class OneCall(Well):
    def heard(self, request: Json) -> Json:
        return {**request, "parallel_tool_calls": False}


class WantsAnotherKey(Well):
    async def serve(self, path: str, request: Json, send: Any) -> None:
        await self.refuse(send, 401, "Wrong key.")


class Hangs(Well):
    async def serve(self, path: str, request: Json, send: Any) -> None:
        await asyncio.sleep(10)


class HangsInStreams(Well):
    async def stream(self, send: Any, events: list[bytes]) -> None:
        await self.head(send, 200, b"text/event-stream")
        await send({"type": "http.response.body", "body": events[0], "more_body": True})
        await asyncio.sleep(10)


class ClosesEarly(Well):
    async def stream(self, send: Any, events: list[bytes]) -> None:
        await self.head(send, 200, b"text/event-stream")
        for event in events[:2]:
            await send({"type": "http.response.body", "body": event, "more_body": True})


class ErrorInStreams(Well):
    async def stream(self, send: Any, events: list[bytes]) -> None:
        await super().stream(send, [*events[:2], b'data: {"error":{"message":"engine died"}}\n\n'])


class JsonForStreams(Well):
    def heard(self, request: Json) -> Json:
        return {**request, "stream": False}


class Gathers(Well):
    async def stream(self, send: Any, events: list[bytes]) -> None:
        await asyncio.sleep(0.5)
        await super().stream(send, events)


class NoRole(Well):
    def event(self, event: bytes) -> bytes | None:
        return event.replace(b'"role":"assistant",', b"")


class NoStreamOptions(Well):
    def complaint(self, request: Json) -> str | None:
        return "Unknown field: stream_options." if "stream_options" in request else None


class NewNameOnly(Well):
    def complaint(self, request: Json) -> str | None:
        old = "max_tokens" in request and "messages" in request
        return "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead." if old else None


class OldNameOnly(Well):
    def heard(self, request: Json) -> Json:
        return {name: value for name, value in request.items() if name != "max_completion_tokens"}


class NoCap(Well):
    def heard(self, request: Json) -> Json:
        caps = ("max_tokens", "max_completion_tokens")
        return {name: value for name, value in request.items() if name not in caps}


class NoDeveloper(Well):
    def complaint(self, request: Json) -> str | None:
        roles = [message["role"] for message in request.get("messages", ())]
        return "Unexpected role: developer." if "developer" in roles else None


class NoImages(Well):
    def complaint(self, request: Json) -> str | None:
        return "This model sees no images." if "image_url" in json.dumps(request) else None


class AnyModel(Well):
    async def answer(self, path: str, body: bytes, send: Any) -> None:
        await super().answer(path, body.replace(b"no-such-model", b"echo"), send)


class NoModels(Well):
    async def answer(self, path: str, body: bytes, send: Any) -> None:
        await super().answer("/nothing" if path == "/models" else path, body or b"{}", send)


class WorksOn(Well):
    """One place, and whoever has it keeps it though nobody listens any more."""

    async def serve(self, path: str, request: Json, send: Any) -> None:
        async with self.slot:
            with contextlib.suppress(OSError):
                await super().serve(path, request, send)
            if request.get("max_tokens") == LONG:
                await asyncio.sleep(4)


class NoSecondQuestion(Well):
    async def head(self, send: Any, status: int, content_type: bytes) -> None:
        headers = [(b"content-type", content_type), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})


ARGUMENTS = ("wrong", "arguments come as an object")
BROKE = ("wrong", "broke off before its end")
NOT_ASKED = ("missing", "Not asked: chat does not work.")
OF_CHAT = {check.name: NOT_ASKED for check in CHECKS if check.of_chat}
OF_STREAMS = ("stream usage", "stream role", "tool stream")

DEFECTS: list[Any] = [
    # the engine, what is said of which check beyond what holds for the well one, whether Weir can serve with it
    pytest.param(NoDone, {"stream end": ("wrong", "without 'data: [DONE]'")}, False, id="no-done"),
    pytest.param(
        NoUsage,
        {"usage": ("missing", "how many tokens"), "stream usage": ("missing", "how many tokens")},
        True,
        id="no-usage",
    ),
    pytest.param(
        HtmlErrors,
        {"bad JSON": ("wrong", "Status 400 with text/html"), "unknown model": ("wrong", "Status 404 with text/html")},
        True,
        id="html-errors",
    ),
    pytest.param(IgnoresStop, {"stop": ("wrong", "past the stop word")}, True, id="ignores-stop"),
    pytest.param(IgnoresN, {"n": ("missing", "Two answers were asked for, and 1 came")}, True, id="ignores-n"),
    pytest.param(
        NoSchemas,
        {"json schema": ("wrong", "no JSON object"), "json object": ("wrong", "no JSON object")},
        True,
        id="ignores-response-format",
    ),
    pytest.param(
        ObjectArguments,
        {"tools": ARGUMENTS, "parallel tools": ARGUMENTS, "tool stream": ARGUMENTS},
        True,
        id="arguments-as-an-object",
    ),
    pytest.param(NoCallIds, {"tool stream": ("wrong", "no index or no id")}, True, id="streamed-call-without-id"),
    pytest.param(OneCall, {"parallel tools": ("missing", "one came")}, True, id="one-call-at-a-time"),
    pytest.param(
        Hangs,
        {
            **OF_CHAT,
            "chat": ("wrong", "within 1 s"),
            "embeddings": ("wrong", "within 1 s"),
            "completions": ("wrong", "within 1 s"),
            **dict.fromkeys(("bad JSON", "keep-alive"), ("missing", "Not asked: 3 questions")),
            **dict.fromkeys(NOWHERE, ("missing", "Not asked")),
            **dict.fromkeys([*OF_CHAT][-2:], ("missing", "Not asked: 3 questions")),
        },
        False,
        id="hangs",
    ),
    pytest.param(
        WantsAnotherKey,
        OF_CHAT
        | dict.fromkeys(("chat", "embeddings", "completions"), ("wrong", "Status 401: Wrong key."))
        | dict.fromkeys(NOWHERE, ("missing", "")),
        False,
        id="wants-another-key",
    ),
    pytest.param(
        HangsInStreams,
        {
            "stream": ("wrong", "not its end, within 1 s"),
            "stream end": ("wrong", "not its end, within 1 s"),
            "stream usage": ("missing", ""),
            "stream role": ("wrong", ""),
            "tool stream": ("wrong", "not its end, within 1 s"),
        },
        False,
        id="hangs-in-streams",
    ),
    pytest.param(
        ClosesEarly,
        {"stream end": BROKE, "stream usage": ("missing", ""), "tool stream": ("wrong", "")},
        False,
        id="closes-early",
    ),
    pytest.param(
        ErrorInStreams,
        {"stream end": ("wrong", "ended in an error"), "stream usage": ("missing", ""), "tool stream": ("wrong", "")},
        False,
        id="error-in-streams",
    ),
    pytest.param(
        JsonForStreams,
        dict.fromkeys(
            ("stream", "stream end", "stream flow", *OF_STREAMS),
            ("wrong", "A stream was asked for, and application/json"),
        ),
        False,
        id="no-streams",
    ),
    pytest.param(Gathers, {"stream flow": ("wrong", "came at once after 0.5 s")}, True, id="gathers-the-stream"),
    pytest.param(NoRole, {"stream role": ("wrong", "does not say 'assistant'")}, True, id="no-role"),
    pytest.param(
        NoStreamOptions,
        dict.fromkeys(
            ("stream", "stream end", "stream flow", *OF_STREAMS), ("missing", "Unknown field: stream_options.")
        ),
        False,
        id="refuses-stream-options",
    ),
    pytest.param(NewNameOnly, {"max_tokens": ("missing", "Use 'max_completion_tokens'")}, True, id="new-name-only"),
    pytest.param(OldNameOnly, {"max_completion_tokens": ("wrong", "where two were allowed")}, True, id="old-name-only"),
    pytest.param(NoDeveloper, {"developer role": ("missing", "Unexpected role")}, True, id="no-developer"),
    pytest.param(NoImages, {"vision": ("missing", "sees no images")}, True, id="no-images"),
    pytest.param(AnyModel, {"unknown model": ("wrong", "with status 200")}, True, id="any-model"),
    pytest.param(NoModels, {"models": ("missing", "nothing at this address")}, True, id="no-models"),
    pytest.param(WorksOn, {"abort": ("wrong", "it works on")}, True, id="works-on"),
    pytest.param(NoSecondQuestion, {"keep-alive": ("missing", "closes the connection")}, True, id="no-keep-alive"),
]


@contextlib.contextmanager
def served(app: Well) -> Iterator[str]:
    """A uvicorn in a thread, on a port of its own."""
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    # Said to be TCP, or asyncio leaves Nagle's algorithm on, and each answer waits 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
        thread.start()
        try:
            eventually(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join(10)


def looked_at(url: str, *, timeout: float = 1.0, told: Callable[[str], None] = lambda name: None) -> dict[str, Result]:
    async def look() -> list[Result]:
        engine = Engine(url, None, timeout, idle_seconds=0.05)
        engine.model = "echo"
        try:
            return await examine(engine, told)
        finally:
            await engine.close()

    return {result.name: result for result in asyncio.run(look())}


def test_an_engine_that_is_well() -> None:
    with served(Well()) as url:
        results = looked_at(url)
    assert {name: result.verdict for name, result in results.items() if result.verdict != "works"} == dict.fromkeys(
        NOWHERE, "missing"
    )
    assert results["messages"].made_up == "Weir translates it to chat."
    assert not any(result.made_up or result.why for result in results.values() if result.verdict == "works")


@pytest.mark.parametrize(("engine", "told", "good"), DEFECTS)
def test_a_fault_is_seen_and_blamed_on_nothing_else(
    engine: type[Well], told: dict[str, tuple[str, str]], good: bool
) -> None:
    timeout = 10.0 if engine is WorksOn else 1.0
    with served(engine()) as url:
        results = looked_at(url, timeout=timeout)
    well = {check.name: ("missing" if check.name in NOWHERE else "works", "") for check in CHECKS}
    wanted = well | told
    for name, result in results.items():
        verdict, words = wanted[name]
        assert (result.verdict, words in result.why) == (verdict, True), result
    assert all(result.verdict == "works" for result in results.values() if result.needed) == good


SHAPES = [None, 7, "text", [], [7], {}, {"choices": 7}, {"choices": {"a": 1}}, {"choices": [7]}, {"choices": [{}]}]
SHAPES += [{"choices": [{"message": 7, "delta": 7}], "usage": 7}, {"data": 7}, {"data": [7]}, {"error": 7}]
SHAPES += [
    {"choices": [{"message": {"role": "assistant", "content": "a", "tool_calls": said}, "delta": {"tool_calls": said}}]}
    for said in (7, {"a": 1}, [7], [{}], [{"index": 0, "id": "a"}], [{"index": 0, "id": "a", "function": 7}])
]


class Shaped(Well):
    """Says the same to everything, as an answer and as an event."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.shape = shape

    async def answer(self, path: str, body: bytes, send: Any) -> None:
        if b'"stream": true' in body:
            await self.stream(send, [b"data: " + json.dumps(self.shape).encode() + b"\n\n", b"data: [DONE]\n\n"])
        else:
            await self.say(send, 200, self.shape)


@pytest.mark.parametrize("shape", SHAPES, ids=json.dumps)
def test_whatever_an_engine_says_it_is_a_verdict(shape: Any) -> None:
    with served(Shaped(shape)) as url:
        results = looked_at(url)
    assert len(results) == len(CHECKS)
    assert "works" not in {results[name].verdict for name in ("stream end", "tools", "embeddings", "models")}


def test_an_engine_that_goes_in_the_middle() -> None:
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(served(Well()))
        results = looked_at(url, told=lambda name: stack.close() if name == "tools" else None)
    assert results["abort"].verdict == "works"
    assert results["tools"].verdict == "wrong"
    assert (results["json schema"].verdict, results["json schema"].why[:12]) == ("wrong", "It has gone:")
    assert len(results) == len(CHECKS)


def run(capsys: pytest.CaptureFixture[str], url: str, **more: Any) -> tuple[int, str, str]:
    with pytest.raises(typer.Exit) as ended:
        check_backend(Asked(url, **{"timeout": 5.0, **more}))
    out, err = capsys.readouterr()
    return ended.value.exit_code, out, err


def test_weir_itself_is_an_engine(
    weir: Weir, admin: Admin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command as a program uses it, with a key; what stands behind is the echo model."""
    monkeypatch.setenv("ENGINE_KEY", admin.key().secret)
    code, out, err = run(capsys, weir.base_url, model="echo", api_key_env="ENGINE_KEY", as_json=True)
    said = json.loads(out)
    assert (code, said["good"], said["model"], len(said["checks"])) == (0, True, "echo", len(CHECKS))
    verdicts = {check["name"]: check["verdict"] for check in said["checks"]}
    assert {verdicts[name] for name in ("models", "chat", "stream end", "tools", "wrong key", "keep-alive")} == {
        "works"
    }
    assert f"about {len(CHECKS)} small requests" in err
    assert "Traceback" not in err


def test_a_person_sees_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with served(NoDone()) as url:
        code, out, err = run(capsys, url)
    assert code == 1
    assert "stream end (needed)" in out
    assert "Weir needs what does not work here: stream end." in out
    assert f"{len(CHECKS) - 1 - len(NOWHERE)} works, {len(NOWHERE)} missing, 1 wrong." in out
    assert "Asking echo at" in err, "the first model that is listed"


def test_where_neither_name_of_the_cap_works_none_is_recommended() -> None:
    with served(NoCap()) as url:
        results = looked_at(url)
    for name in ("max_tokens", "max_completion_tokens"):
        assert results[name].verdict == "wrong"
        assert "Neither name works" in results[name].made_up
    with served(OldNameOnly()) as url:
        assert "Name the other one" in looked_at(url)["max_completion_tokens"].made_up


class UnderV1(Well):
    """As most engines: there is nothing elsewhere."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith("/v1/"):
            await super().__call__(scope, receive, send)
        else:
            await self.say(send, 404, {"detail": "Not Found"})


@pytest.mark.parametrize("model", [None, "echo"], ids=["models-asked", "model-given"])
def test_a_forgotten_v1_is_suspected(capsys: pytest.CaptureFixture[str], model: str | None) -> None:
    with served(UnderV1()) as url:
        code, out, err = run(capsys, url.removesuffix("/v1"), model=model)
        assert code == 1
        assert "no /v1 at the end" in " ".join((out + err).split())
        if model:
            assert "no /v1" in json.loads(run(capsys, url.removesuffix("/v1"), model=model, as_json=True)[1])["hint"]
            assert json.loads(run(capsys, url, model=model, as_json=True)[1])["hint"] == ""


def test_nobody_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, f"http://127.0.0.1:{free_port()}/v1")
    assert (code, out) == (2, "")
    assert "cannot be reached" in err


MISTAKES = [
    pytest.param("localhost:8000/v1", {}, "http://localhost:8000/v1", id="no-scheme"),
    pytest.param("http://localhost:what/v1", {}, "is no address", id="no-port"),
    pytest.param("http://localhost:8000/v1", {"api_key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE", id="no-key"),
]


@pytest.mark.parametrize(("url", "more", "named"), MISTAKES)
def test_a_mistake_is_answered_with_a_sentence(
    capsys: pytest.CaptureFixture[str], url: str, more: Json, named: str
) -> None:
    code, out, err = run(capsys, url, **more)
    assert (code, out) == (1, "")
    assert named in err


def test_without_a_list_a_model_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with served(NoModels()) as url:
        code, _, err = run(capsys, url)
    assert code == 1
    assert "--model NAME" in err


def test_the_key_is_in_nothing_that_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_KEY", "sk-canary-of-an-engine")
    with served(HtmlErrors()) as url:
        _, out, err = run(capsys, url, api_key_env="ENGINE_KEY", as_json=True)
    assert "canary" not in out + err


def test_json_names_every_field() -> None:
    result = Result("n", "two answers to one request", "missing", "One came.", "", needed=False)
    assert as_json("http://e/v1", "m", [result], good=True)["checks"] == [
        {
            "name": "n",
            "asked": "two answers to one request",
            "verdict": "missing",
            "why": "One came.",
            "made_up": "",
            "needed": False,
        }
    ]
