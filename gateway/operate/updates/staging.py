"""A partner's next certificates, and the name an update gave its agreement, into a new revision of the agreements.

All of an update in one revision, or nothing: that is what both sides were promised. As with everything that pins
partners' certificates, the revision in force is what is changed, and the files of this node follow where they were
in step (`partner_certificates`). Doing it again when it is done changes nothing, so that a process that died in
between costs nothing.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from gateway import log
from gateway.as4.pmode import Party, PModeSet
from gateway.as4.units import AgreementRef
from gateway.config import Config
from gateway.errors import ConfigError, GatewayError, StalePlan
from gateway.operate import agreements, partner_files
from gateway.operate.partner_certificates import repinned, writes
from gateway.operate.pins import Pins, staged
from gateway.operate.plan import Lint, bundle_of, new_errors
from gateway.operate.proposals import MAX_TEXT
from gateway.operate.updates.rule import Next
from gateway.pmodes.bundle import Bundle
from gateway.pmodes.edit import with_agreed
from gateway.pmodes.toml import expanded
from gateway.store.api import Store


class Staged(Struct, frozen=True):
    """The revision in which it stands, and whether that is a new one."""

    revision: int
    changed: bool


class Stager:
    """Changes the agreements in force. `lint` judges files as agreements of this node, `files` reads those of this
    node; `look` lets the process we are in serve what it proposes. `patience` in seconds, as of `agreements.apply`."""

    def __init__(
        self, store: Store, config: Config, *, lint: Lint, files: Callable[[], Bundle],
        look: Callable[[], Awaitable[None]] | None = None, patience: float = 15.0,
    ) -> None:  # fmt: skip
        self._store, self._config, self._lint, self._files = store, config, lint, files
        self._look, self._patience = look, patience

    async def stage(
        self, party: str, next: Sequence[Next], agreed: AgreementRef | None, *, author: str, reason: str
    ) -> Staged:
        """Pin the certificates beside those in force, and take `agreed` as one more name of the agreement.

        Raises `ConfigError` and `CertificateRefused` for what cannot be in the agreements, `NotPossible` for what is
        there already, `StalePlan` when somebody else changes them at this moment, `StoreUnavailable`.
        """
        active = await self._store.active_agreements()
        if active is None:
            raise ConfigError("no revision of the agreements is in force")
        folder = self._config.pmodes
        old = bundle_of(active, folder if folder.is_dir() else folder.parent)
        new = self._with(old, party, next, agreed)
        if new.digest == old.digest:
            return Staged(active.number, False)
        errors, _ = new_errors(self._lint, new, old)
        if errors:
            raise ConfigError(f"{errors[0].rule} {errors[0].message}", file=errors[0].where)
        notes = {"act": "agreement update", "party": party}
        notes |= {f"next_{one.use}_sha256": hashlib.sha256(one.certificate).hexdigest() for one in next}
        outcome = await agreements.apply(
            self._store, new, base=active.number, author=author, reason=reason[: MAX_TEXT], notes=notes,
            patience=self._patience, look=self._look,
        )  # fmt: skip
        if outcome.revision.state != "ACTIVE":
            raise StalePlan(f"revision {outcome.revision.number} was refused: {outcome.revision.refusal}")
        self._write(old, new, party)
        return Staged(outcome.revision.number, True)

    def _write(self, old: Bundle, new: Bundle, party: str) -> None:
        """The same into the files of this node, where they were those in force; else they are left alone."""
        try:
            if self._files().digest == old.digest:
                partner_files.carry_out(partner_files.Plan(party, tuple(writes(self._config, new))))
        except (GatewayError, OSError) as error:
            # It is in force all the same; a service that may not write its configuration is none the worse.
            log.event("agreements.drift", level="warning", reason=f"an agreement update of {party}: {error}")

    def _with(self, old: Bundle, party: str, next: Sequence[Next], agreed: AgreementRef | None) -> Bundle:
        pmodes = expanded(old)
        found = party_of(pmodes, party)
        pins = Pins.of(found)
        after = pins
        for one in next:
            if one.use == "encrypt" and pins.encryption == pins.signing:
                continue  # one certificate for both is promoted as one
            # Whether it may replace one that is staged was decided with the request.
            after = staged(after, one.certificate, use=one.use, now=datetime.now(UTC), allow=self._config.trust,
                           replaces=True)  # fmt: skip
        new = old if after == pins else repinned(old, found, after)
        if agreed is None or found.updates is None or agreed in found.updates.agreed or not _named(pmodes, party):
            return new
        names = [*map(_plain, found.updates.agreed), _plain(agreed)]
        return new.changed({
            name: with_agreed(new.agreement(name).decode(), party, names, file=name).encode()
            for name in new.agreements if name.endswith(".toml") and _says_updates(new.agreement(name), party)
        })  # fmt: skip


def party_of(pmodes: PModeSet, name: str) -> Party:
    """The party of that name. Raises `ConfigError`."""
    for party in pmodes.parties:
        if party.name == name:
            return party
    raise ConfigError(f"there is no party {name!r} in the agreements any more")


def _named(pmodes: PModeSet, party: str) -> bool:
    """Whether an AgreementRef has a say in what is matched: without one a name changes nothing."""
    return any(leg.agreement is not None for leg in pmodes.legs if leg.from_party.name == party and not leg.is_update)


def _says_updates(text: bytes, party: str) -> bool:
    import tomllib

    tables = tomllib.loads(text.decode())
    tables = tables.get("overlay", {}) if "network" in tables else tables
    return "updates" in tables.get("parties", {}).get(party, {})


def _plain(ref: AgreementRef) -> str | dict[str, str]:
    return ref.value if ref.type is None else {"value": ref.value, "type": ref.type}
