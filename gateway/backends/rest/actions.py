"""Have something done with a message: /v1/messages/{id}/resend, cancel, hold, release, redeliver.

Each answers with the message as it is then, or with what it would have to be. Asked a second
time, because the first answer was lost, hold and release say what they said before.
"""

from starlette.responses import Response

from gateway.backends.rest.documents import NoQuery
from gateway.backends.rest.request import Request, answer
from gateway.plugin import NotPossible


async def resend(request: Request) -> Response:
    """POST /v1/messages/{id}/resend"""
    request.query(NoQuery)
    return answer(await request.msh.resend(request.caller, request.path("id")))


async def cancel(request: Request) -> Response:
    """POST /v1/messages/{id}/cancel"""
    request.query(NoQuery)
    return answer(await request.msh.cancel(request.caller, request.path("id")))


async def hold(request: Request) -> Response:
    """POST /v1/messages/{id}/hold"""
    request.query(NoQuery)
    return answer(await request.msh.suspend(request.caller, request.path("id")))


async def release(request: Request) -> Response:
    """POST /v1/messages/{id}/release"""
    request.query(NoQuery)
    return answer(await request.msh.resume(request.caller, request.path("id")))


async def redeliver(request: Request) -> Response:
    """POST /v1/messages/{id}/redeliver"""
    request.query(NoQuery)
    id = request.path("id")
    if not await request.msh.redeliver(request.caller, id):
        view = await request.msh.message(request.caller, id)
        raise NotPossible("only what was delivered or parked, with its payloads still there", state=view.state)
    return answer(await request.msh.message(request.caller, id))
