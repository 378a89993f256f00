"""A Responses request as a chat request: what is said in which words, what is left out, what is refused by name."""

from typing import Any

import orjson
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import TypeAdapter

from weir.core.errors import InvalidValue, MalformedBody
from weir.dialect.responses.as_chat import ResponsesAsChat
from weir.dialect.responses.request import HINTS
from weir.dialect.responses.sealed import sealed

Json = dict[str, Any]
IMAGE = "data:image/png;base64,iVBORw0KGgo="
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: patch"},
}
SHELL = {
    "type": "function",
    "name": "shell",
    "description": "Runs it.",
    "strict": False,
    "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
}
DOCS = {
    "type": "namespace",
    "name": "mcp__docs",
    "description": "The manuals.",
    "tools": [{"type": "function", "name": "search", "strict": False, "parameters": {"type": "object"}}],
}
PATCH_FUNCTION = {
    "name": "apply_patch",
    "description": "Edits files.\n\nThe input has to follow this lark grammar:\nstart: patch",
    "parameters": {
        "type": "object",
        "properties": {
            "input": {
                "type": "string",
                "description": "The tool's whole input, as plain text that follows the grammar.",
            }
        },
        "required": ["input"],
        "additionalProperties": False,
    },
}
SHELL_FUNCTION = {"name": "shell", "description": "Runs it.", "parameters": SHELL["parameters"], "strict": False}
DOCS_FUNCTION = {
    "name": "mcp__docs__search",
    "description": "mcp__docs: The manuals.",
    "parameters": {"type": "object"},
    "strict": False,
}


def message(role: str, *texts: str) -> Json:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text} for text in texts]}


def call(call_id: str, name: str, arguments: str, **more: str) -> Json:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments, **more}


def called(call_id: str, name: str, arguments: str) -> Json:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def output(call_id: str, said: Any) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": said}


def thought(**said: Any) -> Json:
    return {"type": "reasoning", "id": "rs_1", "summary": [], **said}


def chat(request: Json, **options: Any) -> Json:
    translated: Json = orjson.loads(ResponsesAsChat(orjson.dumps({"model": "m", **request}), **options).body)
    TypeAdapter(list[ChatCompletionMessageParam]).validate_python(translated["messages"])
    TypeAdapter(list[ChatCompletionToolParam]).validate_python(translated.get("tools", []))
    return translated


