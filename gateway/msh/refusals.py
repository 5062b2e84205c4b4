"""What remains of a refused message: one security event, bounded, and nothing else [threats 1.0].

Events are rate-limited per source; those beyond the limit are counted and the count is
written with the next event, so that a flood cannot fill the audit.
"""

import hashlib
from collections import OrderedDict

from gateway import log
from gateway.clock import Clock
from gateway.errors import EbmsError, StoreUnavailable
from gateway.store.api import AuditEntry, Store

PER_SECOND = 10
SOURCES = 4096  # remembered at most; the oldest are forgotten first


class Refusals:
    """Notes refused messages in log and audit."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._windows: OrderedDict[str, list] = OrderedDict()  # source -> [second, count, suppressed]

    async def note(
        self, error: EbmsError, *, source: str, claimed: str | None, envelope: bytes, party: str | None
    ) -> None:
        """Never raises: a refusal stands whether or not it could be written down."""
        stranger = getattr(error, "stranger", None)
        sha256 = hashlib.sha256(stranger).hexdigest() if stranger else None
        log.event(
            "message.refused", level="warning", code=error.code, reason=error.detail, where=error.where,
            party=party, source=source, certificate_sha256=sha256,
        )  # fmt: skip
        suppressed = self._admit(source)
        if suppressed is None:
            return
        detail = {
            "code": error.code,
            "reason": _bounded(error.detail),
            "where": error.where,
            "party": _bounded(party),
            "envelope_sha256": hashlib.sha256(envelope).hexdigest() if envelope else None,
        }
        if sha256 is not None:
            detail["certificate_sha256"] = sha256  # of who signed it, and is not the party it claims
        if suppressed:
            detail["suppressed_before"] = suppressed
        try:
            await self._store.audit(
                AuditEntry(kind="message.refused", actor=source, subject=_bounded(claimed) or "-", detail=detail)
            )
        except StoreUnavailable as unavailable:
            log.event("store.unavailable", level="error", reason=str(unavailable))

    def _admit(self, source: str) -> int | None:
        """The number of events suppressed before this one, or None if this one is to be suppressed."""
        second = int(self._clock.monotonic())
        window = self._windows.setdefault(source, [second, 0, 0])
        self._windows.move_to_end(source)
        if len(self._windows) > SOURCES:
            self._windows.popitem(last=False)
        if window[0] != second:
            window[0], window[1] = second, 0
        window[1] += 1
        if window[1] > PER_SECOND:
            window[2] += 1
            return None
        suppressed, window[2] = window[2], 0
        return suppressed


def _bounded(text: str | None, size: int = 255) -> str | None:
    """Printable and short: what a peer wrote may stand in an audit row, not run in a console."""
    if text is None:
        return None
    return "".join(c if c.isprintable() else "�" for c in text[:size])
