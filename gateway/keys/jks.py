"""Java's old key store format, JKS: still what the OOTS network truststore comes in.

    0xFEEDFEED | version 1 or 2 | count | entries | SHA-1 of password, "Mighty Aphrodite" and all before

Certificates are in the clear; the digest at the end ties them to the password. A private
key is XORed with a stream of SHA-1 values that starts from the password and a salt, and
has a SHA-1 check of its own. All of this is weak, and none of it is ours to choose: such a
store is read once and protects nothing that its file mode does not.
"""

import hashlib
import hmac
import struct

from msgspec import Struct

from gateway.errors import CertificateRefused
from gateway.keys import der

MAGIC = b"\xfe\xed\xfe\xed"
MAGIC_JCEKS = b"\xce\xce\xce\xce"

_WHITENER = b"Mighty Aphrodite"
_KEY_PROTECTOR = "1.3.6.1.4.1.42.2.17.1.1"
_SALT = _DIGEST = 20
MAX_ENTRIES = 1000
MAX_CHAIN = 10


class JksEntry(Struct, frozen=True):
    """One entry. `private_key` is PKCS#8 DER; the first of `certificates` belongs to it."""

    alias: str
    certificates: tuple[bytes, ...]
    private_key: bytes | None = None

    def __repr__(self) -> str:
        return f"JksEntry({self.alias!r})"


def read(octets: bytes, password: bytes, key_password: bytes | None = None) -> list[JksEntry]:
    """All entries of a JKS. Raises `CertificateRefused`: wrong-password, truncated, damaged."""
    if len(octets) < 12 + _DIGEST:
        raise CertificateRefused("truncated", "the file ends too early: a part of it is missing")
    secret = _utf16(password)
    body, digest = octets[:-_DIGEST], octets[-_DIGEST:]
    expected = hashlib.sha1(secret + _WHITENER + body).digest()  # noqa: S324 - the format's own
    genuine = hmac.compare_digest(expected, digest)
    reader = _Reader(body, complete=genuine)
    if reader.take(4) != MAGIC:
        raise CertificateRefused("unknown-format", "not a JKS")
    version, count = reader.number(">I"), reader.number(">I")
    if version not in (1, 2):
        raise CertificateRefused("unsupported-format", f"JKS version {version}")
    if count > MAX_ENTRIES:
        raise CertificateRefused("too-large", f"more than {MAX_ENTRIES} entries")
    # The structure first: a file cut short must not look like a wrong password.
    entries = [_entry(reader, version) for _ in range(count)]
    if not reader.at_end:
        raise CertificateRefused("damaged", "JKS: octets after the last entry")
    if not genuine:
        raise CertificateRefused("wrong-password", "wrong password, or the JKS was changed")
    return [
        JksEntry(alias, chain, _unprotect(sealed, _utf16(key_password or password)) if sealed else None)
        for alias, sealed, chain in entries
    ]


class _Reader:
    def __init__(self, octets: bytes, *, complete: bool) -> None:
        self._octets, self._at, self._complete = octets, 0, complete

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._octets):
            raise CertificateRefused("damaged" if self._complete else "truncated")
        taken, self._at = self._octets[self._at : end], end
        return taken

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        """A text in Java's modified UTF-8."""
        octets = self.take(self.number(">H")).replace(b"\xc0\x80", b"\x00")
        try:
            surrogates = octets.decode("utf-8", "surrogatepass").encode("utf-16-be", "surrogatepass")
            return surrogates.decode("utf-16-be")
        except UnicodeDecodeError:
            raise CertificateRefused("damaged", "JKS: an alias is not a text") from None

    @property
    def at_end(self) -> bool:
        return self._at == len(self._octets)


def _entry(reader: _Reader, version: int) -> tuple[str, bytes | None, tuple[bytes, ...]]:
    tag, alias, _created = reader.number(">I"), reader.text(), reader.take(8)
    if tag == 1:
        sealed = reader.take(reader.number(">I"))
        count = reader.number(">I")
        if count > MAX_CHAIN:
            raise CertificateRefused("too-large", f"JKS: a chain of more than {MAX_CHAIN} certificates")
        return alias, sealed, tuple(_certificate(reader, version) for _ in range(count))
    if tag == 2:
        return alias, None, (_certificate(reader, version),)
    raise CertificateRefused("damaged", f"JKS: entry of kind {tag}")


def _certificate(reader: _Reader, version: int) -> bytes:
    if version == 2 and (kind := reader.text()) not in ("X.509", "X509"):
        raise CertificateRefused("unsupported-format", f"JKS: a certificate of type {kind[:32]!r}")
    return reader.take(reader.number(">I"))


def _unprotect(sealed: bytes, secret: bytes) -> bytes:
    """Sun's key protector: salt | PKCS#8 XOR stream | SHA-1 of password and PKCS#8."""
    algorithm, octets = der.read(sealed).expect(der.SEQUENCE).items()[:2]
    if (protector := algorithm.items()[0].oid()) != _KEY_PROTECTOR:
        raise CertificateRefused("unsupported-format", f"JKS: key protected with {protector}")
    protected = octets.expect(der.OCTET_STRING).content
    if len(protected) <= _SALT + _DIGEST:
        raise CertificateRefused("damaged", "JKS: a protected key is too short")
    salt, hidden, check = protected[:_SALT], protected[_SALT:-_DIGEST], protected[-_DIGEST:]
    stream, block = bytearray(), salt
    while len(stream) < len(hidden):
        block = hashlib.sha1(secret + block).digest()  # noqa: S324 - the format's own
        stream += block
    key = bytes(a ^ b for a, b in zip(hidden, stream, strict=False))
    if not hmac.compare_digest(hashlib.sha1(secret + key).digest(), check):  # noqa: S324 - the format's own
        raise CertificateRefused("wrong-password", "the key in the JKS has another password than the store")
    return key


def _utf16(password: bytes) -> bytes:
    try:
        return password.decode().encode("utf-16-be")
    except UnicodeDecodeError:
        raise CertificateRefused("wrong-password", "the password is not UTF-8") from None
