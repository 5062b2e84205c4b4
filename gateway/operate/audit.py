"""The audit as an operator uses it: export it, and prove that nobody has changed it.

An export is lines of JSON: the head of the chain, signed (`anchors.Head`), then the rows up to it, as they are
hashed. It is checked without the database, line by line, so that a million rows take no memory; and octet by octet:
a line that says the same in another spelling is a changed line. The database itself is checked by the same rules.

What no check of the chain alone can find, a tail that is missing together with its head, is found by an anchor that
was kept elsewhere.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime

import msgspec
from msgspec import Raw, Struct

from gateway.errors import NotFound
from gateway.keys.keyring import Keyring
from gateway.operate import anchors
from gateway.operate.anchors import ANCHORED, Anchor, Head, parsed
from gateway.store.api import Store
from gateway.store.chain import BEGINNING, Link, Walk, moment_text, netstrings

PAGE = 1000
#: A row is some hundred octets; what a peer sent is bounded before it gets there.
MAX_LINE = 1 << 20

_encode = msgspec.json.Encoder().encode


class Row(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of the chain as a line of an export. `detail` is JSON text as it was hashed."""

    number: int
    at: str
    kind: str
    actor: str
    subject: str
    detail: Raw
    hash: str


_row = msgspec.json.Decoder(Row).decode
_head = msgspec.json.Decoder(Head).decode


class Verdict(Struct, frozen=True, kw_only=True):
    """What a check found. `wrong` is the number of the first row that is not what was written, 0 the head of an
    export; `why` says what is wrong. `anchored`: a signature, or an anchor from elsewhere, vouches for the rows up to
    this one; `signers` are the fingerprints of the certificates, and `believed` says whether they are those to believe.
    """

    intact: bool
    after: int
    number: int
    hash: str
    at: str | None = None
    wrong: int | None = None
    why: str = ""
    anchored: int = 0
    signers: tuple[str, ...] = ()
    believed: bool = False


class _Wrong(Exception):
    """The number of the first wrong row, and why."""


