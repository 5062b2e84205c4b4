"""What becomes of a partner's request: refused, taken at once, or laid before an operator.

Refused is what cannot be done, with the code that says why. Taken at once is, where the agreement says `auto`,
what plainly renews a certificate and changes nothing else: same CA, same subject, same organisation
(`keys.succession`). Everything more waits, whatever the agreement says: a request is signed with the key
it replaces, and who stole that key must not thereby bring in a certificate of his own making
[reliability 6.2, threats F].

The current agreement may be called by any name it has here: the AgreementRef of its exchanges, the name in
`updates`, and the names that earlier updates gave it.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

from msgspec import Struct

from gateway.as4.pmode import Party, PModeSet
from gateway.as4.units import AgreementRef
from gateway.as4.updates.documents import (
    ACTIVATE_BY_REJECTED,
    CERTIFICATE_REJECTED,
    IDENTIFIER_IN_USE,
    INVALID_REQUEST,
    RESPOND_BY_MISSED,
    UNKNOWN_AGREEMENT,
    UNKNOWN_CERTIFICATE,
    UPDATE_NOT_SUPPORTED,
    CertificateUpdate,
    Request,
    TerminationRequest,
    UpdateRefused,
    UpdateRequest,
)
from gateway.config import Trust
from gateway.errors import CertificateRefused
from gateway.keys.succession import differences
from gateway.keys.trust import Use, check_certificate, validity


class Next(Struct, frozen=True):
    """A certificate (DER) that a partner will use, and what for."""

    use: Use
    certificate: bytes


class Verdict(Struct, frozen=True):
    """A request that can be taken. `reasons` are why an operator must say so; without any it is taken at once."""

    next: tuple[Next, ...] = ()
    reasons: tuple[str, ...] = ()


def names_of(pmodes: PModeSet, party: Party, ledger: Collection[str] = ()) -> tuple[str, ...]:
    """What the agreement with `party` is called here, `ledger` being the names that updates gave it."""
    legs = [leg for leg in pmodes.legs if party.name in (leg.from_party.name, leg.to_party.name)]
    found = [ref.value for leg in legs for ref in (leg.agreement, *leg.also) if ref is not None]
    if party.updates is not None:
        found += [ref.value for ref in (party.updates.agreement, *party.updates.agreed) if ref is not None]
    return tuple(dict.fromkeys([*found, *ledger]))


def judge(
    request: UpdateRequest, party: Party, *, pmodes: PModeSet, names: Sequence[str], carried: AgreementRef | None,
    now: datetime, allow: Trust,
) -> Verdict:  # fmt: skip
    """What is to be done with a request of `party`. `carried` is the AgreementRef of the message.

    Raises `UpdateRefused`.
    """
    _check_names(request, names, carried)
    if request.updated.value == request.current.value or request.updated.value in names:
        raise UpdateRefused(IDENTIFIER_IN_USE, "the updated agreement needs a name that none had before")
    if request.others:
        other = request.others[0]
        raise UpdateRefused(UPDATE_NOT_SUPPORTED, f"{other.kind} is not known here", about=other.id)
    _check_times(request, now)
    found: dict[Use, bytes] = {}
    reasons: list[str] = []
    for update in request.updates:
        for use, old in _replaced(update, party):
            if use in found:
                raise UpdateRefused(INVALID_REQUEST, f"a second certificate to {use}", about=update.id)
            _check_usable(update, use, request, now, allow)
            found[use] = update.certificate
            reasons += _reasons(update, old, use, party, pmodes, allow)
    if party.updates is None or party.updates.approve != "auto":
        reasons.append("the agreement lets an operator decide")
    return Verdict(tuple(Next(use, der) for use, der in found.items()), tuple(dict.fromkeys(reasons)))


def judge_termination(
    request: TerminationRequest, party: Party, *, names: Sequence[str], followed: Collection[str], now: datetime
) -> Verdict:
    """What is to be done with the end of an agreement. `followed` are names after which there is an updated one.

    It may come under any agreement: the old one is often not spoken any more. Nothing is taken out of the
    agreements by it: the last one with a partner never ends because a message says so. Raises `UpdateRefused`.
    """
    _check_names(request, names)
    _check_answerable(request, now)
    if request.current.value not in followed:
        raise UpdateRefused(INVALID_REQUEST, "no updated agreement follows this one")
    auto = party.updates is not None and party.updates.approve == "auto"
    return Verdict(reasons=() if auto else ("the agreement lets an operator decide",))


def _check_names(request: Request, names: Sequence[str], carried: AgreementRef | None = None) -> None:
    if carried is not None and carried.value != request.current.value:
        raise UpdateRefused(INVALID_REQUEST, "the AgreementRef of the message is not the CurrentAgreementIdentifier")
    if request.current.value not in names:
        raise UpdateRefused(UNKNOWN_AGREEMENT, "there is no agreement of that name with you")


def _check_answerable(request: Request, now: datetime) -> None:
    if request.respond_by is not None and request.respond_by <= now:
        raise UpdateRefused(RESPOND_BY_MISSED, "RespondBy had passed before the request was looked at")


def _check_times(request: UpdateRequest, now: datetime) -> None:
    _check_answerable(request, now)
    if request.activate_by is not None and request.activate_by <= now:
        raise UpdateRefused(ACTIVATE_BY_REJECTED, "ActivateBy has passed; leave it out if the update is in place")
    if request.expire_by is not None and request.expire_by <= max(now, request.activate_by or now):
        raise UpdateRefused(INVALID_REQUEST, "ExpireBy is not after the activation")


def _replaced(update: CertificateUpdate, party: Party) -> list[tuple[Use, bytes]]:
    """The uses in which the certificate that gives way stands, with it. Not one that has given way before."""
    signing = [der for der in party.signing if der not in (party.next, party.previous)]
    found: list[tuple[Use, bytes]] = [("sign", der) for der in signing if update.replaces.names(der)]
    if party.encryption is not None and update.replaces.names(party.encryption):
        found.append(("encrypt", party.encryption))
    if not found:
        raise UpdateRefused(UNKNOWN_CERTIFICATE, "no certificate of yours that is in use here has that digest",
                            about=update.id)  # fmt: skip
    return found


def _check_usable(update: CertificateUpdate, use: Use, request: UpdateRequest, now: datetime, allow: Trust) -> None:
    """As at an import; but one that is announced in time may begin with the activation."""
    der = update.certificate
    if update.replaces.names(der):
        raise UpdateRefused(INVALID_REQUEST, "the new certificate is the one it replaces", about=update.id)
    try:
        begins, _ = validity(der)
        at = max(now, min(begins, request.activate_by or now))
        check_certificate(der, use=use, now=at, allow=allow, by_path=True)
    except CertificateRefused as refused:
        raise UpdateRefused(CERTIFICATE_REJECTED, f"{refused.reason}: {refused}", about=update.id) from None


def _reasons(
    update: CertificateUpdate, old: bytes, use: Use, party: Party, pmodes: PModeSet, allow: Trust
) -> list[str]:
    new = update.certificate
    trust = party.trust
    configured = (*trust.anchors, *trust.intermediates) if trust is not None else ()
    found = differences(old, new, (*configured, *update.certificates[1:]), allow)
    coming = party.next if use == "sign" else party.next_encryption
    if coming not in (None, new):
        found.append(f"another certificate to {use} is staged as the next one already")
    if any(new in (*other.signing, other.encryption) for other in pmodes.parties if other.name != party.name):
        found.append("the new certificate is pinned for another party")
    return found
