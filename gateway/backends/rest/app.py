"""The REST door: who may come in, where a request goes, and what becomes of an exception.

Order for every request: limits of the head, then the bearer token or the TLS client certificate, then
the path. So a stranger learns nothing but that a token is needed, and there is no way to switch that
off [threats K05]. The toolkit is used for routing and responses only; everything is
plain ASGI, and bodies are pulled, never collected (`body.py`).
"""

import asyncio
import contextlib
import logging
import re
import uuid
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.backends.rest import openapi
from gateway.backends.rest.body import Body
from gateway.backends.rest.documents import Version
from gateway.backends.rest.limits import HEADER_BYTES, HEADER_LINES, REQUEST_LINE, Places, RestOptions
from gateway.backends.rest.operations import OPERATIONS, Verb
from gateway.backends.rest.problems import Disconnected, Refused, catalogue, language_of, response, translate
from gateway.backends.rest.request import Request, answer
from gateway.backends.webhook import WebhookSender, next_delay
from gateway.plugin import Caller, Delivery, DeliveryDelayed, Event, Msh, NotFound, WebhookTarget
from gateway.stages import traceparent_of

log = logging.getLogger(__name__)
DISTRIBUTION = "oots-as4-gateway"
#: Tokens of ours are short; signed ones have one to two thousand characters.
TOKEN = re.compile(r"bearer +([A-Za-z0-9._~+/-]{1,8192}={0,2})", re.IGNORECASE)
#: On every answer: nothing here is for a browser's cache, frame or script.
SAFE = {
    b"cache-control": b"no-store",
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; sandbox",
    b"cross-origin-resource-policy": b"same-origin",
}


class RestBackend:
    """The plugin API over HTTP. Consumers pull from the inbox; events go out as signed webhooks."""

    name = "rest"
    pushes = False

    def __init__(self, msh: Msh, options: dict[str, Any] | None = None) -> None:
        """`options` is the table of the configuration. Raises `msgspec.ValidationError`."""
        settings = msgspec.convert(options or {}, RestOptions)
        self._door = Door(msh, settings)
        self._webhooks = WebhookSender(msh, settings.source)

    @property
    def asgi(self) -> ASGIApp:
        """The application for the plugin listener."""
        return self._door

    async def run(self) -> None:
        """There is none: callers come."""

    async def deliver(self, delivery: Delivery) -> None:
        """Consumers of this backend claim; nothing is pushed to them."""
        raise DeliveryDelayed("the REST backend is pulled: POST /v1/inbox/claim")

    async def notify(self, target: WebhookTarget, event: Event) -> int:
        """POST the event to the target. Raises `DeliveryDelayed` or `DeliveryRefused`."""
        return await self._webhooks.notify(target, event)

    def retry_in(self, attempt: int) -> float | None:
        """Seconds to wait after the failed attempt number `attempt` (from 1); None: park the job."""
        return next_delay(attempt)


