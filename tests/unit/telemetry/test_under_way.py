"""Requests under way, oldest first, each with how far it has come."""

import json
import os
from time import perf_counter

import pytest

from weir.core.exchange import Attempt, Exchange
from weir.core.types import Principal
from weir.telemetry.under_way import UnderWay, one_of, phase

FAR = ("principal", "asked", "admitted", "sent", "first_byte")  # in the order in which they come

PHASES = [(0, "authenticating"), (1, "reading"), (2, "admission"), (3, "queued"), (4, "upstream"), (5, "streaming")]


@pytest.mark.parametrize(("marks", "expected"), PHASES)
def test_how_far_it_has_come(marks: int, expected: str) -> None:
    one = Exchange("id-1", "chat")
    for mark in FAR[:marks]:
        setattr(one, mark, Principal("search", "key1", "d" * 64) if mark == "principal" else 7.0)
    assert phase(one) == expected


def test_one_of_them() -> None:
    one = Exchange("id-1", "chat", "10.0.0.1", started=100.0)
    one.principal, one.model, one.streaming = Principal("search", "key1", "d" * 64), "m", True
    one.attempts.append(Attempt("http://a/v1", "m", 100.1))
    one.asked = one.admitted = one.sent = 100.1
    one.first_byte = 100.75
    assert one_of(one, 107.5) == {
        "request_id": "id-1",
        "team": "search",
        "key_id": "key1",
        "model": "m",
        "endpoint": "http://a/v1",
        "operation": "chat",
        "streaming": True,
        "phase": "streaming",
        "age_seconds": 7.5,
        "time_to_first_token": 0.75,
    }
    assert "ddd" not in json.dumps(one_of(one, 107.5))


def test_the_oldest_first_and_no_more_than_asked_for() -> None:
    now = perf_counter()
    made = [Exchange(f"id-{age}", "chat", started=now - age) for age in (3, 9, 1, 7)]
    said = UnderWay({id(one): one for one in made}, processes=2)(3)
    assert (said["pid"], said["processes"], said["count"]) == (os.getpid(), 2, 4)
    assert [one["request_id"] for one in said["requests"]] == ["id-9", "id-7", "id-3"]
