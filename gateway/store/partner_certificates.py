"""Partners' certificates beside the agreements: rows and verbs of the store.

Three things are kept. A *next use*: a partner was seen to sign with the certificate that is pinned as its
next one; once for each partner and certificate. A *stranger*: a certificate that is not pinned, with which
somebody proved to hold its key while claiming to be a known partner; it waits for an operator's decision
and is trusted by nobody meanwhile. A *revocation*: what the issuer of a certificate last said of it, and
since when it says nothing.

A stranger is all that is kept of a message that was refused: a certificate, which is public, and when it
was seen. Their number is bounded, for each party and in total [threats 1.0].
"""

from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from gateway.store.api import AuditEntry

#: Certificates of strangers that may wait for a decision: claiming one party, and all together.
MAX_WAITING, MAX_STRANGERS = 8, 1000
#: A larger certificate is not kept; real ones are below 3 KiB.
MAX_DER = 8 << 10

StrangerState = Literal["WAITING", "ACCEPTED", "REJECTED"]
#: What became of a certificate that was seen. `full`: there is no room, and it was not kept.
Quarantined = Literal["new", "again", "full"]
#: What an issuer says of a certificate; `none`: nothing so far.
Status = Literal["none", "good", "revoked", "unknown"]


class NextUse(Struct, frozen=True, kw_only=True):
    """Since when `party` (its key, see `channels.party_key`) signs with the certificate of this fingerprint."""

    party: str
    sha256: str
    first_used: datetime


class NewStranger(Struct, frozen=True, kw_only=True):
    """A certificate that was seen, `seen` times since it was noted last. `party` is the key of who was claimed.

    `subject` and `issuer` are printable and short.
    """

    party: str
    sha256: str
    der: bytes
    subject: str
    issuer: str
    valid_from: datetime
    valid_until: datetime
    seen: int = 1


class Stranger(NewStranger, frozen=True, kw_only=True):
    """A certificate that waits for a decision, or has one."""

    state: StrangerState
    first_seen: datetime
    last_seen: datetime
    decided_at: datetime | None = None
    decided_by: str | None = None
    reason: str | None = None


class Revocation(Struct, frozen=True, kw_only=True):
    """What is known about one certificate from its issuer; both are named by the SHA-256 of their DER.

    `status` to `revocation_reason` are of the last answer that counted, whose `source` was asked at `host`;
    `next_update` None: the source names no end. `failing_since` is set while no source gives an answer:
    then `trouble` says why. `tried_at` is when a source was asked last. Times are of the node that asked.
    """

    certificate: str
    issuer: str
    subject: str = ""
    status: Status = "none"
    source: Literal["ocsp", "crl"] | None = None
    host: str | None = None
    this_update: datetime | None = None
    next_update: datetime | None = None
    answered_at: datetime | None = None
    revoked_at: datetime | None = None
    revocation_reason: str | None = None
    tried_at: datetime
    failing_since: datetime | None = None
    trouble: str | None = None


class PartnerCertificates(Protocol):
    """The verbs for certificates of partners."""

    async def note_next(self, party: str, sha256: str, entry: "AuditEntry") -> bool:
        """A partner signs with its next certificate. True the first time; then, and only then, `entry` is in the
        audit, in one commit with the note."""
        ...

    async def next_uses(self) -> list[NextUse]: ...

    async def quarantine(self, stranger: NewStranger) -> Quarantined:
        """Keep a certificate, or that it was seen again. One that was decided on keeps its decision. Not audited: the
        refusal is, and that is the one event a refused message leaves [threats 1.0]."""
        ...

    async def strangers(self, *, party: str | None = None, state: StrangerState | None = None) -> list[Stranger]:
        """Newest first."""
        ...

    async def decide(
        self, party: str, sha256: str, state: StrangerState, entry: "AuditEntry", *, reason: str
    ) -> bool:
        """Accept or reject; `entry.actor` decided. False when there is none such, or it has that state already.
        In one commit with the audit."""
        ...

    async def prune_strangers(self, *, waiting_before: float, decided_before: float) -> int:
        """Forget certificates not seen, and decisions not met, for so many seconds; how many."""
        ...

    async def revocation(self, certificate: str, issuer: str) -> Revocation | None: ...

    async def save_revocation(self, found: Revocation) -> None:
        """Keep what is known now. An answer never gives way to an older one."""
        ...

    async def revocations(self, *, certificate: str | None = None) -> list[Revocation]: ...

    async def prune_revocations(self, *, tried_before: float) -> int:
        """Forget what nobody has asked about for so many seconds; how many."""
        ...
