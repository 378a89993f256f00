"""Streams of a model that says something every 50 s, through a real nginx and a real haproxy: nobody may cut them."""

from concurrent.futures import ThreadPoolExecutor

from tests.fakes.ingress import KINDS, Ingress, MissingProxyError, ingress
from tests.system.harness import Admin, Key, RawExchange, Weir, chat_bytes, choose_redis, configuration, redis_server

GAP = 50.0  # seconds
EVENTS = 4  # the role, one word, the end, the usage
SECONDS = GAP * EVENTS


def run() -> list[str]:
    """A sentence for each stream that did not come whole; takes some SECONDS."""
    models = [{"name": "slow", "backend": "echo", "echo": {"delay_ms": GAP * 1000}}]
    with redis_server(choose_redis()) as address, Weir(configuration(f"{address}/0", models)) as weir:
        admin = Admin(f"{address}/0")
        key = admin.key(admin.team())
        with ThreadPoolExecutor(len(KINDS)) as pool:
            return [found for found in pool.map(lambda kind: _through(kind, weir, key), KINDS) if found]


def _through(kind: str, weir: Weir, key: Key) -> str:
    try:
        with ingress(kind, weir.port, Ingress(timeout_seconds=60)) as port:
            sent = chat_bytes(key, "slow", "one", stream=True, stream_options={"include_usage": True})
            with RawExchange(port, sent, timeout=GAP * 2) as stream:
                body = stream.read().body
    except MissingProxyError as missing:
        return str(missing)
    except Exception as error:
        return f"through {kind} a stream of gaps broke off: {error!r}"
    if not body.rstrip().endswith(b"data: [DONE]"):
        return f"through {kind} a stream of gaps ended with {body[-100:]!r}"
    pings = body.count(b": ping\n\n")
    return "" if pings >= EVENTS else f"through {kind} only {pings} comments came in {SECONDS:g} s of silence"
