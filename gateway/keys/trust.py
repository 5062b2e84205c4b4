"""Whether a certificate may be used for something, at a given time.

Called for every message, with the certificate the agreement pins; so this answers whether
a pinned certificate is *usable*, not whether it is the right one. The library's own verifier
is not used: it wants subject alternative names, which access points rarely have, and once
loosened takes CA certificates and any key usage [threats 0.9]. Paths to trust anchors are
built in `path.py`.

There is no tolerance for clocks: a certificate that expired a second ago is expired
[threats F03]. Nothing is cached here; but nothing except the time can change the answer for the
same certificate (`validity` says which), so a caller may ask again only about that.
"""

from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from gateway.as4.wss.algorithms import UNREADABLE
from gateway.config import Trust
from gateway.errors import CertificateRefused

Use = Literal["sign", "encrypt", "tls-server", "tls-client"]

#: What nobody needs more of, and parsers need protection from [threats 1.5].
MAX_CERTIFICATE = 16 << 10
#: Ten years is the longest seen in the field; twice that is somebody's mistake [threats F07].
MAX_VALIDITY = timedelta(days=20 * 365)

#: The settings of production.
STRICT = Trust()

_CURVES = frozenset(
    {"secp256r1", "secp384r1", "secp521r1", "brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1"}
)  # [as4 3.10]
_WEAK_HASHES = (hashes.SHA1, hashes.MD5, hashes.SHA224)
#: Critical extensions that are judged here, or have no say over the use of a leaf.
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE, ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.CERTIFICATE_POLICIES,
    }
)  # fmt: skip

_P = 2**255 - 19
#: y of the points of small order on Ed25519 (both signs of x, and the spellings y + p) [RFC 8032, 7748].
_ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_WEAK_ED25519 = frozenset({0, 1, _P - 1, _P, _P + 1, _ORDER_8, _P - _ORDER_8})
#: u of those on Curve25519: a shared secret with one of them is zero.
_ORDER_8_U = 325606250916557431795983626356110631294008115727848805560023387167927233504
_ORDER_8_U_TWIST = 39382357235489614581723060781553021112529911719440698176882885853963445705823
_WEAK_X25519 = frozenset({0, 1, _P - 1, _P, _P + 1, _ORDER_8_U, _ORDER_8_U_TWIST})


def check_certificate(
    der: bytes, *, use: Use, now: datetime, allow: Trust = STRICT, by_path: bool = False
) -> None:
    """Refuse a certificate that may not be used for `use` at `now` (aware).

    `sign`: verify what its holder signed. `encrypt`: protect a content key for its holder. `tls-server` and
    `tls-client`: identify its holder in a handshake (names are not judged). `by_path`: nobody has pinned it,
    so that a CA is refused whatever `allow` says.
    Raises `CertificateRefused` with one of the reasons too-large, malformed, not-yet-valid,
    expired, validity-too-long, weak-signature, unknown-critical-extension, ca-as-leaf,
    key-usage, extended-key-usage, key-type, weak-key.
    """
    if len(der) > MAX_CERTIFICATE:
        raise CertificateRefused("too-large", f"a certificate of {len(der)} octets")
    try:
        certificate = x509.load_der_x509_certificate(der)
        _check_time(certificate, now)
        _check_names(certificate)
        check_signature(certificate, allow)
        _check_extensions(certificate, use, allow, self_signed_ca=allow.self_signed_ca and not by_path)
        _check_key(certificate.public_key(), use)
    except UNREADABLE as error:
        raise CertificateRefused("malformed", str(error)) from None


