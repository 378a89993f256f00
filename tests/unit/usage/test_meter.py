"""What every ending costs."""

import json

import pytest

from weir.core.errors import (
    ClientGone,
    ClientStalled,
    GatewayError,
    ServerDraining,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from weir.core.types import TokensFrom, Usage
from weir.usage import BodyScanner, EventScanner, Meter, Scanner

PROMPT = 40
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"aa"},"finish_reason":null}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14}}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"no"}}\n\n'
WHOLE = b'{"usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14}}'
REPORTED = Usage(11, 3)
BEGUN = b'data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":0,"total_tokens":11}}\n\n'
SO_FAR = EVENT.replace(b"}]}", b'}],"usage":{"prompt_tokens":11,"completion_tokens":%d,"total_tokens":12}}')
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
SAID_NOTHING = b'{"choices":[{"message":{"content":"%b"}}],"usage":{"prompt_tokens":11,"completion_tokens":0}}'
VECTORS = b'{"data":[{"embedding":"%b"}],"usage":{"prompt_tokens":11,"total_tokens":11}}' % (b"x" * 300)

GONE, DEAD, LATE, DRAINED = ClientGone(), UpstreamFailed(), UpstreamTimeout("idle", 1), ServerDraining()


def stream(*chunks: bytes) -> Scanner:
    scanner = EventScanner()
    for chunk in chunks:
        scanner.feed(chunk)
    return scanner


def whole(*chunks: bytes) -> Scanner:
    scanner = BodyScanner()
    for chunk in chunks:
        scanner.feed(chunk)
    return scanner


NOTHING: tuple[Usage | None, TokensFrom] = (None, "none")


def counted(output: int) -> tuple[Usage | None, TokensFrom]:
    return Usage(PROMPT, output), "counted"


ESTIMATED: tuple[Usage | None, TokensFrom] = (Usage(PROMPT, 0), "estimated")
SAID: tuple[Usage | None, TokensFrom] = (REPORTED, "reported")


def more(output: int) -> tuple[Usage | None, TokensFrom]:
    """The server's word for the prompt, and ours for the answer."""
    return Usage(11, output), "counted"


