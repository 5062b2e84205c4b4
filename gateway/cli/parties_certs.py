"""`gateway parties certs | stage-certificate | promote | retire-certificate`: how a partner's certificate changes."""

import sys
from pathlib import Path
from typing import Any

import click

from gateway.cli.changing import LINT_ERRORS, change_options
from gateway.cli.local import actor, config_option, on_database, settings_of
from gateway.cli.output import json_option, show_json, show_table
from gateway.cli.pmodes_change import reason_option

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


#: What verbs that change agreements have in common.
act_options = change_options(
    click.option("--rebase-waiting", "move", is_flag=True, help="Messages in flight go on under it, too."),
    force=LINT_ERRORS,
)


@click.command()
@click.argument("party", required=False)
@json_option
@config_option
def certs(party, as_json, config):
    """Partners' certificates in force: active, next (and since when it is used), previous; and what is in quarantine.

    Exit status 3: something waits for a decision: a next certificate in use, or a certificate in quarantine.
    """
    from gateway.operate import partner_certificates

    settings = settings_of(config)
    found = on_database(settings, lambda store: partner_certificates.overview(store, settings, party=party))
    if as_json:
        show_json({"certificates": [pinned_facts(one) for one in found.pinned],
                   "quarantine": [stranger_facts(one) for one in found.waiting]})  # fmt: skip
    else:
        show_table(
            [{**pinned_facts(one), "role": " + ".join(one.roles), "revocation": revocation_text(one.revocations)}
             for one in found.pinned],
            ["party", "role", "subject", "valid_until", "days_left", "in_use_since", "revocation", "sha256"],
        )  # fmt: skip
        for one in found.promotable:
            click.echo(f"! {one.party} signs with its next certificate since {one.in_use_since:%Y-%m-%d %H:%M}: "
                       f"gateway parties promote {one.party}", err=True)  # fmt: skip
        if found.waiting:
            click.echo(f"! {len(found.waiting)} in quarantine: gateway parties quarantine list", err=True)
    sys.exit(3 if found.promotable or found.waiting else 0)


@click.command("stage-certificate")
@click.argument("party")
@click.argument("file", type=FILE)
@click.option("--use", type=click.Choice(["sign", "encrypt"]), help="What it is for. Default: signing, if it can sign.")
@click.option("--replace", "replaces", is_flag=True, help="In place of another one that is staged.")
@reason_option
@act_options
@json_option
@config_option
def stage_certificate(party, file, use, replaces, config, **options):
    """Pin the certificate in FILE as the next one of PARTY: it may sign with either from now on.

    Nothing is encrypted to it before it is promoted.

    \b
    Exit status 1: refused, 3: lint errors, 6: the plan is stale, 8: not everybody answered in time
    """
    from gateway.operate import partner_certificates as verbs

    octets = file.read_bytes()[: verbs.partner_files.MAX_CERTIFICATE_FILE + 1]
    settings = settings_of(config)

    def plan(store, **more):
        return verbs.plan_stage(store, settings, party, octets, use=use, replaces=replaces, **more)

    sys.exit(on_database(settings, lambda store: change(settings, store, plan, **options)))


@click.command()
@click.argument("party")
@click.option("--encrypt/--keep-encryption", default=None,
              help="Whether to encrypt to it, too. Default: where one certificate is for both and it was seen in use.")
@click.option("--drop-old", is_flag=True, help="Do not accept the old one any more; messages under way may be refused.")
@reason_option
@act_options
@json_option
@config_option
def promote(party, encrypt, drop_old, config, **options):
    """Make the next certificate of PARTY its active one. The old one stays accepted as `previous`.

    \b
    Exit status 1: refused, 3: lint errors, 6: the plan is stale, 8: not everybody answered in time
    """
    from gateway.operate import partner_certificates as verbs

    settings = settings_of(config)

    def plan(store, **more):
        return verbs.plan_promote(store, settings, party, encrypt=encrypt, keep_old=not drop_old, **more)

    sys.exit(on_database(settings, lambda store: change(settings, store, plan, **options)))


@click.command("retire-certificate")
@click.argument("party")
@click.option("--which", type=click.Choice(["previous", "next", "next_encryption"]), default="previous",
              show_default=True, help="The one that is taken out.")
@reason_option
@act_options
@json_option
@config_option
def retire_certificate(party, which, config, **options):
    """Do not accept a previous (or next) certificate of PARTY any more.

    \b
    Exit status 1: refused, 3: lint errors, 6: the plan is stale, 8: not everybody answered in time
    """
    from gateway.operate import partner_certificates as verbs

    settings = settings_of(config)

    def plan(store, **more):
        return verbs.plan_retire(store, settings, party, which, **more)

    sys.exit(on_database(settings, lambda store: change(settings, store, plan, **options)))


# -- what the verbs share ----------------------------------------------------------------


