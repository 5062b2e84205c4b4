"""What is to be said about one message: its leading document read, its header and both together judged.

Pure, bounded, and never in the way: whatever a peer put into the document, the outcome is an
`Advice`. What could not be judged is a finding too (E-00), and so is a document that is none (E-01).
In two steps, because between them the caller may look for the request that an answer is about.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from gateway.as4.findings import Finding
from gateway.as4.units import UserMessage
from gateway.oots import edm, facts, headers
from gateway.oots.regrep import MAX_DOCUMENT

__all__ = ["MAX_DOCUMENT", "Advice", "Reading", "judge", "not_judged", "read"]

_DOCUMENT = "the leading document"


class Reading(Struct, frozen=True):
    """A leading document: its index, or the finding why there is none. Both are None without a document."""

    index: edm.EdmIndex | None = None
    finding: Finding | None = None


class Advice(Struct, frozen=True):
    """What there is to say. `document` is what may be kept of the index; `request_id` is set when the
    message asks for something."""

    findings: tuple[Finding, ...] = ()
    line: headers.Line | None = None
    document: dict[str, Any] | None = None
    request_id: str | None = None


def read(octets: bytes, *, charset: str | None = None) -> Reading:
    """Read a leading document of at most `MAX_DOCUMENT` octets."""
    if len(octets) > MAX_DOCUMENT:
        return Reading(finding=not_judged(f"it is larger than {MAX_DOCUMENT >> 20} MiB", _DOCUMENT))
    try:
        return Reading(edm.index(octets, charset=charset))
    except edm.EdmUnreadable as error:
        return Reading(finding=Finding("E-01", "fatal", f"not an exchange document: {error.detail}", _DOCUMENT))


def judge(
    message: UserMessage,
    reading: Reading,
    *,
    requests: Sequence[UserMessage] | None = None,
) -> Advice:
    """The advice about `message` with this leading document.

    `requests` are messages that brought the request document this one brings or answers; None:
    nobody looked. For a question any of them but itself is a twin, for an answer the first is
    what it answers.
    """
    index, kind = reading.index, headers.kind_of(message)
    others = [m for m in requests or () if m.message_id != message.message_id]
    answers = kind in ("R", "E")
    found = headers.check(
        message,
        index,
        request=others[0] if answers and others else None,
        looked=requests is not None,
        replayed=bool(others) and not answers,
    )
    document = facts.kept(index) if index is not None else None
    return Advice(
        findings=(*((reading.finding,) if reading.finding else ()), *found),
        line=headers.rule_set(message, index),
        document=document,
        request_id=document.get("request_id") if index is not None and index.kind == "request" else None,
    )


def not_judged(reason: str, where: str | None = None) -> Finding:
    """The finding that says why nothing, or not everything, was judged."""
    return Finding("E-00", "warning", f"not judged: {reason}", where)
