"""From octets to a document of an agreement update; strict where the schema is, and bounded.

Order and number of elements are the schema's. What it leaves open stays open: attributes nobody knows, foreign
elements within ds:KeyInfo, ds:X509Data and au:Error, and other kinds of updates in the place of au:UpdateRequest,
which are told by their name (`OtherUpdate`). What the specification forbids within ds:KeyInfo is
refused: a key that is fetched from somewhere else (ds:RetrievalMethod) above all.

The parser's own bounds hold (no DTD, no entities, depth, names); those here are what an honest document never needs.
"""

import base64
import binascii
import re
from collections.abc import Callable
from datetime import datetime

from cryptography import x509

from gateway.as4 import ns
from gateway.as4.fields import MAX_TEXT, attribute, date_time, token, value
from gateway.as4.ns import qn
from gateway.as4.units import AgreementRef
from gateway.as4.updates.documents import (
    DIGESTS,
    CertificateDigest,
    CertificateUpdate,
    Document,
    OtherUpdate,
    TerminationException,
    TerminationRequest,
    TerminationResponse,
    UpdateError,
    UpdateException,
    UpdateRequest,
    UpdateResponse,
)
from gateway.as4.wss.algorithms import UNREADABLE
from gateway.as4.xml import Element, parse, text_of
from gateway.errors import InvalidHeader

#: A request with two chains of five certificates has some 40 KiB.
MAX_DOCUMENT = 256 << 10
#: One for signing, one for encryption, and both once more for a second profile.
MAX_UPDATES = 8
#: A leaf and its CAs, like the chain of a token [threats 1.5].
MAX_CHAIN = 6
MAX_CERTIFICATE = 16 << 10
MAX_ERRORS = 16
#: Exceptions that other products write may be long; this much is kept.
MAX_CODE = 64

_NCNAME = re.compile(r"[^\W\d][\w.\-]{0,254}")
_SPACE = re.compile(r"[ \t\r\n]+")
#: Children of ds:KeyInfo and ds:X509Data that the specification forbids.
_FORBIDDEN = frozenset(
    qn(ns.DS, name) for name in ("RetrievalMethod", "PGPData", "MgmtData", "SPKIData", "X509IssuerSerial")
)
#: And those that may come once.
_ONCE = frozenset(qn(ns.DS, name) for name in ("KeyName", "KeyValue", "X509SubjectName"))


def read(octets: bytes, *, charset: str | None = None) -> Document:
    """The document. Raises `InvalidHeader`; its `where` names the element in words of ours."""
    if len(octets) > MAX_DOCUMENT:
        raise InvalidHeader(f"larger than {MAX_DOCUMENT >> 10} KiB", where="agreement update")
    root = parse(octets, charset=charset)
    reader = _ROOTS.get(root.tag)
    if reader is None:
        raise InvalidHeader("not a document of an agreement update", where="agreement update")
    return reader(_Children(root))


class _Children:
    """The children of an element, taken in the order of the schema."""

    def __init__(self, parent: Element, namespace: str = ns.AU, where: str | None = None) -> None:
        self.parent, self._namespace = parent, namespace
        self.where = where or f"au:{parent.tag.rpartition('}')[2]}"
        self._left = list(parent)

    def maybe(self, name: str) -> Element | None:
        if self._left and self._left[0].tag == qn(self._namespace, name):
            return self._left.pop(0)
        return None

    def one(self, name: str) -> Element:
        if (found := self.maybe(name)) is None:
            raise InvalidHeader("missing, or out of order", where=self.at(name))
        return found

    def rest(self) -> list[Element]:
        left, self._left = self._left, []
        return left

    def end(self) -> None:
        if self._left:
            raise InvalidHeader("an element that does not belong here, or comes twice", where=self.where)

    def at(self, name: str) -> str:
        return f"{self.where}/{name}"

    # -- what stands in them

    def id(self, name: str = "ID") -> str:
        return token(self.one(name), self.at(name))

    def moment(self, name: str) -> datetime:
        return date_time(self.one(name), self.at(name))

    def maybe_moment(self, name: str) -> datetime | None:
        found = self.maybe(name)
        return None if found is None else date_time(found, self.at(name))

    def agreement(self, name: str) -> AgreementRef:
        element, where = self.one(name), self.at(name)
        return AgreementRef(token(element, where), attribute(element, "type", where))

    def reason(self) -> str | None:
        """au:Reason, which comes in several languages perhaps; the first."""
        found = self.maybe("Reason")
        while found is not None and self.maybe("Reason") is not None:
            pass
        return None if found is None else _words(found, self.at("Reason"))


