"""OpenAI's objects as a program builds them: what it returns is what the client gets, and more fields may be added.

Messages, inputs and outputs are dictionaries on purpose: OpenAI has new kinds of them often, and they are passed on.
"""

from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from weir.backend.results import AsItIs, ChunkMapper

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
    "Response",
    "ResponseFunctionCall",
    "ResponseOutputMessage",
    "ResponseOutputText",
    "ResponseRequest",
    "ResponseResult",
    "RunCompletionFn",
    "RunFileUploadFn",
    "RunResponseFn",
]

# What a program's functions take and give is its own: Any is their honest type.
Json = dict[str, Any]
MessageParam = Json
InputItem = Json
OutputItem = Json
ListModelsFn = Callable[..., Any]
RunCompletionFn = Callable[..., Any]
RunResponseFn = Callable[..., Any]
RunFileUploadFn = Callable[..., Any]
PreHook = Callable[..., Any]
PostHook = Callable[..., Any]


class OpenAIBaseModel(BaseModel):
    """Fields that it does not know are kept."""

    model_config = ConfigDict(extra="allow")


# -- models ----------------------------------------------------------------------------------------------------------


class ModelObject(BaseModel):
    id: str
    name: str
    object: Literal["model"] = "model"
    created: int = Field(description="Unix time in seconds")
    owned_by: str


class ModelsResponse(BaseModel):
    data: list[ModelObject]
    object: Literal["list"] = "list"


# -- chat ------------------------------------------------------------------------------------------------------------


class ChatRequest(OpenAIBaseModel):
    model: str
    messages: list[MessageParam] = Field(description="Each has a role and, mostly, content")
    stream: bool | None = False


class Message(OpenAIBaseModel):
    """A message, or a delta of one."""

    role: str
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Json] | None = None
    refusal: str | None = None


class Choice(OpenAIBaseModel):
    """`message` in a completion, `delta` in a chunk."""

    index: int
    delta: Message | None = None
    finish_reason: str | None = Field(default=None, description="stop, length, tool_calls or content_filter")
    logprobs: Json | None = None
    message: Message | None = None


class ChatCompletion(OpenAIBaseModel, AsItIs):
    """A completion, or a chunk of one."""

    id: str
    object: Literal["chat.completion", "chat.completion.chunk"]
    created: int = Field(description="Unix time in seconds")
    model: str
    choices: list[Choice]
    usage: Json | None = None
    system_fingerprint: str | None = None


CompletionResult = str | ChatCompletion | Generator[Any, None, None] | AsyncGenerator[Any, None]


# -- responses -------------------------------------------------------------------------------------------------------


class ResponseRequest(OpenAIBaseModel):
    model: str
    input: str | list[InputItem] | None = Field(default=None, description="A text, or a list of items")
    instructions: str | None = None
    stream: bool | None = False
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    previous_response_id: str | None = None
    parallel_tool_calls: bool | None = None
    stream_options: Json | None = None
    text: Json | None = None
    reasoning: Json | None = None
    store: bool | None = None
    service_tier: str | None = None
    metadata: Json | None = None


class ResponseOutputText(OpenAIBaseModel):
    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Json] = []


class ResponseOutputMessage(OpenAIBaseModel):
    id: str
    type: Literal["message"] = "message"
    status: str = "completed"
    role: Literal["assistant"] = "assistant"
    content: list[Json]


class ResponseFunctionCall(OpenAIBaseModel):
    type: Literal["function_call"] = "function_call"
    id: str
    call_id: str
    name: str
    arguments: str = Field(description="JSON")
    status: str = "completed"


class Response(OpenAIBaseModel):
    id: str
    object: Literal["response"] = "response"
    created_at: int = Field(description="Unix time in seconds")
    status: str = "completed"
    model: str
    output: list[OutputItem]
    usage: Json | None = None
    error: Json | None = None
    incomplete_details: Json | None = None


ResponseResult = str | Response | Generator[Any, None, None] | AsyncGenerator[Any, None]


# -- files -----------------------------------------------------------------------------------------------------------


class FileObject(OpenAIBaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int = Field(description="Unix time in seconds")
    filename: str | None = None
    purpose: str
    status: str = "processed"


FileUploadResult = FileObject | Json
