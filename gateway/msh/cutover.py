"""Which key signs for whom, and how a partner gets from one to another: arithmetic on rings of keys.

For each of our parties and each kind of key one is ACTIVE, and signs for everybody but the partners that another one
is chosen for. So there are two ways to move one partner alone, and two ways back:

    to the next key      choose it for the partner, while another is ACTIVE      back: take the choice away
    left on the old key  the next is ACTIVE, the old one is DRAINING and         back on the old one after it was
                         chosen for the partner                                  moved: choose the old one

Nothing here waits or stores anything. What comes out is a ring to be proposed.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime

from msgspec import Struct

from gateway.keys.trust import validity
from gateway.store.keys import Choice, OwnKey, Ring
from gateway.store.rotation import Standing


class Keys(Struct, frozen=True):
    """Our keys by id, and the ring that says how they are used."""

    by_id: Mapping[str, OwnKey]
    ring: Ring

    @classmethod
    def of(cls, keys: Iterable[OwnKey], ring: Ring) -> "Keys":
        return cls({key.id: key for key in keys}, ring)

    def with_certificate(self, fingerprint: bytes) -> OwnKey | None:
        """The key whose certificate has this SHA-256."""
        return next((key for key in self.by_id.values() if digest(key) == fingerprint), None)

    def state(self, key: OwnKey, use: str = "sign") -> str | None:
        """The state of a key in the ring; None: it is not there."""
        return next((p.state for p in self.ring.places if (p.key, p.use) == (key.id, use)), None)

    def active(self, like: OwnKey, use: str = "sign") -> OwnKey | None:
        """The key of the same party and kind that is ACTIVE."""
        return next(iter(self._of(like, use, "ACTIVE")), None)

    def before(self, like: OwnKey, now: datetime, known: Iterable[Standing]) -> OwnKey | None:
        """The key of the same party and kind for a partner to go back to: of those that signed before and are still
        valid one that it is known to take, and did not refuse; the one that signed last. `known` are its rows of the
        ledger: it may have stayed on an older certificate than the others."""
        ledger = {standing.certificate: standing for standing in known}
        found = [
            key for key in self._of(like, "sign", "DRAINING")
            if valid(key, now) and not _refused(ledger.get(digest(key)))
        ]  # fmt: skip
        took = [key for key in found if (row := ledger.get(digest(key))) is not None and row.used_at is not None]
        return max(took or found, key=lambda key: (key.since["sign"], key.id), default=None)

    def chosen(self, like: OwnKey, partner: str) -> OwnKey | None:
        """The key of the same party and kind that is chosen for the partner."""
        found = self._choice(like, partner)
        return self.by_id[found.key] if found is not None else None

    def signer(self, like: OwnKey, partner: str) -> OwnKey | None:
        """The key of the same party and kind that signs for the partner."""
        return self.chosen(like, partner) or self.active(like)

    # -- rings ------------------------------------------------------------------------

    def choosing(self, key: OwnKey, partners: Iterable[str], *, why: str) -> Ring:
        """This ring with `key` chosen for the partners, in place of any other of its kind. Where it is the ACTIVE one
        nothing needs to be chosen."""
        partners = set(partners)
        kept = [c for c in self.ring.choices if not (c.partner in partners and self._like(key, c))]
        if self.active(key) is not None and self.active(key).id == key.id:
            return self.ring.with_choices(kept)
        made = [Choice(partner=partner, key=key.id, party=key.party or "", why=why) for partner in partners]
        return self.ring.with_choices([*kept, *made])

    def unchosen(self, like: OwnKey) -> Ring:
        """This ring without choices of keys of this party and kind."""
        return self.ring.with_choices(c for c in self.ring.choices if not self._like(like, c))

    def way_back(
        self, fingerprint: bytes, partner: str, now: datetime, known: Iterable[Standing]
    ) -> tuple[OwnKey, Ring] | None:
        """The key that signed for the partner before the one with this certificate, and the ring in which it does
        so again. None: the partner is not signed for with that certificate, or there is no valid way back. `known` as
        in `before`."""
        key = self.with_certificate(fingerprint)
        if key is None or (signer := self.signer(key, partner)) is None or signer.id != key.id:
            return None
        active = self.active(key)
        if active is not None and active.id != key.id:
            if self.state(key) == "DRAINING":
                return None  # it is on the old one already, there is nothing older to try
            back = active if valid(active, now) else None
        else:
            back = self.before(key, now, known)
        if back is None:
            return None
        return back, self.choosing(back, [partner], why=f"it refuses {fingerprint.hex()[:16]}")

    def _of(self, like: OwnKey, use: str, state: str) -> list[OwnKey]:
        return [
            key for place in self.ring.places
            if (place.use, place.state) == (use, state) and alike(key := self.by_id[place.key], like)
        ]  # fmt: skip

    def _choice(self, like: OwnKey, partner: str) -> Choice | None:
        return next((c for c in self.ring.choices if c.partner == partner and self._like(like, c)), None)

    def _like(self, key: OwnKey, choice: Choice) -> bool:
        return choice.party == (key.party or "") and self.by_id[choice.key].kind == key.kind


def _refused(row: Standing | None) -> bool:
    """Whether a partner refused this certificate, and has not said since that it takes it."""
    if row is None or row.returned_at is None:
        return False
    return row.verdict != "green" or row.asked_at is None or row.asked_at < row.returned_at


def alike(one: OwnKey, other: OwnKey) -> bool:
    """Whether one replaces the other."""
    return (one.party, one.kind) == (other.party, other.kind)


def digest(key: OwnKey) -> bytes | None:
    """SHA-256 of the certificate of a key."""
    return None if key.certificate is None else hashlib.sha256(key.certificate).digest()


def valid(key: OwnKey, now: datetime) -> bool:
    """Whether the certificate of a key is in its time."""
    if key.certificate is None:
        return False
    begins, ends = validity(key.certificate)
    return begins <= now <= ends
