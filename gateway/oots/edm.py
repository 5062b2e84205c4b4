"""The index of an exchange document: what can be searched and shown without keeping the document.

An OOTS message leads with a RegRep 4 document: a request, a response, an error. `index`
reads from it what [oots 3.10] lists, for both shapes in the field (1.x flat, 2.0 packages).
It binds by namespace, never by prefix, and is tolerant: a missing or strange value is None,
an unknown slot is passed over, padding around a value is trimmed. Only a document that is
no exchange document at all is `EdmUnreadable`, and nothing else is raised.

The index is kept for twelve months, so it holds no personal data: the subject is there only
as a kind and, where the caller has a key, as keyed hashes [oots 5.4]. Values are bounded,
since a peer chose them. Whether the document is *right* is not judged here; see `headers`.
"""

import hashlib
import hmac
import unicodedata
from collections.abc import Iterator
from datetime import datetime
from typing import Literal
from urllib.parse import unquote

from msgspec import Struct

from gateway.as4.ns import qn
from gateway.as4.xml import Element
from gateway.oots import codes, sdg
from gateway.oots.regrep import (
    EdmUnreadable,
    Slots,
    attribute,
    boolean,
    child,
    content,
    moment,
    parse,
    slots,
    value,
    xsi_type,
)
from gateway.oots.sdg import Agent, Person

__all__ = ["Attachment", "EdmException", "EdmIndex", "EdmUnreadable", "content_id", "index", "subject"]

Kind = Literal["request", "response", "lcm-request", "lcm-response"]
Outcome = Literal["evidence", "empty", "deferred", "preview", "error"]

_KINDS: dict[str, Kind] = {
    qn(codes.QUERY, "QueryRequest"): "request",
    qn(codes.QUERY, "QueryResponse"): "response",
    qn(codes.LCM, "SubmitObjectsRequest"): "lcm-request",
    qn(codes.RS, "RegistryResponse"): "lcm-response",
}
_PREFIXES = {codes.RS: "rs", codes.QUERY: "query", codes.RIM: "rim"}
_SUBJECTS = ("NaturalPerson", "LegalPerson")


class Attachment(Struct, frozen=True, omit_defaults=True):
    """A document that a response refers to. `href` as written; `role` is None in 1.x."""

    href: str
    title: str | None = None
    role: str | None = None
    media_type: str | None = None
    evidence_id: str | None = None


class EdmException(Struct, frozen=True, omit_defaults=True):
    """rs:Exception. `type` has the conventional prefix of its namespace, whatever was written."""

    code: str | None = None
    type: str | None = None
    severity: str | None = None
    message: str | None = None
    detail: str | None = None