def validity(der: bytes) -> tuple[datetime, datetime]:
    """From when to when a certificate is valid, both included."""
    certificate = x509.load_der_x509_certificate(der)
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def check_period(certificate: x509.Certificate, now: datetime) -> None:
    """Raises `CertificateRefused` before and after the certificate's time."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < start:
        raise CertificateRefused("not-yet-valid", f"valid from {start:%Y-%m-%d %H:%M} UTC")
    if now > end:
        raise CertificateRefused("expired", f"expired at {end:%Y-%m-%d %H:%M} UTC")


def _check_time(certificate: x509.Certificate, now: datetime) -> None:
    check_period(certificate, now)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if end - start > MAX_VALIDITY:
        raise CertificateRefused("validity-too-long", f"valid for {(end - start).days} days")


def _check_names(certificate: x509.Certificate) -> None:
    if certificate.serial_number <= 0:
        raise CertificateRefused("malformed", "the serial number is not positive")
    for attribute in certificate.subject:
        # Names decide nothing here, but people and other programs read them.
        if "\0" in str(attribute.value):
            raise CertificateRefused("malformed", "a NUL in the subject")


def check_signature(certificate: x509.Certificate, allow: Trust) -> None:
    """Raises `CertificateRefused` for a digest that forgers can match. The signature itself is not verified."""
    try:
        digest = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        raise CertificateRefused("weak-signature", "signed with an unknown algorithm") from None
    if isinstance(digest, _WEAK_HASHES) and not (allow.sha1_signatures and isinstance(digest, hashes.SHA1)):
        raise CertificateRefused("weak-signature", f"signed with {digest.name}")


def _check_extensions(certificate: x509.Certificate, use: Use, allow: Trust, *, self_signed_ca: bool) -> None:
    for extension in certificate.extensions:
        match extension.value:
            case x509.KeyUsage() as usage if allow.key_usage:
                _check_usage(usage, use)
            case x509.BasicConstraints(ca=True) if not (self_signed_ca and _self_signed(certificate)):
                hint = "; trust.self_signed_ca allows it for a pinned one" if _self_signed(certificate) else ""
                raise CertificateRefused("ca-as-leaf", f"a CA certificate may not stand for a party{hint}")
            case x509.ExtendedKeyUsage() as purposes if allow.key_usage:
                _check_purposes(set(purposes), use)
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise CertificateRefused("unknown-critical-extension", extension.oid.dotted_string)


def _check_purposes(purposes: set[x509.ObjectIdentifier], use: Use) -> None:
    wanted = {"tls-server": ExtendedKeyUsageOID.SERVER_AUTH, "tls-client": ExtendedKeyUsageOID.CLIENT_AUTH}.get(use)
    if wanted is not None and not purposes & {wanted, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}:
        raise CertificateRefused("extended-key-usage", f"not for TLS {use.removeprefix('tls-')}s")
    if wanted is None and purposes == {ExtendedKeyUsageOID.SERVER_AUTH}:
        raise CertificateRefused("extended-key-usage", "for TLS servers only")


def _check_usage(usage: x509.KeyUsage, use: Use) -> None:
    if use == "sign":
        fits = usage.digital_signature or usage.content_commitment
    elif use != "encrypt":
        fits = usage.digital_signature  # every suite we speak has a signature in its handshake
    else:
        fits = usage.key_encipherment or usage.data_encipherment or usage.key_agreement
    if not fits:
        raise CertificateRefused("key-usage", f"the key usage does not allow to {use}")


def _self_signed(certificate: x509.Certificate) -> bool:
    # The signature is not checked: whoever pinned the certificate has vouched for every octet of it.
    return certificate.subject == certificate.issuer


def _check_key(key: object, use: Use) -> None:
    match key:
        case rsa.RSAPublicKey():
            _check_rsa(key)
        case ec.EllipticCurvePublicKey():
            if key.curve.name not in _CURVES:
                raise CertificateRefused("weak-key", f"curve {key.curve.name}")
        case ed25519.Ed25519PublicKey() if use != "encrypt":
            y = int.from_bytes(key.public_bytes_raw(), "little") & ~(1 << 255)
            if y in _WEAK_ED25519:
                raise CertificateRefused("weak-key", "an Ed25519 key of small order")
        case x25519.X25519PublicKey() if use == "encrypt":
            u = int.from_bytes(key.public_bytes_raw(), "little") & ~(1 << 255)
            if u in _WEAK_X25519:
                raise CertificateRefused("weak-key", "an X25519 key of small order")
        case _:
            raise CertificateRefused("key-type", f"a key of type {type(key).__name__} cannot be used for {use}")


def _check_rsa(key: rsa.RSAPublicKey) -> None:
    if not 2048 <= key.key_size <= 8192:
        raise CertificateRefused("weak-key", f"RSA with {key.key_size} bits")
    exponent = key.public_numbers().e
    # A large exponent makes every verification expensive; 2**32 is what other stacks stop at.
    if not (3 <= exponent <= 1 << 32 and exponent & 1):
        raise CertificateRefused("weak-key", "an odd RSA exponent of at most 32 bits was expected")
