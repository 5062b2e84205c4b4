"""The reader of envelopes by itself: what it keeps, and what reading costs."""

import time

import pytest

from gateway.backends.domibus_ws.reading import MAX_TEXT, EnvelopeReader, Malformed

BLOCK = 1 << 16


def read(document: bytes) -> EnvelopeReader:
    reader = EnvelopeReader()
    for start in range(0, len(document), BLOCK):
        reader.feed(document[start : start + BLOCK])
    return reader


def test_text_between_and_around_children_is_kept():
    root = read(b"<a>1\n<b>2&amp;\n<![CDATA[3]]></b>4<c/>5</a>").root()
    assert (root.text, root.find("b").text, root.find("c").text) == ("1\n45", "2&\n3", "")


@pytest.mark.parametrize("text", [b"\n", b"&amp;", b"<!---->x", b"\r\n"])
def test_text_costs_what_its_length_says(text):
    """expat tells each line and each reference by itself; pieces must not be joined one by one."""

    def seconds(content: bytes) -> float:
        document = b"<a>%s</a>" % content
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            read(document)
            best = min(best, time.process_time() - began)
        return best

    size = MAX_TEXT - 100
    assert seconds(text * (size // len(text))) < 200 * seconds(b"x" * size) + 0.1


def test_more_text_than_the_limit():
    with pytest.raises(Malformed, match="too large"):
        read(b"<a>%s</a>" % (b"\n" * (MAX_TEXT + 1)))


@pytest.mark.parametrize("token", [b"<!-- %s -->", b"<a x='%s'/>", b"<%s/>"])
def test_one_endless_token(token):
    with pytest.raises(Malformed):
        read(b"<a>" + token % (b"x" * (4 << 20)) + b"</a>")
