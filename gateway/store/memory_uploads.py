"""Uploads of the store in memory."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import msgspec

from gateway.clock import Clock
from gateway.errors import ClaimLost, SubmissionConflict
from gateway.store.api import Upload, UploadChunk


class MemoryUploads:
    """The part of `api.Store` about uploads."""

    _clock: Clock

    def __init__(self) -> None:
        super().__init__()
        self._uploads: dict[UUID, Upload] = {}
        self._upload_keys: dict[tuple[str, str], UUID] = {}
        self._pieces: dict[UUID, dict[int, UploadChunk]] = {}
        self._generations: dict[UUID, int] = {}

    async def add_upload(
        self, upload: Upload, *, idempotency_key: str | None, lasts: float, most: int, most_octets: int
    ) -> Upload | None:
        key = (upload.client, idempotency_key) if idempotency_key else None
        known = await self.upload(self._upload_keys[key], upload.client) if key in self._upload_keys else None
        if known is not None:
            if (known.size, known.sha256) != (upload.size, upload.sha256):
                raise SubmissionConflict("the key began another upload", field="idempotency_key")
            return known
        await self.erase_uploads()
        own = [u for u in self._uploads.values() if u.client == upload.client]
        if len(own) >= most or sum(u.size for u in own) + upload.size > most_octets:
            return None
        now = self._clock.now()
        made = msgspec.structs.replace(upload, created_at=now, expires_at=now + timedelta(seconds=lasts))
        self._uploads[made.id], self._pieces[made.id], self._generations[made.id] = made, {}, 0
        if key is not None:
            self._upload_keys[key] = made.id
        return made

    async def upload(self, id: UUID, client: str) -> Upload | None:
        found = self._uploads.get(id)
        if found is None or found.client != client or found.expires_at <= self._clock.now():
            return None
        return found

    async def begin_write(self, id: UUID, client: str, *, offset: int) -> int | None:
        found = await self.upload(id, client)
        if found is None or found.received < offset:
            return None
        self._pieces[id] = {at: piece for at, piece in self._pieces[id].items() if at < offset}
        self._uploads[id] = msgspec.structs.replace(found, received=offset)
        self._generations[id] += 1
        return self._generations[id]

    async def write_upload(
        self, id: UUID, client: str, chunk: UploadChunk, *, received: int | None, lasts: float
    ) -> None:
        self._touch(id, client, chunk.place[0], received, lasts)
        self._pieces[id][chunk.position] = chunk

    async def end_write(self, id: UUID, client: str, *, generation: int, received: int, lasts: float) -> None:
        self._touch(id, client, generation, received, lasts)

    def _touch(self, id: UUID, client: str, generation: int, received: int | None, lasts: float) -> None:
        found = self._uploads.get(id)
        if found is None or found.client != client or self._generations[id] != generation:
            raise ClaimLost
        self._uploads[id] = msgspec.structs.replace(
            found, received=found.received if received is None else received,
            expires_at=self._clock.now() + timedelta(seconds=lasts),
        )  # fmt: skip

    async def upload_chunks(self, id: UUID, client: str) -> AsyncIterator[UploadChunk]:
        found = await self.upload(id, client)
        for position, piece in sorted(self._pieces.get(id, {}).items() if found else ()):
            if position < found.received:
                yield piece

    async def drop_upload(self, id: UUID, client: str) -> bool:
        if await self.upload(id, client) is None:
            return False
        self._forget(id)
        return True

    async def erase_uploads(self, *, limit: int = 100) -> int:
        over = [u.id for u in self._uploads.values() if u.expires_at <= self._clock.now()][:limit]
        for id in over:
            self._forget(id)
        return len(over)

    def _forget(self, id: UUID) -> None:
        del self._uploads[id], self._pieces[id], self._generations[id]
        self._upload_keys = {key: own for key, own in self._upload_keys.items() if own != id}
