"""No prompt, no completion and no key in any log line, metric or refusal; and no flood of names in the metrics."""

import asyncio
import json

import pytest

from tests.fakes.backend import HANG, JSON, Die, Head, Step
from tests.fakes.clock import run
from tests.flow.house import KEY, PRINCIPAL, UNKNOWN_KEY, chat, open_house
from weir.core.errors import UpstreamFailed
from weir.telemetry.exposition import exposition

PROMPT, COMPLETION, FIELD = "canary-of-a-prompt", "canary-of-an-answer", "canary-of-a-field"
SAID = json.dumps({"choices": [{"index": 0, "delta": {"content": COMPLETION}, "finish_reason": None}]}).encode()
EVENT = b"data: " + SAID + b"\n\n"
MESSAGES = [{"role": "user", "content": PROMPT}]

PLAYS = [
    pytest.param((EVENT, b"data: [DONE]\n\n"), {"stream": True}, id="complete"),
    pytest.param((EVENT, Die(UpstreamFailed(reason="reset"))), {"stream": True}, id="dies"),
    pytest.param((EVENT, Die(RuntimeError(PROMPT))), {"stream": True}, id="bug"),
    pytest.param((Die(ValueError(f"{KEY} {PROMPT}")),), {}, id="bug-before-the-head"),
    pytest.param((HANG,), {}, id="times-out"),
    pytest.param((Head(400, JSON), SAID), {}, id="upstream-refuses"),
    pytest.param((Head(500, JSON), SAID), {}, id="upstream-breaks"),
    pytest.param((Head(200, b"text/html"), SAID), {}, id="html"),
    pytest.param((), {"n": FIELD}, id="bad-value"),
    pytest.param((), {"model": FIELD}, id="unknown-model"),
    pytest.param((), {"max_tokens": 10**9}, id="limit"),
]


@pytest.mark.parametrize(("script", "fields"), PLAYS)
def test_nothing_of_it_is_seen(*, script: tuple[Step, ...], fields: dict[str, object]) -> None:
    async def scene() -> None:
        async with open_house(*script) as house:
            await house.ask(chat(messages=MESSAGES, user=FIELD, **fields)).over()
            await house.ask(chat(messages=MESSAGES)[:-1], key=KEY).over()
            await house.ask(chat(messages=MESSAGES), key=UNKNOWN_KEY).over()
            metrics, _ = exposition(house.registry, "")
            seen = repr(house.logged) + metrics.decode()
            for secret in (PROMPT, COMPLETION, FIELD, KEY, UNKNOWN_KEY, PRINCIPAL.digest, "canary"):
                assert secret not in seen

    run(scene)


def test_unknown_models_make_no_series() -> None:
    async def scene() -> None:
        async with open_house() as house:

            def series() -> int:
                return sum(len(metric.samples) for metric in house.registry.collect())

            await house.ask(chat(model="unknown")).over()
            before = series()
            for number in range(2_000):
                assert (await house.ask(chat(model=f"unknown-{number}")).over()).status == 404
            assert series() == before
            assert (
                house.registry.get_sample_value(
                    "weir_requests_total",
                    {
                        "team": "search",
                        "model": "other",
                        "operation": "chat",
                        "outcome": "refused_model",
                        "status": "4xx",
                    },
                )
                == 2_001
            )

    run(scene)


def test_unknown_keys_make_no_series() -> None:
    async def scene() -> None:
        async with open_house() as house:
            await house.ask(key="sk-nobody").over()
            before = sum(len(metric.samples) for metric in house.registry.collect())
            await asyncio.gather(*(house.ask(key=f"sk-nobody-{number}").over() for number in range(500)))
            assert sum(len(metric.samples) for metric in house.registry.collect()) == before

    run(scene)
