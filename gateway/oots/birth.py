"""A scenario to start from: Latvia asks Estonia for proof of registration of birth.

Procedure R1 of annex II of the SDG Regulation. Organisations, person and identifiers are
invented; the schemes and codes are real ones.
"""

from uuid import UUID

from gateway.oots import codes
from gateway.oots.pdf import Line, page
from gateway.oots.samples import EvidenceType, Scenario
from gateway.oots.sdg import Agent, Person

BIRTH = Scenario(
    requester=Agent(
        id="LV-DEMO-ER-1", scheme=f"{codes.UNREGISTERED}LV", name="Demo municipality of Riga", country="LV"
    ),
    provider=Agent(
        id="EE-DEMO-EP-1", scheme=f"{codes.EAS_SCHEME}0191", name="Demo population register of Estonia", country="EE"
    ),
    subject=Person(
        family_name="Bērziņa",
        given_name="Anna",
        date_of_birth="1999-03-14",
        eidas_id="EE/LV/DEMO-0001",
        level_of_assurance="High",
        place_of_birth="Tartu",
    ),
    procedure="R1",
    requirement=UUID("2f5f5d0e-51c5-4c39-9a3e-6b0d5a6c1d01"),
    requirement_name="Proof of registration of birth",
    evidence=EvidenceType(
        data_service=UUID("6d1c7a44-97de-4f0b-8f43-0c52e3b7aa02"),
        classification=(
            f"{codes.SEMANTIC_REPOSITORY}evidencetypeclassifications/EE/8a1de3b0-0b43-4f6c-93b5-4e1f6c0b9d03"
        ),
        title="Birth certificate",
    ),
)


def certificate(scenario: Scenario, *, number: str, issued_on: str) -> bytes:
    """The evidence itself: one page of PDF, marked as a specimen on its face."""
    person = scenario.subject
    rows = [
        ("Surname · Perekonnanimi · Uzvārds", person.family_name),
        ("Given name · Eesnimi · Vārds", person.given_name),
        ("Date of birth · Sünniaeg · Dzimšanas datums", person.date_of_birth),
        ("Place of birth · Sünnikoht · Dzimšanas vieta", person.place_of_birth or "–"),
        ("Entry number · Kande number · Ieraksta numurs", number),
        ("Issued on · Väljastatud · Izsniegts", issued_on),
        ("Issued by · Väljastaja · Izdevējs", scenario.provider.name or scenario.provider.id),
    ]
    lines = [
        Line("Sünnitõend", size=24, bold=True),
        Line("Birth certificate · Dzimšanas apliecība", size=14, gap=4),
    ]
    for label, text in rows:
        lines += [Line(label, size=9, gap=16), Line(text, size=13, bold=True)]
    lines.append(
        Line("A specimen made by a demonstration. The person is invented; this proves nothing.", size=9, gap=40)
    )
    return page("Sünnitõend (specimen)", lines, watermark="SPECIMEN")
