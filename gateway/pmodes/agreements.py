"""What an agreement file may say, as Structs. See pmodes/README.md for the words.

Every key that is left out (None) is filled in from a less specific place:

    profile version < its exchange < top of the file < [[exchanges]] < [overrides]

The docstrings describe every field, `name: text`; the JSON Schema that editors read is made from them.
"""

import re
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field

from gateway.as4.pmode import PropertyRule, RetryPolicy, Revocation, TokenReference
from gateway.config import Duration, Size
from gateway.pmodes.bundle import Bundle, Files
from gateway.pmodes.domibus.report import Note
from gateway.pmodes.patterns import Discovery, Metadata, Trust


class Retry(Struct, frozen=True, kw_only=True):
    """How a message is sent again. What is left out keeps its value.

    first: The first wait.
    factor: What each further wait is multiplied by.
    max: The longest wait.
    count: Retries after the first attempt.
    window: When this time has passed since the submission the message is given up, whatever the count.
    jitter: Share by which each wait is spread, both ways.
    """

    first: Duration | None = None
    factor: float | None = None
    max: Duration | None = None
    count: int | None = None
    window: Duration | None = None
    jitter: float | None = None

    def over(self, policy: RetryPolicy) -> RetryPolicy:
        """The policy with these values laid over it. Raises `ValueError` for an impossible one."""
        given = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        # A leg holds plain numbers; how a duration is written ends here.
        plain = {name: value if name == "count" else float(value) for name, value in given.items()}
        merged = msgspec.structs.replace(policy, **plain)
        if merged.first <= 0 or merged.factor < 1 or merged.max < merged.first:
            raise ValueError("retry: the first wait must be positive, the factor at least 1, max not below first")
        if not 0 <= merged.count <= 100 or not 0 <= merged.jitter <= 0.5 or merged.window <= 0:
            raise ValueError("retry: expected a count of 0 to 100, a jitter of 0 to 0.5 and a positive window")
        return merged


class Terms(Struct, frozen=True, kw_only=True):
    """What may stand at every level: for the file, an exchange, its reply, or one partner and exchange.

    backend: The backend that gets what arrives.
    compress: gzip what is sent, where its type is worth it. What arrives may be either.
    retry: How a message is sent again.
    signature_token: How the signing certificate is named in the message.
    encryption_token: How the certificate a content key is for is named in the message.
    max_message: Largest message, as its content.
    max_part: Largest part, as its content.
    properties: Message properties: a name alone is required.
    closed_properties: Refuse properties that are not declared.
    rules: What a fatal finding by the rules of the profile does to a submission: it is told, or it is refused.
    pull_every: Where we pull: how long until we ask again after the channel was empty.
    """

    backend: str | None = None
    compress: bool | None = None
    retry: Retry | None = None
    signature_token: TokenReference | None = None
    encryption_token: TokenReference | None = None
    max_message: Size | None = None
    max_part: Size | None = None
    properties: tuple[str | PropertyRule, ...] | None = None
    closed_properties: bool | None = None
    rules: Literal["advise", "refuse"] | None = None
    pull_every: Duration | None = None


Mep = Literal["one-way", "one-way-pull", "two-way-push-and-push", "two-way-push-and-pull", "two-way-pull-and-push"]


class Agreement(Struct, frozen=True, forbid_unknown_fields=True):
    """eb:AgreementRef with a type.

    value: Name of the agreement.
    type: Type of the name; without it the name must be a URI.
    """

    value: str
    type: str | None = None


class Reply(Terms, frozen=True, kw_only=True):
    """The second leg of a two-way exchange.

    action: eb:Action of the answer.
    mpc: Message partition channel of the answer.
    """

    action: str
    mpc: str | None = None


class Exchange(Terms, frozen=True, kw_only=True):
    """One exchange: a service and an action, in both directions unless it says otherwise.

    action: eb:Action.
    service: eb:Service.
    service_type: Type of the service; without it the service must be a URI.
    id: Name for overrides and P-Mode ids. Default: the action, of a URI its last part.
    from_role: Role of who sends the first message.
    to_role: Role of who receives it.
    agreement: eb:AgreementRef: a URI, or a value with a type.
    mpc: Message partition channel, if not the default one; "{to}" in it stands for the id of the party that receives.
    mep: Message exchange pattern: what is pushed, and what the receiver pulls.
    reply: The second leg of a two-way exchange.
    direction: Who sends the first message: both, send (we), receive (the partner).
    parties: The partners it is with, by name. Default: every one of the file.
    metadata: What the exchange is called in service metadata, where partners are discovered.
    """

    action: str
    service: str
    service_type: str | None = None
    id: str | None = None
    from_role: str | None = None
    to_role: str | None = None
    agreement: str | Agreement | None = None
    mpc: str | None = None
    mep: Mep = "one-way"
    reply: Reply | None = None
    direction: Literal["both", "send", "receive"] = "both"
    parties: tuple[str, ...] | None = None
    metadata: Metadata | None = None

    def __post_init__(self) -> None:
        if (self.reply is not None) != self.mep.startswith("two-way"):
            raise ValueError('reply: belongs to a mep like "two-way-push-and-push", and that needs it')
        if self.id is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.id):
            raise ValueError("id: expected letters, digits, '.', '_' and '-'")

    @property
    def name(self) -> str:
        return self.id or re.split(r"[/#:]", self.action.rstrip("/#:"))[-1]


