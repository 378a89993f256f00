"""Bytes that are no good HTTP, from clients and from upstreams: refused in words, never a 500, a hang or a second
request that nobody made; and afterwards everything is as it was.

What one server reads as one request and the next as two is how requests are smuggled (RFC 9112, section 11.2), so every
row is sent to a real Weir in front of an upstream that writes down all that reaches it.
"""

import contextlib
import json
import re
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, Phase, example, given, note, settings
from hypothesis import strategies as st

from tests.system.harness import Admin, Key, RawAnswer, Upstream, Weir, configuration, eventually, model

BOUND = 15.0  # nothing takes longer; the longest wait of this Weir is its body timeout
BODY_TIMEOUT = 1.0
QUIET = 0.2  # how long to listen for an answer where none has to come
MAX_BODY = 1 << 20
SMUGGLED = "smuggled"  # in the body of a request that the client never made

# Slow to fill, so that what a refusal takes can be seen.
LIMITS = {"rpm": 6, "tpm": 6, "concurrency": 5, "burst_seconds": 60_000}

OK, REFUSED = {200}, {400}
EITHER = {200, 400}  # a parser may read it or not; nobody else may read it otherwise
SILENT = {0}  # no answer: it waits for more, or just closes


def chat(mark: str, **more: Any) -> bytes:
    fields = {"model": "chat", "user": mark, "messages": [{"role": "user", "content": "hello"}]}
    return json.dumps(fields | more).encode()


KEY = "sk-weir-" + "K" * 51  # as long as a real one
BODY = chat("MARK")
HIDDEN = chat(SMUGGLED)
HIDDEN_REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (KEY.encode(), len(HIDDEN), HIDDEN)
)
LINE = "POST /v1/chat/completions HTTP/1.1"
USUAL = ("Host: a", f"Authorization: Bearer {KEY}", "Content-Type: application/json")
LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"
IN_CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def said(
    *headers: str, line: str = LINE, usual: tuple[str, ...] = USUAL, body: bytes = BODY, eol: str = "\r\n"
) -> bytes:
    """A request with these header lines after the usual ones, and no other."""
    return eol.join([line, *usual, *headers, "", ""]).encode("latin-1") + body


def with_header(line: str) -> bytes:
    """A good request, but for this header line."""
    return said(LENGTH, line)


def chunks(data: bytes) -> bytes:
    return said(CHUNKED, body=data)


def to(target: str, method: str = "POST") -> bytes:
    return said(LENGTH, line=f"{method} {target} HTTP/1.1")


@dataclass(frozen=True)
class Bad:
    """What is sent, and which statuses may come back first.

    KEY stands for a good key, MARK for what the upstream knows the request by; each is as long as they are.
    """

    id: str
    sent: bytes
    statuses: set[int] = field(default_factory=lambda: REFUSED)


ONE = b"%x\r\n" % len(BODY)
PIECES = [piece for piece in re.split(rb"(MARK|.)", BODY) if piece]

