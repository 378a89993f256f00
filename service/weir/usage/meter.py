"""What one request has used, whatever became of it."""

from weir.core.errors import UpstreamTrouble
from weir.core.types import TokensFrom, Usage
from weir.usage.estimate import counted_output
from weir.usage.scanner import Scanner


class Meter:
    """Starts at nothing; `sent` when the upstream has the request; then the scanner counts what passes.

    What each ending costs:

        never sent, or the upstream refused or failed before its first event   nothing, not even the request
        complete, usage reported                                               what was reported
        complete, 0 reported for an answer that has text                       reported prompt + what was counted
        complete, nothing reported                                             estimated prompt + what was counted
        usage reported, and broken off behind it                               what was counted, if that is more
        client left, upstream died, drained, in the middle                     estimated prompt + what was counted
        client left before the first byte                                      estimated prompt
    """

    __slots__ = ("_passed", "_prompt", "_sent", "most_output", "scanner")

    def __init__(self, prompt_tokens: int) -> None:
        self._prompt = prompt_tokens
        self.most_output: int | None = None  # what was reserved for the answer; nothing counted may exceed it
        self._sent = self._passed = False
        self.scanner: Scanner | None = None

    def sent(self) -> None:
        self._sent = True

    def told_prompt(self, tokens: int) -> None:
        """The server has said how many tokens it read, whatever becomes of the answer."""
        self._prompt = tokens

    def passed(self) -> None:
        """The client has some of an answer that nobody can read: sound."""
        self._passed = True

    def refused(self) -> None:
        """The upstream answered, and did not do it."""
        self._sent = False
        self.scanner = None

    def reading(self, ending: BaseException | None) -> tuple[Usage | None, TokensFrom]:
        """The usage and who says so; None where nothing is charged. `ending` is what the request ended with."""
        scanner = self.scanner
        if scanner is not None and (usage := scanner.usage) is not None:
            if scanner.told_last and (usage.output_tokens or not scanner.content_bytes):
                return usage, "reported"
            counted = self._counted(scanner)
            if counted <= usage.output_tokens:
                return usage, "reported"
            return usage._replace(output_tokens=counted), "counted"
        relayed = self._passed or (scanner is not None and bool(scanner.events or scanner.content_bytes))
        failed = isinstance(ending, UpstreamTrouble) or (scanner is not None and scanner.failed)
        if not self._sent or (failed and not relayed):
            return None, "none"
        if scanner is None:
            return Usage(self._prompt, 0), "estimated"
        return Usage(self._prompt, self._counted(scanner)), "counted"

    def _counted(self, scanner: Scanner) -> int:
        output = counted_output(scanner.events, scanner.content_bytes)
        return output if self.most_output is None else min(output, self.most_output)
