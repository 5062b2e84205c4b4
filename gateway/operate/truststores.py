"""A truststore into agreement files: the certificates of partners added or replaced, with a diff.

The network publishes a new truststore whenever anybody's certificate changes. Agreement files made of
an older one get the new certificates here; files with `[network]` need nothing but the new store in
its place. With `stage` a changed certificate becomes `next`: what the partner signs with either is
accepted, and encryption changes when the operator says so.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import tomlkit
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct

from gateway.config.places import dotted
from gateway.errors import ConfigError
from gateway.keys.formats import truststore
from gateway.operate.domibus import judged, safe_stem
from gateway.pmodes.agreements import Document, Party
from gateway.pmodes.bundle import Folder
from gateway.pmodes.domibus.report import Note, Report
from gateway.pmodes.domibus.truststore import Found, Pair, assign
from gateway.pmodes.parties import party as made_party
from gateway.pmodes.toml import read

Key = Literal["certificate", "signing", "encryption", "next"]


class Change(Struct, frozen=True, kw_only=True):
    """One certificate of a party. `before` and `sha256` are fingerprints; `alias` names it in the store."""

    party: str
    use: Literal["sign", "encrypt", "both", "next"]
    alias: str
    sha256: str
    before: tuple[str, ...]
    file: str


class Plan(Struct, frozen=True, kw_only=True):
    """What would be written: changes for people, files with their octets."""

    added: tuple[Change, ...] = ()
    replaced: tuple[Change, ...] = ()
    same: tuple[str, ...] = ()
    warnings: tuple[Note, ...] = ()
    files: Mapping[str, bytes] = {}


def plan_truststore(
    path: Path, octets: bytes, password: bytes | None, *, certs: Path | None, stage: bool, now: datetime
) -> Plan:
    """What a store changes in a folder of agreement files, or in one. Raises `ConfigError`, `CertificateRefused`."""
    entries = truststore(octets, password)
    folder = Folder(path, certs, truststore)
    report = Report(str(path))
    found = _Found()
    used: set[str] = set()
    for name in folder.agreements:
        raw = tomllib.loads(folder.agreement(name).decode())
        if "network" in raw:
            raise ConfigError("takes its certificates from the truststore it names", file=str(folder.path(name)),
                              key="network.truststore", hint="put the new truststore in its place")  # fmt: skip
        document = read(folder, name)
        parties = {n: p for n, p in document.file.parties.items() if not getattr(p, "any", False)}
        part = Report(document.name)
        pairs = assign(entries, parties, {n: n for n in parties}, document.file.own, document.file.profile, part)
        judged(pairs, document.file.own, part, now)
        report.warnings += [note for note in part.warnings if "truststore entry" not in note.where]
        used |= {one.alias.lower() for pair in pairs.values() for one in (pair.signing, pair.encryption) if one}
        named = {n: keys for n, pair in pairs.items() if n != document.file.own
                 and (keys := _keys(n, parties[n], pair, document, stage, found))}  # fmt: skip
        if named:
            found.files[name] = _edited(folder.agreement(name).decode(), named, document.name).encode()
    for alias, _ in entries:
        if alias.lower() not in used:
            report.warn(None, f"truststore entry {alias!r}", "belongs to no party here")
    return Plan(
        added=tuple(found.added), replaced=tuple(found.replaced), same=tuple(found.same),
        warnings=tuple(report.warnings), files=found.files,
    )  # fmt: skip


class _Found:
    def __init__(self) -> None:
        self.added: list[Change] = []
        self.replaced: list[Change] = []
        self.same: list[str] = []
        self.files: dict[str, bytes] = {}


def _keys(
    name: str, table: Party, pair: Pair, document: Document, stage: bool, found: _Found
) -> dict[Key, str | None]:
    """The keys of a party's table that change, and the files for them."""
    now = made_party(name, table, document)
    signing, encryption = pair.signing, pair.encryption
    if signing is None and encryption is None:
        return {}
    stem = safe_stem(name)
    same_sign = signing is None or signing.certificate in now.signing
    same_encrypt = encryption is None or encryption.certificate == now.encryption
    if same_sign and same_encrypt:
        found.same.append(name)
        return {}
    if stage and now.signing and signing is not None and not same_sign:
        return {"next": _file(found, name, "next", signing, f"{stem}-next.pem", now.signing[-1:])}
    both = signing is not None and encryption is not None and signing.certificate == encryption.certificate
    if both:
        before = tuple(dict.fromkeys((*now.signing[:1], *([now.encryption] if now.encryption else []))))
        name_ = _file(found, name, "both", signing, f"{stem}.pem", before)
        return {"certificate": name_, "signing": None, "encryption": None, "next": None}
    keys: dict[Key, str | None] = {"certificate": None}
    for use, key, one, before in (("sign", "signing", signing, now.signing[:1]),
                                  ("encrypt", "encryption", encryption, (now.encryption,))):  # fmt: skip
        if one is not None:
            keys[key] = _file(found, name, use, one, f"{stem}-{key}.pem", tuple(der for der in before if der))
        elif table.certificate:
            keys[key] = table.certificate
    return keys


def _file(found: _Found, party: str, use: str, one: Found, file: str, before: tuple[bytes, ...]) -> str:
    """The name of a certificate file, which is written with the rest."""
    change = Change(party=party, use=use, alias=one.alias, sha256=_fingerprint(one.certificate),
                    before=tuple(map(_fingerprint, before)), file=file)  # fmt: skip
    if change.sha256 not in change.before:
        (found.replaced if before else found.added).append(change)
    octets = x509.load_der_x509_certificate(one.certificate).public_bytes(Encoding.PEM)
    if found.files.setdefault(file, octets) != octets:
        raise ConfigError(f"two parties would have the file {file}", key=dotted("parties", party))
    return file


def _fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()


def _edited(text: str, named: Mapping[str, Mapping[Key, str | None]], file: str) -> str:
    """The text with these keys set or taken out, everything else as it was. Raises `ConfigError`."""
    expected: dict[str, Any] = tomllib.loads(text)
    document = tomlkit.parse(text)
    for tables in (expected["parties"], document["parties"]):
        for party, keys in named.items():
            for key, value in keys.items():
                if value is not None:
                    tables[party][key] = value
                elif key in tables[party]:
                    del tables[party][key]
    made = tomlkit.dumps(document)
    if tomllib.loads(made) != expected:
        raise ConfigError("cannot be changed here without losing something", file=file, hint="edit it by hand")
    return made


def as_shown(plan: Plan) -> dict:
    """A plan for printing: files by their names."""
    return {**msgspec.to_builtins(msgspec.structs.replace(plan, files={})), "files": list(plan.files)}
