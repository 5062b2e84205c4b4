from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import msgspec
import pytest

from gateway.as4 import xml
from gateway.as4.ns import qn
from gateway.errors import SubmissionRefused
from gateway.oots import birth, codes, edm, samples

AT = datetime(2026, 9, 1, 8, 0, 2, 987654, tzinfo=UTC)
ID, ID2 = UUID(int=1), UUID(int=2)
OLD = msgspec.structs.replace(birth.BIRTH, specification=codes.EDM_1_2)


def request(scenario=birth.BIRTH, **more) -> xml.Element:
    return xml.parse(samples.request(scenario, **{"id": ID, "at": AT} | more).encode())


def slots(element: xml.Element) -> list[str]:
    return [slot.get("name") for slot in element.findall(qn(codes.RIM, "Slot"))]


def response(scenario=birth.BIRTH, *roles: str) -> xml.Element:
    documents = tuple(
        samples.Document(cid=f"d{n}@ee", title="t", evidence_id=UUID(int=n), issued_on="2026-01-01", role=role)
        for n, role in enumerate(roles)
    )
    text = samples.response(scenario, request_id=f"urn:uuid:{ID}", response_id=ID2, at=AT, documents=documents)
    return xml.parse(text.encode())


def test_request_has_the_slots_of_its_line_and_no_other():
    common = ["SpecificationIdentifier", "IssueDateTime", "Procedure"]
    rest = ["PossibilityForPreview", "ExplicitRequestGiven", "Requirements", "EvidenceRequester", "EvidenceProvider"]
    assert slots(request()) == common + rest
    again = {"preview_location": "https://p", "return_location": "https://r"}
    assert slots(request(**again)) == [*common, "PreviewLocation", "ReturnLocation", *rest]
    assert slots(request(OLD, **again)) == [*common, "PreviewLocation", *rest]
    assert request().attrib == {"id": f"urn:uuid:{ID}"}  # xml:lang is forbidden in 2.0 (S059)


def test_round_two_differs_by_exactly_what_it_must():
    one = samples.request(birth.BIRTH, id=ID, at=AT).splitlines()
    two = samples.request(
        birth.BIRTH, id=ID2, at=AT + timedelta(seconds=5), preview_location="https://p", return_location="https://r"
    ).splitlines()
    new = [line for line in two if line not in one]
    assert len(new) == 4 and len([line for line in one if line not in two]) == 2
    for word in (f"urn:uuid:{ID2}", "08:00:07Z", "PreviewLocation", "ReturnLocation"):
        assert any(word in line for line in new)


def test_times_are_utc_to_the_second():
    at = AT.astimezone(timezone(timedelta(hours=3)))
    assert "<rim:Value>2026-09-01T08:00:02Z</rim:Value>" in samples.request(birth.BIRTH, id=ID, at=at)


def test_texts_are_escaped_and_utf8():
    person = msgspec.structs.replace(birth.BIRTH.subject, family_name="Ķ<&\"'>Õ")
    scenario = msgspec.structs.replace(birth.BIRTH, subject=person)
    assert edm.subject(samples.request(scenario, id=ID, at=AT).encode()).family_name == "Ķ<&\"'>Õ"
    title = "a\"b<c>&'d"
    document = samples.Document(cid="d@e", title=title, evidence_id=ID, issued_on="2026-01-01")
    text = samples.response(scenario, request_id="urn:uuid:x", response_id=ID, at=AT, documents=(document,))
    assert edm.index(text.encode()).attachments[0].title == title


@pytest.mark.parametrize("letter", ["\0", "\x0b", "\ufffe", "\ud800"])
def test_what_xml_cannot_carry_is_refused(letter):
    person = msgspec.structs.replace(birth.BIRTH.subject, family_name=f"x{letter}")
    with pytest.raises(SubmissionRefused):
        samples.request(msgspec.structs.replace(birth.BIRTH, subject=person), id=ID, at=AT)


def test_same_arguments_same_text():
    assert samples.request(birth.BIRTH, id=ID, at=AT) == samples.request(birth.BIRTH, id=ID, at=AT)
    assert xml.canonical(response(birth.BIRTH, "MainEvidence")) == xml.canonical(response(birth.BIRTH, "MainEvidence"))


def test_packaging_of_2_0():
    """Rules S046 to S066 of [oots 3.3], as far as they bind what we write."""
    root = response(birth.BIRTH, "MainEvidence", "Translation", "Annex")
    outer = root.find(qn(codes.RIM, "RegistryObjectList"))
    assert [regrep_type(o) for o in outer] == ["rim:RegistryPackageType"]
    inner = outer[0].findall(f"{qn(codes.RIM, 'RegistryObjectList')}/{qn(codes.RIM, 'RegistryObject')}")
    documents = {o.get("id"): o for o in inner if regrep_type(o) == "rim:ExtrinsicObjectType"}
    roles = {id: o.find(qn(codes.RIM, "Classification")).get("classificationNode") for id, o in documents.items()}
    assert list(roles.values()) == ["MainEvidence", "Translation", "Annex"]
    ties = [o for o in inner if regrep_type(o) == "rim:AssociationType"]
    assert len(ties) == 2
    for tie in ties:
        assert roles[tie.get("targetObject")] == "MainEvidence"
        assert tie.get("type") == codes.ASSOCIATION + roles[tie.get("sourceObject")]
    for id, o in documents.items():
        evidence = next(o.iter(qn(codes.SDG, "Evidence")))
        names = [child.tag.rpartition("}")[2] for child in evidence]
        if roles[id] == "MainEvidence":
            assert names == [
                "Identifier", "IsAbout", "IssuingAuthority", "IsConformantTo", "IssuingDate", "Distribution",
            ]  # fmt: skip
        else:
            assert names == ["Identifier", "Distribution"]
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids)) and all(UUID(id.removeprefix("urn:uuid:")) for id in ids)


def test_flat_list_of_1_2():
    objects = response(OLD, "MainEvidence", "Translation").find(qn(codes.RIM, "RegistryObjectList"))
    assert [regrep_type(o) for o in objects] == ["rim:ExtrinsicObjectType"] * 2
    assert not list(objects.iter(qn(codes.RIM, "Classification")))
    assert len(list(objects.iter(qn(codes.SDG, "IsAbout")))) == 2


def test_preview_method_is_1_2_only():
    texts = [
        samples.preview_required(
            s, request_id="urn:uuid:x", response_id=ID, at=AT, location="https://p", description="Look"
        )
        for s in (birth.BIRTH, OLD)
    ]
    assert "PreviewMethod" not in texts[0] and "PreviewMethod" in texts[1]


def test_identifiers_keep_their_bounds():
    """Agent identifiers below 256 characters, language codes in upper case, free texts longer than one."""
    for element in request().iter(qn(codes.SDG, "Name"), qn(codes.SDG, "Title")):
        assert element.get("lang") == "EN" and len(element.text) > 1
    for element in request().iter(qn(codes.SDG, "Identifier")):
        assert len(element.text) < 256


def regrep_type(element: xml.Element) -> str | None:
    return element.get(qn(codes.XSI, "type"))
