"""The part of the Store protocol that knows how partners take our certificates.

The *ledger* has a row for each partner and certificate of ours: what the partner was told of it, how it answered a
test message signed with it, and since when it uses it. A certificate is named by the SHA-256 of its DER
form, a partner as in `Message.partner`.

A *refusal* is an error of a partner that may mean: I do not trust the certificate this is signed with. It is
written in the commit of the attempt it ended, and outlived by the next receipt for a message with the
same signer.
"""

from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from msgspec import Struct

Verdict = Literal["green", "amber", "unknown"]
#: What vouches for an error: the partner's signature, TLS with the server it was sent to, or nothing.
Proof = Literal["signature", "tls", "none"]
#: What a partner uses a certificate of ours for.
Use = Literal["sign", "decrypt"]
#: Codes by which products say that they do not take a signature [as4 2.9, product deviations]. EBMS:0004 says
#: nothing for certain and is not among them.
REFUSING = frozenset({"EBMS:0101", "EBMS:0102", "EBMS:0103"})

#: Who goes back by itself is called so in history and audit.
ACTOR = "automatic"
#: The event for backends when a partner went back; it is about no message.
RETURNED = "certificate.returned"
#: The event of a message that is signed anew.
RESENT = ("message.retrying", {"because": "certificate", "in": 0.0})


def resend(kind: str, state: str, code: str | None) -> str | None:
    """The event by which a refused message with a job of this kind is sent again; None when it is not to be.

    One that failed in the end for another reason was not lost to the rotation.
    """
    if state == "FAILED":
        if code not in REFUSING and code != "EBMS:0301":
            return None
        return "hold_again" if kind == "hold" else "requeue"
    return "requeue" if state in ("WAITING_FOR_RETRY", "READY_TO_PULL") else None


class Standing(Struct, frozen=True, kw_only=True):
    """How one partner stands to one certificate. `used_at`: the first receipt for a message of ours that it signed;
    `encrypted_at`: the first message of the partner that was encrypted to it; `returned_at`: since when it is not used
    for the partner any more, because it was refused."""

    partner: str
    certificate: bytes
    announced_at: datetime | None = None
    announced_by: str | None = None
    asked_at: datetime | None = None
    verdict: Verdict | None = None
    why: str | None = None
    code: str | None = None
    proof: Proof | None = None
    used_at: datetime | None = None
    encrypted_at: datetime | None = None
    returned_at: datetime | None = None


class Refusing(Struct, frozen=True, kw_only=True):
    """A partner and a certificate that it may refuse. `party` is the partner's id without its type, `count` how
    many errors there were since its last receipt, `since` when the first of them came."""

    partner: str
    party: str
    certificate: bytes
    count: int
    since: datetime


class Refusal(Struct, frozen=True, kw_only=True):
    """A message of ours that a partner may have refused for the certificate that signed it. `outlived`: a later one
    of the same signer was taken. `settled`: nothing is left to be done for the message."""

    partner: str
    party: str
    certificate: bytes
    message: UUID
    code: str
    proof: Proof
    at: datetime
    outlived: bool = False
    settled: bool = False


class Rotation(Protocol):
    """Every verb that changes something is one commit. All raise `StoreUnavailable`."""

    async def note_announced(self, partner: str, certificate: bytes, *, means: str, actor: str) -> None:
        """The partner was told of the certificate by this means; with an audit entry."""
        ...

    async def note_asked(
        self, partner: str, certificate: bytes, verdict: Verdict, *, why: str, code: str | None, proof: Proof | None
    ) -> None:
        """How the partner answered when it was asked. The last answer stands."""
        ...

    async def note_use(self, partner: str, certificate: bytes, use: Use) -> bool:
        """The partner took what the certificate signed, or encrypted to it. True when that was not known."""
        ...

    async def ledger(self, certificate: bytes | None = None, *, partner: str | None = None) -> list[Standing]:
        """The rows, or those of one certificate, or of one partner."""
        ...

    async def refusals(self, *, within: float, partner: str | None = None) -> list[Refusal]:
        """Those of the last `within` seconds, oldest first."""
        ...

    async def refusing(self, *, within: float, proofs: tuple[Proof, ...]) -> list[Refusing]:
        """Errors of the last `within` seconds that have one of these proofs and were not outlived, counted."""
        ...

    async def unsettled(self) -> list[Refusing]:
        """Partners and certificates with messages that were refused, and that nothing was done for yet."""
        ...

    async def resend_refused(self, partner: str, certificate: bytes, *, limit: int = 100) -> list[UUID]:
        """Messages that failed or wait because the partner refused them with this certificate are due at once, with
        the event `message.retrying`: they will be signed anew, with the key of the day. Each is one commit;
        those somebody is at are left for the next look, those that ended otherwise are left alone. Which."""
        ...

    async def note_returned(self, partner: str, certificate: bytes, *, since: datetime, data: dict[str, str]) -> bool:
        """The partner was moved away from the certificate it refused, by a ring in force `since` then. True for the
        first who says so: with an audit entry, and the event `certificate.returned` for every backend with webhooks."""
        ...

    async def prune_refusals(self, *, before: float) -> int:
        """Forget refusals older than so many seconds; how many."""
        ...
