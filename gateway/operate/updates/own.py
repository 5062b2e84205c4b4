"""Which of our certificates a new one is to replace, for a partner: found by what it can be used for."""

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509

from gateway.as4.pmode import PModeSet
from gateway.as4.profiles import PROFILES
from gateway.config import Config
from gateway.errors import CertificateRefused, ConfigError
from gateway.keys.formats import certificates
from gateway.keys.keyring import Keyring
from gateway.keys.trust import check_certificate, validity
from gateway.operate.updates.asking import Renewal


def renewals(
    octets: Sequence[bytes], pmodes: PModeSet, keyring: Keyring, party: str, *, config: Config, now: datetime
) -> list[Renewal]:
    """What the files `octets` (PEM, DER or PKCS#7, each a certificate with its chain) replace in the agreement with
    `party`. Raises `ConfigError`, `CertificateRefused`, `KeyUnavailable`."""
    used = in_use(pmodes, keyring, party)
    found = []
    for one in octets:
        leaf, *chain = _ordered(certificates(one))
        begins, _ = validity(leaf)
        uses, refused = [], None
        for use in used:
            try:
                check_certificate(leaf, use=use, now=max(now, begins), allow=config.trust, by_path=True)
                uses.append(use)
            except CertificateRefused as error:
                refused = error
        if not uses:
            raise refused or ConfigError(f"no certificate of ours is in use with {party}")
        for old in dict.fromkeys(used[use] for use in uses):
            if old == leaf:
                raise ConfigError("is the certificate in use already", key="--certificate")
            found.append(Renewal(replaces=old, certificate=leaf, chain=tuple(chain)))
    if len({renewal.replaces for renewal in found}) != len(found):
        raise ConfigError("two certificates are for the same use", key="--certificate")
    return found


def in_use(pmodes: PModeSet, keyring: Keyring, party: str) -> dict[str, bytes]:
    """Our certificates in use with `party`, DER, by use. Raises `KeyUnavailable`."""
    for leg in pmodes.legs:
        if pmodes.is_self(leg.from_party.party_id) and party in (leg.to_party.name, leg.to_party.party_id.value):
            suite, ours = PROFILES[leg.profile], leg.from_party.party_id
            found = {"sign": keyring.signing_key(ours, suite).certificate}
            kinds = suite.key_protection == "key-agreement"
            for key in keyring.decryption_keys(ours):
                if _agrees(key.certificate) is kinds:
                    found["encrypt"] = key.certificate
                    break
            return found
    return {}


def _agrees(der: bytes) -> bool:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return not isinstance(x509.load_der_x509_certificate(der).public_key(), rsa.RSAPublicKey)


def _ordered(found: Sequence[bytes]) -> list[bytes]:
    """The certificate that no other was issued by, then the others."""
    read = {der: x509.load_der_x509_certificate(der) for der in found}
    issuers = {one.issuer for one in read.values() if one.issuer != one.subject}
    leaves = [der for der, one in read.items() if one.subject not in issuers]
    if len(leaves) != 1:
        raise ConfigError("one certificate was expected, with its chain perhaps", key="--certificate")
    return [leaves[0], *(der for der in read if der != leaves[0])]
