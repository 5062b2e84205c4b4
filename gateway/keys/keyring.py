"""Our own private keys, as one immutable snapshot.

The first key in the order of the configuration that fits the profile of an agreement signs;
every key decrypts, so that one can be replaced while messages for the old one are still under
way. What a key can do follows from its type and the key usage of its certificate:

    RSA        signs (PKCS#1 v1.5, SHA-256), unwraps content keys (OAEP)         eDelivery AS4 1.x
    Ed25519    signs                                                            eDelivery AS4 2.0
    X25519     agrees on content keys                                           eDelivery AS4 2.0
    EC         signs (SHA-256), agrees on content keys                          2.0, elliptic curve option

Private keys never appear in a repr, an error or the log.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gateway.as4 import ns
from gateway.as4.profiles.profile import Profile
from gateway.as4.units import PartyId
from gateway.as4.wss.keys import DecryptionKey, SigningKey
from gateway.config import KeyStore
from gateway.errors import CertificateRefused, ConfigError, KeyUnavailable
from gateway.keys.formats import MAX_SIZE, Entry, certificates, read_keystore
from gateway.keys.own import TlsKey

#: Digests and mask generation functions of RSA-OAEP. Which pairs are accepted is the profile's business.
_DIGESTS = {
    "http://www.w3.org/2000/09/xmldsig#sha1": hashes.SHA1(),  # noqa: S303 - the default of XML Encryption
    ns.SHA256: hashes.SHA256(),
    "http://www.w3.org/2001/04/xmldsig-more#sha384": hashes.SHA384(),
    ns.XENC + "sha512": hashes.SHA512(),
}
_MGFS = {
    ns.MGF1_SHA1: hashes.SHA1(),  # noqa: S303 - the default of XML Encryption
    ns.MGF1_SHA256: hashes.SHA256(),
    ns.XENC11 + "mgf1sha384": hashes.SHA384(),
    ns.XENC11 + "mgf1sha512": hashes.SHA512(),
}


class _Holder:
    """A private key with its certificate."""

    __slots__ = ("_key", "certificate")

    def __init__(self, key: object, certificate: bytes) -> None:
        self._key, self.certificate = key, certificate

    def __repr__(self) -> str:
        subject = x509.load_der_x509_certificate(self.certificate).subject.rfc4514_string()
        return f"{type(self).__name__}({subject!r})"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled")

    def held(self) -> object:
        """The private key itself, to be sealed."""
        return self._key


class SoftwareSigningKey(_Holder):
    """A `SigningKey` whose private key is in this process."""

    __slots__ = ("algorithm", "chain")

    def __init__(
        self,
        key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
        certificate: bytes,
        chain: tuple[bytes, ...] = (),
    ) -> None:
        super().__init__(key, certificate)
        self.chain = chain
        match key:
            case rsa.RSAPrivateKey():
                self.algorithm = ns.RSA_SHA256
            case ec.EllipticCurvePrivateKey():
                self.algorithm = ns.ECDSA_SHA256
            case _:
                self.algorithm = ns.ED25519

    def sign(self, octets: bytes) -> bytes:
        """The SignatureValue; for ECDSA r||s, each as long as the curve's order [xmldsig 6.4.3]."""
        key = self._key
        match key:
            case rsa.RSAPrivateKey():
                return key.sign(octets, padding.PKCS1v15(), hashes.SHA256())
            case ec.EllipticCurvePrivateKey():
                size = (key.curve.group_order.bit_length() + 7) // 8
                r, s = decode_dss_signature(key.sign(octets, ec.ECDSA(hashes.SHA256())))
                return r.to_bytes(size) + s.to_bytes(size)
            case _:
                return key.sign(octets)


class SoftwareDecryptionKey(_Holder):
    """A `DecryptionKey` whose private key is in this process."""

    __slots__ = ()

    def __init__(
        self,
        key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey,
        certificate: bytes,
    ) -> None:
        super().__init__(key, certificate)

    def unwrap_oaep(self, wrapped: bytes, *, digest: str, mgf: str) -> bytes:
        """RSA-OAEP; digest and mask generation function are told apart [as4 3.8]. Raises `ValueError`."""
        key = self._key
        if not isinstance(key, rsa.RSAPrivateKey) or digest not in _DIGESTS or mgf not in _MGFS:
            raise ValueError("not for this key")
        return key.decrypt(wrapped, padding.OAEP(padding.MGF1(_MGFS[mgf]), _DIGESTS[digest], None))

    def agree(self, originator: bytes) -> bytes:
        """X25519, or ECDH on the curve of our key; the x-coordinate in full length. Raises `ValueError`."""
        key = self._key
        try:
            public = load_der_public_key(originator)
        except (UnsupportedAlgorithm, TypeError) as error:
            raise ValueError(str(error)) from None
        match key, public:
            case x25519.X25519PrivateKey(), x25519.X25519PublicKey():
                return key.exchange(public)  # refuses points of small order
            case ec.EllipticCurvePrivateKey(), ec.EllipticCurvePublicKey():
                # Points off the curve do not get here: parsing refuses them.
                if public.curve.name != key.curve.name:
                    raise ValueError("another curve")
                return key.exchange(ec.ECDH(), public)
        raise ValueError("not for this key")


