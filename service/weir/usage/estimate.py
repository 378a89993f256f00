"""How many tokens a prompt will be, before anybody says so, and how many were relayed, where nobody said so.

Tokens per byte differ by model and language, so the ratio of each model is learned from settled requests: an upper
quantile, because a reservation should rarely be too small. Nothing is lost if it is: the settlement charges the rest.
"""

FIRST_RATIO = 0.30  # tokens per byte of request body before anything is learned; English is about 0.25
QUANTILE = 0.95
STEP = 0.004  # of tokens per byte; some hundred requests to adapt, and one odd request moves it little
LOWEST, HIGHEST = 0.02, 1.0  # a token is at least a byte of somebody's alphabet
MODELS_MAX = 1000


class PromptEstimator:
    """Tokens of a prompt from the bytes of its request, per model."""

    __slots__ = ("_ratios",)

    def __init__(self) -> None:
        self._ratios: dict[str, float] = {}

    def estimate(self, model: str, text_bytes: int, media_tokens: int = 0) -> int:
        """Tokens, at least 1. `text_bytes` leaves out base64; `media_tokens` stands for images and audio."""
        return max(int(text_bytes * self._ratios.get(model, FIRST_RATIO)) + media_tokens, 1)

    def learn(self, model: str, text_bytes: int, tokens: int) -> None:
        """What a settled request without media turned out to be.

        Stochastic quantile tracking (Robbins-Monro): up by q, down by 1-q, in steps. State: one float per model.
        """
        ratio = self._ratios.get(model, FIRST_RATIO)
        if len(self._ratios) >= MODELS_MAX and model not in self._ratios:
            return
        step = STEP * QUANTILE if tokens > text_bytes * ratio else -STEP * (1 - QUANTILE)
        self._ratios[model] = min(max(ratio + step, LOWEST), HIGHEST)


def counted_output(events: int, content_bytes: int) -> int:
    """Tokens relayed of a stream that never reported: one an event, or more where events carry more text.

    A server that sends several tokens in one event must not make an early leave cheap.
    """
    return max(events, int(content_bytes * FIRST_RATIO))
