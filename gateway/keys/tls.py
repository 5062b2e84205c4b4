"""TLS contexts for our listeners and for connections to partners.

TLS 1.2 and 1.3 with forward secrecy and authenticated encryption only [as4 1.6, oots 1.11].
Contexts are made here and not with `ssl.create_default_context`, which would write the
session keys to a file that the environment names (SSLKEYLOGFILE).

The TLS identity of a peer is never the identity of a message.
"""

import ssl
from pathlib import Path

from gateway.config import Secret, Tls
from gateway.config.sections import TLS12_CIPHERS
from gateway.errors import ConfigError, KeyUnavailable
from gateway.keys.own import TlsKey

#: AS4 has no use for HTTP/2: one POST at a time, and flow control of its own is one thing more to attack.
ALPN = ("http/1.1",)
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def server_context(tls: Tls, identity: TlsKey | None = None) -> ssl.SSLContext:
    """The context of a listener, with the certificate of `identity` or else of the configured file.

    Without either no handshake succeeds. Raises `ConfigError` naming the file that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _common(context, tls.minimum_version, tls.ciphers)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    _identify(context, identity, tls.certificate, tls.key, tls.password)
    if tls.client_ca is not None:
        _anchors(context, tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if tls.require_client_certificate else ssl.CERT_OPTIONAL
    return context


def client_context(
    ca: bytes | Path | None = None,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    password: Secret | None = None,
    minimum_version: str = "1.2",
    ciphers: str = TLS12_CIPHERS,
    identity: TlsKey | None = None,
) -> ssl.SSLContext:
    """The context for connections to a partner: chain and host name are always verified.

    `ca` is what the server's certificate must lead to (PEM or DER octets, or a file);
    without it the CAs of the system. `certificate` is ours, where the partner wants one, or that of `identity`.
    Raises `ConfigError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # CERT_REQUIRED and check_hostname
    _common(context, minimum_version, ciphers)
    if ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _anchors(context, ca)
    _identify(context, identity, certificate, key, password)
    return context


def tls_test(identity: TlsKey) -> None:
    """The key and its certificate can be used for TLS. Raises `KeyUnavailable`."""
    try:
        identity.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    except ssl.SSLError as error:
        raise KeyUnavailable(f"not usable for TLS ({error.reason or 'unreadable'})") from None


def _identify(
    context: ssl.SSLContext, identity: TlsKey | None, certificate: Path | None, key: Path | None,
    password: Secret | None,
) -> None:  # fmt: skip
    if identity is not None:
        identity.load_into(context)
    elif certificate is not None:
        _own_certificate(context, certificate, key, password)


def _common(context: ssl.SSLContext, minimum_version: str, ciphers: str) -> None:
    context.minimum_version = _VERSIONS[minimum_version]
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(list(ALPN))
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        hint = f"the default is {TLS12_CIPHERS}"
        raise ConfigError("OpenSSL knows none of these", key="ciphers", hint=hint) from None


def _own_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None, password: Secret | None) -> None:
    for file in (certificate, key):
        _readable(file)
    # Without a password OpenSSL would ask for one on the terminal.
    secret = password.line() if password else b""
    try:
        context.load_cert_chain(certificate, key, password=lambda: secret)
    except ssl.SSLError as error:
        reason = {
            "KEY_VALUES_MISMATCH": "the private key does not belong to the certificate",
            "NO_CERTIFICATE_ASSIGNED": "the private key does not belong to the certificate",
            "NO_START_LINE": "no PEM certificate or no PEM key in it",
        }.get(error.reason or "", f"wrong password, or not usable for TLS ({error.reason or 'unreadable'})")
        raise ConfigError(reason, file=str(key or certificate)) from None


def _anchors(context: ssl.SSLContext, ca: bytes | Path) -> None:
    if isinstance(ca, Path):
        _readable(ca)
        octets, name = ca.read_bytes(), str(ca)
    else:
        octets, name = ca, "tls_ca"
    try:
        context.load_verify_locations(cadata=octets.decode("ascii") if b"-----BEGIN" in octets else octets)
    except (ssl.SSLError, UnicodeDecodeError, ValueError):
        raise ConfigError("no certificate that TLS could trust in it", file=name) from None


def _readable(file: Path | None) -> None:
    try:
        if file is not None:
            file.open("rb").close()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(file)) from None
