"""`gateway parties`: our partners, as the agreements and the store of this node know them.

`add` and `remove` change agreement files; `gateway pmodes apply` puts them in force.
"""

import sys
from pathlib import Path

import click

from gateway.cli.local import config_option, note_files, on_store
from gateway.cli.output import json_option, show_json, show_table
from gateway.cli.pmodes import place, places, revision_option, source
from gateway.cli.verbs import Verb, Verbs

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
VERBS: dict[str, Verb] = {
    "certs": Verb("gateway.cli.parties_certs:certs", "Certificates in force: active, next, since when it is used."),
    "export": Verb("gateway.cli.parties_package:export", "What a partner has to know of a party."),
    "promote": Verb("gateway.cli.parties_certs:promote", "Make the next certificate of a partner its active one."),
    "quarantine": Verb("gateway.cli.parties_quarantine:quarantine", "Unknown certificates that wait for a decision."),
    "retire-certificate": Verb("gateway.cli.parties_certs:retire_certificate", "Take out a previous certificate."),
    "stage-certificate": Verb("gateway.cli.parties_certs:stage_certificate", "Pin the next certificate of a partner."),
    "test": Verb("gateway.cli.parties_test:test", "A test message there and back, stage by stage."),
    "updates": Verb("gateway.cli.parties_updates:updates", "Agreement updates: what partners ask, and what we ask."),
}

offline_option = click.option("--offline", is_flag=True, help="Do not ask the store of this node.")


@click.group(cls=Verbs, verbs=VERBS)
def group():
    """Partners: who they are, until when their certificates last, when they were last heard of."""


@group.command("list")
@place
@revision_option
@offline_option
@json_option
@config_option
def list_(path, certs, revision, offline, as_json, config):
    """One line for each party, ours first.

    DAYS are those until the first certificate it needs ends.
    """
    found, _ = _rows(path, certs, revision, offline, config)
    if as_json:
        show_json([_facts(row) for row in found])
        return
    show_table(
        [
            {
                "name": row.name, "ours": row.ours, "endpoint": row.endpoint, "days": row.days_left,
                "received": row.traffic and row.traffic.last_received,
                "acknowledged": row.traffic and row.traffic.last_acknowledged,
                "waiting": row.traffic and (row.traffic.waiting or None),
                "problem": next((c.refused for c in row.certificates if c.refused), None),
            }
            for row in found
        ],
        ["name", "ours", "endpoint", "days", "received", "acknowledged", "waiting", "problem"],
    )  # fmt: skip


@group.command()
@click.argument("name")
@place
@revision_option
@offline_option
@json_option
@config_option
def show(name, path, certs, revision, offline, as_json, config):
    """One party: certificates with fingerprints, what is exchanged, the last messages."""
    from gateway.log import printable
    from gateway.operate import parties

    found, pmodes = _rows(path, certs, revision, offline, config, only=name)
    row = parties.one(found, name)
    legs = [leg for leg in pmodes.legs if row.name in (leg.from_party.name, leg.to_party.name)]
    facts = {
        **_facts(row),
        "legs": [{"pmode_id": leg.pmode_id, "leg": leg.number, "action": leg.action, "profile": leg.profile,
                  "sends": leg.from_party.name == row.name, "backend": leg.backend} for leg in legs],
    }  # fmt: skip
    if as_json:
        show_json(facts)
        return
    for key in ("name", "ours", "id", "type", "endpoint", "profiles"):
        click.echo(f"{key + ':':<14}{printable(text(facts[key]), 4096)}")
    for certificate in facts["certificates"]:
        click.echo(f"certificate:  {'+'.join(certificate['uses'])}  {printable(certificate['subject'], 400)}")
        click.echo(f"              sha256 {grouped(certificate['sha256'])}")
        if certificate["valid_until"]:
            days = certificate["days_left"]
            click.echo(f"              until {certificate['valid_until']:%Y-%m-%d}, {days} days left")
        if certificate["refused"]:
            click.echo(f"              ✘ {printable(certificate['refused'], 400)}")
    for key, value in (facts["traffic"] or {}).items():
        click.echo(f"{key.replace('_', ' ') + ':':<19}{text(value) or 'never'}")
    show_table(facts["legs"], ["pmode_id", "leg", "action", "sends", "profile", "backend"])


@group.command()
@click.argument("name", required=False)
@place
@click.option("--id", help="The party id, where it is not NAME.")
@click.option("--type", "type_", help="Type of the party id; without it the id must be a URI.")
@click.option("--endpoint", metavar="URL", help="Where we send to.")
@click.option("--certificate", type=FILE, help="Its certificate for signing and encryption: PEM, DER or PKCS#7.")
@click.option("--signing", type=FILE, help="Its signing certificate, where there are two.")
@click.option("--encryption", type=FILE, help="Its encryption certificate, where there are two.")
@click.option("--next", "next_", type=FILE, help="The certificate it is about to change to.")
@click.option("--tls-ca", type=FILE, help="The CA of its TLS server, where the system does not know it.")
@click.option("--package", type=FILE, help="What `gateway parties export --json` of the partner printed.")
@click.option("--file", help="The agreement file to write into, where there are several.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--force", is_flag=True, help="In spite of lint errors.")
@json_option
@config_option
def add(name, path, certs, type_, next_, package, file, yes, dry_run, force, as_json, config, **said):
    """Add a partner to the agreement file, and its certificate to the certs folder.

    Comments and order of the file are kept. Exit status 3 when lint finds errors.

    \b
    gateway parties add AP_FI_01 --type urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI \\
        --endpoint https://ap.example.fi/services/msh --certificate ap_fi_01.pem
    """
    from gateway.cli.parties_package import of_package
    from gateway.operate import partner_files

    settings, path, certs = places(path, certs, config)
    if package is not None:
        given = of_package(package)
    elif name:
        given = {}
    else:
        raise click.UsageError("say the NAME of the party, or give its --package")
    files = {key: value.read_bytes()[: partner_files.MAX_CERTIFICATE_FILE + 1] for key in
             ("certificate", "signing", "encryption", "tls_ca") if (value := said.pop(key))}  # fmt: skip
    if next_ is not None:
        files["next"] = next_.read_bytes()
    given |= {key: value for key, value in said.items() if value is not None} | files
    given |= {"type": type_} if type_ else {}
    given |= {"name": name} if name else {}
    new = partner_files.NewParty(**given)
    plan = partner_files.plan_add(_with_certs(settings, certs), new, path=path, file=file)
    _carry_out(plan, f"add {new.name}?", yes, dry_run, force, as_json, config, "party.added")


