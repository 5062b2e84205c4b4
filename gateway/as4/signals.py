"""eb:SignalMessage: what we answer with, and what peers answer us [as4 2.4-2.6].

A Receipt is made for what was proven, an Error for what was refused. An Error of ours
says nothing but constants: the text of the error class and the place in the header,
never the text of an exception and never anything that came from outside [threats 1.0].

Signals of peers are read more kindly than messages. Products disagree in letter case, in
which of two attributes names the message, in what a receipt holds besides
non-repudiation information; and a signal that is refused costs a retry. Free text of a
peer is kept for people, bounded, and decides nothing.
"""

import re
from collections.abc import Sequence
from datetime import datetime

from gateway.as4 import ns
from gateway.as4.fields import (
    MAX_TEXT,
    MESSAGE_ID,
    attribute,
    eb,
    is_foreign,
    message_info_xml,
    read_message_info,
)
from gateway.as4.receipts import nri_xml, read_references
from gateway.as4.units import Error, PullRequest, Receipt, Reference, SignalError, SignalMessage
from gateway.as4.xml import Element, escaped, quoted
from gateway.errors import BundlingError, EbmsError, InvalidHeader

#: eb:Error elements kept of one signal; what follows the first few says nothing new.
MAX_ERRORS = 16
#: Characters kept of the attributes of an error that are words.
MAX_WORD = 64

_MESSAGE_INFO, _DESCRIPTION, _DETAIL = eb("MessageInfo"), eb("Description"), eb("ErrorDetail")
_PULL_REQUEST, _RECEIPT, _ERROR = eb("PullRequest"), eb("Receipt"), eb("Error")
_NRI = ns.qn(ns.EBBP, "NonRepudiationInformation")
#: Products also write a bare 0101, and the specification once misprints EBSMS:0044 [as4 2.9].
_CODE = re.compile(r"(?:EBS?MS:)?(\d{4})", re.IGNORECASE | re.ASCII)
_SPACE = " \t\r\n"


# -- making --------------------------------------------------------------------------


def receipt_for(references: Sequence[Reference], *, ref_to: str, message_id: str, now: datetime) -> Receipt:
    """The receipt for the message `ref_to`, whose verified signature had `references` [as4 2.4].

    `message_id` is the receipt's own id; `now` is aware. The order of the references is kept.
    """
    return Receipt(message_id=message_id, timestamp=now, ref_to_message_id=ref_to, references=tuple(references))


def error_for(error: EbmsError, *, ref_to: str | None, message_id: str, now: datetime) -> Error:
    """The error signal that tells a peer of `error` [as4 2.5, 4.4].

    `ref_to` is the MessageId of the refused message, None when it could not be read; it
    goes into RefToMessageId and refToMessageInError, because peers look at either.
    """
    told = SignalError(
        code=error.code,
        severity=error.severity,
        short_description=error.short_description,
        category=error.category,
        origin=error.origin,
        ref_to_message_in_error=ref_to,
        description=error.wire,
        detail=error.where,
    )
    return Error(message_id=message_id, timestamp=now, ref_to_message_id=ref_to, errors=(told,))


# -- reading -------------------------------------------------------------------------


def read_signal(element: Element) -> SignalMessage:
    """The one signal in an eb:SignalMessage.

    A Receipt whose non-repudiation information is missing has no references, whatever
    else is in it. Warnings beside a receipt are dropped: they change nothing [as4 2.5].
    Raises `InvalidHeader`, `InvalidReceipt`, or `BundlingError` for several kinds.
    """
    children = list(element)
    if not children or children[0].tag != _MESSAGE_INFO:
        raise InvalidHeader("missing", where="eb:SignalMessage/eb:MessageInfo")
    info = read_message_info(children[0])
    found: dict[str, list[Element]] = {_PULL_REQUEST: [], _RECEIPT: [], _ERROR: []}
    for child in children[1:]:
        if child.tag in found:
            found[child.tag].append(child)
        elif not is_foreign(child.tag):
            raise InvalidHeader("an element that does not belong here", where="eb:SignalMessage")
    requests, receipts, errors = found.values()
    if receipts and all(_severity(error) == "warning" for error in errors):
        errors = []
    kinds = len(requests) + len(receipts) + bool(errors)
    if kinds == 0:
        raise InvalidHeader("no signal", where="eb:SignalMessage")
    if kinds > 1:
        raise BundlingError("several signals", where="eb:SignalMessage")
    if receipts:
        return Receipt(*info, _references(receipts[0]))
    if requests:
        return PullRequest(*info[:2], attribute(requests[0], "mpc", "eb:PullRequest/@mpc") or ns.DEFAULT_MPC)
    return Error(*info, tuple(map(_error, errors[:MAX_ERRORS])))


