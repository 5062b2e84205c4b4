"""Our own requests: partners are told of our next certificates, and of the end of an old agreement.

A request is a row of the ledger, PREPARED; whichever process of the gateway looks next sends it (`desk`). So
whoever asks, a command or a rotation, needs the store and nothing else, and nothing is sent twice.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from msgspec import Struct

from gateway.as4.pmode import Leg, Party, PModeSet
from gateway.as4.units import AgreementRef
from gateway.as4.updates.documents import CertificateDigest, CertificateUpdate, TerminationRequest, UpdateRequest
from gateway.as4.updates.writing import write
from gateway.config.strict import suggestion
from gateway.errors import NotFound, NotPossible
from gateway.msh.channels import party_key
from gateway.operate.updates.ledger import audit_of, sha256
from gateway.store.api import Store
from gateway.store.updates import NewUpdate, Update

#: Partners often decide by hand.
RESPOND_IN = timedelta(days=7)
#: How the name of an updated agreement ends that we gave before.
_SUFFIX = re.compile(r":\d{8}-[0-9a-f]{8}$")
#: States of our requests that are not over.
OPEN = ("PREPARED", "SENT")


class Renewal(Struct, frozen=True, kw_only=True):
    """A certificate of ours and the one it replaces, DER; `chain` are its CAs, without the root if one likes."""

    replaces: bytes
    certificate: bytes
    chain: tuple[bytes, ...] = ()


def partners(pmodes: PModeSet) -> tuple[Party, ...]:
    """Partners who have updates."""
    return tuple(party for party in pmodes.parties if party.updates is not None)


async def ask(
    store: Store, pmodes: PModeSet, party: str, renewals: Sequence[Renewal], *, host: str, actor: str, now: datetime,
    respond_by: datetime | None = None, activate_by: datetime | None = None,
) -> Update:  # fmt: skip
    """Ask `party` (its name or id) to take our next certificates, all or none. `host` is that of our MessageIds.

    Without `activate_by` we say that we use them already, or may at any moment. Raises `NotFound`, `NotPossible`.
    """
    partner, leg = _partner(pmodes, party)
    await _refuse_second(store, partner, {sha256(one.certificate) for one in renewals})
    current = await _current(store, pmodes, partner, leg)
    updated = AgreementRef(f"{_SUFFIX.sub('', current.value)[:230]}:{now:%Y%m%d}-{uuid4().hex[:8]}", current.type)
    request = UpdateRequest(
        id=str(uuid4()), created_at=now, respond_by=respond_by or now + RESPOND_IN, activate_by=activate_by,
        current=current, updated=updated, updates=tuple(
            CertificateUpdate(f"ur{n}", CertificateDigest.of(one.replaces), (one.certificate, *one.chain))
            for n, one in enumerate(renewals, 1)
        ),
    )  # fmt: skip
    return await _add(store, partner, leg, request, host=host, actor=actor)


async def terminate(
    store: Store, pmodes: PModeSet, wanted: Update, *, host: str, actor: str, now: datetime,
    terminate_by: datetime | None = None,
) -> Update:  # fmt: skip
    """Tell the partner that the agreement which our accepted update `wanted` followed comes to its end. Raises
    `NotFound`, `NotPossible`."""
    if wanted.direction != "outbound" or wanted.kind != "update" or wanted.state != "ACCEPTED":
        what = f"only an update of ours that was accepted leaves an old agreement: {wanted.state}"
        raise NotPossible(what, state=wanted.state)
    partner, leg = _partner(pmodes, wanted.party)
    request = TerminationRequest(
        id=str(uuid4()), created_at=now, respond_by=now + RESPOND_IN, terminate_by=terminate_by,
        current=AgreementRef(wanted.current),
    )  # fmt: skip
    return await _add(store, partner, leg, request, host=host, actor=actor)


async def _add(
    store: Store, partner: Party, leg: Leg, request: UpdateRequest | TerminationRequest, *, host: str, actor: str
) -> Update:
    update = isinstance(request, UpdateRequest)
    new = NewUpdate(
        id=uuid4(), direction="outbound", kind="update" if update else "termination",
        partner=party_key(partner.party_id), party=partner.name, ours=leg.from_party.name, reference=request.id,
        document=write(request), message_id=f"{uuid4()}@{host}", conversation_id=str(uuid4()),
        current=request.current.value, updated=request.updated.value if update else None,
        certificates=tuple(sha256(u.certificate) for u in request.updates) if update else (),
        respond_by=request.respond_by, activate_by=request.activate_by if update else None, actor=actor,
    )  # fmt: skip
    row, _ = await store.add_update(new, audit_of("update.prepared", new, actor))
    return row


async def _refuse_second(store: Store, partner: Party, certificates: set[str]) -> None:
    key = party_key(partner.party_id)
    for row in await store.updates(direction="outbound", partner=key, states=OPEN, limit=100):
        if row.kind == "update" and certificates & set(row.certificates):
            what = f"{partner.name} was asked already and has not answered: update {row.id}"
            raise NotPossible(what, state=row.state)


async def _current(store: Store, pmodes: PModeSet, partner: Party, leg: Leg) -> AgreementRef:
    """What the agreement is called: as the message calls it, else by the latest update, else as agreed."""
    if leg.agreement is not None:
        return AgreementRef(leg.agreement.value, leg.agreement.type)
    kept = await store.updates(partner=party_key(partner.party_id), states=("TAKEN", "ACCEPTED"), limit=1000)
    latest = next((row.updated for row in kept if row.updated), None)
    if latest is not None:
        return AgreementRef(latest)
    if partner.updates.agreement is not None:
        return partner.updates.agreement
    raise NotPossible(
        f"the exchanges with {partner.name} have several agreements: say with parties.{partner.name}.updates.agreement "
        "which name stands for all"
    )


def _partner(pmodes: PModeSet, wanted: str) -> tuple[Party, Leg]:
    """The partner, and the leg our requests to it go on."""
    known = partners(pmodes)
    for party in known:
        if wanted in (party.name, party.party_id.value):
            legs = [leg for leg in pmodes.legs if leg.is_update and leg.to_party.name == party.name and leg.number == 1]
            return party, min(legs, key=lambda leg: (leg.action != "UpdateCertificate", leg.pmode_id))
    if any(wanted in (party.name, party.party_id.value) for party in pmodes.parties):
        raise NotPossible(f"the agreement with {wanted} does not have updates: set parties.{wanted}.updates")
    raise NotFound(f"there is no party {wanted!r}; {suggestion(wanted, [party.name for party in known])}")
