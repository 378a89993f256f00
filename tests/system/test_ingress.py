"""Behind a real nginx and a real haproxy, set as the chart's annotations say: nothing is held back, and no silence cuts.

Streams with 50 s between two events are in `make soak`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPException

import httpx
import pytest

from tests.fakes.ingress import KINDS, Ingress, MissingProxyError, ingress
from tests.system.harness import Admin, RawExchange, Upstream, Weir, chat_bytes, configuration, model, unique

MAX_BODY = 1 << 20
GAP = 3.0  # seconds between two events; longer than the proxy's patience below
PATIENCE = 2

Start = Callable[..., int]

by_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def before() -> Iterator[Callable[[str, Weir, Ingress], int]]:
    with ExitStack() as stack:

        def start(kind: str, weir: Weir, settings: Ingress) -> int:
            try:
                return stack.enter_context(ingress(kind, weir.port, settings))
            except MissingProxyError as missing:
                pytest.skip(str(missing))

        yield start


@pytest.fixture(scope="module")
def gated(redis_url: str, upstream: Upstream) -> Iterator[Weir]:
    models = [model("chat", upstream.url), {"name": "echo", "backend": "echo"}]
    with Weir(configuration(redis_url, models, server={"max_body_bytes": MAX_BODY})) as weir:
        yield weir


@pytest.fixture
def slow(redis_url: str) -> Iterator[Callable[[float], Weir]]:
    """Weir whose model says something every GAP seconds, and who says `: ping` after that many of silence."""
    with ExitStack() as stack:

        def start(ping: float) -> Weir:
            models = [{"name": "slow", "backend": "echo", "echo": {"delay_ms": GAP * 1000}}]
            return stack.enter_context(Weir(configuration(redis_url, models, server={"sse_keepalive_seconds": ping})))

        yield start


def delay(weir: Weir, upstream: Upstream, admin: Admin, port: int) -> float:
    """Seconds from the moment in which the model says something to the one in which a client behind the proxy has it."""
    gate = unique("gate")
    sent = chat_bytes(admin.key(), "chat", stream=True, x_script={"gate": gate})
    with RawExchange(port, sent) as stream:
        assert stream.read_event().startswith(b"data: "), "the first event is there, and the second is not yet said"
        said = time.perf_counter()
        upstream.open_gate(gate)
        stream.read_event()
        return time.perf_counter() - said


@by_kind
def test_nothing_is_held_back(
    kind: str, gated: Weir, upstream: Upstream, admin: Admin, before: Callable[[str, Weir, Ingress], int]
) -> None:
    port = before(kind, gated, Ingress(3600, MAX_BODY))
    # The best of some: what buffers does it every time.
    assert min(delay(gated, upstream, admin, port) for _ in range(5)) < 0.05


def test_nor_where_the_proxy_would_buffer(
    gated: Weir, upstream: Upstream, admin: Admin, before: Callable[[str, Weir, Ingress], int]
) -> None:
    """Without any annotation: our own x-accel-buffering says it to every nginx."""
    port = before("nginx", gated, Ingress(3600, MAX_BODY, buffering=True))
    assert min(delay(gated, upstream, admin, port) for _ in range(5)) < 0.05


@by_kind
def test_a_body_is_bounded_once_and_in_our_words(
    kind: str, gated: Weir, admin: Admin, before: Callable[[str, Weir, Ingress], int]
) -> None:
    port, key = before(kind, gated, Ingress(3600, MAX_BODY)), admin.key()

    def ask(size: int) -> httpx.Response:
        body = {"model": "echo", "messages": [{"role": "user", "content": "x" * size}]}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        return httpx.post(url, json=body, headers=key.headers, trust_env=False, timeout=30)

    assert ask(MAX_BODY - 1000).status_code == 200
    assert ask(MAX_BODY + 1000).status_code == 413


def whole(port: int, admin: Admin) -> bytes:
    """All that comes of a stream that is silent for GAP seconds again and again."""
    with RawExchange(port, chat_bytes(admin.key(), "slow", "one", stream=True)) as stream:
        return stream.read().body


@by_kind
def test_silence_longer_than_the_proxys_patience_does_not_cut(
    kind: str, slow: Callable[[float], Weir], admin: Admin, before: Callable[[str, Weir, Ingress], int]
) -> None:
    body = whole(before(kind, slow(1.0), Ingress(PATIENCE)), admin)
    assert body.rstrip().endswith(b"data: [DONE]")
    assert body.count(b": ping\n\n") >= 4


@by_kind
def test_without_pings_it_would(
    kind: str, slow: Callable[[float], Weir], admin: Admin, before: Callable[[str, Weir, Ingress], int]
) -> None:
    try:
        body = whole(before(kind, slow(60.0), Ingress(PATIENCE)), admin)
    except (OSError, HTTPException, AssertionError):
        return  # cut before its head, or in the middle
    assert b"[DONE]" not in body
