"""The part of the Store protocol that keeps revisions, processes, and acknowledgements.

    PROPOSED → ACTIVE → SUPERSEDED        PROPOSED → REFUSED

There are two topics, with numbers of their own: the agreements, and the ring of our own keys (`store.keys`). What
a revision says is written once and never changed. Of each topic one is active; one at most is proposed, of both
together: agreements are tested with the keys in force and keys with the agreements in force.

A proposal becomes active in the commit in which the last living process is found to have
acknowledged it, by whoever looks first (`settle_revision`), so nobody in particular has to
stay alive for it. One refusal, or the end of its time, refuses it for all. It takes effect `lead` seconds
later, at a moment by the clock of the database that all processes know beforehand.

A process lives while it beats. One that has been silent for `ALIVE` seconds is asked nothing;
the silence counts only while somebody else was heard or has looked, so that after an outage of
the database nobody is taken for dead. All times are the database's.
"""

from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from msgspec import Struct

#: Seconds of silence after which a process is taken for dead. Five beats.
ALIVE = 10.0
BEAT = 2.0

#: Lead that lets every living process know the moment before it comes, also when the bell was not heard.
SAME_MOMENT = BEAT + 0.5

Topic = Literal["agreements", "keys"]
RevisionState = Literal["PROPOSED", "ACTIVE", "SUPERSEDED", "REFUSED"]


def name_of(topic: Topic, number: int) -> str:
    """What people call a revision."""
    return f"ring {number}" if topic == "keys" else f"revision {number}"


class NewRevision(Struct, frozen=True, kw_only=True):
    """A revision to be. `base` is the number that was active when it was planned (0: none), `content` the
    canonical form of a bundle or a ring; `patience` is how many seconds its acknowledgements may take, `lead` how long
    after the last of them it takes effect. `notes` go into the audit with it."""

    base: int
    content: bytes
    author: str
    reason: str
    restores: int | None = None
    patience: float = 60.0
    notes: dict[str, str] = {}
    topic: Topic = "agreements"
    lead: float = 0.0


class Revision(Struct, frozen=True, kw_only=True):
    """A revision. `content` is None where only the list was asked for."""

    number: int
    state: RevisionState
    base: int
    sha256: bytes
    author: str
    reason: str
    created_at: datetime
    restores: int | None = None
    expires_at: datetime | None = None
    settled_at: datetime | None = None
    refusal: str | None = None
    content: bytes | None = None
    topic: Topic = "agreements"
    effective_at: datetime | None = None


class Beat(Struct, frozen=True, kw_only=True):
    """What a process says of itself: where it is, which revision it serves, and what keeps it from the active one.

    `ring` and `ring_trouble` are the same for the topic `keys`; `kek` names the key-encryption key it seals with.
    `fresh`: its first word; whatever was at this place of this node before it is gone.
    """

    id: UUID
    node: str
    place: str
    revision: int
    trouble: str | None = None
    fresh: bool = False
    ring: int = 0
    ring_trouble: str | None = None
    kek: str = ""


class Standing(Struct, frozen=True):
    """The numbers of the active and of the proposed revision; 0 where there is none. `ring` and `ring_proposed` are
    those of the topic `keys`; the active ones take effect in so many seconds."""

    active: int
    proposed: int
    active_in: float = 0.0
    ring: int = 0
    ring_proposed: int = 0
    ring_in: float = 0.0


class Process(Struct, frozen=True, kw_only=True):
    """A process that was heard of."""

    id: UUID
    node: str
    place: str
    revision: int
    trouble: str | None
    started_at: datetime
    seen_at: datetime
    alive: bool
    ring: int = 0
    ring_trouble: str | None = None
    kek: str = ""


class Acknowledgement(Struct, frozen=True, kw_only=True):
    """What a process found when it loaded a revision: `why` is None when all is well."""

    process: UUID
    node: str
    place: str
    why: str | None
    at: datetime


class Waiting(Struct, frozen=True, kw_only=True):
    """Outbound messages that are not settled, by partner (as in `Message.partner`), P-Mode and revision."""

    partner: str
    pmode_id: str
    revision: int
    count: int
    oldest: datetime


class Agreements(Protocol):
    """Every verb that changes something is one commit. All raise `StoreUnavailable`."""

    async def begin_agreements(self, new: NewRevision) -> Revision:
        """The active revision with its content; where there is none, `new` becomes it at once."""
        ...

    async def propose_revision(self, new: NewRevision) -> Revision:
        """Ask every process for its word. The same content asked for twice is one proposal. Raises
        `StalePlan` when `base` is not active, or something else is proposed; `NotPossible` for a ring that
        the states of the keys do not allow."""
        ...

    async def acknowledge_revision(
        self, number: int, process: Beat, why: str | None, *, topic: Topic = "agreements"
    ) -> None:
        """The process can serve it, or says why not. The first word stands."""
        ...

    async def settle_revision(self, number: int, *, topic: Topic = "agreements") -> Revision:
        """Activate or refuse a proposal if that is decided; how it stands now. Raises `NotFound`."""
        ...

    async def withdraw_revision(
        self, number: int, *, actor: str, why: str, topic: Topic = "agreements"
    ) -> Revision:
        """Refuse a proposal that is not settled yet; how it stands now. Raises `NotFound`."""
        ...

    async def active_agreements(self) -> Revision | None:
        """The active revision of the agreements, with its content."""
        ...

    async def revision(self, number: int, *, topic: Topic = "agreements") -> Revision | None:
        """One revision, with its content."""
        ...

    async def revisions(
        self, *, before: int | None = None, limit: int = 50, topic: Topic = "agreements"
    ) -> list[Revision]:
        """Newest first, without content."""
        ...

    async def revision_of(self, sha256: bytes) -> Revision | None:
        """The newest revision of the agreements that was ever active with this content, without it."""
        ...

    async def acknowledgements(self, number: int, *, topic: Topic = "agreements") -> list[Acknowledgement]: ...

    async def beat(self, process: Beat) -> Standing:
        """The process lives."""
        ...

    async def leave(self, process: UUID) -> None:
        """The process ends in order and is asked nothing more."""
        ...

    async def processes(self) -> list[Process]:
        """All that were heard of within the hour, by node and place."""
        ...

    async def in_flight(self) -> list[Waiting]:
        """What is in flight."""
        ...

    async def move_waiting(self, to: int, pmode_ids: tuple[str, ...], *, limit: int = 1000) -> int:
        """Messages in flight on these P-Modes under another revision go on under `to`, and those that wait for
        their next attempt are due at once. At most `limit`; how many."""
        ...

    async def wait_for_agreements(self, timeout: float) -> None:
        """Return when something about revisions may have changed (NOTIFY), or after `timeout` seconds."""
        ...
