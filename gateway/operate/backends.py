"""API clients: who may use the plugin API, for which backend, within which scope, and with what credential.

A secret is shown once, when it is made; what is kept finds or verifies it. Everything that
changes who may do what is in the audit.
"""

import secrets
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.as4.wss.algorithms import UNREADABLE
from gateway.errors import ConfigError, NotFound
from gateway.msh.access import LOGIN_BYTES, certificate_key, password_verifier, token_key
from gateway.pmodes.updates import BACKEND as UPDATES
from gateway.scope import EVERYTHING, Scope
from gateway.store.api import AuditEntry, Client, Credential, Store

MAX_NAME = 80
MAX_BOUNDS = 1000


async def create(
    store: Store, name: str, backend: str, scope: Scope = EVERYTHING, *, login: str | None = None,
    password: str | None = None, by: str = "operator",
) -> tuple[Client, str]:  # fmt: skip
    """A new client and its token, or with `login` its password (one is made when none is given). The
    secret is returned this once. `by` is who does it, here and below. Raises `ConfigError`."""
    client = _client(name, backend, scope)
    credential, value = (
        await _password(store, client.id, login, password) if login is not None else _token(client.id, None)
    )
    note = _note("client.created", by, client.id, backend=backend, scope=_plain(scope), credential=credential.id)
    await store.add_client(client, credential, note=note)
    return client, value


async def add_token(
    store: Store, client: str, valid: timedelta | None = None, *, by: str = "operator"
) -> tuple[Credential, str]:
    """A further token, so that one can be replaced while the other is still in use. Raises `NotFound`."""
    await _existing(store, client)
    credential, value = _token(client, valid)
    await _add(store, credential, by)
    return credential, value


async def add_password(
    store: Store, client: str, login: str, password: str | None = None, *, by: str = "operator"
) -> tuple[Credential, str]:
    """A login name and password for a client. Raises `NotFound`, `ConfigError`."""
    await _existing(store, client)
    credential, value = await _password(store, client, login, password)
    await _add(store, credential, by)
    return credential, value


async def add_certificate(store: Store, client: str, pem_or_der: bytes, *, by: str = "operator") -> Credential:
    """The TLS client certificate of a client. Raises `NotFound`, `ConfigError`."""
    await _existing(store, client)
    try:
        read = x509.load_pem_x509_certificate if b"-----BEGIN" in pem_or_der else x509.load_der_x509_certificate
        certificate = read(pem_or_der)
        der, end = certificate.public_bytes(Encoding.DER), certificate.not_valid_after_utc
    except UNREADABLE:
        raise ConfigError("not a certificate in PEM or DER", key="certificate") from None
    if end <= datetime.now(UTC):
        raise ConfigError(f"the certificate expired on {end:%Y-%m-%d}", key="certificate")
    key = certificate_key(der)
    await _free(store, "certificate", key, "certificate")
    credential = Credential(id=_id("cr"), client=client, kind="certificate", key=key)
    await _add(store, credential, by)
    return credential


async def add_subject(store: Store, client: str, issuer: str, subject: str, *, by: str = "operator") -> Credential:
    """Who a client is in the signed tokens of an issuer. Raises `NotFound`, `ConfigError`."""
    await _existing(store, client)
    if any(not 0 < len(part) <= 500 or " " in part or not part.isprintable() for part in (issuer, subject)):
        raise ConfigError("issuer and subject have 1 to 500 printable characters and no blank", key="subject")
    key = f"{issuer} {subject}"
    await _free(store, "subject", key, "subject")
    credential = Credential(id=_id("cr"), client=client, kind="subject", key=key)
    await _add(store, credential, by)
    return credential


async def revoke(store: Store, id: str, *, by: str = "operator") -> None:
    """End a client (cl_…) or one credential (cr_…). Raises `NotFound`."""
    kind, verb = ("credential.revoked", store.revoke_credential) if id.startswith("cr_") else (
        "client.revoked", store.revoke_client)  # fmt: skip
    if not await verb(id, note=_note(kind, by, id)):
        raise NotFound(f"no client or credential {id} in force")


async def set_scope(store: Store, client: str, scope: Scope, *, by: str = "operator") -> None:
    """Bound a client anew; takes effect at once on every node. Raises `NotFound`, `ConfigError`."""
    _check_scope(scope)
    if not await store.set_scope(client, scope, note=_note("client.scope", by, client, scope=_plain(scope))):
        raise NotFound(f"no client {client}")


# -- the pieces -------------------------------------------------------------------


def _client(name: str, backend: str, scope: Scope) -> Client:
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise ConfigError(f"a client name has 1 to {MAX_NAME} printable characters", key="NAME")
    if backend == UPDATES:
        raise ConfigError(f"{UPDATES} is the gateway itself: no client gets what is for it", key="--backend")
    _check_scope(scope)
    return Client(id=_id("cl"), name=name, backend=backend, scope=scope)


def _check_scope(scope: Scope) -> None:
    for field in scope.__struct_fields__:
        values = getattr(scope, field)
        if len(values) > MAX_BOUNDS or any(not v.strip() or len(v) > 1024 or not v.isprintable() for v in values):
            raise ConfigError(f"expected up to {MAX_BOUNDS} printable values of up to 1024 characters", key=field)


def _token(client: str, valid: timedelta | None) -> tuple[Credential, str]:
    value = "gw_" + secrets.token_urlsafe(32)
    expires_at = None if valid is None else datetime.now(UTC) + valid
    return Credential(id=_id("cr"), client=client, kind="token", key=token_key(value), expires_at=expires_at), value


async def _password(store: Store, client: str, login: str, password: str | None) -> tuple[Credential, str]:
    if not 0 < len(login.encode()) <= LOGIN_BYTES or not login.isprintable() or ":" in login or login != login.strip():
        raise ConfigError(
            "a login name has up to 255 printable characters, no colon, and no blank at its ends", key="login"
        )
    await _free(store, "password", login, "login")
    value = password or secrets.token_urlsafe(24)
    try:
        verifier = password_verifier(value)
    except ValueError as error:
        raise ConfigError(str(error), key="password") from None
    return Credential(id=_id("cr"), client=client, kind="password", key=login, verifier=verifier), value


async def _existing(store: Store, client: str) -> None:
    if not any(c.id == client and not c.revoked for c in await store.clients()):
        raise NotFound(f"no client {client} in force")


async def _free(store: Store, kind: str, key: str, what: str) -> None:
    if any((c.kind, c.key) == (kind, key) for c in await store.credentials()):
        raise ConfigError("belongs to a client already, or did once", key=what)


async def _add(store: Store, credential: Credential, by: str) -> None:
    about = {"client": credential.client, "credential": credential.kind}
    await store.add_credential(credential, note=_note("credential.created", by, credential.id, **about))


def _note(kind: str, by: str, subject: str, **detail: object) -> AuditEntry:
    return AuditEntry(kind=kind, actor=by, subject=subject, detail=detail)


def _plain(scope: Scope) -> dict:
    """How much each bound names, not what: a corner may be a person's id."""
    return {field: len(values) for field in scope.__struct_fields__ if (values := getattr(scope, field))}


def _id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(6)}"
