"""POST one AS4 message to a partner, and small notifications to webhooks; GET service metadata.

The body is streamed from an iterator and never held; the answer is small and read whole.
Each partner has its own connections and its own TLS context, so that neither a client
certificate nor a slow server of one partner touches another's messages [threats M, stack 8.1].
Nothing that a connection could bring along is taken: no redirects, no cookies, no proxy
from the environment, no decompression of answers.

What happens within one POST, and until when, is in `exchange.py`.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from gateway import __version__
from gateway.errors import DeliveryDelayed, DeliveryRefused, SendFailed, SubmissionRefused
from gateway.transport.egress import EgressPolicy, Purpose, Target
from gateway.transport.exchange import Answer, Exchange, Response, Timeouts, lower, read, tracing
from gateway.transport.failures import explain
from gateway.transport.fetch import Fetch, Incoming, Take
from gateway.transport.handshake import objection

__all__ = ["Answer", "Client", "Incoming", "Timeouts", "default_context"]

SMALL_ANSWER_BYTES = 64 << 10
#: Partners with connections of their own at once. Beyond that the oldest idle ones make room: who is discovered
#: comes and goes, and nobody takes him out of an agreement.
MAX_POOLS = 512
#: An idle connection is given up before common servers do (Apache 5 s, Tomcat 20 s): a POST that
#: meets a closing one is lost and costs an attempt, because it must not be repeated silently.
KEEP_ALIVE = 4.0
USER_AGENT = f"oots-as4-gateway/{__version__}"

#: Whom we ask for documents, and what kind.
ASKED: dict[Purpose, tuple[str, str]] = {
    "smp": ("the publisher of metadata", "application/xml"),
    "issuer": ("the issuer of tokens", "application/jwk-set+json, application/json"),
    "revocation": ("who answers about certificates", "application/ocsp-response, application/pkix-crl, */*"),
}

#: A partner's name and the CA of its agreement, if it has one -> the context to use.
Contexts = Callable[[str, bytes | None], ssl.SSLContext]


async def look_up(host: str, port: int, family: int) -> list[tuple]:
    """What the system knows of a name, as `socket.getaddrinfo` has it."""
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)


class PinnedResolver(AbstractResolver):
    """Resolves once and lets through what the policy allows; the connector connects to just that."""

    def __init__(self, egress: EgressPolicy, purpose: Purpose, plain: bool) -> None:
        self._egress, self._purpose, self._plain = egress, purpose, plain

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises `SubmissionRefused` when one of the addresses is not allowed."""
        found = await look_up(host, port, family)
        self._egress.check_addresses((address[0] for *_, address in found), self._purpose, host, plain=self._plain)
        return [
            ResolveResult(
                hostname=host, host=address[0], port=port, family=kind, proto=proto, flags=socket.AI_NUMERICHOST
            )
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        return


class Client:
    """One a process. `tls` makes the context for a partner; it is asked again after `refresh`."""

    def __init__(
        self,
        egress: EgressPolicy,
        *,
        tls: Contexts | None = None,
        webhook_tls: ssl.SSLContext | None = None,
        timeouts: Timeouts | None = None,
        sockets: int = 8,
    ) -> None:
        self._egress, self._tls, self._webhook_tls = egress, tls or default_context, webhook_tls
        self._timeouts, self._sockets = timeouts or Timeouts(), sockets
        self._pools: dict[str, _Pool] = {}
        self._retiring: set[asyncio.Task] = set()
        self._webhooks: dict[bool, aiohttp.ClientSession] = {}

    async def post(
        self,
        endpoint: str,
        *,
        content_type: str,
        content_length: int,
        body: AsyncIterator[bytes],
        partner: str,
        ca: bytes | None = None,
        purpose: Purpose = "as4",
        more: Mapping[str, str] | None = None,
    ) -> Answer:
        """POST `body`, of exactly `content_length` bytes, and read the answer, whatever its status.

        `purpose` is `discovered` for an endpoint that no operator has written down; `more` are further
        header fields.

        Records the stages connect, send and receipt (waiting for the answer). Raises `SendFailed`
        with the stage it came to; an error that `body` raises passes through.
        """
        try:
            target = self._egress.check_url(endpoint, purpose)
        except SubmissionRefused as refused:
            whose = "of the agreement" if purpose == "as4" else "that was discovered"
            raise SendFailed(f"the endpoint {whose}: {refused}", stage="connect") from None
        pool = self._pool(partner, ca, plain=target.scheme == "http", purpose=purpose)
        async with pool.place(self._timeouts.idle, target.host) as session:
            exchange = Exchange(target.host, content_length, self._timeouts)
            headers = {
                "Content-Type": content_type,
                "Content-Length": str(content_length),
                "Accept-Encoding": "identity",
                **(more or {}),
            }
            try:
                return await exchange.run(session, _url(target), headers, body)
            finally:
                exchange.tell()

    async def objection(
        self, endpoint: str, *, partner: str, ca: bytes | None = None, patience: float = 3.0
    ) -> str | None:
        """What the server at `endpoint` has against our TLS, or we against its; None when nothing, or no TLS."""
        try:
            target = self._egress.check_url(endpoint, "as4")
            if target.scheme == "http":
                return None
            found = await PinnedResolver(self._egress, "as4", plain=False).resolve(target.host, target.port)
        except (SubmissionRefused, OSError):
            return None
        return await objection(target.host, found[0]["host"], target.port, self._tls(partner, ca), patience)

    async def fetch(
        self,
        endpoint: str,
        *,
        content_type: str,
        body: bytes,
        partner: str,
        take: Take,
        most: int,
        ca: bytes | None = None,
    ) -> Any:
        """POST the small `body` and give the answer, of `most` bytes at most, to `take` while it arrives.

        Returns what `take` returns and raises what it raises; `SendFailed` for what the
        connection does, before or in the middle of the answer.
        """
        try:
            target = self._egress.check_url(endpoint, "as4")
        except SubmissionRefused as refused:
            raise SendFailed(f"the endpoint of the agreement: {refused}", stage="connect") from None
        pool = self._pool(partner, ca, plain=target.scheme == "http")
        async with pool.place(self._timeouts.idle, target.host) as session:
            exchange = Fetch(target.host, len(body), self._timeouts, take=take, most=most)
            headers = {
                "Content-Type": content_type,
                "Content-Length": str(len(body)),
                "Accept-Encoding": "identity",
            }
            try:
                await exchange.run(session, _url(target), headers, _once(body))
            finally:
                exchange.tell()
        if exchange.refusal is not None:
            raise exchange.refusal
        return exchange.taken

    async def post_small(
        self,
        url: str,
        body: bytes,
        headers: dict[str, str],
        *,
        timeout: float = 20.0,
    ) -> tuple[int, dict[str, str], bytes]:
        """POST a notification to a webhook. At most 64 KiB of the answer are read.

        Raises `DeliveryRefused` for a URL the policy forbids, `DeliveryDelayed` for everything else.
        """
        try:
            target = self._egress.check_url(url, "webhook")
        except SubmissionRefused as refused:
            raise DeliveryRefused(str(refused)) from None
        try:
            async with (
                asyncio.timeout(timeout),
                self._webhook_session(plain=target.scheme == "http").post(
                    _url(target), data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                octets = await read(response, SMALL_ANSWER_BYTES)
                return response.status, lower(response.headers), octets[:SMALL_ANSWER_BYTES]
        except TimeoutError:
            raise DeliveryDelayed(f"{target.host}: no answer within {timeout:g} s") from None
        except SubmissionRefused as refused:  # by the resolver
            raise DeliveryDelayed(str(refused)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise DeliveryDelayed(explain(target.host, error)) from None

    async def get(
        self, url: str, *, most: int, timeout: float, ca: bytes | None = None, purpose: Purpose = "smp",
        post: tuple[str, bytes] | None = None,
    ) -> tuple[int, bytes]:  # fmt: skip
        """GET a document: service metadata, the keys of an issuer, a CRL; or POST a small question (`post`: its media
        type and body) whose answer is one: (status, body). Nothing is followed, nothing kept between two requests.

        Raises `SendFailed`: temporary for what may be better later, final for a URL that the policy
        forbids and a body of more than `most` bytes.
        """
        who, accept = ASKED[purpose]
        try:
            target = self._egress.check_url(url, purpose)
        except SubmissionRefused as refused:
            raise SendFailed(f"{who}: {refused}", temporary=False, stage="connect") from None
        context = None if target.scheme == "http" else default_context("", ca)
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        if post is not None:
            headers["Content-Type"] = post[0]
        try:
            async with (
                asyncio.timeout(timeout),
                self._session(purpose, context, 1) as session,
                session.request(
                    "GET" if post is None else "POST", _url(target), data=post and post[1], headers=headers,
                    allow_redirects=False,
                ) as response,
            ):
                if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise SendFailed(f"{target.host}: its answer is compressed", temporary=False, stage="receipt")
                octets = await read(response, most)
        except TimeoutError:
            raise SendFailed(f"{target.host}: no answer within {timeout:g} s", stage="connect") from None
        except SubmissionRefused as refused:  # by the resolver
            raise SendFailed(f"{who}: {refused}", temporary=False, stage="connect") from None
        except (aiohttp.ClientError, OSError) as error:
            raise SendFailed(explain(target.host, error), stage="connect") from None
        if len(octets) > most:
            raise SendFailed(f"{target.host}: its answer exceeds {most >> 10} KiB", temporary=False, stage="receipt")
        return response.status, octets

    def refresh(self) -> None:
        """Certificates have changed: new connections use new contexts, running exchanges end in peace."""
        for pool in self._pools.values():
            self._retire(pool)
        self._pools.clear()

    async def close(self) -> None:
        """Close everything; for the end of a process."""
        # Not `refresh`: a task that is cancelled before its first step closes nothing.
        for session in [*(pool.session for pool in self._pools.values()), *self._webhooks.values()]:
            await session.close()
        self._pools.clear()
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    def _pool(self, partner: str, ca: bytes | None, *, plain: bool, purpose: Purpose = "as4") -> "_Pool":
        terms = (ca, plain, purpose)
        pool = self._pools.get(partner)
        if pool is not None and pool.terms != terms:  # the agreement has changed
            self._retire(pool)
            pool = None
        if pool is None:
            self._make_room()
            session = self._session(purpose, None if plain else self._tls(partner, ca), self._sockets)
            pool = self._pools[partner] = _Pool(session, self._sockets, terms)
        return pool

    def _make_room(self) -> None:
        while len(self._pools) >= MAX_POOLS:
            idle = next((name for name, pool in self._pools.items() if pool.is_idle), None)
            if idle is None:
                return
            self._retire(self._pools.pop(idle))

    def _retire(self, pool: "_Pool") -> None:
        task = asyncio.get_running_loop().create_task(pool.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _webhook_session(self, *, plain: bool) -> aiohttp.ClientSession:
        if plain not in self._webhooks:
            context = None if plain else self._webhook_tls or default_context("", None)
            self._webhooks[plain] = self._session("webhook", context, 64)
        return self._webhooks[plain]

    def _session(self, purpose: Purpose, context: ssl.SSLContext | None, sockets: int) -> aiohttp.ClientSession:
        """Connections with `context`, or without TLS when there is none."""
        connector = aiohttp.TCPConnector(
            ssl=context or True,
            resolver=PinnedResolver(self._egress, purpose, plain=context is None),
            use_dns_cache=False,  # a partner that moves is found at the next connection
            limit=sockets,
            limit_per_host=8,
            keepalive_timeout=KEEP_ALIVE,
        )
        return aiohttp.ClientSession(
            connector=connector,
            response_class=Response,
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
            headers={"User-Agent": USER_AGENT},
            trace_configs=[tracing()],
            max_line_size=8190,
            max_field_size=8190,
            max_headers=100,
        )


def default_context(partner: str, ca: bytes | None) -> ssl.SSLContext:
    """Server certificates by `ca` (PEM or DER), or by the system's CAs; no client certificate."""
    if ca is None:
        context = ssl.create_default_context()
    else:
        context = ssl.create_default_context(cadata=ca.decode("ascii") if ca.startswith(b"-----") else ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.keylog_filename = None  # SSLKEYLOGFILE is not for us [threats J06]
    return context


#: The CA of a partner, whether it is spoken to without TLS, and who has named its endpoint.
_Terms = tuple[bytes | None, bool, Purpose]


class _Pool:
    """The connections to one partner: so many at once, and a queue before them."""

    def __init__(self, session: aiohttp.ClientSession, sockets: int, terms: _Terms) -> None:
        self.session, self.terms = session, terms
        self._gate = asyncio.Semaphore(sockets)
        self._users = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.asynccontextmanager
    async def place(self, patience: float, host: str) -> AsyncIterator[aiohttp.ClientSession]:
        """Room for one exchange. Raises `SendFailed` when there is none within `patience` seconds."""
        self._users += 1
        self._idle.clear()
        try:
            try:
                async with asyncio.timeout(patience):
                    await self._gate.acquire()
            except TimeoutError:
                raise SendFailed(f"{host}: all connections to this partner are busy", stage="wait") from None
            try:
                yield self.session
            finally:
                self._gate.release()
        finally:
            self._users -= 1
            if not self._users:
                self._idle.set()

    @property
    def is_idle(self) -> bool:
        return not self._users

    async def retire(self) -> None:
        try:
            await self._idle.wait()
        finally:
            await self.session.close()


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _url(target: Target) -> URL:
    # In our pieces and without another reading of it, so that nothing can differ from what was judged.
    return URL(target.origin + target.path, encoded=True)
