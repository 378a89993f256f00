"""What the APIs of others say: see says.py."""

import orjson

from tests.fakes import streams
from tests.fakes.streams import Stream
from tests.unit.backend.engines.says import CHAT, MESSAGES, TOO_LONG, WORDS, Says, chat, refusal, used

OPENAI = Says(
    "openai",
    "OpenAI API description: CreateChatCompletionResponse, ErrorResponse",
    CHAT,
    chat(
        {"refusal": None, "annotations": []},
        used(19, 10, prompt_tokens_details={"cached_tokens": 0, "audio_tokens": 0}),
        {"logprobs": None},
        service_tier="default",
        system_fingerprint="fp_51e1070cf2",
    ),
    29,
    (
        refusal(
            400,
            TOO_LONG,
            error={
                "message": "...",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            },
        ),
        refusal(
            429,
            "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM).",
            error={"message": "...", "type": "tokens", "param": None, "code": "rate_limit_exceeded"},
        ),
    ),
    streams.OPENAI_DETAILS,
    streams.OPENAI_ERROR,
    "The server had an error while processing your request. Sorry about that!",
)

_SAFE = {"filtered": False, "severity": "safe"}
AZURE = Says(
    "azure",
    "learn.microsoft.com/azure/ai-foundry/openai: reference (createChatCompletionResponse), how-to/content-filters",
    CHAT,
    chat(
        {"refusal": None, "annotations": []},
        used(8, 5, completion_tokens_details={"reasoning_tokens": 0}),
        {"content_filter_results": {"hate": _SAFE, "violence": _SAFE}, "logprobs": None},
        prompt_filter_results=[{"prompt_index": 0, "content_filter_results": {"hate": _SAFE}}],
        system_fingerprint="fp_c79ab13e31",
    ),
    13,
    (
        refusal(
            400,
            "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
            error={
                "message": "...",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {
                    "code": "ResponsibleAIPolicyViolation",
                    "content_filter_result": {"hate": {"filtered": True, "severity": "high"}},
                },
            },
        ),
        refusal(
            404,
            "The API deployment for this resource does not exist.",
            error={"code": "DeploymentNotFound", "message": "..."},
        ),
        refusal(429, "Requests have exceeded token rate limit.", error={"code": "429", "message": "..."}),
    ),
    streams.AZURE_CONTENT_FILTER,
)

OPENROUTER = Says(
    "openrouter",
    "openrouter.ai/docs/api-reference: overview (NonStreamingChoice, ResponseUsage), errors",
    CHAT,
    chat(
        {"refusal": None, "reasoning": None},
        used(10, 4, cost=0.00014, is_byok=False, cost_details={"upstream_inference_cost": None}),
        {"logprobs": None, "native_finish_reason": "stop"},
        provider="DeepInfra",
    ),
    14,
    (
        refusal(
            400,
            "x is not a valid model ID",
            error={"message": "...", "code": 400},
            user_id="user_2x",
        ),
        refusal(402, "This request requires more credits.", error={"code": 402, "message": "..."}),
        refusal(
            429,
            "Provider returned error",
            error={"message": "...", "code": 429, "metadata": {"raw": "rate-limited", "provider_name": "DeepInfra"}},
        ),
    ),
    streams.OPENROUTER,
    streams.OPENROUTER_ERROR,
    "Provider disconnected",
)

_MESSAGE = {"id": "msg_01", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
_CLAUDE = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_01","type":"message","role":"assistant",'
    b'"model":"claude-sonnet-4-5","content":[],"stop_reason":null,"stop_sequence":null,'
    b'"usage":{"input_tokens":25,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
    b'event: ping\ndata: {"type": "ping"}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"A weir holds a river."}}\n\n'
)
_CLAUDE_END = (
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    b'"usage":{"output_tokens":15}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
_CLAUDE_ERROR = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
_STREAMING = "docs.anthropic.com/en/api/messages-streaming"
ANTHROPIC = Says(
    "anthropic",
    "docs.anthropic.com/en/api/messages, /errors",
    MESSAGES,
    orjson.dumps(
        {
            **_MESSAGE,
            "content": [{"type": "text", "text": WORDS}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": 25,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 15,
                "service_tier": "standard",
            },
        }
    ),
    40,
    (
        refusal(
            400,
            "prompt is too long: 250000 tokens > 200000 maximum",
            type="error",
            error={"type": "invalid_request_error", "message": "..."},
            request_id="req_011",
        ),
        refusal(
            429,
            "This request would exceed your organization's rate limit.",
            type="error",
            error={"type": "rate_limit_error", "message": "..."},
            request_id="req_012",
        ),
    ),
    Stream("anthropic", _STREAMING, _CLAUDE + _CLAUDE_END, (25, 15, 0, 0), finished=True),
    Stream("anthropic-error", _STREAMING, _CLAUDE + _CLAUDE_ERROR, None, finished=False, error=True),
    "Overloaded",
)

CLOUDS = (OPENAI, AZURE, OPENROUTER, ANTHROPIC)
