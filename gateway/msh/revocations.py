"""Whether certificates were revoked: asked off the loop of messages, remembered, and judged by policy.

    path of the signer → for each certificate and its issuer: in memory → in the database → asked (OCSP, then CRL)
    → good | revoked | unknown | no answer → policy: hard, soft, off → the message goes on, or EBMS:0101

Asked is after the signature was found right and before anything is stored or answered, and only where a path to a
configured CA stands: the URLs are that CA's words, whoever the sender is. They are fetched under the egress
policy (public addresses only, no redirects), with bounds on size, time and number.

A slow responder is its own clients' trouble: it has two connections, a question has five seconds and all questions
of a message ten, one process asks once for all messages that wait, and while nobody answers nobody waits either: the
question is repeated in the background, every minute. What was answered is asked again after an hour, in the
background too, long before it ends. The database shares answers among processes and keeps them over a restart.

What an issuer has revoked stays revoked, also when its word has run out; a later word can end that (a
certificate on hold), an older one that somebody recorded cannot.
"""

import asyncio
import contextlib
import hashlib
import itertools
import os
from collections import OrderedDict, deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from msgspec.structs import replace

from gateway import log, metrics
from gateway.as4.inbound import Opened
from gateway.as4.pmode import Party
from gateway.as4.pmode import Revocation as Policy
from gateway.as4.wss.algorithms import UNREADABLE
from gateway.clock import Clock
from gateway.config import Revocation as Settings
from gateway.config import Trust
from gateway.errors import CertificateRefused, SendFailed, StoreUnavailable
from gateway.keys import revocation as said
from gateway.keys.likeness import issuer_of
from gateway.keys.path import MAX_LENGTH
from gateway.keys.revocation import Answer, NoAnswer
from gateway.log import printable
from gateway.store.api import Store
from gateway.store.partner_certificates import Revocation
from gateway.transport.client import Client

#: Certificates a process remembers, and how long it keeps asking about one that nobody shows any more.
MAX_KNOWN, IDLE = 4096, timedelta(days=1)
#: Octets of lists that are kept for the other certificates of the same issuer.
MAX_LISTS = 64 << 20
#: Questions under way at once: in all, and to one server.
AT_ONCE, PER_HOST = 16, 2
MAX_HOSTS = 256
#: How often the background looks for answers that are due.
INTERVAL = 30.0
#: A certificate without an answer is told of once in so many seconds.
TELL_EVERY = 3600.0

Key = tuple[bytes, bytes]


class NobodyToAsk(NoAnswer):
    """A certificate says nowhere whom one could ask."""