class Examination:
    """One pass over a chain, from after a row to its head."""

    def __init__(
        self, head: Head, *, known: Mapping[str, bytes], pinned: bool, elsewhere: Mapping[int, Anchor] | None = None
    ) -> None:
        """`known` are certificates by fingerprint; `pinned`: no other may have signed the head. `elsewhere` are
        anchors that were kept somewhere else."""
        self._head, self._known, self._pinned = head, dict(known), pinned
        self._elsewhere = elsewhere or {}
        self._walk = Walk(head.after, bytes.fromhex(head.previous))
        self._anchored, self._signers = head.after, []
        self._doubt = self._judge_head()

    def _judge_head(self) -> str | None:
        """What is wrong with the head's signature; said in the end, because a row may tell more."""
        before = self._elsewhere.get(self._head.after)
        if before is not None and before.hash != self._head.previous:
            return f"an anchor that was kept elsewhere says another hash of row {self._head.after}"
        if self._head.signature is None and not self._pinned:
            return None
        try:
            known = self._known
            if not self._pinned:  # with its own: then it is known that it was not changed since, but not who said it
                own = anchors.octets(self._head.certificate or "")
                known = {**known, anchors.fingerprint(own): own}
            self._signers.append(anchors.verify(self._head, known))
        except ValueError as error:
            return str(error)
        return None

    def row(self, link: Link) -> None:
        """The next row. Raises `_Wrong`."""
        if link.number > self._head.number:
            raise _Wrong(self._walk.number + 1, f"rows stand after row {self._head.number}, the last there is")
        previous = self._walk.hash
        if (why := self._walk.step(link)) is not None:
            raise _Wrong(self._walk.number + 1, why)
        if link.kind == ANCHORED:
            self._anchor_row(link, previous)
        if (one := self._elsewhere.get(link.number)) is not None:
            self._compare(one.number, one.hash, link.hash.hex(), "the anchor that was kept elsewhere")
            self._anchored = link.number

    def _anchor_row(self, link: Link, previous: bytes) -> None:
        """An anchor in the chain vouches for the row before it."""
        try:
            said = msgspec.json.decode(link.detail)
            number, hash, at = int(said["number"]), str(said["hash"]), str(said["at"])
            name, algorithm = str(said["certificate_sha256"]), str(said["algorithm"])
            signature = anchors.octets(str(said["signature"]))
        except (msgspec.MsgspecError, ValueError, KeyError, TypeError):
            raise _Wrong(link.number, "it is no anchor although it calls itself one") from None
        self._compare(number, hash, previous.hex(), f"the anchor in row {link.number}", wanted=link.number - 1)
        if (certificate := self._known.get(name)) is None:
            return  # somebody's we do not know; the chain goes on, and a later one may be known
        statement = netstrings(anchors.FORMAT, "0", BEGINNING.hex(), str(number), hash, at)
        try:
            anchors.check(statement, algorithm, signature, certificate)
        except ValueError as error:
            raise self._rewritten(f"the anchor in row {link.number}: {error}") from None
        self._anchored = number
        if name not in self._signers:
            self._signers.append(name)

    def _compare(self, number: int, hash: str, found: str, what: str, wanted: int | None = None) -> None:
        if hash != found or (wanted is not None and number != wanted):
            raise self._rewritten(f"{what} says another hash of row {number}")

    def _rewritten(self, why: str) -> _Wrong:
        """The chain fits, so it was hashed anew from some row on, after the last that is vouched for."""
        return _Wrong(self._anchored + 1, f"from here on, or a little later, the chain was written anew: {why}")

    def end(self) -> None:
        """There are no more rows. Raises `_Wrong`."""
        last, head = self._walk.number, self._head
        if last < head.number:
            raise _Wrong(last + 1, f"the rows from here to {head.number}, the last there is, are missing")
        if self._walk.hash.hex() != head.hash:
            raise self._rewritten(f"the head names another hash of row {head.number}")
        if self._doubt is not None:
            raise _Wrong(self._anchored + 1 if self._anchored > head.after else 0, f"the head: {self._doubt}")
        beyond = [one for number, one in self._elsewhere.items() if number > last and one.at <= head.at]
        if beyond:
            raise _Wrong(last + 1, f"an anchor that was kept elsewhere names row {min(b.number for b in beyond)}")
        if self._head.signature is not None:
            self._anchored = last

    def verdict(self, wrong: _Wrong | None = None) -> Verdict:
        """What was found; `wrong` is what ended it."""
        number, why = wrong.args if wrong is not None else (None, "")
        known = [name for name in self._signers if name in self._known]
        return Verdict(
            intact=wrong is None, after=self._head.after, number=self._walk.number, hash=self._walk.hash.hex(),
            at=self._head.at, wrong=number, why=why, anchored=self._anchored, signers=tuple(self._signers),
            believed=bool(self._signers) and len(known) == len(self._signers),
        )  # fmt: skip


# -- an export ----------------------------------------------------------------------------


def line(link: Link) -> bytes:
    """A row as a line, its end included."""
    # Detail is an object on one line, as we write it; whatever else is in the database travels as a text.
    plain = link.detail.startswith("{") and "\n" not in link.detail
    return _encode(Row(
        number=link.number, at=moment_text(link.at), kind=link.kind, actor=link.actor, subject=link.subject,
        detail=Raw(link.detail.encode() if plain else _encode(link.detail)), hash=link.hash.hex(),
    )) + b"\n"  # fmt: skip


def head_line(head: Head) -> bytes:
    """The first line of an export, or an anchor to be kept."""
    return _encode(head) + b"\n"


