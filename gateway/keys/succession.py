"""Whether one certificate is plainly the renewal of another: same CA, same subject, same organisation.

Asked before a partner's new certificate is taken without anybody looking at it. Whoever stole the key of the
old one can sign a request, choose any key pair and write any name; what he cannot do is have the CA sign it.
So the CA is not compared by name: one and the same CA certificate must verify the signatures of both. It may
come with the request, for what verifies the certificate we have pinned cannot be of the thief's
making [reliability 6.2]. RSA keys with an unusual exponent are left out, since for a given signature such a key *can*
be made to fit (duplicate-signature key selection).
"""

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from gateway.as4.wss.algorithms import UNREADABLE, check_public_key
from gateway.config import Trust
from gateway.errors import CertificateRefused
from gateway.keys.trust import MAX_CERTIFICATE, STRICT, check_signature

#: CA certificates that are tried.
MAX_ISSUERS = 16
_USUAL_EXPONENT = 65537


def differences(old: bytes, new: bytes, issuers: Sequence[bytes], allow: Trust = STRICT) -> list[str]:
    """What of `new` (DER) is more than a renewal of `old`, in words; nothing: it is none but that.

    `issuers` are CA certificates, from wherever. Never raises.
    """
    try:
        was, comes = x509.load_der_x509_certificate(old), x509.load_der_x509_certificate(new)
        found = []
        if was.subject.public_bytes() != comes.subject.public_bytes():
            found.append(f"the subject is {_named(comes.subject)}, until now {_named(was.subject)}")
        if _organisation(was) != _organisation(comes):
            found.append("the organisation identifier is another")
        if was.issuer == was.subject:
            found.append("the certificate until now is self-signed: no CA vouches for the new one")
        elif not any(_issued_both(der, was, comes, allow) for der in issuers[:MAX_ISSUERS]):
            found.append(_no_common(was, comes))
        if type(was.public_key()) is not type(comes.public_key()):
            found.append("the key is of another kind")
    except UNREADABLE:
        return ["a certificate cannot be read"]
    return found


def same_key(one: bytes, other: bytes) -> bool:
    """Whether two certificates (DER, readable) are for the same key."""
    keys = (x509.load_der_x509_certificate(der).public_key() for der in (one, other))
    first, second = (key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys)
    return first == second


def _issued_both(der: bytes, was: x509.Certificate, comes: x509.Certificate, allow: Trust) -> bool:
    if len(der) > MAX_CERTIFICATE:
        return False
    try:
        ca = x509.load_der_x509_certificate(der)
        key = ca.public_key()
        if not ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        check_public_key(key)
        if isinstance(key, rsa.RSAPublicKey) and key.public_numbers().e != _USUAL_EXPONENT:
            return False
        for certificate in (was, comes):
            check_signature(certificate, allow)
            certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, CertificateRefused, x509.ExtensionNotFound, *UNREADABLE):
        return False
    return True


def _no_common(was: x509.Certificate, comes: x509.Certificate) -> str:
    if was.issuer.public_bytes() != comes.issuer.public_bytes():
        return f"the CA is {_named(comes.issuer)}, until now {_named(was.issuer)}"
    return f"no certificate of the CA {_named(was.issuer)} that vouches for both is here or came along"


def _organisation(certificate: x509.Certificate) -> list[str]:
    return [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_IDENTIFIER)]


def _named(name: x509.Name) -> str:
    return name.rfc4514_string()[:200]
