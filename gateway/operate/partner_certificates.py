"""Certificates of partners: what is pinned, what was seen, and how a new one comes into force.

Pinning another certificate is a change of agreements, and goes the way of all of them: planned on the
revision in force, proposed, acknowledged by every process, never edited. A verb makes the new revision out of
the *active* one, not out of the files of this node: whoever calls (an operator on either node, an approved
Agreement Update) gets the same. Where the files of this node were those in force before, they are
written afterwards and stay in step; where not, they are left alone and the drift is told, as ever.

The act stands in the audit with the revision it made, in one commit: who, which party, which fingerprints.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from gateway.as4.pmode import Party, PModeSet
from gateway.config import Config
from gateway.config.strict import suggestion
from gateway.errors import CertificateRefused, ConfigError, GatewayError, NotFound, NotPossible, StalePlan
from gateway.keys import likeness
from gateway.keys.formats import certificates
from gateway.keys.likeness import Likeness
from gateway.keys.trust import Use
from gateway.msh.channels import party_key
from gateway.operate import agreements, parties, partner_files, plan
from gateway.operate.agreements import Outcome
from gateway.operate.domibus import safe_stem
from gateway.operate.pins import Pins, Which, promoted, retired, staged
from gateway.operate.plan import Lint, Plan
from gateway.pmodes import toml
from gateway.pmodes.agreements import Party as Table
from gateway.pmodes.bundle import Bundle
from gateway.pmodes.edit import with_keys
from gateway.store.api import AuditEntry, Store
from gateway.store.partner_certificates import NextUse, Revocation, Stranger, StrangerState

Act = Literal["stage", "promote", "retire"]
#: Keys of a party's table that name its certificates.
KEYS = ("certificate", "signing", "encryption", "next", "next_encryption", "previous")
#: How often a change that another one overtook is planned anew, where nobody looks at the plan.
TRIES = 3


class Pinned(Struct, frozen=True, kw_only=True):
    """A pinned certificate. `roles`: active, encryption, next, next encryption, previous. `in_use_since`: since when
    the partner is seen to sign with it, of a next one."""

    party: str
    roles: tuple[str, ...]
    certificate: parties.Certificate
    in_use_since: datetime | None = None
    revocations: tuple[Revocation, ...] = ()


class Overview(Struct, frozen=True, kw_only=True):
    """The certificates of partners. `waiting` are those that wait for a decision."""

    pinned: tuple[Pinned, ...]
    waiting: tuple[Stranger, ...]

    @property
    def promotable(self) -> tuple[Pinned, ...]:
        return tuple(one for one in self.pinned if "next" in one.roles and one.in_use_since is not None)


class Change(Struct, frozen=True, kw_only=True):
    """A change of a partner's certificates, planned. `files` are those in force, to be written where
    `in_step`: where this node's files were those of the revision it is made on."""

    act: Act
    party: str
    before: Pins
    after: Pins
    plan: Plan
    bundle: Bundle
    notes: tuple[str, ...] = ()
    likeness: Likeness | None = None
    in_step: bool = False


class NotWritten(GatewayError):
    """A change is in force, and the files of this node could not be made to say the same."""

    def __init__(self, detail: str, outcome: Outcome) -> None:
        super().__init__(detail)
        self.outcome = outcome


# -- looking ----------------------------------------------------------------------------


async def overview(store: Store, config: Config, *, party: str | None = None, now: datetime | None = None) -> Overview:
    """What is pinned in the revision in force, and what was seen. Raises `NotFound`, `ConfigError`."""
    now = now or datetime.now(UTC)
    pmodes = toml.expanded(await _active(store, config))
    wanted = [_partner(pmodes, party)] if party is not None else _partners(pmodes)
    uses = {(use.party, use.sha256): use for use in await store.next_uses()}
    said: dict[str, list[Revocation]] = {}
    for one in await store.revocations():
        said.setdefault(one.certificate, []).append(one)
    pinned = [_pinned(p, der, roles, uses, said, now, config) for p in wanted for der, roles in Pins.of(p).roles()]
    keys = {party_key(p.party_id) for p in wanted}
    waiting = [s for s in await store.strangers(state="WAITING") if party is None or s.party in keys]
    return Overview(pinned=tuple(pinned), waiting=tuple(waiting))


