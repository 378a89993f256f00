"""What an upstream may write on the wire, byte by byte: all that HTTP/1.1 allows is understood, the rest is refused.

The upstream is a machine in the house, not a friend: nothing that it says may end up in another client's answer.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.harness import Admin, Key, Upstream, Weir, configuration, events_of, model

ANSWER = json.dumps(
    {
        "id": "chatcmpl-raw",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "raw"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
)
LENGTH = f"Content-Length: {len(ANSWER)}\r\n"
JSON = "Content-Type: application/json\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
OK = "HTTP/1.1 200 OK\r\n"
HALF = len(ANSWER) // 2


def chunks(*parts: str, size: str = "{:x}", end: str = "0\r\n\r\n") -> str:
    return "".join(f"{size.format(len(part))}\r\n{part}\r\n" for part in parts) + end


@pytest.fixture(scope="module")
def wired(redis_url: str, upstream: Upstream) -> Iterator[Weir]:
    timeouts = {"connect": 1, "first_byte": 2, "idle": 2}
    models = [model("good", upstream.url, timeouts=timeouts), model("bad", upstream.url, timeouts=timeouts)]
    with Weir(configuration(redis_url, models)) as weir:
        yield weir


@pytest.fixture(scope="module")
def key(admin: Admin) -> Key:
    return admin.key()


GOOD = [
    pytest.param({"raw": OK + JSON + LENGTH + "\r\n" + ANSWER}, id="plain"),
    pytest.param({"raw": OK + JSON + LENGTH + "\r\n" + ANSWER, "drip": True}, id="byte-by-byte"),
    pytest.param({"raw": "HTTP/1.1 200\r\n" + JSON + LENGTH + "\r\n" + ANSWER}, id="no-reason"),
    pytest.param({"raw": "HTTP/1.1 200 \r\n" + JSON + LENGTH + "\r\n" + ANSWER}, id="empty-reason"),
    pytest.param({"raw": OK + JSON.upper() + LENGTH.lower() + "\r\n" + ANSWER}, id="other-cases"),
    pytest.param({"raw": OK + (JSON + LENGTH).replace(": ", ":") + "\r\n" + ANSWER}, id="no-space"),
    pytest.param({"raw": OK + (JSON + LENGTH).replace(": ", ": \t ") + "\r\n" + ANSWER}, id="more-space"),
    pytest.param({"raw": OK + JSON + "Connection: close\r\n\r\n" + ANSWER, "close": True}, id="until-close"),
    pytest.param({"raw": "HTTP/1.0 200 OK\r\n" + JSON + "\r\n" + ANSWER, "close": True}, id="http-1.0"),
    pytest.param({"raw": OK + JSON + LENGTH + "Connection: close\r\n\r\n" + ANSWER, "close": True}, id="closes"),
    pytest.param({"raw": OK + JSON + CHUNKED + "\r\n" + chunks(ANSWER)}, id="one-chunk"),
    pytest.param({"raw": OK + JSON + CHUNKED + "\r\n" + chunks(*ANSWER)}, id="a-chunk-each-byte"),
    pytest.param({"raw": OK + JSON + CHUNKED + "\r\n" + chunks(ANSWER), "drip": True}, id="chunk-byte-by-byte"),
    pytest.param({"raw": OK + JSON + CHUNKED + "\r\n" + chunks(ANSWER, size="000{:X}")}, id="chunk-size-written-large"),
    pytest.param({"raw": OK + JSON + CHUNKED + "\r\n" + chunks(ANSWER, size='{:x};a=b;c="d"')}, id="chunk-extension"),
    pytest.param({"raw": OK + JSON + CHUNKED + "\r\n" + chunks(ANSWER, end="0\r\nX-Sum: 1\r\n\r\n")}, id="trailer"),
    pytest.param({"raw": OK + JSON + CHUNKED.replace("chunked", "Chunked") + "\r\n" + chunks(ANSWER)}, id="Chunked"),
    pytest.param({"raw": "HTTP/1.1 100 Continue\r\n\r\n" + OK + JSON + LENGTH + "\r\n" + ANSWER}, id="100-first"),
    pytest.param(
        {"raw": "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + JSON + LENGTH + "\r\n" + ANSWER}, id="103-first"
    ),
    pytest.param({"raw": OK + "X-Many: 1\r\n" * 60 + JSON + LENGTH + "\r\n" + ANSWER}, id="sixty-headers"),
    pytest.param({"raw": OK + f"X-Long: {'x' * 6000}\r\n" + JSON + LENGTH + "\r\n" + ANSWER}, id="long-header"),
]


@pytest.mark.parametrize("script", GOOD)
def test_is_understood(wired: Weir, key: Key, script: dict[str, Any]) -> None:
    for _ in range(2):  # the second time on the connection of the first, if that is kept
        answer = wired.chat(key, model="good", x_script={"play": "raw"} | script)
        assert answer.status_code == 200, answer.text
        assert answer.text == ANSWER
        assert wired.chat(key, model="good").status_code == 200


BAD = [
    pytest.param({"raw": "", "close": True}, id="nothing"),
    pytest.param({"raw": "hello\r\n\r\n", "close": True}, id="not-http"),
    pytest.param({"raw": "SSH-2.0-OpenSSH_9.2\r\n"}, id="another-protocol"),
    pytest.param({"raw": OK + JSON, "close": True}, id="half-a-head"),
    pytest.param({"raw": "HTTP/1.1 OK 200\r\n" + JSON + LENGTH + "\r\n" + ANSWER}, id="no-status"),
    pytest.param({"raw": "HTTP/1.1 99999 OK\r\n" + JSON + LENGTH + "\r\n" + ANSWER}, id="status-too-large"),
    pytest.param({"raw": OK + JSON + "Content-Length: -1\r\n\r\n" + ANSWER}, id="negative-length"),
    pytest.param({"raw": OK + JSON + "Content-Length: many\r\n\r\n" + ANSWER}, id="length-no-number"),
    pytest.param({"raw": OK + JSON + LENGTH + "Content-Length: 5\r\n\r\n" + ANSWER}, id="two-lengths"),
    pytest.param({"raw": OK + JSON + f"Content-Length: {10**30}\r\n\r\n" + ANSWER, "close": True}, id="length-absurd"),
    pytest.param({"raw": OK + JSON + LENGTH + "\r\n" + ANSWER[:HALF], "close": True}, id="cut-body"),
    pytest.param({"raw": OK + JSON + CHUNKED + "\r\n" + chunks(ANSWER[:HALF], end=""), "close": True}, id="cut-chunks"),
    pytest.param({"raw": OK + JSON + CHUNKED + "\r\nzz\r\n" + ANSWER + "\r\n0\r\n\r\n"}, id="chunk-size-no-number"),
    pytest.param({"raw": OK + JSON + CHUNKED + "\r\n-5\r\n" + ANSWER + "\r\n0\r\n\r\n"}, id="chunk-size-negative"),
    pytest.param(
        {"raw": OK + JSON + CHUNKED + f"\r\n{len(ANSWER) - 5:x}\r\n{ANSWER}\r\n0\r\n\r\n"}, id="chunk-longer-than-said"
    ),
    pytest.param({"raw": OK + f"X-Long: {'x' * 3_000_000}\r\n" + JSON + LENGTH + "\r\n" + ANSWER}, id="endless-header"),
    pytest.param({"raw": OK + JSON + LENGTH + "\r\n"}, id="no-body"),
]


@pytest.mark.parametrize("script", BAD)
def test_is_refused_and_the_next_answer_is_clean(wired: Weir, key: Key, script: dict[str, Any]) -> None:
    answer = wired.chat(key, model="bad", x_script={"play": "raw"} | script)
    assert answer.status_code in {502, 504}, answer.text[:300]
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] in {"upstream_error", "upstream_unreachable", "upstream_timeout"}
    assert (
        wired.chat(key, model="bad", x_script={"content": "clean"}).json()["choices"][0]["message"]["content"]
        == "clean"
    )


def test_what_follows_an_answer_is_not_the_next_one(wired: Weir, key: Key) -> None:
    """A second answer that nobody asked for must not be given to whoever comes next on that connection."""
    poison = OK + JSON + LENGTH + "\r\n" + ANSWER.replace("raw", "psn")
    for _ in range(10):
        first = wired.chat(
            key, model="bad", x_script={"play": "raw", "raw": OK + JSON + LENGTH + "\r\n" + ANSWER + poison}
        )
        assert first.text == ANSWER
        second = wired.chat(key, model="bad", x_script={"content": "clean"})
        assert "psn" not in second.text
        assert second.json()["choices"][0]["message"]["content"] == "clean"


STREAM = "".join(
    f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': word}, 'finish_reason': None}]})}\n\n"
    for word in ("one ", "two ", "drei \u00fc")
).encode().decode("latin-1")  # fmt: skip
DONE = "data: [DONE]\n\n"
SSE = "Content-Type: text/event-stream\r\n"

STREAMS = [
    # what is written                                                                     does it end well?
    pytest.param({"raw": OK + SSE + CHUNKED + "\r\n" + chunks(STREAM, DONE)}, True, id="two-chunks"),
    pytest.param({"raw": OK + SSE + CHUNKED + "\r\n" + chunks(*(STREAM + DONE))}, True, id="a-chunk-each-byte"),
    pytest.param({"raw": OK + SSE + CHUNKED + "\r\n" + chunks(STREAM + DONE), "drip": True}, True, id="byte-by-byte"),
    pytest.param({"raw": OK + SSE + "\r\n" + STREAM + DONE, "close": True}, True, id="until-close"),
    pytest.param(
        {"raw": OK + SSE.replace("stream", "stream; charset=utf-8") + CHUNKED + "\r\n" + chunks(STREAM, DONE)},
        True,
        id="charset",
    ),
    pytest.param({"raw": OK + SSE + "\r\n" + STREAM, "close": True}, False, id="closed-without-its-end"),
    pytest.param({"raw": OK + SSE + CHUNKED + "\r\n" + chunks(STREAM, end=""), "close": True}, False, id="no-0"),
    pytest.param({"raw": OK + SSE + CHUNKED + "\r\n" + chunks(STREAM) }, False, id="no-done"),
    pytest.param({"raw": OK + SSE + CHUNKED + "\r\n" + chunks(STREAM, end="zz\r\n")}, False, id="bad-chunk"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "ends_well"), STREAMS)
def test_streams_on_the_wire(*, wired: Weir, key: Key, script: dict[str, Any], ends_well: bool) -> None:
    answer = wired.chat(key, model="good" if ends_well else "bad", stream=True, x_script={"play": "raw"} | script)
    said = STREAM.encode("latin-1")
    if ends_well:
        assert answer.status_code == 200, answer.text
        assert answer.content == said + DONE.encode()
    elif answer.status_code != 200:
        # All of it came at once, so that what is wrong was seen before a byte was passed on.
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    else:
        assert answer.content.startswith(said)
        rest = [event for event in events_of(answer.content[len(said) :]) if event]
        assert set(rest[-1]) == {"error"}
        assert b"[DONE]" not in answer.content
