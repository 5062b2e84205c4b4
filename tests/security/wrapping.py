"""Signature wrapping, generated: the signed original hidden, something forged where it is read [threats 1.2 B].

Every valid message is taken apart in every way we know: for each signed element, a forged
copy with other content takes its place or stands before, after, around or somewhere else,
while the original moves or stays, under every element of the document, at every position,
inside every container that a verifier might pass over, with the id of either spelled in
every way that some verifier resolves. A stranger's own signature over the forgery is tried
in all places too.

One rule is held against all of them: whatever opens says exactly what was signed. Used by
`test_wrapping.py`; `python -m tests.security.wrapping [N]` runs all of it, or N distinct
mutants of each message, and prints figures.
"""

import copy
import functools
import hashlib
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

from gateway.as4 import ns
from gateway.as4.inbound import Opened, Terms
from gateway.as4.signals import receipt_for
from gateway.as4.wss.sign import element_reference, sign
from gateway.errors import EbmsError
from tests.unit.as4.wss.material import (
    ECDSA,
    EDDSA,
    NOW,
    RSA,
    VECTORS,
    Payload,
    SoftSigningKey,
    craft,
    mixed,
    open_octets,
    recorded,
    split,
)

MESSAGING, BODY = ns.qn(ns.EB, "Messaging"), ns.qn(ns.S12, "Body")
SIGNATURE = ns.qn(ns.DS, "Signature")
WSU_ID = ns.qn(ns.WSU, "Id")
ID_SPELLINGS = (WSU_ID, "Id", "ID", "id", ns.qn(ns.XML, "id"))


@dataclass(frozen=True)
class Fixture:
    """A message that opens, and what it says then."""

    name: str
    octets: bytes
    terms: Terms

    @functools.cached_property
    def says(self) -> Opened:
        return open_octets(self.octets, self.terms)

    @functools.cached_property
    def tree(self) -> etree._Element:
        return etree.fromstring(self.octets)


def _recorded(folder: str, name: str, kind: str) -> Fixture:
    suite = recorded(folder)
    path = VECTORS / folder / f"{name}.{kind}.body"
    headers = Path(str(path)[:-5] + ".headers").read_text()
    content_type = next(line for line in headers.splitlines() if line.lower().startswith("content-type:"))
    octets = split(content_type.partition(":")[2].strip(), path.read_bytes())[0].octets
    signer = (suite.sender if kind == "request" else suite.answerer).certificate
    return Fixture(f"{folder}/{name}.{kind}", octets, Terms(suite.profile, (signer,)))


def fixtures() -> list[Fixture]:
    return [
        _recorded("edelivery1-rsa2048", "two-parts", "request"),
        _recorded("edelivery2-eddsa", "keyref-SKI_KEY_IDENTIFIER", "request"),
        _recorded("edelivery2-ecdsa", "gzip-xml", "response"),
        Fixture("ours/one-part", craft(RSA, Payload(b"<a/>")), RSA.terms),
        Fixture("ours/no-part", craft(EDDSA), EDDSA.terms),
        Fixture("ours/receipt", craft(ECDSA, message=_receipt()), ECDSA.terms),
    ]


def _receipt():
    opened = open_octets(craft(RSA), RSA.terms)
    return receipt_for(opened.references, ref_to="m@a.example", message_id="r@b.example", now=NOW)


# -- the pieces of a mutant ----------------------------------------------------------


def _forge(element: etree._Element, how: int) -> etree._Element:
    """A copy that says something else."""
    forged = copy.deepcopy(element)
    forged.tail = None
    if element.tag == BODY:
        if how == 0:
            etree.SubElement(forged, "{urn:evil}payload").text = "forged"
        else:
            forged.set("{urn:evil}attribute", "forged")
        return forged
    texts = list(forged.iter(*(ns.qn(ns.EB, name) for name in ("MessageId", "Action", "RefToMessageId"))))
    texts[how % len(texts)].text = "forged@evil.example"
    return forged


def _retag(element: etree._Element, how: str) -> None:
    """Give the element its id in another way."""
    value = next(element.get(name) for name in ID_SPELLINGS if element.get(name))
    if how == "same":
        return
    for name in ID_SPELLINGS:
        element.attrib.pop(name, None)
    if how == "fresh":
        element.set(WSU_ID, "forged-" + value)
    elif how != "none":
        element.set(how, value)


