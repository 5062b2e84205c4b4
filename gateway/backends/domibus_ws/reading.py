"""A SOAP request as it streams in: small things as a tree, payloads as bytes.

An envelope may hold 100 MB of base64, so it is never a tree as a whole. expat tells what it
reads; everything but the text of `payload/value` and `bodyload/value` becomes a small tree
under limits, and that text is decoded as it comes and handed on. What the envelope is read
for decides nothing about security: the caller has been authenticated before.

expat and not the parser of `as4/xml.py`: that one makes whole documents, which is what
signatures need and a payload in base64 does not bear. No document type, no entities, no
processing instructions; each is refused when it begins [threats A01-A03].
"""

import binascii
from collections.abc import Iterator
from urllib.parse import unquote
from xml.parsers import expat

from gateway.backends.domibus_ws.names import OLD, PLUGIN, SOAP, XOP

MAX_DEPTH = 32
MAX_ELEMENTS = 5_000
#: All text and attributes outside of payloads together.
MAX_TEXT = 1 << 20
#: Bytes that may come without anything being told: one token, which expat holds as a whole.
MAX_TOKEN = 256 << 10
#: Text is told in pieces of this size; by itself expat tells each line and each reference.
TEXT_PIECE = 64 << 10

_PAYLOADS = ("payload", "bodyload")
_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
_OTHERS = bytes(octet for octet in range(256) if octet not in _BASE64)


class Malformed(Exception):
    """The request is no SOAP 1.2 envelope this door reads. The text is for the caller."""


class Node:
    """An element: (namespace, name), attributes, text, children."""

    __slots__ = ("attributes", "children", "name", "namespace", "text")

    def __init__(self, namespace: str, name: str, attributes: dict[str, str]) -> None:
        self.namespace, self.name, self.attributes = namespace, name, attributes
        self.text, self.children = "", []

    def find(self, name: str) -> "Node | None":
        """The first child of that name, whatever its namespace: clients differ there."""
        return next((child for child in self.children if child.name == name), None)

    def all(self, name: str) -> "list[Node]":
        return [child for child in self.children if child.name == name]

    def text_of(self, name: str) -> str | None:
        """The text of a child; None when there is no such child."""
        found = self.find(name)
        return None if found is None else found.text

    def get(self, name: str) -> str | None:
        """An attribute in no namespace."""
        return self.attributes.get(name)


class Payload:
    """A `payload` or `bodyload` of the body. Its content is under `key`; or in the attachment `cid`."""

    __slots__ = ("_start", "attributes", "cid", "key", "kind", "nil")

    def __init__(self, kind: str, number: int, attributes: dict[str, str]) -> None:
        self.kind, self.key, self.attributes = kind, f"value-{number}", attributes
        self.cid: str | None = None
        self.nil = False
        self._start = ""

    @property
    def id(self) -> str | None:
        found = self.attributes.get("payloadId")
        return found.strip() if found is not None else None

    @property
    def content_type(self) -> str | None:
        return self.attributes.get("contentType") or self.attributes.get("mimeType")


