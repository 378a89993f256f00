"""The ops port beside a thousand streams: whoever looks holds nobody up."""

import asyncio
import time
from collections.abc import Callable

import httpx
from fastapi import FastAPI

from weir.api import ops


def application(exposition: Callable[[str], tuple[bytes, str]]) -> FastAPI:
    return ops.create(
        why_not_ready=lambda: None,
        catch_up=lambda: None,
        exposition=exposition,
        drain=lambda: None,
        requests=lambda limit: {"limit": limit},
    )


def test_who_looks_for_models_here_is_sent_to_the_other_port() -> None:
    async def scene() -> str:
        app = application(lambda _: (b"", "text/plain"))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ops") as client:
            answer = await client.get("/v1/models")
        assert answer.status_code == 404
        return str(answer.json()["error"]["message"])

    assert "server.port, 8080 unless it is set" in asyncio.run(scene())


def test_a_scrape_does_not_hold_the_loop() -> None:
    """10,000 series take 130 ms to write, of several workers a multiple of that."""

    def exposition(_: str) -> tuple[bytes, str]:
        time.sleep(0.3)
        return b"weir_in_flight_requests 0.0\n", "text/plain"

    app = application(exposition)

    async def scene() -> float:
        worst = 0.0
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ops") as client:
            scrape = asyncio.ensure_future(client.get("/metrics"))
            while not scrape.done():
                began = time.perf_counter()
                await asyncio.sleep(0.001)
                worst = max(worst, time.perf_counter() - began)
        assert scrape.result().text == "weir_in_flight_requests 0.0\n"
        return worst

    assert asyncio.run(scene()) < 0.2
