"""Coming from Domibus or Harmony: a P-Mode file and its truststore become an agreement file with certificates.

Works on files alone, without configuration or database. What is written is written whole or not at
all: every file beside its place first, then moved. A file somebody wrote by hand is not replaced.
"""

import contextlib
import hashlib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct

from gateway.errors import CertificateRefused, ConfigError
from gateway.keys.formats import truststore
from gateway.keys.trust import check_certificate
from gateway.pmodes.agreements import Document, File
from gateway.pmodes.bundle import Bundle, Folder
from gateway.pmodes.domibus.export import export
from gateway.pmodes.domibus.read import MAX_SIZE, read
from gateway.pmodes.domibus.report import Note, Report
from gateway.pmodes.domibus.translate import translate
from gateway.pmodes.domibus.truststore import Found, Pair, assign
from gateway.pmodes.expand import expand
from gateway.pmodes.network import WithCertificates
from gateway.pmodes.shorten import matched, materialise, shorten
from gateway.pmodes.toml import expanded
from gateway.pmodes.toml import read as read_agreement
from gateway.pmodes.write import write

#: How a file made here begins; only such a file is replaced without being asked.
MARK = "Made by `gateway pmodes import-domibus`"
MAX_STEM = 80


class Certificate(Struct, frozen=True):
    """A certificate that was found for a party. `use` is sign, encrypt or both."""

    use: str
    alias: str
    sha256: str
    subject: str
    valid_until: datetime
    file: str | None


class ImportedParty(Struct, frozen=True):
    """A party of the agreement file. `id` and `type` are as in messages."""

    name: str
    self: bool
    id: str
    type: str | None
    endpoint: str | None
    certificates: tuple[Certificate, ...] = ()


class Lines(Struct, frozen=True):
    """How many lines of the P-Mode file the profile says already."""

    profile: int
    total: int


