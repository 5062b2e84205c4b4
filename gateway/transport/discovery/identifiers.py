"""Participant identifiers, in the forms in which locators and publishers have them [as4 4.10]."""

from gateway.as4.pmode import Identifier

EBCORE = "urn:oasis:names:tc:ebcore:partyid-type:"


def canonical(participant: Identifier) -> str:
    """What is hashed for the locator: the whole URN of an ebCore party id, else the value."""
    if is_ebcore(participant):
        return f"{participant.scheme}:{participant.value}"
    return participant.value


def is_ebcore(participant: Identifier) -> bool:
    """Whether the scheme is the type of an ebCore party id."""
    return participant.scheme is not None and participant.scheme.startswith(EBCORE)
