"""Anchors: the head of the audit chain, signed.

The chain alone shows that a row was changed, but not that somebody with the database changed it and hashed
everything after it anew, nor that the tail is missing. An anchor does: it says "row N has the hash H", signed
with a key that is not in the database. Anchors stand in three places:

- as rows of the chain itself (`audit.anchored`), each right after the row it signs, regularly;
- as the first line of every export;
- wherever the operator keeps them: `gateway audit anchor` prints one, and the log event `audit.anchored` tells
  number and hash of each. Each node keeps what it has seen last in a file, and signs nothing that does not go on
  from there.

What is signed is a row of netstrings that begins with a name no other signature of ours begins with.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from msgspec import Struct

from gateway import log, metrics
from gateway.as4.wss.algorithms import check_signature, public_key_of
from gateway.as4.wss.keys import SigningKey
from gateway.clock import Clock
from gateway.errors import ConfigError, KeyUnavailable, StoreUnavailable
from gateway.keys.keyring import Keyring
from gateway.store.api import AuditEntry, Store
from gateway.store.chain import BEGINNING, Walk, moment_text, netstrings

FORMAT = "oots-as4-gateway audit 1"
ANCHORED = "audit.anchored"
#: Other writers may come between the look at the head and the anchor behind it.
TRIES = 20
#: Lines of a file of anchors; one an hour for ten years.
MAX_ANCHORS = 100_000


class Head(Struct, frozen=True, kw_only=True):
    """Row `number` has the hash `hash`, and what is told of begins after row `after`, whose hash is `previous`.

    Octets are in hexadecimal, certificate (DER) and signature in base64; without a signature both are None.
    """

    format: str
    after: int
    previous: str
    number: int
    hash: str
    at: str
    certificate: str | None = None
    algorithm: str | None = None
    signature: str | None = None

    def statement(self) -> bytes:
        """What is signed."""
        return netstrings(self.format, str(self.after), self.previous, str(self.number), self.hash, self.at)


def signer(keyring: Keyring) -> SigningKey:
    """The key that signs anchors: the first that signs messages. Raises `KeyUnavailable`."""
    for _, use, key in keyring.every():
        if use == "sign":
            return key
    raise KeyUnavailable("there is no signing key to sign the audit with")


def head(number: int, hash: bytes, *, at: datetime, after: int = 0, previous: bytes = BEGINNING) -> Head:
    """A head that nobody has signed yet."""
    return Head(
        format=FORMAT, after=after, previous=previous.hex(), number=number, hash=hash.hex(), at=moment_text(at)
    )


def signed(unsigned: Head, key: SigningKey) -> Head:
    """The head with the signature of `key`."""
    return msgspec.structs.replace(
        unsigned, certificate=base64.b64encode(key.certificate).decode(), algorithm=key.algorithm,
        signature=base64.b64encode(key.sign(unsigned.statement())).decode(),
    )  # fmt: skip


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a certificate, in hexadecimal."""
    return hashlib.sha256(certificate).hexdigest()


def verify(found: Head, known: Mapping[str, bytes]) -> str:
    """The fingerprint of the certificate, one of `known` (by fingerprint), that has signed `found`.

    Raises `ValueError` that says why nobody of them has.
    """
    if found.signature is None or found.algorithm is None or found.certificate is None:
        raise ValueError("it is not signed")
    certificate = octets(found.certificate)
    if (name := fingerprint(certificate)) not in known:
        raise ValueError(f"it is signed with the certificate {name}, which is none of those to believe")
    check(found.statement(), found.algorithm, octets(found.signature), certificate)
    return name


def check(statement: bytes, algorithm: str, signature: bytes, certificate: bytes) -> None:
    """Raises `ValueError` when `certificate` has not signed `statement`."""
    try:
        check_signature(algorithm, public_key_of(certificate), signature, statement)
    except InvalidSignature:
        raise ValueError("its signature is wrong") from None


def octets(text: str) -> bytes:
    """Base64 as we write it, and no other spelling of the same. Raises `ValueError`."""
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error:
        found = b""
    if not found or base64.b64encode(found).decode() != text:
        raise ValueError("it is not base64")
    return found


# -- in the chain ---------------------------------------------------------------------


async def anchor(store: Store, key: SigningKey, *, actor: str, now: datetime, idle: bool = False) -> Head | None:
    """Sign the head of the chain and append that to it. None when there is nothing to sign.

    `idle`: also when nothing was written since the last anchor. Raises `StoreUnavailable`.
    """
    for _ in range(TRIES):
        number, hash = await store.audit_head()
        if number == 0:
            return None
        if not idle and [link.kind for link in await store.audit_links(after=number - 1, limit=1)] == [ANCHORED]:
            return None
        made = signed(head(number, hash, at=now), key)
        name = fingerprint(key.certificate)
        detail = {
            "number": number, "hash": made.hash, "at": made.at, "algorithm": made.algorithm,
            "certificate_sha256": name, "signature": made.signature,
        }  # fmt: skip
        entry = AuditEntry(kind=ANCHORED, actor=actor, subject=f"row {number}", detail=detail)
        if await store.audit_next(entry, number=number, hash=hash):
            log.event("audit.anchored", number=number, hash=made.hash, at=made.at, certificate_sha256=name)
            return made
    raise StoreUnavailable("the audit grows faster than it can be anchored")


