"""Clients of the plugin API and webhooks."""

from gateway.store.api import Client, Webhook
from gateway.store.postgres import rows
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load

Q = load("registry")


class Registry(Room):
    """The verbs of `api.Store` for clients and webhooks."""

    async def add_client(self, client: Client, token_hash: bytes) -> None:
        await self._pool.write(Q["add_client"], client.id, client.name, client.backend, token_hash)

    async def client_by_token(self, token_hash: bytes) -> Client | None:
        row = await self._pool.row(Q["client_by_token"], token_hash)
        return None if row is None else rows.client(row)

    async def clients(self) -> list[Client]:
        return [rows.client(row) for row in await self._pool.rows(Q["clients"])]

    async def revoke_client(self, id: str) -> bool:
        return await self._pool.write(Q["revoke_client"], id) is not None

    async def add_webhook(self, webhook: Webhook) -> None:
        await self._pool.write(
            Q["add_webhook"], webhook.id, webhook.backend, webhook.url, webhook.sealed_secret, webhook.events,
            webhook.disabled,
        )  # fmt: skip

    async def webhooks(self, *, backend: str | None = None) -> list[Webhook]:
        return [rows.webhook(row) for row in await self._pool.rows(Q["webhooks"], backend)]

    async def remove_webhook(self, id: str, backend: str) -> bool:
        return await self._pool.write(Q["remove_webhook"], id, backend) is not None

    async def disable_webhook(self, id: str) -> None:
        await self._pool.write(Q["disable_webhook"], id)
