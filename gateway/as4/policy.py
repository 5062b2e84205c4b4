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
from gateway.as4.findings import Finding
from gateway.as4.inbound import Proven, ProvenPart, Voucher
from gateway.as4.pmode import Leg, Party, PropertyRule
from gateway.as4.profiles import PROFILES
from gateway.as4.profiles.profile import Profile
from gateway.as4.units import PartInfo, Reference, UserMessage
from gateway.errors import (
    FailedAuthentication,
    MimeInconsistency,
    ProcessingModeMismatch,
    ValueInconsistent,
    told,
)

#: EncName of XML 1.0, 4.3.3 [as4 4.1].
_ENCODING_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_MEDIA_TYPE = re.compile(r"[!#$&^_.+\-0-9A-Za-z]{1,127}/[!#$&^_.+\-0-9A-Za-z]{1,127}(?:[ \t]*;[ -~]*)?")
_CORNERS = (ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT)
_OWN_PART_PROPERTIES = (ns.MIME_TYPE, ns.COMPRESSION_TYPE, ns.CHARACTER_SET)

_PROPERTY = "eb:MessageProperties/eb:Property"


class Accepted(Struct, frozen=True):
    """A message that may be stored and receipted. `findings` are remarks for people, in our words."""

    user_message: UserMessage
    leg: Leg
    parts: tuple[ProvenPart, ...]
    signer: bytes
    references: tuple[Reference, ...]
    findings: tuple[Finding, ...] = ()


def accept(proven: Proven, leg: Leg) -> Accepted:
    """Accept a proven message under `leg`.

    Raises `FailedAuthentication` (signer of another party), `ProcessingModeMismatch`,
    `ValueInconsistent`, `MimeInconsistency` (sizes).
    """
    if not isinstance(proven, Proven):
        raise TypeError("policy judges what was proven")
    message = proven.user_message
    if not _belongs(proven, leg.from_party):
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


def _belongs(proven: Proven, party: Party) -> bool:
    """Whether the signer is the party of the agreement: pinned, or vouched for by its very rule and as this party."""
    sender = proven.user_message.from_party
    if sender != party.party_id and not (party.pattern and sender.type == party.party_id.type):
        return False
    if proven.voucher is None:
        return proven.signer in party.signing
    return party.trust is not None and proven.voucher == Voucher(party.trust, sender)


def check_properties(message: UserMessage, leg: Leg, profile: Profile) -> None:
    """The rules for message and part properties. Raises `ValueInconsistent`, `ProcessingModeMismatch`."""
    if not (message.is_test or message.is_update):
        # These have the security and the parties of the real thing, but no corners behind them.
        _check_message_properties(message, leg, profile)
    for number, info in enumerate(message.parts, 1):
        _check_part(info, f"eb:PartInfo[{number}]")


def _check_message_properties(message: UserMessage, leg: Leg, profile: Profile) -> None:
    if profile.four_corner:
        for name in _CORNERS:
            values = [p.value for p in message.properties if p.name == name]
            # Two would let two readers route to two corners.
            if len(values) != 1 or not values[0].strip():
                raise ValueInconsistent(f"not exactly one {name}", where=f"{_PROPERTY}[{name}]")
    names = {p.name for p in message.properties}
    refusals = [_property_refusal(names, rules, leg, profile) for rules in leg.property_sets]
    if None not in refusals:
        # The set that has most in common with the message is the one it was meant to be.
        near = max(range(len(refusals)), key=lambda n: len(names & {rule.name for rule in leg.property_sets[n]}))
        raise refusals[near]


def _property_refusal(
    names: set[str], rules: tuple[PropertyRule, ...], leg: Leg, profile: Profile
) -> ValueInconsistent | ProcessingModeMismatch | None:
    """What is wrong with properties of these names by one set of rules; None when nothing is."""
    for rule in rules:
        if rule.required and rule.name not in names:
            return ValueInconsistent(
                f"the agreement demands the property {rule.name}",
                where=f"{_PROPERTY}[{told(rule.name)}]",
            )
    allowed = {rule.name for rule in rules}.union(_CORNERS if profile.four_corner else ())
    if leg.closed_properties and not names <= allowed:
        return ProcessingModeMismatch(
            "a message property that the agreement does not name",
            where=f"{_PROPERTY}[{told(min(names - allowed))}]",
        )
    return None


def _check_part(info: PartInfo, place: str) -> None:
    """Compression, media type and character set of one part [as4 4.1]. `place` names it for the peer."""
    if info.cid is None:
        raise ValueInconsistent("a payload that is no MIME part", where=f"{place}/@href")
    place = f"{place}/eb:PartProperties/eb:Property"
    names = [p.name for p in info.properties]
    for name in _OWN_PART_PROPERTIES:
        if names.count(name) > 1:
            raise ValueInconsistent("a part property of the MSH is given twice", where=f"{place}[{name}]")
    compression = info.value_of(ns.COMPRESSION_TYPE)
    if compression is not None:
        if compression != ns.GZIP:
            raise ValueInconsistent("a compression other than gzip", where=f"{place}[CompressionType]")
        if info.mime_type is None:
            raise ValueInconsistent("compressed without MimeType", where=f"{place}[MimeType]")
    if info.mime_type is not None and not _MEDIA_TYPE.fullmatch(info.mime_type):
        raise ValueInconsistent("MimeType is no media type", where=f"{place}[MimeType]")
    charset = info.value_of(ns.CHARACTER_SET)
    if charset is not None and not _ENCODING_NAME.fullmatch(charset):
        raise ValueInconsistent("CharacterSet is no encoding name", where=f"{place}[CharacterSet]")


def _check_sizes(parts: tuple[ProvenPart, ...], leg: Leg) -> None:
    """The agreement's bounds, on the content: on the wire, compression would hide it."""
    for number, part in enumerate(parts, 1):
        if part.size > leg.max_part:
            where = f"eb:PartInfo[{number}]: larger than agreed"
            raise MimeInconsistency("a part is larger than the agreement allows", where=where, status=413)
    if sum(part.size for part in parts) > leg.max_message:
        where = "eb:PayloadInfo: larger than agreed"
        raise MimeInconsistency("the message is larger than the agreement allows", where=where, status=413)


def _findings(parts: tuple[ProvenPart, ...]) -> Iterator[Finding]:
    said = {"xml": "canonical XML", "text": "text with CRLF"}
    for number, part in enumerate(parts, 1):
        if part.digest_form in said:
            text = f"part {number} was digested as {said[part.digest_form]}; compressing it is more robust"
            yield Finding("A-01", "warning", text, f"MIME part {number}")
