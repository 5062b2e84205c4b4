"""Say where events go, and look at what became of them: /v1/webhooks. Sending them is `backends/webhook.py`."""

import asyncio
import time
from urllib.parse import quote

from starlette.responses import Response

from gateway.backends.rest.documents import (
    DeliveryQuery,
    NoQuery,
    RotateRequest,
    TestQuery,
    WebhookList,
    WebhookPatch,
    WebhookReplacement,
    WebhookRequest,
)
from gateway.backends.rest.problems import Refused
from gateway.backends.rest.request import Request, answer, idempotency_key, nothing
from gateway.plugin import NotPossible, QuotaReached

#: How often a waiting test looks for its outcome.
LOOK = 0.1


async def add(request: Request) -> Response:
    """POST /v1/webhooks: the answer holds the secret, once."""
    request.query(NoQuery)
    key, asked = idempotency_key(request), await request.document(WebhookRequest)
    try:
        target = await request.msh.add_webhook(
            request.caller, asked.url, asked.events, signature=asked.signature, idempotency_key=key
        )
    except QuotaReached as error:
        raise Refused("too-many-webhooks", error.detail) from None
    return answer(target, 201, {"Location": f"{request.prefix}/v1/webhooks/{quote(target.id)}"})


async def several(request: Request) -> Response:
    """GET /v1/webhooks"""
    request.query(NoQuery)
    return answer(WebhookList(await request.msh.webhooks(request.caller)))


async def one(request: Request) -> Response:
    """GET /v1/webhooks/{id}"""
    request.query(NoQuery)
    return answer(await request.msh.webhook(request.caller, request.path("id")))


async def replace(request: Request) -> Response:
    """PUT /v1/webhooks/{id}"""
    request.query(NoQuery)
    asked = await request.document(WebhookReplacement)
    return answer(
        await request.msh.change_webhook(
            request.caller, request.path("id"), url=asked.url, events=asked.events, enabled=asked.enabled
        )
    )


async def change(request: Request) -> Response:
    """PATCH /v1/webhooks/{id}"""
    request.query(NoQuery)
    asked = await request.document(WebhookPatch)
    return answer(
        await request.msh.change_webhook(
            request.caller, request.path("id"), url=asked.url, events=asked.events, enabled=asked.enabled
        )
    )


async def rotate(request: Request) -> Response:
    """POST /v1/webhooks/{id}/rotate: the answer holds the new secret, once."""
    request.query(NoQuery)
    asked = await request.document(RotateRequest)
    try:
        return answer(await request.msh.rotate_webhook(request.caller, request.path("id"), overlap=asked.overlap))
    except NotPossible as error:
        raise Refused("delivery-running", error.detail) from None


async def test(request: Request) -> Response:
    """POST /v1/webhooks/{id}/test"""
    end = time.monotonic() + request.query(TestQuery).wait
    id = request.path("id")
    found = await request.msh.test_webhook(request.caller, id)
    while found.state == "waiting" and (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(LOOK, left))
        found = await request.msh.webhook_delivery(request.caller, id, found.id)
    return answer(found, 202, {"Location": f"{request.prefix}/v1/webhooks/{quote(id)}/deliveries/{found.id}"})


async def deliveries(request: Request) -> Response:
    """GET /v1/webhooks/{id}/deliveries"""
    asked = request.query(DeliveryQuery)
    return answer(
        await request.msh.webhook_deliveries(
            request.caller, request.path("id"), state=asked.state, after=asked.after, limit=asked.limit
        )
    )


async def delivery(request: Request) -> Response:
    """GET /v1/webhooks/{id}/deliveries/{delivery_id}"""
    request.query(NoQuery)
    return answer(await request.msh.webhook_delivery(request.caller, request.path("id"), request.path("delivery_id")))


async def replay(request: Request) -> Response:
    """POST /v1/webhooks/{id}/deliveries/{delivery_id}/replay"""
    request.query(NoQuery)
    try:
        found = await request.msh.replay_webhook(request.caller, request.path("id"), request.path("delivery_id"))
    except NotPossible as error:
        raise Refused("delivery-running", error.detail) from None
    return answer(found, 202)


async def remove(request: Request) -> Response:
    """DELETE /v1/webhooks/{id}"""
    request.query(NoQuery)
    await request.msh.remove_webhook(request.caller, request.path("id"))
    return nothing()
