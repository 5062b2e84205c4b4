"""Submit messages and read about them: /v1/messages."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import quote

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
from gateway.backends.rest.request import Request, answer, decode, idempotency_key, moments, next_link
from gateway.plugin import Content, MessageFilter, MessageView, NotFound, Submission
from gateway.stages import trace, traceparent_of

FINAL = frozenset({"ACKNOWLEDGED", "FAILED", "CANCELLED", "PURGED"})
#: How often a waiting request looks: soon at first, since a receipt takes 20 ms, then once a second.
FIRST_LOOK, LAST_LOOK, GROWTH = 0.02, 1.0, 1.6


async def submit(request: Request) -> Response:
    """POST /v1/messages: 202 with Location, or 200 with the final state when `wait` saw it."""
    wait = request.query(SubmitQuery).wait
    key = idempotency_key(request)
    # Of a header that is not one nothing is told: a trace is never worth refusing a message.
    trace.set(traceparent_of(request.headers.get("traceparent", "")))
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
    await _check_uploads(request, meta)
    fields = [number for number, part in enumerate(meta.parts) if part.upload is None]
    await form.expect([submission.parts[number] for number in fields])
    places = {number: place for place, number in enumerate(fields)}
    return meta, submission, _either(request, meta, lambda number: form.content(places[number]))


async def _inline(request: Request) -> tuple[SubmissionMeta, Submission, Content]:
    octets = await request.body.whole(request.options.json_bytes)
    inline = decode(octets, InlineSubmission)
    for number, part in enumerate(inline.parts):
        if (part.content is None) == (part.upload is None):
            place = Place(f"#/parts/{number}", "give either content or upload")
            raise Refused("invalid-document", errors=(place,))
    if sum(len(part.content or b"") for part in inline.parts) > request.options.inline_bytes:
        raise Refused("body-too-large")
    await _check_uploads(request, inline)

    async def content(number: int) -> AsyncIterator[bytes]:
        if inline.parts[number].content:
            yield inline.parts[number].content

    return inline, decode(octets, Submission), _either(request, inline, content)


async def _check_uploads(request: Request, meta: SubmissionMeta) -> None:
    """Whether every upload that is named is there, whole, before anything else is read. Raises `Refused`."""
    for number, part in enumerate(meta.parts):
        if part.upload is None:
            continue
        try:
            view = await request.msh.upload(request.caller, part.upload)
        except NotFound:
            place = Place(f"#/parts/{number}/upload", "there is no such upload, or its time is over")
            raise Refused("invalid-document", errors=(place,)) from None
        if not view.complete:
            place = Place(f"#/parts/{number}/upload", f"{view.received} of {view.size} bytes are there")
            raise Refused("upload-incomplete", errors=(place,))


def _either(request: Request, meta: SubmissionMeta, sent: Content) -> Content:
    """The content of each part: an upload where one is named, else what was sent with the request."""

    async def content(number: int) -> AsyncIterator[bytes]:
        id = meta.parts[number].upload
        blocks = sent(number) if id is None else await request.msh.upload_content(request.caller, id)
        async for block in blocks:
            yield block

    return content


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
    wanted = MessageFilter(**moments(asked, "since", "until"))
    messages, after = await request.msh.messages(request.caller, wanted)
    headers = next_link(request, "/v1/messages", asked, after)
    return answer(MessagePage(messages=messages, next=after), headers=headers)


async def events(request: Request) -> Response:
    """GET /v1/messages/{id}/events"""
    request.query(NoQuery)
    return answer(Timeline(await request.msh.trace(request.caller, request.path("id"))))
