"""A network's P-Mode as it was downloaded, with what is our own laid over it.

    profile < network P-Mode < overlay < overrides

The downloaded files stay as they are; the next generation of them replaces them, and the overlay
lies on top of that one. What of the overlay no longer meets anything is a note for `lint`, not a
reason to stop: a partner that left the network must not keep the rest from loading.

The P-Mode may be a Domibus file, or the agreement file that `gateway pmodes import-domibus` made of one.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from gateway.as4.pmode import PropertyRule, Revocation
from gateway.config import Secret, Size
from gateway.config.places import dotted
from gateway.config.strict import build, parse_toml, suggestion
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Document, File, Party, Retry, Terms, Updates
from gateway.pmodes.bundle import Files
from gateway.pmodes.domibus.read import MAX_SIZE, read
from gateway.pmodes.domibus.report import Note, Report
from gateway.pmodes.domibus.translate import translate
from gateway.pmodes.domibus.truststore import Found, Pair, assign
from gateway.pmodes.shorten import layered, materialise, shorten

#: What only lint rules of its own say better than a note about the P-Mode file.
_TOLD_BY_LINT = {"P002", "P005", "P006", "P007", "P011"}
_OVERLAY, _DOMIBUS = "P022", "P023"


class Truststore(Struct, frozen=True, kw_only=True):
    """Certificates of the parties, under their names.

    path: JKS, PKCS#12 or PEM, beside this file or in the certs folder.
    password: Where its password is.
    """

    path: str
    password: Secret | None = None


class Network(Struct, frozen=True, kw_only=True):
    """What was downloaded, never edited.

    pmode: Domibus P-Mode (*.xml), or the agreement file an import made of it (*.toml).
    truststore: The certificates of its parties.
    """

    pmode: str
    truststore: Truststore | None = None


class ExtraProperty(Struct, frozen=True, kw_only=True):
    """A message property the network file does not declare.

    required: A message without it is refused.
    when: The version of the specification that has it; every version where it is left out.
    """

    required: bool = False
    when: str | None = None


class PartyOverlay(Struct, frozen=True, kw_only=True):
    """What is our own about a party of the network.

    endpoint: Where we send to.
    allow_http: Lets this endpoint be plain http.
    certificate: File with its certificate, instead of that in the truststore.
    signing: File with its signing certificate.
    encryption: File with its encryption certificate.
    next: File with a further signing certificate.
    next_encryption: File with the encryption certificate it is about to change to.
    previous: File with the signing certificate it had before.
    revocation: What happens when nobody answers whether a pinned certificate was revoked.
    tls_ca: File with the CA of its TLS server.
    updates: How changes of its certificates by agreement update are taken. Default: they are not.
    """

    endpoint: str | None = None
    allow_http: bool | None = None
    certificate: str | None = None
    signing: str | None = None
    encryption: str | None = None
    next: str | None = None
    next_encryption: str | None = None
    previous: str | None = None
    revocation: Revocation | None = None
    tls_ca: str | None = None
    updates: Updates | None = None

    def over(self, party: Party) -> Party:
        given = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        if self.endpoint is not None:
            given.setdefault("allow_http", None)
        if self.certificate is not None:
            given |= {"signing": None, "encryption": None}
        elif (self.signing or self.encryption) and party.certificate:
            given = {"signing": party.certificate, "encryption": party.certificate, **given, "certificate": None}
        return msgspec.structs.replace(party, **given)


class Overlay(Struct, frozen=True, kw_only=True):
    """What is our own about a network: laid over every exchange, and over single parties.

    backend: The backend that gets what arrives.
    compress: gzip what is sent.
    retry: How a message is sent again.
    max_message: Largest message.
    max_part: Largest part.
    closed_properties: Refuse properties that are not declared.
    rules: What a fatal finding by the rules of the profile does to a submission.
    properties: Further message properties, under their names.
    parties: Parties of the network, under their names.
    without: Parties, exchanges and processes of the network that are left out.
    """

    backend: str | None = None
    compress: bool | None = None
    retry: Retry | None = None
    max_message: Size | None = None
    max_part: Size | None = None
    closed_properties: bool | None = None
    rules: Literal["advise", "refuse"] | None = None
    properties: dict[str, ExtraProperty] = {}
    parties: dict[str, PartyOverlay] = {}
    without: tuple[str, ...] = ()

    @property
    def terms(self) -> Terms:
        """What is laid over every exchange."""
        return Terms(
            backend=self.backend, compress=self.compress, retry=self.retry, max_message=self.max_message,
            max_part=self.max_part, closed_properties=self.closed_properties, rules=self.rules,
        )  # fmt: skip


class NetworkFile(Struct, frozen=True, kw_only=True):
    """An agreement file about a whole network.

    self: Our party in the network, by its name.
    profile: What everything else comes from, with its version. Default: what the P-Mode shows.
    network: What was downloaded.
    overlay: What is our own.
    overrides: Terms for "PARTY:EXCHANGE", "PARTY" or "*:EXCHANGE".
    """

    own: str = field(name="self")
    network: Network
    profile: str | None = None
    overlay: Overlay = Overlay()
    overrides: dict[str, Terms] = {}


def is_network(raw: Mapping[str, Any]) -> bool:
    """Whether the tables of an agreement file are those of a `NetworkFile`."""
    return "network" in raw


def resolve(raw: Mapping[str, Any], path: Path, files: Files) -> Document:
    """The document that a network file stands for: an ordinary agreement file. Raises `ConfigError`."""
    said = build(raw, NetworkFile, file=str(path), base=files.base)
    notes: list[Note] = []
    unmet = set(said.overlay.without)
    base, names, report = _base(said, path, files, unmet)
    certificates: dict[str, bytes] = {}
    if said.network.truststore is not None:
        base, certificates = _with_truststore(said, base, names, report, path, files)
    file = _laid_over(said, base, path, notes, unmet)
    notes += _of_report(report)
    return Document(path, file, WithCertificates(files, certificates) if certificates else files, tuple(notes))


def single(octets: bytes, path: Path, files: Files) -> Document:
    """A Domibus file on its own, for the party it was made for. Raises `ConfigError`."""
    root, report = read(octets, str(path))
    file = shorten(translate(root, report).file)
    return Document(path, file, files, tuple(_of_report(report)))


class WithCertificates:
    """Files, and certificates out of a truststore under names that no file has."""

    def __init__(self, files: Files, certificates: Mapping[str, bytes]) -> None:
        self._files, self._certificates = files, certificates

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def read(self, name: str, **where: Any) -> bytes:
        found = self._certificates.get(name)
        return self._files.read(name, **where) if found is None else found

    def without_certificates(self, file: File) -> File:
        """The file without the names that only stand here."""
        keys = ("certificate", "signing", "encryption")
        parties = {
            name: msgspec.structs.replace(party, **{k: None for k in keys if getattr(party, k) in self._certificates})
            for name, party in file.parties.items()
        }
        return msgspec.structs.replace(file, parties=parties)


def _base(
    said: NetworkFile, path: Path, files: Files, unmet: set[str]
) -> tuple[File, Mapping[str, str], Report]:
    """The network's agreements in full, the names of its parties in its own file, and what reading it told."""
    name = said.network.pmode
    octets = files.read(name, document=str(path), key="network.pmode", most=MAX_SIZE)
    place = str(files.path(name))
    report = Report(place)
    if not name.endswith(".toml"):
        root, report = read(octets, place)
        translation = translate(root, report, said.own, without=said.overlay.without)
        unmet -= set(translation.without)
        return materialise(_of_profile(shorten(translation.file, said.profile), said, path)), translation.names, report
    file = build(parse_toml(octets, place), File, file=place, base=files.base)
    if file.own != said.own:
        raise ConfigError(f"was made for {file.own!r}, not for {said.own!r}", file=place, key="self",
                          hint="import it again with the right --self")  # fmt: skip
    folder = PurePosixPath(name).parent
    parties = {party: _moved(table, folder) for party, table in file.parties.items()}
    full = materialise(msgspec.structs.replace(_of_profile(file, said, path), parties=parties))
    return full, {party: party for party in parties}, report


