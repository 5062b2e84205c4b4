"""Keys, messages and short ways for the WS-Security tests.

The three suites use the keys of the recorded phase4 exchanges; others are made here. A
message is made by our own sender (`send`) or, to break it, by its parts (`craft`).
"""

import datetime
import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key, load_pem_private_key
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from gateway.as4 import ns
from gateway.as4.compression import Deflater
from gateway.as4.header import write_messaging
from gateway.as4.inbound import Opened, PartLimits, PartProver, Proven, Terms, open_envelope, prove
from gateway.as4.mime import EnvelopeReady, MessageReader, PartBegins, PartData
from gateway.as4.outbound import Draft, OutboundPart, Wire, secure
from gateway.as4.pmode import Leg, Party
from gateway.as4.profiles import PROFILES
from gateway.as4.profiles.profile import Profile
from gateway.as4.soap import body_canonical, envelope
from gateway.as4.units import PartInfo, PartyId, Property, Service, UserMessage
from gateway.as4.wss.algorithms import algorithm_for, oaep
from gateway.as4.wss.decrypt import unwrap_content_key
from gateway.as4.wss.encrypt import encrypted_data, encrypted_key
from gateway.as4.wss.security import security_header
from gateway.as4.wss.sign import element_reference, part_reference, sign
from gateway.errors import MimeInconsistency

VECTORS = Path(__file__).parents[3] / "vectors" / "phase4-4.5.4-wire"
#: Vectors of other projects; they are not part of ours.
FOREIGN = Path(__file__).parents[5] / "shared" / "vectors"
NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)


# -- keys -------------------------------------------------------------------------


class SoftSigningKey:
    def __init__(self, key, certificate: bytes, chain: tuple[bytes, ...] = ()) -> None:
        self.key, self.certificate, self.chain = key, certificate, chain
        self.algorithm = algorithm_for(key.public_key())

    def sign(self, octets: bytes) -> bytes:
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(octets, padding.PKCS1v15(), SHA256())
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self.key.sign(octets, ec.ECDSA(SHA256())))
            size = (self.key.key_size + 7) // 8
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        return self.key.sign(octets)


class SoftDecryptionKey:
    def __init__(self, key, certificate: bytes) -> None:
        self.key, self.certificate = key, certificate
        self.used = 0

    def unwrap_oaep(self, wrapped: bytes, *, digest: str, mgf: str) -> bytes:
        self.used += 1
        return self.key.decrypt(wrapped, oaep(digest, mgf))

    def agree(self, originator: bytes) -> bytes:
        self.used += 1
        public = load_der_public_key(originator)
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return self.key.exchange(ec.ECDH(), public)
        return self.key.exchange(public)


def certify(public, *, name: str = "party", issuer=None, issuer_key=None, issuer_name: x509.Name | None = None,
            ski: bool = True, serial: int | None = None) -> bytes:
    """A certificate for `public`; self-made authority unless one is given."""
    issuer_key = issuer_key or authority()
    subject = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "LV"), x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder().subject_name(subject)
        .issuer_name(issuer_name or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")]))
        .public_key(public).serial_number(serial or x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(days=1)).not_valid_after(NOW + datetime.timedelta(days=1))
    )
    if ski:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    algorithm = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else SHA256()
    return builder.sign(issuer_key, algorithm).public_bytes(Encoding.DER)


@functools.cache
def authority():
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Suite:
    """One profile with the keys of a sender (signing) and a receiver (decryption)."""

    name: str
    profile: Profile
    sender: SoftSigningKey
    receiver: SoftDecryptionKey
    answerer: SoftSigningKey

    def __repr__(self) -> str:
        return self.name

    @property
    def terms(self) -> Terms:
        return Terms(self.profile, (self.sender.certificate,))

    def leg(self, **changes) -> Leg:
        message = user_message()
        fields = {
            "pmode_id": "pm", "profile": self.profile.name,
            "from_party": Party("a", message.from_party, signing=(self.sender.certificate,)), "from_role": message.from_role,
            "to_party": Party("b", message.to_party), "to_role": message.to_role,
            "service": message.service, "action": message.action,
        }
        return Leg(**{**fields, **changes})


def _pem(folder: Path, name: str):
    certificate = x509.load_pem_x509_certificate((folder / f"{name}.cert.pem").read_bytes())
    key = load_pem_private_key((folder / f"{name}.key.pem").read_bytes(), None)
    return key, certificate.public_bytes(Encoding.DER)


