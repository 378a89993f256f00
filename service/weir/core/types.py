"""The nouns that travel between rooms. Each is made by one room and read by others."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Scope = Literal["key", "team"]
Unit = Literal["requests", "tokens", "concurrency"]
SCOPES: tuple[Scope, ...] = ("key", "team")
UNITS: tuple[Unit, ...] = ("requests", "tokens", "concurrency")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. Given by `auth` alone, and asked for by whatever spends on somebody's behalf.

    `digest` is the hexadecimal digest of the presented key: admission sees with it, inside the one atomic step, that
    the key is still the one that was looked up.
    """

    team: str
    key_id: str
    digest: str


class Usage(NamedTuple):
    """What a model said it used, in tokens; `cached` is part of `input`, `reasoning` of `output`."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Window(NamedTuple):
    """One limit as it stands: `limit` units refill over `seconds`, `remaining` are left, full again after `reset`.

    For concurrency `seconds` and `reset` are 0: it is a number of places, not a rate. `remaining` below 0 is debt.
    """

    scope: Scope
    unit: Unit
    limit: int
    remaining: int
    seconds: int
    reset: float
    shadow: bool = False


TokensFrom = Literal["reported", "counted", "estimated", "none"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `first_byte` counts from the sending of the request, `idle` between two reads."""

    connect: float = 2.0
    first_byte: float = 300.0
    idle: float = 120.0
    total: float = 3600.0


class HealthCheck(NamedTuple):
    """A look at an endpoint every `interval` seconds: GET `path`, counted from the server's root, must give a 2xx."""

    path: str = "/health"
    interval: float = 5.0
    timeout: float = 2.0


@dataclass(slots=True, eq=False)
class Standing:
    """How an endpoint has done lately; written by `routing/health.py` alone. Counts are of what came in a row."""

    failures: int = 0
    unreached: int = 0  # of those that asked it, who found nobody there
    unwell: int = 0  # failed health checks
    gone: bool = False  # ejected because nobody is there, and not for its answers, which a client may provoke
    probing: bool = False  # the one request that may see whether it is back is under way
    out_since: float = 0.0
    out_until: float = 0.0  # infinite: until a health check succeeds
    back_since: float = 0.0
    ejections: int = 0  # without a long good time in between


@dataclass(slots=True, eq=False)
class Endpoint:
    """One upstream address of a model. `in_flight` is the number of requests that this process has there now.

    `prefix` and `query` stand around the path that is asked there: a deployment, and the version of an API.
    """

    url: str
    weight: float = 1.0
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # holds the upstream's key: never printed
    in_flight: int = 0
    model: str = ""  # whose address it is, for logs and metrics
    max_in_flight: int | None = None
    health: HealthCheck | None = None
    ejected: bool = False
    standing: Standing = field(default_factory=Standing, repr=False)
    prefix: str = ""
    query: str = ""
    provider: str = "openai"  # whose API it is, by OpenTelemetry's names


EMBEDDED = "embedded"  # the address of a model in this process


class Price(NamedTuple):
    """US dollars for a million tokens."""

    input: float = 0.0
    output: float = 0.0

    def of(self, usage: Usage) -> float:
        """US dollars."""
        return (usage.input_tokens * self.input + usage.output_tokens * self.output) / 1e6


FREE = Price()


@dataclass(frozen=True, slots=True)
class Route:
    """Where a model's requests go, compiled from the configuration at start."""

    model: str
    backend: str
    upstream_model: str
    endpoints: Sequence[Endpoint]
    timeouts: Timeouts = Timeouts()
    default_max_tokens: int = 4096
    always_cap: bool = False
    max_tokens_field: str = "max_tokens"
    owned_by: str = "weir"
    aliases: tuple[str, ...] = ()
    retries: int = 2  # before the first byte only, each at another endpoint if there is one
    fallbacks: tuple[str, ...] = ()  # models to try where all of its endpoints failed; theirs do not count
    places: int | None = None  # how many requests its endpoints take together, None if as many as come
    early_headers: bool = False
    price: Price = FREE
    says_done: bool = True  # its streams of chat end with [DONE]; else with their last finish reason
    thinks: bool = True  # False: who asks it to think is refused
    serves: frozenset[str] | None = None  # operations that upstream knows itself, None for all; others are translated


BURST_SECONDS = 60
# A bucket's level is counted in parts of a unit (see admission/token_bucket.py) and must stay exact in Lua's doubles.
MAX_PER_MINUTE_TIMES_BURST = (2**53 - 1) // 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key or a team may use. None is no limit; no models are all models.

    `models` are glob patterns. `shadow` names limits that count and report but refuse nothing.
    """

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    burst_seconds: int = BURST_SECONDS
    models: tuple[str, ...] = ()
    shadow: frozenset[Unit] = frozenset()


class Ask(NamedTuple):
    """What one request asks of its limits. Tokens are model tokens; `output_tokens` is per choice, None if open."""

    model: str
    asked_as: str
    prompt_tokens: int
    output_tokens: int | None
    choices: int = 1
    default_output_tokens: int = 4096
