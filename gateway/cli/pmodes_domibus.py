"""`gateway pmodes import-domibus`, `import-truststore`, `export`: from and to Domibus and Harmony, on files alone."""

from pathlib import Path

import click

from gateway.cli.local import config_option, note_files
from gateway.cli.output import json_option, show_json

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _password_option(command):
    return click.option("--password-file", type=_FILE, help="File whose first line is the password of the truststore.")(
        command
    )


@click.command("import-domibus")
@click.argument("file", type=_FILE)
@click.option("--self", "own", help="The party that is you; without it the one the file was made for.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write into.")
@click.option("--truststore", type=_FILE, help="Certificates of the parties: JKS, PKCS#12 or PEM.")
@_password_option
@click.option("--profile", help="A community profile, such as oots/2.0, instead of the one the content shows.")
@click.option("--replace", is_flag=True, help="Replace an agreement file that was not made by an import.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@json_option
def import_domibus(file, own, out, truststore, password_file, profile, replace, dry_run, as_json):
    """Make an agreement file of a Domibus or Harmony P-Mode.

    Writes OUT/PARTY.toml and one PEM file for each certificate. What was mended, what was left aside
    and why, and what is worth a look is printed. Needs neither configuration nor database.

    \b
    Example:
      gateway pmodes import-domibus AP_LV_01.xml --self AP_LV_01 --out pmodes/network \\
          --truststore gateway_truststore.jks --password-file password.txt
    """
    from datetime import UTC, datetime

    import msgspec

    from gateway.errors import CertificateRefused, ConfigError
    from gateway.operate import domibus

    _known_profile(profile)
    try:
        made, files = domibus.import_domibus(
            domibus.read_pmode(file), file.name, own=own, store=_store(truststore), password=_password(password_file),
            profile=profile, now=datetime.now(UTC),
        )  # fmt: skip
        changes = None if dry_run else domibus.save(out, files, replace=replace)
    except (ConfigError, CertificateRefused) as error:
        if as_json:
            show_json(_failed(error, truststore))
        raise
    made = msgspec.structs.replace(made, file=str(out / made.file), changes=changes)
    if as_json:
        show_json(msgspec.to_builtins(made))
    else:
        _tell(made, dry_run)


def _known_profile(profile: str | None) -> None:
    from gateway.as4.profiles import PROFILES
    from gateway.config.strict import suggestion

    if profile is not None and profile not in PROFILES:
        raise click.UsageError(f"there is no profile {profile!r}; {suggestion(profile, PROFILES)}")


def _store(path: Path | None) -> bytes | None:
    if path is None:
        return None
    from gateway.keys.formats import MAX_SIZE

    with path.open("rb") as source:
        return source.read(MAX_SIZE + 1)


def _password(path: Path | None) -> bytes | None:
    from gateway.config import Secret

    return Secret("file", str(path)).line() if path else None


def _failed(error, truststore: Path | None) -> dict:
    """The report of an import that failed: what was found until then."""
    import msgspec

    from gateway.pmodes.domibus.report import PModeRefused

    if isinstance(error, PModeRefused):
        report = error.report
        found = {"repaired": report.repaired, "ignored": report.ignored, "warnings": report.warnings}
        return {"parties": [], **msgspec.to_builtins(found), "errors": msgspec.to_builtins(report.errors)}
    # A certificate error is about the truststore and names no file.
    file, key = getattr(error, "file", str(truststore)), getattr(error, "key", "")
    wrong = {"where": ": ".join(part for part in (file, key) if part), "message": error.detail or str(error),
             "hint": getattr(error, "hint", "")}  # fmt: skip
    return {"parties": [], "repaired": [], "ignored": [], "warnings": [], "errors": [wrong]}


def _tell(made, dry_run: bool) -> None:
    from gateway.log import printable

    def say(text: str) -> None:
        click.echo(printable(text, 4096))

    say(f"{'would write' if dry_run else 'wrote'} {made.file}: {made.own}, profile {made.profile}, "
        f"{len(made.parties) - 1} partners, {len(made.exchanges)} exchanges")  # fmt: skip
    if made.lines.profile:
        say(f"{made.lines.profile} of {made.lines.total} lines are the profile {made.profile}")
    if made.changes is not None:
        for what in ("added", "changed", "removed"):
            if names := getattr(made.changes, what):
                say(f"{what}: {', '.join(names)}")
    for mark, notes in (("~", made.repaired), ("-", made.ignored), ("!", made.warnings)):
        _notes(mark, notes)
    click.echo(f"{len(made.repaired)} repaired (~), {len(made.ignored)} ignored (-), {len(made.warnings)} warnings (!)",
               err=True)  # fmt: skip


@click.command("export")
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--format", "kind", type=click.Choice(["domibus", "toml"]), default="domibus", show_default=True)
@click.option("--self", "own", help="The party of ours to export, where there are several.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write; else standard output.")
@click.option(
    "--certs", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the certificate files that do not stand beside the agreements.",
)  # fmt: skip
@config_option
def export(path, kind, own, out, certs, config):
    """Write agreements as a Domibus P-Mode, or as one agreement file with everything a network brings in it.

    What the form cannot say is told on standard error. Certificates are not in it: `gateway parties export`
    gives those.
    """
    from gateway.cli.pmodes import places
    from gateway.keys.formats import truststore
    from gateway.log import printable
    from gateway.operate import domibus
    from gateway.pmodes.bundle import Folder

    _, path, certs = places(path, certs, config)
    text, notes = domibus.exported(Folder(path, certs, truststore), kind, own)
    if out is None:
        click.echo(text, nl=False)
    else:
        domibus.put(out.parent, {out.name: text.encode()})
    for note in notes:
        click.echo(f"! {printable(note, 4096)}", err=True)


@click.command("import-truststore")
@click.argument("store", type=_FILE)
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@_password_option
@click.option("--stage", is_flag=True, help="Make changed certificates the next ones instead of replacing those there.")
@click.option("--dry-run", is_flag=True, help="Show the difference, and write nothing.")
@click.option(
    "--certs", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the certificate files that do not stand beside the agreements.",
)  # fmt: skip
@json_option
@config_option
def import_truststore(store, path, password_file, stage, dry_run, certs, as_json, config):
    """Take the certificates of the partners from a truststore: JKS, PKCS#12 or PEM.

    Aliases are matched with the names and ids of the parties in PATH, whatever their case, in both
    conventions (PARTY, and PARTY_rsa_sign with PARTY_rsa_encrypt). New certificates are written beside the
    agreements and named in them; the difference is printed.
    """
    from datetime import UTC, datetime

    from gateway.cli.pmodes import places
    from gateway.operate import domibus, truststores

    _, path, certs = places(path, certs, config)
    plan = truststores.plan_truststore(
        path, _store(store), _password(password_file), certs=certs, stage=stage, now=datetime.now(UTC)
    )
    if not dry_run:
        agreements = [name for name in plan.files if name.endswith(".toml")]
        order = [*(name for name in plan.files if name not in agreements), *agreements]
        domibus.put(path if path.is_dir() else path.parent, {name: plan.files[name] for name in order})
        note_files(config, "truststore.imported", store.name, plan.files)
    if as_json:
        show_json(truststores.as_shown(plan))
        return
    for mark, changes in (("+", plan.added), ("±", plan.replaced)):
        for change in changes:
            before = f", before sha256:{change.before[0][:16]}" if change.before else ""
            click.echo(f"{mark} {change.party} ({change.use}): sha256:{change.sha256[:16]}{before} → {change.file}")
    _notes("!", plan.warnings)
    click.echo(f"{len(plan.added)} added (+), {len(plan.replaced)} replaced (±), {len(plan.same)} parties unchanged, "
               f"{len(plan.warnings)} warnings (!)", err=True)  # fmt: skip


def _notes(mark: str, notes) -> None:
    from gateway.log import printable

    for note in notes:
        click.echo(printable(f"{mark} {f'{note.rule} ' if note.rule else ''}{note.where}: {note.message}", 4096))
