"""`gateway pmodes`: agreements with partners, as the gateway understands them."""

import sys
from pathlib import Path

import click

from gateway.cli.local import config_option, found_config
from gateway.cli.output import json_option, show_json, show_table
from gateway.cli.verbs import Verb, Verbs

MARKS = {"error": "✘", "warning": "!", "info": "·"}


def place(command):
    """PATH and --certs; without them what the configuration says."""
    command = click.option(
        "--certs", type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Folder with the certificate files that do not stand beside the agreements.",
    )(command)  # fmt: skip
    return click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))(command)


class _Revision(click.ParamType):
    name = "revision"

    def convert(self, value, param, ctx):
        if value == "active" or isinstance(value, int):
            return value
        if not value.isdecimal() or not 0 < int(value) < 1 << 31:
            self.fail(f'{value!r} is no revision; say its number, or "active"', param, ctx)
        return int(value)


def revision_option(command):
    """`--revision N|active`."""
    return click.option("--revision", type=_Revision(), metavar="N|active",
                        help="The agreements of a revision in the database instead of files.")(command)  # fmt: skip


#: Commands in modules of their own, imported when they are used.
VERBS = {
    "plan": Verb("gateway.cli.pmodes_change:plan", "What applying the files would change."),
    "apply": Verb("gateway.cli.pmodes_change:apply", "Make the files the agreements in force, everywhere."),
    "rollback": Verb("gateway.cli.pmodes_change:rollback", "Put earlier agreements in force again."),
    "history": Verb("gateway.cli.pmodes_change:history", "The revisions, and which process serves which."),
    "diff": Verb("gateway.cli.pmodes_change:diff", "What changed from one revision to another."),
    "why": Verb("gateway.cli.pmodes_why:why", "Which leg a message matches, and which it nearly does."),
    "schema": Verb("gateway.cli.pmodes_why:schema", "The JSON Schema of an agreement file, for editors."),
    "import-domibus": Verb("gateway.cli.pmodes_domibus:import_domibus", "An agreement file from a Domibus P-Mode."),
    "import-truststore": Verb("gateway.cli.pmodes_domibus:import_truststore", "Certificates from a truststore."),
    "export": Verb("gateway.cli.pmodes_domibus:export", "Agreements as a Domibus P-Mode, or as one file."),
}


@click.group(cls=Verbs, verbs=VERBS)
def group():
    """Agreements with partners: what they say, what is wrong with them, how they change."""


@group.command()
@place
@click.option("--format", "form", type=click.Choice(["text", "json", "sarif", "github"]), default="text",
              show_default=True, help="For people, programs, code scanners, or annotations of a workflow.")
@json_option
@config_option
def lint(path, certs, form, as_json, config):
    """Say what is wrong or unwise in an agreement file or folder.

    Everything is told at once, with the line. Exit status 3 when something is wrong.
    """  # fmt: skip
    import msgspec

    from gateway.log import printable
    from gateway.operate.lint import findings as findings_of
    from gateway.pmodes.lint import formats

    settings, path, certs = places(path, certs, config)
    findings = findings_of(settings, path, certs)
    match "json" if as_json else form:
        case "json":
            show_json(msgspec.to_builtins(findings))
        case "sarif":
            show_json(formats.sarif(findings))
        case "github":
            click.echo("\n".join(formats.github(findings)), nl=bool(findings))
        case _:
            for finding in findings:
                line = f"{MARKS[finding.severity]} {finding.rule} {finding.where}: {finding.message}"
                click.echo(printable(line, 4096))
                if finding.hint:
                    click.echo(f"    {printable(finding.hint, 4096)}")
            click.echo("no findings" if not findings else _count(findings), err=True)
    sys.exit(3 if any(finding.severity == "error" for finding in findings) else 0)


def _count(findings) -> str:
    counts = {severity: sum(f.severity == severity for f in findings) for severity in MARKS}
    return ", ".join(f"{n} {severity}" for severity, n in counts.items() if n)


@group.command()
@place
@click.option("--effective", is_flag=True, help="Every leg with every value, defaults of the profile included.")
@click.option("--origin", is_flag=True, help="With --effective: where each value comes from.")
@revision_option
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path),
              help="With --revision: write its files into this new folder.")
