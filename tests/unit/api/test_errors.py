"""A bug on the FastAPI side: a 500 for the caller, a line with its kind and place, and its text nowhere."""

import logging

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from tests.fakes.clock import run
from weir.api.errors import API, OPS, TWICE, install

CANARY = "canary-of-a-prompt"


def application() -> FastAPI:
    app = FastAPI()
    install(app)

    @app.get("/breaks")
    async def breaks() -> None:
        raise ValueError(f"cannot read {CANARY}")

    @app.get("/breaks-late")
    async def breaks_late() -> StreamingResponse:
        async def parts():  # type: ignore[no-untyped-def]
            yield b"the first half"
            raise ValueError(f"cannot read {CANARY}")

        return StreamingResponse(parts())

    return app


def test_it_ends_here(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        transport = httpx.ASGITransport(application())  # which raises what the application lets out
        async with httpx.AsyncClient(transport=transport, base_url="http://weir") as client:
            answer = await client.get("/breaks")
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
        assert CANARY not in answer.text

    run(scene)
    (line,) = [record for record in caplog.records if record.name == "weir.api"]
    assert (line.levelno, line.getMessage()) == (logging.ERROR, "bug")
    assert line.exc_info is not None
    assert line.exc_info[0] is ValueError


def test_behind_the_first_byte_it_is_cut_without_its_text() -> None:
    async def scene() -> None:
        transport = httpx.ASGITransport(application())
        async with httpx.AsyncClient(transport=transport, base_url="http://weir") as client:
            with pytest.raises(Exception) as cut:  # noqa: PT011 - whichever, it may not say what it is not to say
                await client.get("/breaks-late")
        assert CANARY not in repr(cut.value)
        assert cut.value.__cause__ is None

    run(scene)


NOTHING_THERE = [
    # path                        hint
    ("/metrics", OPS),
    ("/livez", OPS),
    ("/readyz", OPS),
    ("/healthz", OPS),
    ("/v1/v1/chat/completions", TWICE),
    ("/v1/v1/models", TWICE),
    ("/v1/nothing", API),
    ("/metrics/more", API),
]


@pytest.mark.parametrize(("path", "hint"), NOTHING_THERE)
def test_where_there_is_nothing_it_says_where_to_look(path: str, hint: str) -> None:
    async def scene() -> None:
        transport = httpx.ASGITransport(application())
        async with httpx.AsyncClient(transport=transport, base_url="http://weir") as client:
            answer = await client.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == f"There is nothing at {path}. {hint}"

    run(scene)
