"""Whether one certificate is plainly the renewal of another: for the rule that takes it without anybody looking.

`likeness` tells people what two certificates have in common; a rule must know it. Whoever stole the key of the old
one can sign a request, choose any key pair and write any name; what he cannot do is have the CA sign it. So the CA
is not compared by name: one and the same CA certificate must verify the signatures of both. It may come with the
request, for what verifies the certificate we have pinned cannot be of the thief's making [reliability 6.2]. RSA keys
with an unusual exponent are left out, since for a given signature such a key *can* be made to fit
(duplicate-signature key selection).
"""

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.as4.wss.algorithms import UNREADABLE, check_public_key
from gateway.config import Trust
from gateway.errors import CertificateRefused
from gateway.keys import likeness
from gateway.keys.trust import MAX_CERTIFICATE, STRICT, check_signature

#: CA certificates that are tried.
MAX_ISSUERS = 16
_USUAL_EXPONENT = 65537
#: What a renewal keeps, of the traits of `likeness`.
_KEPT = ("subject", "organisation id", "kind of key")


def differences(old: bytes, new: bytes, issuers: Sequence[bytes], allow: Trust = STRICT) -> list[str]:
    """What of `new` (DER) is more, or less, than a renewal of `old`, in words; nothing: it is none but that.

    `issuers` are CA certificates, from wherever. Never raises.
    """
    try:
        alike = likeness.compare(old, new)
        was, comes = x509.load_der_x509_certificate(old), x509.load_der_x509_certificate(new)
        # Names are compared octet by octet; how they are written for people may make two of them look the same.
        found = [] if was.subject.public_bytes() == comes.subject.public_bytes() else ["the subject is another"]
        found += [f"the {trait.name} is {trait.new[:200] or 'none'}, until now {trait.old[:200] or 'none'}"
                  for trait in alike.traits if trait.name in _KEPT and not trait.same]  # fmt: skip
        if was.issuer == was.subject:
            found.append("the certificate until now is self-signed: no CA vouches for the new one")
        elif not any(_issued_both(der, was, comes, allow) for der in issuers[:MAX_ISSUERS]):
            found.append(_no_common(was, comes))
        if alike.same("key"):
            found.append("the key is the same as until now")
    except UNREADABLE:
        return ["a certificate cannot be read"]
    return found


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


def _named(name: x509.Name) -> str:
    return name.rfc4514_string()[:200]