def _pinned(
    party: Party, der: bytes, roles: tuple[str, ...], uses: dict[tuple[str, str], NextUse],
    said: dict[str, list[Revocation]], now: datetime, config: Config,
) -> Pinned:  # fmt: skip
    signs = bool({"active", "next", "previous"} & set(roles))
    encrypts = bool({"encryption", "next encryption"} & set(roles))
    kinds: tuple[Use, ...] = (*(("sign",) if signs else ()), *(("encrypt",) if encrypts else ()))
    told = parties.certificate(der, kinds, now, config)
    use = uses.get((party_key(party.party_id), told.sha256)) if "next" in roles else None
    return Pinned(
        party=party.name, roles=roles, certificate=told, in_use_since=use and use.first_used,
        revocations=tuple(said.get(told.sha256, ())),
    )  # fmt: skip


async def stranger(store: Store, wanted: str) -> Stranger:
    """The certificate in quarantine whose fingerprint begins with `wanted`. Raises `NotFound`."""
    text = wanted.replace(":", "").replace(" ", "").lower()
    found = [s for s in await store.strangers() if text and s.sha256.startswith(text)]
    if len({(s.party, s.sha256) for s in found}) != 1:
        many = "several certificates" if found else "no certificate"
        raise NotFound(f"{many} in quarantine with fingerprint {wanted}")
    return found[0]


async def strangers(
    store: Store, config: Config, *, state: StrangerState | None = None, party: str | None = None
) -> list[tuple[str, Stranger]]:
    """Certificates in quarantine with the name of the partner they claim, or its key where nobody has it any more."""
    names = {party_key(p.party_id): p for p in _partners(toml.expanded(await _active(store, config)))}
    found = [(names[s.party].name if s.party in names else s.party, s) for s in await store.strangers(state=state)]
    if party is None:
        return found
    return [(name, s) for name, s in found
            if party in (name, s.party) or (s.party in names and names[s.party].party_id.value == party)]  # fmt: skip


async def examined(store: Store, config: Config, wanted: str) -> tuple[Stranger, Party | None, Likeness | None]:
    """A certificate in quarantine, the partner it claims, and what it has in common with that one's active certificate.

    Raises `NotFound`, `ConfigError`.
    """
    found = await stranger(store, wanted)
    partners = _partners(toml.expanded(await _active(store, config)))
    party = next((p for p in partners if party_key(p.party_id) == found.party), None)
    if party is None or (active := Pins.of(party).signing) is None:
        return found, party, None
    return found, party, likeness.compare(active, found.der, cas_of(party, config))


def cas_of(party: Party, config: Config) -> tuple[bytes, ...]:
    """CAs that may have issued certificates of the party: what its agreement and the configuration name."""
    trust = party.trust
    return (*(() if trust is None else (*trust.intermediates, *trust.anchors)), *known_issuers(config))


def known_issuers(config: Config) -> tuple[bytes, ...]:
    """The CAs of `revocation.issuers`, DER. Raises `ConfigError`."""
    path = config.revocation.issuers
    if path is None:
        return ()
    try:
        return tuple(certificates(path.read_bytes()[: partner_files.MAX_CERTIFICATE_FILE + 1]))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path), key="revocation.issuers") from None
    except CertificateRefused as error:
        raise ConfigError(f"holds no certificates: {error}", file=str(path), key="revocation.issuers") from None


# -- planning ---------------------------------------------------------------------------


