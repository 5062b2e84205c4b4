import re
import shutil
import subprocess

import pytest

from gateway.oots import birth
from gateway.oots.pdf import Line, page

PAGE = page("Test ā", [Line("Ģirts Ķēniņš, Jõgeva, šķūņu žāvētāji ŠĶŪŅU ŽĀVĒTĀJI", size=12), Line("a (b) \\ c")])


def objects(octets: bytes) -> dict[int, bytes]:
    """Read by the cross-reference table, as a viewer does."""
    start = int(re.search(rb"startxref\n(\d+)\n%%EOF\n\Z", octets)[1])
    table = octets[start:].split(b"trailer")[0]
    assert table.startswith(b"xref\n0 ")
    count = int(table.split(b"\n")[1].split()[1])
    entries = table.split(b"\n", 2)[2]
    assert len(entries) == 20 * count
    found = {}
    for number in range(1, count):
        entry = entries[20 * number : 20 * number + 20]
        assert re.fullmatch(rb"\d{10} 00000 n \n", entry)
        at = int(entry[:10])
        head = b"%d 0 obj\n" % number
        assert octets[at : at + len(head)] == head
        found[number] = octets[at + len(head) : octets.index(b"\nendobj\n", at)]
    return found


@pytest.mark.parametrize("octets", [
    pytest.param(PAGE, id="two lines"),
    pytest.param(page("", []), id="empty page"),
    pytest.param(birth.certificate(birth.BIRTH, number="EE-1", issued_on="2026-09-01"), id="certificate"),
])  # fmt: skip
def test_structure(octets):
    assert octets.startswith(b"%PDF-1.4\n%") and octets[10] > 127
    found = objects(octets)
    assert b"/Size %d" % (len(found) + 1) in octets
    stream = found[7]
    length = int(re.search(rb"/Length (\d+)", stream)[1])
    assert stream.endswith(b"\nendstream")
    assert stream[stream.index(b"stream\n") + 7 : -len(b"\nendstream")] == stream[-length - 10 : -10]


def test_letters_without_a_place_in_winansi_get_one():
    encoding = objects(PAGE)[6]
    for name in (b"/Gcommaaccent", b"/Kcommaaccent", b"/emacron", b"/ncommaaccent", b"/Umacron", b"/Amacron"):
        assert encoding.count(name + b" ") + encoding.count(name + b"]") == 1
    codes = [int(c) for c in re.findall(rb"(\d+) /", encoding)]
    assert len(codes) == len(set(codes)) and all(0 < c < 256 for c in codes)


def test_more_letters_than_places():
    octets = page("x", [Line("".join(chr(c) for c in range(0x400, 0x480)) + "\U0001f600\n")])
    assert objects(octets)[7].count(b"3f") >= 90  # the rest are question marks


def test_same_text_same_octets():
    assert page("x", [Line("y")]) == page("x", [Line("y")])


def test_lines_that_do_not_fit_are_left_out():
    assert objects(page("x", [Line("y")] * 500))[7].count(b" Tj") < 100


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler-utils is not installed")
def test_poppler_reads_it(tmp_path):
    path = tmp_path / "certificate.pdf"
    path.write_bytes(birth.certificate(birth.BIRTH, number="EE-1", issued_on="2026-09-01"))
    run = subprocess.run(["pdftotext", "-layout", path, "-"], capture_output=True, check=True)
    text = run.stdout.decode()
    assert run.stderr == b"" and "Bērziņa" in text and "Sünnitõend" in text and "apliecība" in text
