"""`gateway certs list | show | stage | retire | export | needs-renewal | timeline`: our own keys.

What is in force is in the database, as a ring that every process of every node has opened and tested. Whoever runs
the gateway on the same database switches at one moment, on this machine or another.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from gateway.cli.certs_shown import show_keys, show_outcome, show_plan, told
from gateway.cli.changing import PLAN_WARNINGS, change_options
from gateway.cli.local import actor, config_option, on_database, settings_of
from gateway.cli.output import json_option, show_json, show_table

USES = ("sign", "decrypt", "tls-server", "tls-client")
#: Months that the bars of `timeline` show.
MONTHS = 24


def use_option(command):
    """`--use`, handed on as `uses`."""
    return click.option("--use", "uses", multiple=True, type=click.Choice(USES), metavar="|".join(USES),
                        help="Only this use of the key; may be given several times.")(command)  # fmt: skip


keys_argument = click.argument("keys", nargs=-1, required=True, metavar="KEY…")
ring_options = change_options(
    click.option("--reason", required=True, help="Why; stands in the history and in the audit."), force=PLAN_WARNINGS
)


@click.command()
@keys_argument
@use_option
@ring_options
@json_option
@config_option
def stage(keys, uses, config, **options):
    """Every process opens these keys: what partners encrypt to them is read from now on. Nothing is signed with them.

    KEY is an id or the beginning of a fingerprint, as `gateway certs list` shows them.

    \b
    Exit status 1: refused, 3: the plan has a warning, 6: the plan is stale, 8: not everybody answered in time
    """
    from gateway.operate import certificates

    _run(config, lambda have, now: certificates.plan_stage(have, keys, uses), **options)


@click.command()
@keys_argument
@use_option
@ring_options
@json_option
@config_option
def retire(keys, uses, config, **options):
    """These keys are used no more. The private part is destroyed, the certificate is kept for archives.

    A key that decrypts drains for 30 days first; earlier needs --force. One that was never staged is dropped.

    \b
    Exit status 1: refused, 3: the plan has a warning, 6: the plan is stale, 8: not everybody answered in time
    """
    from gateway.operate import certificates

    async def drop(store, have, settings, yes, dry_run, reason, as_json):
        """A key that is in no ring goes without one."""
        found = [have.find(name) for name in keys]
        if not all(set(key.states.values()) == {"PLANNED"} for key in found):
            return None
        click.echo("\n".join(f"- {key.id} {key.algorithm} sha256:{key.fingerprint[:16]} is dropped" for key in found),
                   err=as_json)  # fmt: skip
        if dry_run:
            return 0
        _confirm(yes)
        gone = [await store.drop_key(key.id, actor=actor(settings), why=reason) for key in found]
        if as_json:
            show_json({"dropped": [key.id for key in gone]})
        return 0

    _run(config, lambda have, now: certificates.plan_retire(have, keys, uses, now=now), first=drop, **options)


def _run(config: Path | None, planned: Any, *, first: Any = None, **options: Any) -> None:
    """Read, plan, ask, apply; leaves with the exit status."""
    from gateway.operate import certificates

    settings = settings_of(config)

    async def change(store):
        have = await certificates.held(store)
        if first is not None:
            kept = {name: options[name] for name in ("yes", "dry_run", "reason", "as_json")}
            done = await first(store, have, settings, **kept)
            if done is not None:
                return done
        return await apply_plan(settings, store, planned(have, datetime.now(UTC)), **options)

    sys.exit(on_database(settings, change))


async def apply_plan(
    settings: Any, store: Any, plan: Any, *, reason: str, yes: bool, dry_run: bool, plan_id: str | None, force: bool,
    timeout: float, as_json: bool,
) -> int:  # fmt: skip
    """Show the plan, ask, apply it; the exit status. Raises `StalePlan` when `plan_id` is another."""
    from gateway import app
    from gateway.errors import StalePlan
    from gateway.operate import certificates

    if plan_id is not None and plan_id != plan.id:
        raise StalePlan(f"the plan is {plan.id} by now, not {plan_id}: look at it again")
    refused = bool(plan.obstacles) and not force
    if dry_run or refused or not as_json:
        show_plan(plan, as_json)
    if refused:
        click.echo(f"error: {plan.obstacles[0]}\nhint:  --force does it all the same", err=True)
        return 3
    if dry_run or plan.nothing:
        return 0
    _confirm(yes)
    outcome = await certificates.apply(
        store, plan, author=actor(settings), reason=reason, patience=timeout, told=None if as_json else told,
        test=lambda ring: app.test_ring(settings, store, ring),
    )  # fmt: skip
    return show_outcome(plan, outcome, as_json)


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask; --yes does it without asking")
    click.confirm("Do this?", abort=True, err=True)


# -- looking ----------------------------------------------------------------------------


@click.command("list")
@click.option("--all", "everything", is_flag=True, help="Retired ones, too.")
@json_option
@config_option
def listing(everything, as_json, config):
    """Our certificates: what signs, what decrypts, what waits; in the database and in files."""
    found, number = _own(config)
    found = [one for one in found if everything or one.state != "RETIRED"]
    show_keys(found, number, as_json)


@click.command()
@click.argument("key")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write to instead.")
@config_option
def export(key, out, config):
    """The certificate of a key and its chain, as PEM. Private keys never leave the database."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from gateway.errors import NotPossible

    found = on_database(settings_of(config), _find(key), look_only=True)
    if found.certificate is None:
        raise NotPossible(f"key {found.id} waits for its certificate")
    pem = b"".join(
        x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in (found.certificate, *found.chain)
    )
    if out is None:
        click.echo(pem.decode(), nl=False)
    else:
        out.write_bytes(pem)
        click.echo(f"{out}: sha256:{found.fingerprint}")


