"""How a message names a certificate, for the signature and for the encrypted key [as4 3.4].

A `KeyReference` is only a name. What it means is decided against certificates that were
known before the message came: the pinned ones of the claimed party for a signature, our
own for encryption; or, where the agreement trusts by path, by a path to one of its anchors.
A key is never taken from a message without such a match [threats C10].
KeyName, KeyValue and RetrievalMethod have no reader here.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping

from cryptography import x509
from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.pmode import TokenReference
from gateway.as4.wss.algorithms import UNREADABLE, encode_base64
from gateway.as4.wss.names import name_text, same_name
from gateway.as4.wss.security import children, octets_of, only, refuse
from gateway.as4.xml import Element, parse

#: Limits of what a message may carry [threats 1.5]; real certificates are below 3 KiB.
MAX_CERTIFICATE = 16 << 10
MAX_PATH = 5

_STR = ns.qn(ns.WSSE, "SecurityTokenReference")
_REFERENCE = ns.qn(ns.WSSE, "Reference")
_KEY_IDENTIFIER = ns.qn(ns.WSSE, "KeyIdentifier")
_TOKEN = ns.qn(ns.WSSE, "BinarySecurityToken")
_TOKEN_TYPE = ns.qn(ns.WSSE11, "TokenType")
_X509_DATA = ns.qn(ns.DS, "X509Data")
_X509_CERTIFICATE = ns.qn(ns.DS, "X509Certificate")
_X509_SKI = ns.qn(ns.DS, "X509SKI")
_ISSUER_SERIAL = ns.qn(ns.DS, "X509IssuerSerial")
_ISSUER_NAME = ns.qn(ns.DS, "X509IssuerName")
_SERIAL_NUMBER = ns.qn(ns.DS, "X509SerialNumber")
_KEY_VALUE = ns.qn(ns.DS, "KeyValue")
_SERIAL = re.compile(r"[ \t\r\n]*([0-9]{1,60})[ \t\r\n]*")


class KeyReference(Struct, frozen=True, omit_defaults=True):
    """A name for a certificate. Everything that is set must fit; something always is.

    `certificate` is the DER carried in the message, `issuer` the text of a distinguished
    name, `thumbprint` the SHA-1 of the DER. `chain` are further certificates that the message
    carries with `certificate`, its issuer first; they name nothing and are believed in nothing.
    """

    certificate: bytes | None = None
    chain: tuple[bytes, ...] = ()
    ski: bytes | None = None
    thumbprint: bytes | None = None
    issuer: str | None = None
    serial: int | None = None

    def names(self, der: bytes) -> bool:
        """Whether this is a name of the certificate `der`."""
        if self.certificate is not None and self.certificate != der:
            return False
        if self.thumbprint is not None and self.thumbprint != thumbprint(der):
            return False
        if self.ski is None and self.serial is None:
            return True
        try:
            certificate = x509.load_der_x509_certificate(der)
            if self.ski is not None and self.ski != ski(certificate):
                return False
            # The serial number first: it nearly always decides, and a name is long to compare.
            return self.serial is None or (
                self.serial == certificate.serial_number and same_name(self.issuer, certificate.issuer)
            )
        except UNREADABLE:
            return False


def resolve(reference: KeyReference, certificates: Iterable[bytes]) -> tuple[bytes, ...]:
    """Those of `certificates` that the reference names, in their order."""
    return tuple(der for der in certificates if reference.names(der))


def ski(certificate: x509.Certificate) -> bytes:
    """The subject key identifier; SHA-1 of the key bits where the extension is missing, as in WSS4J."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest
    return extension.value.digest


def thumbprint(der: bytes) -> bytes:
    return hashlib.sha1(der, usedforsecurity=False).digest()


# -- reading ------------------------------------------------------------------


