"""What a backend may know of the partners: who they are, and what may be sent to them and comes from them.

Nothing of certificates, endpoints or other backends. A partner that no agreement offers to this
caller is not there.
"""

from gateway.as4.pmode import Leg, Party, PModeSet
from gateway.plugin import Caller, Offer, PartyView
from gateway.scope import names


def partners(pmodes: PModeSet, caller: Caller) -> list[PartyView]:
    """The partners within the caller's scope, in the order of the agreements."""
    found: dict[tuple[str, str | None], tuple[Party, list[Offer], list[Offer]]] = {}
    for leg in pmodes.legs:
        sends = pmodes.is_self(leg.from_party.party_id)
        partner = leg.to_party if sends else leg.from_party
        # Parties that are discovered have no name before they are.
        if leg.is_internal or partner.pattern or not _offered(leg, partner, caller, sends):
            continue
        key = (partner.party_id.value, partner.party_id.type)
        _, sent, received = found.setdefault(key, (partner, [], []))
        offer = Offer(leg.service.value, leg.action, leg.service.type)
        offers = sent if sends else received
        if offer not in offers:
            offers.append(offer)
    return [
        PartyView(id=id, type=type, name=partner.name, sends=tuple(sent), receives=tuple(received))
        for (id, type), (partner, sent, received) in found.items()
    ]


def _offered(leg: Leg, partner: Party, caller: Caller, sends: bool) -> bool:
    """Whether some message of this leg could be within the scope; its corners are the message's business."""
    if not sends and leg.backend != caller.backend:
        return False
    scope = caller.scope
    return scope.covers(
        "outbound" if sends else "inbound",
        partner=names(partner.party_id.value, partner.party_id.type), service=leg.service.value, action=leg.action,
        original_sender=scope.original_senders, final_recipient=scope.final_recipients,
    )  # fmt: skip
