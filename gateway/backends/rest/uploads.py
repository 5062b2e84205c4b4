"""Bring large content ahead of the submission that refers to it: /v1/uploads.

Begin with the size, PATCH at Upload-Offset as often as it takes, or PUT the whole; then name
the upload in `parts[].upload`. A request with Content-Digest [rfc9530] counts as a whole or not at
all; of one without, what came before an interruption is kept.
"""

import base64
import binascii
import re
from collections.abc import AsyncIterator
from typing import Literal
from urllib.parse import quote

from starlette.responses import Response

from gateway.backends.rest.documents import NoQuery, UploadRequest
from gateway.backends.rest.problems import Place, Refused
from gateway.backends.rest.request import Request, answer, idempotency_key, nothing
from gateway.plugin import OffsetConflict, UploadView

#: Digests that are checked; sizes of their values.
ALGORITHMS: dict[str, int] = {"sha-256": 32, "sha-512": 64}
#: A member of a dictionary whose value is a byte sequence [rfc8941 3.2, 3.3.5].
MEMBER = re.compile(r"([a-z*][a-z0-9_.*-]{0,63})=:([A-Za-z0-9+/]*={0,2}):")
CONTENT_TYPES = ("application/octet-stream", "application/partial-upload")


async def begin(request: Request) -> Response:
    """POST /v1/uploads"""
    request.query(NoQuery)
    key, asked = idempotency_key(request), await request.document(UploadRequest)
    view = await request.msh.begin_upload(
        request.caller, size=asked.size, sha256=asked.sha256, idempotency_key=key
    )
    return _answer(view, 201, {"Location": f"{request.prefix}/v1/uploads/{quote(view.id)}"})


async def one(request: Request) -> Response:
    """GET /v1/uploads/{id}"""
    request.query(NoQuery)
    return _answer(await request.msh.upload(request.caller, request.path("id")))


async def append(request: Request) -> Response:
    """PATCH /v1/uploads/{id}: from Upload-Offset on, which is where it goes on."""
    offset = request.single("upload-offset")
    if offset is None or not re.fullmatch(r"[0-9]{1,15}", offset):
        raise Refused("invalid-parameter", errors=(Place("#", "PATCH needs the header Upload-Offset, a number"),))
    view = await request.msh.upload(request.caller, request.path("id"))
    if int(offset) != view.received:
        raise OffsetConflict(view.received)
    return await _write(request, int(offset))


async def replace(request: Request) -> Response:
    """PUT /v1/uploads/{id}: the whole, whatever was there before."""
    return await _write(request, 0)


async def remove(request: Request) -> Response:
    """DELETE /v1/uploads/{id}"""
    request.query(NoQuery)
    await request.msh.drop_upload(request.caller, request.path("id"))
    return nothing()


async def _write(request: Request, offset: int) -> Response:
    request.query(NoQuery)
    if request.media_type not in CONTENT_TYPES:
        raise Refused("unsupported-media-type", f"the content of an upload is {CONTENT_TYPES[0]}")
    with request.uploads.slot(request.caller.id):
        view = await request.msh.write_upload(
            request.caller, request.path("id"), _blocks(request), offset=offset, digest=_digest(request)
        )
    return _answer(view)


async def _blocks(request: Request) -> AsyncIterator[bytes]:
    while (block := await request.body.block()) is not None:
        yield block


def _digest(request: Request) -> tuple[Literal["sha-256", "sha-512"], bytes] | None:
    """The digest of this request's content that we can check. Raises `Refused`."""
    text = request.single("content-digest")
    if text is None:
        return None
    for member in text[:1024].split(","):
        found = MEMBER.fullmatch(member.strip())
        size = ALGORITHMS.get(found[1]) if found else None
        if size is None:
            continue
        try:
            value = base64.b64decode(found[2], validate=True)
        except binascii.Error:
            break
        if len(value) == size:
            return found[1], value
    # It asks for a check that we cannot make: to take the content unchecked would be to promise too much.
    place = Place("#", "Content-Digest needs sha-256=:…: or sha-512=:…:, in base64")
    raise Refused("invalid-parameter", errors=(place,), headers={"Want-Content-Digest": "sha-256=10, sha-512=5"})


def _answer(view: UploadView, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return answer(view, status, {"Upload-Offset": str(view.received), **(headers or {})})
