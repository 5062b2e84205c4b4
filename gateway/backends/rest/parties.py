"""Whom there is to write to: /v1/parties."""

from starlette.responses import Response

from gateway.backends.rest.documents import NoQuery, PartyList
from gateway.backends.rest.request import Request, answer
from gateway.plugin import NotFound


async def several(request: Request) -> Response:
    """GET /v1/parties"""
    request.query(NoQuery)
    return answer(PartyList(await request.msh.parties(request.caller)))


async def one(request: Request) -> Response:
    """GET /v1/parties/{id}: by id, or by `type:id` where the id alone is not unique."""
    request.query(NoQuery)
    wanted = request.path("id")
    found = [p for p in await request.msh.parties(request.caller) if wanted in (p.id, f"{p.type}:{p.id}")]
    if len(found) != 1:
        raise NotFound
    return answer(found[0])
