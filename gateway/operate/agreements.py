"""Changing agreements: apply, go back, take waiting messages along, and what a reload does.

A change is always a whole new revision, planned (`plan`) on the one that is active. `apply` proposes it
and waits for the word of every living process; going back proposes the content of an earlier
one. Nothing is ever edited.

The database holds what is in force; the files are what an operator writes next. A restart never
changes agreements. `follow` is what a reload does with the files.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from msgspec import Struct

from gateway import log
from gateway.as4.pmode import PModeSet
from gateway.errors import ConfigError, NotFound, StalePlan
from gateway.operate.plan import Lint, bundle_of, fits, new_errors, sets_of
from gateway.operate.proposals import check_texts, followed, settled
from gateway.pmodes.bundle import Bundle
from gateway.pmodes.toml import expanded
from gateway.stages import point
from gateway.store.agreements import Acknowledgement, NewRevision, Process, Revision
from gateway.store.api import AuditEntry, Store

#: How long a proposal may wait for its acknowledgements.
PATIENCE = 60.0


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of a proposal. `behind` are living processes that do not serve it yet; `moved` messages in
    flight go on under it."""

    revision: Revision
    words: tuple[Acknowledgement, ...]
    behind: tuple[Process, ...] = ()
    moved: int = 0


class Serving(Protocol):
    """The agreements of the process we are in: `msh.revisions.Revisions`."""

    number: int

    async def look(self) -> None: ...

    async def begin_with(self, files: Bundle) -> Revision | None: ...


# -- apply ------------------------------------------------------------------------------


async def apply(
    store: Store, bundle: Bundle, *, base: int, author: str, reason: str, restores: int | None = None,
    notes: dict[str, str] | None = None, patience: float = PATIENCE, move: bool = False,
    look: Callable[[], Awaitable[None]] | None = None, told: Callable[[Any], None] | None = None,
) -> Outcome:  # fmt: skip
    """Propose `bundle` on `base` and wait until it is in force everywhere, or refused.

    `patience` seconds for the acknowledgements, as many again for the processes to follow. `look`
    is called between looks (a process that applies serves, too), `told` hears how it stands.
    `move`: messages in flight that fit go on under it. Raises `StalePlan`, `ConfigError` for a
    reason that is none, `StoreUnavailable`.
    """
    check_texts(reason=reason, author=author)
    new = NewRevision(
        base=base, content=bundle.encode(), author=author, reason=reason, restores=restores, patience=patience,
        notes=notes or {},
    )  # fmt: skip
    revision = await store.propose_revision(new)
    point("AG01")
    if told:
        told(revision)
    loop = asyncio.get_running_loop()
    end = loop.time() + 2 * patience + 10
    revision = await settled(store, revision, end, look, told)
    behind = ()
    if revision.state == "ACTIVE":
        behind = await followed(store, revision, min(end, loop.time() + patience), look)
    words = tuple(await store.acknowledgements(revision.number))
    moved = 0
    if move and revision.state == "ACTIVE":
        moved = await move_waiting(store, revision.number, bundle, actor=author)
    return Outcome(revision=revision, words=words, behind=behind, moved=moved)


async def move_waiting(store: Store, number: int, bundle: Bundle, *, actor: str) -> int:
    """Messages in flight whose header fits revision `number`, which is `bundle`, go on under it; how many."""
    legs = {leg.pmode_id: leg for leg in expanded(bundle).legs}
    waiting = [w for w in await store.in_flight() if w.revision != number]
    sets = await sets_of(store, PModeSet(), None, bundle.base)
    # An id that means something else under one of the revisions stays where it is.
    unfit = {w.pmode_id for w in waiting if not fits(w, sets, legs)}
    ids = tuple(sorted({w.pmode_id for w in waiting} - unfit))
    moved = 0
    while ids and (count := await store.move_waiting(number, ids)):
        moved += count
    if moved:
        await store.audit(AuditEntry(
            kind="agreements.messages_moved", actor=actor, subject=f"revision {number}", detail={"messages": moved}
        ))  # fmt: skip
    return moved


async def earlier(store: Store, number: int | None) -> Revision:
    """The revision to go back to: `number`, or the one before the active one. Raises `NotFound`."""
    if number is None:
        active = await store.active_agreements()
        if active is None or not active.base:
            raise NotFound("there is no earlier revision")
        number = active.base
    found = await store.revision(number)
    if found is None or found.state not in ("ACTIVE", "SUPERSEDED"):
        raise NotFound(f"no revision {number}" if found is None else f"revision {number} was never in force")
    return found


# -- files and database -----------------------------------------------------------------


async def drift(store: Store, bundle: Bundle) -> str | None:
    """How the files differ from what is in force; None when they do not."""
    active = await store.active_agreements()
    if active is None or active.sha256.hex() == bundle.digest:
        return None
    known = await store.revision_of(bytes.fromhex(bundle.digest))
    if known is not None:
        return f"the files are those of revision {known.number}, in force is revision {active.number}"
    return f"the files are not those of revision {active.number}, which is in force"


async def follow(
    store: Store, bundle: Bundle, serving: Serving, *, author: str, lint: Lint, patience: float = 30.0
) -> None:  # fmt: skip
    """What a reload does with the files: what they say new is applied, what was in force once is not.

    Raises `ConfigError` for a refusal, `StalePlan`, `StoreUnavailable`.
    """
    await serving.look()
    active = await store.active_agreements()
    if active is None:
        await serving.begin_with(bundle)
        return
    difference = await drift(store, bundle)
    if difference is None:
        return
    if await store.revision_of(bytes.fromhex(bundle.digest)) is not None:
        log.event("agreements.drift", level="warning", reason=difference)
        return
    try:
        old = bundle_of(active, bundle.base, label=str(bundle.path("")))
    except ConfigError:
        old = None
    errors, _ = new_errors(lint, bundle, old)
    if errors:
        raise ConfigError(f"{errors[0].where}: {errors[0].message}", hint=f"{len(errors)} lint errors in all")
    try:
        outcome = await apply(
            store, bundle, base=active.number, author=author, reason="the files have changed", patience=patience,
            look=serving.look,
        )  # fmt: skip
    except StalePlan:
        # Another process or node was told to reload, too, and was quicker with the same files.
        await serving.look()
        if await drift(store, bundle) is not None:
            raise
        return
    if outcome.revision.state != "ACTIVE":
        raise ConfigError(f"revision {outcome.revision.number} was refused: {outcome.revision.refusal}")


__all__ = [
    "Outcome",
    "apply",
    "bundle_of",
    "drift",
    "earlier",
    "follow",
    "move_waiting",
]  # fmt: skip
