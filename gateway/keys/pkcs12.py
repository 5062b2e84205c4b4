"""PKCS#12 with any number of keys [RFC 7292].

The `cryptography` library checks the MAC and decrypts the certificates, but hands out one
key only, and none at all when that one is X25519. Stores of an eDelivery 2.0 party hold
two keys, and Domibus' `<party>_rsa_sign` and `_rsa_decrypt` live in one file, too. So we
walk to the key bags ourselves; their decryption is the library's again. Which certificate
belongs to which key is decided by the public key, not by what the file says.

Iteration counts are judged before the library gets the file [threats K09]; those of a key bag
inside an encrypted safe cannot be seen before that.
"""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12
from msgspec import Struct

from gateway.as4.wss.algorithms import UNREADABLE
from gateway.errors import CertificateRefused
from gateway.keys import der, pkcs8

MAX_BAGS = 1000

_DATA, _ENCRYPTED_DATA = "1.2.840.113549.1.7.1", "1.2.840.113549.1.7.6"
_KEY_BAG, _SHROUDED_KEY_BAG = "1.2.840.113549.1.12.10.1.1", "1.2.840.113549.1.12.10.1.2"
_FRIENDLY_NAME = "1.2.840.113549.1.9.20"


class Pkcs12(Struct, frozen=True):
    """What a store holds: (alias, private key) and (alias, certificate DER), each in the order of the file."""

    keys: list[tuple[str | None, PrivateKeyTypes]]
    certificates: list[tuple[str | None, bytes]]


class _KeyBag(Struct, frozen=True):
    alias: str | None
    octets: bytes
    shrouded: bool


def looks_like(value: der.Value) -> bool:
    """Whether a DER value is a PFX: version 3, then a content info."""
    items = value.items()
    return len(items) in (2, 3) and items[0].whole == b"\x02\x01\x03" and items[1].tag == der.SEQUENCE


def read(octets: bytes, password: bytes | None) -> Pkcs12:
    """All keys and certificates.

    Raises `CertificateRefused`: wrong-password, password-needed, truncated, damaged, too-many-iterations …
    """
    bags = _key_bags(octets)
    key, certificates = _by_library(octets, password)
    keys = [(bag.alias, _private_key(bag, password)) for bag in bags]
    if key is not None and not any(_same(key, other) for _, other in keys):
        # Its bag is in an encrypted safe, where we do not look.
        keys.append((None, key))
    return Pkcs12(keys, certificates)


def _by_library(
    octets: bytes, password: bytes | None
) -> tuple[PrivateKeyTypes | None, list[tuple[str | None, bytes]]]:
    try:
        try:
            store = pkcs12.load_pkcs12(octets, password)
            key, found = store.key, [c for c in (store.cert, *store.additional_certs) if c is not None]
            named = [(_alias(c.friendly_name), c.certificate) for c in found]
        except TypeError:
            # An X25519 key comes first; this entry to the library does not mind, but tells no names.
            key, first, others = pkcs12.load_key_and_certificates(octets, password)
            named = [(None, c) for c in (first, *others) if c is not None]
    except UnsupportedAlgorithm as error:
        raise CertificateRefused("unsupported-format", f"PKCS#12: {error}") from None
    except UNREADABLE as error:
        if "password" not in str(error):
            raise CertificateRefused("damaged", f"PKCS#12: {error}") from None
        raise CertificateRefused(
            "wrong-password" if password else "password-needed", "wrong password, or the PKCS#12 was changed"
        ) from None
    return key, [(alias, certificate.public_bytes(Encoding.DER)) for alias, certificate in named]


def _alias(name: bytes | None) -> str | None:
    return name.decode(errors="replace") if name else None


def _private_key(bag: _KeyBag, password: bytes | None) -> PrivateKeyTypes:
    return pkcs8.load_encrypted(bag.octets, password or b"") if bag.shrouded else pkcs8.load(bag.octets)


def _same(one: PrivateKeyTypes, other: PrivateKeyTypes) -> bool:
    return one.public_key() == other.public_key()


# -- the walk -------------------------------------------------------------------


def _key_bags(octets: bytes) -> list[_KeyBag]:
    """Every key bag outside encrypted safes. Judges all iteration counts that can be seen."""
    store = der.read(octets).expect(der.SEQUENCE).items()
    if len(store) == 3:
        mac = store[2].items()
        pkcs8.judge_iterations(mac[0].items()[0])
        pkcs8.judge(mac[2].integer() if len(mac) > 2 else 1)
    bags: list[_KeyBag] = []
    for safe in der.read(_content(store[1], _DATA)).expect(der.SEQUENCE).items():
        kind = safe.items()[0].oid()
        if kind == _ENCRYPTED_DATA:
            encrypted = _explicit(safe.items()[1]).items()
            pkcs8.judge_iterations(encrypted[1].items()[1])
        elif kind == _DATA:
            for bag in der.read(_content(safe, _DATA)).expect(der.SEQUENCE).items():
                bags += _key_bag(bag)
        else:
            raise CertificateRefused("unsupported-format", "PKCS#12 for a public key")
        if len(bags) > MAX_BAGS:
            raise CertificateRefused("too-large", f"more than {MAX_BAGS} keys")
    return bags


def _key_bag(bag: der.Value) -> list[_KeyBag]:
    kind, value, *attributes = bag.items()
    if kind.oid() not in (_KEY_BAG, _SHROUDED_KEY_BAG):
        return []
    shrouded = kind.oid() == _SHROUDED_KEY_BAG
    key = _explicit(value)
    if shrouded:
        pkcs8.judge_iterations(key.items()[0])
    return [_KeyBag(_friendly_name(attributes), key.whole, shrouded)]


def _friendly_name(attributes: list[der.Value]) -> str | None:
    for attribute in attributes[0].items() if attributes else ():
        name, values = attribute.items()
        if name.oid() == _FRIENDLY_NAME and (texts := values.items()):
            return texts[0].expect(der.BMP_STRING).content.decode("utf-16-be", errors="replace")
    return None


def _content(info: der.Value, kind: str) -> bytes:
    """The octets in a ContentInfo of that type."""
    items = info.items()
    if len(items) != 2 or items[0].oid() != kind:
        raise CertificateRefused("unsupported-format", "PKCS#12 with a signature instead of a MAC")
    return _explicit(items[1]).expect(der.OCTET_STRING).content


def _explicit(value: der.Value) -> der.Value:
    inner = value.expect(der.CONTEXT_0).items()
    if len(inner) != 1:
        raise CertificateRefused("damaged", "DER: one value was expected")
    return inner[0]
