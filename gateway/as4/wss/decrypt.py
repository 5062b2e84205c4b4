"""Decrypt: what a message says about its encryption, the content key, and parts as they stream.

A part on the wire is  IV (12 octets) | ciphertext | tag (16)  [xenc11 5.2.4]. Nothing tells
beforehand where the ciphertext ends, so the opener always holds back the last 16 octets it
has seen: they may be the tag. What `update` returns is *unproven* until `finish` has
returned; a caller may hash it, inflate it under limits and write it inside a transaction
that is still open, and nothing made from it may be seen by anybody before.

What the profile does not allow is EBMS:0103 before a private key is used [threats E02];
whatever goes wrong after that is EBMS:0102, without a difference between the causes.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.mime import ContentIds
from gateway.as4.profiles.profile import Profile
from gateway.as4.wss.algorithms import CONTENT_KEY_SIZES, CURVES, SHA1_DIGEST, UNREADABLE, curve_uri
from gateway.as4.wss.encrypt import IV_SIZE, KEK_SIZE, TAG_SIZE, wrapping_key
from gateway.as4.wss.keys import DecryptionKey
from gateway.as4.wss.security import SecurityHeader, children, octets_of, only, refuse
from gateway.as4.wss.tokens import KeyReference, read_key_info, resolve
from gateway.as4.xml import Element
from gateway.errors import FailedDecryption


class Agreement(Struct, frozen=True):
    """xenc:AgreementMethod with HKDF.

    `originator` is SPKI DER (`curve` None), or an uncompressed point on the named curve.
    """

    method: str
    originator: bytes
    curve: str | None
    salt: bytes
    info: bytes


class EncryptedKey(Struct, frozen=True):
    """The one xenc:EncryptedKey: how the content key is protected, and for whom.

    Key transport has `digest` and `mgf`, key agreement has `agreement`.
    """

    method: str
    wrapped: bytes
    recipient: KeyReference
    digest: str | None = None
    mgf: str | None = None
    agreement: Agreement | None = None


class EncryptedPart(Struct, frozen=True):
    """xenc:EncryptedData of one part. `mime_type` is unsigned: it hints at a digest form, no more."""

    mime_type: str | None
    algorithm: str


# -- reading --------------------------------------------------------------------

_ENCRYPTION_METHOD = ns.qn(ns.XENC, "EncryptionMethod")
_KEY_INFO = ns.qn(ns.DS, "KeyInfo")
_CIPHER_DATA = ns.qn(ns.XENC, "CipherData")
_CIPHER_VALUE = ns.qn(ns.XENC, "CipherValue")
_CIPHER_REFERENCE = ns.qn(ns.XENC, "CipherReference")
_REFERENCE_LIST = ns.qn(ns.XENC, "ReferenceList")
_DATA_REFERENCE = ns.qn(ns.XENC, "DataReference")
_TRANSFORMS = ns.qn(ns.XENC, "Transforms")
_TRANSFORM = ns.qn(ns.DS, "Transform")
_DIGEST_METHOD = ns.qn(ns.DS, "DigestMethod")
#: The profile text says xenc:MGF, the schema xenc11:MGF: both are on the wire [as4 3.8].
_MGFS = (ns.qn(ns.XENC11, "MGF"), ns.qn(ns.XENC, "MGF"))
_OAEP_PARAMS = ns.qn(ns.XENC, "OAEPparams")
_AGREEMENT_METHOD = ns.qn(ns.XENC, "AgreementMethod")
_DERIVATION = ns.qn(ns.XENC11, "KeyDerivationMethod")
_ORIGINATOR = ns.qn(ns.XENC, "OriginatorKeyInfo")
_RECIPIENT = ns.qn(ns.XENC, "RecipientKeyInfo")
_HKDF_PARAMS = ns.qn(ns.DSIGMORE, "HKDFParams")
_PRF, _SALT, _INFO, _KEY_LENGTH = (ns.qn(ns.DSIGMORE, name) for name in ("PRF", "Salt", "Info", "KeyLength"))
_DER_KEY = ns.qn(ns.DSIG11, "DEREncodedKeyValue")
_KEY_VALUE = ns.qn(ns.DS, "KeyValue")
_EC_KEY = ns.qn(ns.DSIG11, "ECKeyValue")
_NAMED_CURVE = ns.qn(ns.DSIG11, "NamedCurve")
_PUBLIC_KEY = ns.qn(ns.DSIG11, "PublicKey")
_STR = ns.qn(ns.WSSE, "SecurityTokenReference")
_REFERENCE = ns.qn(ns.WSSE, "Reference")

#: What the SPKI of every X25519 key begins with; 32 octets follow [as4 3.9].
_X25519_HEAD = bytes.fromhex("302a300506032b656e032100")
_X25519_SIZE = len(_X25519_HEAD) + 32

_CURVE = re.compile(r"urn:oid:?([0-9.]+)")


def read_encryption(
    header: SecurityHeader, ids: Mapping[str, Element], cids: Collection[str], profile: Profile
) -> tuple[EncryptedKey | None, dict[str, EncryptedPart]]:
    """The encrypted key and the encrypted parts, which must be exactly `cids`.

    Raises `PolicyNoncompliance` for everything the profile does not allow. Without parts
    an EncryptedKey is passed over, unread and unused: some stacks write one into signals
    and into messages without payload [as4 7.28].
    """
    if len(header.encrypted_data) != len(cids):
        refuse("not exactly the parts are encrypted")
    if not cids:
        return None, {}
    element = header.encrypted_key
    if element is None:
        refuse("encrypted parts without an encrypted key")
    key = _read_key(element, header, ids, profile)
    listed = _listed(element, ids)
    parts: dict[str, EncryptedPart] = {}
    known = ContentIds(cids)
    for data in header.encrypted_data:
        written, part = _read_data(data, element, ids, listed, profile)
        cid = known.find(written)
        if cid is None or cid in parts:
            refuse("not exactly the parts are encrypted")
        parts[cid] = part
    if len({part.algorithm for part in parts.values()}) > 1:
        refuse("one content key for two algorithms")
    return key, parts


def _algorithm(element: Element) -> str:
    return element.get("Algorithm", "")


def _required(found: Mapping[str, Element], *tags: str) -> list[Element]:
    if any(tag not in found for tag in tags):
        refuse("an incomplete encryption element")
    return [found[tag] for tag in tags]


def _read_key(element: Element, header: SecurityHeader, ids: Mapping[str, Element], profile: Profile) -> EncryptedKey:
    found = children(element, _ENCRYPTION_METHOD, _KEY_INFO, _CIPHER_DATA, _REFERENCE_LIST)
    method, key_info, data = _required(found, _ENCRYPTION_METHOD, _KEY_INFO, _CIPHER_DATA)
    wrapped = octets_of(only(data, _CIPHER_VALUE))
    if profile.key_protection == "key-transport":
        digest, mgf = _read_oaep(method, profile)
        recipient = read_key_info(key_info, header.element, ids, bare=True)
        return EncryptedKey(ns.RSA_OAEP, wrapped, recipient, digest, mgf)
    if _algorithm(method) != ns.KW_AES128 or len(method):
        refuse("a key wrap that the profile does not allow")
    agreement_element = only(key_info, _AGREEMENT_METHOD)
    agreement, recipient = _read_agreement(agreement_element, header, ids, profile)
    return EncryptedKey(ns.KW_AES128, wrapped, recipient, agreement=agreement)


def _read_oaep(method: Element, profile: Profile) -> tuple[str, str]:
    """Digest and MGF, read each on its own; missing means SHA-1 [as4 3.8, 7.33]."""
    if _algorithm(method) != ns.RSA_OAEP:
        refuse("a key transport that the profile does not allow")
    found = children(method, _DIGEST_METHOD, *_MGFS, _OAEP_PARAMS)
    mgfs = [_algorithm(found[tag]) for tag in _MGFS if tag in found]
    if len(mgfs) > 1 or (_OAEP_PARAMS in found and octets_of(found[_OAEP_PARAMS])):
        refuse("RSA-OAEP with two mask functions or with a label")
    digest = _algorithm(found[_DIGEST_METHOD]) if _DIGEST_METHOD in found else SHA1_DIGEST
    mgf = mgfs[0] if mgfs else ns.MGF1_SHA1
    if (digest, mgf) not in profile.accept_oaep:
        refuse("RSA-OAEP with hashes that the profile does not allow")
    return digest, mgf


def _read_agreement(
    element: Element, header: SecurityHeader, ids: Mapping[str, Element], profile: Profile
) -> tuple[Agreement, KeyReference]:
    method = _algorithm(element)
    if method not in profile.accept_agreement:
        refuse("a key agreement that the profile does not allow")
    found = children(element, _DERIVATION, _ORIGINATOR, _RECIPIENT)
    derivation, originator, recipient = _required(found, _DERIVATION, _ORIGINATOR, _RECIPIENT)
    salt, info = _read_derivation(derivation)
    octets, curve = _read_originator(originator, method, profile)
    reference = read_key_info(recipient, header.element, ids, bare=True)
    return Agreement(method, octets, curve, salt, info), reference


def _read_derivation(element: Element) -> tuple[bytes, bytes]:
    """(salt, info) of HKDF with HMAC-SHA256 and 16 octets; anything else is refused [as4 3.9]."""
    if _algorithm(element) != ns.HKDF:
        refuse("a key derivation that the profile does not allow")
    found = children(only(element, _HKDF_PARAMS), _PRF, _SALT, _INFO, _KEY_LENGTH)
    if _PRF not in found or _algorithm(found[_PRF]) != ns.HMAC_SHA256:
        refuse("HKDF without HMAC-SHA256")
    if _KEY_LENGTH in found and (found[_KEY_LENGTH].text or "").strip(" \t\r\n") != str(KEK_SIZE):
        refuse("HKDF with another key length")
    return (
        octets_of(found[_SALT]) if _SALT in found else b"",
        octets_of(found[_INFO]) if _INFO in found else b"",
    )


def _read_originator(element: Element, method: str, profile: Profile) -> tuple[bytes, str | None]:
    child = only(element, _DER_KEY, _KEY_VALUE)
    if child.tag == _DER_KEY:
        return octets_of(child), None
    if method != ns.ECDH_ES:
        refuse("an originator key that does not belong to the agreement")
    found = children(only(child, _EC_KEY), _NAMED_CURVE, _PUBLIC_KEY)
    named, public = _required(found, _NAMED_CURVE, _PUBLIC_KEY)
    # One published text misprints the URN without its second colon [as4 3.10].
    match = _CURVE.fullmatch(named.get("URI", ""))
    curve = f"urn:oid:{match[1]}" if match else ""
    if curve not in profile.accept_curves:
        refuse("a curve that the profile does not allow")
    return octets_of(public), curve


def _listed(key: Element, ids: Mapping[str, Element]) -> frozenset[Element] | None:
    """The elements in the ReferenceList of the encrypted key, by whatever kind of id; None without a list."""
    found = key.find(_REFERENCE_LIST)
    if found is None:
        return None
    if any(child.tag != _DATA_REFERENCE or len(child) for child in found):
        refuse("a reference list of something else than data")
    uris = [child.get("URI", "") for child in found]
    return frozenset(ids[uri[1:]] for uri in uris if uri[:1] == "#" and uri[1:] in ids)


def _read_data(
    element: Element, key: Element, ids: Mapping[str, Element], listed: frozenset[Element] | None, profile: Profile
) -> tuple[str, EncryptedPart]:
    """One xenc:EncryptedData: the Content-ID it stands for, and how it is encrypted."""
    if element.get("Type") != ns.SWA_CONTENT_ONLY:
        refuse("encrypted data of another type than the content of a part")
    found = children(element, _ENCRYPTION_METHOD, _KEY_INFO, _CIPHER_DATA)
    method, data = _required(found, _ENCRYPTION_METHOD, _CIPHER_DATA)
    if _algorithm(method) not in profile.accept_encryption or len(method):
        refuse("a content encryption that the profile does not allow")
    if _KEY_INFO in found:
        reference = only(only(found[_KEY_INFO], _STR), _REFERENCE)
        uri = reference.get("URI", "")
        if uri[:1] != "#" or ids.get(uri[1:]) is not key:
            refuse("encrypted data that names another key")
    elif listed is None:
        refuse("encrypted data without a key")
    # A list that is there is complete [bsp R3214]; it is all there is where KeyInfo is missing.
    if listed is not None and element not in listed:
        refuse("encrypted data that its key does not list")
    cipher = only(data, _CIPHER_REFERENCE)
    transform = only(only(cipher, _TRANSFORMS), _TRANSFORM)
    uri = cipher.get("URI", "")
    if not uri.startswith("cid:") or _algorithm(transform) != ns.SWA_CIPHERTEXT or len(transform):
        refuse("encrypted data that is no part of this message")
    return uri[4:], EncryptedPart(element.get("MimeType") or None, _algorithm(method))


# -- the content key --------------------------------------------------------------


class _Encrypted(Protocol):
    @property
    def encrypted_key(self) -> EncryptedKey | None: ...

    @property
    def encrypted_parts(self) -> Mapping[str, EncryptedPart]: ...


def unwrap_content_key(opened: _Encrypted, keys: Sequence[DecryptionKey]) -> bytes:
    """The content key of a message whose signature is right already.

    The message names one certificate; only the key that belongs to it is tried, never
    another. Raises `FailedDecryption`, the same for every cause [threats E03, E11].
    """
    encrypted = opened.encrypted_key
    if encrypted is None:
        raise FailedDecryption("there is no encrypted key")
    key = recipient_key(encrypted, keys)
    if key is None:
        raise FailedDecryption("encrypted for a certificate that is none of ours")
    try:
        content_key = _unwrap(encrypted, key)
    except (*UNREADABLE, KeyError, keywrap.InvalidUnwrap) as error:
        raise FailedDecryption(f"the content key cannot be unwrapped ({type(error).__name__})") from None
    algorithms_used = {part.algorithm for part in opened.encrypted_parts.values()}
    if any(len(content_key) != CONTENT_KEY_SIZES[algorithm] for algorithm in algorithms_used):
        raise FailedDecryption("a content key of another length than its algorithm")
    return content_key


def recipient_key(encrypted: EncryptedKey, keys: Sequence[DecryptionKey]) -> DecryptionKey | None:
    """The one of `keys` that the content key was protected for."""
    return next((key for key in keys if resolve(encrypted.recipient, (key.certificate,))), None)


def _unwrap(encrypted: EncryptedKey, key: DecryptionKey) -> bytes:
    agreement = encrypted.agreement
    if agreement is None:
        return key.unwrap_oaep(encrypted.wrapped, digest=encrypted.digest, mgf=encrypted.mgf)
    shared = key.agree(_originator(agreement))
    return keywrap.aes_key_unwrap(wrapping_key(shared, agreement.salt, agreement.info), encrypted.wrapped)


def _originator(agreement: Agreement) -> bytes:
    """SPKI DER of an originator key of the right kind: the own key is asked about no other."""
    octets = agreement.originator
    if agreement.method == ns.X25519:
        if len(octets) != _X25519_SIZE or not octets.startswith(_X25519_HEAD):
            raise ValueError("not an X25519 key")
        return octets
    if agreement.curve is None:
        public = load_der_public_key(octets)
        if not isinstance(public, ec.EllipticCurvePublicKey) or curve_uri(public.curve) is None:
            raise ValueError("not a key on a curve we know")
    else:
        # Checks that the point is on the curve.
        public = ec.EllipticCurvePublicKey.from_encoded_point(CURVES[agreement.curve](), octets)
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


# -- parts ------------------------------------------------------------------------


class PartOpener:
    """Decrypt one AES-GCM part. Feed it blocks, then call `finish` once."""

    def __init__(self, content_key: bytes) -> None:
        self._key = content_key
        self._held = b""
        self._cipher = None

    def update(self, block: bytes) -> bytes:
        """The plaintext that has become available; it may be empty, and it is unproven."""
        if self._cipher is not None and len(block) >= TAG_SIZE:
            # The usual case, with one copy: large blocks pay for each in page faults.
            ready = self._held + memoryview(block)[:-TAG_SIZE]
            self._held = block[-TAG_SIZE:]
            return self._cipher.update(ready)
        held = self._held + block
        if self._cipher is None:
            if len(held) < IV_SIZE:
                self._held = held
                return b""
            self._cipher = Cipher(algorithms.AES(self._key), modes.GCM(held[:IV_SIZE])).decryptor()
            held = held[IV_SIZE:]
        self._held = held[-TAG_SIZE:]
        return self._cipher.update(held[:-TAG_SIZE]) if len(held) > TAG_SIZE else b""

    def finish(self) -> None:
        """Prove everything returned so far, or raise `FailedDecryption`."""
        # A short part and a wrong tag get one and the same answer: a peer that
        # probes us must not learn which of the two it was.
        if self._cipher is None or len(self._held) != TAG_SIZE:
            raise FailedDecryption
        try:
            self._cipher.finalize_with_tag(self._held)
        except InvalidTag:
            raise FailedDecryption from None
