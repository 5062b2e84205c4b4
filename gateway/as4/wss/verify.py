"""Judge a signature: its shape, its algorithms, what it covers, its value, its digests [as4 3.11].

The order is the caller's (`inbound.open_envelope`) and it matters: shape and coverage are
settled before a public key is touched, the value before the digests. What must be covered
is computed from the message, never read from the signature: {Messaging, Body} by identity
of the nodes, and one reference for each PartInfo; more, fewer or repeated is EBMS:0103
[threats B07-B13, C06]. Digests of parts can only be met later, by `PartDigest`.
"""

import hmac
import re
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from cryptography.exceptions import InvalidSignature

from gateway.as4 import ns
from gateway.as4.media_type import bare_type
from gateway.as4.mime import ContentIds
from gateway.as4.profiles.profile import Profile
from gateway.as4.units import Reference, Transform
from gateway.as4.wss.algorithms import DIGESTS, check_signature, decode_base64, fits, public_key_of, stranger_key
from gateway.as4.wss.security import children, refuse
from gateway.as4.xml import Element, XmlRefused, canonical, canonical_document
from gateway.errors import FailedAuthentication

_SIGNED_INFO = ns.qn(ns.DS, "SignedInfo")
_SIGNATURE_VALUE = ns.qn(ns.DS, "SignatureValue")
_KEY_INFO = ns.qn(ns.DS, "KeyInfo")
_C14N_METHOD = ns.qn(ns.DS, "CanonicalizationMethod")
_SIGNATURE_METHOD = ns.qn(ns.DS, "SignatureMethod")
_REFERENCE = ns.qn(ns.DS, "Reference")
_TRANSFORMS = ns.qn(ns.DS, "Transforms")
_TRANSFORM = ns.qn(ns.DS, "Transform")
_DIGEST_METHOD = ns.qn(ns.DS, "DigestMethod")
_DIGEST_VALUE = ns.qn(ns.DS, "DigestValue")
_INCLUSIVE = ns.qn(ns.EC, "InclusiveNamespaces")


class SignatureElement(NamedTuple):
    """The three children of ds:Signature, live."""

    signed_info: Element
    value: Element
    key_info: Element


class SignedInfo(NamedTuple):
    """What a ds:SignedInfo says, in the order it says it."""

    algorithm: str
    prefix_list: str | None
    references: tuple[Reference, ...]


def read_signature(signature: Element) -> SignatureElement:
    """The frame of ds:Signature; ds:Object and everything else is refused [threats B04]."""
    found = children(signature, _SIGNED_INFO, _SIGNATURE_VALUE, _KEY_INFO)
    if len(found) != 3 or len(found[_SIGNATURE_VALUE]):
        refuse("an incomplete ds:Signature")
    return SignatureElement(found[_SIGNED_INFO], found[_SIGNATURE_VALUE], found[_KEY_INFO])


def read_signed_info(signed_info: Element, count: int) -> SignedInfo:
    """Read ds:SignedInfo with exactly `count` references.

    Only exclusive C14N without comments, one transform a reference, and of transforms only
    the two that AS4 knows. Raises `PolicyNoncompliance`.
    """
    # Counted before anything is read: a hundred thousand references cost nothing [threats C06].
    if len(signed_info) != count + 2:
        refuse("not as many references as there is to sign")
    method, algorithm = signed_info[0], signed_info[1]
    if method.tag != _C14N_METHOD or method.get("Algorithm") != ns.EXC_C14N:
        refuse("a canonicalisation other than exclusive C14N")
    # HMACOutputLength and PSS parameters have no place here [threats C02, C03].
    if algorithm.tag != _SIGNATURE_METHOD or len(algorithm):
        refuse("no ds:SignatureMethod, or one with parameters")
    references = tuple([_read_reference(element) for element in signed_info[2:]])
    return SignedInfo(algorithm.get("Algorithm", ""), _prefix_list(method), references)


def _read_reference(element: Element) -> Reference:
    if element.tag != _REFERENCE or len(element) != 3:
        refuse("something that is no complete ds:Reference")
    transforms, method, value = element
    if transforms.tag != _TRANSFORMS or method.tag != _DIGEST_METHOD or value.tag != _DIGEST_VALUE or len(method):
        refuse("something that is no complete ds:Reference")
    if len(transforms) != 1 or transforms[0].tag != _TRANSFORM or len(value):
        refuse("not exactly one transform")
    transform = transforms[0]
    kind, uri, text = transform.get("Algorithm", ""), element.get("URI", ""), value.text or ""
    # Which transform goes with which target is fixed; nothing a message says can change it [threats C05].
    if kind != (ns.SWA_SIGNATURE if uri.startswith("cid:") else ns.EXC_C14N):
        refuse("a transform that does not belong to its target")
    if kind == ns.SWA_SIGNATURE and len(transform):
        refuse("a transform with parameters")
    try:
        digest = decode_base64(text)
    except ValueError:
        # Signed or not, it cannot be met by any octets [threats C07].
        raise FailedAuthentication("a DigestValue that is not base64") from None
    return Reference(uri, (Transform(kind, _prefix_list(transform)),), method.get("Algorithm", ""), digest, text)


def _prefix_list(element: Element) -> str | None:
    """The PrefixList of a C14N element, None without one."""
    if not len(element):
        return None
    inclusive = element[0]
    if len(element) > 1 or inclusive.tag != _INCLUSIVE or len(inclusive):
        refuse("unknown parameters of a canonicalisation")
    return inclusive.get("PrefixList", "")


