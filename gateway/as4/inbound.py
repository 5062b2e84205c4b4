"""The inbound ladder of types: Envelope → Opened → Proven [threats 1.1].

`open_envelope` judges everything that the envelope alone can tell, in this order: shape;
the terms for the claimed sender; the signer's certificate, which must be one of those the
terms name, or one that is vouched for by path; the algorithms and what the signature
covers; SignatureValue; the digests of the very nodes Messaging and Body. Only then is a
content key worth unwrapping and a part worth reading. `PartProver` takes one part through
decryption, digest and inflation, block by block; `prove` is the only maker of `Proven`, which
`policy.accept` asks for.

Everything after the verification works on Structs made from the verified nodes; no
element leaves `open_envelope`.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.compression import Inflater
from gateway.as4.header import read_messaging
from gateway.as4.pmode import PathTrust
from gateway.as4.profiles.profile import Profile
from gateway.as4.soap import SoapEnvelope, read_envelope
from gateway.as4.units import Error, MessageUnit, PartInfo, PartyId, Receipt, Reference, UserMessage
from gateway.as4.wss.decrypt import EncryptedKey, EncryptedPart, PartOpener, read_encryption
from gateway.as4.wss.security import SecurityHeader, read_security
from gateway.as4.wss.tokens import KeyReference, read_key_info, resolve
from gateway.as4.wss.verify import (
    Form,
    PartDigest,
    SignatureElement,
    check_allowed,
    check_coverage,
    check_digest,
    check_value,
    digest_form,
    read_signature,
    read_signed_info,
)
from gateway.errors import (
    CertificateRefused,
    DecompressionFailure,
    EbmsError,
    ExternalPayloadError,
    FailedAuthentication,
    FailedDecryption,
    MimeInconsistency,
    PolicyNoncompliance,
    ValueInconsistent,
)
from gateway.stages import point


class Voucher(Struct, frozen=True):
    """By which rule, and as which party, a certificate that nobody pinned may sign [as4 4.9].

    Without a party the certificate has a path, and whose it is must still be asked.
    """

    trust: PathTrust
    party_id: PartyId | None = None


class Terms(Struct, frozen=True):
    """Under which rules a message is judged, chosen by what it claims [threats 1.1 step 5].

    `signers` are the DER certificates accepted for the claimed party, active first; `vouchers`
    the rules by which a certificate that the message carries is accepted, too.
    """

    profile: Profile
    signers: tuple[bytes, ...]
    vouchers: tuple[Voucher, ...] = ()


#: Gives the terms for an unproven unit; raises `EbmsError` when there are none.
Choose = Callable[[MessageUnit], Terms]
#: Checks a pinned DER certificate (validity, usage); raises `CertificateRefused`.
Trust = Callable[[bytes], None]
#: Checks a DER certificate that is not pinned, with those carried beside it, by a rule: its path,
#: and that it is the party's. Gives the path; raises `CertificateRefused`.
Vouch = Callable[[bytes, tuple[bytes, ...], Voucher], tuple[bytes, ...]]


class Opened(Struct, frozen=True):
    """A message whose signature is right, as far as the envelope goes.

    `references` are all of the signature in its order, `promised` those of the parts by
    Content-ID: what the parts must still meet. `envelope` are the octets as received.
    `voucher` is the rule that accepted the signer, None for a pinned one; `path` the certificates from the
    signer to the anchor of that rule.
    """

    unit: MessageUnit
    signer: bytes
    references: tuple[Reference, ...]
    promised: dict[str, Reference]
    encrypted_key: EncryptedKey | None
    encrypted_parts: dict[str, EncryptedPart]
    envelope: bytes
    voucher: Voucher | None = None
    path: tuple[bytes, ...] = ()


class Unauthenticated(Struct, frozen=True):
    """A signal that nobody signed: it may be noted and shown, and decides nothing [as4 4.4]."""

    unit: Receipt | Error
    envelope: bytes


def open_envelope(
    octets: bytes, charset: str | None, *, choose: Choose, trust: Trust, vouch: Vouch | None = None,
    allow_unsigned: bool = False, strangers: bool = False,
) -> Opened | Unauthenticated:
    """Open an envelope; `charset` is the parameter of its media type.

    With `allow_unsigned` a Receipt or Error without signature is returned as
    `Unauthenticated`; a signature that is there must be right all the same. `choose` is
    called before the Security header is read, so that a refusal can name the message and
    be signed by the party it was for; it changes nothing but the terms. `vouch` is asked about
    a signer that is none of the pinned ones, where the terms have vouchers. With `strangers` the
    refusal of a certificate that is none of them names it, if it is the one that signed: whoever
    shows somebody else's certificate has not got its key.

    Raises what `soap.read_envelope`, `header.read_messaging` and `choose` raise,
    `PolicyNoncompliance` for the kind of security, `FailedAuthentication` for its proof.
    """
    envelope = read_envelope(octets, charset)
    unit = read_messaging(envelope.messaging)
    terms = choose(unit)

    header = None if envelope.security is None else read_security(envelope.security)
    if header is None or header.signature is None:
        if allow_unsigned and isinstance(unit, Receipt | Error):
            return Unauthenticated(unit, octets)
        raise PolicyNoncompliance("the message is not signed")
    cids = _cids(unit)
    signature = read_signature(header.signature)

    reference = read_key_info(signature.key_info, header.element, envelope.ids, bare=False)
    try:
        signer, voucher, path = _signer(reference, terms, trust, vouch)
    except FailedAuthentication as refused:
        certificate = reference.certificate
        if strangers and certificate and certificate not in terms.signers and reference.names(certificate):
            # Whatever else is wrong, the refusal stays what it is.
            with contextlib.suppress(EbmsError):
                _check_signed(envelope, header, signature, certificate, cids, terms.profile, known=False)
                refused.stranger = certificate
        raise
    references, parts, encrypted_key, encrypted_parts = _check_signed(
        envelope, header, signature, signer, cids, terms.profile
    )
    return Opened(unit, signer, references, parts, encrypted_key, encrypted_parts, octets, voucher, path)


def _check_signed(
    envelope: SoapEnvelope, header: SecurityHeader, signature: SignatureElement, signer: bytes, cids: frozenset[str],
    profile: Profile, *, known: bool = True,
) -> tuple[tuple[Reference, ...], dict[str, Reference], EncryptedKey | None, dict[str, EncryptedPart]]:  # fmt: skip
    """What the signature covers, once it is right: all references, those of the parts, and how these are encrypted.

    Raises `PolicyNoncompliance`, `FailedAuthentication`.
    """
    info = read_signed_info(signature.signed_info, 2 + len(cids))
    check_allowed(info, profile)
    coverage = check_coverage(info.references, envelope.ids, envelope.messaging, envelope.body, cids)
    encrypted_key, encrypted_parts = read_encryption(header, envelope.ids, cids, profile)
    check_value(signature, info, signer, profile, known=known)
    point("IB08")
    check_digest(envelope.messaging, coverage.messaging)
    check_digest(envelope.body, coverage.body)
    point("IB09")
    return info.references, coverage.parts, encrypted_key, encrypted_parts


def _cids(unit: MessageUnit) -> frozenset[str]:
    """The parts that must be signed and encrypted: one for each PartInfo."""
    if not isinstance(unit, UserMessage):
        return frozenset()
    cids = [info.cid for info in unit.parts]
    if None in cids:
        raise ExternalPayloadError("a payload outside the message", where="eb:PartInfo/@href")
    if len(set(cids)) != len(cids):
        raise ValueInconsistent("two PartInfo for one part", where="eb:PartInfo/@href")
    return frozenset(cids)


def _signer(
    reference: KeyReference, terms: Terms, trust: Trust, vouch: Vouch | None
) -> tuple[bytes, Voucher | None, tuple[bytes, ...]]:
    """The certificate that the signature names, who vouched for it, and its path. Raises `FailedAuthentication`.

    A certificate in the message counts only when it is byte for byte one of the pinned signers;
    other names are looked up among them and nowhere else [threats 1.1 step 6, F01, F10]. Where
    one name fits the active and the next certificate (a renewal with the same key), the first
    that `trust` takes is meant. A pinned certificate that is refused gets no second chance by path.
    """
    refused = "the signer's certificate is not one of the claimed party's"
    pinned = resolve(reference, terms.signers)
    for certificate in pinned:
        try:
            trust(certificate)
        except CertificateRefused as error:
            refused = f"the signer's certificate is refused: {error}"
            continue
        return certificate, None, ()
    certificate = reference.certificate
    if vouch is not None and terms.vouchers and not pinned and certificate and reference.names(certificate):
        for voucher in terms.vouchers:
            try:
                path = vouch(certificate, reference.chain, voucher)
            except CertificateRefused as error:
                refused = f"the signer's certificate is refused: {error}"
                continue
            return certificate, voucher, path
    raise FailedAuthentication(refused)


# -- parts ----------------------------------------------------------------------


class PartLimits(Struct, frozen=True):
    """Bounds of one part: its content, what is kept to canonicalise it, its inflation [threats 1.5]."""

    content: int
    canonical: int
    ratio: int = 200
    grace: int = 1 << 20


class ProvenPart(Struct, frozen=True):
    """One part that met its tag and its promised digest.

    `size` and `sha256` are of the content; `wire_size` and `wire_digest` of what was
    signed (still compressed, in the form `digest_form`). `mime_type` is the signed
    property: MIME headers have no effect [threats D06].
    """

    cid: str
    info: PartInfo
    mime_type: str
    size: int
    sha256: bytes
    compressed: bool
    wire_size: int
    wire_digest: bytes
    digest_form: Form = "raw"


class PartProver:
    """Take one part from the wire to its content: decrypt, digest, inflate.

    Exhaust `feed(block)` for every block, then call `finish`, then read `proven`. What
    comes out before is unproven and may only go where it can still be undone.

    Errors are told in the order of their cause, not of their discovery: a wrong tag
    (0102) before a wrong digest (0101) before gzip or size (0303, 0007); otherwise a
    flipped bit would be called a damaged gzip stream.
    """

    def __init__(self, opened: Opened, cid: str, content_key: bytes | None, limits: PartLimits) -> None:
        if content_key is None:
            raise FailedDecryption("no content key")
        if cid not in opened.promised:
            raise MimeInconsistency("a part that no PartInfo names", where="MIME part")
        number, self._info = next((n, i) for n, i in enumerate(opened.unit.parts, 1) if i.cid == cid)
        self._place = f"eb:PartInfo[{number}]"
        if self._info.value_of(ns.COMPRESSION_TYPE) not in (None, ns.GZIP):
            raise ValueInconsistent(
                "a compression other than gzip", where=f"{self._place}/eb:PartProperties/eb:Property[CompressionType]"
            )
        self._promised = opened.promised[cid]
        form = _form(self._info, opened.encrypted_parts[cid])
        self._digest = PartDigest(self._promised.digest_method, form, limits.canonical)
        self._opener = PartOpener(content_key)
        self._inflater = Inflater(limits.content, limits.ratio, limits.grace) if self._info.compressed else None
        self._limit = limits.content
        # Uncompressed, the content is what was signed, and its digest is made already.
        once = self._inflater is None and self._promised.digest_method == ns.SHA256
        self._content = None if once else hashlib.sha256()
        self._size = self._wire_size = 0
        self._failure: DecompressionFailure | MimeInconsistency | None = None
        self._proven: ProvenPart | None = None

    def feed(self, block: bytes) -> Iterator[bytes]:
        """Content that has become available. Unproven."""
        octets = self._opener.update(block)
        point("IB10")
        self._wire_size += len(octets)
        self._digest.update(octets)
        if self._inflater is not None:
            return self._inflate(octets)
        if self._failure is None and octets:
            if self._wire_size > self._limit:
                self._failure = MimeInconsistency("a part too large", where=f"{self._place}: too large", status=413)
            else:
                if self._content is not None:
                    self._content.update(octets)
                self._size += len(octets)
                return iter((octets,))
        return iter(())

    def _inflate(self, octets: bytes) -> Iterator[bytes]:
        if self._failure is not None:
            return
        try:
            for content in self._inflater.feed(octets):
                self._content.update(content)
                self._size += len(content)
                yield content
        except DecompressionFailure as failure:
            self._failure = self._placed(failure)

    def _placed(self, failure: DecompressionFailure) -> DecompressionFailure:
        """The same, told with the part it was; the words of `Inflater` are constants."""
        failure.where = f"{self._place}: {failure.detail}"
        return failure

    def finish(self) -> Iterator[bytes]:
        """Prove the part, or raise `FailedDecryption`, `FailedAuthentication`, `DecompressionFailure`,
        `MimeInconsistency`. No content is left to give; the iterator is for callers that drain it."""
        self._opener.finish()
        point("IB11")
        if not self._digest.meets(self._promised.digest):
            point("IB12")
            raise FailedAuthentication("a part does not have the digest that was signed")
        if self._failure is not None:
            raise self._failure
        if self._inflater is not None:
            try:
                self._inflater.finish()
            except DecompressionFailure as failure:
                raise self._placed(failure) from None
        self._proven = ProvenPart(
            cid=self._info.cid,
            info=self._info,
            mime_type=self._info.mime_type or ns.OCTET_STREAM,
            size=self._size,
            sha256=self._digest.raw if self._content is None else self._content.digest(),
            compressed=self._inflater is not None,
            wire_size=self._wire_size,
            wire_digest=self._promised.digest,
            digest_form=self._digest.matched,
        )
        return iter(())

    @property
    def proven(self) -> ProvenPart:
        """What was proven. `RuntimeError` before `finish` has returned."""
        if self._proven is None:
            raise RuntimeError("the part is not proven yet")
        return self._proven


def _form(info: PartInfo, encrypted: EncryptedPart) -> Form:
    """What else than the octets the signer may have digested [as4 3.6].

    The media type it had then stands, unsigned, at the EncryptedData; where that says
    nothing, the signed MimeType does. Compressed parts are digested as they are.
    """
    if info.compressed:
        return "raw"
    form = digest_form(encrypted.mime_type)
    return digest_form(info.mime_type) if form == "raw" else form


# -- proven ---------------------------------------------------------------------

_MAKER = object()


class Proven(Struct, frozen=True):
    """A user message of which nothing is unsigned, unencrypted or missing. Made by `prove` alone."""

    user_message: UserMessage
    parts: tuple[ProvenPart, ...]
    signer: bytes
    references: tuple[Reference, ...]
    envelope: bytes
    voucher: Voucher | None = None
    maker: object = None

    def __post_init__(self) -> None:
        if self.maker is not _MAKER:
            raise TypeError("only prove() makes a Proven")


def prove(opened: Opened, parts: Sequence[ProvenPart]) -> Proven:
    """Hold what was promised against what came: the same parts, each once, each as signed.

    Raises `MimeInconsistency` for a missing or repeated part, `FailedAuthentication` for
    another digest. The parts of the result are in the order of PartInfo.
    """
    if not isinstance(opened, Opened) or not isinstance(opened.unit, UserMessage):
        raise TypeError("only an opened user message can be proven")
    found = {part.cid: part for part in parts}
    if len(found) != len(parts) or found.keys() != opened.promised.keys():
        raise MimeInconsistency("not exactly the described parts came", where="eb:PartInfo")
    for cid, reference in opened.promised.items():
        if found[cid].wire_digest != reference.digest:
            raise FailedAuthentication("a part does not have the digest that was signed")
    return Proven(
        user_message=opened.unit,
        parts=tuple(found[info.cid] for info in opened.unit.parts),
        signer=opened.signer,
        references=opened.references,
        envelope=opened.envelope,
        voucher=opened.voucher,
        maker=_MAKER,
    )
