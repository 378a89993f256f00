"""The checks of `weir check-backend`: small functions, each asking one thing in a few words.

The forms are OpenAI's (its API description); `/messages` is Anthropic's, `/tokenize` vLLM's, `/rerank` Jina's. A check
returns where all is well, and raises Missing or Wrong with one sentence.
"""

import asyncio
import base64
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from weir.backend.http1 import Pool, origin_of
from weir.cli.engine import Answer, Engine, Json, Missing, Stream, Wrong, objects_in

ABORTED_SECONDS = 3.0  # within which a place must be free again, beyond what a short answer took before
LONG = 1000  # tokens of the answer that nobody waits for
COUNT = "Count from one to thirty, in words."


# -- what Weir needs -------------------------------------------------------------------------------------------------


async def lists_models(engine: Engine) -> None:
    listed = models_of(await engine.get("/models"))
    if engine.model and engine.model not in listed:
        raise Wrong(f"It answers, and does not list {engine.model!r}.")


def models_of(answer: Answer) -> list[str]:
    data = answer.json().get("data")
    if not isinstance(data, list):
        raise Wrong("The answer has no list 'data'.")
    return [model["id"] for model in objects_in(data) if isinstance(model.get("id"), str)]


async def chats(engine: Engine) -> None:
    message = (await engine.chat("Say hi.")).message()
    if message.get("role") != "assistant":
        raise Wrong("The message's role is not 'assistant'.")
    if not any(isinstance(message.get(name), str) for name in ("content", "reasoning_content", "reasoning")):
        raise Wrong("The message has no text.")


async def says_usage(engine: Engine) -> None:
    _see_usage((await engine.chat("Say hi.")).json().get("usage"))


async def streams(engine: Engine) -> None:
    stream = await _counting(engine)
    if not any(stream.deltas()):
        raise Wrong("The stream has no delta with anything in it." if not stream.broke else stream.broke)


async def ends_streams(engine: Engine) -> None:
    stream = await _counting(engine)
    if stream.broke:
        raise Wrong(stream.broke)
    if not stream.done:
        raise Wrong(
            "The stream ends without 'data: [DONE]', like one that broke off; Weir's clients would see it fail."
        )
    if not stream.finish_reason():
        raise Wrong("No chunk of the stream has a finish_reason.")


async def says_usage_in_streams(engine: Engine) -> None:
    _see_usage((await _counting(engine)).usage())


async def begins_with_the_role(engine: Engine) -> None:
    deltas = (await _counting(engine)).deltas()
    if not deltas or deltas[0].get("role") != "assistant":
        raise Wrong("The first delta does not say 'assistant'.")


async def lets_streams_flow(engine: Engine) -> None:
    stream = await _counting(engine)
    if stream.seconds > 0.2 and stream.seconds - stream.begun < stream.seconds / 20:
        raise Wrong(f"Everything came at once after {stream.seconds:.1f} s: something gathers the stream.")


async def frees_its_place(engine: Engine) -> None:
    usual = (await engine.chat("Say hi.")).seconds
    await engine.leave_a_stream("Count from one to a thousand, in words.", LONG)
    after = (await engine.chat("Say hi.")).seconds
    if after > usual + ABORTED_SECONDS:
        raise Wrong(f"After a client left, the next short answer took {after:.1f} s and not {usual:.1f}: it works on.")


# -- what requests may ask -------------------------------------------------------------------------------------------

AS_OBJECT = "A tool's arguments come as an object; clients read them as JSON text."
PLACE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Weather now", "parameters": PLACE}}
TIME = {"type": "function", "function": {"name": "local_time", "description": "Time now", "parameters": PLACE}}
ANSWER = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}


async def calls_a_tool(engine: Engine) -> None:
    _see_calls((await engine.chat("What is the weather in Rome?", tools=[WEATHER])).message().get("tool_calls"))


async def calls_tools_at_once(engine: Engine) -> None:
    asked = "Call both tools for Rome."
    message = (await engine.chat(asked, tools=[WEATHER, TIME], parallel_tool_calls=True)).message()
    _see_calls(message.get("tool_calls"))
    if len(message["tool_calls"]) < 2:
        raise Missing("Two calls were asked for, and one came.")


