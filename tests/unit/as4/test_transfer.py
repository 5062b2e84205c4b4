import base64
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.as4.transfer import MAX_QUOTED_LINE, transfer_decoder
from gateway.errors import MimeInconsistency


def decode(encoding: str, octets: bytes, step: int | None = None) -> bytes | None:
    """The decoded octets, None when refused."""
    decoder = transfer_decoder(encoding)
    step = step or len(octets) or 1
    try:
        out = b"".join(decoder.feed(octets[i : i + step]) for i in range(0, len(octets), step))
        return out + decoder.finish()
    except MimeInconsistency:
        return None


@pytest.mark.parametrize("encoding", ["", "binary", " Binary ", "7bit", "8BIT"])
def test_octets_that_stay_as_they_are(encoding):
    assert transfer_decoder(encoding) is None


@pytest.mark.parametrize("encoding", ["x-gzip", "base64, binary", "uuencode"])
def test_unknown_encoding(encoding):
    with pytest.raises(MimeInconsistency):
        transfer_decoder(encoding)


@given(st.binary(max_size=300), st.integers(1, 80))
def test_base64(octets, step):
    assert decode("base64", base64.b64encode(octets), step) == octets
    assert decode("Base64", base64.encodebytes(octets), step) == octets


@pytest.mark.parametrize("text", [b"QUJ", b"QUJD!", b"QU-_", b"QUI=QUJD", b"=QUJ", b"QQ==QQ==", b"QQ=", b"QQ==\n=", b"Q===",
                                  b"QUJD\0", b"=", b"===="])  # fmt: skip
@pytest.mark.parametrize("step", [None, 1, 3])
def test_base64_with_junk(text, step):
    assert decode("base64", text, step) is None


@given(st.binary(max_size=300), st.integers(1, 80))
def test_quoted_printable(octets, step):
    tokens = [bytes([b]) if 33 <= b <= 126 and b != 61 else b"=%02X" % b for b in octets]
    text = b"=\r\n".join(b"".join(tokens[i : i + 25]) for i in range(0, len(tokens), 25))
    assert decode("quoted-printable", text, step) == octets == quopri.decodestring(text)


@pytest.mark.parametrize(("text", "octets"), [
    (b"a=3Db", b"a=b"), (b"a=3db", b"a=b"), (b"a=\r\nb", b"ab"), (b"a=\nb", b"ab"), (b"a b\tc", b"a b\tc"),
    (b"a\r\nb\n", b"a\r\nb\n"), (b"", b""), (b"=20\r\n", b" \r\n"), (b"=00=FF", b"\0\xff"),
    (b"x" * MAX_QUOTED_LINE, b"x" * MAX_QUOTED_LINE),
])  # fmt: skip
@pytest.mark.parametrize("step", [None, 1, 2])
def test_quoted_printable_forms(text, octets, step):
    assert decode("quoted-printable", text, step) == octets


@pytest.mark.parametrize("text", [b"a=", b"a=3", b"a=3G", b"a= \r\nb", b"a \r\nb", b"a ", b"a\rb", b"\xe9", b"\0", b"=\r",
                                  b"x" * (MAX_QUOTED_LINE + 1), b"x" * (MAX_QUOTED_LINE + 1) + b"\n"])  # fmt: skip
@pytest.mark.parametrize("step", [None, 1, 2])
def test_broken_quoted_printable(text, step):
    assert decode("quoted-printable", text, step) is None
