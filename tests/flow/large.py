"""Large requests, and how long one of them keeps everybody else waiting: between two turns of the event loop, by the
clock and in the loop's own CPU time. Run: python -m tests.flow.large
"""

import asyncio
import base64
import json
import os
import time
from typing import Any, NamedTuple

import orjson

from tests.fakes.backend import JSON, Head
from tests.flow.house import open_house, route
from weir.core.types import Limits

PIECE = 256 * 1024  # bytes that the network brings at a time
ANSWER = json.dumps(
    {
        "id": "c1",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "aa"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
    }
).encode()

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"


def _talk() -> list[dict[str, Any]]:
    return [
        {"role": "assistant" if number % 2 else "user", "content": f"some words of a message, number {number} " * 4}
        for number in range(10_000)
    ]


def _form(number: int) -> dict[str, Any]:
    fields = {f"field_{number}_{one}": {"type": "string", "description": "a parameter"} for one in range(8)}
    return {"type": "object", "properties": fields}


def bodies() -> dict[str, tuple[str, bytes]]:
    """Path and body by what is large about them. Upstream knows chat alone, so the others are translated."""
    image = base64.b64encode(os.urandom(15 << 20)).decode()
    url = f"data:image/png;base64,{image}"
    source = {"type": "base64", "media_type": "image/png", "data": image}
    book = 'the river "flows" and\n ' * 270_000  # some 1.5 million tokens
    tools = [(f"tool_{number}", "what it does " * 20, _form(number)) for number in range(512)]
    said: dict[str, tuple[str, dict[str, Any]]] = {
        "an image of 20 MB": (CHAT, {"messages": [_user({"type": "image_url", "image_url": {"url": url}})]}),
        "the same, Messages": (MESSAGES, {"messages": [_user({"type": "image", "source": source})]}),
        "the same, Responses": (RESPONSES, {"input": [_user({"type": "input_image", "image_url": url})]}),
        "1.5 M tokens": (CHAT, {"messages": [{"role": "user", "content": book}]}),
        "1.5 M tokens, Messages": (MESSAGES, {"messages": [{"role": "user", "content": book}]}),
        "10,000 messages": (CHAT, {"messages": _talk()}),
        "10,000 messages, Messages": (MESSAGES, {"messages": _talk()}),
        "512 tools": (
            CHAT,
            {
                "messages": [{"role": "user", "content": "x"}],
                "tools": [
                    {"type": "function", "function": {"name": name, "description": told, "parameters": form}}
                    for name, told, form in tools
                ],
            },
        ),
        "512 tools, Messages": (
            MESSAGES,
            {
                "messages": [{"role": "user", "content": "x"}],
                "tools": [{"name": name, "description": told, "input_schema": form} for name, told, form in tools],
            },
        ),
    }
    caps = {CHAT: "max_tokens", MESSAGES: "max_tokens", RESPONSES: "max_output_tokens"}
    return {name: (path, orjson.dumps({"model": "m", caps[path]: 50, **rest})) for name, (path, rest) in said.items()}


def _user(part: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [part]}


class Held(NamedTuple):
    """Seconds between two turns of the loop, at most; and of the whole request."""

    clock: float
    cpu: float
    whole: float
    status: int


async def held(path: str, body: bytes) -> Held:
    known = route(upstream_model="other", serves=frozenset({"chat"}))
    free = {"key_limits": Limits(), "team_limits": Limits(), "max_body_bytes": 64 << 20}
    async with open_house(Head(200, JSON), ANSWER, routes=[known], **free) as house:  # type: ignore[arg-type]
        pieces = [body[at : at + PIECE] for at in range(0, len(body), PIECE)]
        clock = cpu = 0.0
        over = False

        async def turn() -> None:
            nonlocal clock, cpu
            while not over:
                now, used = time.perf_counter(), time.thread_time()
                await asyncio.sleep(0)
                clock, cpu = max(clock, time.perf_counter() - now), max(cpu, time.thread_time() - used)

        turning = asyncio.ensure_future(turn())
        await asyncio.sleep(0)
        began = time.perf_counter()
        answer = await house.ask(pieces, path=path).over()
        whole = time.perf_counter() - began
        over = True
        await turning
        return Held(clock, cpu, whole, answer.status)


if __name__ == "__main__":
    print(f"{'':28}{'size':>10}{'loop held':>12}{'its CPU':>10}{'whole':>10}")
    for name, (path, body) in bodies().items():
        one = asyncio.run(held(path, body))
        times = f"{one.clock * 1e3:9.1f} ms{one.cpu * 1e3:7.1f} ms{one.whole * 1e3:7.1f} ms"
        print(f"{name:28}{len(body) >> 10:7} KB{times}  {one.status}")
