"""What goes upstream in other words, and what comes back of it: a large body's long data is in both again."""

import base64
import os
from typing import Any

import orjson
import pytest

from tests.fakes.backend import JSON, Head, ScriptedBackend, Step
from tests.fakes.clock import run
from weir.backend import Call
from weir.core.operations import CHAT, MESSAGES, RESPONSES, Operation
from weir.core.types import Endpoint, Route
from weir.gateway.calls import Calls
from weir.gateway.request import LARGE, read_request

TEXT = "the river flows " * (LARGE // 10)
DATA = base64.b64encode(os.urandom(LARGE)).decode()
SAID = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
COMPLETION = b'{"id":"c","choices":[{"message":{"content":"ok"},"finish_reason":"stop"}]}'
CHUNK = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"ok"},"finish_reason":%b}]}\n\n'
STREAM = (CHUNK % b"null", CHUNK % b'"stop"', b"data: [DONE]\n\n")


def calls(operation: Operation, serves: Operation, **fields: Any) -> tuple[Calls, Route]:
    request = read_request(operation, orjson.dumps({"model": "m", **fields}))
    route = Route("m", "b", "m", [Endpoint("u")], serves=frozenset({serves.name}))
    return Calls(request, 100, "r", [], bounded=False), route


def sent(call: Call) -> Any:
    return orjson.loads(b"".join([call.body, *call.data]))


def heard(operation: Operation, serves: Operation, *script: Step, **fields: Any) -> tuple[bytes, list[int | str]]:
    """What the client gets, and in which order it and the prompt's tokens are told."""

    async def scene() -> tuple[bytes, list[int | str]]:
        made, route = calls(operation, serves, **fields)
        async with ScriptedBackend(*script).send(route.endpoints[0], made(route)) as response:
            told: list[int | str] = []
            answer = made.heard(response, route, told.append)
            if response.content_type == JSON:
                return await answer.read(), told
            out: list[bytes] = []
            await answer.pump(lambda piece: (out.append(piece), told.append("out") if piece else None)[-1])
            return b"".join(out), told

    return run(scene)


def test_a_long_text_in_base64_is_read() -> None:
    url = "data:text/plain;base64," + base64.b64encode(TEXT.encode()).decode()
    part = {"type": "file", "file": {"filename": "a.txt", "file_data": url}}
    made, route = calls(CHAT, MESSAGES, messages=[{"role": "user", "content": [part]}])
    (document,) = sent(made(route))["messages"][0]["content"]
    assert document["source"] == {"type": "text", "media_type": "text/plain", "data": TEXT}


# What a response repeats of its request.
REPEATED = [
    pytest.param({"instructions": DATA}, id="instructions"),
    pytest.param({"tools": [{"type": "function", "name": "f", "description": DATA, "parameters": {}}]}, id="tools"),
    pytest.param({"metadata": {"a": DATA, "b": DATA[::-1]}}, id="metadata"),
]


@pytest.mark.parametrize("fields", REPEATED)
def test_an_answer_repeats_long_data_as_it_was(fields: dict[str, Any]) -> None:
    out, _ = heard(RESPONSES, CHAT, Head(200, JSON), COMPLETION, input="hi", **fields)
    said = orjson.loads(out)
    assert {name: said[name] for name in fields} == fields


@pytest.mark.parametrize("fields", REPEATED)
def test_a_stream_repeats_long_data_as_it_was(fields: dict[str, Any]) -> None:
    out, _ = heard(RESPONSES, CHAT, *STREAM, input="hi", stream=True, **fields)
    told = [orjson.loads(line[6:]) for line in out.splitlines() if line.startswith(b"data: ")]
    whole = [event["response"] for event in told if "response" in event]
    assert len(whole) == 3
    assert all({name: response[name] for name in fields} == fields for response in whole)


START = b'data: {"type":"message_start","message":{"id":"a","model":"m","usage":{"input_tokens":%d}}}\n\n'
PIECE = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}\n\n'
CHAT_USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}\n\n'
PROMPTS = [
    pytest.param(CHAT, MESSAGES, SAID, (START % 7, PIECE), [7, "out", "out"], id="Claude"),
    pytest.param(RESPONSES, MESSAGES, {"input": "hi"}, (START % 7, PIECE), [7, "out", "out"], id="Claude-two-steps"),
    pytest.param(CHAT, MESSAGES, SAID, (START % 0, PIECE), ["out", "out"], id="Claude-that-does-not-say"),
    pytest.param(MESSAGES, CHAT, SAID, STREAM[:2], ["out", "out"], id="chat"),
    pytest.param(MESSAGES, CHAT, SAID, (*STREAM[:2], CHAT_USAGE), ["out", "out", 9], id="chat-at-the-end"),
    pytest.param(
        RESPONSES, CHAT, {"input": "hi"}, (*STREAM[:2], CHAT_USAGE), ["out", "out", 9], id="responses-at-the-end"
    ),
]


@pytest.mark.parametrize(("operation", "serves", "fields", "script", "order"), PROMPTS)
def test_the_prompt_is_told_before_the_client_hears(
    operation: Operation, serves: Operation, fields: dict[str, Any], script: tuple[Step, ...], order: list[int | str]
) -> None:
    """A client may leave with the first piece, and pays for what the server has read."""
    assert heard(operation, serves, *script, stream=True, **fields)[1] == order
