"""Content parts of Responses items as those of chat messages."""

from collections.abc import Callable

from weir.core.errors import InvalidValue
from weir.dialect.responses.fields import Fields, a_list, an_object, member, only, refuse

_HINTS = {"type", "prompt_cache_breakpoint"}  # where to cache
_TEXT = {"text", "annotations", "logprobs"} | _HINTS  # what an answer notes about its text is no part of the text
_IMAGE = {"image_url", "detail"} | _HINTS
_FILE = {"file_data", "filename", "detail"} | _HINTS  # `detail` of a file's pages: chat has no word for it
_DETAILS = {"low": "low", "high": "high", "original": "high"}  # "auto" is what engines do anyway


def is_text(part: Fields) -> bool:
    return bool(part["type"] == "text")


def to_content(content: object, where: str) -> str | list[Fields]:
    """A string where there is one text only, as the templates of some models take nothing else."""
    parts = [_part(part, f"{where}[{index}]") for index, part in enumerate(a_list(content, where))]
    return parts[0]["text"] if len(parts) == 1 and is_text(parts[0]) else parts


def text_of_parts(content: object, where: str) -> str:
    """What the model said itself is text; a refusal is what it said, too."""
    said = []
    for index, part in enumerate(a_list(content, where)):
        at = f"{where}[{index}]"
        fields = an_object(part, at)
        kind = fields.get("type")
        if kind == "refusal":
            said.append(member(fields, "refusal", at))
        elif kind in ("output_text", "input_text"):
            only(_TEXT, fields, at)
            said.append(member(fields, "text", at))
        else:
            raise _unknown(kind, at)
    return "".join(said)


def joined(parts: object, name: str, where: str) -> str:
    """Paragraphs of a reasoning item; it need not have any."""
    if parts is None:
        return ""
    return "\n\n".join(
        member(an_object(part, f"{where}[{index}]"), name, f"{where}[{index}]")
        for index, part in enumerate(a_list(parts, where))
    )


def _part(part: object, where: str) -> Fields:
    fields = an_object(part, where)
    kind = fields.get("type")
    read = _PARTS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise _unknown(kind, where)
    return read(fields, where)


def _text(fields: Fields, where: str) -> Fields:
    only(_TEXT, fields, where)
    return {"type": "text", "text": member(fields, "text", where)}


def _image(fields: Fields, where: str) -> Fields:
    _no_file_id(fields, where, "image_url, as a URL or as data:image/png;base64,...")
    only(_IMAGE, fields, where)
    image = {"url": member(fields, "image_url", where)}
    detail = fields.get("detail")
    if isinstance(detail, str) and detail in _DETAILS:
        image["detail"] = _DETAILS[detail]
    elif detail not in (None, "auto"):
        raise refuse(f"'{detail}' is not understood. Use auto, low, high or original.", f"{where}.detail")
    return {"type": "image_url", "image_url": image}


def _file(fields: Fields, where: str) -> Fields:
    _no_file_id(fields, where, "file_data")
    if fields.get("file_url") is not None:
        raise refuse("files are not fetched from a 'file_url'. Send their bytes in file_data.", f"{where}.file_url")
    only(_FILE, fields, where)
    file = {"file_data": member(fields, "file_data", where)}
    if fields.get("filename") is not None:
        file["filename"] = member(fields, "filename", where)
    return {"type": "file", "file": file}


def _audio(fields: Fields, where: str) -> Fields:
    only({"input_audio"} | _HINTS, fields, where)
    return {"type": "input_audio", "input_audio": an_object(fields.get("input_audio"), f"{where}.input_audio")}


def _no_file_id(fields: Fields, where: str, instead: str) -> None:
    if fields.get("file_id") is not None:
        raise refuse(f"no files are stored here, so a 'file_id' names none. Send {instead}.", f"{where}.file_id")


def _unknown(kind: object, where: str) -> InvalidValue:
    return InvalidValue(
        f"{where}: content of the type '{kind}' is not understood here. Send input_text, input_image, input_file or "
        "input_audio, and what the model said itself as output_text or refusal.",
        param=where,
    )


_PARTS: dict[str, Callable[[Fields, str], Fields]] = {
    "input_text": _text,
    "output_text": _text,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}
