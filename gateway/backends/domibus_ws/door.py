"""The SOAP door over HTTP.

    /services/wsplugin, /domibus/services/wsplugin    the WS plugin, and any path below
    /services/backend,  /domibus/services/backend     the old interface
    GET …?wsdl                                        the contract

Basic authentication, a TLS client certificate, or a bearer token; there is no way to
switch that off. A retrieved message is taken over when its answer has been written whole:
a connection that breaks before gives it back, so that a lost answer is no lost evidence.
"""

import asyncio
import base64
import binascii
import contextlib
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.backends.domibus_ws import faults, writing
from gateway.backends.domibus_ws.faults import Fault, Undeclared
from gateway.backends.domibus_ws.mtom import Related
from gateway.backends.domibus_ws.names import OLD, PLUGIN
from gateway.backends.domibus_ws.operations import (
    OLD_OPERATIONS,
    OPERATIONS,
    Answer,
    Options,
    Request,
    Retrieved,
)
from gateway.backends.domibus_ws.reading import Malformed
from gateway.backends.domibus_ws.transfer import Unsupported, read
from gateway.backends.domibus_ws.wsdl import wsdl
from gateway.backends.rest.body import Body
from gateway.backends.rest.limits import Places, RestOptions
from gateway.backends.rest.problems import Disconnected, Refused
from gateway.plugin import (
    Caller,
    ClaimLost,
    Delivery,
    DeliveryDelayed,
    Event,
    GatewayError,
    Msh,
    NotFound,
    Overloaded,
    StoreUnavailable,
    TooLarge,
    WebhookTarget,
)

log = logging.getLogger(__name__)
PATHS = ("/services/wsplugin", "/domibus/services/wsplugin")
OLD_PATHS = ("/services/backend", "/domibus/services/backend")
UNAUTHENTICATED = "There is no valid authentication in this request and unsecure login is not allowed."
CHALLENGE = {"WWW-Authenticate": 'Basic realm="gateway", charset="UTF-8"'}
#: A claim that is being written out is prolonged this often.
KEEP = 60.0


class DomibusWsBackend:
    """What clients of the Domibus WS plugin speak. They ask; nothing is pushed."""

    name = "domibus_ws"
    pushes = False

    def __init__(self, msh: Msh, options: dict[str, Any] | None = None) -> None:
        """`options` is the table of the configuration. Raises `msgspec.ValidationError`."""
        self._door = Door(msh, msgspec.convert(options or {}, Options))

    @property
    def asgi(self) -> ASGIApp:
        return self._door

    async def run(self) -> None:
        """There is none: callers come."""

    async def deliver(self, delivery: Delivery) -> None:
        raise DeliveryDelayed("clients of the WS plugin retrieve their messages")

    async def notify(self, target: WebhookTarget, event: Event) -> None:
        raise DeliveryDelayed("the WS plugin has no webhooks")

    def retry_in(self, attempt: int) -> float | None:
        return None


