"""Who may sign for a partner, and who a partner is that no agreement names.

`terms_for` makes of a party what the inbound ladder asks for: its pinned certificates, and the rule by which
others are accepted as its own. `Partners` finds the receiver of a leg whose receiver is a pattern:
participant, document and process come from the message, endpoint and certificates from its publisher, and
which party that is from the certificate [as4 4.10]. What a publisher says is one half; the other is that
the certificates have a path to the anchors of the agreement, at this very moment.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING

import msgspec

from gateway import log
from gateway.as4 import ns
from gateway.as4.inbound import Terms, Trust, Voucher
from gateway.as4.pmode import Discovery, Identifier, Leg, Party, PathTrust
from gateway.as4.profiles import PROFILES
from gateway.as4.units import PartyId, Property
from gateway.clock import Clock
from gateway.config import Trust as Allow
from gateway.errors import CertificateRefused, DiscoveryFailed, StoreUnavailable
from gateway.keys.path import Revocation, not_checked
from gateway.keys.trust import Use, check_certificate
from gateway.keys.vouching import party_of, vouch
from gateway.log import printable
from gateway.store.api import AuditEntry, Store
from gateway.transport.discovery.smp import Query

if TYPE_CHECKING:
    from gateway.transport.discovery.finder import Finder

#: Partners whose first appearance is remembered; the ones seen longest ago are noted anew.
MAX_SEEN = 4096

#: What to do about a receiver that was not found, by the reason of `DiscoveryFailed`.
HINTS = {
    "not-registered": "check value and type of finalRecipient, and that the participant takes this kind of document",
    "no-participant": "give the property finalRecipient once, with the scheme as its type",
    "no-process": "the participant is registered for the document, but not for this service",
    "no-endpoint": "the participant's access point does not speak this version of AS4",
    "expired": "the participant's access point has to renew what it published",
    "certificate": "the access point's certificate is not one the community accepts; its operator must act",
    "publisher": "the publisher of metadata is not the community's; check `publishers` of the agreement",
    "bad-signature": "the metadata was changed on its way, or its publisher is at fault",
    "other-party": "leave the receiver out, or name the access point that serves the participant",
    "named-party": "add the exchange to the agreement with that party",
}  # fmt: skip


def terms_for(profile: str, party: Party, party_id: PartyId) -> Terms:
    """Who may sign under `profile` for `party`, which is `party_id` where it is a pattern."""
    vouchers = () if party.trust is None else (Voucher(party.trust, party_id),)
    return Terms(profile=PROFILES[profile], signers=party.signing, vouchers=vouchers)


class Paths:
    """Judges certificates that nobody has pinned. `revocation` is asked about every path that is right otherwise."""

    def __init__(self, allow: Allow, clock: Clock, revocation: Revocation = not_checked) -> None:
        self._allow, self._clock, self._revocation = allow, clock, revocation

    def check(
        self, certificate: bytes, carried: Sequence[bytes], trust: PathTrust, *, use: Use = "sign",
        party_id: str | None = None, now: datetime | None = None,
    ) -> tuple[bytes, ...]:  # fmt: skip
        """The path of a certificate that `trust` accepts, as that of `party_id`. Raises `CertificateRefused`."""
        return vouch(
            certificate, carried, trust, use=use, now=now or self._clock.now(), party_id=party_id, allow=self._allow,
            revocation=self._revocation,
        )  # fmt: skip

    def voucher(self, now: datetime) -> Callable[[bytes, tuple[bytes, ...], Voucher], tuple[bytes, ...]]:
        """A `Vouch` callback at `now`."""

        def judge(certificate: bytes, carried: tuple[bytes, ...], voucher: Voucher) -> tuple[bytes, ...]:
            party_id = voucher.party_id and voucher.party_id.value
            return self.check(certificate, carried, voucher.trust, party_id=party_id, now=now)

        return judge

    def signer(self, party: Party, now: datetime) -> Trust:
        """A `Trust` callback for the certificates a publisher gave of `party`: none of them is pinned by anybody."""
        return lambda der: self.check(der, (), party.trust, party_id=party.party_id.value, now=now)

    def publisher(self, certificate: bytes, beside: Sequence[bytes], how: Discovery) -> None:
        """The signer of service metadata is one the agreement trusts. Raises `CertificateRefused`."""
        if certificate in how.publishers:
            check_certificate(certificate, use="sign", now=self._clock.now(), allow=self._allow)
        elif how.publisher_trust is not None:
            self.check(certificate, beside, how.publisher_trust)
        else:
            raise CertificateRefused("publisher", "its certificate is none of those the agreement names")


class Partners:
    """Finds the receivers of legs, and notes whom it has seen. One a process.

    `make` constructs the finder when the first receiver is looked up: who has agreements with everybody
    never loads what is needed for that.
    """

    def __init__(self, make: "Callable[[], Finder]", paths: Paths, store: Store, node: str) -> None:
        self._make, self._paths, self._store, self._node = make, paths, store, node
        self._seen: OrderedDict[tuple, None] = OrderedDict()

    @cached_property
    def _finder(self) -> "Finder":
        return self._make()

    async def seen(self, party: PartyId, certificate: bytes, *, by: str, pmode: str, how: str, **facts: str) -> None:
        """A partner was accepted that no agreement names: noted in the audit, once for each certificate.

        What it sent or was sent stands in the messages. Never raises: the message stands without this note.
        """
        key = (party, certificate, pmode, how, *facts.values())
        if key in self._seen:
            self._seen.move_to_end(key)
            return
        self._seen[key] = None
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        detail = {
            "party": by, "pmode": pmode, "how": how, "type": party.type, **facts,
            "certificate_sha256": hashlib.sha256(certificate).hexdigest(),
        }  # fmt: skip
        log.event("partner.found", subject=party.value, **detail)
        try:
            await self._store.audit(
                AuditEntry(kind="partner.found", actor=self._node, subject=printable(party.value, 255), detail=detail)
            )
        except StoreUnavailable as unavailable:
            log.event("store.unavailable", level="error", reason=str(unavailable))

    async def found(
        self, leg: Leg, properties: Sequence[Property], to_party: PartyId | None, *,
        named: frozenset[PartyId] = frozenset(), fresh: bool = False,
    ) -> Leg:  # fmt: skip
        """`leg` with the party that receives a message with these properties in place of the pattern.

        `to_party` is the party it must be, as far as that is known; none of `named` may be found, because
        their agreements are what counts for them. `fresh` asks again what is known. Raises `DiscoveryFailed`.
        """
        how = leg.discovery
        if how is None:
            raise DiscoveryFailed("no-discovery", "the agreement does not say how its receivers are found")
        query = Query(
            participant=_participant(how, properties, to_party, leg),
            document=Identifier(how.document or leg.action, how.document_scheme),
            process=Identifier(how.process or leg.service.value, how.process_scheme),
            transport_profile=how.transport_profile,
        )
        found = await self._finder.find(how, query, fresh=fresh)
        pattern = leg.to_party
        try:
            check = partial(self._paths.check, carried=(), trust=pattern.trust)
            check(found.encryption, use="encrypt")
            for der in found.signing:
                check(der, use="sign")
            values = {party_of(der, pattern.trust) for der in (found.encryption, *found.signing)}
        except CertificateRefused as refused:
            whose = f"of the access point that serves {query.participant}"
            raise DiscoveryFailed("certificate", f"a certificate {whose} is refused: {refused}") from None
        if len(values) != 1:
            raise DiscoveryFailed("certificate", "the two certificates of the access point are for different parties")
        party_id = PartyId(values.pop(), pattern.party_id.type)
        _check_party(party_id, to_party, named, query.participant)
        party = msgspec.structs.replace(
            pattern, party_id=party_id, endpoint=found.endpoint, encryption=found.encryption, signing=found.signing,
            pattern=False,
        )  # fmt: skip
        await self.seen(
            party_id, found.encryption, by=pattern.name, pmode=leg.pmode_id, how="discovered",
            participant=printable(str(query.participant), 255), endpoint=printable(found.endpoint, 255),
        )  # fmt: skip
        return msgspec.structs.replace(leg, to_party=party)


def _check_party(
    found: PartyId, wanted: PartyId | None, named: frozenset[PartyId], participant: Identifier
) -> None:
    if found in named:
        raise DiscoveryFailed(
            "named-party", f"{participant} is served by {found.value}, and the agreement with {found.value} is another"
        )
    if wanted is not None and (wanted.value != found.value or wanted.type not in (None, found.type)):
        raise DiscoveryFailed("other-party", f"{participant} is served by {found.value}, not by {wanted.value}")


def _participant(
    how: Discovery, properties: Sequence[Property], to_party: PartyId | None, leg: Leg
) -> Identifier:
    """Whose metadata is looked up. Raises `DiscoveryFailed`."""
    if how.participant == "to-party":
        if to_party is None:
            raise DiscoveryFailed("no-participant", "the receiver is missing: its metadata is what is looked up")
        return Identifier(to_party.value, to_party.type or leg.to_party.party_id.type)
    found = [p for p in properties if p.name == ns.FINAL_RECIPIENT and p.value.strip()]
    if len(found) != 1:
        what = "not exactly one property finalRecipient: its metadata is what is looked up"
        raise DiscoveryFailed("no-participant", what)
    return Identifier(found[0].value, found[0].type)
