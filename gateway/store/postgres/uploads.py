"""Content that clients bring before the submission that refers to it."""

from collections.abc import AsyncIterator
from uuid import UUID

from asyncpg import Record

from gateway.errors import ClaimLost, SubmissionConflict
from gateway.store.api import Upload, UploadChunk
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load

Q = load("upload")


class Uploads(Room):
    """The verbs of `api.Store` for uploads."""

    async def add_upload(
        self, upload: Upload, *, idempotency_key: str | None, lasts: float, most: int, most_octets: int
    ) -> Upload | None:
        async with self._pool.transaction() as t:
            await t.row(Q["lock_client"], upload.client)
            await t.row(Q["forget_over"], upload.client)
            row = None if idempotency_key is None else await t.row(Q["known"], upload.client, idempotency_key)
            if row is not None:
                known = _upload(row)
                if (known.size, known.sha256) != (upload.size, upload.sha256):
                    raise SubmissionConflict("the key began another upload", field="idempotency_key")
                return known
            row = await t.row(
                Q["add"], upload.id, upload.client, idempotency_key, upload.size, upload.sha256, upload.wrapped_key,
                lasts, most, most_octets,
            )  # fmt: skip
            await t.commit()
        return None if row is None else _upload(row)

    async def upload(self, id: UUID, client: str) -> Upload | None:
        row = await self._pool.row(Q["upload"], id, client)
        return None if row is None else _upload(row)

    async def begin_write(self, id: UUID, client: str, *, offset: int) -> int | None:
        async with self._pool.transaction() as t:
            row = await t.row(Q["begin_write"], id, client, offset)
            if row is None:
                return None
            await t.row(Q["drop_beyond"], id, offset)
            await t.commit()
        return row["generation"]

    async def write_upload(
        self, id: UUID, client: str, chunk: UploadChunk, *, received: int | None, lasts: float
    ) -> None:
        if await self._pool.write(
            Q["write"], id, client, chunk.position, *chunk.place, received, chunk.content, lasts
        ) is None:  # fmt: skip
            raise ClaimLost

    async def end_write(self, id: UUID, client: str, *, generation: int, received: int, lasts: float) -> None:
        if await self._pool.write(Q["end_write"], id, client, generation, received, lasts) is None:
            raise ClaimLost

    async def upload_chunks(self, id: UUID, client: str) -> AsyncIterator[UploadChunk]:
        """Each is a statement of its own: a slow reader holds no connection."""
        position = 0
        while (row := await self._pool.row(Q["chunk"], id, client, position)) is not None:
            yield UploadChunk(row["position"], (row["generation"], row["number"]), row["content"])
            position = row["position"] + 1

    async def drop_upload(self, id: UUID, client: str) -> bool:
        return await self._pool.write(Q["drop"], id, client) is not None

    async def erase_uploads(self, *, limit: int = 100) -> int:
        return len(await self._pool.writes(Q["erase_over"], limit))


def _upload(row: Record) -> Upload:
    return Upload(**dict(row.items()))
