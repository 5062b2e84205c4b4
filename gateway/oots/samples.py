"""The documents of an exchange in two rounds, as XML text.

    request 1 → preview required → (the user looks and decides) → request 2 → response

In the packaging of 2.0, or flat as in 1.2 [oots 3.8]; the line is `Scenario.specification`.
Builders are pure: identifiers and times are arguments, so the same call gives the same text,
and round 2 differs from round 1 by exactly what it must [tdd 4.9]. They write what the demo,
the tests and a beginner need, not everything the schemas allow.

A text that XML cannot carry is `SubmissionRefused`.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID, uuid5

from msgspec import Struct

from gateway.oots import codes
from gateway.oots import elements as write
from gateway.oots.sdg import Agent, Person


class EvidenceType(Struct, frozen=True, kw_only=True):
    """What is asked for: an entry of the Data Service Directory. `title` in English."""

    data_service: UUID
    classification: str
    title: str
    media_type: str = "application/pdf"


class Scenario(Struct, frozen=True, kw_only=True):
    """What stays the same in all documents of an exchange."""

    requester: Agent
    provider: Agent
    subject: Person
    procedure: str
    requirement: UUID
    requirement_name: str
    evidence: EvidenceType
    specification: str = codes.EDM_2_0

    @property
    def packaged(self) -> bool:
        """Whether this is the 2.0 line."""
        return self.specification != codes.EDM_1_2


class Document(Struct, frozen=True, kw_only=True):
    """A document of a response: the MIME part `cid`. `role` counts in 2.0 only: MainEvidence,
    Annex, HumanReadableVersion or Translation."""

    cid: str
    title: str
    evidence_id: UUID
    issued_on: str
    media_type: str = "application/pdf"
    role: str = "MainEvidence"


# -- the four documents ----------------------------------------------------------------


def request(
    scenario: Scenario,
    *,
    id: UUID,
    at: datetime,
    preview_location: str | None = None,
    return_location: str | None = None,
) -> str:
    """query:QueryRequest; the second round when `preview_location` is given [tdd 4.5.1]."""
    procedure = (
        write.string("Procedure", scenario.procedure)
        if scenario.packaged
        else write.slot("Procedure", "InternationalString", write.international(scenario.procedure))
    )
    return write.document(
        "query:QueryRequest",
        {"id": f"urn:uuid:{id}"},
        [
            write.string("SpecificationIdentifier", scenario.specification),
            write.moment("IssueDateTime", at),
            procedure,
            write.string("PreviewLocation", preview_location) if preview_location else "",
            write.string("ReturnLocation", return_location) if return_location and scenario.packaged else "",
            write.slot("PossibilityForPreview", "Boolean", "<rim:Value>true</rim:Value>"),
            write.slot("ExplicitRequestGiven", "Boolean", "<rim:Value>true</rim:Value>"),
            write.collection(
                "Requirements",
                f"<sdg:Requirement><sdg:Identifier>{codes.SEMANTIC_REPOSITORY}requirements/{scenario.requirement}"
                f'</sdg:Identifier><sdg:Name lang="EN">{write.text(scenario.requirement_name)}</sdg:Name>'
                "</sdg:Requirement>",
            ),
            write.collection("EvidenceRequester", write.agent(scenario.requester, "ER")),
            write.slot("EvidenceProvider", "Any", write.agent(scenario.provider)),
            '<query:ResponseOption returnType="LeafClassWithRepositoryItem"/>',
            '<query:Query queryDefinition="DocumentQuery">',
            write.slot(
                "NaturalPerson", "Any", f"<sdg:Person>{write.person(scenario.subject, assurance=True)}</sdg:Person>"
            ),
            write.slot("EvidenceRequest", "Any", _evidence_type(scenario.evidence)),
            "</query:Query>",
        ],
    )


def preview_required(
    scenario: Scenario, *, request_id: str, response_id: UUID, at: datetime, location: str, description: str
) -> str:
    """The exception that sends the user to `location` (https) [tdd 4.5.3, 4.9]."""
    method = "" if scenario.packaged else write.string("PreviewMethod", "GET")
    return _failure(
        scenario, request_id, response_id, "EDM:ERR:0002", codes.SEVERITY_PREVIEW,
        "Preview by the user is needed before the evidence can be released",
        write.moment("Timestamp", at) + write.string("PreviewLocation", location)
        + write.slot("PreviewDescription", "InternationalString", write.international(description)) + method,
    )  # fmt: skip


def failure(
    scenario: Scenario, *, request_id: str, response_id: UUID, at: datetime, code: str, detail: str = ""
) -> str:
    """Any other error response: `code` is one of `codes.EDM_ERRORS` [tdd 4.5.3]."""
    return _failure(
        scenario, request_id, response_id, code, codes.SEVERITY_ERROR, detail, write.moment("Timestamp", at)
    )  # fmt: skip


def response(
    scenario: Scenario, *, request_id: str, response_id: UUID, at: datetime, documents: tuple[Document, ...]
) -> str:
    """query:QueryResponse with status Success. No documents: nothing found, or the user declined;
    the two look alike by design [tdd 4.5.2]. In 2.0 the first document is the main evidence."""
    return write.document(
        "query:QueryResponse",
        {"requestId": request_id, "status": f"{codes.STATUS}Success"},
        [
            write.string("SpecificationIdentifier", scenario.specification),
            write.string("EvidenceResponseIdentifier", str(response_id)),
            write.moment("IssueDateTime", at),
            write.collection("EvidenceProvider", write.agent(scenario.provider, "EP")),
            write.slot("EvidenceRequester", "Any", write.agent(scenario.requester)),
            "<rim:RegistryObjectList>",
            *(_package(scenario, response_id, documents) if scenario.packaged and documents else ()),
            *(_flat(scenario, response_id, documents) if not scenario.packaged else ()),
            "</rim:RegistryObjectList>",
        ],
    )


# -- the list of documents ----------------------------------------------------------------


def _package(scenario: Scenario, response_id: UUID, documents: tuple[Document, ...]) -> Iterable[str]:
    """One package of main evidence and its supplements, tied by associations [tdd 4.5.2, 2.0]."""
    yield f'<rim:RegistryObject xsi:type="rim:RegistryPackageType" id="{_object_id(response_id, "package")}">'
    yield "<rim:RegistryObjectList>"
    main = _object_id(response_id, documents[0].cid)
    for document in documents:
        id = _object_id(response_id, document.cid)
        classification = (
            f'<rim:Classification id="{_object_id(response_id, "role " + document.cid)}"'
            f' classificationScheme="{codes.CLASSIFICATION_SCHEME}" classificationNode="{write.text(document.role)}"/>'
        )
        role, tie = write.text(document.role), _object_id(response_id, "tie " + document.cid)
        supplement = document.role != "MainEvidence"
        yield _object(id, _evidence(scenario, document, supplement=supplement), document, classification)
        if supplement:
            yield (
                f'<rim:RegistryObject xsi:type="rim:AssociationType" id="{tie}" type="{codes.ASSOCIATION}{role}"'
                f' sourceObject="{id}" targetObject="{main}"/>'
            )
    yield "</rim:RegistryObjectList></rim:RegistryObject>"


def _flat(scenario: Scenario, response_id: UUID, documents: tuple[Document, ...]) -> Iterable[str]:
    """1.x: every document is evidence of its own."""
    for document in documents:
        yield _object(_object_id(response_id, document.cid), _evidence(scenario, document), document)


def _object(id: str, evidence: str, document: Document, classification: str = "") -> str:
    href, title = write.text(f"cid:{document.cid}"), write.text(document.title)
    return (
        f'<rim:RegistryObject xsi:type="rim:ExtrinsicObjectType" id="{id}">'
        f"{write.slot('EvidenceMetadata', 'Any', evidence)}{classification}"
        f'<rim:RepositoryItemRef xlink:href="{href}" xlink:title="{title}"/>'
        "</rim:RegistryObject>"
    )


def _evidence(scenario: Scenario, document: Document, *, supplement: bool = False) -> str:
    """sdg:Evidence. A supplement says no more than what it is and how it is written (S063)."""
    identifier = f"<sdg:Identifier>{document.evidence_id}</sdg:Identifier>"
    distribution = f"<sdg:Distribution><sdg:Format>{write.text(document.media_type)}</sdg:Format></sdg:Distribution>"
    if supplement:
        return f"<sdg:Evidence>{identifier}{distribution}</sdg:Evidence>"
    provider = scenario.provider
    return (
        f"<sdg:Evidence>{identifier}"
        f"<sdg:IsAbout><sdg:NaturalPerson>{write.person(scenario.subject)}</sdg:NaturalPerson></sdg:IsAbout>"
        f"<sdg:IssuingAuthority>{write.identity(provider)}</sdg:IssuingAuthority>"
        f"<sdg:IsConformantTo><sdg:EvidenceTypeClassification>{write.text(scenario.evidence.classification)}"
        f'</sdg:EvidenceTypeClassification><sdg:Title lang="EN">{write.text(scenario.evidence.title)}</sdg:Title>'
        f"</sdg:IsConformantTo><sdg:IssuingDate>{write.text(document.issued_on)}</sdg:IssuingDate>"
        f"{distribution}</sdg:Evidence>"
    )


def _object_id(response_id: UUID, name: str) -> str:
    """Registry object ids follow from the response, so that builders stay pure."""
    return f"urn:uuid:{uuid5(response_id, name)}"


# -- pieces --------------------------------------------------------------------------------


def _failure(
    scenario: Scenario, request_id: str, response_id: UUID, code: str, severity: str, detail: str, slots: str
) -> str:
    kind, message = codes.EDM_ERRORS[code]
    return write.document(
        "query:QueryResponse",
        {"requestId": request_id, "status": f"{codes.STATUS}Failure"},
        [
            write.string("SpecificationIdentifier", scenario.specification),
            write.string("EvidenceResponseIdentifier", str(response_id)),
            write.slot("ErrorProvider", "Any", write.agent(scenario.provider, "ERRP")),
            write.slot("EvidenceRequester", "Any", write.agent(scenario.requester)),
            f'<rs:Exception xsi:type="{kind}" code="{code}" message="{message}" severity="{severity}"'
            + (f' detail="{write.text(detail)}"' if detail else "")
            + f">{slots}</rs:Exception>",
        ],
    )


def _evidence_type(evidence: EvidenceType) -> str:
    return (
        f"<sdg:DataServiceEvidenceType><sdg:Identifier>{evidence.data_service}</sdg:Identifier>"
        f"<sdg:EvidenceTypeClassification>{write.text(evidence.classification)}</sdg:EvidenceTypeClassification>"
        f'<sdg:Title lang="EN">{write.text(evidence.title)}</sdg:Title>'
        f"<sdg:DistributedAs><sdg:Format>{write.text(evidence.media_type)}</sdg:Format></sdg:DistributedAs>"
        "</sdg:DataServiceEvidenceType>"
    )
