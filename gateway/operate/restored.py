"""After a restore to a moment: what was promised since, and is not in the database any more.

A database that is put back to T does not know what it said after T. The log does: a line is
written before every receipt leaves (`message.received`, `message.duplicate`), and when a
submission is stored, before its producer hears of it (`message.submitted`). So the log, kept on
another machine, is the archive this report is made from. Acknowledgements and deliveries after T
are not in it: they come again by themselves, under the same ids.
"""

import gzip
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from gateway.store.api import Store
from gateway.store.keeping import Issued

#: Event -> what somebody believes because of it, and the direction of the message.
PROMISES = {
    "message.received": ("receipt issued", "inbound"),
    "message.duplicate": ("receipt issued", "inbound"),
    "message.submitted": ("submission accepted", "outbound"),
}
LINE = 1 << 16


class Entry(Struct, frozen=True, kw_only=True):
    """Something a log tells of."""

    at: str
    what: str
    message_id: str
    party: str = ""
    action: str = ""


class Told(Struct, frozen=True, kw_only=True):
    """What the logs tell: entries, oldest first; lines read, lines that are no JSON, lines that got lost."""

    entries: tuple[Entry, ...]
    lines: int
    unreadable: int
    dropped: int


async def issued(store: Store, since: datetime) -> list[Issued]:
    """Every receipt this store knows of since then, oldest first."""
    found: list[Issued] = []
    while page := await store.receipts(since=since, after=(found[-1].at, found[-1].id) if found else None):
        found += page
    return found


def told(logs: tuple[Path, ...] | list[Path], since: datetime) -> Told:
    """Read the logs. Raises `OSError`."""
    found: dict[tuple[str, str], Entry] = {}
    lines = unreadable = dropped = 0
    cut = since.astimezone(UTC)
    for path in logs:
        for line in _lines(path):
            lines += 1
            try:
                fact = json.loads(line)
                at = datetime.fromisoformat(fact["ts"])
                name = fact["event"]
            except (ValueError, KeyError, TypeError):
                unreadable += 1
                continue
            if at < cut:
                continue
            if name == "log.dropped":
                dropped += int(fact.get("count", 1))
            if name in PROMISES and isinstance(id := fact.get("msg_id"), str):
                what = PROMISES[name][0]
                entry = Entry(at=fact["ts"], what=what, message_id=id, party=str(fact.get("party", "")),
                              action=str(fact.get("action", "")))  # fmt: skip
                earlier = found.get((what, id))
                found[what, id] = entry if earlier is None or entry.at < earlier.at else earlier
    entries = tuple(sorted(found.values(), key=lambda e: (e.at, e.message_id)))
    return Told(entries=entries, lines=lines, unreadable=unreadable, dropped=dropped)


async def lost(store: Store, told_: Told) -> list[Entry]:
    """What the store does not know, oldest first."""
    missing = []
    direction_of = dict(PROMISES.values())
    for entry in told_.entries:
        found = await store.find(entry.message_id, direction=direction_of[entry.what])
        if not any(message.user_message.message_id == entry.message_id for message in found):
            missing.append(entry)
    return missing


def _lines(path: Path) -> Iterator[str]:
    """Lines of a log, plain or gzip. One that is longer than any of ours comes in pieces, which are unreadable."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with gzip.open(raw) if packed else raw as octets:
            text = io.TextIOWrapper(octets, "utf-8", "replace")
            while line := text.readline(LINE):
                if line.strip():
                    yield line
