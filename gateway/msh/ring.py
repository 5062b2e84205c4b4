"""The keys of one process: the active ring, over the key files of this node.

A ring is opened key by key: unsealed with the key-encryption key, or found in its token; each is
proven (signs and verifies, unwraps) before this process says that it can serve the ring. Signing keys sign when they
are ACTIVE, or chosen for a partner; decryption keys open in every state of a ring, so that a partner may
encrypt to the next one early and to the last one late.

`[[keys.store]]` is the ring of whoever has no keys in the database. Where there are both, those of the database
go first: a file signs only for a party and algorithm that the ring has no active key for, and always decrypts.

A process that cannot open the active ring and has none before it signs and opens nothing: not with a file either, for
that would be another key than the site agreed on. It is not ready, says why, and leaves its work to
others (`RingUnavailable`).
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from gateway import log, metrics
from gateway.errors import CertificateRefused, KeyUnavailable, RingUnavailable
from gateway.keys import own
from gateway.keys.formats import Entry
from gateway.keys.keyring import Keyring, decryption_key, signing_key
from gateway.keys.sealing import KeyEncryptionKey
from gateway.keys.tls import tls_test
from gateway.msh.following import Following, intact
from gateway.msh.rooms import Cell, Cpu
from gateway.store.agreements import Beat, Revision
from gateway.store.api import Store
from gateway.store.keys import KeyUse, OwnKey, Place, Ring


class Opened(NamedTuple):
    """A ring that was opened and proven."""

    number: int
    keyring: Keyring


class Tokens(Protocol):
    """Where keys in tokens are found: `keys.pkcs11.Tokens`."""

    def key(self, name: str, certificate: bytes, chain: tuple[bytes, ...] = ()) -> object:
        """A key that signs and decrypts, by its name. Raises `KeyUnavailable`."""
        ...


class NoTokens:
    """The tokens of a node that has none."""

    def key(self, name: str, certificate: bytes, chain: tuple[bytes, ...] = ()) -> object:
        raise KeyUnavailable(f"no token is configured here, and {name} is in one ([[keys.tokens]])")


class OwnRing(Following):
    """One a process. `read_files` reads `[[keys.store]]` anew; `tell` is called when partners are to see another
    certificate in TLS."""

    topic = "keys"

    def __init__(
        self, store: Store, cell: Cell[Keyring], kek: KeyEncryptionKey, cpu: Cpu, *,
        read_files: Callable[[], Keyring], tokens: Tokens | None = None, tell: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        super().__init__(store, _nobody)
        self._cell, self._kek, self._cpu, self._tokens = cell, kek, cpu, tokens or NoTokens()
        self.read_files, self._tell = read_files, tell
        self._files, self._opened = cell.value, Opened(0, Keyring({}, {}))
        self._test: Callable[[Keyring], None] = lambda _: None

    def join(self, beat: Callable[[], Beat], test: Callable[[Keyring], None]) -> None:
        """Follow for the process that says `beat`. `test` raises `GatewayError` where the agreements in force
        cannot be served with a keyring."""
        self._beat, self._test = beat, test

    # -- keys and files -----------------------------------------------------------------

    @property
    def number(self) -> int:
        return self._opened.number

    @property
    def kek(self) -> str:
        """The name of the key-encryption key of this process."""
        return self._kek.id.hex()

    @property
    def keyring(self) -> Keyring:
        """What is in force."""
        return self._cell.value

    @property
    def usable(self) -> bool:
        """Whether there are keys to work with: a ring that could be opened, or files where there is no ring."""
        return not isinstance(self.keyring, Unopened)

    def with_files(self, files: Keyring) -> Keyring:
        """What would be in force with these key files."""
        return _over(self._opened, files)

    def take_files(self, files: Keyring) -> None:
        """The key files were read again, and with them perhaps those of TLS."""
        self._files = files
        self._set()
        self._tell()

    def _set(self) -> None:
        before = self.keyring.tls("tls-client")
        if self.trouble is not None and not self._opened.number:
            self._cell.value = Unopened(self.trouble)
        else:
            self._cell.value = _over(self._opened, self._files)
        after = self.keyring.tls("tls-client")
        if (before and before.certificate) != (after and after.certificate):
            self._tell()  # connections to partners are made anew

    # -- following ----------------------------------------------------------------------

    async def load(self, revision: Revision) -> Opened:
        """Open and prove every key, in a thread. Raises `GatewayError`."""
        ring = Ring.decode(intact(revision, self.topic, revision.number))
        keys = await self._store.own_keys()
        opened = Opened(revision.number, await self._cpu.run(open_ring, ring, keys, self._kek, self._tokens))
        await self._cpu.run(self._test, _over(opened, self._files))
        return opened

    def use(self, candidate: Opened) -> None:
        self._opened, self.trouble = candidate, None
        self._set()
        metrics.ring_revision(candidate.number)
        log.event("keys.in_force", ring=candidate.number, keys=repr(candidate.keyring))

    def refuses(self, number: int, why: str) -> None:
        log.event("keys.refused", level="warning", ring=number, reason=why)

    def troubled(self, number: int, why: str) -> None:
        log.event("keys.trouble", level="error", ring=number, reason=why)
        self._set()


class Unopened(Keyring):
    """The keys of a process that cannot open its ring."""

    __slots__ = ("_why",)

    def __init__(self, why: str) -> None:
        super().__init__({}, {})
        self._why = why

    def signing_key(self, *_: object, **__: object) -> object:
        raise RingUnavailable(self._why)

    def decryption_keys(self, *_: object) -> tuple:
        raise RingUnavailable(self._why)


def open_ring(ring: Ring, keys: Iterable[OwnKey], kek: KeyEncryptionKey, tokens: Tokens) -> Keyring:
    """Every key of a ring, opened and proven. Raises `KeyUnavailable` that names the first that cannot be used."""
    keys = {key.id: key for key in keys}
    signing: dict[str | None, list] = {}
    decrypting: dict[str | None, list] = {}
    tls, signers = {}, {}
    # What is ACTIVE is tried first: it is what most messages are for.
    for place in sorted(ring.places, key=lambda place: (place.state != "ACTIVE", place)):
        key = keys.get(place.key)
        if key is None or key.certificate is None:
            raise KeyUnavailable(f"key {place.key} is not there")
        try:
            found = _open(key, place, kek, tokens)
        except (KeyUnavailable, CertificateRefused) as error:
            raise KeyUnavailable(f"key {key.id} ({place.use}, {key.fingerprint[:12]}): {error}") from None
        if place.use == "decrypt":
            decrypting.setdefault(key.party, []).append(found)
        elif place.use == "sign":
            signers[key.id] = found
            if place.state == "ACTIVE":
                signing.setdefault(key.party, []).append(found)
        elif place.state == "ACTIVE":
            tls[place.use] = found
    chosen: dict[tuple[str | None, str], list] = {}
    for choice in ring.choices:
        chosen.setdefault((choice.party or None, choice.partner), []).append(signers[choice.key])
    return Keyring(signing, decrypting, chosen, tls=tls)


def open_one(key: OwnKey, use: KeyUse, kek: KeyEncryptionKey, tokens: Tokens) -> Any:
    """One key, opened for one of its uses and proven. Raises `KeyUnavailable`, `CertificateRefused`."""
    if key.certificate is None:
        raise KeyUnavailable(f"key {key.id} waits for its certificate")
    return _open(key, Place(key.id, use, "STAGED"), kek, tokens)


def _open(key: OwnKey, place: Place, kek: KeyEncryptionKey, tokens: Tokens) -> object:
    if key.token is not None:
        found = tokens.key(key.token, key.certificate, key.chain)
    elif key.sealed is not None:
        private = own.private_key(kek.open_secret(key.sealed, own.seal_name(key.id)))
        entry = Entry(key.id, private, key.certificate, key.chain)
        if place.use.startswith("tls"):
            found = own.TlsKey(private, key.certificate, key.chain)
        else:
            found = signing_key(entry) if place.use == "sign" else decryption_key(entry)
    else:
        raise KeyUnavailable("its private part was destroyed")
    if found is None:
        raise KeyUnavailable("its type or the key usage of its certificate is for something else")
    if place.use == "sign":
        own.prove_signing(found)
    elif place.use == "decrypt":
        own.prove_decryption(found)
    else:
        tls_test(found)
    return found


def _over(opened: Opened, files: Keyring) -> Keyring:
    """The ring over the files; the files alone where there is no ring."""
    return opened.keyring.over(files) if opened.number else files


def _nobody() -> Beat:
    raise RuntimeError("not joined to a process")
