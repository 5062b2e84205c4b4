"""One test per rule: a right message breaks none, and each break is found by its own rule."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from msgspec.structs import replace

from gateway.as4 import ns
from gateway.as4.units import PartInfo, PartyId, Property, Service, UserMessage
from gateway.oots import birth, codes, edm, headers, samples

LV, EE = f"{codes.UNREGISTERED}LV", f"{codes.EAS_SCHEME}0191"
AT = datetime(2026, 9, 1, 8, 0, tzinfo=UTC)
ID = UUID(int=1)


def part(cid: str, media_type: str = codes.REGREP_MEDIA_TYPE, *more: Property) -> PartInfo:
    return PartInfo(f"cid:{cid}", (Property("MimeType", media_type), *more))


REQUEST = UserMessage(
    message_id="0a6f5a0e-7c41-4c53-9a83-1d2f00000001@ap.example.lv",
    timestamp=AT,
    from_party=PartyId("AP_LV_01", LV),
    from_role=codes.ROLE,
    to_party=PartyId("AP_EE_01", f"{codes.UNREGISTERED}EE"),
    to_role=codes.ROLE,
    service=Service(codes.QUERY_MANAGER, codes.SERVICE_TYPE),
    action=codes.REQUEST,
    conversation_id="5b0c9c0e-0f3b-4f0a-8f21-7a1a00000010",
    properties=(
        Property("originalSender", "LV-DEMO-ER-1", LV),
        Property("finalRecipient", "EE-DEMO-EP-1", EE),
        Property("ExchangeId", "c6d1a9b2-3a57-4c1e-b0d4-9f2200000020"),
        Property("SpecificationId", "oots-edm:v2.0"),
    ),
    parts=(part("request@lv", codes.REGREP_MEDIA_TYPE, Property("CompressionType", ns.GZIP)),),
)
RESPONSE = replace(
    REQUEST,
    message_id="0a6f5a0e-7c41-4c53-9a83-1d2f00000002@ap.example.ee",
    from_party=REQUEST.to_party,
    to_party=REQUEST.from_party,
    action=codes.RESPONSE,
    properties=(
        Property("originalSender", "EE-DEMO-EP-1", EE),
        Property("finalRecipient", "LV-DEMO-ER-1", LV),
        *REQUEST.properties[2:],
    ),
    parts=(part("response@ee"), part("certificate@ee", "application/pdf")),
)
EXCEPTION = replace(RESPONSE, action=codes.EXCEPTION, parts=(part("exception@ee"),))
OLD = replace(REQUEST, properties=REQUEST.properties[:2])
LIFECYCLE = replace(OLD, service=Service(codes.LIFECYCLE_MANAGER, codes.SERVICE_TYPE), action=codes.SUBMIT_REQUEST)

REQUEST_INDEX = edm.index(samples.request(birth.BIRTH, id=ID, at=AT).encode())
OLD_INDEX = replace(REQUEST_INDEX, specification=codes.EDM_1_2)
EXCEPTION_INDEX = edm.index(
    samples.preview_required(
        birth.BIRTH, request_id=f"urn:uuid:{ID}", response_id=ID, at=AT, location="https://p", description="Look"
    ).encode()
)
RESPONSE_INDEX = edm.index(
    samples.response(
        birth.BIRTH,
        request_id=f"urn:uuid:{ID}",
        response_id=ID,
        at=AT,
        documents=(samples.Document(cid="certificate@ee", title="t", evidence_id=ID, issued_on="2026-09-01"),),
    ).encode()
)


def broken(message, index=None, request=None) -> set[str]:
    return {finding.rule for finding in headers.check(message, index, request=request)}


def put(message: UserMessage, name: str, value: str | None, type: str | None = None) -> UserMessage:
    """`message` with one property replaced; None takes it away."""
    kept = tuple(p for p in message.properties if p.name != name)
    return replace(message, properties=kept if value is None else (*kept, Property(name, value, type)))


@pytest.mark.parametrize("message,index,request_", [
    (REQUEST, REQUEST_INDEX, None),
    (EXCEPTION, EXCEPTION_INDEX, REQUEST),
    (RESPONSE, RESPONSE_INDEX, REQUEST),
    (OLD, OLD_INDEX, None),
    (OLD, None, None),
    (LIFECYCLE, None, None),
    (replace(REQUEST, service=Service(ns.TEST_SERVICE), action=ns.TEST_ACTION, parts=(), properties=()), None, None),
])  # fmt: skip
def test_right_messages_break_no_rule(message, index, request_):
    assert headers.check(message, index, request=request_) == ()


CASES = [
    ("H-03", replace(REQUEST, timestamp=AT.replace(tzinfo=None)), None, None),
    ("H-04", replace(REQUEST, message_id="no-at-sign"), None, None),
    ("H-04", replace(REQUEST, message_id="two words@host"), None, None),
    ("H-07", replace(REQUEST, from_party=PartyId("AP_LV_01")), None, None),
    ("H-07", replace(REQUEST, to_party=PartyId("AP_EE_01", f"{codes.EAS_SCHEME}0000")), None, None),
    ("H-07", replace(REQUEST, to_party=PartyId("AP_EE_01", f"{codes.UNREGISTERED}Estonia")), None, None),
    ("H-07", replace(REQUEST, to_party=PartyId("AP_EE_01", codes.UNREGISTERED[:-1])), None, None),
    ("H-08", replace(REQUEST, to_role=ns.ROLE_RESPONDER), None, None),
    ("H-09", replace(REQUEST, service=Service("querymanager", codes.SERVICE_TYPE)), None, None),
    ("H-10", replace(REQUEST, service=Service(codes.QUERY_MANAGER)), None, None),
    ("H-11", replace(REQUEST, action="ExecuteQuery"), None, None),
    ("H-12", replace(EXCEPTION, action=codes.RESPONSE), EXCEPTION_INDEX, None),
    ("H-12", REQUEST, edm.EdmIndex(kind="lcm-request", specification=codes.EDM_2_0), None),
    ("H-13", replace(REQUEST, conversation_id="urn:uuid:5b0c9c0e-0f3b-4f0a-8f21-7a1a00000010"), None, None),
    ("H-14", replace(REQUEST, properties=(*REQUEST.properties, REQUEST.properties[0])), None, None),
    ("H-15", put(put(REQUEST, "ExchangeId", None), "conversation", "x"), None, None),
    ("H-16", put(REQUEST, "originalSender", " ", LV), None, None),
    ("H-16", put(REQUEST, "originalSender", "x"), None, None),
    ("H-17", put(REQUEST, "finalRecipient", "x"), None, None),
    ("H-18", put(REQUEST, "finalRecipient", "x", f"{codes.UNREGISTERED}oots"), None, None),
    ("H-19", put(REQUEST, "ExchangeId", "urn:uuid:c6d1a9b2-3a57-4c1e-b0d4-9f2200000020"), None, None),
    ("H-20", put(REQUEST, "SpecificationId", "oots-edm:v2.1"), None, None),
    ("H-21", put(REQUEST, "SpecificationId", "oots-edm:v1.2"), REQUEST_INDEX, None),
    ("H-22", put(EXCEPTION, "ExchangeId", "00000000-0000-4000-8000-000000000000"), None, REQUEST),
    ("H-22", replace(RESPONSE, conversation_id=str(ID)), None, REQUEST),
    ("H-23", replace(RESPONSE, to_party=PartyId("ap_lv_01", LV)), None, REQUEST),
    ("H-23", replace(RESPONSE, properties=REQUEST.properties), None, REQUEST),
    ("H-24", replace(REQUEST, parts=(*REQUEST.parts, part("b@lv"))), None, None),
    ("H-24", replace(EXCEPTION, parts=()), None, None),
    ("H-25", replace(RESPONSE, parts=()), None, None),
    ("H-26", replace(REQUEST, parts=(part("no-at-sign"),)), None, None),
    ("H-26", replace(REQUEST, parts=(PartInfo(None, REQUEST.parts[0].properties),)), None, None),
    ("H-27", replace(REQUEST, parts=(part("a@b", "application/xml"),)), None, None),
    ("H-28", replace(RESPONSE, parts=(part("certificate@ee", "application/pdf"),)), None, None),
    ("H-29", replace(RESPONSE, parts=(part("response@ee"), PartInfo("cid:certificate@ee"))), None, None),
    ("H-30", replace(REQUEST, parts=(part("a@b", codes.REGREP_MEDIA_TYPE, Property("CompressionType", "gzip")),)),
     None, None),
    ("H-31", replace(RESPONSE, parts=(part("response@ee"), part("certificate@ee", "text/html"))), None, None),
    ("H-31", replace(RESPONSE, parts=(part("response@ee"), part("certificate@ee", "image/png"))), RESPONSE_INDEX, None),
    ("H-32", replace(RESPONSE, parts=(part("response@ee"),)), RESPONSE_INDEX, None),
    ("H-32", replace(RESPONSE, parts=(*RESPONSE.parts, part("more@ee", "image/png"))), RESPONSE_INDEX, None),
    ("H-33", replace(RESPONSE, parts=(part("a@ee"), part("%61@ee", "application/pdf"))), None, None),
    ("H-35", replace(LIFECYCLE, action=codes.REQUEST), None, None),
    ("H-35", replace(LIFECYCLE, parts=()), None, None),
]  # fmt: skip


@pytest.mark.parametrize("rule,message,index,request_", CASES, ids=[f"{c[0]}-{n}" for n, c in enumerate(CASES)])
def test_a_breach_is_found(rule, message, index, request_):
    assert rule in broken(message, index, request_)


@pytest.mark.parametrize("rule,message,index,request_", [
    c for c in CASES if c[0] in {"H-03", "H-04", "H-08", "H-09", "H-10", "H-13", "H-19", "H-20", "H-23", "H-26", "H-30"}
])  # fmt: skip
def test_and_by_no_other_rule(rule, message, index, request_):
    assert broken(message, index, request_) == {rule}


def test_every_rule_of_the_table_is_accounted_for():
    known = [rule.id for rule in headers.RULES] + [*headers.DECIDED_BY_THE_READER, *headers.CONVENTIONS]
    assert sorted(known) == [f"H-{n:02}" for n in range(1, 36)]
    assert {case[0] for case in CASES} == {rule.id for rule in headers.RULES}


def test_the_line_is_chosen_before_anything_is_judged():
    assert headers.rule_set(REQUEST) == "2.0" and headers.rule_set(OLD) == "1.x"
    assert headers.rule_set(OLD, OLD_INDEX) == "1.x" and headers.rule_set(OLD, REQUEST_INDEX) == "2.0"
    assert broken(OLD, REQUEST_INDEX) == {"H-14", "H-15"}
    assert broken(REQUEST, OLD_INDEX) == {"H-14", "H-15", "H-21"}
    assert headers.rule_set(put(OLD, "ExchangeId", str(ID))) == "2.0"
    assert headers.rule_set(put(OLD, "SpecificationId", "oots-edm:v1.2")) == "1.x"


def test_a_finding_tells_line_rule_and_published_name():
    (finding,) = headers.check(replace(REQUEST, conversation_id="\x1b[31m" + "x" * 500))
    assert finding.rule == "H-13" and finding.severity == "fatal" and finding.official == "R-EDM-ebMS-017"
    assert str(finding).startswith("oots 2.0 H-13, R-EDM-ebMS-017: eb:ConversationId '\\x1b[31m")
    assert len(str(finding)) < 200 and str(finding).isprintable()
    (warning,) = headers.check(next(message for rule, message, *_ in CASES if rule == "H-28"))
    assert warning.severity == "warning"


def test_deviations_of_the_field_are_findings_and_nothing_worse():
    """[oots 2.7]: corners without type, ids in another case, corners not swapped."""
    message = put(REQUEST, "originalSender", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:C1")
    assert broken(message) == {"H-16"}
