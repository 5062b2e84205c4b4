"""What an agreement file may say about trust by certificate path and about partners that no table names."""

import re
from typing import Literal

from msgspec import Struct

from gateway.as4.pmode import PartyField, Revocation

_ATTRIBUTES = ("CN", "O", "OU", "C", "organizationIdentifier", "serialNumber")
_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]{0,18})){1,30}")
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_ZONE = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*\.?")


class Trust(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Trust by certificate path instead of by pinned certificate.

    anchors: File with the CAs that a path may end at, PEM.
    intermediates: File with further CAs, for paths that messages carry incompletely.
    policies: OIDs of certificate policies; the path must be valid for one of them.
    party_id: Where a certificate says whose it is: what stands there must be the party id. `none` only with `subject`.
    revocation: What happens when nobody answers whether a certificate was revoked. Default: `revocation.paths` of the
        configuration.
    subject: What the subject must be: a text for its CN, or a text for each attribute; `/…/` is a regular expression.
    """

    anchors: str
    intermediates: str | None = None
    policies: tuple[str, ...] = ()
    party_id: PartyField = "CN"
    subject: str | dict[str, str] | None = None
    revocation: Revocation | None = None

    def __post_init__(self) -> None:
        for oid in self.policies:
            if not _OID.fullmatch(oid):
                raise ValueError(f"policies: {oid!r} is not an object identifier")
        for attribute, demand in self.demands:
            if attribute not in _ATTRIBUTES:
                raise ValueError(f"subject: {attribute!r} is none of {', '.join(_ATTRIBUTES)}")
            if not demand or len(demand) > 512:
                raise ValueError(f"subject: the text for {attribute} is empty or too long")
            if len(demand) > 2 and demand[0] == demand[-1] == "/":
                try:
                    re.compile(demand[1:-1])
                except re.error as error:
                    raise ValueError(f"subject: the expression for {attribute} cannot be read: {error}") from None
        if self.party_id == "none" and not self.demands:
            raise ValueError("party_id: none accepts every certificate of the CA as this party; say which with subject")

    @property
    def demands(self) -> tuple[tuple[str, str], ...]:
        if self.subject is None:
            return ()
        return (("CN", self.subject),) if isinstance(self.subject, str) else tuple(self.subject.items())


class Discovery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How partners are found that no table names: BDXL, then SMP.

    zone: DNS domain of the locator (SML).
    smp: Base URL of the publisher, where there is one for everybody and no locator.
    lookup: How the locator is asked: U-NAPTR records, or names of publishers as Peppol began with.
    smp_version: Version of OASIS SMP that the publishers speak.
    participant: Whose metadata is looked up: the property finalRecipient, or the receiving party.
    participant_path: How an ebCore party id stands in the URL: as `urn`, or as `scheme::value`.
    transport_profile: Default: the one of the profile's AS4 version.
    publishers: File with the certificates that sign metadata, PEM.
    publisher_trust: Trust in publishers by certificate path. Either this or `publishers`.
    tls_ca: File with the CA of the publishers' TLS servers, where the system does not know it.
    """

    zone: str | None = None
    smp: str | None = None
    lookup: Literal["naptr", "cname"] = "naptr"
    smp_version: Literal["1.0", "2.0"] = "1.0"
    participant: Literal["finalRecipient", "to-party"] = "finalRecipient"
    participant_path: Literal["urn", "scheme"] | None = None
    transport_profile: str | None = None
    publishers: str | None = None
    publisher_trust: Trust | None = None
    tls_ca: str | None = None

    def __post_init__(self) -> None:
        if (self.zone is None) == (self.smp is None):
            raise ValueError("zone: give either the zone of a locator or the URL of a publisher (smp)")
        if self.zone is not None and not _ZONE.fullmatch(self.zone):
            raise ValueError("zone: is not a DNS domain")
        if self.smp is not None and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", self.smp):
            raise ValueError("smp: is not a URL of the form https://host/path")
        if (self.publishers is None) == (self.publisher_trust is None):
            raise ValueError("publishers: give either the certificates of publishers or publisher_trust")


class Metadata(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an exchange is called in service metadata.

    document: Document identifier. Default: the action.
    document_scheme: Its scheme. Default: none.
    process: Process identifier. Default: the service.
    process_scheme: Its scheme. Default: the type of the service.
    """

    document: str | None = None
    document_scheme: str | None = None
    process: str | None = None
    process_scheme: str | None = None
