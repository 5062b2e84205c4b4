"""Agreement updates as one means of telling partners of our next certificates, beside the package people carry.

It reaches the partners whose agreement has `updates`. Told is who was asked; whether it agreed stands in the
ledger, and comes later.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from gateway.as4.pmode import Party, PModeSet
from gateway.errors import NotPossible
from gateway.operate.updates.asking import Renewal, ask
from gateway.store.api import Store

#: Uses of our keys that partners have to know of message by message. TLS is no part of an agreement.
_USES = frozenset({"sign", "decrypt"})


class NextKey(Protocol):
    """A certificate (DER) that will be used, and the one it follows."""

    uses: Sequence[str]
    certificate: bytes
    chain: Sequence[bytes]
    replaces: bytes | None


class Announcement(Protocol):
    """What is announced. `begins`: when the new certificates are used first, where that is known."""

    keys: Sequence[NextKey]
    begins: datetime | None


class ByAgreementUpdate:
    """The means. `host` is that of our MessageIds, `actor` stands in the audit."""

    name = "agreement-update"

    def __init__(self, store: Store, pmodes: PModeSet, *, host: str, actor: str) -> None:
        self._store, self._pmodes, self._host, self._actor = store, pmodes, host, actor

    def reaches(self, party: Party) -> bool:
        return party.updates is not None

    async def tell(self, party: Party, announcement: Announcement) -> str:
        """Ask the partner to take the certificates; what was done, in words. Raises `NotPossible`."""
        keys = [key for key in announcement.keys if _USES & set(key.uses)]
        if not keys or any(key.replaces is None for key in keys):
            raise NotPossible("an agreement update replaces a certificate in use by another; here is none to replace")
        renewals = [Renewal(replaces=k.replaces, certificate=k.certificate, chain=tuple(k.chain)) for k in keys]
        row = await ask(
            self._store, self._pmodes, party.name, renewals, host=self._host, actor=self._actor,
            now=datetime.now(UTC).replace(microsecond=0), activate_by=announcement.begins,
        )  # fmt: skip
        return f"asked by agreement update {row.id}, an answer is expected until {row.respond_by:%Y-%m-%d %H:%M} UTC"
