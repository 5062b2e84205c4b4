"""What the gateway concludes about a captured message, without agreements and without a store.

A partner's engineer, or ours at night, has the bytes and the keys and asks why a message was
refused. The same code judges as on the wire; only agreement and duplicate elimination are left
out. Certificates in the truststore are accepted as signer, or as issuer of the signer.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from msgspec import Struct

from gateway.as4 import receipts
from gateway.as4.inbound import Opened, PartLimits, PartProver, Terms, open_envelope, prove
from gateway.as4.mime import ContentIds, EnvelopeReady, MessageReader, PartBegins, PartData
from gateway.as4.pmode import Leg, Party
from gateway.as4.policy import accept
from gateway.as4.profiles import PROFILES
from gateway.as4.units import Error, MessageUnit, Receipt, UserMessage
from gateway.as4.wss.algorithms import UNREADABLE
from gateway.as4.wss.decrypt import unwrap_content_key
from gateway.as4.wss.keys import DecryptionKey
from gateway.errors import (
    ConfigError,
    EbmsError,
    FailedDecryption,
    InvalidReceipt,
    MimeInconsistency,
    PolicyNoncompliance,
)

#: Tried in this order when no profile is named; the corner properties are not demanded then.
GUESSES = ("edelivery-as4/1.15-two-corner", "edelivery-as4/2.0-two-corner", "edelivery-as4/2.0-ecdsa-two-corner")

Trust = Callable[[bytes], None]


class Fault(Struct, frozen=True):
    """The error a peer would have been sent, with the detail that only we see."""

    code: str
    short_description: str
    detail: str


class ReferenceCheck(Struct, frozen=True):
    uri: str
    ok: bool


class Payload(Struct, frozen=True):
    cid: str
    mime: str
    size: int
    sha256: str


class Conclusion(Struct, frozen=True, kw_only=True):
    """What `gateway inspect` prints."""

    verdict: str
    error: Fault | None = None
    kind: str | None = None
    message_id: str | None = None
    ref_to_message_id: str | None = None
    profile: str | None = None
    signer: str | None = None
    references: list[ReferenceCheck] = []
    payloads: list[Payload] = []


def read_headers(text: bytes) -> dict[str, str]:
    """HTTP header lines as captured: with or without a start line, folded or not. Names in lower case."""
    found: dict[str, str] = {}
    last = None
    for line in text.decode("latin-1").splitlines():
        if not line.strip():
            if found:
                break
            continue
        if line[0] in " \t" and last:
            found[last] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        if not colon or " " in name.strip():
            continue  # the request or status line
        last = name.strip().lower()
        found.setdefault(last, value.strip())
    return found


def split_capture(octets: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body of a capture that holds both, or no headers and the body as it is."""
    head, gap, rest = octets.partition(b"\r\n\r\n")
    if not gap:
        head, gap, rest = octets.partition(b"\n\n")
    if gap and len(head) < 65_536 and not head.lstrip().startswith((b"<", b"--", b"\xef\xbb\xbf")):
        headers = read_headers(head)
        if "content-type" in headers:
            return headers, rest
    return {}, octets


def guess_content_type(body: bytes) -> str:
    """The media type of a body whose headers were not kept."""
    start = body.lstrip()[:72]
    if start.startswith(b"--"):
        boundary = start[2:].split(b"\n")[0].strip().decode("latin-1")
        return f'multipart/related; type="application/soap+xml"; boundary="{boundary}"'
    return "application/soap+xml; charset=UTF-8"