def _references(receipt: Element) -> tuple[Reference, ...]:
    found = receipt.findall(_NRI)
    if len(found) > 1:
        raise InvalidHeader("two NonRepudiationInformation", where="eb:Receipt")
    return read_references(found[0]) if found else ()


def _severity(error: Element) -> str:
    # Anything unknown is a failure: only a clear warning may be taken lightly.
    return "warning" if error.get("severity", "").strip(_SPACE).lower() == "warning" else "failure"


def _error(element: Element) -> SignalError:
    code = element.get("errorCode", "").strip(_SPACE)
    if not code:
        raise InvalidHeader("missing", where="eb:Error/@errorCode")
    known = _CODE.fullmatch(code)
    about = element.get("refToMessageInError", "")
    # Of the free text 1 kB is kept, Description first [threats 1.5].
    description = _free_text(element, _DESCRIPTION, MAX_TEXT)
    return SignalError(
        code=f"EBMS:{known[1]}" if known else code[:MAX_WORD],
        severity=_severity(element),
        short_description=_word(element, "shortDescription"),
        category=(_word(element, "category") or "").capitalize() or None,
        origin=_word(element, "origin"),
        ref_to_message_in_error=about if MESSAGE_ID.fullmatch(about) else None,
        description=description or None,
        detail=_free_text(element, _DETAIL, MAX_TEXT - len(description)) or None,
    )


def _word(error: Element, name: str) -> str | None:
    return error.get(name, "").strip(_SPACE)[:MAX_WORD] or None


def _free_text(error: Element, tag: str, limit: int) -> str:
    found = error.find(tag)
    return "" if found is None else "".join(found.itertext()).strip(_SPACE)[:limit]


# -- writing -------------------------------------------------------------------------


def signal_xml(unit: SignalMessage) -> str:
    """eb:SignalMessage in exclusive canonical form, for the inside of eb:Messaging."""
    if isinstance(unit, Receipt):
        information = nri_xml(unit.references) if unit.references else ""
        # Exactly one child: Domibus only evaluates such a receipt [as4 2.4].
        content = f"<eb:Receipt>{information}</eb:Receipt>"
    elif isinstance(unit, Error):
        content = "".join(map(_error_xml, unit.errors))
    else:
        content = f"<eb:PullRequest mpc={quoted(unit.mpc)}></eb:PullRequest>"
    ref_to = None if isinstance(unit, PullRequest) else unit.ref_to_message_id
    return f"<eb:SignalMessage>{message_info_xml(unit.message_id, unit.timestamp, ref_to)}{content}</eb:SignalMessage>"


def _error_xml(error: SignalError) -> str:
    # Attributes in canonical order, which is the alphabet's.
    attributes = (
        ("category", error.category),
        ("errorCode", error.code),
        ("origin", error.origin),
        ("refToMessageInError", error.ref_to_message_in_error),
        ("severity", error.severity),
        ("shortDescription", error.short_description),
    )
    written = "".join(f" {name}={quoted(text)}" for name, text in attributes if text is not None)
    description = detail = ""
    if error.description is not None:
        description = f'<eb:Description xml:lang="en">{escaped(error.description)}</eb:Description>'
    if error.detail is not None:
        detail = f"<eb:ErrorDetail>{escaped(error.detail)}</eb:ErrorDetail>"
    return f"<eb:Error{written}>{description}{detail}</eb:Error>"
