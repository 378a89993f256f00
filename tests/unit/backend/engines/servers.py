"""What servers of one's own say: see says.py."""

from tests.fakes import streams
from tests.unit.backend.engines.says import CHAT, EMBEDDINGS, TOO_LONG, Says, broken, chat, refusal, used

VLLM = Says(
    "vllm",
    "vllm-project/vllm: vllm/entrypoints/openai/protocol.py (ChatCompletionResponse, ErrorInfo)",
    CHAT,
    chat(
        {"refusal": None, "annotations": None, "audio": None, "tool_calls": [], "reasoning": None},
        {"prompt_tokens": 21, "total_tokens": 28, "completion_tokens": 7, "prompt_tokens_details": None},
        {"logprobs": None, "stop_reason": None, "token_ids": None},
        service_tier=None,
        prompt_logprobs=None,
        kv_transfer_params=None,
    ),
    28,
    (
        refusal(400, TOO_LONG, error={"message": "...", "type": "BadRequestError", "param": None, "code": 400}),
        refusal(
            404,
            "The model `x` does not exist.",
            error={"message": "...", "type": "NotFoundError", "param": "model", "code": 404},
        ),
        # before 0.10 the members stood at the top
        refusal(400, TOO_LONG, object="error", message="...", type="BadRequestError", param=None, code=400),
    ),
    streams.VLLM_CHAT,
    streams.VLLM_ERROR,
    "EngineCore died",
)

OLLAMA = Says(
    "ollama",
    "ollama/ollama: openai/openai.go (ChatCompletion, NewError), middleware/openai.go",
    CHAT,
    chat({}, used(26, 11), {}, system_fingerprint="fp_ollama"),
    37,
    (
        refusal(
            404,
            'model "x" not found, try pulling it first',
            error={"message": "...", "type": "not_found_error", "param": None, "code": None},
        ),
        # what its handlers say where no middleware puts it into OpenAI's words
        refusal(400, "invalid model name", error="..."),
    ),
    streams.OLLAMA_CHAT,
)

TGI = Says(
    "tgi",
    "huggingface/text-generation-inference: router/src/lib.rs (ChatCompletion, ErrorResponse), server.rs",
    CHAT,
    chat({}, used(14, 3), {"logprobs": None, "finish_reason": "length"}, system_fingerprint="3.3.4-native"),
    17,
    (
        refusal(
            422,
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 and 10",
            error="...",
            error_type="validation",
        ),
        refusal(
            424,
            "Request failed during generation: CUDA out of memory",
            error="...",
            error_type="generation",
        ),
        refusal(429, "Model is overloaded", error="...", error_type="overloaded"),
    ),
    streams.TGI_USAGE_CHUNK,
    streams.TGI_ERROR,
    "Request failed during generation: CUDA out of memory",
)

TEI = Says(
    "tei",
    "huggingface/text-embeddings-inference: router/src/http/types.rs (OpenAICompatResponse, OpenAICompatErrorResponse)",
    EMBEDDINGS,
    b'{"object":"list","data":[{"object":"embedding","embedding":[0.0045,-0.0123],"index":0}],'
    b'"model":"thenlper/gte-base","usage":{"prompt_tokens":5,"total_tokens":5}}',
    5,
    (
        refusal(413, "batch size 64 > maximum allowed batch size 32", message="...", code=413, type="validation"),
        refusal(429, "Model is overloaded", message="...", code=429, type="overloaded"),
    ),
)

LMSTUDIO = Says(
    "lmstudio",
    "lmstudio.ai/docs/developer/openai-compat; lmstudio-ai/lmstudio-bug-tracker (errors that are texts)",
    CHAT,
    chat({"tool_calls": []}, used(31, 27), {"logprobs": None}, stats={}, system_fingerprint="llama-3.3-70b"),
    58,
    (
        refusal(
            400,
            "Trying to keep the first 6547 tokens when context the overflows.",
            error="...",
        ),
        refusal(
            404,
            'Model "x" not found.',
            error={"message": "...", "type": "invalid_request_error", "param": "model", "code": "model_not_found"},
        ),
    ),
    streams.LM_STUDIO,
    broken(
        "lm-studio-error",
        "lmstudio-ai/lmstudio-bug-tracker: what it cannot do is said within a stream of status 200",
        b'event: error\ndata: {"error":{"message":"Context size has been exceeded."},'
        b'"message":"Context size has been exceeded."}\n\n',
    ),
    "Context size has been exceeded.",
)

LLAMACPP = Says(
    "llamacpp",
    "ggml-org/llama.cpp: tools/server/README.md, server-common.cpp (format_error_response)",
    CHAT,
    chat(
        {"reasoning_content": "Weirs."},
        used(85, 17, prompt_tokens_details={"cached_tokens": 0}),
        {},
        system_fingerprint="b8681-Debian",
        timings={"prompt_n": 85, "predicted_n": 17},
    ),
    102,
    (
        refusal(
            400,
            "request (5120 tokens) exceeds the available context size (4096 tokens), try increasing it",
            error={
                "code": 400,
                "message": "...",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 5120,
                "n_ctx": 4096,
            },
        ),
        refusal(404, "File Not Found", error={"code": 404, "message": "...", "type": "not_found_error"}),
    ),
    streams.LLAMA_CPP_TIMINGS,
    broken(
        "llama-cpp-error",
        "ggml-org/llama.cpp: tools/server/server-context.cpp (an error result as an event)",
        b'data: {"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}\n\n',
    ),
    "Context size has been exceeded.",
)

SERVERS = (VLLM, OLLAMA, TGI, TEI, LMSTUDIO, LLAMACPP)
