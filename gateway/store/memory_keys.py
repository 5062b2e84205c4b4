"""`store.keys` in the memory of one process; rings are in `memory_agreements`."""

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.clock import Clock
from gateway.errors import NotFound, NotPossible
from gateway.store.agreements import Revision
from gateway.store.keys import Chosen, NewKey, OwnKey, Ring, changes, moves


class MemoryKeys:
    """Every verb runs without waiting in between. `_append` is the audit's."""

    _clock: Clock
    _append: Callable[[str, str, str, dict[str, Any]], None]
    _in: Callable[[str, str], Revision | None]

    def __init__(self) -> None:
        super().__init__()
        self._own_keys: dict[str, OwnKey] = {}
        self._chosen: dict[tuple[str, str, str], Chosen] = {}

    async def add_key(self, new: NewKey, *, author: str) -> OwnKey:
        self._check_new(new.certificate, new.public)
        now, uses = self._clock.now(), tuple(sorted(new.uses))
        made = OwnKey(
            **msgspec.structs.asdict(new) | {"uses": uses}, states=dict.fromkeys(uses, "PLANNED"),
            since=dict.fromkeys(uses, now), created_at=now, author=author,
        )  # fmt: skip
        self._own_keys[made.id] = made
        self._note_key("key.added", author, made, {"uses": list(new.uses), "algorithm": new.algorithm})
        return made

    def _check_new(self, certificate: bytes | None, public: bytes) -> None:
        for key in self._own_keys.values():
            if (certificate is not None and key.certificate == certificate) or (
                key.certificate is None and key.public == public
            ):
                raise NotPossible(f"this is key {key.id} already")

    async def complete_key(self, id: str, certificate: bytes, chain: tuple[bytes, ...], *, actor: str) -> OwnKey:
        key = self._one(id)
        for other in self._own_keys.values():
            if other.certificate == certificate:
                raise NotPossible(f"this is the certificate of key {other.id} already")
        if key.retired or key.certificate is not None:
            raise NotPossible(f"key {id} has its certificate" if not key.retired else f"key {id} was dropped")
        self._own_keys[id] = made = msgspec.structs.replace(key, certificate=certificate, chain=chain)
        self._note_key("key.completed", actor, made, {})
        return made

    async def drop_key(self, id: str, *, actor: str, why: str) -> OwnKey:
        key, proposed = self._one(id), self._in("PROPOSED", "keys")
        if proposed is not None:
            raise NotPossible(f"ring {proposed.number} is being applied at this moment")
        if set(key.states.values()) != {"PLANNED"}:
            raise NotPossible(f"key {id} is not PLANNED for all its uses; it is retired use by use")
        self._own_keys[id] = dropped = msgspec.structs.replace(
            key, states=dict.fromkeys(key.states, "RETIRED"), sealed=None, token=None,
            since=dict.fromkeys(key.states, self._clock.now()),
        )  # fmt: skip
        self._note_key("key.dropped", actor, key, {"why": why})
        return dropped

    async def own_keys(self) -> list[OwnKey]:
        return sorted(self._own_keys.values(), key=lambda key: (key.created_at, key.id))

    async def chosen(self) -> list[Chosen]:
        return [self._chosen[place] for place in sorted(self._chosen)]

    # -- within -----------------------------------------------------------------------

    def _follow_ring(self, ring: Revision) -> None:
        """States, choices and private parts as the ring that becomes active has them."""
        wanted, why = Ring.decode(ring.content), {"ring": ring.number, "reason": ring.reason}
        for move in moves(self._own_keys.values(), wanted):
            key = self._own_keys[move.key]
            key = msgspec.structs.replace(
                key, states=key.states | {move.use: move.after}, since=key.since | {move.use: self._clock.now()}
            )
            self._own_keys[key.id] = msgspec.structs.replace(key, sealed=None, token=None) if key.retired else key
            facts = {"use": move.use, "from": move.before, "to": move.after, **why}
            self._note_key("key.moved", ring.author, key, facts)
        gone, new = changes(self._chosen.values(), wanted.choices)
        for choice in gone:
            del self._chosen[choice.party, choice.partner, choice.key]
            self._note_key("key.unchosen", ring.author, self._own_keys[choice.key], {"partner": choice.partner, **why})
        for choice in new:
            place = (choice.party, choice.partner, choice.key)
            since = self._chosen[place].since if place in self._chosen else self._clock.now()
            self._chosen[place] = Chosen(**msgspec.structs.asdict(choice), since=since)
            facts = {"partner": choice.partner, "why": choice.why, **why}
            self._note_key("key.chosen", ring.author, self._own_keys[choice.key], facts)

    def _one(self, id: str) -> OwnKey:
        if id not in self._own_keys:
            raise NotFound(f"no key {id}")
        return self._own_keys[id]

    def _note_key(self, kind: str, actor: str, key: OwnKey, facts: dict[str, Any]) -> None:
        self._append(kind, actor, key.fingerprint, {"key": key.id, "party": key.party or "", **facts})
