"""Large content that a client brings ahead, in as many requests as it takes.

    begin (size, perhaps its SHA-256) → write at an offset, again and again → complete → submit by reference

Octets are sealed under a key of the upload as they come, in pieces of 512 KiB, and never held as
a whole. With a digest of its octets a write counts as a whole or not at all; without one, what
came before an interruption stays, and the client asks where to go on. Whoever writes last has
the upload: a writer that was forgotten somewhere changes nothing any more.
"""

import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Literal
from uuid import UUID

from gateway.errors import (
    DigestMismatch,
    NotFound,
    NotPossible,
    OffsetConflict,
    QuotaReached,
    SubmissionRefused,
    TooLarge,
)
from gateway.keys.sealing import new_message_key, open_chunk, seal_chunk
from gateway.msh.payloads import CHUNK
from gateway.msh.rooms import Rooms, new_id
from gateway.plugin import Caller, UploadView
from gateway.store.api import Upload, UploadChunk

#: Uploads one client may have at a time; together they may be as large as so many messages.
MOST = 32
MOST_MESSAGES = 2
#: Seconds an upload is kept after the last octet came.
LASTS = 24 * 3600.0


class Uploads:
    """The uploads of all clients."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms, self._store = rooms, rooms.store

    async def begin(self, caller: Caller, size: int, sha256: str | None, key: str | None) -> UploadView:
        """Raises `TooLarge`, `QuotaReached`, `SubmissionConflict`."""
        limits = self._rooms.config.limits
        if size > limits.part:
            raise TooLarge(f"a payload may have {limits.part} bytes")
        id = new_id()
        made = await self._store.add_upload(
            Upload(
                id=id, client=caller.id, size=size, sha256=bytes.fromhex(sha256) if sha256 else None,
                wrapped_key=self._rooms.kek.wrap(new_message_key(self._rooms.entropy), str(id)),
            ),
            idempotency_key=key, lasts=LASTS, most=MOST, most_octets=MOST_MESSAGES * limits.message,
        )  # fmt: skip
        if made is None:
            raise QuotaReached(
                f"a client may have {MOST} uploads of {MOST_MESSAGES * limits.message} bytes in all at a time"
            )
        return _view(made)

    async def one(self, caller: Caller, id: str) -> UploadView:
        """Raises `NotFound`."""
        return _view(await self._found(caller, id))

    async def write(
        self, caller: Caller, id: str, blocks: AsyncIterator[bytes], *, offset: int,
        digest: tuple[Literal["sha-256", "sha-512"], bytes] | None,
    ) -> UploadView:  # fmt: skip
        """Raises `NotFound`, `OffsetConflict`, `DigestMismatch`, `TooLarge`, `ClaimLost`, and what `blocks` raises."""
        found = await self._found(caller, id)
        if offset not in (0, found.received):
            raise OffsetConflict(found.received)
        generation = await self._store.begin_write(found.id, caller.id, offset=offset)
        if generation is None:
            raise OffsetConflict((await self._found(caller, id)).received)
        writer = _Writer(self._rooms, found, generation, offset, whole=digest is not None)
        hashing = hashlib.new(digest[0].replace("-", "")) if digest else None
        try:
            async for block in blocks:
                if writer.end + len(block) > found.size:
                    raise TooLarge(f"the upload was to have {found.size} bytes")
                if hashing is not None:
                    await self._rooms.cpu.run(hashing.update, block) if len(block) > CHUNK else hashing.update(block)
                await writer.write(block)
        except TooLarge:
            raise
        except Exception:
            if digest is None:  # the caller went away: what it sent stays
                await writer.flush()
            raise
        await writer.flush()
        if digest is not None and not hmac.compare_digest(hashing.digest(), digest[1]):
            await self._store.begin_write(found.id, caller.id, offset=offset)
            raise DigestMismatch(f"the content is not what its {digest[0]} says")
        if digest is not None:
            await self._store.end_write(
                found.id, caller.id, generation=generation, received=writer.end, lasts=LASTS
            )
        return await self.one(caller, id)

    async def content(self, caller: Caller, id: str) -> AsyncIterator[bytes]:
        """Raises `NotFound`, `NotPossible`; while it is read `DigestMismatch`."""
        found = await self._found(caller, id)
        if found.received != found.size:
            raise NotPossible(f"the upload has {found.received} of {found.size} bytes", state="incomplete")
        return self._content(found)

    async def _content(self, found: Upload) -> AsyncIterator[bytes]:
        key, digest, end = self._rooms.kek.unwrap(found.wrapped_key, str(found.id)), hashlib.sha256(), 0
        async for piece in self._store.upload_chunks(found.id, found.client):
            octets = open_chunk(key, str(found.id), *piece.place, piece.content)
            if piece.position != end:
                break
            end += len(octets)
            if found.sha256 is not None:
                digest.update(octets)
            yield octets
        if end != found.size:
            raise SubmissionRefused("the upload went away or was begun anew while it was read", field="parts[].upload")
        if found.sha256 is not None and not hmac.compare_digest(digest.digest(), found.sha256):
            raise DigestMismatch("the upload is not what its SHA-256 says")

    async def drop(self, caller: Caller, id: str) -> None:
        """Raises `NotFound`."""
        found = await self._found(caller, id)
        await self._store.drop_upload(found.id, caller.id)

    async def _found(self, caller: Caller, id: str) -> Upload:
        try:
            found = await self._store.upload(UUID(id), caller.id)
        except ValueError:
            found = None
        if found is None:
            raise NotFound("no such upload")
        return found


class _Writer:
    """Seals what comes into pieces. Generation and number are the place of a piece: none is used twice, so
    that no two contents are ever sealed alike."""

    def __init__(self, rooms: Rooms, upload: Upload, generation: int, offset: int, *, whole: bool) -> None:
        self._rooms, self._upload, self._generation, self._whole = rooms, upload, generation, whole
        self._key = rooms.kek.unwrap(upload.wrapped_key, str(upload.id))
        self._held, self._number, self._kept = bytearray(), 0, offset

    @property
    def end(self) -> int:
        return self._kept + len(self._held)

    async def write(self, block: bytes) -> None:
        self._held += block
        while len(self._held) >= CHUNK:
            await self._keep(CHUNK)

    async def flush(self) -> None:
        if self._held:
            await self._keep(len(self._held))

    async def _keep(self, size: int) -> None:
        octets = bytes(self._held[:size])
        del self._held[:size]
        place = (self._generation, self._number)
        sealed = await self._rooms.cpu.run(seal_chunk, self._key, str(self._upload.id), *place, octets)
        piece = UploadChunk(self._kept, place, sealed)
        self._kept, self._number = self._kept + size, self._number + 1
        await self._rooms.store.write_upload(
            self._upload.id, self._upload.client, piece, received=None if self._whole else self._kept, lasts=LASTS
        )


def _view(upload: Upload) -> UploadView:
    return UploadView(
        id=str(upload.id), size=upload.size, received=upload.received, complete=upload.received == upload.size,
        expires_at=upload.expires_at, sha256=upload.sha256.hex() if upload.sha256 else None,
    )  # fmt: skip
