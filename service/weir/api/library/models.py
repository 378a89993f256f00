"""GET /models: the names that a program serves. OpenAI's API description, `listModels`."""

import time

from fastapi import APIRouter

from weir.api.library.routes import THREADS, OpenAIRoute, add_route
from weir.api.library.types import ListModelsFn, ModelObject, ModelsResponse
from weir.backend.python_run import Function, Run


def create_models_router(
    *,
    list_models: ListModelsFn,
    owned_by: str = "custom",
    tags: list[str] | None = None,
    operation_id_prefix: str = "openai",
) -> APIRouter:
    """`list_models()` gives the names; it may be asynchronous."""
    function = Function.of(list_models)
    router = APIRouter(route_class=OpenAIRoute)
    prefix = f"{operation_id_prefix.strip()}_" if operation_id_prefix.strip() else ""

    async def models() -> ModelsResponse:
        run = Run(THREADS)
        try:
            names = await run.call(function)
        finally:
            await run.close()
        now = int(time.time())  # noqa: TID251 - OpenAI's `created` is a date
        return ModelsResponse(
            data=[ModelObject(id=str(name), name=str(name), created=now, owned_by=owned_by) for name in names or ()]
        )

    add_route(
        router,
        "/models",
        models,
        f"{prefix}models",
        tags=tags,
        methods=("GET",),
        response_model=ModelsResponse,
        summary="List models",
    )
    return router