CONTAINERS = {
    "bare": None,
    "unknown header": ("{urn:hide}block", {}),
    "ignorable header": ("{urn:hide}block", {ns.qn(ns.S12, "mustUnderstand"): "false"}),
    "other role": ("{urn:hide}block", {ns.qn(ns.S12, "role"): ns.S12 + "/role/none"}),
    "Object": (ns.qn(ns.DS, "Object"), {}),
    "SignatureProperty": (ns.qn(ns.DS, "SignatureProperty"), {"Target": "#x"}),
    "KeyInfo": (ns.qn(ns.DS, "KeyInfo"), {}),
    "EncryptionProperties": (ns.qn(ns.XENC, "EncryptionProperties"), {}),
    "Security for next": (ns.qn(ns.WSSE, "Security"), {ns.qn(ns.S12, "role"): ns.S12 + "/role/next"}),
    "Security for ebms": (ns.qn(ns.WSSE, "Security"), {ns.qn(ns.S12, "role"): "ebms"}),
    "Header": (ns.qn(ns.S12, "Header"), {}),
    "Body": (BODY, {}),
    "Messaging": (MESSAGING, {ns.qn(ns.S12, "mustUnderstand"): "true"}),
    "Envelope": (ns.qn(ns.S12, "Envelope"), {}),
}


def _contained(element: etree._Element, container: str) -> etree._Element:
    if CONTAINERS[container] is None:
        return element
    tag, attributes = CONTAINERS[container]
    box = etree.Element(tag, attributes)
    box.append(element)
    return box


# -- kinds of mutants ------------------------------------------------------------------

#: Where the forged element goes when the original is hidden.
IN_PLACE = ("in place", "before", "after", "around")
IDS = ("same", "fresh", "none", "Id", "ID", "id", ns.qn(ns.XML, "id"))


def recipes(fixture: Fixture) -> Iterator[tuple]:
    """Every mutant as a small tuple; `make` carries one out. Far more than 20 000 for any message."""
    places = [
        (number, position)
        for number, element in enumerate(fixture.tree.iter(etree.Element))
        for position in range(len(element) + 1)
    ]
    for target, (number, position), container in itertools.product(("Messaging", "Body"), places, CONTAINERS):
        for forged_id, forgery in itertools.product(IDS, (0, 1)):
            for stands in IN_PLACE:
                yield "hide", target, number, position, container, forged_id, forgery, stands
            yield "plant", target, number, position, container, forged_id, forgery
            yield "copy", target, number, position, container, forged_id, forgery
    for (number, position), container, forgery, first in itertools.product(places, CONTAINERS, (0, 1), (0, 1)):
        yield "sign", number, position, container, forgery, first
    for (number, _), prefix, uri in itertools.product(
        places, ("S12", "eb", "wsu", "ds", "wsse", "evil"), (ns.EB, ns.S12, "urn:evil")
    ):
        yield "declare", number, prefix, uri
    for (number, _), name in itertools.product(places, ("{urn:evil}a", "Id", WSU_ID, ns.qn(ns.S12, "role"), "evil")):
        yield "attribute", number, name
    for number, position in places:
        for tag in (MESSAGING, BODY, SIGNATURE, ns.qn(ns.WSSE, "Security"), ns.qn(ns.DS, "Reference"), ns.qn(ns.EB, "UserMessage")):
            yield "repeat", number, position, tag
    for number, position in places:
        yield "remove", number, position


def make(fixture: Fixture, recipe: tuple) -> bytes | None:
    """The mutant's octets; None where the recipe does not apply to this message."""
    root = copy.deepcopy(fixture.tree)
    elements = list(root.iter(etree.Element))
    made = globals()[f"_{recipe[0]}"](root, elements, *recipe[1:])
    return None if made is False else etree.tostring(root)


def _target(root, name: str) -> etree._Element:
    return next(root.iter(MESSAGING if name == "Messaging" else BODY))


def _insert(parent: etree._Element, position: int, element: etree._Element) -> None:
    parent.insert(min(position, len(parent)), element)


def _hide(root, elements, target, number, position, container, forged_id, forgery, stands):
    """The forged element where the original was; the original somewhere else, intact."""
    original, place = _target(root, target), elements[number]
    if any(each is original for each in [place, *place.iterancestors()]):
        return False
    forged = _forge(original, forgery)
    _retag(forged, forged_id)
    parent, at = original.getparent(), original.getparent().index(original)
    parent.remove(original)
    if stands == "around":
        forged.append(original)
        _insert(parent, at, forged)
        _insert(place, position, _contained(copy.deepcopy(original), container))
        return True
    _insert(place, position, _contained(original, container))
    _insert(parent, at if stands != "after" else at + 1, forged)
    if stands == "before":
        _insert(parent, 0, _contained(copy.deepcopy(original), "unknown header"))
    return True


