"""The ledger of agreement updates: what partners asked of us, what we asked of them, and how each ended.

    inbound    RECEIVED → APPROVED → TAKEN        RECEIVED → WAITING → APPROVED | REFUSED        … → REFUSED
    outbound   PREPARED → SENT → ACCEPTED | REJECTED | TIMED_OUT | UNDELIVERED; a late answer still counts

A row is its own job: with a due time it is claimed, done and changed under the claim, by any process of any node.
A change names the states it may start from, so that two who decide at once do not both win. With it goes
the audit entry, in one commit. Rows are few and stay.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol
from uuid import UUID

from msgspec import Struct

if TYPE_CHECKING:
    from gateway.store.api import AuditEntry

UpdateDirection = Literal["inbound", "outbound"]
UpdateKind = Literal["update", "termination"]
UpdateState = Literal[
    "RECEIVED", "WAITING", "APPROVED", "TAKEN", "REFUSED",
    "PREPARED", "SENT", "ACCEPTED", "REJECTED", "TIMED_OUT", "UNDELIVERED",
]  # fmt: skip


class NewUpdate(Struct, frozen=True, kw_only=True):
    """A request, theirs or ours. (direction, partner, reference) is its key; `partner` is the key of the party,
    `party` its name, `ours` that of our party, `reference` the id of the document. `message_id` is of the user message
    that carries it, `signer` the SHA-256 of the certificate that signed it, `certificates` those of the new ones."""

    id: UUID
    direction: UpdateDirection
    kind: UpdateKind
    partner: str
    party: str
    ours: str
    reference: str
    document: bytes
    message_id: str
    conversation_id: str
    current: str
    updated: str | None = None
    certificates: tuple[str, ...] = ()
    signer: str | None = None
    respond_by: datetime | None = None
    activate_by: datetime | None = None
    actor: str | None = None

    @property
    def state(self) -> UpdateState:
        """The state it is born in."""
        return "RECEIVED" if self.direction == "inbound" else "PREPARED"


class Update(NewUpdate, frozen=True, kw_only=True):
    """A row. `code` and `detail` say what a refusal was for, or what is waited for. `answer` is the document that
    answers it, ours or theirs; `answered_at` when ours was handed to sending, or theirs came. `received_at`: when the
    partner's receipt for what we sent was there. `claim` is set for who claimed it."""

    state: UpdateState
    created_at: datetime
    changed_at: datetime
    due_at: datetime | None = None
    claim: UUID | None = None
    attempt: int = 0
    code: str | None = None
    detail: str | None = None
    answer: bytes | None = None
    answer_message_id: str | None = None
    answered_at: datetime | None = None
    receipted_at: datetime | None = None
    late: bool = False


class UpdateChange(Struct, frozen=True, kw_only=True):
    """What changes; None leaves as it is, but `due_in` (seconds), where None means that nothing is due any more.
    `answered` and `receipted` note the time. `message_id`: the request came again, in this message."""

    state: UpdateState
    message_id: str | None = None
    due_in: float | None = None
    code: str | None = None
    detail: str | None = None
    actor: str | None = None
    answer: bytes | None = None
    answer_message_id: str | None = None
    answered: bool = False
    receipted: bool = False
    late: bool = False


class Updates(Protocol):
    """Every verb that changes something is one commit. All raise `StoreUnavailable`."""

    async def add_update(self, new: NewUpdate, audit: "AuditEntry") -> tuple[Update, bool]:
        """Note a request, due at once. The same key again changes nothing: (the row there is, False)."""
        ...

    async def update(self, id: UUID) -> Update | None: ...

    async def update_of(self, direction: UpdateDirection, partner: str, reference: str) -> Update | None:
        """The request with that document id."""
        ...

    async def updates(
        self, *, direction: UpdateDirection | None = None, partner: str | None = None,
        states: tuple[UpdateState, ...] = (), limit: int = 100,
    ) -> list[Update]:  # fmt: skip
        """Newest first. No states: all."""
        ...

    async def claim_updates(self, *, limit: int, lease: float) -> list[Update]:
        """Up to `limit` that are due, longest first, each with a fresh claim for `lease` seconds."""
        ...

    async def change_update(
        self, id: UUID, change: UpdateChange, *, before: tuple[UpdateState, ...], claim: UUID | None = None,
        audit: "AuditEntry | None" = None,
    ) -> Update | None:  # fmt: skip
        """Change a row that is in one of the states `before`, and end whatever claim there is on it. With `claim` only
        while that is the current one. None when it was not so; nothing is changed or audited then."""
        ...
