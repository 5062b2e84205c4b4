"""Judge a proven message by its agreement: the last rung before it is stored [threats 1.1 step 13].

Everything here works on signed facts. The signer must belong to the very party the leg
names, the parts must be what eDelivery allows, the properties what the profile and the
agreement ask for [as4 2.8, 4.1]. The same property rules are asked when a message is
submitted (`check_properties`), so that a producer hears at once what a peer would refuse.
"""

import re
from collections.abc import Iterator

from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.inbound import Proven, ProvenPart
from gateway.as4.pmode import Leg
from gateway.as4.profiles import PROFILES
from gateway.as4.profiles.profile import Profile
from gateway.as4.units import PartInfo, Reference, UserMessage
from gateway.errors import (
    FailedAuthentication,
    MimeInconsistency,
    ProcessingModeMismatch,
    ValueInconsistent,
)

#: EncName of XML 1.0, 4.3.3 [as4 4.1].
_ENCODING_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_MEDIA_TYPE = re.compile(r"[!#$&^_.+\-0-9A-Za-z]{1,127}/[!#$&^_.+\-0-9A-Za-z]{1,127}(?:[ \t]*;[ -~]*)?")
_CORNERS = (ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT)
_OWN_PART_PROPERTIES = (ns.MIME_TYPE, ns.COMPRESSION_TYPE, ns.CHARACTER_SET)

_PART_PROPERTY = "eb:PartProperties/eb:Property"
#: Places a peer is told, one literal for each property we have a rule for.
_WHERE_CORNER = {name: f"eb:MessageProperties/{name}" for name in _CORNERS}


class Accepted(Struct, frozen=True):
    """A message that may be stored and receipted. `findings` are remarks for people, in our words."""

    user_message: UserMessage
    leg: Leg
    parts: tuple[ProvenPart, ...]
    signer: bytes
    references: tuple[Reference, ...]
    findings: tuple[str, ...] = ()


def accept(proven: Proven, leg: Leg) -> Accepted:
    """Accept a proven message under `leg`.

    Raises `FailedAuthentication` (signer of another party), `ProcessingModeMismatch`,
    `ValueInconsistent`, `MimeInconsistency` (sizes).
    """
    if not isinstance(proven, Proven):
        raise TypeError("policy judges what was proven")
    message = proven.user_message
    if message.from_party != leg.from_party.party_id or proven.signer not in leg.from_party.signing:
        # A valid signature of another partner is no signature of this one [threats F01].
        raise FailedAuthentication("the signer does not belong to the sending party of the agreement")
    if message.to_party != leg.to_party.party_id:
        raise ProcessingModeMismatch("the agreement is with another receiver", where="eb:To/eb:PartyId")
    check_properties(message, leg, PROFILES[leg.profile])
    _check_sizes(proven.parts, leg)
    return Accepted(
        user_message=message,
        leg=leg,
        parts=proven.parts,
        signer=proven.signer,
        references=proven.references,
        findings=tuple(_findings(proven.parts)),
    )


def check_properties(message: UserMessage, leg: Leg, profile: Profile) -> None:
    """The rules for message and part properties. Raises `ValueInconsistent`, `ProcessingModeMismatch`."""
    if not message.is_test:
        # A ping has the security and the parties of the real thing, but no corners behind them.
        _check_message_properties(message, leg, profile)
    for info in message.parts:
        _check_part(info)


def _check_message_properties(message: UserMessage, leg: Leg, profile: Profile) -> None:
    if profile.four_corner:
        for name in _CORNERS:
            values = [p.value for p in message.properties if p.name == name]
            # Two would let two readers route to two corners.
            if len(values) != 1 or not values[0].strip():
                raise ValueInconsistent(f"not exactly one {name}", where=_WHERE_CORNER[name])
    names = {p.name for p in message.properties}
    for rule in leg.properties:
        if rule.required and rule.name not in names:
            raise ValueInconsistent(
                f"the agreement demands the property {rule.name}",
                where=_WHERE_CORNER.get(rule.name, "eb:MessageProperties: a property of the agreement is missing"),
            )
    allowed = {rule.name for rule in leg.properties}.union(_CORNERS if profile.four_corner else ())
    if leg.closed_properties and not names <= allowed:
        raise ProcessingModeMismatch(
            "a message property that the agreement does not name", where="eb:MessageProperties/eb:Property"
        )


def _check_part(info: PartInfo) -> None:
    """Compression, media type and character set of one part [as4 4.1]."""
    if info.cid is None:
        raise ValueInconsistent("a payload that is no MIME part", where="eb:PartInfo/@href")
    names = [p.name for p in info.properties]
    for name in _OWN_PART_PROPERTIES:
        if names.count(name) > 1:
            raise ValueInconsistent("a part property of the MSH is given twice", where=f"{_PART_PROPERTY}[{name}]")
    compression = info.value_of(ns.COMPRESSION_TYPE)
    if compression is not None:
        if compression != ns.GZIP:
            raise ValueInconsistent("a compression other than gzip", where=f"{_PART_PROPERTY}[CompressionType]")
        if info.mime_type is None:
            raise ValueInconsistent("compressed without MimeType", where=f"{_PART_PROPERTY}[MimeType]")
    if info.mime_type is not None and not _MEDIA_TYPE.fullmatch(info.mime_type):
        raise ValueInconsistent("MimeType is no media type", where=f"{_PART_PROPERTY}[MimeType]")
    charset = info.value_of(ns.CHARACTER_SET)
    if charset is not None and not _ENCODING_NAME.fullmatch(charset):
        raise ValueInconsistent("CharacterSet is no encoding name", where=f"{_PART_PROPERTY}[CharacterSet]")


def _check_sizes(parts: tuple[ProvenPart, ...], leg: Leg) -> None:
    """The agreement's bounds, on the content: on the wire, compression would hide it."""
    if any(part.size > leg.max_part for part in parts):
        raise MimeInconsistency("a part is larger than the agreement allows", where="MIME part", status=413)
    if sum(part.size for part in parts) > leg.max_message:
        raise MimeInconsistency("the message is larger than the agreement allows", where="MIME parts", status=413)


def _findings(parts: tuple[ProvenPart, ...]) -> Iterator[str]:
    said = {"xml": "canonical XML", "text": "text with CRLF"}
    for number, part in enumerate(parts, 1):
        if part.digest_form in said:
            yield f"part {number} was digested as {said[part.digest_form]}; compressing it is more robust"
