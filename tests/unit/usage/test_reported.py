"""as_usage and ending_of: one function each for every dialect's words."""

from typing import Any

import pytest

from weir.core.types import Usage
from weir.usage.reported import COUNT_MAX, as_usage, ending_of

USAGES: list[tuple[str, Any, Usage | None]] = [
    ("chat", {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, Usage(3, 4)),
    ("chat-cached", {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}, Usage(3, 0, 2)),
    ("embeddings", {"prompt_tokens": 8, "total_tokens": 8}, Usage(8, 0)),
    ("output-left-out", {"prompt_tokens": 3, "total_tokens": 7}, Usage(3, 4)),
    ("input-left-out", {"completion_tokens": 4, "total_tokens": 7}, Usage(3, 4)),
    ("total-alone", {"total_tokens": 15}, Usage(15, 0)),
    (
        "responses",
        {
            "input_tokens": 30,
            "input_tokens_details": {"cached_tokens": 16},
            "output_tokens": 12,
            "output_tokens_details": {"reasoning_tokens": 8},
        },
        Usage(30, 12, 16, 8),
    ),
    ("responses-details-null", {"input_tokens": 3, "input_tokens_details": None, "output_tokens": 4}, Usage(3, 4)),
    ("messages", {"input_tokens": 3, "output_tokens": 4}, Usage(3, 4)),
    ("messages-read", {"input_tokens": 3, "cache_read_input_tokens": 20, "output_tokens": 4}, Usage(23, 4, 20)),
    ("messages-created", {"input_tokens": 3, "cache_creation_input_tokens": 20, "output_tokens": 4}, Usage(23, 4)),
    ("messages-cache-null", {"input_tokens": 3, "cache_read_input_tokens": None, "output_tokens": 4}, Usage(3, 4)),
    ("messages-all-cached", {"input_tokens": 0, "cache_read_input_tokens": 20, "output_tokens": 0}, Usage(20, 0, 20)),
    (
        "messages-thinking",
        {"input_tokens": 3, "output_tokens": 4, "output_tokens_details": {"thinking_tokens": 2}},
        Usage(3, 4, 0, 2),
    ),
    (  # a proxy's additions to OpenAI's object are parts of its prompt, and are not counted twice
        "chat-with-cache-fields",
        {"prompt_tokens": 30, "completion_tokens": 4, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 5},
        Usage(30, 4),
    ),
    ("images", {"total_tokens": 9, "input_tokens": 5, "output_tokens": 4, "input_tokens_details": {}}, Usage(5, 4)),
    ("transcription", {"type": "tokens", "input_tokens": 14, "output_tokens": 5, "total_tokens": 19}, Usage(14, 5)),
    ("transcription-by-the-second", {"type": "duration", "seconds": 9}, None),
    ("cohere", {"input_tokens": 15, "output_tokens": 0}, Usage(15, 0)),
    ("cohere-searches", {"search_units": 1}, None),
    ("nothing", {}, None),
    ("zeros", {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
    ("negative", {"prompt_tokens": -3, "completion_tokens": 4}, Usage(0, 4)),
    ("true", {"prompt_tokens": True, "completion_tokens": 4}, Usage(0, 4)),
    ("text", {"prompt_tokens": "3", "completion_tokens": 4}, Usage(0, 4)),
    ("floats", {"prompt_tokens": 3.0, "completion_tokens": 4.0, "total_tokens": 7.0}, Usage(3, 4)),
    ("half-a-token", {"prompt_tokens": 3, "completion_tokens": 4.5, "total_tokens": 8}, Usage(3, 5)),
    ("output-a-text", {"prompt_tokens": 3, "completion_tokens": "4", "total_tokens": 7}, Usage(3, 4)),
    ("output-negative", {"prompt_tokens": 3, "completion_tokens": -1, "total_tokens": 7}, Usage(3, 4)),
    ("minus-one-without-its-sign", {"prompt_tokens": 3, "completion_tokens": 2**32 - 1}, None),
    ("overrun", {"prompt_tokens": 2**53, "completion_tokens": 4}, None),
    ("endless", {"prompt_tokens": 3, "completion_tokens": float("inf"), "total_tokens": 7}, Usage(3, 4)),
    ("most", {"prompt_tokens": 3, "completion_tokens": COUNT_MAX - 3}, Usage(3, COUNT_MAX - 3)),
    ("total-overrun", {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 2**32 - 1}, None),
    ("nanoseconds", {"prompt_tokens": 3, "completion_tokens": 4, "total_duration": 5 * 10**9}, Usage(3, 4)),
    ("null", None, None),
    ("list", [1], None),
]


@pytest.mark.parametrize(("said", "usage"), [row[1:] for row in USAGES], ids=[row[0] for row in USAGES])
def test_as_usage(said, usage):
    assert as_usage(said) == usage


ENDINGS: list[tuple[Any, str | None]] = [
    ({"choices": [{"finish_reason": "tool_calls"}]}, "tool_calls"),
    ({"choices": [{"finish_reason": "abort"}]}, "abort"),
    ({"choices": [{"finish_reason": "canary_secret_word"}], "stop_reason": "refusal"}, None),
    ({"choices": [{"finish_reason": {"odd": 1}}]}, None),
    ({"choices": ["stop"]}, None),
    ({"finish_reason": "stop"}, None),
    ({"stop_reason": "refusal"}, "refusal"),
    ({"stop_reason": "canary_secret_word"}, None),
    ({"object": "response", "status": "canary_secret_word"}, None),
    (
        {"object": "response", "status": "incomplete", "incomplete_details": {"reason": "canary_secret_word"}},
        "incomplete",
    ),
]


@pytest.mark.parametrize(("said", "reason"), ENDINGS)
def test_no_word_but_of_a_closed_list(said, reason):
    assert ending_of(said) == reason
