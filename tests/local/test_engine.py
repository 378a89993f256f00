"""An engine that nobody here wrote, `transformers serve`, with a Weir in front of it.

It has habits of its own: a stream without `data: [DONE]`, its usage in the chunk that says the finish reason, and
connections that it closes after five idle seconds.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.system.harness import (
    WEIR,
    Admin,
    Key,
    Process,
    RawExchange,
    Weir,
    answers_200,
    chat_bytes,
    configuration,
    events_of,
    eventually,
    free_port,
    model,
    run_weir,
)

Json = dict[str, Any]
HELLO = [{"role": "user", "content": "Hello, river!"}]
CHAT = {"model": "engine", "messages": HELLO, "max_tokens": 12, "temperature": 0}
START_UP = 60.0  # importing torch alone takes seconds


@pytest.fixture(scope="module")
def engine(folders: dict[str, Path]) -> Iterator[str]:
    port = free_port()
    flags = ("--host", "127.0.0.1", "--port", str(port), "--device", "cpu")
    process = Process(WEIR.with_name("transformers"), "serve", folders["tiny"], *flags)
    try:
        process.wait_ready(lambda: answers_200(f"http://127.0.0.1:{port}/health"), START_UP)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.stop()


@pytest.fixture(scope="module")
def front(redis_url: str, engine: str, folders: dict[str, Path]) -> Iterator[Weir]:
    """The Weir in front."""
    known = model("engine", engine, upstream_model=str(folders["tiny"]), engine="transformers")
    with Weir(configuration(redis_url, [known])) as weir:
        yield weir


@pytest.fixture(scope="module")
def client(front: Weir, key: Key) -> Iterator[OpenAI]:
    with OpenAI(base_url=front.base_url, api_key=key.secret, max_retries=0) as client:
        yield client


def streamed(front: Weir, key: Key, path: str = "/v1/chat/completions", **fields: Any) -> list[Json]:
    """The events' data. The stream must end as its API says."""
    answer = front.post(key, path, **fields, stream=True)
    assert answer.status_code == 200, answer.text
    return events_of(answer.content)


def test_what_it_says_passes_and_is_counted_as_it_says(front: Weir, admin: Admin) -> None:
    key = admin.key(tpm=100_000)
    answer = front.post(key, **CHAT).json()
    usage = answer["usage"]
    assert usage["completion_tokens"] == len(answer["choices"][0]["message"]["content"]) == 12
    record = front.record(key_id=key.id)
    assert (record["input_tokens"], record["output_tokens"]) == (usage["prompt_tokens"], 12)
    assert record["tokens_from"] == "reported"


def test_a_stream_ends_well_and_with_a_terminator(front: Weir, admin: Admin) -> None:
    """It had its finish reason, and the transport's proper end: nothing broke off. Clients get the end of OpenAI's API."""
    key = admin.key(tpm=100_000)
    *chunks, done = streamed(front, key, **CHAT)
    assert not any("error" in chunk for chunk in chunks)
    assert done == "[DONE]"
    said = front.post(key, **CHAT).json()["choices"][0]["message"]["content"]
    assert "".join(choice["delta"].get("content", "") for one in chunks for choice in one["choices"]) == said
    record, _ = eventually(lambda: (found := front.records_with(key_id=key.id)) and len(found) == 2 and found)
    assert (record["outcome"], record["finish_reason"]) == ("ok", "length")
    assert (record["output_tokens"], record["tokens_from"]) == (12, "reported")


def test_the_sdk_reads_it_to_its_end(client: OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(**CHAT, stream=True, stream_options=options))
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [12]
    assert len(client.completions.create(model="engine", prompt="Hello", max_tokens=5).choices) == 1


def test_a_text_completion_and_its_stream(front: Weir, key: Key) -> None:
    asked = {"model": "engine", "prompt": "Hello", "max_tokens": 5, "temperature": 0}
    whole = front.post(key, "/v1/completions", **asked).json()
    *chunks, done = streamed(front, key, "/v1/completions", **asked)
    assert done == "[DONE]"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["choices"][0]["text"]


def test_messages_are_translated(front: Weir, key: Key) -> None:
    asked = {"model": "engine", "messages": HELLO, "max_tokens": 12, "temperature": 0}
    whole = front.post(key, "/v1/messages", **asked).json()
    assert (whole["stop_reason"], whole["usage"]["output_tokens"]) == ("max_tokens", 12)
    events = streamed(front, key, "/v1/messages", **asked)
    said = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert said == whole["content"][0]["text"]
    *_, delta, stop = events
    assert (delta["delta"]["stop_reason"], delta["usage"]["output_tokens"]) == ("max_tokens", 12)
    assert stop["type"] == "message_stop"


def test_responses_are_translated(front: Weir, key: Key) -> None:
    """It has a Responses API, which streams whatever is asked for; ours is made of its chat."""
    asked = {"model": "engine", "input": HELLO, "max_output_tokens": 16, "temperature": 0}
    whole = front.post(key, "/v1/responses", **asked).json()
    *_, last = streamed(front, key, "/v1/responses", **asked)
    assert last["type"] == "response.incomplete"
    assert last["response"]["output"][0]["content"] == whole["output"][0]["content"]
    assert last["response"]["usage"] == whole["usage"]


def test_who_leaves_frees_it(front: Weir, key: Key) -> None:
    with RawExchange(front.port, chat_bytes(key, "engine", max_tokens=30_000, temperature=0, stream=True)) as made:
        while b'"content"' not in made.read_event():
            pass
    eventually(lambda: front.metric("weir_in_flight_requests") == 0)
    assert front.post(key, **CHAT).status_code == 200


def test_what_it_does_not_do_is_refused_before_it_is_asked(front: Weir, key: Key) -> None:
    answer = front.post(key, "/v1/embeddings", model="engine", input="Hello")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_endpoint")


def test_weir_check_backend_sees_what_it_can(engine: str, folders: dict[str, Path]) -> None:
    done = run_weir("check-backend", engine, "--model", str(folders["tiny"]), "--json")
    verdicts = {check["name"]: check["verdict"] for check in json.loads(done.stdout)["checks"]}
    works = ("chat", "usage", "stream", "stream flow", "abort", "stop", "seed", "max_tokens", "completions")
    assert {name: verdicts[name] for name in works} == dict.fromkeys(works, "works"), done.stdout
    assert {verdicts[name] for name in ("embeddings", "messages", "rerank", "tokenize")} == {"missing"}