class Changes(Struct, frozen=True):
    """What differs from the file that was there before, by party name."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class Imported(Struct, frozen=True, kw_only=True):
    """What an import made and what there is to say about it. `files` are names and octets, the agreement first."""

    own: str = msgspec.field(name="self")
    profile: str
    file: str
    lines: Lines
    exchanges: tuple[str, ...]
    parties: tuple[ImportedParty, ...]
    repaired: tuple[Note, ...]
    ignored: tuple[Note, ...]
    warnings: tuple[Note, ...]
    changes: Changes | None = None


def import_domibus(
    octets: bytes,
    name: str,
    *,
    own: str | None,
    store: bytes | None = None,
    password: bytes | None = None,
    profile: str | None = None,
    now: datetime,
) -> tuple[Imported, dict[str, bytes]]:
    """The agreement file for party `own` of a P-Mode file, and every file to be written, by name.

    `store` is a truststore (JKS, PKCS#12, PEM), `profile` a community profile to use instead of the
    one the content shows. Raises `ConfigError` for the P-Mode file, `CertificateRefused` for
    the store.
    """
    root, report = read(octets, name)
    translation = translate(root, report, own)
    short = shorten(translation.file, profile)
    entries = truststore(store, password) if store is not None else None
    found = _certificates(translation.file, translation.names, entries, report, now)
    pems, parties = _pem_files(short, found)
    short = msgspec.structs.replace(short, parties=parties)
    lines = _lines(octets, root, short, translation.processes)
    if entries is None:
        report.warn(None, "", "no truststore was given, so no party has a certificate yet; "
                    "`gateway pmodes import-truststore` adds them", "P006")  # fmt: skip
    stem = safe_stem(short.own, keep_case=True)
    try:
        expand([Document(Path(f"{stem}.toml"), short, Bundle((), pems))])
    except ConfigError as error:
        report.warn(None, "", f"the agreement file cannot be used before this is mended: {error}")
    digest = hashlib.sha256(octets).hexdigest()
    text = write(short, [
        f"{MARK} from {name} (sha256 {digest[:16]}…) for {short.own}.",
        "The next import replaces it: what is your own belongs into a file with [network] and [overlay], see",
        "pmodes/README.md.",
        f"{lines.profile} of {lines.total} lines of the P-Mode are profile {short.profile}.",
    ])  # fmt: skip
    imported = Imported(
        own=short.own, profile=short.profile, file=f"{stem}.toml", lines=lines,
        exchanges=(*matched(short), *(e.name for e in short.exchanges)),
        parties=tuple(_shown(party_name, short, found, pems) for party_name in short.parties),
        repaired=tuple(report.repaired), ignored=tuple(report.ignored), warnings=tuple(report.warnings),
    )  # fmt: skip
    return imported, {f"{stem}.toml": text.encode(), **pems}


def exported(files: Folder, kind: str, own: str | None) -> tuple[str, tuple[str, ...]]:
    """Agreements as text of that kind (domibus, toml), and what it does not say. Raises `ConfigError`."""
    if kind == "domibus":
        made = export(expanded(files), own)
        return made.xml, made.notes
    documents = [read_agreement(files, name) for name in files.agreements]
    ours = [document for document in documents if own in (None, document.file.own)]
    if len(ours) != 1:
        raise ConfigError(f"{len(ours)} agreement files are for {own}" if own else "there are several agreement files",
                          file=str(files.path("")), hint="name one of them, or one of ours with --self")  # fmt: skip
    document = ours[0]
    expand([document])
    file, notes = document.file, ()
    if isinstance(document.files, WithCertificates):
        file = document.files.without_certificates(file)
        notes = ("the certificates of the truststore are not in it; `gateway pmodes import-truststore` adds them",)
    return write(shorten(materialise(file)), [f"From {document.path.name}."]), notes


def read_pmode(path: Path) -> bytes:
    """The octets of a P-Mode file, at most a little more than one may have. Raises `ConfigError`."""
    return _bounded(path, MAX_SIZE)


def _bounded(path: Path, most: int) -> bytes:
    try:
        if not path.is_file():
            raise ConfigError("there is no such file", file=str(path))
        with path.open("rb") as source:
            return source.read(most + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from None


# -- certificates ---------------------------------------------------------------------


def _certificates(
    file: File, names: Mapping[str, str], entries: Sequence[tuple[str, bytes]] | None, report: Report, now: datetime
) -> dict[str, Pair]:
    if entries is None:
        return {}
    found = assign(entries, file.parties, names, file.own, file.profile, report)
    judged(found, file.own, report, now)
    return found


def judged(found: Mapping[str, Pair], own: str, report: Report, now: datetime) -> None:
    """Say which of these certificates cannot be used."""
    for name, pair in found.items():
        if name == own:
            continue
        for use, one in (("sign", pair.signing), ("encrypt", pair.encryption)):
            if one is None or (use == "encrypt" and pair.signing == pair.encryption):
                continue
            try:
                check_certificate(one.certificate, use=use, now=now)
            except CertificateRefused as refused:
                rule = "P007" if refused.reason in ("expired", "not-yet-valid") else "P009"
                report.warn(None, f"party {name!r}", f"its certificate cannot be used to {use}: {refused}", rule)


def _pem_files(file: File, found: Mapping[str, Pair]) -> tuple[dict[str, bytes], dict]:
    """The certificate files to write, and the parties that name them."""
    pems: dict[str, bytes] = {}
    parties = {}
    for name, party in file.parties.items():
        pair = found.get(name, Pair())
        if name == file.own or not (pair.signing or pair.encryption):
            parties[name] = party
            continue
        stem = _free(safe_stem(name), pems)
        if pair.signing and pair.encryption and pair.signing.certificate == pair.encryption.certificate:
            pems[f"{stem}.pem"] = _pem(pair.signing)
            parties[name] = msgspec.structs.replace(party, certificate=f"{stem}.pem")
            continue
        named = {}
        for key, one in (("signing", pair.signing), ("encryption", pair.encryption)):
            if one is not None:
                named[key] = f"{stem}-{key}.pem"
                pems[named[key]] = _pem(one)
        parties[name] = msgspec.structs.replace(party, **named)
    return pems, parties


def safe_stem(name: str, *, keep_case: bool = False) -> str:
    """A file name without ending from a name that somebody else chose: no path, no dot first, no blank."""
    text = name if keep_case else name.lower()
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("._-")[:MAX_STEM] or "party"


def _free(stem: str, taken: Mapping[str, bytes]) -> str:
    def used(candidate: str) -> bool:
        return any(f"{candidate}{end}" in taken for end in (".pem", "-signing.pem", "-encryption.pem"))

    number, made = 2, stem
    while used(made):
        number, made = number + 1, f"{stem}-{number}"
    return made


def _pem(found: Found) -> bytes:
    return x509.load_der_x509_certificate(found.certificate).public_bytes(Encoding.PEM)


def _shown(name: str, file: File, found: Mapping[str, Pair], pems: Mapping[str, bytes]) -> ImportedParty:
    party, pair = file.parties[name], found.get(name, Pair())
    certificates = []
    both = pair.signing and pair.encryption and pair.signing.certificate == pair.encryption.certificate
    uses = [("both", pair.signing, party.certificate)] if both else [
        ("sign", pair.signing, party.signing), ("encrypt", pair.encryption, party.encryption)
    ]  # fmt: skip
    for use, one, at in uses:
        if one is not None:
            certificate = x509.load_der_x509_certificate(one.certificate)
            certificates.append(Certificate(
                use=use, alias=one.alias, sha256=hashlib.sha256(one.certificate).hexdigest(),
                subject=certificate.subject.rfc4514_string(), valid_until=certificate.not_valid_after_utc, file=at,
            ))  # fmt: skip
    return ImportedParty(
        name=name, self=name == file.own, id=party.id or name, type=party.type, endpoint=party.endpoint,
        certificates=tuple(certificates),
    )  # fmt: skip


def _lines(octets: bytes, root, short: File, processes: Mapping[str, tuple[str, ...]]) -> Lines:
    """Lines that hold what only this file says: the root, parties with their ids, and what the profile has not."""
    total = octets.count(b"\n") + (not octets.endswith(b"\n"))
    if not matched(short):
        return Lines(0, total)
    own: set[int] = {root.line}
    places = [node for node in root.children if node.element.name == "businessProcesses"]
    foreign = {e.name for e in short.exchanges}
    while places:
        node = places.pop()
        name = node.element.name
        keep = name in ("party", "partyIdType", "identifier") or (
            name == "process" and foreign & set(processes.get(node.name, ()))
        )
        if keep:
            own.add(node.line)
        places += node.children if name != "process" else []
    return Lines(max(0, total - len(own)), total)


# -- files ------------------------------------------------------------------------------


def save(folder: Path, files: Mapping[str, bytes], *, replace: bool = False) -> Changes | None:
    """Write the files of an import into `folder`; what changed since the last one, None at the first.

    Raises `ConfigError` where the agreement file is there and was not made by an import.
    """
    first = next(iter(files))
    target = folder / first
    before = _bounded(target, MAX_SIZE) if target.exists() else None
    if before is not None and not replace and not before.startswith(f"# {MARK}".encode()):
        raise ConfigError("is there already and was not made by an import", file=str(target),
                          hint="--replace replaces it; or give another folder")  # fmt: skip
    # The agreement last: it never names a certificate that is not there yet.
    put(folder, {name: files[name] for name in [*list(files)[1:], first]})
    return None if before is None else _changes(before, files[first])


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write these files, each whole or not at all, in this order. Raises `ConfigError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, octets in files.items():
            _write(folder / name, octets)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", file=str(error.filename or folder)) from None


def _write(path: Path, octets: bytes) -> None:
    """A plain file of this name, whole. What stands there as a link is replaced, not followed."""
    beside = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "wb") as out:
        out.write(octets)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(path)


def _changes(before: bytes, after: bytes) -> Changes:
    def parties(octets: bytes) -> dict:
        try:
            return tomllib.loads(octets.decode()).get("parties", {})
        except (UnicodeDecodeError, tomllib.TOMLDecodeError):
            return {}

    old, new = parties(before), parties(after)
    return Changes(
        added=tuple(name for name in new if name not in old),
        changed=tuple(name for name in new if name in old and new[name] != old[name]),
        removed=tuple(name for name in old if name not in new),
    )
