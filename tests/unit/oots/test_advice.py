"""What is said about one message, and what is kept of its document."""

import json
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.oots import advice, birth, codes, edm, facts, samples
from tests.unit.oots.test_headers import EXCEPTION, LIFECYCLE, OLD, REQUEST, RESPONSE, old

AT = datetime(2026, 9, 1, 8, 0, tzinfo=UTC)
ID = UUID(int=1)
OLD_SCENARIO = msgspec.structs.replace(birth.BIRTH, specification=codes.EDM_1_2)


def question(scenario=birth.BIRTH, **more) -> bytes:
    return samples.request(scenario, id=ID, at=AT, **more).encode()


def answer(scenario=birth.BIRTH) -> bytes:
    document = samples.Document(cid="certificate@ee", title="Anna's papers", evidence_id=ID, issued_on="2026-09-01")
    return samples.response(
        scenario, request_id=f"urn:uuid:{ID}", response_id=ID, at=AT, documents=(document,)
    ).encode()


def failure(detail: str) -> bytes:
    return samples.failure(
        birth.BIRTH, request_id=f"urn:uuid:{ID}", response_id=ID, at=AT, code="EDM:ERR:0004", detail=detail
    ).encode()


def rules(found: advice.Advice) -> list[str]:
    return [finding.rule for finding in found.findings]


@pytest.mark.parametrize("line,message,octets", [
    ("2.0", REQUEST, question()), ("2.0", RESPONSE, answer()), ("2.0", EXCEPTION, failure("none")),
    ("1.x", OLD, question(OLD_SCENARIO)), ("1.x", old(RESPONSE), answer(OLD_SCENARIO)),
])  # fmt: skip
def test_a_right_message_in_both_lines(line, message, octets):
    found = advice.judge(message, advice.read(octets))
    assert found.findings == () and found.line == line
    assert found.document["specification"] == {"2.0": codes.EDM_2_0, "1.x": codes.EDM_1_2}[line]
    assert found.request_id == (f"urn:uuid:{ID}" if message.action == codes.REQUEST else None)


def test_the_document_chooses_the_line():
    found = advice.judge(REQUEST, advice.read(question(OLD_SCENARIO)))
    assert found.line == "1.x" and rules(found) == ["H-14", "H-15", "H-21"]
    found = advice.judge(OLD, advice.read(question()))
    assert found.line == "2.0" and rules(found) == ["H-14", "H-15"]


def test_a_request_and_its_twin():
    reading = advice.read(question())
    assert advice.judge(REQUEST, reading, requests=[]).findings == ()
    assert advice.judge(REQUEST, reading, requests=[REQUEST]).findings == ()  # itself, come again
    twin = msgspec.structs.replace(REQUEST, message_id="2@x")
    assert rules(advice.judge(REQUEST, reading, requests=[REQUEST, twin])) == ["E-04"]


def test_an_answer_and_its_request():
    reading = advice.read(answer())
    assert advice.judge(RESPONSE, reading, requests=[REQUEST]).findings == ()
    assert rules(advice.judge(RESPONSE, reading, requests=[])) == ["E-06"]
    assert advice.judge(RESPONSE, reading, requests=None).findings == ()
    other = msgspec.structs.replace(REQUEST, conversation_id=str(UUID(int=9)))
    assert rules(advice.judge(RESPONSE, reading, requests=[other])) == ["H-22"]


@pytest.mark.parametrize("octets", [
    b"", b"\0" * 50, b"%PDF-1.7 ...", b"<", b"<a/>", b"<a>" * 100_000, b"<a>" * 200 + b"</a>" * 200,
    b"<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
    b"<!DOCTYPE a SYSTEM 'http://127.0.0.1:9/dtd'><a/>",
    b'<?xml version="1.0" encoding="EBCDIC-CP-BE"?><a/>',
    b'<?xml version="1.0" encoding="iso-8859-1"?><a>\xe9</a>',
    b'<?xml version="1.1"?><a/>',
    b"\xff\xfe<\0a\0", b"\xef\xbb\xbf<a/>", b"<a b='" + b"x" * 900_000 + b"'/>",
    b"<a>" + b"<b/>" * 200_000 + b"</a>",
    b"<?p?>" * 150_000 + b"<a/>", b"<!---->" * 140_000 + b"<a/>", b"<a><![CDATA[" * 2,
    b"<a " + b" ".join(b"a%d='1'" % n for n in range(50_000)) + b"/>",
    b"<a " + b" ".join(b"xmlns:p%d='urn:%d'" % (n, n) for n in range(20_000)) + b"/>",
], ids=lambda o: f"{o[:12]!r}-{len(o)}")  # fmt: skip
def test_what_is_no_document_is_one_finding(octets):
    reading = advice.read(octets)
    assert reading.index is None and reading.finding.rule == "E-01"
    found = advice.judge(REQUEST, reading)
    assert rules(found) == ["E-01"] and found.document is None and found.request_id is None
    assert len(str(found.findings[0])) < 300 and str(found.findings[0]).isprintable()


