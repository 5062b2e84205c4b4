"""`gateway certs import | csr`: how keys come into the database."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gateway.cli.certs_ring import USES
from gateway.cli.local import actor, config_option, on_database, settings_of
from gateway.cli.output import json_option, show_json, show_table

KINDS = ("rsa-3072", "rsa-4096", "ec-p256", "ec-p384", "ed25519")

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("import")
@click.argument("file", required=False, type=_file)
@click.option("--password-file", type=_file, help="File whose first line is the password.")
@click.option("--key-password-file", type=_file, help="The same for the keys in a JKS, where it differs.")
@click.option("--alias", help="Take this entry only.")
@click.option("--use", "uses", multiple=True, type=click.Choice(USES), metavar="|".join(USES),
              help="What it is for; several times. Default: to sign and decrypt, as far as it is good for it.")
@click.option("--party", help="Party id whose key it is. Default: any party of ours.")
@click.option("--token", metavar="NAME", help="The key is this object of a PKCS#11 token; FILE is its certificate.")
@click.option("--crl", type=_file, help="The issuer's revocation list; what it names is refused.")
@click.option("--configured", is_flag=True, help="Take over the keys of [[keys.store]] instead of a FILE.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--dry-run", is_flag=True, help="Show what would be imported, and do nothing.")
@json_option
@config_option
def import_(file, configured, yes, dry_run, as_json, config, **options):
    """Take the private keys in FILE into the database, sealed: PEM, PKCS#12 or JKS, told apart by their content.

    A FILE without a private key is the certificate that a key of `gateway certs csr` waits for. What is imported is
    PLANNED: nothing uses it before `gateway certs stage`.

    \b
    Exit status 1: the file or the certificate is refused; the first word says why (expired, wrong-password …)
    """  # fmt: skip
    from gateway import app
    from gateway.operate import certificates, key_import

    if (file is None) != configured:
        raise click.UsageError("say which FILE, or --configured")
    settings = settings_of(config)

    async def take(store):
        have, kek = await certificates.held(store), app.load_kek(settings)
        found = _configured(settings, have) if configured else _read(file, have, settings, **options)
        rows = [_row(one) for one in found]
        if not as_json:
            show_table(rows, ["use", "party", "algorithm", "subject", "not_after", "completes", "fingerprint"])
            for one in found:
                for note in one.notes:
                    click.echo(f"· {note}", err=True)
        if dry_run or not found:
            if as_json:
                show_json(rows)
            elif not found:
                click.echo("nothing to import: all of them are in the database", err=True)
            return
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("nobody is there to ask; --yes does it without asking")
            click.confirm("Import this?", abort=True, err=True)
        kept = [await key_import.keep(store, kek, one, author=actor(settings)) for one in found]
        if as_json:
            show_json([{**row, "key": key.id} for row, key in zip(rows, kept, strict=True)])
        else:
            click.echo("\n".join(f"{key.id}: {', '.join(key.uses)}" for key in kept))
            click.echo(f"next:  gateway certs stage {' '.join(key.id for key in kept)} --reason …", err=True)

    from gateway.errors import CertificateRefused

    try:
        on_database(settings, take)
    except CertificateRefused as refused:
        raise click.ClickException(f"{refused.reason}: {refused}") from None


def _row(found: Any) -> dict:
    import hashlib

    from gateway.operate.certificates import facts_of

    return {
        "use": ", ".join(found.uses), "party": found.party, "algorithm": found.algorithm, "completes": found.completes,
        "fingerprint": hashlib.sha256(found.certificate).hexdigest(), **facts_of(found.certificate),
    }  # fmt: skip


def _read(
    file: Path, have: Any, settings: Any, *, password_file: Path | None, key_password_file: Path | None,
    alias: str | None, uses: tuple, party: str | None, token: str | None, crl: Path | None,
) -> list:  # fmt: skip
    from gateway import app
    from gateway.config import Secret
    from gateway.keys.formats import MAX_SIZE
    from gateway.operate import key_import

    def octets(path: Path | None) -> bytes | None:
        if path is None:
            return None
        with path.open("rb") as source:
            return source.read(MAX_SIZE + 1)

    def password(path: Path | None) -> bytes | None:
        return Secret("file", str(path)).line() if path else None

    return key_import.read(
        octets(file), have, now=datetime.now(UTC), password=password(password_file), alias=alias, uses=uses,
        key_password=password(key_password_file), party=party, token=token, allow=settings.trust, crl=octets(crl),
        tokens=app.load_tokens(settings) if token else None,
    )  # fmt: skip


def _configured(settings: Any, have: Any) -> list:
    """The keys of `[[keys.store]]` that are not in the database yet, each once with all its uses."""
    from gateway.operate import key_import

    return key_import.from_stores(settings.keys.store, have, now=datetime.now(UTC), allow=settings.trust)


@click.command()
@click.argument("key", required=False)
@click.option("--subject", required=True, help="As in RFC 4514: CN=AP_LV_01,O=Ministry,C=LV.")
@click.option("--kind", type=click.Choice(KINDS), default=KINDS[0], show_default=True,
              help="rsa: OOTS and eDelivery 1.x; the others: eDelivery 2.0, TLS.")
@click.option("--use", "uses", multiple=True, type=click.Choice(USES), metavar="|".join(USES),
              help="What it is for; several times. Default: sign, and with RSA decrypt.")
@click.option("--party", help="Party id whose key it is. Default: any party of ours.")
@click.option("--dns", "names", multiple=True, help="DNS name for TLS; several times.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write the request to.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@json_option
@config_option
def csr(key, subject, kind, uses, party, names, out, yes, as_json, config):
    """Make a key in the database and the request for its certificate, which is printed.

    With KEY the request for a key that was made before is printed again. `gateway certs import` of the issued
    certificate completes it.
    """  # fmt: skip
    from gateway import app
    from gateway.operate import certificates, key_import

    settings = settings_of(config)
    wanted = uses or (("sign", "decrypt") if kind.startswith("rsa") else ("sign",))

    async def ask(store):
        kek = app.load_kek(settings)
        if key is not None:
            found = (await certificates.held(store)).find(key)
        else:
            key_import.check_subject(subject)
            click.echo(f"A {kind} key for {', '.join(wanted)} of {party or 'every party of ours'} is made.", err=True)
            if not yes:
                if not sys.stdin.isatty():
                    raise click.UsageError("nobody is there to ask; --yes does it without asking")
                click.confirm("Make it?", abort=True, err=True)
            found = await key_import.make(store, kek, kind=kind, uses=wanted, party=party, author=actor(settings))
        return found, key_import.request(found, kek, subject=subject, names=names)

    found, pem = on_database(settings, ask)
    if out is not None:
        out.write_bytes(pem)
    if as_json:
        show_json({"key": found.id, "csr": pem.decode(), "algorithm": found.algorithm, "use": list(found.uses)})
    elif out is None:
        click.echo(pem.decode(), nl=False)
    click.echo(f"{found.id} waits: gateway certs import FILE, when the certificate has come", err=True)