CASES = [
    # Said twice: two readers take two different ones.
    Bad("host-twice", with_header("Host: b")),
    Bad("host-twice-the-same", with_header("Host: a")),
    Bad("host-missing", said(LENGTH, usual=USUAL[1:]), EITHER),
    Bad("length-twice", said(LENGTH, "Content-Length: 5")),
    Bad("length-twice-the-shorter-first", said("Content-Length: 5", LENGTH)),
    Bad("length-twice-the-same", said(LENGTH, LENGTH)),
    Bad("type-twice", with_header("Content-Type: text/plain")),
    Bad("authorization-twice", with_header("Authorization: Bearer other"), {400, 401}),
    Bad("authorization-twice-the-same", with_header(f"Authorization: Bearer {KEY}"), {400, 401}),
    Bad("coding-twice", said(LENGTH, "Content-Encoding: identity", "Content-Encoding: gzip"), {400, 415}),
    # Names that another reader would write otherwise.
    Bad("length-underscored", with_header("Content_Length: 5")),
    Bad("transfer-underscored", with_header("Transfer_Encoding: chunked")),
    Bad("authorization-underscored", with_header("Authorization_: Bearer x")),
    Bad("any-name-underscored", with_header("X_Any: 1")),
    Bad("space-before-the-colon", with_header("X-Any : 1")),
    Bad("space-before-the-colon-of-the-length", said("Content-Length : 5", LENGTH)),
    Bad("tab-before-the-colon-of-the-coding", said(LENGTH, "Transfer-Encoding\t: chunked")),
    Bad("space-in-a-name", with_header("X Any: 1")),
    Bad("no-name", with_header(": 1")),
    Bad("no-colon", with_header("X-Any"), REFUSED),
    Bad("space-before-the-first-name", said(LENGTH, usual=(" X-Any: 1", *USUAL))),
    Bad("nul-in-a-name", with_header("X-\0Any: 1")),
    Bad("not-ascii-in-a-name", with_header("X-\xe9: 1")),
    Bad("brackets-in-a-name", with_header("X-(Any): 1")),
    Bad("quotes-in-a-name", with_header('"X-Any": 1')),
    # Values that another reader would cut.
    *(Bad(f"control-{i:02x}-in-a-value", with_header(f"X-Any: a{chr(i)}b")) for i in (0, 1, 7, 8, 0x0B, 0x0C, 0x1F, 0x7F)),
    Bad("return-in-a-value", with_header("X-Any: a\rb")),
    Bad("return-and-a-header-in-a-value", with_header("X-Any: a\rContent-Length: 5")),
    Bad("nul-in-the-length", said(f"Content-Length: {len(BODY)}\0")),
    Bad("nul-in-the-key", said(LENGTH, usual=(USUAL[0], f"Authorization: Bearer {KEY}\0", USUAL[2]))),
    Bad("latin-1-in-a-value", with_header("X-Any: \xe9"), OK),
    Bad("folded", with_header("X-Any: a\r\n b")),
    Bad("folded-by-a-tab", with_header("X-Any: a\r\n\tb")),
    Bad("folded-length", said("Content-Length:\r\n 5", LENGTH)),
    Bad("folded-coding", said(LENGTH, "Transfer-Encoding:\r\n chunked")),
    Bad("folded-key", said(LENGTH, usual=(USUAL[0], f"Authorization:\r\n Bearer {KEY}", USUAL[2])), {400, 401}),
    Bad("an-empty-value", with_header("X-Any:"), OK),
    # Ends of lines.
    Bad("bare-newlines", said(LENGTH, eol="\n"), EITHER),
    Bad("one-bare-newline", with_header("X-Any: a\nX-Other: b"), EITHER),
    Bad("bare-newline-before-the-length", said("X-Any: a\nContent-Length: 5", LENGTH)),
    Bad("bare-newline-before-the-body", said(LENGTH)[: -len(BODY) - 2] + b"\n" + BODY, EITHER),
    Bad("bare-returns", said(LENGTH, eol="\r"), REFUSED | SILENT),
    Bad("empty-lines-first", b"\r\n\r\n" + said(LENGTH), EITHER),
    Bad("a-bare-return-first", b"\r" + said(LENGTH), EITHER),
    # How long is it?
    *(
        Bad(f"length-{name}", said(f"Content-Length: {value}"), statuses)
        for name, value, statuses in [
            ("negative", "-1", REFUSED),
            ("signed", f"+{len(BODY)}", REFUSED),
            ("plus-one", "+1", REFUSED),
            ("hexadecimal", hex(len(BODY)), REFUSED),
            ("exponential", "1e2", REFUSED),
            ("a-fraction", f"{len(BODY)}.0", REFUSED),
            ("a-list", f"{len(BODY)}, {len(BODY)}", REFUSED),
            ("a-list-of-two", f"5, {len(BODY)}", REFUSED),
            ("two-words", "5 6", REFUSED),
            ("grouped", "1_0", REFUSED),
            ("superscript", "\xb2", REFUSED),
            ("empty", "", REFUSED),
            ("a-word", "many", REFUSED),
            ("leading-zeros", f"000{len(BODY)}", EITHER),
            ("2-to-63", str(2**63), {400, 413}),
            ("2-to-64", str(2**64), {400, 413}),
            ("2-to-64-and-some", str(2**64 + len(BODY)), {400, 413}),
            ("of-a-thousand-digits", "9" * 1000, {400, 413}),
            ("of-ten-thousand-digits", "9" * 10_000, {400, 413}),
        ]
    ),
    Bad("length-shorter-than-the-body", said("Content-Length: 10")),
    Bad("length-shorter-and-a-request-behind", said("Content-Length: 10", body=BODY[:10] + b"GET /v1/limits HTTP/1.1\r\n\r\n")),
    Bad("length-longer-than-the-body", said(f"Content-Length: {len(BODY) + 10}"), {408}),
    Bad("length-longer-than-two-requests", said(f"Content-Length: {len(BODY) + 5000}", body=BODY + HIDDEN_REQUEST), {408}),
    Bad("no-length", said(body=b""), REFUSED),
    Bad("no-length-and-a-body", said(), REFUSED),
    # In chunks, or not?
    Bad("coding-and-length", said(LENGTH, CHUNKED, body=IN_CHUNKS)),
    Bad("length-and-coding", said(CHUNKED, LENGTH, body=IN_CHUNKS)),
    Bad("coding-and-length-0-and-a-request-behind", said("Content-Length: 0", CHUNKED, body=b"0\r\n\r\n" + HIDDEN_REQUEST)),
    Bad("length-over-the-end-of-the-chunks", said("Content-Length: 900", CHUNKED, body=b"0\r\n\r\n" + HIDDEN_REQUEST)),
    Bad("coding-twice-the-same", said(CHUNKED, CHUNKED, body=IN_CHUNKS)),
    Bad("coding-twice-and-identity", said(CHUNKED, "Transfer-Encoding: identity", body=IN_CHUNKS)),
    *(
        Bad(f"coding-{name}", said(f"Transfer-Encoding: {value}", body=IN_CHUNKS), statuses)
        for name, value, statuses in [
            ("gzip", "gzip", {400, 415, 501}),
            ("gzip-and-chunked", "gzip, chunked", {400, 415, 501}),
            ("chunked-and-identity", "chunked, identity", REFUSED),
            ("chunked-twice", "chunked, chunked", REFUSED),
            ("chunked-and-nothing", "chunked,", REFUSED),
            ("nothing-and-chunked", ", chunked", REFUSED),
            ("identity", "identity", {400, 501}),
            ("nearly-chunked", "xchunked", {400, 501}),
            ("quoted", '"chunked"', {400, 501}),
            ("with-a-parameter", "chunked;q=1", {400, 501}),
            ("behind-a-tabulator", "\x0bchunked", REFUSED),
            ("before-a-form-feed", "chunked\x0c", REFUSED),
            ("empty", "", REFUSED),
            ("in-capitals", "CHUNKED", EITHER),
            ("behind-a-tab", "\tchunked", EITHER),
        ]
    ),
    Bad("coding-without-a-space", said("Transfer-Encoding:chunked", body=IN_CHUNKS), OK),
    Bad("coding-in-http-1.0", said(CHUNKED, line="POST /v1/chat/completions HTTP/1.0", body=IN_CHUNKS), EITHER),
    *(
        Bad(f"chunk-size-{name}", chunks(size + b"\r\n" + BODY + b"\r\n0\r\n\r\n"))
        for name, size in [
            ("a-letter", b"g"),
            ("negative", b"-%x" % len(BODY)),
            ("signed", b"+%x" % len(BODY)),
            ("prefixed", b"0x%x" % len(BODY)),
            ("empty", b""),
            ("behind-a-space", b" %x" % len(BODY)),
            ("a-list", b"%x,5" % len(BODY)),
            ("nul", b"%x\0" % len(BODY)),
            ("overflowing", b"1" + b"0" * 15 + b"%x" % len(BODY)),
            ("overflowing-to-this", b"f" * 64),
        ]
    ),
    Bad("chunk-size-before-a-space", chunks(b"%x \r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)), EITHER),
    Bad("chunk-size-with-zeros", chunks(b"0000%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)), EITHER),
    Bad("chunk-size-of-an-exabyte", chunks(b"fffffffffffffff\r\n" + BODY), {400, 408, 413}),
    Bad("chunk-larger-than-its-size", chunks(b"5\r\n" + BODY + b"\r\n0\r\n\r\n")),
    Bad("chunk-smaller-than-its-size", chunks(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY) + 1, BODY))),
    Bad("chunk-without-an-end", chunks(ONE + BODY + b"0\r\n\r\n")),
    Bad("chunk-by-bare-newlines", chunks(b"%x\n%b\n0\n\n" % (len(BODY), BODY)), EITHER | {408}),
    Bad("chunk-by-a-bare-return", chunks(b"%x\r%b\r\n0\r\n\r\n" % (len(BODY), BODY))),
    Bad("chunk-with-an-extension", chunks(b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)), EITHER),
    Bad("chunk-with-a-quoted-end", chunks(b'%x;a="\r\n"\r\n%b\r\n0\r\n\r\n' % (len(BODY), BODY))),
    Bad("chunk-with-a-newline-in-its-extension", chunks(b"%x;a\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))),
    Bad("chunk-with-a-nul-in-its-extension", chunks(b"%x;a\0=b\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)), EITHER),
    Bad("chunk-with-a-large-extension", chunks(b"%x;a=%b\r\n%b\r\n0\r\n\r\n" % (len(BODY), b"b" * 100_000, BODY)), EITHER | {413, 431}),
    Bad("chunks-of-a-few-bytes", chunks(b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in PIECES) + b"0\r\n\r\n"), OK),
    Bad("last-chunk-missing", chunks(ONE + BODY + b"\r\n"), {408}),
    Bad("trailer", chunks(ONE + BODY + b"\r\n0\r\nX-Any: 1\r\n\r\n"), EITHER),
    *(
        Bad(f"trailer-{name}", chunks(ONE + BODY + b"\r\n0\r\n" + line + b"\r\n\r\n"), EITHER)
        for name, line in [
            ("length", b"Content-Length: 500"),
            ("coding", b"Transfer-Encoding: chunked"),
            ("key", b"Authorization: Bearer other"),
            ("host", b"Host: b"),
            ("underscored", b"Content_Length: 5"),
        ]
    ),
    Bad("trailer-that-is-none", chunks(ONE + BODY + b"\r\n0\r\nhello\r\n\r\n")),
    Bad("trailer-that-is-a-request", chunks(ONE + BODY + b"\r\n0\r\n" + HIDDEN_REQUEST)),
    Bad("trailer-too-large", chunks(ONE + BODY + b"\r\n0\r\n" + b"X-Any: %b\r\n" % (b"a" * 1000) * 200 + b"\r\n"), {200, 400, 431}),
    # Where to?
    Bad("target-absolute", to("http://a/v1/chat/completions")),
    Bad("target-absolute-elsewhere", to("http://169.254.169.254/latest/meta-data")),
    Bad("target-absolute-tls", to("https://a/v1/chat/completions")),
    Bad("target-absolute-get", said(line="GET http://a/v1/limits HTTP/1.1", body=b"")),
    Bad("target-authority", said(line="CONNECT a:443 HTTP/1.1", body=b"")),
    Bad("target-authority-by-post", to("a:443")),
    Bad("target-asterisk", to("*")),
    Bad("target-asterisk-by-options", said(line="OPTIONS * HTTP/1.1", body=b""), {200, 400, 404, 405}),
    Bad("target-absolute-by-options", said(line="OPTIONS http://a/v1/limits HTTP/1.1", body=b"")),
    Bad("target-without-a-slash", to("v1/chat/completions")),
    Bad("target-a-query", to("?a=b")),
    Bad("target-a-fragment", to("#a")),
    Bad("target-with-a-fragment", to("/v1/chat/completions#a"), {200, 400, 404}),
    Bad("target-with-two-slashes", to("//v1/chat/completions"), {400, 404}),
    Bad("target-with-a-host-in-its-path", to("//evil.example/v1/chat/completions"), {400, 404}),
    Bad("target-missing", said(LENGTH, line="POST HTTP/1.1")),
    Bad("target-empty", said(LENGTH, line="POST  HTTP/1.1")),
    Bad("target-nul", to("/v1/chat/completions\0")),
    Bad("target-encoded-nul", to("/v1/chat/completions%00"), {400, 404}),
    Bad("target-encoded-line", to("/v1/chat/completions%0d%0aX-Any:1"), {400, 404}),
    Bad("target-encoded-slash", to("/v1%2fchat%2fcompletions"), {200, 400, 404}),
    Bad("target-encoded-dots", to("/v1/models/%2e%2e/%2e%2e/etc", "GET"), {400, 404}),
    Bad("target-half-encoded", to("/v1/chat/completions%"), {400, 404}),
    Bad("target-badly-encoded", to("/v1/chat/completions%zz%ff"), {400, 404}),
    Bad("target-not-utf-8-encoded", to("/v1/models/%ff%fe", "GET"), {400, 404}),
    Bad("target-latin-1", to("/v1/chat/\xe9"), {400, 404}),
    Bad("target-latin-1-query", to("/v1/chat/completions?\xe9"), EITHER),
    Bad("target-backslashes", to("\\v1\\chat"), REFUSED),
    Bad("target-control", to("/v1/\x01"), REFUSED),
    Bad("target-tab", to("/v1/chat\tcompletions"), REFUSED),
    Bad("target-two-words", to("/v1/chat completions"), REFUSED),
    Bad("target-65-kilobytes", to("/" + "a" * 65_000), {400, 404, 414, 431}),
    Bad("target-a-mebibyte", to("/" + "a" * (1 << 20)), {400, 404, 414, 431}),
    Bad("query-65-kilobytes", to("/v1/chat/completions?" + "a" * 65_000), {200, 400, 414, 431}),
    # What, and by which protocol?
    Bad("method-unknown", to("/v1/chat/completions", "FOO")),
    Bad("method-in-small-letters", to("/v1/chat/completions", "post")),
    Bad("method-two-words", to("/v1/chat/completions", "PO ST")),
    Bad("method-with-a-nul", to("/v1/chat/completions", "PO\0ST")),
    Bad("method-empty", to("/v1/chat/completions", "")),
    Bad("method-quoted", to("/v1/chat/completions", '"POST"')),
    Bad("method-of-a-kilobyte", to("/v1/chat/completions", "P" * 1000)),
    *(Bad(f"method-{m.lower()}", to("/v1/chat/completions", m), {400, 404, 405, 501}) for m in ("TRACE", "PROPFIND", "PATCH", "OPTIONS")),
    Bad("http-0.9", b"GET /v1/limits\r\n\r\n"),
    Bad("http-0.9-post", b"POST /v1/chat/completions\r\n" + BODY),
    Bad("http-2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    *(
        Bad(f"version-{name}", said(LENGTH, line=f"POST /v1/chat/completions {version}"), statuses)
        for name, version, statuses in [
            ("2.0", "HTTP/2.0", {400, 505}),
            ("0.9", "HTTP/0.9", {400, 505}),
            ("9.9", "HTTP/9.9", {400, 505}),
            ("1.2", "HTTP/1.2", {200, 400, 505}),
            ("1", "HTTP/1", REFUSED),
            ("1.1.1", "HTTP/1.1.1", REFUSED),
            ("11", "HTTP/11", REFUSED),
            ("in-small-letters", "http/1.1", REFUSED),
            ("of-icecast", "ICE/1.0", REFUSED),
            ("of-rtsp", "RTSP/1.0", REFUSED),
            ("before-a-space", "HTTP/1.1 ", EITHER),
            ("and-more", "HTTP/1.1 and more", REFUSED),
        ]
    ),
    Bad("upgrade-to-h2c", said(LENGTH, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), EITHER),
    Bad("upgrade-to-h2c-and-a-request-behind", said("Connection: Upgrade", "Upgrade: h2c", "Content-Length: 0", body=HIDDEN_REQUEST), {400}),
    Bad("upgrade-to-websocket", said("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13", line="GET /v1/chat/completions HTTP/1.1", body=b""), {400, 404, 405, 426}),
    Bad("expects-100", said(LENGTH, "Expect: 100-continue"), OK),
    Bad("expects-something-else", said(LENGTH, "Expect: 200-ok"), {200, 400, 417}),
    Bad("connection-names-the-length", said(LENGTH, "Connection: close, Content-Length"), EITHER),
    # How much of it?
    Bad("a-header-of-40-kilobytes", with_header("X-Any: " + "a" * 40_000), {431}),
    Bad("a-header-of-a-mebibyte", with_header("X-Any: " + "a" * (1 << 20)), {400, 431}),
    Bad("a-name-of-40-kilobytes", with_header("X-" + "a" * 40_000 + ": 1"), {400, 431}),
    Bad("two-hundred-headers", said(LENGTH, *(f"X-{i}: 1" for i in range(200))), {431}),
    Bad("ten-thousand-headers", said(LENGTH, *(f"X-{i}: 1" for i in range(10_000))), {400, 431}),
    # Not HTTP at all.
    Bad("nul", b"\0", REFUSED | SILENT),
    Bad("nuls", b"\0" * 100),
    Bad("newlines", b"\r\n" * 1000, SILENT),
    Bad("tls", bytes.fromhex("16030100c8010000c40303") + b"\x5a" * 200),
    Bad("ssh", b"SSH-2.0-OpenSSH_9.2p1\r\n"),
    Bad("proxy-protocol", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + said(LENGTH)),
    Bad("proxy-protocol-2", bytes.fromhex("0d0a0d0a000d0a515549540a2111000c") + b"\x7f" * 12 + said(LENGTH)),
    Bad("an-answer", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    Bad("json", BODY),
    # One behind the other.
    Bad("a-good-one", said(LENGTH), OK),
    Bad("a-good-one-in-chunks", chunks(IN_CHUNKS), OK),
    Bad("nuls-behind-a-good-one", said(LENGTH) + b"\0" * 10, OK | SILENT),
    Bad("newlines-behind-a-good-one", said(LENGTH) + b"\r\n\r\n", OK),
    Bad("half-a-head-behind-a-good-one", said(LENGTH) + b"POST /v1/chat", OK),
    Bad("a-request-in-the-unread-body", said(f"Content-Length: {MAX_BODY + 1}", body=HIDDEN_REQUEST * 3), {413}),
    Bad("a-request-in-the-body-of-a-get", said(f"Content-Length: {len(HIDDEN_REQUEST)}", line="GET /v1/limits HTTP/1.1", body=HIDDEN_REQUEST), OK),
    Bad("a-request-in-the-chunks-of-a-get", said(CHUNKED, line="GET /v1/limits HTTP/1.1", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN_REQUEST), HIDDEN_REQUEST)), EITHER),
    Bad("a-request-in-the-body-for-nobody", said(f"Content-Length: {len(HIDDEN_REQUEST)}", line="POST /v1/nowhere HTTP/1.1", body=HIDDEN_REQUEST), {404}),
    Bad("a-request-in-the-body-without-a-key", said(f"Content-Length: {len(HIDDEN_REQUEST)}", usual=USUAL[:1], body=HIDDEN_REQUEST), {401}),
]  # fmt: skip


# The rig


@pytest.fixture(scope="module")
def recording() -> Iterator[Upstream]:
    """An upstream of their own, so that all that it has seen is theirs."""
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def weir(redis_url: str, recording: Upstream) -> Iterator[Weir]:
    config = configuration(
        redis_url,
        [
            model("chat", recording.url, default_max_tokens=64, timeouts={"first_byte": 5, "idle": 2, "total": 20}),
            {"name": "echo", "backend": "echo"},
        ],
        server={"max_body_bytes": MAX_BODY, "body_timeout_seconds": BODY_TIMEOUT, "keepalive_seconds": 3},
    )
    with Weir(config) as weir:
        yield weir


@pytest.fixture(scope="module")
def key(admin: Admin) -> Key:
    return admin.key(admin.team(**LIMITS), **LIMITS)


@pytest.fixture(scope="module")
def free(admin: Admin) -> Key:
    """Without limits, for what is good and repeated."""
    return admin.key()


@pytest.fixture
def as_it_was(weir: Weir, key: Key, recording: Upstream) -> Iterator[None]:
    """Whatever a test sends: nothing is taken, nothing is left, and the server serves."""
    recording.forget()
    before = standing(weir, key)
    yield
    eventually(lambda: weir.metric("weir_in_flight_requests") == 0, why="nothing is in flight")
    eventually(lambda: weir.what_is_left(key) == before, why=f"the limits as they were: {before}")
    assert recording.records(SMUGGLED) == []
    assert "Traceback" not in weir.process.said
    assert '"exception"' not in "\n".join(weir.process.out)


def standing(weir: Weir, key: Key) -> dict[str, float]:
    """What is left, once two looks agree."""
    seen = [weir.what_is_left(key)]

    def same() -> bool:
        seen.append(weir.what_is_left(key))
        return seen[-1] == seen[-2]

    eventually(same)
    return seen[-1]


class Talk:
    """One connection on which bytes are sent, and the answers as they come, read by nothing that tidies up."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=BOUND)
        self._heard = b""
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def say(self, data: bytes) -> None:
        """As much of it as is taken. Reads meanwhile, as a client that is refused in the middle should."""
        view = memoryview(data)
        deadline = time.monotonic() + BOUND
        self._socket.settimeout(0.05)
        while view and not self.closed:
            assert time.monotonic() < deadline, "the server neither reads nor closes"
            try:
                view = view[self._socket.send(view) :]
            except TimeoutError:
                self._hear(0.01)
            except OSError:
                self._hear(BOUND)
                return

    def answer(self, within: float = BOUND) -> RawAnswer | None:
        """The next answer, whole; None when the connection ends first, or nothing comes in this time."""
        deadline = time.monotonic() + within
        while (answer := self._take()) is None:
            left = deadline - time.monotonic()
            if self.closed or left <= 0:
                return None
            self._hear(left)
        return answer

    def ended(self, within: float = BOUND) -> bool:
        """Whether the server closes it, without another answer."""
        deadline = time.monotonic() + within
        while not self.closed and time.monotonic() < deadline:
            self._hear(deadline - time.monotonic())
        return self.closed and not self._heard

    def listen_for(self, mark: bytes) -> bytes:
        """All that has come so far, once this is in it or the connection has ended."""
        deadline = time.monotonic() + BOUND
        while mark not in self._heard and not self.closed:
            assert time.monotonic() < deadline, f"no {mark!r}"
            self._hear(deadline - time.monotonic())
        return self._heard

    def reset(self) -> None:
        """Leave with RST instead of FIN."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _hear(self, within: float) -> None:
        self._socket.settimeout(max(within, 0.001))
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            return
        except OSError:
            data = b""
        self._heard += data
        self.closed = not data

    def _take(self) -> RawAnswer | None:
        head, found, rest = self._heard.partition(b"\r\n\r\n")
        if not found:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        told = re.fullmatch(r"HTTP/1\.1 (\d{3})[^\r\n]*", first)
        assert told, f"this is no answer: {self._heard[:200]!r}"
        status = int(told[1])
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        values = {name.lower(): value for name, value in headers}
        if status == 100:
            self._heard = rest
            return self._take()
        if values.get("transfer-encoding") == "chunked":
            body, end, rest = rest.partition(b"0\r\n\r\n")
            if not end:
                return None
        else:
            length = int(values["content-length"])
            if len(rest) < length:
                return None
            body, rest = rest[:length], rest[length:]
        self._heard = rest
        return RawAnswer(status, headers, body, 0.0)


def probe(key: Key, request_id: str) -> bytes:
    return (
        f"GET /v1/limits HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key.secret}\r\nx-request-id: {request_id}\r\n\r\n"
    ).encode()


def fair(answer: RawAnswer) -> None:
    """A refusal in OpenAI's words, and never a 500."""
    assert answer.status < 500, (answer.status, answer.body[:500])
    if answer.status >= 400:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert answer.values["x-request-id"]


# The plays


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
@pytest.mark.usefixtures("as_it_was")
def test_read_in_one_way_only(case: Bad, weir: Weir, key: Key, free: Key, recording: Upstream) -> None:
    mark = uuid.uuid4().hex[:4]
    secret = (key if OK.isdisjoint(case.statuses) else free).secret
    sent = case.sent.replace(b"MARK", mark.encode()).replace(KEY.encode(), secret.encode())
    answers = []
    with Talk(weir.port) as talk:
        talk.say(sent)
        first = talk.answer(QUIET if 0 in case.statuses else BOUND)
        if first is not None:
            answers.append(first)
            if first.values.get("connection") == "close":
                assert talk.ended(), "said that it closes, and does not"
            else:
                # The connection goes on: what is asked on it next is what is answered next, or it ends.
                asked = uuid.uuid4().hex
                talk.say(probe(free, asked))
                while (more := talk.answer()) and more.values.get("x-request-id") != asked:
                    answers.append(more)
                assert more or talk.closed, "it hangs"
        else:
            assert talk.closed or 0 in case.statuses, f"no answer within {BOUND} s"
    for answer in answers:
        fair(answer)
    assert (answers[0].status if answers else 0) in case.statuses, answers[0].body if answers else "no answer"
    served = sum(answer.status == 200 and b"choices" in answer.body for answer in answers)
    assert len(recording.records(mark)) == served
    assert len(recording.records()) == served, "the upstream was asked for something that nobody sent"


GOOD = [pytest.param(said(LENGTH), id="with-a-length"), pytest.param(chunks(IN_CHUNKS), id="in-chunks")]


@pytest.mark.parametrize("good", GOOD)
@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.usefixtures("as_it_was")
def test_cut_at_every_byte(good: bytes, how: str, weir: Weir, key: Key, recording: Upstream) -> None:
    whole = good.replace(KEY.encode(), key.secret.encode())
    process = psutil.Process(weir.process.pid)
    before = process.num_fds()
    for end in range(1, len(whole)):
        with Talk(weir.port) as talk:
            talk.say(whole[:end])
            if how == "reset":
                talk.reset()
    eventually(lambda: process.num_fds() <= before + 5, why=f"descriptors as before: {before}")
    assert recording.records() == []


@pytest.mark.parametrize("good", GOOD)
@pytest.mark.usefixtures("as_it_was")
def test_an_unfinished_body_ends_in_408_wherever_it_stops(
    good: bytes, weir: Weir, key: Key, recording: Upstream
) -> None:
    whole = good.replace(KEY.encode(), key.secret.encode())
    first = whole.index(b"\r\n\r\n") + 4
    ends = range(first, len(whole), 7)
    with contextlib.ExitStack() as stack:
        talks = [stack.enter_context(Talk(weir.port)) for _ in ends]
        for talk, end in zip(talks, ends, strict=True):
            talk.say(whole[:end])
        answers = [talk.answer() for talk in talks]
    assert [answer.status if answer else None for answer in answers] == [408] * len(talks)
    assert recording.records() == []


@pytest.mark.usefixtures("as_it_was")
def test_chunks_that_drip_for_ever_are_cut(weir: Weir, key: Key) -> None:
    """One byte in 50 ms keeps any time between bytes short; the body as a whole has one second."""
    with Talk(weir.port) as talk:
        talk.say(chunks(b"").replace(KEY.encode(), key.secret.encode()))
        answer, deadline = None, time.monotonic() + BOUND
        while answer is None:
            assert time.monotonic() < deadline, "it takes them for ever"
            talk.say(b"1\r\n \r\n")
            answer = talk.answer(0.05)
        assert answer.status == 408


@pytest.mark.usefixtures("as_it_was")
def test_a_head_that_never_ends_is_not_kept_for_ever(weir: Weir) -> None:
    """What nobody has a key for yet may not fill the memory: 16 MB of header lines are more than anybody reads."""
    before = psutil.Process(weir.process.pid).memory_info().rss
    with Talk(weir.port) as talk:
        talk.say(LINE.encode() + b"\r\nHost: a\r\n")
        for i in range(256):
            talk.say(b"X-%d: %b\r\n" % (i, b"a" * 65_000))
            if talk.closed or talk.answer(0.001):
                break
        else:
            pytest.fail("it takes any number of header lines")
        assert talk.ended()
    eventually(lambda: psutil.Process(weir.process.pid).memory_info().rss < before + 8 * 2**20, why="no more memory")


@pytest.mark.parametrize("started", [b"", b"P", LINE.encode() + b"\r\n", LINE.encode() + b"\r\nHost: a\r\nX-Any"])
@pytest.mark.usefixtures("as_it_was")
def test_a_head_that_does_not_come_is_not_waited_for_for_ever(weir: Weir, started: bytes) -> None:
    """Connections that say nothing, or drip, are how a few clients hold all of a server's descriptors."""
    with Talk(weir.port) as talk:
        talk.say(started)
        answer = talk.answer()
        assert answer or talk.closed, f"it still waits after {BOUND} s"
        assert answer is None or answer.status == 408
        assert talk.ended()


@pytest.mark.usefixtures("as_it_was")
def test_many_sent_at_once_are_answered_in_order(weir: Weir, free: Key, recording: Upstream) -> None:
    marks = [uuid.uuid4().hex[:4] for _ in range(20)]
    requests = [said(LENGTH, f"X-Request-Id: {mark}").replace(b"MARK", mark.encode()) for mark in marks]
    with Talk(weir.port) as talk:
        talk.say(b"".join(requests).replace(KEY.encode(), free.secret.encode()))
        answers = [talk.answer() for _ in marks]
    assert [answer and (answer.status, answer.values["x-request-id"]) for answer in answers] == [
        (200, m) for m in marks
    ]
    assert [record["json"]["user"] for record in recording.records()] == marks


@pytest.mark.parametrize("noise", [b"\0\0\0\0", b"GET / HTTP/9\r\n\r\n", b"\x16\x03\x01\0\xc8\x01"])
@pytest.mark.usefixtures("as_it_was")
def test_noise_behind_a_request_does_not_get_into_its_answer(
    weir: Weir, free: Key, recording: Upstream, noise: bytes
) -> None:
    """The stream goes on, or the connection is cut; a second answer in the middle of the first would be read as text."""
    gate = uuid.uuid4().hex
    body = chat("loud", stream=True, x_script={"gate": gate, "chunks": 5})
    with Talk(weir.port) as talk:
        talk.say(said(f"Content-Length: {len(body)}", body=body).replace(KEY.encode(), free.secret.encode()))
        eventually(lambda: recording.records("loud"))
        talk.listen_for(b"word0")
        talk.say(noise)
        time.sleep(QUIET)
        recording.open_gate(gate)
        heard = talk.listen_for(b"\r\n0\r\n\r\n")
    assert heard.count(b"HTTP/1.1 ") == 1
    assert b"invalid_request" not in heard


# Fuzzing

FUZZ = settings(
    deadline=None,
    database=None,
    derandomize=True,  # a suite that fails, fails again; `--hypothesis-seed` looks further
    phases=[Phase.explicit, Phase.generate],  # each try costs milliseconds; what fails is printed as it is
    suppress_health_check=list(HealthCheck),
)

numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, -1, 1.5, 2**53, 2**64, -(2**63), 10**400, 1e308, 128, 129])
)
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=20), st.just("\0"), st.just("a" * 5000))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)
parts = st.one_of(
    values,
    st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url", "input_audio", "file", "x"])}, optional={
        "text": values, "image_url": values, "input_audio": values, "data": values}),
)  # fmt: skip
messages = st.one_of(
    values,
    st.fixed_dictionaries(
        {}, optional={"role": values, "content": st.one_of(values, st.lists(parts, max_size=3)), "tool_calls": values}
    ),
)
FIELDS = {
    "messages": st.one_of(st.lists(messages, max_size=3), values),
    "prompt": values,
    "input": values,
    "stream": st.one_of(st.booleans(), values),
    "stream_options": st.one_of(values, st.fixed_dictionaries({"include_usage": values})),
    "max_tokens": st.one_of(st.integers(1, 50), values),
    "max_completion_tokens": st.one_of(st.integers(1, 50), values),
    "n": st.one_of(st.integers(1, 3), values),
    "best_of": values,
    "stop": values,
    "tools": st.one_of(
        values,
        st.lists(
            st.fixed_dictionaries(
                {"type": st.just("function"), "function": st.fixed_dictionaries({"name": values}, optional={"parameters": values})}
            ),
            max_size=2,
        ),
    ),
    "tool_choice": values,
    "response_format": st.one_of(
        values, st.fixed_dictionaries({"type": st.just("json_schema"), "json_schema": st.fixed_dictionaries({"schema": values})})
    ),
    "dimensions": values,
    "encoding_format": st.one_of(st.just("base64"), values),
    "modalities": values,
    "user": values,
}  # fmt: skip
models = st.one_of(st.sampled_from(["chat", "echo"]), values)
nearly = st.fixed_dictionaries({"model": models}, optional=FIELDS)
WELL_FORMED = {"chat/completions": "messages", "completions": "prompt", "embeddings": "input"}


