"""The signature of service metadata: XML-DSig, enveloped, over the whole document.

signxml computes; what it may compute, and what is read afterwards, is settled here:

- the document is parsed behind our one door, by budgets that keep inclusive canonicalisation linear
  (small, few namespaces) [threats 0.1];
- there is exactly one ds:Signature in it, a child of the root, with exactly one reference, whose URI
  is empty: the signature is over everything but itself, so nothing can be wrapped around it or moved;
- transforms are `enveloped-signature` and one canonicalisation, algorithms are on a list without
  SHA-1, HMAC and keys in KeyValue;
- the key is the one of the certificate that the caller accepts, never one that signxml would find.

What comes back is the tree made from the very octets that were digested, and the signer.
"""

import re
from collections.abc import Callable, Sequence

import signxml
from cryptography import x509
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod

from gateway.as4 import ns
from gateway.as4.wss.algorithms import UNREADABLE, check_public_key, decode_base64
from gateway.as4.xml import Element, XmlRefused, parse
from gateway.errors import CertificateRefused, DiscoveryFailed

MAX_CERTIFICATES = 5
MAX_CERTIFICATE = 16 << 10
#: Declarations of namespaces in one document, at most; service metadata has a handful.
MAX_NAMESPACES = 32

#: Accepts a certificate (DER) with those beside it; raises `CertificateRefused`.
Judge = Callable[[bytes, Sequence[bytes]], None]

_SIGNATURE = ns.qn(ns.DS, "Signature")
_C14N = frozenset(
    {
        "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
        "http://www.w3.org/2006/12/xml-c14n11",
        ns.EXC_C14N,
    }
)
_ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_SPACE = re.compile(r"[ \t\r\n]+")
_EXPECTED = signxml.SignatureConfiguration(
    location="./",
    expect_references=1,
    signature_methods=frozenset(
        SignatureMethod[name]
        for name in ("RSA_SHA256", "RSA_SHA384", "RSA_SHA512", "ECDSA_SHA256", "ECDSA_SHA384", "ECDSA_SHA512")
    ),
    digest_algorithms=frozenset(DigestAlgorithm[name] for name in ("SHA256", "SHA384", "SHA512")),
)


def verified(octets: bytes, judge: Judge, host: str) -> tuple[Element, bytes]:
    """What was signed, and the signer's certificate. `host` is for the texts.

    Raises `DiscoveryFailed`: not-metadata, not-signed, bad-signature, publisher (the signer is not trusted).
    """
    if octets.count(b"xmlns") > MAX_NAMESPACES:
        raise DiscoveryFailed("not-metadata", f"{host}: its answer declares too many namespaces")
    try:
        root = parse(octets)
    except XmlRefused as error:
        raise DiscoveryFailed("not-metadata", f"{host}: its answer is no XML that is accepted ({error})") from None
    signature = _the_signature(root, host)
    signer = _signer(signature, judge, host)
    try:
        result = signxml.XMLVerifier().verify(
            root, x509_cert=x509.load_der_x509_certificate(signer), expect_config=_EXPECTED
        )
    except (signxml.InvalidSignature, signxml.InvalidInput, *UNREADABLE, KeyError, etree.LxmlError) as error:
        # The kind of the error alone: the library's words may quote the document.
        what = f"{host}: the signature of its answer is wrong ({type(error).__name__})"
        raise DiscoveryFailed("bad-signature", what) from None
    # Read anew from the octets that were digested: nothing of the document that came is looked at again.
    signed = parse(result.signed_data)
    if signed.tag != root.tag or next(signed.iter(_SIGNATURE), None) is not None:
        raise DiscoveryFailed("bad-signature", f"{host}: what its answer signs is not the answer")
    return signed, signer


def _the_signature(root: Element, host: str) -> Element:
    """The one signature, over everything. Raises `DiscoveryFailed`."""
    found = list(root.iter(_SIGNATURE))
    if not found:
        raise DiscoveryFailed("not-signed", f"{host}: its answer is not signed")
    if len(found) > 1 or found[0].getparent() is not root:
        raise DiscoveryFailed("bad-signature", f"{host}: not exactly one signature at the top of its answer")
    info = found[0].find(ns.qn(ns.DS, "SignedInfo"))
    references = [] if info is None else info.findall(ns.qn(ns.DS, "Reference"))
    if len(references) != 1 or references[0].get("URI") != "":
        raise DiscoveryFailed("bad-signature", f"{host}: the signature is not over the whole answer")
    method = info.find(ns.qn(ns.DS, "CanonicalizationMethod"))
    transforms = [t.get("Algorithm") for t in references[0].iter(ns.qn(ns.DS, "Transform"))]
    inner = [element for t in references[0].iter(ns.qn(ns.DS, "Transform")) for element in t]
    if (
        method is None or method.get("Algorithm") not in _C14N or len(method) or inner
        or transforms[:1] != [_ENVELOPED] or len(transforms) > 2 or not _C14N.issuperset(transforms[1:])
    ):  # fmt: skip
        raise DiscoveryFailed("bad-signature", f"{host}: the signature uses transforms that are not accepted")
    return found[0]


def _signer(signature: Element, judge: Judge, host: str) -> bytes:
    """The certificate in KeyInfo that is trusted. Raises `DiscoveryFailed`."""
    carried: list[bytes] = []
    try:
        for element in signature.iterfind(f"{ns.qn(ns.DS, 'KeyInfo')}/{ns.qn(ns.DS, 'X509Data')}/*"):
            if element.tag == ns.qn(ns.DS, "X509Certificate"):
                carried.append(decode_base64(element.text))
    except ValueError:
        raise DiscoveryFailed("bad-signature", f"{host}: a certificate of its answer is not base64") from None
    if not 0 < len(carried) <= MAX_CERTIFICATES or any(len(der) > MAX_CERTIFICATE for der in carried):
        raise DiscoveryFailed("bad-signature", f"{host}: its answer carries no certificate, or too many")
    refused: CertificateRefused | None = None
    # The signer's comes first by convention only: it is the one that issued none of the others, and is accepted.
    for der in _ends_first(carried):
        try:
            judge(der, [other for other in carried if other != der])
            check_public_key(x509.load_der_x509_certificate(der).public_key())
        except CertificateRefused as error:
            refused = refused or error
        except UNREADABLE as error:
            refused = refused or CertificateRefused("malformed", str(error))
        else:
            return der
    raise DiscoveryFailed("publisher", f"{host}: the publisher is not one the agreement trusts: {refused}")


def _ends_first(carried: Sequence[bytes]) -> list[bytes]:
    try:
        made = {der: x509.load_der_x509_certificate(der) for der in carried}
    except UNREADABLE:
        return list(carried)
    issuers = {c.issuer.public_bytes() for c in made.values() if c.issuer != c.subject}
    return sorted(made, key=lambda der: made[der].subject.public_bytes() in issuers)
