"""Every rule in both version lines: a right message breaks none, and each break is found by its own rule."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from msgspec.structs import replace

from gateway.as4 import ns
from gateway.as4.findings import MOST
from gateway.as4.units import PartInfo, PartyId, Property, Service, UserMessage
from gateway.oots import birth, codes, edm, headers, samples
from gateway.oots.sdg import Agent

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


def old(message: UserMessage | None) -> UserMessage | None:
    """The message as 1.2 has it: without the two properties of 2.0."""
    newer = {"ExchangeId", "SpecificationId"}
    return message and replace(message, properties=tuple(p for p in message.properties if p.name not in newer))


OLD = old(REQUEST)
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


def aged(index):
    """The index of the same document in version 1.2."""
    return index and replace(index, specification=codes.EDM_1_2)


def broken(message, index=None, request=None, **more) -> set[str]:
    return {finding.rule for finding in headers.check(message, index, request=request, **more)}


def put(message: UserMessage, name: str, value: str | None, type: str | None = None) -> UserMessage:
    """`message` with one property replaced; None takes it away."""
    kept = tuple(p for p in message.properties if p.name != name)
    return replace(message, properties=kept if value is None else (*kept, Property(name, value, type)))


@pytest.mark.parametrize("message,index,request_", [
    (REQUEST, REQUEST_INDEX, None),
    (EXCEPTION, EXCEPTION_INDEX, REQUEST),
    (RESPONSE, RESPONSE_INDEX, REQUEST),
    (RESPONSE, RESPONSE_INDEX, None),
    (OLD, OLD_INDEX, None),
    (old(EXCEPTION), aged(EXCEPTION_INDEX), OLD),
    (old(RESPONSE), aged(RESPONSE_INDEX), OLD),
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


CASES += [
    ("E-02", REQUEST, replace(REQUEST_INDEX, request_id="11111111-1111-4111-8111-111111111111"), None),
    ("E-02", REQUEST, replace(REQUEST_INDEX, request_id=None), None),
    ("E-03", RESPONSE, replace(RESPONSE_INDEX, request_id="urn:uuid:1"), None),
    ("E-03", EXCEPTION, replace(EXCEPTION_INDEX, request_id=None), None),
    ("E-05", put(REQUEST, "originalSender", "LV-DEMO-ER-2", LV), REQUEST_INDEX, None),
    ("E-05", put(REQUEST, "finalRecipient", "LV-DEMO-ER-1", LV), REQUEST_INDEX, None),
]  # fmt: skip

#: What 1.2 says in other words, or not at all.
ONLY_2_0 = {"H-14", "H-15", "H-19", "H-20", "H-21", "H-22"}
OLD_CASES = [(rule, old(m), aged(i), old(r)) for rule, m, i, r in CASES if rule not in ONLY_2_0] + [
    ("H-14", put(OLD, "trackingIdentifier", "x"), None, None),
    ("H-14", put(OLD, "finalRecipient", None), None, None),
    ("H-14", REQUEST, OLD_INDEX, None),
    ("H-15", put(put(OLD, "finalRecipient", None), "conversation", "x"), None, None),
    ("H-15", REQUEST, OLD_INDEX, None),
    ("H-21", REQUEST, OLD_INDEX, None),
    ("H-22", replace(old(RESPONSE), conversation_id=str(ID)), aged(RESPONSE_INDEX), OLD),
]


@pytest.mark.parametrize(
    "line,rule,message,index,request_",
    [("2.0", *case) for case in CASES] + [("1.x", *case) for case in OLD_CASES],
    ids=[f"2.0-{c[0]}-{n}" for n, c in enumerate(CASES)] + [f"1.x-{c[0]}-{n}" for n, c in enumerate(OLD_CASES)],
)
def test_a_breach_is_found(line, rule, message, index, request_):
    findings = [f for f in headers.check(message, index, request=request_) if f.rule == rule]
    assert findings and (line == "2.0" or {f.line for f in findings} == {line})
    assert all(f.message and f.where and len(f.message) < 300 and f.message.isprintable() for f in findings)


def test_rules_of_2_0_say_nothing_about_1_x():
    """What the 2.0 rule set demands, the 1.2 rule set forbids: neither is asked of the other's messages."""
    bad = put(put(REQUEST, "ExchangeId", "x"), "SpecificationId", "oots-edm:v1.2")
    assert {"H-19", "H-20"}.isdisjoint(broken(bad)) and headers.rule_set(bad) == "1.x"
    assert "H-19" in broken(put(REQUEST, "ExchangeId", "x"))