def written(body: Any) -> bytes:
    """As Python writes it: NaN and lone surrogates included, which are no JSON."""
    return json.dumps(body).encode()


@st.composite
def broken(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with a few of them changed, left out, doubled or put in."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 3)):
            case 0:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del data[at : at + draw(st.integers(1, 8))]
            case 2:
                data[at:at] = data[at : at + draw(st.integers(1, 20))]
            case _:
                data[at:at] = draw(st.sampled_from([b"\r\n", b"\n", b"\0", b" ", b":", b'"', b"{", b"\xff", b"0"]))
    return bytes(data)


def told(answer: httpx.Response) -> None:
    assert answer.status_code != 500, answer.text
    assert b"internal_error" not in answer.content
    if answer.status_code >= 400:
        assert answer.json()["error"]["message"]


@settings(FUZZ, max_examples=400)
@given(
    path=st.sampled_from(list(WELL_FORMED)),
    body=st.one_of(nearly.map(written), values.map(written), broken(nearly.map(written))),
)
@example(path="completions", body=b'{"model": "echo", "prompt": [[]], "stop": [""]}')
@example(path="chat/completions", body=b'{"model": "echo", "messages": [{"role": "user", "content": [{"text": 5}]}]}')
@example(path="chat/completions", body=b'{"model": "echo", "messages": [{"role": "user", "content": "\\ud800"}]}')
@example(path="chat/completions", body=b'\xef\xbb\xbf{"model": "echo", "messages": []}')
def test_any_body_is_served_or_refused(weir: Weir, free: Key, path: str, body: bytes) -> None:
    headers = free.headers | {"content-type": "application/json"}
    answer = weir.http.post(f"/v1/{path}", content=body, headers=headers, timeout=BOUND)
    told(answer)


@settings(FUZZ, max_examples=400)
@given(sent=broken(st.sampled_from([said(LENGTH), chunks(IN_CHUNKS), said(LENGTH) + chunks(IN_CHUNKS)])))
@pytest.mark.usefixtures("as_it_was")
def test_any_request_is_read_in_one_way_only(weir: Weir, free: Key, recording: Upstream, sent: bytes) -> None:
    recording.forget()
    answers = []
    with Talk(weir.port) as talk:
        talk.say(sent.replace(KEY.encode(), free.secret.encode()))
        while answer := talk.answer(0.02 if answers else 0.1):
            fair(answer)
            answers.append(answer)
    served = sum(answer.status == 200 and b"choices" in answer.body for answer in answers)
    # More may have arrived than was waited for: a request is made by its last byte, and there are at most two of them.
    assert served <= len(recording.records()) <= 2


EVENT = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
STRANGE = [
    b"data: {\n\n", b"data: null\n\n", b"data: []\n\n", b"data: 1\n\n", b'data: "a"\n\n', b"data:\n\n", b"data\n\n", b"\n\n\n",
    b": ping\n\n", b"event: error\n\n", b"event: x\ndata: {}\n\n", b"id: 1\nretry: 5\n\n", b"\xef\xbb\xbf", b"\0", b"\r", b"\r\n\r\n",
    b'data: {"usage": 5}\n\n', b'data: {"usage": {"prompt_tokens": -1, "completion_tokens": "x"}}\n\n',
    b'data: {"usage": {"prompt_tokens": 1e400, "completion_tokens": 99999999999999999999999}}\n\n',
    b'data: {"usage": {"prompt_tokens": true, "completion_tokens": null}, "choices": []}\n\n',
    b'data: {"choices": 5}\n\n', b'data: {"choices": [5, null, {"delta": 7}, {"delta": {"content": 9}}]}\n\n',
    b'data: {"error": "bad"}\n\n', b'data: {"error": {"message": 5}}\n\n', b'data: {"choices":\ndata: []}\n\n',
    b"data: " + b"[" * 2000 + b"\n\n", b"data: \xff\xfe\n\n", b"data: " + b"x" * 20_000 + b"\n\n", b"data: [DONE]", b" [DONE]\n\n",
]  # fmt: skip
speech = st.lists(
    st.one_of(st.sampled_from([EVENT, USAGE, DONE]), st.sampled_from(STRANGE), st.binary(max_size=40)), max_size=8
).map(b"".join)


@dataclass(frozen=True)
class Told:
    """What the upstream writes, head and all; `said` is the stream in it, where the framing is whole."""

    raw: bytes
    close: bool
    said: bytes | None


@st.composite
def framed(draw: st.DrawFn) -> Told:
    said = draw(st.one_of(speech, broken(speech), speech.map(lambda s: s + DONE)))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    match draw(st.integers(0, 3)):
        case 0:
            return Told(head + b"content-length: %d\r\n\r\n%b" % (len(said), said), close=False, said=said)
        case 1:
            return Told(head + b"connection: close\r\n\r\n" + said, close=True, said=said)
        case 2:
            size = draw(st.integers(1, 200))
            pieces = [said[i : i + size] for i in range(0, len(said), size)]
            chunked = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            whole = head + b"transfer-encoding: chunked\r\n\r\n" + chunked + b"0\r\n\r\n"
            return Told(whole, close=False, said=said)
        case _:
            whole = head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(said), said)
            return Told(draw(broken(st.just(whole))), close=True, said=None)


