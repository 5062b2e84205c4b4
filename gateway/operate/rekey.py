"""A new key-encryption key: everything that an earlier one sealed is sealed anew, while the gateway runs.

The payloads stay as they are: only the small keys that wrap them, and secrets, are written again, in batches of one
commit each. Whatever is done is done: killed in the middle, the next run goes on with what is left. It begins only when
every living process seals with the new key, so that nothing more is sealed with an old one; when nothing is left,
the old one may go from the configuration.
"""

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from gateway.errors import KeyUnavailable, NotPossible
from gateway.keys.own import seal_name
from gateway.keys.sealing import KeyEncryptionKey
from gateway.operate.proposals import check_texts
from gateway.stages import point
from gateway.store.agreements import Process
from gateway.store.api import AuditEntry, Store
from gateway.store.seals import KINDS, Sealed, SealedKind

BATCH = 500


class Standing(Struct, frozen=True, kw_only=True):
    """What is sealed with which key-encryption key. `left` are counts by the name of another than `kek`, `unknown`
    those names that this node does not have; `others` living processes that seal with another one."""

    kek: str
    done: dict[str, int]
    left: dict[str, dict[str, int]]
    unknown: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return sum(sum(counts.values()) for counts in self.left.values())


class Resealed(Struct, frozen=True, kw_only=True):
    """What was done. `damaged` could not be opened and stay as they are: `kind id: why`."""

    done: dict[str, int]
    damaged: tuple[str, ...] = ()


async def standing(store: Store, kek: KeyEncryptionKey) -> Standing:
    """What is sealed with the key-encryption key of this node, and what is not."""
    counts, left = await store.sealed_counts(), {}
    for kind in KINDS:
        for name, count in counts[kind].items():
            if name != kek.id:
                left.setdefault(name.hex(), {})[kind] = count
    return Standing(
        kek=kek.id.hex(), done={kind: counts[kind].get(kek.id, 0) for kind in KINDS}, left=left,
        unknown=tuple(sorted(name for name in left if not kek.has(bytes.fromhex(name)))),
        others=_others(await store.processes(), kek),
    )  # fmt: skip


def _others(processes: Iterable[Process], kek: KeyEncryptionKey) -> tuple[str, ...]:
    return tuple(
        f"{p.node} {p.place} seals with {p.kek or 'an unknown one'}"
        for p in processes if p.alive and p.kek != kek.id.hex()
    )  # fmt: skip


async def rekey(
    store: Store, kek: KeyEncryptionKey, *, actor: str, batch: int = BATCH,
    told: Callable[[SealedKind, int], Any] = lambda kind, done: None,
) -> Resealed:  # fmt: skip
    """Seal anew what other key-encryption keys sealed. `told` hears the number of a kind after each batch.

    Raises `NotPossible` while a living process seals with another one, `StoreUnavailable`.
    """
    check_texts(actor=actor)
    done, damaged = dict.fromkeys(KINDS, 0), []
    for kind in KINDS:
        after = None
        while True:
            if others := _others(await store.processes(), kek):
                raise NotPossible("not every process seals with the new key-encryption key: " + "; ".join(others))
            found = await store.sealed_by_others(kek.id, kind, after=after, limit=batch)
            if not found:
                break
            after, before, anew = found[-1].id, [], []
            for one in found:
                try:
                    anew.append(_anew(kek, one))
                    before.append(one)
                except KeyUnavailable as error:
                    damaged.append(f"{kind} {one.id}: {error}")
            if before:
                done[kind] += await store.seal_anew(kind, before, anew)
            point("MT02")
            told(kind, done[kind])
    detail = {"kek": kek.id.hex(), "done": {kind: n for kind, n in done.items() if n}, "damaged": len(damaged)}
    await store.audit(AuditEntry(kind="store.rekeyed", actor=actor, subject=kek.id.hex(), detail=detail))
    return Resealed(done=done, damaged=tuple(damaged))


def _anew(kek: KeyEncryptionKey, one: Sealed) -> bytes:
    if one.kind in ("message", "upload"):
        return kek.wrap(kek.unwrap(one.octets, one.id), one.id)
    name = seal_name(one.id) if one.kind == "key" else one.id
    return kek.seal_secret(kek.open_secret(one.octets, name), name)