USER = {"role": "user", "content": "hi"}
CONVERSATIONS = [
    # what                    input                                              messages
    pytest.param({"input": "hi"}, [USER], id="a string"),
    pytest.param(
        {"input": "hi", "instructions": "Be brief."},
        [{"role": "system", "content": "Be brief."}, USER],
        id="instructions come first",
    ),
    pytest.param({"input": "hi", "instructions": ""}, [USER], id="empty instructions"),
    pytest.param({"input": [{"role": "user", "content": "hi"}]}, [USER], id="an easy message"),
    pytest.param({"input": [message("user", "hi")]}, [USER], id="one text is a string"),
    pytest.param(
        {"input": [message("user", "hi", "you")]},
        [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "you"}]}],
        id="two texts are parts",
    ),
    pytest.param(
        {
            "instructions": "A",
            "input": [
                message("developer", "B", "C"),
                message("system", "D"),
                message("user", "hi"),
                message("developer", "E"),
            ],
        },
        [{"role": "system", "content": "A\n\nB\nC\n\nD"}, USER, {"role": "system", "content": "E"}],
        id="one system message at the beginning",
    ),
    pytest.param(
        {
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_image", "image_url": IMAGE, "detail": "original"},
                        {"type": "input_text", "text": "hi"},
                    ],
                }
            ]
        },
        [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": IMAGE, "detail": "high"}},
                    {"type": "text", "text": "hi"},
                ],
            }
        ],
        id="an image",
    ),
    pytest.param(
        {
            "input": [
                {
                    "role": "user",
                    "content": [{"type": "input_image", "image_url": IMAGE, "detail": "auto", "file_id": None}],
                }
            ]
        },
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": IMAGE}}]}],
        id="an image as the SDK dumps it",
    ),
    pytest.param(
        {
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
                        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
                    ],
                }
            ]
        },
        [
            {
                "role": "user",
                "content": [
                    {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}},
                    {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
                ],
            }
        ],
        id="a file and a sound",
    ),
    pytest.param(
        {
            "input": [
                message("user", "hi"),
                {**message("assistant", "he", "llo"), "id": "msg_1", "status": "completed", "phase": "final_answer"},
                message("user", "hi"),
            ]
        },
        [USER, {"role": "assistant", "content": "hello"}, USER],
        id="the model's own words",
    ),
    pytest.param(
        {
            "input": [
                {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
                message("user", "hi"),
            ]
        },
        [{"role": "assistant", "content": "No."}, USER],
        id="the model's refusal",
    ),
    pytest.param(
        {"input": [message("assistant", "a"), message("assistant", "b")]},
        [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
        id="two messages in a row",
    ),
    pytest.param(
        {
            "input": [
                thought(content=[{"type": "reasoning_text", "text": "hm"}]),
                message("assistant", "ok"),
                call("c1", "shell", '{"command":"ls"}'),
                call("c2", "search", "{}", namespace="mcp__docs"),
                output("c1", "a"),
                output("c2", "b"),
            ]
        },
        [
            {
                "role": "assistant",
                "content": "ok",
                "reasoning_content": "hm",
                "tool_calls": [called("c1", "shell", '{"command":"ls"}'), called("c2", "mcp__docs__search", "{}")],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "a"},
            {"role": "tool", "tool_call_id": "c2", "content": "b"},
        ],
        id="one turn is one message",
    ),
    pytest.param(
        {
            "input": [
                call("c1", "f", "{}"),
                message("assistant", "meanwhile"),
                call("c2", "g", "{}"),
                message("assistant", "also"),
                output("c1", "a"),
                output("c2", "b"),
            ]
        },
        [
            {
                "role": "assistant",
                "content": "meanwhile\n\nalso",
                "tool_calls": [called("c1", "f", "{}"), called("c2", "g", "{}")],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "a"},
            {"role": "tool", "tool_call_id": "c2", "content": "b"},
        ],
        id="words between calls",
    ),
    pytest.param(
        {
            "input": [
                message("user", "go"),
                {"type": "function_call_output", "name": "goal", "namespace": "agent", "output": "reach the sea"},
            ]
        },
        [
            {"role": "user", "content": "go"},
            {"role": "user", "content": "Output of agent__goal:\nreach the sea"},
        ],
        id="an output without a call",
    ),
    pytest.param(
        {
            "input": [
                call("c1", "f", "{}"),
                thought(summary=[{"type": "summary_text", "text": "hm"}]),
                call("c2", "g", "{}"),
                output("c1", "a"),
                output("c2", "b"),
            ]
        },
        [
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "hm",
                "tool_calls": [called("c1", "f", "{}"), called("c2", "g", "{}")],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "a"},
            {"role": "tool", "tool_call_id": "c2", "content": "b"},
        ],
        id="thoughts between calls",
    ),
    pytest.param(
        {
            "input": [
                thought(summary=[{"type": "summary_text", "text": "in short"}]),
                call("c1", "f", "{}"),
                output("c1", ""),
                thought(encrypted_content=sealed("at length")),
                message("assistant", "ok"),
            ]
        },
        [
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "in short",
                "tool_calls": [called("c1", "f", "{}")],
            },
            {"role": "tool", "tool_call_id": "c1", "content": ""},
            {"role": "assistant", "content": "ok", "reasoning_content": "at length"},
        ],
        id="reasoning between calls, summed up and sealed",
    ),
    pytest.param(
        {
            "input": [
                thought(content=[{"type": "reasoning_text", "text": "a"}, {"type": "reasoning_text", "text": "b"}]),
                thought(content=[{"type": "reasoning_text", "text": "c"}]),
                message("user", "hi"),
            ]
        },
        [{"role": "assistant", "content": "", "reasoning_content": "a\n\nb\n\nc"}, USER],
        id="reasoning that nothing followed",
    ),
    pytest.param(
        {"input": [thought(encrypted_content="gAAAAAB"), thought(encrypted_content="weir1.?"), message("user", "hi")]},
        [USER],
        id="reasoning that others sealed",
    ),
    pytest.param(
        {
            "input": [
                {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": '*** "x"\n'},
                {
                    "type": "custom_tool_call_output",
                    "call_id": "c1",
                    "output": [{"type": "input_text", "text": "done"}],
                },
            ]
        },
        [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [called("c1", "apply_patch", '{"input":"*** \\"x\\"\\n"}')],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "done"},
        ],
        id="a custom call",
    ),
    pytest.param(
        {
            "input": [
                call("c1", "see", "{}"),
                call("c2", "f", "{}"),
                output("c1", [{"type": "input_image", "image_url": IMAGE}]),
                output("c2", [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]),
                message("user", "hi"),
            ]
        },
        [
            {"role": "assistant", "content": None, "tool_calls": [called("c1", "see", "{}"), called("c2", "f", "{}")]},
            {"role": "tool", "tool_call_id": "c1", "content": "The output of this call is in the next message."},
            {"role": "tool", "tool_call_id": "c2", "content": "a\nb"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Output of the call c1:"},
                    {"type": "image_url", "image_url": {"url": IMAGE}},
                ],
            },
            USER,
        ],
        id="a call that gave an image",
    ),
]

