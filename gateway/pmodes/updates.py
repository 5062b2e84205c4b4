"""Legs for agreement updates with the partners whose table says `updates` [as4 4.11].

Two-Way/Push-and-Push: a request, and one of two answers that refers to it. Every leg has a P-Mode id of its own, for
an exchange with two possible answers is more than a P-Mode can say. Transport and security are those of the
exchanges with the partner; the corners behind the gateways have no part in it.

A request of ours carries the AgreementRef of the exchanges where these have one and the same. What arrives may carry
any: whether it is that of the document is judged with the document.
"""

from collections.abc import Sequence

import msgspec

from gateway.as4 import ns, pmode
from gateway.as4.pmode import Leg, Party, RetryPolicy
from gateway.as4.units import AgreementRef, Service
from gateway.config.places import dotted
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Agreement, Document, Updates
from gateway.pmodes.layers import Made

#: The consumer of what arrives. No backend can have the name.
BACKEND = "agreement-update"
#: A document is no larger than this; see `as4.updates.reading`.
MAX_DOCUMENT = 256 << 10
#: Terms that are those of every such leg, whatever the exchanges have.
OWN_TERMS = frozenset({"properties", "closed_properties", "retry", "rules", "backend", "max_message", "max_part"})
#: (request, its two answers)
_EXCHANGES = (
    (ns.UPDATE_ACTION, (ns.UPDATE_CONFIRMED, ns.UPDATE_REJECTED)),
    (ns.TERMINATE_ACTION, (ns.TERMINATE_CONFIRMED, ns.TERMINATE_REJECTED)),
)


def updates_of(table: Updates, document: Document, key: str) -> pmode.Updates:
    """What a leg knows of the table. Raises `ConfigError`."""
    named = [agreement_ref(a, document, f"{key}.agreed[{n}]") for n, a in enumerate(table.agreed)]
    return pmode.Updates(
        approve=table.approve,
        agreement=agreement_ref(table.agreement, document, f"{key}.agreement") if table.agreement else None,
        agreed=tuple(named),
    )


def agreement_ref(agreement: str | Agreement, document: Document, key: str) -> AgreementRef:
    """The name of an agreement within an update; it need not be a URI there. Raises `ConfigError`."""
    made = AgreementRef(agreement) if isinstance(agreement, str) else AgreementRef(agreement.value, agreement.type)
    if not made.value.strip() or len(made.value) > 255:
        raise ConfigError("a name of 1 to 255 characters was expected", file=document.name, key=key)
    return made


def update_legs(legs: Sequence[Made]) -> list[Made]:
    """The legs for updates, made like the first pushed leg of ours to each partner. Raises `ConfigError`."""
    made: list[Made] = []
    done: set[str] = set()
    for first in sorted(legs, key=lambda m: (m.leg.pmode_id, m.leg.number)):
        us, partner = first.leg.from_party, first.leg.to_party
        if partner.updates is None or partner.name in done or first.leg.pulled:
            continue
        done.add(partner.name)
        between = [m.leg for m in legs if partner.name in (m.leg.from_party.name, m.leg.to_party.name)]
        refs = dict.fromkeys(leg.agreement for leg in between)
        if not any(refs) and partner.updates.agreement is None:
            raise ConfigError(
                "is missing: no exchange with the partner has an AgreementRef", file=first.document.name,
                key=f"{dotted('parties', partner.name)}.updates.agreement",
                hint="say what both of you call the agreement, in documents that change it",
            )  # fmt: skip
        [ref] = refs if len(refs) == 1 else [None]
        for ours in (True, False):
            made += _of(first, *((us, partner) if ours else (partner, us)), ref)
    missing = {m.leg.from_party.name: m for m in legs if m.leg.from_party.updates is not None}
    for name in sorted(missing.keys() - done):
        raise ConfigError(
            "needs an exchange that we push to the partner: its answers go there", file=missing[name].document.name,
            key=f"{dotted('parties', name)}.updates",
        )  # fmt: skip
    return made


def _of(template: Made, initiator: Party, responder: Party, ref: AgreementRef | None) -> list[Made]:
    """Both exchanges that `initiator` begins."""
    ours = initiator.updates is None
    found = []
    for action, answers in _EXCHANGES:
        request = _leg(template.leg, initiator, responder, action, 1, ref if ours else None)
        found.append(request)
        found += [_leg(template.leg, responder, initiator, answer, 2, None if ours else ref) for answer in answers]
    return [template._replace(leg=leg) for leg in found]


def _leg(template: Leg, sender: Party, receiver: Party, action: str, number: int, ref: AgreementRef | None) -> Leg:
    first, second = (sender, receiver) if number == 1 else (receiver, sender)
    roles = (ns.ROLE_INITIATOR, ns.ROLE_RESPONDER)
    return msgspec.structs.replace(
        template, pmode_id=f"{first.name}:{second.name}:{action}", number=number,
        from_party=sender, to_party=receiver, from_role=roles[number - 1], to_role=roles[2 - number],
        service=Service(ns.UPDATE_SERVICE), action=action, agreement=ref, also=(),
        mpc=ns.DEFAULT_MPC, mep=ns.MEP_TWO_WAY, mep_binding=ns.BINDING_PUSH_AND_PUSH,
        properties=(), closed_properties=False, retry=RetryPolicy(), rules="advise", backend=BACKEND,
        max_message=min(template.max_message, MAX_DOCUMENT), max_part=min(template.max_part, MAX_DOCUMENT),
    )  # fmt: skip


def agreed_later(made: Made) -> Made:
    """The leg, taking the names that updates gave its agreement since, where its sender is a partner with updates."""
    updates, leg = made.leg.from_party.updates, made.leg
    if updates is None or leg.agreement is None or not updates.agreed:
        return made
    return made._replace(leg=msgspec.structs.replace(leg, also=updates.agreed))