async def keep_anchored(
    store: Store, key: Callable[[], SigningKey], clock: Clock, kept: "Kept", *, node: str, every: float
) -> None:
    """Anchor the chain every so many seconds, for ever; 0: never. Run by one process of each node."""
    while every > 0:
        await clock.sleep(every)
        try:
            await anchor_on(store, key, kept, node=node, now=clock.now())
        except StoreUnavailable as error:
            log.event("store.unavailable", level="error", reason=str(error))
        except KeyUnavailable as error:
            log.event("key.unavailable", level="error", reason=str(error))
        except (ConfigError, OSError) as error:
            log.event("audit.broken", level="error", reason=f"the anchor that this node keeps: {error}")


async def anchor_on(
    store: Store, key: Callable[[], SigningKey], kept: "Kept", *, node: str, now: datetime
) -> Head | None:
    """Anchor the chain if it goes on from what this node has seen of it; what does not is told and never signed.

    Raises `StoreUnavailable`, `KeyUnavailable`, and `ConfigError`, `OSError` for what is kept."""
    why = await departs(store, kept.read())
    metrics.audit_broken("seen", why is not None)
    if why is not None:
        log.event("audit.broken", level="error", reason=why)
        return None
    made = await anchor(store, key(), actor=node, now=now)
    number, hash = await store.audit_head()
    kept.write(head(number, hash, at=now))
    return made


async def departs(store: Store, seen: "Anchor | None") -> str | None:
    """How the chain is not one that goes on from what was `seen` of it; None when it is."""
    if seen is None:
        return None
    number, hash = await store.audit_head()
    there = await store.audit_links(after=seen.number - 1, limit=1)
    if number < seen.number or [(link.number, link.hash.hex()) for link in there] != [(seen.number, seen.hash)]:
        return f"row {seen.number}, which was there at {seen.at}, is missing or another one"
    walk = Walk(seen.number, there[0].hash)
    while walk.number < number:
        # Some hundred at a time: hashing them holds up the loop for milliseconds.
        links = await store.audit_links(after=walk.number, limit=min(200, number - walk.number))
        for link in links:
            if (why := walk.step(link)) is not None:
                return f"row {walk.number + 1}: {why}"
        if not links:
            return f"row {walk.number + 1} is missing"
    return None if walk.hash == hash else f"the head names another hash of row {number}"


class Kept:
    """What this node has seen of the chain, in a file of its own: who changes the database does not change it.

    Without it the node would sign, an hour later, whatever somebody had made of the chain.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "audit-anchor.json"

    def read(self) -> "Anchor | None":
        """Raises `ConfigError` for a file that is not one of ours, `OSError`."""
        try:
            octets = self.file.read_bytes()
        except FileNotFoundError:
            return None
        found = read_anchors([octets], {})
        if len(found) != 1:
            raise ConfigError("holds no anchor", file=str(self.file), hint="know why, then remove it")
        return next(iter(found.values()))

    def write(self, seen: Head) -> None:
        """The file is there as a whole, the old one or the new one."""
        if seen.number == 0:
            return
        new = self.file.with_suffix(".new")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(seen) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.file)


# -- kept elsewhere ---------------------------------------------------------------------


class Anchor(Struct, frozen=True):
    """What is known from elsewhere of one row: its hash, and when that was said."""

    number: int
    hash: str
    at: str


def read_anchors(lines: Iterable[bytes], known: Mapping[str, bytes]) -> dict[int, Anchor]:
    """Anchors by the number of their row, from lines of JSON: printed ones, or lines of the log.

    Other lines of a log are passed over. A signature that is there is verified, with its own certificate where
    that is none of `known`: the file is believed because of where it was kept. Raises `ConfigError`.
    """
    found: dict[int, Anchor] = {}
    for place, line in enumerate(lines, 1):
        if len(found) > MAX_ANCHORS:
            raise ConfigError(f"more than {MAX_ANCHORS} anchors", key=f"line {place}")
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line)
            if not isinstance(row, dict) or row.get("event", ANCHORED) != ANCHORED or "hash" not in row:
                continue
            one = msgspec.convert(row, Anchor)
            if row.get("signature") is not None and "format" in row:
                whole = msgspec.convert(row, Head)
                own = octets(whole.certificate or "")
                verify(whole, {**known, fingerprint(own): own})
        except (msgspec.MsgspecError, ValueError) as error:
            raise ConfigError(f"not an anchor: {error}", key=f"line {place}") from None
        before = found.setdefault(one.number, one)
        if before.hash != one.hash:
            raise ConfigError(f"two anchors differ about row {one.number}", key=f"line {place}")
    return found


def parsed(moment: str) -> datetime:
    """A time in the form of the chain, and in no other. Raises `ValueError`."""
    found = datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    if moment_text(found) != moment:
        raise ValueError("it is not a time as we write them")
    return found
