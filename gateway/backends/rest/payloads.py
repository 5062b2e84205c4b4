"""Hand out payloads: streamed, resumable, verifiable, and inert in a browser [threats K02, M01].

The content comes from a partner. It leaves as an attachment under a name that we make,
with sniffing forbidden, whatever media type the partner claims.
"""

import base64
import re
from collections.abc import AsyncIterator
from contextlib import aclosing

from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from gateway.backends.rest.documents import NoQuery, PayloadList
from gateway.backends.rest.problems import Refused
from gateway.backends.rest.request import Request, answer
from gateway.plugin import NotFound, PartView

#: A media type with at most four plain parameters; anything else is handed out as octet-stream.
MEDIA_TYPE = re.compile(
    r"([\w!#$&^.+-]{1,127}/[\w!#$&^.+-]{1,127})(?:; ?[\w.-]{1,32}=(?:[\w.+:/-]{1,64}|\"[\w .+:/=-]{1,64}\")){0,4}",
    re.ASCII,
)
#: One range. More than one is answered with the whole, which is allowed [rfc9110 14.2]; numbers
#: are bounded so that nobody makes us compute with a million digits.
RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")
SUFFIXES = {
    "application/xml": ".xml", "text/xml": ".xml", "application/x-ebrs+xml": ".xml", "application/pdf": ".pdf",
    "application/json": ".json", "text/plain": ".txt", "image/png": ".png", "image/jpeg": ".jpg",
    "application/zip": ".zip",
}  # fmt: skip


class Stream(StreamingResponse):
    """Closes the source of the blocks at once when the caller goes away."""

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self.body_iterator):  # type: ignore[type-var]
            await super().stream_response(send)


async def listing(request: Request) -> Response:
    """GET /v1/messages/{id}/payloads"""
    request.query(NoQuery)
    view = await request.msh.message(request.caller, request.path("id"))
    return answer(PayloadList(view.parts))


async def content(request: Request) -> Response:
    """GET /v1/messages/{id}/payloads/{cid}: whole, or one range."""
    request.query(NoQuery)
    id, cid = request.path("id"), request.path("cid")
    part = await _part(request, id, cid)
    headers = _headers(part)
    if request.method == "HEAD":
        return Response(b"", 200, headers | {"Content-Length": str(part.size)})
    first, length = _range(request, part)
    _, blocks = await request.msh.payload(request.caller, id, cid, start=first)
    headers["Content-Length"] = str(length)
    if length == part.size:
        # Content-Digest is of the bytes of this answer, which for a range nobody has hashed.
        return Stream(blocks, 200, headers | {"Content-Digest": _digest(part)})
    headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{part.size}"
    return Stream(_at_most(blocks, length), 206, headers)


async def _part(request: Request, id: str, cid: str) -> PartView:
    view = await request.msh.message(request.caller, id)
    part = next((part for part in view.parts if part.cid == cid), None)
    if part is None:
        raise NotFound
    if not part.available:
        raise Refused("payload-purged")
    return part


def _range(request: Request, part: PartView) -> tuple[int, int]:
    """First byte and length of what is asked for; the whole when Range is to be ignored."""
    whole = 0, part.size
    asked = RANGE.fullmatch(request.headers.get("range", ""))
    # A weak or another validator means the caller has the beginning of something else [rfc9110 13.1.5].
    if asked is None or request.headers.get("if-range", _etag(part)) != _etag(part):
        return whole
    if asked[3]:
        first, last = part.size - min(int(asked[3]), part.size), part.size - 1
    else:
        first = int(asked[1])
        last = min(int(asked[2]), part.size - 1) if asked[2] else part.size - 1
        if asked[2] and int(asked[2]) < first:
            return whole  # not a valid range at all
    if first >= part.size:
        raise Refused("range-not-satisfiable", headers={"Content-Range": f"bytes */{part.size}"})
    return first, last - first + 1


def _headers(part: PartView) -> dict[str, str]:
    return {
        "Content-Type": part.mime_type if MEDIA_TYPE.fullmatch(part.mime_type) else "application/octet-stream",
        "Content-Disposition": f'attachment; filename="payload-{part.number}{suffix_of(part)}"',
        "Accept-Ranges": "bytes",
        "ETag": _etag(part),
        "Repr-Digest": _digest(part),
    }


def suffix_of(part: PartView) -> str:
    """How the name of a file with this payload ends; the partner has no say in it."""
    media_type = MEDIA_TYPE.fullmatch(part.mime_type)
    return SUFFIXES.get(media_type[1].lower(), ".bin") if media_type else ".bin"


def _etag(part: PartView) -> str:
    return f'"{part.sha256}"'


def _digest(part: PartView) -> str:
    """The SHA-256 of the payload in the form of the digest fields [rfc9530 2]."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(part.sha256)).decode()}:"


async def _at_most(blocks: AsyncIterator[bytes], length: int) -> AsyncIterator[bytes]:
    async with aclosing(blocks):  # type: ignore[type-var]
        async for block in blocks:
            yield block[:length]
            length -= len(block)
            if length <= 0:
                return