class Revocations:
    """Asks and judges. One a process."""

    def __init__(
        self, settings: Settings, store: Store, client: Client, cpu: Any, clock: Clock, *, allow: Trust,
        issuers: Sequence[bytes] = (),
    ) -> None:  # fmt: skip
        """`issuers` are DER certificates of CAs that issue pinned certificates; `cpu.run` runs work in a thread."""
        self._settings, self._store, self._client, self._cpu, self._clock = settings, store, client, cpu, clock
        self._allow, self._issuers = allow, tuple(issuers)
        self._known: OrderedDict[Key, Revocation] = OrderedDict()
        self._used: dict[Key, datetime] = {}
        self._asking: dict[Key, asyncio.Task] = {}
        self._lists: OrderedDict[str, tuple[datetime, bytes]] = OrderedDict()
        self._all = asyncio.Semaphore(AT_ONCE)
        self._hosts: OrderedDict[str, asyncio.Semaphore] = OrderedDict()
        self._told: OrderedDict[Key, float] = OrderedDict()
        #: Paths that were judged where nobody can wait (`hook`), for the background.
        self._wanted: deque[tuple[bytes, ...]] = deque(maxlen=256)

    # -- judging ------------------------------------------------------------------------

    async def check_opened(self, opened: Opened, party: Party | None) -> None:
        """The signer of a message: by its path, or as the pinned certificate of `party`. Raises as `check_path`."""
        if opened.voucher is not None:
            await self.check_path(opened.path, opened.voucher.trust.revocation)
        else:
            await self.check_of(opened.signer, party)

    async def check_of(self, certificate: bytes, party: Party | None) -> None:
        """A pinned certificate of a party; None: nobody knows any more whose it is. Raises as `check_path`."""
        if party is None:
            await self.check_pinned(certificate)
            return
        trust = party.trust
        cas = () if trust is None else (*trust.intermediates, *trust.anchors)
        await self.check_pinned(certificate, party.revocation, cas)

    async def check_path(self, path: Sequence[bytes], policy: Policy | None = None) -> None:
        """None of the certificates of a path (DER, leaf first, the anchor last) is revoked, as far as the policy asks.

        Raises `CertificateRefused`("revoked" or "revocation-unknown").
        """
        policy = policy or self._settings.paths
        if policy == "off" or len(path) < 2:
            return
        pairs = list(itertools.pairwise(path))
        fresh = [pair for pair in pairs if self._usable(self._known.get(pair))]
        if len(fresh) < len(pairs):
            try:
                async with asyncio.timeout(float(self._settings.deadline)):
                    await asyncio.gather(*(self._learn(pair) for pair in pairs if pair not in fresh))
            except TimeoutError:
                pass  # what is known by now is judged; the questions go on
        for pair in pairs:
            self._judge(pair, policy)

    async def check_pinned(self, certificate: bytes, policy: Policy | None = None, cas: Sequence[bytes] = ()) -> None:
        """The same for a pinned certificate, whose issuer is one of `cas` or of the configuration."""
        policy = policy or self._settings.pinned
        if policy == "off":
            return
        path = _path_of(certificate, (*cas, *self._issuers))
        if len(path) > 1 or _self_signed(certificate):
            await self.check_path(path, policy)
            return
        # Who nobody issued cannot be revoked by anybody else; who an unknown CA issued can.
        self._tell((certificate, b""), "its issuer is not known here (revocation.issuers)", policy)
        if policy == "hard":
            raise CertificateRefused("revocation-unknown", "nobody can be asked: its issuer is not known here")

    def hook(self, path: Sequence[bytes], _now: datetime) -> None:
        """A `keys.path.Revocation` for where nobody can wait: what is known to be revoked is refused, what is not known
        is asked about soon. May be called in any thread."""
        if self._settings.paths == "off":
            return
        for pair in itertools.pairwise(path):
            known = self._known.get(pair)
            if known is None:
                self._wanted.append(tuple(path))
            elif known.status == "revoked":
                raise _revoked(known)

    def _judge(self, pair: Key, policy: Policy) -> None:
        known, now = self._known.get(pair), self._clock.now()
        if known is not None:
            self._use(pair, now)
            if known.status == "revoked":
                metrics.revocation("revoked")
                raise _revoked(known)
            if self._usable(known):
                metrics.revocation(known.status)
                if known.status == "unknown":
                    raise CertificateRefused("revocation-unknown", f"its issuer does not know it ({known.host})")
                return
        metrics.revocation("no answer")
        why = known.trouble if known is not None and known.trouble else "no answer in time"
        since = known.failing_since if known is not None else None
        if policy == "soft" and (since is None or now - since <= timedelta(seconds=float(self._settings.grace))):
            self._tell(pair, why, policy)
            return
        self._tell(pair, why, policy)
        raise CertificateRefused("revocation-unknown", f"nobody says whether it was revoked: {why}")

    def _usable(self, known: Revocation | None) -> bool:
        """Whether there is an answer that still counts."""
        return (
            known is not None and known.status != "none" and known.next_update is not None
            and self._clock.now() <= known.next_update + said.SKEW
        )  # fmt: skip

    def _tell(self, pair: Key, why: str, policy: Policy) -> None:
        now = self._clock.monotonic()
        if now - self._told.get(pair, -TELL_EVERY) < TELL_EVERY:
            return
        self._told[pair] = now
        self._told.move_to_end(pair)
        while len(self._told) > MAX_KNOWN:
            self._told.popitem(last=False)
        log.event(
            "revocation.unavailable", level="warning" if policy == "soft" else "error", policy=policy,
            certificate=_subject(pair[0]), sha256=_sha256(pair[0]), reason=why,
        )  # fmt: skip

    # -- knowing ------------------------------------------------------------------------

    async def _learn(self, pair: Key) -> None:
        """See that `_known` has what can be known now. Waits for an answer only where none was ever sought."""
        if pair not in self._known:
            with contextlib.suppress(StoreUnavailable):  # then it is asked
                found = await self._store.revocation(_sha256(pair[0]), _sha256(pair[1]))
                if found is not None and pair not in self._known:
                    self._remember(pair, found)
        known = self._known.get(pair)
        if not self._usable(known) and (known is None or not self._in_vain(known)):
            await asyncio.shield(self._ask(pair))

    def _in_vain(self, known: Revocation) -> bool:
        """Whether it was sought lately and nobody answered: then those who come do not wait for it, either. If it is
        time, it is sought once more in the background (`_use`)."""
        age = (self._clock.now() - known.tried_at).total_seconds()
        if known.failing_since is not None:
            return -60 <= age < max(4 * float(self._settings.retry), 2 * INTERVAL)
        return known.status == "none" and -60 <= age < float(self._settings.refresh)

    def _use(self, pair: Key, now: datetime) -> None:
        self._used[pair] = now
        if pair in self._known and self._is_due(self._known[pair], now):
            self._ask(pair)

    def _is_due(self, known: Revocation, now: datetime) -> bool:
        """Whether it is time to ask again: after `retry` where nobody answers; else after `refresh`, or when three
        quarters of the time that the answer counts have passed."""
        wait = float(self._settings.refresh)
        if known.failing_since is not None:
            wait = float(self._settings.retry)
        elif known.answered_at is not None and known.next_update is not None:
            wait = min(wait, (known.next_update - known.answered_at).total_seconds() * 0.75)
        return (now - known.tried_at).total_seconds() >= max(wait, 1.0)

    def _remember(self, pair: Key, found: Revocation) -> None:
        self._known[pair] = found
        self._known.move_to_end(pair)
        while len(self._known) > MAX_KNOWN:
            gone, _ = self._known.popitem(last=False)
            self._used.pop(gone, None)

    async def keep(self) -> None:
        """Ask again what is due, of the certificates that were shown lately. Loop until cancelled."""
        while True:
            await self._clock.sleep(INTERVAL)
            with contextlib.suppress(IndexError):
                while True:
                    path = self._wanted.popleft()
                    for pair in itertools.pairwise(path):
                        if pair not in self._known:
                            self._used[pair] = self._clock.now()
                            self._ask(pair)
            now = self._clock.now()
            for pair, used in list(self._used.items()):
                if now - used > IDLE:
                    del self._used[pair]
                elif pair in self._known and self._is_due(self._known[pair], now):
                    self._ask(pair)

    async def close(self) -> None:
        """End the questions that are under way."""
        for task in (tasks := list(self._asking.values())):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- asking -------------------------------------------------------------------------

    def _ask(self, pair: Key) -> asyncio.Task:
        """The one question about a certificate that is under way."""
        task = self._asking.get(pair)
        if task is None:
            task = self._asking[pair] = asyncio.create_task(self._asked(pair), name="revocation")
            task.add_done_callback(lambda _: self._asking.pop(pair, None))
        return task

    async def _asked(self, pair: Key) -> None:
        """Seek an answer, here or in what another process has found meanwhile, and remember what came of it."""
        now, before = self._clock.now(), self._known.get(pair)
        try:
            stored = await self._store.revocation(_sha256(pair[0]), _sha256(pair[1]))
        except StoreUnavailable:
            stored = None
        if stored is not None and (before is None or stored.tried_at > before.tried_at):
            self._remember(pair, stored)
            before = stored
            if not self._is_due(stored, now) and (self._usable(stored) or stored.failing_since is not None):
                return
        try:
            answer, host = await self._sought(pair)
        except NobodyToAsk as error:
            # Nothing has failed and nothing will get better: `soft` bears it, `hard` does not.
            found = replace(self._failed(pair, before, str(error)), failing_since=None)
        except NoAnswer as error:
            found = self._failed(pair, before, str(error))
        except Exception as error:  # a slip of ours must not stop messages for good
            log.event("incident", level="error", exc_info=error)
            found = self._failed(pair, before, type(error).__name__)
        else:
            found = self._answered(pair, before, answer, host)
        self._remember(pair, found)
        try:
            await self._store.save_revocation(found)
        except StoreUnavailable as unavailable:
            log.event("store.unavailable", level="error", reason=str(unavailable))

    def _answered(self, pair: Key, before: Revocation | None, answer: Answer, host: str) -> Revocation:
        now = self._clock.now()
        if before is not None and before.this_update is not None and answer.this_update < before.this_update:
            # A recorded answer, or one of a mirror that is behind: what is known counts, as long as it counts.
            if before.status != "revoked" and not self._usable(before):
                return self._failed(pair, before, f"{host} gives an older answer than it gave before")
            return replace(before, tried_at=now, failing_since=None, trouble=None)
        found = Revocation(
            certificate=_sha256(pair[0]), issuer=_sha256(pair[1]), subject=_subject(pair[0]), status=answer.status,
            source=answer.source, host=host, this_update=answer.this_update, next_update=answer.until, answered_at=now,
            revoked_at=answer.revoked_at, revocation_reason=answer.reason, tried_at=now,
        )  # fmt: skip
        if answer.status == "revoked" and (before is None or before.status != "revoked"):
            log.event("certificate.revoked", level="error", certificate=found.subject, sha256=found.certificate,
                      reason=answer.reason, host=host)  # fmt: skip
        return found

    def _failed(self, pair: Key, before: Revocation | None, why: str) -> Revocation:
        """No answer. Since when counts anew where nobody has asked for long."""
        now = self._clock.now()
        if before is None:
            before = Revocation(
                certificate=_sha256(pair[0]), issuer=_sha256(pair[1]), subject=_subject(pair[0]), tried_at=now
            )
        since = before.failing_since
        if since is None or now - before.tried_at > timedelta(seconds=float(self._settings.grace)):
            since = now
        return replace(before, tried_at=now, failing_since=since, trouble=printable(why, 255))

    async def _sought(self, pair: Key) -> tuple[Answer, str]:
        """An answer and the host that gave it: of the first source that has one. Raises `NoAnswer` with all reasons."""
        certificate, issuer = pair
        at = said.sources(certificate)
        reasons, unknown = [], None
        if not (at.ocsp or at.crls):
            raise NobodyToAsk("the certificate names nobody who could be asked")
        for url in at.ocsp:
            try:
                answer = await self._ocsp(url, certificate, issuer)
            except NoAnswer as error:
                reasons.append(f"{_host(url)}: {error}")
                continue
            if answer.status != "unknown":
                return answer, _host(url)
            unknown = answer, _host(url)
        for url in at.crls:
            try:
                return await self._crl(url, certificate, issuer), _host(url)
            except NoAnswer as error:
                reasons.append(f"{_host(url)}: {error}")
        if unknown is not None:
            return unknown
        raise NoAnswer("; ".join(reasons))

    async def _ocsp(self, url: str, certificate: bytes, issuer: bytes) -> Answer:
        nonce = os.urandom(said.NONCE)
        try:
            body = said.ocsp_request(certificate, issuer, nonce)
        except UNREADABLE as error:
            raise NoAnswer(f"no request can be made: {error}") from None
        octets = await self._fetched(url, said.MAX_OCSP, ("application/ocsp-request", body))
        now = self._clock.now()
        return said.judge_ocsp(octets, certificate, issuer, nonce=nonce, now=now, allow=self._allow)

    async def _crl(self, url: str, certificate: bytes, issuer: bytes) -> Answer:
        now = self._clock.now()
        kept = self._lists.get(url)
        if kept is not None and (now - kept[0]).total_seconds() < float(self._settings.refresh):
            # It may have run out, or be another issuer's, meanwhile: then the one that is there now is looked at.
            with contextlib.suppress(NoAnswer):
                return await self._cpu.run(_judged_crl, kept[1], certificate, issuer, now, self._allow)
        octets = await self._fetched(url, self._settings.max_crl)
        # In a thread: to hash ten megabytes takes a while.
        answer = await self._cpu.run(_judged_crl, octets, certificate, issuer, now, self._allow)
        self._lists[url] = (now, octets)
        self._lists.move_to_end(url)
        while len(self._lists) > 1 and sum(len(octets) for _, octets in self._lists.values()) > MAX_LISTS:
            self._lists.popitem(last=False)
        return answer

    async def _fetched(self, url: str, most: int, post: tuple[str, bytes] | None = None) -> bytes:
        """The body of one answer. Raises `NoAnswer`."""
        timeout = float(self._settings.timeout)
        try:
            async with asyncio.timeout(2 * timeout), self._turn(url), self._all:
                status, octets = await self._client.get(
                    url, most=most, timeout=timeout, purpose="revocation", post=post
                )
        except TimeoutError:
            raise NoAnswer("too many questions to it are waiting") from None
        except SendFailed as error:
            raise NoAnswer(str(error)) from None
        if status != 200:
            raise NoAnswer(f"HTTP {status}")
        return octets

    def _turn(self, url: str) -> asyncio.Semaphore:
        """The connections to one server. One that does not answer is waited for by those who ask it, and no others."""
        try:
            host = urlsplit(url).netloc
        except ValueError:
            host = ""
        turn = self._hosts.pop(host, None) or asyncio.Semaphore(PER_HOST)
        self._hosts[host] = turn
        while len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)
        return turn


