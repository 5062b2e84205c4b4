"""The message units of ebMS3 and what stands in them, as frozen Structs [as4 2].

These are values: what a header said, or what it shall say. Whether a value read from
the wire may be believed is not decided here; see `inbound` for the ladder of types.
Names are the specification's, in snake_case. Lists keep the order of the message.
"""

from datetime import datetime

from msgspec import Struct

from gateway.as4 import ns


class Property(Struct, frozen=True, omit_defaults=True):
    """eb:Property. `type` is the attribute of OASIS erratum EBXMLMSG-2."""

    name: str
    value: str
    type: str | None = None


class PartyId(Struct, frozen=True, omit_defaults=True):
    """eb:PartyId. Compared byte for byte together with its type, never normalised."""

    value: str
    type: str | None = None


class AgreementRef(Struct, frozen=True, omit_defaults=True):
    """eb:AgreementRef. `pmode` is carried and never required [as4 2.2]."""

    value: str
    type: str | None = None
    pmode: str | None = None


class Service(Struct, frozen=True, omit_defaults=True):
    """eb:Service. Without a type the value must be a URI."""

    value: str
    type: str | None = None


class PartInfo(Struct, frozen=True, omit_defaults=True):
    """eb:PartInfo. `href` as written, None when the attribute is absent.

    `schema` is (location, version, namespace); `description` is (text, language).
    """

    href: str | None
    properties: tuple[Property, ...] = ()
    schema: tuple[tuple[str, str | None, str | None], ...] = ()
    description: tuple[str, str | None] | None = None

    @property
    def cid(self) -> str | None:
        """The text after `cid:`, or None for any other reference."""
        return self.href[4:] if self.href and self.href.startswith("cid:") else None

    def value_of(self, name: str) -> str | None:
        """The value of the first property of that name."""
        return next((p.value for p in self.properties if p.name == name), None)

    @property
    def mime_type(self) -> str | None:
        return self.value_of(ns.MIME_TYPE)

    @property
    def compressed(self) -> bool:
        return self.value_of(ns.COMPRESSION_TYPE) is not None


class UserMessage(Struct, frozen=True, omit_defaults=True):
    """eb:UserMessage. `timestamp` is aware UTC with milliseconds."""

    message_id: str
    timestamp: datetime
    from_party: PartyId
    from_role: str
    to_party: PartyId
    to_role: str
    service: Service
    action: str
    conversation_id: str
    ref_to_message_id: str | None = None
    mpc: str | None = None
    agreement_ref: AgreementRef | None = None
    properties: tuple[Property, ...] = ()
    parts: tuple[PartInfo, ...] = ()

    def value_of(self, name: str) -> str | None:
        """The value of the first message property of that name."""
        return next((p.value for p in self.properties if p.name == name), None)

    @property
    def is_test(self) -> bool:
        """The test service: secured and receipted like any message, never delivered [as4 2.7]."""
        return self.service.value == ns.TEST_SERVICE and self.action == ns.TEST_ACTION

    @property
    def is_update(self) -> bool:
        """Agreement update: between the gateways themselves, with no corners behind them [as4 4.11]."""
        return self.service.value == ns.UPDATE_SERVICE


class Transform(Struct, frozen=True, omit_defaults=True):
    """ds:Transform with the PrefixList of its ec:InclusiveNamespaces, if any."""

    algorithm: str
    prefix_list: str | None = None


class Reference(Struct, frozen=True):
    """ds:Reference: what a signature says about one node or one part.

    `digest` is decoded; `digest_text` is the text as received, because Domibus
    compares the copy in a receipt character by character [as4 2.4].
    """

    uri: str
    transforms: tuple[Transform, ...]
    digest_method: str
    digest: bytes
    digest_text: str


class Receipt(Struct, frozen=True):
    """A receipt signal. `references` is empty for a receipt without non-repudiation information."""

    message_id: str
    timestamp: datetime
    ref_to_message_id: str | None
    references: tuple[Reference, ...] = ()


class SignalError(Struct, frozen=True, omit_defaults=True):
    """One eb:Error. Texts of a peer are kept for people and never decide anything."""

    code: str
    severity: str
    short_description: str | None = None
    category: str | None = None
    origin: str | None = None
    ref_to_message_in_error: str | None = None
    description: str | None = None
    detail: str | None = None


class Error(Struct, frozen=True):
    """An error signal with one or more eb:Error."""

    message_id: str
    timestamp: datetime
    ref_to_message_id: str | None
    errors: tuple[SignalError, ...]

    @property
    def about(self) -> str | None:
        """The message this concerns: either of the two references will do [as4 2.5]."""
        return self.ref_to_message_id or next(
            (e.ref_to_message_in_error for e in self.errors if e.ref_to_message_in_error), None
        )


class PullRequest(Struct, frozen=True):
    """A pull request for one message partition channel."""

    message_id: str
    timestamp: datetime
    mpc: str


SignalMessage = Receipt | Error | PullRequest
MessageUnit = UserMessage | Receipt | Error | PullRequest
