"""What one process does about the rotation of our signing keys while messages are under way.

    an error that may mean "I do not trust this"   → a refusal, in the commit of the attempt (`store.rotation`)
    so many of them, and no receipt since          → a ring is proposed in which that partner alone is signed for with
                                                     the key before, if that is still valid
    the ring is in force                           → what the partner refused is due again: signed with the other
                                                     key, under the same MessageId

Every process looks; what they find is in the database, the same for all. Equal proposals are one proposal,
a ring takes effect everywhere or nowhere, and each message is queued again in one commit under its locks.
So a process may die between any two of these steps, and whoever looks next goes on.

**Who is believed.** A refusal moves a partner to a key that it is known to have trusted and that is still valid, which
loses nothing; but somebody who can cause it at will keeps us from ever leaving an old key. So an error counts if
the partner signed it, or if it is the answer to our own request over TLS whose server was verified: products
commonly leave the Error unsigned when they do not trust the message it answers [as4 1.7, 4.4], and who
sits behind that server certificate can refuse all messages anyway. Over plain HTTP an unsigned error is noted and
shown, and moves nothing; neither does any unsigned error where `rotation.believe_tls` is off. What an
unsigned error does to its *message* is not touched by this: it is tried again, never failed.
"""

import asyncio
import contextlib
import hashlib

from gateway import log, metrics
from gateway.as4.units import PartyId
from gateway.clock import Clock
from gateway.config import Rotation as Settings
from gateway.errors import NotPossible, PeerAnswered, StalePlan, StoreUnavailable
from gateway.msh.channels import party_key
from gateway.msh.cutover import Keys, digest
from gateway.stages import point
from gateway.store.agreements import NewRevision
from gateway.store.api import Store
from gateway.store.keys import Ring
from gateway.store.rotation import ACTOR, REFUSING, Proof, Refusing, Use

#: Seconds between two looks; a refusal and a receipt after one shorten it.
LOOK = 5.0
#: After a proposal to go back was refused or in the way of another, so long until the next.
AGAIN = 20.0
#: What nobody needs any more: refusals so many seconds old.
KEPT = 30 * 86_400.0
#: First uses that one process remembers. Partners times keys; beyond that it asks the database again.
REMEMBERED = 50_000


def fingerprint(certificate: bytes) -> bytes:
    """How a certificate is named in the ledger: SHA-256 of its DER form."""
    return hashlib.sha256(certificate).digest()


def proof_of(error: Exception) -> Proof | None:
    """What vouches for an error that may be about the certificate that signed; None for every other error."""
    if not isinstance(error, PeerAnswered) or error.code not in REFUSING:
        return None
    if error.authenticated:
        return "signature"
    return "tls" if error.over_tls else "none"


