"""What servers differ in, as far as it must be known to ask them: a table, each row with where it is written.

`serves` are operations that pass as they are; Messages, Responses and chat that are not among them are translated. A
server may be older or newer than its row: `serves` of a model's configuration says what it really does.
"""

from typing import NamedTuple
from urllib.parse import urlsplit

from weir.core.operations import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    IMAGE,
    MESSAGES,
    MODERATIONS,
    RERANK,
    RESPONSES,
    SPEECH,
    TEXT,
    Operation,
)


class Engine(NamedTuple):
    """`key` is the header that bears its key, with {} where that stands. `deployments` says that the model's name is in
    the path, and the version of the API in the query.
    """

    serves: frozenset[str]
    key: tuple[str, str] = ("authorization", "Bearer {}")
    max_tokens_field: str = "max_tokens"
    deployments: bool = False


def _these(*operations: Operation) -> frozenset[str]:
    return frozenset(operation.name for operation in operations)


_COMMON = (CHAT, TEXT, EMBEDDINGS)
_OPENAI = _these(*_COMMON, RESPONSES, MODERATIONS, IMAGE, SPEECH)

ENGINES = {
    # Whatever there is: chat is what all of them have; what some of them have passes, and its own 404 with it.
    "generic": Engine(_these(*_COMMON, RERANK, MODERATIONS, IMAGE, SPEECH)),
    # platform.openai.com/docs/api-reference: `max_tokens` is deprecated, and o-series models refuse it.
    "openai": Engine(_OPENAI, max_tokens_field="max_completion_tokens"),
    # learn.microsoft.com/azure/ai-foundry/openai/reference: deployments, api-version, api-key. Its newer v1 API is an
    # endpoint that ends with /openai/v1, without `api_version`.
    "azure": Engine(
        _these(*_COMMON, RESPONSES, IMAGE, SPEECH),
        key=("api-key", "{}"),
        max_tokens_field="max_completion_tokens",
        deployments=True,
    ),
    # docs.anthropic.com/en/api/messages
    "anthropic": Engine(_these(MESSAGES, COUNT_TOKENS), key=("x-api-key", "{}")),
    # docs.vllm.ai/en/latest/serving/openai_compatible_server.html
    "vllm": Engine(_these(*_COMMON, RESPONSES, MESSAGES, RERANK) | {"tokenize"}),
    # docs.ollama.com/api/openai-compatibility and /api/anthropic-compatibility
    "ollama": Engine(_these(*_COMMON, RESPONSES, MESSAGES)),
    # huggingface.co/docs/text-generation-inference: chat and completions alone
    "tgi": Engine(_these(CHAT, TEXT)),
    # huggingface.co/docs/text-embeddings-inference
    "tei": Engine(_these(EMBEDDINGS)),
    # lmstudio.ai/docs/developer/openai-compat and /anthropic-compat
    "lmstudio": Engine(_these(*_COMMON, RESPONSES, MESSAGES)),
    # github.com/ggml-org/llama.cpp, tools/server/README.md
    "llamacpp": Engine(_these(*_COMMON, RESPONSES, MESSAGES, COUNT_TOKENS, RERANK)),
    # openrouter.ai/docs/api-reference
    "openrouter": Engine(_these(*_COMMON, RESPONSES, MESSAGES)),
}
_HOSTS = {"api.openai.com": "openai", "api.anthropic.com": "anthropic", "openrouter.ai": "openrouter"}
_AZURE = (".openai.azure.com", ".services.ai.azure.com")


def engine_at(url: str) -> str:
    """What answers there, where its host's name says so; else `generic`."""
    host = urlsplit(url).hostname or ""
    return "azure" if host.endswith(_AZURE) else _HOSTS.get(host, "generic")
