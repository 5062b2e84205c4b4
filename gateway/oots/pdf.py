"""A PDF of one page of plain text, for specimens.

PDF 1.4, the standard Helvetica fonts, nothing embedded. The encoding is WinAnsi; letters it
lacks (Latvian ā č ē …) take free code positions by glyph name, so that every viewer shows
them and text can be searched and copied. The same input gives the same octets.
"""

from collections.abc import Sequence

from msgspec import Struct

#: A4 in points.
WIDTH, HEIGHT = 595, 842
MARGIN = 72

#: Code positions that WinAnsi leaves free, for the letters it lacks.
_FREE = (*range(1, 10), *range(11, 13), *range(14, 32), 127, 129, 141, 143, 144, 157)

#: Glyph names of the Adobe Glyph List; any other letter is named by its code point.
_GLYPHS = {
    "Ā": "Amacron", "ā": "amacron", "Č": "Ccaron", "č": "ccaron", "Ē": "Emacron", "ē": "emacron",
    "Ģ": "Gcommaaccent", "ģ": "gcommaaccent", "Ī": "Imacron", "ī": "imacron", "Ķ": "Kcommaaccent",
    "ķ": "kcommaaccent", "Ļ": "Lcommaaccent", "ļ": "lcommaaccent", "Ņ": "Ncommaaccent", "ņ": "ncommaaccent",
    "Ŗ": "Rcommaaccent", "ŗ": "rcommaaccent", "Ū": "Umacron", "ū": "umacron", "Ą": "Aogonek", "ą": "aogonek",
    "Ė": "Edotaccent", "ė": "edotaccent", "Ę": "Eogonek", "ę": "eogonek", "Į": "Iogonek", "į": "iogonek",
    "Ų": "Uogonek", "ų": "uogonek", "Ł": "Lslash", "ł": "lslash", "Ń": "Nacute", "ń": "nacute",
}  # fmt: skip


class Line(Struct, frozen=True):
    """A line of text, `size` in points, `gap` points of air above it."""

    text: str
    size: int = 11
    bold: bool = False
    gap: int = 0


class _Letters:
    """The code positions of one document's letters."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def string(self, text: str) -> bytes:
        """`text` as a PDF string. A letter that finds no free position becomes a question mark."""
        octets = bytearray()
        for letter in text:
            try:
                octets += letter.encode("cp1252") if letter >= " " else b" "
            except UnicodeEncodeError:
                octets.append(self._code(letter))
        return b"<" + octets.hex().encode() + b">"

    def _code(self, letter: str) -> int:
        if letter not in self._codes:
            if len(self._codes) == len(_FREE) or ord(letter) > 0xFFFF:
                return ord("?")
            self._codes[letter] = _FREE[len(self._codes)]
        return self._codes[letter]

    @property
    def encoding(self) -> bytes:
        names = (f"{code} /{_GLYPHS.get(letter, f'uni{ord(letter):04X}')}" for letter, code in self._codes.items())
        return b"<< /Type /Encoding /BaseEncoding /WinAnsiEncoding /Differences [" + " ".join(names).encode() + b"] >>"


def page(title: str, lines: Sequence[Line], *, watermark: str = "") -> bytes:
    """One A4 page. Lines that do not fit below one another are left out."""
    letters = _Letters()
    content = _content(lines, watermark, letters)
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /%s /Encoding 6 0 R >>"
    return _file([
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents 7 0 R"
        b" /Resources << /Font << /F1 4 0 R /F2 5 0 R >> >> >>" % (WIDTH, HEIGHT),
        font % b"Helvetica",
        font % b"Helvetica-Bold",
        letters.encoding,
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Title <feff%s> >>" % title.encode("utf-16-be").hex().encode(),
    ])  # fmt: skip


def _content(lines: Sequence[Line], watermark: str, letters: _Letters) -> bytes:
    out = []
    if watermark:
        # Rotated by 52 degrees, light grey, below the text.
        out.append(b"q 0.88 g BT /F2 104 Tf 0.616 0.788 -0.788 0.616 150 130 Tm %s Tj ET Q" % letters.string(watermark))
    at = HEIGHT - MARGIN
    for line in lines:
        at -= line.gap + line.size * 14 // 10
        if at < MARGIN:
            break
        font = b"F2" if line.bold else b"F1"
        out.append(b"BT /%s %d Tf %d %d Td %s Tj ET" % (font, line.size, MARGIN, at, letters.string(line.text)))
    return b"\n".join(out)


def _file(objects: list[bytes]) -> bytes:
    """Objects 1 to n, the cross-reference table with their offsets, the trailer."""
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")  # high octets: transport must treat it as binary
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info %d 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1, len(objects), start,
    )  # fmt: skip
    return bytes(out)
