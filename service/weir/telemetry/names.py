"""Every metric: its name, what it says, its labels and buckets, in Prometheus' words. Dashboards, rules and runbooks
use these names and no others, and each of these is used by one of them; a test holds both.

Labels are bounded sets. `team` and `model` are configured or created names, never what a client wrote; beyond TEAMS_MAX
teams, and beyond SERIES_MAX label sets of one metric, they say `other`. Never a key, a path, or a text of the caller's.
"""

from typing import NamedTuple


class Metric(NamedTuple):
    """A counter if its name ends with `_total`, a histogram if it has buckets, else a gauge."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# The doubling that OpenTelemetry's GenAI conventions give, continued to the official SDKs' longest wait.
LONG = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 600.0)
FIRST = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 600.0)
PER_TOKEN = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
SHORT = (
    *(0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.00075),
    *(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25),
)
WAIT = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
RATIO = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
BATCH = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
LAG = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

# -- requests

REQUESTS = Metric(
    "weir_requests_total",
    "Requests by how they ended: ok, refused_*, client_disconnect, upstream_*, drained and so on; status is 2xx, 4xx.",
    ("team", "model", "operation", "outcome", "status"),
)
DURATION = Metric(
    "weir_request_duration_seconds", "From the first byte in to the last byte out.", ("model", "operation"), LONG
)
FIRST_TOKEN = Metric(
    "weir_time_to_first_token_seconds", "Of streams: from the first byte in to the first byte out.", ("model",), FIRST
)
PER_OUTPUT_TOKEN = Metric(
    "weir_time_per_output_token_seconds",
    "Of complete streams: the time behind the first byte, by each further token.",
    ("model",),
    PER_TOKEN,
)
OVERHEAD = Metric("weir_overhead_seconds", "Weir's own part of a request, Redis included.", (), SHORT)
QUEUE_WAIT = Metric("weir_queue_wait_seconds", "Wait for a place, of requests that had to.", ("model",), WAIT)
IN_FLIGHT = Metric("weir_in_flight_requests", "Requests under way.")
WAITING = Metric("weir_waiting_requests", "Requests that wait for a place, because as many as allowed are under way.")

# -- tokens and money

TOKENS = Metric(
    "weir_tokens_total",
    "Tokens, and who counted: reported, counted, estimated. cached_input is part of input, reasoning_output of output.",
    ("team", "model", "direction", "source"),
)
COST = Metric(
    "weir_cost_usd_total", "US dollars at the configured price of the model that answered.", ("team", "model")
)
ESTIMATE = Metric(
    "weir_prompt_estimate_ratio",
    "Estimated prompt tokens by reported ones: 1 is exact, below it too little was reserved.",
    ("model",),
    RATIO,
)

# -- limits

DECISIONS = Metric(
    "weir_limit_decisions_total",
    "Limit decisions: allowed, refused, and shadow for a refusal that was not made.",
    ("team", "limit", "decision"),
)
LIMIT_USED = Metric(
    "weir_limit_used_ratio",
    "How much of a limit is used up, 1 is all; of the limits of a team's keys the fullest. Above 1 is debt.",
    ("team", "limit"),
)
DEGRADED = Metric("weir_degraded", "1 while Redis is away.")
DEGRADED_REQUESTS = Metric(
    "weir_degraded_requests_total", "Requests that were let through on local limits, while Redis was away.", ("team",)
)
UNSETTLED = Metric("weir_unsettled_reservations", "Settlements waiting for Redis.")
SETTLEMENTS = Metric(
    "weir_settlements_total",
    "Settlements that Redis did not hear at once: replayed since, or dropped because too many waited.",
    ("state",),
)
REPLICAS = Metric("weir_replicas", "Processes that share the limits, as this one counts them.")
REDIS_SECONDS = Metric(
    "weir_redis_round_trip_seconds", "From a batch of commands out to its first reply.", (), (*SHORT, 0.5, 1.0)
)
REDIS_BATCH = Metric("weir_redis_batch_commands", "Commands that went to Redis as one write.", (), BATCH)

# -- upstream

ATTEMPTS = Metric(
    "weir_upstream_attempts_total",
    "Sendings to an endpoint by what came of it: ok, a status, or a word for what went wrong.",
    ("model", "endpoint", "result"),
)
UPSTREAM_FIRST_BYTE = Metric(
    "weir_upstream_first_byte_seconds",
    "From the sending of a request to the first byte of its answer; where that is no stream, to the last.",
    ("model", "endpoint"),
    FIRST,
)
UPSTREAM_EVENTS = Metric(
    "weir_upstream_events_total",
    "What was done about trouble upstream: retry, fallback, passed_over (a fallback), ejected, restored.",
    ("model", "endpoint", "event"),
)
ENDPOINT_IN_FLIGHT = Metric("weir_endpoint_in_flight", "Requests under way at an endpoint.", ("model", "endpoint"))
EJECTED = Metric("weir_endpoint_ejected", "1 while an endpoint is left alone because it failed.", ("model", "endpoint"))

# -- the process

GENERATION = Metric(
    "weir_config_generation", "1 for the configuration at start, 1 more with each that was taken since."
)
RELOAD_FAILURES = Metric("weir_config_reload_failures_total", "Configurations that were refused while running.")
DRAINING = Metric("weir_draining", "1 from the order to stop until the end.")
LOOP_LAG = Metric("weir_event_loop_lag_seconds", "How late the event loop woke a timer.", (), LAG)
LOG_DROPPED = Metric(
    "weir_log_lines_dropped_total", "Lines of the log that were dropped, because nobody read those before them."
)
SPANS = Metric("weir_spans_total", "Spans by what became of them: exported, failed, dropped.", ("result",))
BUILD = Metric("weir_build_info", "1, labelled with the version.", ("version",))

ALL: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))

OTHER = "other"  # what a label says when it would be one too many
TEAMS_MAX = 1000  # teams with series of their own in one process
SERIES_MAX = 10_000  # label sets of one metric in one process