@group.command()
@click.argument("name")
@place
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--force", is_flag=True, help="With --yes, even though messages wait for the partner.")
@offline_option
@json_option
@config_option
def remove(name, path, certs, yes, dry_run, force, offline, as_json, config):
    """Take a partner out of the agreement files. Its certificate file stays.

    Messages that wait for it finish under the agreements they began with. Exit status 6 when some wait
    and nobody is asked (--yes without --force).
    """
    from gateway.operate import partner_files

    settings, path, certs = places(path, certs, config)
    plan = partner_files.plan_remove(_with_certs(settings, certs), name, path=path)
    waiting = 0
    if not offline:
        found, _ = _rows(path, certs, None, False, config, only=name)
        waiting = sum(row.traffic.waiting for row in found if row.name == name and row.traffic)
    if waiting:
        click.echo(f"! {waiting} message{'s' * (waiting > 1)} to {name} not settled yet: finished as begun", err=True)
        if yes and not force and not dry_run:
            click.echo("hint:  wait for them, or --force", err=True)
            sys.exit(6)
    _carry_out(plan, f"remove {name}?", yes, dry_run, True, as_json, config, "party.removed")


# -- what the commands share ---------------------------------------------------------


def _rows(path, certs, revision, offline, config, only=None):
    """Rows of all parties; of `only`, or of all, with their traffic where the store can be asked."""
    from datetime import UTC, datetime

    import msgspec

    from gateway.errors import ConfigError, StoreUnavailable
    from gateway.operate import parties
    from gateway.pmodes.toml import expanded

    settings, _, _ = places(path, certs, config)
    pmodes = expanded(source(path, certs, revision, config))
    rows = parties.rows(pmodes, now=datetime.now(UTC), config=settings)
    if offline:
        return rows, pmodes
    names = [row.name for row in rows if not row.ours and only in (None, row.name, row.id)]
    try:
        seen = on_store(config, lambda store: parties.traffic(store, pmodes, names))
    except (StoreUnavailable, ConfigError) as error:
        click.echo(f"! nothing is known of messages: {error}", err=True)
        return rows, pmodes
    return [msgspec.structs.replace(row, traffic=seen.get(row.name)) for row in rows], pmodes


def _with_certs(settings, certs):
    import msgspec

    return msgspec.structs.replace(settings, certs=certs)


def _carry_out(
    plan, question: str, yes: bool, dry_run: bool, force: bool, as_json: bool, config: Path | None, kind: str
) -> None:
    """Show a plan, ask, write, note it in the audit."""
    from gateway.log import printable
    from gateway.operate import partner_files

    errors = [finding for finding in plan.findings if finding.severity == "error"]
    if not as_json:
        for line in plan.diff.splitlines():
            click.echo(printable(line, 4096))
        for finding in plan.findings:
            click.echo(f"{finding.severity}: {finding.rule} {printable(finding.message, 4096)}", err=True)
    if errors and not force and not dry_run:
        click.echo("error: nothing written, lint finds errors\nhint:  mend them, or --force", err=True)
        sys.exit(3)
    written = False
    if not dry_run:
        if not yes:
            click.confirm(question, abort=True, err=True)
        partner_files.carry_out(plan)
        note_files(config, kind, plan.party, {write.path.name: write.after for write in plan.writes})
        written = True
    if as_json:
        show_json({"party": plan.party, "files": [str(write.path) for write in plan.writes], "diff": plan.diff,
                   "findings": builtins(plan.findings), "written": written})  # fmt: skip
    elif written:
        click.echo("written, not yet in force: `gateway pmodes plan`, then `gateway pmodes apply`", err=True)


def _facts(row) -> dict:
    facts = builtins(row) | {"days_left": row.days_left}
    for certificate in facts["certificates"]:
        del certificate["pem"]
    return facts


def builtins(value):
    """Plain values; times stay times, `show_json` writes them."""
    from datetime import datetime

    import msgspec

    return msgspec.to_builtins(value, builtin_types=(datetime,))


def grouped(fingerprint: str) -> str:
    """A fingerprint in groups of four, to be read over the telephone."""
    return " ".join(fingerprint[n : n + 4] for n in range(0, len(fingerprint), 4))


def text(value) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:%Y-%m-%d %H:%M:%S}Z" if hasattr(value, "strftime") else str(value)
