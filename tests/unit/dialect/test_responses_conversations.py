"""What an engine said comes back to it word for word, when a client sends each answer's items with its next request."""

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from weir.dialect.responses.as_chat import ResponsesAsChat

Json = dict[str, Any]
TOOLS: list[Json] = [
    {"type": "function", "name": "shell", "parameters": {"type": "object"}},
    {"type": "custom", "name": "apply_patch", "format": {"type": "text"}},
    {
        "type": "namespace",
        "name": "mcp__docs",
        "tools": [{"type": "function", "name": "search"}, {"type": "custom", "name": "note"}],
    },
]
TEXT = st.text(min_size=1, max_size=12)
FUNCTIONS = st.tuples(st.sampled_from(["shell", "mcp__docs__search", "unheard_of"]), TEXT)
CUSTOM = st.tuples(
    st.sampled_from(["apply_patch", "mcp__docs__note"]), TEXT.map(lambda text: orjson.dumps({"input": text}).decode())
)
ENDS = st.fixed_dictionaries({"content": TEXT, "reasoning": st.none() | TEXT})
TURNS = st.lists(
    st.fixed_dictionaries(
        {
            "content": st.none() | TEXT,
            "reasoning": st.none() | TEXT,
            "calls": st.lists(FUNCTIONS | CUSTOM, min_size=1, max_size=3),
            "outputs": st.lists(TEXT, min_size=3, max_size=3),
        }
    ),
    max_size=3,
)


def said(turn: Json, number: int) -> Json:
    """The chat message of a turn."""
    message: Json = {"role": "assistant", "content": turn["content"]}
    if turn["reasoning"] is not None:
        message["reasoning_content"] = turn["reasoning"]
    if "calls" in turn:
        message["tool_calls"] = [
            {"id": f"call_{number}_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for index, (name, arguments) in enumerate(turn["calls"])
        ]
    return message


def answered(request: Json, message: Json, number: int, streams: bool) -> list[Json]:
    """The items of the answer, as the client gets them."""
    translated = ResponsesAsChat(orjson.dumps(request))
    finish = "tool_calls" if "tool_calls" in message else "stop"
    head = {"id": f"chatcmpl-{number}", "created": number, "model": "m"}
    if not streams:
        chat = {**head, "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
        output: list[Json] = orjson.loads(translated.answer(orjson.dumps(chat)))["output"]
        return output
    pieces: list[Json] = [{"reasoning_content": letter} for letter in message.get("reasoning_content", "")]
    pieces += [{"content": letter} for letter in message["content"] or ""]
    for index, call in enumerate(message.get("tool_calls", [])):
        pieces.append({"tool_calls": [{**call, "index": index, "function": {**call["function"], "arguments": ""}}]})
        pieces += [
            {"tool_calls": [{"index": index, "function": {"arguments": letter}}]}
            for letter in call["function"]["arguments"]
        ]
    chunks = [{**head, "choices": [{"index": 0, "delta": piece}]} for piece in pieces]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    events = translated.events()
    stream = events.feed(b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks) + b"data: [DONE]\n\n")
    last = orjson.loads(stream.split(b"\n\n")[-2].partition(b"data: ")[2])
    assert last["type"] == "response.completed"
    finished: list[Json] = last["response"]["output"]
    return finished


def as_codex_keeps_it(item: Json) -> Json:
    """Codex CLI sends no reasoning text back, but what is sealed; and neither ids nor states."""
    kept = {name: value for name, value in item.items() if name not in ("id", "status")}
    if item["type"] == "reasoning":
        del kept["content"]
    return kept


@settings(max_examples=150, deadline=None)
@given(turns=TURNS, end=ENDS, streams=st.booleans(), codex=st.booleans())
def test_an_engine_reads_what_it_said(*, turns: list[Json], end: Json, streams: bool, codex: bool) -> None:
    items: list[Json] = [{"role": "user", "content": "go"}]
    history: list[Json] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "go"}]
    include = ["reasoning.encrypted_content"] if codex else []
    for number, turn in enumerate([*turns, end]):
        request = {
            "model": "m",
            "instructions": "Be brief.",
            "input": items,
            "tools": TOOLS,
            "include": include,
            "stream": streams,
        }
        assert orjson.loads(ResponsesAsChat(orjson.dumps(request)).body)["messages"] == history
        message = said(turn, number)
        history.append(message)
        output = answered(request, message, number, streams)
        items += [as_codex_keeps_it(item) for item in output] if codex else output
        called = [item for item in output if item["type"].endswith("_call")]
        for item, told in zip(called, turn.get("outputs", []), strict=False):
            items.append({"type": f"{item['type']}_output", "call_id": item["call_id"], "output": told})
            history.append({"role": "tool", "tool_call_id": item["call_id"], "content": told})
    items.append({"role": "user", "content": "thanks"})
    request = {"model": "m", "instructions": "Be brief.", "input": items, "tools": TOOLS}
    assert orjson.loads(ResponsesAsChat(orjson.dumps(request)).body)["messages"] == [
        *history,
        {"role": "user", "content": "thanks"},
    ]
