"""`gateway inspect`: what the gateway concludes about a captured message."""

import json
import sys
from pathlib import Path

import click

from gateway.cli.explain import language_option, show_explanation


def password_of(path: Path | None) -> bytes | None:
    """The first line of a password file."""
    return path.read_bytes().splitlines()[0].strip() if path and path.stat().st_size else None


def inspector(
    keystore: Path | None, truststore: Path, password_file: Path | None, profile: str | None, when: str | None
):
    """An `Inspector` from the files of the command line. Raises `ConfigError`, `CertificateRefused`."""
    from datetime import UTC, datetime

    from gateway.keys.formats import read_keystore
    from gateway.keys.keyring import decryption_key
    from gateway.keys.trust import check_certificate
    from gateway.operate.inspection import Inspector, at

    moment = at(when) if when else datetime.now(UTC)
    password = password_of(password_file)
    keys = []
    if keystore is not None:
        entries = read_keystore(keystore.read_bytes(), password)
        ours = [entry for entry in entries if entry.private_key is not None]
        keys = [key for entry in ours if (key := decryption_key(entry)) is not None]
    trusted = [
        entry.certificate for entry in read_keystore(truststore.read_bytes(), password) if entry.certificate is not None
    ]
    return Inspector(
        decryption_keys=keys,
        trusted=trusted,
        trust=lambda certificate: check_certificate(certificate, use="sign", now=moment),
        profile=profile,
    )


def capture(body: Path, headers: Path | None) -> tuple[str, bytes]:
    """(content type, body) of a captured message."""
    from gateway.operate.inspection import guess_content_type, read_headers, split_capture

    octets = body.read_bytes()
    if headers is not None:
        found = read_headers(headers.read_bytes())
    else:
        found, octets = split_capture(octets)
    return found.get("content-type") or (guess_content_type(octets) if headers is None else ""), octets


def show(conclusion, as_json: bool, language: str = "en") -> None:
    """Print a conclusion, with the explanation of a refusal, and leave with its exit status."""
    import msgspec

    from gateway.operate.explanations import explain

    fault, explanation = conclusion.error, None
    if fault is not None:
        explanation = explain("receiving", fault.code, fault.detail, language=language)
    if as_json:
        facts = msgspec.to_builtins(conclusion) | {"explanation": msgspec.to_builtins(explanation)}
        click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
    else:
        click.echo(f"{conclusion.verdict}  {conclusion.kind or ''} {conclusion.message_id or ''}".rstrip())
        if conclusion.error:
            click.echo(f"  {conclusion.error.code} {conclusion.error.short_description}: {conclusion.error.detail}")
        if conclusion.signer:
            click.echo(f"  signed by {conclusion.signer}")
        for reference in conclusion.references:
            click.echo(f"  {'✔' if reference.ok else '✘'} {reference.uri}")
        for payload in conclusion.payloads:
            click.echo(f"  {payload.cid}  {payload.mime}  {payload.size} bytes  sha256 {payload.sha256}")
        if explanation is not None:
            show_explanation(explanation, language)
    sys.exit(0 if conclusion.verdict == "accepted" else 3)


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def key_options(command):
    """The options that say with which keys to judge."""
    for option in (
        click.option("--at", "when", help="Judge certificates at this time (ISO 8601) instead of now."),
        click.option("--profile", help="eDelivery profile; without it the suites are tried in turn."),
        click.option("--password-file", type=FILE, help="File with the password of both stores."),
        click.option("--truststore", type=FILE, required=True, help="Accepted signers, or their CA (P12, JKS, PEM)."),
        language_option,
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("body", type=FILE)
@click.option("--headers", type=FILE, help="The HTTP headers of BODY; without it BODY may begin with them.")
@click.option("--keystore", type=FILE, help="Our private keys (P12, JKS, PEM).")
@key_options
def inspect(body, headers, keystore, truststore, password_file, profile, when, language, as_json):
    """Judge a captured AS4 message offline, as the gateway would.

    Exit status 0: accepted, 3: refused.

    \b
    gateway inspect request.body --headers request.headers \\
        --keystore b.p12 --truststore trust.p12 --password-file pw --json
    """
    judge = inspector(keystore, truststore, password_file, profile, when)
    show(judge.inspect(*capture(body, headers)), as_json, language)
