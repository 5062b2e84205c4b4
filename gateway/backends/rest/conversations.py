"""Follow what belongs together: /v1/conversations."""

from urllib.parse import quote

from starlette.responses import Response

from gateway.backends.rest.documents import ConversationPage, ConversationQuery, MessagePage, PageQuery
from gateway.backends.rest.request import Request, answer, next_link
from gateway.plugin import MessageFilter, NotFound


async def several(request: Request) -> Response:
    """GET /v1/conversations: the one with the newest message first."""
    asked = request.query(PageQuery)
    found, after = await request.msh.conversations(request.caller, after=asked.after, limit=asked.limit)
    headers = next_link(request, "/v1/conversations", asked, after)
    return answer(ConversationPage(conversations=found, next=after), headers=headers)


async def one(request: Request) -> Response:
    """GET /v1/conversations/{id}: its messages, oldest first."""
    asked, id = request.query(ConversationQuery), request.path("id")
    wanted = MessageFilter(conversation_id=id, upwards=True, after=asked.after, limit=asked.limit)
    messages, after = await request.msh.messages(request.caller, wanted)
    if not messages and asked.after is None:
        raise NotFound
    headers = next_link(request, f"/v1/conversations/{quote(id, safe='')}", asked, after)
    return answer(MessagePage(messages=messages, next=after), headers=headers)