class Inspector:
    """Judges captured messages with the keys and certificates it was given."""

    def __init__(
        self,
        *,
        decryption_keys: Sequence[DecryptionKey] = (),
        trusted: Sequence[bytes] = (),
        trust: Trust,
        profile: str | None = None,
        limit: int = 1 << 30,
    ) -> None:
        if profile is not None and profile not in PROFILES:
            raise ConfigError(f"unknown profile {profile!r}", key="--profile", hint="one of " + ", ".join(PROFILES))
        self._keys, self._trusted, self._trust, self._limit = decryption_keys, tuple(trusted), trust, limit
        self._profiles = (profile,) if profile else GUESSES

    def inspect(self, content_type: str, body: bytes) -> Conclusion:
        """The conclusion; never raises for what the bytes contain."""
        first: Conclusion | None = None
        for profile in self._profiles:
            seen: list[MessageUnit] = []
            opened: list[Opened] = []
            try:
                return self._judge(content_type, body, profile, seen, opened)
            except EbmsError as error:
                conclusion = _refused(error, seen, opened, profile)
                first = first or conclusion
                # Another suite can only help where this one's algorithms were not met.
                if not isinstance(error, PolicyNoncompliance):
                    return conclusion
        return first

    def open(self, content_type: str, body: bytes) -> Opened:
        """The envelope of a message, verified. Raises `EbmsError`."""
        error: EbmsError | None = None
        for profile in self._profiles:
            try:
                envelope, _ = _split(content_type, body)
                return self._open(envelope, profile, [])
            except PolicyNoncompliance as refused:
                error = error or refused
        raise error

    # -- the ladder, as in msh/receive.py ------------------------------------------

    def _open(self, envelope: EnvelopeReady, profile: str, seen: list[MessageUnit]) -> Opened:
        def choose(unit: MessageUnit) -> Terms:
            seen.append(unit)
            return Terms(profile=PROFILES[profile], signers=self._signers(envelope.octets))

        return open_envelope(envelope.octets, envelope.charset, choose=choose, trust=self._trust)

    def _signers(self, envelope: bytes) -> tuple[bytes, ...]:
        """The trusted certificates, and those carried in the message that one of them has issued."""
        issued = [c for c in _carried(envelope) if c not in self._trusted and self._issued(c)]
        return (*self._trusted, *issued)

    def _issued(self, der: bytes) -> bool:
        for anchor in self._trusted:
            issuer = x509.load_der_x509_certificate(anchor)
            if not _is_ca(issuer):
                continue
            try:
                x509.load_der_x509_certificate(der).verify_directly_issued_by(issuer)
            except (InvalidSignature, *UNREADABLE):
                continue
            return True
        return False

    def _judge(
        self, content_type: str, body: bytes, profile: str, seen: list[MessageUnit], opened_: list[Opened]
    ) -> Conclusion:
        envelope, parts = _split(content_type, body)
        opened = self._open(envelope, profile, seen)
        opened_.append(opened)
        payloads: list[Payload] = []
        if isinstance(opened.unit, UserMessage):
            proven = []
            content_key = None
            named = {}
            known = ContentIds(opened.promised)
            for raw, octets in parts:
                cid = known.find(raw) or raw
                if cid not in opened.promised:
                    raise MimeInconsistency("a MIME part that no PartInfo names", where="MIME part")
                if cid in named:
                    raise MimeInconsistency("two MIME parts with one Content-ID", where="Content-ID")
                named[cid] = octets
            if opened.promised:
                if not self._keys:
                    raise FailedDecryption("no private key was given to decrypt with")
                content_key = unwrap_content_key(opened, self._keys)
            if opened.promised.keys() - named.keys():
                raise MimeInconsistency("a part is missing", where="eb:PartInfo without MIME part")
            limits = PartLimits(content=self._limit, canonical=PROFILES[profile].max_canonical_part)
            for info in opened.unit.parts:
                prover = PartProver(opened, info.cid, content_key, limits)
                for _ in prover.feed(named[info.cid]):
                    pass
                for _ in prover.finish():
                    pass
                proven.append(prover.proven)
            accept(prove(opened, tuple(proven)), _leg(opened, profile))
            payloads = [Payload(p.cid, p.mime_type, p.size, p.sha256.hex()) for p in proven]
        elif parts:
            raise MimeInconsistency("a signal with parts", where="MIME part")
        return Conclusion(
            verdict="accepted",
            kind=_kind(opened.unit),
            message_id=opened.unit.message_id,
            ref_to_message_id=getattr(opened.unit, "ref_to_message_id", None),
            profile=profile,
            signer=subject(opened.signer),
            references=[ReferenceCheck(r.uri, True) for r in opened.references],
            payloads=payloads,
        )


