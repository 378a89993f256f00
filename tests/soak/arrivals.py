"""Open-loop load: requests come when they are due, whether or not others were answered."""

import asyncio
import math
import random
from dataclasses import dataclass
from time import perf_counter

from tests.system.harness import Key, chat_bytes


@dataclass(slots=True)
class Seen:
    """One request: seconds from when it was sent. `first` is to the first event."""

    status: int
    first: float
    whole: float
    retry_after: float | None
    body: bytes

    @property
    def complete(self) -> bool:
        return b"[DONE]" in self.body


async def ask(port: int, key: Key, prompt: str) -> Seen:
    """One streamed answer of the model `echo`, over a connection of its own."""
    began = perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(chat_bytes(key, "echo", prompt, stream=True))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split()[1])
        first, body = 0.0, b""
        while not (body.endswith(b"0\r\n\r\n") if status == 200 else body.endswith(b"}}")):
            piece = await reader.read(65536)
            if not piece:
                break
            first = first or perf_counter() - began
            body += piece
        waits = [line.partition(":")[2] for line in head.splitlines() if line.startswith("retry-after:")]
        whole = perf_counter() - began
        return Seen(status, first, whole, float(waits[0]) if waits else None, body)
    finally:
        writer.close()


async def arrive(port: int, key: Key, words: range, rate: float, seconds: float) -> list[Seen]:
    """At random moments, `rate` a second on average, each of so many words as `words` may have."""
    loop, draw = asyncio.get_running_loop(), random.Random(1)
    due, end = loop.time(), loop.time() + seconds
    asked: list[asyncio.Task[Seen]] = []
    while (due := due + draw.expovariate(rate)) < end:
        await asyncio.sleep(max(due - loop.time(), 0))
        asked.append(loop.create_task(ask(port, key, " ".join(["river"] * draw.choice(words)))))
    return list(await asyncio.gather(*asked))


def p99(values: list[float]) -> float:
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]
