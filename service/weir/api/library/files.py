"""POST /files, taken by a function. OpenAI's API description, `createFile`."""

from typing import Any

from fastapi import APIRouter, Request

from weir.api.library.multipart import Malformed, Part, parts
from weir.api.library.routes import THREADS, OpenAIRoute, add_route
from weir.api.library.types import FileObject, RunFileUploadFn
from weir.backend.python_run import Function, Run
from weir.backend.results import NoAnswer
from weir.backend.results_refused import Refused

# Written down for the documentation: the form is read here, so that no parser has to be installed.
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string"},
                    },
                }
            }
        },
    }
}


def create_files_router(*, run_file_upload: RunFileUploadFn, tags: list[str] | None = None) -> APIRouter:
    """`run_file_upload(filename, content_type, content, purpose)` gives a `FileObject`, or a dictionary of one."""
    function = Function.of(run_file_upload)
    router = APIRouter(route_class=OpenAIRoute)

    async def upload(request: Request) -> FileObject:
        file, purpose = _fields(request.headers.get("content-type", ""), await request.body())
        run = Run(THREADS)
        try:
            made = await run.call(function, file.filename, file.content_type, file.content, purpose)
        finally:
            await run.close()
        if isinstance(made, FileObject):
            return made
        if isinstance(made, dict):
            return FileObject.model_validate(made)
        raise NoAnswer(f"a function gave {type(made).__name__}, which is no file object")

    add_route(
        router,
        "/files",
        upload,
        "openai_files_create",
        tags=tags,
        response_model=FileObject,
        summary="Upload a file",
        openapi_extra=FORM,
    )
    return router


def _fields(content_type: str, body: bytes) -> tuple[Part, str]:
    """The file and the purpose. Raises Refused."""
    try:
        fields = {part.name: part for part in parts(content_type, body)}
    except Malformed as error:
        raise Refused(f"The form cannot be read: {error}.", code="malformed_body") from error
    for name in ("file", "purpose"):
        if name not in fields:
            raise Refused(f"'{name}' is missing in the form.", code="invalid_value", param=name)
    return fields["file"], fields["purpose"].content.decode("utf-8", "replace")
