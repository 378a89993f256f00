"""What is our own time: from the first byte in to the sending, and from the answer to the first byte out."""

from time import perf_counter

import pytest

from weir.core.exchange import Exchange

ROWS = [
    # started, sent, answered, first byte, ended: overhead
    pytest.param(10.0, 10.5, 14.0, 14.25, 20.0, 0.75, id="complete"),
    pytest.param(10.0, 0.0, 0.0, 0.0, 10.5, 0.5, id="refused"),
    pytest.param(10.0, 10.5, 0.0, 0.0, 20.0, 0.5, id="upstream-failed"),
    pytest.param(10.0, 10.5, 14.0, 0.0, 20.0, 0.5, id="no-byte-came"),
    pytest.param(10.0, 10.5, 14.0, 13.0, 20.0, 0.5, id="clocks-do-not-make-it-negative"),
]


@pytest.mark.parametrize(("started", "sent", "answered", "first", "ended", "overhead"), ROWS)
def test_overhead(*, started: float, sent: float, answered: float, first: float, ended: float, overhead: float) -> None:
    exchange = Exchange("id", "chat", started=started)
    exchange.sent, exchange.answered, exchange.first_byte, exchange.ended = sent, answered, first, ended
    assert exchange.overhead == overhead
    assert exchange.duration == ended - started


WAITS = [
    # what it waited for, and when that was there        what is left is ours
    pytest.param({"reading": 10.1, "read": 14.1, "sent": 15.0, "ended": 20.0}, 1.0, id="a-body-that-drips"),
    pytest.param({"reading": 10.1, "ended": 40.0}, 0.1, id="a-body-that-never-came"),
    pytest.param({"reading": 10.1, "read": 10.1, "admitted": 10.25, "ended": 20.0}, 0.25, id="a-place-that-never-came"),
    pytest.param({"reading": 10.0, "read": 11.0, "admitted": 11.5, "queued": 2.0, "sent": 14.0, "ended": 20.0}, 1.0, id="both"),
]  # fmt: skip


@pytest.mark.parametrize(("marks", "overhead"), WAITS)
def test_what_is_waited_for_is_not_ours(*, marks: dict[str, float], overhead: float) -> None:
    exchange = Exchange("id", "chat", started=10.0)
    for name, at in marks.items():
        setattr(exchange, name, at)
    assert exchange.overhead == pytest.approx(overhead)


def test_the_first_byte_is_marked_with_the_time() -> None:
    exchange = Exchange("id", "chat")
    exchange.mark_first_byte()
    assert exchange.first_byte >= exchange.started > 0


def test_only_who_waited_has_waited() -> None:
    exchange = Exchange("id", "chat")
    exchange.admitted = perf_counter() - 0.5
    exchange.mark_placed(waited=False)
    assert exchange.queued == 0, "what our own steps take is overhead"
    exchange.mark_placed(waited=True)
    assert 0.5 <= exchange.queued < 5