@click.command("needs-renewal")
@click.option("--days", type=click.IntRange(0, 3650), default=30, show_default=True, help="What ends within these.")
@json_option
@config_option
def needs_renewal(days, as_json, config):
    """Certificates in use that end soon and have no successor in the ring.

    Exit status 0: nothing is due, 3: something is.
    """
    from gateway.operate import certificates

    found, _ = _own(config)
    due = certificates.needs_renewal(found, now=datetime.now(UTC), days=days)
    rows = [{"key": d.certificate.key, "use": d.certificate.use, "party": d.certificate.party, "days": d.days,
             "not_after": d.certificate.not_after, "fingerprint": d.certificate.fingerprint, "successor": d.successor}
            for d in due]  # fmt: skip
    if as_json:
        show_json(rows)
    else:
        show_table(rows, ["key", "use", "party", "days", "not_after", "successor"])
    sys.exit(3 if rows else 0)


@click.command()
@json_option
@config_option
def timeline(as_json, config):
    """When each of our certificates begins and ends, side by side, from now on."""
    found, _ = _own(config)
    now = datetime.now(UTC)
    found = sorted((one for one in found if one.not_after and one.state != "RETIRED"), key=lambda one: one.not_after)
    rows = [
        {"use": one.use, "party": one.party, "key": one.key, "state": one.state, "not_before": one.not_before,
         "not_after": one.not_after, "days": (one.not_after - now).days, "months": _bar(one, now)}
        for one in found
    ]  # fmt: skip
    if as_json:
        show_json(rows)
        return
    show_table([{**row, "not_before": f"{row['not_before']:%Y-%m-%d}", "not_after": f"{row['not_after']:%Y-%m-%d}"}
                for row in rows], ["use", "key", "state", "not_before", "not_after", "days", "months"])  # fmt: skip


def _bar(one: Any, now: datetime) -> str:
    """A sign for each month from now on: is it valid in its middle?"""
    month = timedelta(days=365.25 / 12)
    return "".join("█" if one.not_before <= now + (n + 0.5) * month <= one.not_after else "·" for n in range(MONTHS))


def _own(config: Path | None) -> tuple[list, int]:
    """Every certificate of ours, and the number of the ring."""
    from gateway.operate import certificates, key_files

    settings = settings_of(config)
    have = on_database(settings, certificates.held, look_only=True)
    return certificates.own_certificates(have) + key_files.configured(settings), have.number


def _find(name: str) -> Any:
    from gateway.operate import certificates

    async def look(store):
        return (await certificates.held(store)).find(name)

    return look


def show_key(name: str, as_json: bool, config: Path | None) -> None:
    """One key of the database, with its history."""
    from gateway.cli.certs_shown import show_one
    from gateway.operate import certificates

    async def look(store):
        have = await certificates.held(store)
        key = have.find(name)
        return key, [one for one in certificates.own_certificates(have) if one.key == key.id]

    show_one(*on_database(settings_of(config), look, look_only=True), as_json)
