"""Takes long data out of a JSON text, so that reading it and writing it again costs what its words cost.

An image of 20 MB in base64 is one string: to parse it takes 15 ms, to copy it 4, and nobody here reads it. In its place
stands a short string that cannot be anybody's; what is made of the text gets the data back by `lower`, wherever that
string has gone to, also as a part of another one.
"""

import re
from collections.abc import Sequence
from random import getrandbits
from typing import NamedTuple

LONG = 64 * 1024  # bytes of a string that is worth it
_STEP = LONG // 2  # wherever a longer string lies, one of these points lies in it
_DATA = re.compile(rb"[A-Za-z0-9+/=_-]+")
_SAMPLE = 512  # bytes at either end that are looked at: text has a space among them, base64 has none
_DATA_URL = b";base64,"
# A text in base64 stays where it is: a translation may have to read it. Some clients write "/" as "\/".
_TEXT = re.compile(rb"data:(?:text\\?/|application\\?/(?:[\w.-]+\+)?json)")


class Lifted(NamedTuple):
    """`text` is the JSON without its long data, `data` what was taken out; nothing, nearly always."""

    text: bytes
    data: Sequence[memoryview] = ()
    mark: bytes = b""

    def length(self, words: str) -> int:
        """Of these words of the text, with the data in them again."""
        marks = re.findall(rf"({self.mark.decode()}(\d+)\.)", words) if self.data else ()
        return len(words) + sum(len(self.data[int(number)]) - len(mark) for mark, number in marks)


def lift(text: bytes) -> Lifted:
    """`text` is valid JSON or not: only what stands between two quotes, and is base64 as far as one looks, is taken."""
    view, data, kept = memoryview(text), list[memoryview](), list[bytes | memoryview]()
    mark = b"lifted-%016x-" % getrandbits(64)
    end, at = 0, _STEP
    while at < len(text):
        closing = text.find(b'"', at)
        if closing < 0:
            break
        opening = text.rfind(b'"', end, at)
        if opening >= 0 and closing - opening > LONG:
            start = _beginning(text, opening + 1)
            if _is_data(text, start, closing) and not _TEXT.match(text, opening + 1):
                kept += (view[end:start], mark + b"%d." % len(data))
                data.append(view[start:closing])
                end = closing
        at = max(closing + 1, at + _STEP)
    if not data:
        return Lifted(text)
    return Lifted(b"".join([*kept, view[end:]]), data, mark)


def lower(text: bytes, lifted: Lifted) -> list[bytes | memoryview]:
    """`text` with the data in it again, wherever its marks stand: in pieces, of which the first is text."""
    if not lifted.data:
        return [text]
    parts = re.split(re.escape(lifted.mark) + rb"(\d+)\.", text)
    return [lifted.data[int(part)] if number % 2 else part for number, part in enumerate(parts)]


def _beginning(text: bytes, start: int) -> int:
    """Where the data begins: behind the head of a data URL, which somebody may want to read."""
    comma = text.find(_DATA_URL, start, start + _SAMPLE)
    return start if comma < 0 else comma + len(_DATA_URL)


def _is_data(text: bytes, start: int, end: int) -> bool:
    samples = text[start : start + _SAMPLE], text[max(end - _SAMPLE, start) : end]
    return end - start > LONG // 2 and all(_DATA.fullmatch(sample) for sample in samples)