class EdmIndex(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is kept of one exchange document. Times are aware UTC; urls are https or absent."""

    kind: Kind
    outcome: Outcome | None = None
    status: str | None = None
    request_id: str | None = None
    response_id: str | None = None
    specification: str | None = None
    issued_at: datetime | None = None
    available_at: datetime | None = None
    procedure: str | None = None
    requirements: tuple[str, ...] = ()
    preview_possible: bool | None = None
    explicit_request: bool | None = None
    round: int | None = None
    preview_url: str | None = None
    return_url: str | None = None
    requester: Agent | None = None
    provider: Agent | None = None
    intermediary: Agent | None = None
    subject_kind: Literal["NaturalPerson", "LegalPerson"] | None = None
    subject_keys: tuple[str, ...] = ()
    represented: bool = False
    evidence_type: str | None = None
    data_service: str | None = None
    formats: tuple[str, ...] = ()
    evidence_ids: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    exceptions: tuple[EdmException, ...] = ()


# -- the two doors ----------------------------------------------------------------


def index(octets: bytes, *, charset: str | None = None, subject_key: bytes | None = None) -> EdmIndex:
    """The index of a document of at most `MAX_DOCUMENT` octets. With `subject_key` the subject is indexed as
    HMAC-SHA256 over its folded name and date of birth, and over its eIDAS identifier.

    Raises `EdmUnreadable`.
    """
    root, kind = _document(octets, charset)
    if kind == "request":
        return _index_request(root, subject_key)
    if kind == "response":
        return _index_response(root, subject_key)
    return EdmIndex(kind=kind, request_id=attribute(root, "id") or attribute(root, "requestId"),
                    status=_tail(root), exceptions=_exceptions(root))  # fmt: skip


def subject(octets: bytes, *, charset: str | None = None) -> Person | None:
    """The natural person a request is about, for a provider that has to find them.

    None when the request is about a legal person, or lacks a mandatory field. Raises
    `EdmUnreadable`.
    """
    root, _ = _document(octets, charset)
    return sdg.person(_subject_element(root, "NaturalPerson"))


def content_id(reference: str) -> str:
    """The content id a `cid:` reference or a MIME header names: without `cid:`, without `<>`,
    percent-decoded once [oots H-34]."""
    reference = reference.strip()
    if reference[:4].lower() == "cid:":
        reference = reference[4:]
    return unquote(reference.strip("<>"))


# -- requests and responses --------------------------------------------------------


def _index_request(root: Element, subject_key: bytes | None) -> EdmIndex:
    said, query = slots(root), child(root, qn(codes.QUERY, "Query"))
    asked = slots(query)
    evidence_type = sdg.inside(asked.get("EvidenceRequest"), "DataServiceEvidenceType")
    agents = sdg.agents(said.get("EvidenceRequester"))
    kind = next((name for name in _SUBJECTS if asked.get(name) is not None), None)
    return EdmIndex(
        kind="request",
        request_id=attribute(root, "id"),
        specification=value(said, "SpecificationIdentifier"),
        issued_at=moment(value(said, "IssueDateTime")),
        procedure=_procedure(said),
        requirements=sdg.texts(said.get("Requirements"), "Requirement", "Identifier"),
        preview_possible=boolean(value(said, "PossibilityForPreview")),
        explicit_request=boolean(value(said, "ExplicitRequestGiven")),
        round=2 if said.get("PreviewLocation") is not None else 1,
        preview_url=_https(value(said, "PreviewLocation")),
        return_url=_https(value(said, "ReturnLocation")),
        requester=_classified(agents, "ER") or next((a for a in agents if a.classification is None), None),
        provider=next(iter(sdg.agents(said.get("EvidenceProvider"))), None),
        intermediary=_classified(agents, "IP"),
        subject_kind=kind,
        subject_keys=_subject_keys(_subject_element(root, kind), subject_key) if subject_key else (),
        represented=any(
            asked.get(name) is not None for name in ("AuthorizedRepresentative", "AuthorizedRepresentativeLegalPerson")
        ),
        evidence_type=sdg.text(evidence_type, "EvidenceTypeClassification"),
        data_service=sdg.text(evidence_type, "Identifier"),
        formats=sdg.texts(evidence_type, "DistributedAs", "Format"),
    )


def _index_response(root: Element, subject_key: bytes | None) -> EdmIndex:
    said, failure = slots(root), child(root, qn(codes.RS, "Exception"))
    failed = slots(failure)
    providers = sdg.agents(said.get("EvidenceProvider"))
    exceptions = _exceptions(root)
    attachments = tuple(_attachments(root))
    preview_url = _https(value(failed, "PreviewLocation"))
    about = next(root.iter(qn(codes.SDG, "IsAbout")), None)
    kind = next((name for name in _SUBJECTS if about is not None and sdg.child(about, name) is not None), None)
    return EdmIndex(
        kind="response",
        outcome=_outcome(root, exceptions, preview_url),
        status=_tail(root),
        request_id=attribute(root, "requestId"),
        response_id=value(said, "EvidenceResponseIdentifier"),
        specification=value(said, "SpecificationIdentifier"),
        issued_at=moment(value(said, "IssueDateTime") or value(failed, "Timestamp")),
        available_at=moment(value(said, "ResponseAvailableDateTime")),
        preview_url=preview_url,
        requester=next(iter(sdg.agents(said.get("EvidenceRequester"))), None),
        provider=_classified(providers, "EP")
        or next(iter(sdg.agents(said.get("ErrorProvider"))), None)
        or next((a for a in providers if a.classification is None), None),
        intermediary=_classified(providers, "IP"),
        subject_kind=kind,
        subject_keys=_subject_keys(sdg.child(about, kind) if kind else None, subject_key),
        evidence_type=next(iter(sdg.texts(root, "IsConformantTo", "EvidenceTypeClassification")), None),
        formats=tuple(dict.fromkeys(sdg.texts(root, "Distribution", "Format"))),
        evidence_ids=sdg.texts(root, "Evidence", "Identifier"),
        attachments=attachments,
        exceptions=exceptions,
    )


def _outcome(root: Element, exceptions: tuple[EdmException, ...], preview_url: str | None) -> Outcome:
    """The severity tells a preview, not the code: 0002 is also a plain refusal [tdd 4.5.3]. A preview
    without a location that a browser may be sent to is an error for everyone involved."""
    status = _tail(root)
    if status == "Success":
        return "evidence" if next(_objects(root), None) is not None else "empty"
    if status == "Unavailable":
        return "deferred"
    if preview_url and any((e.severity or "").endswith(":PreviewRequired") for e in exceptions):
        return "preview"
    return "error"


def _objects(root: Element) -> Iterator[Element]:
    """The documents of a response: registry objects that are neither packages nor associations."""
    for element in root.iter(qn(codes.RIM, "RegistryObject")):
        if xsi_type(element) not in (qn(codes.RIM, "RegistryPackageType"), qn(codes.RIM, "AssociationType")):
            yield element


def _attachments(root: Element) -> Iterator[Attachment]:
    for number, element in enumerate(_objects(root)):
        reference = child(element, qn(codes.RIM, "RepositoryItemRef"))
        href = attribute(reference, qn(codes.XLINK, "href"))
        if href is None or number >= sdg.MAX_ITEMS:
            continue
        evidence = sdg.inside(slots(element).get("EvidenceMetadata"), "Evidence")
        yield Attachment(
            href=href,
            title=attribute(reference, qn(codes.XLINK, "title")),
            role=attribute(child(element, qn(codes.RIM, "Classification")), "classificationNode"),
            media_type=next(iter(sdg.texts(evidence, "Distribution", "Format")), None),
            evidence_id=sdg.text(evidence, "Identifier"),
        )


def _exceptions(root: Element) -> tuple[EdmException, ...]:
    found = []
    for element in root.findall(qn(codes.RS, "Exception"))[: sdg.MAX_ITEMS]:
        name = xsi_type(element)
        if name and name.startswith("{"):
            namespace, _, local = name[1:].partition("}")
            name = f"{_PREFIXES[namespace]}:{local}" if namespace in _PREFIXES else local
        found.append(EdmException(
            code=attribute(element, "code"), type=name, severity=attribute(element, "severity"),
            message=attribute(element, "message"), detail=attribute(element, "detail"),
        ))  # fmt: skip
    return tuple(found)


def _classified(agents: list[Agent], classification: str) -> Agent | None:
    return next((agent for agent in agents if agent.classification == classification), None)


# -- the subject -------------------------------------------------------------------


def _subject_element(root: Element, kind: str | None) -> Element | None:
    found = slots(child(root, qn(codes.QUERY, "Query"))).get(kind) if kind else None
    return sdg.inside(found, "LegalPerson" if kind == "LegalPerson" else "Person")


def _subject_keys(element: Element | None, key: bytes | None) -> tuple[str, ...]:
    """Equal for equal people, whatever the spelling's case and accents. Equality leaks to whoever
    holds the index, the values do not."""
    if element is None or not key:
        return ()
    person = sdg.person(element)
    plain = [f"{_folded(person.family_name)}|{_folded(person.given_name)}|{person.date_of_birth}"] if person else []
    for name in ("Identifier", "LegalPersonIdentifier"):
        found = (content(identifier) for identifier in element.findall(qn(codes.SDG, name)))
        plain += [f"{name}|{text.upper()}" for text in found if text]
    return tuple(hmac.new(key, text.encode(), hashlib.sha256).hexdigest() for text in plain[: sdg.MAX_ITEMS])


def _folded(name: str) -> str:
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    return "".join(c for c in decomposed if c.isalnum())


def _procedure(said: Slots) -> str | None:
    """2.0 writes a string, 1.x an international string with the code in an attribute."""
    found = said.get("Procedure")
    localized = next(found.iter(qn(codes.RIM, "LocalizedString")), None) if found is not None else None
    return attribute(localized, "value") or value(said, "Procedure")


def _tail(root: Element) -> str | None:
    """The last word of @status, when it is in the RegRep family."""
    status = attribute(root, "status") or ""
    return status[len(codes.STATUS) :] if status.startswith(codes.STATUS) else None


def _https(text: str | None) -> str | None:
    """A browser will be sent there: `javascript:` and friends do not get into the index [oots 3.4]."""
    return text if text and text.lower().startswith("https://") else None


def _document(octets: bytes, charset: str | None) -> tuple[Element, Kind]:
    root = parse(octets, charset)
    kind = _KINDS.get(root.tag)
    if kind is None:
        raise EdmUnreadable("the root element is not one of an exchange document")
    return root, kind
