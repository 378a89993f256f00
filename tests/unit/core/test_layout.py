"""Where things lie in Redis: what one decision needs is on one slot, and no two things share a name."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weir.core import layout

LAW = settings(deadline=None)
TEAMS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
IDS = st.from_regex(r"[0-9A-Za-z]{12}", fullmatch=True)


def tag(name: str) -> str:
    """What a cluster hashes (redis.io, cluster specification, hash tags)."""
    start = name.find("{")
    end = name.find("}", start + 1)
    return name[start + 1 : end] if start >= 0 and end > start + 1 else name


@LAW
@given(TEAMS, IDS, IDS)
def test_all_of_one_decision_is_on_the_teams_slot(team: str, key: str, reservation: str) -> None:
    records = [layout.team(team), layout.key(team, key)]
    names = [*records, *map(layout.use, records), *map(layout.live, records)]
    names += [layout.reservation(team, reservation), layout.team_keys(team)]
    assert {tag(name) for name in names} == {team}
    assert len(set(names)) == len(names)
    assert all(name.startswith("weir:") for name in names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (layout.index("abc"), "weir:idx:abc"),
        (layout.owner("k1"), "weir:kid:k1"),
        (layout.team("t"), "weir:{t}:team"),
        (layout.key("t", "k1"), "weir:{t}:key:k1"),
        (layout.use(layout.team("t")), "weir:{t}:team:use"),
        (layout.live(layout.key("t", "k1")), "weir:{t}:key:k1:live"),
        (layout.reservation("t", "r1"), "weir:{t}:res:r1"),
        (layout.TEAMS, "weir:teams"),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert name == expected