def read_key_info(key_info: Element, security: Element, ids: Mapping[str, Element], *, bare: bool) -> KeyReference:
    """The certificate a ds:KeyInfo or xenc:RecipientKeyInfo names. Raises `PolicyNoncompliance`.

    `bare` also takes ds:X509Data without a SecurityTokenReference, as Holodeck writes it for
    recipients, and the SecurityTokenReference inside ds:KeyValue of one published sample.
    """
    child = only(key_info, _STR, *((_X509_DATA, _KEY_VALUE) if bare else ()))
    if child.tag == _KEY_VALUE:
        child = only(child, _STR)
    if child.tag == _X509_DATA:
        return _read_x509_data(child)
    target = only(child, _REFERENCE, _KEY_IDENTIFIER, _X509_DATA)
    if target.tag == _REFERENCE:
        return _read_direct(target, child.get(_TOKEN_TYPE), security, ids)
    if target.tag == _KEY_IDENTIFIER:
        return _read_identifier(target)
    return _read_x509_data(target)


def _read_direct(
    reference: Element, token_type: str | None, security: Element, ids: Mapping[str, Element]
) -> KeyReference:
    uri = reference.get("URI", "")
    token = ids.get(uri[1:]) if uri[:1] == "#" else None
    if token is None or token.tag != _TOKEN or token.getparent() is not security:
        refuse("a direct reference to something that is no BinarySecurityToken of this header")
    kind = token.get("ValueType")
    # Two names for one thing must agree; either may be missing [bsp R5218, R5215].
    if any(other not in (None, kind) for other in (reference.get("ValueType"), token_type)):
        refuse("a token reference with another ValueType than its token")
    leaf, *chain = _path(token, kind)
    return KeyReference(certificate=leaf, chain=tuple(chain))


def _path(token: Element, kind: str | None) -> list[bytes]:
    """The certificates of a BinarySecurityToken, the end-entity's first."""
    if token.get("EncodingType", ns.BASE64_BINARY) != ns.BASE64_BINARY:
        refuse("a token that is not base64")
    octets = octets_of(token)
    if kind == ns.X509V3:
        if len(octets) > MAX_CERTIFICATE:
            refuse("a certificate too large")
        return [octets]
    if kind == ns.X509_PKIPATH:
        return split_path(octets)[::-1]
    refuse("a token of a kind that we do not take")


def _read_identifier(identifier: Element) -> KeyReference:
    if identifier.get("EncodingType", ns.BASE64_BINARY) != ns.BASE64_BINARY:
        refuse("a key identifier that is not base64")
    kind, octets = identifier.get("ValueType"), octets_of(identifier)
    if kind == ns.X509_SKI:
        return KeyReference(ski=octets)
    if kind == ns.THUMBPRINT_SHA1:
        return KeyReference(thumbprint=octets)
    if kind == ns.X509V3 and len(octets) <= MAX_CERTIFICATE:
        return KeyReference(certificate=octets)
    refuse("a key identifier of a kind that we do not take")


def _read_x509_data(data: Element) -> KeyReference:
    parts = children(data, _ISSUER_SERIAL, _X509_SKI, _X509_CERTIFICATE)
    if not parts:
        refuse("an empty ds:X509Data")
    issuer = serial = None
    if (both := parts.get(_ISSUER_SERIAL)) is not None:
        pair = children(both, _ISSUER_NAME, _SERIAL_NUMBER)
        if len(pair) != 2 or len(pair[_ISSUER_NAME]) or len(pair[_SERIAL_NUMBER]):
            refuse("ds:X509IssuerSerial without name and number")
        issuer = pair[_ISSUER_NAME].text or ""
        number = _SERIAL.fullmatch(pair[_SERIAL_NUMBER].text or "")
        if number is None:
            refuse("a serial number that is no number")
        serial = int(number[1])
    return KeyReference(
        certificate=octets_of(parts[_X509_CERTIFICATE]) if _X509_CERTIFICATE in parts else None,
        ski=octets_of(parts[_X509_SKI]) if _X509_SKI in parts else None,
        issuer=issuer,
        serial=serial,
    )


def carried_certificates(envelope: bytes) -> list[bytes]:
    """Certificates that an envelope carries, leaf of each path. For inspection: believed in nothing."""
    found: list[bytes] = []
    for element in parse(envelope).iter(_TOKEN, _KEY_IDENTIFIER, _X509_CERTIFICATE):
        if element.tag == _TOKEN:
            found.append(_path(element, element.get("ValueType"))[0])
        elif element.tag == _X509_CERTIFICATE or element.get("ValueType") == ns.X509V3:
            found.append(octets_of(element))
    return list(dict.fromkeys(found))


# -- PKIPath ------------------------------------------------------------------


