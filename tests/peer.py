"""A small second MSH, made of `gateway.as4` alone, for talking to the real one in tests.

It has a party, keys and a partner's certificates. `message` makes the body of a user message;
its hooks let a test spoil one thing at a time, before or after it is signed. `read` judges an
answer as a peer would.
"""

import datetime
import hashlib
import os
import uuid
from dataclasses import dataclass, field

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from gateway.as4 import ns, receipts
from gateway.as4.compression import Deflater
from gateway.as4.inbound import PartLimits, PartProver, Terms, open_envelope, prove
from gateway.as4.mime import EnvelopeReady, MessageReader, PartBegins, PartData
from gateway.as4.outbound import Draft, OutboundPart, Wire, secure, secure_signal
from gateway.as4.profiles import PROFILES
from gateway.as4.units import Error, PartInfo, PartyId, Property, PullRequest, Receipt, Service, UserMessage
from gateway.as4.wss.decrypt import unwrap_content_key
from gateway.keys.keyring import SoftwareDecryptionKey, SoftwareSigningKey

UTC = datetime.UTC
OOTS_ROLE = "http://sdg.europa.eu/edelivery/gateway"
OOTS_SERVICE = Service("QueryManager", "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0")


class Authority:
    """A CA that issues certificates for tests. RSA, so that it can vouch for X25519 keys too."""

    def __init__(self, name: str = "Test CA") -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._build(self.name, self.key.public_key(), ca=True, usage=None)

    def issue(self, common_name: str, public_key, usage: str = "sign+encrypt", *, days: float = 30, start: float = -1,
              ca: bool = False) -> bytes:
        """A DER certificate valid from `start` days from now for `days` days."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        return self._build(subject, public_key, ca=ca, usage=usage, days=days, start=start)

    def _build(self, subject, public_key, *, ca: bool, usage: str | None, days: float = 30, start: float = -1) -> bytes:
        now = datetime.datetime.now(UTC)
        begin = now + datetime.timedelta(days=start)
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(public_key)
            .serial_number(x509.random_serial_number()).not_valid_before(begin)
            .not_valid_after(begin + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        )
        if usage is not None:
            builder = builder.add_extension(
                x509.KeyUsage(
                    digital_signature="sign" in usage, content_commitment=False,
                    key_encipherment="encrypt" in usage, data_encipherment=False, key_agreement="agree" in usage,
                    key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
                ), critical=True,
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)


@dataclass
class Keys:
    """The keys of one party in one suite."""

    signing_private: object
    signing: bytes
    decryption_private: object
    encryption: bytes

    @classmethod
    def make(cls, name: str, suite: str, authority: Authority) -> "Keys":
        if suite == "rsa":
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            der = authority.issue(name, key.public_key())
            return cls(key, der, key, der)
        if suite == "ed25519":
            signing, decryption = ed25519.Ed25519PrivateKey.generate(), x25519.X25519PrivateKey.generate()
        else:
            signing, decryption = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        return cls(signing, authority.issue(name, signing.public_key(), "sign"),
                   decryption, authority.issue(name, decryption.public_key(), "agree"))

    @property
    def signing_key(self) -> SoftwareSigningKey:
        return SoftwareSigningKey(self.signing_private, self.signing)

    @property
    def decryption_key(self) -> SoftwareDecryptionKey:
        return SoftwareDecryptionKey(self.decryption_private, self.encryption)


@dataclass
class Answer:
    """What came back: the unit, who signed it (None: nobody), and the bytes."""

    status: int
    unit: object
    signer: bytes | None
    envelope: bytes

    @property
    def code(self) -> str | None:
        return self.unit.errors[0].code if isinstance(self.unit, Error) else None


@dataclass
class Sent:
    """A message as it goes out."""

    content_type: str
    body: bytes
    wire: Wire
    message: UserMessage
    payloads: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Peer:
    """A party that talks AS4 to one partner."""

    party: PartyId
    partner: PartyId
    keys: Keys
    partner_signing: tuple[bytes, ...]
    partner_encryption: bytes
    profile: str = "oots/2.0"

    def header(self, **changes) -> UserMessage:
        """A valid header; `changes` replace fields."""
        message = UserMessage(
            message_id=f"{uuid.uuid4()}@peer.example",
            timestamp=datetime.datetime.now(UTC).replace(microsecond=123000),
            from_party=self.party,
            from_role=OOTS_ROLE,
            to_party=self.partner,
            to_role=OOTS_ROLE,
            service=OOTS_SERVICE,
            action="ExecuteQueryRequest",
            conversation_id=str(uuid.uuid4()),
            properties=(
                Property("originalSender", "C1", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:EE"),
                Property("finalRecipient", "C4", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:LV"),
                Property("ExchangeId", str(uuid.uuid4())),
                Property("SpecificationId", "oots-edm:v2.0"),
            ),
        )
        return msgspec.structs.replace(message, **changes)

    def message(
        self,
        payloads: list[tuple[str, bytes]] = (("application/x-ebrs+xml", b"<query/>"),),
        *,
        compress: bool = True,
        change_header=lambda message: message,
        change_part=lambda part: part,
        key=None,
        recipient: bytes | None = None,
        signature_token: str = "bst",
        encryption_token: str = "bst",
        content_type_of=lambda mime, compressed: "application/gzip" if compressed else mime,
        part_properties: tuple[Property, ...] = (),
        cids: list[str] | None = None,
        digest=lambda octets, content_type: hashlib.sha256(octets).digest(),
        wire_octets=lambda octets: octets,
        **header,
    ) -> Sent:
        """The body of a user message with these (media type, content) payloads.

        `change_header` and `change_part` see the final Structs before they are signed.
        `wire_octets` changes the octets of a part after they were digested.
        """
        parts, stored, contents = [], [], {}
        for number, (mime, content) in enumerate(payloads):
            cid = cids[number] if cids else f"p{number}-{uuid.uuid4().hex[:8]}@peer.example"
            properties = [Property(ns.MIME_TYPE, mime), *part_properties]
            octets = content
            if compress:
                deflater = Deflater()
                octets = deflater.feed(content) + deflater.finish()
                properties.append(Property(ns.COMPRESSION_TYPE, ns.GZIP))
            info = PartInfo(href=f"cid:{cid}", properties=tuple(properties))
            content_type = content_type_of(mime, compress)
            part = change_part(OutboundPart(info, cid, content_type, len(octets), digest(octets, content_type)))
            octets = wire_octets(octets)
            parts.append(msgspec.structs.replace(part, wire_size=len(octets)))
            stored.append(octets)
            contents[cid] = content
        message = change_header(msgspec.structs.replace(self.header(**header), parts=tuple(p.info for p in parts)))
        parts = [msgspec.structs.replace(p, info=i, cid=i.cid) for p, i in zip(parts, message.parts, strict=True)]
        wire = secure(
            Draft(message, tuple(parts)),
            profile=PROFILES[self.profile],
            key=key or self.keys.signing_key,
            recipient=recipient or self.partner_encryption,
            signature_token=signature_token,
            encryption_token=encryption_token,
            entropy=os.urandom,
        )
        body = b"".join(wire.stream(lambda index: [stored[index]]))
        return Sent(wire.content_type, body, wire, message, contents)

    def signal(self, unit) -> bytes:
        """The envelope of a signal of ours."""
        return secure_signal(unit, profile=PROFILES[self.profile], key=self.keys.signing_key, token="bst", entropy=os.urandom)

    def pull_request(self, mpc: str, *, age: float = 0.0) -> bytes:
        """A signed PullRequest, made `age` seconds ago."""
        now = datetime.datetime.now(UTC).replace(microsecond=0) - datetime.timedelta(seconds=age)
        return self.signal(PullRequest(f"{uuid.uuid4()}@peer.example", now, mpc))

    def open(self, content_type: str, body: bytes, *, allow_unsigned: bool = True):
        """Open what the partner sent: (opened or unauthenticated, parts)."""
        envelope, parts = split(content_type, body)
        terms = Terms(profile=PROFILES[self.profile], signers=self.partner_signing)
        opened = open_envelope(
            envelope.octets, envelope.charset, choose=lambda _: terms, trust=lambda _: None, allow_unsigned=allow_unsigned
        )
        return opened, parts

    def answer(self, status: int, content_type: str, body: bytes) -> Answer:
        """Judge an answer. Raises when it is signed wrongly."""
        opened, _ = self.open(content_type, body)
        return Answer(status, opened.unit, getattr(opened, "signer", None), opened.envelope)

    def receive(self, content_type: str, body: bytes) -> tuple[UserMessage, list[bytes], tuple]:
        """Take a user message: header, contents in PartInfo order, references."""
        opened, parts = self.open(content_type, body)
        found = dict(parts)
        key = unwrap_content_key(opened, [self.keys.decryption_key]) if opened.promised else None
        contents, proven = [], []
        for info in opened.unit.parts:
            prover = PartProver(opened, info.cid, key, PartLimits(content=1 << 30, canonical=8 << 20))
            contents.append(b"".join([*prover.feed(found[info.cid]), *prover.finish()]))
            proven.append(prover.proven)
        prove(opened, proven)
        return opened.unit, contents, opened.references

    def receipt_for(self, message: UserMessage, references) -> bytes:
        """A signed receipt."""
        return self.signal(Receipt(
            message_id=f"{uuid.uuid4()}@peer.example", timestamp=datetime.datetime.now(UTC),
            ref_to_message_id=message.message_id, references=tuple(references),
        ))


def split(content_type: str, body: bytes) -> tuple[EnvelopeReady, list[tuple[str, bytes]]]:
    """The envelope and the parts of a body."""
    reader = MessageReader(content_type)
    envelope, parts = None, []
    for event in [*reader.feed(body), *reader.close()]:
        match event:
            case EnvelopeReady():
                envelope = event
            case PartBegins(cid=cid):
                parts.append((cid, bytearray()))
            case PartData(block=block):
                parts[-1][1].extend(block)
    return envelope, [(cid, bytes(octets)) for cid, octets in parts]


def check_receipt(answer: Answer, sent: Sent) -> None:
    """The receipt is there, signed by the partner, and repeats what was signed."""
    assert isinstance(answer.unit, Receipt), answer.unit
    assert answer.signer is not None
    receipts.check(answer.unit, sent.wire.references, sent.message.message_id)
