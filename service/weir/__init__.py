"""Weir: one internal endpoint for every LLM. Start at `gateway/completions.py`; `service/README.md` is the map.

As a library it is `weir.api.library`, whose names stand here: `from weir import create_openai_router`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weir.api.library import (
        ChatCompletion,
        ChatRequest,
        Choice,
        ChunkMapper,
        CompletionResult,
        FileObject,
        FileUploadResult,
        InputItem,
        ListModelsFn,
        Message,
        MessageParam,
        ModelObject,
        ModelsResponse,
        OpenAIBaseModel,
        OutputItem,
        PostHook,
        PreHook,
        Refused,
        Response,
        ResponseFunctionCall,
        ResponseOutputMessage,
        ResponseOutputText,
        ResponseRequest,
        ResponseResult,
        RunCompletionFn,
        RunFileUploadFn,
        RunResponseFn,
        create_chat_completion_router,
        create_files_router,
        create_models_router,
        create_openai_router,
        create_responses_router,
    )
    from weir.embed import create_app

__version__ = "0.1.0"

__all__ = [
    "ChatCompletion",
    "ChatRequest",
    "Choice",
    "ChunkMapper",
    "CompletionResult",
    "FileObject",
    "FileUploadResult",
    "InputItem",
    "ListModelsFn",
    "Message",
    "MessageParam",
    "ModelObject",
    "ModelsResponse",
    "OpenAIBaseModel",
    "OutputItem",
    "PostHook",
    "PreHook",
    "Refused",
    "Response",
    "ResponseFunctionCall",
    "ResponseOutputMessage",
    "ResponseOutputText",
    "ResponseRequest",
    "ResponseResult",
    "RunCompletionFn",
    "RunFileUploadFn",
    "RunResponseFn",
    "__version__",
    "create_app",
    "create_chat_completion_router",
    "create_files_router",
    "create_models_router",
    "create_openai_router",
    "create_responses_router",
]


if not TYPE_CHECKING:  # which would take any name for one of ours

    def __getattr__(name: str) -> object:
        """The library is imported for whoever asks: FastAPI takes half a second, and `weir --help` goes without."""
        if name not in __all__:
            raise AttributeError(f"module 'weir' has no attribute '{name}'")
        from importlib import import_module  # noqa: PLC0415 - as above

        # A function behind the gateway refuses without the library.
        elsewhere = {"Refused": "weir.backend.results_refused", "create_app": "weir.embed"}
        module = elsewhere.get(name, "weir.api.library")
        found: object = getattr(import_module(module), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
