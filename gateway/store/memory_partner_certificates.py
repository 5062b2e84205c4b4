"""`store.partner_certificates` in the memory of one process."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict, replace

from gateway.clock import Clock
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

if TYPE_CHECKING:
    from gateway.store.api import AuditEntry


class MemoryPartnerCertificates:
    """Every verb runs without waiting in between. `_append` is the audit's."""

    _clock: Clock
    _append: Callable[..., Any]

    def __init__(self) -> None:
        super().__init__()
        self._next_uses: dict[tuple[str, str], NextUse] = {}
        self._strangers: dict[tuple[str, str], Stranger] = {}
        self._revocations: dict[tuple[str, str], Revocation] = {}

    async def note_next(self, party: str, sha256: str, entry: "AuditEntry") -> bool:
        if (party, sha256) in self._next_uses:
            return False
        self._next_uses[party, sha256] = NextUse(party=party, sha256=sha256, first_used=self._clock.now())
        self._append(entry.kind, entry.actor, entry.subject, entry.detail)
        return True

    async def next_uses(self) -> list[NextUse]:
        return sorted(self._next_uses.values(), key=lambda use: (use.first_used, use.party, use.sha256))

    async def quarantine(self, stranger: NewStranger) -> Quarantined:
        key, now = (stranger.party, stranger.sha256), self._clock.now()
        if (known := self._strangers.get(key)) is not None:
            self._strangers[key] = replace(known, seen=known.seen + stranger.seen, last_seen=now)
            return "again"
        waiting = sum(s.party == stranger.party and s.state == "WAITING" for s in self._strangers.values())
        if waiting >= MAX_WAITING or len(self._strangers) >= MAX_STRANGERS:
            return "full"
        self._strangers[key] = Stranger(**asdict(stranger), state="WAITING", first_seen=now, last_seen=now)
        return "new"

    async def strangers(self, *, party: str | None = None, state: StrangerState | None = None) -> list[Stranger]:
        found = [s for s in self._strangers.values() if party in (None, s.party) and state in (None, s.state)]
        found.sort(key=lambda s: (s.party, s.sha256))
        return sorted(found, key=lambda s: s.last_seen, reverse=True)

    async def decide(
        self, party: str, sha256: str, state: StrangerState, entry: "AuditEntry", *, reason: str
    ) -> bool:
        known = self._strangers.get((party, sha256))
        if known is None or known.state == state:
            return False
        self._strangers[party, sha256] = replace(
            known, state=state, decided_at=self._clock.now(), decided_by=entry.actor, reason=reason
        )
        self._append(entry.kind, entry.actor, entry.subject, entry.detail)
        return True

    async def prune_strangers(self, *, waiting_before: float, decided_before: float) -> int:
        now = self._clock.now()
        gone = [
            key for key, s in self._strangers.items()
            if s.last_seen < now - timedelta(seconds=waiting_before if s.state == "WAITING" else decided_before)
        ]  # fmt: skip
        for key in gone:
            del self._strangers[key]
        return len(gone)

    async def revocation(self, certificate: str, issuer: str) -> Revocation | None:
        return self._revocations.get((certificate, issuer))

    async def save_revocation(self, found: Revocation) -> None:
        key = (found.certificate, found.issuer)
        known = self._revocations.get(key)
        before = known.this_update if known is not None else None
        if before is None or (found.this_update is not None and found.this_update >= before):
            self._revocations[key] = found

    async def revocations(self, *, certificate: str | None = None) -> list[Revocation]:
        found = [r for r in self._revocations.values() if certificate in (None, r.certificate)]
        found.sort(key=lambda r: (r.certificate, r.issuer))
        return sorted(found, key=lambda r: r.tried_at, reverse=True)

    async def prune_revocations(self, *, tried_before: float) -> int:
        limit = self._clock.now() - timedelta(seconds=tried_before)
        gone = [key for key, r in self._revocations.items() if r.tried_at < limit]
        for key in gone:
            del self._revocations[key]
        return len(gone)
