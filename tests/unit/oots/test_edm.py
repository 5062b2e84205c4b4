from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.oots import birth, codes, edm, samples
from gateway.oots.edm import EdmUnreadable
from gateway.oots.sdg import Agent

AT = datetime(2026, 9, 1, 8, 0, tzinfo=UTC)
ID = UUID("11111111-1111-4111-8111-111111111111")
ANSWER = UUID("55555555-5555-4555-8555-555555555555")
KEY = b"a key for tests"
OLD = msgspec.structs.replace(birth.BIRTH, specification=codes.EDM_1_2)
LINES = [pytest.param(birth.BIRTH, id="2.0"), pytest.param(OLD, id="1.2")]


def documents(*roles: str) -> tuple[samples.Document, ...]:
    return tuple(
        samples.Document(cid=f"doc-{n}@oots.example.ee", title=f"Document {n}", evidence_id=UUID(int=n),
                         issued_on="2026-09-01", role=role)
        for n, role in enumerate(roles, 1)
    )  # fmt: skip


def answer(scenario=birth.BIRTH, *roles: str) -> bytes:
    return samples.response(
        scenario, request_id=f"urn:uuid:{ID}", response_id=ANSWER, at=AT, documents=documents(*roles)
    ).encode()


def preview(scenario=birth.BIRTH, location="https://preview.example.ee/p/1") -> bytes:
    return samples.preview_required(
        scenario, request_id=f"urn:uuid:{ID}", response_id=ANSWER, at=AT, location=location,
        description="Look at the certificate",
    ).encode()  # fmt: skip


@pytest.mark.parametrize("scenario", LINES)
def test_request(scenario):
    found = edm.index(samples.request(scenario, id=ID, at=AT).encode())
    assert found.kind == "request" and found.outcome is None and found.round == 1
    assert found.request_id == f"urn:uuid:{ID}"
    assert found.specification == scenario.specification
    assert found.issued_at == AT
    assert found.procedure == "R1"
    assert found.requirements == (f"{codes.SEMANTIC_REPOSITORY}requirements/{scenario.requirement}",)
    assert found.preview_possible is True and found.explicit_request is True
    assert found.requester == Agent(
        id="LV-DEMO-ER-1", scheme=f"{codes.UNREGISTERED}LV", name=scenario.requester.name, country="LV",
        classification="ER",
    )  # fmt: skip
    assert found.provider.id == "EE-DEMO-EP-1" and found.provider.scheme.endswith("EAS:0191")
    assert found.subject_kind == "NaturalPerson" and not found.represented
    assert found.evidence_type == scenario.evidence.classification
    assert found.data_service == str(scenario.evidence.data_service)
    assert found.formats == ("application/pdf",)


@pytest.mark.parametrize("scenario", LINES)
def test_second_round(scenario):
    text = samples.request(
        scenario, id=ID, at=AT, preview_location="https://p.example.ee/1", return_location="https://r.example.lv/2"
    )
    found = edm.index(text.encode())
    assert found.round == 2 and found.preview_url == "https://p.example.ee/1"
    assert found.return_url == ("https://r.example.lv/2" if scenario.packaged else None)


@pytest.mark.parametrize("scenario", LINES)
def test_preview(scenario):
    found = edm.index(preview(scenario))
    assert found.outcome == "preview" and found.status == "Failure"
    assert found.preview_url == "https://preview.example.ee/p/1"
    assert found.request_id == f"urn:uuid:{ID}" and found.response_id == str(ANSWER)
    assert found.issued_at == AT
    (exception,) = found.exceptions
    assert exception.code == "EDM:ERR:0002" and exception.type == "rs:AuthorizationExceptionType"
    assert found.provider.classification == "ERRP" and found.requester.id == "LV-DEMO-ER-1"


@pytest.mark.parametrize("location", ["javascript:alert(1)", "http://preview.example.ee/p", "", "https:/one"])
def test_a_location_a_browser_must_not_open_is_no_preview(location):
    found = edm.index(preview(location=location))
    assert found.preview_url is None and found.outcome == "error"


@pytest.mark.parametrize("code", sorted(codes.EDM_ERRORS))
def test_errors(code):
    text = samples.failure(
        birth.BIRTH, request_id="urn:uuid:x", response_id=ANSWER, at=AT, code=code, detail="a <rule> & \"more\""
    )  # fmt: skip
    found = edm.index(text.encode())
    assert found.outcome == "error"
    assert found.exceptions == (
        edm.EdmException(
            code=code, type=codes.EDM_ERRORS[code][0], severity=codes.SEVERITY_ERROR,
            message=codes.EDM_ERRORS[code][1], detail="a <rule> & \"more\"",
        ),
    )  # fmt: skip


@pytest.mark.parametrize("scenario", LINES)
def test_evidence(scenario):
    found = edm.index(answer(scenario, "MainEvidence", "Translation"))
    assert found.outcome == "evidence" and found.status == "Success"
    assert [a.href for a in found.attachments] == ["cid:doc-1@oots.example.ee", "cid:doc-2@oots.example.ee"]
    assert [a.role for a in found.attachments] == (
        ["MainEvidence", "Translation"] if scenario.packaged else [None, None]
    )
    assert {a.media_type for a in found.attachments} == {"application/pdf"}
    assert found.evidence_ids == (str(UUID(int=1)), str(UUID(int=2)))
    assert found.evidence_type == scenario.evidence.classification
    assert found.provider.classification == "EP" and found.subject_kind == "NaturalPerson"


@pytest.mark.parametrize("scenario", LINES)
def test_nothing_found_and_declined_look_alike(scenario):
    found = edm.index(answer(scenario))
    assert found.outcome == "empty" and found.attachments == ()


