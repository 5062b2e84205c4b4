"""What is kept of a message, and what it proves: judged anew, from the very octets.

The envelope of an inbound message is as it came, that of an outbound one as the last attempt
signed it; the receipt is the partner's, or the one we answered with. Who may sign was decided
when they came. Here a signature is held against the certificate that was accepted then, so
that a certificate which has expired since does not make old evidence look forged.
"""

import base64
import contextlib
from collections.abc import Callable, Iterator

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.as4 import ns, receipts
from gateway.as4.inbound import Opened, Terms, open_envelope
from gateway.as4.profiles import PROFILES
from gateway.as4.units import Property, Receipt, Reference, UserMessage
from gateway.as4.wss.algorithms import DIGESTS, UNREADABLE
from gateway.as4.wss.tokens import carried_certificates
from gateway.as4.xml import parse
from gateway.errors import EbmsError, InvalidReceipt, KeyUnavailable, PolicyNoncompliance
from gateway.msh.rooms import Rooms
from gateway.msh.send import Sender
from gateway.plugin import (
    CertificateView,
    HeaderPart,
    HeaderView,
    PartyRef,
    PropertyValue,
    ReceiptView,
    ReferenceView,
    SecurityView,
)
from gateway.store.api import Message, Viewer

_SIGNATURE_METHOD = ns.qn(ns.DS, "SignatureMethod")
_ENCRYPTION_METHOD = ns.qn(ns.XENC, "EncryptionMethod")