class Door:
    """The ASGI application: head limits, authentication, routing, translation of errors."""

    def __init__(self, msh: Msh, options: RestOptions) -> None:
        self._msh, self._options = msh, options
        self._uploads = Places(options.uploads, "too-many-uploads")
        self._streams = Places(options.streams, "too-many-streams")
        self._version = _version()
        verbs: dict[str, dict[str, Verb]] = {}
        for operation in OPERATIONS:
            verbs.setdefault(operation.path, {})[operation.method] = operation.verb
        verbs |= {
            "/v1/version": {"GET": self._tell_version},
            "/openapi.json": {"GET": self._describe},
            "/v1/openapi.json": {"GET": self._describe},
            "/problems/{slug}": {"GET": self._explain},
        }
        routes = [Route(path, _Resource(table, self)) for path, table in verbs.items()]
        self._router = Router(routes, redirect_slashes=False, default=_nowhere)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._router(scope, receive, send)  # lifespan; a websocket is closed
            return
        headers = Headers(scope=scope)
        body = Body(receive, self._options)
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                present = {name.lower() for name, _ in message["headers"]}
                extra = [(name, value) for name, value in SAFE.items() if name not in present]
                message = {**message, "headers": [*message["headers"], *extra]}
            # A caller that does not read holds a database cursor; it gets the time a slow sender gets.
            allowed = self._options.grace + len(message.get("body", b"")) / self._options.rate
            async with asyncio.timeout(allowed):
                await send(message)

        try:
            check_head(scope, headers)
            scope["gateway.caller"] = await self._authenticate(scope, headers)
            scope["gateway.again"] = partial(self._authenticate, scope, headers)
            scope["gateway.body"] = body
            await self._router(scope, receive, guarded)
        except (Disconnected, ClientDisconnect):
            return
        except Exception as error:
            refused = translate(error)
            trace_id = trace_id_of(headers.get("traceparent", ""))
            if refused.slug == "internal-error" or started:
                log.exception("request failed, trace_id %s", trace_id)
            if started:
                raise  # the answer is half sent: let the server break the connection, so that it shows
            await body.drain()
            language = language_of(headers.get("accept-language", ""))
            await response(refused, language, trace_id)(scope, receive, guarded)

    async def _authenticate(self, scope: Scope, headers: Headers) -> Caller:
        """By the bearer token; without one by the certificate of the TLS connection."""
        given = headers.getlist("authorization")
        token = TOKEN.fullmatch(given[0]) if len(given) == 1 else None
        certificate = ((scope.get("state") or {}).get("tls") or {}).get("peer_der")
        with contextlib.suppress(NotFound):
            if token is not None:
                return await self._msh.authenticate(token[1], certificate=certificate)
            if not given and certificate is not None:
                return await self._msh.authenticate_certificate(certificate)
        challenge = 'Bearer realm="gateway"' + (', error="invalid_token"' if given else "")
        raise Refused("unauthorized", headers={"WWW-Authenticate": challenge})

    async def run(self, verb: Verb, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of an authenticated caller."""
        request = Request(
            scope, scope["gateway.body"], caller=scope["gateway.caller"],
            msh=self._msh, options=self._options, uploads=self._uploads,
            streams=self._streams, again=scope["gateway.again"],
        )  # fmt: skip
        reply = await verb(request)
        await reply(scope, receive, send)

    async def _tell_version(self, request: Request) -> Response:
        return answer(Version(product=DISTRIBUTION, version=self._version, api="v1"))

    async def _describe(self, request: Request) -> Response:
        return answer(_openapi(self._version))

    async def _explain(self, request: Request) -> Response:
        return answer(catalogue(request.path("slug")))


class _Resource:
    """The methods of one path, as an ASGI application."""

    def __init__(self, verbs: dict[str, Verb], door: Door) -> None:
        self._verbs, self._door = verbs, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        verb = self._verbs.get(method)
        if verb is None:
            allow = sorted(self._verbs) + (["HEAD"] if "GET" in self._verbs else [])
            raise Refused("method-not-allowed", headers={"Allow": ", ".join(allow)})
        await self._door.run(verb, scope, receive, send)


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    raise NotFound


def check_head(scope: Scope, headers: Headers) -> None:
    """Refuse what the HTTP server let through [threats H02, H04, H05; stack 4.2 no. 8]. Raises `Refused`."""
    if len(scope["headers"]) > HEADER_LINES or sum(len(n) + len(v) + 4 for n, v in scope["headers"]) > HEADER_BYTES:
        raise Refused("headers-too-large")
    if len(scope.get("raw_path") or scope["path"].encode()) + len(scope.get("query_string", b"")) > REQUEST_LINE:
        raise Refused("uri-too-long")
    lengths, codings = headers.getlist("content-length"), headers.getlist("transfer-encoding")
    if len(lengths) + len(codings) > 1 or any(not re.fullmatch(r"[0-9]{1,18}", length) for length in lengths):
        raise Refused("bad-request")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused("unsupported-media-type")


def trace_id_of(traceparent: str) -> str:
    """The trace id of a W3C traceparent header, or a new one [trace-context 3.2]."""
    given = traceparent_of(traceparent)
    return given.split("-")[1] if given else uuid.uuid4().hex


@cache
def _openapi(version: str) -> dict[str, Any]:
    """Made when somebody asks: it takes as long as starting all the rest."""
    return openapi.document(OPERATIONS, version)


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # run from a source tree that nobody installed
        return "0"