def _words(element: Element, where: str) -> str | None:
    """Text for people: cut, never refused for its length."""
    return _SPACE.sub(" ", text_of(element, where=where)).strip()[:MAX_TEXT] or None


# -- root elements ---------------------------------------------------------------------


def _update_request(at: _Children) -> UpdateRequest:
    id, created_at = at.id(), at.moment("CreatedAt")
    respond_by, activate_by, expire_by = map(at.maybe_moment, ("RespondBy", "ActivateBy", "ExpireBy"))
    current, updated = at.agreement("CurrentAgreementIdentifier"), at.agreement("UpdatedAgreementIdentifier")
    reason = at.reason()
    elements = at.rest()
    if not elements:
        raise InvalidHeader("missing", where=at.at("UpdateRequest"))
    if len(elements) > MAX_UPDATES:
        raise InvalidHeader(f"more than {MAX_UPDATES}", where=at.at("UpdateRequest"))
    updates, others, ids = [], [], set()
    for element in elements:
        found = _update(element)
        if found.id in ids:
            raise InvalidHeader("two updates with one id", where=at.at("UpdateRequest/@id"))
        ids.add(found.id)
        (updates if isinstance(found, CertificateUpdate) else others).append(found)
    return UpdateRequest(
        id=id, created_at=created_at, respond_by=respond_by, activate_by=activate_by, expire_by=expire_by,
        current=current, updated=updated, reason=reason, updates=tuple(updates), others=tuple(others),
    )  # fmt: skip


def _answer(kind: type[UpdateResponse], **more: Callable[[_Children], object]) -> Callable[[_Children], UpdateResponse]:
    def made(at: _Children) -> UpdateResponse:
        facts = {"id": at.id(), "reference": at.id("ReferenceID"), "created_at": at.moment("CreatedAt")}
        facts["current"] = at.agreement("CurrentAgreementIdentifier")
        facts |= {name: read(at) for name, read in more.items()}
        at.end()
        return kind(**facts)

    return made


def _updated(at: _Children) -> AgreementRef:
    return at.agreement("UpdatedAgreementIdentifier")


def _termination_request(at: _Children) -> TerminationRequest:
    found = TerminationRequest(
        id=at.id(), created_at=at.moment("CreatedAt"), respond_by=at.maybe_moment("RespondBy"),
        terminate_by=at.maybe_moment("TerminateBy"), current=at.agreement("CurrentAgreementIdentifier"),
        reason=at.reason(),
    )  # fmt: skip
    at.end()
    return found


def _errors(at: _Children) -> tuple[UpdateError, ...]:
    found = []
    while (element := at.maybe("Error")) is not None:
        if len(found) == MAX_ERRORS:
            raise InvalidHeader(f"more than {MAX_ERRORS}", where=at.at("Error"))
        found.append(_error(element, at.at("Error")))
    if not found:
        raise InvalidHeader("missing", where=at.at("Error"))
    return tuple(found)


def _error(element: Element, where: str) -> UpdateError:
    code, severity = (attribute(element, name, f"{where}/@{name}", MAX_CODE) for name in ("errorCode", "severity"))
    if code is None:
        raise InvalidHeader("missing", where=f"{where}/@errorCode")
    if severity is None:
        raise InvalidHeader("missing", where=f"{where}/@severity")
    # Whatever else stands in it is for people of the other product.
    words = next((child for child in element if child.tag == qn(ns.AU, "Description")), None)
    return UpdateError(
        code=code, severity=severity, short=attribute(element, "shortDescription", f"{where}/@shortDescription"),
        about=attribute(element, "refToUpdateInError", f"{where}/@refToUpdateInError"),
        description=None if words is None else _words(words, f"{where}/Description"),
    )  # fmt: skip


_ROOTS: dict[str, Callable[[_Children], Document]] = {
    qn(ns.AU, "AgreementUpdateRequest"): _update_request,
    qn(ns.AU, "AgreementUpdateResponse"): _answer(UpdateResponse, updated=_updated),
    qn(ns.AU, "AgreementUpdateException"): _answer(UpdateException, updated=_updated, errors=_errors),
    qn(ns.AU, "AgreementTerminationRequest"): _termination_request,
    qn(ns.AU, "AgreementTerminationResponse"): _answer(TerminationResponse),
    qn(ns.AU, "AgreementTerminationException"): _answer(TerminationException, errors=_errors),
}


# -- cu:CertificateUpdateRequest ---------------------------------------------------------


