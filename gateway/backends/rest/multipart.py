"""Read a submission from multipart/form-data without ever holding a payload [rfc7578].

The first field is `meta`; the payload fields follow in the order in which `meta` lists
them. The low-level parser of python-multipart splits the stream; this file decides what
may come when, and pulls from the network only when the MSH asks for more.

Whether the form has exactly the payloads that `meta` lists must be known before the MSH
commits anything. So the iterator of the last payload does not end before the closing
boundary and the end of the request have been seen.
"""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Literal

from msgspec import Struct
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.backends.rest.body import Body
from gateway.backends.rest.limits import EPILOGUE
from gateway.backends.rest.problems import Refused
from gateway.plugin import PartSubmission

#: A field needs Content-Disposition, Content-Type and perhaps Content-ID; browsers send no more.
FIELD_HEADERS = 8
FIELD_HEADER_BYTES = 4_096
#: Bytes the parser may swallow without any result: the headers of one field, and some.
QUIET = FIELD_HEADERS * FIELD_HEADER_BYTES + EPILOGUE
BOUNDARY = 70  # [rfc2046 5.1.1]


class _Field(Struct, frozen=True):
    headers: dict[str, str]
    name: str


_Event = _Field | bytes | Literal["end", "done"]


class FormReader:
    """One form. Call `meta`, then `expect`, then `content(n)` for each n in order, exhausting each."""

    def __init__(self, content_type: str, body: Body) -> None:
        """Raises `Refused` when `content_type` has no usable boundary."""
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not 1 <= len(boundary) <= BOUNDARY:
            raise Refused("malformed-form", "Content-Type has no boundary of 1 to 70 characters")
        self._body = body
        self._events: deque[_Event] = deque()
        self._headers: dict[str, str] = {}
        self._field, self._value = bytearray(), bytearray()
        self._quiet = 0
        self._parts: Sequence[PartSubmission] = ()
        self._begun, self._open = 0, False
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
            max_header_count=FIELD_HEADERS,
            max_header_size=FIELD_HEADER_BYTES,
        )

    async def meta(self, limit: int) -> bytes:
        """The content of the first field. Raises `Refused`."""
        first = await self._next()
        if not isinstance(first, _Field) or first.name != "meta":
            raise Refused("meta-first")
        octets = bytearray()
        while isinstance(event := await self._next(), bytes):
            octets += event
            if len(octets) > limit:
                raise Refused("meta-too-large")
        return bytes(octets)

    async def expect(self, parts: Sequence[PartSubmission]) -> None:
        """Say which payloads are to come. Raises `Refused` when none are, and something comes."""
        self._parts = parts
        if not parts:
            await self._finish()

    async def content(self, number: int) -> AsyncIterator[bytes]:
        """The content of payload `number`, counted from 0. Raises `Refused`, `Disconnected`."""
        while self._open:  # the reader left the payload before in the middle
            self._open = isinstance(await self._next(), bytes)
        if number != self._begun:
            raise ValueError(f"payload {number} was asked for, {self._begun} is next")
        event = await self._next()
        if not isinstance(event, _Field):
            raise Refused("parts-mismatch", f"meta lists {len(self._parts)} payloads, the form has {number}")
        self._check(number, event)
        self._begun, self._open = number + 1, True
        while isinstance(event := await self._next(), bytes):
            yield event
        self._open = False
        if self._begun == len(self._parts):
            await self._finish()

    def _check(self, number: int, field: _Field) -> None:
        encoding = field.headers.get("content-transfer-encoding", "binary").lower()
        if encoding not in ("binary", "8bit", "7bit"):  # deprecated by [rfc7578 4.7]
            raise Refused("malformed-form", "Content-Transfer-Encoding is not read in forms")
        cid = self._parts[number].cid
        if cid is None:
            return
        named = field.headers.get("content-id", "").strip().removeprefix("<").removesuffix(">") or field.name
        if named != cid:
            raise Refused("parts-mismatch", f"payload {number} is not the one that meta lists at this place")

    async def _finish(self) -> None:
        if await self._next() != "done":
            raise Refused("parts-mismatch", f"the form has more payloads than the {len(self._parts)} that meta lists")
        rest = 0
        while (block := await self._body.block()) is not None:
            rest += len(block)
            if rest > EPILOGUE:
                raise Refused("malformed-form", "there is content after the closing boundary")

    async def _next(self) -> _Event:
        while not self._events:
            block = await self._body.block()
            if block is None:
                # python-multipart does not notice a truncated form by itself.
                raise Refused("malformed-form", "the form ends before its closing boundary")
            self._quiet += len(block)
            try:
                self._parser.write(block)
            except FormParserError:
                # Its text quotes bytes of the request; ours does not.
                raise Refused("malformed-form", "the form does not follow RFC 7578") from None
            if self._events:
                self._quiet = 0
            elif self._quiet > QUIET + len(block):
                raise Refused("malformed-form", "there is content outside the fields")
        return self._events.popleft()

    def _header(self) -> None:
        name = self._field.decode("ascii").lower()  # the parser admits token characters only
        if name in self._headers:
            raise Refused("malformed-form", "a field has the same header twice")
        self._headers[name] = self._value.decode("latin-1").strip()
        self._field.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        headers, self._headers = self._headers, {}
        kind, options = parse_options_header(headers.get("content-disposition", ""))
        if kind != b"form-data" or b"name" not in options:
            raise Refused("malformed-form", "a field has no 'Content-Disposition: form-data' with a name")
        try:
            name = options[b"name"].decode()  # UTF-8 [rfc7578 5.1]
        except UnicodeDecodeError:
            raise Refused("malformed-form", "a field's name is not UTF-8") from None
        self._events.append(_Field(headers, name))