@functools.cache
def recorded(folder: str) -> Suite:
    """The suite whose keys lie beside the recorded exchanges of that folder."""
    keys = VECTORS / folder / "keys"
    return Suite(
        folder,
        PROFILES[RECORDED[folder]],
        SoftSigningKey(*_pem(keys, "a-sign"), (_pem(keys, "ca")[1],)),
        SoftDecryptionKey(*_pem(keys, "b-enc")),
        SoftSigningKey(*_pem(keys, "b-sign")),
    )


RECORDED = {
    "edelivery1-rsa2048": "edelivery-as4/1.15",
    "edelivery2-eddsa": "edelivery-as4/2.0",
    "edelivery2-ecdsa": "edelivery-as4/2.0-ecdsa",
}


@functools.cache
def on_curve(curve: type[ec.EllipticCurve]) -> Suite:
    """The Alternative Elliptic Curve option on another curve."""
    signing, decryption = ec.generate_private_key(curve()), ec.generate_private_key(curve())
    sender = SoftSigningKey(signing, certify(signing.public_key()))
    return Suite(
        curve.name, PROFILES["edelivery-as4/2.0-ecdsa"], sender,
        SoftDecryptionKey(decryption, certify(decryption.public_key())), sender,
    )


@functools.cache
def mixed() -> Suite:
    """Ed25519 and X25519 certificates of an ECDSA authority."""
    signing, decryption = ed25519.Ed25519PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    sender = SoftSigningKey(signing, certify(signing.public_key()))
    return Suite(
        "mixed", PROFILES["edelivery-as4/2.0"], sender,
        SoftDecryptionKey(decryption, certify(decryption.public_key())), sender,
    )


SUITES = [recorded(folder) for folder in RECORDED]
RSA, EDDSA, ECDSA = SUITES


# -- messages ---------------------------------------------------------------------


def gzipped(content: bytes) -> bytes:
    deflater = Deflater()
    return deflater.feed(content) + deflater.finish()


@dataclass(frozen=True)
class Payload:
    content: bytes
    mime_type: str = "application/xml"
    compress: bool = True
    #: The media type at signing time where nothing is compressed.
    signed_as: str = "application/octet-stream"
    digest_of: bytes | None = None
    cid: str = "part-{number}@as4.example"

    @property
    def octets(self) -> bytes:
        return gzipped(self.content) if self.compress else self.content


def outbound_part(number: int, payload: Payload) -> OutboundPart:
    cid = payload.cid.format(number=number)
    properties = [Property(ns.MIME_TYPE, payload.mime_type)]
    if payload.compress:
        properties.append(Property(ns.COMPRESSION_TYPE, ns.GZIP))
    octets = payload.octets
    digested = octets if payload.digest_of is None else payload.digest_of
    return OutboundPart(
        info=PartInfo(f"cid:{cid}", tuple(properties)),
        cid=cid,
        content_type="application/gzip" if payload.compress else payload.signed_as,
        wire_size=len(octets),
        wire_digest=hashlib.sha256(digested).digest(),
    )


def user_message(parts=(), **changes) -> UserMessage:
    fields = {
        "message_id": "8d1f3c52@a.example", "timestamp": NOW,
        "from_party": PartyId("gw-a", "urn:test:party"), "from_role": ns.ROLE_INITIATOR,
        "to_party": PartyId("gw-b", "urn:test:party"), "to_role": ns.ROLE_RESPONDER,
        "service": Service("svc", "urn:test:service"), "action": "act", "conversation_id": "conv-1",
        "properties": (Property(ns.ORIGINAL_SENDER, "C1"), Property(ns.FINAL_RECIPIENT, "C4")),
        "parts": tuple(part.info for part in parts),
    }
    return UserMessage(**{**fields, **changes})


def draft(*payloads: Payload, **changes) -> Draft:
    parts = tuple(outbound_part(number, payload) for number, payload in enumerate(payloads, 1))
    return Draft(user_message(parts, **changes), parts)


def wire(suite: Suite, what: Draft, *, signature_token="bst", encryption_token="bst", entropy=os.urandom) -> Wire:
    return secure(
        what, profile=suite.profile, key=suite.sender,
        recipient=suite.receiver.certificate if what.parts else None,
        signature_token=signature_token, encryption_token=encryption_token, entropy=entropy,
    )