async def export(store: Store, keyring: Keyring | None, *, now: datetime, after: int = 0) -> AsyncIterator[bytes]:
    """The lines of an export of the rows after number `after`; without a keyring the head is not signed.

    Raises `NotFound` for an `after` beyond the chain, `KeyUnavailable`, `StoreUnavailable`.
    """
    number, hash = await store.audit_head()
    previous = BEGINNING
    if after:
        before = await store.audit_links(after=after - 1, limit=1)
        if not before or before[0].number != after or after > number:
            raise NotFound(f"there is no row {after}; the last one is {number}")
        previous = before[0].hash
    made = anchors.head(number, hash, at=now, after=after, previous=previous)
    yield head_line(made if keyring is None else anchors.signed(made, anchors.signer(keyring)))
    while after < number and (links := await store.audit_links(after=after, limit=PAGE)):
        for link in links:
            if link.number > number:
                return
            yield line(link)
            after = link.number


def verify_export(
    lines: Iterable[bytes], *, known: Mapping[str, bytes], elsewhere: Mapping[int, Anchor] | None = None
) -> Verdict:
    """Check an export. With certificates in `known` (by fingerprint) one of them must have signed its head."""
    reader = iter(lines)
    try:
        examination = Examination(
            read_head(next(reader, b"")), known=known, pinned=bool(known), elsewhere=elsewhere
        )
    except ValueError as error:
        why = f"the first line is not the head of an export: {error}"
        return Verdict(intact=False, after=0, number=0, hash="", wrong=0, why=why)
    try:
        for octets in reader:
            try:
                link = read_line(octets)
            except ValueError as error:
                raise _Wrong(examination.verdict().number + 1, f"its line is not one of an export: {error}") from None
            examination.row(link)
        examination.end()
    except _Wrong as wrong:
        return examination.verdict(wrong)
    return examination.verdict()


def read_head(octets: bytes) -> Head:
    """The first line of an export. Raises `ValueError`."""
    found = _canonical(octets, _head)
    if found.format != anchors.FORMAT:
        raise ValueError(f"it is of another format, {found.format[:40]!r}")
    parsed(found.at)
    for hash in (found.previous, found.hash):
        _hash(hash)
    if not 0 <= found.after <= found.number or (found.after == 0 and found.previous != BEGINNING.hex()):
        raise ValueError("its numbers contradict each other")
    return found


def read_line(octets: bytes) -> Link:
    """A row of an export. Raises `ValueError`."""
    row = _canonical(octets, _row)
    text = bytes(row.detail).decode()
    detail = text if text.startswith("{") else msgspec.json.decode(text, type=str)
    link = Link(row.number, parsed(row.at), row.kind, row.actor, row.subject, detail, _hash(row.hash))
    if line(link) != octets:
        raise ValueError("it is not spelled as we write it")
    return link


def _canonical(octets: bytes, decode):
    """The one value whose only spelling is `octets`. Raises `ValueError`."""
    if len(octets) > MAX_LINE:
        raise ValueError(f"it is longer than {MAX_LINE} octets")
    try:
        found = decode(octets)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if _encode(found) + b"\n" != octets:
        raise ValueError("it is not spelled as we write it")
    return found


def _hash(text: str) -> bytes:
    found = bytes.fromhex(text)
    if len(found) != 32 or found.hex() != text:
        raise ValueError("it is not a SHA-256 in hexadecimal")
    return found


# -- the database ---------------------------------------------------------------------------


async def verify_store(
    store: Store, *, known: Mapping[str, bytes], now: datetime, elsewhere: Mapping[int, Anchor] | None = None
) -> Verdict:
    """Check the chain in the database, up to its head at this moment."""
    number, hash = await store.audit_head()
    examination = Examination(anchors.head(number, hash, at=now), known=known, pinned=False, elsewhere=elsewhere)
    try:
        after = 0
        while after < number and (links := await store.audit_links(after=after, limit=min(PAGE, number - after))):
            for link in links:
                examination.row(link)
            after = links[-1].number
        examination.end()
        await _nothing_behind(store)
    except _Wrong as wrong:
        return examination.verdict(wrong)
    return examination.verdict()


async def _nothing_behind(store: Store) -> None:
    """No row stands after the head. One that is appended at this moment moves the head with it."""
    number, _ = await store.audit_head()
    stray = await store.audit_links(after=number, limit=1)
    if stray and (await store.audit_head())[0] < stray[0].number:
        raise _Wrong(stray[0].number, f"it stands after row {number}, the last there is")
