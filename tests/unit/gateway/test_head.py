"""The strict head: what two parsers could read in two ways is refused."""

import re

import pytest

from weir.core.asgi import Headers
from weir.core.errors import BadRequest, GatewayError, HeadersTooLarge, UnsupportedEncoding
from weir.gateway.head import Head, read_head, request_id

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def read(*headers: tuple[bytes, bytes]) -> Head:
    return read_head({"headers": list(headers)})


def text(value: bytes | str | None) -> str | None:
    return value.decode("latin-1") if isinstance(value, bytes) else value


HOST = (b"host", b"weir")
CHUNKED = (b"transfer-encoding", b"chunked")

REFUSED: list[object] = [
    *(
        pytest.param([(name, value), (name, other)], BadRequest, id=f"{name.decode()}-twice-{how}")
        for name, value in (
            (b"host", b"a"),
            (b"content-length", b"5"),
            (b"content-type", b"application/json"),
            (b"authorization", b"Bearer a"),
            (b"content-encoding", b"identity"),
            (b"transfer-encoding", b"chunked"),
        )
        for how, other in (("the-same", value), ("another", b"7"))
    ),
    pytest.param([(b"transfer-encoding", b"gzip"), CHUNKED], BadRequest, id="transfer-encodings-in-two-lines"),
    pytest.param([(b"content_length", b"5")], BadRequest, id="underscore"),
    pytest.param([(b"x_a", b"b")], BadRequest, id="underscore-in-an-unknown-name"),
    pytest.param([(b"authorization", b"Bearer a"), (b"_authorization", b"b")], BadRequest, id="underscore-in-front"),
    *(
        pytest.param([(b"x-a", b"b" + bytes([code]) + b"c")], BadRequest, id=f"control-{code:02x}")
        for code in (0x00, 0x01, 0x08, 0x0A, 0x0D, 0x1F, 0x7F)
    ),
    pytest.param([(b"x-a", b"\x00"), (b"x-a", b"fine")], BadRequest, id="control-character-in-the-first-of-two"),
    pytest.param([(b"content-encoding", b"gzip")], UnsupportedEncoding, id="gzip"),
    pytest.param([(b"content-encoding", b"br")], UnsupportedEncoding, id="br"),
    pytest.param([(b"content-encoding", b"")], UnsupportedEncoding, id="empty-coding"),
    pytest.param([(b"content-encoding", b"identity, gzip")], UnsupportedEncoding, id="two-codings"),
    pytest.param([(b"transfer-encoding", b"gzip, chunked")], BadRequest, id="transfer-gzip"),
    pytest.param([(b"transfer-encoding", b"identity")], BadRequest, id="transfer-identity"),
    pytest.param([(b"transfer-encoding", b"chunked, chunked")], BadRequest, id="transfer-chunked-twice"),
    pytest.param([(b"transfer-encoding", b"xchunked")], BadRequest, id="transfer-lookalike"),
    pytest.param([CHUNKED, (b"content-length", b"5")], BadRequest, id="length-and-chunked"),
    pytest.param([(b"content-length", b"5"), CHUNKED], BadRequest, id="chunked-and-length"),
    *(
        pytest.param([(b"content-length", value)], BadRequest, id=f"length-{value.decode('latin-1')!r}")
        for value in (b"", b"-1", b"+5", b"5 5", b"5,5", b"0x5", b"5.0", b"1e3", b"\xb2", b"five")
    ),
    pytest.param([(b"x-a", b"b" * 32_769)], HeadersTooLarge, id="too-large-value"),
    pytest.param([(b"x" * 32_769, b"")], HeadersTooLarge, id="too-large-name"),
    pytest.param([(b"x-%d" % n, b"v") for n in range(101)], HeadersTooLarge, id="too-many"),
    pytest.param([(b"x-a", b"b" * 1_000)] * 50, HeadersTooLarge, id="too-large-by-one-name-many-times"),
]


