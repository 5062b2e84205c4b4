"""The documents of an agreement update as frozen Structs. One name for each root element, less its `Agreement`.

Identifiers of agreements are `AgreementRef`s: a value, and perhaps a type. Times are aware UTC.
"""

import hashlib
import hmac
from datetime import datetime

from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.units import AgreementRef

#: Digests that name a certificate. SHA-1 is none of them: a second certificate with the same digest can be made.
DIGESTS = {ns.SHA256: hashlib.sha256, ns.SHA384: hashlib.sha384, ns.SHA512: hashlib.sha512}


class CertificateDigest(Struct, frozen=True):
    """dsig11:X509Digest: which certificate is meant. `algorithm` is a URI of `DIGESTS`."""

    algorithm: str
    value: bytes

    @classmethod
    def of(cls, der: bytes) -> "CertificateDigest":
        return cls(ns.SHA256, hashlib.sha256(der).digest())

    def names(self, der: bytes) -> bool:
        """Whether `der` is the certificate."""
        return hmac.compare_digest(DIGESTS[self.algorithm](der).digest(), self.value)


class CertificateUpdate(Struct, frozen=True):
    """cu:CertificateUpdateRequest: the certificate that `replaces` names gives way to the first of `certificates`.

    `certificates` are DER, the new one first; the others are its chain, in whatever order they came.
    """

    id: str
    replaces: CertificateDigest
    certificates: tuple[bytes, ...]

    @property
    def certificate(self) -> bytes:
        return self.certificates[0]


class OtherUpdate(Struct, frozen=True):
    """An update of a kind that we do not know, in the place of au:UpdateRequest. `kind` is its local name."""

    id: str
    kind: str


class UpdateRequest(Struct, frozen=True, kw_only=True):
    """au:AgreementUpdateRequest: `current`, with all `updates` applied or none, becomes `updated`.

    Without `activate_by` the sender has the updated agreement in place already.
    """

    id: str
    created_at: datetime
    current: AgreementRef
    updated: AgreementRef
    updates: tuple[CertificateUpdate, ...]
    others: tuple[OtherUpdate, ...] = ()
    respond_by: datetime | None = None
    activate_by: datetime | None = None
    expire_by: datetime | None = None
    reason: str | None = None


class UpdateResponse(Struct, frozen=True, kw_only=True):
    """au:AgreementUpdateResponse: the request `reference` is taken."""

    id: str
    reference: str
    created_at: datetime
    current: AgreementRef
    updated: AgreementRef


class UpdateError(Struct, frozen=True, kw_only=True):
    """au:Error. `about` is the id of the update within the request that it is about."""

    code: str
    short: str | None = None
    description: str | None = None
    about: str | None = None
    severity: str = "Failure"


class UpdateException(UpdateResponse, frozen=True, kw_only=True):
    """au:AgreementUpdateException: the request `reference` is refused as a whole."""

    errors: tuple[UpdateError, ...]


class TerminationRequest(Struct, frozen=True, kw_only=True):
    """au:AgreementTerminationRequest: `current` ends at `terminate_by`."""

    id: str
    created_at: datetime
    current: AgreementRef
    respond_by: datetime | None = None
    terminate_by: datetime | None = None
    reason: str | None = None


class TerminationResponse(Struct, frozen=True, kw_only=True):
    """au:AgreementTerminationResponse: the request `reference` is taken."""

    id: str
    reference: str
    created_at: datetime
    current: AgreementRef


class TerminationException(TerminationResponse, frozen=True, kw_only=True):
    """au:AgreementTerminationException: the request `reference` is refused."""

    errors: tuple[UpdateError, ...]


Request = UpdateRequest | TerminationRequest
Answer = UpdateResponse | TerminationResponse
Document = Request | Answer

#: What we refuse for: (code, short description). AU:0006 is in a sample of the specification, the other numbers are
#: unverified; a partner reads the words.
UNKNOWN_AGREEMENT = ("AU:0001", "UnknownAgreement")
IDENTIFIER_IN_USE = ("AU:0002", "UpdatedAgreementIdentifierInUse")
INVALID_REQUEST = ("AU:0003", "InvalidRequest")
UNKNOWN_CERTIFICATE = ("AU:0004", "UnknownCurrentCertificate")
RESPOND_BY_MISSED = ("AU:0005", "RespondByNotMet")
ACTIVATE_BY_REJECTED = ("AU:0006", "ActivateByRejected")
CERTIFICATE_REJECTED = ("AU:0007", "CertificateRejected")
UPDATE_NOT_SUPPORTED = ("AU:0008", "UpdateNotSupported")
NOT_APPROVED = ("AU:0009", "NotApproved")
OTHER = ("AU:0010", "Other")
REASONS = (
    UNKNOWN_AGREEMENT, IDENTIFIER_IN_USE, INVALID_REQUEST, UNKNOWN_CERTIFICATE, RESPOND_BY_MISSED,
    ACTIVATE_BY_REJECTED, CERTIFICATE_REJECTED, UPDATE_NOT_SUPPORTED, NOT_APPROVED, OTHER,
)  # fmt: skip


class UpdateRefused(Exception):
    """A request that is answered with an exception. `why` is one of the pairs above; `about` the id of the update."""

    def __init__(self, why: tuple[str, str], detail: str, *, about: str | None = None) -> None:
        super().__init__(detail)
        self.why, self.detail, self.about = why, detail, about

    @property
    def error(self) -> UpdateError:
        code, short = self.why
        return UpdateError(code=code, short=short, description=self.detail, about=self.about)
