"""What is kept of an exchange document for twelve months, beside the message [oots 3.10, 5.4].

The index with everything left out that is about a person, may be, or opens a door: the subject
but for its kind, titles and error texts a person wrote, and the address that brings the user
back to the portal. The preview location stays: the access point is to log it by way of the index
[oots 5.2]. Identifiers stay where they are spelled like identifiers.
"""

import re
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.oots.edm import Attachment, EdmException, EdmIndex
from gateway.oots.sdg import Agent

#: Visible characters of ASCII: an identifier, a code, a media type, an address. No name is spelled so for long.
_IDENTIFIER = re.compile(r"[!-~]{1,255}")
#: The rule a receiver says was broken; any other detail of an error is prose.
_RULE = re.compile(r"R-EDM-[A-Za-z]{1,8}-[A-Z]?\d{1,4}")
_PLAIN = (
    "status", "request_id", "response_id", "specification", "procedure", "preview_url", "evidence_type", "data_service",
)  # fmt: skip
_LISTS = ("requirements", "formats", "evidence_ids")
#: Of each list; a hundred pieces of evidence are one message's business.
_MOST = 64


def kept(index: EdmIndex) -> dict[str, Any]:
    """The index as JSON values, without what is not kept."""
    values: dict[str, Any] = {name: _identifier(getattr(index, name)) for name in _PLAIN}
    values |= {
        name: tuple(text for text in map(_identifier, getattr(index, name)[:_MOST]) if text) for name in _LISTS
    }
    values |= {name: _agent(getattr(index, name)) for name in ("requester", "provider", "intermediary")}
    left = replace(
        index,
        **values,
        return_url=None,
        subject_keys=(),
        attachments=tuple(map(_attachment, index.attachments[:_MOST])),
        exceptions=tuple(map(_exception, index.exceptions[:_MOST])),
    )
    return msgspec.json.decode(msgspec.json.encode(left))


def _identifier(text: str | None) -> str | None:
    return text if text and _IDENTIFIER.fullmatch(text) else None


def _agent(agent: Agent | None) -> Agent | None:
    """An organisation: identifier, scheme and country. Its name is found by them."""
    if agent is None or not _identifier(agent.id):
        return None
    return replace(
        agent, scheme=_identifier(agent.scheme), name=None, country=_identifier(agent.country),
        classification=_identifier(agent.classification),
    )  # fmt: skip


def _attachment(attachment: Attachment) -> Attachment:
    return Attachment(
        href=_identifier(attachment.href) or "",
        role=_identifier(attachment.role),
        media_type=_identifier(attachment.media_type),
        evidence_id=_identifier(attachment.evidence_id),
    )


def _exception(exception: EdmException) -> EdmException:
    detail = exception.detail if exception.detail and _RULE.fullmatch(exception.detail) else None
    return EdmException(
        code=_identifier(exception.code), type=_identifier(exception.type), severity=_identifier(exception.severity),
        detail=detail,
    )  # fmt: skip
