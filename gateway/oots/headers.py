"""The OOTS rules for the ebMS header, as a table with one function per rule [oots 2.4].

Findings are advice: the access point receives, acknowledges and delivers, and the software
behind it answers with an exchange error [tdd 4.7.1]. Nothing here refuses anything.

The line of the specification is chosen before anything is judged: what 2.0 demands (four
message properties) 1.x forbids, so the wrong rule set would condemn every right message.

The numbers are the project's own (H-01 … of the header, E-01 … of the document); `official` is
the published identifier where it is attested. The functions are in `rules` and `crosschecks`.
"""

from collections.abc import Iterator
from itertools import islice

from gateway.as4 import ns
from gateway.as4.findings import MOST, Finding
from gateway.as4.units import UserMessage
from gateway.oots import codes, crosschecks, rules
from gateway.oots.edm import EdmIndex
from gateway.oots.rules import KINDS, Case, Line, Rule

__all__ = ["CONVENTIONS", "DECIDED_BY_THE_READER", "RULES", "Finding", "Line", "Rule", "check", "kind_of", "rule_set"]

#: Decided before a UserMessage exists: the header reader refuses what breaks these [as4 2.2].
DECIDED_BY_THE_READER = ("H-01", "H-02", "H-05", "H-06")
#: Not an assertion but the way content ids are compared; see `edm.content_id`.
CONVENTIONS = ("H-34",)

_ALL = "QRE?L"
_QUERY = "QRE?"

_MESSAGE, _PARTIES = "eb:MessageInfo", "eb:PartyInfo"
_COLLABORATION, _PROPERTIES = "eb:CollaborationInfo", "eb:MessageProperties"
_PAYLOAD, _DOCUMENT = "eb:PayloadInfo", "the leading document"
_SENDER, _RECIPIENT = f"{_PROPERTIES}/{ns.ORIGINAL_SENDER}", f"{_PROPERTIES}/{ns.FINAL_RECIPIENT}"
_SPECIFICATION = f"{_PROPERTIES}/{codes.SPECIFICATION_ID}"
_MIME = f"{_PAYLOAD}/eb:PartInfo[1]/MimeType"

