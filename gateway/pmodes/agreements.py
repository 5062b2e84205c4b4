"""What an agreement file may say, as Structs. See pmodes/README.md for the words.

Every key that is left out (None) is filled in from a less specific place:

    profile version < its exchange < top of the file < [[exchanges]] < [overrides]
"""

import re
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field

from gateway.as4.pmode import PropertyRule, RetryPolicy, TokenReference
from gateway.config import Duration, Size


class Retry(Struct, frozen=True, kw_only=True):
    """How a message is sent again. See `RetryPolicy`; what is left out keeps its value."""

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
    """What may stand at every level."""

    backend: str | None = None
    compress: bool | None = None
    retry: Retry | None = None
    signature_token: TokenReference | None = None
    encryption_token: TokenReference | None = None
    max_message: Size | None = None
    max_part: Size | None = None
    closed_properties: bool | None = None


class Agreement(Struct, frozen=True, forbid_unknown_fields=True):
    """eb:AgreementRef with a type."""

    value: str
    type: str | None = None


class Reply(Terms, frozen=True, kw_only=True):
    """The second leg of a two-way exchange."""

    action: str


class Exchange(Terms, frozen=True, kw_only=True):
    """One exchange: a service and an action, in both directions unless it says otherwise."""

    action: str
    service: str
    service_type: str | None = None
    #: Name for overrides and P-Mode ids; by default the action (of a URI, its last part).
    id: str | None = None
    from_role: str | None = None
    to_role: str | None = None
    agreement: str | Agreement | None = None
    mpc: str | None = None
    mep: Literal["one-way", "two-way-push-and-push"] = "one-way"
    reply: Reply | None = None
    direction: Literal["both", "send", "receive"] = "both"
    properties: tuple[str | PropertyRule, ...] | None = None

    def __post_init__(self) -> None:
        if (self.reply is not None) != (self.mep == "two-way-push-and-push"):
            raise ValueError("reply: belongs to mep = \"two-way-push-and-push\", and that needs it")
        if self.id is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.id):
            raise ValueError("id: expected letters, digits, '.', '_' and '-'")

    @property
    def name(self) -> str:
        return self.id or re.split(r"[/#:]", self.action.rstrip("/#:"))[-1]


class Party(Struct, frozen=True, kw_only=True):
    """A party. Certificate files are looked for beside the agreement, then in the certs folder."""

    type: str | None = None
    #: The party id, where it is not the name of the table.
    id: str | None = None
    endpoint: str | None = None
    certificate: str | None = None
    signing: str | None = None
    encryption: str | None = None
    #: A further signer: the certificate the party is about to change to.
    next: str | None = None
    tls_ca: str | None = None

    def __post_init__(self) -> None:
        if self.certificate and (self.signing or self.encryption):
            raise ValueError("certificate: stands for signing and encryption; give either it or the two")


class File(Terms, frozen=True, kw_only=True):
    """One agreement file."""

    profile: str
    own: str = field(name="self")
    parties: dict[str, Party]
    exchanges: tuple[Exchange, ...] = ()
    overrides: dict[str, Terms] = {}
    #: For tests on one machine only.
    allow_http: bool = False


class Document(Struct, frozen=True):
    """An agreement file and where it was."""

    path: Path
    file: File

    @property
    def name(self) -> str:
        return str(self.path)


class Defaults(Terms, frozen=True, kw_only=True):
    """What a profile version says for all its agreements."""

    from_role: str | None = None
    to_role: str | None = None
    properties: tuple[str | PropertyRule, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
