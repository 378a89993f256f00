"""Weir as a library: routers that answer OpenAI's API with a program's own functions, for its own FastAPI application.

The names and parameters are those of fastapi-openai-compat, so that a program moves here by its import line.
"""

from weir.api.library.chat import create_chat_completion_router, create_openai_router
from weir.api.library.files import create_files_router
from weir.api.library.models import create_models_router
from weir.api.library.responses import create_responses_router
from weir.api.library.types import (
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
    Response,
    ResponseFunctionCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseRequest,
    ResponseResult,
    RunCompletionFn,
    RunFileUploadFn,
    RunResponseFn,
)
from weir.backend.results_refused import Refused

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
    "create_chat_completion_router",
    "create_files_router",
    "create_models_router",
    "create_openai_router",
    "create_responses_router",
]
