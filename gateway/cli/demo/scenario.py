"""The exchange of the demo, step by step, and the checks that make it a proof.

    1  evidence request    LV -> EE    ExecuteQueryRequest
    2  preview required    EE -> LV    ExceptionResponse
    3  evidence request    LV -> EE    ExecuteQueryRequest, after the user was sent to the preview
    4  evidence response   EE -> LV    ExecuteQueryResponse, with the PDF

A message counts when its receipt was verified by the sender's gateway, when the octets that
went in on one side came out on the other, and when it breaks no OOTS rule: not by the rules asked
here, and not in the judgement of either gateway.
"""

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from gateway.as4.units import PartInfo, PartyId, Property, Service, UserMessage
from gateway.cli.demo.ledger import DemoFailed, Ledger, Sent, Taken, digest
from gateway.cli.demo.requester import Requester
from gateway.oots import edm, headers

#: Direction and name of each message, in order.
STEPS = (
    ("LV->EE", "evidence request"),
    ("EE->LV", "preview required"),
    ("LV->EE", "evidence request"),
    ("EE->LV", "evidence response"),
)
#: Longer than any healthy exchange by far; a retry after a broken connection fits in.
PATIENCE = 60.0


class Result(Struct, frozen=True, kw_only=True):
    """One message of the exchange, judged. `ms` from the submission to the verified receipt."""

    direction: str
    action: str
    bytes: int
    ms: int
    receipt_verified: bool
    payload_digest_equal: bool
    message_id: str


def exchange(requester: Requester, ledger: Ledger, *, patience: float = PATIENCE) -> Iterator[Result]:
    """Run it; yields each message when it is proven. Raises `DemoFailed`."""
    until = time.monotonic() + patience
    requester.ask()
    request: UserMessage | None = None
    for number, (direction, _) in enumerate(STEPS):
        sent = ledger.sent(direction, number // 2, until=until)
        taken = ledger.taken(sent.message_id, until=until)
        result = _judged(sent, taken, until)
        message = _user_message(taken.view)
        _keeps_the_rules(message, taken.document, request if number % 2 else None)
        request = message if not number % 2 else request
        yield result
    _certificate_is_the_one_shown(requester)


def _judged(sent: Sent, taken: Taken, until: float) -> Result:
    try:
        view = sent.client.wait(sent.id, timeout=max(until - time.monotonic(), 1.0))
    except TimeoutError as error:
        raise DemoFailed(f"{sent.action} {sent.direction} has no receipt yet: {error}") from None
    verified = view["state"] == "ACKNOWLEDGED" and "receipt_at" in view and _receipt_stage(sent)
    if not verified:
        raise DemoFailed(
            f"{sent.action} {sent.direction} is {view['state']}: "
            f"{view.get('error_code', 'no error code')} {view.get('error_detail', '')}".rstrip()
        )
    for finding in (*view.get("findings", ()), *taken.view.get("findings", ())):
        raise DemoFailed(f"{sent.action} {sent.direction}: a gateway found {finding['rule']}: {finding['message']}")
    if sent.digests != taken.digests:
        raise DemoFailed(f"{sent.action} {sent.direction} arrived with other octets than were sent")
    return Result(
        direction=sent.direction,
        action=sent.action,
        bytes=sent.size,
        ms=round((_moment(view["receipt_at"]) - _moment(view["created_at"])).total_seconds() * 1000),
        receipt_verified=verified,
        payload_digest_equal=sent.digests == taken.digests,
        message_id=sent.message_id,
    )


def _receipt_stage(sent: Sent) -> bool:
    """Whether the timeline of the message has a receipt stage that ended well."""
    return any(step["stage"] == "receipt" and not step.get("error") for step in sent.client.events(sent.id))


def _keeps_the_rules(message: UserMessage, document: bytes, request: UserMessage | None) -> None:
    """The demo must not teach anybody a wrong header."""
    broken = headers.check(message, edm.index(document), request=request)
    if broken:
        raise DemoFailed(f"{message.action} breaks a header rule: {broken[0]}")


def _certificate_is_the_one_shown(requester: Requester) -> None:
    if requester.evidence is None:
        raise DemoFailed("the response came without the certificate")
    if digest(requester.evidence) != requester.shown:
        raise DemoFailed("the certificate is not the one the user was shown")


def _user_message(view: Mapping[str, Any]) -> UserMessage:
    """The header a consumer sees, in the form the rules read."""
    sender, receiver = view["from_party"], view["to_party"]
    return UserMessage(
        message_id=view["message_id"],
        timestamp=_moment(view["timestamp"]),
        from_party=PartyId(sender["id"], sender.get("type")),
        from_role=sender.get("role", ""),
        to_party=PartyId(receiver["id"], receiver.get("type")),
        to_role=receiver.get("role", ""),
        service=Service(view["service"], view.get("service_type")),
        action=view["action"],
        conversation_id=view["conversation_id"],
        properties=tuple(Property(one["name"], one["value"], one.get("type")) for one in view.get("properties", ())),
        parts=tuple(
            PartInfo(f"cid:{part['cid']}", (Property("MimeType", part["mime_type"]),)) for part in view["parts"]
        ),
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
