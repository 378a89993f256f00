"""The port between two dialects: a request the one way, and its answer back. Sans I/O.

Nothing is dropped in silence: what the other dialect has no word for is carried in the nearest form, or refused by
name. Hints that change no answer (where to cache, which tier to bill) may be left out; each translation lists those.
"""

from typing import Protocol


class Events(Protocol):
    """An event stream on its way: upstream's bytes in, at any cut, the client's bytes out, as soon as they are known.

    A stream that breaks off is not ended here: whoever reads what comes out sees that its terminator is missing.
    """

    @property
    def prompt_tokens(self) -> int:
        """What upstream has said by now that it read; 0 until then. Messages says it first, chat at the end."""
        ...

    def feed(self, chunk: bytes) -> bytes: ...

    def flush(self) -> bytes:
        """Upstream's proper end: what was still held."""
        ...


class Translation(Protocol):
    """One request in upstream's dialect, and the way back for whatever comes of it."""

    @property
    def path(self) -> str:
        """Below the endpoint's URL, as "/chat/completions"."""
        ...

    @property
    def body(self) -> bytes: ...

    def answer(self, body: bytes) -> bytes:
        """A whole 200 in the client's dialect; raises UpstreamFailed where it is none of upstream's."""
        ...

    def refusal(self, status: int, body: bytes) -> bytes:
        """Upstream's JSON error object of a 4xx as the client's; its words stay."""
        ...

    def events(self) -> Events: ...
