"""API clients: who may use the plugin API, and for which backend."""

import secrets

from gateway.errors import ConfigError, NotFound
from gateway.msh.door import token_hash
from gateway.store.api import AuditEntry, Client, Store

MAX_NAME = 80


async def create(store: Store, name: str, backend: str) -> tuple[Client, str]:
    """A new client and its token. The token is returned this once; only its hash is kept."""
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise ConfigError(f"a client name has 1 to {MAX_NAME} printable characters", key="NAME")
    token = "gw_" + secrets.token_urlsafe(32)
    client = Client(id=f"cl_{secrets.token_hex(6)}", name=name, backend=backend)
    await store.add_client(client, token_hash(token))
    await store.audit(
        AuditEntry(kind="client.created", actor="operator", subject=client.id, detail={"backend": backend})
    )
    return client, token


async def revoke(store: Store, id: str) -> None:
    """Raises `NotFound`."""
    if not await store.revoke_client(id):
        raise NotFound(f"no client {id}")
    await store.audit(AuditEntry(kind="client.revoked", actor="operator", subject=id))
