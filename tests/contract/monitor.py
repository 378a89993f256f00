"""What happened in a Redis, from the outside: MONITOR on a raw connection, and the log read as a story.

MONITOR shows each command with the server's time, and what a script does line by line below the script's own line.
Nothing here asks the product what it did.
"""

import hashlib
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

LINE = re.compile(rb"\+?(\d+)\.(\d+) \[\d+ (\S+)\] (.*)", re.DOTALL)
WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
READS = (b'"GET"', b'"HMGET"', b'"HGET"', b'"TIME"', b'"ZCARD"', b'"ZCOUNT"', b'"HEXISTS"', b'"PTTL"', b'"EXISTS"')
SCRIPT_WORDS = (b'"EVALSHA"', b'"EVAL"')


@dataclass(slots=True)
class Call:
    """One script as it ran: when, which, with what, and what it changed. Times are microseconds."""

    at: int
    sha: bytes
    keys: list[str]
    words: list[str]
    effects: list[tuple[str, ...]] = field(default_factory=list)


class Monitor:
    """As a block: everything that the server does meanwhile goes to a file."""

    def __init__(self, host: str, port: int, file: Path) -> None:
        self._file = file
        self._socket = socket.create_connection((host, port), timeout=30)
        self._socket.sendall(b"MONITOR\r\n")
        assert self._socket.recv(5) == b"+OK\r\n"
        self._last_word = uuid.uuid4().hex.encode()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The log is whole: all that the server did until now is in it."""
        with socket.create_connection(self._socket.getpeername(), timeout=30) as other:
            other.sendall(b"ECHO " + self._last_word + b"\r\n")
            other.recv(64)
        self._thread.join(60)
        alive = self._thread.is_alive()
        self._socket.close()
        assert not alive, "the log has no end"

    def _read(self) -> None:
        tail = b""
        with self._file.open("wb") as log:
            while self._last_word not in tail and (data := self._socket.recv(1 << 20)):
                log.write(data)
                tail = (tail + data)[-200 - len(data) :]


def scripts_of(log: Path, *, reads: bool = False) -> Iterator[Call]:
    """Every script in the order in which they ran, with what it has changed, or with what it has read as well."""
    call: Call | None = None
    with log.open("rb") as lines:
        for line in lines:
            from_script = b" lua] " in line[:60]
            if from_script:
                if call is not None and (reads or not any(word in line[20:80] for word in READS)):
                    _, words = _words(line)
                    call.effects.append(tuple(word.decode() for word in words))
                continue
            if call is not None:
                yield call
                call = None
            if any(word in line[20:120] for word in SCRIPT_WORDS):
                at, words = _words(line)
                sha = words[1] if words[0] == b"EVALSHA" else _sha1(_unescaped(words[1]))
                rest = [word.decode() for word in words[3:]]
                keys = int(words[2])
                call = Call(at, sha, rest[:keys], rest[keys:])
    if call is not None:
        yield call


def _words(line: bytes) -> tuple[int, list[bytes]]:
    found = LINE.match(line.rstrip(b"\r\n"))
    assert found, line
    return int(found[1]) * 1_000_000 + int(found[2]), WORD.findall(found[4])


def _sha1(source: bytes) -> bytes:
    return hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()


ESCAPE = re.compile(rb"\\(.)")


def _unescaped(word: bytes) -> bytes:
    """Of printable text with line breaks; a script has nothing else."""
    return ESCAPE.sub(lambda found: b"\n" if found[1] == b"n" else found[1], word)
