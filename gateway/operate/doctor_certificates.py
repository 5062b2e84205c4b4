"""What doctor says of partners' certificates beyond their dates: decisions that wait, and what issuers say."""

from datetime import UTC, datetime

from gateway.as4.pmode import PModeSet
from gateway.config import Config
from gateway.log import printable
from gateway.msh.channels import party_key
from gateway.operate.doctor_check import Check
from gateway.operate.partner_certificates import fingerprint
from gateway.operate.pins import Pins
from gateway.store.api import Store


async def certificate_checks(
    store: Store, pmodes: PModeSet, config: Config, *, now: datetime | None = None
) -> list[Check]:
    """Next certificates in use, certificates in quarantine, and revocation. Raises `StoreUnavailable`."""
    return [*await _decisions(store, pmodes), *await _revocations(store, config, now or datetime.now(UTC))]


async def _decisions(store: Store, pmodes: PModeSet) -> list[Check]:
    used = {(use.party, use.sha256): use for use in await store.next_uses()}
    checks = []
    for party in pmodes.parties:
        following = Pins.of(party).next
        use = used.get((party_key(party.party_id), fingerprint(following))) if following else None
        if use is not None:
            checks.append(Check(f"next certificate {party.name}", "warn",
                                f"it signs with it since {use.first_used:%Y-%m-%d %H:%M} UTC",
                                f"gateway parties promote {party.name}"))  # fmt: skip
    if waiting := await store.strangers(state="WAITING"):
        parties = sorted({printable(one.party.rpartition(":")[2], 80) for one in waiting})
        text = f"{len(waiting)} certificates wait for a decision: {', '.join(parties)}"
        checks.append(Check("quarantine", "warn", text, "gateway parties quarantine list"))
    return checks


async def _revocations(store: Store, config: Config, now: datetime) -> list[Check]:
    checks, good = [], []
    for one in await store.revocations():
        who = f"revocation {printable(one.subject, 120) or one.certificate[:16]}"
        if one.status == "revoked":
            text = f"revoked, says {one.host} ({one.revocation_reason or 'no reason given'})"
            checks.append(Check(who, "fail", text, "stage its new one: gateway parties stage-certificate"))
        elif one.status == "unknown":
            checks.append(Check(who, "fail", f"its issuer does not know it, says {one.host}", "ask the partner"))
        elif one.failing_since is not None:
            hours = (now - one.failing_since).total_seconds() / 3600
            left = float(config.revocation.grace) / 3600 - hours
            text = f"no answer for {hours:.1f} h ({one.trouble}); `soft` bears that for {max(left, 0):.1f} h more"
            fix = "check that this node may reach it: firewall, [egress] allow_networks"
            checks.append(Check(who, "warn", text, fix))
        elif one.status == "good":
            good.append(one)
    if good:
        oldest = min(one.answered_at for one in good)
        minutes = (now - oldest).total_seconds() / 60
        text = f"{len(good)} certificates good, the oldest answer {minutes:.0f} min old"
        checks.append(Check("revocation", "ok", text))
    return checks
