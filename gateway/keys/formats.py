"""Reading key stores: PEM, PKCS#12, PKCS#7, JKS and bare DER, told apart by their content.

Everything becomes a list of entries: a private key with its certificate and chain, or a
certificate alone. What was wrong with a file has its own `reason`, because "cannot read
keystore" is where an operator's evening goes. Files come from outside: sizes, counts and
iterations are bounded before any work is done for them [threats K09].
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    pkcs7,
)
from msgspec import Struct

from gateway.as4.wss.algorithms import UNREADABLE
from gateway.errors import CertificateRefused
from gateway.keys import der, jks, pkcs8
from gateway.keys import pkcs12 as pkcs12_

MAX_SIZE = 1 << 20
MAX_BLOCKS = 1000
MAX_CHAIN = 5

Kind = Literal["pem", "pkcs12", "jks", "der"]


class Entry(Struct, frozen=True):
    """One entry of a key store. `chain` has DER certificates from the issuer upwards."""

    alias: str
    private_key: PrivateKeyTypes | None
    certificate: bytes | None
    chain: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        kind = "certificate" if self.private_key is None else "private key"
        return f"Entry({self.alias!r}, {kind})"


def read_keystore(
    octets: bytes, password: bytes | None = None, *, kind: Kind | None = None, key_password: bytes | None = None
) -> list[Entry]:
    """Every entry of a key store, private keys first, each in the order of the file.

    `kind` demands one format; without it the content decides. `key_password` is for keys in
    a JKS that have another password than the store. Raises `CertificateRefused` with one of
    the reasons empty, too-large, unknown-format, unsupported-format, truncated, damaged,
    wrong-password, password-needed, too-many-iterations, unsupported-key,
    key-certificate-mismatch.
    """
    if len(octets) > MAX_SIZE:
        raise CertificateRefused("too-large", f"a key store may have {MAX_SIZE >> 20} MiB")
    if not octets.strip():
        raise CertificateRefused("empty", "the file is empty")
    found = _kind(octets)
    if kind is not None and kind != found:
        raise CertificateRefused("unknown-format", f"this is {found.upper()}, not {kind.upper()}")
    try:
        match found:
            case "jks":
                return _jks(octets, password, key_password)
            case "pkcs12":
                store = pkcs12_.read(octets, password)
                return _entries(store.keys, store.certificates)
            case "pem":
                return _entries(*_pem(octets, password))
            case _:
                return _entries(*_der(octets, password))
    except (ValueError, IndexError) as error:
        raise CertificateRefused("damaged", f"{found.upper()}: {error}") from None


def certificates(octets: bytes, password: bytes | None = None) -> list[bytes]:
    """Only the certificates of a file, chains included, in DER."""
    found = {}
    for entry in read_keystore(octets, password):
        for certificate in (entry.certificate, *entry.chain):
            if certificate is not None:
                found.setdefault(certificate)
    return list(found)


def truststore(octets: bytes, password: bytes | None = None) -> list[tuple[str, bytes]]:
    """The certificates of a truststore under their aliases, in DER; of an entry with a chain the first.

    A key store serves, too: what it says about its owner is public. Raises `CertificateRefused`.
    """
    return [(entry.alias, entry.certificate) for entry in read_keystore(octets, password) if entry.certificate]


def _kind(octets: bytes) -> Kind:
    start = octets[:4]
    if start == jks.MAGIC:
        return "jks"
    if start == jks.MAGIC_JCEKS:
        raise CertificateRefused(
            "unsupported-format",
            "JCEKS is not read; convert it: keytool -importkeystore -srckeystore OLD -srcstoretype JCEKS "
            "-destkeystore NEW.p12 -deststoretype PKCS12",
        )
    if b"-----BEGIN " in octets:
        return "pem"
    if start[:1] == b"\x30":
        value = der.read(octets)
        return "pkcs12" if pkcs12_.looks_like(value) else "der"
    raise CertificateRefused("unknown-format", "neither PEM, PKCS#12, JKS nor DER")


# -- the formats ----------------------------------------------------------------

Keys = list[tuple[str | None, PrivateKeyTypes]]
Certificates = list[tuple[str | None, bytes]]


def _jks(octets: bytes, password: bytes | None, key_password: bytes | None) -> list[Entry]:
    if password is None:
        raise CertificateRefused("password-needed", "a JKS can only be checked with its password")
    entries = []
    for entry in jks.read(octets, password, key_password):
        if entry.private_key is None:
            entries.append(Entry(entry.alias, None, _checked(entry.certificates[0])))
            continue
        key = pkcs8.load(entry.private_key)
        if not entry.certificates or _spki_of(entry.certificates[0]) != _spki(key):
            raise CertificateRefused("key-certificate-mismatch", f"entry {entry.alias!r}")
        chain = tuple(_checked(c) for c in entry.certificates[1:])
        entries.append(Entry(entry.alias, key, entry.certificates[0], chain))
    return sorted(entries, key=lambda entry: entry.private_key is None)


def _pem(octets: bytes, password: bytes | None) -> tuple[Keys, Certificates]:
    keys: Keys = []
    certificates_: Certificates = []
    for label, block, content in _blocks(octets):
        match label:
            case "CERTIFICATE" | "X509 CERTIFICATE":
                certificates_.append((None, _checked(content)))
            case "PKCS7":
                certificates_ += ((None, c) for c in _pkcs7(content))
            case "ENCRYPTED PRIVATE KEY":
                keys.append((None, pkcs8.load_encrypted(content, _needed(password))))
            case "PRIVATE KEY":
                keys.append((None, pkcs8.load(content)))
            case "RSA PRIVATE KEY" | "EC PRIVATE KEY":
                keys.append((None, _pem_key(block, password)))
            case "EC PARAMETERS" | "DH PARAMETERS":
                pass
            case _:
                raise CertificateRefused("unsupported-format", f"a PEM block of type {label}")
    return keys, certificates_


def _blocks(octets: bytes) -> list[tuple[str, bytes, bytes]]:
    """(label, block as it stands, decoded content) of every PEM block. Line by line, so linear."""
    found: list[tuple[str, bytes, bytes]] = []
    label, lines = "", []
    for line in octets.splitlines():
        line = line.strip()
        if not label:
            if line.startswith(b"-----BEGIN ") and line.endswith(b"-----"):
                label, lines = line[11:-5].decode("ascii", "replace"), [line]
            continue
        if line.startswith(b"-----BEGIN "):
            raise CertificateRefused("truncated", f"a PEM block of type {label} does not end")
        lines.append(line)
        if line == b"-----END " + lines[0][11:]:
            found.append((label, b"\n".join(lines) + b"\n", _base64(lines[1:-1], label)))
            label = ""
        if len(found) > MAX_BLOCKS:
            raise CertificateRefused("too-large", f"more than {MAX_BLOCKS} PEM blocks")
    if label:
        raise CertificateRefused("truncated", f"a PEM block of type {label} does not end")
    if not found:
        raise CertificateRefused("unknown-format", "there is no PEM block in it")
    return found


def _base64(lines: list[bytes], label: str) -> bytes:
    # RFC 1421 headers (`Proc-Type: …`) of old encrypted keys come before an empty line.
    body = lines[lines.index(b"") + 1 :] if lines and b":" in lines[0] and b"" in lines else lines
    try:
        return base64.b64decode(b"".join(body), validate=True)
    except binascii.Error:
        raise CertificateRefused("damaged", f"the base64 of a PEM block of type {label}") from None


def _der(octets: bytes, password: bytes | None) -> tuple[Keys, Certificates]:
    items = der.read(octets).expect(der.SEQUENCE).items()
    if items and items[0].tag == der.OID:
        return [], [(None, c) for c in _pkcs7(octets)]
    if items and items[0].tag == der.INTEGER:
        return [(None, pkcs8.load(octets))], []
    if len(items) == 2 and items[1].tag == der.OCTET_STRING:
        return [(None, pkcs8.load_encrypted(octets, _needed(password)))], []
    return [], [(None, _checked(octets))]


def _pkcs7(octets: bytes) -> list[bytes]:
    try:
        return [c.public_bytes(Encoding.DER) for c in pkcs7.load_der_pkcs7_certificates(octets)]
    except UnsupportedAlgorithm:
        raise CertificateRefused("unsupported-format", "PKCS#7 without certificates") from None
    except UNREADABLE as error:
        raise CertificateRefused("damaged", f"PKCS#7: {error}") from None


def _pem_key(block: bytes, password: bytes | None) -> PrivateKeyTypes:
    """A key in one of the older PEM forms, which may be encrypted by PEM itself."""
    encrypted = b"Proc-Type:" in block and b"ENCRYPTED" in block
    try:
        return load_pem_private_key(block, _needed(password) if encrypted else None)
    except UnsupportedAlgorithm as error:
        raise CertificateRefused("unsupported-key", str(error)) from None
    except (ValueError, TypeError) as error:
        if encrypted:
            raise CertificateRefused("wrong-password", "wrong password, or the key is damaged") from None
        raise CertificateRefused("damaged", f"private key: {error}") from None


def _needed(password: bytes | None) -> bytes:
    if not password:
        raise CertificateRefused("password-needed", "the private key is encrypted")
    return password


# -- who belongs to whom ----------------------------------------------------------


def _entries(keys: Keys, certificates_: Certificates) -> list[Entry]:
    """Entries from loose keys and certificates. The public key says which belong together."""
    names: dict[bytes, str | None] = {}
    for alias, certificate in certificates_:
        _checked(certificate)
        names[certificate] = names.get(certificate) or alias
    by_key: dict[bytes, list[bytes]] = {}
    for certificate in names:
        by_key.setdefault(_spki_of(certificate), []).append(certificate)
    entries, used = [], set()
    for alias, key in keys:
        # Two certificates for one key: a renewed one. The entry's own name decides, else the first.
        own = sorted(by_key.get(_spki(key), ()), key=lambda c: alias is None or names[c] != alias)
        if not own and names:
            raise CertificateRefused("key-certificate-mismatch", "no certificate in the file is for its private key")
        certificate = own[0] if own else None
        chain = _chain(certificate, list(names)) if certificate else ()
        used.update(chain, own[:1])
        name = alias or (names[certificate] if certificate else None)
        entries.append(Entry(name or _name(certificate), key, certificate, chain))
    entries += (Entry(name or _name(c), None, c) for c, name in names.items() if c not in used)
    return entries


def _chain(certificate: bytes, others: Sequence[bytes]) -> tuple[bytes, ...]:
    """The issuers of a certificate that are among the others, from its own upwards."""
    known = [(der_, x509.load_der_x509_certificate(der_)) for der_ in others]
    chain: list[bytes] = []
    below = x509.load_der_x509_certificate(certificate)
    while len(chain) < MAX_CHAIN and below.subject != below.issuer:
        issuer = next(((d, c) for d, c in known if c.subject == below.issuer and _issued(below, c)), None)
        if issuer is None or issuer[0] in chain:
            break
        chain.append(issuer[0])
        below = issuer[1]
    return tuple(chain)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def _name(certificate: bytes | None) -> str:
    """What to call a certificate that its file gives no name: its common name."""
    if certificate is None:
        return "key"
    subject = x509.load_der_x509_certificate(certificate).subject
    names = subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else subject.rfc4514_string()


def _checked(certificate: bytes) -> bytes:
    """The octets, if every field that later code reads without asking can be read."""
    try:
        read = x509.load_der_x509_certificate(certificate)
        _ = read.subject, read.issuer, read.not_valid_before_utc, read.not_valid_after_utc
    except UNREADABLE:
        raise CertificateRefused("damaged", "not an X.509 certificate") from None
    return certificate


def _spki(key: PrivateKeyTypes) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _spki_of(certificate: bytes) -> bytes:
    try:
        public = x509.load_der_x509_certificate(certificate).public_key()
    except UNREADABLE:
        # A key we cannot use still may stand in a truststore; it matches no private key.
        return certificate
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
