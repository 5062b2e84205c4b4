"""The only door to an XML parser.

Everything the gateway parses comes through `parse`: no DTD, no entities, no network,
no processing instructions, no comments in the tree, a depth and size that cannot hurt.
Comments are dropped at the door: exclusive C14N without comments is the only
canonicalisation accepted anywhere, so what is read is what was signed [threats 0.7].
The budgets are checked before a tree leaves this module, and so before anything is
canonicalised: they are what keeps C14N linear [threats 0.1, A12].

What the gateway writes itself is text in exclusive canonical form, made with `escaped`
and `quoted`: its octets are what is digested, and no tree is needed to sign.

lxml elements are not to be kept: one call of the protocol core goes from bytes to
Structs, in one thread. Canonical bytes come from `canonical` and nowhere else.

libxml2 keeps every name it has ever parsed in a dictionary that lives as long as the
thread; names of strangers would fill it (500 MB, then every new name is an error). So
each thread gets a fresh dictionary after every 16 MiB of XML; see `_ThreadState`.
"""

import ctypes
import re
import threading

from lxml import etree

from gateway.errors import InvalidHeader

Element = etree._Element

#: Budgets of an envelope [threats 1.5]. libxml2 itself stops at depth 256 and at names of 50 000 octets.
MAX_DEPTH = 64
MAX_ELEMENTS = 20_000
MAX_ATTRIBUTES = 64
MAX_NAMESPACES_PER_ELEMENT = 64
#: In scope at one place: that is what C14N looks through. Beside each other there may be many more, for
#: WSS4J declares some four for each encrypted part.
MAX_NAMESPACES = 256
MAX_DECLARATIONS = 8192
MAX_PREFIX_LIST = 16
#: Budgets of payload XML: only what C14N is more than linear in. The size is capped by the caller.
MAX_PAYLOAD_ATTRIBUTES = 1024
MAX_PAYLOAD_NAMESPACES = 1024
#: XML parsed by a thread before its string dictionary is replaced. Names grow to about
#: 1.4 octets for each octet parsed (measured), so this bounds them to some 25 MB a thread.
DICTIONARY_OCTETS = 16 << 20

