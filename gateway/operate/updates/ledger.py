"""What the rows of the ledger share: what the audit says of a step, and the documents that answer a request."""

import hashlib
from datetime import datetime
from typing import Any
from uuid import uuid5

from gateway.as4.updates.documents import (
    REASONS,
    TerminationException,
    TerminationRequest,
    TerminationResponse,
    UpdateException,
    UpdateRefused,
    UpdateResponse,
)
from gateway.as4.updates.reading import read
from gateway.as4.updates.writing import write
from gateway.log import printable
from gateway.store.api import AuditEntry
from gateway.store.updates import NewUpdate, Update

#: Why something was refused or waits, in the ledger and to the partner.
MAX_DETAIL = 400


def audit_of(kind: str, row: NewUpdate, actor: str, **more: Any) -> AuditEntry:
    """What the audit says of a step: who, which partner, which certificates."""
    detail = {
        "update": str(row.id), "direction": row.direction, "kind": row.kind, "reference": printable(row.reference, 255),
        "certificates_sha256": list(row.certificates), "signer_sha256": row.signer, **more,
    }  # fmt: skip
    detail = {name: value for name, value in detail.items() if value is not None}
    return AuditEntry(kind=kind, actor=printable(actor, 255), subject=row.party, detail=detail)


def answer_id(row: NewUpdate, about: str, host: str) -> str:
    """The MessageId of our answer to the message `about`: however often it is made, it is the same."""
    return f"{uuid5(row.id, about)}@{host}"


def answered(row: Update) -> bytes:
    """The document that answers a request as the row says: taken, or refused by an operator."""
    if row.state == "REFUSED":
        code, short = next((why for why in REASONS if why[0] == row.code), REASONS[-1])
        return refused(row, UpdateRefused((code, short), row.detail or ""), at=row.changed_at)
    request = read(row.document)
    facts = _facts(row, request, row.changed_at)
    if isinstance(request, TerminationRequest):
        return write(TerminationResponse(**facts))
    return write(UpdateResponse(**facts, updated=request.updated))


def refused(row: NewUpdate, why: UpdateRefused, *, at: datetime) -> bytes:
    """The document that refuses a request."""
    request = read(row.document)
    facts = _facts(row, request, at) | {"errors": (why.error,)}
    if isinstance(request, TerminationRequest):
        return write(TerminationException(**facts))
    return write(UpdateException(**facts, updated=request.updated))


def _facts(row: NewUpdate, request: Any, at: datetime) -> dict[str, Any]:
    answer = str(uuid5(row.id, "answer"))
    return {"id": answer, "reference": request.id, "created_at": at, "current": request.current}


def sha256(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()