RULES: tuple[Rule, ...] = (
    Rule("H-03", "fatal", _ALL, rules.timestamp, f"{_MESSAGE}/eb:Timestamp"),
    Rule("H-04", "fatal", _ALL, rules.message_id, f"{_MESSAGE}/eb:MessageId"),
    Rule("H-07", "fatal", _ALL, rules.party_types, f"{_PARTIES}/*/eb:PartyId/@type", "R-EDM-ebMS-006"),
    Rule("H-08", "fatal", _ALL, rules.roles, f"{_PARTIES}/*/eb:Role"),
    Rule("H-09", "fatal", _QUERY, rules.service, f"{_COLLABORATION}/eb:Service"),
    Rule("H-10", "fatal", _ALL, rules.service_type, f"{_COLLABORATION}/eb:Service/@type"),
    Rule("H-11", "fatal", _QUERY, rules.action, f"{_COLLABORATION}/eb:Action"),
    Rule("H-12", "fatal", "QRE", crosschecks.action_fits, f"{_COLLABORATION}/eb:Action"),
    Rule("H-13", "fatal", _ALL, rules.conversation, f"{_COLLABORATION}/eb:ConversationId", "R-EDM-ebMS-017"),
    Rule("H-14", "fatal", _QUERY, rules.property_count, _PROPERTIES, "R-EDM-ebMS-018"),
    Rule("H-15", "fatal", _QUERY, rules.property_names, _PROPERTIES, "R-EDM-ebMS-019"),
    Rule("H-16", "fatal", _ALL, rules.corner(ns.ORIGINAL_SENDER), _SENDER),
    Rule("H-17", "fatal", _ALL, rules.corner(ns.FINAL_RECIPIENT), _RECIPIENT),
    Rule("H-18", "fatal", _ALL, rules.corner_types, f"{_PROPERTIES}/*/@type", "R-EDM-ebMS-021"),
    Rule("H-19", "fatal", _QUERY, rules.exchange, f"{_PROPERTIES}/ExchangeId", "R-EDM-ebMS-037", line="2.0"),
    Rule("H-20", "fatal", _QUERY, rules.specification, _SPECIFICATION, "R-EDM-ebMS-038", line="2.0"),
    Rule("H-21", "fatal", _QUERY, crosschecks.one_specification, _SPECIFICATION),
    Rule("H-22", "fatal", "RE", crosschecks.repeats, _COLLABORATION),
    Rule("H-23", "fatal", "RE", crosschecks.answers, _PARTIES),
    Rule("H-24", "fatal", "QE", rules.one_part, _PAYLOAD, "R-EDM-ebMS-023"),
    Rule("H-25", "fatal", "R", rules.some_part, _PAYLOAD),
    Rule("H-26", "fatal", _ALL, rules.first_href, f"{_PAYLOAD}/eb:PartInfo[1]/@href"),
    Rule("H-27", "fatal", "QE", rules.first_type, _MIME, "R-EDM-ebMS-030"),
    Rule("H-28", "warning", "R", rules.first_type, _MIME, "R-EDM-ebMS-032"),
    Rule("H-29", "fatal", _ALL, rules.mime_types, _PAYLOAD),
    Rule("H-30", "fatal", _ALL, rules.compression, _PAYLOAD),
    Rule("H-31", "warning", "R", crosschecks.evidence_types, _PAYLOAD),
    Rule("H-32", "fatal", "R", crosschecks.references, _PAYLOAD),
    Rule("H-33", "fatal", _ALL, rules.content_ids, _PAYLOAD),
    Rule("H-35", "fatal", "L", rules.lifecycle, _COLLABORATION),
    # E-01, a document that is none, is told by whoever reads it: `advice`.
    Rule("E-02", "fatal", "QRE", crosschecks.request_id, f"{_DOCUMENT}: @id", "R-EDM-REQ-S004"),
    Rule("E-03", "fatal", "QRE", crosschecks.answered_id, f"{_DOCUMENT}: @requestId"),
    Rule("E-04", "fatal", "Q", crosschecks.replayed, f"{_DOCUMENT}: @id"),
    Rule("E-05", "warning", "Q", crosschecks.corners_fit, _PROPERTIES),
    Rule("E-06", "warning", "RE", crosschecks.unasked, f"{_DOCUMENT}: @requestId"),
)


def check(
    message: UserMessage,
    index: EdmIndex | None = None,
    *,
    request: UserMessage | None = None,
    looked: bool = False,
    replayed: bool = False,
) -> tuple[Finding, ...]:
    """The broken rules, in the order of the table; at most `findings.MOST`.

    Rules that need the document are judged only with `index`, those that compare with the request
    only with `request`. `looked`: the request was looked for, so that its absence says something.
    `replayed`: another message brought a request of the same id. The test service has no rules.
    """
    if message.is_test:
        return ()
    case = Case(message, index, request, rule_set(message, index), kind_of(message), looked, replayed)
    return tuple(islice(_findings(case), MOST))


def _findings(case: Case) -> Iterator[Finding]:
    for rule in RULES:
        if case.kind in rule.applies and rule.line in (None, case.line):
            for text in rule.broken(case):
                yield Finding(rule.id, rule.severity, text, rule.where, rule.official, case.line)


def kind_of(message: UserMessage) -> str:
    """Q, R, E; L for the lifecycle manager; ? for an unknown action."""
    return "L" if message.service.value == codes.LIFECYCLE_MANAGER else KINDS.get(message.action, "?")


def rule_set(message: UserMessage, index: EdmIndex | None = None) -> Line:
    """Property and slot mean 2.0, the slot alone 1.x [tdd 4.7 2.6.2]. Where they disagree the slot
    decides: it is the older promise, and the disagreement is a finding of its own. Without either,
    a property that only 2.0 has tells."""
    announced = message.value_of(codes.SPECIFICATION_ID)
    told = index.specification if index is not None else None
    for text in (told, announced):
        if text and text.strip().startswith("oots-edm:v"):
            return "1.x" if text.strip().startswith("oots-edm:v1.") else "2.0"
    newer = {codes.SPECIFICATION_ID, codes.EXCHANGE_ID} & {p.name for p in message.properties}
    return "2.0" if newer else "1.x"
