"""Who uses what, what does it cost, and who is near a limit?"""

from deploy.mixin.board import Board, Row, Unit, area, bars, columns, heat, lines, one
from deploy.mixin.objectives import CALLER, FAULT, faults, valid
from deploy.mixin.promql import BOARD as Q
from deploy.mixin.promql import share
from weir.telemetry import names

_ALL = Q.over("$__range")
_TEAM = {"team": "~$team"}
_USE = {"team": "~$team", "model": "~$model"}
_BY_TEAM = "{{team}}"


def _tokens(*by: str, **more: str) -> str:
    return Q.rate(names.TOKENS, *by, **_USE, **more)


TEAMS = Board(
    "weir-teams",
    "Weir / Teams",
    "Who uses what, what does it cost, and who is near a limit?",
    variables=(("team", names.REQUESTS), ("model", names.REQUESTS)),
    rows=(
        Row(
            "In this time",
            (
                one("Teams", "How many teams asked for anything?", Unit.NUMBER, f"count({_ALL.increase(names.REQUESTS, 'team', **_USE)} > 0)"),
                one("Requests in all", "How many requests were there?", Unit.NUMBER, _ALL.increase(names.REQUESTS, **_USE)),
                one("Tokens in", "How many tokens were asked?", Unit.NUMBER, _ALL.increase(names.TOKENS, direction="input", **_USE)),
                one("Tokens out", "How many tokens were answered?", Unit.NUMBER, _ALL.increase(names.TOKENS, direction="output", **_USE)),
                one("Cost", "What did it cost, at the configured prices?", Unit.DOLLARS, _ALL.increase(names.COST, **_USE)),
                one(
                    "Tokens not reported", "Which share of the tokens did we have to count or estimate, because a stream was left or its server told nothing?",
                    Unit.SHARE, share(_ALL.increase(names.TOKENS, source="~counted|estimated", **_USE), _ALL.increase(names.TOKENS, **_USE)), limit=0.1,
                ),
                columns(
                    "Teams and models", "Who used how much of which model?", Unit.NUMBER,
                    (_ALL.increase(names.REQUESTS, "team", "model", **_USE), "Requests", Unit.NUMBER),
                    (_ALL.increase(names.TOKENS, "team", "model", direction="input", **_USE), "Tokens in", Unit.NUMBER),
                    (_ALL.increase(names.TOKENS, "team", "model", direction="cached_input", **_USE), "of these cached", Unit.NUMBER),
                    (_ALL.increase(names.TOKENS, "team", "model", direction="output", **_USE), "Tokens out", Unit.NUMBER),
                    (_ALL.increase(names.TOKENS, "team", "model", direction="reasoning_output", **_USE), "of these reasoning", Unit.NUMBER),
                    (_ALL.increase(names.COST, "team", "model", **_USE), "Cost", Unit.DOLLARS),
                    (_ALL.increase(names.REQUESTS, "team", "model", outcome=CALLER, **_USE), "Refused", Unit.NUMBER),
                    (_ALL.increase(names.REQUESTS, "team", "model", outcome=FAULT, **_USE), "Failed", Unit.NUMBER),
                ),
            ),
        ),
        Row(
            "Use over time",
            (
                area("Requests by team", "Who asks?", Unit.RATE, (Q.rate(names.REQUESTS, "team", **_USE), _BY_TEAM)),
                area("Tokens by team", "Who uses the models, in tokens in and out?", Unit.EACH_SECOND, (_tokens("team", direction="~input|output"), _BY_TEAM)),
                area("Tokens by model", "Which models are used?", Unit.EACH_SECOND, (_tokens("model", direction="~input|output"), "{{model}}")),
                lines(
                    "Cached share of the input", "Which share of what a team asks did the model have in its cache?", Unit.SHARE,
                    (share(_tokens("team", direction="cached_input"), _tokens("team", direction="input")), _BY_TEAM),
                ),
                lines(
                    "Reasoning share of the output", "Which share of what a team gets is thought and not said?", Unit.SHARE,
                    (share(_tokens("team", direction="reasoning_output"), _tokens("team", direction="output")), _BY_TEAM),
                ),
                area("Cost by team", "What does each team cost an hour, at the configured prices?", Unit.DOLLARS, (f"{Q.rate(names.COST, 'team', **_USE)} * 3600", _BY_TEAM)),
                area("Cost by model", "What does each model cost an hour, at the configured prices?", Unit.DOLLARS, (f"{Q.rate(names.COST, 'model', **_USE)} * 3600", "{{model}}")),
                area("Who counted the tokens", "Do the models' servers report what they used?", Unit.EACH_SECOND, (_tokens("source"), "{{source}}")),
                lines("Failures by team", "Whose requests do we fail, and which share of them?", Unit.SHARE, (share(faults(Q, "team", **_USE), valid(Q, "team", **_USE)), _BY_TEAM)),
            ),
        ),
        Row(
            "Limits",
            (
                bars(
                    "Near a limit", "How much of its limits has each team used up? 100 % is all of it, above is debt.", Unit.SHARE,
                    (Q.gauge("max", names.LIMIT_USED, "team", "limit", **_TEAM), "{{team}} {{limit}}"), width=12, limit=0.9, most=100,
                ),
                lines(
                    "Refused requests by team", "Which share of a team's requests do its limits refuse?", Unit.SHARE,
                    (share(Q.rate(names.DECISIONS, "team", decision="refused", **_TEAM), Q.rate(names.DECISIONS, "team", decision="~allowed|refused", **_TEAM)), _BY_TEAM), width=12,
                ),
                area(
                    "Refusals by limit", "Which limits refuse: the key's or the team's, of requests, tokens or places?", Unit.RATE,
                    (Q.rate(names.DECISIONS, "team", "limit", decision="refused", **_TEAM), "{{team}} {{limit}}"),
                ),
                area(
                    "Shadow refusals", "What would limits in shadow refuse, if they were real?", Unit.RATE,
                    (Q.rate(names.DECISIONS, "team", "limit", decision="shadow", **_TEAM), "{{team}} {{limit}}"),
                ),
                area(
                    "Requests on local limits", "Whose requests were let through without Redis?", Unit.RATE,
                    (Q.rate(names.DEGRADED_REQUESTS, "team", **_TEAM), _BY_TEAM),
                ),
            ),
        ),
        Row(
            "How it is for them",
            (
                heat("First token of these models", "How long do streams of the chosen models let their readers wait?", Unit.SECONDS, names.FIRST_TOKEN, width=12, model="~$model"),
                heat("Duration of these models", "How long do requests to the chosen models take?", Unit.SECONDS, names.DURATION, width=12, model="~$model"),
            ),
        ),
    ),
)  # fmt: skip
