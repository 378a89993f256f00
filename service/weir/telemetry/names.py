"""Every metric's name, help and buckets, in Prometheus' words. Labels are bounded sets, listed with each."""

REQUESTS = ("weir_requests_total", "Requests by how they ended.", ("team", "model", "operation", "outcome", "status"))
DURATION = ("weir_request_duration_seconds", "From the first byte in to the last byte out.", ("model", "operation"))
FIRST_TOKEN = ("weir_time_to_first_token_seconds", "From the first byte in to the first byte out.", ("model",))
OVERHEAD = ("weir_overhead_seconds", "Weir's own part of a request, Redis included.", ())
TOKENS = (
    "weir_tokens_total",
    "Tokens by direction (input, output) and by who counted.",
    ("team", "model", "direction", "source"),
)
IN_FLIGHT = ("weir_in_flight_requests", "Requests under way.", ())
DECISIONS = (
    "weir_limit_decisions_total",
    "Limit decisions; shadow is a refusal that was not made.",
    ("team", "limit", "decision"),
)
DEGRADED = ("weir_degraded", "1 while Redis is away.", ())
UNSETTLED = ("weir_unsettled_reservations", "Settlements waiting for Redis.", ())
WAITING = ("weir_waiting_requests", "Requests that wait for a place, because as many as allowed are under way.", ())
SETTLEMENTS = (
    "weir_settlements_total",
    "Settlements that Redis did not hear at once: replayed since, or dropped because too many waited.",
    ("state",),
)
UPSTREAM_EVENTS = (
    "weir_upstream_events_total",
    "What was done about trouble upstream: retry, fallback, ejected, restored.",
    ("model", "endpoint", "event"),
)
EJECTED = ("weir_endpoint_ejected", "1 while an endpoint is left alone because it failed.", ("model", "endpoint"))
REPLICAS = ("weir_replicas", "Processes that share the limits, as this one counts them.", ())
GENERATION = ("weir_config_generation", "1 for the configuration at start, 1 more with each that was taken since.", ())
RELOAD_FAILURES = ("weir_config_reload_failures_total", "Configurations that were refused while running.", ())
BUILD = ("weir_build_info", "1, labelled with the version.", ("version",))

LONG_BUCKETS = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
    163.84,
    327.68,
    600.0,
)
FIRST_TOKEN_BUCKETS = (
    0.005,
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.0,
    2.5,
    5.0,
    10.0,
    20.0,
    40.0,
    80.0,
    160.0,
    300.0,
    600.0,
)
OVERHEAD_BUCKETS = (
    0.0001,
    0.0002,
    0.0003,
    0.0005,
    0.00075,
    0.001,
    0.002,
    0.004,
    0.008,
    0.016,
    0.032,
    0.064,
    0.128,
    0.25,
)

OTHER = "other"  # what a label says when it would be one too many
TEAMS_MAX = 1000  # teams with series of their own in one process
