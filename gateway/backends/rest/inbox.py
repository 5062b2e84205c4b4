"""Take messages over, with leases: /v1/inbox.

Claim, fetch the payloads, store them safely on the own side, acknowledge. Whoever dies
in between loses nothing: when the lease ends, the message is lent again, `redelivered`.
"""

from starlette.responses import Response

from gateway.backends.rest.documents import (
    AckRequest,
    Claimed,
    ClaimRequest,
    Extended,
    ExtendRequest,
    NackRequest,
    NoQuery,
    Peeked,
    PeekQuery,
)
from gateway.backends.rest.request import Request, answer, moments, nothing
from gateway.plugin import MessageFilter, MessageView, Waiting


async def peek(request: Request) -> Response:
    """GET /v1/inbox/peek: what waits, without claiming it."""
    asked = request.query(PeekQuery)
    ids = await request.msh.waiting(request.caller, Waiting(**moments(asked, "received_from", "received_to")))
    found = [page for id in ids for page in await _inbound(request, id)]
    return answer(Peeked([view for view in found if view.state == "RECEIVED"]))


async def _inbound(request: Request, message_id: str) -> list[MessageView]:
    """The inbound messages with a MessageId: two partners may have used the same."""
    wanted = MessageFilter(direction="inbound", message_id=message_id)
    return (await request.msh.messages(request.caller, wanted))[0]


async def claim(request: Request) -> Response:
    """POST /v1/inbox/claim"""
    request.query(NoQuery)
    asked = await request.document(ClaimRequest)
    return answer(Claimed(await request.msh.claim(request.caller, limit=asked.limit, lease=asked.lease)))


async def ack(request: Request) -> Response:
    """POST /v1/inbox/{delivery_id}/ack"""
    request.query(NoQuery)
    asked = await request.document(AckRequest)
    await request.msh.ack(request.caller, request.path("delivery_id"), asked.claim)
    return nothing()


async def nack(request: Request) -> Response:
    """POST /v1/inbox/{delivery_id}/nack"""
    request.query(NoQuery)
    asked = await request.document(NackRequest)
    await request.msh.nack(request.caller, request.path("delivery_id"), asked.claim, retry_in=asked.retry_in)
    return nothing()


async def extend(request: Request) -> Response:
    """POST /v1/inbox/{delivery_id}/extend"""
    request.query(NoQuery)
    asked = await request.document(ExtendRequest)
    until = await request.msh.extend(request.caller, request.path("delivery_id"), asked.claim, lease=asked.lease)
    return answer(Extended(until))
