"""Every kind of request on the data port, in the words of whose API it is.

Sources: OpenAI's API reference; Anthropic's (Messages, its token counting); rerank is Jina's and Cohere's form, which
vLLM, llama.cpp and TEI speak.
"""

from typing import Literal, NamedTuple

Dialect = Literal["openai", "anthropic"]


class Operation(NamedTuple):
    """`name` is its word in logs, metrics and settings, `path` stands below /v1. `prompt` is the field without which
    there is nothing to do; `caps` are those that bound the answer, none where it is not made of tokens. A `form` comes
    as multipart/form-data with a file in it, which is passed on while it comes; anything else is JSON.
    """

    name: str
    path: str
    prompt: str
    caps: tuple[str, ...] = ()
    dialect: Dialect = "openai"
    streams: bool = False
    opt_in_usage: bool = False  # a stream tells its usage only if `stream_options` ask for it
    opaque: bool = False  # the answer may be anything: sound, subtitles
    form: bool = False

    @property
    def generates(self) -> bool:
        """It answers in tokens, which can be bounded and counted."""
        return bool(self.caps)


CHAT = Operation(
    "chat",
    "/chat/completions",
    "messages",
    caps=("max_tokens", "max_completion_tokens"),
    streams=True,
    opt_in_usage=True,
)
TEXT = CHAT._replace(name="text_completion", path="/completions", prompt="prompt", caps=("max_tokens",))
RESPONSES = Operation("responses", "/responses", "input", caps=("max_output_tokens",), streams=True)
MESSAGES = Operation("messages", "/messages", "messages", caps=("max_tokens",), dialect="anthropic", streams=True)
COUNT_TOKENS = Operation("count_tokens", "/messages/count_tokens", "messages", dialect="anthropic")
EMBEDDINGS = Operation("embeddings", "/embeddings", "input")
RERANK = Operation("rerank", "/rerank", "documents")
MODERATIONS = Operation("moderations", "/moderations", "input")
IMAGE = Operation("image", "/images/generations", "prompt", streams=True)
SPEECH = Operation("speech", "/audio/speech", "input", streams=True, opaque=True)
TRANSCRIPTION = Operation("transcription", "/audio/transcriptions", "file", streams=True, opaque=True, form=True)

OPERATIONS = (
    CHAT,
    TEXT,
    RESPONSES,
    MESSAGES,
    COUNT_TOKENS,
    EMBEDDINGS,
    RERANK,
    MODERATIONS,
    IMAGE,
    SPEECH,
    TRANSCRIPTION,
)