class EnvelopeReader:
    """Feed it blocks; each `feed` gives the decoded pieces of payloads, as (key, octets), in order.

    After `close`: `header` is the Messaging element or None, `operation` the first child of
    the body, `payloads` what the body lists.
    """

    def __init__(self, charset: str | None = None) -> None:
        self._parser = expat.ParserCreate(charset, namespace_separator="\n")
        self._parser.ordered_attributes = self._parser.buffer_text = True
        self._parser.buffer_size = TEXT_PIECE
        self._parser.StartElementHandler = self._started
        self._parser.EndElementHandler = self._ended
        self._parser.CharacterDataHandler = self._said
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.ProcessingInstructionHandler = self._refuse
        self._parser.EntityDeclHandler = self._refuse
        self._path: list[Node] = []
        self._texts: list[list[str]] = []
        self._elements = self._text = self._quiet = 0
        self._value: _Value | None = None
        self._decoded: list[tuple[str, bytes]] = []
        self._root: Node | None = None
        self.payloads: list[Payload] = []

    def feed(self, block: bytes) -> list[tuple[str, bytes]]:
        """Raises `Malformed`."""
        for start in range(0, len(block), MAX_TOKEN):
            piece = block[start : start + MAX_TOKEN]
            self._quiet += len(piece)
            self._parse(piece, False)
            if self._quiet > 2 * MAX_TOKEN:
                raise Malformed("a name, an attribute or a comment is too long")
        decoded, self._decoded = self._decoded, []
        return decoded

    def root(self) -> Node:
        """The whole document, at its end. Raises `Malformed`."""
        self._parse(b"", True)
        if self._root is None:
            raise Malformed("an empty document")
        return self._root

    def close(self) -> None:
        """Raises `Malformed`."""
        root = self.root()
        if (root.namespace, root.name) != (SOAP, "Envelope"):
            raise Malformed("not a SOAP 1.2 envelope")
        body = root.find("Body")
        if body is None or not body.children:
            raise Malformed("the SOAP body is empty")
        head = root.find("Header")
        self.header = head.find("Messaging") if head is not None else None
        self.operation: Node = body.children[0]

    def _parse(self, octets: bytes, last: bool) -> None:
        try:
            self._parser.Parse(octets, last)
        except expat.ExpatError as error:
            raise Malformed(f"not well-formed XML: {expat.errors.messages.get(error.code, error.code)}, "
                            f"line {error.lineno}") from None  # fmt: skip
        except (LookupError, ValueError):
            raise Malformed("an encoding this door does not read") from None

    # -- what expat tells -----------------------------------------------------------

    def _started(self, name: str, attributes: list[str]) -> None:
        self._quiet = 0
        self._elements += 1
        given = dict(zip(attributes[::2], attributes[1::2], strict=True))
        self._weigh(sum(map(len, attributes)))
        if len(self._path) >= MAX_DEPTH or self._elements > MAX_ELEMENTS:
            raise Malformed("the envelope has too many elements")
        namespace, _, local = name.rpartition("\n")
        if self._value is not None:
            self._value.include(namespace, local, given)
        node = Node(namespace, local, given)
        if self._path:
            self._path[-1].children.append(node)
        else:
            self._root = node
        self._path.append(node)
        self._texts.append([])
        names = [step.name for step in self._path]
        if names[:2] == ["Envelope", "Body"] and len(names) == 4 and local in _PAYLOADS:
            self.payloads.append(Payload(local, len(self.payloads), given))
        elif names[:2] == ["Envelope", "Body"] and len(names) == 5 and local == "value" and names[3] in _PAYLOADS:
            self._value = _Value(self.payloads[-1])

    def _ended(self, _name: str) -> None:
        self._quiet = 0
        node = self._path.pop()
        node.text = "".join(self._texts.pop())
        if self._value is not None and node.name == "value" and len(self._path) == 4:
            self._decoded += self._value.finish()
            self._value = None

    def _said(self, text: str) -> None:
        self._quiet = 0
        if self._value is not None:
            self._decoded += self._value.add(text)
            return
        self._weigh(len(text))
        if self._texts:
            self._texts[-1].append(text)

    def _weigh(self, size: int) -> None:
        self._text += size
        if self._text > MAX_TEXT:
            raise Malformed("the envelope is too large outside of its payloads")

    def _refuse(self, *_: object) -> None:
        raise Malformed("a document type, an entity or a processing instruction is not read here")


class _Value:
    """The content of one `value`: base64, an xop:Include, or the text `cid:…`."""

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self._start, self._decided = "", False
        self._held, self._padded = b"", False

    def include(self, namespace: str, name: str, attributes: dict[str, str]) -> None:
        if (namespace, name) != (XOP, "Include") or self._payload.cid is not None:
            raise Malformed("a payload value holds text or one xop:Include")
        self._payload.cid = cid_of(attributes.get("href", ""))
        self._decided = True

    def add(self, text: str) -> Iterator[tuple[str, bytes]]:
        if self._payload.cid is not None:
            return
        if not self._decided:
            self._start += text.lstrip() if not self._start else text
            if len(self._start) < 4:
                return
            if self._start[:4].lower() == "cid:":
                if len(self._start) > 1000:
                    raise Malformed("a content id is too long")
                return
            self._decided, text, self._start = True, self._start, ""
        # White space and what else is no base64 is skipped, as MIME decoders do.
        self._held += text.encode("ascii", "ignore").translate(None, _OTHERS)
        ready = len(self._held) // 4 * 4
        if ready:
            octets, self._held = self._held[:ready], self._held[ready:]
            if decoded := self._decode(octets):
                yield self._payload.key, decoded

    def finish(self) -> Iterator[tuple[str, bytes]]:
        if self._start[:4].lower() == "cid:":
            self._payload.cid = cid_of(self._start.strip())
            return
        # What came was too short to tell, or it is what is left of the last four characters.
        rest = self._start.encode("ascii", "ignore").translate(None, _OTHERS) or self._held
        if rest and (decoded := self._decode(rest + b"=" * (-len(rest) % 4))):
            yield self._payload.key, decoded

    def _decode(self, octets: bytes) -> bytes:
        if self._padded:
            return b""
        end = octets.find(b"=")
        if end >= 0:
            self._padded = True
            octets = octets[: end + (-end % 4)]
        try:
            return binascii.a2b_base64(octets)
        except binascii.Error:
            raise Malformed("a payload value is not base64") from None


def read_document(octets: bytes, namespace: str, name: str) -> Node:
    """A small document whose root has this name. Raises `Malformed`."""
    reader = EnvelopeReader()
    reader.feed(octets)
    root = reader.root()
    if (root.namespace, root.name) != (namespace, name):
        raise Malformed(f"the root is not {name} of {namespace}")
    return root


def cid_of(reference: str) -> str:
    """The content id of `cid:…`, percent-decoded once, without angle brackets."""
    return unquote(reference.strip().removeprefix("cid:").removeprefix("CID:")).strip("<>")


def dialect(operation: Node) -> str | None:
    """Which interface a request speaks, by the namespace of its operation; None: neither."""
    return operation.namespace if operation.namespace in (PLUGIN, OLD) else None
