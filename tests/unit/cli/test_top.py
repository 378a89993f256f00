"""What `weir top` makes of a frame and of the requests under way."""

import io
from typing import Any

import pytest
from rich.console import Console

from weir.cli.top import STREAMS, frame_as_json, page, streams
from weir.telemetry.reading import Frame, TeamRates

FRAME = Frame(
    seconds=2.0,
    requests=1234.5,
    errors=0.5,
    refusals=2.0,
    refused_by={"tokens": 1.5, "key": 0.5},
    input_tokens=10.0,
    output_tokens=4.0,
    in_flight=7,
    waiting=3,
    replicas=2,
    degraded=False,
    draining=False,
    endpoints_ejected=0,
    overhead=(0.00042, 0.0021),
    time_to_first_token=(0.25, None),
    teams=(TeamRates("search", 1000.0, 12.0, 2.0), TeamRates("", 1.0, 0.0, 1.0)),
)


def one(name: str, age: float, first: float | None, *, streaming: bool = True) -> dict[str, Any]:
    return {
        "request_id": name,
        "team": "search",
        "key_id": "key1",
        "model": "m",
        "endpoint": "http://a/v1",
        "operation": "chat",
        "streaming": streaming,
        "phase": "upstream" if first is None else "streaming",
        "age_seconds": age,
        "time_to_first_token": first,
    }


def live(*requests: dict[str, Any], processes: int = 1) -> dict[str, Any]:
    return {"pid": 42, "processes": processes, "count": len(requests), "requests": list(requests)}


def shown(frame: Frame, under_way: dict[str, Any], away: str = "", width: int = 160) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(page("http://localhost:9090", frame, under_way, away))
    return out.getvalue()


def test_the_slowest_to_a_first_token_first_and_only_streams() -> None:
    under_way = live(
        one("fast", 600.0, 0.1), one("no-stream", 900.0, None, streaming=False), one("waits", 30.0, None), one("slow", 50.0, 40.0)
    )  # fmt: skip
    assert [stream["request_id"] for stream in streams(under_way)] == ["slow", "waits", "fast"]


def test_a_page_has_the_numbers() -> None:
    text = shown(FRAME, live(one("the-stream", 90.0, 40.0)))
    for said in (
        "1,234",
        "420 us / 2.1 ms",
        "250.0 ms / -",
        "tokens 1.5",
        "key 0.5",
        "search",
        "the-stream",
        "40.0 s",
        "well",
    ):
        assert said in text
    assert "processes" not in text


STATES = [
    pytest.param(FRAME._replace(degraded=True), "DEGRADED", id="degraded"),
    pytest.param(FRAME._replace(draining=True), "DRAINING", id="draining"),
    pytest.param(FRAME._replace(endpoints_ejected=2), "2 ENDPOINTS EJECTED", id="ejected"),
]


@pytest.mark.parametrize(("frame", "said"), STATES)
def test_what_is_wrong_is_said(frame: Frame, said: str) -> None:
    text = shown(frame, live())
    assert said in text
    assert "well" not in text


def test_one_process_of_several_says_so() -> None:
    assert "of one of 2 processes (pid 42)" in shown(FRAME, live(one("a", 1.0, None), processes=2))


def test_an_old_page_says_that_it_is_old() -> None:
    text = shown(FRAME, live(), away="It does not answer.")
    assert "It does not answer. What is below is old." in text
    assert "1,234" in text


def test_no_more_rows_than_fit() -> None:
    text = shown(FRAME, live(*(one(f"stream-{number:03}", 9.0, 1.0) for number in range(100))))
    assert text.count("stream-") == STREAMS
    assert "100 streams" in text


def test_it_says_when_it_has_not_seen_all() -> None:
    some = live(one("a", 9.0, 1.0), one("b", 8.0, 1.0, streaming=False))
    assert "1 streams under way, the slowest" in shown(FRAME, some)
    assert "1 streams among the 2 oldest of 5,000 requests under way, the slowest" in shown(
        FRAME, some | {"count": 5000}
    )


@pytest.mark.parametrize("width", [60, 80, 120])
def test_ids_and_times_are_whole_however_narrow_it_is(width: int) -> None:
    request, key = "0123456789abcdef0123456789abcdef", "AbCdEfGhIjKl"
    stream = one(request, 691.04, 65.0) | {"key_id": key, "team": "team-" * 9, "model": "model-" * 30}
    lines = shown(FRAME, live(stream), width=width).splitlines()
    assert any(request in line for line in lines)
    assert any(f"  {key}  " in line and "12 min" in line and "65.0 s" in line for line in lines)
    assert max(map(len, lines)) <= width


def test_as_json() -> None:
    said = frame_as_json("http://localhost:9090", FRAME, live(one("a", 1.0, None), processes=2))
    assert said["overhead_seconds"] == {"p50": 0.00042, "p99": 0.0021}
    assert said["time_to_first_token_seconds"] == {"p50": 0.25, "p99": None}
    assert said["teams"][1]["team"] is None
    assert said["process"] == {"pid": 42, "of": 2, "in_flight": 1}
    assert [stream["request_id"] for stream in said["streams"]] == ["a"]
