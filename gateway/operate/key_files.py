"""Our certificates that are configured as files: the ring of whoever has no keys in the database."""

import hashlib

import msgspec
from cryptography import x509

from gateway.config import Config
from gateway.errors import CertificateRefused
from gateway.keys import own
from gateway.keys.formats import MAX_SIZE, certificates
from gateway.keys.keyring import configured_keys
from gateway.operate.certificates import OwnCertificate, facts_of
from gateway.store.keys import KeyUse


def configured(config: Config) -> list[OwnCertificate]:
    """Every certificate of ours in `[[keys.store]]` and the TLS tables. Raises `ConfigError`.

    The first key of a kind and party signs and is ACTIVE; the others decrypt and are DRAINING.
    """
    found, seen = [], set()
    for store, signer, opener in configured_keys(config.keys.store):
        for use, key in (("sign", signer), ("decrypt", opener)):
            if key is not None:
                one = _file(str(store.path), use, key.certificate, store.party)
                kind = (store.party, use, one.algorithm.partition(" ")[0])
                found.append(one if kind not in seen else msgspec.structs.replace(one, state="DRAINING"))
                seen.add(kind)
    as4 = config.as4
    for tls, use in ((as4.tls, "tls-server"), (config.plugin.tls, "tls-server"), (as4.client_tls, "tls-client")):
        if tls is not None and tls.certificate is not None:
            try:
                with tls.certificate.open("rb") as file:
                    first = certificates(file.read(MAX_SIZE + 1))[:1]
            except (OSError, CertificateRefused):
                continue  # `gateway doctor` tells of files that cannot be read
            found += [_file(str(tls.certificate), use, der, None) for der in first]
    return found


def _file(path: str, use: KeyUse, certificate: bytes, party: str | None) -> OwnCertificate:
    public = x509.load_der_x509_certificate(certificate).public_key()
    return OwnCertificate(
        key=path, use=use, state="ACTIVE", party=party, algorithm=own.algorithm_of(public), place="file",
        fingerprint=hashlib.sha256(certificate).hexdigest(), **facts_of(certificate),
    )  # fmt: skip


def signing(config: Config) -> set[str]:
    """Fingerprints of the certificates of files that sign where the database has no key. Raises `ConfigError`."""
    return {one.fingerprint for one in configured(config) if (one.use, one.state) == ("sign", "ACTIVE")}
