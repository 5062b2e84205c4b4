"""Partners' certificates: next uses, strangers, and what issuers say."""

from typing import TYPE_CHECKING

from msgspec.structs import astuple

from gateway.store.chain import row_texts
from gateway.store.partner_certificates import (
    MAX_STRANGERS,
    MAX_WAITING,
    NewStranger,
    NextUse,
    Quarantined,
    Revocation,
    Stranger,
    StrangerState,
)
from gateway.store.postgres import rows
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load

if TYPE_CHECKING:
    from gateway.store.api import AuditEntry

Q = load("partner_certificate")


class PartnerCertificates(Room):
    """The verbs of `store.partner_certificates.PartnerCertificates`."""

    async def note_next(self, party: str, sha256: str, entry: "AuditEntry") -> bool:
        return await self._pool.write(Q["note_next"], party, sha256, *_texts(entry)) is not None

    async def next_uses(self) -> list[NextUse]:
        return [NextUse(**row) for row in await self._pool.rows(Q["next_uses"])]

    async def quarantine(self, stranger: NewStranger) -> Quarantined:
        row = await self._pool.write(Q["quarantine"], *astuple(stranger), MAX_WAITING, MAX_STRANGERS)
        return row["outcome"]

    async def strangers(self, *, party: str | None = None, state: StrangerState | None = None) -> list[Stranger]:
        if not rows.storable(party):
            return []
        return [Stranger(**row) for row in await self._pool.rows(Q["strangers"], party, state)]

    async def decide(
        self, party: str, sha256: str, state: StrangerState, entry: "AuditEntry", *, reason: str
    ) -> bool:
        if not rows.storable(party, sha256):
            return False
        return await self._pool.write(Q["decide"], party, sha256, state, reason, *_texts(entry)) is not None

    async def prune_strangers(self, *, waiting_before: float, decided_before: float) -> int:
        return len(await self._pool.writes(Q["prune_strangers"], waiting_before, decided_before))

    async def revocation(self, certificate: str, issuer: str) -> Revocation | None:
        row = await self._pool.row(Q["revocation"], certificate, issuer)
        return None if row is None else Revocation(**row)

    async def save_revocation(self, found: Revocation) -> None:
        await self._pool.write(Q["save_revocation"], *astuple(found))

    async def revocations(self, *, certificate: str | None = None) -> list[Revocation]:
        return [Revocation(**row) for row in await self._pool.rows(Q["revocations"], certificate)]

    async def prune_revocations(self, *, tried_before: float) -> int:
        return len(await self._pool.writes(Q["prune_revocations"], tried_before))


def _texts(entry: "AuditEntry") -> tuple[str, str, str, str]:
    return row_texts(entry.kind, entry.actor, entry.subject, entry.detail)
