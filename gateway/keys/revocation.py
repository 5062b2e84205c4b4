"""What an issuer says of a certificate it issued: CRL (RFC 5280, 5 and 6.3) and OCSP (RFC 6960). No I/O here.

Both come over plain HTTP from anywhere, so nothing in them counts before the signature is right, and it must be
the issuer's own: of a CRL by the CA itself, of an OCSP answer by the CA or by a certificate that this very CA
issued for signing such answers (id-kp-OCSPSigning). Indirect CRLs, CRLs for some reasons only and delta CRLs
are refused: half an answer is none. An answer has a time; one of the future or of the past is none either.

OCSP says `unknown` of a certificate its responder knows nothing about: a CA that did not issue it answers so.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, ExtensionOID
from msgspec import Struct

from gateway.as4.wss.algorithms import UNREADABLE
from gateway.config import Trust
from gateway.errors import CertificateRefused
from gateway.keys.trust import STRICT, check_period, check_signature

#: How far the clock of whoever answers may be from ours.
SKEW = timedelta(minutes=5)
#: How long an OCSP answer counts that names no end: newer information is always there, says RFC 6960 2.4.
WITHOUT_END = timedelta(hours=1)
#: An OCSP answer is 2 KiB with the responder's certificate.
MAX_OCSP = 64 << 10
#: Of each kind; a certificate that names more is somebody's joke.
MAX_URLS = 3
NONCE = 32

#: Critical extensions of a CRL that are judged here.
_UNDERSTOOD = frozenset({ExtensionOID.ISSUING_DISTRIBUTION_POINT, ExtensionOID.CRL_NUMBER,
                         ExtensionOID.AUTHORITY_KEY_IDENTIFIER})  # fmt: skip


class NoAnswer(Exception):
    """What came is no answer about this certificate; the text says why, in words for the operator."""


class Sources(Struct, frozen=True):
    """Where a certificate says one may ask: URLs of OCSP responders and of CRLs, http and https only."""

    ocsp: tuple[str, ...] = ()
    crls: tuple[str, ...] = ()


class Answer(Struct, frozen=True, kw_only=True):
    """What an issuer says. It counts from `this_update` until `until`."""

    status: Literal["good", "revoked", "unknown"]
    source: Literal["ocsp", "crl"]
    this_update: datetime
    until: datetime
    revoked_at: datetime | None = None
    reason: str | None = None


def sources(der: bytes) -> Sources:
    """Where to ask about a certificate. Only for one with a path to an anchor: these URLs are its issuer's words, and
    those of a stranger are anybody's [threats J01]."""
    try:
        extensions = x509.load_der_x509_certificate(der).extensions
    except UNREADABLE:
        return Sources()
    responders: list[str] = []
    lists: list[str] = []
    for extension in extensions:
        match extension.value:
            case x509.AuthorityInformationAccess() as access:
                at = [one.access_location for one in access if one.access_method == AuthorityInformationAccessOID.OCSP]
                responders += _urls(at)
            case x509.CRLDistributionPoints() as points:
                for point in points:
                    # Another issuer's list, or one for some reasons only, says not all.
                    if point.full_name and not point.crl_issuer and not point.reasons:
                        lists += _urls(point.full_name)[:1]  # further names are the same list elsewhere
    return Sources(tuple(dict.fromkeys(responders))[:MAX_URLS], tuple(dict.fromkeys(lists))[:MAX_URLS])


def _urls(names: Iterable[x509.GeneralName]) -> list[str]:
    found = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    return [url for url in found if url.lower().startswith(("http://", "https://"))]


# -- OCSP -------------------------------------------------------------------------------