@json_option
@config_option
def show(path, certs, effective, origin, revision, folder, as_json, config):
    """Parties and exchanges of an agreement file or folder, or of a revision."""  # fmt: skip
    from gateway.pmodes.origin import Explained

    if folder is not None and revision is None:
        raise click.UsageError("--to belongs to --revision")
    files = source(path, certs, revision, config)
    if folder is not None:
        from gateway.cli.pmodes_change import write_files

        write_files(files, folder)
        return
    explained = Explained(files)
    pmodes = explained.pmodes
    ours = {party.name for party in pmodes.selves}
    parties = [_party(party, party.name in ours) for party in pmodes.parties]
    if origin:
        _show_origins(explained, parties, as_json)
        return
    legs = [_leg(leg) for leg in pmodes.legs]
    if as_json:
        show_json({"parties": parties, "legs": legs if effective else [_brief(leg) for leg in legs]})
    elif effective:
        for leg in legs:
            click.echo(f"[{leg.pop('pmode_id')}]")
            for name, value in leg.items():
                click.echo(f"  {name + ':':<20}{text(value)}")
    else:
        show_table(parties, ["name", "ours", "id", "type", "endpoint", "signing", "encryption"])
        show_table([_brief(leg) for leg in legs], ["pmode_id", "leg", "service", "action", "profile", "backend"])


def _show_origins(explained, parties: list[dict], as_json: bool) -> None:
    import msgspec

    if as_json:
        legs = [
            {"pmode_id": leg.pmode_id, "leg": leg.number,
             "values": [{"name": v.name, "value": msgspec.to_builtins(v.value), "origin": msgspec.to_builtins(v.origin)}
                        for v in explained.values(leg)]}
            for leg in explained.pmodes.legs
        ]  # fmt: skip
        show_json({"parties": parties, "legs": legs})
        return
    for leg in explained.pmodes.legs:
        click.echo(f"[{leg.pmode_id}] leg {leg.number}")
        for value in explained.facts(leg):
            click.echo(f"  {value['name'] + ':':<20}{text(value['value'])}   ← {value['origin']}")


@group.command("list")
@place
@json_option
@config_option
def list_(path, certs, as_json, config):
    """One line for each leg: who sends what to whom."""
    from gateway.pmodes.toml import expanded

    rows = [_brief(_leg(leg)) for leg in expanded(source(path, certs, None, config)).legs]
    if as_json:
        show_json(rows)
    else:
        show_table(rows, ["pmode_id", "leg", "from", "to", "service", "action", "profile", "backend"])


def places(path, certs, config):
    """The configuration, the agreements and the certs folder that are meant."""
    from gateway.config import Config

    settings = Config.load(config or found_config())
    return settings, _short(path or settings.pmodes), certs or settings.certs


def source(path, certs, revision, config):
    """The files that are meant: those of a revision, those at PATH, or those of the configuration."""
    if revision is not None:
        from gateway.cli.pmodes_change import revision_files

        if path is not None:
            raise click.UsageError("PATH and --revision: one of the two")
        return revision_files(config, revision)
    from gateway.keys.formats import truststore
    from gateway.pmodes.bundle import Folder

    _, path, certs = places(path, certs, config)
    return Folder(path, certs, truststore)


def _short(path: Path) -> Path:
    """A path below the working directory as it is seen from there, as editors and annotations want it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def _party(party, ours: bool) -> dict:
    return {
        "name": party.name,
        "ours": ours,
        "id": party.party_id.value,
        "type": party.party_id.type,
        "endpoint": party.endpoint,
        "signing": _fingerprints(party.signing),
        "encryption": _fingerprints([party.encryption] if party.encryption else []),
    }


def _fingerprints(certificates) -> str:
    import hashlib

    return " ".join("sha256:" + hashlib.sha256(der).hexdigest()[:16] for der in certificates)


def _leg(leg) -> dict:
    """Every value of a leg; parties by name."""
    import msgspec

    facts = {name: getattr(leg, name) for name in leg.__struct_fields__}
    facts |= {"from_party": leg.from_party.name, "to_party": leg.to_party.name}
    return msgspec.to_builtins(facts)


def _brief(leg: dict) -> dict:
    return {
        "pmode_id": leg["pmode_id"], "leg": leg["number"], "from": leg["from_party"], "to": leg["to_party"],
        "service": leg["service"]["value"], "action": leg["action"], "profile": leg["profile"],
        "backend": leg["backend"],
    }  # fmt: skip


def text(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={text(inner)}" for name, inner in value.items() if inner is not None)
    if isinstance(value, list | tuple):
        return "; ".join(map(text, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
