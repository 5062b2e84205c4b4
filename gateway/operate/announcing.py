"""Telling partners of our next certificates, by the means that reaches each, and noting that in the ledger.

A *means* is one way to tell a partner. The package (`announcement`) reaches everybody, because people carry it;
others take their place in front of it and say whom they reach.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from gateway.as4.pmode import Party, PModeSet
from gateway.as4.wss.keys import SigningKey
from gateway.errors import NotPossible
from gateway.msh.cutover import Keys, digest
from gateway.operate import announcement as packages
from gateway.operate.announcement import Announcement, NextKey
from gateway.operate.certificates import Held, Plan, plan_ring
from gateway.operate.rotation import Row, arithmetic
from gateway.store.api import Store
from gateway.store.keys import OwnKey


class Means(Protocol):
    """One way to tell a partner. `name` stands in the ledger and in the audit: lower case, hyphens."""

    @property
    def name(self) -> str: ...

    def reaches(self, party: Party) -> bool:
        """Whether this partner can be told this way."""
        ...

    async def tell(self, party: Party, announcement: Announcement) -> str:
        """Tell it; what was done, in words for the operator. Raises `GatewayError`: then nothing is noted."""
        ...


class Told(Struct, frozen=True, kw_only=True):
    """How one partner was told; `how` is in words."""

    partner: str
    party: str
    means: str
    how: str


class Package:
    """The signed package as a means: made once, for people to carry to every partner."""

    name = "package"

    def __init__(self, target: Path, signer: SigningKey) -> None:
        """`target` is a folder, or a file that ends in .zip; `signer` the key that signs today."""
        self._target, self._signer = target, signer
        self._written = False

    def reaches(self, party: Party) -> bool:
        return True

    async def tell(self, party: Party, announcement: Announcement) -> str:
        if not self._written:
            packages.write(packages.package(announcement, self._signer), self._target)
            self._written = True
        return f"hand over {self._target}"


def announcement_of(
    have: Held, keys: Sequence[OwnKey], *, party: str, contact: str, now: datetime, begins: datetime | None = None
) -> Announcement:
    """The announcement of these keys. Raises `NotPossible` for one that has no certificate, or is not next."""
    arithmetic_ = arithmetic(have)
    for key in keys:
        if key.certificate is None or not {"STAGED", "ANNOUNCED"} & set(key.states.values()):
            stand = ", ".join(f"{use} {state}" for use, state in key.states.items())
            raise NotPossible(f"key {key.id} is {stand}; what is announced is STAGED: `gateway certs stage {key.id}`")
    return Announcement(
        party=party, contact=contact, made_at=now, begins=begins,
        keys=tuple(
            NextKey(uses=key.uses, certificate=key.certificate, chain=key.chain, replaces=_replaced(arithmetic_, key))
            for key in keys
        ),
    )  # fmt: skip


def _replaced(keys: Keys, key: OwnKey) -> bytes | None:
    found = next((active for use in key.uses if (active := keys.active(key, use)) is not None), None)
    return found.certificate if found is not None and found.id != key.id else None


def plan_announce(have: Held, keys: Sequence[OwnKey]) -> Plan:
    """What becomes of the keys: STAGED is ANNOUNCED."""
    wanted = {(key.id, use): "ANNOUNCED" for key in keys for use, state in key.states.items() if state == "STAGED"}
    return plan_ring("announce", have, have.ring.with_states(wanted))


def check_reached(pmodes: PModeSet, rows: Sequence[Row], means: Sequence[Means]) -> None:
    """Every partner of `rows` can be told. Raises `NotPossible` that names those who cannot."""
    by_id = {party.party_id.value: party for party in pmodes.parties}
    out_of_reach = [row.party for row in rows if not any(one.reaches(by_id[row.party_id]) for one in means)]
    if out_of_reach:
        raise NotPossible(
            f"{', '.join(out_of_reach)} can be told by a package only: say with --to where to write it, "
            "or name the partners that are meant"
        )


async def announce(
    store: Store, pmodes: PModeSet, rows: Sequence[Row], keys: Sequence[OwnKey], announcement: Announcement,
    means: Sequence[Means], *, actor: str,
) -> list[Told]:  # fmt: skip
    """Tell the partners of `rows`, each by the first means that reaches it.

    What was done for one stands in ledger and audit before the next is told. Raises `NotPossible` for a partner that
    nothing reaches, and what a means raises.
    """
    by_id = {party.party_id.value: party for party in pmodes.parties}
    told = []
    for row in rows:
        party = by_id[row.party_id]
        way = next((one for one in means if one.reaches(party)), None)
        if way is None:
            raise NotPossible(f"{row.party} cannot be told by {' or '.join(one.name for one in means)}")
        how = await way.tell(party, announcement)
        for key in keys:
            await store.note_announced(row.partner, digest(key), means=way.name, actor=actor)
        told.append(Told(partner=row.partner, party=row.party, means=way.name, how=how))
    return told
