"""Split a multipart body into its parts, block by block [rfc2046 5.1].

A delimiter is CRLF, two hyphens and the boundary; the CRLF belongs to it, every octet
before it is content. All that is ever held back between two blocks is a part header, or
the few octets that may turn out to be a delimiter. The result does not depend on where
the blocks were cut, and each octet is looked at a bounded number of times.

Accepted because stacks do it: preamble and epilogue (short), folded header fields, LF
alone as the line end of headers and after a delimiter, blanks after a delimiter, parts
without content (also written without their own empty line's CRLF), no CRLF at the end.

Refused: a boundary after a bare LF or CR, or before a bare CR. Line-based readers (JavaMail,
Python's `email`) would begin a part there and we would not; a random boundary never gets
into such a place by chance, attacks do [threats D08].
"""

import re
from collections.abc import Iterator
from enum import Enum, auto

from gateway.errors import MimeInconsistency

#: A part's header, some of its content, or (None) its end.
Piece = dict[str, str] | bytes | None

# What may stand between boundary and line end. RFC 2046 allows any number of blanks,
# senders add none; a longer run makes the line content.
_LINE_REST = re.compile(rb"(--)?[ \t]{0,256}(\r\n|\n|\r)")
_UNFINISHED = re.compile(rb"-|(?:--)?[ \t]{0,256}\r?")
_CLOSED = re.compile(rb"--[ \t]{0,256}\r?")
_BLANK_LINE = re.compile(rb"\n(\r?\n)")
_NEWLINE = re.compile(rb"[\r\n]")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")


#: The boundary may not occur in the content at all [rfc2046 5.1]; by chance it does once or twice.
MAX_LOOKALIKES = 1000


class _At(Enum):
    PREAMBLE = auto()
    HEADER = auto()
    CONTENT = auto()
    EPILOGUE = auto()


