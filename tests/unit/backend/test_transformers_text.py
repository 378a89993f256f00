"""Text that may be shown: whole characters, and nothing of a stop string, whatever the pieces are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.backend.transformers_text import HELD_MAX, Decoder, StopStrings


def in_bytes(tokens: list[int]) -> str:
    """A tokenizer with a token for each byte."""
    return bytes(tokens).decode(errors="replace")


def in_words(tokens: list[int]) -> str:
    """One that writes the space of its first word not, as SentencePiece's do."""
    return "".join((" a", " b", "c")[token] for token in tokens).removeprefix(" ")


def told(tokens: list[int], decode: object = in_bytes) -> list[str]:
    decoder = Decoder(decode)  # type: ignore[arg-type]  # a function of the table below
    return [*(decoder.of(token) for token in tokens), decoder.rest()]


WHOLE = [
    (list(b"ab"), in_bytes, ["a", "b", ""]),
    (list("aä€".encode()), in_bytes, ["a", "", "ä", "", "", "€", ""]),
    (list("😀!".encode()), in_bytes, ["", "", "", "😀", "!", ""]),
    ([*b"a", 0xC3], in_bytes, ["a", "", "\ufffd"]),
    ([0xC3, *b"a"], in_bytes, ["", "\ufffda", ""]),
    ([0, 1, 2, 0], in_words, ["a", " b", "c", " a", ""]),
    ([], in_bytes, [""]),
]


@pytest.mark.parametrize(
    ("tokens", "decode", "texts"), WHOLE, ids=["plain", "two_and_three", "four", "cut", "never", "words", "none"]
)
def test_only_whole_characters_are_told(tokens: list[int], decode: object, texts: list[str]) -> None:
    assert told(tokens, decode) == texts


@given(st.text())
def test_whatever_is_text_is_told_as_it_is(text: str) -> None:
    tokens = list(text.encode("utf-8", "surrogatepass"))
    assert "".join(told(tokens)) == in_bytes(tokens)


def test_what_never_becomes_a_character_is_not_waited_for() -> None:
    texts = told([0xFF] * 100)
    assert max(map(len, texts)) <= HELD_MAX
    assert "".join(texts) == "\ufffd" * 100


def shown(pieces: list[str], stops: list[str]) -> tuple[list[str], bool]:
    strings = StopStrings(stops)
    texts = [strings.of(piece) for piece in pieces]
    return [*texts, strings.rest()], strings.found


STOPS = [
    # pieces                     stops            shown                      found
    (["ab", "c"],                [],              ["ab", "c", ""],           False),
    (["ab", "END", "c"],         ["END"],         ["ab", "", "", ""],        True),
    (["abE", "N", "Dc"],         ["END"],         ["ab", "", "", ""],        True),
    (["abE", "N", "x"],          ["END"],         ["ab", "", "ENx", ""],     False),
    (["abE", "N"],               ["END"],         ["ab", "", "EN"],          False),
    (["aab"],                    ["ab"],          ["a", ""],                 True),
    (["aa", "ab"],               ["aab"],         ["", "a", ""],             True),
    (["xyEND", ""],              ["END", "y"],    ["x", "", ""],             True),
    (["a\n", "\nb"],             ["\n\n", "b"],   ["a", "", ""],             True),
    (["abEND"],                  ["D", "END"],    ["ab", ""],                True),
]  # fmt: skip
STOP_IDS = ["none", "in_a_piece", "across", "almost", "held", "overlap", "overlap_across", "first", "lines", "earliest"]


@pytest.mark.parametrize(("pieces", "stops", "texts", "found"), STOPS, ids=STOP_IDS)
def test_stop_strings(pieces: list[str], stops: list[str], texts: list[str], found: bool) -> None:
    assert shown(pieces, stops) == (texts, found)


@given(st.lists(st.text("ab", max_size=4)), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_pieces_make_no_difference(pieces: list[str], stops: list[str]) -> None:
    """Shown is what stands before the first stop string that is complete; nothing of it is taken back."""
    text = "".join(pieces)
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    texts, found = shown(list(text), stops)
    assert found is bool(ends)
    whole = (
        text
        if not ends
        else text[: min(text[: ends[0]].rfind(stop) for stop in stops if text[: ends[0]].endswith(stop))]
    )
    assert "".join(texts) == whole
    for cut in range(len(text) + 1):
        in_two, found_in_two = shown([text[:cut], text[cut:]], stops)
        assert found_in_two is found
        assert text.startswith("".join(in_two))
        assert not any(stop in "".join(in_two) for stop in stops)
