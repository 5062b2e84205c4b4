"""The outbound ladder: Draft → Wire, and signals as whole envelopes.

A `Draft` says what a message is: its header and, for each part, the digest and size it was
frozen with. `secure` signs that, wraps a fresh content key for the recipient and lays the
message out, without reading a payload and without parsing anything: eb:Messaging, Body and
SignedInfo are written in canonical form and digested as text. The `Wire` then knows its
Content-Length, and encrypts each part while it streams.

wsu:Ids derive from the MessageId, so every attempt signs equal octets and any receipt for
any of them fits [as4 4.2].
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.header import write_messaging
from gateway.as4.pmode import TokenReference
from gateway.as4.profiles.profile import Profile
from gateway.as4.related import RelatedWriter, new_boundary
from gateway.as4.soap import body_canonical, envelope
from gateway.as4.units import Error, PartInfo, PullRequest, Receipt, Reference, UserMessage
from gateway.as4.wss.encrypt import IV_SIZE, OVERHEAD, PartSealer, encrypted_data, encrypted_key, new_content_key
from gateway.as4.wss.keys import SigningKey
from gateway.as4.wss.security import security_header
from gateway.as4.wss.sign import element_reference, part_reference, sign
from gateway.errors import KeyUnavailable, ValueInconsistent
from gateway.stages import point, stage

Entropy = Callable[[int], bytes]

SOAP_CONTENT_TYPE = f"{ns.SOAP_MEDIA_TYPE}; charset=UTF-8"


class OutboundPart(Struct, frozen=True):
    """A frozen part. `info` is final, with MimeType and CompressionType.

    `content_type` is the media type of the octets when they are signed, `wire_size` and
    `wire_digest` are their number and their SHA-256 (in the form that type asks for).
    """

    info: PartInfo
    cid: str
    content_type: str
    wire_size: int
    wire_digest: bytes


class Draft(Struct, frozen=True):
    """A user message to be secured, parts in the order of PartInfo."""

    user_message: UserMessage
    parts: tuple[OutboundPart, ...] = ()


class Wire:
    """A secured message, ready to be streamed once.

    On the wire: `root`, then for each part `part_head(i)` and what `sealer(i)` makes of its
    octets, then `epilogue`; `content_length` octets in all. A message without parts is
    plain SOAP: `root` is all of it. `envelope` is the signed SOAP envelope by itself, `signer` the
    certificate (DER) that signed it.
    """

    def __init__(
        self,
        *,
        envelope: bytes,
        references: tuple[Reference, ...],
        signer: bytes,
        parts: tuple[OutboundPart, ...] = (),
        content_key: bytes = b"",
        entropy: Entropy,
    ) -> None:
        self.envelope, self.references, self.signer = envelope, references, signer
        self._parts, self._content_key = parts, content_key
        # All IVs now, one a part, each taken once: see `sealer`.
        self._ivs: list[bytes | None] = [entropy(IV_SIZE) for _ in parts]
        if parts:
            self._writer = RelatedWriter(
                new_boundary(entropy),
                envelope,
                [(part.cid, ns.OCTET_STREAM, part.wire_size + OVERHEAD) for part in parts],
            )
            self.content_type, self.content_length = self._writer.content_type, self._writer.content_length
            self.root, self.epilogue = self._writer.root(), self._writer.epilogue
        else:
            self.content_type, self.content_length = SOAP_CONTENT_TYPE, len(envelope)
            self.root, self.epilogue = envelope, b""

    def part_head(self, index: int) -> bytes:
        """The delimiter and the MIME headers before part `index`."""
        return self._writer.part_head(index)

    def sealer(self, index: int) -> PartSealer:
        """The encryption of part `index`. Once only: an IV that is used twice betrays both texts."""
        iv, self._ivs[index] = self._ivs[index], None
        if iv is None:
            raise RuntimeError("this part has been encrypted already; an attempt needs a new Wire")
        return PartSealer(self._content_key, iv, self._parts[index].wire_size)

    def stream(self, open_part: Callable[[int], Iterable[bytes]]) -> Iterator[bytes]:
        """The whole body; `open_part(i)` gives the octets of part `i` as they were signed."""
        yield self.root
        for index in range(len(self._parts)):
            sealer = self.sealer(index)
            yield self.part_head(index)
            for block in open_part(index):
                yield sealer.update(block)
            yield sealer.finish()
        if self.epilogue:
            yield self.epilogue


def secure(
    draft: Draft,
    *,
    profile: Profile,
    key: SigningKey,
    recipient: bytes | None,
    signature_token: TokenReference,
    encryption_token: TokenReference,
    entropy: Entropy,
) -> Wire:
    """Sign a draft and encrypt its parts for `recipient` (DER; None only without parts).

    The references are those a receipt must repeat. Raises `KeyUnavailable` when the signing
    key does not fit the profile, `CertificateRefused` when the recipient's does not,
    `ValueInconsistent` for a Content-ID or media type that may not go out, and what
    `header.write_messaging` raises. Stages: encrypt (the content key; parts are encrypted
    while they are sent) and sign.
    """
    message, parts = draft.user_message, draft.parts
    _check_key(key, profile)
    if any(part.info.cid != part.cid for part in parts) or tuple(part.info for part in parts) != message.parts:
        raise ValueInconsistent("the parts are not those of the header", where="eb:PayloadInfo")
    messaging_id, body_id = _wsu_ids(message.message_id)
    messaging = write_messaging(message, messaging_id)
    references = (
        *_header_references(messaging, messaging_id, body_id),
        *(part_reference(part.cid, part.wire_digest) for part in parts),
    )

    children: list[str] = []
    content_key = b""
    if parts:
        if recipient is None:
            raise KeyUnavailable("no certificate to encrypt the parts for")
        content_key = new_content_key(profile, entropy)
        with stage("encrypt"):
            children = _encryption(parts, content_key, recipient, profile, encryption_token, entropy)
    point("OB07")
    with stage("sign"):
        children += sign(key, references, token=signature_token, token_id="signer")  # noqa: S106 - an XML id
    return Wire(
        envelope=envelope(messaging, body_id, security_header(children)),
        references=references,
        signer=key.certificate,
        parts=parts,
        content_key=content_key,
        entropy=entropy,
    )


def secure_signal(
    unit: Receipt | Error | PullRequest,
    *,
    profile: Profile,
    key: SigningKey | None,
    token: TokenReference,
    entropy: Entropy,
) -> bytes:
    """The envelope of a signal, signed over Messaging and Body; never encrypted [as4 3.1].

    Without a key (an Error before our party is known) it goes out unsigned.
    """
    # Signals are not repeated, so their ids need not be: fresh ones tell two envelopes apart.
    fresh = entropy(16).hex()
    messaging_id, body_id = f"msg-{fresh}", f"body-{fresh}"
    messaging = write_messaging(unit, messaging_id)
    if key is None:
        if not isinstance(unit, Error):
            raise KeyUnavailable("a signal that must be signed has no key")
        return envelope(messaging, body_id)
    _check_key(key, profile)
    references = _header_references(messaging, messaging_id, body_id)
    signature = sign(key, references, token=token, token_id="signer")  # noqa: S106 - an XML id
    return envelope(messaging, body_id, security_header(signature))


def _check_key(key: SigningKey, profile: Profile) -> None:
    if key.algorithm != profile.send_signature:
        raise KeyUnavailable(f"the signing key does not sign with what {profile.name} demands")


def messaging_text(message: UserMessage) -> str:
    """eb:Messaging of `message` as every attempt writes and signs it."""
    return write_messaging(message, _wsu_ids(message.message_id)[0])


def _wsu_ids(message_id: str) -> tuple[str, str]:
    """Ids of Messaging and Body: NCNames, and the same in every attempt."""
    digest = hashlib.sha256(message_id.encode()).hexdigest()[:40]
    return f"msg-{digest}", f"body-{digest}"


def _header_references(messaging: str, messaging_id: str, body_id: str) -> tuple[Reference, Reference]:
    return (
        element_reference(messaging_id, hashlib.sha256(messaging.encode()).digest()),
        element_reference(body_id, hashlib.sha256(body_canonical(body_id).encode()).digest()),
    )


def _encryption(
    parts: tuple[OutboundPart, ...],
    content_key: bytes,
    recipient: bytes,
    profile: Profile,
    token: TokenReference,
    entropy: Entropy,
) -> list[str]:
    """Token, EncryptedKey and EncryptedData, in the order WSS4J must meet them [bsp R3208]."""
    data_ids = [f"ED-{number}" for number in range(1, len(parts) + 1)]
    point("OB06")
    return [
        *encrypted_key(
            content_key, recipient, profile, token=token, token_id="recipient",  # noqa: S106 - an XML id
            key_id="EK", data_ids=data_ids, entropy=entropy,
        ),
        *(
            encrypted_data(id, "EK", part.cid, part.content_type, profile.send_encryption)
            for id, part in zip(data_ids, parts, strict=True)
        ),
    ]  # fmt: skip
