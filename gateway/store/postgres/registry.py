"""Clients of the plugin API."""

from gateway.scope import Scope
from gateway.store.api import AuditEntry, Client, Credential, CredentialKind
from gateway.store.postgres import rows
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load

Q = load("registry")


class Registry(Room):
    """The verbs of `api.Store` for clients."""

    async def add_client(self, client: Client, *credentials: Credential, note: AuditEntry | None = None) -> None:
        columns = zip(*((c.id, c.kind, c.key, c.verifier, c.expires_at) for c in credentials), strict=True)
        await self._noted(
            Q["add_client"], client.id, client.name, client.backend, rows.text(client.scope),
            *(map(list, columns) if credentials else ([] for _ in range(5))), note=note,
        )  # fmt: skip

    async def client_by(self, kind: CredentialKind, key: str) -> tuple[Client, Credential] | None:
        row = await self._pool.row(Q["client_by"], kind, key) if rows.storable(key) else None
        if row is None:
            return None
        found = rows.client(row)
        return found, Credential(
            id=row["credential"], client=found.id, kind=kind, key=key, verifier=row["verifier"],
            created_at=row["issued_at"], expires_at=row["expires_at"],
        )  # fmt: skip

    async def clients(self) -> list[Client]:
        return [rows.client(row) for row in await self._pool.rows(Q["clients"])]

    async def revoke_client(self, id: str, *, note: AuditEntry | None = None) -> bool:
        return await self._noted(Q["revoke_client"], id, note=note) is not None

    async def set_scope(self, client: str, scope: Scope, *, note: AuditEntry | None = None) -> bool:
        return await self._noted(Q["set_scope"], client, rows.text(scope), note=note) is not None

    async def add_credential(self, credential: Credential, *, note: AuditEntry | None = None) -> None:
        await self._noted(
            Q["add_credential"], credential.id, credential.client, credential.kind, credential.key,
            credential.verifier, credential.expires_at, note=note,
        )  # fmt: skip

    async def credentials(self, *, client: str | None = None) -> list[Credential]:
        return [Credential(**row) for row in await self._pool.rows(Q["credentials"], client)]

    async def revoke_credential(self, id: str, *, note: AuditEntry | None = None) -> bool:
        return await self._noted(Q["revoke_credential"], id, note=note) is not None
