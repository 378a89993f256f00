"""The client that most of our users hold: the official OpenAI SDK, sync and async, against Weir and a real upstream."""

import asyncio
import inspect
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import (
    APIConnectionError,
    APIError,
    AsyncOpenAI,
    DefaultAsyncHttpxClient,
    DefaultHttpxClient,
    OpenAI,
)
from pydantic import BaseModel

from tests.system.harness import Admin, Key, Upstream, Weir, eventually, unique

HELLO = [{"role": "user", "content": "hello there"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Attempt:
    """One request that the SDK made, when it was sent, and what came back."""

    def __init__(self, sent_at: float) -> None:
        self.sent_at = sent_at
        self.answered_at = 0.0
        self.status = 0
        self.headers: Any = {}


class Sdk:
    """One face for both clients: `wait` and `gather` run what the async one gives, and pass the sync one's on."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.attempts: list[Attempt] = []
        self._runner = asyncio.Runner()
        self._clients: list[Any] = []

    def client(self, weir: Weir, key: Key | str, base_url: str | None = None, **options: Any) -> Any:
        secret = key if isinstance(key, str) else key.secret
        options = {"api_key": secret, "base_url": base_url or weir.base_url, "timeout": 30.0} | options
        if self.kind == "sync":
            http = DefaultHttpxClient(
                base_url=options["base_url"],
                trust_env=False,
                event_hooks={"request": [self._asked], "response": [self._answered]},
            )
            client: Any = OpenAI(http_client=http, **options)
        else:

            async def asked(request: Any) -> None:
                self._asked(request)

            async def answered(response: Any) -> None:
                self._answered(response)

            async_http = DefaultAsyncHttpxClient(
                base_url=options["base_url"],
                trust_env=False,
                event_hooks={"request": [asked], "response": [answered]},
            )
            client = AsyncOpenAI(http_client=async_http, **options)
        self._clients.append(client)
        return client

    def _asked(self, _: Any) -> None:
        self.attempts.append(Attempt(time.monotonic()))

    def _answered(self, response: Any) -> None:
        self.attempts[-1].answered_at = time.monotonic()
        self.attempts[-1].status = response.status_code
        self.attempts[-1].headers = response.headers

    def wait(self, given: Any) -> Any:
        if not inspect.isawaitable(given):
            return given

        async def result() -> Any:
            return await given

        return self._runner.run(result())

    def gather(self, given: Any) -> list[Any]:
        """Everything in a stream or a page."""
        stream = self.wait(given)
        if not hasattr(stream, "__aiter__"):
            return list(stream)

        async def everything() -> list[Any]:
            return [item async for item in stream]

        return self._runner.run(everything())

    def take(self, given: Any) -> tuple[list[Any], Exception | None]:
        """What a stream gave before it failed, and how it failed."""
        stream, taken = self.wait(given), []
        try:
            if hasattr(stream, "__aiter__"):

                async def fill() -> None:
                    async for item in stream:
                        taken.append(item)  # noqa: PERF401  what came before the failure must stay

                self._runner.run(fill())
            else:
                for item in stream:
                    taken.append(item)  # noqa: PERF402  as above
        except Exception as failure:
            return taken, failure
        return taken, None

    def close(self) -> None:
        for client in self._clients:
            self.wait(client.close())
        self._runner.close()


@pytest.fixture(params=["sync", "async"])
def sdk(request: pytest.FixtureRequest) -> Iterator[Sdk]:
    sdk = Sdk(request.param)
    yield sdk
    sdk.close()


@pytest.fixture(scope="module")
def key(admin: Admin) -> Key:
    return admin.key(models="chat,embed,echo,fragile", rpm=100_000, tpm=10_000_000)


@pytest.fixture
def mark() -> str:
    """Goes along as `user`, so that a test finds its own request at the upstream."""
    return unique("mark")


def text_of(chunks: list[Any]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


class TestChat:
    def test_answers_whole(self, sdk: Sdk, weir: Weir, key: Key, mark: str, upstream: Upstream) -> None:
        client = sdk.client(weir, key)
        script = {"content": "good morning to you", "usage": [3, 12]}
        answer = sdk.wait(
            client.chat.completions.create(model="chat", messages=HELLO, user=mark, extra_body={"x_script": script})
        )
        assert answer.choices[0].message.content == "good morning to you"
        assert answer.choices[0].finish_reason == "stop"
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 12)
        assert upstream.record(mark)["json"]["messages"] == HELLO

    def test_works_without_v1_in_the_address(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key, base_url=weir.base_url.removesuffix("/v1"))
        answer = sdk.wait(client.chat.completions.create(model="chat", messages=HELLO))
        assert answer.choices[0].message.content == "word0 word1 word2 "

    def test_gives_n_choices(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        answer = sdk.wait(client.chat.completions.create(model="chat", messages=HELLO, n=3))
        assert [choice.index for choice in answer.choices] == [0, 1, 2]

    @pytest.mark.parametrize(
        ("asked", "usage"),
        [
            pytest.param({}, None, id="usage-not-asked"),
            pytest.param({"stream_options": {"include_usage": False}}, None, id="usage-declined"),
            pytest.param({"stream_options": {"include_usage": True}}, (3, 11), id="usage-asked"),
        ],
    )
    def test_streams(
        self,
        *,
        sdk: Sdk,
        weir: Weir,
        key: Key,
        mark: str,
        upstream: Upstream,
        asked: dict[str, Any],
        usage: tuple[int, int] | None,
    ) -> None:
        client = sdk.client(weir, key)
        script = {"chunks": 5, "usage": [3, 11]}
        chunks = sdk.gather(
            client.chat.completions.create(
                model="chat", messages=HELLO, user=mark, stream=True, extra_body={"x_script": script}, **asked
            )
        )
        assert text_of(chunks) == "word0 word1 word2 word3 word4 "
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        reported = [(c.usage.prompt_tokens, c.usage.completion_tokens) for c in chunks if c.usage]
        assert reported == ([usage] if usage else [])
        if usage is None:
            assert all(c.choices for c in chunks), "the usage chunk that only Weir asked for came through"
        # However the client asked, the upstream was asked, so that nobody switches accounting off.
        assert upstream.record(mark)["json"]["stream_options"]["include_usage"] is True

    def test_keeps_reasoning_deltas(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        chunks = sdk.gather(
            client.chat.completions.create(
                model="chat", messages=HELLO, stream=True, extra_body={"x_script": "reasoning"}
            )
        )
        extras = [c.choices[0].delta.model_extra or {} for c in chunks if c.choices]
        assert "".join(e.get("reasoning_content") or "" for e in extras) == "six by seven"
        assert "".join(e.get("reasoning") or "" for e in extras) == "six by seven"
        assert text_of(chunks) == "42"

    def test_parses_structured_output(self, sdk: Sdk, weir: Weir, key: Key, mark: str, upstream: Upstream) -> None:
        class Town(BaseModel):
            name: str
            people: int

        client = sdk.client(weir, key)
        script = {"content": '{"name": "Oslo", "people": 717710}'}
        answer = sdk.wait(
            client.chat.completions.parse(
                model="chat", messages=HELLO, user=mark, response_format=Town, extra_body={"x_script": script}
            )
        )
        assert answer.choices[0].message.parsed == Town(name="Oslo", people=717710)
        schema = upstream.record(mark)["json"]["response_format"]["json_schema"]
        assert schema["name"] == "Town"
        assert set(schema["schema"]["properties"]) == {"name", "people"}


class TestTools:
    @pytest.mark.parametrize(
        ("play", "cities"),
        [
            pytest.param("tools", ["Paris"], id="one"),
            pytest.param("parallel_tools", ["Paris", "Oslo", "Lima"], id="parallel"),
        ],
    )
    def test_calls_come_whole(self, sdk: Sdk, weir: Weir, key: Key, play: str, cities: list[str]) -> None:
        client = sdk.client(weir, key)
        answer = sdk.wait(
            client.chat.completions.create(model="chat", messages=HELLO, tools=[WEATHER], extra_body={"x_script": play})
        )
        calls = answer.choices[0].message.tool_calls
        assert [call.function.name for call in calls] == ["get_weather"] * len(cities)
        assert [json.loads(call.function.arguments)["city"] for call in calls] == cities
        assert answer.choices[0].finish_reason == "tool_calls"

    @pytest.mark.parametrize(
        ("play", "cities"),
        [
            pytest.param("tools", ["Paris"], id="one"),
            pytest.param("parallel_tools", ["Paris", "Oslo", "Lima"], id="parallel"),
        ],
    )
    def test_calls_come_in_parts(self, sdk: Sdk, weir: Weir, key: Key, play: str, cities: list[str]) -> None:
        client = sdk.client(weir, key)
        chunks = sdk.gather(
            client.chat.completions.create(
                model="chat", messages=HELLO, tools=[WEATHER], stream=True, extra_body={"x_script": play}
            )
        )
        names: dict[int, str] = {}
        arguments: dict[int, str] = {}
        for chunk in chunks:
            for call in chunk.choices[0].delta.tool_calls or []:
                names[call.index] = names.get(call.index, "") + (call.function.name or "")
                arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
        assert list(names.values()) == ["get_weather"] * len(cities)
        assert [json.loads(text)["city"] for text in arguments.values()] == cities


class TestOtherEndpoints:
    def test_embeddings(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        answer = sdk.wait(client.embeddings.create(model="embed", input=["one", "three"]))
        assert [item.embedding for item in answer.data] == [[3.0, 0.5, -1.0], [5.0, 0.5, -1.0]]
        assert answer.usage.prompt_tokens == 2

    def test_embeddings_as_floats(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        answer = sdk.wait(client.embeddings.create(model="embed", input="seven", encoding_format="float"))
        assert answer.data[0].embedding == [5.0, 0.5, -1.0]

    def test_completions(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        answer = sdk.wait(client.completions.create(model="chat", prompt="once upon a time", max_tokens=16))
        assert answer.choices[0].text == "word0 word1 word2 "
        assert answer.usage.completion_tokens == 3

    def test_completions_streamed(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        chunks = sdk.gather(client.completions.create(model="chat", prompt="once upon a time", stream=True))
        assert "".join(c.choices[0].text for c in chunks) == "word0 word1 word2 "

    def test_models_are_those_of_the_key(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        listed = sdk.gather(client.models.list())
        assert sorted(m.id for m in listed) == ["chat", "echo", "embed", "fragile"]
        assert all(m.object == "model" for m in listed)

    def test_one_model(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        one = sdk.wait(client.models.retrieve("chat"))
        assert (one.id, one.object) == ("chat", "model")

    @pytest.mark.parametrize("name", ["hidden", "no-such-model"])
    def test_a_model_of_others_does_not_exist(self, sdk: Sdk, weir: Weir, key: Key, name: str) -> None:
        client = sdk.client(weir, key)
        with pytest.raises(openai.NotFoundError) as caught:
            sdk.wait(client.models.retrieve(name))
        assert caught.value.code == "model_not_found"


class TestEcho:
    def test_says_what_it_was_told_and_counts_it(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        answer = sdk.wait(
            client.chat.completions.create(
                model="echo",
                messages=[
                    {"role": "system", "content": "be brief"},
                    {"role": "user", "content": "say these four words"},
                ],
            )
        )
        assert "say these four words" in answer.choices[0].message.content
        usage = answer.usage
        assert usage.completion_tokens == len(answer.choices[0].message.content.split())
        assert usage.prompt_tokens >= 4
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens

    def test_streams_word_by_word(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        chunks = sdk.gather(
            client.chat.completions.create(
                model="echo",
                messages=[{"role": "user", "content": "one two three four"}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        assert "one two three four" in text_of(chunks)
        assert sum(1 for c in chunks if c.choices and c.choices[0].delta.content) >= 4
        usages = [c.usage for c in chunks if c.usage]
        assert len(usages) == 1
        assert usages[0].completion_tokens == len(text_of(chunks).split())

    def test_calls_the_first_tool(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        answer = sdk.wait(client.chat.completions.create(model="echo", messages=HELLO, tools=[WEATHER]))
        call = answer.choices[0].message.tool_calls[0]
        assert call.function.name == "get_weather"
        assert isinstance(json.loads(call.function.arguments), dict)
        assert answer.choices[0].finish_reason == "tool_calls"

    def test_calls_no_tool_when_told_so(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        answer = sdk.wait(
            client.chat.completions.create(model="echo", messages=HELLO, tools=[WEATHER], tool_choice="none")
        )
        assert not answer.choices[0].message.tool_calls
        assert "hello there" in answer.choices[0].message.content

    def test_n(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        answer = sdk.wait(client.chat.completions.create(model="echo", messages=HELLO, n=2))
        assert [choice.index for choice in answer.choices] == [0, 1]

    def test_completions_and_embeddings(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        completion = sdk.wait(client.completions.create(model="echo", prompt="tell me"))
        assert "tell me" in completion.choices[0].text
        embedded = sdk.wait(client.embeddings.create(model="echo", input=["a", "b"]))
        assert len(embedded.data) == 2
        assert all(isinstance(x, float) for item in embedded.data for x in item.embedding)


class TestErrors:
    def test_a_wrong_key(self, sdk: Sdk, weir: Weir) -> None:
        client = sdk.client(weir, "sk-not-one-of-ours")
        with pytest.raises(openai.AuthenticationError) as caught:
            sdk.wait(client.chat.completions.create(model="chat", messages=HELLO))
        assert caught.value.code == "invalid_api_key"
        assert "Incorrect API key provided" in caught.value.message
        assert caught.value.request_id
        assert len(sdk.attempts) == 1

    def test_an_unknown_model(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        with pytest.raises(openai.NotFoundError) as caught:
            sdk.wait(client.chat.completions.create(model="no-such-model", messages=HELLO))
        assert caught.value.code == "model_not_found"

    def test_a_bad_request(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.wait(client.chat.completions.create(model="chat", messages=HELLO, max_tokens=-1))
        assert caught.value.type == "invalid_request_error"
        assert "max_tokens" in caught.value.message

    def test_the_upstreams_own_refusal_passes_as_it_is(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.wait(
                client.chat.completions.create(model="chat", messages=HELLO, extra_body={"x_script": "bad_request"})
            )
        assert caught.value.code == "context_length_exceeded"

    def test_a_limit_names_itself(self, sdk: Sdk, weir: Weir, admin: Admin) -> None:
        key = admin.key(rpm=1)
        client = sdk.client(weir, key, max_retries=0)
        sdk.wait(client.chat.completions.create(model="chat", messages=HELLO))
        with pytest.raises(openai.RateLimitError) as caught:
            sdk.wait(client.chat.completions.create(model="chat", messages=HELLO))
        refused = caught.value
        assert refused.code == "rate_limit_exceeded"
        assert isinstance(refused.body, dict)
        assert set(refused.body) >= {"message", "type", "param", "code"}
        assert "key" in refused.message
        assert 0 < int(refused.response.headers["retry-after-ms"]) <= 60_000

    @pytest.mark.parametrize("play", ["cut_stream", "unfinished_stream", "error_event"])
    def test_a_stream_that_fails_midway_raises(self, sdk: Sdk, weir: Weir, key: Key, play: str) -> None:
        client = sdk.client(weir, key)
        chunks, failure = sdk.take(
            client.chat.completions.create(
                model="fragile", messages=HELLO, stream=True, extra_body={"x_script": {"play": play, "chunks": 3}}
            )
        )
        assert text_of(chunks) == "word0 word1 word2 "
        assert isinstance(failure, APIError)
        assert not isinstance(failure, APIConnectionError), "the stream was cut, instead of saying why it ends"
        assert isinstance(failure.body, dict)
        assert failure.message


class TestHeaders:
    def test_limits_and_request_id_are_on_the_answer(self, sdk: Sdk, weir: Weir, admin: Admin) -> None:
        key = admin.key(rpm=600, tpm=60_000)
        client = sdk.client(weir, key)
        raw = sdk.wait(
            client.chat.completions.with_raw_response.create(
                model="chat", messages=HELLO, max_tokens=100, extra_headers={"x-request-id": "my.own-id_1"}
            )
        )
        assert raw.headers["x-request-id"] == "my.own-id_1"
        assert raw.parse().choices[0].message.content == "word0 word1 word2 "
        assert int(raw.headers["x-ratelimit-limit-requests"]) == 600
        assert int(raw.headers["x-ratelimit-limit-tokens"]) == 60_000
        assert int(raw.headers["x-ratelimit-remaining-requests"]) == 599
        assert 50_000 < int(raw.headers["x-ratelimit-remaining-tokens"]) <= 59_900
        for unit in ("requests", "tokens"):
            assert raw.headers[f"x-ratelimit-reset-{unit}"].endswith("s")
        assert "ratelimit-policy" in raw.headers
        assert "ratelimit" in raw.headers

    def test_limits_are_on_a_stream_too(self, sdk: Sdk, weir: Weir, admin: Admin) -> None:
        key = admin.key(rpm=600)
        client = sdk.client(weir, key)
        assert sdk.gather(client.chat.completions.create(model="chat", messages=HELLO, stream=True))
        headers = sdk.attempts[-1].headers
        assert int(headers["x-ratelimit-remaining-requests"]) == 599
        assert headers["x-request-id"]
        assert headers["content-type"].startswith("text/event-stream")

    def test_an_unfit_request_id_is_replaced(self, sdk: Sdk, weir: Weir, key: Key) -> None:
        client = sdk.client(weir, key)
        raw = sdk.wait(client.models.with_raw_response.list(extra_headers={"x-request-id": "not fit / for us"}))
        assert raw.headers["x-request-id"]
        assert raw.headers["x-request-id"] != "not fit / for us"


class TestRetries:
    def test_waits_what_we_say_and_succeeds(self, sdk: Sdk, weir: Weir, admin: Admin) -> None:
        key = admin.key(rpm=60, burst_seconds=1)  # one at once, then one a second
        client = sdk.client(weir, key, max_retries=2)
        for _ in range(2):
            answer = sdk.wait(client.chat.completions.create(model="chat", messages=HELLO))
            assert answer.choices[0].message.content
        first, refused, again = sdk.attempts
        assert [first.status, refused.status, again.status] == [200, 429, 200]
        told = int(refused.headers["retry-after-ms"])
        assert 0 < told <= 1000
        assert again.sent_at - refused.answered_at >= told / 1000 - 0.01
        eventually(lambda: len(weir.records_with(key_id=key.id)) >= 3, why="three log lines")
        assert [r["status"] for r in weir.records_with(key_id=key.id)] == [200, 429, 200]

    @pytest.mark.parametrize(
        ("limits", "spend", "asked", "code"),
        [
            pytest.param({"tpm": 100}, 0, 5000, "request_too_large_for_limit", id="larger-than-the-bucket"),
            # 600 tokens, ten a minute: when 480 of them are spent, 400 are there again in half an hour.
            pytest.param({"tpm": 10, "burst_seconds": 3600}, 480, 400, "tokens_exceeded", id="over-a-minute"),
        ],
    )
    def test_does_not_retry_what_cannot_succeed(
        self, *, sdk: Sdk, weir: Weir, admin: Admin, limits: dict[str, Any], spend: int, asked: int, code: str
    ) -> None:
        key = admin.key(**limits)
        client = sdk.client(weir, key, max_retries=3)
        create: Callable[..., Any] = client.chat.completions.create
        if spend:
            script = {"usage": [3, spend - 3]}
            sdk.wait(create(model="chat", messages=HELLO, max_tokens=spend, extra_body={"x_script": script}))
            eventually(lambda: weir.remaining(key, "tokens") in {600 - spend, 600 - spend + 1})
        tries = len(sdk.attempts)
        with pytest.raises(openai.RateLimitError) as caught:
            sdk.wait(create(model="chat", messages=HELLO, max_tokens=asked))
        assert caught.value.code == code
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert len(sdk.attempts) == tries + 1
        weir.record(key_id=key.id, status=429)
