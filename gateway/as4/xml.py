"""The only door to an XML parser.

Everything the gateway parses comes through `parse`: no DTD, no entities, no network,
no processing instructions, no comments in the tree, a depth and size that cannot hurt.
Comments are dropped at the door: exclusive C14N without comments is the only
canonicalisation accepted anywhere, so what is read is what was signed [threats 0.7].

lxml elements are not to be kept: one call of the protocol core goes from bytes to
Structs, in one thread. Canonical bytes come from `canonical` and nowhere else.
"""

import re
import threading

from lxml import etree

from gateway.errors import InvalidHeader

Element = etree._Element

#: Depth, element, attribute and namespace budgets [threats 1.5]; libxml2 itself stops at 256.
MAX_DEPTH = 64
MAX_ELEMENTS = 20_000
MAX_ATTRIBUTES = 64
MAX_NAMESPACES_PER_ELEMENT = 64
MAX_NAMESPACES = 256
MAX_PREFIX_LIST = 16

_ENCODING = re.compile(rb"^<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"']")
_VERSION = re.compile(rb"^<\?xml[^>]*?version\s*=\s*[\"']([^\"']+)[\"']")
_thread = threading.local()


class XmlRefused(InvalidHeader):
    """The bytes are not XML we take. Below ebMS: nothing in them can be referred to."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, status=400)


def _prepare_thread() -> None:
    """Make `#default` in a PrefixList work in this thread, and prove it [stack 1.4].

    lxml hands a prefix to libxml2 only if the prefix is already in the thread's string
    dictionary. `#default` is no XML name, so no XML parse puts it there; the HTML
    parser accepts it as an attribute name and does.
    """
    etree.HTML('<p #default="">')
    root = etree.fromstring(b'<a:r xmlns:a="urn:a" xmlns="urn:d"><a:x><y/></a:x></a:r>')
    if _c14n(root[0], ["#default"]) != b'<a:x xmlns="urn:d" xmlns:a="urn:a"><y></y></a:x>':
        raise RuntimeError("this lxml build ignores #default in a PrefixList; signatures would be misjudged")
    _thread.ready = True


def _c14n(element: Element, prefixes: list[str] | None) -> bytes:
    return etree.tostring(
        element, method="c14n", exclusive=True, with_comments=False, inclusive_ns_prefixes=prefixes
    )


def canonical(element: Element, prefix_list: str | None = None) -> bytes:
    """Exclusive C14N without comments of `element`, in its document [as4 3.5].

    `prefix_list` is the text of ec:InclusiveNamespaces/@PrefixList. More than 16
    prefixes are refused: libxml2 is cubic in them [threats 0.1].
    """
    if not getattr(_thread, "ready", False):
        _prepare_thread()
    prefixes = prefix_list.split() if prefix_list else None
    if prefixes and len(prefixes) > MAX_PREFIX_LIST:
        raise XmlRefused("PrefixList too long")
    try:
        return _c14n(element, prefixes)
    except etree.LxmlError as error:  # C14NError: a relative namespace URI, for one
        raise XmlRefused(f"canonicalisation: {error}") from None


def parse(octets: bytes, *, charset: str | None = None, budget: bool = True) -> Element:
    """Parse `octets` and return the root element.

    `charset` is the parameter of the media type; it must agree with the bytes. Only
    UTF-8 (with or without byte order mark) and UTF-16 with a byte order mark are taken.
    `budget=False` lifts the element and namespace budgets (for payload XML that is
    canonicalised under a size cap); DTD, entities and depth stay refused.

    Raises `XmlRefused`.
    """
    text = _as_utf8(octets, charset)
    # libxml2 parses a harmless DTD happily, so look for one before it does [threats A01].
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        if re.search(rb"<!(DOCTYPE|ENTITY)", _without_character_data(text)):
            raise XmlRefused("a document type declaration is not allowed")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=False,
        strip_cdata=True,
        encoding="utf-8",
    )
    try:
        root = etree.fromstring(text, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise XmlRefused(f"not well-formed XML: {error}") from None
    info = root.getroottree().docinfo
    if info.internalDTD is not None or info.doctype:
        raise XmlRefused("a document type declaration is not allowed")
    if root.getprevious() is not None or root.getnext() is not None:
        raise XmlRefused("something stands beside the root element")
    if next(root.iter(etree.PI, etree.Entity), None) is not None:
        raise XmlRefused("a processing instruction or entity reference is not allowed")
    if budget:
        _check_budget(root)
    return root


def text_of(element: Element) -> str:
    """The character content of an element that may have no child elements."""
    if len(element):
        raise InvalidHeader("element content where text was expected", where=etree.QName(element).localname)
    return element.text or ""


def _as_utf8(octets: bytes, charset: str | None) -> bytes:
    """The same document as UTF-8 without byte order mark and without a lying declaration."""
    declared = (charset or "").strip().strip('"').lower()
    if octets[:3] == b"\xef\xbb\xbf":
        octets, found = octets[3:], "utf-8"
    elif octets[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            octets, found = octets.decode("utf-16").encode("utf-8"), "utf-16"
        except UnicodeError:
            raise XmlRefused("broken UTF-16") from None
    else:
        found = "utf-8"
    if declared and declared.replace("utf8", "utf-8") not in {
        "utf-8": ("utf-8", "us-ascii"),
        "utf-16": ("utf-16", "utf-16le", "utf-16be"),
    }[found]:
        raise XmlRefused(f"the bytes are {found}, the media type says another charset")
    if match := _VERSION.match(octets):
        if match[1] != b"1.0":
            raise XmlRefused("only XML 1.0 is accepted")
    if match := _ENCODING.match(octets):
        name = match[1].decode().lower()
        if found == "utf-8" and name not in ("utf-8", "utf8", "us-ascii", "ascii"):
            raise XmlRefused("only UTF-8 and UTF-16 are accepted")
        if found == "utf-16" and not name.startswith("utf-16"):
            raise XmlRefused("the bytes are UTF-16, the XML declaration says another encoding")
    if b"\0" in octets:
        raise XmlRefused("a NUL byte")
    return octets


def _without_character_data(text: bytes) -> bytes:
    """Drop CDATA sections and comments, where `<!DOCTYPE` would be mere text."""
    return re.sub(rb"<!\[CDATA\[.*?\]\]>|<!--.*?-->", b"", text, flags=re.S)


def _check_budget(root: Element) -> None:
    """Refuse trees built to cost time in canonicalisation or look-ups [threats A05, A12]."""
    elements = namespaces = 0
    for event, element in etree.iterwalk(root, events=("start", "start-ns")):
        if event == "start-ns":
            namespaces += 1
            if namespaces > MAX_NAMESPACES:
                raise XmlRefused("too many namespace declarations")
            continue
        elements += 1
        if elements > MAX_ELEMENTS:
            raise XmlRefused("too many elements")
        if len(element.attrib) > MAX_ATTRIBUTES:
            raise XmlRefused("too many attributes")
    depth, node = 0, root
    stack = [(root, 1)]
    while stack:
        node, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise XmlRefused("nested too deeply")
        stack.extend((child, depth + 1) for child in node)
