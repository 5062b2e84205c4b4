"""Say where events go: /v1/webhooks. Sending them is `backends/webhook.py`."""

from urllib.parse import quote

from starlette.responses import Response

from gateway.backends.rest.documents import NoQuery, WebhookList, WebhookRequest
from gateway.backends.rest.request import Request, answer, nothing


async def add(request: Request) -> Response:
    """POST /v1/webhooks: the answer holds the secret, once."""
    request.query(NoQuery)
    asked = await request.document(WebhookRequest)
    target = await request.msh.add_webhook(request.caller, asked.url, asked.events)
    return answer(target, 201, {"Location": f"{request.prefix}/v1/webhooks/{quote(target.id)}"})


async def several(request: Request) -> Response:
    """GET /v1/webhooks"""
    request.query(NoQuery)
    return answer(WebhookList(await request.msh.webhooks(request.caller)))


async def remove(request: Request) -> Response:
    """DELETE /v1/webhooks/{id}"""
    request.query(NoQuery)
    await request.msh.remove_webhook(request.caller, request.path("id"))
    return nothing()
