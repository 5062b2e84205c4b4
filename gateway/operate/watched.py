"""Everything that has an end: our certificates, the partners', CAs, revocation lists.

Collecting reads the keyring, the agreements in force and the TLS files of the configuration. What other rooms know
(lists of revoked certificates that are cached, keys that are planned) is added by their `Source`.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct

from gateway.as4.pmode import Party, PathTrust, PModeSet
from gateway.as4.profiles import PROFILES
from gateway.as4.wss.algorithms import UNREADABLE
from gateway.config import Config
from gateway.errors import KeyUnavailable, RingUnavailable
from gateway.keys.keyring import Keyring
from gateway.store.keys import OwnKey
from gateway.store.partner_certificates import Revocation

Use = Literal["sign", "decrypt", "encrypt", "tls-server", "tls-client", "tls-ca", "ca", "crl"]
#: active: used, and what ends with it fails. next: will be. draining: only for what is still under way.
State = Literal["active", "next", "draining"]

MAX_FILE = 1 << 20


class Watched(Struct, frozen=True, kw_only=True):
    """One certificate in one use, or a list of revoked ones. `id` is the SHA-256 in hexadecimal; `owner` the name of
    the party, or of what of ours it belongs to."""

    id: str
    owner: str
    use: Use
    ours: bool
    subject: str
    not_before: datetime
    not_after: datetime
    state: State = "active"


#: More to watch, from the database or a cache (revocation lists): asked once a round.
Source = Callable[[], Awaitable[Iterable[Watched]]]


def everything(config: Config, keyring: Keyring, pmodes: PModeSet) -> list[Watched]:
    """All of it, but for what a `Source` adds. Reads files: not for the event loop."""
    return [*ours(config, keyring, pmodes), *partners(pmodes)]


def one(der: bytes, *, owner: str, use: Use, ours: bool, state: State = "active") -> Watched | None:
    """A certificate; None for one that cannot be read, about which others complain."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        return Watched(
            id=hashlib.sha256(der).hexdigest(), owner=owner, use=use, ours=ours, state=state,
            subject=certificate.subject.rfc4514_string(), not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )  # fmt: skip
    except UNREADABLE:
        return None


# -- ours ------------------------------------------------------------------------------


def ours(config: Config, keyring: Keyring, pmodes: PModeSet) -> list[Watched]:
    """Our signing, decryption and TLS certificates, with the CAs that issued them as far as they are at hand."""
    found = [*_keys(keyring, pmodes), *_tls(config)]
    if keyring.files is not keyring:
        found += [
            watched for party, use, key in keyring.in_use() for owner in _owners(party, pmodes)
            for watched in _with_issuers(key.certificate, key.chain, owner, use, "active")
        ]  # fmt: skip
    return list(dict.fromkeys(w for w in found if w is not None))


#: What a state in the ring means here.
_STATES: dict[str, State] = {"ACTIVE": "active", "STAGED": "next", "ANNOUNCED": "next", "DRAINING": "draining"}


def ring(keys: Iterable[OwnKey], pmodes: PModeSet) -> list[Watched]:
    """Our certificates that are kept in the database, each use with its state."""
    found = [
        watched for key in keys if key.certificate is not None for use, state in key.states.items() if state in _STATES
        for owner in _owners(key.party, pmodes)
        for watched in _with_issuers(key.certificate, key.chain, owner, use, _STATES[state])
    ]  # fmt: skip
    return list(dict.fromkeys(w for w in found if w is not None))


def lists(known: Iterable[Revocation]) -> list[Watched]:
    """Lists of revoked certificates that come to their end because no newer one can be had: one that is renewed as it
    should concerns nobody."""
    return list({
        (r.issuer, r.next_update): Watched(
            id=hashlib.sha256(f"crl {r.issuer} {r.next_update.isoformat()}".encode()).hexdigest(),
            owner=r.host or "", use="crl", ours=False, subject=f"revocation list of {r.host}",
            not_before=r.this_update, not_after=r.next_update,
        )
        for r in known
        if r.source == "crl" and r.failing_since is not None and r.this_update is not None and r.next_update is not None
    }.values())  # fmt: skip


def _with_issuers(der: bytes, chain: Iterable[bytes], owner: str, use: Use, state: State) -> Iterator[Watched | None]:
    yield one(der, owner=owner, use=use, ours=True, state=state)
    for issuer in chain:
        yield one(issuer, owner=owner, use="ca", ours=True)


