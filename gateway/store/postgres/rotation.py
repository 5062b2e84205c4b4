"""How partners take our certificates: the ledger, and refusals."""

from datetime import datetime
from uuid import UUID

from gateway.stages import point
from gateway.store.api import NewEvent
from gateway.store.chain import row_texts
from gateway.store.postgres import rows
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load
from gateway.store.rotation import ACTOR, RESENT, RETURNED, Proof, Refusal, Refusing, Standing, Use, Verdict, resend
from gateway.store.states import JOB, OUTBOUND, after, before

Q = load("rotation")
QA = load("audit")
QO = load("outbound")
QP = load("pull")
#: Characters of a partner's words that are kept.
WORDS = 1000


class Rotation(Room):
    """The verbs of `store.rotation`."""

    async def note_announced(self, partner: str, certificate: bytes, *, means: str, actor: str) -> None:
        async with self._pool.transaction() as t:
            await t.row(Q["announced"], partner, certificate, means)
            detail = {"fingerprint": certificate.hex(), "means": means}
            await t.row(QA["append"], *row_texts("certificates.announced", actor, partner, detail))
            await t.commit()

    async def note_asked(
        self, partner: str, certificate: bytes, verdict: Verdict, *, why: str, code: str | None, proof: Proof | None
    ) -> None:
        await self._pool.write(Q["asked"], partner, certificate, verdict, plain(why)[:WORDS], code, proof)

    async def note_use(self, partner: str, certificate: bytes, use: Use) -> bool:
        query = Q["used"] if use == "sign" else Q["encrypted"]
        return await self._pool.write(query, partner, certificate) is not None

    async def ledger(self, certificate: bytes | None = None, *, partner: str | None = None) -> list[Standing]:
        return [Standing(**row) for row in await self._pool.rows(Q["ledger"], certificate, partner)]

    async def refusing(self, *, within: float, proofs: tuple[Proof, ...]) -> list[Refusing]:
        return [Refusing(**row) for row in await self._pool.rows(Q["refusing"], within, list(proofs))]

    async def unsettled(self) -> list[Refusing]:
        return [Refusing(**row) for row in await self._pool.rows(Q["unsettled"])]

    async def resend_refused(self, partner: str, certificate: bytes, *, limit: int = 100) -> list[UUID]:
        found = await self._pool.rows(Q["refused"], partner, certificate, limit)
        sent = [row["message"] for row in found if await self._resend(row["message"], certificate)]
        if sent:
            self._bell.ring()
        return sent

    async def _resend(self, message: UUID, certificate: bytes) -> bool:
        """One message, in one commit. The locks are those of every other verb, in their order."""
        async with self._pool.transaction() as t:
            job = await t.row(QO["lock_send_job"], message)
            was = await t.row(QO["lock_message"], message)
            if job is not None and job["busy"]:
                return False
            if not await t.row(Q["settle"], message, certificate):
                return False  # somebody was quicker
            event = None
            if was is not None and job is not None and was["has_payload"] and job["state"] in before(JOB, "requeue"):
                event = resend(job["kind"], was["state"], was["error_code"])
            if event is not None:
                state = after(OUTBOUND, was["state"], event)
                await t.row(QO["settle_message"], message, [was["state"]], state, None, None, None)
                if job["kind"] == "hold":
                    await t.row(QP["hold_again"], job["id"], [job["state"]])
                else:
                    await t.row(QO["settle_job"], job["id"], [job["state"]], "READY")
                await t.row(QO["close_attempts"], message, "lost")
                await t.row(QO["tell_of"], message, rows.events((NewEvent(*RESENT),)))
            point("RT03")
            await t.commit()
        point("RT04")
        return event is not None

    async def note_returned(self, partner: str, certificate: bytes, *, since: datetime, data: dict[str, str]) -> bool:
        async with self._pool.transaction() as t:
            if not await t.row(Q["returned"], partner, certificate, since):
                return False
            await t.row(QA["append"], *row_texts("certificates.returned", ACTOR, partner, data))
            await t.row(Q["tell_backends"], RETURNED, rows.text(data))
            await t.commit()
        self._bell.ring()
        return True

    async def prune_refusals(self, *, before: float) -> int:
        return len(await self._pool.writes(Q["prune"], before))

    async def refusals(self, *, within: float, partner: str | None = None) -> list[Refusal]:
        return [Refusal(**row) for row in await self._pool.rows(Q["refusals"], within, partner)]


def plain(text: str) -> str:
    """Without NUL and halves of surrogate pairs, which no database takes."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
