"""structlog: JSON on a pipe, colours on a terminal. What other libraries log goes the same way."""

import json
import logging
import re
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
import structlog
from structlog.types import EventDict, Processor

from weir.telemetry.lines import Lines

# uvicorn's word for an answer that we cut on purpose; the request's own line says why.
_UNFINISHED = "ASGI callable returned without completing response."
_QUOTED = re.compile(r"[\n(<\[{'\"]")
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


_lines: Lines | None = None  # this process's


def configure(level: str, stream: TextIO | None = None) -> None:
    """Once a process, before anything logs. `stream` is standard output unless given."""
    global _lines  # noqa: PLW0603 - a process has one standard output
    out = stream or sys.stdout
    processors: list[Processor]
    logger_factory: Any
    if out.isatty():
        stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        processors = [structlog.processors.add_log_level, stamp, structlog.dev.ConsoleRenderer()]
        logger_factory = structlog.WriteLoggerFactory(out)
    else:
        out.flush()
        lines = _lines = Lines(getattr(out.buffer, "raw", out.buffer))
        processors = [_as_json]
        logger_factory = lambda *_: lines  # noqa: E731 - structlog calls it a factory
    structlog.configure(
        processors=processors,
        wrapper_class=logger_class(level),
        logger_factory=logger_factory,
        cache_logger_on_first_use=True,
    )
    bridge = logging.Handler()
    bridge.emit = _bridge  # type: ignore[method-assign]  # a handler is its emit
    logging.basicConfig(handlers=[bridge], level=logging.WARNING, force=True)


def logger_class(level: str) -> type[Any]:
    """Structlog's own, with one method more."""

    class Logger(structlog.make_filtering_bound_logger(LEVELS[level])):  # type: ignore[misc]  # a class made at run time
        def whole(self, event: dict[str, Any], method: str = "info") -> None:
            """A line that is complete: through the processors, without four copies on the way (4 us). Whether it is
            wanted is decided by who asks: see levels.py.
            """
            line: Any = event
            try:
                for processor in self._processors:
                    line = processor(self._logger, method, line)
            except structlog.DropEvent:
                return
            self._logger.msg(line)

    return Logger


def _as_json(_: Any, method: str, event: EventDict) -> bytes:
    """One processor where structlog has four (level, time, tracebacks, JSON): 3 us a line instead of 9."""
    now = datetime.now(UTC)
    line = {"timestamp": now, "level": method, **event}
    line["level"] = method  # and nothing else: collectors go by it
    try:
        return orjson.dumps(line, option=orjson.OPT_UTC_Z, default=repr)
    except TypeError:  # half a surrogate, a number above 64 bits: rare, and whoever logs must not be the one to hear it
        stamp = now.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
        return json.dumps({"timestamp": stamp, **event, "level": method}, default=repr).encode()


def where(error: BaseException) -> list[str]:
    """Where it was raised, innermost last. Neither its text nor a variable: both may hold a key or a prompt."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return [f"{frame.filename.rpartition('/site-packages/')[2]}:{frame.lineno} {frame.name}" for frame in frames]


def flush() -> None:
    """Write what waits; for a process that ends without Python's own farewell."""
    if _lines is not None:
        _lines.flush()


def count_dropped(count: Callable[[int], None]) -> None:
    """Tell `count` of each line that nobody took."""
    if _lines is not None:
        _lines.on_dropped = count


def _bridge(record: logging.LogRecord) -> None:
    if record.msg == _UNFINISHED:
        return
    fields: dict[str, Any] = {"logger": record.name}
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        fields |= {"kind": type(error).__name__, "where": where(error)}
    said = record.getMessage()
    if record.name == "asyncio":  # it quotes arguments, and exceptions with their text
        said = _QUOTED.split(said, 1)[0].strip()
    structlog.get_logger().log(record.levelno, said, **fields)
