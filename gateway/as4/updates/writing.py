"""Documents of an agreement update as octets: UTF-8, without an XML declaration, elements in the schema's order."""

import base64
from datetime import UTC, datetime

from gateway.as4 import ns
from gateway.as4.units import AgreementRef
from gateway.as4.updates.documents import (
    CertificateDigest,
    CertificateUpdate,
    Document,
    TerminationException,
    TerminationRequest,
    TerminationResponse,
    UpdateError,
    UpdateException,
    UpdateRequest,
    UpdateResponse,
)
from gateway.as4.xml import escaped, quoted

_NAMES = {
    UpdateRequest: "AgreementUpdateRequest", UpdateResponse: "AgreementUpdateResponse",
    UpdateException: "AgreementUpdateException", TerminationRequest: "AgreementTerminationRequest",
    TerminationResponse: "AgreementTerminationResponse", TerminationException: "AgreementTerminationException",
}  # fmt: skip
_REQUEST_NAMESPACES = f' xmlns:cu="{ns.CU}" xmlns:ds="{ns.DS}" xmlns:dsig11="{ns.DSIG11}"'


def write(document: Document) -> bytes:
    """The octets of a document. `others` cannot be written. Raises `InvalidHeader` for what XML cannot carry."""
    name = f"au:{_NAMES[type(document)]}"
    body = [_text("ID", document.id)]
    match document:
        case UpdateRequest():
            body += [*_times(document, "created_at", "respond_by", "activate_by", "expire_by"),
                     _agreement("Current", document.current), _agreement("Updated", document.updated),
                     *_reason(document.reason), *map(_update, document.updates)]  # fmt: skip
        case TerminationRequest():
            body += [*_times(document, "created_at", "respond_by", "terminate_by"),
                     _agreement("Current", document.current), *_reason(document.reason)]  # fmt: skip
        case _:
            body += [_text("ReferenceID", document.reference), *_times(document, "created_at"),
                     _agreement("Current", document.current)]  # fmt: skip
            if isinstance(document, UpdateResponse):
                body.append(_agreement("Updated", document.updated))
            body += map(_error, getattr(document, "errors", ()))
    more = _REQUEST_NAMESPACES if isinstance(document, UpdateRequest) else ""
    return f'<{name} xmlns:au="{ns.AU}"{more}>{"".join(body)}</{name}>'.encode()


def _text(name: str, text: str) -> str:
    return f"<au:{name}>{escaped(text)}</au:{name}>"


def _times(document: Document, *fields: str) -> list[str]:
    found = [(field, getattr(document, field)) for field in fields]
    return [_text("".join(map(str.capitalize, field.split("_"))), _moment(at)) for field, at in found if at is not None]


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC).isoformat(timespec='milliseconds')[:23]}Z"


def _agreement(which: str, agreement: AgreementRef) -> str:
    name = f"au:{which}AgreementIdentifier"
    kind = f" type={quoted(agreement.type)}" if agreement.type else ""
    return f"<{name}{kind}>{escaped(agreement.value)}</{name}>"


def _reason(reason: str | None) -> list[str]:
    return [] if reason is None else [f'<au:Reason xml:lang="en">{escaped(reason)}</au:Reason>']


def _error(error: UpdateError) -> str:
    said = {"errorCode": error.code, "severity": error.severity, "shortDescription": error.short,
            "refToUpdateInError": error.about}  # fmt: skip
    attributes = "".join(f" {name}={quoted(text)}" for name, text in said.items() if text is not None)
    words = error.description
    description = "" if words is None else f'<au:Description xml:lang="en">{escaped(words)}</au:Description>'
    return f"<au:Error{attributes}>{description}</au:Error>"


def _update(update: CertificateUpdate) -> str:
    chain = "".join(f"<ds:X509Certificate>{_base64(der)}</ds:X509Certificate>" for der in update.certificates)
    return (
        f"<cu:CertificateUpdateRequest id={quoted(update.id)}>"
        f"<cu:CurrentCertificateIdentifier>{_digest(update.replaces)}</cu:CurrentCertificateIdentifier>"
        f"<ds:KeyInfo><ds:X509Data>{chain}</ds:X509Data></ds:KeyInfo></cu:CertificateUpdateRequest>"
    )


def _digest(digest: CertificateDigest) -> str:
    return f"<dsig11:X509Digest Algorithm={quoted(digest.algorithm)}>{_base64(digest.value)}</dsig11:X509Digest>"


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
