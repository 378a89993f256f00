"""The page on capacity: its table is what its own formulas give."""

import math
import re

import pytest

from tests.system.harness import ROOT

PAGE = (ROOT / "deploy" / "capacity.md").read_text()
ROW = re.compile(r"^\| (?P<name>[^|]+) \| (?P<rest>(?:[\d.,]+(?: GB)? \| ){5})(?P<redis>[^|]+) \|$", re.MULTILINE)
EVENTS = 30  # a second of each stream


def stated(what: str) -> float:
    """The number in the first table's row."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {what} |")]
    return float(re.findall(r"[\d.]+", line.split("|")[2])[0])


@pytest.mark.parametrize("row", list(ROW.finditer(PAGE)), ids=lambda row: row["name"].strip())
def test_a_row_is_what_the_formulas_say(row: re.Match[str]) -> None:
    requests, streams, cores, pods, memory = (
        float(cell.replace(",", "").removesuffix(" GB")) for cell in row["rest"].rstrip(" |").split(" | ")
    )
    busy = requests * stated("a request") + streams * EVENTS * stated("a streamed event")
    needed = busy / 1000 / 0.6
    assert cores == pytest.approx(needed, rel=0.06)
    assert pods == max(2, math.ceil(needed) + 1)
    megabytes = pods * stated("a process") + streams * stated("an open stream") / 1000
    assert memory == pytest.approx(megabytes / 1000, rel=0.2, abs=0.05)
    share = requests * stated("a request, in Redis or Valkey") / 1000
    found = re.search(r"([\d.]+)( %| cores) busy", row["redis"])
    assert found, row["redis"]
    assert float(found[1]) == pytest.approx(share * 100 if found[2] == " %" else share, rel=0.3)


def test_the_table_was_found() -> None:
    assert len(list(ROW.finditer(PAGE))) == 5
