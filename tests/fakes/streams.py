"""Event streams as the engines write them: what they say on the wire, and what has to be read from it.

None is a recording. Each is written after the engine's documentation or source, which `source` names; the texts,
ids and numbers are ours. Key order, spaces, line ends and the small oddities (usage with or without `choices`, usage
of zero in every chunk, `data:` without a space, errors that are strings) are theirs, because that breaks a relay.

The framing is WHATWG's server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html, 9.2.5 and
9.2.6): a line ends with LF, CR or CRLF, a blank line ends an event, a line that begins with a colon is a comment, one
space after the field's colon is dropped, and one byte order mark may stand at the very beginning.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

DONE = b"data: [DONE]\n\n"
BOM = b"\xef\xbb\xbf"
MEGABYTE = 1 << 20

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Stream:
    """One answer of an engine, and what a scanner must have seen when it is over.

    `usage` is (input, output, cached, reasoning) in tokens. `usage_chunk` are the exact bytes, blank line included, of
    the event that holds usage and no choices; a client that did not ask for usage gets `stripped`.
    """

    name: str
    source: str
    body: bytes
    usage: tuple[int, int, int, int] | None
    finished: bool
    error: bool = False
    usage_chunk: bytes | None = None

    @property
    def stripped(self) -> bytes:
        return self.body if self.usage_chunk is None else self.body.replace(self.usage_chunk, b"")


def events_of(body: bytes) -> list[bytes]:
    """The data of each event, as a client reads it that follows the specification: an unfinished event is none."""
    events: list[bytes] = []
    data: list[bytes] = []
    lines = _LINE_END.split(body.removeprefix(BOM))
    for line in lines[:-1]:  # what stands after the last line end is no line yet
        if not line:
            if data:
                events.append(b"\n".join(data))
            data = []
        elif (field := line.partition(b":"))[0] == b"data":
            data.append(field[2].removeprefix(b" "))
    return events


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _data(*values: Any) -> bytes:
    """Each value as an event in the usual form: `data: `, compact JSON, blank line."""
    return b"".join(b"data: " + _json(value) + b"\n\n" for value in values)


def _stream(
    name: str,
    source: str,
    before: bytes,
    usage_chunk: bytes | None,
    after: bytes,
    *,
    usage: tuple[int, int, int, int] | None,
    finished: bool = True,
    error: bool = False,
) -> Stream:
    body = before + (usage_chunk or b"") + after
    return Stream(name, source, body, usage, finished=finished, error=error, usage_chunk=usage_chunk)


# -- vLLM --------------------------------------------------------------------------------------------------------------
# vllm/entrypoints/openai/chat_completion/serving.py (chat_completion_stream_generator) and protocol.py: pydantic's
# model_dump_json(exclude_unset=True), so a key is there when it was set, in the order of the class. `stop_reason` is
# set on the last chunk of a choice only, `usage` counts prompt, total, completion. [DONE] comes after everything, also
# after an error.

_VLLM = "vllm-project/vllm: vllm/entrypoints/openai/chat_completion/serving.py, protocol.py"


def _vllm(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-8d1f", "object": "chat.completion.chunk", "created": 1760000000, "model": "llama-3.3-70b"}
    return {**head, "choices": choices, **more}


def _delta(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish, **more}


def _vllm_delta(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> dict[str, Any]:
    end = {} if finish is None else {"stop_reason": None}
    return _vllm([_delta(delta, finish, index, **end)])


def _vllm_usage(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion, **more}


_VLLM_START = _vllm_delta({"role": "assistant", "content": ""})
_VLLM_STOP = _vllm_delta({"content": ""}, "stop")

VLLM_CHAT = _stream(
    "vllm-chat",
    _VLLM,
    _data(
        _VLLM_START,
        _vllm_delta({"content": "A weir"}),
        _vllm_delta({"content": " holds"}),
        _vllm_delta({"content": " a river."}),
        _VLLM_STOP,
    ),
    _data(_vllm([], usage=_vllm_usage(21, 7, prompt_tokens_details={"cached_tokens": 16}))),
    DONE,
    usage=(21, 7, 16, 0),
)


def _vllm_tool(index: int, name: str | None, arguments: str, call: str = "") -> dict[str, Any]:
    if name is None:
        return _vllm_delta({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})
    function = {"name": name, "arguments": arguments}
    return _vllm_delta({"tool_calls": [{"id": call, "type": "function", "index": index, "function": function}]})


VLLM_PARALLEL_TOOLS = _stream(
    "vllm-parallel-tools",
    _VLLM,
    _data(
        _VLLM_START,
        _vllm_tool(0, "level", "", "chatcmpl-tool-0a"),
        _vllm_tool(0, None, '{"river": "'),
        _vllm_tool(0, None, 'Elbe"}'),
        _vllm_tool(1, "level", "", "chatcmpl-tool-1b"),
        _vllm_tool(1, None, '{"river": "Isar"}'),
        _vllm_delta({}, "tool_calls"),
    ),
    _data(_vllm([], usage=_vllm_usage(188, 41))),
    DONE,
    usage=(188, 41, 0, 0),
)

VLLM_REASONING = _stream(
    "vllm-reasoning",
    _VLLM + "; docs.vllm.ai, features/reasoning_outputs (`reasoning`, before 0.12 `reasoning_content`)",
    _data(
        _VLLM_START,
        _vllm_delta({"reasoning": "The river", "reasoning_content": "The river"}),
        _vllm_delta({"reasoning": " rises.", "reasoning_content": " rises."}),
        _vllm_delta({"content": "Open it."}),
        _VLLM_STOP,
    ),
    _data(_vllm([], usage=_vllm_usage(33, 19, completion_tokens_details={"reasoning_tokens": 12}))),
    DONE,
    usage=(33, 19, 0, 12),
)


def _vllm_logprobs(token: str, logprob: float, other: str) -> dict[str, Any]:
    top = [{"token": word, "logprob": -0.25, "bytes": list(word.encode())} for word in (token, other)]
    content = {"token": token, "logprob": logprob, "bytes": list(token.encode()), "top_logprobs": top}
    return _vllm([{**_delta({"content": token}), "logprobs": {"content": [content]}}])


VLLM_LOGPROBS = _stream(
    "vllm-logprobs",
    _VLLM + " (ChatCompletionLogProbs; -9999.0 stands for minus infinity)",
    _data(
        _VLLM_START,
        _vllm_logprobs("High", -0.012, "Low"),
        _vllm_logprobs(' "{usage}"', -9999.0, "\n\n"),
        _VLLM_STOP,
    ),
    _data(_vllm([], usage=_vllm_usage(9, 3))),
    DONE,
    usage=(9, 3, 0, 0),
)

VLLM_TWO_CHOICES = _stream(
    "vllm-two-choices",
    _VLLM + " (n=2: the choices alternate, usage is their sum)",
    _data(
        _VLLM_START,
        _vllm_delta({"role": "assistant", "content": ""}, index=1),
        _vllm_delta({"content": "up"}, index=0),
        _vllm_delta({"content": "down"}, index=1),
        _vllm_delta({"content": "stream"}, index=1),
        _vllm_delta({"content": ""}, "length", index=1),
        _vllm_delta({"content": "hill"}, index=0),
        _vllm_delta({"content": ""}, "stop", index=0),
    ),
    _data(_vllm([], usage=_vllm_usage(12, 6))),
    DONE,
    usage=(12, 6, 0, 0),
)


def _vllm_running(text: str, completion: int, finish: str | None = None) -> dict[str, Any]:
    return {**_vllm_delta({"content": text}, finish), "usage": _vllm_usage(15, completion)}


_VLLM_RUNNING = _data(
    {**_VLLM_START, "usage": _vllm_usage(15, 0)},
    _vllm_running("slow", 1),
    _vllm_running(" water", 3),
    _vllm_running("", 4, "stop"),
)

VLLM_CONTINUOUS_USAGE = _stream(
    "vllm-continuous-usage",
    _VLLM + " (stream_options.continuous_usage_stats: running totals beside the choices, and one chunk of their own)",
    _VLLM_RUNNING,
    _data(_vllm([], usage=_vllm_usage(15, 5))),
    DONE,
    usage=(15, 5, 0, 0),
)

VLLM_CONTINUOUS_USAGE_CUT = _stream(
    "vllm-continuous-usage-cut",
    _VLLM + " (the same, and the engine dies: the last running total counts)",
    _VLLM_RUNNING,
    None,
    b"",
    usage=(15, 4, 0, 0),
    finished=False,
)

VLLM_ERROR = _stream(
    "vllm-error",
    "vllm-project/vllm: create_streaming_error_response; the generator sends [DONE] after its error",
    _data(
        _VLLM_START,
        _vllm_delta({"content": "A"}),
        {"error": {"message": "EngineCore died", "type": "InternalServerError", "param": None, "code": 500}},
    ),
    None,
    DONE,
    usage=None,
    error=True,
)


def _vllm_text(text: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": None}
    head = {"id": "cmpl-5c", "object": "text_completion", "created": 1760000000, "model": "llama-3.3-70b"}
    return {**head, "choices": [{**choice, "token_ids": None}], "usage": None, **more}


VLLM_COMPLETIONS = _stream(
    "vllm-completions",
    "vllm-project/vllm: vllm/entrypoints/openai/completion/serving.py (unset keys are written as null here)",
    _data(_vllm_text(" river"), _vllm_text(" bed"), _vllm_text("", "length")),
    _data({**_vllm_text(""), "choices": [], "usage": _vllm_usage(5, 3)}),
    DONE,
    usage=(5, 3, 0, 0),
)

# -- OpenAI ------------------------------------------------------------------------------------------------------------
# OpenAI's API description, CreateChatCompletionStreamResponse: with include_usage every chunk has `usage`, null but for
# the last; `obfuscation` pads the deltas; the usage chunk has empty `choices`.

_OPENAI = "OpenAI API description: CreateChatCompletionStreamResponse, CompletionUsage"


def _openai(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-B9",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "gpt-5-mini-2025-08-07",
        "service_tier": "default",
        "system_fingerprint": "fp_50",
        "choices": choices,
        **more,
    }


def _openai_delta(delta: dict[str, Any], padding: str, finish: str | None = None) -> dict[str, Any]:
    return _openai([_delta(delta, finish)], usage=None, obfuscation=padding)


OPENAI_DETAILS = _stream(
    "openai-usage-details",
    _OPENAI,
    _data(
        _openai_delta({"role": "assistant", "content": "", "refusal": None}, "r4N7vQ2m"),
        _openai_delta({"content": "Level"}, "p9K3x"),
        _openai_delta({"content": "!"}, "T6wLq0aZ1"),
        _openai_delta({}, "", "stop"),
    ),
    _data(
        _openai(
            [],
            usage={
                "prompt_tokens": 1117,
                "completion_tokens": 86,
                "total_tokens": 1203,
                "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
                "completion_tokens_details": {
                    "reasoning_tokens": 64,
                    "audio_tokens": 0,
                    "accepted_prediction_tokens": 0,
                    "rejected_prediction_tokens": 0,
                },
            },
            obfuscation="",
        )
    ),
    DONE,
    usage=(1117, 86, 1024, 64),
)

OPENAI_NO_USAGE = _stream(
    "openai-no-usage",
    _OPENAI + " (no stream_options: the key is not there)",
    _data(
        _openai([_delta({"role": "assistant", "content": "", "refusal": None})]),
        _openai([_delta({"content": "Yes."})]),
        _openai([_delta({}, "content_filter")]),
    ),
    None,
    DONE,
    usage=None,
)

OPENAI_CHOICES_TOGETHER = _stream(
    "openai-choices-together",
    _OPENAI + " (`choices` 'can contain more than one elements if n is greater than 1')",
    _data(
        _openai(
            [_delta({"role": "assistant", "content": "a"}), _delta({"role": "assistant", "content": "b"}, index=1)]
        ),
        _openai([_delta({"content": "c"}), _delta({}, "length", index=1)]),
    ),
    _data(_openai([], usage={"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11})),
    DONE,
    usage=(8, 3, 0, 0),
)


def _openai_text(text: str, finish: str | None = None) -> dict[str, Any]:
    return {
        "id": "cmpl-7i",
        "object": "text_completion",
        "created": 1760000000,
        "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": finish}],
        "model": "gpt-3.5-turbo-instruct",
        "usage": None,
    }


OPENAI_COMPLETIONS = _stream(
    "openai-completions",
    "OpenAI API description: CreateCompletionResponse (legacy)",
    _data(_openai_text("\n\nThis"), _openai_text(" is"), _openai_text(" a test"), _openai_text("", "length")),
    _data(
        {**_openai_text(""), "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}}
    ),
    DONE,
    usage=(5, 7, 0, 0),
)

OPENAI_ERROR = _stream(
    "openai-error",
    "openai/openai-python: src/openai/_streaming.py (an event whose data has a truthy `error` raises APIError)",
    _data(
        _openai([_delta({"role": "assistant", "content": "Le"})]),
        {
            "error": {
                "message": "The server had an error while processing your request. Sorry about that!",
                "type": "server_error",
                "param": None,
                "code": None,
            }
        },
    ),
    None,
    b"",
    usage=None,
    finished=False,
    error=True,
)

AZURE_CONTENT_FILTER = _stream(
    "azure-content-filter",
    "learn.microsoft.com, Azure OpenAI content streaming: annotations come in events with empty `choices` and no usage",
    _data(
        {
            "choices": [],
            "created": 0,
            "id": "",
            "model": "",
            "object": "",
            "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False}}}],
        },
        _openai_delta({"role": "assistant", "content": ""}, "x"),
        _openai([{**_delta({"content": "Hm"}), "content_filter_results": {}}], usage=None),
        _openai_delta({}, "", "stop"),
    ),
    _data(_openai([], usage={"completion_tokens": 2, "prompt_tokens": 6, "total_tokens": 8})),
    DONE,
    usage=(6, 2, 0, 0),
)

# -- Ollama ------------------------------------------------------------------------------------------------------------
# ollama/ollama: openai/openai.go and middleware/openai.go. Each delta has role and content; a tool call comes whole;
# the usage chunk is the last one with empty choices. /v1/completions writes a usage of zeros into all before it.

_OLLAMA = "ollama/ollama: openai/openai.go, middleware/openai.go"


def _ollama(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-412", "object": "chat.completion.chunk", "created": 1760000000, "model": "qwen3:8b"}
    return {**head, "system_fingerprint": "fp_ollama", "choices": choices, **more}


def _ollama_delta(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return _ollama([{"index": 0, "delta": {"role": "assistant", "content": "", **delta}, "finish_reason": finish}])


def _ollama_usage(prompt: int, completion: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


OLLAMA_CHAT = _stream(
    "ollama-chat",
    _OLLAMA,
    _data(
        _ollama_delta(reasoning="Hm."),
        _ollama_delta(content="A"),
        _ollama_delta(content=" weir"),
        _ollama_delta("stop"),
    ),
    _data(_ollama([], usage=_ollama_usage(26, 11))),
    DONE,
    usage=(26, 11, 0, 0),
)


def _ollama_call(index: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": f"call_{index}", "index": index, "type": "function", "function": function}


OLLAMA_TOOLS = _stream(
    "ollama-tools",
    _OLLAMA + " (ToToolCalls)",
    _data(
        _ollama_delta(tool_calls=[_ollama_call(0, "error", {"river": "Elbe"}), _ollama_call(1, "usage", {})]),
        _ollama_delta("tool_calls"),
    ),
    _data(_ollama([], usage=_ollama_usage(171, 38))),
    DONE,
    usage=(171, 38, 0, 0),
)


def _ollama_text(text: str, finish: str | None = None) -> dict[str, Any]:
    return {
        "id": "cmpl-99",
        "object": "text_completion",
        "created": 1760000000,
        "choices": [{"text": text, "index": 0, "finish_reason": finish}],
        "model": "qwen3:8b",
        "system_fingerprint": "fp_ollama",
        "usage": _ollama_usage(0, 0),
    }


OLLAMA_COMPLETIONS = _stream(
    "ollama-completions-zeros",
    _OLLAMA + " (CompleteWriter: include_usage puts zeros into every chunk but the last)",
    _data(_ollama_text("sluice"), _ollama_text(" gate"), _ollama_text("", "stop")),
    _data({**_ollama_text("", "stop"), "choices": [], "usage": _ollama_usage(4, 3)}),
    DONE,
    usage=(4, 3, 0, 0),
)

# -- Hugging Face TGI --------------------------------------------------------------------------------------------------
# huggingface/text-generation-inference: router/src/server.rs (2.x), router/src/chat.rs (3.x). axum before 0.8 writes
# `data:` without a space and a bare `:` to keep the connection; an error is a string beside `error_type`.

_TGI = "huggingface/text-generation-inference: router/src/server.rs"


def _tgi(*chunks: dict[str, Any]) -> bytes:
    return b"".join(b"data:" + _json(chunk) + b"\n\n" for chunk in chunks)


def _tgi_chunk(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    head = {"object": "chat.completion.chunk", "id": "", "created": 1760000000, "model": "HuggingFaceH4/zephyr-7b-beta"}
    return {**head, "system_fingerprint": "2.3.1-sha-a094729", "choices": choices, **more}


def _tgi_delta(text: str, finish: str | None = None) -> dict[str, Any]:
    return _tgi_chunk([_delta({"role": "assistant", "content": text}, finish)])


_TGI_USAGE = {"prompt_tokens": 14, "completion_tokens": 3, "total_tokens": 17}

TGI_USAGE_WITH_FINISH = _stream(
    "tgi-usage-with-finish",
    _TGI + " (create_event_from_stream_token: usage stands in the last content chunk, beside finish_reason)",
    _tgi({**_tgi_delta("I"), "usage": None})
    + b":\n\n"
    + _tgi({**_tgi_delta("'m"), "usage": None}, {**_tgi_delta(" on", "length"), "usage": _TGI_USAGE}),
    None,
    b"data:[DONE]\n\n",
    usage=(14, 3, 0, 0),
)

TGI_USAGE_CHUNK = _stream(
    "tgi-usage-chunk",
    "huggingface/text-generation-inference: router/src/chat.rs (3.x: an empty-choices chunk of its own)",
    _tgi(_tgi_delta("I"), _tgi_delta("'m"), _tgi_delta(" on", "length")),
    _tgi(_tgi_chunk([], usage=_TGI_USAGE)),
    b"data:[DONE]\n\n",
    usage=(14, 3, 0, 0),
)


def _tgi_text(text: str, finish: str = "", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    head = {"object": "text_completion", "id": "", "created": 1760000000, "choices": [choice]}
    return {**head, "model": "HuggingFaceH4/zephyr-7b-beta", "system_fingerprint": "2.3.1-native", **more}


TGI_COMPLETIONS = _stream(
    "tgi-completions",
    _TGI + " (Completion::Chunk has finish_reason '', Completion::Final has usage)",
    _tgi(_tgi_text("\n"), _tgi_text("Object"), _tgi_text("s", "eos_token", usage=_TGI_USAGE)),
    None,
    b"data:[DONE]\n\n",
    usage=(14, 3, 0, 0),
)

TGI_ERROR = _stream(
    "tgi-error",
    "huggingface/text-generation-inference: router/src/lib.rs (ErrorResponse), server.rs (InferError as Event)",
    _tgi(
        _tgi_delta("I"),
        {"error": "Request failed during generation: CUDA out of memory", "error_type": "generation"},
    ),
    None,
    b"data:[DONE]\n\n",
    usage=None,
    error=True,
)

# -- llama.cpp ---------------------------------------------------------------------------------------------------------
# ggml-org/llama.cpp: tools/server (to_json_oaicompat_chat_stream). `choices` come first, `timings` last; since pull
# request 15444 usage has an empty-choices chunk, before it stood in the chunk that finishes.

_LLAMA_CPP = "ggml-org/llama.cpp: tools/server/server-task.cpp, to_json_oaicompat_chat_stream"
_LLAMA_CPP_USAGE = {"completion_tokens": 17, "prompt_tokens": 85, "total_tokens": 102}
_TIMINGS = {"prompt_n": 85, "prompt_ms": 203.378, "prompt_per_second": 417.94, "predicted_n": 17, "predicted_ms": 93.6}


def _llama_cpp(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    end = {"system_fingerprint": "b6097-9515c613", "object": "chat.completion.chunk"}
    return {"choices": choices, "created": 1760000000, "id": "chatcmpl-X6", "model": "gpt-oss", **end, **more}


def _llama_cpp_delta(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return _llama_cpp([{"finish_reason": finish, "index": 0, "delta": delta}], **more)


_LLAMA_CPP_TEXT = _data(
    _llama_cpp_delta({"role": "assistant", "content": None}),
    _llama_cpp_delta({"reasoning_content": "Flow"}),
    _llama_cpp_delta({"content": "Sluice"}),
)

LLAMA_CPP_TIMINGS = _stream(
    "llama-cpp-timings",
    _LLAMA_CPP,
    _LLAMA_CPP_TEXT + _data(_llama_cpp_delta({}, "stop")),
    _data(_llama_cpp([], usage=_LLAMA_CPP_USAGE, timings=_TIMINGS)),
    DONE,
    usage=(85, 17, 0, 0),
)

LLAMA_CPP_USAGE_WITH_FINISH = _stream(
    "llama-cpp-usage-with-finish",
    _LLAMA_CPP + ", before pull request 15444",
    _LLAMA_CPP_TEXT + _data(_llama_cpp_delta({}, "stop", usage=_LLAMA_CPP_USAGE, timings=_TIMINGS)),
    None,
    DONE,
    usage=(85, 17, 0, 0),
)

# -- LM Studio ---------------------------------------------------------------------------------------------------------
# lmstudio-ai/lmstudio-bug-tracker issue 676 shows its chunks. JavaScript writes half of a surrogate pair as an escape
# (JSON.stringify since ES2019): legal JSON, and no legal text.

LM_STUDIO = _stream(
    "lm-studio",
    "lmstudio-ai/lmstudio-bug-tracker#676 (chunks); ECMA-262 JSON.stringify (half surrogates as escapes)",
    _data(_vllm([_delta({"role": "assistant", "content": "\n"})]))
    + b'data: {"id":"chatcmpl-um3b2l9t12","object":"chat.completion.chunk","created":1760000000,"model":"gemma-2-2b",'
    b'"system_fingerprint":"gemma-2-2b","choices":[{"index":0,"delta":{"content":"\\ud83c"},"logprobs":null,'
    b'"finish_reason":null}]}\n\n' + _data(_vllm([_delta({}, "stop")])),
    _data({**_vllm([]), "usage": {"prompt_tokens": 31, "completion_tokens": 27, "total_tokens": 58}}),
    DONE,
    usage=(31, 27, 0, 0),
)

# -- gateways ----------------------------------------------------------------------------------------------------------


def _routed(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    head = {"id": "gen-17", "provider": "Groq", "model": "meta-llama/llama-3.3-70b-instruct"}
    return {**head, "object": "chat.completion.chunk", "created": 1760000000, "choices": choices, **more}


def _routed_delta(text: str, finish: str | None = None) -> dict[str, Any]:
    delta = {"role": "assistant", "content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "native_finish_reason": finish, "logprobs": None}
    return _routed([choice])


OPENROUTER = _stream(
    "openrouter-comments",
    "openrouter.ai/docs/api-reference/streaming (comments against idle timeouts, usage last with empty `choices`)",
    b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n"
    + _data(_routed_delta("Down"))
    + b": OPENROUTER PROCESSING\n\n"
    + _data(_routed_delta("stream"), _routed_delta("", "stop")),
    _data(
        _routed(
            [],
            usage={
                "prompt_tokens": 10,
                "completion_tokens": 4,
                "total_tokens": 14,
                "cost": 0.00014,
                "cost_details": {"upstream_inference_cost": None},
                "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": None},
                "completion_tokens_details": {"reasoning_tokens": None},
            },
        )
    ),
    DONE,
    usage=(10, 4, 2, 0),
)

OPENROUTER_ERROR = _stream(
    "openrouter-error",
    "openrouter.ai/docs/api-reference/streaming (mid-stream: `error` at the top, a choice with finish_reason 'error')",
    _data(
        _routed_delta("Down"),
        {
            **_routed([{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]),
            "error": {"code": "server_error", "message": "Provider disconnected"},
        },
    ),
    None,
    b"",
    usage=None,
    finished=False,
    error=True,
)

DEEPSEEK = _stream(
    "deepseek-keep-alive",
    "api-docs.deepseek.com: rate limit (`: keep-alive` comments), create-chat-completion (usage of the cache)",
    b": keep-alive\n\n: keep-alive\n\n"
    + _data(_openai([_delta({"role": "assistant", "content": None, "reasoning_content": "So"})]))
    + _data(
        _openai(
            [_delta({"content": "", "reasoning_content": None}, "stop")],
            usage={
                "prompt_tokens": 320,
                "completion_tokens": 45,
                "total_tokens": 365,
                "prompt_tokens_details": {"cached_tokens": 256},
                "completion_tokens_details": {"reasoning_tokens": 30},
                "prompt_cache_hit_tokens": 256,
                "prompt_cache_miss_tokens": 64,
            },
        )
    ),
    None,
    DONE,
    usage=(320, 45, 256, 30),
)

_GROQ_USAGE = {"queue_time": 0.02, "prompt_tokens": 18, "prompt_time": 0.1, "completion_tokens": 2, "total_tokens": 20}

GROQ = _stream(
    "groq-nested-usage",
    "console.groq.com/docs/api-reference (usage also inside `x_groq`)",
    _data(
        _openai([_delta({"role": "assistant", "content": "Ja"})], x_groq={"id": "req_01"}),
        _openai([_delta({}, "stop")], x_groq={"id": "req_01", "usage": _GROQ_USAGE}),
    ),
    _data(_openai([], usage=_GROQ_USAGE, x_groq={"id": "req_01", "usage": _GROQ_USAGE})),
    DONE,
    usage=(18, 2, 0, 0),
)

# -- the frame: line ends, comments, fields ----------------------------------------------------------------------------

_SSE = "WHATWG server-sent events, 9.2.5 Parsing and 9.2.6 Interpreting an event stream"
_PLAIN = _data(_VLLM_START, _vllm_delta({"content": "Flow"}), _VLLM_STOP)
_PLAIN_USAGE = _data(_vllm([], usage=_vllm_usage(6, 2)))


def _with_ends(lines: bytes, end: bytes) -> bytes:
    return lines.replace(b"\n", end)


CRLF = _stream(
    "crlf",
    _SSE + " (also what sse-starlette writes by default)",
    _with_ends(b": ping - 2026-01-01 00:00:00\n\n" + _PLAIN, b"\r\n"),
    _with_ends(_PLAIN_USAGE, b"\r\n"),
    _with_ends(DONE, b"\r\n"),
    usage=(6, 2, 0, 0),
)

CR_ONLY = _stream(
    "cr-only",
    _SSE,
    _with_ends(_PLAIN, b"\r"),
    _with_ends(_PLAIN_USAGE, b"\r"),
    _with_ends(DONE, b"\r"),
    usage=(6, 2, 0, 0),
)

MIXED_ENDS = _stream(
    "mixed-line-ends",
    _SSE + " (a proxy that joins streams of two origins)",
    _with_ends(_data(_VLLM_START), b"\r\n") + _with_ends(_data(_VLLM_STOP), b"\n") + b": x\r\n\n",
    _PLAIN_USAGE[:-1] + b"\r\n",
    _with_ends(DONE, b"\r\n"),
    usage=(6, 2, 0, 0),
)

BYTE_ORDER_MARK = _stream("byte-order-mark", _SSE, BOM + _PLAIN, _PLAIN_USAGE, DONE, usage=(6, 2, 0, 0))

ALL_FIELDS = _stream(
    "all-fields",
    _SSE + " (comments, event, id, retry, unknown fields, a field without a colon)",
    b"retry: 3000\n\n: hello\nevent: message\nid: 1\n"
    + _data(_VLLM_START)
    + b"data\n\nid\nx-vendor: data: [DONE]\n:data: [DONE]\n"
    + _data(_vllm_delta({"content": "Flow"}))
    + b"event: message\n"
    + _data(_VLLM_STOP),
    b"event: message\nid: 4\n: the sum\n" + _PLAIN_USAGE,
    b"id: 5\n" + DONE,
    usage=(6, 2, 0, 0),
)

NO_SPACE = _stream(
    "data-without-space",
    _SSE + " (the space is optional)",
    _PLAIN.replace(b"data: ", b"data:"),
    _PLAIN_USAGE.replace(b"data: ", b"data:"),
    b"data:[DONE]\n\n",
    usage=(6, 2, 0, 0),
)


def _lines(value: Any) -> bytes:
    """Indented JSON, one `data:` field a line."""
    text = json.dumps(value, indent=1).encode()
    return b"".join(b"data: " + line + b"\n" for line in text.split(b"\n")) + b"\n"


MULTI_LINE = _stream(
    "multi-line-data",
    _SSE + " (several data fields of one event are joined by a newline)",
    _lines(_VLLM_START) + _lines(_VLLM_STOP),
    _lines(_vllm([], usage=_vllm_usage(6, 2))),
    DONE,
    usage=(6, 2, 0, 0),
)

DONE_WITHOUT_BLANK_LINE = _stream(
    "done-without-blank-line",
    "servers that print `data: [DONE]` last and close; the end was said, though the event is not finished",
    _PLAIN,
    _PLAIN_USAGE,
    b"data: [DONE]",
    usage=(6, 2, 0, 0),
)

DONE_WITH_ONE_NEWLINE = _stream(
    "done-with-one-newline", DONE_WITHOUT_BLANK_LINE.source, _PLAIN, _PLAIN_USAGE, b"data: [DONE]\n", usage=(6, 2, 0, 0)
)

ONLY_DONE = _stream("only-done", "an answer of no tokens", b"", None, DONE, usage=None)
NOTHING = _stream("nothing", "an upstream that closes at once", b"", None, b"", usage=None, finished=False)

# -- the data: spaces, key order, text that looks like something else --------------------------------------------------

_JSON = "RFC 8259: JSON's insignificant whitespace, unordered names, escapes"

JSON_SPACES = _stream(
    "json-spaces",
    _JSON + " (json.dumps as it comes, and more spaces than that)",
    b'data: {"id": "c1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"role": "assistant", '
    b'"content": "Flow"}, "finish_reason": null}], "usage": null}\n\n'
    b'data: { "id" : "c1" , "choices" : [ { "index" : 0 , "delta" : { } , "finish_reason" : "stop" } ] , '
    b'"usage" : null }\n\n',
    b'data: \t{ "id" : "c1" , "choices" : [ ] ,\t"usage" : { "prompt_tokens" : 6 , "completion_tokens" : 2 , '
    b'"total_tokens" : 8 , "prompt_tokens_details" : { "cached_tokens" : 1 } } } \n\n',
    DONE,
    usage=(6, 2, 1, 0),
)

USAGE_KEY_FIRST = _stream(
    "usage-key-first",
    _JSON + " (a server that sorts or shuffles its keys)",
    _data({"usage": None, "choices": [_delta({"content": "Flow"}, "stop")], "id": "c1"}),
    _data({"usage": {"total_tokens": 8, "completion_tokens": 2, "prompt_tokens": 6}, "id": "c1", "choices": []}),
    DONE,
    usage=(6, 2, 0, 0),
)

LOOKALIKE_USAGE = _stream(
    "lookalike-usage",
    "a model that was asked about OpenAI's wire format",
    _data(
        _VLLM_START,
        _vllm_delta({"content": '"usage":{"prompt_tokens":999,"completion_tokens":999}'}),
        _vllm_delta({"content": '{"choices":[],"usage":{"prompt_tokens":999,"completion_tokens":999}}'}),
        _vllm_delta({"content": 'data: {"choices":[],"usage":{"prompt_tokens":999}}\n\n'}),
        _vllm_delta({"content": "usage"}),
        _vllm_delta({"content": '\\"usage\\":{\\"prompt_tokens\\":999}'}),
        _VLLM_STOP,
    ),
    _data(_vllm([], usage=_vllm_usage(40, 30))),
    DONE,
    usage=(40, 30, 0, 0),
)

LOOKALIKE_USAGE_ONLY = _stream(
    "lookalike-usage-only",
    "the same, from an engine that reports no usage",
    _data(
        _vllm_delta({"content": '{"choices":[],"usage":{"prompt_tokens":999,"completion_tokens":999}}'}),
        _vllm_tool(0, "report", '{"choices":[],"usage":{"prompt_tokens":999}}', "call_1"),
        _vllm_delta({}, "tool_calls"),
    ),
    None,
    DONE,
    usage=None,
)

LOOKALIKE_DONE = _stream(
    "lookalike-done",
    "a model that writes an event stream",
    _data(
        _VLLM_START,
        _vllm_delta({"content": "data: [DONE]"}),
        _vllm_delta({"content": "\n\ndata: [DONE]\n\n"}),
        _vllm_delta({"content": "[DONE]"}),
    ),
    None,
    b"",
    usage=None,
    finished=False,
)

LOOKALIKE_ERROR = _stream(
    "lookalike-error",
    "a model that explains an error, a tool of that name, and a server that writes its empty `error` field",
    _data(
        _VLLM_START,
        _vllm_delta({"content": '{"error":{"message":"no"}}'}),
        _vllm_delta({"content": "error"}),
        _vllm_tool(0, "error", '{"error":{"message":"no"}}', "call_1"),
        _vllm([_delta({}, "tool_calls")], error=None),
    ),
    _data(_vllm([], usage=_vllm_usage(11, 9), error=None)),
    DONE,
    usage=(11, 9, 0, 0),
)

UNICODE = _stream(
    "unicode",
    _JSON + " (raw UTF-8: two to four bytes, joined emoji, and what other parsers take for a line end)",
    _data(
        _VLLM_START,
        _vllm_delta({"content": "\u00fc\u6d41\u308c \U0001f30a"}),
        _vllm_delta({"content": "\U0001f469\u200d\U0001f4bb e\u0301"}),
        _vllm_delta({"content": "a\u2028b\u2029c\u0085d"}),
        _VLLM_STOP,
    ),
    _PLAIN_USAGE,
    DONE,
    usage=(6, 2, 0, 0),
)

# -- cut off -----------------------------------------------------------------------------------------------------------

_CUT = "an upstream that dies: what came is passed on, and the end is not one"

CUT_BEFORE_DONE = _stream("cut-before-done", _CUT, _PLAIN, _PLAIN_USAGE, b"", usage=(6, 2, 0, 0), finished=False)

CUT_WITHIN_EVENT = _stream("cut-within-event", _CUT, _PLAIN + _PLAIN[:90], None, b"", usage=None, finished=False)

CUT_WITHIN_USAGE = _stream(
    "cut-within-usage",
    _CUT,
    _PLAIN + _PLAIN_USAGE[: _PLAIN_USAGE.index(b"total")],
    None,
    b"",
    usage=None,
    finished=False,
)

CUT_WITHIN_CHARACTER = _stream(
    "cut-within-character",
    _CUT,
    _PLAIN + _data(_vllm_delta({"content": "\U0001f30a"})).partition(b"\x8c")[0],
    None,
    b"",
    usage=None,
    finished=False,
)

CUT_WITHIN_DONE = _stream("cut-within-done", _CUT, _PLAIN, None, b"data: [DON", usage=None, finished=False)

# -- large -------------------------------------------------------------------------------------------------------------

_IMAGE = "data:image/png;base64," + "iVBORw0KGgo+/A9z" * (MEGABYTE // 16)

BIG_EVENT = _stream(
    "big-event",
    "openrouter.ai/docs/features/multimodal/image-generation (delta.images holds a data URL, here of 1 MB)",
    _data(
        _routed_delta("Here:"),
        _routed([_delta({"images": [{"type": "image_url", "image_url": {"url": _IMAGE}}]})]),
        _routed_delta("", "stop"),
    ),
    _data(_routed([], usage={"prompt_tokens": 13, "completion_tokens": 1290, "total_tokens": 1303})),
    DONE,
    usage=(13, 1290, 0, 0),
)

BIG_ONLY_EVENT = _stream(
    "big-only-event",
    "an engine that streams its answer in one piece of 1 MB, with finish_reason and usage at its end",
    _data(
        {
            **_vllm([_delta({"role": "assistant", "content": 'say "usage":{"prompt_tokens":9} ' * 32768}, "length")]),
            "usage": _vllm_usage(52, 4096),
        }
    ),
    None,
    DONE,
    usage=(52, 4096, 0, 0),
)

STREAMS: tuple[Stream, ...] = (
    VLLM_CHAT,
    VLLM_PARALLEL_TOOLS,
    VLLM_REASONING,
    VLLM_LOGPROBS,
    VLLM_TWO_CHOICES,
    VLLM_CONTINUOUS_USAGE,
    VLLM_CONTINUOUS_USAGE_CUT,
    VLLM_ERROR,
    VLLM_COMPLETIONS,
    OPENAI_DETAILS,
    OPENAI_NO_USAGE,
    OPENAI_CHOICES_TOGETHER,
    OPENAI_COMPLETIONS,
    OPENAI_ERROR,
    AZURE_CONTENT_FILTER,
    OLLAMA_CHAT,
    OLLAMA_TOOLS,
    OLLAMA_COMPLETIONS,
    TGI_USAGE_WITH_FINISH,
    TGI_USAGE_CHUNK,
    TGI_COMPLETIONS,
    TGI_ERROR,
    LLAMA_CPP_TIMINGS,
    LLAMA_CPP_USAGE_WITH_FINISH,
    LM_STUDIO,
    OPENROUTER,
    OPENROUTER_ERROR,
    DEEPSEEK,
    GROQ,
    CRLF,
    CR_ONLY,
    MIXED_ENDS,
    BYTE_ORDER_MARK,
    ALL_FIELDS,
    NO_SPACE,
    MULTI_LINE,
    DONE_WITHOUT_BLANK_LINE,
    DONE_WITH_ONE_NEWLINE,
    ONLY_DONE,
    NOTHING,
    JSON_SPACES,
    USAGE_KEY_FIRST,
    LOOKALIKE_USAGE,
    LOOKALIKE_USAGE_ONLY,
    LOOKALIKE_DONE,
    LOOKALIKE_ERROR,
    UNICODE,
    CUT_BEFORE_DONE,
    CUT_WITHIN_EVENT,
    CUT_WITHIN_USAGE,
    CUT_WITHIN_CHARACTER,
    CUT_WITHIN_DONE,
    BIG_EVENT,
    BIG_ONLY_EVENT,
)
