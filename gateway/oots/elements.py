"""Writing the elements of exchange documents as XML text; `samples` puts them together.

Every text passes `text`: escaped for element content and attribute values alike, and
`SubmissionRefused` when it holds a character that XML cannot carry.
"""

import re
from datetime import UTC, datetime
from html import escape

from gateway.errors import SubmissionRefused
from gateway.oots import codes
from gateway.oots.sdg import Agent, Person

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def document(root: str, attributes: dict[str, str], children: list[str]) -> str:
    namespaces = {
        "query": codes.QUERY, "rim": codes.RIM, "rs": codes.RS, "sdg": codes.SDG, "xlink": codes.XLINK,
        "xsi": codes.XSI,
    }  # fmt: skip
    written = {f"xmlns:{prefix}": uri for prefix, uri in namespaces.items()} | attributes
    opening = " ".join(f'{name}="{text(value)}"' for name, value in written.items())
    body = "\n".join(child for child in children if child)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} {opening}>\n{body}\n</{root}>\n'


def slot(name: str, kind: str, content: str) -> str:
    return f'<rim:Slot name="{name}"><rim:SlotValue xsi:type="rim:{kind}ValueType">{content}</rim:SlotValue></rim:Slot>'


def string(name: str, value: str) -> str:
    return slot(name, "String", f"<rim:Value>{text(value)}</rim:Value>")


def moment(name: str, at: datetime) -> str:
    return slot(name, "DateTime", f"<rim:Value>{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}</rim:Value>")


def international(value: str) -> str:
    """Language codes are upper case and compared raw [oots 3.2]."""
    return f'<rim:Value><rim:LocalizedString xml:lang="EN" value="{text(value)}"/></rim:Value>'


def collection(name: str, *elements: str) -> str:
    items = "".join(f'<rim:Element xsi:type="rim:AnyValueType">{element}</rim:Element>' for element in elements)
    return (
        f'<rim:Slot name="{name}"><rim:SlotValue xsi:type="rim:CollectionValueType"'
        f' collectionType="{codes.COLLECTION_SET}">{items}</rim:SlotValue></rim:Slot>'
    )


def identity(agent: Agent) -> str:
    return (
        f'<sdg:Identifier schemeID="{text(agent.scheme or "")}">{text(agent.id)}</sdg:Identifier>'
        f'<sdg:Name lang="EN">{text(agent.name or agent.id)}</sdg:Name>'
    )


def agent(agent: Agent, classification: str | None = None) -> str:
    """Where no classification is asked for, address and classification are not allowed either."""
    rest = (
        f"<sdg:Address><sdg:AdminUnitLevel1>{text(agent.country or '')}</sdg:AdminUnitLevel1></sdg:Address>"
        f"<sdg:Classification>{classification}</sdg:Classification>"
        if classification
        else ""
    )
    return f"<sdg:Agent>{identity(agent)}{rest}</sdg:Agent>"


def person(person: Person, *, assurance: bool = False) -> str:
    """The minimum data set; evidence echoes it without the level of assurance (S041)."""
    level = f"<sdg:LevelOfAssurance>{text(person.level_of_assurance or 'High')}</sdg:LevelOfAssurance>"
    eidas = f'<sdg:Identifier schemeID="eidas">{text(person.eidas_id or "")}</sdg:Identifier>'
    place = f"<sdg:PlaceOfBirth>{text(person.place_of_birth or '')}</sdg:PlaceOfBirth>"
    return (
        f"{level if assurance else ''}{eidas if person.eidas_id else ''}"
        f"<sdg:FamilyName>{text(person.family_name)}</sdg:FamilyName>"
        f"<sdg:GivenName>{text(person.given_name)}</sdg:GivenName>"
        f"<sdg:DateOfBirth>{text(person.date_of_birth)}</sdg:DateOfBirth>"
        f"{place if person.place_of_birth else ''}"
    )


def text(value: str) -> str:
    """Escaped for element content and attribute values alike."""
    if _NOT_XML.search(value):
        raise SubmissionRefused("a text holds a character that XML cannot carry")
    return escape(value)