def verify_receipt(
    receipts_inspector: Inspector, receipt: tuple[str, bytes], message: tuple[str, bytes]
) -> Conclusion:
    """Does the receipt answer the message? Each argument is (content type, body)."""
    opened: list[Opened] = []
    seen: list[MessageUnit] = []
    try:
        sent = receipts_inspector.open(*message)
        if not isinstance(sent.unit, UserMessage):
            raise InvalidReceipt("the message is not a user message")
        answer = receipts_inspector.open(*receipt)
        seen.append(answer.unit)
        opened.append(answer)
        if isinstance(answer.unit, Error):
            fault = answer.unit.errors[0]
            raise InvalidReceipt(f"the answer is an error: {fault.code} {fault.short_description or ''}".strip())
        if not isinstance(answer.unit, Receipt):
            raise InvalidReceipt("the answer is not a receipt")
        receipts.check(answer.unit, sent.references, sent.unit.message_id)
    except EbmsError as error:
        return _refused(error, seen, opened, None)
    return Conclusion(
        verdict="accepted",
        kind="receipt",
        message_id=answer.unit.message_id,
        ref_to_message_id=answer.unit.ref_to_message_id,
        signer=subject(answer.signer),
        references=[ReferenceCheck(r.uri, True) for r in answer.unit.references],
    )


def _refused(
    error: EbmsError, seen: list[MessageUnit], opened: list[Opened], profile: str | None
) -> Conclusion:
    unit = seen[-1] if seen else None
    where = f" ({error.where})" if error.where else ""
    return Conclusion(
        verdict="refused",
        error=Fault(error.code, error.short_description, f"{error}{where}"),
        kind=_kind(unit) if unit else None,
        message_id=unit.message_id if unit else None,
        ref_to_message_id=getattr(unit, "ref_to_message_id", None),
        profile=profile,
        signer=subject(opened[-1].signer) if opened else None,
        references=[
            # Opened: the header's references were met; those of parts were not, or we did not get there.
            ReferenceCheck(r.uri, not r.uri.startswith("cid:"))
            for r in (opened[-1].references if opened else ())
        ],
    )


def _split(content_type: str, body: bytes) -> tuple[EnvelopeReady, list[tuple[str, bytes]]]:
    """The envelope and the parts with their Content-IDs."""
    reader = MessageReader(content_type)
    envelope: EnvelopeReady | None = None
    parts: list[tuple[str, bytearray]] = []
    for event in _all(reader, body):
        match event:
            case EnvelopeReady():
                envelope = event
            case PartBegins(cid=cid):
                parts.append((cid, bytearray()))
            case PartData(block=block):
                parts[-1][1].extend(block)
    if envelope is None:
        raise MimeInconsistency("no envelope", status=400)
    return envelope, [(cid, bytes(octets)) for cid, octets in parts]


def _all(reader: MessageReader, body: bytes) -> Iterator:
    yield from reader.feed(body)
    yield from reader.close()


def _carried(envelope: bytes) -> list[bytes]:
    """Certificates carried in BinarySecurityTokens, believed in nothing."""
    from gateway.as4.wss.tokens import carried_certificates

    return carried_certificates(envelope)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *UNREADABLE):
        return False


def _leg(opened: Opened, profile: str) -> Leg:
    """The agreement the message itself claims: good for the rules of the profile, nothing more."""
    message: UserMessage = opened.unit
    return Leg(
        pmode_id="inspection",
        profile=profile,
        from_party=Party(message.from_party.value, message.from_party, signing=(opened.signer,)),
        from_role=message.from_role,
        to_party=Party(message.to_party.value, message.to_party),
        to_role=message.to_role,
        service=message.service,
        action=message.action,
    )


def _kind(unit: MessageUnit) -> str:
    return {"UserMessage": "user-message", "Receipt": "receipt", "Error": "error"}.get(
        type(unit).__name__, "pull-request"
    )


def subject(der: bytes) -> str:
    """The subject of a certificate, RFC 4514."""
    return x509.load_der_x509_certificate(der).subject.rfc4514_string()


def at(text: str) -> datetime:
    """A moment in ISO 8601; without a zone it is UTC."""
    from datetime import UTC

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"not a time: {text!r}", key="--at", hint="write 2025-06-01T12:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