def ocsp_request(certificate: bytes, issuer: bytes, nonce: bytes) -> bytes:
    """A request about one certificate. SHA-1 names issuer and key here, as every responder understands; it protects
    nothing."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(
        x509.load_der_x509_certificate(certificate), x509.load_der_x509_certificate(issuer),
        hashes.SHA1(),  # noqa: S303 - a name, see above
    )  # fmt: skip
    return builder.add_extension(x509.OCSPNonce(nonce), critical=False).build().public_bytes(Encoding.DER)


def judge_ocsp(
    octets: bytes, certificate: bytes, issuer: bytes, *, nonce: bytes, now: datetime, allow: Trust = STRICT
) -> Answer:
    """The answer in an OCSP response. Raises `NoAnswer`.

    A nonce that comes back must be ours. Many responders give answers made beforehand, without one; then
    its time alone says that it is fresh.
    """
    try:
        response = ocsp.load_der_ocsp_response(octets)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise NoAnswer(f"the responder says {response.response_status.name.lower().replace('_', ' ')}")
        leaf, ca = x509.load_der_x509_certificate(certificate), x509.load_der_x509_certificate(issuer)
        single, *more = response.responses
        if more or not _is_about(single, leaf, ca):
            raise NoAnswer("the responder answers about another certificate, or about several")
        _check_responder(response, ca, now, allow)
        for extension in response.extensions:
            if isinstance(extension.value, x509.OCSPNonce) and extension.value.nonce != nonce:
                raise NoAnswer("the responder repeats an answer to somebody else")
        for extension in (*response.extensions, *response.single_extensions):
            if extension.critical and not isinstance(extension.value, x509.OCSPNonce):
                raise NoAnswer("the answer has a critical extension that is not known here")
        this, until = single.this_update_utc, single.next_update_utc
        until = _check_time(this, this + WITHOUT_END if until is None else until, now)
        reason = single.revocation_reason
        return Answer(
            status=single.certificate_status.name.lower(), source="ocsp", this_update=this, until=until,
            revoked_at=single.revocation_time_utc, reason=reason.value if reason else None,
        )  # fmt: skip
    except (CertificateRefused, *UNREADABLE) as error:
        raise NoAnswer(f"the answer of the responder cannot be used: {error}") from None


def _is_about(single: ocsp.OCSPSingleResponse, leaf: x509.Certificate, ca: x509.Certificate) -> bool:
    if single.serial_number != leaf.serial_number:
        return False
    name, key = hashes.Hash(single.hash_algorithm), hashes.Hash(single.hash_algorithm)
    name.update(leaf.issuer.public_bytes())
    key.update(_key_bits(ca))
    return single.issuer_name_hash == name.finalize() and single.issuer_key_hash == key.finalize()


def _check_responder(response: ocsp.OCSPResponse, ca: x509.Certificate, now: datetime, allow: Trust) -> None:
    """That the CA signed, or somebody it has charged with that. Raises `NoAnswer`, `CertificateRefused`."""
    if _is_responder(response, ca):
        signer = ca
    else:
        signer = next((one for one in response.certificates if _is_responder(response, one)), None)
        if signer is None:
            raise NoAnswer("nobody we know signed the answer")
        _check_delegated(signer, ca, now, allow)
    digest = response.signature_hash_algorithm
    if isinstance(digest, hashes.MD5) or (isinstance(digest, hashes.SHA1) and not allow.sha1_signatures):
        raise NoAnswer(f"the answer is signed with {digest.name}")
    key = signer.public_key()
    try:
        match key:
            case rsa.RSAPublicKey():
                key.verify(response.signature, response.tbs_response_bytes, padding.PKCS1v15(), digest)
            case ec.EllipticCurvePublicKey():
                key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(digest))
            case ed25519.Ed25519PublicKey():
                key.verify(response.signature, response.tbs_response_bytes)
            case _:
                raise NoAnswer("the answer is signed with a key of an unknown kind")
    except InvalidSignature:
        raise NoAnswer("the signature of the answer is wrong") from None


def _is_responder(response: ocsp.OCSPResponse, certificate: x509.Certificate) -> bool:
    """Whether the answer names this certificate as its signer."""
    if response.responder_name is not None:
        return response.responder_name.public_bytes() == certificate.subject.public_bytes()
    digest = hashes.Hash(hashes.SHA1())  # noqa: S303 - a name, as RFC 6960 has it
    digest.update(_key_bits(certificate))
    return response.responder_key_hash == digest.finalize()


def _check_delegated(signer: x509.Certificate, ca: x509.Certificate, now: datetime, allow: Trust) -> None:
    """A certificate that the CA issued for answering. Whether that one is revoked is not asked: who would answer?"""
    try:
        signer.verify_directly_issued_by(ca)
    except (InvalidSignature, *UNREADABLE):
        raise NoAnswer("the certificate of the responder is not the issuer's") from None
    check_period(signer, now)
    check_signature(signer, allow)
    purposes: Iterable[x509.ObjectIdentifier] = ()
    for extension in signer.extensions:
        match extension.value:
            case x509.ExtendedKeyUsage() as purposes:
                pass
            case x509.KeyUsage(digital_signature=False, content_commitment=False):
                raise NoAnswer("the key of the responder is not for signing")
    if ExtendedKeyUsageOID.OCSP_SIGNING not in purposes:
        raise NoAnswer("the certificate of the responder is not for OCSP")


def _key_bits(certificate: x509.Certificate) -> bytes:
    """The public key as RFC 6960 hashes it: the bits of subjectPublicKey without tag, length and unused bits."""
    key = certificate.public_key()
    match key:
        case rsa.RSAPublicKey():
            return key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
        case ec.EllipticCurvePublicKey():
            return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        case ed25519.Ed25519PublicKey():
            return key.public_bytes_raw()
    raise ValueError("a key of an unknown kind")


# -- CRL --------------------------------------------------------------------------------


def judge_crl(octets: bytes, certificate: bytes, issuer: bytes, *, now: datetime, allow: Trust = STRICT) -> Answer:
    """The answer in a CRL, DER or PEM. Raises `NoAnswer`."""
    try:
        pem = octets.lstrip()[:11] == b"-----BEGIN "
        crl = x509.load_pem_x509_crl(octets) if pem else x509.load_der_x509_crl(octets)
        leaf, ca = x509.load_der_x509_certificate(certificate), x509.load_der_x509_certificate(issuer)
        if crl.issuer.public_bytes() != ca.subject.public_bytes():
            raise NoAnswer("the list is of another issuer")
        _check_scope(crl, leaf)
        _check_may_sign(ca)
        digest = crl.signature_hash_algorithm
        if isinstance(digest, hashes.MD5) or (isinstance(digest, hashes.SHA1) and not allow.sha1_signatures):
            raise NoAnswer(f"the list is signed with {digest.name}")
        if crl.next_update_utc is None:
            raise NoAnswer("the list does not say until when it counts")
        until = _check_time(crl.last_update_utc, crl.next_update_utc, now)
        # The expensive part last: a list may have megabytes.
        if not crl.is_signature_valid(ca.public_key()):
            raise NoAnswer("the signature of the list is wrong")
        entry = crl.get_revoked_certificate_by_serial_number(leaf.serial_number)
        made = Answer(status="good", source="crl", this_update=crl.last_update_utc, until=until)
        return made if entry is None else _entry(entry, made)
    except UNREADABLE as error:
        raise NoAnswer(f"the list cannot be used: {error}") from None


def _entry(entry: x509.RevokedCertificate, made: Answer) -> Answer:
    reason = None
    for extension in entry.extensions:
        if isinstance(extension.value, x509.CRLReason):
            reason = extension.value.reason
        elif extension.critical:
            raise NoAnswer("an entry of the list has a critical extension that is not known here")
    if reason is x509.ReasonFlags.remove_from_crl:
        raise NoAnswer("an entry of the list belongs into a delta list")
    return Answer(
        status="revoked", source="crl", this_update=made.this_update, until=made.until,
        revoked_at=entry.revocation_date_utc, reason=reason.value if reason else None,
    )  # fmt: skip


def _check_scope(crl: x509.CertificateRevocationList, leaf: x509.Certificate) -> None:
    """That the list is about certificates like this one, for every reason, and whole."""
    for extension in crl.extensions:
        match extension.value:
            case x509.DeltaCRLIndicator():
                raise NoAnswer("this is a delta list; without the whole one it says nothing")
            case x509.IssuingDistributionPoint() as point:
                if point.indirect_crl or point.only_some_reasons or point.only_contains_attribute_certs:
                    raise NoAnswer("the list is indirect, for some reasons only, or for attribute certificates")
                if point.only_contains_user_certs and _is_ca(leaf):
                    raise NoAnswer("the list has no CAs")
                if point.only_contains_ca_certs and not _is_ca(leaf):
                    raise NoAnswer("the list has CAs only")
                if point.full_name and not set(_urls(point.full_name)) & set(_named(leaf)):
                    raise NoAnswer("the list is of another distribution point")
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise NoAnswer("the list has a critical extension that is not known here")


def _named(leaf: x509.Certificate) -> list[str]:
    """Every name of every distribution point of the certificate: one list may have several."""
    try:
        points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return []
    return [url for point in points for url in _urls(point.full_name or ())]


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return False


def _check_may_sign(ca: x509.Certificate) -> None:
    try:
        usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.crl_sign:
        raise NoAnswer("the issuer's key may not sign lists")


def _check_time(this: datetime, until: datetime, now: datetime) -> datetime:
    """Until when an answer counts. Raises `NoAnswer` for one of another time."""
    if this > now + SKEW:
        raise NoAnswer(f"the answer is of the future ({this:%Y-%m-%d %H:%M} UTC)")
    if until + SKEW < now or until < this:
        raise NoAnswer(f"the answer has run out ({until:%Y-%m-%d %H:%M} UTC)")
    return until
