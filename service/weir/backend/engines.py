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
    TRANSCRIPTION,
    Operation,
)


class Engine(NamedTuple):
    """`key` is the header that bears its key, with {} where that stands. `deployments` says that the model's name is in
    the path, and the version of the API in the query; where there is no such version, `unversioned` is served too.
    `says_done` False: its streams end with their finish reason and the end of the body, without [DONE]. `provider` is
    whose API it is, by OpenTelemetry's names.
    """

    serves: frozenset[str]
    key: tuple[str, str] = ("authorization", "Bearer {}")
    max_tokens_field: str = "max_tokens"
    deployments: bool = False
    says_done: bool = True
    provider: str = "openai"
    unversioned: frozenset[str] = frozenset()

    def served(self, *, versioned: bool) -> frozenset[str]:
        """What it does itself, asked with or without the version of an API."""
        return self.serves if versioned else self.serves | self.unversioned


def _these(*operations: Operation) -> frozenset[str]:
    return frozenset(operation.name for operation in operations)


_COMMON = (CHAT, TEXT, EMBEDDINGS)

ENGINES = {
    # Whatever there is: chat is what all of them have; what some of them have passes, and its own 404 with it.
    "generic": Engine(_these(*_COMMON, RERANK, MODERATIONS, IMAGE, SPEECH, TRANSCRIPTION)),
    # platform.openai.com/docs/api-reference: `max_tokens` is deprecated, and o-series models refuse it.
    "openai": Engine(
        _these(*_COMMON, RESPONSES, MODERATIONS, IMAGE, SPEECH, TRANSCRIPTION),
        max_tokens_field="max_completion_tokens",
    ),
    # learn.microsoft.com/azure/ai-foundry/openai/reference: deployments, api-version, api-key; `max_completion_tokens`
    # since 2024-09-01-preview. No deployment has Responses below it; the newer v1 API has them
    # (learn.microsoft.com/azure/ai-foundry/openai/latest): a url that ends with /openai/v1, without `api_version`.
    "azure": Engine(
        _these(*_COMMON, IMAGE, SPEECH, TRANSCRIPTION),
        key=("api-key", "{}"),
        max_tokens_field="max_completion_tokens",
        deployments=True,
        provider="azure.ai.openai",
        unversioned=_these(RESPONSES),
    ),
    # docs.anthropic.com/en/api/messages and /messages-count-tokens. Its chat completions
    # (docs.anthropic.com/en/api/openai-sdk) are for trying it out, as that page says, and ignore what they do not know.
    "anthropic": Engine(_these(MESSAGES, COUNT_TOKENS), key=("x-api-key", "{}"), provider="anthropic"),
    # docs.vllm.ai/en/stable/serving/online_serving; count_tokens since March 2026 (pull request 35588). For an older
    # one say "tokenize" in `serves`: that is at the root, which --api-key does not guard and a proxy may have shut.
    "vllm": Engine(_these(*_COMMON, RESPONSES, MESSAGES, COUNT_TOKENS, RERANK, TRANSCRIPTION)),
    # docs.ollama.com/api/openai-compatibility: responses since 0.13.3, speech since 0.40.8, images as an experiment;
    # docs.ollama.com/api/anthropic-compatibility: messages, and no count_tokens.
    "ollama": Engine(_these(*_COMMON, RESPONSES, MESSAGES, IMAGE, SPEECH)),
    # huggingface.co/docs/text-generation-inference/reference/api_reference: chat and completions alone.
    "tgi": Engine(_these(CHAT, TEXT)),
    # huggingface.github.io/text-embeddings-inference: /v1/embeddings is OpenAI's; /rerank is its own, at the root.
    "tei": Engine(_these(EMBEDDINGS) | {"rerank_texts"}),
    # lmstudio.ai/docs/developer/openai-compat: responses since 0.3.29; /anthropic-compat: messages since 0.4.1. What it
    # does not know it answers with 200 and an error inside (lmstudio-bug-tracker, issue 2055), so nothing more here.
    "lmstudio": Engine(_these(*_COMMON, RESPONSES, MESSAGES)),
    # github.com/ggml-org/llama.cpp, tools/server/README.md. Its /tokenize takes `content`, and is not vLLM's.
    "llamacpp": Engine(_these(*_COMMON, RESPONSES, MESSAGES, COUNT_TOKENS, RERANK)),
    # huggingface.co/docs/transformers/serving: `transformers serve` (5.23 was tried) ends a stream without [DONE]; its
    # /v1/responses is an experiment.
    "transformers": Engine(_these(CHAT, TEXT, TRANSCRIPTION), says_done=False),
    # openrouter.ai/docs/api-reference and its OpenAPI description: images are at /images, in a form of their own.
    "openrouter": Engine(_these(*_COMMON, RESPONSES, MESSAGES, RERANK, SPEECH)),
}
_HOSTS = {
    "api.anthropic.com": "anthropic",
    "api.openai.com": "openai",
    "ollama.com": "ollama",
    "openrouter.ai": "openrouter",
}
_DOMAINS = {
    ".openai.azure.com": "azure",
    ".services.ai.azure.com": "azure",
    ".cognitiveservices.azure.com": "azure",  # what the portal gives to a resource of several services
    ".openai.azure.us": "azure",
    ".api.openai.com": "openai",  # regions that data must not leave: eu.api.openai.com
}


def engine_at(url: str) -> str:
    """What answers there, where its host's name says so; else `generic`."""
    host = urlsplit(url).hostname or ""
    of_domain = (engine for domain, engine in _DOMAINS.items() if host.endswith(domain))
    return _HOSTS.get(host) or next(of_domain, "generic")