class Evidence:
    """Reads evidence on behalf of viewers."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms, self._leg = rooms, Sender(rooms).leg

    async def envelope(self, message: Message, viewer: Viewer) -> bytes | None:
        """The signed envelope that is kept; None before an outbound message was signed."""
        if message.direction == "inbound":
            return message.envelope
        return await self._rooms.store.sent_envelope(message.id, viewer=viewer)

    async def security(self, message: Message, viewer: Viewer) -> SecurityView | None:
        """The verdict about the envelope."""
        envelope = await self.envelope(message, viewer)
        if envelope is None:
            return None
        ours = message.direction == "outbound"
        profiles = await self._profiles(message)
        opened, profile, reason = _judged(envelope, profiles, await self._signers(message, envelope, ours))
        signature, encryption = _algorithms(envelope)
        if opened is None:
            return SecurityView(
                valid=False, reason=reason, signature_algorithm=signature, encryption_algorithms=encryption
            )
        references = tuple(_references(opened, message))
        if reason is None and any(reference.met is False for reference in references):
            reason = "a payload is not the one that was signed"
        if reason is None and opened.unit != message.user_message:
            reason = "the header is not the one that was signed"
        return SecurityView(
            valid=reason is None, reason=reason, profile=profile, signature_algorithm=signature,
            encryption_algorithms=encryption, signer=_certificate(opened.signer, ours=ours), references=references,
        )  # fmt: skip

    async def receipt(self, message: Message, viewer: Viewer) -> ReceiptView | None:
        """The verdict about the receipt, and about whether it is for what was signed."""
        if message.receipt is None:
            return None
        ours = message.direction == "inbound"
        opened, _, reason = _judged(
            message.receipt, await self._profiles(message), await self._signers(message, message.receipt, ours)
        )
        signature, _ = _algorithms(message.receipt)
        if opened is None or not isinstance(opened.unit, Receipt):
            return ReceiptView(
                valid=False, reason=reason or "it is no receipt", at=message.receipt_at, signature_algorithm=signature
            )
        unit = opened.unit
        if reason is None:
            reason = await self._misfit(message, viewer, unit)
        return ReceiptView(
            valid=reason is None, reason=reason, message_id=unit.message_id, timestamp=unit.timestamp,
            ref_to_message_id=unit.ref_to_message_id, at=message.receipt_at, signature_algorithm=signature,
            signer=_certificate(opened.signer, ours=ours),
            references=tuple(_reference(one, reason is None or None) for one in unit.references),
        )  # fmt: skip

    async def _misfit(self, message: Message, viewer: Viewer, receipt: Receipt) -> str | None:
        """Why the receipt does not answer what was signed; None when it does."""
        if message.direction == "outbound":
            signed = [a.references for a in await self._rooms.store.attempts(message.id, viewer=viewer)]
        else:
            signers = await self._signers(message, message.envelope, False)
            opened, _, _ = _judged(message.envelope, await self._profiles(message), signers)
            signed = [opened.references] if opened else []
        reason = "nothing that was signed is known"
        for references in signed:
            try:
                receipts.check(receipt, references, message.user_message.message_id)
            except InvalidReceipt as misfit:
                reason = str(misfit)
            else:
                return None
        return reason

    async def _profiles(self, message: Message) -> tuple[str, ...]:
        """The profile of the agreement first; without one all are tried."""
        leg = await self._leg(message)
        return (leg.profile,) if leg is not None else tuple(PROFILES)

    async def _signers(self, message: Message, envelope: bytes, ours: bool) -> tuple[bytes, ...]:
        """The certificates that may have signed: the one that was accepted, those the agreement names, and, for
        what the gateway itself wrote or has accepted before, those carried in it."""
        known: list[bytes] = []
        unit = message.user_message
        if ours:
            parties = (unit.from_party, unit.to_party)
            party, partner = parties if message.direction == "outbound" else reversed(parties)
            keyring = self._rooms.keyring.value
            for name in await self._profiles(message):
                try:
                    known.append(keyring.signing_key(party, PROFILES[name], partner=partner).certificate)
                except KeyUnavailable:
                    continue
        elif message.signer is not None:
            return (message.signer,)
        elif (leg := await self._leg(message)) is not None:
            known += leg.to_party.signing
        with contextlib.suppress(EbmsError):
            known += carried_certificates(envelope)
        return tuple(dict.fromkeys(known))


def header_view(unit: UserMessage) -> HeaderView:
    """The header as JSON has it."""
    agreement = unit.agreement_ref
    return HeaderView(
        message_id=unit.message_id, timestamp=unit.timestamp, ref_to_message_id=unit.ref_to_message_id, mpc=unit.mpc,
        from_party=PartyRef(unit.from_party.value, unit.from_party.type, unit.from_role),
        to_party=PartyRef(unit.to_party.value, unit.to_party.type, unit.to_role),
        agreement_ref=agreement.value if agreement else None, agreement_type=agreement.type if agreement else None,
        service=unit.service.value, service_type=unit.service.type, action=unit.action,
        conversation_id=unit.conversation_id, properties=_properties(unit.properties),
        parts=tuple(HeaderPart(part.href, _properties(part.properties)) for part in unit.parts),
    )  # fmt: skip


def _properties(properties: tuple[Property, ...]) -> tuple[PropertyValue, ...]:
    return tuple(PropertyValue(p.name, p.value, p.type) for p in properties)


def _judged(
    envelope: bytes, profiles: tuple[str, ...], signers: tuple[bytes, ...]
) -> tuple[Opened | None, str | None, str | None]:
    """(the envelope opened, under which profile, why it does not hold)."""
    reason: str | None = None
    for profile in profiles:
        terms = Terms(profile=PROFILES[profile], signers=signers)
        try:
            return open_envelope(envelope, None, choose=_always(terms), trust=lambda _: None), profile, None
        except EbmsError as error:
            reason = reason or f"{error.code} {error.short_description}: {error}"
            if not isinstance(error, PolicyNoncompliance):
                break
    return None, None, reason


def _always(terms: Terms) -> Callable[[object], Terms]:
    return lambda _unit: terms


def _algorithms(envelope: bytes) -> tuple[str | None, tuple[str, ...]]:
    """The algorithm of the signature, and those of encryption, as they are written."""
    try:
        root = parse(envelope)
    except EbmsError:
        return None, ()
    signature = next((e.get("Algorithm") for e in root.iter(_SIGNATURE_METHOD)), None)
    encryption = [e.get("Algorithm", "") for e in root.iter(_ENCRYPTION_METHOD)]
    return signature, tuple(dict.fromkeys(filter(None, encryption)))


def _references(opened: Opened, message: Message) -> Iterator[ReferenceView]:
    """Header and Body were digested just now; of parts is said whether they are those that are kept."""
    parts = {part.cid: part for part in message.parts}
    by_uri = {reference.uri: cid for cid, reference in opened.promised.items()}
    for reference in opened.references:
        cid = by_uri.get(reference.uri)
        if cid is None:
            yield _reference(reference, True)
            continue
        part = parts.get(cid)
        same_kind = part is not None and DIGESTS[reference.digest_method]().digest_size == len(part.wire_digest)
        yield _reference(reference, part.wire_digest == reference.digest if same_kind else None)


def _reference(reference: Reference, met: bool | None) -> ReferenceView:
    return ReferenceView(
        uri=reference.uri, digest_method=reference.digest_method, digest=base64.b64encode(reference.digest).decode(),
        transforms=tuple(transform.algorithm for transform in reference.transforms), met=met,
    )  # fmt: skip


def _certificate(der: bytes, *, ours: bool) -> CertificateView | None:
    try:
        found = x509.load_der_x509_certificate(der)
        key = found.public_key()
        subject, issuer = found.subject.rfc4514_string(), found.issuer.rfc4514_string()
    except UNREADABLE:
        return None
    kind = type(key).__name__.removesuffix("PublicKey").lstrip("_")
    if isinstance(key, rsa.RSAPublicKey):
        kind = f"RSA {key.key_size}"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        kind = f"EC {key.curve.name}"
    return CertificateView(
        subject=subject, issuer=issuer, serial=f"{found.serial_number:x}", not_before=found.not_valid_before_utc,
        not_after=found.not_valid_after_utc, key=kind, ours=ours, der=der,
        sha256=DIGESTS[ns.SHA256](der).hexdigest(),
    )  # fmt: skip
