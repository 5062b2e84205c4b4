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
    row = netstrings(str(number), moment_text(at), kind, actor, subject, detail)
    return hashlib.sha256(previous + row).digest()


def moment_text(at: datetime) -> str:
    """A time as it is hashed: UTC, six digits of fraction. PostgreSQL writes it with `to_char`."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


class Walk:
    """Goes along the chain and remembers nothing but the row before: a million rows cost no memory."""

    def __init__(self, number: int = 0, hash: bytes = BEGINNING) -> None:
        """`number` and `hash` are of the row before the first link."""
        self.number, self.hash = number, hash

    def step(self, link: Link) -> str | None:
        """Go on to `link`, or stay and say what is wrong with what stands in the place after `number`."""
        wanted = self.number + 1
        if link.number != wanted:
            if link.number <= self.number:
                return f"row {link.number} stands here once more"
            return f"row {link.number} stands here: {'a row is' if link.number == wanted + 1 else 'rows are'} missing"
        if link.hash != hash_of(self.hash, link.number, link.at, link.kind, link.actor, link.subject, link.detail):
            return "its hash is not that of its content and the row before"
        self.number, self.hash = link.number, link.hash
        return None


def first_misfit(links: Iterable[Link], *, number: int = 0, hash: bytes = BEGINNING) -> tuple[int | None, int, bytes]:
    """(number of the first row that does not fit or None, last number, last hash).

    `number` and `hash` are of the row before the first link. A missing row is a misfit of
    the number that is missing.
    """
    walk = Walk(number, hash)
    for link in links:
        if walk.step(link) is not None:
            return walk.number + 1, walk.number, walk.hash
    return None, walk.number, walk.hash


def netstrings(*texts: str) -> bytes:
    """Texts with their lengths before them: no two rows of texts give the same octets."""
    return b"".join(b"%d:%b," % (len(octets), octets) for octets in map(str.encode, texts))
