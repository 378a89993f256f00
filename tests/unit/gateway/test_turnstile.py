"""Overload: places, waiting, turns that are fair between teams, and nothing that leaks. On virtual time."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.clock import run
from weir.core.errors import Overloaded
from weir.gateway.turnstile import Turnstile


def turnstile(places: int = 2, max_waiting: int = 10, wait_seconds: float = 5.0) -> Turnstile:
    return Turnstile(places=places, max_waiting=max_waiting, wait_seconds=wait_seconds)


class Street:
    """Requests that enter, stay for a while, and note their order."""

    def __init__(self, turns: Turnstile) -> None:
        self.turns = turns
        self.served: list[str] = []
        self.refused: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def comes(
        self, team: str, *, stays: float = 1.0, tokens: int = 100, route: str = "m", limit: int | None = None
    ) -> asyncio.Task[None]:
        async def request() -> None:
            try:
                async with self.turns.place(team, route, limit, tokens):
                    self.served.append(team)
                    await asyncio.sleep(stays)
            except Overloaded:
                self.refused.append(team)

        task = asyncio.get_running_loop().create_task(request())
        self.tasks.append(task)
        return task

    async def empties(self) -> None:
        await asyncio.gather(*self.tasks, return_exceptions=True)
        assert (self.turns.in_flight, self.turns.waiting) == (0, 0)


def on_the_street(scene: Callable[[Street], Awaitable[None]], turns: Callable[[], Turnstile] = turnstile) -> Street:
    async def play() -> Street:
        street = Street(turns())
        await scene(street)
        await street.empties()
        return street

    return run(play)


def test_as_many_as_there_are_places_enter_at_once() -> None:
    async def scene(street: Street) -> None:
        for _ in range(3):
            street.comes("a")
        await asyncio.sleep(0)
        assert (street.turns.in_flight, street.turns.waiting) == (2, 1)
        await asyncio.sleep(1.5)
        assert (street.turns.in_flight, street.turns.waiting) == (1, 0)

    assert on_the_street(scene).served == ["a"] * 3


def test_who_waits_too_long_is_refused_with_a_time_to_come_back() -> None:
    async def scene(street: Street) -> None:
        street.comes("a", stays=100)
        street.comes("a", stays=100)
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        since = loop.time()
        with pytest.raises(Overloaded) as error:
            async with street.turns.place("b", "m", None, 1):
                pytest.fail("there was no place")
        assert loop.time() - since == pytest.approx(5, abs=0.1)
        assert error.value.retry_after in (5, 6), "as long as it has waited itself"
        assert street.turns.refused == 1

    on_the_street(scene)


def test_a_full_queue_refuses_at_once() -> None:
    async def scene(street: Street) -> None:
        for _ in range(4):
            street.comes("a")
        await asyncio.sleep(0.1)
        assert street.refused == ["a"]

    assert on_the_street(scene, lambda: turnstile(max_waiting=1)).served == ["a"] * 3


def test_no_queue_at_all_is_possible() -> None:
    async def scene(street: Street) -> None:
        for _ in range(3):
            street.comes("a")
        await asyncio.sleep(0.1)
        assert street.refused == ["a"]

    on_the_street(scene, lambda: turnstile(max_waiting=0))


def test_a_full_queue_makes_room_for_another_team() -> None:
    """Or whoever fills it first would keep everybody else out."""

    async def scene(street: Street) -> None:
        for _ in range(12):
            street.comes("greedy")
        await asyncio.sleep(0)
        street.comes("other")
        await asyncio.sleep(0.1)
        assert street.refused == ["greedy"]
        assert street.turns.waiting == 10

    on_the_street(scene)


def test_turns_alternate_between_teams_however_many_of_one_wait() -> None:
    async def scene(street: Street) -> None:
        for _ in range(8):
            street.comes("greedy")
        await asyncio.sleep(0)
        for _ in range(3):
            street.comes("other")

    street = on_the_street(scene, lambda: turnstile(places=1, max_waiting=100, wait_seconds=100))
    assert street.served[:7].count("other") == 3, street.served


def test_turns_are_weighed_by_tokens() -> None:
    async def scene(street: Street) -> None:
        street.comes("first")
        await asyncio.sleep(0)
        for _ in range(40):
            street.comes("small", tokens=100)
            street.comes("large", tokens=400)

    served = on_the_street(scene, lambda: turnstile(places=1, max_waiting=100, wait_seconds=1000)).served
    half = Counter(served[:41])
    assert half["small"] == pytest.approx(4 * half["large"], abs=4)


def test_a_greedy_past_counts() -> None:
    """Requests that never waited are counted too: the queue does not begin with whoever took all places."""

    async def scene(street: Street) -> None:
        for _ in range(2):
            street.comes("greedy", tokens=1000)
        await asyncio.sleep(0)
        street.comes("greedy", tokens=1000)
        street.comes("other", tokens=1000)

    assert on_the_street(scene).served == ["greedy", "greedy", "other", "greedy"]


def test_a_route_may_have_fewer_places() -> None:
    async def scene(street: Street) -> None:
        street.comes("a", route="small", limit=1)
        street.comes("a", route="small", limit=1)
        await asyncio.sleep(0)
        street.comes("b", route="large")
        await asyncio.sleep(0.1)
        assert street.served == ["a", "b"], "who waits for one model keeps nobody from another"

    assert on_the_street(scene).served == ["a", "b", "a"]


@pytest.mark.parametrize("when", [0.5, 1.0], ids=["while-it-waits", "as-its-turn-comes"])
def test_who_leaves_the_queue_leaves_nothing_behind(when: float) -> None:
    async def scene(street: Street) -> None:
        street.comes("a")
        await asyncio.sleep(0)
        gone = street.comes("b")
        street.comes("c")
        asyncio.get_running_loop().call_later(when, gone.cancel)

    street = on_the_street(scene, lambda: turnstile(places=1))
    assert street.served[-1] == "c"


def test_who_leaves_in_the_moment_of_the_turn_gives_the_place_back() -> None:
    async def scene(street: Street) -> None:
        first = street.turns.place("a", "m", None, 1)
        await first.__aenter__()
        gone = street.comes("b")
        await asyncio.sleep(0)
        await first.__aexit__(None, None, None)  # b has its turn now, and has not run yet
        gone.cancel()
        street.comes("c")

    assert on_the_street(scene, lambda: turnstile(places=1)).served == ["c"]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["m", "n"]),
            st.floats(0.0, 8.0),  # arrives
            st.floats(0.0, 6.0),  # stays
            st.integers(1, 1000),  # tokens
            st.none() | st.floats(0.0, 8.0),  # leaves after
        ),
        max_size=30,
    ),
    st.integers(1, 3),
    st.integers(0, 5),
)
def test_whatever_happens_everybody_has_one_ending(
    story: list[tuple[str, str, float, float, int, float | None]], places: int, max_waiting: int
) -> None:
    async def scene(street: Street) -> None:
        loop = asyncio.get_running_loop()
        most = 0

        def arrives(team: str, route: str, stays: float, tokens: int, leaves: float | None) -> None:
            nonlocal most
            task = street.comes(team, stays=stays, tokens=tokens, route=route, limit=1 if route == "n" else None)
            if leaves is not None:
                loop.call_later(leaves, task.cancel)
            most = max(most, street.turns.in_flight)

        for team, route, at, stays, tokens, leaves in story:
            loop.call_later(at, arrives, team, route, stays, tokens, leaves)
        await asyncio.sleep(30)
        assert most <= places
        assert len(street.tasks) == len(story)

    on_the_street(scene, lambda: turnstile(places=places, max_waiting=max_waiting))