async def plan_stage(
    store: Store, config: Config, party: str, octets: bytes, *, use: Use | None = None, replaces: bool = False,
    files: Bundle | None = None, lint: Lint | None = None, now: datetime | None = None,
) -> Change:  # fmt: skip
    """Pin the certificate in `octets` (PEM, DER, PKCS#7) as the partner's next one.

    `files` are those of this node, as far as they can be read. Raises `NotFound`, `NotPossible`, `CertificateRefused`,
    `ConfigError`.
    """
    der, now = one_certificate(octets), now or datetime.now(UTC)

    def make(found: Party) -> tuple[Pins, tuple[str, ...]]:
        pins = Pins.of(found)
        after = staged(pins, der, use=use, now=now, allow=config.trust, replaces=replaces)
        gone = pins.previous is not None and after.previous is None
        return after, (("its previous certificate is not accepted any more",) if gone else ())

    return await _plan(store, config, "stage", party, make, files, lint, now, der)


async def plan_promote(
    store: Store, config: Config, party: str, *, encrypt: bool | None = None, keep_old: bool = True,
    files: Bundle | None = None, lint: Lint | None = None, now: datetime | None = None,
) -> Change:  # fmt: skip
    """Make the partner's next certificate the active one; see `pins.promoted`. Raises as `plan_stage`."""
    now = now or datetime.now(UTC)
    seen = {(use.party, use.sha256) for use in await store.next_uses()}
    seen |= {(s.party, s.sha256) for s in await store.strangers(state="ACCEPTED")}

    def make(found: Party) -> tuple[Pins, tuple[str, ...]]:
        pins = Pins.of(found)
        known = pins.next is not None and (party_key(found.party_id), fingerprint(pins.next)) in seen
        return promoted(pins, seen=known, encrypt=encrypt, keep_old=keep_old, now=now, allow=config.trust)

    return await _plan(store, config, "promote", party, make, files, lint, now, None)


async def plan_retire(
    store: Store, config: Config, party: str, which: Which, *, files: Bundle | None = None, lint: Lint | None = None,
    now: datetime | None = None,
) -> Change:  # fmt: skip
    """Take out a certificate that is not the active one. Raises as `plan_stage`."""
    return await _plan(
        store, config, "retire", party, lambda found: (retired(Pins.of(found), which), ()), files, lint, now, None
    )


async def _plan(
    store: Store, config: Config, act: Act, party: str, make: Callable[[Party], tuple[Pins, tuple[str, ...]]],
    files: Bundle | None, lint: Lint | None, now: datetime | None, new: bytes | None,
) -> Change:  # fmt: skip
    base = await _active(store, config)
    found = _partner(toml.expanded(base), party)
    before = Pins.of(found)
    after, notes = make(found)
    bundle = repinned(base, found, after)
    alike = likeness.compare(before.signing, new, cas_of(found, config)) if new and before.signing else None
    return Change(
        act=act, party=found.name, before=before, after=after, bundle=bundle, notes=notes, likeness=alike,
        plan=await plan.plan(store, bundle, lint=lint, now=now),
        in_step=files is not None and files.digest == base.digest,
    )  # fmt: skip


def repinned(base: Bundle, party: Party, pins: Pins) -> Bundle:
    """The agreements with other pins of one partner, in every file that has it. Raises `ConfigError`."""
    new: dict[str, bytes] = {}
    for name in base.agreements:
        document = toml.read(base, name)
        table = document.file.parties.get(party.name)
        if table is None or document.file.own == party.name:
            continue
        if not name.lower().endswith(".toml"):
            raise ConfigError(
                "is a Domibus P-Mode as it is, where no certificate can be pinned", file=str(base.path(name)),
                hint="put an agreement file with [network] over it: pmodes/README.md", key=f"parties.{party.name}",
            )  # fmt: skip
        named = _names(base, Pins.of(party), pins, party.name, table, new)
        new[name] = with_keys(base.agreement(name).decode(), party.name, named, file=str(base.path(name))).encode()
    return base.changed(new)


