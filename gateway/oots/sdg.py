"""Reading the sdg vocabulary inside the slots: organisations, persons, and texts in general.

Bound by namespace, tolerant and bounded like `regrep`, whose neighbour this is.
"""

from msgspec import Struct

from gateway.as4.ns import qn
from gateway.as4.xml import Element
from gateway.oots import codes, regrep
from gateway.oots.regrep import attribute, content

#: Most answers have one piece of evidence and two agents; what is beyond this is not read.
MAX_ITEMS = 256


class Agent(Struct, frozen=True, omit_defaults=True):
    """sdg:Agent: an organisation. `classification` is ER, EP, IP or ERRP; `name` the first name given."""

    id: str
    scheme: str | None = None
    name: str | None = None
    country: str | None = None
    classification: str | None = None


class Person(Struct, frozen=True, omit_defaults=True):
    """sdg:Person, the minimum data set. Personal data: never logged, never indexed as it is."""

    family_name: str
    given_name: str
    date_of_birth: str
    eidas_id: str | None = None
    level_of_assurance: str | None = None
    place_of_birth: str | None = None


def child(element: Element | None, name: str) -> Element | None:
    """The first sdg child of that name."""
    return regrep.child(element, qn(codes.SDG, name))


def inside(element: Element | None, name: str) -> Element | None:
    """The first sdg element of that name anywhere inside."""
    return next(element.iter(qn(codes.SDG, name)), None) if element is not None else None


def text(element: Element | None, name: str) -> str | None:
    """The text of the first sdg child of that name."""
    return content(child(element, name))


def texts(element: Element | None, parent: str, name: str) -> tuple[str, ...]:
    """The text of every sdg `parent/name` inside."""
    found = (text(e, name) for e in (element.iter(qn(codes.SDG, parent)) if element is not None else ()))
    return tuple(t for t in found if t)[:MAX_ITEMS]


def agents(element: Element | None) -> list[Agent]:
    """Every agent inside a slot, single or collection: 1.0 and its own samples disagree on which it is."""
    found = []
    for agent in element.iter(qn(codes.SDG, "Agent")) if element is not None else ():
        identifier = child(agent, "Identifier")
        if (id := content(identifier)) is not None and len(found) < MAX_ITEMS:
            found.append(
                Agent(
                    id=id,
                    scheme=attribute(identifier, "schemeID"),
                    name=text(agent, "Name"),
                    country=text(child(agent, "Address"), "AdminUnitLevel1"),
                    classification=text(agent, "Classification"),
                )
            )
    return found


def person(element: Element | None) -> Person | None:
    """A natural person; None when a mandatory field is missing."""
    family, given, born = (text(element, name) for name in ("FamilyName", "GivenName", "DateOfBirth"))
    if not (family and given and born):
        return None
    return Person(
        family_name=family,
        given_name=given,
        date_of_birth=born,
        eidas_id=text(element, "Identifier"),
        level_of_assurance=text(element, "LevelOfAssurance"),
        place_of_birth=text(element, "PlaceOfBirth"),
    )
