"""What the rules look at: everything that could be read, with where it stands."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from msgspec import Struct

from gateway.as4.pmode import Party
from gateway.config.places import dotted
from gateway.pmodes.agreements import Document
from gateway.pmodes.agreements import Party as Table
from gateway.pmodes.layers import Made
from gateway.pmodes.lint.catalogue import RULES, Finding, Severity
from gateway.pmodes.lint.reading import Reading

#: `gateway.keys.trust.check_certificate`, handed down: this room does not know that one.
Check = Callable[..., None]


class Node(Struct, frozen=True, kw_only=True):
    """What the rules have to know of the node the agreements are for. None: not known, or for ever.

    `backends` are the names a leg may route to; `read_once` those whose consumers lose what they have read.
    `metadata` and `delivered_payloads` are seconds that headers, and payloads after delivery, are kept.
    """

    backends: frozenset[str] | None = None
    read_once: frozenset[str] = frozenset()
    metadata: float | None = None
    delivered_payloads: float | None = None


class Partner(NamedTuple):
    """A party of a file that is not its `self`. `party` has its certificates; it is None where they cannot be read."""

    name: str
    table: Table
    party: Party | None
    document: Document
    key: str


class Ground(NamedTuple):
    """All files together."""

    readings: Sequence[Reading]
    made: Sequence[Made]
    parties: Mapping[str, Party]
    node: Node
    check: Check | None
    now: datetime

    @property
    def documents(self) -> list[Document]:
        return [reading.document for reading in self.readings if reading.document is not None]

    def partners(self) -> Iterator[Partner]:
        """Every partner once, at the first file that names it."""
        seen: set[str] = set()
        for document in self.documents:
            file = document.file
            for name, table in file.parties.items():
                # Who is a partner is not known where `self` is wrong; reading says so.
                if name != file.own and file.own in file.parties and name not in seen:
                    seen.add(name)
                    yield Partner(name, table, self.parties.get(name), document, dotted("parties", name))

    def finding(
        self, rule: str, severity: Severity, document: Document, key: str, message: str, hint: str = ""
    ) -> Finding | None:
        """A finding at a key of a file; None where it would be a consequence of a mistake that is told already."""
        reading = next(reading for reading in self.readings if reading.name == document.name)
        if reading.is_spoiled(reading.original(key)):
            return None
        return Finding(rule, severity, reading.where(key), message, hint or RULES[rule].fix)

    def about(
        self, partner: Partner, rule: str, severity: Severity, message: str, *, below: str = "", hint: str = ""
    ) -> Finding | None:
        """A finding about a partner, or about the key `below` it."""
        key = f"{partner.key}.{below}" if below else partner.key
        return self.finding(rule, severity, partner.document, key, message, hint)