def _plant(root, elements, target, number, position, container, forged_id, forgery):
    """The original stays; the forged one stands somewhere else."""
    forged = _forge(_target(root, target), forgery)
    _retag(forged, forged_id)
    _insert(elements[number], position, _contained(forged, container))


def _copy(root, elements, target, number, position, container, forged_id, forgery):
    """The original stays with another id; a second, intact copy holds the signed one."""
    original = _target(root, target)
    twin = copy.deepcopy(original)
    forged = _forge(original, forgery)
    _retag(forged, forged_id)
    if any(each is original for each in [elements[number], *elements[number].iterancestors()]):
        return False
    parent = original.getparent()
    parent.replace(original, forged)
    _insert(elements[number], position, _contained(twin, container))
    return True


def _stranger() -> SoftSigningKey:
    return mixed().sender


def _sign(root, elements, number, position, container, forgery, first):
    """A stranger's signature over the forged header, beside or around the genuine one."""
    messaging, body = _target(root, "Messaging"), _target(root, "Body")
    forged = _forge(messaging, forgery)
    _retag(forged, "fresh")
    signature = next(root.iter(SIGNATURE))
    if any(each is messaging for each in [elements[number], *elements[number].iterancestors()]):
        return False
    messaging.getparent().replace(messaging, forged)
    digests = [hashlib.sha256(etree.tostring(e, method="c14n", exclusive=True)).digest() for e in (forged, body)]
    token, text = sign(
        _stranger(), [element_reference(forged.get(WSU_ID), digests[0]), element_reference(body.get(WSU_ID), digests[1])],
        token="bst", token_id="stranger",
    )
    other = etree.fromstring(f'<x xmlns:wsse="{ns.WSSE}" xmlns:wsu="{ns.WSU}">{token}{text}</x>')
    security = signature.getparent()
    at = security.index(signature)
    for child in reversed(list(other)):
        security.insert(at if first else at + 1, child)
    _insert(elements[number], position, _contained(messaging, container))
    return True


def _declare(root, elements, number, prefix, uri):
    """A namespace declaration that was not there: the element is made again, with it in scope."""
    element = elements[number]
    if element.nsmap.get(prefix) == uri:
        return False
    scope = {k: v for k, v in element.nsmap.items() if k != prefix}
    again = etree.Element(element.tag, element.attrib, nsmap={**scope, prefix: uri})
    again.text, again.tail = element.text, element.tail
    again.extend(list(element))
    parent = element.getparent()
    if parent is None:
        return False
    parent.replace(element, again)
    return True


def _attribute(root, elements, number, name):
    elements[number].set(name, "forged")


def _repeat(root, elements, number, position, tag):
    found = next(root.iter(tag), None)
    if found is None:
        return False
    _insert(elements[number], position, copy.deepcopy(found))
    return True


def _remove(root, elements, number, position):
    if position >= len(elements[number]):
        return False
    elements[number].remove(elements[number][position])
    return True


# -- running ------------------------------------------------------------------------------


class Fooled(AssertionError):
    """A mutant opened to something else than what was signed."""


def check(fixture: Fixture, octets: bytes) -> str:
    """`refused`, or `same` when the mutant says what the original says. Raises `Fooled`."""
    try:
        opened = open_octets(octets, fixture.terms)
    except EbmsError as error:
        return error.code
    true = fixture.says
    if (opened.unit, opened.references, opened.promised, opened.signer) != (
        true.unit, true.references, true.promised, true.signer
    ):  # fmt: skip
        raise Fooled(octets.decode())
    return "same"


def run(fixture: Fixture, *, distinct: int | None = None, seed: int = 20261121) -> Counter:
    """Check mutants in a random order until `distinct` different ones were made; all of them without it.

    Returns how many ended how, with their number under `distinct`.
    """
    every = list(recipes(fixture))
    random.Random(seed).shuffle(every)
    seen: set[bytes] = set()
    verdicts: Counter = Counter()
    for recipe in every:
        if len(seen) == distinct:
            break
        octets = make(fixture, recipe)
        if octets is None:
            continue
        digest = hashlib.sha256(octets).digest()[:16]
        if digest in seen:
            continue
        seen.add(digest)
        try:
            verdicts[check(fixture, octets)] += 1
        except Fooled as fooled:
            raise Fooled(f"{fixture.name}: {recipe}\n{fooled}") from None
    verdicts["distinct"] = len(seen)
    return verdicts


def main(arguments: list[str]) -> None:
    distinct = int(arguments[0]) if arguments else None
    for fixture in fixtures():
        began = time.perf_counter()
        verdicts = run(fixture, distinct=distinct)
        print(f"{fixture.name}: {dict(verdicts)} in {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