FIELDS = [
    # the request says                                 the chat request says besides
    pytest.param({"max_output_tokens": 5}, {"max_tokens": 5}, id="max_output_tokens"),
    pytest.param({"temperature": 0, "top_p": 0.5}, {"temperature": 0, "top_p": 0.5}, id="sampling"),
    pytest.param({"top_logprobs": 3}, {"top_logprobs": 3, "logprobs": True}, id="top_logprobs"),
    pytest.param({"top_logprobs": 0}, {}, id="no logprobs"),
    pytest.param(
        {"include": ["message.output_text.logprobs", "reasoning.encrypted_content"]}, {"logprobs": True}, id="include"
    ),
    pytest.param({"reasoning": {"effort": "high", "summary": "auto"}}, {"reasoning_effort": "high"}, id="reasoning"),
    pytest.param({"user": "u", "safety_identifier": "s"}, {"user": "u"}, id="user"),
    pytest.param({"safety_identifier": "s"}, {"user": "s"}, id="safety_identifier"),
    pytest.param(
        {"stream": True, "stream_options": {"include_obfuscation": False}},
        {"stream": True, "stream_options": {"include_usage": True}},
        id="stream",
    ),
    pytest.param({"stream": False, "background": False, "tools": None, "prompt": None}, {}, id="nothing"),
    pytest.param({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {"verbosity": "low"}, id="verbosity"),
    pytest.param(
        {"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}, id="json_object"
    ),
    pytest.param(
        {"text": {"format": {"type": "json_schema", "name": "n", "strict": True, "schema": {"type": "object"}}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}},
            }
        },
        id="json_schema",
    ),
    pytest.param({"tool_choice": "auto", "parallel_tool_calls": False}, {}, id="a choice among none"),
]

TOOLS = [
    # choice                                                                                       functions, choice
    pytest.param(None, ["apply_patch", "shell", "mcp__docs__search"], None, id="none said"),
    pytest.param("required", ["apply_patch", "shell", "mcp__docs__search"], "required", id="required"),
    pytest.param(
        {"type": "function", "name": "shell"},
        ["apply_patch", "shell", "mcp__docs__search"],
        {"type": "function", "function": {"name": "shell"}},
        id="a function",
    ),
    pytest.param(
        {"type": "custom", "name": "apply_patch"},
        ["apply_patch", "shell", "mcp__docs__search"],
        {"type": "function", "function": {"name": "apply_patch"}},
        id="a custom tool",
    ),
    pytest.param(
        {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [
                {"type": "custom", "name": "apply_patch"},
                {"type": "function", "name": "search", "namespace": "mcp__docs"},
            ],
        },
        ["apply_patch", "mcp__docs__search"],
        "required",
        id="allowed tools",
    ),
]

