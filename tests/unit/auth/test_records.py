"""What is written down of teams and keys: globs as Lua reads them, limits there and back, and what nobody can mean."""

import re
from fnmatch import fnmatchcase

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weir.auth.records import (
    Invalid,
    Key,
    check_limits,
    check_team_name,
    key_from_hash,
    limits_from_hash,
    limits_to_hash,
    lua_pieces,
    team_from_hash,
    unit_of,
)
from weir.core.types import MAX_PER_MINUTE_TIMES_BURST, Limits

LAW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAME_LETTERS = st.sampled_from("abAB01._:/@+-")
NAMES = st.text(NAME_LETTERS, max_size=8)
GLOBS = st.text(st.one_of(NAME_LETTERS, st.sampled_from("*?")), min_size=1, max_size=8)


def lua_fits(pieces: str, name: str) -> bool:
    """What admit.lua does with them: string.find for anchors, `.`, `%x` and letters (Lua 5.1 manual, 5.4.1)."""
    assert pieces.startswith("^")
    assert pieces.endswith("$")
    start = 0
    for piece in filter(None, pieces.split("*")):
        found = lua_find(piece, name, start)
        if found is None:
            return False
        start = found
    return True


def lua_find(pattern: str, name: str, start: int) -> int | None:
    expression, place = "", 0
    while place < len(pattern):
        letter = pattern[place]
        if letter == "%":
            place += 1
            assert not pattern[place].isalnum(), "with a letter this would be a class of characters"
            expression += re.escape(pattern[place])
        elif letter == "^":
            assert place == 0
        elif letter == "$":
            assert place == len(pattern) - 1
            expression += r"\Z"
        else:
            assert letter == "." or letter.isalnum(), f"{letter!r} may be magic in Lua"
            expression += letter
        place += 1
    compiled = re.compile(expression, re.DOTALL)
    found = compiled.match(name, start) if pattern.startswith("^") else compiled.search(name, start)
    return found.end() if found else None


@pytest.mark.parametrize(
    ("glob", "pieces"),
    [
        pytest.param("gpt-*", "^gpt%-*$", id="star"),
        pytest.param("gpt-?", "^gpt%-.$", id="question-mark"),
        pytest.param("a.b", "^a%.b$", id="dot"),
        pytest.param("meta-llama/Llama-3.3", "^meta%-llama%/Llama%-3%.3$", id="slash"),
        pytest.param("a_b+c@d:e", "^a%_b%+c%@d%:e$", id="punctuation"),
    ],
)
def test_lua_pieces(glob: str, pieces: str) -> None:
    assert lua_pieces(glob) == pieces


@LAW
@given(GLOBS, NAMES)
def test_lua_and_fnmatch_agree(glob: str, name: str) -> None:
    assert lua_fits(lua_pieces(glob), name) == fnmatchcase(name, glob)


@LAW
@given(NAMES.filter(bool))
def test_a_name_matches_itself_and_nothing_longer(name: str) -> None:
    assert lua_fits(lua_pieces(name), name)
    assert not lua_fits(lua_pieces(name), name + "x")


LIMITS = st.builds(
    Limits,
    rpm=st.none() | st.integers(1, 10**6),
    tpm=st.none() | st.integers(1, 10**6),
    concurrency=st.none() | st.integers(1, 10**6),
    burst_seconds=st.integers(1, 86_400),
    models=st.lists(GLOBS, max_size=4).map(tuple),
    shadow=st.frozensets(st.sampled_from(["requests", "tokens", "concurrency"])),
)


class TestLimits:
    @LAW
    @given(LIMITS)
    def test_there_and_back(self, limits: Limits) -> None:
        assert limits_from_hash(limits_to_hash(limits)) == limits

    @LAW
    @given(LIMITS)
    def test_every_field_is_always_written_so_that_an_update_takes_away(self, limits: Limits) -> None:
        assert limits_to_hash(limits).keys() == limits_to_hash(Limits()).keys()

    def test_of_nothing_written_are_none(self) -> None:
        assert limits_from_hash({}) == Limits()

    @pytest.mark.parametrize(
        ("models", "allow"),
        [
            pytest.param((), "", id="none-are-all"),
            pytest.param(("*",), "", id="star-is-all"),
            pytest.param(("gpt-*", "*"), "", id="star-beside-others-is-all"),
            pytest.param(("gpt-*", "m"), "^gpt%-*$\n^m$", id="patterns"),
        ],
    )
    def test_allow_list(self, models: tuple[str, ...], allow: str) -> None:
        assert limits_to_hash(Limits(models=models))["allow"] == allow


