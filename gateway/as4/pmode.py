"""The P-Mode: what two parties have agreed, one field per parameter [as4 5].

Values only. They are made by `gateway.pmodes` (TOML, Domibus XML) and read by
`matching`, `policy`, `inbound`, `outbound` and `retry`. What every agreement of a
profile has in common (algorithms, signing, encryption, receipts) is not repeated
here: it is in `profiles/`, chosen by `Leg.profile`.
"""

from typing import Literal

from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.units import AgreementRef, PartyId, Service

#: How a certificate is named in a SecurityTokenReference [as4 3.4].
TokenReference = Literal["bst", "pkipath", "ski", "issuer-serial", "thumbprint", "x509"]


class RetryPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """PMode[].ReceptionAwareness.Retry.Parameters. Times in seconds.

    The n-th wait is `first * factor**(n-1)`, at most `max`; a message is given up after
    `count` retries or when `window` seconds have passed since it was submitted,
    whichever comes first. `jitter` spreads each wait by up to that share, both ways.
    """

    first: float = 60.0
    factor: float = 5.0
    max: float = 10_800.0
    count: int = 5
    window: float = 86_400.0
    jitter: float = 0.1


class PropertyRule(Struct, frozen=True, forbid_unknown_fields=True):
    """PMode[].BusinessInfo.Properties[]: a message property the leg knows.

    name: Its name.
    required: A message without it is refused.
    when: The version of the specification that has it. Default: every version. Which sets of properties that makes
        is told by `Leg.property_sets`.
    """

    name: str
    required: bool = True
    when: str | None = None


#: Where a certificate says which party it is for [as4 4.9]: an attribute of the subject, or one of the subject
#: alternative names. `none`: only the rule for the subject says it.
PartyField = Literal["CN", "organizationIdentifier", "serialNumber", "SAN-URI", "SAN-DNS", "none"]


#: What it means that nobody answers whether a certificate was revoked: it is refused, it is accepted for a
#: while, or nobody is asked.
Revocation = Literal["hard", "soft", "off"]


class PathTrust(Struct, frozen=True):
    """PMode[].Security.X509.Signature.Certificate as trust anchors: any certificate with a path to one [as4 4.9].

    `anchors` and `intermediates` are DER certificates of CAs; a path ends at an anchor and may
    lead over an intermediate that is not in the message. `policies` are the OIDs of which the
    path must be valid for at least one; without them any policy will do. `party_id` says which
    name in the certificate must be equal to the party id, octet by octet. `subject` are further
    demands: each attribute named must be in the subject once, with the text or, between
    slashes, a match of the whole regular expression. `revocation` says what happens when nobody answers
    whether a certificate was revoked; None: what the configuration says.
    """

    anchors: tuple[bytes, ...]
    intermediates: tuple[bytes, ...] = ()
    policies: tuple[str, ...] = ()
    party_id: PartyField = "CN"
    subject: tuple[tuple[str, str], ...] = ()
    revocation: Revocation | None = None


class Identifier(Struct, frozen=True):
    """An identifier of service metadata: a value, and the scheme it is from."""

    value: str
    scheme: str | None = None

    def __str__(self) -> str:
        return f"{self.scheme}::{self.value}" if self.scheme else self.value


class Discovery(Struct, frozen=True, kw_only=True):
    """How the responder of a leg is found: BDXL, then SMP [as4 4.10].

    `zone` is the DNS domain of the locator, or `smp` the base URL of the one publisher there is.
    Service metadata counts when signed by one of `publishers` (DER) or by a certificate that
    `publisher_trust` accepts. `document` and `process` stand for Action and Service where
    these are not the identifiers in the metadata; the scheme of a process is the type of Service
    where none is given. `participant_path` is how an ebCore party id stands in the URL: as URN,
    or as `scheme::value`.
    """

    zone: str | None = None
    smp: str | None = None
    lookup: Literal["naptr", "cname"] = "naptr"
    smp_version: Literal["1.0", "2.0"] = "1.0"
    participant: Literal["finalRecipient", "to-party"] = "finalRecipient"
    transport_profile: str = "bdxr-transport-ebms3-as4-v1p0"
    document: str | None = None
    document_scheme: str | None = None
    process: str | None = None
    process_scheme: str | None = None
    participant_path: Literal["urn", "scheme"] = "urn"
    publishers: tuple[bytes, ...] = ()
    publisher_trust: PathTrust | None = None
    #: The CAs of the publisher's TLS server, PEM; None: those of the system.
    tls_ca: bytes | None = None


class Updates(Struct, frozen=True):
    """How updates of the agreement with a partner are taken [as4 4.11].

    `approve`: what renews a certificate and changes nothing else is taken at once (`auto`), or everything waits for
    an operator. `agreement` is what both sides call the agreement where no AgreementRef says it. `agreed` are
    the names that accepted updates gave it since.
    """

    approve: Literal["auto", "operator"] = "operator"
    agreement: AgreementRef | None = None
    agreed: tuple[AgreementRef, ...] = ()


