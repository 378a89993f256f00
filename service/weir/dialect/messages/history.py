"""What was said so far: Anthropic's `system` and `messages` as chat completions' messages.

Chat has one message per role and place where Messages has blocks: the results of tools become messages of their own,
earlier thinking a member of the assistant's.
"""

from typing import Any

import orjson

from weir.core.errors import InvalidValue
from weir.dialect.fields import Json, a_list, an_object, blocks, no_counterpart, string_in

CHAT = "chat completions"
# Claude Code's first system block: a word for Anthropic's billing with a hash per request, which would spoil every
# prefix cache and means nothing to another model.
BILLING_LINE = "x-anthropic-billing-header"
Blocks = list[tuple[Json, str]]


def chat_messages(system: Any, messages: Any) -> list[Json]:
    """Raises InvalidValue with the place of what has no counterpart."""
    instructions = _instructions(blocks(system, "system"))
    out: list[Json] = []
    held: list[Json] = []  # instructions between a tool's call and its result, where chat allows nothing
    for role, said in _turns(messages):
        if role == "assistant":
            out.append(_assistant(said))
        elif role == "user":
            out += _user(said)
        elif not out:
            instructions += _instructions(said)
            continue
        elif texts := _instructions(said):
            # Some templates want instructions at the head only; moved there, they would come before what they are
            # about, and change the cached prefix each turn. So they stay, and a server that minds says so.
            held.append({"role": "system", "content": "\n\n".join(texts)})
        if "tool_calls" not in out[-1]:
            out += held
            held = []
    head: list[Json] = [{"role": "system", "content": "\n\n".join(instructions)}] if instructions else []
    return head + out + held


def _turns(messages: Any) -> list[tuple[str, Blocks]]:
    """Consecutive messages of one role are one turn, as the Messages API reads them; many templates insist on it."""
    turns: list[tuple[str, Blocks]] = []
    for n, message in enumerate(a_list(messages, "messages")):
        at = f"messages[{n}]"
        role = string_in(an_object(message, at), "role", at)
        if role not in {"user", "assistant", "system"}:
            raise InvalidValue("A message's role must be 'user', 'assistant' or 'system'.", param=f"{at}.role")
        said = blocks(message.get("content"), f"{at}.content")
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(said)
        else:
            turns.append((role, said))
    return turns


def _instructions(said: Blocks) -> list[str]:
    texts = []
    for block, at in said:
        kind = string_in(block, "type", at)
        if kind != "text":
            raise no_counterpart(f"{kind} in a system message", CHAT, at)
        texts.append(_text(block, at))
    return [text for text in texts if text and not text.startswith(BILLING_LINE)]


def _assistant(said: Blocks) -> Json:
    texts, thoughts, calls = [], [], []
    for block, at in said:
        kind = string_in(block, "type", at)
        if kind == "text":
            texts.append(_text(block, at))
        elif kind == "thinking":
            thoughts.append(string_in(block, "thinking", at))
        elif kind == "tool_use":
            calls.append(_call(block, at))
        elif kind != "redacted_thinking":  # encrypted by Anthropic: nobody else can read it
            raise no_counterpart(kind, CHAT, at)
    message: Json = {"role": "assistant", "content": "".join(texts)}
    if thoughts:
        # vLLM, llama.cpp and DeepSeek read it. A signature proves something to its maker only, and stays behind.
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["content"] = message["content"] or None
        message["tool_calls"] = calls
    return message


def _call(block: Json, at: str) -> Json:
    arguments = orjson.dumps(an_object(block.get("input"), f"{at}.input")).decode()
    function = {"name": string_in(block, "name", at), "arguments": arguments}
    return {"id": string_in(block, "id", at), "type": "function", "function": function}


def _user(said: Blocks) -> list[Json]:
    results: list[Json] = []
    shown: list[Json] = []
    parts: list[Json] = []
    for block, at in said:
        if block.get("type") == "tool_result":
            result, beside = _result(block, at)
            results.append(result)
            shown += beside
        else:
            parts += _parts(block, at)
    parts = shown + parts
    if results and not parts:
        return results
    content = parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts
    return [*results, {"role": "user", "content": content or ""}]


def _result(block: Json, at: str) -> tuple[Json, list[Json]]:
    """The tool's message, which holds text alone, and what else the tool gave: it follows in the user's."""
    name = string_in(block, "tool_use_id", at)
    texts: list[str] = []
    beside: list[Json] = []
    for inner, where in blocks(block.get("content"), f"{at}.content"):
        for part in _parts(inner, where):
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                texts.append(f"[{part['type'].removesuffix('_url')}: in the next user message]")
                beside.append(part)
    if beside:
        beside.insert(0, {"type": "text", "text": f"From the result of tool call {name}:"})
    content = "\n".join(texts)
    if block.get("is_error"):
        content = f"Error: {content}"  # chat's tool messages have no member for it
    return {"role": "tool", "tool_call_id": name, "content": content}, beside


def _parts(block: Json, at: str) -> list[Json]:
    kind = string_in(block, "type", at)
    if kind == "text":
        return [{"type": "text", "text": _text(block, at)}]
    if kind == "image":
        return [{"type": "image_url", "image_url": {"url": _image(block, at)}}]
    if kind == "document":
        return _document(block, at)
    if kind == "search_result":
        found = [_text(inner, where) for inner, where in blocks(block.get("content"), f"{at}.content")]
        return [{"type": "text", "text": "\n".join([f"{block.get('title')} ({block.get('source')})", *found])}]
    raise no_counterpart(kind, CHAT, at)


def _image(block: Json, at: str) -> str:
    source = an_object(block.get("source"), f"{at}.source")
    if source.get("type") == "url":
        return string_in(source, "url", f"{at}.source")
    if source.get("type") == "base64":
        return f"data:{source.get('media_type')};base64,{string_in(source, 'data', f'{at}.source')}"
    raise no_counterpart(f"image source {source.get('type')}", CHAT, f"{at}.source")


def _document(block: Json, at: str) -> list[Json]:
    if an_object(block.get("citations") or {}, f"{at}.citations").get("enabled"):
        raise no_counterpart("citations", CHAT, f"{at}.citations")
    source = an_object(block.get("source"), f"{at}.source")
    about = [string_in(block, key, at) for key in ("title", "context") if block.get(key)]
    kind = source.get("type")
    if kind == "base64":
        data = string_in(source, "data", f"{at}.source")
        file = {"filename": block.get("title") or "document.pdf", "file_data": f"data:application/pdf;base64,{data}"}
        context = [{"type": "text", "text": block["context"]}] if block.get("context") else []
        return [*context, {"type": "file", "file": file}]
    if kind == "text":
        return [{"type": "text", "text": "\n".join([*about, string_in(source, "data", f"{at}.source")])}]
    if kind == "content":
        inner = [
            part for b, where in blocks(source.get("content"), f"{at}.source.content") for part in _parts(b, where)
        ]
        return [{"type": "text", "text": "\n".join(about)}, *inner] if about else inner
    raise no_counterpart(f"document source {kind}", CHAT, f"{at}.source")


def _text(block: Json, at: str) -> str:
    return string_in(block, "text", at)