def _keys(keyring: Keyring, pmodes: PModeSet) -> Iterator[Watched | None]:
    """Of key files. Of several for one thing the one that signs now is active, and the others are next; where keys of
    the database sign, what a file had is draining."""
    signing, spare_state = _signing(keyring, pmodes), "next" if keyring.files is keyring else "draining"
    keyring = keyring.files
    newest = {
        owner: max(
            (x509.load_der_x509_certificate(key.certificate).not_valid_after_utc
             for party, use, key in keyring.every() if use == "decrypt" and owner in _owners(party, pmodes)),
            default=None,
        )
        for owner in _owners(None, pmodes)
    }  # fmt: skip
    for party, use, key in keyring.every():
        for owner in _owners(party, pmodes):
            if use == "sign":
                state = "active" if key.certificate in signing else spare_state
            else:
                end = x509.load_der_x509_certificate(key.certificate).not_valid_after_utc
                # What nobody signs with any more decrypts what is under way, as long as a younger one is there.
                spare = newest[owner] is not None and end < newest[owner] and key.certificate not in signing
                state = "draining" if spare else "active"
            yield one(key.certificate, owner=owner, use=use, ours=True, state=state)
            for issuer in getattr(key, "chain", ()):
                yield one(issuer, owner=owner, use="ca", ours=True)


def _signing(keyring: Keyring, pmodes: PModeSet) -> set[bytes]:
    """The certificates that sign under the agreements; without agreements all that could."""
    found = set()
    for leg in pmodes.legs:
        for party in (leg.from_party, leg.to_party):
            if pmodes.is_self(party.party_id):
                try:
                    found.add(keyring.signing_key(party.party_id, PROFILES[leg.profile]).certificate)
                except (KeyUnavailable, RingUnavailable):
                    continue  # `ready` and `doctor` say so
    return found or {key.certificate for _, use, key in keyring.every() if use == "sign"}


def _owners(party: str | None, pmodes: PModeSet) -> tuple[str, ...]:
    """The names of our parties whose key that is; a key without a party is everybody's of ours."""
    names = tuple(p.name for p in pmodes.selves if party in (None, p.party_id.value))
    return names or (party or "our parties",)


def _tls(config: Config) -> Iterator[Watched | None]:
    for name, tls in (("AS4 listener", config.as4.tls), ("API listener", config.plugin.tls)):
        if tls is not None:
            if tls.certificate is not None:  # else it is one of the ring
                yield from _chain(tls.certificate, name, "tls-server")
            if tls.client_ca is not None:
                yield from (one(der, owner=name, use="tls-ca", ours=True) for der in _file(tls.client_ca))
    if config.as4.client_tls.certificate is not None:
        yield from _chain(config.as4.client_tls.certificate, "connections to partners", "tls-client")


def _chain(file: Path, owner: str, use: Use) -> Iterator[Watched | None]:
    """The certificate comes first, its issuers follow [rfc8446 4.4.2]."""
    for place, der in enumerate(_file(file)):
        yield one(der, owner=owner, use="ca" if place else use, ours=True)


def _file(file: Path) -> list[bytes]:
    try:
        with file.open("rb") as source:
            return _pem(source.read(MAX_FILE))
    except OSError:
        return []  # a listener that cannot read it says so louder


def _pem(octets: bytes) -> list[bytes]:
    """The certificates in PEM, or the one in DER; none where they cannot be read."""
    try:
        if b"-----BEGIN" not in octets:
            return [octets] if octets else []
        return [c.public_bytes(Encoding.DER) for c in x509.load_pem_x509_certificates(octets)]
    except UNREADABLE:
        return []


# -- partners ----------------------------------------------------------------------------


def partners(pmodes: PModeSet) -> list[Watched]:
    """Partners' pinned certificates, active and next, and the CAs that theirs, their servers', and their publishers'
    certificates lead to."""
    found: list[Watched | None] = []
    for party in pmodes.parties:
        if not pmodes.is_self(party.party_id):
            found += _party(party)
    for leg in pmodes.legs:
        if (how := leg.discovery) is not None:
            owner = leg.to_party.name
            found += (one(der, owner=owner, use="ca", ours=False) for der in how.publishers)
            found += _anchors(how.publisher_trust, owner)
            found += (one(der, owner=owner, use="tls-ca", ours=False) for der in _pem(how.tls_ca or b""))
    return list(dict.fromkeys(w for w in found if w is not None))


def _party(party: Party) -> Iterator[Watched | None]:
    name = party.name
    for place, der in enumerate(party.signing):
        yield one(der, owner=name, use="sign", ours=False, state="next" if place else "active")
    if party.encryption is not None:
        yield one(party.encryption, owner=name, use="encrypt", ours=False)
    yield from (one(der, owner=name, use="tls-ca", ours=False) for der in _pem(party.tls_ca or b""))
    yield from _anchors(party.trust, name)


def _anchors(trust: PathTrust | None, owner: str) -> Iterator[Watched | None]:
    if trust is not None:
        yield from (one(der, owner=owner, use="ca", ours=False) for der in (*trust.anchors, *trust.intermediates))