class Party(Struct, frozen=True):
    """A party of an agreement: PMode.Initiator or PMode.Responder with what security needs.

    `signing` are the DER certificates accepted as signer (active first, then next, then the one
    before); `encryption` is the DER certificate we encrypt to. Both are empty for our own
    party: our keys come from the keyring. `endpoint` is PMode[].Protocol.Address.
    `next` and `previous` say which of `signing` these are; `next_encryption` is not used yet.

    `trust` accepts further signers by certificate path. A `pattern` stands for every party with
    the type of its `party_id` that `trust` accepts and that has no leg of its own; its value is "*"
    and is never compared [as4 4.9, 4.10].

    `updates`: the partner may change its certificates by agreement update; None: not so.
    """

    name: str
    party_id: PartyId
    endpoint: str | None = None
    signing: tuple[bytes, ...] = ()
    encryption: bytes | None = None
    tls_ca: bytes | None = None
    trust: PathTrust | None = None
    pattern: bool = False
    next: bytes | None = None
    previous: bytes | None = None
    next_encryption: bytes | None = None
    #: The same for its pinned certificates.
    revocation: Revocation | None = None
    updates: Updates | None = None


#: Which leg of a binding is pulled.
_PULLED = frozenset({(ns.BINDING_PULL, 1), (ns.BINDING_PUSH_AND_PULL, 2), (ns.BINDING_PULL_AND_PUSH, 1)})


class Leg(Struct, frozen=True, kw_only=True):
    """PMode[n]: one direction of one exchange, `from_party` sends and `to_party` receives."""

    pmode_id: str
    profile: str
    from_party: Party
    from_role: str
    to_party: Party
    to_role: str
    service: Service
    action: str
    agreement: AgreementRef | None = None
    mpc: str = ns.DEFAULT_MPC
    mep: str = ns.MEP_ONE_WAY
    mep_binding: str = ns.BINDING_PUSH
    number: int = 1
    properties: tuple[PropertyRule, ...] = ()
    #: Refuse message properties that `properties` does not name (Domibus does, with 0010).
    closed_properties: bool = False
    compress: bool = True
    retry: RetryPolicy = RetryPolicy()
    signature_token: TokenReference = "bst"  # noqa: S105 - a kind of reference
    encryption_token: TokenReference = "bst"  # noqa: S105 - a kind of reference
    max_message: int = 1 << 30
    max_part: int = 1 << 30
    #: Name of the backend that consumes what arrives on this leg.
    backend: str = "rest"
    #: Where we pull this leg: seconds until we ask again after its channel was empty.
    pull_every: float = 60.0
    #: How a `to_party` that is a pattern is found; None: nothing can be sent on this leg to a pattern.
    discovery: Discovery | None = None
    #: What a fatal finding by the rules of the profile does to a submission. Inbound it is advice, always.
    rules: Literal["advise", "refuse"] = "advise"
    #: Further names of `agreement`, from updates: what arrives may carry any of them.
    also: tuple[AgreementRef, ...] = ()

    @property
    def is_test(self) -> bool:
        return self.service.value == ns.TEST_SERVICE and self.action == ns.TEST_ACTION

    @property
    def is_update(self) -> bool:
        """Whether agreement updates travel on it: the gateway itself sends and takes them [as4 4.11]."""
        return self.service.value == ns.UPDATE_SERVICE

    @property
    def is_internal(self) -> bool:
        """Whether its messages are no business of any backend."""
        return self.is_test or self.is_update

    @property
    def pulled(self) -> bool:
        """Whether `to_party` fetches the messages of this leg on the channel `mpc` [as4 4.6]."""
        return (self.mep_binding, self.number) in _PULLED

    @property
    def property_sets(self) -> tuple[tuple[PropertyRule, ...], ...]:
        """The sets of properties a message may have, side by side: what all versions share alone,
        and with what each version adds. Without `PropertyRule.when` there is one."""
        versions = dict.fromkeys([None, *(rule.when for rule in self.properties)])
        return tuple(tuple(rule for rule in self.properties if rule.when in (None, version)) for version in versions)


class PModeSet(Struct, frozen=True):
    """All agreements in force, immutable. A message lives with the set it began with.

    `selves` names our own parties (normally one). `revision` identifies the set in
    stored messages.
    """

    legs: tuple[Leg, ...] = ()
    selves: tuple[Party, ...] = ()
    revision: int = 0

    @property
    def parties(self) -> tuple[Party, ...]:
        """Every party that occurs, our own included, without repetition."""
        found: dict[PartyId | str, Party] = {}
        for leg in self.legs:
            for party in (leg.from_party, leg.to_party):
                found.setdefault(party.name if party.pattern else party.party_id, party)
        return tuple(found.values())

    def is_self(self, party_id: PartyId) -> bool:
        return any(party.party_id == party_id for party in self.selves)