async def streams_a_tool_call(engine: Engine) -> None:
    stream = await engine.stream("What is the weather in Rome?", tools=[WEATHER])
    deltas = [call for delta in stream.deltas() for call in objects_in(delta.get("tool_calls"))]
    if not deltas:
        raise Missing("It answered in text, or the call never came.")
    first = [call for call in deltas if call.get("index") == 0]
    if not first or not first[0].get("id"):
        raise Wrong("The first delta of a tool call has no index or no id.")
    functions = [function for call in first if isinstance(function := call.get("function"), dict)]
    pieces = [function.get("arguments") or "" for function in functions]
    if not all(isinstance(piece, str) for piece in pieces):
        raise Wrong(AS_OBJECT)
    name = functions[0].get("name") if functions else None
    _see_calls([{"id": first[0]["id"], "function": {"name": name, "arguments": "".join(pieces)}}])
    if stream.finish_reason() != "tool_calls":
        raise Wrong(f"The stream of a tool call finishes with {stream.finish_reason()!r}, not 'tool_calls'.")


async def keeps_to_a_schema(engine: Engine) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "sum", "strict": True, "schema": ANSWER}}
    said = _object_in(await engine.chat("What is 2 + 3?", response_format=form))
    if set(said) != {"answer"} or not isinstance(said["answer"], int):
        raise Wrong("The answer is JSON, and not of the schema.")


async def answers_in_json(engine: Engine) -> None:
    _object_in(await engine.chat("What is 2 + 3? Answer in JSON.", response_format={"type": "json_object"}))


async def gives_several_answers(engine: Engine) -> None:
    choices = (await engine.chat("Say hi.", n=2)).choices()
    if len(choices) != 2:
        raise Missing(f"Two answers were asked for, and {len(choices)} came.")


async def gives_logprobs(engine: Engine) -> None:
    logprobs = (await engine.chat("Say hi.", logprobs=True, top_logprobs=1)).choices()[0].get("logprobs")
    if not isinstance(logprobs, dict) or not logprobs.get("content"):
        raise Missing("The answer has none.")


async def stops_at_a_word(engine: Engine) -> None:
    answer = await engine.chat("Repeat: alpha beta gamma", stop=["beta"])
    if "beta" in answer.text().lower():
        raise Wrong("It went on past the stop word.")


async def repeats_itself(engine: Engine) -> None:
    asked: Json = {"seed": 7, "temperature": 1}
    first, second = [(await engine.chat("Name a fruit.", **asked)).text() for _ in range(2)]
    if first != second:
        raise Missing("Two answers with the same seed differ.")


async def heeds_max_tokens(engine: Engine) -> None:
    _see_cap(await engine.chat(COUNT, max_tokens=2))


async def heeds_max_completion_tokens(engine: Engine) -> None:
    _see_cap(await engine.chat(COUNT, max_completion_tokens=2))


