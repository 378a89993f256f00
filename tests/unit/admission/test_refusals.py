"""Which refusal, and what its sentence tells: whose limit, how large, how much is left, when to come back."""

import pytest

from weir.admission.refusals import NEVER, UNKNOWN, refusal
from weir.core.errors import (
    ConcurrencyExceeded,
    LimitExceeded,
    RequestsExceeded,
    RequestTooLargeForLimit,
    TokensExceeded,
)
from weir.core.types import Scope, Unit, Window

WINDOWS = (
    Window("key", "requests", 60, 0, 30, 30.0),
    Window("key", "tokens", 1_000, 120, 60, 52.8),
    Window("key", "concurrency", 5, 0, 0, 0.0),
    Window("team", "requests", 600, 3, 60, 59.7),
    Window("team", "tokens", 20_000, -40, 60, 60.12),
    Window("team", "concurrency", 50, 0, 0, 0.0),
)

ROWS = [
    # scope, unit, wait in us, needed     class, retry after, x-should-retry, in the sentence
    pytest.param(
        "key", "requests", 2_500_000, 1, RequestsExceeded, 2.5, None,
        ["your key", "60 requests per 30 seconds", "0 left", "2.5 seconds"], id="requests",
    ),
    pytest.param(
        "team", "requests", 1, 1, RequestsExceeded, 1e-6, None, ["your team", "600 requests", "3 left"], id="team"
    ),
    pytest.param(
        "key", "tokens", 1_234_500, 300, TokensExceeded, 1.2345, None,
        ["your key", "1000 tokens per 60 seconds", "120 left", "300"], id="tokens",
    ),
    pytest.param(
        "team", "tokens", 60_000_000, 300, TokensExceeded, 60.0, None, ["your team", "60 seconds"], id="a-minute"
    ),
    pytest.param("key", "tokens", 60_000_001, 300, TokensExceeded, 60.000001, False, [], id="more-than-a-minute"),
    pytest.param(
        "key", "tokens", NEVER, 1_001, RequestTooLargeForLimit, None, False,
        ["your key", "1001", "1000", "waiting does not help"], id="too-large",
    ),
    pytest.param(
        "key", "concurrency", UNKNOWN, 700, ConcurrencyExceeded, 1.0, None,
        ["your key", "5 requests at once", "5 are running", "0 left", "1 second"], id="places",
    ),
    pytest.param(
        "team", "concurrency", UNKNOWN, 700, ConcurrencyExceeded, 1.0, None, ["your team", "50"], id="team-places"
    ),
]  # fmt: skip


@pytest.mark.parametrize(("scope", "unit", "wait", "needed", "kind", "retry", "should", "said"), ROWS)
def test_refusal(
    *,
    scope: Scope,
    unit: Unit,
    wait: int,
    needed: int,
    kind: type[LimitExceeded],
    retry: float | None,
    should: bool | None,
    said: list[str],
) -> None:
    error = refusal(scope, unit, wait, needed, WINDOWS)
    assert type(error) is kind
    assert error.status == 429
    assert error.retry_after == retry
    assert error.should_retry is should
    assert (error.window.scope, error.window.unit) == (scope, unit)
    assert tuple(error.windows) == WINDOWS
    for part in said:
        assert part in error.text


CODES = [
    (RequestsExceeded, "rate_limit_exceeded"),
    (TokensExceeded, "tokens_exceeded"),
    (ConcurrencyExceeded, "concurrency_exceeded"),
    (RequestTooLargeForLimit, "request_too_large_for_limit"),
]


@pytest.mark.parametrize(("kind", "code"), CODES)
def test_code(kind: type[LimitExceeded], code: str) -> None:
    assert kind.code == code


def test_outcomes_tell_the_kinds_apart() -> None:
    assert len({kind.outcome for kind, _ in CODES}) == len(CODES)


def test_a_wait_too_short_to_write_is_not_written_as_none() -> None:
    assert "0.001 seconds" in refusal("key", "requests", 1, 1, WINDOWS).text


def test_debt_is_not_shown_as_requests_left_below_zero() -> None:
    windows = (Window("key", "requests", 60, -3, 60, 63.0),)
    assert "0 left" in refusal("key", "requests", 4_000_000, 1, windows).text
