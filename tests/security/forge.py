"""Messages that no honest sender makes: each piece of a valid one in the hands of a test.

`Packed` takes the body of a finished message apart and puts it together again; what is
changed there was changed on the way. `forge` signs whatever it is told to sign, so that a
message can be false and authentic at once.
"""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.as4 import ns
from gateway.as4.header import write_messaging
from gateway.as4.outbound import SOAP_CONTENT_TYPE
from gateway.as4.profiles import PROFILES
from gateway.as4.soap import body_canonical, envelope
from gateway.as4.units import PartInfo, Property, Reference, Transform, UserMessage
from gateway.as4.wss.algorithms import encode_base64
from gateway.as4.wss.encrypt import encrypted_data, encrypted_key
from gateway.as4.wss.security import security_header
from gateway.as4.wss.sign import element_reference, sign
from gateway.as4.xml import canonical, parse
from tests.peer import Peer


@dataclass
class Packed:
    """A multipart body in pieces: (header, content) of every part, the envelope first."""

    content_type: str
    boundary: bytes
    parts: list[tuple[bytes, bytes]]

    @classmethod
    def of(cls, content_type: str, body: bytes) -> "Packed":
        boundary = re.search(r'boundary="([^"]+)"', content_type)[1].encode()
        pieces = (b"\r\n" + body).split(b"\r\n--" + boundary)[1:-1]
        return cls(content_type, boundary, [tuple(p.removeprefix(b"\r\n").split(b"\r\n\r\n", 1)) for p in pieces])

    @property
    def envelope(self) -> bytes:
        return self.parts[0][1]

    def with_envelope(self, octets: bytes) -> "Packed":
        assert octets != self.envelope
        return Packed(self.content_type, self.boundary, [(self.parts[0][0], octets), *self.parts[1:]])

    def with_part(self, number: int, change: Callable[[bytes], bytes]) -> "Packed":
        head, octets = self.parts[number]
        return Packed(self.content_type, self.boundary,
                      [*self.parts[:number], (head, change(octets)), *self.parts[number + 1 :]])

    def with_head(self, number: int, change: Callable[[bytes], bytes]) -> "Packed":
        head, octets = self.parts[number]
        return Packed(self.content_type, self.boundary,
                      [*self.parts[:number], (change(head), octets), *self.parts[number + 1 :]])

    def with_parts(self, parts: Sequence[tuple[bytes, bytes]]) -> "Packed":
        return Packed(self.content_type, self.boundary, list(parts))

    def body(self, *, closed: bool = True) -> bytes:
        pieces = [b"--" + self.boundary + b"\r\n" + head + b"\r\n\r\n" + octets for head, octets in self.parts]
        return b"\r\n".join(pieces) + b"\r\n--" + self.boundary + (b"--\r\n" if closed else b"\r\n")

    @property
    def out(self) -> tuple[str, bytes]:
        return self.content_type, self.body()


@dataclass
class Part:
    """One payload of a forged message. What is None follows from the rest."""

    octets: bytes
    mime: str = "application/octet-stream"
    cid: str = field(default_factory=lambda: f"p-{os.urandom(6).hex()}@peer.example")
    properties: tuple[Property, ...] | None = None
    gzip: bool = False
    href: str | None = None        # in eb:PartInfo; "" leaves the PartInfo out
    signed: str | None = None      # URI of the reference; "" leaves it out
    encrypted: str | None = None   # cid of the EncryptedData; "" leaves it out
    content_id: str | None = None  # in the MIME header; "" leaves the part out
    digest: bytes | None = None
    iv: int = 12
    spoil: Callable[[bytes], bytes] = lambda octets: octets  # of IV, ciphertext and tag

    def info(self) -> PartInfo:
        properties = self.properties
        if properties is None:
            properties = (Property(ns.MIME_TYPE, self.mime),)
            if self.gzip:
                properties += (Property(ns.COMPRESSION_TYPE, ns.GZIP),)
        return PartInfo(f"cid:{self.cid}" if self.href is None else self.href, properties)


def forge(
    peer: Peer,
    parts: Sequence[Part] = (),
    *,
    messaging: Callable[[str], str] = lambda text: text,
    references: Callable[[list[Reference]], list[Reference]] = lambda references: references,
    key_xml: Callable[[str], str] = lambda text: text,
    recipient: bytes | None = None,
    key=None,
    order: Callable[[list], list] = lambda parts: parts,
    **header,
) -> tuple[str, bytes, UserMessage]:
    """(content type, body, header) of a message signed by the peer, whatever it says.

    `messaging` changes the text of eb:Messaging before it is signed; `key_xml` that of the
    EncryptedKey, which no signature covers; `order` the MIME parts.
    """
    profile = PROFILES[peer.profile]
    message = peer.header(parts=tuple(p.info() for p in parts if p.href != ""), **header)
    text = messaging(write_messaging(message, "m-1"))
    digests = hashlib.sha256(canonical(parse(text.encode(), budget=False))).digest(), hashlib.sha256(
        body_canonical("b-1").encode()).digest()
    signed = [element_reference("m-1", digests[0]), element_reference("b-1", digests[1])]
    for part in parts:
        if part.signed != "":
            digest = part.digest or hashlib.sha256(part.octets).digest()
            signed.append(Reference(part.signed or f"cid:{part.cid}", (Transform(ns.SWA_SIGNATURE),), ns.SHA256, digest,
                                    encode_base64(digest)))
    content_key = os.urandom(16)
    children = []
    if parts:
        encrypted = [p for p in parts if p.encrypted != ""]
        ids = [f"ED-{n}" for n, _ in enumerate(encrypted)]
        token, wrapped = encrypted_key(content_key, recipient or peer.partner_encryption, profile, token="bst",
                                       token_id="recipient", key_id="EK", data_ids=ids, entropy=os.urandom)
        children = [token, key_xml(wrapped), *(
            encrypted_data(id, "EK", p.encrypted or p.cid, p.mime, profile.send_encryption)
            for id, p in zip(ids, encrypted, strict=True))]
    children += sign(key or peer.keys.signing_key, references(signed), token="bst", token_id="signer")
    octets = envelope(text, "b-1", security_header(children))
    if not parts:
        return SOAP_CONTENT_TYPE, octets, message
    heads = [(b"Content-Type: application/soap+xml; charset=UTF-8\r\nContent-ID: <root@peer.example>", octets)]
    for part in parts:
        if part.content_id != "":
            iv = os.urandom(part.iv)
            sealed = part.spoil(iv + AESGCM(content_key).encrypt(iv, part.octets, None))
            cid = part.content_id or f"<{part.cid}>"
            heads.append((b"Content-Type: application/octet-stream\r\nContent-ID: " + cid.encode(), sealed))
    packed = Packed('multipart/related; type="application/soap+xml"; boundary="=_forged"', b"=_forged", order(heads))
    return *packed.out, message