def _of_profile(file: File, said: NetworkFile, path: Path) -> File:
    if said.profile and file.profile != said.profile:
        raise ConfigError(f"the P-Mode is of profile {file.profile}", file=str(path), key="profile",
                          hint="leave it out, or name one of the same suite")  # fmt: skip
    return file


def _moved(party: Party, folder: PurePosixPath) -> Party:
    """The party with its files named as from beside the network file."""
    keys = ("certificate", "signing", "encryption", "next", "next_encryption", "previous", "tls_ca")
    moved = {key: str(folder / file) for key in keys if (file := getattr(party, key))}
    return msgspec.structs.replace(party, **moved)


def _with_truststore(
    said: NetworkFile, base: File, names: Mapping[str, str], report: Report, path: Path, files: Files
) -> tuple[File, dict[str, bytes]]:
    store = said.network.truststore
    entries = files.truststore(store.path, store.password, document=str(path), key="network.truststore")
    found = assign(entries, base.parties, names, base.own, base.profile, report)
    certificates: dict[str, bytes] = {}

    def named(one: Found | None) -> str | None:
        if one is None:
            return None
        name = f"{store.path}: {one.alias}"
        certificates[name] = one.certificate
        return name

    parties = {}
    for name, party in base.parties.items():
        pair = found.get(name, Pair()) if name != base.own else Pair()
        both = pair.signing is not None and pair.encryption is not None and pair.signing == pair.encryption
        parties[name] = msgspec.structs.replace(
            party, certificate=named(pair.signing) if both else None,
            signing=None if both else named(pair.signing), encryption=None if both else named(pair.encryption),
        )  # fmt: skip
    return msgspec.structs.replace(base, parties=parties), certificates


