"""Certificates for development, demonstrations and tests: a small CA and what it issued.

Never for production: the keys are made here, kept unencrypted and known to whoever can
read the folder. Files have fixed names, so that configurations can be written beforehand:

    ca.pem  ca.key.pem                       the CA
    tls.pem  tls.key.pem                     a TLS server certificate for this machine
    ap_lv_01.pem  ap_lv_01.key.pem           a party: certificate for partners; key and certificate for itself
    ap_lv_01-eddsa.key.pem                   Ed25519 and X25519 keys with certificates (eDelivery 2.0)
    ap_lv_01-eddsa-sign.pem  ap_lv_01-eddsa-encrypt.pem     what partners pin of them

and likewise `-ecdsa` for P-256. An OOTS party has one RSA certificate for signing and
encryption, as the OOTS rules have it [oots 1.1].
"""

import ipaddress
import os
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from gateway.errors import ConfigError

Suite = Literal["rsa", "eddsa", "ecdsa"]
HOSTS = ("localhost", "127.0.0.1", "::1")
DEFAULT_VALIDITY = timedelta(days=30)
#: Certificates begin a little earlier: clocks of two machines on a desk differ, and there is no tolerance later.
_BEFORE = timedelta(hours=1)
_ORGANISATION = "Development only"

_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey


class PartyFiles(Struct, frozen=True):
    """The files of one party and suite. `signing` and `encryption` are one file for RSA."""

    party: str
    suite: Suite
    keys: Path
    signing: Path
    encryption: Path


class DevelopmentFiles(Struct, frozen=True):
    """What was made."""

    ca: Path
    tls_certificate: Path
    tls_key: Path
    parties: tuple[PartyFiles, ...]


def file_stem(party: str, suite: Suite = "rsa") -> str:
    """How the files of a party begin."""
    name = re.sub(r"[^a-z0-9_.-]+", "_", party.lower()).strip(".") or "party"
    return name if suite == "rsa" else f"{name}-{suite}"


def make_development(
    folder: Path,
    parties: Sequence[str],
    *,
    now: datetime,
    valid_for: timedelta = DEFAULT_VALIDITY,
    suites: Sequence[Suite] = ("rsa",),
    hosts: Sequence[str] = HOSTS,
    rsa_bits: int = 2048,
    replace: bool = False,
) -> DevelopmentFiles:
    """Certificates and keys for `parties` in `folder`, keys with mode 0600.

    A CA made here before goes on issuing while it is valid, so that parties can be added.
    Raises `ConfigError` when a party's files are there already and `replace` is False.
    """
    if len({file_stem(party) for party in parties}) != len(set(parties)):
        raise ConfigError("two party names make the same file name", key="party")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not replace:
        for party in parties:
            for suite in suites:
                path = folder / f"{file_stem(party, suite)}.key.pem"
                if path.exists():
                    raise ConfigError("is there already", file=str(path), hint="--replace makes a new one")
    issuer = _Issuer.find(folder, now) or _Issuer.make(folder, now, max(valid_for, DEFAULT_VALIDITY))
    end = min(now + valid_for, issuer.certificate.not_valid_after_utc)
    # Browsers and partners refuse longer ones [oots 1.11].
    tls_end = min(end, now + timedelta(days=398) - _BEFORE)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = issuer.issue(hosts[0], key, now, tls_end, hosts=hosts)
    files = DevelopmentFiles(
        ca=folder / "ca.pem",
        tls_certificate=folder / "tls.pem",
        tls_key=folder / "tls.key.pem",
        parties=tuple(
            _party(folder, issuer, party, suite, now, end, rsa_bits) for party in parties for suite in suites
        ),
    )
    _write(files.tls_certificate, _pem(certificate) + _pem(issuer.certificate))
    _write(files.tls_key, _key_pem(key), secret=True)
    return files


def _party(
    folder: Path, issuer: "_Issuer", party: str, suite: Suite, now: datetime, end: datetime, rsa_bits: int
) -> PartyFiles:
    stem = file_stem(party, suite)
    keys = folder / f"{stem}.key.pem"
    if suite == "rsa":
        key = rsa.generate_private_key(public_exponent=65_537, key_size=rsa_bits)
        certificate = issuer.issue(party, key, now, end, usage={"digital_signature", "key_encipherment"})
        path = folder / f"{stem}.pem"
        _write(path, _pem(certificate))
        _write(keys, _key_pem(key) + _pem(certificate) + _pem(issuer.certificate), secret=True)
        return PartyFiles(party, suite, keys, path, path)
    if suite == "eddsa":
        pair = ed25519.Ed25519PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    else:
        pair = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    octets, paths = b"", []
    for key, use, usage in zip(pair, ("sign", "encrypt"), ("digital_signature", "key_agreement"), strict=True):
        certificate = issuer.issue(party, key, now, end, usage={usage})
        paths.append(folder / f"{stem}-{use}.pem")
        _write(paths[-1], _pem(certificate))
        octets += _key_pem(key) + _pem(certificate)
    _write(keys, octets + _pem(issuer.certificate), secret=True)
    return PartyFiles(party, suite, keys, *paths)


class _Issuer:
    """The development CA."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key, self.certificate = key, certificate

    @classmethod
    def find(cls, folder: Path, now: datetime) -> "_Issuer | None":
        """The CA in the folder, if it has a day left."""
        try:
            certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            key = load_pem_private_key((folder / "ca.key.pem").read_bytes(), None)
        except (OSError, ValueError, TypeError):
            return None
        if certificate.not_valid_after_utc < now + timedelta(days=1) or certificate.public_key() != key.public_key():
            return None
        return cls(key, certificate)

    @classmethod
    def make(cls, folder: Path, now: datetime, valid_for: timedelta) -> "_Issuer":
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("Development CA")
        certificate = (
            _builder(name, name, key, now, now + valid_for)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage({"key_cert_sign", "crl_sign"}), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write(folder / "ca.pem", _pem(certificate))
        _write(folder / "ca.key.pem", _key_pem(key), secret=True)
        return cls(key, certificate)

    def issue(
        self, name: str, key: _PrivateKey, now: datetime, end: datetime, *,
        usage: set[str] | None = None, hosts: Sequence[str] = (),
    ) -> x509.Certificate:  # fmt: skip
        """A certificate for a party, or with `hosts` for a TLS server."""
        builder = (
            _builder(_name(name), self.certificate.subject, key, now, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(usage or {"digital_signature"}), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
            ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: _PrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(names: set[str]) -> x509.KeyUsage:
    known = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in names for name in known})


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: _PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, octets: bytes, *, secret: bool = False) -> None:
    """A file, whole or not at all. Secret ones never exist with a wider mode, not for an instant."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600 if secret else 0o644)
    with os.fdopen(handle, "wb") as file:
        file.write(octets)
    draft.replace(path)