class Rotation:
    """One a process. The verbs of the MSH tell it what they see; `keep` acts on what all processes saw."""

    def __init__(self, store: Store, clock: Clock, settings: Settings) -> None:
        self._store, self._clock, self._settings = store, clock, settings
        self._wake = asyncio.Event()
        self._used: set[tuple[str, bytes, Use]] = set()
        self._fresh: list[tuple[PartyId, bytes, Use]] = []
        self._patience = 0.0
        self._pruned = 0.0

    # -- what the verbs see -----------------------------------------------------------

    def uses(self, partner: PartyId, certificate: bytes, use: Use) -> None:
        """The partner took what this certificate of ours (SHA-256) signed, or sent something encrypted to it."""
        place = (party_key(partner), certificate, use)
        if place not in self._used and len(self._fresh) < REMEMBERED:
            if len(self._used) >= REMEMBERED:
                self._used.clear()
            self._used.add(place)
            self._fresh.append((partner, certificate, use))

    async def spares(self, partner: PartyId, certificate: bytes) -> bool:
        """Whether a message that was refused with this certificate is to be tried again, because it can be signed
        with another one: the partner may go back, or has gone back meanwhile. Raises `StoreUnavailable`."""
        self._wake.set()
        keys = await self._keys()
        key = keys.with_certificate(certificate) if keys is not None else None
        if key is None:
            return False
        signer = keys.signer(key, partner.value)
        if signer is not None and signer.id != key.id:
            return True
        known = await self._store.ledger(partner=party_key(partner))
        return keys.way_back(certificate, partner.value, self._clock.now(), known) is not None

    def tell(self, partner: PartyId, certificate: bytes, code: str, proof: Proof) -> None:
        """A refusal is on record."""
        log.event("certificate.refused", level="warning", party=partner.value, fingerprint=certificate.hex(),
                  code=code, proof=proof)  # fmt: skip
        metrics.refusal(partner.value, proof)
        self._wake.set()

    # -- what all of them saw -----------------------------------------------------------

    async def keep(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except StoreUnavailable as error:
                log.event("store.unavailable", level="error", reason=str(error))
            except Exception as error:  # whatever it is, looking goes on
                log.event("incident", level="error", exc_info=error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._wake.wait()
                await self._clock.sleep(0.2)  # refusals come in swarms, and one look is enough for a swarm
            self._wake.clear()

    async def look(self) -> None:
        """Note first uses; move whoever refuses; have sent again what can be signed otherwise now."""
        await self._note_uses()
        if self._settings.refusals:
            refusing = await self._store.refusing(within=self._settings.within, proofs=self._believed())
            if enough := [found for found in refusing if found.count >= self._settings.refusals]:
                await self._go_back(enough)
        for found in await self._store.unsettled():
            await self._send_again(found)
        if self._clock.monotonic() >= self._pruned:
            self._pruned = self._clock.monotonic() + 3600.0
            await self._store.prune_refusals(before=KEPT)

    def _believed(self) -> tuple[Proof, ...]:
        return ("signature", "tls") if self._settings.believe_tls else ("signature",)

    async def _note_uses(self) -> None:
        while self._fresh:
            partner, certificate, use = self._fresh[-1]
            if await self._store.note_use(party_key(partner), certificate, use):
                log.event("certificate.used", party=partner.value, fingerprint=certificate.hex(), use=use)
            self._fresh.pop()

    async def _go_back(self, refusing: list[Refusing]) -> None:
        """Propose the ring in which these partners are signed for with the key before. Every process would propose the
        same octets: that is one proposal."""
        ring = await self._store.active_ring()
        if ring is None or self._clock.monotonic() < self._patience:
            return
        keys, going = Keys.of(await self._store.own_keys(), Ring.decode(ring.content)), []
        for found in refusing:
            known = await self._store.ledger(partner=found.partner)
            way = keys.way_back(found.certificate, found.party, self._clock.now(), known)
            if way is not None:
                going.append((found, way[0]))
                keys = Keys(keys.by_id, way[1])
        if not going:
            return
        point("RT01")
        notes = {
            "partner": ", ".join(found.partner for found, _ in going),
            "refused": ", ".join(found.certificate.hex() for found, _ in going),
            "fingerprint": ", ".join(back.fingerprint for _, back in going),
            "refusals": ", ".join(str(found.count) for found, _ in going),
        }
        said = [f"{f.party} refuses {f.certificate.hex()[:16]}, back to {b.fingerprint[:16]}" for f, b in going]
        try:
            await self._store.propose_revision(NewRevision(
                topic="keys", base=ring.number, content=keys.ring.encode(), author=ACTOR, notes=notes,
                reason="; ".join(said)[:500],
            ))  # fmt: skip
        except (StalePlan, NotPossible) as error:
            # Another change is on its way, perhaps this very one; the next look sees what came of it.
            for found, _ in going:
                log.event("certificate.going_back", level="warning", party=found.party, reason=str(error))
            return
        # Everybody has to acknowledge it. Should somebody refuse, it is not proposed twice a second.
        self._patience = self._clock.monotonic() + AGAIN
        for (found, _), text in zip(going, said, strict=True):
            log.event("certificate.going_back", level="warning", party=found.party, reason=text)

    async def _send_again(self, found: Refusing) -> None:
        """What the partner refused goes out again, if another certificate signs for it now."""
        ring = await self._store.active_ring()
        if ring is None or ring.effective_at is None or ring.effective_at > self._clock.now():
            return
        keys = Keys.of(await self._store.own_keys(), Ring.decode(ring.content))
        key = keys.with_certificate(found.certificate)
        signer = keys.signer(key, found.party) if key is not None else None
        if signer is None or signer.id == key.id:
            return
        point("RT02")
        facts = {"party": found.party, "refused": found.certificate.hex(), "fingerprint": signer.fingerprint}
        if await self._store.note_returned(found.partner, found.certificate, since=ring.settled_at, data=facts):
            log.event("certificate.went_back", level="error", **facts)
            metrics.went_back(found.party)
        while sent := await self._store.resend_refused(found.partner, found.certificate):
            log.event("certificate.resent", party=found.party, count=len(sent), fingerprint=digest(signer).hex())

    async def _keys(self) -> Keys | None:
        ring = await self._store.active_ring()
        return None if ring is None else Keys.of(await self._store.own_keys(), Ring.decode(ring.content))