def _update(element: Element) -> CertificateUpdate | OtherUpdate:
    name, where = element.tag.rpartition("}")[2], "au:UpdateRequest"
    id = attribute(element, "id", f"{where}/@id")
    if id is None or not _NCNAME.fullmatch(id):
        raise InvalidHeader("missing, or no xs:ID", where=f"{where}/@id")
    if element.tag == qn(ns.AU, "UpdateRequest") or not element.tag.startswith("{"):
        raise InvalidHeader("is abstract, or in no namespace", where=where)
    if element.tag.startswith(f"{{{ns.AU}}}"):
        raise InvalidHeader("an element that does not belong here", where="au:AgreementUpdateRequest")
    if element.tag != qn(ns.CU, "CertificateUpdateRequest"):
        return OtherUpdate(id, name[:MAX_CODE])
    at = _Children(element, ns.CU, "cu:CertificateUpdateRequest")
    place = at.at("CurrentCertificateIdentifier")
    current = _Children(at.one("CurrentCertificateIdentifier"), ns.DSIG11, place)
    replaces = _digest(current.one("X509Digest"), current.at("X509Digest"))
    current.end()
    elements = at.rest()
    if len(elements) != 1 or elements[0].tag != qn(ns.DS, "KeyInfo"):
        raise InvalidHeader("exactly one was expected", where=at.at("ds:KeyInfo"))
    return CertificateUpdate(id, replaces, _chain(elements[0], at.at("ds:KeyInfo")))


def _chain(key_info: Element, where: str) -> tuple[bytes, ...]:
    """The certificates, the one that no other was issued by first [cs01 cu:CertificateUpdateRequestType]."""
    _refuse_forbidden(key_info, where)
    data = [child for child in key_info if child.tag == qn(ns.DS, "X509Data")]
    if len(data) != 1:
        raise InvalidHeader("exactly one was expected", where=f"{where}/ds:X509Data")
    where = f"{where}/ds:X509Data"
    _refuse_forbidden(data[0], where)
    found, digests = [], []
    for child in data[0]:
        if child.tag == qn(ns.DS, "X509Certificate"):
            if len(found) == MAX_CHAIN:
                raise InvalidHeader(f"more than {MAX_CHAIN}", where=f"{where}/ds:X509Certificate")
            found.append(_octets(child, f"{where}/ds:X509Certificate", MAX_CERTIFICATE))
        elif child.tag == qn(ns.DSIG11, "X509Digest"):
            digests.append(_digest(child, f"{where}/dsig11:X509Digest"))
    if not found:
        raise InvalidHeader("missing", where=f"{where}/ds:X509Certificate")
    if len({digest.algorithm for digest in digests}) != len(digests):
        raise InvalidHeader("two with one algorithm", where=f"{where}/dsig11:X509Digest")
    leaf = _leaf(found, f"{where}/ds:X509Certificate")
    if not all(digest.names(leaf) for digest in digests):
        raise InvalidHeader("names another certificate than the new one", where=f"{where}/dsig11:X509Digest")
    return leaf, *(der for der in found if der != leaf)


def _leaf(chain: list[bytes], where: str) -> bytes:
    try:
        read = [(der, x509.load_der_x509_certificate(der)) for der in dict.fromkeys(chain)]
        names = [(der, one.subject.public_bytes(), one.issuer.public_bytes()) for der, one in read]
    except UNREADABLE:
        raise InvalidHeader("not a certificate", where=where) from None
    issuers = {issuer for _, subject, issuer in names if issuer != subject}
    leaves = [der for der, subject, _ in names if subject not in issuers]
    if len(leaves) != 1:
        raise InvalidHeader("not one certificate with its chain", where=where)
    return leaves[0]


def _refuse_forbidden(parent: Element, where: str) -> None:
    seen = set()
    for child in parent:
        if child.tag in _FORBIDDEN:
            raise InvalidHeader("RetrievalMethod, X509IssuerSerial or key data of another kind", where=where)
        if child.tag in _ONCE and child.tag in seen:
            raise InvalidHeader("KeyName, KeyValue or X509SubjectName comes twice", where=where)
        seen.add(child.tag)


def _digest(element: Element, where: str) -> CertificateDigest:
    algorithm = attribute(element, "Algorithm", f"{where}/@Algorithm")
    if algorithm not in DIGESTS:
        raise InvalidHeader("SHA-256, SHA-384 or SHA-512 was expected", where=f"{where}/@Algorithm")
    octets = _octets(element, where, 64)
    if len(octets) != DIGESTS[algorithm]().digest_size:
        raise InvalidHeader("not the length of its algorithm", where=where)
    return CertificateDigest(algorithm, octets)


def _octets(element: Element, where: str, most: int) -> bytes:
    text = _SPACE.sub("", value(element, where, limit=2 * most + 64))
    try:
        octets = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidHeader("not base64", where=where) from None
    if not 0 < len(octets) <= most:
        raise InvalidHeader("empty or too large", where=where)
    return octets
