"""What is found in a form, however it is written and cut; and what is refused because two readers could differ."""

from email import message_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.core.errors import BadRequest, InvalidValue, MalformedBody
from weir.gateway.form import HEADERS_MAX, PARTS_MAX, VALUE_MAX, FormReader, boundary_of, content_type_of

B = b"XbX"
SOUND = b"RIFF\0\xff\r\n--X\r\n-- XbX\n\r\r\n--Xb\r\n\0--XbX\r\n"  # nearly a boundary, again and again


def part(disposition: bytes, content: bytes, *more: bytes) -> bytes:
    headers = b"".join(line + b"\r\n" for line in (b"Content-Disposition: " + disposition, *more))
    return b"--XbX\r\n" + headers + b"\r\n" + content + b"\r\n"


def field(name: str, value: bytes, *more: bytes) -> bytes:
    return part(b'form-data; name="%b"' % name.encode(), value, *more)


def form(*parts: bytes, end: bytes = b"--XbX--\r\n") -> bytes:
    return b"".join(parts) + end


MODEL = field("model", b"whisper-1")
FILE = part(b'form-data; name="file"; filename="a.wav"', SOUND, b"Content-Type: audio/wav")


def read(body: bytes, *cuts: int, boundary: bytes = B) -> FormReader:
    reader = FormReader(boundary)
    for start, end in zip((0, *cuts), (*cuts, len(body)), strict=True):
        reader.feed(body[start:end])
    reader.end()
    return reader


def found(reader: FormReader) -> dict[str, str]:
    return {name: value.text for name, value in reader.values.items()}


FORMS = {
    "model-first": (form(MODEL, FILE), {"model": "whisper-1"}, 0),
    "file-first": (form(FILE, MODEL), {"model": "whisper-1"}, 0),
    "model-alone": (form(MODEL), {"model": "whisper-1"}, 0),
    "nothing-behind-the-end": (form(FILE, MODEL, end=b"--XbX--"), {"model": "whisper-1"}, 0),
    "more-behind-the-end": (form(FILE, MODEL, end=b"--XbX--\r\nbye --XbX"), {"model": "whisper-1"}, 0),
    "line-end-before-the-beginning": (b"\r\n" + form(MODEL, FILE), {"model": "whisper-1"}, 0),
    "stream": (form(MODEL, field("stream", b"true"), FILE), {"model": "whisper-1", "stream": "true"}, 0),
    "texts": (form(field("prompt", b"hello"), field("language", b"en"), MODEL), {"model": "whisper-1"}, 7),
    "list": (form(field("timestamp_granularities[]", b"word"), MODEL), {"model": "whisper-1"}, 4),
    "no-model": (form(FILE), {}, 0),
    "empty-model": (form(field("model", b""), FILE), {"model": ""}, 0),
    "empty-file": (form(part(b'form-data; name="file"; filename=""', b""), MODEL), {"model": "whisper-1"}, 0),
    "in-utf-8": (form(field("model", "größe".encode())), {"model": "größe"}, 0),
    "value-of-two-lines": (form(field("model", b"a\r\nb")), {"model": "a\r\nb"}, 0),
    "value-near-a-boundary": (form(field("model", b"a--XbX--")), {"model": "a--XbX--"}, 0),
    "many-parts": (form(*[field("x", b"")] * 20, MODEL), {"model": "whisper-1"}, 0),
    "longest-value": (form(field("model", b"m" * VALUE_MAX)), {"model": "m" * VALUE_MAX}, 0),
}


@pytest.mark.parametrize("name", FORMS)
def test_found_wherever_it_is_cut(name: str) -> None:
    body, expected, text = FORMS[name]
    for cuts in [*((at,) for at in range(len(body) + 1)), tuple(range(1, len(body)))]:
        reader = read(body, *cuts)
        assert (found(reader), reader.text_bytes) == (expected, text), cuts
        for value in reader.values.values():
            assert body[value.start : value.end].decode() == value.text, cuts


