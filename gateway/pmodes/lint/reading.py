"""Reading agreement files although they have mistakes, so that all of them are told at once.

Loading stops at the first mistake. Here what is wrong is taken out and the rest is read again, until
it can be read: the key, or the smallest table around it that can be done without. For what is missing
a stand-in is put there. What is found later in a table that was mended would be a consequence, and is not told.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from gateway.as4.pmode import Party
from gateway.config.places import Places, around, dotted, walk
from gateway.config.strict import parse_toml
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Document
from gateway.pmodes.bundle import Files
from gateway.pmodes.domibus.read import PModeRefused
from gateway.pmodes.domibus.report import Note
from gateway.pmodes.expand import all_made
from gateway.pmodes.layers import Made
from gateway.pmodes.lint.catalogue import Finding, Severity
from gateway.pmodes.parties import parties_of
from gateway.pmodes.toml import document, read

#: Mistakes that are looked for in all files together. Whoever has more mends these first.
MAX_MISTAKES = 100
#: Stands where something was missing: it may be a type, a name, a role.
STAND_IN = "urn:x-gateway:missing"
#: Notes about a network's file that say what does not work, or no longer does.
_NOTE_SEVERITY: dict[str, Severity] = {"P022": "warning", "P023": "info"}


class Reading:
    """One agreement file: what of it can be read, and what cannot."""

    def __init__(self, files: Files, name: str) -> None:
        self.name = str(files.path(name))
        self.mistakes: list[ConfigError] = []
        self.document: Document | None = None
        self._files, self._path = files, files.path(name)
        self._places = Places("")
        self._network: _Network | None = None
        self._raw: dict = {}
        self._removed: set[str] = set()
        self._stand_ins: set[str] = set()
        #: The place each of [[exchanges]] had in the file.
        self._exchanges: list[int] = []
        try:
            octets = files.agreement(name)
            if name.lower().endswith(".xml"):
                self._network = _Network(self.name, octets)
                self.document = read(files, name)
                return
            self._places = Places(octets.decode(errors="replace"))
            self._raw = parse_toml(octets, self.name)
        except ConfigError as error:
            self.mistakes.append(error)
            return
        self._network = _network_of(self._raw, files, self.name)
        if isinstance(exchanges := self._raw.get("exchanges"), list):
            self._exchanges = list(range(len(exchanges)))
        self._build()

    def where(self, key: str) -> str:
        """`file:line: key`; of what a network's file says, where it stands in that."""
        key = self.original(key)
        if self._network is not None and not key.startswith("overrides"):
            over = f"overlay.{key}"
            if not key.startswith("parties.") or not any(self._places.span(over)):
                return self._network.where(key)
            key = over
        return _where(self.name, self._places.line(key), key)

    def placed(self, note: Note) -> Note:
        """A note about this file with the line, where its key is one of the file."""
        file, _, key = note.where.partition(": ")
        if file != self.name or note.line or not (line := self._places.line(key)):
            return note
        return Note(f"{file}:{line}: {key}", note.message, None, note.rule)

    def mend(self, error: ConfigError) -> bool:
        """Take out what `error` is about and read again. False when nothing is left to read."""
        key = error.key
        self.document = None
        error.file = error.file or self.name
        if error.file != self.name:
            self.mistakes.append(error)
            return False
        if not self._is_consequence(error):
            error.key = self.original(key)
            self.mistakes.append(self._places.locate(error))
        found = {name: (container, step) for name, _, container, step in walk(self._raw)}
        if error.detail.startswith("is missing") and self._stand_in(key):
            return self._build()
        while key and key not in found:
            key = around(key)
        if not key:
            return False
        container, step = found[key]
        self._removed.add(self.original(key))
        if meant := re.fullmatch(r"did you mean '(\w+)'\?", error.hint):
            self._removed.add(dotted(around(self.original(key)), meant[1]))  # a mistyped key is missing, too
        del container[step]
        if container is self._raw.get("exchanges") and isinstance(container, list):
            del self._exchanges[step]
        return self._build()

    def _stand_in(self, key: str) -> bool:
        """Put something where a key is missing. False when that was done before, or there is no such table."""
        table = next((value for name, value, _, _ in walk(self._raw) if name == around(key)), None)
        table = table if around(key) else self._raw
        if not isinstance(table, dict) or self.original(key) in self._stand_ins:
            return False
        table[key[len(around(key)) :].lstrip(".")] = STAND_IN
        self._stand_ins.add(self.original(key))
        self._removed.add(self.original(key))
        return True

    def original(self, key: str) -> str:
        """A key as it was before anything was taken out."""
        match = re.match(r"exchanges\[(\d+)\]", key)
        if not match or int(match[1]) >= len(self._exchanges):
            return key
        return f"exchanges[{self._exchanges[int(match[1])]}]{key[match.end() :]}"

    def is_spoiled(self, key: str) -> bool:
        """Whether something was taken out at this key, right below it or around it."""
        if any(around(removed) == key for removed in self._removed):
            return True
        while key and key not in self._removed:
            key = around(key)
        return bool(key)

    def _build(self) -> bool:
        if len(self.mistakes) > MAX_MISTAKES:
            return False
        try:
            self.document = document(self._raw, self._path, self._files)
        except ConfigError as error:
            return self.mend(error)
        return True

    def _is_consequence(self, error: ConfigError) -> bool:
        key = self.original(error.key)
        missing = error.detail.startswith("is missing") and key in self._removed
        nobody = key == "self" and any(name.startswith("parties") for name in self._removed)
        nowhere = error.rule == "P011" and key.startswith("overrides") and bool(self._removed)
        return missing or nobody or nowhere or key in self._stand_ins