MOST = MAX_PER_MINUTE_TIMES_BURST
BAD_LIMITS = [
    pytest.param(Limits(rpm=0), "rpm", id="rpm-zero"),
    pytest.param(Limits(tpm=-1), "tpm", id="tpm-negative"),
    pytest.param(Limits(concurrency=0), "concurrency", id="concurrency-zero"),
    pytest.param(Limits(concurrency=1_000_001), "1000000", id="concurrency-huge"),
    pytest.param(Limits(burst_seconds=0), "burst-seconds", id="burst-zero"),
    pytest.param(Limits(burst_seconds=86_401), "burst-seconds", id="burst-more-than-a-day"),
    pytest.param(Limits(tpm=MOST // 60 + 1), str(MOST // 60), id="tpm-beyond-exactness"),
    pytest.param(Limits(rpm=MOST // 3600 + 1, burst_seconds=3600), str(MOST // 3600), id="rpm-beyond-exactness"),
    pytest.param(Limits(models=("a b",)), "'a b'", id="pattern-with-a-space"),
    pytest.param(Limits(models=("",)), "''", id="pattern-empty"),
    pytest.param(Limits(models=("a,b",)), "'a,b'", id="pattern-with-a-comma"),
    pytest.param(Limits(models=("a[bc]",)), "'a[bc]'", id="pattern-with-a-class"),
    pytest.param(Limits(models=("x" * 201,)), "xxx", id="pattern-too-long"),
    pytest.param(Limits(shadow=frozenset({"rpms"})), "'rpms'", id="shadow-unknown"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("limits", "said"), BAD_LIMITS)
def test_bad_limits(limits: Limits, said: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_limits(limits)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(),
        Limits(rpm=1, tpm=1, concurrency=1, burst_seconds=1),
        Limits(tpm=MOST // 60),
        Limits(tpm=MOST // 86_400, burst_seconds=86_400),
        Limits(concurrency=1_000_000),
        Limits(models=("*", "meta-llama/Llama-3.3:free", "gpt-4?")),
    ],
)
def test_good_limits(limits: Limits) -> None:
    assert check_limits(limits) is limits


@pytest.mark.parametrize("name", ["a", "search", "team-1", "a.b_c", "0", "x" * 63])
def test_good_team_name(name: str) -> None:
    assert check_team_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "A", "-a", ".a", "a b", "a/b", "a{b}", "a\n", "\xfc", "x" * 64, "a:b", "a*"],
    ids=["empty", "capital", "dash", "dot", "space", "slash", "hash-tag", "newline", "umlaut", "long", "colon", "star"],
)
def test_bad_team_name(name: str) -> None:
    with pytest.raises(Invalid):
        check_team_name(name)


@pytest.mark.parametrize(("flag", "unit"), [("rpm", "requests"), ("tpm", "tokens"), ("concurrency", "concurrency")])
def test_unit_of(flag: str, unit: str) -> None:
    assert unit_of(flag) == unit


def test_unit_of_nothing() -> None:
    with pytest.raises(Invalid, match="'requests' is no limit"):
        unit_of("requests")


STATES = [
    # expires, revoked, old_until      at 100
    pytest.param(0, 0, 0, "active", id="active"),
    pytest.param(101, 0, 0, "active", id="not-yet-expired"),
    pytest.param(100, 0, 0, "expired", id="expired"),
    pytest.param(0, 5, 0, "revoked", id="revoked"),
    pytest.param(100, 5, 200, "revoked", id="revoked-counts-first"),
    pytest.param(100, 0, 200, "expired", id="expired-while-rotating"),
    pytest.param(0, 0, 101, "rotating", id="rotating"),
    pytest.param(0, 0, 100, "active", id="rotated"),
]


@pytest.mark.parametrize(("expires", "revoked", "old_until", "state"), STATES)
def test_state(*, expires: int, revoked: int, old_until: int, state: str) -> None:
    key = Key("k", "t", "n", "h", Limits(), 1, expires=expires, revoked=revoked, old_until=old_until)
    assert key.state(100.0) == state


def test_key_from_hash() -> None:
    fields = {
        "name": "ci",
        "hint": "sk-...ab",
        "created": "5",
        "expires": "7",
        "used": "6",
        "version": "3",
        "rpm": "60",
    }
    key = key_from_hash("search", "key1", fields)
    assert (key.id, key.team, key.name, key.hint) == ("key1", "search", "ci", "sk-...ab")
    assert (key.created, key.expires, key.revoked, key.used, key.version) == (5, 7, 0, 6, 3)
    assert key.limits == Limits(rpm=60)


def test_team_from_hash() -> None:
    team = team_from_hash("search", {"created": "5", "version": "2", "tpm": "100", "models": "a,b-*"})
    assert (team.name, team.created, team.version) == ("search", 5, 2)
    assert team.limits == Limits(tpm=100, models=("a", "b-*"))
