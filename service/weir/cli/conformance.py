"""What an inference server can and cannot do: the table of checks, and asking them one after another."""

from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from weir.cli import checks
from weir.cli.engine import NOTHING_HERE, Away, Engine, Missing, Silent, Wrong

Verdict = Literal["works", "missing", "wrong"]
SILENCES_MAX = 3  # after so many nothing more is asked: each costs the whole timeout


class Check(NamedTuple):
    """`needed`: Weir cannot serve without it. `made_up`: what Weir does where an engine does not."""

    name: str
    asks: str
    look: Callable[[Engine], Awaitable[None]]
    made_up: str = ""
    needed: bool = False
    of_chat: bool = True


class Result(NamedTuple):
    name: str
    asked: str
    verdict: Verdict
    why: str
    made_up: str
    needed: bool


async def examine(engine: Engine, told: Callable[[str], None]) -> list[Result]:
    """Ask everything, one after another; `told` hears what is asked next. Raises Away where nobody was ever there."""
    results: list[Result] = []
    chats = True
    for check in CHECKS:
        told(check.name)
        skipped = _why_not_asked(engine, check, chats=chats)
        verdict: Verdict = "missing"
        why = skipped
        if not skipped:
            try:
                verdict, why = await _verdict(engine, check)
            except Away as error:
                if not results:
                    raise
                verdict, why = "wrong", f"It has gone: {error}"
        if check.name == "chat":
            chats = verdict == "works"
        made_up = "" if skipped or verdict == "works" else check.made_up
        results.append(Result(check.name, check.asks, verdict, why, made_up, check.needed))
    return _with_neither_cap(results)


def _with_neither_cap(results: list[Result]) -> list[Result]:
    """Each of the two names of the cap points to the other one, which helps where one of them works."""
    if any(result.made_up != CAPPED for result in results if result.name in CAPS):
        return results
    return [result._replace(made_up=NOT_CAPPED) if result.name in CAPS else result for result in results]


def hint(url: str, results: list[Result]) -> str:
    """What is probably the matter where an engine has nothing at any address; "" where nothing is known."""
    chat = next((result.why for result in results if result.name == "chat" and result.verdict != "works"), "")
    return FORGOTTEN_V1 if chat.startswith(NOTHING_HERE) and not urlsplit(url).path.strip("/") else ""


def _why_not_asked(engine: Engine, check: Check, *, chats: bool) -> str:
    if engine.silences >= SILENCES_MAX:
        return f"Not asked: {SILENCES_MAX} questions before it found no answer in time."
    return "Not asked: chat does not work." if check.of_chat and not chats else ""


async def _verdict(engine: Engine, check: Check) -> tuple[Verdict, str]:
    try:
        await check.look(engine)
    except Missing as error:
        return "missing", str(error)
    except (Wrong, Silent) as error:
        return "wrong", str(error)
    return "works", ""


COUNTED = "Weir counts what passes."
IN_OPENAIS_FORM = "Clients of Weir get an error of OpenAI's form all the same."
RETRIED = "Weir asks again on a new connection where nobody can have read the request."
CAPPED = "Name the other one in weir.yaml: max_tokens_field."
CAPS = ("max_tokens", "max_completion_tokens")
NOT_CAPPED = "Neither name works: answers may be longer than clients ask. Weir counts what passes."
FORGOTTEN_V1 = "There is no /v1 at the end of this address, where most engines have their API: was it forgotten?"

CHECKS = (
    Check("models", "GET /models", checks.lists_models, "Weir lists the models of its configuration.", of_chat=False),
    Check("chat", "one short answer", checks.chats, needed=True, of_chat=False),
    Check("usage", "how many tokens an answer took", checks.says_usage, COUNTED),
    Check("stream", "an answer as events, with include_usage", checks.streams, needed=True),
    Check("stream end", "finish_reason, then [DONE]", checks.ends_streams, needed=True),
    Check("stream usage", "the chunk that include_usage asks for", checks.says_usage_in_streams, COUNTED),
    Check("stream role", "the role in the first delta", checks.begins_with_the_role),
    Check("stream flow", "the first event before the last is written", checks.lets_streams_flow),
    Check("abort", "leave a long stream, then ask shortly", checks.frees_its_place),
    Check("tools", "a call of one tool", checks.calls_a_tool),
    Check("parallel tools", "calls of two tools at once", checks.calls_tools_at_once),
    Check("tool stream", "a tool call as deltas", checks.streams_a_tool_call),
    Check("json schema", "an answer of a schema", checks.keeps_to_a_schema),
    Check("json object", "an answer in JSON", checks.answers_in_json),
    Check("n", "two answers to one request", checks.gives_several_answers),
    Check("logprobs", "logprobs of an answer", checks.gives_logprobs),
    Check("stop", "to end before a word", checks.stops_at_a_word),
    Check("seed", "the same answer twice", checks.repeats_itself),
    Check("max_tokens", "an answer of two tokens", checks.heeds_max_tokens, CAPPED),
    Check("max_completion_tokens", "the same by its newer name", checks.heeds_max_completion_tokens, CAPPED),
    Check("system role", "a system message", checks.takes_system_messages),
    Check("developer role", "a developer message", checks.takes_developer_messages),
    Check("vision", "the colour of a small image", checks.sees_images),
    Check("embeddings", "POST /embeddings", checks.embeds, of_chat=False),
    Check("completions", "POST /completions", checks.completes, of_chat=False),
    Check("responses", "POST /responses", checks.has_responses, "Weir translates it to chat.", of_chat=False),
    Check("messages", "POST /messages", checks.has_messages, "Weir translates it to chat.", of_chat=False),
    Check(
        "tokenize", "POST /tokenize", checks.tokenizes, "Weir estimates prompts, and learns from usage.", of_chat=False
    ),
    Check("rerank", "POST /rerank", checks.reranks, of_chat=False),
    Check("bad JSON", "half a body", checks.refuses_bad_json, IN_OPENAIS_FORM, of_chat=False),
    Check("unknown model", "a model that nobody has", checks.refuses_unknown_models, "Weir refuses it by itself."),
    Check("wrong key", "a key that nobody has", checks.refuses_wrong_keys, "Weir asks for keys of its own."),
    Check("keep-alive", "a second question some seconds later", checks.keeps_connections, RETRIED, of_chat=False),
)