class Splitter:
    """Exhaust `feed(block)` for every block, then `close()`.

    Yields the header of a part (names in lower case), its content in any number of
    non-empty `bytes`, then None; and so on. `parts` counts all parts, `header` is the size
    of one part's header in octets with its blank line, `lines` its lines before unfolding,
    `around` the octets of preamble and of epilogue. Raises `MimeInconsistency`.
    """

    def __init__(self, boundary: str, *, parts: int, header: int, lines: int, around: int) -> None:
        dashes = b"--" + boundary.encode("ascii")
        self._delimiter, self._bare_lf, self._bare_cr = b"\r\n" + dashes, b"\n" + dashes, b"\r" + dashes
        self._parts, self._header, self._lines, self._around = parts, header, lines, around
        self._at = _At.PREAMBLE
        self._tail = b"\r\n"  # the delimiter at offset 0 has no CRLF of its own
        self._lead = 2  # octets at the start of the tail that are not content
        self._scanned = 0
        self._outside = self._lookalikes = 0

    def feed(self, block: bytes) -> Iterator[Piece]:
        """Take the next octets of the body."""
        buffer = self._tail + block if self._tail else block
        at, lead, self._tail = 0, self._lead, b""
        while True:
            if self._at is _At.EPILOGUE:
                self._count_outside(len(buffer) - at)
                return
            if self._at is _At.HEADER:  # `at` is the LF that ends the delimiter line
                blank = _BLANK_LINE.search(buffer, at + max(0, self._scanned - 2))
                self._check_header_size(blank.end() - at - 1 if blank else len(buffer) - at)
                if blank is None:
                    self._tail, self._scanned = buffer[at:], len(buffer) - at
                    return
                self._at, self._scanned = _At.CONTENT, 0
                yield self._header_fields(buffer[at + 1 : blank.start() + 1])
                # The blank line's own line end may be the CRLF of the next delimiter:
                # that is the short form of a part without content.
                at, lead = blank.start(1), len(blank[1])

            found = buffer.find(self._bare_lf, at)
            if found < 0:
                yield from self._hold(buffer, at, lead, self._possible_delimiter(buffer, at))
                return
            if found == at or buffer[found - 1] != 0x0D:
                yield from self._content(buffer, at + lead, found)
                raise _beside_a_bare_newline()
            start, end = found - 1, found + len(self._bare_lf)
            if _UNFINISHED.fullmatch(buffer, end):
                yield from self._hold(buffer, at, lead, start)
                return
            rest = _LINE_REST.match(buffer, end)
            if rest is None:
                yield from self._content(buffer, at + lead, end)
                self._count_lookalike()
                at, lead = end, 0
                continue
            yield from self._content(buffer, at + lead, start)
            if rest[2] == b"\r":
                raise _beside_a_bare_newline()
            yield from self._end_part(last=rest[1] is not None)
            at, lead = (rest.end() if rest[1] else rest.end() - 1), 0

    def close(self) -> Iterator[Piece]:
        """The body has ended. Raises `MimeInconsistency` when it ended too early."""
        if self._at is _At.EPILOGUE:
            return
        if not self._tail.startswith(self._delimiter) or not _CLOSED.fullmatch(self._tail, len(self._delimiter)):
            raise MimeInconsistency("the body ends before its closing delimiter", where="multipart delimiter")
        yield from self._end_part(last=True)

    def _end_part(self, *, last: bool) -> Iterator[Piece]:
        if self._at is _At.CONTENT:
            yield None
        elif last:
            raise MimeInconsistency("a multipart body without parts", where="multipart body")
        self._outside = 0
        if last:
            self._at = _At.EPILOGUE
            return
        if not self._parts:
            raise MimeInconsistency("too many parts", where="number of MIME parts")
        self._parts -= 1
        self._at = _At.HEADER

    def _content(self, buffer: bytes, start: int, stop: int) -> Iterator[bytes]:
        bare_cr = buffer.find(self._bare_cr, start, stop)
        end = stop if bare_cr < 0 else bare_cr
        if end > start and self._at is _At.CONTENT:
            yield buffer[start:end]
        elif end > start:
            self._count_outside(end - start)
        if bare_cr >= 0:
            raise _beside_a_bare_newline()

    def _hold(self, buffer: bytes, at: int, lead: int, cut: int) -> Iterator[bytes]:
        """Give out what is before `cut` and keep the rest for the next block."""
        yield from self._content(buffer, at + lead, cut)
        self._tail, self._lead = buffer[cut:], max(0, at + lead - cut)

    def _possible_delimiter(self, buffer: bytes, at: int) -> int:
        """Where the longest tail begins that may turn out to be a delimiter, or nearly one."""
        forms = (self._delimiter, self._bare_lf, self._bare_cr)
        for newline in _NEWLINE.finditer(buffer, max(at, len(buffer) - len(self._bare_lf))):
            tail = buffer[newline.start() :]
            if any(form.startswith(tail) for form in forms):
                return newline.start()
        return len(buffer)

    def _count_outside(self, octets: int) -> None:
        """A preamble or epilogue says nothing, so a long one is only there to hurt [threats D08]."""
        self._outside += octets
        if self._outside > self._around:
            raise MimeInconsistency("preamble or epilogue too long", where="multipart preamble or epilogue")

    def _count_lookalike(self) -> None:
        """With a boundary of one character each step would only take a few octets."""
        self._lookalikes += 1
        if self._lookalikes > MAX_LOOKALIKES:
            raise MimeInconsistency("the content is full of the boundary", where="multipart boundary")

    def _check_header_size(self, octets: int) -> None:
        if octets > self._header:
            raise MimeInconsistency("a part header is too long", where="MIME part header")

    def _header_fields(self, block: bytes) -> dict[str, str]:
        """Unfold and read one part's header. A field given twice has two readings, so it has none."""
        if block.count(b"\n") > self._lines:
            raise MimeInconsistency("a part header has too many lines", where="MIME part header")
        fields: dict[str, str] = {}
        for line in _FOLD.sub(b" ", block).split(b"\n")[:-1]:
            field = _FIELD.fullmatch(line.removesuffix(b"\r"))
            if field is None:
                raise MimeInconsistency("an unreadable field in a part header", where="MIME part header")
            name = field[1].decode("ascii").lower()
            if name in fields:
                raise MimeInconsistency("a field is twice in a part header", where="MIME part header")
            fields[name] = field[2].strip().decode("latin-1")
        return fields


def _beside_a_bare_newline() -> MimeInconsistency:
    return MimeInconsistency("a delimiter beside a bare CR or LF", where="multipart delimiter")
