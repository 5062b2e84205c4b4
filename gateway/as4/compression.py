"""gzip for payload parts: inflate under limits, deflate once [as4 4.1].

Inflating is where a small message becomes a large one, so it is done block by block and
stops at three limits: an absolute size, a ratio once a grace is used up, and a number of
members. Several members are legal gzip; octets after the last one, a stream that stops
early, a wrong check sum or another container are not [threats I02]. Names and extra fields
in a gzip header have no effect.

The output of `Deflater` is kept with the message: gzip is not reproducible between
libraries, and a retry must sign the same octets.
"""

from collections.abc import Iterator

from gateway.as4.media_type import bare_type
from gateway.errors import DecompressionFailure
from gateway.stages import point

try:  # 3 to 15 times faster; the zlib of the standard library does the same
    from isal import isal_zlib as zlib
except ImportError:
    import zlib

_GZIP_FRAMING = 31  # a window of 32 KiB and the gzip container, nothing else

#: Most that comes out of one step.
STEP = 256 << 10
#: Most that goes into one step; both libraries copy what they leave over, so a larger one would cost its square.
PIECE = 64 << 10
#: No sender is known to write more than one. Each costs a decoder, and an empty one has only 20 octets.
MAX_MEMBERS = 1000
#: File names end at 255, bgzip's extra field has 6 octets.
MAX_HEADER = 8 << 10

_MAGIC = b"\x1f\x8b\x08"
_HEADER_CRC, _EXTRA, _NAME, _COMMENT, _RESERVED = 0x02, 0x04, 0x08, 0x10, 0xE0


class Inflater:
    """Gunzip block by block: exhaust `feed(block)` for every block, then call `finish`.

    Never gives out more than `limit` octets, nor more than `grace` plus `ratio` times the
    octets read so far. Raises `DecompressionFailure`, whose detail is a literal that a peer may read;
    the caller adds which part it was. What comes out before `finish` has
    returned is unproven.
    """

    def __init__(self, limit: int, ratio: int = 200, grace: int = 1 << 20) -> None:
        self._limit, self._ratio, self._grace = limit, ratio, grace
        self._read = self._written = self._members = 0
        self._held = b""  # the beginning of a member whose header is not complete
        self._member = None

    def feed(self, block: bytes) -> Iterator[bytes]:
        """Give out what the next octets inflate to, at most 256 KiB at a time."""
        for start in range(0, len(block), PIECE):
            yield from self._inflate(block[start : start + PIECE])

    def _inflate(self, piece: bytes) -> Iterator[bytes]:
        while True:
            if self._member is None or self._member.eof:
                piece = self._begin_member(piece) if piece else b""
                if not piece:
                    return
            before = len(piece)
            try:
                inflated = self._member.decompress(piece, STEP)
            except zlib.error:
                raise DecompressionFailure("damaged gzip") from None
            piece = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            self._read += before - len(piece)
            self._written += len(inflated)
            if self._written > min(self._limit, self._grace + self._ratio * self._read):
                raise DecompressionFailure("grows beyond its limits")
            if inflated:
                point("IB13")
                yield inflated
            elif not self._member.eof and len(piece) == before:
                return  # all is taken in, and nothing more comes out of it

    def _begin_member(self, piece: bytes) -> bytes:
        """What a new member's decoder gets first; nothing while the header is incomplete.

        The header goes to the decoder in one piece: isal 1.9 misreads one that is cut and
        has more than one optional field, or a check sum.
        """
        self._member = None
        piece = self._held + piece
        end = _header_end(piece)
        if (len(piece) if end is None else end) > MAX_HEADER:
            raise DecompressionFailure("a gzip header too long")
        if end is None:
            self._held = piece
            return b""
        self._held = b""
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise DecompressionFailure("too many gzip members")
        self._member = zlib.decompressobj(_GZIP_FRAMING)
        return piece

    def finish(self) -> None:
        """Prove that the stream is whole. One that stops early is as bad as a damaged one."""
        if self._member is None or not self._member.eof:
            raise DecompressionFailure("the gzip stream stops early")


def _header_end(octets: bytes) -> int | None:
    """Where the member header at the start of `octets` ends, None when it goes on [rfc1952 2.3]."""
    if not octets.startswith(_MAGIC[: len(octets)]):
        raise DecompressionFailure("not gzip")
    if len(octets) < 10:
        return None
    flags, end = octets[3], 10
    if flags & _RESERVED:
        raise DecompressionFailure("a gzip header with reserved flags")
    if flags & _EXTRA:
        end += 2 + int.from_bytes(octets[10:12], "little")
    for flag in (_NAME, _COMMENT):
        if flags & flag:
            end = octets.find(b"\0", end) + 1 if end <= len(octets) else 0
            if end == 0:
                return None
    if flags & _HEADER_CRC:
        end += 2
    return end if end <= len(octets) else None


class Deflater:
    """gzip at level 1, without name and time. `feed` and `finish` return octets, possibly none."""

    def __init__(self) -> None:
        # Level 1: the higher ones cost several times as much for a few per cent [stack 2.1].
        self._member = zlib.compressobj(1, zlib.DEFLATED, _GZIP_FRAMING)

    def feed(self, block: bytes) -> bytes:
        return self._member.compress(block)

    def finish(self) -> bytes:
        return self._member.flush()


#: Formats that are compressed already; gzip would cost time and save nothing. PDF is not
#: among them: what OOTS exchanges shrinks by a quarter and more.
_COMPRESSED = frozenset({
    "application/gzip", "application/x-gzip", "application/zip", "application/x-zip-compressed", "application/zstd",
    "application/x-bzip2", "application/x-xz", "application/x-7z-compressed", "application/vnd.rar",
    "application/java-archive", "application/epub+zip",
    "image/jpeg", "image/jpg", "image/png", "image/gif", "image/webp", "image/jp2", "image/heic", "image/heif",
    "image/avif", "audio/mpeg", "audio/mp4", "audio/ogg", "audio/aac", "video/mp4", "video/mpeg", "video/webm",
})  # fmt: skip
#: ZIP containers by another name: office documents.
_ZIP_FAMILIES = ("application/vnd.openxmlformats-officedocument.", "application/vnd.oasis.opendocument.")


def should_compress(mime_type: str) -> bool:
    """Whether compressing content of this media type is worth it. Domibus leaves out ASiC and JPEG likewise."""
    kind = bare_type(mime_type)
    return not (kind in _COMPRESSED or kind.startswith(_ZIP_FAMILIES) or kind.endswith(("+zip", "+gzip", "+zstd")))