@lru_cache(1024)
def _path_of(certificate: bytes, cas: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """A pinned certificate and its issuers among `cas`, as far up as they are known. Asked for every message, and of
    pinned certificates alone: so it is kept."""
    path = [certificate]
    while len(path) < MAX_LENGTH and (issuer := issuer_of(path[-1], cas)) is not None and issuer not in path:
        path.append(issuer)
    return tuple(path)


def _judged_crl(octets: bytes, certificate: bytes, issuer: bytes, now: datetime, allow: Trust) -> Answer:
    return said.judge_crl(octets, certificate, issuer, now=now, allow=allow)


def _revoked(known: Revocation) -> CertificateRefused:
    when = f" since {known.revoked_at:%Y-%m-%d %H:%M} UTC" if known.revoked_at else ""
    why = f" ({known.revocation_reason})" if known.revocation_reason else ""
    return CertificateRefused("revoked", f"revoked{when}{why}, says {known.host}")


def _sha256(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()


def _subject(der: bytes) -> str:
    try:
        return printable(x509.load_der_x509_certificate(der).subject.rfc4514_string(), 400)
    except UNREADABLE:
        return ""


def _self_signed(der: bytes) -> bool:
    """Nobody but its holder could revoke it."""
    try:
        certificate = x509.load_der_x509_certificate(der)
    except UNREADABLE:
        return False
    return certificate.subject == certificate.issuer


def _host(url: str) -> str:
    try:
        return printable(urlsplit(url).hostname or "", 255)
    except ValueError:
        return "?"
