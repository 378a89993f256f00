"""The form of a key, its checksum and its digest."""

import hashlib
import hmac
import re
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weir.auth.keys import ALPHABET, digest, mistyped, new_key, new_key_id

LAW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
KEY_ID = "abcDEF012345"
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def base62(number: int, digits: int) -> str:
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, 62)
        text = BASE62[digit] + text
    return text


class TestForm:
    def test_is_the_one_that_is_promised(self) -> None:
        key = new_key(KEY_ID)
        assert re.fullmatch(r"sk-weir-abcDEF012345_[0-9A-Za-z]{32}[0-9A-Za-z]{6}", key)

    def test_ends_in_the_crc_of_all_before_it(self) -> None:
        key = new_key(KEY_ID)
        assert key[-6:] == base62(zlib.crc32(key[:-6].encode()), 6)

    def test_key_ids_are_twelve_of_base62(self) -> None:
        assert re.fullmatch(r"[0-9A-Za-z]{12}", new_key_id())

    def test_the_alphabet_is_base62(self) -> None:
        assert ALPHABET.decode() == BASE62

    def test_no_two_are_alike(self) -> None:
        assert len({new_key(KEY_ID) for _ in range(1_000)}) == 1_000
        assert len({new_key_id() for _ in range(1_000)}) == 1_000

    def test_every_letter_comes_up_in_secrets(self) -> None:
        """1,000 secrets of 32: a missing letter is as likely as 62 * (61/62)**32000."""
        seen = {letter for _ in range(1_000) for letter in new_key(KEY_ID)[21:53]}
        assert seen == set(BASE62)


class TestMistyped:
    def test_a_good_one_is_not(self) -> None:
        for _ in range(100):
            assert not mistyped(new_key(new_key_id()).encode())

    @pytest.mark.parametrize("place", range(len("sk-weir-"), 8 + 12 + 1 + 38))
    def test_every_change_of_one_character_is(self, place: int) -> None:
        key = new_key(KEY_ID).encode()
        for other in (*ALPHABET, ord("_"), ord("-"), ord(" "), 0xFC):
            if other != key[place]:
                assert mistyped(key[:place] + bytes([other]) + key[place + 1 :])

    def test_every_swap_of_two_neighbours_is(self) -> None:
        key = new_key(KEY_ID).encode()
        for place in range(8, len(key) - 1):
            a, b = key[place : place + 1], key[place + 1 : place + 2]
            if a != b:
                assert mistyped(key[:place] + b + a + key[place + 2 :])

    @pytest.mark.parametrize(
        "key",
        [
            pytest.param(b"sk-weir-", id="prefix-alone"),
            pytest.param(b"sk-weir-short", id="short"),
            pytest.param(new_key(KEY_ID)[:-1].encode(), id="one-letter-lost"),
            pytest.param(new_key(KEY_ID).encode() + b"a", id="one-letter-more"),
            pytest.param(new_key(KEY_ID).encode() + b"\n", id="newline"),
        ],
    )
    def test_wrong_lengths_are(self, key: bytes) -> None:
        assert mistyped(key)

    @pytest.mark.parametrize("key", [b"", b"sk-proj-abc", b"hello world", b"SK-WEIR-x", b"\xff\x00"])
    def test_others_keys_are_none_of_our_business(self, key: bytes) -> None:
        assert not mistyped(key)

    @LAW
    @given(st.binary(max_size=80))
    def test_nothing_breaks_it(self, rest: bytes) -> None:
        assert mistyped(b"sk-weir-" + rest), "no random text has a good checksum"


class TestDigest:
    def test_is_sha256_without_a_pepper(self) -> None:
        assert digest(b"key", None) == hashlib.sha256(b"key").hexdigest()

    def test_is_hmac_sha256_with_one(self) -> None:
        assert digest(b"key", b"pepper") == hmac.new(b"pepper", b"key", "sha256").hexdigest()

    def test_of_an_empty_pepper_is_that_of_none(self) -> None:
        assert digest(b"key", b"") == digest(b"key", None)

    @LAW
    @given(st.binary(max_size=600), st.none() | st.binary(max_size=80))
    def test_is_always_64_hexadecimal_digits(self, key: bytes, pepper: bytes | None) -> None:
        assert re.fullmatch(r"[0-9a-f]{64}", digest(key, pepper))
