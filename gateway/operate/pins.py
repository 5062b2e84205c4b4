"""Which certificates of a partner are pinned, as what, and what becomes of them: staged, promoted, retired.

    stage      a next certificate is pinned beside the active one; either may sign
    promote    it becomes the active one; the one before stays pinned as `previous`, for what is still under way
    retire     what is no longer used is taken out

Two at most may sign at once: what is staged takes the place of `previous`. A partner has told us
that it *will* sign with a certificate long before anybody may encrypt to it: who encrypts too early loses
messages (the partner answers EBMS:0102). So a promotion moves encryption along only where one certificate serves for
both and the partner was seen to sign with the new one, or where the operator says so.
"""

from datetime import datetime
from typing import Literal

from cryptography import x509
from msgspec import Struct
from msgspec.structs import replace

from gateway.as4.pmode import Party
from gateway.config import Trust
from gateway.errors import CertificateRefused, NotPossible
from gateway.keys.trust import Use, check_certificate

Which = Literal["next", "next_encryption", "previous"]


class Pins(Struct, frozen=True, kw_only=True):
    """The pinned certificates of a partner, DER. `signing` is the active one."""

    signing: bytes | None = None
    encryption: bytes | None = None
    next: bytes | None = None
    next_encryption: bytes | None = None
    previous: bytes | None = None

    @classmethod
    def of(cls, party: Party) -> "Pins":
        active = next((der for der in party.signing if der not in (party.next, party.previous)), None)
        # A certificate may stand in two places of the file; then it is what it is first.
        active = active or (party.signing[0] if party.signing else None)
        return cls(
            signing=active, encryption=party.encryption, next=None if party.next == active else party.next,
            next_encryption=party.next_encryption, previous=None if party.previous == active else party.previous,
        )  # fmt: skip

    def roles(self) -> list[tuple[bytes, tuple[str, ...]]]:
        """Every certificate once, with what it is."""
        found: dict[bytes, list[str]] = {}
        names = {"signing": "active", "encryption": "encryption", "next": "next", "next_encryption": "next encryption",
                 "previous": "previous"}  # fmt: skip
        for field, name in names.items():
            if (der := getattr(self, field)) is not None:
                found.setdefault(der, []).append(name)
        return [(der, tuple(roles)) for der, roles in found.items()]


def fits(der: bytes, use: Use, now: datetime, allow: Trust) -> bool:
    """Whether the certificate may be used so, today or from the day it becomes valid."""
    try:
        start = x509.load_der_x509_certificate(der).not_valid_before_utc
        check_certificate(der, use=use, now=max(now, start), allow=allow)
    except (CertificateRefused, ValueError):
        return False
    return True


def staged(pins: Pins, der: bytes, *, use: Use | None, now: datetime, allow: Trust, replaces: bool) -> Pins:
    """With `der` as the next certificate: for signing where it can sign, else for encryption; `use` says which.

    Raises `CertificateRefused` for one that is good for neither, `NotPossible` for one that is there already or
    where another one is staged and is not to be replaced.
    """
    if use is None:
        use = "sign" if fits(der, "sign", now, allow) or not fits(der, "encrypt", now, allow) else "encrypt"
    try:
        start = x509.load_der_x509_certificate(der).not_valid_before_utc
    except ValueError:
        raise CertificateRefused("malformed", "it cannot be read") from None
    check_certificate(der, use=use, now=max(now, start), allow=allow)
    field: Which = "next" if use == "sign" else "next_encryption"
    if der == getattr(pins, field):
        return pins
    if der == (pins.signing if use == "sign" else pins.encryption):
        raise NotPossible("this is the certificate it has already")
    if getattr(pins, field) is not None and not replaces:
        raise NotPossible("another certificate is staged already; promote it, retire it, or say that this replaces it")
    return replace(pins, **{field: der, "previous": pins.previous if use == "encrypt" else None})


def promoted(
    pins: Pins, *, seen: bool, encrypt: bool | None, keep_old: bool, now: datetime, allow: Trust
) -> tuple[Pins, tuple[str, ...]]:
    """With the next certificate as the active one, and what to know about it.

    `seen`: the partner has signed with it. `encrypt`: encrypt to it, or do not; None: where that is right.
    Raises `NotPossible` when there is nothing to promote, `CertificateRefused` for one that cannot be used now.
    """
    der, notes = pins.next, []
    if der is not None:
        check_certificate(der, use="sign", now=now, allow=allow)
        one_for_both = pins.encryption is not None and pins.encryption == pins.signing
        after = replace(pins, signing=der, next=None, previous=pins.signing if keep_old else None)
    else:
        if pins.next_encryption is None and encrypt is not True:
            raise NotPossible("there is no next certificate to promote; stage one first")
        der, one_for_both, after, seen = pins.signing, True, pins, True
    target = pins.next_encryption or der
    if encrypt is None and pins.next_encryption is not None:
        encrypt = pins.next is None or seen
    elif encrypt is None:
        encrypt = one_for_both and seen and fits(der, "encrypt", now, allow)
        if one_for_both and not encrypt:
            why = "the new one is not for encryption" if seen else "it was not seen to use the new one yet (--encrypt)"
            notes.append(f"messages to it stay encrypted for its old certificate: {why}")
    if encrypt and target is not None:
        check_certificate(target, use="encrypt", now=now, allow=allow)
        after = replace(after, encryption=target, next_encryption=None)
    if after == pins:
        raise NotPossible("nothing would change")
    if after.encryption is not None and not fits(after.encryption, "encrypt", now, allow):
        notes.append("its encryption certificate cannot be used (any more): nothing can be sent to it")
    return after, tuple(notes)


def retired(pins: Pins, which: Which) -> Pins:
    """Without that certificate. Raises `NotPossible`."""
    if getattr(pins, which) is None:
        raise NotPossible(f"it has no {which.replace('_', ' ')} certificate")
    return replace(pins, **{which: None})
