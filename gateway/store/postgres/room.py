"""What the verbs of this room share: the pool, the bell, and the check that a commit was durable."""

from asyncpg import Record

from gateway.errors import OutcomeUnknown
from gateway.store.postgres.bell import Bell
from gateway.store.postgres.pool import DURABLE, Pool


class Room:
    """Base of the classes that together are `PostgresStore`."""

    _pool: Pool
    _bell: Bell

    @staticmethod
    def _assured(row: Record) -> Record:
        """`row`, if the session that committed it waited for what a receipt stands on.

        The setting is pinned when we connect; a pooler that swaps sessions under us is
        noticed here, where it matters.
        """
        if row["durability"] not in DURABLE:
            raise OutcomeUnknown(f"synchronous_commit was {row['durability']} during the commit")
        return row
