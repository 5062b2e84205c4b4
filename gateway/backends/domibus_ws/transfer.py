"""MTOM and SOAP with attachments: the envelope, and octets that stand beside it.

    application/soap+xml                      the envelope, payloads as base64 in it
    multipart/related, application/xop+xml    the envelope names attachments with xop:Include [mtom 1.0, xop 1.0]
    multipart/related, application/soap+xml   a payload value says `cid:…`

All content goes to a `plugin.Held` as it comes, under the names `value-n` and `cid:…`.
"""

import binascii
from collections import deque
from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.backends.domibus_ws.reading import EnvelopeReader, Malformed
from gateway.backends.rest.body import Body
from gateway.plugin import Held

PART_HEADERS = 16
PART_HEADER_BYTES = 8_192
MAX_ATTACHMENTS = 64
MAX_BOUNDARY = 70  # [rfc2046 5.1.1]
#: What the parser may swallow without telling anything.
QUIET = 64 << 10
_SOAP = (b"application/soap+xml", b"application/xop+xml", b"text/xml", b"application/xml")
_CHARSETS = {"utf-8": "UTF-8", "utf8": "UTF-8", "us-ascii": "US-ASCII", "iso-8859-1": "ISO-8859-1", "utf-16": "UTF-16"}


class Unsupported(Exception):
    """A Content-Type that is no SOAP request."""


async def read(content_type: str, body: Body, held: Held) -> tuple[EnvelopeReader, set[str]]:
    """The envelope, its payloads in `held`, and the content ids of the attachments.

    Raises `Malformed`, `Unsupported`, and what `Body` and `Held` raise.
    """
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/related":
        return await _related(options.get(b"boundary", b""), options.get(b"start", b""), body, held)
    if kind not in _SOAP:
        raise Unsupported
    reader = EnvelopeReader(_charset(options))
    while (block := await body.block()) is not None:
        await _keep(reader.feed(block), held)
    reader.close()
    return reader, set()


def _charset(options: dict[bytes, bytes]) -> str | None:
    return _CHARSETS.get(options.get(b"charset", b"").decode("latin-1").lower())


async def _keep(decoded: list[tuple[str, bytes]], held: Held) -> None:
    for name, octets in decoded:
        await held.write(name, octets)


async def _related(boundary: bytes, start: bytes, body: Body, held: Held) -> tuple[EnvelopeReader, set[str]]:
    reader: EnvelopeReader | None = None
    cids: set[str] = set()
    root = start.decode("latin-1").strip().strip("<>")
    async for headers, content in _parts(boundary, body):
        cid = headers.get("content-id", "").strip().strip("<>")
        # The root is the part that `start` names, else the first [rfc2387 3.2].
        if reader is None and (cid == root if root else True):
            kind, options = parse_options_header(headers.get("content-type", ""))
            if kind not in _SOAP:
                raise Unsupported
            reader = EnvelopeReader(_charset(options))
            async for block in content:
                await _keep(reader.feed(block), held)
            reader.close()
            continue
        if not cid or cid in cids or len(cids) >= MAX_ATTACHMENTS:
            raise Malformed("an attachment without a Content-ID, two with the same one, or too many")
        cids.add(cid)
        decode = _decoder(headers.get("content-transfer-encoding", "binary").strip().lower())
        async for block in content:
            if octets := decode(block):
                await held.write(f"cid:{cid}", octets)
        if octets := decode(None):
            await held.write(f"cid:{cid}", octets)
    if reader is None:
        raise Malformed("the multipart has no envelope")
    return reader, cids


def _decoder(encoding: str):
    if encoding in ("binary", "8bit", "7bit"):
        return lambda block: block
    if encoding != "base64":
        raise Malformed("a Content-Transfer-Encoding other than binary, 8bit, 7bit and base64")
    rest = b""

    def decode(block: bytes | None) -> bytes:
        nonlocal rest
        octets = rest + b"".join((block or b"").split())
        ready = len(octets) // 4 * 4 if block is not None else len(octets)
        rest = octets[ready:]
        try:
            return binascii.a2b_base64(octets[:ready])
        except binascii.Error:
            raise Malformed("an attachment is not base64") from None

    return decode


async def _parts(boundary: bytes, body: Body) -> AsyncIterator[tuple[dict[str, str], AsyncIterator[bytes]]]:
    """(headers, content) of each part; the content of one is read before the next comes."""
    if not 1 <= len(boundary) <= MAX_BOUNDARY:
        raise Malformed("Content-Type has no boundary of 1 to 70 characters")
    parts = _Parts(boundary, body)
    while (headers := await parts.next_headers()) is not None:
        yield headers, parts.content()


class _Parts:
    def __init__(self, boundary: bytes, body: Body) -> None:
        self._body, self._events = body, deque()
        self._headers: dict[str, str] = {}
        self._field, self._value = bytearray(), bytearray()
        self._quiet = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._header,
                "on_headers_finished": self._headers_finished,
                "on_part_data": lambda data, start, end: self._events.append(data[start:end]),
                "on_part_end": lambda: self._events.append("end"),
                "on_end": lambda: self._events.append("done"),
            },
            max_header_count=PART_HEADERS,
            max_header_size=PART_HEADER_BYTES,
        )

    async def next_headers(self) -> dict[str, str] | None:
        event = await self._next()
        while isinstance(event, bytes) or event == "end":  # what its reader left
            event = await self._next()
        return None if event == "done" else event

    async def content(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._next(), bytes):
            yield event

    async def _next(self):
        while not self._events:
            block = await self._body.block()
            if block is None:
                raise Malformed("the multipart ends before its closing boundary")
            self._quiet += len(block)
            try:
                self._parser.write(block)
            except FormParserError:
                raise Malformed("the multipart does not follow RFC 2387") from None
            if self._events:
                self._quiet = 0
            elif self._quiet > QUIET + len(block):
                raise Malformed("there is content outside the parts")
        return self._events.popleft()

    def _header(self) -> None:
        self._headers[self._field.decode("latin-1").lower()] = self._value.decode("latin-1").strip()
        self._field.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        headers, self._headers = self._headers, {}
        self._events.append(headers)
