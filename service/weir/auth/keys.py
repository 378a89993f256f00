"""The form of a key and its digest. Pure.

`sk-weir-` + 12 base62 of key id + `_` + 32 base62 of secret + 6 base62 of CRC32 over all before it. The checksum, as
GitHub's tokens have one (github.blog, 2021-04-05), tells a mistyped key from a wrong one without asking anybody.
For secret scanners: `sk-weir-[0-9A-Za-z]{12}_[0-9A-Za-z]{38}`.
"""

import hashlib
import hmac
import re
import secrets
import zlib

PREFIX = b"sk-weir-"
ALPHABET = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
NATIVE = re.compile(rb"sk-weir-([0-9A-Za-z]{12})_[0-9A-Za-z]{38}")
FOREIGN_MIN, FOREIGN_MAX = 8, 512  # bytes; shorter is guessed, longer is no key


def new_key_id() -> str:
    return _random(12).decode()


def new_key(key_id: str) -> str:
    """A key for `key_id`; the secret has 190 random bits."""
    body = PREFIX + key_id.encode() + b"_" + _random(32)
    return (body + _checksum(body)).decode()


def mistyped(key: bytes) -> bool:
    """It wants to be one of ours and cannot be."""
    if not key.startswith(PREFIX):
        return False
    return NATIVE.fullmatch(key) is None or key[-6:] != _checksum(key[:-6])


def digest(key: bytes, pepper: bytes | None) -> str:
    """HMAC-SHA256 with the pepper, SHA-256 without, in hexadecimal.

    Not bcrypt: a key is 190 random bits, there is nothing to stretch, and this stands in the request path (0.6 us).
    """
    if pepper:
        return hmac.digest(pepper, key, "sha256").hex()
    return hashlib.sha256(key).hexdigest()


def _random(length: int) -> bytes:
    return bytes(secrets.choice(ALPHABET) for _ in range(length))


def _checksum(body: bytes) -> bytes:
    number = zlib.crc32(body)
    digits = bytearray(6)
    for place in range(5, -1, -1):
        number, digit = divmod(number, 62)
        digits[place] = ALPHABET[digit]
    return bytes(digits)