def check_allowed(info: SignedInfo, profile: Profile) -> None:
    """Algorithms the profile does not name are refused before any of them runs [threats C01]."""
    if info.algorithm not in profile.accept_signature:
        refuse("a signature algorithm that the profile does not allow")
    for reference in info.references:
        if reference.digest_method not in profile.accept_digest or reference.digest_method not in DIGESTS:
            refuse("a digest algorithm that the profile does not allow")


class Coverage(NamedTuple):
    """Which reference promises what."""

    messaging: Reference
    body: Reference
    parts: dict[str, Reference]


def check_coverage(
    references: tuple[Reference, ...],
    ids: Mapping[str, Element],
    messaging: Element,
    body: Element,
    cids: Collection[str],
) -> Coverage:
    """Exactly {messaging, body} as these nodes, and one for each of `cids`. Raises `PolicyNoncompliance`."""
    covered: dict[Element, Reference] = {}
    parts: dict[str, Reference] = {}
    known = ContentIds(cids)
    for reference in references:
        uri = reference.uri
        if uri.startswith("cid:"):
            # As in PartInfo, or in the other of the two spellings that products use [as4 1.2].
            cid = known.find(uri[4:])
            if cid is None or cid in parts:
                refuse("a reference to a part that is not described, or a second one")
            parts[cid] = reference
            continue
        # No decoding, no xpointer, no empty URI: an id is looked up as it is written [threats B12].
        element = ids.get(uri[1:]) if uri[:1] == "#" else None
        if element is None or element in covered or not (element is messaging or element is body):
            refuse("a reference to something else than header, body and parts")
        covered[element] = reference
    if len(covered) != 2 or len(parts) != len(cids):
        refuse("header, body or a part is not signed")
    return Coverage(covered[messaging], covered[body], parts)


def check_value(
    signature: SignatureElement, info: SignedInfo, signer: bytes, profile: Profile, *, known: bool = True
) -> None:
    """SignatureValue over the canonical SignedInfo, with the key of the certificate `signer`.

    `known`: it is a certificate of an agreement, or has a path to one.

    Raises `FailedAuthentication`; `PolicyNoncompliance` for a key of another kind or curve.
    """
    try:
        key = public_key_of(signer) if known else stranger_key(signer)
    except ValueError as error:
        raise FailedAuthentication(str(error)) from None
    if not fits(info.algorithm, key, profile.accept_curves):
        refuse("the signature algorithm and the signer's key do not belong together")
    octets = canonical(signature.signed_info, info.prefix_list)
    try:
        check_signature(info.algorithm, key, decode_base64(signature.value.text), octets)
    except (InvalidSignature, ValueError):  # wrong, or no base64: the same
        raise FailedAuthentication("SignatureValue is wrong") from None


def check_digest(element: Element, reference: Reference) -> None:
    """Digest this very node and compare. Raises `FailedAuthentication`."""
    octets = canonical(element, reference.transforms[0].prefix_list)
    if not hmac.compare_digest(DIGESTS[reference.digest_method](octets).digest(), reference.digest):
        raise FailedAuthentication("a digest of the header or the body is wrong")


# -- parts --------------------------------------------------------------------

Form = Literal["raw", "xml", "text"]

_LINE_END = re.compile(rb"\r\n|\r|\n")


def digest_form(media_type: str | None) -> Form:
    """The form of a part that its signer digests, by the media type it had then [as4 3.6]."""
    kind = bare_type(media_type or "")
    if kind in ("text/xml", "application/xml"):
        return "xml"
    if kind.endswith("+xml") and kind.startswith(("application/", "image/")):
        return "xml"
    return "text" if kind.startswith("text/") else "raw"


class PartDigest:
    """The digest of one part: of its octets, and of the form its signer may have digested.

    Stacks that follow the SwA profile canonicalise uncompressed XML and turn line ends of
    text into CRLF; others digest the octets as they are. Both are tried, the octets first,
    so nothing is parsed unless it must be. XML beyond `cap` octets is not kept: then only
    its octets count. `matched` says which form fitted.
    """

    def __init__(self, method: str, form: Form, cap: int) -> None:
        self._make = DIGESTS[method]
        self._raw = self._make()
        self._form, self._cap = form, cap
        self._text = self._make() if form == "text" else None
        self._kept: list[bytes] | None = [] if form == "xml" else None
        self._size = 0
        self._carriage_return = b""
        self.matched: Form | None = None

    def update(self, block: bytes) -> None:
        self._raw.update(block)
        self._size += len(block)
        if self._kept is not None:
            if self._size <= self._cap:
                self._kept.append(block)
            else:
                self._kept = None
        elif self._text is not None and block:
            block = self._carriage_return + block
            # A CR at the end may be half of a CRLF: it waits for its other half.
            self._carriage_return = b"\r" if block.endswith(b"\r") else b""
            self._text.update(_LINE_END.sub(b"\r\n", block[:-1] if self._carriage_return else block))

    @property
    def raw(self) -> bytes:
        """The digest of the octets."""
        return self._raw.digest()

    def meets(self, promised: bytes) -> bool:
        """Whether the part is what the signature promised. Call it once, at the end."""
        if hmac.compare_digest(self.raw, promised):
            self.matched = "raw"
        elif self._text is not None:
            if self._carriage_return:
                self._text.update(b"\r\n")
            if hmac.compare_digest(self._text.digest(), promised):
                self.matched = "text"
        elif self._kept is not None and hmac.compare_digest(self._canonical(), promised):
            self.matched = "xml"
        return self.matched is not None

    def _canonical(self) -> bytes:
        try:
            octets = canonical_document(b"".join(self._kept))
        except XmlRefused:
            return b""
        return self._make(octets).digest()
