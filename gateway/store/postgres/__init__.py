"""The store on PostgreSQL 13 and newer.

    await migrate.migrate(dsn)
    store = await PostgresStore.open(dsn, pool_size=8)

`pool` knows what a broken commit means, `sql` loads the statements of `queries/`, `migrate`
brings the schema up to date, `bell` wakes who waits for work; the other modules are the
verbs of `api.Store`, grouped by what they are about.
"""

from gateway.store.api import Health
from gateway.store.postgres.agreements import Agreements
from gateway.store.postgres.alerts import Alerts
from gateway.store.postgres.audit import Audit
from gateway.store.postgres.bell import Bell
from gateway.store.postgres.inbound import Inbound
from gateway.store.postgres.jobs import Jobs
from gateway.store.postgres.keeping import Keeping
from gateway.store.postgres.keys import Keys
from gateway.store.postgres.messages import Messages
from gateway.store.postgres.migrate import pending
from gateway.store.postgres.outbound import Outbound
from gateway.store.postgres.pair import Pair
from gateway.store.postgres.partner_certificates import PartnerCertificates
from gateway.store.postgres.payloads import Payloads
from gateway.store.postgres.pool import Pool
from gateway.store.postgres.pulling import Pulling
from gateway.store.postgres.registry import Registry
from gateway.store.postgres.rotation import Rotation
from gateway.store.postgres.seals import Seals
from gateway.store.postgres.sql import load
from gateway.store.postgres.updates import Updates
from gateway.store.postgres.uploads import Uploads
from gateway.store.postgres.webhooks import Webhooks

Q = load("session")


class PostgresStore(
    Inbound, Outbound, Pulling, Jobs, Payloads, Messages, Uploads, Registry, Webhooks, PartnerCertificates, Audit,
    Agreements, Keys, Rotation, Seals, Updates, Alerts, Pair, Keeping,
):  # fmt: skip
    """`api.Store` in one schema of one database. Belongs to the event loop that opened it."""

    def __init__(self, pool: Pool, schema: str) -> None:
        self._pool, self._schema = pool, schema
        self._bell = Bell(pool, f"{schema}_work")

    @classmethod
    async def open(
        cls, dsn: str, *, pool_size: int = 8, schema: str = "gateway", application: str = "gateway",
        synchronous: str = "any",
    ) -> "PostgresStore":  # fmt: skip
        """A store on a schema that `migrate` brought up to date. One for each process.

        The DSN may name several hosts; the one that takes writes is used. With `synchronous` "required" a
        message counts as stored only when a standby has it. Raises `StoreUnavailable` when there is none.
        """
        pool = Pool(dsn, size=pool_size, schema=schema, application=application, synchronous=synchronous)
        await pool.facts()
        return cls(pool, schema)

    async def health(self) -> Health:
        facts = await self._pool.facts()
        writable = not (facts.in_recovery or facts.read_only)
        if writable:
            await self._pool.write(Q["emit"])
        return Health(
            writable=writable,
            version=facts.version,
            migrations_pending=len(await pending(self._pool)),
            synchronous_commit=facts.synchronous_commit,
            in_recovery=facts.in_recovery,
        )

    async def close(self) -> None:
        await self._bell.close()
        await self._pool.close()


__all__ = ["PostgresStore"]
