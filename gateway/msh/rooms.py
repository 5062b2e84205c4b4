"""What the verbs of the MSH work with, constructed once in `app.py` and handed down.

Two things change while the gateway runs: the agreements and the keyring. They sit in a
`Cell`; a message reads each cell once and lives with that snapshot.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import UUID, uuid4

from gateway.as4.inbound import Voucher
from gateway.as4.matching import Matcher
from gateway.as4.pmode import Party, PModeSet
from gateway.as4.units import PartyId
from gateway.clock import Clock
from gateway.config import Config
from gateway.keys.keyring import Keyring
from gateway.keys.sealing import KeyEncryptionKey
from gateway.keys.trust import Use, check_certificate, validity
from gateway.msh.channels import Channels
from gateway.msh.channels import party_key as party_key
from gateway.msh.partners import Partners, Paths
from gateway.msh.revocations import Revocations
from gateway.msh.sightings import Sightings
from gateway.store.api import Store
from gateway.transport.client import Client

if TYPE_CHECKING:
    from gateway.msh.revisions import Revisions
    from gateway.msh.rotation import Rotation

T = TypeVar("T")

#: Work on more octets than this leaves the loop for a thread [stack 3.4].
INLINE_WORK = 256 << 10


class Cell(Generic[T]):
    """A value that is replaced as a whole, never changed."""

    def __init__(self, value: T) -> None:
        self.value = value


@dataclass(frozen=True)
class Agreements:
    """A P-Mode set with the index made for it."""

    pmodes: PModeSet
    matcher: Matcher = field(init=False)
    channels: Channels = field(init=False)
    #: Profiles we send under, and the pinned certificates of whom we send to: who may sign signals.
    profiles: frozenset[str] = field(init=False)
    signers: frozenset[bytes] = field(init=False)
    #: Whose the pinned certificates are.
    pinned: dict[bytes, Party] = field(init=False)
    #: The same for whom we trust by path; as which party is asked when the message is known.
    vouchers: tuple[Voucher, ...] = field(init=False)
    #: Whether some partner has agreement updates.
    updates: bool = field(init=False)

    def __post_init__(self) -> None:
        ours = [leg for leg in self.pmodes.legs if self.pmodes.is_self(leg.from_party.party_id)]
        object.__setattr__(self, "updates", any(leg.is_update for leg in ours))
        object.__setattr__(self, "profiles", frozenset(leg.profile for leg in ours))
        object.__setattr__(self, "signers", frozenset(c for leg in ours for c in leg.to_party.signing))
        object.__setattr__(self, "pinned", {c: party for party in self.pmodes.parties for c in party.signing})
        rules = dict.fromkeys(leg.to_party.trust for leg in ours if leg.to_party.trust is not None)
        object.__setattr__(self, "vouchers", tuple(map(Voucher, rules)))
        object.__setattr__(self, "matcher", Matcher(self.pmodes))
        object.__setattr__(self, "channels", Channels(self.pmodes))

    def party(self, party_id: PartyId) -> Party | None:
        """The partner, or our own party, with that id."""
        return next((party for party in self.pmodes.parties if party.party_id == party_id), None)


class Cpu:
    """A bounded thread pool for work that would hold up the loop.

    OpenSSL, libxml2 and zlib let go of the interpreter lock, so large payloads run beside
    the loop; small ones are quicker inline than a hop to a thread [stack 3.4].
    """

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="cpu")

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """The rooms below, and the little the verbs share."""

    config: Config
    store: Store
    agreements: Cell[Agreements]
    revisions: "Revisions"
    keyring: Cell[Keyring]
    kek: KeyEncryptionKey
    client: Client
    clock: Clock
    cpu: Cpu
    node: str
    paths: Paths
    partners: Partners
    rotation: "Rotation"
    sightings: Sightings
    revocations: Revocations
    #: Looked up when the rooms are made, so that a simulation can put its own in place.
    entropy: Callable[[int], bytes] = field(default_factory=lambda: os.urandom)

    #: Pinned certificates that were found usable, with the time they are valid for: all else that is
    #: asked of a certificate never changes. Grows with the agreements, not with messages.
    _usable: dict[tuple[bytes, Use], tuple[datetime, datetime]] = field(default_factory=dict)

    def check_signer(self, now: datetime) -> Callable[[bytes], None]:
        """A `Trust` callback: the signer's certificate is usable for signing at `now`."""
        return lambda certificate: self.check_pinned(certificate, "sign", now)

    def check_pinned(self, certificate: bytes, use: Use, now: datetime) -> None:
        """`check_certificate` for one that an agreement pins: once, and its time for every message."""
        valid = self._usable.get((certificate, use))
        if valid is None or not valid[0] <= now <= valid[1]:
            check_certificate(certificate, use=use, now=now, allow=self.config.trust)
            self._usable[certificate, use] = validity(certificate)


    async def with_keys(self, function: Callable[..., T], *args: Any) -> T:
        """Run what signs or opens: here, or in a thread where keys are in a token and may take their time."""
        if not self.keyring.value.remote:
            return function(*args)
        return await self.cpu.run(copy_context().run, function, *args)


def new_id() -> UUID:
    """A fresh row id. Never derived from anything a peer sent [threats D07]."""
    return uuid4()