def signing_key(entry: Entry) -> SoftwareSigningKey | None:
    """The entry as a signing key; None when its type or its certificate is not for signing."""
    key = entry.private_key
    if entry.certificate is None or not isinstance(
        key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)
    ):
        return None
    usage = _usage(entry.certificate)
    if usage is not None and not (usage.digital_signature or usage.content_commitment):
        return None
    return SoftwareSigningKey(key, entry.certificate, entry.chain)


def decryption_key(entry: Entry) -> SoftwareDecryptionKey | None:
    """The entry as a decryption key; None when its type or its certificate is not for that."""
    key = entry.private_key
    if entry.certificate is None or not isinstance(
        key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, x25519.X25519PrivateKey)
    ):
        return None
    usage = _usage(entry.certificate)
    # Elliptic keys come in pairs, and a signing key must not agree on keys [as4 3.9]. An RSA
    # key decrypts whatever its certificate says: a partner may have encrypted to it already.
    if usage is not None and isinstance(key, ec.EllipticCurvePrivateKey) and not usage.key_agreement:
        return None
    return SoftwareDecryptionKey(key, entry.certificate)


def _usage(certificate: bytes) -> x509.KeyUsage | None:
    try:
        return x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return None


class Keyring:
    """All keys of our own parties at one moment. Never changed, only replaced.

    Those of the database come first (`over`): what is configured as a file signs only where the database
    has nothing that fits, and decrypts always.
    """

    __slots__ = ("_below", "_chosen", "_decrypting", "_signing", "_tls")

    def __init__(
        self,
        signing: Mapping[str | None, Sequence[SigningKey]],
        decrypting: Mapping[str | None, Sequence[DecryptionKey]],
        chosen: Mapping[tuple[str | None, str], Sequence[SigningKey]] | None = None,
        below: "Keyring | None" = None,
        tls: Mapping[str, TlsKey] | None = None,
    ) -> None:
        """Keys by party id; those under None are for every party of ours. `chosen` has those that sign for a
        party to one partner, by (party id, partner's party id), `tls` those of connections, by use."""
        self._signing = {party: tuple(keys) for party, keys in signing.items()}
        self._decrypting = {party: tuple(keys) for party, keys in decrypting.items()}
        self._chosen = {place: tuple(keys) for place, keys in (chosen or {}).items()}
        self._below, self._tls = below, dict(tls or {})

    def over(self, below: "Keyring") -> "Keyring":
        """These keys first, then those of `below`."""
        return Keyring(self._signing, self._decrypting, self._chosen, below, self._tls)

    @property
    def remote(self) -> bool:
        """Whether a key is in a token: calls may take long, and are made beside the loop."""
        groups = (*self._signing.values(), *self._decrypting.values(), *self._chosen.values())
        return any(getattr(key, "remote", False) for keys in groups for key in keys)

    def tls(self, use: str) -> TlsKey | None:
        """The key for connections that come to us (`tls-server`) or go to partners (`tls-client`)."""
        return self._tls.get(use)

    def signing_key(
        self, party: PartyId | str, profile: Profile, *, partner: PartyId | str | None = None
    ) -> SigningKey:
        """The key that signs for `party` under `profile`, to `partner` where one is chosen for it.

        Raises `KeyUnavailable`.
        """
        found = self._signing_key(_name(party), profile, partner and _name(partner))
        if found is not None:
            return found
        have = ", ".join(sorted({key.algorithm.rpartition("#")[2] for key in self._signers(_name(party))})) or "none"
        wanted = profile.send_signature.rpartition("#")[2]
        raise KeyUnavailable(f"no key of {_name(party)} signs with {wanted} (signing keys: {have})")

    def _signing_key(self, party: str, profile: Profile, partner: str | None) -> SigningKey | None:
        chosen = self._chosen.get((party, partner), ()) + self._chosen.get((None, partner), ()) if partner else ()
        for key in (*chosen, *_of(self._signing, party)):
            if key.algorithm == profile.send_signature:
                return key
        return self._below._signing_key(party, profile, partner) if self._below else None

    def _signers(self, party: str) -> tuple[SigningKey, ...]:
        return _of(self._signing, party) + (self._below._signers(party) if self._below else ())

    def decryption_keys(self, party: PartyId | str) -> tuple[DecryptionKey, ...]:
        """Every key that content keys may have been protected for; newest first as configured."""
        mine = _of(self._decrypting, _name(party))
        return mine + self._below.decryption_keys(party) if self._below else mine

    @property
    def files(self) -> "Keyring":
        """The keys that are configured as files."""
        return self._below if self._below is not None else self

    def in_use(self) -> tuple[tuple[str | None, str, SigningKey | TlsKey], ...]:
        """What of these keys, and not of those below, signs or stands for us in TLS: party, use, key."""
        return (
            *((party, "sign", key) for party, keys in self._signing.items() for key in keys),
            *((None, use, key) for use, key in self._tls.items()),
        )

    def every(self) -> tuple[tuple[str | None, Literal["sign", "decrypt"], SigningKey | DecryptionKey], ...]:
        """All of these keys, and not those below: the party's id or None for every party, the use, the key."""
        return (
            *((party, "sign", key) for party, keys in self._signing.items() for key in keys),
            *((party, "decrypt", key) for party, keys in self._decrypting.items() for key in keys),
        )

    def __repr__(self) -> str:
        counts = sum(map(len, self._signing.values())), sum(map(len, self._decrypting.values()))
        below = f", over {self._below!r}" if self._below else ""
        return f"Keyring({counts[0]} signing, {counts[1]} decrypting{below})"


