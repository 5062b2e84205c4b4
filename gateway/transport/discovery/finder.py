"""Look a partner up: locator, publisher, signature, endpoint; once for all that ask at the same time.

What was found is remembered for `ttl`; that something does not exist for `negative_ttl`; that nobody
answered for `FAILED_TTL`. Where nobody answers, what was known goes on being used for `stale`: a publisher
that is down must not stop a partner that is up. What was refused (no signature, another signer, another
participant) is no such case and forgets what was known.

Every answer is bounded in size and time, every look-up as a whole, and so is the number that run at once.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from cryptography import x509
from msgspec import Struct

from gateway import log
from gateway.as4.pmode import Discovery
from gateway.as4.wss.algorithms import UNREADABLE
from gateway.as4.wss.names import same_name
from gateway.clock import Clock
from gateway.config import Discovery as Settings
from gateway.errors import DiscoveryFailed, SendFailed
from gateway.transport.client import Client
from gateway.transport.discovery.bdxl import Locator
from gateway.transport.discovery.dsig import verified
from gateway.transport.discovery.smp import Found, Query, Redirect, metadata_url, read, redirected

#: Service metadata has some 5 kB. Inclusive C14N is bounded by this and by the number of namespaces.
MAX_METADATA = 256 << 10
#: That nobody answered is remembered only so that a queue of messages does not ask a thousand times.
FAILED_TTL = 5.0
#: What is known is not asked for again sooner than this, whoever wants it fresh.
FRESH = 30.0
#: Look-ups of one process at once.
MAX_RUNNING = 16

#: Whether a publisher is trusted: its certificate, those beside it, what the agreement says. Raises
#: `CertificateRefused`.
Judge = Callable[[bytes, Sequence[bytes], Discovery], None]


class _Known(Struct, frozen=True):
    """The outcome of look-ups: when the last one ended, when `found` was last confirmed (monotonic)."""

    asked: float
    found: Found | None = None
    confirmed: float = 0.0
    failure: DiscoveryFailed | None = None


class Finder:
    """One a process. `run` carries a function out where it does not hold up the loop."""

    def __init__(
        self, client: Client, judge: Judge, clock: Clock, settings: Settings, *,
        run: Callable[..., Awaitable] = asyncio.to_thread,
    ) -> None:  # fmt: skip
        self._client, self._judge, self._clock, self._settings, self._run = client, judge, clock, settings, run
        self._locator = Locator(settings.dns_servers, float(settings.dns_timeout))
        self._known: OrderedDict[tuple[Discovery, Query], _Known] = OrderedDict()
        self._running: dict[tuple[Discovery, Query], asyncio.Task[Found]] = {}
        self._gate = asyncio.Semaphore(MAX_RUNNING)

    async def find(self, how: Discovery, query: Query, *, fresh: bool = False) -> Found:
        """The access point for a query. `fresh` asks again although the answer is known, within reason.

        Raises `DiscoveryFailed`.
        """
        key = (how, query)
        known = self._known.get(key)
        if known is not None and self._holds(known, fresh):
            self._known.move_to_end(key)
            if known.failure is not None:
                raise _again(known.failure)
            return known.found
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.get_running_loop().create_task(self._look_up(key))
            task.add_done_callback(lambda done: self._done(key, done))
        try:
            # Whoever gives up waiting does not end it for the others.
            return await asyncio.shield(task)
        except DiscoveryFailed as failure:
            raise _again(failure) from None

    def _done(self, key: tuple, task: asyncio.Task) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it; if nobody did, nobody misses it

    def _holds(self, known: _Known, fresh: bool) -> bool:
        age = self._clock.monotonic() - known.asked
        if known.failure is not None:
            return age < (FAILED_TTL if known.failure.temporary else float(self._settings.negative_ttl))
        if known.found.until is not None and known.found.until <= self._clock.now():
            return False
        if known.asked > known.confirmed:
            return age < FAILED_TTL
        return age < (min(FRESH, float(self._settings.ttl)) if fresh else float(self._settings.ttl))

    async def _look_up(self, key: tuple[Discovery, Query]) -> Found:
        how, query = key
        before = self._known.get(key)
        try:
            async with asyncio.timeout(float(self._settings.timeout)), self._gate:
                found = await self._ask(how, query)
        except TimeoutError:
            patience = float(self._settings.timeout)
            failure = DiscoveryFailed("slow", f"discovery took longer than {patience:g} s", temporary=True)
        except DiscoveryFailed as error:
            failure = error
        else:
            at = self._clock.monotonic()
            self._keep(key, _Known(at, found, at))
            return found
        at = self._clock.monotonic()
        log.event("discovery.failed", level="warning", reason=failure.reason, detail=failure.detail,
                  participant=str(query.participant))  # fmt: skip
        if failure.temporary and (stale := self._stale(before, at)) is not None:
            self._keep(key, _Known(at, stale.found, stale.confirmed))
            return stale.found
        self._keep(key, _Known(at, failure=failure))
        raise failure

    def _stale(self, before: _Known | None, at: float) -> _Known | None:
        """What was known, if it may still be used."""
        if before is None or before.found is None or at - before.confirmed > float(self._settings.stale):
            return None
        until = before.found.until
        return before if until is None or until > self._clock.now() else None

    def _keep(self, key: tuple[Discovery, Query], known: _Known) -> None:
        self._known[key] = known
        self._known.move_to_end(key)
        while len(self._known) > self._settings.cache:
            self._known.popitem(last=False)

    # -- one look-up ------------------------------------------------------------

    async def _ask(self, how: Discovery, query: Query) -> Found:
        bases = [how.smp] if how.smp else await self._locator.publishers(query.participant, how.zone or "", how.lookup)
        failure: DiscoveryFailed | None = None
        for base in bases:
            try:
                return await self._of_publisher(base, how, query)
            except DiscoveryFailed as error:
                if not error.temporary:
                    raise
                failure = failure or error
        raise failure or DiscoveryFailed("not-registered", "the participant has no publisher")

    async def _of_publisher(self, base: str, how: Discovery, query: Query) -> Found:
        """The metadata at one publisher; one redirect is followed, and only one [as4 4.10]."""
        answer, _ = await self._metadata(metadata_url(base, query, how.smp_version, how.participant_path), how, query)
        if isinstance(answer, Found):
            return answer
        url = redirected(answer, query, how.smp_version, how.participant_path)
        found, signer = await self._metadata(url, how, query)
        if not isinstance(found, Found):
            raise DiscoveryFailed("redirect", f"{_host(url)}: a redirect leads to another redirect")
        if not _is_meant(answer, signer):
            raise DiscoveryFailed("redirect", f"{_host(url)}: signed by another publisher than the redirect names")
        return found

    async def _metadata(self, url: str, how: Discovery, query: Query) -> tuple[Found | Redirect, bytes]:
        """Fetched, verified and read. Raises `DiscoveryFailed`."""
        host = _host(url)
        try:
            status, octets = await self._client.get(
                url, most=MAX_METADATA, timeout=float(self._settings.smp_timeout), ca=how.tls_ca
            )
        except SendFailed as error:
            raise DiscoveryFailed("publisher-unreachable", str(error), temporary=error.temporary) from None
        if status == 404:
            raise DiscoveryFailed("not-registered", f"{host}: no metadata for this participant and document")
        if status != 200:
            raise DiscoveryFailed(
                "publisher-answer", f"{host}: HTTP {status} instead of service metadata",
                temporary=status >= 500 or status in (408, 425, 429),
            )  # fmt: skip

        def judged() -> tuple[Found | Redirect, bytes]:
            root, signer = verified(octets, lambda der, beside: self._judge(der, beside, how), host)
            return read(root, query, how.smp_version, self._clock.now(), host), signer

        # Parsing and verifying in one call and one thread: no element leaves it.
        return await self._run(judged)


def _is_meant(redirect: Redirect, signer: bytes) -> bool:
    """Whether the signer at the destination is the one the redirect names; where it names none, any trusted one."""
    if redirect.certificates:
        return signer in redirect.certificates
    if not redirect.uid:
        return True
    try:
        subject = x509.load_der_x509_certificate(signer).subject
    except UNREADABLE:
        return False
    # The schema leaves open what a UID is; publishers write the subject.
    return same_name(redirect.uid, subject) or redirect.uid in [a.value for a in subject.get_attributes_for_oid(_CN)]


_CN = x509.NameOID.COMMON_NAME


def _again(failure: DiscoveryFailed) -> DiscoveryFailed:
    """The same failure for another caller: a raised exception is not raised twice."""
    return DiscoveryFailed(failure.reason, failure.detail, temporary=failure.temporary)


def _host(url: str) -> str:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    return "".join(c for c in host[:253] if c.isalnum() or c in ".-:_") or "the publisher"
