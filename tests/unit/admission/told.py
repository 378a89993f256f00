"""What Redis tells of keys, made up."""

from weir.admission.windows import ANY_MODEL, Numbers
from weir.core.types import Ask, Limits, Principal

WHO = Principal("search", "key1", "d" * 64)
COLLEAGUE = Principal("search", "key2", "e" * 64)
LLAMA = Ask("llama", "llama", 10, 10)
ALIAS = Ask("llama", "gpt-4o", 10, 10)
LISTED = Limits(models=("llama*",))
BITS = {"requests": 1, "tokens": 2, "concurrency": 4}


def numbers(key: Limits = Limits(), team: Limits = Limits()) -> Numbers:  # noqa: B008 - frozen
    """As the script tells them, of full buckets."""
    told: list[int] = []
    for one in (key, team):
        bits = sum(BITS[unit] for unit in one.shadow) + (0 if one.models else ANY_MODEL)
        full = one.burst_seconds * 1_000_000
        told += [one.rpm or -1, one.burst_seconds, full * one.rpm if one.rpm else -1]
        told += [one.tpm or -1, full * one.tpm if one.tpm else -1, one.concurrency or -1, 0, bits]
    return told