DISPOSITIONS = {
    "quoted": b'form-data; name="model"',
    "unquoted": b"form-data; name=model",  # .NET's MultipartFormDataContent
    "no-blank": b'form-data;name="model"',
    "blanks": b'form-data ;  name = "model" ;',
    "tab": b'form-data;\tname="model"',
    "capitals": b'Form-Data; NAME="model"',
    "something-more": b'form-data; name="model"; size=3',
    "escape-in-another": b'form-data; x="a\\"b"; name="model"',
}
HEADERS = {
    "type": b"Content-Type: text/plain; charset=utf-8",
    "length": b"Content-Length: 9",  # OkHttp
    "plain-encoding": b"Content-Transfer-Encoding: 8bit",  # Apache HttpClient
    "binary-encoding": b"content-transfer-encoding:BINARY",
    "unknown": b"X-Whatever: ;=name=\xff",
}


@pytest.mark.parametrize("disposition", DISPOSITIONS.values(), ids=DISPOSITIONS)
def test_ways_to_write_a_name(disposition: bytes) -> None:
    assert found(read(form(FILE, part(disposition, b"m")))) == {"model": "m"}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_headers_of_a_field(header: bytes) -> None:
    assert found(read(form(field("model", b"m", header)))) == {"model": "m"}


FILES = {
    "quoted": b'form-data; name="file"; filename="a b; c.wav"',
    "name-last": b'form-data; filename="a.wav"; name="file"',
    "extended": b"form-data; name=\"file\"; filename*=UTF-8''a%20b.wav",
    "both": b'form-data; name="file"; filename="a.wav"; filename*=UTF-8\'\'a.wav',
    "in-utf-8": 'form-data; name="file"; filename="größe.wav"'.encode(),
    "quote-in-it": b'form-data; name="file"; filename="a \\"b\\".wav"',
    "quote-in-percents": b'form-data; name="file"; filename="a %22b%22.wav"',
    "backslashes": b'form-data; name="file"; filename="C:\\sounds\\a.wav"',
}


@pytest.mark.parametrize("disposition", FILES.values(), ids=FILES)
def test_ways_to_write_a_file(disposition: bytes) -> None:
    reader = read(form(part(disposition, SOUND), MODEL))
    assert (found(reader), reader.text_bytes) == ({"model": "whisper-1"}, 0)


def test_a_file_without_a_file_name_is_no_text() -> None:
    assert read(form(field("file", SOUND), MODEL)).text_bytes == 0


