"""Read an AS4 message from the body of an HTTP request, block by block [as4 1.2, 1.3].

A message is a SOAP envelope, alone or as the first part of multipart/related. The reader
gives out the envelope as soon as it is complete, then the payload parts as they stream in,
and keeps nothing but the envelope. What it says about a part is unproven and mostly
unsigned: only the Content-ID and the decoded octets may have an effect [threats D06].

The first part is the root, whatever `start` says; a `start` that names another part is
refused. Two stacks could take two different parts for the envelope, and no known sender
puts the root elsewhere [threats D10].

Limits are counted on the octets as they come in, before any decoding. A refusal has HTTP
status 400, 413 or 415 as long as no envelope was given out, and after it 413 or 200: then
there is a header the answer can refer to [as4 1.5].
"""

import contextlib
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.media_type import MediaType, bare_type, boundary_of, parse_media_type
from gateway.as4.splitter import Piece, Splitter
from gateway.as4.transfer import TransferDecoder, transfer_decoder
from gateway.errors import FeatureNotSupported, MimeInconsistency

_MULTIPART = "multipart/related"
_XOP = "application/xop+xml"


class MimeLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes in octets [threats 1.5].

    `parts` counts payload parts, without the envelope. `part` is one payload part and
    `message` the whole body, both as they are on the wire; `preamble` holds for the
    epilogue too.
    """

    envelope: int = 1 << 20
    parts: int = 64
    part: int = 200 << 20
    message: int = 1 << 30
    part_header: int = 8 << 10
    header_lines: int = 32
    preamble: int = 1 << 10


class EnvelopeReady(Struct, frozen=True):
    """The complete SOAP envelope; `charset` is the parameter of its media type."""

    octets: bytes
    charset: str | None


class PartBegins(Struct, frozen=True):
    """A payload part begins. `cid` is its Content-ID as written, without `<>`; `content_type` may be empty."""

    cid: str
    content_type: str
    headers: dict[str, str]


class PartData(Struct, frozen=True):
    """Content of the part that began last, transfer encoding undone. Never empty; safe to keep."""

    block: bytes


class PartEnds(Struct, frozen=True):
    """The part is complete."""


Event = EnvelopeReady | PartBegins | PartData | PartEnds


class MessageReader:
    """Feed it the body's blocks, exhausting each iterator, then `close`.

    The first event is always `EnvelopeReady`, and there is only one; a plain envelope is
    ready at `close`. Raises `MimeInconsistency`, and `FeatureNotSupported` for MTOM; after
    that the reader is of no more use.
    """

    def __init__(self, content_type: str, *, limits: MimeLimits = MimeLimits()) -> None:  # noqa: B008
        self._limits = limits
        self._received = 0
        self._envelope_out = False
        self._envelope = bytearray()
        self._charset: str | None = None
        self._start: str | None = None
        self._decoder: TransferDecoder | None = None
        self._in_root = True
        self._part_size = 0
        self._seen: set[bytes] = set()
        self._splitter: Splitter | None = None
        media_type = parse_media_type(content_type)
        if media_type.type != _MULTIPART:
            _check_root_type(media_type.type)
            self._charset = media_type.parameters.get("charset")
            return
        if root_type := media_type.parameters.get("type"):
            _check_root_type(bare_type(root_type))
        self._start = media_type.parameters.get("start")
        self._splitter = Splitter(
            boundary_of(media_type),
            parts=limits.parts + 1,
            header=limits.part_header,
            lines=limits.header_lines,
            around=limits.preamble,
        )
        self._in_root = False

    def feed(self, block: bytes) -> Iterator[Event]:
        """Take the next octets of the body; they may be cut anywhere."""
        # Octets within the limit come first, so that the outcome does not depend on the cut.
        room = max(0, self._limits.message - self._received)
        self._received += len(block)
        within = block if len(block) <= room else block[:room]
        if self._splitter is None:
            self._add_to_envelope(within)
        else:
            yield from self._events(self._splitter.feed(within))
        if len(block) > room:
            raise MimeInconsistency("the message is too large", where="message size", status=413)

    def close(self) -> Iterator[Event]:
        """The body has ended."""
        if self._splitter is None:
            yield self._envelope_ready()
        else:
            yield from self._events(self._splitter.close())

    def _events(self, pieces: Iterator[Piece]) -> Iterator[Event]:
        try:
            for piece in pieces:
                if piece is None:
                    yield from self._end()
                elif isinstance(piece, dict):
                    yield from self._begin(piece)
                else:
                    yield from self._data(piece)
        except MimeInconsistency as refusal:
            if refusal.status == 200 and not self._envelope_out:
                refusal.status = 400
            raise

    # -- a part begins ----------------------------------------------------------

    def _begin(self, headers: dict[str, str]) -> Iterator[Event]:
        self._in_root = not self._envelope_out
        self._part_size = 0
        self._decoder = transfer_decoder(headers.get("content-transfer-encoding", ""))
        cid = self._content_id(headers)
        if self._in_root:
            self._begin_root(headers, cid)
            return
        if cid is None:
            raise MimeInconsistency("a part without Content-ID", where="Content-ID")
        content_type = headers.get("content-type", "")
        # A part inside a part could be found by one reader and not by another [threats D10].
        if bare_type(content_type).startswith(("multipart/", "message/")):
            raise MimeInconsistency("a nested message", where="MIME part")
        yield PartBegins(cid, content_type, headers)

    def _begin_root(self, headers: dict[str, str], cid: str | None) -> None:
        media_type: MediaType = parse_media_type(headers.get("content-type", ""))
        _check_root_type(media_type.type)
        self._charset = media_type.parameters.get("charset")
        if self._start is not None and _bare_id(self._start) != cid:
            raise MimeInconsistency("`start` names another part than the first", where="Content-Type/start")

    def _content_id(self, headers: dict[str, str]) -> str | None:
        """The Content-ID, None without one. No two parts may have ids that anybody could confuse."""
        value = headers.get("content-id")
        if value is None:
            return None
        cid = _bare_id(value)
        if not cid or not cid.isascii() or "<" in cid or ">" in cid:
            raise MimeInconsistency("an unusable Content-ID", where="Content-ID")
        # Case and percent-encoding are part of an id, but not every reader thinks so [threats D03].
        forms = {cid.encode().lower(), unquote_to_bytes(cid).strip().lower()}
        if forms & self._seen:
            raise MimeInconsistency("two parts with one Content-ID", where="Content-ID")
        self._seen |= forms
        return cid

    # -- its content, its end ---------------------------------------------------

    def _data(self, octets: bytes) -> Iterator[Event]:
        if self._in_root:
            self._add_to_envelope(octets)
            return
        room = self._limits.part - self._part_size
        self._part_size += len(octets)
        within = octets if len(octets) <= room else octets[:room]
        if block := self._decoder.feed(within) if self._decoder else within:
            yield PartData(block)
        if len(octets) > room:
            raise MimeInconsistency("a part is too large", where="MIME part size", status=413)

    def _end(self) -> Iterator[Event]:
        if self._in_root:
            yield self._envelope_ready()
            self._in_root = False
            return
        if self._decoder and (rest := self._decoder.finish()):
            yield PartData(rest)
        yield PartEnds()

    def _add_to_envelope(self, octets: bytes) -> None:
        self._envelope += octets
        if len(self._envelope) > self._limits.envelope:
            raise MimeInconsistency("the envelope is too large", where="SOAP envelope size", status=413)

    def _envelope_ready(self) -> EnvelopeReady:
        octets, self._envelope = bytes(self._envelope), bytearray()
        if self._decoder:
            octets = self._decoder.feed(octets) + self._decoder.finish()
        if not octets:
            raise MimeInconsistency("the envelope is empty", where="SOAP envelope", status=400)
        self._envelope_out = True
        return EnvelopeReady(octets, self._charset)


class ContentIds:
    """The Content-IDs, or the texts after `cid:`, of one message, to find the other side's spelling among them.

    As written, else with one of the two percent-decoded [rfc2392 2]. Never a prefix or substring
    [threats D05]. Made once a message, so that many parts cost their number and not its square.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._known = frozenset(known)
        self._decoded: dict[bytes, str | None] = {}
        for cid in self._known:
            octets = unquote_to_bytes(cid)
            self._decoded[octets] = None if octets in self._decoded else cid

    def find(self, cid: str) -> str | None:
        """Which one is the same id as `cid`; None when there is none, or when decoding makes more than one fit."""
        if cid in self._known:
            return cid
        octets, decoded = cid.encode(), unquote_to_bytes(cid)
        found = {self._decoded[octets]} if octets in self._decoded else set()
        with contextlib.suppress(UnicodeDecodeError):
            if (raw := decoded.decode()) in self._known:
                found.add(raw)
        return found.pop() if len(found) == 1 else None


def _bare_id(value: str) -> str:
    """A Content-ID or `start` value without blanks around it and one pair of angle brackets."""
    value = value.strip(" \t")
    if value.startswith("<") and value.endswith(">"):
        value = value[1:-1].strip(" \t")
    return value


def _check_root_type(media_type: str) -> None:
    """The envelope is SOAP 1.2: not text/xml (SOAP 1.1), and not MTOM, whose parts live in the XML."""
    if media_type == _XOP:
        raise FeatureNotSupported("XOP/MTOM packaging", where="Content-Type/type", status=415)
    if media_type != ns.SOAP_MEDIA_TYPE:
        raise MimeInconsistency("neither SOAP 1.2 nor multipart/related with it", where="Content-Type", status=415)
