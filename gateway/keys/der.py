"""A reader of DER, just enough to look into key stores [X.690].

Strict: definite lengths in their shortest form, one-octet tags, nothing left over. What
it reads is only walked, never trusted; keys and certificates themselves are parsed by the
`cryptography` library.
"""

from typing import NamedTuple

from gateway.errors import CertificateRefused

INTEGER, OCTET_STRING, OID, SEQUENCE, SET, BMP_STRING, CONTEXT_0 = 0x02, 0x04, 0x06, 0x30, 0x31, 0x1E, 0xA0


class Value(NamedTuple):
    """One tag-length-value. `whole` has tag and length, too."""

    tag: int
    content: bytes
    whole: bytes

    def items(self) -> list["Value"]:
        """The values inside a constructed value."""
        if not self.tag & 0x20:
            raise CertificateRefused("damaged", "DER: a constructed value was expected")
        found, at = [], 0
        while at < len(self.content):
            value, at = _read(self.content, at)
            found.append(value)
        return found

    def expect(self, tag: int) -> "Value":
        if self.tag != tag:
            raise CertificateRefused("damaged", f"DER: tag {tag:#04x} was expected, not {self.tag:#04x}")
        return self

    def integer(self) -> int:
        return int.from_bytes(self.expect(INTEGER).content, signed=True)

    def oid(self) -> str:
        """Dotted form."""
        octets = self.expect(OID).content
        arcs, number = [], 0
        for octet in octets:
            number = number << 7 | octet & 0x7F
            if not octet & 0x80:
                arcs.append(number)
                number = 0
        if not arcs or octets[-1] & 0x80:
            raise CertificateRefused("damaged", "DER: not an object identifier")
        first = min(arcs[0] // 40, 2)
        return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def read(octets: bytes) -> Value:
    """The one value that `octets` are. Raises `CertificateRefused`: truncated, damaged."""
    value, end = _read(octets, 0)
    if end != len(octets):
        raise CertificateRefused("damaged", "DER: octets after the end")
    return value


def _read(octets: bytes, at: int) -> tuple[Value, int]:
    start = at
    if at + 2 > len(octets):
        raise CertificateRefused("truncated", "the file ends too early: a part of it is missing")
    tag, length = octets[at], octets[at + 1]
    at += 2
    if tag & 0x1F == 0x1F:
        raise CertificateRefused("damaged", "DER: a tag that no key store uses")
    if length == 0x80:
        raise CertificateRefused(
            "unsupported-format", "BER with indefinite lengths; convert it: openssl pkcs12 -in OLD | "
            "openssl pkcs12 -export -out NEW"
        )  # fmt: skip
    if length > 0x80:
        size = length & 0x7F
        if size > 4:
            raise CertificateRefused("damaged", "DER: an impossible length")
        if at + size > len(octets):
            raise CertificateRefused("truncated", "the file ends too early: a part of it is missing")
        length = int.from_bytes(octets[at : at + size])
        if length < 0x80 or octets[at] == 0:
            raise CertificateRefused("damaged", "DER: a length not in its shortest form")
        at += size
    end = at + length
    if end > len(octets):
        raise CertificateRefused("truncated", "the file ends too early: a part of it is missing")
    return Value(tag, octets[at:end], octets[start:end]), end