REFUSED = {
    # Another model for another reader
    "two-models": form(MODEL, field("model", b"expensive")),
    "two-models-around-a-file": form(MODEL, FILE, field("model", b"expensive")),
    "model-is-a-file": form(part(b'form-data; name="model"; filename="m"', b"m")),
    "name-twice": form(part(b'form-data; name="x"; name="model"', b"m")),
    "name-in-both-forms": form(part(b"form-data; name=\"x\"; name*=UTF-8''model", b"m")),
    "name-extended": form(part(b"form-data; name*=UTF-8''model", b"m")),
    "name-behind-an-escaped-quote": form(part(b'form-data; filename="a\\"; name="model"; x="', b"m"), MODEL),
    "name-within-a-file-name": form(part(b'form-data; name="file"; filename="a; name=model"', b"m"), MODEL),
    "name-with-an-escape": form(part(b'form-data; name="mo\\del"', b"m"), MODEL),
    "name-with-percents": form(part(b'form-data; name="mod%65l"', b"m"), MODEL),
    "name-with-blanks": form(part(b'form-data; name=" model "', b"m"), MODEL),
    "name-empty": form(part(b'form-data; name=""', b"m"), MODEL),
    "no-name": form(part(b"form-data", b"m"), MODEL),
    "no-disposition": form(b"--XbX\r\nContent-Type: text/plain\r\n\r\nm\r\n", MODEL),
    "two-dispositions": form(field("x", b"m", b'Content-Disposition: form-data; name="model"')),
    "attachment": form(part(b'attachment; name="model"', b"m")),
    "unclosed-quote": form(part(b'form-data; name="model', b"m")),
    "encoded": form(field("model", b"bQ==", b"Content-Transfer-Encoding: base64")),
    # Headers
    "no-headers": form(b"--XbX\r\n\r\nm\r\n", MODEL),
    "folded": form(b'--XbX\r\nContent-Disposition: form-data;\r\n name="model"\r\n\r\nm\r\n'),
    "no-colon": form(field("x", b"m", b"nonsense")),
    "blank-before-the-colon": form(b'--XbX\r\nContent-Disposition : form-data; name="model"\r\n\r\nm\r\n'),
    "bare-line-feed": form(b'--XbX\r\nContent-Disposition: form-data; name="x"\nX: y\r\n\r\nm\r\n', MODEL),
    "control-character": form(part(b'form-data; name="x\0"', b"m"), MODEL),
    "boundary-in-a-header": form(b'--XbX\r\nContent-Disposition: form-data; name="--XbX"\r\n\r\nm\r\n', MODEL),
    "headers-too-long": form(field("x", b"m", b"X: " + b"y" * HEADERS_MAX), MODEL),
    "headers-without-end": form(MODEL, b"--XbX\r\nX: " + b"y" * HEADERS_MAX, end=b""),
    # Lines
    "too-many-parts": form(*[field("x", b"")] * PARTS_MAX, MODEL),
    "line-feeds": form(MODEL, FILE).replace(b"\r\n", b"\n"),
    "line-feed-before": MODEL[:-2] + b"\n--XbX--\r\n",
    "carriage-return-before": MODEL[:-2] + b"\r--XbX--\r\n",
    "line-feed-behind": MODEL[:-2] + b"\r\n--XbX--\n",
    "blank-behind": MODEL + b"--XbX \r\n",
    "longer-boundary": MODEL + b"--XbXy\r\n",
    "words-before-the-beginning": b"This is a form.\r\n" + form(MODEL, FILE),
    "blank-before-the-beginning": b" " + form(MODEL, FILE),
    "two-lines-before-the-beginning": b"\r\n\r\n" + form(MODEL, FILE),
    "no-line-before": b'--XbX\r\nContent-Disposition: form-data; name="x"\r\n\r\n' + form(MODEL),
    "a-part-behind-the-end": form(MODEL) + FILE,
    "the-end-twice": form(MODEL) + b"\r\n--XbX--\r\n",
    # Ends
    "empty": b"",
    "no-end": form(MODEL, FILE, end=b""),
    "half-an-end": form(MODEL, FILE, end=b"--XbX-"),
    "half-a-line-behind-the-end": form(MODEL, FILE, end=b"--XbX--\r"),
    "json": b'{"model": "m"}',
    "another-boundary": form(MODEL, FILE).replace(b"XbX", b"YbY"),
    # Values
    "value-too-long": form(field("model", b"m" * (VALUE_MAX + 1))),
    "value-without-end": form(field("model", b"m" * 10 * VALUE_MAX), end=b""),
    "not-utf-8": form(field("model", b"\xff")),
    "stream-twice": form(field("stream", b"true"), field("stream", b"false"), MODEL),
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_refused_wherever_it_is_cut(body: bytes) -> None:
    for cuts in [*((at,) for at in range(0, len(body) + 1, max(len(body) // 100, 1))), tuple(range(1, len(body)))]:
        with pytest.raises((MalformedBody, InvalidValue)) as refused:
            read(body, *cuts)
        assert "whisper" not in refused.value.text
        assert "expensive" not in refused.value.text


NAMED = ["two-models", "two-models-around-a-file", "model-is-a-file", "value-too-long", "not-utf-8"]


@pytest.mark.parametrize("name", NAMED)
def test_the_refusal_names_the_field(name: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        read(REFUSED[name])
    assert refused.value.param == "model"


def test_little_is_kept_of_a_long_file() -> None:
    reader = FormReader(B)
    reader.feed(FILE[:-2])
    for _ in range(1000):
        reader.feed(SOUND * 100)
        assert len(reader._buffer) < 100
    reader.feed(b"\r\n" + form(MODEL))
    reader.end()
    assert found(reader) == {"model": "whisper-1"}


TYPES = {
    "plain": (b"multipart/form-data; boundary=XbX", b"XbX"),
    "quoted": (b'multipart/form-data; boundary="XbX"', b"XbX"),
    "capitals": (b"Multipart/Form-Data; Boundary=XbX", b"XbX"),
    "charset": (b"multipart/form-data; charset=utf-8; boundary=XbX", b"XbX"),
    "browser": (b"multipart/form-data; boundary=----WebKitFormBoundary7MA4", b"----WebKitFormBoundary7MA4"),
    "odd": (b'multipart/form-data; boundary="=_Part 1:2"', b"=_Part 1:2"),
    "odd-unquoted": (b"multipart/form-data; boundary=----=_Part_1_2.3", b"----=_Part_1_2.3"),
}


@pytest.mark.parametrize(("header", "boundary"), TYPES.values(), ids=TYPES)
def test_boundary(header: bytes, boundary: bytes) -> None:
    assert boundary_of(header) == boundary
    again = content_type_of(boundary)
    assert boundary_of(again) == boundary
    assert message_from_bytes(b"Content-Type: " + again).get_boundary() == boundary.decode()


NO_FORMS = {
    "none": b"",
    "json": b"application/json",
    "urlencoded": b"application/x-www-form-urlencoded",
    "mixed": b"multipart/mixed; boundary=XbX",
    "no-boundary": b"multipart/form-data",
    "empty-boundary": b'multipart/form-data; boundary=""',
    "two-boundaries": b"multipart/form-data; boundary=a; boundary=b",
    "long-boundary": b"multipart/form-data; boundary=" + b"a" * 71,
    "boundary-with-a-quote": b'multipart/form-data; boundary="a\\"b"',
    "boundary-that-ends-with-a-blank": b'multipart/form-data; boundary="a "',
    "unclosed": b'multipart/form-data; boundary="XbX',
    "another-word": b"multipart/form-data-x; boundary=XbX",
}


@pytest.mark.parametrize("header", NO_FORMS.values(), ids=NO_FORMS)
def test_no_form(header: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        boundary_of(header)
    assert "multipart/form-data" in refused.value.text


def as_another_reads(body: bytes) -> dict[str, list[object]]:
    """By the standard library, which refuses nothing."""
    whole = message_from_bytes(b"Content-Type: multipart/form-data; boundary=XbX\r\n\r\n" + body)
    fields: dict[str, list[object]] = {}
    for one in whole.walk():
        if not one.is_multipart():
            name = one.get_param("name", header="content-disposition")
            fields.setdefault(str(name), []).append(one.get_payload(decode=True))
    return fields


PIECES = [
    *(b"--XbX", b"--XbX--", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"--", b"XbX", b"x", b"\\", b'"', b";"),
    *(b'Content-Disposition: form-data; name="model"', b"Content-Disposition: form-data; name=", b'filename="a"; '),
    *(MODEL, FILE, field("model", b"expensive"), field("prompt", b"p"), b"Content-Type: text/plain", b"name=model"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.booleans())
def test_what_is_taken_another_reads_alike(pieces: list[bytes], whole: bool) -> None:
    body = form(*pieces) if whole else b"".join(pieces)
    try:
        reader = read(body)
    except (MalformedBody, InvalidValue):
        return
    expected = {name: [text.encode()] for name, text in found(reader).items()}
    others = as_another_reads(body)
    assert {name: others[name] for name in ("model", "stream") if name in others} == expected