@settings(FUZZ, max_examples=300)
@given(upstream=framed(), stream=st.booleans(), usage=st.booleans())
def test_any_answer_of_an_upstream_is_relayed_or_refused(
    weir: Weir, free: Key, upstream: Told, stream: bool, usage: bool
) -> None:
    body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}], "stream": stream}
    if stream and usage:
        body["stream_options"] = {"include_usage": True}
    script = {"play": "raw", "raw": upstream.raw.decode("latin-1"), "close": upstream.close}
    heard = weir.post(free, **body, x_script=script)
    told(heard)
    assert heard.status_code in {200, 502, 503, 504}
    if heard.status_code == 200 and heard.headers["content-type"].startswith("text/event-stream"):
        note(f"{upstream!r}, heard {heard.content!r}")
        content, error, _ = heard.content.partition(b'data: {"error":{"message":"')
        assert error or b"[DONE]" in content or b'"error"' in content, f"a silent end: {content!r}"
        if stream and usage and upstream.said is not None:  # else the usage chunk is ours, and taken out
            assert upstream.said.startswith(content.rstrip()) if error else upstream.said == content


def test_the_server_still_serves_after_all_of_it(weir: Weir, free: Key) -> None:
    assert weir.chat(free).status_code == 200
    eventually(lambda: weir.metric("weir_in_flight_requests") == 0, why="nothing is in flight")
    assert weir.metric("weir_requests_total", 'status="5xx"', 'outcome="internal_error"') == 0
    assert "Traceback" not in weir.process.said