def _names(
    base: Bundle, before: Pins, pins: Pins, party: str, table: Table, new: dict[str, bytes]
) -> dict[str, str | None]:
    """The keys of the party's table that change, with the files they name; files that are not there yet go into
    `new`. A certificate out of a network's truststore that stays is not named: the next store may replace it."""
    texts = {getattr(table, key): base.files.get(getattr(table, key) or "") for key in KEYS}

    def file(der: bytes | None) -> str | None:
        if der is None:
            return None
        text = parties.pem(der).encode()
        for known, octets in texts.items():
            if octets is not None and octets.strip() == text.strip():
                return known
        # Named by its content: nothing is ever written over, and no two certificates share a file.
        name = f"{safe_stem(party)}-{fingerprint(der)[:16]}.pem"
        new[name] = text
        return name

    named: dict[str, str | None] = {
        key: file(getattr(pins, key)) for key in ("next", "next_encryption", "previous")
        if getattr(pins, key) != getattr(before, key)
    }  # fmt: skip
    if (pins.signing, pins.encryption) == (before.signing, before.encryption):
        return named
    if pins.signing is not None and pins.signing == pins.encryption:
        return {**named, "certificate": file(pins.signing), "signing": None, "encryption": None}
    named["certificate"] = None
    for key in ("signing", "encryption"):
        stays = getattr(pins, key) == getattr(before, key)
        source = getattr(table, key) or table.certificate
        if not (stays and source is not None and source not in base.files):
            named[key] = file(getattr(pins, key))
    return named


# -- doing ------------------------------------------------------------------------------


async def carry_out(
    store: Store, config: Config, change: Change, *, author: str, reason: str, move: bool = False,
    patience: float = agreements.PATIENCE, look: Callable[[], Awaitable[None]] | None = None,
    told: Callable[[Any], None] | None = None, forced: str | None = None,
) -> Outcome:  # fmt: skip
    """Put a planned change in force on every process, then into the files of this node where these are in step.

    Raises `StalePlan`, `ConfigError`, `StoreUnavailable`, and `NotWritten`: then it is in force all the same.
    """
    notes = {
        "act": f"certificate {change.act}", "party": change.party,
        **{f"{key}_sha256": fingerprint(der) for key in Pins.__struct_fields__ if (der := getattr(change.after, key))},
        **({"forced": forced} if forced else {}),
    }  # fmt: skip
    outcome = await agreements.apply(
        store, change.bundle, base=change.plan.base, author=author, reason=reason, notes=notes, patience=patience,
        move=move, look=look, told=told,
    )  # fmt: skip
    if outcome.revision.state == "ACTIVE" and change.in_step:
        try:
            partner_files.carry_out(partner_files.Plan(change.party, tuple(writes(config, change.bundle))))
        except (ConfigError, StalePlan, OSError) as error:
            raise NotWritten(str(error), outcome) from None
    return outcome


def writes(config: Config, bundle: Bundle) -> list[partner_files.Write]:
    """What the files of this node need to say the same: agreement files, and certificates in the certs folder."""
    folder = config.pmodes if config.pmodes.is_dir() else config.pmodes.parent
    made = []
    for name, octets in bundle.files.items():
        place = folder / name
        if not place.exists():
            place = config.certs / name
        before = place.read_bytes() if place.is_file() else None
        # A truststore stands in a bundle as its certificates; what is on disk is the store, and nobody changed it.
        if before != octets and (before is None or name in bundle.agreements):
            made.append(partner_files.Write(place, before, octets))
    return made


