"""The estimate of a prompt learns an upper quantile, slowly and within bounds."""

from random import Random

import pytest

from weir.usage.estimate import FIRST_RATIO, HIGHEST, LOWEST, MODELS_MAX, QUANTILE, PromptEstimator, counted_output

SIZE = 10_000  # bytes of each request


def ratio(estimator: PromptEstimator, model: str = "m") -> float:
    return estimator.estimate(model, 1_000_000) / 1_000_000


def taught(ratios: list[float]) -> PromptEstimator:
    estimator = PromptEstimator()
    for true_ratio in ratios:
        estimator.learn("m", SIZE, int(SIZE * true_ratio))
    return estimator


class TestEstimate:
    def test_begins_with_english(self) -> None:
        assert ratio(PromptEstimator()) == pytest.approx(FIRST_RATIO)

    @pytest.mark.parametrize(("size", "media"), [(0, 0), (1, 0), (3, 0)])
    def test_is_at_least_one(self, size: int, media: int) -> None:
        assert PromptEstimator().estimate("m", size, media) == 1

    def test_media_count_as_they_are_said_to(self) -> None:
        estimator = PromptEstimator()
        assert estimator.estimate("m", 1_000, 2_500) == estimator.estimate("m", 1_000) + 2_500


class TestLearning:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize(
        ("low", "high"),
        [
            pytest.param(0.2, 0.3, id="english"),
            pytest.param(0.4, 0.8, id="chinese"),
            pytest.param(0.05, 0.1, id="digits"),
        ],
    )
    def test_converges_to_the_quantile(self, *, low: float, high: float, seed: int) -> None:
        draw = Random(seed).uniform
        estimator = taught([draw(low, high) for _ in range(4_000)])
        wanted = low + (high - low) * QUANTILE
        assert ratio(estimator) == pytest.approx(wanted, abs=0.25 * (high - low) + 0.01)
        enough = 0
        for _ in range(2_000):
            true_ratio = draw(low, high)
            enough += estimator.estimate("m", SIZE) >= int(SIZE * true_ratio)
            estimator.learn("m", SIZE, int(SIZE * true_ratio))
        assert QUANTILE - 0.025 <= enough / 2_000 <= 1, "a reservation is rarely too small"

    def test_adapts_within_some_hundred_requests(self) -> None:
        assert ratio(taught([0.6] * 300)) >= 0.6

    def test_one_odd_request_moves_it_little(self) -> None:
        before = ratio(taught([0.25] * 500))
        after = ratio(taught([0.25] * 500 + [50.0]))
        assert abs(after - before) < 0.01

    def test_stays_within_bounds(self) -> None:
        assert ratio(taught([50.0] * 5_000)) == pytest.approx(HIGHEST)
        assert ratio(taught([0.0] * 5_000)) == pytest.approx(LOWEST)

    def test_each_model_learns_alone(self) -> None:
        estimator = PromptEstimator()
        for _ in range(500):
            estimator.learn("dense", SIZE, int(SIZE * 0.7))
        assert ratio(estimator, "dense") > 0.6
        assert ratio(estimator, "other") == pytest.approx(FIRST_RATIO)

    def test_remembers_a_bounded_number_of_models(self) -> None:
        estimator = PromptEstimator()
        for number in range(MODELS_MAX + 50):
            for _ in range(20):
                estimator.learn(f"m{number}", SIZE, SIZE)
        assert ratio(estimator, "m0") > FIRST_RATIO
        assert ratio(estimator, f"m{MODELS_MAX + 49}") == pytest.approx(FIRST_RATIO)
        estimator.learn("m0", SIZE, SIZE)
        assert ratio(estimator, "m0") > FIRST_RATIO, "those it knows go on learning"


@pytest.mark.parametrize(
    ("events", "content", "tokens"),
    [
        pytest.param(0, 0, 0, id="nothing"),
        pytest.param(5, 0, 5, id="one-an-event"),
        pytest.param(5, 10, 5, id="little-text"),
        pytest.param(1, 1_000, 300, id="much-text-in-one-event"),
    ],
)
def test_counted_output(events: int, content: int, tokens: int) -> None:
    assert counted_output(events, content) == tokens
