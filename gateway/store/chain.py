"""How the audit is chained: each row's hash covers its own text and the hash before it.

    hash = SHA-256( hash before | netstring(number) netstring(at) netstring(kind)
                    netstring(actor) netstring(subject) netstring(detail) )

A netstring has its length before it, so no two rows have one canonical form. `detail` is
JSON text, hashed as it was written. PostgreSQL computes the same in `append_audit`
(migration 0004); an export can be checked with this file alone.
"""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

#: The hash before the first row.
BEGINNING = hashlib.sha256(b"oots-as4-gateway audit").digest()

_encode = msgspec.json.Encoder(order="deterministic").encode


class Link(NamedTuple):
    """One row of the chain. `detail` is the JSON text."""

    number: int
    at: datetime
    kind: str
    actor: str
    subject: str
    detail: str
    hash: bytes


def row_texts(kind: str, actor: str, subject: str, detail: dict[str, Any]) -> tuple[str, str, str, str]:
    """The texts of a row as they are kept: what a peer sent may stand here, and must not keep the row out."""
    return _plain(kind), _plain(actor), _plain(subject), detail_text(detail)


def detail_text(detail: dict[str, Any]) -> str:
    """The JSON text of a detail, keys in order."""
    try:
        return _encode(detail).decode()
    except UnicodeEncodeError:
        return _encode(_plain(detail)).decode()


def _plain(value: Any) -> Any:
    """Without NUL and halves of surrogate pairs, which no database takes."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def hash_of(previous: bytes, number: int, at: datetime, kind: str, actor: str, subject: str, detail: str) -> bytes:
    """The hash of a row that follows one with the hash `previous`."""
    moment = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    row = b"".join(map(_netstring, (str(number), moment, kind, actor, subject, detail)))
    return hashlib.sha256(previous + row).digest()


def first_misfit(links: Iterable[Link], *, number: int = 0, hash: bytes = BEGINNING) -> tuple[int | None, int, bytes]:
    """(number of the first row that does not fit or None, last number, last hash).

    `number` and `hash` are of the row before the first link. A missing row is a misfit of
    the number that is missing.
    """
    for link in links:
        expected = hash_of(hash, number + 1, link.at, link.kind, link.actor, link.subject, link.detail)
        if link.number != number + 1 or link.hash != expected:
            return number + 1, number, hash
        number, hash = link.number, link.hash
    return None, number, hash


def _netstring(text: str) -> bytes:
    octets = text.encode()
    return b"%d:%b," % (len(octets), octets)