def _of(keys: Mapping[str | None, tuple], party: str) -> tuple:
    return keys.get(party, ()) + keys.get(None, ())


def _name(party: PartyId | str) -> str:
    return party if isinstance(party, str) else party.value


def load_keyring(stores: Iterable[KeyStore]) -> Keyring:
    """The keys of `[[keys.store]]`. Raises `ConfigError` that names file and what is wrong with it."""
    signing: dict[str | None, list[SigningKey]] = {}
    decrypting: dict[str | None, list[DecryptionKey]] = {}
    for store, signer, opener in configured_keys(stores):
        if signer is not None:
            signing.setdefault(store.party, []).append(signer)
        if opener is not None:
            decrypting.setdefault(store.party, []).append(opener)
    return Keyring(signing, decrypting)


def configured_keys(
    stores: Iterable[KeyStore],
) -> Iterator[tuple[KeyStore, SoftwareSigningKey | None, SoftwareDecryptionKey | None]]:
    """Every key of `[[keys.store]]` with its table, as what it is used for. Raises `ConfigError`."""
    for number, store in enumerate(stores):
        place = f"keys.store[{number}]"
        for entry in _private_entries(store, place):
            signer = signing_key(entry) if "sign" in store.uses else None
            opener = decryption_key(entry) if "decrypt" in store.uses else None
            if signer is None and opener is None:
                raise ConfigError(
                    f"the key {entry.alias!r} can do nothing of {list(store.uses)}", file=str(store.path),
                    key=place, hint="its type or the key usage of its certificate is for something else",
                )  # fmt: skip
            yield store, signer, opener


def _private_entries(store: KeyStore, place: str) -> list[Entry]:
    """The entries with a private key that a table of the configuration means."""
    file = str(store.path)
    try:
        entries = [e for e in read_keystore(
            _octets(store.path, place),
            store.password.line() if store.password else None,
            key_password=store.key_password.line() if store.key_password else None,
        ) if e.private_key is not None]  # fmt: skip
        if store.alias is not None:
            names = sorted(entry.alias for entry in entries)
            entries = [entry for entry in entries if entry.alias.lower() == store.alias.lower()]
            if not entries:
                raise CertificateRefused("no-private-key", f"no private key named {store.alias!r}, but {names}")
        if not entries:
            raise CertificateRefused("no-private-key", "there is no private key in it")
        if store.certificate is not None:
            file = str(store.certificate)
            entries = [_with_certificate(entry, certificates(_octets(store.certificate, place))) for entry in entries]
        for entry in entries:
            if entry.certificate is None:
                raise CertificateRefused("no-certificate", f"the key {entry.alias!r} has no certificate")
    except CertificateRefused as refused:
        hint = _HINTS.get(refused.reason, "`gateway certs show FILE` says what a file holds")
        raise ConfigError(str(refused), file=file, key=place, hint=hint) from refused
    return entries


_HINTS = {
    "wrong-password": "check `password`, and `key_password` for a JKS",
    "password-needed": "set `password` to a reference such as file:PATH",
    "no-certificate": "set `certificate` to the file that has it",
}


def _with_certificate(entry: Entry, found: Sequence[bytes]) -> Entry:
    public = entry.private_key.public_key()
    for certificate in found:
        if x509.load_der_x509_certificate(certificate).public_key() == public:
            chain = tuple(other for other in found if other != certificate)
            return Entry(entry.alias, entry.private_key, certificate, chain)
    raise CertificateRefused("key-certificate-mismatch", "no certificate in it is for the private key")


def _octets(path: Path, place: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SIZE + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path), key=place) from None
