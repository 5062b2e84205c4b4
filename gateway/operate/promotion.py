"""Moving partners from one signing certificate to the next, all of them or one alone, and the way back: the plans.

    all are green           everybody moves
    some are not            refused, unless somebody says why in words; then those who are amber or unknown stay on
                            the certificate in use, each by a choice of its own, and move when they are ready
    `everybody`             moves them, too; for the day on which the old certificate may not be used any more

Partners that cannot be asked (they pull from us, or are discovered message by message) move with the rest. Whoever
refuses after all goes back by itself (`msh.rotation`). Decryption and TLS have clocks of their own and no threshold.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

from msgspec import Struct

from gateway.errors import NotPossible
from gateway.msh.cutover import Keys, digest, valid
from gateway.operate.certificates import Held, Plan, plan_promote, plan_ring, plan_rollback
from gateway.operate.rotation import Row, arithmetic, those
from gateway.store.keys import KeyUse, OwnKey
from gateway.store.rotation import Standing

#: A reason given in spite of partners that are not ready has so many words, for whoever reads the audit.
WORDS = 3


class Promotion(Struct, frozen=True, kw_only=True):
    """What promoting a key would do to the partners. `share` is how many of those that can be asked are green, from
    0 to 1; below `threshold` a reason is needed. `moved` and `left` are names of partners; who is
    left stays on the key in use."""

    plan: Plan
    key: str | None
    rows: tuple[Row, ...]
    share: float
    threshold: float
    moved: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def short(self) -> bool:
        """Whether it takes a reason."""
        return self.share < self.threshold


def plan_promotion(
    have: Held, rows: Sequence[Row], keys: Sequence[OwnKey], uses: Collection[KeyUse] = (), *, now: datetime,
    threshold: float = 1.0, partners: Collection[str] = (), everybody: bool = False,
) -> Promotion:  # fmt: skip
    """What promoting `keys` would do: for everybody, or for `partners` (names or ids) alone. Where the signing key is
    ACTIVE already, those move that were left and are ready by now.

    `rows` are those of the signing key, of which there is one at most. Raises `NotFound`, `NotPossible`.
    """
    key = signing_one(keys, uses)
    if partners and key is None:
        raise NotPossible("one partner alone is a matter of the key that signs; name that one")
    again = key is not None and key.states["sign"] == "ACTIVE" and len(keys) == 1
    if partners or again:
        late = [row for row in rows if row.on != key.id and (everybody or row.verdict == "green")]
        meant = those(rows, partners) if partners else late
        plan, left = _alone(have, key, meant), [row for row in rows if again and row.on != key.id and row not in meant]
    else:
        meant = [row for row in rows if row.on != key.id] if key is not None else []
        left = [] if everybody else [row for row in meant if not row.ready]
        plan = plan_promote(have, [one.id for one in keys], uses, now=now, chosen=bool(left))
        if left:
            plan = _leaving(have, plan, key, left, now)
    could, stay = [row for row in meant if row.asked], {row.partner for row in left}
    return Promotion(
        plan=plan, key=key.id if key is not None else None, rows=tuple(rows), threshold=threshold,
        share=sum(row.verdict == "green" for row in could) / len(could) if could else 1.0,
        moved=tuple(row.party for row in meant if row.partner not in stay), left=tuple(row.party for row in left),
    )  # fmt: skip


def signing_one(keys: Sequence[OwnKey], uses: Collection[KeyUse] = ()) -> OwnKey | None:
    """The one among `keys` that would sign. Raises `NotPossible` for several: each has partners of its own to ask."""
    found = [key for key in keys if "sign" in key.states and (not uses or "sign" in uses)]
    if len(found) > 1:
        raise NotPossible("one signing key at a time: " + ", ".join(key.id for key in found))
    return found[0] if found else None


def _alone(have: Held, key: OwnKey, meant: Sequence[Row]) -> Plan:
    """`key` signs for these partners, whichever signs for the others."""
    if key.states["sign"] not in ("STAGED", "ANNOUNCED", "ACTIVE"):
        raise NotPossible(f"key {key.id} is {key.states['sign']}, expected STAGED, ANNOUNCED or ACTIVE")
    ring = arithmetic(have).choosing(key, [row.party_id for row in meant], why=f"promoted alone to {key.id}")
    return plan_ring("promote", have, ring)


def _leaving(have: Held, plan: Plan, key: OwnKey, left: Sequence[Row], now: datetime) -> Plan:
    """The same plan, with partners left on the keys that sign for them today, and no other choice of that kind."""
    before, after = arithmetic(have), Keys.of(have.keys, plan.ring)
    for row in left:
        signer = before.signer(key, row.party_id)
        if signer is None:
            raise NotPossible(
                f"{row.party} is not ready, and the certificate in use is a file's: `gateway certs import "
                "--configured`, stage and promote that first, so that somebody can stay on it; or --everybody"
            )
        if not valid(signer, now):
            raise NotPossible(
                f"{row.party} is not ready, and there is no valid certificate that it could stay on: "
                "--everybody moves it, too"
            )
    after = Keys(after.by_id, after.unchosen(key))
    for row in left:
        signer = before.signer(key, row.party_id)
        after = Keys(after.by_id, after.choosing(signer, [row.party_id], why=f"not ready for {key.id}"))
    return plan_ring("promote", have, after.ring, obstacles=plan.obstacles, notes=plan.notes)


def plan_return(
    have: Held, rows: Sequence[Row], named: Sequence[OwnKey], uses: Collection[KeyUse] = (), *, now: datetime,
    partners: Collection[str] = (), known: Sequence[Standing] = (),
) -> Plan:  # fmt: skip
    """Back to the key before: for everybody, or for `partners` alone; `known` is the ledger. Messages they refused go
    out again by themselves.

    Raises `NotFound`, `NotPossible`.
    """
    key = signing_one(named, uses)
    if not partners:
        plan = plan_rollback(have, [one.id for one in named], uses, now=now)
        # Who was left on the key that is in use again needs no choice of its own any more.
        active = Keys.of(have.keys, plan.ring).active(key) if key is not None else None
        kept = [choice for choice in plan.ring.choices if active is None or choice.key != active.id]
        return plan_ring("rollback", have, plan.ring.with_choices(kept), obstacles=plan.obstacles, notes=plan.notes)
    if key is None:
        raise NotPossible("one partner alone is a matter of the key that signs; name that one")
    keys = arithmetic(have)
    for row in those(rows, partners):
        way = keys.way_back(digest(key), row.party_id, now, [s for s in known if s.partner == row.partner])
        if way is None:
            on = f"it is signed for with {row.on}" if row.on != key.id else "no valid certificate came before it"
            raise NotPossible(f"{row.party} cannot go back from {key.id}: {on}")
        keys = Keys(keys.by_id, way[1])
    return plan_ring("rollback", have, keys.ring)


def check_reason(promotion: Promotion, reason: str | None) -> None:
    """Refuse a promotion that falls short without a reason in words. Raises `NotPossible`."""
    if not promotion.short or len((reason or "").split()) >= WORDS:
        return
    behind = [row.party for row in promotion.rows if row.asked and row.verdict != "green"]
    raise NotPossible(
        f"{promotion.share:.0%} of the partners that can be asked are green, the threshold is "
        f"{promotion.threshold:.0%} (not green: {', '.join(behind[:10])}{' …' if len(behind) > 10 else ''}); "
        f"`gateway certs ping` asks again, and --reason with {WORDS} words or more promotes all the same"
    )
