"""The definitions of a P-Mode file, found by name whatever the case, and what was never asked for."""

from collections.abc import Iterator

from gateway.as4.pmode import PropertyRule
from gateway.config import Size
from gateway.config.strict import suggestion
from gateway.pmodes.agreements import Retry
from gateway.pmodes.domibus import retry as retries
from gateway.pmodes.domibus.read import Node, shown
from gateway.pmodes.domibus.report import Report
from gateway.pmodes.domibus.security import meaning

_DATATYPES = ("string",)
#: What the attributes of a leg name, and which of them it may leave out.
_LEG_NAMES = {
    "service": "service", "action": "action", "security": "security", "defaultMpc": "mpc",
    "receptionAwareness": "receptionAwareness", "reliability": "reliability", "errorHandling": "errorHandling",
    "propertySet": "propertySet", "payloadProfile": "payloadProfile", "splitting": "splitting",
}  # fmt: skip
_LEG_MAY = {"receptionAwareness", "reliability", "errorHandling", "propertySet", "payloadProfile", "splitting"}
_PROCESS_LISTS = (
    ("initiatorParties", "initiatorParty", "party"),
    ("responderParties", "responderParty", "party"),
    ("legs", "leg", "legConfiguration"),
)
_PROCESS_NAMES = {
    "mep": "mep", "binding": "binding", "initiatorRole": "role", "responderRole": "role", "agreement": "agreement",
}  # fmt: skip
#: Where something of that kind stands unused it is worth a word; the rest follows from it.
_TOLD = ("security", "legConfiguration", "service", "action", "agreement", "payloadProfile", "propertySet", "mpc")


class Tables:
    """Everything a name can refer to. Unresolved names are errors in the report."""

    def __init__(self, root: Node, report: Report) -> None:
        self._report = report
        self._nodes: dict[str, dict[str, Node]] = {}
        self._used: set[int] = set()
        self._collect(root)
        self._known = {kind: sorted(nodes)[:60] for kind, nodes in self._nodes.items()}

    def _collect(self, node: Node) -> None:
        for child in node.children:
            if child.element.definition:
                self._nodes.setdefault(child.element.name, {})[child.name.lower()] = child
            else:
                self._collect(child)

    def all(self, kind: str) -> Iterator[Node]:
        return iter(self._nodes.get(kind, {}).values())

    def find(self, kind: str, name: str) -> Node | None:
        return self._nodes.get(kind, {}).get(name.lower())

    def refer(self, node: Node, attribute: str, kind: str | None = None, *, optional: bool = False) -> Node | None:
        """The definition an attribute names, which is in use from now on; None, with an error, where there is none."""
        found = self._named(node, attribute, kind or attribute, optional)
        if found is not None:
            self._used.add(id(found))
        return found

    def _named(self, node: Node, attribute: str, kind: str, optional: bool) -> Node | None:
        name = node.get(attribute)
        if not name:
            if not optional:
                self._report.error(node.line, node.title, f"{attribute} is missing")
            return None
        found = self.find(kind, name)
        if found is None:
            self._report.error(
                node.line, f"{node.title} {attribute}" if attribute != "name" else node.title,
                f"there is no {kind} {shown(name)} ({suggestion(name.lower(), self._known.get(kind, ()))})",
            )  # fmt: skip
        elif found.name != name:
            self._report.repair(node.line, f"{node.title} {attribute}", f"{shown(name)} read as {shown(found.name)}")
        return found

    def members(self, process: Node, side: str, entry: str) -> list[Node] | None:
        """The parties on one side of a process; None where the side is open to everybody."""
        sides = list(process.all(side))
        if not sides:
            return None
        return [party for node in sides for member in node.all(entry) if (party := self.refer(member, "name", "party"))]

    def check(self) -> None:
        """What Domibus refuses at import, wherever it stands: names that lead nowhere, values that mean nothing."""
        for party in self.all("party"):
            for identifier in party.all("identifier"):
                self._named(identifier, "partyIdType", "partyIdType", True)
        for listed in self.all("propertySet"):
            for reference in listed.all("propertyRef"):
                self._named(reference, "property", "property", False)
        for profile in self.all("payloadProfile"):
            if int(profile.get("maxSize") or 0) < 0:
                self._report.error(profile.line, f"{profile.title} maxSize", "is negative")
            for attachment in profile.all("attachment"):
                self._named(attachment, "name", "payload", False)
        for kind, attributes in (("service", ("value", "type")), ("action", ("value",))):
            for node in self.all(kind):
                for attribute in attributes:
                    if "=" in (node.get(attribute) or ""):
                        self._report.error(node.line, f"{node.title} {attribute}", "holds '=', which Domibus refuses")
        for awareness in self.all("receptionAwareness"):
            self.retry(awareness)
        for leg in self.all("legConfiguration"):
            for attribute, kind in _LEG_NAMES.items():
                self._named(leg, attribute, kind, attribute in _LEG_MAY)
        for process in self.all("process"):
            for attribute, kind in _PROCESS_NAMES.items():
                self._named(process, attribute, kind, attribute == "agreement")
            for side, entry, kind in _PROCESS_LISTS:
                for node in process.all(side):
                    for member in node.all(entry):
                        self._named(member, "name", kind, False)

    def retry(self, awareness: Node) -> Retry:
        """How a message is sent again."""
        text = awareness.get("retry")
        try:
            return retries.parse(text)
        except ValueError as error:
            self._report.error(awareness.line, f"{awareness.title} retry", f"{shown(text or '')}: {error}")
            return retries.ONCE

    # -- what a leg names ---------------------------------------------------------------

    def properties(self, leg: Node) -> tuple[tuple[PropertyRule, ...], bool]:
        """The properties a leg knows, and whether it allows no others."""
        listed = self.refer(leg, "propertySet", optional=True)
        if listed is None:
            return (), False
        rules = []
        for reference in listed.all("propertyRef"):
            if (node := self.refer(reference, "property")) is None:
                continue
            datatype = (node.get("datatype") or "string").lower()
            if datatype not in _DATATYPES:
                self._report.ignore(node.line, f"{node.title} datatype", f"{shown(datatype)}: values are not checked")
            rules.append(PropertyRule(node.get("key"), node.flag("required", True)))
        return tuple(rules), True

    def sizes(self, leg: Node) -> dict[str, Size]:
        """The bounds of a leg's payload profile: of the message, and of a part where every payload has one."""
        profile = self.refer(leg, "payloadProfile", optional=True)
        if profile is None:
            return {}
        payloads = [self.refer(entry, "name", "payload") for entry in profile.all("attachment")]
        whole = int(profile.get("maxSize") or 0)
        parts = [int(payload.get("maxSize") or 0) if payload else 0 for payload in payloads]
        found = {"max_message": Size(whole)} if whole > 0 else {}
        if parts and all(size > 0 for size in parts):
            found["max_part"] = Size(max(parts))
        self._report.ignore(profile.line, profile.title, "which parts a message has is for the application to check; "
                            "sizes are imported")  # fmt: skip
        return found

    def tell_unused(self, us: Node) -> None:
        """Say what no leg of ours names. Unused securities are named one by one: they never become usable."""
        for kind in _TOLD:
            for node in self.all(kind):
                if id(node) in self._used:
                    continue
                why = f"no process of {us.name} uses it"
                if kind == "security":
                    means = meaning(node)
                    why = f"{why}; it does not become usable" + (f" ({means.fault})" if means.fault else "")
                self._report.ignore(node.line, node.title, why)
