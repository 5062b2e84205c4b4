"""The parties of a P-Mode file as parties of an agreement file."""

from msgspec import Struct

from gateway.pmodes.agreements import Party
from gateway.pmodes.domibus.read import Node, refuse, shown
from gateway.pmodes.domibus.report import Report
from gateway.pmodes.domibus.tables import Tables
from gateway.pmodes.parties import ABSOLUTE_URI, endpoint_fault


class Parties(Struct):
    """`tables` by name, our own among them; `names` of each node (several for several ids); `sources` the reverse."""

    tables: dict[str, Party]
    names: dict[int, tuple[str, ...]]
    sources: dict[str, str]
    lines: dict[str, int]
    own: str
    #: Nobody else is there: the file of somebody who talks to himself, for a trial.
    lone: bool = False

    def partners(self, nodes: "list[Node] | tuple[Node, ...]") -> tuple[str, ...]:
        """The names of the partners among these nodes, in the order of the file."""
        wanted = {name for node in nodes for name in self.names.get(id(node), ())}
        return tuple(name for name in self.tables if name in wanted and name != self.own)


def parties_of(tables: Tables, us: Node, report: Report) -> Parties:
    """Every party that can be one on the wire. Raises `ConfigError` when ours cannot."""
    made = Parties({}, {}, {}, {}, us.name, len(list(tables.all("party"))) == 1)
    ids: dict[tuple[str, str | None], str] = {}
    folded: dict[tuple[str, str | None], str] = {}
    endpoints: dict[str, str] = {}
    reserved = {node.name for node in tables.all("party")}
    for node in tables.all("party"):
        names = []
        endpoint = _endpoint(node, report)
        if endpoint and node is not us and (twin := endpoints.setdefault(endpoint, node.name)) != node.name:
            report.warn(node.line, node.title, f"has the same endpoint as {twin}", "P005")
        found = list(_identifiers(node, tables, report))
        if node is us and len(found) > 1:
            report.warn(node.line, node.title, f"has {len(found)} identifiers; ours is the first, {shown(found[0][0])}")
            found = found[:1]
        for number, (party_id, kind) in enumerate(found, 1):
            if (twin := ids.setdefault((party_id, kind), node.name)) != node.name:
                report.error(node.line, node.title, f"has the same id and type as party {twin}", "P005")
                continue
            if (twin := folded.setdefault((party_id.lower(), kind), node.name)) != node.name:
                report.warn(node.line, node.title, f"its id differs from that of {twin} in letter case only", "P020")
            name = node.name if number == 1 else _further(node.name, number, reserved)
            names.append(name)
            made.sources[name], made.lines[name] = node.name, node.line
            made.tables[name] = Party(
                type=kind, id=None if party_id == name else party_id, endpoint=endpoint,
                allow_http=True if endpoint and endpoint.startswith("http://") else None,
            )  # fmt: skip
            if number > 1:
                report.warn(node.line, node.title, f"its identifier {shown(party_id)} is imported as party {name}")
        made.names[id(node)] = tuple(names)
    if us.name not in made.tables:
        report.error(us.line, us.title, "our own party has no identifier that can stand in a message")
    refuse(report)
    return made


def _further(name: str, number: int, reserved: set[str]) -> str:
    """A name for a further identifier of a party."""
    while (made := f"{name}-{number}") in reserved:
        number += 1
    reserved.add(made)
    return made


def _identifiers(node: Node, tables: Tables, report: Report):
    """(id, type) of a party, as they stand in messages."""
    identifiers = list(node.all("identifier"))
    if not identifiers:
        report.error(node.line, node.title, "has no identifier")
    for identifier in identifiers:
        party_id, kind = identifier.get("partyId"), None
        if identifier.get("partyIdType"):
            definition = tables.refer(identifier, "partyIdType")
            kind = (definition.get("value") or None) if definition else None
            if definition is None:
                continue
        if not party_id:
            continue
        if kind is None and not ABSOLUTE_URI.fullmatch(party_id):
            report.warn(identifier.line, node.title, f"the id {shown(party_id)} has no type and is no URI, which ebMS3 "
                        "demands; not imported")  # fmt: skip
            continue
        if party_id != node.name:
            report.warn(identifier.line, node.title, f"its party id is {shown(party_id)}, not its name")
        yield party_id, kind


def _endpoint(node: Node, report: Report) -> str | None:
    """Where a party is reached; None where it is not."""
    url = node.get("endpoint")
    if not url:
        report.warn(node.line, node.title, "has no endpoint: it can send to us, we cannot send to it", "P011")
        return None
    if fault := endpoint_fault(url, True):
        rule, words = fault
        report.warn(node.line, node.title, f"its endpoint {shown(url)} {words}; left out", rule)
        return None
    if url.startswith("http://"):
        report.warn(node.line, node.title, "plain http: the message is protected, the traffic is not", "P002")
    return url