REFUSED = [
    # the request says                                              where                      words of the message
    pytest.param(
        {"previous_response_id": "resp_1"},
        "previous_response_id",
        "whole conversation as 'input'",
        id="previous_response_id",
    ),
    pytest.param({"conversation": "conv_1"}, "conversation", "whole conversation as 'input'", id="conversation"),
    pytest.param({"prompt": {"id": "pmpt_1"}}, "prompt", "no prompt template", id="prompt"),
    pytest.param({"background": True}, "background", "whole conversation as 'input'", id="background"),
    pytest.param(
        {"context_management": [{"type": "compaction"}]},
        "context_management",
        "context_management is not understood",
        id="unknown field",
    ),
    pytest.param({"include": ["everything"]}, "include", "'everything'", id="include"),
    pytest.param({"reasoning": {"mode": "pro"}}, "reasoning.mode", "Leave it out", id="reasoning"),
    pytest.param({"text": {"format": {"type": "xml"}}}, "text.format.type", "'xml'", id="format"),
    pytest.param(
        {"text": {"format": {"type": "json_schema", "name": "n"}}},
        "text.format.schema",
        "object",
        id="format without schema",
    ),
    pytest.param({"input": None}, "input", "list", id="no input"),
    pytest.param({"input": ["hi"]}, "input[0]", "object", id="an item that is none"),
    pytest.param(
        {"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]", "Send the item itself", id="item_reference"
    ),
    pytest.param(
        {"input": [{"id": "msg_1"}]}, "input[0]", "Send the item itself", id="item_reference without its type"
    ),
    pytest.param(
        {"input": [message("user", "a"), {"type": "web_search_call", "id": "ws_1"}]},
        "input[1]",
        "'web_search_call'",
        id="item",
    ),
    pytest.param({"input": [{"type": ["message"]}]}, "input[0]", "['message']", id="a type that is none"),
    pytest.param({"input": [{"role": "judge", "content": "a"}]}, "input[0].role", "'judge'", id="role"),
    pytest.param(
        {"input": [{"role": "user", "content": "a", "name": "b"}]},
        "input[0].name",
        "Leave it out",
        id="field of an item",
    ),
    pytest.param(
        {"input": [{"role": "user", "content": [{"type": "video"}]}]}, "input[0].content[0]", "'video'", id="part"
    ),
    pytest.param(
        {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
        "input[0].content[0].text",
        "'text'",
        id="part without text",
    ),
    pytest.param(
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}]},
        "input[0].content[0].file_id",
        "image_url",
        id="stored image",
    ),
    pytest.param(
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": IMAGE, "detail": "8k"}]}]},
        "input[0].content[0].detail",
        "'8k'",
        id="detail",
    ),
    pytest.param(
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "http://a/"}]}]},
        "input[0].content[0].file_url",
        "file_data",
        id="file elsewhere",
    ),
    pytest.param(
        {"input": [{"role": "assistant", "content": [{"type": "input_image", "image_url": IMAGE}]}]},
        "input[0].content[0]",
        "'input_image'",
        id="image of the model",
    ),
    pytest.param(
        {"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
        "input[0].call_id",
        "missing",
        id="call without id",
    ),
    pytest.param(
        {"tools": [{"type": "web_search", "external_web_access": False}]},
        "tools[0].type",
        'web_search = "disabled"',
        id="web_search",
    ),
    *[
        pytest.param({"tools": [SHELL, {"type": kind}]}, "tools[1].type", f"'{kind}'", id=kind)
        for kind in (
            "file_search",
            "code_interpreter",
            "mcp",
            "image_generation",
            "local_shell",
            "shell",
            "computer",
            "computer_use_preview",
            "tool_search",
            "apply_patch",
            "web_search_preview",
        )
    ],
    pytest.param({"tools": [{**SHELL, "async": True}]}, "tools[0].async", "Leave it out", id="field of a tool"),
    pytest.param({"tools": [SHELL, SHELL]}, "tools[1]", "'shell'", id="two of one name"),
    pytest.param(
        {"tools": [{"type": "custom", "name": "x", "format": {"type": "ebnf"}}]},
        "tools[0].format",
        "'ebnf'",
        id="format of a tool",
    ),
    pytest.param({"tool_choice": "required"}, "tool_choice", "none is offered", id="a choice among none"),
    pytest.param(
        {"tools": [SHELL], "tool_choice": {"type": "file_search"}},
        "tool_choice.type",
        "'file_search'",
        id="choice of a hosted tool",
    ),
    pytest.param(
        {"tools": [SHELL], "tool_choice": {"type": "function", "name": "f"}},
        "tool_choice",
        "'f'",
        id="choice of no tool",
    ),
]


