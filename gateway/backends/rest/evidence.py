"""What is kept of a message, and what it proves: /v1/messages/{id}/header, receipt, security, wire, bundle.

XML of a partner leaves as an attachment, like its payloads: nothing in it is for a browser.
"""

from starlette.responses import Response

from gateway.backends.rest.bundle import bundle_of
from gateway.backends.rest.documents import BundleQuery, NoQuery
from gateway.backends.rest.payloads import Stream
from gateway.backends.rest.problems import Refused
from gateway.backends.rest.request import Request, answer
from gateway.plugin import NotFound

SOAP = "application/soap+xml"


async def header(request: Request) -> Response:
    """GET /v1/messages/{id}/header"""
    request.query(NoQuery)
    return answer(await request.msh.header(request.caller, request.path("id")))


async def security(request: Request) -> Response:
    """GET /v1/messages/{id}/security"""
    request.query(NoQuery)
    found = await request.msh.security(request.caller, request.path("id"))
    if found is None:
        raise Refused("not-kept", "nothing of this message has been signed yet")
    return answer(found)


async def receipt(request: Request) -> Response:
    """GET /v1/messages/{id}/receipt: its octets, or with Accept: application/json what it says and proves."""
    request.query(NoQuery)
    id = request.path("id")
    if prefers_json(request.headers.get("accept", "")):
        found = await request.msh.receipt(request.caller, id)
        if found is None:
            raise Refused("not-kept", "there is no receipt, or not yet")
        return answer(found, headers={"Vary": "Accept"})
    octets = await request.msh.wire(request.caller, id, "response")
    return _xml(octets, "receipt", "there is no receipt, or not yet")


async def wire(request: Request) -> Response:
    """GET /v1/messages/{id}/wire/{which}"""
    request.query(NoQuery)
    which = request.path("which")
    if which not in ("request", "response"):
        raise NotFound
    octets = await request.msh.wire(request.caller, request.path("id"), which)
    why = "nothing of this message has been signed yet" if which == "request" else "there is no receipt, or not yet"
    return _xml(octets, which, why)


async def bundle(request: Request) -> Response:
    """GET /v1/messages/{id}/bundle"""
    payloads = request.query(BundleQuery).payloads
    found = await bundle_of(request.msh, request.caller, request.path("id"), payloads=payloads)
    headers = {"Content-Disposition": f'attachment; filename="evidence-{found.name}.zip"'}
    if request.method == "HEAD":
        return Response(b"", 200, headers, "application/zip")
    return Stream(found.blocks(), 200, headers, "application/zip")


def prefers_json(accept: str) -> bool:
    """Whether Accept names JSON before any XML; nothing else is weighed."""
    for item in accept[:512].lower().split(","):
        kind = item.partition(";")[0].strip()
        if kind in ("application/json", "application/*+json"):
            return True
        if kind.endswith("xml"):
            return False
    return False


def _xml(octets: bytes | None, name: str, why: str) -> Response:
    if octets is None:
        raise Refused("not-kept", why)
    headers = {"Content-Disposition": f'attachment; filename="{name}.xml"', "Vary": "Accept"}
    return Response(octets, 200, headers, SOAP)
