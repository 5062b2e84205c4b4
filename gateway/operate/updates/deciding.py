"""What an operator says to a partner's request that waits, and what there is to look at.

The partner asked, the operator decides: two pairs of eyes, and the audit names both with the fingerprints. Whoever
approves says which certificate he means: the fingerprint he compared with what the partner told him some other
way than by the message, for that was signed with the key which is to be replaced.
"""

from uuid import UUID

from msgspec import Struct

from gateway.as4.updates.documents import NOT_APPROVED, Request, UpdateRequest
from gateway.as4.updates.reading import read
from gateway.errors import ConfigError, NotFound, NotPossible
from gateway.operate.updates.ledger import audit_of
from gateway.store.api import Store
from gateway.store.updates import Update, UpdateChange, UpdateState

#: Hexadecimal digits of a fingerprint that must be given; less than this can be tried out.
MIN_DIGITS = 16
_FIRST = 8


class Shown(Struct, frozen=True):
    """A row with the request it holds."""

    row: Update
    request: Request

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """The new certificates, DER."""
        return tuple(u.certificate for u in self.request.updates) if isinstance(self.request, UpdateRequest) else ()


async def find(store: Store, wanted: str) -> Shown:
    """The update with that number, the beginning of one, or that document id. Raises `NotFound`."""
    try:
        row = await store.update(UUID(wanted))
        found = [row] if row is not None else []
    except ValueError:
        every = await store.updates(limit=10_000)
        found = [u for u in every if u.reference == wanted or (len(wanted) >= _FIRST and str(u.id).startswith(wanted))]
    if len(found) != 1:
        raise NotFound(f"{'several updates fit' if found else 'there is no update'} {wanted!r}")
    return Shown(found[0], read(found[0].document))


async def approve(store: Store, wanted: str, *, fingerprints: tuple[str, ...], actor: str, reason: str) -> Update:
    """Have a waiting request carried out. `fingerprints` are SHA-256 in hexadecimal, one for each new certificate, as
    many digits as were compared. Raises `NotFound`, `NotPossible`, `ConfigError`."""
    shown = await find(store, wanted)
    _check_waits(shown.row)
    _check_fingerprints(shown.row, fingerprints)
    return await _decide(store, shown.row, "APPROVED", "update.approved", actor=actor, reason=reason)


async def reject(store: Store, wanted: str, *, actor: str, reason: str) -> Update:
    """Refuse a waiting request; the partner is told `reason`. Raises `NotFound`, `NotPossible`, `ConfigError`."""
    shown = await find(store, wanted)
    _check_waits(shown.row)
    code = NOT_APPROVED[0]
    return await _decide(store, shown.row, "REFUSED", "update.refused", actor=actor, reason=reason, code=code)


async def _decide(
    store: Store, row: Update, state: UpdateState, kind: str, *, actor: str, reason: str, code: str | None = None
) -> Update:
    if not reason.strip() or len(reason) > 400 or not reason.isprintable():
        raise ConfigError("a reason has 1 to 400 printable characters", key="--reason")
    change = UpdateChange(state=state, due_in=0.0, actor=actor, detail=reason, code=code)
    audit = audit_of(kind, row, actor, approver=actor, why=reason, waited_for=row.detail)
    done = await store.change_update(row.id, change, before=("WAITING",), audit=audit)
    if done is None:
        raise NotPossible("somebody else has decided it meanwhile")
    return done


def _check_waits(row: Update) -> None:
    if row.direction != "inbound" or row.state != "WAITING":
        raise NotPossible(f"it does not wait for a decision: {row.state}", state=row.state)


def _check_fingerprints(row: Update, given: tuple[str, ...]) -> None:
    plain = [text.replace(":", "").replace(" ", "").lower() for text in given]
    for text in plain:
        if len(text) < MIN_DIGITS:
            raise ConfigError(f"at least {MIN_DIGITS} digits of the fingerprint", key="--fingerprint")
        if not any(known.startswith(text) for known in row.certificates):
            raise ConfigError("is none of the new certificates", key="--fingerprint",
                              hint="then it is not the one the partner told you of: reject the request")  # fmt: skip
    wanted = set(row.certificates)
    if not all(any(known.startswith(text) for text in plain) for known in wanted):
        raise ConfigError(f"{len(wanted)} new certificates, each wants its fingerprint", key="--fingerprint")
