"""The ops port: health and metrics. It never goes through the ingress."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from weir import __version__
from weir.api.errors import install

HINT = "This port is for health and metrics; models answer at the other one: server.port, 8080 unless it is set."


def create(
    *,
    why_not_ready: Callable[[], str | None],
    catch_up: Callable[[], None],
    exposition: Callable[[str], tuple[bytes, str]],
    drain: Callable[[], None],
    requests: Callable[[int], dict[str, Any]],
) -> FastAPI:
    """`why_not_ready` gives a sentence, or None; `exposition` the metrics and their content type for an Accept header,
    once `catch_up` has brought them up to date; `drain` starts the shutdown; `requests` gives so many of those under
    way, oldest first.
    """
    app = FastAPI(title="Weir operations", version=__version__, redoc_url=None)
    install(app, lambda _: HINT)

    @app.get("/livez", summary="The event loop answers; says nothing else")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", summary="Whether traffic should come here, and why not")
    async def readyz() -> Any:
        reason = why_not_ready()
        return {"status": "ready"} if reason is None else JSONResponse({"status": "not ready", "reason": reason}, 503)

    @app.get("/metrics", summary="Prometheus' text format, or OpenMetrics where asked for")
    async def metrics(request: Request) -> Response:
        catch_up()
        # In a thread: 10,000 series take 130 ms to write.
        body, content_type = await run_in_threadpool(exposition, request.headers.get("accept", ""))
        return Response(body, media_type=content_type)

    @app.get("/requests", summary="Requests under way in the process that answers, oldest first; `processes` there are")
    async def under_way(limit: Annotated[int, Query(ge=1, le=10_000)] = 50) -> dict[str, Any]:
        return requests(limit)

    @app.post("/drain", status_code=202, summary="Stop: announce it, let streams end, then exit")
    async def stop() -> dict[str, str]:
        drain()
        return {"status": "draining"}

    return app