def test_deferred():
    text = (
        answer()
        .replace(b"Type:Success", b"Type:Unavailable")
        .replace(
            b"<rim:RegistryObjectList>",
            b'<rim:Slot name="ResponseAvailableDateTime"><rim:SlotValue xsi:type="rim:DateTimeValueType">'
            b"<rim:Value>2026-09-05T10:00:00+03:00</rim:Value></rim:SlotValue></rim:Slot><rim:RegistryObjectList>",
        )
    )
    found = edm.index(text)
    assert found.outcome == "deferred" and found.available_at == datetime(2026, 9, 5, 7, 0, tzinfo=UTC)


def test_bound_by_namespace_not_by_prefix():
    text = preview().decode()
    for prefix in ("query", "rim", "rs", "sdg", "xsi"):
        text = text.replace(f"<{prefix}:", f"<x{prefix}:").replace(f"</{prefix}:", f"</x{prefix}:")
        text = text.replace(f"xmlns:{prefix}=", f"xmlns:x{prefix}=").replace(f'"{prefix}:', f'"x{prefix}:')
        text = text.replace(f" {prefix}:type", f" x{prefix}:type")
    assert edm.index(text.encode()) == edm.index(preview())


def test_a_default_namespace_on_inner_elements():
    text = samples.request(birth.BIRTH, id=ID, at=AT)
    inner = text.replace("<sdg:DataServiceEvidenceType>", f'<DataServiceEvidenceType xmlns="{codes.SDG}">').replace(
        "</sdg:DataServiceEvidenceType>", "</DataServiceEvidenceType>"
    )
    assert inner != text and edm.index(inner.encode()) == edm.index(text.encode())


def test_an_unbound_type_prefix_is_no_type():
    text = preview().replace(b'xsi:type="rs:Authorization', b'xsi:type="nowhere:Authorization')
    assert edm.index(text).exceptions[0].type is None


def test_padding_comments_and_instructions_are_passed_over():
    plain = samples.request(birth.BIRTH, id=ID, at=AT)
    padded = plain.replace("<rim:Value>R1<", "<rim:Value>\n      R1 \n<").replace(
        "<query:Query ", "<?SR_metadata a='<!--'?><!-- <?not this?> --><query:Query "
    )
    padded = padded.replace("?>\n<query", "?>\n<?xml-stylesheet href='x'?><query", 1)
    assert edm.index(padded.encode()) == edm.index(plain.encode())
    utf16 = padded.replace('encoding="UTF-8"', 'encoding="UTF-16"').encode("utf-16")
    assert edm.index(utf16) == edm.index(plain.encode())


def test_the_subject_is_indexed_by_keyed_hash_only():
    octets = samples.request(birth.BIRTH, id=ID, at=AT).encode()
    assert edm.index(octets).subject_keys == ()
    keys = edm.index(octets, subject_key=KEY).subject_keys
    assert len(keys) == 2 and keys == edm.index(answer(birth.BIRTH, "MainEvidence"), subject_key=KEY).subject_keys
    folded = octets.replace("Bērziņa".encode(), b"BERZINA")
    assert edm.index(folded, subject_key=KEY).subject_keys == keys
    assert edm.index(octets, subject_key=b"another").subject_keys != keys
    assert "rzi" not in msgspec.json.encode(edm.index(octets, subject_key=KEY)).decode()


def test_subject_for_the_provider():
    assert edm.subject(samples.request(birth.BIRTH, id=ID, at=AT).encode()) == birth.BIRTH.subject
    assert edm.subject(answer()) is None


def test_endless_values_count_as_none():
    octets = samples.request(birth.BIRTH, id=ID, at=AT).encode().replace(b">R1<", b">" + b"R" * 2000 + b"<")
    assert edm.index(octets).procedure is None


@pytest.mark.parametrize("octets", [
    pytest.param(b"", id="nothing"),
    pytest.param(b"%PDF-1.4", id="not XML"),
    pytest.param(b"<a/>", id="another root"),
    pytest.param(b'<QueryRequest xmlns="urn:x"/>', id="right name, other namespace"),
    pytest.param(preview()[:-9], id="cut off"),
    pytest.param(preview() + b"<x/>", id="trailing bytes"),
    pytest.param(b'<!DOCTYPE x [<!ENTITY a "b">]>' + preview(), id="DTD"),
    pytest.param(b"\xff\xfe\x00", id="half a UTF-16 unit"),
    pytest.param(b"<!DOCTYPE x>" + b"<!--" * 500_000, id="a thousand openings"),
    pytest.param(b"<?a" * 500_000, id="instructions that never end"),
    pytest.param(b"<a>" * 300, id="deep"),
    pytest.param(b" " * (5 << 20), id="too large"),
])  # fmt: skip
def test_unreadable(octets):
    with pytest.raises(EdmUnreadable):
        edm.index(octets)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@example(b"<?xml version='1.0' encoding='latin-1'?><a/>")
def test_noise_raises_nothing_else(octets):
    with pytest.raises(EdmUnreadable):
        edm.index(octets)


@given(st.data())
def test_mutants_raise_nothing_else(data):
    octets = bytearray(data.draw(st.sampled_from([preview(), answer(birth.BIRTH, "MainEvidence")])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(octets) - 1))
        octets[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=10))
    try:
        edm.index(bytes(octets), subject_key=KEY)
    except EdmUnreadable:
        pass


@pytest.mark.parametrize(
    "reference,expected",
    [("cid:a@b", "a@b"), ("<a@b>", "a@b"), ("CID:%3Ca%40b%3E", "<a@b>"), (" a@b ", "a@b"), ("cid:a%2540b", "a%40b")],
)
def test_content_id(reference, expected):
    assert edm.content_id(reference) == expected
