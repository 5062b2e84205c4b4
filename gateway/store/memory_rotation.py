"""`store.rotation` in the memory of one process; the other part of `MemoryStore`."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from gateway.clock import Clock
from gateway.store.api import NewEvent
from gateway.store.rotation import (
    ACTOR,
    REFUSING,
    RESENT,
    RETURNED,
    Proof,
    Refusal,
    Refusing,
    Standing,
    Use,
    Verdict,
    resend,
)
from gateway.store.states import JOB, after


class MemoryRotation:
    """Every verb runs without waiting in between. `_append` is the audit's; messages and jobs are the store's."""

    _clock: Clock
    _messages: dict[UUID, Any]
    _append: Callable[[str, str, str, dict[str, Any]], None]

    def __init__(self) -> None:
        super().__init__()
        self._ledger: dict[tuple[str, bytes], Standing] = {}
        self._refusals: list[Refusal] = []

    async def note_announced(self, partner: str, certificate: bytes, *, means: str, actor: str) -> None:
        self._note_standing(partner, certificate, announced_at=self._clock.now(), announced_by=means)
        detail = {"fingerprint": certificate.hex(), "means": means}
        self._append("certificates.announced", actor, partner, detail)

    async def note_asked(
        self, partner: str, certificate: bytes, verdict: Verdict, *, why: str, code: str | None, proof: Proof | None
    ) -> None:
        now = self._clock.now()
        self._note_standing(partner, certificate, asked_at=now, verdict=verdict, why=why, code=code, proof=proof)

    async def note_use(self, partner: str, certificate: bytes, use: Use) -> bool:
        known, field = self._ledger.get((partner, certificate)), "used_at" if use == "sign" else "encrypted_at"
        if known is not None and getattr(known, field) is not None:
            return False
        self._note_standing(partner, certificate, **{field: self._clock.now()})
        return True

    async def ledger(self, certificate: bytes | None = None, *, partner: str | None = None) -> list[Standing]:
        found = [
            s for s in self._ledger.values() if certificate in (None, s.certificate) and partner in (None, s.partner)
        ]
        return sorted(found, key=lambda s: (s.certificate, s.partner))

    async def refusals(self, *, within: float, partner: str | None = None) -> list[Refusal]:
        early = self._clock.now() - timedelta(seconds=within)
        return [r for r in self._refusals if r.at > early and partner in (None, r.partner)]

    async def refusing(self, *, within: float, proofs: tuple[Proof, ...]) -> list[Refusing]:
        early = self._clock.now() - timedelta(seconds=within)
        return _counted(r for r in self._refusals if not r.outlived and r.at > early and r.proof in proofs)

    async def unsettled(self) -> list[Refusing]:
        return _counted(r for r in self._refusals if not r.settled)

    async def resend_refused(self, partner: str, certificate: bytes, *, limit: int = 100) -> list[UUID]:
        place = (partner, certificate)
        meant = [r.message for r in self._refusals if (r.partner, r.certificate) == place and not r.settled]
        sent = [message for message in list(dict.fromkeys(meant))[:limit] if self._resend(message, certificate)]
        if sent:
            self._work.set()
        return sent

    def _resend(self, message: UUID, certificate: bytes) -> bool:
        found, job = self._messages.get(message), self._sending_job(message)
        if job is not None and self._busy(job):
            return False
        event = None
        if found is not None and job is not None and found.wrapped_key is not None and after(JOB, job.state, "requeue"):
            event = resend(job.kind, found.state, found.error_code)
        if event is not None and self._change(found, event):
            found.error_code = found.error_detail = None
            job.state, job.claim, job.due_at, job.attempt = after(JOB, job.state, "requeue"), None, self._clock.now(), 0
            job.lost = 0
            if job.kind == "hold":
                self._hold(job, job.data["patience"])
            self._close_attempts(found, "lost")
            self._tell(found, (NewEvent(*RESENT),))
        self._refusals = [
            msgspec.structs.replace(r, settled=True) if (r.message, r.certificate) == (message, certificate) else r
            for r in self._refusals
        ]
        return event is not None

    async def note_returned(self, partner: str, certificate: bytes, *, since: datetime, data: dict[str, str]) -> bool:
        known = self._ledger.get((partner, certificate))
        if known is not None and known.returned_at is not None and known.returned_at >= since:
            return False
        self._note_standing(partner, certificate, returned_at=self._clock.now())
        self._append("certificates.returned", ACTOR, partner, data)
        for backend in {w.backend for w in self._webhooks.values() if not w.disabled}:
            self._tell_backend(backend, NewEvent(RETURNED, dict(data)))
        return True

    async def prune_refusals(self, *, before: float) -> int:
        early, had = self._clock.now() - timedelta(seconds=before), len(self._refusals)
        self._refusals = [r for r in self._refusals if r.at >= early]
        return had - len(self._refusals)

    # -- within -----------------------------------------------------------------------

    def _note_standing(self, partner: str, certificate: bytes, **facts: Any) -> None:
        known = self._ledger.get((partner, certificate)) or Standing(partner=partner, certificate=certificate)
        self._ledger[partner, certificate] = msgspec.structs.replace(known, **facts)

    def _refused(self, message: Any, code: str, proof: Proof) -> None:
        """The last attempt of a message met this error."""
        signer = message.attempts[-1].signer if message.attempts else None
        if signer is not None:
            self._refusals.append(Refusal(
                partner=message.partner, party=message.unit.to_party.value, certificate=signer, message=message.id,
                code=code, proof=proof, at=self._clock.now(),
            ))  # fmt: skip

    def _refused_late(self, message: Any, code: str) -> None:
        if code in REFUSING:
            self._refused(message, code, "signature")

    def _taken(self, message: Any) -> None:
        """A receipt for the last attempt of a message."""
        signer = message.attempts[-1].signer if message.attempts else None
        self._refusals = [
            msgspec.structs.replace(r, outlived=True) if (r.partner, r.certificate) == (message.partner, signer) else r
            for r in self._refusals
        ]


def _counted(refusals: Any) -> list[Refusing]:
    groups: dict[tuple[str, bytes], list[Refusal]] = {}
    for refusal in refusals:
        groups.setdefault((refusal.partner, refusal.certificate), []).append(refusal)
    return [
        Refusing(partner=partner, party=group[0].party, certificate=certificate, count=len(group),
                 since=min(r.at for r in group))
        for (partner, certificate), group in sorted(groups.items())
    ]  # fmt: skip
