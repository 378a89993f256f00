"""The soak run in half a minute, with one death of Redis: see `tests/soak`. Growth that small shows only in the long one."""

import pytest

from tests.fakes.redis_server import kinds
from tests.soak.soak import Plan, growth, run


@pytest.mark.skipif(
    all(kind.program is None for kind in kinds()), reason="a container forgets when it is killed: needs a redis-server"
)
@pytest.mark.timeout(180)
def test_thirty_seconds_of_everything_leave_nothing_behind() -> None:
    report = run(
        Plan(30, redis_every=20, clients=24, requests_per_second=80, warm_up=10, rss_growth_mb=30, fd_growth=40)
    )
    assert report.broken == []
    assert len(report.outages) == 1
    assert report.counts["503"] > 0, "nobody noticed that Redis was away"
    assert report.counts["left"] > 0


def test_growth_is_what_a_line_rises() -> None:
    assert growth([(0, 1), (1, 1), (2, 1)]) == 0
    assert growth([(10, 5), (20, 15), (30, 25)]) == 20
    assert growth([(0, 0), (1, 100)]) == 0, "two points make any line"
