"""Every error has a place in the protocol, and a sentence that helps without telling secrets."""

import re
from collections.abc import Iterator

import pytest

from weir.core import errors
from weir.core.errors import GatewayError, Unauthenticated, UpstreamTimeout


def descend(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from descend(child)


KINDS = [kind for kind in descend(GatewayError) if kind.__module__ == errors.__name__]
EVERY = pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])

CONTRACT = {
    # the codes that clients are written against
    "ModelNotFound": (404, "model_not_found"),
    "Unauthenticated": (401, "invalid_api_key"),
    "KeyMissing": (401, "invalid_api_key"),
    "RequestsExceeded": (429, "rate_limit_exceeded"),
    "TokensExceeded": (429, "tokens_exceeded"),
    "ConcurrencyExceeded": (429, "concurrency_exceeded"),
    "RequestTooLargeForLimit": (429, "request_too_large_for_limit"),
    "UpstreamUnreachable": (502, "upstream_unreachable"),
    "UpstreamFailed": (502, "upstream_error"),
    "UpstreamBroke": (502, "upstream_error"),
    "EndpointsFull": (503, "overloaded"),
    "UpstreamTimeout": (504, "upstream_timeout"),
    "UpstreamBusy": (503, "upstream_overloaded"),
    "BodyTooLarge": (413, "request_too_large"),
    "BodyTimeout": (408, "request_timeout"),
    "UnsupportedEncoding": (415, "unsupported_content_encoding"),
}


@pytest.mark.parametrize("name", CONTRACT)
def test_contract(name: str) -> None:
    kind = getattr(errors, name)
    assert (kind.status, kind.code) == CONTRACT[name]


@EVERY
def test_has_its_place_in_the_protocol(kind: type[GatewayError]) -> None:
    assert 400 <= kind.status <= 599
    assert re.fullmatch(r"[a-z_]+", kind.type)
    assert re.fullmatch(r"[a-z_]+", kind.code)
    assert re.fullmatch(r"[a-z_]+", kind.outcome)
    assert kind.outcome != "ok"


@EVERY
def test_has_a_whole_sentence(kind: type[GatewayError]) -> None:
    assert kind.message[0].isupper()
    assert kind.message.endswith(".")


def test_every_401_begins_as_clients_expect() -> None:
    for kind in descend(Unauthenticated):
        assert kind.message.startswith("Incorrect API key provided")


@pytest.mark.parametrize("phase", ["connect", "first byte", "idle", "total"])
def test_a_timeout_names_its_phase_and_its_time(phase: str) -> None:
    error = UpstreamTimeout(phase, 2.5)
    assert f"(timeout phase: {phase})" in error.text
    assert "2.5 seconds" in error.text


def test_the_reason_is_not_in_the_text() -> None:
    error = GatewayError(reason="canary", param="p", retry_after=2.0, should_retry=False)
    assert "canary" not in error.text + str(error)
    assert (error.reason, error.param, error.retry_after, error.should_retry) == ("canary", "p", 2.0, False)
