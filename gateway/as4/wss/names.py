"""Distinguished names as text, compared by what they say [as4 3.4].

X509IssuerName is RFC 4514 on paper. On the wire attribute types come as words or as OIDs,
values quoted, escaped or as `#hex`, with or without spaces after the commas, and some
stacks write the sequence front to back. The text only picks one of the certificates that
are pinned already, and the serial number must fit too, so leniency here opens nothing.
"""

import re
from collections.abc import Sequence

from cryptography import x509

from gateway.as4.xml import escaped

#: Attribute types by the words in use (RFC 4514, Java, Bouncy Castle, OpenSSL).
_TYPES = {
    "CN": "2.5.4.3", "SN": "2.5.4.4", "SURNAME": "2.5.4.4", "SERIALNUMBER": "2.5.4.5", "C": "2.5.4.6",
    "L": "2.5.4.7", "ST": "2.5.4.8", "S": "2.5.4.8", "STREET": "2.5.4.9", "O": "2.5.4.10", "OU": "2.5.4.11",
    "T": "2.5.4.12", "TITLE": "2.5.4.12", "POSTALCODE": "2.5.4.17", "GIVENNAME": "2.5.4.42", "GN": "2.5.4.42",
    "INITIALS": "2.5.4.43", "GENERATION": "2.5.4.44", "DNQ": "2.5.4.46", "DNQUALIFIER": "2.5.4.46",
    "PSEUDONYM": "2.5.4.65", "ORGANIZATIONIDENTIFIER": "2.5.4.97", "UID": "0.9.2342.19200300.100.1.1",
    "DC": "0.9.2342.19200300.100.1.25", "E": "1.2.840.113549.1.9.1", "EMAIL": "1.2.840.113549.1.9.1",
    "EMAILADDRESS": "1.2.840.113549.1.9.1",
}  # fmt: skip

_PIECE = re.compile(r'\\[0-9A-Fa-f]{2}|\\.|"(?:[^"\\]|\\.)*"|.', re.S)
_OID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
#: DER string types with the charset of each.
_STRINGS = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}

Rdn = frozenset[tuple[str, str]]


def name_text(name: x509.Name) -> str:
    """The name in RFC 4514, ready to stand in XML."""
    return escaped(name.rfc4514_string())


def same_name(text: str | None, name: x509.Name) -> bool:
    """Whether `text` says `name`."""
    said = parse_name(text or "")
    meant = [frozenset((a.oid.dotted_string, _plain(a.value)) for a in rdn) for rdn in name.rdns]
    return said is not None and (said == meant[::-1] or said == meant)


def parse_name(text: str) -> list[Rdn] | None:
    """The relative names in the order of the text, None when it is no name."""
    found: list[Rdn] = []
    for rdn in _split(text, ",;"):
        pairs = []
        for pair in _split(rdn, "+"):
            kind, equals, value = pair.partition("=")
            kind = kind.strip().upper().removeprefix("OID.")
            oid = _TYPES.get(kind) or (kind if _OID.fullmatch(kind) else None)
            if not equals or oid is None:
                return None
            pairs.append((oid, _value(value)))
        found.append(frozenset(pairs))
    return found


def _split(text: str, separators: str) -> list[str]:
    """Cut at separators that are neither escaped nor quoted."""
    found: list[str] = []
    piece: list[str] = []
    for token in _PIECE.findall(text):
        if len(token) == 1 and token in separators:
            found.append("".join(piece))
            piece = []
        else:
            piece.append(token)
    return [*found, "".join(piece)]


def _value(text: str) -> str:
    text = text.strip()
    if text.startswith("#"):
        return _plain(_from_der(text[1:]))
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    octets = bytearray()
    for token in _PIECE.findall(text):
        if token[0] != "\\":
            octets += token.encode("utf-8", "surrogatepass")
        elif len(token) == 3:
            octets.append(int(token[1:], 16))
        else:
            octets += token[1:].encode("utf-8", "surrogatepass")
    return _plain(octets.decode("utf-8", "replace"))


def _from_der(digits: str) -> str:
    """The text of a short DER string written as hexadecimal digits; the digits where it is none."""
    try:
        octets = bytes.fromhex(digits)
        if len(octets) >= 2 and octets[1] == len(octets) - 2 < 128:
            return octets[2:].decode(_STRINGS[octets[0]])
    except (ValueError, KeyError):
        pass
    return "#" + digits


def _plain(value: str | bytes | Sequence[int]) -> str:
    """Values are compared as caseIgnoreMatch does: letters and runs of spaces do not count."""
    text = value if isinstance(value, str) else bytes(value).hex()
    return " ".join(text.split()).casefold()
