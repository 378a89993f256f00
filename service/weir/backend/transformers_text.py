"""Tokens as they come, as text that may be shown: whole characters only, and never a part of a stop string. Pure."""

from collections.abc import Callable, Sequence

HALF = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer writes for the bytes of an unfinished character
HELD_MAX = 8  # tokens; no character has more bytes than four, so this is none, and will never be one
CONTEXT = 6  # tokens in front of the new ones: a tokenizer may write a token otherwise where a text begins

Decode = Callable[[list[int]], str]


class Decoder:
    """Tokens, one at a time, to the text that each adds."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._tokens: list[int] = []  # some that were told, and those that were not
        self._told = 0  # of them

    def of(self, token: int) -> str:
        """The text that is finished with this token; "" in the middle of a character."""
        self._tokens.append(token)
        text = self._new()
        if text.endswith(HALF) and len(self._tokens) - self._told < HELD_MAX:
            return ""
        return self._tell(text)

    def rest(self) -> str:
        """What is still held at the end: half a character, as the tokenizer writes it."""
        return self._tell(self._new())

    def _new(self) -> str:
        known = self._decode(self._tokens[: self._told])
        return self._decode(self._tokens)[len(known) :]

    def _tell(self, text: str) -> str:
        if text:
            self._tokens = self._tokens[-CONTEXT:]
            self._told = len(self._tokens)
        return text


class StopStrings:
    """Text, piece by piece, up to the first stop string. What may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.found = False
        self._stops = stops
        self._held = ""

    def of(self, text: str) -> str:
        """What may be shown now. Once a stop string is `found`, nothing more comes."""
        if self.found:
            return ""
        text = self._held + text
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        held = max((_beginning(text, stop) for stop in self._stops), default=0)
        shown, self._held = text[: len(text) - held], text[len(text) - held :]
        return shown

    def rest(self) -> str:
        """What was held, and did not become a stop string."""
        held, self._held = self._held, ""
        return held


def _beginning(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