async def change(
    settings: Any, store: Any, plan: Any, *, reason: str, yes: bool, dry_run: bool, plan_id: str | None, move: bool,
    force: bool, timeout: float, as_json: bool,
) -> int:  # fmt: skip
    """Plan, show, ask, carry out; the exit status."""
    from gateway import app
    from gateway.cli.pmodes_shown import errors_text, show_outcome, told
    from gateway.errors import StalePlan
    from gateway.operate import partner_certificates as verbs

    def lint(files):
        return app.lint_pmodes(settings, path=files)

    planned = await plan(store, files=verbs.files_of(lambda: app.load_bundle(settings)), lint=lint)
    if plan_id is not None and plan_id != planned.plan.id:
        raise StalePlan(f"the plan is {planned.plan.id} by now, not {plan_id}: look at it again")
    refused = bool(planned.plan.errors) and not force
    if dry_run or refused or not as_json:
        show_change(planned, as_json)
    if refused:
        click.echo(f"error: {errors_text(planned.plan.errors)}", err=True)
        return 3
    if dry_run or planned.before == planned.after:
        return 0
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to ask; --yes does it without asking")
        click.confirm(f"{planned.act.capitalize()} it?", abort=True, err=True)
    if not any(p.alive for p in await store.processes()):
        app.self_test(settings, planned.bundle)  # nobody else does, and the next start would fail
    try:
        outcome = await verbs.carry_out(
            store, settings, planned, author=actor(settings), reason=reason, move=move, patience=timeout,
            told=None if as_json else told, forced=errors_text(planned.plan.errors) if planned.plan.errors else None,
        )  # fmt: skip
    except verbs.NotWritten as error:
        outcome = error.outcome
        click.echo(f"! in force, but the files of this node are as they were: {error}", err=True)
    else:
        if outcome.revision.state == "ACTIVE" and not planned.in_step:
            number = outcome.revision.number
            click.echo("! the files of this node said something else before and were not changed; "
                       f"`gateway pmodes show --revision {number} --to FOLDER` writes what is in force", err=True)
    return show_outcome(planned.plan, outcome, as_json)


def show_change(planned: Any, as_json: bool) -> None:
    from msgspec import to_builtins

    from gateway.cli.pmodes_shown import show_plan
    from gateway.operate.partner_certificates import fingerprint

    if as_json:
        show_json({
            **to_builtins(planned.plan), "act": planned.act, "party": planned.party, "notes": planned.notes,
            "before": {key: fingerprint(der) for key in planned.before.__struct_fields__
                       if (der := getattr(planned.before, key))},
            "after": {key: fingerprint(der) for key in planned.after.__struct_fields__
                      if (der := getattr(planned.after, key))},
            "likeness": None if planned.likeness is None else likeness_facts(planned.likeness),
            "files_follow": planned.in_step,
        })  # fmt: skip
        return
    if planned.before == planned.after:
        click.echo("nothing to change: it is staged already")
        return
    click.echo(f"{planned.act} a certificate of {planned.party}")
    for note in planned.notes:
        click.echo(f"! {note}")
    if planned.likeness is not None:
        show_likeness(planned.likeness)
    show_plan(planned.plan, as_json=False)


def show_likeness(alike: Any) -> None:
    """What matches the certificate in force, and what does not."""
    from gateway.log import printable

    for trait in alike.traits:
        if trait.same:
            click.echo(f"  = {trait.name}: {printable(trait.new, 200)}")
        else:
            old, new = printable(trait.old, 200) or "none", printable(trait.new, 200) or "none"
            click.echo(f"  ≠ {trait.name}: {old} → {new}")
    words = {True: "= signed by that CA", False: "≠ NOT signed by the CA of that name that we know",
             None: "? its CA is not known here: names prove nothing, ask the partner for the fingerprint"}  # fmt: skip
    click.echo(f"  {words[alike.ca_proven]}")


def likeness_facts(alike: Any) -> dict:
    from msgspec import to_builtins

    return {"traits": to_builtins(alike.traits), "ca_proven": alike.ca_proven, "expected": alike.expected}


def pinned_facts(one: Any) -> dict:
    from gateway.cli.parties import builtins

    facts = {"party": one.party, "roles": list(one.roles), **builtins(one.certificate),
             "in_use_since": one.in_use_since, "revocations": builtins(list(one.revocations))}  # fmt: skip
    return {key: value for key, value in facts.items() if key not in ("pem", "uses")}


def stranger_facts(one: Any) -> dict:
    from gateway.cli.parties import builtins

    facts = builtins(one)
    del facts["der"]
    return facts


def revocation_text(revocations: Any) -> str:
    """The newest word about a certificate, and how old it is."""
    from datetime import UTC, datetime

    if not revocations:
        return ""
    one = revocations[0]
    if one.status == "none":
        return f"not known: {one.trouble or 'nobody was asked'}"
    hours = (datetime.now(UTC) - one.answered_at).total_seconds() / 3600
    age = f"{hours:.0f} h ago" if hours >= 1 else f"{hours * 60:.0f} min ago"
    return f"{one.status} ({one.source} {one.host}, {age})" + (", since then no answer" if one.failing_since else "")
