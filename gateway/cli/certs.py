"""`gateway certs`: our own keys in the database, what a key store holds, and certificates for development."""

import sys
from datetime import timedelta
from pathlib import Path

import click

from gateway.cli.local import config_option
from gateway.cli.output import json_option, show_json, show_table
from gateway.cli.verbs import Verb, Verbs

COLUMNS = ["alias", "kind", "key", "subject", "valid_until", "usable_for", "sha256"]


#: Commands in modules of their own, imported when they are used.
VERBS = {
    "list": Verb("gateway.cli.certs_ring:listing", "Our certificates: what signs, what decrypts, what waits."),
    "import": Verb("gateway.cli.certs_import:import_", "Take keys from PEM, PKCS#12 or JKS; or an issued certificate."),
    "csr": Verb("gateway.cli.certs_import:csr", "Make a key and the request for its certificate."),
    "stage": Verb("gateway.cli.certs_ring:stage", "Every process opens a key; it decrypts from now on."),
    "announce": Verb("gateway.cli.certs_ping:announce", "Tell partners of the next certificate: a signed package."),
    "ping": Verb("gateway.cli.certs_ping:ping", "Ask partners whether they take the next certificate."),
    "promote": Verb("gateway.cli.certs_promote:promote", "Sign with a key, for those who are ready, or for one."),
    "rollback": Verb("gateway.cli.certs_promote:rollback", "Take back a promotion, for everybody or for one."),
    "retire": Verb("gateway.cli.certs_ring:retire", "Use a key no more; its private part is destroyed."),
    "export": Verb("gateway.cli.certs_ring:export", "A certificate and its chain as PEM."),
    "needs-renewal": Verb("gateway.cli.certs_ring:needs_renewal", "What ends soon and has no successor."),
    "timeline": Verb("gateway.cli.certs_ring:timeline", "When each certificate begins and ends."),
    "watch": Verb("gateway.cli.certs_watch:watch", "What comes to its end, ours and the partners'."),
    "calendar": Verb("gateway.cli.certs_watch:calendar", "The same as a calendar file, with alarms."),
}


@click.group(cls=Verbs, verbs=VERBS)
def group():
    """Our own certificates and keys: look, import, rotate, what ends when; some for development."""


@group.command()
@click.argument("what", metavar="KEY|FILE")
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File whose first line is the password.",
)
@json_option
@config_option
def show(what, password_file, as_json, config):
    """One of our keys in the database, by its id or fingerprint; or what a key store file holds: PEM, PKCS#12,
    JKS, PKCS#7 or DER.

    Exit status 3 when a certificate in a file is good for nothing (expired, weak …).
    """
    file = Path(what)
    if not file.is_file():
        if "/" in what or "." in what:
            raise click.UsageError(f"there is no file {what}")
        from gateway.cli.certs_ring import show_key

        show_key(what, as_json, config)
        return
    from gateway.config import Secret
    from gateway.keys.formats import MAX_SIZE, read_keystore

    password = Secret("file", str(password_file)).line() if password_file else None
    with file.open("rb") as source:
        entries = read_keystore(source.read(MAX_SIZE + 1), password)
    rows = [_facts(entry) for entry in entries]
    if as_json:
        show_json(rows)
    else:
        show_table([{**row, "usable_for": _usable(row)} for row in rows], COLUMNS)
    sys.exit(3 if any(_useless(row) for row in rows) else 0)


def _facts(entry) -> dict:
    """What is worth knowing of one entry."""
    import hashlib
    from datetime import UTC, datetime

    from cryptography import x509

    from gateway.errors import CertificateRefused
    from gateway.keys.trust import check_certificate

    kind = "certificate" if entry.private_key is None else "private key"
    row = {"alias": entry.alias, "kind": kind, "subject": None, "issuer": None, "valid_from": None,
           "valid_until": None, "key": None, "sha256": None, "chain": len(entry.chain), "ca": False,
           "usable_for": [], "refused": {}}  # fmt: skip
    if entry.certificate is None:
        return row
    certificate = x509.load_der_x509_certificate(entry.certificate)
    for use in ("sign", "encrypt"):
        try:
            check_certificate(entry.certificate, use=use, now=datetime.now(UTC))
            row["usable_for"].append(use)
        except CertificateRefused as refused:
            row["refused"][use] = {"reason": refused.reason, "detail": str(refused)}
    return row | {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "valid_from": certificate.not_valid_before_utc,
        "valid_until": certificate.not_valid_after_utc,
        "key": _key_type(certificate),
        "sha256": hashlib.sha256(entry.certificate).hexdigest(),
        "ca": _is_ca(certificate),
    }


def _usable(row: dict) -> str:
    return ", ".join(row["usable_for"]) or "; ".join(dict.fromkeys(r["detail"] for r in row["refused"].values()))


def _useless(row: dict) -> bool:
    """A certificate that neither signs nor encrypts, unless it is a CA's and nothing else is wrong."""
    return bool(row["refused"]) and not row["usable_for"] and not all(
        refused["reason"] == "ca-as-leaf" for refused in row["refused"].values()
    )


def _is_ca(certificate) -> bool:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _key_type(certificate) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    try:
        match certificate.public_key():
            case rsa.RSAPublicKey() as key:
                return f"RSA {key.key_size}"
            case ec.EllipticCurvePublicKey() as key:
                return f"EC {key.curve.name}"
            case key:
                return type(key).__name__.removesuffix("PublicKey")
    except (UnsupportedAlgorithm, ValueError):
        return "unknown"


@group.command()
@click.option("--party", "parties", multiple=True, required=True, help="Party id; may be given several times.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default="certs", show_default=True)
@click.option(
    "--suite", "suites", multiple=True, type=click.Choice(["rsa", "eddsa", "ecdsa"]), default=["rsa"],
    show_default=True, help="rsa: OOTS and eDelivery 1.x; eddsa, ecdsa: eDelivery 2.0.",
)  # fmt: skip
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="How long they are valid.")
@click.option("--host", "hosts", multiple=True, help="Name or address of this machine for TLS. Default: loopback.")
@click.option("--replace", is_flag=True, help="Replace files that are there already.")
@json_option
def dev(parties, out, suites, days, hosts, replace, as_json):
    """Make certificates for development: a CA, a TLS server certificate, keys for each party.

    Private keys are not encrypted. Never use them in production.
    """
    from datetime import UTC, datetime

    import msgspec

    from gateway.keys.development import HOSTS, make_development

    made = make_development(
        out, parties, now=datetime.now(UTC), valid_for=timedelta(days=days), suites=suites,
        hosts=hosts or HOSTS, replace=replace,
    )  # fmt: skip
    if as_json:
        show_json(msgspec.to_builtins(made, enc_hook=str))
        return
    for party in made.parties:
        pins = dict.fromkeys([str(party.signing), str(party.encryption)])
        click.echo(f"{party.party} ({party.suite}): keys {party.keys}, for partners {', '.join(pins)}")
    click.echo(f"TLS: {made.tls_certificate}, {made.tls_key}; CA: {made.ca}")
    click.echo("For development only: the private keys are not encrypted.", err=True)
