"""Where the encrypted parts of one incoming message wait until the last byte is here.

Up to 1 MiB stays in memory; beyond that an unlinked file takes over, so that nothing is
left behind however the process ends. Only octets that the envelope declares encrypted, from
a sender whose signature was right, ever get here; they are ciphertext and stay so.

A `SpoolRoom` bounds what all messages of a process, and those of one partner, may hold.
"""

import errno
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from gateway.errors import Overloaded
from gateway.stages import point

IN_MEMORY = 1 << 20
BLOCK = 1 << 20
#: What passes when others finish: the peer is asked to come again.
EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)


class SpoolRoom:
    """Disk space for spools, bounded in total and per partner (bytes)."""

    def __init__(self, folder: Path, *, total: int, per_partner: int) -> None:
        self._folder, self._total, self._per_partner = folder, total, per_partner
        self._used = 0
        self._by_partner: dict[str, int] = defaultdict(int)

    def take(self, partner: str, size: int) -> None:
        if self._used + size > self._total or self._by_partner[partner] + size > self._per_partner:
            raise Overloaded("the spool is full")
        self._used += size
        self._by_partner[partner] += size

    def give_back(self, partner: str, size: int) -> None:
        self._used -= size
        self._by_partner[partner] -= size
        if not self._by_partner[partner]:
            del self._by_partner[partner]

    def open(self) -> int:
        """A new unlinked file, readable by nobody else. Raises `Overloaded` when disk or file
        descriptors are used up."""
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            try:
                return os.open(self._folder, flags | os.O_TMPFILE, 0o600)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
                    raise
            # A file system, or a kernel, without O_TMPFILE.
            descriptor, name = tempfile.mkstemp(dir=self._folder)
            os.unlink(name)
            return descriptor
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            raise Overloaded(f"no spool file: {error.strerror}") from None


class Spool:
    """The parts of one message, in the order they arrived. Use as a context manager."""

    def __init__(self, room: SpoolRoom, partner: str) -> None:
        self._room, self._partner = room, partner
        self._memory = bytearray()
        self._file: int | None = None
        self._size = 0
        self._parts: list[tuple[str, int]] = []  # cid, offset of its first octet
        self.cids: set[str] = set()

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._room.give_back(self._partner, self._size)
        self._size = 0
        self._memory = bytearray()  # not cleared: the traceback of an error may still look at it

    @property
    def size(self) -> int:
        return self._size

    @property
    def on_disk(self) -> bool:
        return self._file is not None

    def begin(self, cid: str) -> None:
        self._parts.append((cid, self._size))
        self.cids.add(cid)

    def write(self, block: bytes) -> bool:
        """Append to the current part. Returns whether it is time to `flush`. Raises `Overloaded`."""
        self._room.take(self._partner, len(block))
        self._size += len(block)
        self._memory += block
        return len(self._memory) > IN_MEMORY

    def flush(self) -> None:
        """Write what is in memory to disk; blocking. Raises `Overloaded` when the disk is full [threats H08]."""
        if self._file is None:
            point("IB04")
            self._file = self._room.open()
        written = 0
        with memoryview(self._memory) as view:
            while written < len(view):
                try:
                    written += os.write(self._file, view[written:])
                except OSError as error:
                    if error.errno not in EXHAUSTED:
                        raise
                    raise Overloaded("the disk of the spool is full") from None
        self._memory = bytearray()

    def seal(self) -> None:
        """No more writing; what is left in memory joins the file if there is one."""
        if self._file is not None and self._memory:
            self.flush()

    def read(self, cid: str) -> Iterator[bytes]:
        """The octets of a part in blocks of up to 1 MiB."""
        index = next(i for i, (name, _) in enumerate(self._parts) if name == cid)
        start = self._parts[index][1]
        end = self._parts[index + 1][1] if index + 1 < len(self._parts) else self._size
        if self._file is None:
            if end > start:
                yield bytes(self._memory[start:end])
            return
        while start < end:
            block = os.pread(self._file, min(BLOCK, end - start), start)
            if not block:
                raise OSError("the spool file is shorter than what was written")
            start += len(block)
            yield block
