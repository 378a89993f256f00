"""What was said so far: chat completions' messages as Anthropic's `system` and `messages`.

Instructions stand apart in Messages, results of tools are the user's, and a turn of one role is one message.
"""

import re
from base64 import b64decode
from binascii import Error as BadBase64
from typing import Any, NamedTuple

from weir.core.errors import InvalidValue
from weir.dialect.fields import Json, a_list, a_string, an_object, as_object, blocks, no_counterpart, string_in

MESSAGES = "Anthropic's Messages API"
_ID = re.compile(r"[^a-zA-Z0-9_-]")
_DATA_URL = re.compile(r"data:([\w.+/-]+)(?:;[\w=.-]+)*;base64,")
_PDF = "application/pdf"


class History(NamedTuple):
    system: str | list[Json] | None
    messages: list[Json]


def history(messages: Any) -> History:
    """Raises InvalidValue with the place of what has no counterpart.

    Instructions within the conversation go to its head, as Anthropic's own endpoint for chat completions has it: few of
    its models take them in between. Left out are a speaker's `name`, which Messages has not, and earlier
    `reasoning_content`: Claude takes back only thinking that it has signed, and chat has no place for a signature.
    """
    system: list[Json] = []
    turns: list[tuple[str, list[Json]]] = []
    for n, message in enumerate(a_list(messages, "messages")):
        at = f"messages[{n}]"
        role = string_in(an_object(message, at), "role", at)
        if role in {"system", "developer"}:
            system += _texts(message, at)
            continue
        if role == "user":
            said = [_part(part, where) for part, where in blocks(message.get("content"), f"{at}.content")]
        elif role == "assistant":
            said = _texts(message, at) + _calls(message, at)
        elif role == "tool":
            role, said = "user", [_result(message, at)]
        else:
            raise no_counterpart(f"role {role}", MESSAGES, f"{at}.role")
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(said)
        elif said or role == "user":
            turns.append((role, said))
    return History(_plain(system) or None, [{"role": role, "content": _plain(said)} for role, said in turns])


def _plain(said: list[Json]) -> str | list[Json]:
    if len(said) == 1 and said[0].keys() == {"type", "text"}:
        return str(said[0]["text"])
    return said


def _texts(message: Json, at: str) -> list[Json]:
    """Without empty ones, which Messages refuses and chat's calls often stand beside."""
    if message.get("audio"):
        raise no_counterpart("audio", MESSAGES, f"{at}.audio")
    said = []
    for part, where in blocks(message.get("content"), f"{at}.content"):
        kind = string_in(part, "type", where)
        if kind not in {"text", "refusal"}:
            raise no_counterpart(f"{kind} in a {message['role']} message", MESSAGES, where)
        said.append(string_in(part, kind, where))
    said.append(a_string(message.get("refusal") or "", f"{at}.refusal"))
    return [{"type": "text", "text": text} for text in said if text]


def _calls(message: Json, at: str) -> list[Json]:
    if message.get("function_call"):
        raise no_counterpart("function_call", MESSAGES, f"{at}.function_call")
    return [
        _call(call, f"{at}.tool_calls[{n}]")
        for n, call in enumerate(a_list(message.get("tool_calls") or [], f"{at}.tool_calls"))
    ]


def _call(call: Any, at: str) -> Json:
    if an_object(call, at).get("type", "function") != "function":
        raise no_counterpart(f"{call['type']} tool call", MESSAGES, at)
    function = an_object(call.get("function"), f"{at}.function")
    return {
        "type": "tool_use",
        "id": _id(call.get("id"), f"{at}.id"),
        "name": string_in(function, "name", f"{at}.function"),
        "input": as_object(a_string(function.get("arguments") or "", f"{at}.function.arguments")),
    }


def _result(message: Json, at: str) -> Json:
    said = [_part(part, where) for part, where in blocks(message.get("content"), f"{at}.content")]
    name = _id(message.get("tool_call_id"), f"{at}.tool_call_id")
    return {"type": "tool_result", "tool_use_id": name, "content": _plain(said)}


def _id(value: Any, param: str) -> str:
    """Messages takes fewer signs in an id than other makers' models write, as "functions.read:0"."""
    return _ID.sub("_", a_string(value, param))


def _part(part: Json, at: str) -> Json:
    kind = string_in(part, "type", at)
    if kind == "text":
        return {"type": "text", "text": string_in(part, "text", at)}
    if kind == "image_url":
        return {"type": "image", "source": _image(part, f"{at}.image_url")}
    if kind == "file":
        return _document(an_object(part.get("file"), f"{at}.file"), f"{at}.file")
    raise no_counterpart(kind, MESSAGES, at)


def _image(part: Json, at: str) -> Json:
    """`detail` says how many tokens an image may cost, and is left out."""
    url = string_in(an_object(part.get("image_url"), at), "url", at)
    if url.startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    media, data = _data(url, f"{at}.url")
    return {"type": "base64", "media_type": media, "data": data}


def _document(file: Json, at: str) -> Json:
    if file.get("file_id"):  # it is kept by another maker's servers
        raise no_counterpart("file_id", MESSAGES, f"{at}.file_id")
    media, data = _data(string_in(file, "file_data", at), f"{at}.file_data")
    title = {"title": file["filename"]} if file.get("filename") else {}
    if media == _PDF:
        return {"type": "document", "source": {"type": "base64", "media_type": media, "data": data}, **title}
    if not media.startswith("text/"):
        raise no_counterpart(f"file of type {media}", MESSAGES, f"{at}.file_data")
    try:
        text = b64decode(data, validate=True).decode()
    except (BadBase64, UnicodeDecodeError) as error:
        raise InvalidValue("The file is no text in base64.", param=f"{at}.file_data") from error
    return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}, **title}


def _data(url: str, at: str) -> tuple[str, str]:
    found = _DATA_URL.match(url)
    if not found:
        raise InvalidValue("Give it as 'data:<media type>;base64,<data>' or, an image, by its http address.", param=at)
    return found[1], url[found.end() :]
