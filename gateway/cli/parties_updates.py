"""`gateway parties updates`: agreement updates, those partners ask of us and those we ask of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from gateway.cli.local import actor, config_option, on_database, settings_of
from gateway.cli.output import json_option, show_json, show_table

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
COLUMNS = ["id", "direction", "party", "kind", "state", "created_at", "respond_by", "receipted_at", "answered_at",
           "code", "detail"]  # fmt: skip
MORE = ["reference", "current", "updated", "activate_by", "expire_by", "terminate_by", "signer", "actor", "late",
        "reason"]  # fmt: skip


@click.group()
def updates():
    """ebCore Agreement Update: certificates that change by agreement, in messages."""


@updates.command("list")
@click.option("--waiting", is_flag=True, help="Only those that wait for a decision of ours.")
@click.option("--party", help="Only those with this partner.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
@config_option
def list_(waiting, party, limit, as_json, config):
    """Requests in both directions, newest first: sent, receipted, answered, refused with code, timed out.

    Exit status 3: with --waiting, something waits.
    """
    settings = settings_of(config)
    states = ("WAITING",) if waiting else ()
    found = on_database(settings, lambda store: store.updates(states=states, limit=limit), look_only=True)
    rows = [_facts(row) for row in found if party in (None, row.party, row.partner)]
    if as_json:
        show_json(rows)
    else:
        show_table([row | {"id": row["id"][:8]} for row in rows], COLUMNS)
    raise SystemExit(3 if waiting and rows else 0)


@updates.command()
@click.argument("update")
@json_option
@config_option
def show(update, as_json, config):
    """One request: what it asks, the certificates, and what became of it. UPDATE is its number or its beginning."""
    from gateway.log import printable
    from gateway.operate import parties
    from gateway.operate.explanations import explain
    from gateway.operate.updates import deciding

    settings = settings_of(config)
    shown = on_database(settings, lambda store: deciding.find(store, update), look_only=True)
    now = datetime.now(UTC)
    certificates = [parties.certificate(der, (), now, settings) for der in shown.certificates]
    names = ("subject", "valid_from", "valid_until", "sha256", "pem")
    facts = _facts(shown.row) | {
        field: getattr(shown.request, field, None) for field in ("expire_by", "terminate_by", "reason")
    }
    facts["certificates"] = [{name: getattr(one, name) for name in names} for one in certificates]
    if as_json:
        show_json(facts)
        return
    for name in (*COLUMNS, *MORE):
        if (value := facts.get(name)) not in (None, False):
            text = value.strftime("%Y-%m-%d %H:%M:%SZ") if isinstance(value, datetime) else str(value)
            click.echo(f"{name.replace('_', ' ') + ':':<16}{printable(text, 4096)}")
    if shown.row.code:
        on = "partner" if shown.row.direction == "outbound" else "receiving"
        told = explain(on, shown.row.code, shown.row.detail or "")
        click.echo(f"{told.what} {told.why}\n{told.fix}")
    for one in certificates:
        click.echo(f"new certificate: {printable(one.subject, 400)}")
        click.echo(f"                sha256 {_grouped(one.sha256)}")
        if one.valid_until:
            click.echo(f"                {one.valid_from:%Y-%m-%d} to {one.valid_until:%Y-%m-%d}")


@updates.command()
@click.argument("update")
@click.option("--fingerprint", "fingerprints", multiple=True, metavar="SHA256",
              help="Of each new certificate, as the partner told you some other way; 16 digits or more.")
@click.option("--reason", required=True, help="How you made sure; stands in the audit.")
@json_option
@config_option
def approve(update, fingerprints, reason, as_json, config):
    """Have a waiting request carried out: its certificate is staged as the partner's next one, and it is answered.

    The request is signed with the key that is to be replaced. If that key was stolen, this is how a thief would bring
    in a certificate of his own: ask the partner, by a way you know, for the fingerprint.

    \b
    gateway parties updates approve 3f2a91c0 --fingerprint 9c1d3e5f70a1b2c3 --reason "called J. Tamm, +372 …"
    """
    from gateway.operate.updates import deciding

    settings = settings_of(config)
    row = on_database(settings, lambda store: deciding.approve(
        store, update, fingerprints=fingerprints, actor=actor(settings), reason=reason))  # fmt: skip
    _told(row, as_json, "approved; the gateway carries it out now")


@updates.command()
@click.argument("update")
@click.option("--reason", required=True, help="Is told to the partner, and stands in the audit.")
@json_option
@config_option
def reject(update, reason, as_json, config):
    """Refuse a waiting request."""
    from gateway.operate.updates import deciding

    settings = settings_of(config)
    row = on_database(
        settings, lambda store: deciding.reject(store, update, actor=actor(settings), reason=reason)
    )
    _told(row, as_json, "refused; the partner is told now")


@updates.command()
@click.argument("parties", nargs=-1)
@click.option("--certificate", "files", type=FILE, multiple=True, required=True,
              help="Our next certificate, with its chain: PEM, DER or PKCS#7. Twice where there is one for each use.")
@click.option("--respond-in", "days", type=click.FloatRange(0.01, 365), default=7.0, show_default=True, metavar="DAYS",
              help="Until when an answer is asked for.")
@click.option("--activate-by", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]), metavar="UTC",
              help="From when on we use it. Default: partners may count on it at once.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--dry-run", is_flag=True, help="Show who would be asked for what, and do nothing.")
@json_option
@config_option
def request(parties, files, days, activate_by, yes, dry_run, as_json, config):
    """Ask PARTIES, or all that have updates, to take our next certificate.

    The gateway sends the requests; `gateway parties updates list` shows how each is answered.
    """
    from gateway.operate.updates import asking

    settings = settings_of(config)
    octets = [path.read_bytes() for path in files]
    now = datetime.now(UTC).replace(microsecond=0)
    begins = activate_by and activate_by.replace(tzinfo=UTC)

    async def plan(store):
        pmodes, keyring = await _in_force(settings, store)
        return pmodes, _planned(octets, parties, pmodes, keyring, settings, now)

    async def go(store):
        pmodes, _ = await _in_force(settings, store)
        return [
            await asking.ask(
                store, pmodes, name, found, host=settings.node.host, actor=actor(settings), now=now,
                respond_by=now + timedelta(days=days), activate_by=begins,
            )
            for name, found in planned
        ]  # fmt: skip

    _, planned = on_database(settings, plan, look_only=True)
    if not as_json:
        show_table([{"party": name, "replaces": _sha(one.replaces), "by": _sha(one.certificate)}
                    for name, found in planned for one in found], ["party", "replaces", "by"])  # fmt: skip
    rows = []
    if not dry_run:
        if not yes:
            click.confirm(f"ask {len(planned)} partner{'s' * (len(planned) != 1)}?", abort=True, err=True)
        rows = on_database(settings, go)
    if as_json:
        show_json({"asked": [_facts(row) for row in rows], "planned": [
            {"party": name, "replaces": _sha(one.replaces), "by": _sha(one.certificate)}
            for name, found in planned for one in found]})  # fmt: skip
        return
    for row in rows:
        until = f"{row.respond_by:%Y-%m-%d %H:%M}Z"
        click.echo(f"{row.party}: update {str(row.id)[:8]}, an answer is expected until {until}")


@updates.command()
@click.argument("update")
@click.option("--by", "terminate_by", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]), metavar="UTC",
              help="When the old agreement ends.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@json_option
@config_option
def terminate(update, terminate_by, yes, as_json, config):
    """Tell the partner that the agreement before UPDATE, which it accepted, comes to its end."""
    from gateway.operate.updates import asking, deciding

    settings = settings_of(config)

    async def go(store):
        shown = await deciding.find(store, update)
        pmodes, _ = await _in_force(settings, store)
        return await asking.terminate(
            store, pmodes, shown.row, host=settings.node.host, actor=actor(settings),
            now=datetime.now(UTC).replace(microsecond=0),
            terminate_by=terminate_by and terminate_by.replace(tzinfo=UTC),
        )  # fmt: skip

    if not yes:
        click.confirm("tell the partner that the old agreement ends?", abort=True, err=True)
    _told(on_database(settings, go), as_json, "the partner is told now")


# -- what the commands share ---------------------------------------------------------


async def _in_force(settings, store):
    """The agreements in force, and our keys."""
    from gateway import app
    from gateway.errors import NotPossible
    from gateway.operate import agreements
    from gateway.pmodes.toml import expanded

    active = await store.active_agreements()
    if active is None:
        raise NotPossible("no revision of the agreements is in force yet: start the gateway, or `gateway pmodes apply`")
    pmodes = expanded(agreements.bundle_of(active, app.base_of(settings)))
    return pmodes, await app.own_keyring(settings, store)


def _planned(octets, parties, pmodes, keyring, settings, now):
    """(party, what is to be replaced) for each."""
    from gateway.errors import NotPossible
    from gateway.operate.updates import asking, own

    names = list(parties) or [party.name for party in asking.partners(pmodes)]
    if not names:
        raise NotPossible("no agreement has updates: set `updates` for a party")
    return [(name, own.renewals(octets, pmodes, keyring, name, config=settings, now=now)) for name in names]


def _facts(row) -> dict:
    import msgspec

    facts = msgspec.to_builtins(row, builtin_types=(datetime, bytes))
    for name in ("document", "answer", "claim", "due_at", "attempt", "partner"):
        facts.pop(name)
    return facts


def _told(row, as_json: bool, words: str) -> None:
    if as_json:
        show_json(_facts(row))
    else:
        click.echo(f"update {str(row.id)[:8]} of {row.party}: {words}")


def _sha(der: bytes) -> str:
    import hashlib

    return hashlib.sha256(der).hexdigest()


def _grouped(fingerprint: str) -> str:
    return " ".join(fingerprint[n : n + 4] for n in range(0, len(fingerprint), 4))
