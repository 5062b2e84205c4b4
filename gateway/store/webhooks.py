"""Webhooks and what they were told: rows and verbs of the store.

A *notice* is one event on its way to one webhook: a `notify` job and the attempts that were made. It
stays after it was delivered, so that it can be looked at and sent again, until `prune_notices` drops it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from msgspec import Struct, field

#: Attempts of one notice that are kept, the newest of them.
KEPT_ATTEMPTS = 20

NoticeState = Literal["waiting", "delivered", "parked"]
#: The states of a `notify` job that each of them stands for.
NOTICE_STATES: dict[str, tuple[str, ...]] = {
    "waiting": ("READY", "CLAIMED", "ATTEMPT_OPEN", "HELD"), "delivered": ("DONE",), "parked": ("PARKED",),
}  # fmt: skip


class Webhook(Struct, frozen=True, kw_only=True):
    """Where events of a backend go. The secrets are sealed by the key-encryption key; those before
    (`sealed_previous`, blanks between) sign as well until `previous_until`.

    `client` registered it, and it is told only of messages within that client's scope.
    """

    id: str
    backend: str
    url: str
    sealed_secret: bytes
    events: tuple[str, ...] = ()
    disabled: bool = False
    client: str | None = None
    sealed_previous: bytes | None = None
    previous_until: datetime | None = None


class NoticeAttempt(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One attempt to tell a webhook. `at` is when it ended. `status` is of the HTTP answer, where there was one."""

    outcome: Literal["delivered", "failed", "refused"]
    at: datetime | None = None
    seconds: float = 0.0
    status: int | None = None
    detail: str = ""


class Notice(Struct, frozen=True, kw_only=True):
    """One event for one webhook. `data` is that of its job; `due_at` is when the next attempt is made, while
    it waits."""

    id: UUID
    webhook: str
    state: NoticeState
    message: UUID | None
    created_at: datetime
    due_at: datetime | None
    data: dict[str, Any] = field(default_factory=dict)
    attempts: tuple[NoticeAttempt, ...] = ()


#: Of a notice that nothing is said about.
TOLD = NoticeAttempt(outcome="delivered")


class Webhooks(Protocol):
    """The verbs for webhooks. Those that name a client see its webhooks only."""

    async def add_webhook(self, webhook: Webhook) -> None: ...

    async def webhooks(self, *, backend: str | None = None, client: str | None = None) -> list[Webhook]: ...

    async def webhook(self, id: str) -> Webhook | None:
        """None when there is none, or the client that registered it was revoked."""
        ...

    async def change_webhook(
        self, id: str, client: str, *, url: str | None = None, events: Sequence[str] | None = None,
        disabled: bool | None = None,
    ) -> Webhook | None:  # fmt: skip
        """Change what is not None; None when that client has none such."""
        ...

    async def rotate_webhook(
        self, id: str, client: str, sealed_secret: bytes, *, replacing: bytes, previous: bytes, overlap: float
    ) -> Webhook | None:
        """A new secret in the place of `replacing`; those in `previous` sign as well for `overlap` seconds, or
        longer where that was said before. None also when the secret is not that one any more."""
        ...

    async def remove_webhook(self, id: str, client: str) -> bool:
        """The webhook and its notices. False when that client has none such."""
        ...

    async def disable_webhook(self, id: str) -> None:
        """No new jobs; those that are open stay."""
        ...

    async def test_webhook(self, id: str, client: str, data: dict[str, Any]) -> UUID | None:
        """Queue a notice without a message, disabled or not; its id. None when that client has none such."""
        ...

    async def finish_notify(
        self, job_id: UUID, claim: UUID, attempt: NoticeAttempt = TOLD, *, due_in: float | None = None
    ) -> None:
        """Note an attempt and what comes next: nothing when it was delivered, else another one in `due_in`
        seconds, or without these parked. In one commit. `ClaimLost`."""
        ...

    async def notices(
        self, webhook: str, client: str, *, state: NoticeState | None = None,
        after: tuple[datetime, UUID] | None = None, limit: int = 50,
    ) -> list[Notice]:  # fmt: skip
        """Newest first; of messages within the scope of the client. `after` is the last of the page before."""
        ...

    async def notice(self, id: UUID, webhook: str, client: str) -> Notice | None: ...

    async def notify_again(self, id: UUID, webhook: str, client: str) -> bool:
        """Make a notice due at once, delivered before or not, and its count begin anew. False when there is
        none such, or an attempt is running."""
        ...

    async def prune_notices(
        self, *, delivered_before: float, parked_before: float, keep: int, limit: int = 10_000
    ) -> int:
        """Drop delivered and parked notices that are older than so many seconds; of each webhook the newest
        `keep` delivered and ten times as many parked ones may stay. At most `limit`; how many."""
        ...