# Field by field what Codex CLI sends in the middle of a turn (`build_responses_request` of its core).
CODEX: Json = {
    "model": "m",
    "instructions": "You are Codex.",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "<permissions>"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<environment>"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fix it."}]},
        {"type": "reasoning", "summary": [], "encrypted_content": sealed("I look first.")},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Looking."}],
            "phase": "commentary",
        },
        {"type": "function_call", "name": "shell", "arguments": '{"command":"ls"}', "call_id": "c1"},
        {"type": "function_call_output", "call_id": "c1", "output": "a.py"},
        {
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": "c2",
            "name": "apply_patch",
            "input": "*** Begin",
        },
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "Done"},
    ],
    "tools": [SHELL, PATCH, DOCS],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto", "context": "all_turns"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "service_tier": "priority",
    "prompt_cache_key": "0198-thread",
    "text": {
        "verbosity": "low",
        "format": {"type": "json_schema", "strict": True, "schema": {"type": "object"}, "name": "codex_output_schema"},
    },
    "client_metadata": {"x-codex-installation-id": "i"},
}
CODEX_IN_CHAT: Json = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "You are Codex.\n\n<permissions>"},
        {"role": "user", "content": "<environment>"},
        {"role": "user", "content": "Fix it."},
        {
            "role": "assistant",
            "content": "Looking.",
            "reasoning_content": "I look first.",
            "tool_calls": [called("c1", "shell", '{"command":"ls"}')],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "a.py"},
        {"role": "assistant", "content": None, "tool_calls": [called("c2", "apply_patch", '{"input":"*** Begin"}')]},
        {"role": "tool", "tool_call_id": "c2", "content": "Done"},
    ],
    "tools": [
        {"type": "function", "function": function} for function in (SHELL_FUNCTION, PATCH_FUNCTION, DOCS_FUNCTION)
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning_effort": "medium",
    "stream": True,
    "stream_options": {"include_usage": True},
    "verbosity": "low",
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "codex_output_schema", "strict": True, "schema": {"type": "object"}},
    },
}


class TestConversation:
    @pytest.mark.parametrize(("request_", "messages"), CONVERSATIONS)
    def test_in_chats_words(self, request_: Json, messages: list[Json]) -> None:
        assert chat(request_) == {"model": "m", "messages": messages}

    def test_what_codex_sends(self) -> None:
        assert chat(CODEX) == CODEX_IN_CHAT

    def test_tools_that_the_input_offers(self) -> None:
        offered = {"type": "additional_tools", "role": "developer", "tools": [PATCH]}
        translated = chat({"tools": [SHELL], "input": [offered, message("user", "hi")]})
        assert [tool["function"] for tool in translated["tools"]] == [SHELL_FUNCTION, PATCH_FUNCTION]


class TestFields:
    @pytest.mark.parametrize(("said", "chats"), FIELDS)
    def test_in_chats_words(self, said: Json, chats: Json) -> None:
        assert chat({"input": "hi", **said}) == {"model": "m", "messages": [USER], **chats}

    @pytest.mark.parametrize("hint", sorted(HINTS))
    def test_a_hint_is_left_out(self, hint: str) -> None:
        assert chat({"input": "hi", hint: {"a": "b"}}) == {"model": "m", "messages": [USER]}

    def test_the_engines_name_for_the_limit(self) -> None:
        assert (
            chat({"input": "hi", "max_output_tokens": 5}, max_tokens_field="max_completion_tokens")[
                "max_completion_tokens"
            ]
            == 5
        )

    def test_path(self) -> None:
        assert ResponsesAsChat(b'{"model":"m","input":"hi"}').path == "/chat/completions"


class TestTools:
    @pytest.mark.parametrize(("choice", "functions", "chats"), TOOLS)
    def test_in_chats_words(self, choice: Any, functions: list[str], chats: Any) -> None:
        known = {function["name"]: function for function in (PATCH_FUNCTION, SHELL_FUNCTION, DOCS_FUNCTION)}
        translated = chat(
            {"input": "hi", "tools": [PATCH, SHELL, DOCS], "tool_choice": choice, "parallel_tool_calls": True}
        )
        assert translated["tools"] == [{"type": "function", "function": known[name]} for name in functions]
        assert translated.get("tool_choice") == chats
        assert translated["parallel_tool_calls"] is True

    def test_a_custom_tool_without_a_grammar(self) -> None:
        function = chat({"input": "hi", "tools": [{"type": "custom", "name": "note"}]})["tools"][0]["function"]
        assert "description" not in function
        assert function["parameters"]["properties"]["input"]["description"] == "The tool's whole input, as plain text."


class TestRefusal:
    @pytest.mark.parametrize(("said", "where", "words"), REFUSED)
    def test_by_name(self, said: Json, where: str, words: str) -> None:
        with pytest.raises(InvalidValue) as refused:
            chat({"input": "hi", **said})
        assert refused.value.param == where
        assert words in refused.value.text

    @pytest.mark.parametrize(
        ("body", "error"), [(b"{", MalformedBody), (b"[]", InvalidValue)], ids=["no JSON", "no object"]
    )
    def test_of_what_is_no_request(self, body: bytes, error: type[Exception]) -> None:
        with pytest.raises(error):
            ResponsesAsChat(body)
