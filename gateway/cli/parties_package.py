"""`gateway parties export`, and reading such a package: what a partner has to know of a party."""

from pathlib import Path

import click

from gateway.cli.local import config_option, keys_in_force
from gateway.cli.output import json_option, show_json
from gateway.cli.parties import builtins, grouped, text
from gateway.cli.pmodes import place, places, source


@click.command()
@click.argument("name", required=False)
@place
@click.option("--self", "ours", is_flag=True, help="Our own party, with the certificates of our keys.")
@click.option("--format", "form", type=click.Choice(["text", "json", "toml"]), default="text", show_default=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the files of --format toml.")
@json_option
@config_option
def export(name, path, certs, ours, form, out, as_json, config):
    """What a partner has to know of a party: id, endpoint, profile, certificates with fingerprints.

    toml writes a file that is an agreement's table, and the certificates it names, into --out.
    json is what `gateway parties add --package` reads. `gateway pmodes export` writes a P-Mode for Domibus.
    """
    from datetime import UTC, datetime

    from gateway.operate import parties
    from gateway.pmodes.toml import expanded

    settings, path, certs = places(path, certs, config)
    pmodes = expanded(source(path, certs, None, config))
    if ours == bool(name):
        raise click.UsageError("say the NAME of a party, or --self")
    if ours:
        if len(pmodes.selves) != 1:
            raise click.UsageError("there are several parties of our own; say which by NAME")
        name = pmodes.selves[0].name
    own = {text for party in pmodes.selves for text in (party.name, party.party_id.value)}
    keyring = keys_in_force(settings) if name in own else None
    made = parties.package(pmodes, name, now=datetime.now(UTC), config=settings, keyring=keyring)
    match "json" if as_json else form:
        case "json":
            show_json(builtins(made))
        case "toml":
            if out is None:
                raise click.UsageError("--format toml writes files: say where with --out")
            for file in _write_toml(made, out):
                click.echo(str(file))
        case _:
            _show_package(made)


def of_package(file: Path) -> dict:
    """The values of a partner's package. Raises `ConfigError`."""
    import msgspec

    from gateway.errors import ConfigError
    from gateway.operate.parties import Package

    try:
        made = msgspec.json.decode(file.read_bytes()[: 1 << 20], type=Package)
    except msgspec.DecodeError as error:
        raise ConfigError(f"is no package of a party: {error}", file=str(file)) from None
    given = {"name": made.name, "type": made.type, "endpoint": made.endpoint}
    given |= {"id": made.id} if made.id != made.name else {}
    by_use = {use: c.pem.encode() for c in made.certificates for use in c.uses}
    if by_use.get("sign") == by_use.get("encrypt"):
        return given | ({"certificate": by_use["sign"]} if by_use else {})
    names = {"sign": "signing", "encrypt": "encryption"}
    return given | {names[use]: octets for use, octets in by_use.items()}


def _show_package(made) -> None:
    from gateway.log import printable

    for key in ("name", "id", "type", "endpoint", "profiles", "roles"):
        click.echo(f"{key + ':':<12}{printable(text(getattr(made, key)), 4096)}")
    for exchange in made.exchanges:
        does = " and ".join(word for word, on in (("sends", exchange.sends), ("takes", exchange.takes)) if on)
        click.echo(f"{does + ':':<18}{printable(f'{exchange.service} {exchange.action}', 1000)}")
    for certificate in made.certificates:
        click.echo(f"\ncertificate for {' and '.join(certificate.uses)}: {printable(certificate.subject, 400)}")
        click.echo(f"sha256 {grouped(certificate.sha256)}")
        if certificate.valid_until:
            click.echo(f"until {certificate.valid_until:%Y-%m-%d}")
        click.echo(certificate.pem, nl=False)


def _write_toml(made, out: Path) -> list[Path]:
    """The table of the party and its certificates as files."""
    import tomlkit

    from gateway.config.places import dotted
    from gateway.operate.domibus import safe_stem

    stem = safe_stem(made.name)
    table = {"type": made.type, "id": made.id if made.id != made.name else None, "endpoint": made.endpoint}
    files: dict[str, str] = {}
    for certificate in made.certificates:
        both = len(certificate.uses) == 2
        key = "certificate" if both else {"sign": "signing", "encrypt": "encryption"}[certificate.uses[0]]
        file = f"{stem}.pem" if both else f"{stem}-{key}.pem"
        key = "next" if key in table and not both else key
        table[key], files[file] = file, certificate.pem
    lines = [f"# {made.name}: put this table into an agreement, and the certificates into the certs folder.",
             *(f"# {'+'.join(c.uses)} sha256 {c.sha256}" for c in made.certificates),
             "", f"[{dotted('parties', made.name)}]",
             *(f"{key} = {tomlkit.item(value).as_string()}" for key, value in table.items() if value)]  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in {f"{stem}.toml": "\n".join(lines) + "\n", **files}.items():
        (out / name).write_text(content)
        written.append(out / name)
    return written