# -- the overlay ------------------------------------------------------------------------


def _laid_over(said: NetworkFile, base: File, path: Path, notes: list[Note], unmet: set[str]) -> File:
    def nothing(key: str, hint: str) -> None:
        notes.append(Note(f"{path}: {key}", f"meets nothing in {said.network.pmode} any more; {hint}", None, _OVERLAY))

    overlay = said.overlay
    gone = set(overlay.without)
    unmet -= {name for name in (*base.parties, *(e.name for e in base.exchanges)) if name != base.own}
    parties = {name: party for name, party in base.parties.items() if name == base.own or name not in gone}
    for name in sorted(unmet):
        nothing(f"overlay.without: {name!r}", suggestion(name, [*base.parties, *(e.name for e in base.exchanges)][:60]))
    for name, over in overlay.parties.items():
        if name in parties:
            parties[name] = over.over(parties[name])
        else:
            nothing(dotted("overlay.parties", name), suggestion(name, list(parties)[:60]))
    exchanges = []
    for exchange in base.exchanges:
        who = exchange.parties and tuple(name for name in exchange.parties if name in parties)
        if exchange.name in gone or who == ():
            continue
        terms = layered([exchange, overlay.terms])
        rules = {r.name: r for r in (PropertyRule(p) if isinstance(p, str) else p for p in terms["properties"])}
        rules |= {name: PropertyRule(name, more.required, more.when) for name, more in overlay.properties.items()}
        exchanges.append(msgspec.structs.replace(
            exchange, **terms | {"properties": tuple(rules.values())}, parties=who
        ))  # fmt: skip
    known = {name for name in parties if name != base.own}
    pairs = {f"{name}:{e.name}" for e in exchanges for name in (known if e.parties is None else e.parties)}
    known |= pairs | {f"*:{e.name}" for e in exchanges}
    overrides = {key: terms for key, terms in base.overrides.items() if key in known}
    for key, terms in said.overrides.items():
        if key in known:
            overrides[key] = _merged(overrides.get(key), terms)
        else:
            nothing(dotted("overrides", key), suggestion(key, sorted(known)[:200]))
    return msgspec.structs.replace(base, parties=parties, exchanges=tuple(exchanges), overrides=overrides)


def _merged(below: Terms | None, above: Terms) -> Terms:
    if below is None:
        return above
    values = {name: getattr(above, name) for name in Terms.__struct_fields__}
    return Terms(**{name: getattr(below, name) if value is None else value for name, value in values.items()})


def _of_report(report: Report) -> Iterator[Note]:
    """What of a P-Mode file concerns the person who runs lint."""
    for note in (*(note for note in report.repaired if note.rule), *report.warnings):
        if note.rule not in _TOLD_BY_LINT:
            yield Note(note.where, note.message, note.line, note.rule or _DOMIBUS)