ENDINGS = [
    # what passed, the ending, what it costs
    pytest.param(None, GONE, ESTIMATED, id="client-left-before-an-answer"),
    pytest.param(None, DRAINED, ESTIMATED, id="drained-before-an-answer"),
    pytest.param(None, UpstreamUnreachable(), NOTHING, id="nobody-there"),
    pytest.param(None, DEAD, NOTHING, id="upstream-died-before-an-answer"),
    pytest.param(None, UpstreamTimeout("first byte", 1), NOTHING, id="no-first-byte"),
    pytest.param(None, UpstreamBusy(), NOTHING, id="upstream-busy"),
    pytest.param(stream(), DEAD, NOTHING, id="died-after-its-head"),
    pytest.param(stream(), GONE, counted(0), id="client-left-after-the-head"),
    pytest.param(stream(EVENT[:30]), DEAD, NOTHING, id="died-in-the-first-event"),
    pytest.param(stream(EVENT, USAGE, DONE), None, SAID, id="complete-and-reported"),
    pytest.param(stream(EVENT, EVENT, DONE), None, counted(2), id="complete-and-silent"),
    pytest.param(stream(DONE), None, counted(0), id="complete-and-empty"),
    pytest.param(stream(EVENT, EVENT, EVENT), GONE, counted(3), id="client-left-mid-stream"),
    pytest.param(stream(EVENT), ClientStalled(), counted(1), id="client-stalled-mid-stream"),
    pytest.param(stream(EVENT, EVENT[:9]), DEAD, counted(1), id="died-mid-event"),
    pytest.param(stream(EVENT), LATE, counted(1), id="fell-silent"),
    pytest.param(stream(EVENT, EVENT), DRAINED, counted(2), id="drained-mid-stream"),
    pytest.param(stream(EVENT, USAGE), DEAD, SAID, id="died-after-its-report"),
    pytest.param(stream(EVENT, USAGE), GONE, SAID, id="client-left-after-the-report"),
    pytest.param(stream(EVENT, ERROR), None, counted(1), id="error-event-mid-stream"),
    pytest.param(stream(BEGUN, EVENT, EVENT), DEAD, more(2), id="reported-at-the-beginning-and-died"),
    pytest.param(stream(BEGUN, EVENT, EVENT, DONE), None, more(2), id="reported-at-the-beginning-alone"),
    pytest.param(stream(BEGUN, LAST, DONE), None, (Usage(11, 0), "reported"), id="reported-nothing-and-said-nothing"),
    pytest.param(stream(SO_FAR % 1, SO_FAR % 1), GONE, more(2), id="reported-less-than-passed-and-left"),
    pytest.param(stream(SO_FAR % 5, SO_FAR % 9), GONE, (Usage(11, 9), "reported"), id="reported-as-it-goes-and-left"),
    pytest.param(
        stream(EVENT, EVENT, SO_FAR % 1, LAST, DONE), None, (Usage(11, 1), "reported"), id="its-word-at-the-end"
    ),
    pytest.param(whole(SAID_NOTHING % (b"x" * 100)), None, more(30), id="whole-and-reported-as-nothing"),
    pytest.param(whole(SAID_NOTHING % b""), None, (Usage(11, 0), "reported"), id="whole-and-nothing"),
    pytest.param(whole(VECTORS), None, (Usage(11, 0), "reported"), id="vectors"),
    pytest.param(whole(WHOLE), None, SAID, id="whole-and-reported"),
    pytest.param(whole(b'{"a":"' + b"x" * 92 + b'"}'), None, counted(30), id="whole-and-silent"),
    pytest.param(whole(WHOLE), GONE, SAID, id="client-left-with-the-whole-answer-under-way"),
    pytest.param(whole(b'{"a":"' + b"x" * 94), GONE, counted(30), id="client-left-in-a-large-answer"),
]


@pytest.mark.parametrize(("scanner", "ending", "costs"), ENDINGS)
def test_ending(scanner: Scanner | None, ending: GatewayError | None, costs: tuple[Usage | None, TokensFrom]) -> None:
    meter = Meter(PROMPT)
    meter.sent()
    meter.scanner = scanner
    assert meter.reading(ending) == costs


@pytest.mark.parametrize("ending", [None, GONE, DEAD, DRAINED], ids=["ok", "gone", "dead", "drained"])
def test_sound_costs_what_was_asked_from_its_first_byte_on(ending: GatewayError | None) -> None:
    meter = Meter(PROMPT)
    meter.sent()
    meter.passed()
    assert meter.reading(ending) == ESTIMATED


@pytest.mark.parametrize("ending", [None, GONE, DEAD, DRAINED], ids=["ok", "gone", "dead", "drained"])
def test_what_was_never_sent_costs_nothing(ending: GatewayError | None) -> None:
    assert Meter(PROMPT).reading(ending) == NOTHING


@pytest.mark.parametrize("ending", [None, GONE, DEAD, DRAINED], ids=["ok", "gone", "dead", "drained"])
def test_what_the_upstream_refused_costs_nothing(ending: GatewayError | None) -> None:
    meter = Meter(PROMPT)
    meter.sent()
    meter.refused()
    assert meter.reading(ending) == NOTHING


def test_several_tokens_in_one_event_do_not_make_leaving_cheap() -> None:
    words = json.dumps({"choices": [{"index": 0, "delta": {"content": "word " * 200}}]}).encode()
    meter = Meter(PROMPT)
    meter.sent()
    meter.scanner = stream(EVENT, b"data: " + words + b"\n\n")
    usage, _ = meter.reading(GONE)
    assert usage is not None
    assert usage.output_tokens >= 200