_SPACE = re.compile(rb"[ \t\r\n]*")
_ENCODING = re.compile(rb"^<\?xml[^>]*?\sencoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"']")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: Charsets that name the encoding found, the way media types and XML declarations spell them.
_SPELLINGS = {
    "utf-8": ("utf-8", "utf8", "us-ascii", "ascii"),
    "utf-16": ("utf-16", "utf16", "utf-16le", "utf-16be"),
}
#: Encodings of uncompressed payload XML that are put right before parsing.
_WESTERN = ("iso-8859-1", "iso-8859-15", "windows-1252")


class XmlRefused(InvalidHeader):
    """The bytes are not XML we take. Below ebMS: nothing in them can be referred to.

    The peer is told `detail`; where that has more than words of ours in it, `told` instead.
    """

    def __init__(self, detail: str, *, told: str | None = None) -> None:
        super().__init__(detail, where=f"SOAP envelope: {told or detail}", status=400)


class _ThreadState(threading.local):
    """What each thread that parses needs: a string dictionary in good order.

    *`#default` in a PrefixList* [stack 1.4]. lxml hands a prefix to libxml2 only if the
    prefix is already in the dictionary. `#default` is no XML name, so no XML parse puts
    it there; the HTML parser accepts it as an attribute name and does. Proved here by
    canonicalising, because a build in which this fails would misjudge signatures.

    *Growth*. lxml has no call to replace the dictionary, but keeps it in the dictionary
    of the thread state under a name of its own; taking that entry out makes lxml start a
    new one. This is ugly because it knows an inside of lxml. It is safe: documents and
    parsers hold references to the dictionary they were made with, and where the entry
    has another name nothing happens but the growth. The first parser used afterwards
    brings the new dictionary, so it must be a new one itself.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.parsed = 0
        root = etree.fromstring(b'<a:r xmlns:a="urn:a" xmlns="urn:d"><a:x><y/></a:x></a:r>', etree.XMLParser())
        etree.HTML('<p #default="">', etree.HTMLParser())
        if _c14n(root[0], ["#default"]) != b'<a:x xmlns="urn:d" xmlns:a="urn:a"><y></y></a:x>':
            raise RuntimeError("this lxml build ignores #default in a PrefixList; signatures would be misjudged")
        # Evaluated in C, in 6 microseconds; per thread, because an XPath object holds the dictionary too.
        self.beyond_envelope = etree.XPath(
            f"boolean(/*{'/*' * MAX_DEPTH} | //*/@*[{MAX_ATTRIBUTES + 1}] | /descendant::*[{MAX_ELEMENTS + 1}])"
        )
        self.beyond_payload = etree.XPath(f"boolean(//*/@*[{MAX_PAYLOAD_ATTRIBUTES + 1}])")

    def count(self, octets: int) -> None:
        """Note what is about to be parsed; start a new dictionary when it has been enough."""
        self.parsed += octets
        if self.parsed > DICTIONARY_OCTETS:
            # A borrowed reference: taken as an address, or ctypes would give it back once too often.
            state = ctypes.pythonapi.PyThreadState_GetDict
            state.restype, state.argtypes = ctypes.c_void_p, ()
            ctypes.cast(state(), ctypes.py_object).value.pop("_ParserDictionaryContext", None)
            self.begin()


def _c14n(node: Element | etree._ElementTree, prefixes: list[str] | None) -> bytes:
    return etree.tostring(node, method="c14n", exclusive=True, with_comments=False, inclusive_ns_prefixes=prefixes)


_thread = _ThreadState()


def canonical(element: Element, prefix_list: str | None = None) -> bytes:
    """Exclusive C14N without comments of `element`, in its document [as4 3.5].

    `prefix_list` is the text of ec:InclusiveNamespaces/@PrefixList. More than 16
    prefixes are refused: libxml2 is cubic in them [threats 0.1]. Raises `XmlRefused`,
    also for a relative namespace URI: never an empty digest [threats A10].
    """
    _thread.parsed  # noqa: B018  makes this thread ready where the element came from elsewhere
    prefixes = None
    if prefix_list:
        # XML's white space only: U+00A0 is part of a token, str.split would cut there.
        prefixes = prefix_list.split() if prefix_list.isascii() else re.findall(r"[^ \t\r\n]+", prefix_list)
        if len(prefixes) > MAX_PREFIX_LIST:
            raise XmlRefused("PrefixList too long")
    try:
        return _c14n(element, prefixes)
    except etree.LxmlError as error:
        raise XmlRefused(f"canonicalisation: {_cause(error)}", told="no canonical form") from None


def canonical_document(octets: bytes, *, charset: str | None = None) -> bytes:
    """Exclusive C14N without comments of a whole XML document: the digest input of uncompressed payload XML.

    Unlike an envelope, a payload may hold processing instructions (they are digested)
    and may be in a Western 8-bit encoding. DTD, entities and costly shapes stay refused
    [as4 3.6]. The caller caps the size. Raises `XmlRefused`.
    """
    match = _ENCODING.match(octets)
    if match and (name := match[1].decode().lower()) in _WESTERN:
        try:
            octets = octets.decode(name).encode()
        except UnicodeError:
            raise XmlRefused(f"not {name}") from None
        root = _parse(octets)
    else:
        root = _parse(_as_utf8(octets, charset))
    _check_payload_budget(root, octets)
    try:
        return _c14n(root.getroottree(), None)
    except etree.LxmlError as error:
        raise XmlRefused(f"canonicalisation: {_cause(error)}", told="no canonical form") from None


def parse(octets: bytes, *, charset: str | None = None, budget: bool = True) -> Element:
    """Parse `octets` and return the root element.

    `charset` is the parameter of the media type; it must agree with the bytes. Only
    UTF-8 (with or without byte order mark) and UTF-16 with a byte order mark are taken
    [as4 1.4, threats A07]. `budget=False` lifts the budgets of an envelope and leaves
    those of payload XML; DTD, entities and processing instructions stay refused.

    Raises `XmlRefused`.
    """
    text = _as_utf8(octets, charset)
    root = _parse(text)
    if root.getprevious() is not None or root.getnext() is not None:
        raise XmlRefused("something stands beside the root element")
    # Processing instructions are digested, so they are refused and not dropped.
    if next(root.iter(etree.PI, etree.Entity), None) is not None:
        raise XmlRefused("a processing instruction or entity reference")
    if budget:
        _check_budget(root, text)
    else:
        _check_payload_budget(root, text)
    return root


def text_of(element: Element, *, where: str | None = None) -> str:
    """The character content of an element that may have no child elements.

    `where` is the caller's literal for the peer; the element's own name came from outside.
    """
    if len(element):
        raise InvalidHeader("element content where text was expected", where=where)
    return element.text or ""


def escaped(value: str) -> str:
    """`value` as element content, in canonical spelling. Raises `InvalidHeader` for what XML cannot carry."""
    _check_characters(value)
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#xD;")


def quoted(value: str) -> str:
    """`value` as attribute value with its quotes, in canonical spelling. Raises like `escaped`."""
    _check_characters(value)
    value = value.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    value = value.replace("\t", "&#x9;").replace("\n", "&#xA;").replace("\r", "&#xD;")
    return f'"{value}"'


def _check_characters(value: str) -> None:
    if not (value.isascii() and value.isprintable()) and _NOT_XML.search(value):
        raise InvalidHeader("a character that XML cannot carry", where="eb:Messaging: a character XML cannot carry")


def _parse(text: bytes) -> Element:
    _thread.count(len(text))
    # libxml2 parses a harmless DTD happily, so look for one before it does [threats A01].
    if _has_doctype(text):
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
        encoding="utf-8",  # whatever the declaration says: the bytes have been looked at
    )
    try:
        root = etree.fromstring(text, parser)
    except (etree.LxmlError, ValueError) as error:
        raise XmlRefused(f"not well-formed XML: {_cause(error)}", told=f"not well-formed XML{_place(error)}") from None
    info = root.getroottree().docinfo
    if info.internalDTD is not None or info.doctype:
        raise XmlRefused("a document type declaration is not allowed")
    if info.xml_version != "1.0":
        raise XmlRefused("only XML 1.0 is accepted")
    return root


def _cause(error: Exception) -> str:
    """What is wrong and where, for our log: the parser's own words quote the document [threats M04]."""
    if isinstance(error, etree.XMLSyntaxError) and error.code is not None:
        name = etree.ErrorTypes._getName(error.code, str(error.code))
        return f"{name} in line {error.lineno}, column {error.offset}"
    return type(error).__name__


def _place(error: Exception) -> str:
    """Where the sender's XML breaks, in numbers."""
    if isinstance(error, etree.XMLSyntaxError) and error.lineno:
        return f" at line {error.lineno} column {error.offset}"
    return ""


def _has_doctype(text: bytes) -> bool:
    """Whether the first markup that is neither comment nor processing instruction is a declaration.

    That is the only place where a DTD can stand, so `<!DOCTYPE` inside CDATA, a comment
    or an attribute is mere text. Each step moves forward: linear in the prolog.
    """
    at = 0
    while True:
        at = _SPACE.match(text, at).end()
        if text.startswith(b"<?", at):
            end = text.find(b"?>", at + 2)
            at = end + 2
        elif text.startswith(b"<!--", at):
            end = text.find(b"-->", at + 4)
            at = end + 3
        else:
            return text.startswith(b"<!", at)
        if end < 0:
            return False  # not well-formed; the parser will say so


def _as_utf8(octets: bytes, charset: str | None) -> bytes:
    """The same document as UTF-8 without byte order mark; refused where label and bytes disagree."""
    found = "utf-8"
    if octets[:3] == b"\xef\xbb\xbf":
        octets = octets[3:]
    elif octets[:2] in (b"\xff\xfe", b"\xfe\xff"):
        found = "utf-16"
        try:
            octets = octets.decode(found).encode()
        except UnicodeError:
            raise XmlRefused("broken UTF-16") from None
    if charset and charset.strip(' "').lower() not in _SPELLINGS[found]:
        raise XmlRefused(f"the bytes are {found}, the media type says another charset")
    match = _ENCODING.match(octets)
    if match and match[1].decode().lower() not in _SPELLINGS[found]:
        raise XmlRefused(f"the bytes are {found}, the XML declaration says another")
    return octets


def _check_budget(root: Element, text: bytes) -> None:
    """Refuse trees built to cost time in canonicalisation or look-ups [threats A05, A12]."""
    if _thread.beyond_envelope(root):
        raise XmlRefused("too many elements or attributes, or nested too deeply")
    _check_namespaces(root, text, MAX_NAMESPACES, MAX_DECLARATIONS)


def _check_payload_budget(root: Element, text: bytes) -> None:
    if _thread.beyond_payload(root):
        raise XmlRefused("too many attributes")
    _check_namespaces(root, text, MAX_PAYLOAD_NAMESPACES, MAX_PAYLOAD_NAMESPACES)


def _check_namespaces(root: Element, text: bytes, in_scope: int, in_all: int) -> None:
    # Every declaration is spelled `xmlns` in the bytes; where these are few, there is nothing to count.
    if text.count(b"xmlns") <= MAX_NAMESPACES_PER_ELEMENT:
        return
    total = scope = here = 0
    for event, _ in etree.iterwalk(root, events=("start-ns", "start", "end-ns")):
        if event == "start":
            here = 0
            continue
        if event == "end-ns":
            scope -= 1
            continue
        total, scope, here = total + 1, scope + 1, here + 1
        if total > in_all or scope > in_scope or here > MAX_NAMESPACES_PER_ELEMENT:
            raise XmlRefused("too many namespace declarations")
