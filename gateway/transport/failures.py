"""Why a connection came to nothing, in words a partner's engineer can act on.

aiohttp and OpenSSL say much and explain little; the operator sees this text in the
timeline of the message, so it names the host, the cause, and where to look.
"""

import errno
import socket
import ssl

import aiohttp

#: X509_V_ERR_*, from OpenSSL's x509_vfy.h: what happens between access points, and what to do.
VERIFY_ERRORS = {
    7: "its TLS certificate bears the name of the agreement's CA but not its signature",
    9: "its TLS certificate is not valid yet; compare the clocks",
    10: "its TLS certificate has expired",
    18: "its TLS certificate is self-signed and not in the agreement",
    19: "its TLS certificate comes from a root that is not trusted here; add the CA to the agreement",
    20: "its TLS certificate comes from a CA that is not trusted here, or an intermediate certificate is missing",
    21: "its TLS certificate comes without the intermediate certificate that signed it",
    23: "its TLS certificate has been revoked",
    26: "its TLS certificate is not meant for servers",
    62: "its TLS certificate is for another host name",
    64: "its TLS certificate is for another address",
}
#: Reasons of ssl.SSLError; alerts are what the partner told us.
TLS_REASONS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it demands a TLS client certificate and got none",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept our TLS client certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that our TLS client certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept our TLS client certificate",
    "TLSV1_ALERT_DECRYPT_ERROR": "it cannot verify our TLS client certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "it does not admit our TLS client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the CA of our TLS client certificate",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it offers no TLS version from 1.2 on",
    "UNSUPPORTED_PROTOCOL": "it offers no TLS version from 1.2 on",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it shares no TLS cipher suite with us, or demands a client certificate",
    "WRONG_VERSION_NUMBER": "it does not speak TLS on this port",
    "HTTP_REQUEST": "it does not speak TLS on this port",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection during the TLS handshake",
    "DH_KEY_TOO_SMALL": "its Diffie-Hellman group is too small to be safe",
}
SYSTEM_ERRORS = {
    errno.ECONNREFUSED: "nobody listens there (connection refused)",
    errno.EHOSTUNREACH: "there is no route to it; look at firewalls and routes",
    errno.ENETUNREACH: "there is no route to its network; look at firewalls and routes",
    errno.ETIMEDOUT: "it does not answer; a firewall may drop the packets",
    errno.ECONNRESET: "it, or a firewall between, broke the connection off",
    errno.EPIPE: "it, or a firewall between, broke the connection off",
    errno.EMFILE: "this process has no file descriptor left; raise LimitNOFILE",
    errno.EADDRNOTAVAIL: "this machine has no local port left for it",
}


def explain(host: str, error: BaseException) -> str:
    """One sentence about `host` and what went wrong with it."""
    for cause in _chain(error):
        if text := _known(cause):
            return f"{host}: {text}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return f"{host}: it closed the connection without an answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return f"{host}: its answer ended too early"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{host}: its answer is not proper HTTP"
    return f"{host}: {type(error).__name__}"


def _chain(error: BaseException | None):
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
        error = inner or error.__cause__ or error.__context__


def _known(error: BaseException) -> str | None:
    # aiohttp's own exception is one of these by name only; the real one is inside.
    if isinstance(error, ssl.SSLCertVerificationError) and not isinstance(error, aiohttp.ClientError):
        return VERIFY_ERRORS.get(error.verify_code) or f"its TLS certificate is refused ({error.verify_message})"
    if isinstance(error, ssl.SSLError) and not isinstance(error, aiohttp.ClientError):
        reason = getattr(error, "reason", None) or ""  # one that Python made itself has none
        return TLS_REASONS.get(reason) or (f"TLS failed ({reason.replace('_', ' ').lower()})" if reason else None)
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return "the name cannot be resolved"
    if isinstance(error, ConnectionResetError) and error.errno is None:
        # asyncio raises it without a number when the other side hangs up in the middle of the handshake.
        return (
            "it broke the TLS handshake or the connection off; it may want another TLS version or a client certificate"
        )
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, aiohttp.ClientConnectorError):
        return SYSTEM_ERRORS.get(error.errno)
    return None
