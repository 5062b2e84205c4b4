"""Certificates that partners are seen to use, and that no agreement calls their active one.

The next certificate of a partner, which its agreement pins: its first use is noted, so that somebody can make
it the active one (`gateway parties promote`). A certificate that nobody pinned, of somebody who claims to be
a known partner: kept for a decision and believed in nothing (`gateway parties quarantine`).

Of a stranger only what is public and bounded is kept: a certificate of at most 8 KiB that could be pinned
at all (time, key, use), and only when the message was signed with its key, so that nobody fills the table
with certificates of others. A certificate that is pinned for another partner is none of this one: who signs
with it for a partner that it is not is refused, noted as every refusal, and offered to nobody [threats F01].
"""

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

from cryptography import x509

from gateway import log
from gateway.as4.pmode import Party
from gateway.as4.wss.algorithms import UNREADABLE
from gateway.clock import Clock
from gateway.config import Trust
from gateway.errors import CertificateRefused, StoreUnavailable
from gateway.keys.trust import check_certificate
from gateway.log import printable
from gateway.msh.channels import party_key
from gateway.store.api import AuditEntry, Store
from gateway.store.partner_certificates import MAX_DER, NewStranger

if TYPE_CHECKING:
    from gateway.msh.rooms import Agreements, Cell

#: Certificates and parties that are remembered; the ones seen longest ago are noted anew, which the store bears.
MAX_SEEN = 4096
#: A certificate that is seen often is counted here and written so many seconds apart.
WRITE_EVERY = 60.0
MAX_NAME = 400


class Sightings:
    """Notes what is seen. One a process. Never raises: a message stands or falls without these notes."""

    def __init__(
        self, store: Store, agreements: "Cell[Agreements]", clock: Clock, node: str, allow: Trust
    ) -> None:
        self._store, self._agreements, self._clock, self._node, self._allow = store, agreements, clock, node, allow
        self._next: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        #: (party, fingerprint) -> when it was written last, and how often it was seen since.
        self._strangers: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self._full: OrderedDict[str, float] = OrderedDict()

    async def signed(self, party: Party, signer: bytes) -> None:
        """`party` is proven to have signed with the pinned certificate `signer`: noted once when it is the next one."""
        if signer != party.next or (key := (party_key(party.party_id), signer)) in self._next:
            return
        sha256 = hashlib.sha256(signer).hexdigest()
        entry = AuditEntry(
            kind="certificate.next_used", actor=self._node, subject=printable(party.name, 255),
            detail={"certificate_sha256": sha256, "party_id": printable(party.party_id.value, 255)},
        )  # fmt: skip
        try:
            first = await self._store.note_next(key[0], sha256, entry)
        except StoreUnavailable as unavailable:
            log.event("store.unavailable", level="error", reason=str(unavailable))
            return
        _remember(self._next, key, None)
        if first:
            log.event("certificate.next_used", level="warning", party=party.name, sha256=sha256)

    async def refused(self, party: Party, stranger: bytes | None) -> None:
        """Somebody who claims to be `party` signed with a certificate that is not its own, and has its key."""
        if stranger is None or party.pattern or stranger in self._agreements.value.pinned:
            return
        key = (party_key(party.party_id), hashlib.sha256(stranger).hexdigest())
        now = self._clock.monotonic()
        written, seen = self._strangers.get(key, (None, 0))
        if written is not None and now - written < WRITE_EVERY:
            _remember(self._strangers, key, (written, seen + 1))
            return
        if written is None and now - self._full.get(key[0], -WRITE_EVERY) < WRITE_EVERY:
            return
        if (found := self._sane(key, stranger, seen + 1)) is None:
            return
        _remember(self._strangers, key, (now, 0))
        await self._keep(party, found)

    async def _keep(self, party: Party, found: NewStranger) -> None:
        try:
            outcome = await self._store.quarantine(found)
        except StoreUnavailable as unavailable:
            log.event("store.unavailable", level="error", reason=str(unavailable))
            return
        facts = {"party": party.name, "sha256": found.sha256, "subject": found.subject}
        if outcome == "new":
            log.event("certificate.quarantined", level="warning", **facts)
        elif outcome == "full":
            self._strangers.pop((found.party, found.sha256), None)
            _remember(self._full, found.party, self._clock.monotonic())
            log.event("certificate.quarantine_full", level="warning", **facts)

    def _sane(self, key: tuple[str, str], der: bytes, seen: int) -> NewStranger | None:
        """What is kept of a certificate; None for one that nobody could accept."""
        if len(der) > MAX_DER:
            return None
        try:
            check_certificate(der, use="sign", now=self._clock.now(), allow=self._allow)
            read = x509.load_der_x509_certificate(der)
            return NewStranger(
                party=key[0], sha256=key[1], der=der, subject=printable(read.subject.rfc4514_string(), MAX_NAME),
                issuer=printable(read.issuer.rfc4514_string(), MAX_NAME), valid_from=read.not_valid_before_utc,
                valid_until=read.not_valid_after_utc, seen=seen,
            )  # fmt: skip
        except (CertificateRefused, *UNREADABLE):
            return None


def _remember(where: OrderedDict, key: object, value: object) -> None:
    where[key] = value
    where.move_to_end(key)
    while len(where) > MAX_SEEN:
        where.popitem(last=False)
