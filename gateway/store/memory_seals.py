"""`store.seals` in the memory of one process."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gateway.store.seals import KINDS, Sealed, SealedKind


class MemorySeals:
    """What is sealed lies in the tables of the other parts."""

    _messages: dict[Any, Any]
    _uploads: dict[Any, Any]
    _webhooks: dict[Any, Any]
    _own_keys: dict[Any, Any]

    def _sealed(self, kind: SealedKind) -> Iterator[tuple[Any, bytes]]:
        table, field = self._place(kind)
        for id, row in table.items():
            if getattr(row, field) is not None:
                yield id, getattr(row, field)

    def _place(self, kind: SealedKind) -> tuple[dict[Any, Any], str]:
        return {
            "message": (self._messages, "wrapped_key"), "upload": (self._uploads, "wrapped_key"),
            "webhook": (self._webhooks, "sealed_secret"), "webhook-previous": (self._webhooks, "sealed_previous"),
            "key": (self._own_keys, "sealed"),
        }[kind]  # fmt: skip

    async def sealed_by_others(
        self, kek: bytes, kind: SealedKind, *, after: str | None = None, limit: int = 500
    ) -> list[Sealed]:
        found = sorted((str(id), octets) for id, octets in self._sealed(kind) if octets[1:9] != kek)
        return [Sealed(kind, id, octets) for id, octets in found if after is None or id > after][:limit]

    async def seal_anew(self, kind: SealedKind, before: Sequence[Sealed], after: Sequence[bytes]) -> int:
        table, field = self._place(kind)
        ids, done = {str(id): id for id in table}, 0
        for old, new in zip(before, after, strict=True):
            id = ids.get(old.id)
            if id is None or getattr(table[id], field) != old.octets:
                continue
            if isinstance(table[id], msgspec.Struct):
                table[id] = msgspec.structs.replace(table[id], **{field: new})
            else:
                setattr(table[id], field, new)
            done += 1
        return done

    async def sealed_counts(self) -> dict[SealedKind, dict[bytes, int]]:
        return {kind: dict(Counter(octets[1:9] for _, octets in self._sealed(kind))) for kind in KINDS}
