"""The certificates in files that agreements name: PEM or DER, one or several."""

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.as4.wss.algorithms import UNREADABLE
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Document

MAX_CERTIFICATE_FILE = 64 << 10
#: Certificates of one file that are taken as a set: anchors, intermediates, publishers.
MAX_CERTIFICATES = 32


def certificate_in(file: str, document: Document, key: str) -> bytes:
    """The one certificate of a file, DER; of a chain the one that issued no other. Raises `ConfigError`."""
    found = certificates_in(file, document, key)
    issuers = {c.issuer for c in found if c.issuer != c.subject}
    leaves = {c.public_bytes(Encoding.DER) for c in found if len(found) == 1 or c.subject not in issuers}
    if len(leaves) != 1:
        raise ConfigError(
            f"{file} holds {len(found)} certificates", file=document.name, key=key,
            hint="give the certificate of the party alone, or with its chain",
        )  # fmt: skip
    return leaves.pop()


def pem_in(file: str, document: Document, key: str) -> bytes:
    """All certificates of a file, as PEM. Raises `ConfigError`."""
    return b"".join(c.public_bytes(Encoding.PEM) for c in certificates_in(file, document, key))


def ders_in(file: str, document: Document, key: str) -> tuple[bytes, ...]:
    """All certificates of a file, as DER. Raises `ConfigError`."""
    found = tuple(dict.fromkeys(c.public_bytes(Encoding.DER) for c in certificates_in(file, document, key)))
    if not 0 < len(found) <= MAX_CERTIFICATES:
        raise ConfigError(
            f"{file} holds {len(found)} certificates; expected 1 to {MAX_CERTIFICATES}", file=document.name, key=key
        )
    return found


def cas_in(file: str, document: Document, key: str) -> tuple[bytes, ...]:
    """The CAs of a file, as DER. Raises `ConfigError`, also for what is no CA: it would never end a path."""
    found = ders_in(file, document, key)
    for der in found:
        try:
            constraints = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.BasicConstraints)
            is_ca = constraints.value.ca
        except (x509.ExtensionNotFound, *UNREADABLE):
            is_ca = False
        if not is_ca:
            raise ConfigError(
                f"{file} holds a certificate that is not a CA's", file=document.name, key=key,
                hint="the certificate of one party is pinned with `certificate` or `signing`",
            )  # fmt: skip
    return found


def certificates_in(file: str, document: Document, key: str) -> list[x509.Certificate]:
    """The certificates of a file. Raises `ConfigError`."""
    octets = document.files.read(file, document=document.name, key=key, most=MAX_CERTIFICATE_FILE)
    try:
        if b"-----BEGIN" in octets:
            return x509.load_pem_x509_certificates(octets)
        return [x509.load_der_x509_certificate(octets)]
    except UNREADABLE:
        raise ConfigError(
            f"{file} is not a certificate in PEM or DER", file=document.name, key=key,
            hint="`gateway certs show FILE` says what it is",
        ) from None  # fmt: skip
