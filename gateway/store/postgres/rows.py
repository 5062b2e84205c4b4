"""Between the Structs of `store.api` and the columns of the tables. Encoders are made once."""

from collections.abc import Iterable
from typing import Any

import msgspec
from asyncpg import Record
from msgspec import Struct

from gateway.as4.findings import Finding
from gateway.as4.units import PartInfo, Reference, UserMessage
from gateway.errors import StoreUnavailable
from gateway.scope import FINAL_RECIPIENT, ORIGINAL_SENDER, Scope, names
from gateway.stages import Step
from gateway.store.api import (
    Attempt,
    Client,
    Job,
    Message,
    NewEvent,
    NewInbound,
    NewOutbound,
    NewPart,
    Part,
    Told,
)


class PartFacts(Struct, frozen=True):
    """What stands in `part.facts`: a part without its content. Octets are base64 in JSON."""

    info: PartInfo
    cid: str
    mime_type: str
    size: int
    sha256: bytes
    compressed: bool
    wire_size: int
    wire_digest: bytes


_encode = msgspec.json.Encoder().encode
header = msgspec.json.Decoder(UserMessage).decode
_findings = msgspec.json.Decoder(tuple[Finding, ...]).decode
_facts = msgspec.json.Decoder(PartFacts).decode
_steps = msgspec.json.Decoder(tuple[Step, ...]).decode
_references = msgspec.json.Decoder(tuple[Reference, ...]).decode
_scope = msgspec.json.Decoder(Scope).decode
_data = msgspec.json.Decoder(dict[str, Any]).decode


def text(value: Any) -> str:
    """JSON text. Raises `StoreUnavailable` for what is no text at all."""
    try:
        return _encode(value).decode()
    except UnicodeEncodeError:
        raise StoreUnavailable("a value cannot be stored: half of a surrogate pair") from None


def storable(*values: str | None) -> bool:
    """Whether the texts can be in the database at all: no NUL, no half of a surrogate pair."""
    try:
        return not any(b"\0" in value.encode() for value in values if value is not None)
    except UnicodeEncodeError:
        return False


# -- into the database ------------------------------------------------------------


def part_columns(parts: tuple[NewPart, ...]) -> tuple[list, list, list, list]:
    """numbers, facts, inline, chunks."""
    return (
        [p.number for p in parts],
        [
            text(PartFacts(p.info, p.cid, p.mime_type, p.size, p.sha256, p.compressed, p.wire_size, p.wire_digest))
            for p in parts
        ],
        [p.inline for p in parts],
        [p.chunks for p in parts],
    )


def inbound_columns(message: NewInbound) -> tuple:
    """The parameters of `receive`."""
    unit = message.user_message
    return (
        message.id, message.tenant, message.sender, unit.message_id, unit.conversation_id, unit.ref_to_message_id,
        unit.service.value, unit.action, message.backend, message.pmode_id, message.pmode_revision, text(unit),
        message.fingerprint, message.references, message.wrapped_key, message.envelope, message.signer,
        message.receipt, _found(message), text(message.steps), *part_columns(message.parts), message.answer_to,
        *_document(message), *corners(unit),
    )  # fmt: skip


def outbound_columns(message: NewOutbound) -> tuple:
    """The parameters of `submit`."""
    unit, held = message.user_message, message.held
    return (
        message.id, message.tenant, message.receiver, unit.message_id, unit.conversation_id, unit.ref_to_message_id,
        unit.service.value, unit.action, message.backend, message.pmode_id, message.pmode_revision, message.deadline,
        message.client, message.idempotency_key, message.wrapped_key, text(unit), message.fingerprint,
        text(message.steps), *part_columns(message.parts), message.state,
        *(("hold", held.queue, held.patience) if held else ("send", message.receiver, None)),
        _found(message), *_document(message), *corners(unit), message.patience, message.trace,
    )  # fmt: skip


def corners(unit: UserMessage) -> tuple[list[str] | None, list[str] | None]:
    """The names of original sender and final recipient, as a scope may write them."""
    found = {p.name: p for p in reversed(unit.properties)}  # of two with one name the first
    return tuple(
        list(names(found[name].value, found[name].type)) if name in found else None
        for name in (ORIGINAL_SENDER, FINAL_RECIPIENT)
    )


