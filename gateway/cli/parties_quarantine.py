"""`gateway parties quarantine`: certificates nobody pinned, with which somebody signed who claims to be a partner."""

import sys

import click

from gateway.cli.local import actor, config_option, on_database, settings_of
from gateway.cli.output import json_option, show_json, show_table
from gateway.cli.parties_certs import act_options, change, likeness_facts, show_likeness, stranger_facts
from gateway.cli.pmodes_change import reason_option


@click.group()
def quarantine():
    """Certificates that wait for a decision: who claims to be a partner has their key, and they are not pinned."""


@quarantine.command("list")
@click.option("--state", type=click.Choice(["WAITING", "ACCEPTED", "REJECTED"]), default="WAITING", show_default=True)
@click.option("--party", help="Only those that claim to be this party: its name or id.")
@json_option
@config_option
def list_(state, party, as_json, config):
    """One line for each, the one seen last first. Exit status 3 when some wait."""
    from gateway.operate import partner_certificates as verbs

    settings = settings_of(config)

    async def look(store):
        return await verbs.strangers(store, settings, state=state, party=party)

    found = on_database(settings, look)
    rows = [{**stranger_facts(one), "party": name} for name, one in found]
    if as_json:
        show_json(rows)
    else:
        show_table(
            [{**row, "sha256": row["sha256"][:16]} for row in rows],
            ["party", "sha256", "subject", "issuer", "valid_until", "seen", "first_seen", "last_seen"],
        )  # fmt: skip
    sys.exit(3 if state == "WAITING" and rows else 0)


@quarantine.command()
@click.argument("fingerprint")
@json_option
@config_option
def show(fingerprint, as_json, config):
    """One of them beside the certificate in force: what is the same, what is not. FINGERPRINT may be shortened."""
    from gateway.cli.parties import grouped
    from gateway.operate import partner_certificates as verbs

    settings = settings_of(config)
    found, party, alike = on_database(settings, lambda store: verbs.examined(store, settings, fingerprint))
    facts = {**stranger_facts(found), "party": party.name if party else found.party,
             "likeness": likeness_facts(alike) if alike else None}  # fmt: skip
    if as_json:
        show_json(facts)
        return
    for key in ("party", "subject", "issuer", "valid_from", "valid_until", "state", "first_seen", "last_seen", "seen",
                "decided_by", "decided_at", "reason"):  # fmt: skip
        if facts[key] is not None:
            click.echo(f"{key.replace('_', ' ') + ':':<14}{facts[key]}")
    click.echo(f"sha256:       {grouped(found.sha256)}")
    if alike is not None:
        click.echo("beside the active certificate:")
        show_likeness(alike)
    else:
        click.echo("! the party has no active certificate" if party else "! no agreement names this party any more")


@quarantine.command()
@click.argument("fingerprint")
@click.option("--replace", "replaces", is_flag=True, help="In place of another one that is staged.")
@reason_option
@act_options
@json_option
@config_option
def accept(fingerprint, replaces, config, **options):
    """It is the partner's: stage it as its next certificate. Ask the partner first, by another way than a message.

    \b
    Exit status 1: refused, 3: lint errors, 6: the plan is stale, 8: not everybody answered in time
    """
    from gateway.errors import NotPossible
    from gateway.operate import partner_certificates as verbs

    settings = settings_of(config)

    async def do(store) -> int:
        found, party, _ = await verbs.examined(store, settings, fingerprint)
        if party is None:
            raise NotPossible("no agreement names this party any more")

        def plan(store, **more):
            return verbs.plan_stage(store, settings, party.name, found.der, replaces=replaces, use="sign", **more)

        status = await change(settings, store, plan, **options)
        if status in (0, 8) and not options["dry_run"]:
            await verbs.decide(store, found, "ACCEPTED", actor=actor(settings), reason=options["reason"])
        return status

    sys.exit(on_database(settings, do))


@quarantine.command()
@click.argument("fingerprint")
@reason_option
@json_option
@config_option
def reject(fingerprint, reason, as_json, config):
    """It is not the partner's. It stays refused, and its number goes on being counted. Exit status 6: it was before."""
    from gateway.operate import partner_certificates as verbs

    settings = settings_of(config)

    async def do(store):
        found = await verbs.stranger(store, fingerprint)
        return found, await verbs.decide(store, found, "REJECTED", actor=actor(settings), reason=reason)

    found, done = on_database(settings, do)
    if as_json:
        show_json({"sha256": found.sha256, "rejected": done})
    else:
        click.echo(f"{'rejected' if done else 'rejected before'}: {found.subject}")
    sys.exit(0 if done else 6)
