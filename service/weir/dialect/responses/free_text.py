"""The free text of a custom tool, read out of the JSON arguments of its function while they are still being written."""

import re

from weir.dialect.responses.tools import INPUT

_OPENING = re.compile(r'\s*\{\s*"' + INPUT + r'"\s*:\s*"')
_COMPACT = '{"' + INPUT + '":"'
_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
# One step inside a JSON string: text, a pair of surrogates, an escape, what looks like one, or the closing quote.
_STEP = re.compile(
    rf'(?P<plain>[^"\\]+)|(?P<pair>{_HIGH}{_LOW})|(?P<unit>\\u[0-9a-fA-F]{{4}})|(?P<short>\\[^u])'
    r'|(?P<odd>\\u[0-9a-fA-F]{0,3}(?=[^0-9a-fA-F]))|"'
)
_HALF = re.compile(_HIGH)
_MORE_OF_IT = re.compile(r"(?:\\(?:u[0-9a-fA-F]{0,3})?)?")  # of the other half, which may still be on its way
_SHORT = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "\\": "\\", "/": "/"}
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class FreeText:
    """Feed it arguments at any cut. Those that do not begin as `{"input": "` are taken as the text itself: a model
    that was asked for JSON and wrote the patch at once meant the patch.
    """

    __slots__ = ("_ended", "_held", "_inside", "_raw")

    def __init__(self) -> None:
        self._held = ""
        self._inside = self._raw = self._ended = False

    def feed(self, arguments: str) -> str:
        if self._raw:
            return arguments
        if self._ended:
            return ""
        self._held += arguments
        if not self._inside and not self._opened():
            return self.flush() if self._raw else ""
        return self._string()

    def flush(self) -> str:
        """The arguments have ended, perhaps in the middle."""
        held, self._held = self._held, ""
        return _HALF.sub(_REPLACEMENT, held, count=1) if self._inside else held

    def _opened(self) -> bool:
        opening = _OPENING.match(self._held)
        if opening:
            self._inside = True
            self._held = self._held[opening.end() :]
        else:
            self._raw = not _COMPACT.startswith("".join(self._held.split()))
        return self._inside

    def _string(self) -> str:
        said, at, held = [], 0, self._held
        while step := _STEP.match(held, at):
            kind = step.lastgroup
            if kind is None:
                self._ended = True
                held, at = "", 0
                break
            if kind == "unit" and _HALF.match(step[0]) and _MORE_OF_IT.fullmatch(held, step.end()):
                break
            said.append(_said(step[0], kind))
            at = step.end()
        self._held = held[at:]
        return "".join(said)


def _said(step: str, kind: str) -> str:
    if kind in ("plain", "odd"):
        return step
    if kind == "short":
        return _SHORT.get(step[1], step)
    # Half of a pair by itself is no character, and could not be written as UTF-8.
    return bytes.fromhex(step.replace(r"\u", "")).decode("utf-16-be", "replace")