def _found(message: NewInbound | NewOutbound) -> str | None:
    return text(message.findings) if message.findings else None


def _document(message: NewInbound | NewOutbound) -> tuple[str | None, str | None, str]:
    """document, request_id, and the data of the event."""
    document = None if message.document is None else text(message.document)
    return document, message.request_id, text(message.event.data)


def events(new: Iterable[NewEvent]) -> str:
    """The parameter from which `json_to_recordset` makes events."""
    return text([{"type": event.type, "data": event.data} for event in new])


# -- out of the database ----------------------------------------------------------


def message(row: Record) -> Message:
    """A whole message, or one of a page, which has no envelope, signer, receipt and inline content."""
    whole = "envelope" in row.keys()  # noqa: SIM118 - a Record is not a mapping
    return Message(
        id=row["id"],
        direction=row["direction"],
        state=row["state"],
        tenant=row["tenant"],
        partner=row["partner"],
        user_message=header(row["header"]),
        parts=_parts(row, whole),
        wrapped_key=row["wrapped_key"],
        pmode_id=row["pmode_id"],
        pmode_revision=row["pmode_revision"],
        backend=row["backend"],
        client=row["client"],
        created_at=row["created_at"],
        changed_at=row["changed_at"],
        deadline=row["deadline"],
        attempts=row["attempts"] or 0,
        next_attempt_at=row["next_attempt_at"],
        held=row["held"],
        error_code=row["error_code"],
        error_detail=row["error_detail"],
        receipt=row["receipt"] if whole else None,
        receipt_at=row["receipt_at"],
        envelope=row["envelope"] if whole else None,
        signer=row["signer"] if whole else None,
        findings=_findings_of(row),
        document=None if row["document"] is None else _data(row["document"]),
        steps=_steps(row["steps"]),
        trace=row["trace"],
    )


def _findings_of(row: Record) -> tuple[Finding, ...]:
    """The release before wrote texts, and only about digests."""
    if row["advice"] is not None:
        return _findings(row["advice"])
    return tuple(Finding("A-01", "warning", said) for said in row["findings"])


def _parts(row: Record, whole: bool) -> tuple[Part, ...]:
    numbers = row["numbers"] or ()
    inline = (row["inline"] or ()) if whole else (None,) * len(numbers)
    return tuple(
        _part(number, _facts(facts), content, chunks)
        for number, facts, content, chunks in zip(numbers, row["facts"] or (), inline, row["chunks"] or (), strict=True)
    )


def _part(number: int, facts: PartFacts, inline: bytes | None, chunks: int) -> Part:
    return Part(
        number=number,
        info=facts.info,
        cid=facts.cid,
        mime_type=facts.mime_type,
        size=facts.size,
        sha256=facts.sha256,
        compressed=facts.compressed,
        wire_size=facts.wire_size,
        wire_digest=facts.wire_digest,
        inline=inline,
        chunks=chunks,
    )


def job(row: Record) -> Job:
    return Job(
        id=row["id"],
        kind=row["kind"],
        queue=row["queue"],
        message=row["message"],
        claim=row["claim"],
        attempt=row["attempt"],
        lost=row["lost"],
        at=row["at"],
        created_at=row["created_at"],
        lease_until=row["lease_until"],
        data=_data(row["data"]),
    )


def attempt(row: Record) -> Attempt:
    return Attempt(
        number=row["number"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        node=row["node"],
        references=_references(row["signed"]),
        signer=row["signer"],
        outcome=row["outcome"],
        error_code=row["error_code"],
        error_detail=row["error_detail"],
        http_status=row["http_status"],
        steps=_steps(row["steps"]),
    )


def event(row: Record) -> tuple:
    return row["number"], row["at"], row["type"], row["message"], _data(row["data"])


def told(row: Record) -> Told:
    return Told(**{**dict(row.items()), "data": _data(row["data"])})


def client(row: Record) -> Client:
    return Client(
        id=row["id"],
        name=row["name"],
        backend=row["backend"],
        scope=_scope(row["scope"]),
        created_at=row["created_at"],
        revoked=row["revoked"],
    )


def detail(value: str) -> dict[str, Any]:
    return _data(value)
