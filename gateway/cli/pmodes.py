"""`gateway pmodes`: agreements with partners, as the gateway understands them."""

import sys
from pathlib import Path

import click

from gateway.cli.local import config_option, found_config
from gateway.cli.output import json_option, show_json, show_table

MARKS = {"error": "✘", "warning": "!", "info": "·"}


def place(command):
    """PATH and --certs; without them what the configuration says."""
    command = click.option(
        "--certs", type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Folder with the certificate files that do not stand beside the agreements.",
    )(command)  # fmt: skip
    return click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))(command)


@click.group()
def group():
    """Agreements with partners: lint, show."""


@group.command()
@place
@json_option
@config_option
def lint(path, certs, as_json, config):
    """Say what is wrong or unwise in an agreement file or folder.

    Exit status 3 when something is wrong.
    """
    import functools

    import msgspec

    from gateway.keys.trust import check_certificate
    from gateway.pmodes.lint import lint as lint_

    settings, path, certs = _places(path, certs, config)
    check = functools.partial(check_certificate, allow=settings.trust)
    findings = lint_(path, certs=certs, check_certificate=check)
    if as_json:
        show_json(msgspec.to_builtins(findings))
    else:
        for finding in findings:
            click.echo(f"{MARKS[finding.severity]} {finding.rule} {finding.where}: {finding.message}")
        click.echo("no findings" if not findings else _count(findings), err=True)
    sys.exit(3 if any(finding.severity == "error" for finding in findings) else 0)


def _count(findings) -> str:
    counts = {severity: sum(f.severity == severity for f in findings) for severity in MARKS}
    return ", ".join(f"{n} {severity}" for severity, n in counts.items() if n)


@group.command()
@place
@click.option("--effective", is_flag=True, help="Every leg with every value, defaults of the profile included.")
@json_option
@config_option
def show(path, certs, effective, as_json, config):
    """Parties and exchanges of an agreement file or folder."""
    from gateway.pmodes.toml import load

    _, path, certs = _places(path, certs, config)
    pmodes = load(path, certs=certs)
    ours = {party.name for party in pmodes.selves}
    parties = [_party(party, party.name in ours) for party in pmodes.parties]
    legs = [_leg(leg) for leg in pmodes.legs]
    if as_json:
        show_json({"parties": parties, "legs": legs if effective else [_brief(leg) for leg in legs]})
    elif effective:
        for leg in legs:
            click.echo(f"[{leg.pop('pmode_id')}]")
            for name, value in leg.items():
                click.echo(f"  {name + ':':<20}{_text(value)}")
    else:
        show_table(parties, ["name", "ours", "id", "type", "endpoint", "signing", "encryption"])
        show_table([_brief(leg) for leg in legs], ["pmode_id", "leg", "service", "action", "profile", "backend"])


@group.command("list")
@place
@json_option
@config_option
def list_(path, certs, as_json, config):
    """One line for each leg: who sends what to whom."""
    from gateway.pmodes.toml import load

    _, path, certs = _places(path, certs, config)
    rows = [_brief(_leg(leg)) for leg in load(path, certs=certs).legs]
    if as_json:
        show_json(rows)
    else:
        show_table(rows, ["pmode_id", "leg", "from", "to", "service", "action", "profile", "backend"])


def _places(path, certs, config):
    """The configuration, the agreements and the certs folder that are meant."""
    from gateway.config import Config

    settings = Config.load(config or found_config())
    return settings, path or settings.pmodes, certs or settings.certs


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


def _text(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_text(inner)}" for name, inner in value.items() if inner is not None)
    if isinstance(value, list | tuple):
        return "; ".join(map(_text, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
