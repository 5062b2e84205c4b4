"""A P-Mode file as nodes, checked against the grammar, tolerant where real files are sloppy.

A file comes from outside, even where it comes from the network's own portal: it is bounded in
size, depth and number of elements, and neither DTD nor entity is taken [threats A01-A05, K09].
What is wrong is collected, so that an operator sees everything at once.
"""

import re
from collections.abc import Iterator

from gateway.as4 import ns, xml
from gateway.config.strict import suggestion
from gateway.errors import ConfigError
from gateway.pmodes.domibus import grammar
from gateway.pmodes.domibus.grammar import Attribute, Element
from gateway.pmodes.domibus.report import PModeRefused, Report

#: 13 000 parties fit in; the whole network has some sixty.
MAX_SIZE = 4 << 20

_ENCODING = re.compile(rb"^(<\?xml[^>]*?\sencoding\s*=\s*[\"'])([A-Za-z0-9._-]+)([\"'])")
#: Encodings an editor on a desk writes; everything else is UTF-8 or UTF-16, or refused.
_WESTERN = {"iso-8859-1", "iso-8859-15", "windows-1252", "latin1"}
_BLANK = " \t\r\n\u00a0\u200b\ufeff"
_BREAKS_THE_WIRE = re.compile(r"[<>\x00-\x1f\x7f]")


class Node:
    """One element: its values by attribute, cleaned, and the elements in it."""

    __slots__ = ("children", "element", "line", "seen", "values")

    def __init__(self, element: Element, line: int) -> None:
        self.element, self.line = element, line
        self.values: dict[str, str] = {}
        self.children: list[Node] = []
        #: The children by (element, attribute, value) for every attribute that should differ.
        self.seen: dict[tuple[str, str, str], Node] = {}

    @property
    def name(self) -> str:
        return self.values.get("name", "")

    @property
    def title(self) -> str:
        """How messages call it."""
        name = self.name or next(iter(self.values.values()), "")
        return f"{self.element.name} {shown(name)}" if name else self.element.name

    def get(self, attribute: str) -> str | None:
        """The value; None where it is absent, or empty and may not be."""
        return self.values.get(attribute)

    def flag(self, attribute: str, default: bool = False) -> bool:
        value = self.values.get(attribute)
        return default if value is None else value == "true"

    def all(self, name: str) -> Iterator["Node"]:
        """The elements of that name in this one, in order."""
        return (child for child in self.children if child.element.name == name)

    def first(self, name: str) -> "Node | None":
        return next(self.all(name), None)

    def same(self, other: "Node") -> bool:
        return self.values == other.values and len(self.children) == len(other.children) and all(
            a.same(b) for a, b in zip(self.children, other.children, strict=True)
        )


def read(octets: bytes, file: str) -> tuple[Node, Report]:
    """The configuration in a file, and what there is to tell about it.

    Raises `ConfigError` for what is no P-Mode file or too large, `PModeRefused` for errors of grammar.
    """
    report = Report(file)
    if len(octets) > MAX_SIZE:
        raise ConfigError(f"is larger than {MAX_SIZE >> 20} MiB; a P-Mode file of a whole network has 20 kB", file=file)
    try:
        root = xml.parse(_known_encoding(octets, report))
    except xml.XmlRefused as error:
        raise ConfigError(f"cannot be read as XML: {error.detail}", file=file) from None
    name = root.tag if isinstance(root.tag, str) else ""
    if name == "configuration":
        report.repair(root.sourceline, "configuration", f"the namespace {grammar.NAMESPACE} is missing")
    elif name != ns.qn(grammar.NAMESPACE, "configuration"):
        raise ConfigError(
            f"is no Domibus P-Mode: the root is {shown(name)}", file=file,
            hint=f"expected configuration in the namespace {grammar.NAMESPACE}",
        )  # fmt: skip
    node = _node(root, grammar.CONFIGURATION, report)
    refuse(report)
    return node, report


def refuse(report: Report) -> None:
    """Raises `PModeRefused` where there are errors."""
    if report.errors:
        raise PModeRefused(report)


def shown(value: str) -> str:
    """A value of the file in a message: bounded, inert."""
    return repr(value if len(value) <= 80 else value[:79] + "…")


def _known_encoding(octets: bytes, report: Report) -> bytes:
    """The file as UTF-8 where an editor wrote it in a Western encoding."""
    match = _ENCODING.match(octets)
    if match is None or (name := match[2].decode().lower()) not in _WESTERN:
        return octets
    try:
        text = octets.decode(name)
    except UnicodeError:
        raise ConfigError(f"is not {name}, though its first line says so", file=report.file) from None
    report.repair(1, "", f"read as {name}; P-Mode files are UTF-8")
    return _ENCODING.sub(rb"\1utf-8\3", text.encode(), count=1)


