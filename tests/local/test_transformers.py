"""A model in Weir's own process, asked as clients ask it: the answer, its end, what is counted, and who waits for whom."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.local.conftest import local
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
    run_weir,
)

Json = dict[str, Any]
HELLO = [{"role": "user", "content": "Hello, river! Ä"}]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "", "parameters": {"type": "object"}}}]
ENDLESS = {"max_tokens": 30_000, "temperature": 0, "stream": True}  # more than half a minute


def chat(weir: Weir, key: Key, model: str = "tiny", **fields: Any) -> Json:
    answer = weir.post(key, model=model, **({"messages": HELLO, "max_tokens": 12, "temperature": 0} | fields))
    assert answer.status_code == 200, answer.text
    return answer.json()


def text_of(answer: Json) -> str:
    return answer["choices"][0]["message"]["content"]


def stream(weir: Weir, key: Key, **fields: Any) -> list[Json]:
    """The chunks; the stream must have ended as it should."""
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 12, "temperature": 0, "stream": True} | fields
    answer = weir.post(key, **asked)
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    *chunks, done = events_of(answer.content)
    assert done == "[DONE]"
    return chunks


def joined(chunks: list[Json]) -> str:
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


# -- what is said


def test_a_stream_says_what_a_whole_answer_says(weir: Weir, key: Key) -> None:
    """A chunk for a token, the role once, and usage for who wants it."""
    whole = chat(weir, key)
    assert (whole["object"], whole["model"]) == ("chat.completion", "tiny"), "and not the folder's name"
    chunks = stream(weir, key, stream_options={"include_usage": True})
    assert joined(chunks) == text_of(whole)
    assert [choice["delta"].get("role") for choice in chunks[0]["choices"]] == ["assistant"]
    *said, last, usage = chunks
    assert len(said) == 12
    assert last["choices"][0]["finish_reason"] == "length"
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    assert not any(chunk.get("usage") for chunk in stream(weir, key)), "nobody asked"


def test_usage_is_what_the_tokenizer_counts(weir: Weir, key: Key, tokenizer: Any) -> None:
    for tools in (None, TOOLS):
        prompt = tokenizer.apply_chat_template(HELLO, tools=tools, add_generation_prompt=True, tokenize=False)
        answer = chat(weir, key, **({"tools": tools} if tools else {}))
        assert answer["usage"]["prompt_tokens"] == len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        assert answer["usage"]["completion_tokens"] == len(tokenizer(text_of(answer))["input_ids"]) == 12
        assert answer["usage"]["total_tokens"] == sum(
            answer["usage"][part] for part in ("prompt_tokens", "completion_tokens")
        )


def test_usage_is_charged(weir: Weir, admin: Admin) -> None:
    key = admin.key(tpm=100_000)
    usage = chat(weir, key)["usage"]
    record = weir.record(key_id=key.id)
    assert (record["input_tokens"], record["output_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert record["tokens_from"] == "reported"


def test_the_same_seed_says_the_same(weir: Weir, key: Key) -> None:
    said = [text_of(chat(weir, key, seed=seed, temperature=1.5, max_tokens=40)) for seed in (5, 5, 6)]
    assert said[0] == said[1] != said[2]
    assert joined(stream(weir, key, seed=5, temperature=1.5, max_tokens=40)) == said[0]
    unseeded = {text_of(chat(weir, key, temperature=1.5, max_tokens=40)) for _ in range(3)}
    assert len(unseeded) == 3


NARROW = [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 0.001}]


@pytest.mark.parametrize("fields", NARROW, ids=lambda fields: next(iter(fields)))
def test_sampling_can_be_made_as_narrow_as_no_sampling(weir: Weir, key: Key, fields: Json) -> None:
    assert text_of(chat(weir, key, **({"temperature": 1, "seed": 1} | fields))) == text_of(chat(weir, key))


def test_nothing_is_said_twice_where_repetition_is_punished(weir: Weir, key: Key) -> None:
    assert text_of(chat(weir, key, repetition_penalty=50)) != text_of(chat(weir, key))


def test_a_stop_string_is_never_seen(weir: Weir, key: Key) -> None:
    """Also where it is made of several tokens; those count, since they were made."""
    plain = text_of(chat(weir, key, max_tokens=40))
    stop = plain[20:24]
    before = plain[: plain.index(stop)]
    answer = chat(weir, key, max_tokens=40, stop=[stop, "never"])
    assert (text_of(answer), answer["choices"][0]["finish_reason"]) == (before, "stop")
    assert answer["usage"]["completion_tokens"] == len(before) + len(stop)
    chunks = stream(weir, key, max_tokens=40, stop=stop)
    assert joined(chunks) == before
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_text_that_ends_by_itself_ends_with_a_token_that_counts(weir: Weir, key: Key) -> None:
    """One token fewer, and it is cut."""
    warm = {"temperature": 2, "max_tokens": 400}
    ended = (
        (seed, answer["usage"]["completion_tokens"])
        for seed in range(50)
        if (answer := chat(weir, key, seed=seed, **warm))["choices"][0]["finish_reason"] == "stop"
    )
    seed, made = next(ended)
    cut = chat(weir, key, seed=seed, **warm | {"max_tokens": made - 1})
    assert cut["choices"][0]["finish_reason"] == "length"


def test_a_model_without_a_chat_template_is_asked_plainly(weir: Weir, key: Key, tokenizer: Any) -> None:
    answer = chat(weir, key, "plain")
    plain = "user: Hello, river! Ä\nassistant:"
    assert answer["usage"]["prompt_tokens"] == len(tokenizer(plain)["input_ids"])
    assert text_of(answer)


def test_a_full_context_is_an_end_and_no_room_a_refusal(weir: Weir, key: Key) -> None:
    answer = chat(weir, key, "short", max_tokens=1000)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 64
    refused = weir.chat(key, "x" * 64, "short")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")


PROMPTS = ["Hello", ["Hello"], [43, 72], [[43, 72]]]


@pytest.mark.parametrize("prompt", PROMPTS, ids=["text", "one_of_texts", "tokens", "one_of_tokens"])
def test_text_completions(weir: Weir, key: Key, tokenizer: Any, prompt: Any) -> None:
    asked = {"model": "tiny", "prompt": prompt, "temperature": 0}
    answer = weir.post(key, "/v1/completions", **asked).json()
    assert answer["object"] == "text_completion"
    assert answer["usage"] == {
        "prompt_tokens": 5 if "Hello" in prompt else 2,
        "completion_tokens": 16,  # OpenAI's default
        "total_tokens": 21 if "Hello" in prompt else 18,
    }
    *chunks, done = events_of(weir.post(key, "/v1/completions", **asked, stream=True).content)
    assert done == "[DONE]"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == answer["choices"][0]["text"]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


def test_messages_and_responses_are_translated(weir: Weir, key: Key) -> None:
    said = text_of(chat(weir, key))
    asked = {"model": "tiny", "temperature": 0}
    message = weir.post(key, "/v1/messages", **asked, messages=HELLO, max_tokens=12).json()
    assert (message["content"][0]["text"], message["stop_reason"]) == (said, "max_tokens")
    response = weir.post(key, "/v1/responses", **asked, input=HELLO, max_output_tokens=12).json()
    assert response["output"][0]["content"][0]["text"] == said
    assert message["usage"]["output_tokens"] == response["usage"]["output_tokens"] == 12


# -- what is refused

REFUSED = [
    ({"n": 2}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
    ({"messages": [{"role": "assistant", "content": "I begin."}]}, None),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=["n", "logprobs", "format", "choice", "image", "template"])
def test_what_cannot_be_done_is_refused_by_name(weir: Weir, key: Key, fields: Json, param: str | None) -> None:
    for streaming in (False, True):
        answer = weir.post(key, **({"model": "tiny", "messages": HELLO, "stream": streaming} | fields))
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


# -- who waits for whom


def test_two_at_once_wait_in_turn(weir: Weir, key: Key) -> None:
    """The second one's first token comes when the first one's last has been made."""

    def times() -> list[float]:
        asked = {"model": "tiny", "messages": HELLO, "max_tokens": 500, "temperature": 0, "stream": True}
        with weir.http.stream("POST", "/v1/chat/completions", json=asked, headers=key.headers) as answer:
            return [time.monotonic() for line in answer.iter_lines() if '"content":' in line]

    with ThreadPoolExecutor(2) as clients:
        first, second = sorted((one.result() for one in [clients.submit(times) for _ in range(2)]), key=min)
    assert len(first) == len(second) == 500
    assert second[0] > first[0] + 0.8 * (first[-1] - first[0])


def test_who_leaves_is_gone_at_the_next_token_and_out_of_the_line(weir: Weir, key: Key) -> None:
    """One is made, one waits and leaves, one waits; then the first leaves, and the last has its turn at once."""
    endless = chat_bytes(key, "tiny", **ENDLESS)
    with RawExchange(weir.port, endless) as made, ThreadPoolExecutor(1) as clients:
        assert b'"content"' in made.read_event()
        with RawExchange(weir.port, endless):
            eventually(lambda: weir.metric("weir_in_flight_requests") == 2)
        eventually(lambda: weir.metric("weir_in_flight_requests") == 1, why="the one in the line is gone")
        last: Future[Json] = clients.submit(chat, weir, key)
        with pytest.raises(TimeoutError):
            last.result(0.5)
        left = made.leave()
        assert last.result(10)["usage"]["completion_tokens"] == 12
        assert time.monotonic() - left < 2
    eventually(lambda: weir.metric("weir_in_flight_requests") == 0)


def test_the_service_answers_while_the_model_works(weir: Weir, key: Key) -> None:
    with RawExchange(weir.port, chat_bytes(key, "tiny", **ENDLESS)) as made:
        assert b'"content"' in made.read_event()
        began = time.monotonic()
        for _ in range(20):
            assert weir.get("/v1/models", key).status_code == 200
        assert time.monotonic() - began < 2


def test_a_client_that_reads_slowly_keeps_nobody_waiting(weir: Weir, key: Key) -> None:
    with RawExchange(weir.port, chat_bytes(key, "tiny", max_tokens=300, temperature=0, stream=True)) as slow:
        assert b'"content"' in slow.read_event()
        assert chat(weir, key)["usage"]["completion_tokens"] == 12
        events = iter(slow.read_event, b"")
        assert list(events)[-1] == b"data: [DONE]\n"


# -- start and stop


def test_a_quick_start_is_named_for_its_folder(redis_url: str, folders: dict[str, Path]) -> None:
    port, ops_port, secret = free_port(), free_port(), "sk-given-0123456789"
    flags = ("--port", str(port), "--ops-port", str(ops_port), "--redis-url", redis_url, "--api-key", secret)
    weir = Process(WEIR, "serve", "--backend", "transformers", "--model", folders["tiny"], *flags)
    try:
        weir.wait_ready(lambda: answers_200(f"http://127.0.0.1:{ops_port}/readyz"))
        asked = {"model": "tiny", "messages": HELLO, "max_tokens": 3}
        headers = {"authorization": f"Bearer {secret}"}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=asked, headers=headers)
        assert answer.json()["usage"]["completion_tokens"] == 3
    finally:
        weir.stop()


NOWHERE = [
    ("./no/such/folder", "There is no folder ./no/such/folder"),
    ("tests", "The folder tests holds no model"),
]


@pytest.mark.parametrize(("model", "sentence"), NOWHERE, ids=["no_folder", "no_model"])
def test_a_model_that_is_not_there_is_a_sentence(model: str, sentence: str) -> None:
    done = run_weir("serve", "--backend", "transformers", "--model", model)
    assert done.returncode == 1
    assert sentence in " ".join(done.stderr.split())


def test_stopping_ends_what_is_made(redis_url: str, folders: dict[str, Path], key: Key) -> None:
    """With a word to its client, and no sooner than the deadline of the drain."""
    with Weir(configuration(redis_url, [local("tiny", folders["tiny"])])) as weir:
        with RawExchange(weir.port, chat_bytes(key, "tiny", **ENDLESS)) as made:
            assert b'"content"' in made.read_event()
            stopping = threading.Thread(target=weir.process.stop)
            stopping.start()
            *_, last = iter(made.read_event, b"")
            stopping.join()
        assert b'"error"' in last
        assert weir.process.popen.returncode == 0, weir.process.said
        assert "Traceback" not in weir.process.said