def test_a_request_that_came_before_and_an_answer_to_none():
    assert broken(REQUEST, REQUEST_INDEX, replayed=True) == {"E-04"}
    assert broken(RESPONSE, RESPONSE_INDEX, looked=True) == {"E-06"}
    assert broken(RESPONSE, RESPONSE_INDEX, REQUEST, looked=True) == set()
    unreadable = replace(
        EXCEPTION_INDEX, request_id=None, exceptions=(edm.EdmException(type="rs:InvalidRequestExceptionType"),)
    )
    assert broken(EXCEPTION, unreadable, looked=True) == set()


def test_an_intermediary_may_stand_for_the_requester():
    index = replace(REQUEST_INDEX, intermediary=Agent(id="LV-PLATFORM"))
    assert broken(put(REQUEST, "originalSender", " LV-PLATFORM ", LV), index) == set()


def test_findings_are_bounded():
    parts = tuple(part(f"{n}@ee", "text/html") for n in range(64))
    assert len(headers.check(replace(RESPONSE, parts=parts), RESPONSE_INDEX)) == MOST


def test_no_finding_repeats_who_the_corners_are_or_what_the_document_says():
    secret = "Anna-Bērziņa-140399"
    message = put(put(RESPONSE, "originalSender", secret, LV), "finalRecipient", secret, LV)
    index = replace(
        RESPONSE_INDEX,
        specification=secret,
        request_id=secret,
        requester=Agent(id=secret, name=secret),
        provider=Agent(id=secret, name=secret),
        attachments=(edm.Attachment(href=f"cid:{secret}", title=secret, media_type=secret, evidence_id=secret),),
        exceptions=(edm.EdmException(message=secret, detail=secret, code=secret),),
    )
    question = replace(message, action=codes.REQUEST)
    texts = [
        str(finding)
        for case in (message, replace(message, action=codes.EXCEPTION), question)
        for shape in (index, replace(index, kind="request"))
        for finding in headers.check(case, shape, request=REQUEST, looked=True, replayed=True)
    ]
    assert len(texts) > 20 and not any("Anna" in text or "140399" in text for text in texts)


@pytest.mark.parametrize("rule,message,index,request_", [
    c for c in CASES if c[0] in {"H-03", "H-04", "H-08", "H-09", "H-10", "H-13", "H-19", "H-20", "H-23", "H-26", "H-30"}
])  # fmt: skip
def test_and_by_no_other_rule(rule, message, index, request_):
    assert broken(message, index, request_) == {rule}


def test_every_rule_of_the_table_is_accounted_for():
    known = [rule.id for rule in headers.RULES] + [*headers.DECIDED_BY_THE_READER, *headers.CONVENTIONS]
    assert sorted(known) == [f"E-{n:02}" for n in range(2, 7)] + [f"H-{n:02}" for n in range(1, 36)]
    apart = {"E-04", "E-06"}  # test_a_request_that_came_before_and_an_answer_to_none
    assert {case[0] for case in CASES} == {rule.id for rule in headers.RULES} - apart
    lines = {rule.id for rule in headers.RULES if rule.line in (None, "1.x")}
    assert {case[0] for case in OLD_CASES} == lines - apart


def test_the_document_lists_them_all():
    page = (Path(__file__).parents[3] / "docs" / "conformance.md").read_text()
    for rule in headers.RULES:
        kinds = rule.applies.replace("?", "")
        severity = rule.severity[0].upper()
        row = f"| {rule.id} | {rule.official or ''} | {severity} | {rule.line or 'both'} | {kinds} |".replace("|  |", "| |")
        assert row in page, row
    assert all(f"| {id} | " in page for id in (*headers.DECIDED_BY_THE_READER, *headers.CONVENTIONS, "E-00", "E-01"))


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
    assert str(finding).startswith("H-13, R-EDM-ebMS-017, line 2.0 (fatal): eb:ConversationId '\\x1b[31m")
    assert len(str(finding)) < 200 and str(finding).isprintable()
    (warning,) = headers.check(next(message for rule, message, *_ in CASES if rule == "H-28"))
    assert warning.severity == "warning"


def test_deviations_of_the_field_are_findings_and_nothing_worse():
    """[oots 2.7]: corners without type, ids in another case, corners not swapped."""
    message = put(REQUEST, "originalSender", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:C1")
    assert broken(message) == {"H-16"}