def send(suite: Suite, *payloads: Payload, block: int = 1 << 16, **options) -> tuple[str, bytes]:
    """(content type, body) as our sender writes it."""
    made = wire(suite, draft(*payloads), **options)

    def octets(index: int):
        whole = payloads[index].octets
        return [whole[at : at + block] for at in range(0, len(whole), block)]

    body = b"".join(made.stream(octets))
    assert len(body) == made.content_length
    return made.content_type, body


def craft(
    suite: Suite,
    *payloads: Payload,
    references=lambda made: made,
    security=lambda children: children,
    info=lambda text: text,
    key=None,
    parts=None,
    message=None,
) -> bytes:
    """An envelope made of pieces, so that each of them can be spoiled and all the rest signed properly.

    `references` edits the list that is signed, `info` the text of SignedInfo before it is
    signed, `security` the list of children of wsse:Security.
    """
    key = key or suite.sender
    parts = [outbound_part(number, payload) for number, payload in enumerate(payloads, 1)] if parts is None else parts
    messaging = write_messaging(message or user_message(parts), "m")
    made = references([
        element_reference("m", hashlib.sha256(messaging.encode()).digest()),
        element_reference("b", hashlib.sha256(body_canonical("b").encode()).digest()),
        *(part_reference(part.cid, part.wire_digest) for part in parts),
    ])

    class Key:
        certificate, chain, algorithm = key.certificate, key.chain, key.algorithm

        def sign(self, octets: bytes) -> bytes:
            self.info = info(octets.decode())
            return key.sign(self.info.encode())

    signer = Key()
    token, signature = sign(signer, made, token="bst", token_id="signer")
    at, end = signature.index("<ds:SignedInfo"), signature.index("<ds:SignatureValue")
    signature = signature[:at] + signer.info + signature[end:]
    children = []
    if parts:
        ids = [f"ED-{number}" for number in range(1, len(parts) + 1)]
        children = [
            *encrypted_key(
                CONTENT_KEY, suite.receiver.certificate, suite.profile, token="bst", token_id="recipient",
                key_id="EK", data_ids=ids, entropy=os.urandom,
            ),
            *(
                encrypted_data(id, "EK", part.cid, part.content_type, ns.AES128_GCM)
                for id, part in zip(ids, parts, strict=True)
            ),
        ]
    return envelope(messaging, "b", security_header(security([*children, token, signature])))


CONTENT_KEY = bytes(range(16))


# -- receiving --------------------------------------------------------------------


def split(content_type: str, body: bytes) -> tuple[EnvelopeReady, dict[str, bytes]]:
    reader = MessageReader(content_type)
    found, parts, current = None, {}, None
    for event in [*reader.feed(body), *reader.close()]:
        match event:
            case EnvelopeReady():
                found = event
            case PartBegins(cid=cid):
                current = parts[cid] = bytearray()
            case PartData(block=block):
                current += block
    return found, {cid: bytes(octets) for cid, octets in parts.items()}


def accept_all(_: bytes) -> None:
    """A `Trust` that has nothing against any certificate."""


def open_octets(octets: bytes, terms: Terms, *, charset=None, trust=accept_all, **options) -> Opened:
    return open_envelope(octets, charset, choose=lambda _: terms, trust=trust, **options)


def receive(
    content_type: str, body: bytes, terms: Terms, keys, *, block: int = 1 << 16, limits=PartLimits(1 << 30, 8 << 20)
) -> tuple[Proven, dict[str, bytes]]:
    """Open, decrypt and prove a whole message; every MIME part must be a described one."""
    ready, parts = split(content_type, body)
    opened = open_octets(ready.octets, terms, charset=ready.charset)
    if parts.keys() != opened.promised.keys():
        raise MimeInconsistency("parts and PartInfo differ")
    content_key = unwrap_content_key(opened, keys) if parts else None
    contents, proven = {}, []
    for cid, octets in parts.items():
        prover = PartProver(opened, cid, content_key, limits)
        content = bytearray()
        for at in range(0, len(octets), block):
            for piece in prover.feed(octets[at : at + block]):
                content += piece
        for piece in prover.finish():
            content += piece
        contents[cid] = bytes(content)
        proven.append(prover.proven)
    return prove(opened, proven), contents


def envelope_of(content_type: str, body: bytes) -> bytes:
    return split(content_type, body)[0].octets


def with_terms(suite: Suite, **changes) -> Terms:
    return Terms(replace_profile(suite.profile, **changes), (suite.sender.certificate,))


def replace_profile(profile: Profile, **changes) -> Profile:
    return replace(profile, **changes)