async def stage_next(
    store: Store, config: Config, party: str, octets: bytes, *, author: str, reason: str, use: Use | None = None,
    replaces: bool = False, files: Bundle | None = None, lint: Lint | None = None,
    look: Callable[[], Awaitable[None]] | None = None, patience: float = agreements.PATIENCE,
) -> Outcome | None:  # fmt: skip
    """Pin a partner's next certificate where nobody looks at a plan first: an approved request, a rule.

    `author` decided, and `reason` says why; both stand in the audit. `look` is `Revisions.look` within a process that
    serves, which must go on serving while it waits. None: it is staged already. Raises what `plan_stage` raises, and
    `ConfigError` for a change that lint or a process refuses.
    """
    for attempt in range(TRIES):
        change = await plan_stage(store, config, party, octets, use=use, replaces=replaces, files=files, lint=lint)
        if change.before == change.after:
            return None
        if change.plan.errors:
            error = change.plan.errors[0]
            raise ConfigError(f"{error.where}: {error.message}", hint=f"{len(change.plan.errors)} lint errors in all")
        try:
            outcome = await carry_out(
                store, config, change, author=author, reason=reason, look=look, patience=patience
            )  # fmt: skip
        except NotWritten as error:
            outcome = error.outcome  # `agreements.drift` is told at the next start, as ever
        except StalePlan:
            if attempt == TRIES - 1:
                raise
            continue
        if outcome.revision.state != "ACTIVE":
            raise ConfigError(f"revision {outcome.revision.number} was refused: {outcome.revision.refusal}")
        return outcome
    raise StalePlan("the agreements change too often")  # pragma: no cover - the loop returns or raises


async def decide(
    store: Store, found: Stranger, state: Literal["ACCEPTED", "REJECTED"], *, actor: str, reason: str
) -> bool:
    """Note the decision about a certificate in quarantine. Accepting one pins nothing: it is staged first."""
    entry = AuditEntry(
        kind=f"certificate.{state.lower()}", actor=actor, subject=found.party,
        detail={"certificate_sha256": found.sha256, "subject": found.subject, "issuer": found.issuer, "reason": reason},
    )  # fmt: skip
    return await store.decide(found.party, found.sha256, state, entry, reason=reason)


# -- what these share -------------------------------------------------------------------


def one_certificate(octets: bytes) -> bytes:
    """The certificate of a party in a file, DER; of a chain the one that issued no other.

    Raises `CertificateRefused`.
    """
    if len(octets) > partner_files.MAX_CERTIFICATE_FILE:
        raise CertificateRefused("too-large", f"a file of more than {partner_files.MAX_CERTIFICATE_FILE >> 10} KiB")
    found = certificates(octets)
    issuers = {ca for der in found if (ca := likeness.issuer_of(der, [c for c in found if c != der])) is not None}
    leaves = [der for der in found if der not in issuers]
    if len(leaves) != 1:
        raise CertificateRefused("ambiguous", f"{len(found)} certificates, {len(leaves)} of them of parties; give one")
    return leaves[0]


def fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()


async def _active(store: Store, config: Config) -> Bundle:
    active = await store.active_agreements()
    if active is None:
        raise NotPossible("no agreements are in force yet; `gateway run` takes the files as the first revision")
    base: Path = config.pmodes if config.pmodes.is_dir() else config.pmodes.parent
    return plan.bundle_of(active, base)


def _partners(pmodes: PModeSet) -> list[Party]:
    found = [p for p in pmodes.parties if not p.pattern and not pmodes.is_self(p.party_id)]
    return sorted(found, key=lambda p: p.name)


def _partner(pmodes: PModeSet, wanted: str) -> Party:
    known = _partners(pmodes)
    for party in known:
        if wanted in (party.name, party.party_id.value):
            return party
    ours = any(wanted in (p.name, p.party_id.value) for p in pmodes.selves)
    raise NotFound(f"{wanted} is our own party" if ours else
                   f"there is no partner {wanted!r}; {suggestion(wanted, [p.name for p in known][:1000])}")  # fmt: skip


def files_of(load: Callable[[], Bundle]) -> Bundle | None:
    """The files of this node, None where they cannot be read: then they are not in step with anything."""
    try:
        return load()
    except (GatewayError, OSError):
        return None


def differences(alike: Likeness) -> Sequence[str]:
    """What is not the same, of what ought to be."""
    wanted = ("issuer", "issuer's key", "subject", "organisation id", "kind of key", "key usage")
    return [t.name for t in alike.traits if t.name in wanted and not t.same]
