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
    """PMode[].BusinessInfo.Properties[]: a message property the leg knows."""

    name: str
    required: bool = True


class Party(Struct, frozen=True):
    """A party of an agreement: PMode.Initiator or PMode.Responder with what security needs.

    `signing` are the DER certificates accepted as signer (active first, then next);
    `encryption` is the DER certificate we encrypt to. Both are empty for our own
    party: our keys come from the keyring. `endpoint` is PMode[].Protocol.Address.
    """

    name: str
    party_id: PartyId
    endpoint: str | None = None
    signing: tuple[bytes, ...] = ()
    encryption: bytes | None = None
    tls_ca: bytes | None = None


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

    @property
    def is_test(self) -> bool:
        return self.service.value == ns.TEST_SERVICE and self.action == ns.TEST_ACTION


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
        found: dict[PartyId, Party] = {}
        for leg in self.legs:
            for party in (leg.from_party, leg.to_party):
                found.setdefault(party.party_id, party)
        return tuple(found.values())

    def is_self(self, party_id: PartyId) -> bool:
        return any(party.party_id == party_id for party in self.selves)
