"""Non-repudiation information: what a receipt repeats of the signature it answers [as4 2.4, 4.3].

A receipt says "I have these octets" by copying every ds:Reference of the message's
signature into ebbp:NonRepudiationInformation. We write the copies from the references
that were verified, never from PartInfo, and hold the copies that peers send against the
references we signed. Whether the receipt itself is signed by the right party is the
business of `wss.verify`; that it names the right message is checked here.
"""

import hmac
from base64 import b64decode
from collections.abc import Sequence

from gateway.as4 import ns
from gateway.as4.units import Receipt, Reference, Transform
from gateway.as4.xml import Element, escaped, quoted
from gateway.errors import InvalidReceipt

#: References read from one receipt: as many parts as a message may have, Messaging, Body, and room.
MAX_REFERENCES = 1024
#: A DigestValue of SHA-512 with generous white space.
MAX_DIGEST_TEXT = 256

_WHERE = "ebbp:NonRepudiationInformation"
_PART = ns.qn(ns.EBBP, "MessagePartNRInformation")
_REFERENCE = ns.qn(ns.DS, "Reference")
_TRANSFORMS = ns.qn(ns.DS, "Transforms")
_TRANSFORM = ns.qn(ns.DS, "Transform")
_DIGEST_METHOD = ns.qn(ns.DS, "DigestMethod")
_DIGEST_VALUE = ns.qn(ns.DS, "DigestValue")
_INCLUSIVE = ns.qn(ns.EC, "InclusiveNamespaces")


def nri_xml(references: Sequence[Reference]) -> str:
    """ebbp:NonRepudiationInformation in exclusive canonical form, one entry per reference, same order.

    The text of DigestValue is copied character by character, because Domibus compares
    it as a string; PrefixLists are copied too [as4 2.4].
    """
    return (
        f'<ebbp:NonRepudiationInformation xmlns:ebbp="{ns.EBBP}">'
        f"{''.join(map(_reference_xml, references))}</ebbp:NonRepudiationInformation>"
    )


def _reference_xml(reference: Reference) -> str:
    transforms = "".join(map(_transform_xml, reference.transforms))
    if transforms:
        transforms = f"<ds:Transforms>{transforms}</ds:Transforms>"
    return (
        f'<ebbp:MessagePartNRInformation><ds:Reference xmlns:ds="{ns.DS}" URI={quoted(reference.uri)}>{transforms}'
        f"<ds:DigestMethod Algorithm={quoted(reference.digest_method)}></ds:DigestMethod>"
        f"<ds:DigestValue>{escaped(reference.digest_text)}</ds:DigestValue>"
        "</ds:Reference></ebbp:MessagePartNRInformation>"
    )


def _transform_xml(transform: Transform) -> str:
    inclusive = ""
    if transform.prefix_list is not None:
        inclusive = (
            f'<ec:InclusiveNamespaces xmlns:ec="{ns.EC}" PrefixList={quoted(transform.prefix_list)}>'
            "</ec:InclusiveNamespaces>"
        )
    return f"<ds:Transform Algorithm={quoted(transform.algorithm)}>{inclusive}</ds:Transform>"


def read_references(information: Element) -> tuple[Reference, ...]:
    """The references copied into one ebbp:NonRepudiationInformation, in its order.

    Lenient in form: prefixes, white space, foreign attributes and children of the copies
    do not matter. Strict in values: URI, algorithms and a base64 digest must be there.
    MessagePartIdentifier says nothing about octets and is no AS4 receipt [as4 2.4].

    Raises `InvalidReceipt`.
    """
    found: list[Reference] = []
    for part in information:
        if part.tag != _PART:
            raise InvalidReceipt("something that is no MessagePartNRInformation", where=_WHERE)
        copies = part.findall(_REFERENCE)
        if not copies or len(copies) != len(part):
            raise InvalidReceipt("a MessagePartNRInformation without ds:Reference, or with more", where=_WHERE)
        found.extend(map(_read_reference, copies))
        if len(found) > MAX_REFERENCES:
            raise InvalidReceipt("too many references", where=_WHERE)
    if not found:
        raise InvalidReceipt("no references", where=_WHERE)
    return tuple(found)


def _read_reference(copy: Element) -> Reference:
    uri, method, value = copy.get("URI"), copy.find(_DIGEST_METHOD), copy.find(_DIGEST_VALUE)
    algorithm = None if method is None else method.get("Algorithm")
    if not uri or not algorithm or value is None or len(value):
        raise InvalidReceipt("an incomplete ds:Reference", where=_WHERE)
    transforms = copy.find(_TRANSFORMS)
    text = value.text or ""
    if len(text) > MAX_DIGEST_TEXT:
        raise InvalidReceipt("a DigestValue that is too long", where=_WHERE)
    try:
        digest = b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise InvalidReceipt("a DigestValue that is not base64", where=_WHERE) from None
    return Reference(
        uri=uri,
        transforms=() if transforms is None else tuple(map(_read_transform, transforms.findall(_TRANSFORM))),
        digest_method=algorithm,
        digest=digest,
        digest_text=text,
    )


def _read_transform(transform: Element) -> Transform:
    algorithm, inclusive = transform.get("Algorithm"), transform.find(_INCLUSIVE)
    if not algorithm:
        raise InvalidReceipt("a ds:Transform without Algorithm", where=_WHERE)
    return Transform(algorithm, None if inclusive is None else inclusive.get("PrefixList", ""))


def check(receipt: Receipt, sent: Sequence[Reference], message_id: str) -> None:
    """Hold a receipt against what we signed: `sent` for the message `message_id` [as4 4.3].

    URI, digest method, decoded digest and transform algorithms of all references must be
    the same, in whatever order; one more or one fewer is a mismatch. A message that was
    sent unsigned has no references and can have no receipt of this kind.

    Raises `InvalidReceipt`, which for a sender means: as if no receipt had come.
    """
    if receipt.ref_to_message_id != message_id:
        raise InvalidReceipt("the receipt is for another message", where="eb:MessageInfo/eb:RefToMessageId")
    if not sent or not receipt.references:
        raise InvalidReceipt("no non-repudiation information", where=_WHERE)
    if len(receipt.references) != len(sent):
        raise InvalidReceipt(f"{len(receipt.references)} references where {len(sent)} were signed", where=_WHERE)
    for theirs, ours in zip(sorted(receipt.references, key=_facts), sorted(sent, key=_facts), strict=True):
        if _facts(theirs)[:3] != _facts(ours)[:3] or not hmac.compare_digest(theirs.digest, ours.digest):
            raise InvalidReceipt("the references are not those that were signed", where=_WHERE)


def _facts(reference: Reference) -> tuple[str, str, tuple[str, ...], bytes]:
    algorithms = tuple(transform.algorithm for transform in reference.transforms)
    return reference.uri, reference.digest_method, algorithms, reference.digest
