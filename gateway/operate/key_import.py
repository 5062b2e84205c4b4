"""Keys come in: from PEM, PKCS#12 and JKS, as an object of a token, or made here with a request for a certificate.

A key that is imported is PLANNED: kept and sealed, but in no ring. Everything that would keep it from being used is
found here, each with a reason of its own, because a key that is refused at promotion is found too late.
"""

import secrets
from collections.abc import Callable, Collection
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec import Struct

from gateway.config import KeyStore, Trust
from gateway.errors import CertificateRefused, NotPossible
from gateway.keys import own
from gateway.keys.formats import Entry, certificates, read_keystore
from gateway.keys.keyring import configured_keys, decryption_key, signing_key
from gateway.keys.sealing import KeyEncryptionKey
from gateway.keys.tls import tls_test
from gateway.keys.trust import STRICT, Use, check_certificate
from gateway.msh.ring import NoTokens, Tokens
from gateway.operate.certificates import Held
from gateway.operate.proposals import check_texts
from gateway.store.api import Store
from gateway.store.keys import KeyUse, NewKey, OwnKey

#: What a certificate has to be good for, for each use.
PURPOSES: dict[KeyUse, Use] = {
    "sign": "sign", "decrypt": "encrypt", "tls-server": "tls-server", "tls-client": "tls-client",
}  # fmt: skip
#: Kinds of keys that a request is signed with, and how they are made.
KINDS: dict[str, Callable[[], object]] = {
    "rsa-3072": lambda: rsa.generate_private_key(public_exponent=65537, key_size=3072),
    "rsa-4096": lambda: rsa.generate_private_key(public_exponent=65537, key_size=4096),
    "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


class Found(Struct, frozen=True, kw_only=True):
    """What a file has for us, judged. `completes` is the key that waits for this certificate; then there is no
    private key in it. `notes` are worth knowing."""

    certificate: bytes
    chain: tuple[bytes, ...]
    uses: tuple[KeyUse, ...]
    algorithm: str
    party: str | None
    private_key: object = None
    token: str | None = None
    completes: str | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Found({self.algorithm}, {', '.join(self.uses)})"


def read(
    octets: bytes, have: Held, *, now: datetime, password: bytes | None = None, key_password: bytes | None = None,
    alias: str | None = None, uses: Collection[KeyUse] = (), party: str | None = None, token: str | None = None,
    allow: Trust = STRICT, crl: bytes | None = None, tokens: Tokens | None = None,
) -> list[Found]:  # fmt: skip
    """The keys of ours in a file, or the certificate that one of ours waits for. `uses`: what they are to be for;
    without it what key and certificate are good for (TLS only when asked for). `token` is the URI of the private key in
    one of `tokens`; the file has its certificate then.

    Raises `CertificateRefused` with the reasons of `keys.formats` and `keys.trust`, and no-private-key, wrong-key,
    wrong-use, revoked, crl; `NotPossible` for what does not go with the keys there are.
    """
    entries = read_keystore(octets, password, key_password=key_password)
    if alias is not None:
        names = ", ".join(sorted(entry.alias for entry in entries))
        entries = [entry for entry in entries if entry.alias.lower() == alias.lower()]
        if not entries:
            raise CertificateRefused("no-private-key", f"there is nothing named {alias!r} in it, but {names}")
    private = [entry for entry in entries if entry.private_key is not None]
    if token is not None:
        leaf, chain = _leaf(octets)
        key = (tokens or NoTokens()).key(token, leaf, chain)
        found = [_judged(Entry(token, None, leaf, chain), uses, party, now, allow, in_token=key)]
    elif private:
        found = [_judged(entry, uses, party, now, allow) for entry in private]
    else:
        found = [_completing(octets, have, uses, party, now, allow)]
    for one in found:
        if crl is not None:
            check_revoked(one.certificate, one.chain, crl, now)
        if one.completes is None and any(key.certificate == one.certificate for key in have.keys):
            there = next(key for key in have.keys if key.certificate == one.certificate)
            raise NotPossible(f"this is key {there.id} already")
    return found


def from_stores(stores: Collection[KeyStore], have: Held, *, now: datetime, allow: Trust = STRICT) -> list[Found]:
    """The keys of `[[keys.store]]` that are not in the database yet, each with the uses it has there.

    What is out of time or otherwise unfit is taken all the same where it only decrypts: messages may still come for
    it. Raises `ConfigError`, `CertificateRefused`.
    """
    found: dict[bytes, Found] = {}
    for store, signer, opener in configured_keys(stores):
        key = signer or opener
        uses = tuple(use for use, there in (("decrypt", opener), ("sign", signer)) if there is not None)
        if any(known.certificate == key.certificate for known in have.keys):
            continue
        if signer is not None:
            _usable(key.certificate, ("sign",), now, allow)
        before = found.get(key.certificate)
        public = x509.load_der_x509_certificate(key.certificate).public_key()
        found[key.certificate] = Found(
            certificate=key.certificate, chain=signer.chain if signer else (), party=store.party,
            uses=tuple(sorted({*uses, *(before.uses if before else ())})), algorithm=own.algorithm_of(public),
            private_key=key.held(),
        )  # fmt: skip
    return list(found.values())


def _judged(
    entry: Entry, uses: Collection[KeyUse], party: str | None, now: datetime, allow: Trust, in_token: object = None
) -> Found:
    if entry.certificate is None:
        raise CertificateRefused("no-certificate", f"the key {entry.alias!r} has no certificate in this file")
    chosen = _usable(entry.certificate, uses, now, allow)
    if in_token is not None and any(use.startswith("tls") for use in chosen):
        raise NotPossible("a key in a token signs or decrypts; TLS needs one that is here")
    chosen = _prove(entry, chosen, in_token, asked=bool(uses))
    if any(use.startswith("tls") for use in chosen) and party is not None:
        raise NotPossible("a key for TLS is for all parties of this node")
    public = x509.load_der_x509_certificate(entry.certificate).public_key()
    notes = () if entry.chain or _self_signed(entry.certificate) else ("the file has no certificate of the issuer",)
    return Found(
        certificate=entry.certificate, chain=entry.chain, uses=chosen, algorithm=own.algorithm_of(public), party=party,
        private_key=entry.private_key, token=None if in_token is None else entry.alias, notes=notes,
    )  # fmt: skip


def _usable(certificate: bytes, uses: Collection[KeyUse], now: datetime, allow: Trust) -> tuple[KeyUse, ...]:
    """The wanted uses, or of signing and decrypting those the certificate is good for. Raises `CertificateRefused`."""
    refusals, good = [], []
    for use in uses or ("sign", "decrypt"):
        try:
            check_certificate(certificate, use=PURPOSES[use], now=now, allow=allow)
            good.append(use)
        except CertificateRefused as refused:
            refusals.append((use, refused))
    about_use = ("key-usage", "extended-key-usage", "key-type")
    for use, refused in refusals:
        if refused.reason not in about_use:
            raise refused
        if uses:
            raise CertificateRefused("wrong-use", f"the certificate is not for {use}: {refused}")
    if not good:
        use, refused = refusals[0]
        raise CertificateRefused("wrong-use", f"the certificate is not to {use}: {refused}; --use says what it is for")
    return tuple(sorted(set(good)))


def _prove(entry: Entry, uses: tuple[KeyUse, ...], in_token: object, *, asked: bool) -> tuple[KeyUse, ...]:
    """The key does what it is for. Raises `CertificateRefused`, `KeyUnavailable`."""
    good = []
    for use in uses:
        if in_token is not None:
            (own.prove_signing if use == "sign" else own.prove_decryption)(in_token)
        elif use.startswith("tls"):
            tls_test(own.TlsKey(entry.private_key, entry.certificate, entry.chain))
        else:
            key = signing_key(entry) if use == "sign" else decryption_key(entry)
            if key is None and (asked or len(uses) == 1):
                raise CertificateRefused("wrong-use", f"a key of this type does not {use}")
            if key is None:
                continue
            (own.prove_signing if use == "sign" else own.prove_decryption)(key)
        good.append(use)
    return tuple(good)


def _completing(
    octets: bytes, have: Held, uses: Collection[KeyUse], party: str | None, now: datetime, allow: Trust
) -> Found:
    """The certificate that one of our keys waits for."""
    waiting = [key for key in have.keys if key.certificate is None and not key.retired]
    listed = certificates(octets)
    for key in waiting:
        for leaf in listed:
            if own.same_key(leaf, key.public):
                if (uses and set(uses) != set(key.uses)) or (party is not None and party != key.party):
                    of = key.party or "every party"
                    raise NotPossible(f"key {key.id} was made for {', '.join(key.uses)} of {of}")
                return Found(
                    certificate=leaf, chain=tuple(other for other in listed if other != leaf), party=key.party,
                    uses=_usable(leaf, key.uses, now, allow), algorithm=key.algorithm, completes=key.id,
                )  # fmt: skip
    if waiting:
        ids = ", ".join(key.id for key in waiting)
        raise CertificateRefused("wrong-key", f"there is no private key in it, and no certificate for {ids}")
    raise CertificateRefused("no-private-key", "there is no private key in it, and no key waits for a certificate")


def _leaf(octets: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    listed = certificates(octets)
    if not listed:
        raise CertificateRefused("no-certificate", "there is no certificate in it")
    return listed[0], tuple(listed[1:])


def _self_signed(certificate: bytes) -> bool:
    found = x509.load_der_x509_certificate(certificate)
    return found.subject == found.issuer


def check_revoked(certificate: bytes, chain: Collection[bytes], crl: bytes, now: datetime) -> None:
    """Refuse a certificate that its issuer's CRL (PEM or DER) names. Raises `CertificateRefused` (revoked, crl)."""
    try:
        found = x509.load_pem_x509_crl(crl) if b"-----BEGIN" in crl else x509.load_der_x509_crl(crl)
        subject = x509.load_der_x509_certificate(certificate)
        if found.issuer != subject.issuer:
            raise CertificateRefused("crl", f"the CRL is of {found.issuer.rfc4514_string()}, not of the issuer")
        for der in chain:
            issuer = x509.load_der_x509_certificate(der)
            if issuer.subject == found.issuer and not found.is_signature_valid(issuer.public_key()):
                raise CertificateRefused("crl", "the issuer did not sign the CRL")
        if found.next_update_utc is not None and found.next_update_utc < now:
            raise CertificateRefused("crl", f"the CRL ended at {found.next_update_utc:%Y-%m-%d %H:%M} UTC")
        revoked = found.get_revoked_certificate_by_serial_number(subject.serial_number)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise CertificateRefused("crl", f"the CRL cannot be read: {error}") from None
    if revoked is not None:
        raise CertificateRefused("revoked", f"revoked at {revoked.revocation_date_utc:%Y-%m-%d %H:%M} UTC")


async def keep(store: Store, kek: KeyEncryptionKey, found: Found, *, author: str) -> OwnKey:
    """Seal and keep what was read; the key as it is now. Raises `NotPossible`, `StoreUnavailable`."""
    check_texts(author=author)
    if found.completes is not None:
        return await store.complete_key(found.completes, found.certificate, found.chain, actor=author)
    public = x509.load_der_x509_certificate(found.certificate).public_key()
    new = _new(kek, found.private_key, public, found.uses, found.party, token=found.token)
    return await store.add_key(
        NewKey(**{f: getattr(new, f) for f in new.__struct_fields__} | {
            "certificate": found.certificate, "chain": found.chain}), author=author,
    )  # fmt: skip


def _new(
    kek: KeyEncryptionKey, private: object, public: object, uses: Collection[KeyUse], party: str | None, *,
    token: str | None = None,
) -> NewKey:  # fmt: skip
    id = f"key_{secrets.token_hex(4)}"
    sealed = None if private is None else kek.seal_secret(own.private_octets(private), own.seal_name(id))
    return NewKey(
        id=id, uses=tuple(sorted(set(uses))), algorithm=own.algorithm_of(public), public=own.public_octets(public),
        sealed=sealed, token=token, party=party,
    )  # fmt: skip


# -- requests for certificates ------------------------------------------------------------


async def make(
    store: Store, kek: KeyEncryptionKey, *, kind: str, uses: Collection[KeyUse], party: str | None, author: str
) -> OwnKey:
    """A new key in the database that waits for its certificate. Raises `NotPossible` for uses it is not good for."""
    check_texts(author=author)
    if kind == "ed25519" and "decrypt" in uses:
        raise NotPossible("an Ed25519 key does not decrypt; eDelivery 2.0 has an X25519 key beside it")
    if kind.startswith("ec") and {"sign", "decrypt"} <= set(uses):
        raise NotPossible("an EC key signs or decrypts, not both [as4 3.9]: make two")
    if party is not None and any(use.startswith("tls") for use in uses):
        raise NotPossible("a key for TLS is for all parties of this node")
    private = KINDS[kind]()
    return await store.add_key(_new(kek, private, private.public_key(), uses, party), author=author)


def check_subject(subject: str) -> x509.Name:
    """A subject as in RFC 4514. Raises `NotPossible`."""
    try:
        name = x509.Name.from_rfc4514_string(subject)
    except ValueError as error:
        raise NotPossible(f"the subject is no name such as CN=AP_LV_01,O=Ministry,C=LV: {error}") from None
    if not list(name):
        raise NotPossible("the subject is empty; expected something like CN=AP_LV_01,O=Ministry,C=LV")
    return name


def request(key: OwnKey, kek: KeyEncryptionKey, *, subject: str, names: Collection[str] = ()) -> bytes:
    """The certificate request (PEM) of a key: `subject` as in RFC 4514, `names` DNS names for TLS.

    May be made as often as is wanted. Raises `NotPossible`, `KeyUnavailable`.
    """
    if key.sealed is None:
        raise NotPossible(f"key {key.id} is in a token, or destroyed: its private part is not here to sign with")
    name = check_subject(subject)
    private = own.private_key(kek.open_secret(key.sealed, own.seal_name(key.id)))
    uses, exchanges = set(key.uses), isinstance(private, rsa.RSAPrivateKey)
    builder = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(x509.KeyUsage(
        digital_signature=bool(uses - {"decrypt"}), content_commitment=False,
        key_encipherment="decrypt" in uses and exchanges, data_encipherment=False,
        key_agreement="decrypt" in uses and not exchanges, key_cert_sign=False, crl_sign=False, encipher_only=False,
        decipher_only=False,
    ), critical=True)  # fmt: skip
    purposes = {"tls-server": ExtendedKeyUsageOID.SERVER_AUTH, "tls-client": ExtendedKeyUsageOID.CLIENT_AUTH}
    if wanted := [purpose for use, purpose in purposes.items() if use in uses]:
        builder = builder.add_extension(x509.ExtendedKeyUsage(wanted), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    digest = None if isinstance(private, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(private, digest).public_bytes(Encoding.PEM)