def _node(source: xml.Element, element: Element, report: Report) -> Node:
    node = Node(element, source.sourceline or 0)
    # The name first: messages about the others say it.
    for key, value in sorted(source.attrib.items(), key=lambda item: item[0] != element.key):
        _value(node, key, value, report)
    for attribute in element.attributes:
        if attribute.name in node.values:
            continue
        if attribute.required:
            report.error(node.line, node.title, f"{attribute.name} is missing")
        elif attribute.default is not None:
            node.values[attribute.name] = attribute.default
    if source.text and source.text.strip(_BLANK):
        report.ignore(node.line, node.title, "text between the elements", kind=element.name)
    for inner in source:
        if inner.tail and inner.tail.strip(_BLANK):
            report.ignore(inner.sourceline, node.title, "text between the elements", kind=element.name)
        _child(node, inner, report)
    return node


def _child(node: Node, source: xml.Element, report: Report) -> None:
    namespace, _, name = source.tag.rpartition("}")
    where = f"{node.title}: {shown(name)}"
    if namespace not in ("", "{" + grammar.NAMESPACE):
        report.ignore(source.sourceline, where, "an element of another namespace")
        return
    element = node.element.child(name)
    if element is None:
        known = [child.name for child in node.element.children]
        report.ignore(source.sourceline, where, lambda: _unknown("element", name, known),
                      kind=f"{node.element.name}/{name}")  # fmt: skip
        return
    child = _node(source, element, report)
    if not element.many and (twin := node.first(name)) is not None:
        report.repair(child.line, name, f"stands twice (first in line {twin.line}); taken together")
        twin.children += [c for c in child.children if not _repeated(twin, c, report)]
    elif not _repeated(node, child, report):
        node.children.append(child)


def _repeated(node: Node, child: Node, report: Report) -> bool:
    """Whether the same thing stands there already. Two different things of one name are an error."""
    element = child.element
    if element.key is None or element.key not in child.values:
        return False
    twin = node.seen.setdefault((element.name, element.key, child.values[element.key].lower()), child)
    if twin is child:
        for name in element.unique:
            value = child.values.get(name)
            if value and (other := node.seen.setdefault((element.name, name, value), child)) is not child:
                report.warn(child.line, child.title, f"has the same {name} as {other.title} in line {other.line}")
        return False
    if twin.same(child) or len(element.attributes) == 1:
        report.repair(child.line, child.title, f"stands twice (first in line {twin.line})", "P005")
    else:
        report.error(child.line, child.title, f"another one with this {element.key} stands in line {twin.line}", "P005")
    return True


def _value(node: Node, key: str, value: str, report: Report) -> None:
    element = node.element
    namespace, _, name = key.rpartition("}")
    attribute = element.attribute(name) if namespace in ("", "{" + grammar.NAMESPACE) else None
    where = f"{element.name} {shown(node.name)} {name}" if node.name else f"{element.name} {name}"
    if attribute is None:
        known = [a.name for a in element.attributes]
        other = "an attribute of another namespace; no schema is fetched"
        report.ignore(node.line, where, other if namespace else lambda: _unknown("attribute", name, known),
                      kind=f"{element.name}@{namespace}{name}")  # fmt: skip
        return
    clean = value.strip(_BLANK)
    if clean != value:
        rule = "P001" if attribute.kind == "uri" else None
        report.repair(node.line, where, f"blanks around {shown(clean)} removed", rule)
    if not clean and not attribute.empty:
        if attribute.required:
            report.error(node.line, where, "is empty")
            node.values[name] = ""
        return
    clean = _typed(attribute, clean, node, where, report)
    if clean is None:
        return
    node.values[name] = clean
    if attribute.ignored and clean.lower() not in attribute.expected:
        # A password is not repeated anywhere.
        told_ = "" if name == "password" else f"{clean if len(clean) <= 40 else clean[:39] + '…'}: "
        report.ignore(node.line, where, f"{told_}{attribute.ignored}", kind=f"{element.name}@{name}={clean[:80]}")


def _unknown(what: str, name: str, known: list[str]) -> str:
    hint = suggestion(name[:255], known) if known else ""
    return f"an {what} this grammar does not know" + (f" ({hint})" if hint else "")


def _typed(attribute: Attribute, value: str, node: Node, where: str, report: Report) -> str | None:
    """The value in its one spelling; None where it is none."""
    if len(value) > attribute.most and not attribute.ignored:
        report.error(node.line, where, f"is longer than {attribute.most} characters")
        return None
    if attribute.kind == "boolean":
        spelled = {"1": "true", "0": "false"}.get(value.lower(), value.lower())
        if spelled not in ("true", "false"):
            report.error(node.line, where, f"{shown(value)} is neither true nor false")
            return None
        if value not in ("true", "false", "1", "0"):
            report.repair(node.line, where, f"{shown(value)} read as {spelled}")
        return spelled
    if attribute.kind == "integer":
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", value):
            report.error(node.line, where, f"{shown(value)} is not a whole number")
            return None
        return str(int(value))
    if not attribute.ignored and _BREAKS_THE_WIRE.search(value):
        report.error(node.line, where, f"{shown(value)} holds a character that breaks the wire")
        return None
    return value