@pytest.mark.parametrize(("headers", "error"), REFUSED)
def test_refused(headers: Headers, error: type[GatewayError]) -> None:
    with pytest.raises(error) as refused:
        read(*headers)
    assert type(refused.value) is error
    for _, value in headers:
        if len(value) > 8:
            assert value.decode("latin-1") not in refused.value.text, "a value may be a secret"


ACCEPTED = [
    pytest.param([HOST], id="least"),
    pytest.param([(b"x-a", b"1"), (b"x-a", b"2")], id="unknown-names-may-repeat"),
    pytest.param([(b"x-a", b"tab\there")], id="tab"),
    pytest.param([(b"x-a", b"\xfc\xff")], id="beyond-ascii"),
    pytest.param([(b"content-encoding", b"Identity")], id="identity"),
    pytest.param([(b"x-%d" % n, b"v") for n in range(100)], id="as-many-as-allowed"),
    pytest.param([(b"x-a", b"b" * 32_000)], id="large"),
    pytest.param([(b"transfer-encoding", b"Chunked")], id="chunked-in-capitals"),
]


@pytest.mark.parametrize("headers", ACCEPTED)
def test_accepted(headers: Headers) -> None:
    assert read(*headers).authorization is None


class TestRead:
    def test_authorization(self) -> None:
        assert read((b"authorization", b"Bearer a")).authorization == b"Bearer a"

    @pytest.mark.parametrize(
        ("headers", "length"),
        [
            pytest.param([], 0, id="no-body"),
            pytest.param([(b"content-length", b"0")], 0, id="zero"),
            pytest.param([(b"content-length", b"0017")], 17, id="zeros-in-front"),
            pytest.param([(b"content-length", str(2**62).encode())], 2**62, id="exabytes"),
            pytest.param([CHUNKED], None, id="chunked"),
        ],
    )
    def test_content_length(self, headers: Headers, length: int | None) -> None:
        assert read(*headers).content_length == length

    def test_a_length_of_thousands_of_digits_breaks_nothing(self) -> None:
        try:
            head = read((b"content-length", b"9" * 5_000))
        except GatewayError:
            return
        assert head.content_length is not None
        assert head.content_length > 2**62

    @pytest.mark.parametrize(
        ("trace", "kept"),
        [
            pytest.param(TRACE, True, id="good"),
            pytest.param("cc" + TRACE[2:], True, id="later-version"),
            pytest.param("ff" + TRACE[2:], False, id="the-version-that-is-none"),
            pytest.param(TRACE[:3] + "0" * 32 + TRACE[35:], False, id="the-trace-that-is-none"),
            pytest.param(TRACE[:36] + "0" * 16 + TRACE[52:], False, id="the-span-that-is-none"),
            pytest.param(TRACE.upper(), False, id="capitals"),
            pytest.param(TRACE + "-x", False, id="longer"),
            pytest.param(TRACE[:-1], False, id="shorter"),
            pytest.param("", False, id="empty"),
            pytest.param("\xfc" * 55, False, id="not-ascii"),
        ],
    )
    def test_trace(self, *, trace: str, kept: bool) -> None:
        head = read((b"traceparent", trace.encode("latin-1")), (b"tracestate", b"a=1"))
        assert text(head.traceparent) == (trace if kept else None)
        assert text(head.tracestate) == ("a=1" if kept else None), "a state without its trace means nothing"

    def test_a_trace_state_beyond_512_bytes_stays_here(self) -> None:
        assert read((b"traceparent", TRACE.encode()), (b"tracestate", b"a" * 513)).tracestate is None


class TestRequestId:
    @pytest.mark.parametrize("given", [b"a", b"A.b_c-9", b"x" * 128])
    def test_of_the_client(self, given: bytes) -> None:
        assert request_id({"headers": [(b"x-request-id", given)]}) == given.decode()

    @pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a\n", b"\xfc", b"a/b", b"a;b", b"a\x00"])
    def test_ours_where_it_has_not_the_form(self, given: bytes) -> None:
        assert re.fullmatch(r"[0-9a-f]{32}", request_id({"headers": [(b"x-request-id", given)]}))

    def test_ours_is_new_each_time(self) -> None:
        assert request_id({"headers": []}) != request_id({"headers": []})