def test_what_is_too_large_is_not_judged():
    reading = advice.read(b"<" * (advice.MAX_DOCUMENT + 1))
    assert reading.finding.rule == "E-00" and reading.finding.severity == "warning"
    assert rules(advice.judge(OLD, reading)) == ["E-00"]


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda t: f"<a>{t}</a>".encode(errors="replace")))
def test_reading_never_raises(octets):
    assert advice.read(octets).finding is not None


def test_the_lifecycle_manager_has_documents_of_its_own():
    octets = f'<lcm:SubmitObjectsRequest xmlns:lcm="{codes.LCM}" id="urn:uuid:{ID}"/>'.encode()
    found = advice.judge(LIFECYCLE, advice.read(octets))
    assert found.findings == () and found.document == {"kind": "lcm-request", "request_id": f"urn:uuid:{ID}"}
    assert found.request_id is None


def test_without_a_document_the_header_is_judged():
    empty = msgspec.structs.replace(REQUEST, parts=())
    assert rules(advice.judge(empty, advice.Reading())) == ["H-24"]


# -- what is kept -------------------------------------------------------------------------


def test_nothing_about_a_person_is_kept():
    person = birth.BIRTH.subject
    secrets = [
        person.family_name, person.given_name, person.date_of_birth, person.eidas_id, person.place_of_birth,
        "Anna's papers", "portal.example", "No birth of Anna",
    ]  # fmt: skip
    shapes = [
        question(preview_location="https://p.example/1", return_location="https://portal.example/77aa"), answer(),
        failure("No birth of Anna found"),
    ]  # fmt: skip
    for octets in shapes:
        index = edm.index(octets, subject_key=b"key")
        text = json.dumps(facts.kept(index), ensure_ascii=False)
        assert len(text) > 200 and not [secret for secret in secrets if secret in text]
        assert not set(index.subject_keys) & set(text.split('"'))


def test_what_is_kept_can_be_searched():
    kept = facts.kept(edm.index(question(preview_location="https://p.example/1")))
    assert kept["kind"] == "request" and kept["round"] == 2 and kept["preview_url"] == "https://p.example/1"
    assert kept["requester"] == {
        "id": "LV-DEMO-ER-1", "scheme": f"{codes.UNREGISTERED}LV", "country": "LV", "classification": "ER"
    }  # fmt: skip
    assert (kept["procedure"], kept["evidence_type"]) == ("R1", birth.BIRTH.evidence.classification)
    kept = facts.kept(edm.index(answer()))
    assert kept["outcome"] == "evidence" and kept["evidence_ids"] == [str(ID)]
    assert kept["attachments"] == [
        {"href": "cid:certificate@ee", "role": "MainEvidence", "media_type": "application/pdf", "evidence_id": str(ID)}
    ]
    kept = facts.kept(edm.index(failure("R-EDM-ebMS-017")))
    assert kept["exceptions"][0]["detail"] == "R-EDM-ebMS-017" and kept["exceptions"][0]["code"] == "EDM:ERR:0004"


def test_values_that_are_no_identifiers_are_not_kept():
    index = edm.EdmIndex(
        kind="request", request_id="Anna Bērziņa", procedure="x" * 300, requirements=("ok", "a b", "ā"),
        provider=edm.Agent(id="Jānis Kalniņš, 1980"), intermediary=edm.Agent(id="OK", scheme="a b"),
        exceptions=(edm.EdmException(code="a\nb", detail="R-EDM-ebMS-017 and more"),), evidence_ids=("e",) * 100,
        attachments=(edm.Attachment(href="cid:Anna Bērziņa@x"),) * 100,
    )  # fmt: skip
    kept = facts.kept(index)
    assert kept["requirements"] == ["ok"] and kept["intermediary"] == {"id": "OK"} and kept["exceptions"] == [{}]
    assert {"request_id", "procedure", "provider"}.isdisjoint(kept)
    assert len(kept["evidence_ids"]) == len(kept["attachments"]) == 64 and kept["attachments"][0] == {"href": ""}