class _Network:
    """Where parties stand in the file that was downloaded."""

    def __init__(self, name: str, octets: bytes) -> None:
        self._name, self._text = name, octets.decode(errors="replace")
        self._places = Places(self._text) if name.endswith(".toml") else None

    def where(self, key: str) -> str:
        return _where(self._name, self._line(key), key)

    def _line(self, key: str) -> int:
        if self._places is not None:
            return self._places.line(key)
        match = re.match(r'parties\.(?:([A-Za-z0-9_-]+)|"([^"\\]+)")', key)
        if match is None:
            return 0
        name = re.escape(match[1] or match[2])
        found = re.search(rf"""<party\s[^<>]{{0,4096}}?\bname\s*=\s*["']\s*{name}\s*["']""", self._text, re.IGNORECASE)
        return self._text.count("\n", 0, found.start()) + 1 if found else 0


def _network_of(raw: dict, files: Files, document: str) -> _Network | None:
    table = raw.get("network")
    name = table.get("pmode") if isinstance(table, dict) else None
    if not isinstance(name, str):
        return None
    try:
        return _Network(str(files.path(name)), files.read(name, document=document, key="network.pmode"))
    except ConfigError:
        return None  # reading the agreement says why


def _where(file: str, line: int, key: str) -> str:
    return ": ".join(part for part in (f"{file}:{line}" if line else file, key) if part)


class Read(NamedTuple):
    """Every file, the legs and parties of what can be read, and the mistakes that are of no file in particular."""

    readings: list[Reading]
    made: list[Made]
    parties: dict[str, Party]
    loose: list[ConfigError]


def read_all(files: Files) -> Read:
    """Every agreement file as far as it can be read, alone and together with the others."""
    readings = [Reading(files, name) for name in files.agreements]
    for _ in range(MAX_MISTAKES):
        whole = [reading for reading in readings if reading.document is not None]
        documents = [reading.document for reading in whole if reading.document is not None]
        try:
            parties = parties_of(documents)
            return Read(readings, all_made(documents, parties), parties, [])
        except ConfigError as error:
            at_fault = next((reading for reading in whole if reading.name == error.file), None)
            if at_fault is None:
                return Read(readings, [], {}, [error])
            at_fault.mend(error)
    return Read(readings, [], {}, [])


def told(found: Read) -> list[Finding]:
    """The mistakes that stop loading, and the notes reading made, as findings."""
    errors = [error for reading in found.readings for error in reading.mistakes] + found.loose
    findings = [finding for error in errors for finding in _of_error(error)]
    for reading in found.readings:
        for note in reading.document.notes if reading.document is not None else ():
            findings.append(_of_note(reading.placed(note), _NOTE_SEVERITY.get(note.rule or "", "warning")))
    return findings


def _of_error(error: ConfigError) -> Sequence[Finding]:
    if isinstance(error, PModeRefused):
        return [_of_note(note, "error") for note in error.report.errors]
    unknown = error.detail == "unknown key" or error.detail.startswith("object contains unknown field")
    rule = error.rule or ("P017" if unknown else "P000")
    message = f"{error.value}: {error.detail}" if error.value else error.detail
    return [Finding(rule, "error", error.where, message, error.hint)]


def _of_note(note: Note, severity: Severity) -> Finding:
    """A note about a network's file. It says `FILE, line 7: party`; here places are `FILE:7: party`."""
    where = note.where.replace(f", line {note.line}", f":{note.line}", 1) if note.line else note.where
    return Finding(note.rule or ("P000" if severity == "error" else "P023"), severity, where, note.message)