async def takes_system_messages(engine: Engine) -> None:
    await _chat_as(engine, {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hi."})


async def takes_developer_messages(engine: Engine) -> None:
    await _chat_as(engine, {"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Say hi."})


async def sees_images(engine: Engine) -> None:
    image = "data:image/png;base64," + base64.b64encode(_red_square(64)).decode()
    parts = [{"type": "text", "text": "Which colour?"}, {"type": "image_url", "image_url": {"url": image}}]
    await _chat_as(engine, {"role": "user", "content": parts})


# -- other endpoints -------------------------------------------------------------------------------------------------


async def embeds(engine: Engine) -> None:
    data = (await engine.post("/embeddings", {"model": engine.model, "input": "hi"})).json().get("data")
    if not any(one.get("embedding") for one in objects_in(data)):
        raise Wrong("The answer has no embedding.")


async def completes(engine: Engine) -> None:
    answer = await engine.post("/completions", {"model": engine.model, "prompt": "Hi", "max_tokens": 4})
    if not isinstance(answer.choices()[0].get("text"), str):
        raise Wrong("The first choice has no text.")


async def has_responses(engine: Engine) -> None:
    asked = {"model": engine.model, "input": "Say hi.", "max_output_tokens": 64, "store": False}
    if not isinstance((await engine.post("/responses", asked)).json().get("output"), list):
        raise Wrong("The answer has no list 'output'.")


async def has_messages(engine: Engine) -> None:
    asked = {"model": engine.model, "max_tokens": 64, "messages": [{"role": "user", "content": "Say hi."}]}
    if not isinstance((await engine.post("/messages", asked)).json().get("content"), list):
        raise Wrong("The answer has no list 'content'.")


async def tokenizes(engine: Engine) -> None:
    asked = {"model": engine.model, "prompt": "hi", "content": "hi"}  # vLLM's word, llama.cpp's word
    if not isinstance((await engine.post("/tokenize", asked, at_root=True)).json().get("tokens"), list):
        raise Wrong("The answer has no list 'tokens'.")


async def reranks(engine: Engine) -> None:
    asked = {"model": engine.model, "query": "fruit", "documents": ["apple", "stone"]}
    if not isinstance((await engine.post("/rerank", asked)).json().get("results"), list):
        raise Wrong("The answer has no list 'results'.")


# -- how it refuses, and the connection ------------------------------------------------------------------------------


async def refuses_bad_json(engine: Engine) -> None:
    _see_refusal(await engine.post("/chat/completions", b'{"model": '), (400, 422), "a body that is no JSON")


async def refuses_unknown_models(engine: Engine) -> None:
    answer = await engine.chat("Say hi.", model="no-such-model")
    _see_refusal(answer, (400, 404), "a model that it does not have")


async def refuses_wrong_keys(engine: Engine) -> None:
    answer = await engine.post("/chat/completions", engine.asked("Say hi.", {}), as_stranger=True)
    if answer.status == 200 and engine.key is None:
        raise Missing("It asks for no key: whoever reaches it may use it.")
    _see_refusal(answer, (401, 403), "a wrong key")


async def keeps_connections(engine: Engine) -> None:
    connection = await engine.connected(Pool(origin_of(engine.url), idle_seconds=0))
    try:
        await engine.ask_again(connection, "/models")
        if not (connection.reusable and connection.open):
            raise Missing("It closes the connection behind each answer: every request pays for a new one.")
        await asyncio.sleep(engine.idle_seconds)
        if not connection.open:
            raise Wrong(f"It closes a connection that was idle for less than {engine.idle_seconds:g} s.")
        await engine.ask_again(connection, "/models")
    finally:
        connection.abort()


# -- what several of them look at ------------------------------------------------------------------------------------


async def _counting(engine: Engine) -> Stream:
    return await engine.stream(COUNT)


async def _chat_as(engine: Engine, *messages: Json) -> None:
    (await engine.chat("", messages=list(messages))).message()


def _see_usage(usage: Any) -> None:
    if not isinstance(usage, dict):
        raise Missing("It does not say how many tokens it used.")
    if not all(isinstance(usage.get(name), int) for name in ("prompt_tokens", "completion_tokens")):
        raise Wrong("Its usage has no prompt_tokens or no completion_tokens.")
    if not usage["prompt_tokens"]:
        raise Wrong("Its usage says that the prompt had no tokens.")


def _see_calls(said: Any) -> None:
    calls = objects_in(said)
    if not calls:
        raise Missing("It answered in text and called nothing.")
    for call in calls:
        function = call.get("function")
        if not isinstance(function, dict) or not call.get("id"):
            raise Wrong("A tool call has no function or no id.")
        if function.get("name") not in ("weather", "local_time"):
            raise Wrong("It called a tool that there is not.")
        if not isinstance(function.get("arguments"), str):
            raise Wrong(AS_OBJECT)
        if not isinstance(_loaded(function["arguments"]), dict):
            raise Wrong("A tool's arguments are no JSON object.")


def _see_cap(answer: Answer) -> None:
    reason = answer.choices()[0].get("finish_reason")
    usage = answer.json().get("usage")
    took = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if isinstance(took, int) and took > 2:
        raise Wrong(f"It took {took} tokens where two were allowed.")
    if reason != "length":
        raise Wrong(f"It was to end for its length, and says {reason!r}.")


def _see_refusal(answer: Answer, statuses: tuple[int, ...], what: str) -> None:
    if answer.status not in statuses:
        raise Wrong(f"It answers {what} with status {answer.status}.")
    answer.object()
    if answer.complaint() is None:
        raise Wrong(f"Status {answer.status}, and no error object with a message.")


def _object_in(answer: Answer) -> Json:
    said = _loaded(answer.text())
    if not isinstance(said, dict):
        raise Wrong("The answer is no JSON object.")
    return said


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _red_square(size: int) -> bytes:
    """A PNG (RFC 2083) of one colour."""

    def parts() -> Iterator[bytes]:
        row = b"\0" + b"\xff\0\0" * size
        head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
        for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(row * size)), (b"IEND", b"")):
            yield struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + b"".join(parts())
