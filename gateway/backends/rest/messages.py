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
from gateway.backends.rest.problems import Place, Refused
from gateway.backends.rest.request import Request, answer, decode
from gateway.plugin import Content, MessageFilter, MessageView, Submission

FINAL = frozenset({"ACKNOWLEDGED", "FAILED", "CANCELLED", "PURGED"})
#: How often a waiting request looks: soon at first, since a receipt takes 20 ms, then once a second.
FIRST_LOOK, LAST_LOOK, GROWTH = 0.02, 1.0, 1.6


async def submit(request: Request) -> Response:
    """POST /v1/messages: 202 with Location, or 200 with the final state when `wait` saw it."""
    wait = request.query(SubmitQuery).wait
    key = _idempotency_key(request)
    with request.uploads.slot(request.caller.id):
        meta, submission, content = await _submission(request)
        if key is None and meta.message_id is None:
            # Without either, a producer that lost our answer could only send twice or not at all.
            raise Refused("idempotency-key-missing")
        submitted = await request.msh.submit(request.caller, submission, content, idempotency_key=key)
    headers = {"Location": f"{request.prefix}/v1/messages/{quote(submitted.id)}"}
    if submitted.replayed:
        headers["Idempotent-Replayed"] = "true"
    if wait:
        view = await settled(request, submitted.id, wait)
        if view.state in FINAL:
            return answer(view, 200, headers)
    return answer(submitted, 202, headers)


async def validate(request: Request) -> Response:
    """POST /v1/messages:validate: what `submit` would make of the same body, with nothing stored."""
    request.query(NoQuery)
    with request.uploads.slot(request.caller.id):
        _, submission, content = await _submission(request)
        return answer(await request.msh.validate(request.caller, submission, content))


async def _submission(request: Request) -> tuple[SubmissionMeta, Submission, Content]:
    """The body as a submission in either form: as it was written, as the plugin API wants it, and its payloads."""
    match request.media_type:
        case "multipart/form-data":
            return await _form(request)
        case "application/json":
            return await _inline(request)
        case _:
            raise Refused("unsupported-media-type")


async def _form(request: Request) -> tuple[SubmissionMeta, Submission, Content]:
    form = FormReader(request.headers["content-type"], request.body)
    octets = await form.meta(request.options.meta_bytes)
    meta = decode(octets, SubmissionMeta)
    # Read a second time as the plain plugin type: Structs compare by their exact type.
    submission = decode(octets, Submission)
    await form.expect(submission.parts)
    return meta, submission, form.content


async def _inline(request: Request) -> tuple[SubmissionMeta, Submission, Content]:
    octets = await request.body.whole(request.options.json_bytes)
    inline = decode(octets, InlineSubmission)
    contents = [part.content for part in inline.parts]
    if sum(map(len, contents)) > request.options.inline_bytes:
        raise Refused("body-too-large")

    async def content(number: int) -> AsyncIterator[bytes]:
        if contents[number]:
            yield contents[number]

    return inline, decode(octets, Submission), content


def _idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key: a quoted string as the draft has it, or bare as most clients send it."""
    value = request.single("idempotency-key")
    if value is None:
        return None
    key = re.fullmatch(r'(?P<quote>"?)([!#-\[\]-~]{1,255})(?P=quote)', value)
    if key is None:
        place = Place("#", "Idempotency-Key must be 1 to 255 visible ASCII characters")
        raise Refused("invalid-parameter", errors=(place,))
    return key[2]


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
