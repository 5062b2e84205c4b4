"""The part of the Store protocol that lets everything sealed be sealed anew under another key-encryption key.

What is sealed names its key-encryption key (`keys.sealing`: a version octet, then eight octets of the name).
The store has no keys: it hands out what others sealed, batch by batch, and takes it back sealed anew.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

from msgspec import Struct

#: What is sealed, and what by: message keys of messages and uploads, secrets of webhooks, our own keys.
SealedKind = Literal["message", "upload", "webhook", "webhook-previous", "key"]
KINDS: tuple[SealedKind, ...] = get_args(SealedKind)


class Sealed(Struct, frozen=True):
    """Something sealed, as it lies in its row."""

    kind: SealedKind
    id: str
    octets: bytes


class Seals(Protocol):
    """The verbs for what is sealed."""

    async def sealed_by_others(
        self, kek: bytes, kind: SealedKind, *, after: str | None = None, limit: int = 500
    ) -> list[Sealed]:
        """Up to `limit` of one kind that the key-encryption key named `kek` did not seal, by id, after `after`."""
        ...

    async def seal_anew(self, kind: SealedKind, before: Sequence[Sealed], after: Sequence[bytes]) -> int:
        """Replace those that are still as they were, in one commit; how many."""
        ...

    async def sealed_counts(self) -> dict[SealedKind, dict[bytes, int]]:
        """How much each key-encryption key has sealed, by kind and the key's name. Reads every row."""
        ...