class Updates(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The partner may change its certificates by ebCore Agreement Update, and we tell it of ours the same way.

    approve: `auto` takes what renews a certificate and changes nothing else; with `operator` everything waits for one.
    agreement: What both sides call the agreement, where its exchanges have no AgreementRef.
    agreed: Names that accepted updates gave the agreement. The gateway writes them.
    """

    approve: Literal["auto", "operator"] = "operator"
    agreement: str | Agreement | None = None
    agreed: tuple[str | Agreement, ...] = ()


class Party(Struct, frozen=True, kw_only=True):
    """A party. Certificate files are looked for beside the agreement, then in the certs folder.

    type: Type of the party id; without it the id must be a URI.
    id: The party id, where it is not the name of the table.
    endpoint: Where we send to; a party without one can only send to us.
    certificate: File with the certificate for signing and encryption, PEM or DER.
    signing: File with the signing certificate, where there are two.
    encryption: File with the encryption certificate, where there are two.
    next: File with a further signing certificate: the one the party is about to change to.
    next_encryption: File with the encryption certificate it is about to change to; not used before it is promoted.
    previous: File with the signing certificate it had before; still accepted, for messages that are under way.
    tls_ca: File with the CA of its TLS server, where the system does not know it.
    allow_http: Lets this endpoint be plain http. Default: what the file says.
    maintenance: How long its announced maintenance lasts at most; lint compares the retries with it.
    trust: Signers accepted by certificate path, besides or instead of the pinned ones.
    revocation: What happens when nobody answers whether a pinned certificate was revoked. Default:
        `revocation.pinned` of the configuration.
    any: The table stands for every party of this type that `trust` accepts and that has no table of its own.
    discovery: How such parties are found when something is sent to them.
    updates: How changes of its certificates by agreement update are taken. Default: they are not.
    """

    type: str | None = None
    id: str | None = None
    endpoint: str | None = None
    certificate: str | None = None
    signing: str | None = None
    encryption: str | None = None
    next: str | None = None
    next_encryption: str | None = None
    previous: str | None = None
    tls_ca: str | None = None
    allow_http: bool | None = None
    maintenance: Duration | None = None
    trust: Trust | None = None
    revocation: Revocation | None = None
    any: bool = False
    discovery: Discovery | None = None
    updates: Updates | None = None

    def __post_init__(self) -> None:
        if self.any and self.updates is not None:
            raise ValueError("updates: are agreed with one party; this table stands for any")
        if self.certificate and (self.signing or self.encryption):
            raise ValueError("certificate: stands for signing and encryption; give either it or the two")
        if not self.any:
            if self.discovery is not None:
                raise ValueError("discovery: is for a table that stands for any party (any = true)")
            return
        if self.type is None or self.trust is None:
            raise ValueError("any: needs the type of the parties, and trust: by which certificates they are accepted")
        if self.trust.party_id == "none":
            raise ValueError("trust: every party would be accepted under every name; say where the party id stands")
        pinned = (self.certificate, self.signing, self.encryption, self.next, self.next_encryption, self.previous)
        if any((self.id, self.endpoint, *pinned)):
            raise ValueError("any: id, endpoint and certificates are those of one party; this table has none")


class File(Terms, frozen=True, kw_only=True):
    """One agreement file.

    profile: What everything else comes from, with its version.
    self: Our party in this file, by its name.
    parties: Our party and our partners, each under its name.
    exchanges: What is exchanged, besides what the profile brings.
    overrides: Terms for "PARTY:EXCHANGE", "PARTY" or "*:EXCHANGE".
    without: Exchanges of the profile that are not part of this agreement, by name.
    allow_http: Let endpoints be plain http; for tests on one machine.
    """

    profile: str
    own: str = field(name="self")
    parties: dict[str, Party]
    exchanges: tuple[Exchange, ...] = ()
    overrides: dict[str, Terms] = {}
    without: tuple[str, ...] = ()
    allow_http: bool = False


class Document(Struct, frozen=True):
    """An agreement file, where it was, and where the files it names come from.

    `notes` are what reading it told that is no mistake: see `gateway.pmodes.network`.
    """

    path: Path
    file: File
    files: Files = Bundle((), {})
    notes: tuple[Note, ...] = ()

    @property
    def name(self) -> str:
        return str(self.path)


class Defaults(Terms, frozen=True, kw_only=True):
    """What a profile version says for all its agreements."""

    from_role: str | None = None
    to_role: str | None = None
    exchanges: tuple[Exchange, ...] = ()
