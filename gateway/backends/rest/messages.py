"""Submit messages and read about them: /v1/messages."""

import asyncio
import re
from collections.abc import AsyncIterator
from urllib.parse import quote, urlencode

import msgspec
from starlette.responses import Response

from gateway.backends.rest.documents import (
    InlineSubmission,
    ListQuery,
    MessagePage,
    MessageQuery,
    NoQuery,
    SubmissionMeta,
    SubmitQuery,
    Timeline,
)
from gateway.backends.rest.multipart import FormReader
from gateway.backends.rest.problems import Finding, Refused
from gateway.backends.rest.request import Request, answer, decode
from gateway.plugin import MessageFilter, MessageView, Submission, Submitted

FINAL = frozenset({"ACKNOWLEDGED", "FAILED", "CANCELLED", "PURGED"})
#: How often a waiting request looks: soon at first, since a receipt takes 20 ms, then once a second.
FIRST_LOOK, LAST_LOOK, GROWTH = 0.02, 1.0, 1.6


async def submit(request: Request) -> Response:
    """POST /v1/messages: 202 with Location, or 200 with the final state when `wait` saw it."""
    wait = request.query(SubmitQuery).wait
    key = _idempotency_key(request)
    with request.uploads.slot(request.caller.id):
        match request.media_type:
            case "multipart/form-data":
                submitted = await _submit_form(request, key)
            case "application/json":
                submitted = await _submit_json(request, key)
            case _:
                raise Refused("unsupported-media-type")
    headers = {"Location": f"{request.prefix}/v1/messages/{quote(submitted.id)}"}
    if submitted.replayed:
        headers["Idempotent-Replayed"] = "true"
    if wait:
        view = await settled(request, submitted.id, wait)
        if view.state in FINAL:
            return answer(view, 200, headers)
    return answer(submitted, 202, headers)


async def _submit_form(request: Request, key: str | None) -> Submitted:
    form = FormReader(request.headers["content-type"], request.body)
    octets = await form.meta(request.options.meta_bytes)
    _repeatable(decode(octets, SubmissionMeta), key)
    # Read a second time as the plain plugin type: Structs compare by their exact type.
    submission = decode(octets, Submission)
    await form.expect(submission.parts)
    return await request.msh.submit(request.caller, submission, form.content, idempotency_key=key)


async def _submit_json(request: Request, key: str | None) -> Submitted:
    octets = await request.body.whole(request.options.json_bytes)
    inline = decode(octets, InlineSubmission)
    _repeatable(inline, key)
    contents = [part.content for part in inline.parts]
    if sum(map(len, contents)) > request.options.inline_bytes:
        raise Refused("body-too-large")

    async def content(number: int) -> AsyncIterator[bytes]:
        if contents[number]:
            yield contents[number]

    return await request.msh.submit(request.caller, decode(octets, Submission), content, idempotency_key=key)


def _idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key: a quoted string as the draft has it, or bare as most clients send it."""
    value = request.single("idempotency-key")
    if value is None:
        return None
    key = re.fullmatch(r'(?P<quote>"?)([!#-\[\]-~]{1,255})(?P=quote)', value)
    if key is None:
        finding = Finding("#", "Idempotency-Key must be 1 to 255 visible ASCII characters")
        raise Refused("invalid-parameter", errors=(finding,))
    return key[2]


def _repeatable(submission: SubmissionMeta, key: str | None) -> None:
    # Without either, a producer that lost our answer could only send twice or not at all.
    if key is None and submission.message_id is None:
        raise Refused("idempotency-key-missing")


async def settled(request: Request, id: str, seconds: float) -> MessageView:
    """The message once an outbound one is final, or as it is after `seconds`."""
    loop = asyncio.get_running_loop()
    end, pause = loop.time() + seconds, FIRST_LOOK
    while True:
        view = await request.msh.message(request.caller, id)
        left = end - loop.time()
        if view.direction != "outbound" or view.state in FINAL or left <= 0:
            return view
        await asyncio.sleep(min(pause, left))
        pause = min(pause * GROWTH, LAST_LOOK)


async def one(request: Request) -> Response:
    """GET /v1/messages/{id}"""
    wait = request.query(MessageQuery).wait
    return answer(await settled(request, request.path("id"), wait))


async def several(request: Request) -> Response:
    """GET /v1/messages: newest first, in pages; `Link: rel=next` names the next."""
    asked = request.query(ListQuery)
    wanted = MessageFilter(**msgspec.structs.asdict(asked))
    messages, after = await request.msh.messages(request.caller, wanted)
    headers = {}
    if after is not None:
        query = {k: v for k, v in msgspec.structs.asdict(asked).items() if v is not None} | {"after": after}
        headers["Link"] = f'<{request.prefix}/v1/messages?{urlencode(query)}>; rel="next"'
    return answer(MessagePage(messages=messages, next=after), headers=headers)


async def events(request: Request) -> Response:
    """GET /v1/messages/{id}/events"""
    request.query(NoQuery)
    return answer(Timeline(await request.msh.trace(request.caller, request.path("id"))))
