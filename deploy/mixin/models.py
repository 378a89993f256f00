"""How do the models and the engines behind them do?"""

from deploy.mixin.board import Board, Row, Unit, area, bars, heat, lines
from deploy.mixin.objectives import faults, late, streams, valid
from deploy.mixin.promql import BOARD as Q
from deploy.mixin.promql import share
from weir.telemetry import names

_THESE = {"model": "~$model"}
_MODEL, _ENDPOINT = "{{model}}", "{{model}} {{endpoint}}"
_SENT = Q.rate(names.ATTEMPTS, "model", "endpoint", **_THESE)
_OK = Q.rate(names.ATTEMPTS, "model", "endpoint", result="ok", **_THESE)

MODELS = Board(
    "weir-models",
    "Weir / Models and engines",
    "How do the models and the engines behind them do?",
    variables=(("model", names.REQUESTS),),
    rows=(
        Row(
            "Models",
            (
                area("Requests by model", "What is asked of which model?", Unit.RATE, (Q.rate(names.REQUESTS, "model", **_THESE), _MODEL)),
                lines("Failures by model", "Which share of the requests to a model fails, and not by the caller's doing? 'other' is what failed before its model was known.", Unit.SHARE, (share(faults(Q, "model", **_THESE), valid(Q, "model", **_THESE)), _MODEL)),
                area("Output by model", "How many tokens a second does a model say?", Unit.EACH_SECOND, (Q.rate(names.TOKENS, "model", direction="output", **_THESE), _MODEL)),
            ),
        ),
        Row(
            "How long they take",
            (
                heat("First token", "How long do streams let their readers wait?", Unit.SECONDS, names.FIRST_TOKEN, **_THESE),
                heat("Each further token", "How fast do streams go on, by each further token?", Unit.SECONDS, names.PER_OUTPUT_TOKEN, **_THESE),
                heat("Wait for a place", "How long do requests wait because an endpoint's max_in_flight is reached?", Unit.SECONDS, names.QUEUE_WAIT, **_THESE),
                lines("First token by model", "How long does the slowest twentieth of a model's streams take to begin?", Unit.SECONDS, (Q.quantile(0.95, names.FIRST_TOKEN, "model", **_THESE), _MODEL), limit=2.5),
                lines("Late first tokens by model", "Which share of a model's streams begins later than 2.5 s?", Unit.SHARE, (share(late(Q, "model", **_THESE), streams(Q, "model", **_THESE)), _MODEL), limit=0.05),
                lines("Each further token by model", "How slow is a model's slowest twentieth of streams, by each further token?", Unit.SECONDS, (Q.quantile(0.95, names.PER_OUTPUT_TOKEN, "model", **_THESE), _MODEL)),
                lines("Wait for a place by model", "How long does the slowest twentieth of those wait who have to?", Unit.SECONDS, (Q.quantile(0.95, names.QUEUE_WAIT, "model", **_THESE), _MODEL)),
                lines("Duration by model", "How long does the slowest twentieth of a model's requests take as a whole?", Unit.SECONDS, (Q.quantile(0.95, names.DURATION, "model", **_THESE), _MODEL)),
            ),
        ),
        Row(
            "Sending",
            (
                area("Attempts by result", "What comes of what is sent to the engines: ok, a status, or a word for what went wrong?", Unit.RATE, (Q.rate(names.ATTEMPTS, "result", **_THESE), "{{result}}")),
                area("Retries, fallbacks, ejections", "What is done about trouble?", Unit.RATE, (Q.rate(names.UPSTREAM_EVENTS, "event", **_THESE), "{{event}}")),
                lines(
                    "Refused credentials", "Which engine refuses our key? 401 and 403 are never the caller's key.", Unit.RATE,
                    (Q.rate(names.ATTEMPTS, "model", "endpoint", "result", result="~401|403", **_THESE), "{{model}} {{endpoint}} {{result}}"),
                ),
            ),
        ),
        Row(
            "Endpoints",
            (
                bars("Ejected endpoints", "Which endpoints are left alone because they failed? 1 is ejected, as any process sees it.", Unit.NUMBER, (Q.gauge("max", names.EJECTED, "model", "endpoint", **_THESE), _ENDPOINT), most=1, limit=1),
                lines("Failing attempts", "Which share of what an endpoint is sent comes to nothing?", Unit.SHARE, (f"1 - {share(_OK, _SENT)}", _ENDPOINT), limit=0.1),
                lines("Requests at an endpoint", "How many requests are at each endpoint, and are they spread?", Unit.NUMBER, (Q.gauge("sum", names.ENDPOINT_IN_FLIGHT, "model", "endpoint", **_THESE), _ENDPOINT)),
                heat("First byte of an endpoint", "How long do engines take to begin an answer?", Unit.SECONDS, names.UPSTREAM_FIRST_BYTE, **_THESE),
                lines("First byte by endpoint", "Which engine is slow: how long does the slowest twentieth of its answers take to begin?", Unit.SECONDS, (Q.quantile(0.95, names.UPSTREAM_FIRST_BYTE, "model", "endpoint", **_THESE), _ENDPOINT)),
                area("Attempts by endpoint", "How much is each endpoint sent?", Unit.RATE, (_SENT, _ENDPOINT)),
            ),
        ),
    ),
)  # fmt: skip
