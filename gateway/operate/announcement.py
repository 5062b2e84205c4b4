"""What partners are told about our next certificates, as a signed package for those whom nothing else reaches.

    READ-ME.txt          what changes, in Latvian and in English, with the commands that check it
    next-sign.pem …      the certificate of each key, then its chain
    announcement.json    the same facts for programs
    SHA256SUMS           the digest of each of these files
    SHA256SUMS.p7s       a detached signature over it, made with the key that signs today

A partner checks it with plain openssl against the certificate of ours that it has already; what came
with the package vouches for nothing. For an Ed25519 key the signature is bare (`SHA256SUMS.sig`).
"""

import hashlib
import io
import zipfile
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography import x509
from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.wss.keys import SigningKey
from gateway.errors import ConfigError
from gateway.keys import cms
from gateway.operate.announcement_text import english, latvian
from gateway.operate.parties import pem

#: Entries of the ZIP have one date, so that the same announcement is the same file.
_EPOCH = (1980, 1, 1, 0, 0, 0)


class NextKey(Struct, frozen=True, kw_only=True):
    """A certificate that will be used, and the one it follows. `uses`: sign, decrypt, tls-server, tls-client."""

    uses: tuple[str, ...]
    certificate: bytes
    chain: tuple[bytes, ...] = ()
    replaces: bytes | None = None


class Announcement(Struct, frozen=True, kw_only=True):
    """What is announced: the next keys of one party of ours.

    `begins` is when the new certificate will be used first (None: when all partners are ready), `contact` is
    whom a partner may ask: a line of text.
    """

    party: str
    keys: tuple[NextKey, ...]
    contact: str
    made_at: datetime
    begins: datetime | None = None


class Described(Struct, frozen=True, kw_only=True):
    """A certificate in words."""

    subject: str
    issuer: str
    serial: str
    sha256: str
    valid_from: datetime
    valid_until: datetime


class Change(Struct, frozen=True, kw_only=True):
    """One certificate follows another. `file` is its name in the package."""

    uses: tuple[str, ...]
    file: str
    next: Described
    replaces: Described | None


class Facts(Struct, frozen=True, kw_only=True):
    """`announcement.json`."""

    party: str
    made_at: datetime
    begins: datetime | None
    contact: str
    signed_with: Described
    signature: str
    changes: tuple[Change, ...]


def described(certificate: bytes) -> Described:
    """The facts of a DER certificate that people compare."""
    found = x509.load_der_x509_certificate(certificate)
    return Described(
        subject=found.subject.rfc4514_string(), issuer=found.issuer.rfc4514_string(),
        serial=f"{found.serial_number:x}", sha256=hashlib.sha256(certificate).hexdigest(),
        valid_from=found.not_valid_before_utc, valid_until=found.not_valid_after_utc,
    )  # fmt: skip


def facts(announcement: Announcement, signer: SigningKey) -> Facts:
    """What the package says."""
    names = [f"next-{'-'.join(key.uses)}" for key in announcement.keys]
    files = [name + (f"-{n}" if names.count(name) > 1 else "") + ".pem" for n, name in enumerate(names, 1)]
    return Facts(
        party=announcement.party, made_at=announcement.made_at, begins=announcement.begins,
        contact=announcement.contact, signed_with=described(signer.certificate),
        signature="SHA256SUMS.sig" if signer.algorithm == ns.ED25519 else "SHA256SUMS.p7s",
        changes=tuple(
            Change(uses=key.uses, file=file, next=described(key.certificate),
                   replaces=None if key.replaces is None else described(key.replaces))
            for key, file in zip(announcement.keys, files, strict=True)
        ),
    )  # fmt: skip


def package(announcement: Announcement, signer: SigningKey) -> dict[str, bytes]:
    """The files of the package by name; `signer` is the key that signs today. Raises `KeyUnavailable`."""
    told = facts(announcement, signer)
    files = {
        change.file: "".join(pem(der) for der in dict.fromkeys((key.certificate, *key.chain))).encode()
        for change, key in zip(told.changes, announcement.keys, strict=True)
    }
    files["READ-ME.txt"] = f"{latvian(told)}\n\n{'=' * 78}\n\n\n{english(told)}".encode()
    files["announcement.json"] = msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"
    sums = "".join(f"{hashlib.sha256(octets).hexdigest()}  {name}\n" for name, octets in sorted(files.items())).encode()
    if signer.algorithm == ns.ED25519:
        signature = cms.raw(signer, sums)
    else:
        signature = pem(cms.detached(signer, sums), "CMS").encode()
    return {**files, "SHA256SUMS": sums, told.signature: signature}


def write(files: dict[str, bytes], target: Path) -> list[Path]:
    """The package as a folder, or as one file where the name ends in .zip. Raises `ConfigError` where one is."""
    try:
        if target.suffix.lower() == ".zip":
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                out.write(zipped(files))
            return [target]
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise ConfigError("is not empty", file=str(target), hint="name a new folder; nothing is written over")
        for name, octets in files.items():
            (target / name).write_bytes(octets)
    except FileExistsError:
        raise ConfigError("is there already", file=str(target), hint="name another file") from None
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", file=str(target)) from None
    return [target / name for name in files]


def zipped(files: dict[str, bytes]) -> bytes:
    """The files as one ZIP; the same files give the same octets."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, octets in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), octets, zipfile.ZIP_DEFLATED)
    return out.getvalue()