def split_path(octets: bytes) -> list[bytes]:
    """The certificates of a DER PkiPath, from the authority to the end entity: the leaf is last."""
    body, end = _der_head(octets, 0)
    if end != len(octets):
        refuse("octets after a PKIPath")
    found: list[bytes] = []
    at = body
    while at < end:
        _, after = _der_head(octets, at)
        if after > end or len(found) == MAX_PATH or after - at > MAX_CERTIFICATE:
            refuse("a PKIPath that is too long or not DER")
        found.append(octets[at:after])
        at = after
    if not found:
        refuse("an empty PKIPath")
    return found


def join_path(leaf: bytes, chain: Iterable[bytes]) -> bytes:
    """A DER PkiPath. `chain` runs from the issuer upwards, as keys hold it."""
    body = b"".join([*reversed(list(chain)), leaf])
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return (b"\x30" + (bytes([len(body)]) if len(body) < 128 else bytes([0x80 | len(size)]) + size)) + body


def _der_head(octets: bytes, at: int) -> tuple[int, int]:
    """Where the content of the SEQUENCE at `at` begins and ends."""
    if len(octets) < at + 2 or octets[at] != 0x30:
        refuse("a PKIPath that is not DER")
    length, start = octets[at + 1], at + 2
    if length & 0x80:
        more = length & 0x7F
        if not 1 <= more <= 4 or len(octets) < start + more:
            refuse("a PKIPath that is not DER")
        length, start = int.from_bytes(octets[start : start + more], "big"), start + more
    if start + length > len(octets):
        refuse("a PKIPath that ends early")
    return start, start + length


# -- writing ------------------------------------------------------------------

_WRITE_TOKEN = (
    f'<wsse:BinarySecurityToken EncodingType="{ns.BASE64_BINARY}" ValueType="{{kind}}" wsu:Id="{{id}}">'
    "{octets}</wsse:BinarySecurityToken>"
)
_WRITE_IDENTIFIER = (
    f'<wsse:KeyIdentifier EncodingType="{ns.BASE64_BINARY}" ValueType="{{kind}}">{{octets}}</wsse:KeyIdentifier>'
)


def write_reference(form: TokenReference, der: bytes, chain: Iterable[bytes], token_id: str) -> tuple[str, str]:
    """(BinarySecurityToken or "", SecurityTokenReference) that name the certificate `der`.

    Written with the prefixes wsse, wsse11, wsu of our Security header; ds is declared here.
    """
    token = kind = ""
    match form:
        case "bst":
            kind = ns.X509V3
            token = _WRITE_TOKEN.format(kind=kind, id=token_id, octets=encode_base64(der))
        case "pkipath":
            kind = ns.X509_PKIPATH
            token = _WRITE_TOKEN.format(kind=kind, id=token_id, octets=encode_base64(join_path(der, chain)))
        case "ski":
            octets = ski(x509.load_der_x509_certificate(der))
            target = _WRITE_IDENTIFIER.format(kind=ns.X509_SKI, octets=encode_base64(octets))
        case "thumbprint":
            target = _WRITE_IDENTIFIER.format(kind=ns.THUMBPRINT_SHA1, octets=encode_base64(thumbprint(der)))
        case "issuer-serial":
            certificate = x509.load_der_x509_certificate(der)
            target = (
                f'<ds:X509Data xmlns:ds="{ns.DS}"><ds:X509IssuerSerial><ds:X509IssuerName>'
                f"{name_text(certificate.issuer)}</ds:X509IssuerName><ds:X509SerialNumber>"
                f"{certificate.serial_number}</ds:X509SerialNumber></ds:X509IssuerSerial></ds:X509Data>"
            )
        case "x509":
            target = (
                f'<ds:X509Data xmlns:ds="{ns.DS}"><ds:X509Certificate>{encode_base64(der)}</ds:X509Certificate>'
                "</ds:X509Data>"
            )
    if token:
        target = f'<wsse:Reference URI="#{token_id}" ValueType="{kind}"></wsse:Reference>'
    # A path is announced on the reference too [bsp R5215].
    token_type = f' wsse11:TokenType="{kind}"' if form == "pkipath" else ""
    return token, f"<wsse:SecurityTokenReference{token_type}>{target}</wsse:SecurityTokenReference>"
