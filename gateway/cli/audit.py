"""`gateway audit`: who did what; export it, and prove that nobody has changed it."""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from gateway.cli.local import actor, config_option, found_config, on_store
from gateway.cli.output import json_option, show_json, show_table

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def group():
    """The audit, a chain of rows: list, export, verify, anchor."""


@group.command("list")
@click.option("--kind", help="Rows of this kind, or of those below it: `agreements` means agreements.activated, too.")
@click.option("--actor", help="What this actor did; for a refused message, the address it came from.")
@click.option("--subject", help="What concerns this client, revision, message …")
@click.option("--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="From this time (UTC) on.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="Before this time (UTC).")
@click.option("--before", type=click.IntRange(1), help="Rows before this number.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
@config_option
def list_(as_json, config, **wanted):
    """The newest rows."""
    from datetime import UTC

    from gateway.store.api import AuditFilter

    for name in ("since", "until"):
        wanted[name] = wanted[name] and wanted[name].replace(tzinfo=UTC)
    found = on_store(config, lambda store: store.audit_search(AuditFilter(**wanted)))
    rows = [
        {"number": e.number, "at": e.at, "actor": e.actor, "kind": e.kind, "subject": e.subject, "detail": e.detail}
        for e in found
    ]
    if as_json:
        show_json(rows)
        return
    for row in rows:
        row["detail"] = "  ".join(f"{name}={value}" for name, value in row["detail"].items())
    show_table(rows, ["number", "at", "actor", "kind", "subject", "detail"])


@group.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write; else standard output.")
@click.option("--after", type=click.IntRange(0), default=0, help="Only the rows after this number.")
@click.option("--unsigned", is_flag=True, help="Without a signature: on a machine that has no signing key.")
@config_option
def export(out, after, unsigned, config):
    """Every row as a line of JSON, behind the signed head of the chain. `gateway audit verify FILE` checks it.

    Exit status 5: there is no row --after.
    """
    from datetime import UTC, datetime

    from gateway import app
    from gateway.operate import audit
    from gateway.store.api import AuditEntry

    settings = app.load_config(config or found_config())
    keyring = None if unsigned else app.load_keyring(settings)

    async def write(store):
        count = -1
        with _target(out) as file:
            async for line in audit.export(store, keyring, now=datetime.now(UTC), after=after):
                file.write(line)
                count += 1
        # Who takes it away is worth a row; it stands after those that were exported.
        detail = {"after": after, "rows": count}
        await store.audit(AuditEntry(kind="audit.exported", actor=actor(settings), subject="audit", detail=detail))
        return count

    count = on_store(config, write)
    click.echo(f"{count} rows" + (f" in {out}" if out else ""), err=True)


@contextmanager
def _target(out: Path | None):
    """Where an export goes. A file is there when it is complete, and only its owner reads it."""
    if out is None:
        yield sys.stdout.buffer
        return
    import os
    import tempfile

    handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, out)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@group.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--certificate", "certificates", multiple=True, type=FILE,
              help="Who may have signed the chain (PEM or DER); several for keys that came one after the other.")
@click.option("--anchors", "kept", type=FILE, help="Anchors that were kept elsewhere: printed ones, or lines of a log.")
@json_option
@config_option
def verify(file, certificates, kept, as_json, config):
    """Find the first row that is not what was written: edited, deleted, inserted, moved, or cut off.

    FILE is an export (- for standard input); it is checked without a database. Without FILE the database is
    checked, and the signing keys of this node are those to believe, beside --certificate.

    \b
    Exit status 0: intact, 3: broken
    """
    known = _certificates(certificates)
    verdict = _verify_database(config, known, kept) if file is None else _verify_file(file, known, kept)
    _show(verdict, as_json)
    sys.exit(0 if verdict.intact else 3)


def _verify_file(file: Path, known: dict[str, bytes], kept: Path | None) -> Any:
    from gateway.operate import audit

    with click.open_file(str(file), "rb") as source:
        # A line that never ends must not fill the memory: it comes in pieces, none of which is a row.
        lines = iter(lambda: source.readline(audit.MAX_LINE + 1), b"")
        return audit.verify_export(lines, known=known, elsewhere=_anchors(kept, known))


def _verify_database(config: Path | None, known: dict[str, bytes], kept: Path | None) -> Any:
    from datetime import UTC, datetime

    from gateway import app
    from gateway.operate import anchors, audit

    ours = [key.certificate for _, use, key in app.load_keyring(app.load_config(config or found_config())).every()
            if use == "sign"]  # fmt: skip
    known = {anchors.fingerprint(der): der for der in ours} | known
    seen = anchors.Kept(app.load_config(config or found_config()).data.folder).read()
    elsewhere = ({seen.number: seen} if seen else {}) | _anchors(kept, known)
    return on_store(
        config, lambda store: audit.verify_store(store, known=known, now=datetime.now(UTC), elsewhere=elsewhere)
    )


def _certificates(files: tuple[Path, ...]) -> dict[str, bytes]:
    from gateway.errors import CertificateRefused, ConfigError
    from gateway.keys.formats import certificates
    from gateway.operate import anchors

    found = {}
    for file in files:
        try:
            found |= {anchors.fingerprint(der): der for der in certificates(file.read_bytes())}
        except CertificateRefused as refused:
            raise ConfigError(str(refused), file=str(file), key="--certificate") from None
    return found


def _anchors(file: Path | None, known: dict[str, bytes]) -> dict:
    from gateway.operate import anchors

    if file is None:
        return {}
    with file.open("rb") as source:
        return anchors.read_anchors(source, known)


def _show(verdict: Any, as_json: bool) -> None:
    import msgspec

    if as_json:
        show_json(msgspec.to_builtins(verdict))
        return
    if not verdict.intact:
        place = f"row {verdict.wrong}" if verdict.wrong else "the head"
        click.echo(f"BROKEN at {place}: {verdict.why}")
        click.echo(f"rows {verdict.after + 1} to {verdict.wrong - 1 if verdict.wrong else verdict.number} fit together")
        return
    rows = f"rows {verdict.after + 1} to {verdict.number}" if verdict.number > verdict.after else "no rows"
    click.echo(f"intact: {rows}, {verdict.at}, head {verdict.hash}")
    signers = ", ".join(verdict.signers)
    if verdict.anchored > verdict.after:
        signed = f", signed with the certificate {signers}" if signers else ""
        click.echo(f"vouched for up to row {verdict.anchored}{signed}")
    if not verdict.believed:
        said = "name the certificate with --certificate" if signers else "the chain fits, but nobody has signed it"
        click.echo(f"nobody you trust has signed this: {said}", err=True)


@group.command()
@config_option
def anchor(config):
    """Sign the head of the chain, note that in the chain, and print it: one line of JSON.

    Kept where those who could change the database have no access, it shows whether rows were changed or cut off:
    `gateway audit verify --anchors FILE`. Exit status 3: the chain is not the one this node has seen.
    """
    from datetime import UTC, datetime

    from gateway import app
    from gateway.operate import anchors, audit

    settings = app.load_config(config or found_config())
    key = anchors.signer(app.load_keyring(settings))

    async def sign(store):
        if (why := await anchors.departs(store, anchors.Kept(settings.data.folder).read())) is not None:
            click.echo(f"BROKEN, and not signed: {why}", err=True)
            sys.exit(3)
        return await anchors.anchor(store, key, actor=actor(settings), now=datetime.now(UTC), idle=True)

    made = on_store(config, sign)
    if made is None:
        click.echo("the audit is empty", err=True)
        sys.exit(5)
    click.echo(audit.head_line(made), nl=False)