class Door:
    """The ASGI application."""

    def __init__(self, msh: Msh, options: Options) -> None:
        self._msh, self._options = msh, options
        self._body = RestOptions(grace=options.grace, rate=options.rate)
        self._requests = Places(options.requests, "too-many-uploads")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, headers = scope["path"], Headers(scope=scope)
        old = any(path == p or path.startswith(p + "/") for p in OLD_PATHS)
        if scope["method"] in ("GET", "HEAD"):
            await self._get(scope, headers, send, old)
            return
        if scope["method"] != "POST":
            await answer(send, 405, b"", headers={"Allow": "POST"})
            return
        body = Body(receive, self._body)
        namespace = OLD if old else PLUGIN
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            started = True
            # A client that does not read holds what it is given; it gets the time a slow sender gets.
            allowed = self._options.grace + len(message.get("body", b"")) / self._options.rate
            async with asyncio.timeout(allowed):
                await send(message)

        try:
            caller = await self._authenticate(scope, headers)
            done = await self._done(caller, headers, body, OLD_OPERATIONS if old else OPERATIONS, namespace)
            if isinstance(done, Retrieved):
                await self._hand_out(caller, done, receive, guarded, namespace)
            else:
                await answer(guarded, 200, done)
        except Disconnected:
            return
        except Exception as error:
            if started:
                raise  # the answer is half sent: let the server break the connection, so that it shows
            status, octets, more = _translated(error, namespace)
            await body.drain()
            await answer(guarded, status, octets, headers=more)

    async def _get(self, scope: Scope, headers: Headers, send: Send, old: bool) -> None:
        if b"wsdl" not in scope.get("query_string", b"").lower().split(b"&"):
            await answer(send, 405, b"", headers={"Allow": "POST"})
            return
        # For everybody: clients read it when they start, before they say who they are. It tells what this file does.
        host = headers.get("host", "localhost")
        text = wsdl("old" if old else "current", location=f"{scope.get('scheme', 'http')}://{host}{scope['path']}")
        await answer(send, 200, text.encode(), content_type="text/xml;charset=UTF-8")

    async def _authenticate(self, scope: Scope, headers: Headers) -> Caller:
        """Raises `Undeclared`."""
        given = headers.getlist("authorization")
        scheme, _, value = (given[0] if len(given) == 1 else "").partition(" ")
        der = ((scope.get("state") or {}).get("tls") or {}).get("peer_der")
        try:
            if scheme.lower() == "basic":
                login, password = _basic(value)
                return await self._msh.authenticate_password(login, password)
            if scheme.lower() == "bearer":
                return await self._msh.authenticate(value.strip(), certificate=der)
            if der is not None and not given:
                return await self._msh.authenticate_certificate(der)
        except NotFound:
            pass
        raise Undeclared(UNAUTHENTICATED, headers=CHALLENGE)

    async def _done(self, caller: Caller, headers: Headers, body: Body, operations, namespace: str) -> Answer:
        """Read a request and carry it out."""
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Unsupported
        with self._requests.slot(caller.id):
            return await self._carried_out(caller, headers, body, operations, namespace)

    async def _carried_out(self, caller: Caller, headers: Headers, body: Body, operations, namespace: str) -> Answer:
        async with self._msh.hold(caller) as held:
            envelope, attachments = await read(headers.get("content-type", ""), body, held)
            verb = operations.get(envelope.operation.name) if envelope.operation.namespace == namespace else None
            if verb is None:
                raise Undeclared(f"There is no operation {envelope.operation.name[:64]}", sender=True)
            return await verb(Request(caller, self._msh, self._options, envelope, attachments, held))

    async def _hand_out(self, caller: Caller, done: Retrieved, receive: Receive, send: Send, namespace: str) -> None:
        """Write a message out; then it has been taken over."""
        # The server does not say that nobody reads any more when something is sent, only here.
        gone = asyncio.create_task(receive())
        keeper = asyncio.create_task(self._keep(caller, done.delivery)) if done.delivery else None
        try:
            contents = [
                (part, (await self._msh.payload(caller, done.message.id, part.cid))[1]) for part in done.message.parts
            ]
            if self._options.mtom:
                related = Related(contents, partial(writing.retrieved_beside, done.message, namespace))
                await stream(send, related.blocks(), related.content_type, gone)
            else:
                await stream(send, writing.retrieved(done.message, contents, namespace), writing.TYPE, gone)
            if done.delivery is not None:
                await self._msh.ack(caller, done.delivery.delivery_id, done.delivery.claim)
        except NotFound:
            raise faults.not_found(done.message.message_id) from None
        except BaseException:
            if done.delivery is not None:
                with contextlib.suppress(GatewayError):
                    await asyncio.shield(self._msh.nack(caller, done.delivery.delivery_id, done.delivery.claim))
            raise
        finally:
            gone.cancel()
            if keeper is not None:
                keeper.cancel()

    async def _keep(self, caller: Caller, delivery: Delivery) -> None:
        while True:
            await asyncio.sleep(KEEP)
            try:
                await self._msh.extend(caller, delivery.delivery_id, delivery.claim, lease=5 * KEEP)
            except ClaimLost:
                return
            except GatewayError:
                continue


def _translated(error: Exception, namespace: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, fault and headers that an error becomes at this edge."""
    match error:
        case Fault():
            return 500, writing.fault(error.reason, code=error.code, message=error.message, namespace=namespace), {}
        case Undeclared():
            return error.status, writing.fault(error.reason, sender=error.sender), error.headers
        case Malformed():
            return 500, writing.fault(str(error), sender=True), {}
        case Unsupported():
            return 415, writing.fault("Send application/soap+xml or multipart/related", sender=True), {}
        case Refused() if error.slug == "too-many-uploads":
            return 503, writing.fault("This client has too many requests under way"), error.headers
        case Refused():  # the body came too slowly
            return 408, writing.fault("The request could not be read", sender=True), error.headers
        case TooLarge():
            return 500, writing.fault(error.detail, sender=True), {}
        case GatewayError() if error.temporary or isinstance(error, StoreUnavailable | Overloaded):
            return 503, writing.fault("The gateway cannot take this now"), {"Retry-After": "5"}
        case _:
            log.exception("request failed")
            return 500, writing.fault("The gateway could not do this"), {}


def _basic(value: str) -> tuple[str, str]:
    """Login and password [rfc7617 2]. Raises `NotFound`."""
    try:
        login, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise NotFound from None
    if not colon:
        raise NotFound
    return login, password


async def answer(
    send: Send, status: int, octets: bytes, *, headers: dict[str, str] | None = None, content_type: str = writing.TYPE
) -> None:
    found = {"Content-Length": str(len(octets)), "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if octets:
        found["Content-Type"] = content_type
    await send({"type": "http.response.start", "status": status, "headers": _raw(found | (headers or {}))})
    await send({"type": "http.response.body", "body": octets})


async def stream(send: Send, blocks: AsyncIterator[bytes], content_type: str, gone: asyncio.Task) -> None:
    """Send an answer as it is made. Raises `Disconnected` when the client has left before its end."""
    headers = _raw({"Content-Type": content_type, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for block in blocks:
        await send({"type": "http.response.body", "body": block, "more_body": True})
        if gone.done():
            raise Disconnected
    await asyncio.sleep(0)
    if gone.done():
        raise Disconnected
    await send({"type": "http.response.body", "body": b""})


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
