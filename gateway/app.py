"""The composition root: configuration in, a wired gateway out. Nothing else constructs rooms.

`build` makes what one worker process runs. The loaders beside it are used by the command
line as well, so that `gateway doctor` judges what `gateway run` would load.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec

from gateway import log, metrics, plugin
from gateway.as4.pmode import PModeSet
from gateway.as4.profiles import PROFILES
from gateway.backends.rest import RestBackend
from gateway.clock import SystemClock
from gateway.config import Config
from gateway.errors import ConfigError, GatewayError, KeyUnavailable, StoreUnavailable
from gateway.keys import sealing
from gateway.keys.keyring import Keyring
from gateway.keys.keyring import load_keyring as read_keyring
from gateway.keys.tls import client_context
from gateway.keys.trust import check_certificate
from gateway.msh.door import Door
from gateway.msh.housekeeping import keep_house
from gateway.msh.receive import Receiver
from gateway.msh.refusals import Refusals
from gateway.msh.rooms import Agreements, Cell, Cpu, Rooms
from gateway.msh.send import Sender
from gateway.msh.signals import Signals
from gateway.msh.spool import SpoolRoom
from gateway.msh.submit import Submitter
from gateway.msh.workers import Workers
from gateway.pmodes import lint as pmode_lint
from gateway.pmodes import toml as pmode_toml
from gateway.store.api import Store
from gateway.transport.client import Client
from gateway.transport.egress import EgressPolicy
from gateway.web.as4 import As4App

#: A health answer is good for this long [reliability 5.7].
READY_CACHE = 1.0
#: Waiting for running work when a process drains.
DRAIN_DEADLINE = 30.0


def load_config(path: Path | None) -> Config:
    """The configuration, or the defaults. Raises `ConfigError`."""
    return Config.load(path)


def load_pmodes(config: Config) -> PModeSet:
    """All agreements of the configured folder. Raises `ConfigError`."""
    return pmode_toml.load(config.pmodes, certs=config.certs)


def lint_pmodes(config: Config) -> list:
    """Findings about the agreements."""
    judge = partial(check_certificate, allow=config.trust)
    return pmode_lint.lint(config.pmodes, certs=config.certs, check_certificate=judge)


def load_keyring(config: Config) -> Keyring:
    """Our private keys. Raises `ConfigError`, `CertificateRefused`."""
    return read_keyring(config.keys.store)


def load_kek(config: Config) -> sealing.KeyEncryptionKey:
    """The key-encryption key; made in the data folder at the first start of a node with its own database."""
    return sealing.load(config)


async def open_store(config: Config) -> Store:
    """The message store. Raises `StoreUnavailable`, `ConfigError`."""
    from gateway.store.postgres import PostgresStore

    return await PostgresStore.open(dsn_of(config), pool_size=config.store.pool_size)


async def migrate(config: Config) -> list[str]:
    """Bring the schema up to date; the names of the migrations that were run."""
    from gateway.store.postgres.migrate import migrate as run

    return await run(dsn_of(config))


def dsn_of(config: Config) -> str:
    """The configured DSN, or that of this node's private PostgreSQL while it runs."""
    if config.store.dsn is not None:
        return config.store.dsn.read()
    from gateway.store.embedded import running_dsn

    return running_dsn(Path(config.data.folder) / "postgres")


class Gateway:
    """One worker process's gateway: three ASGI applications, claim loops, and its end."""

    def __init__(
        self, rooms: Rooms, *, receiver: Receiver, sender: Sender, door: Door, workers: Workers,
        backends: dict[str, plugin.Backend],
    ) -> None:  # fmt: skip
        self._rooms, self._workers, self._backends = rooms, workers, backends
        self.sender, self.door = sender, door
        self._draining = False
        self._house: asyncio.Task | None = None
        self._ready: tuple[float, bool, list[tuple[str, bool, str]]] = (0.0, False, [])
        self.as4 = As4App(
            receiver,
            paths=rooms.config.as4.paths,
            concurrent=rooms.config.limits.uploads,
            accepting=lambda: not self._draining,
        )
        self.plugin = backends["rest"].asgi

    async def start(self) -> None:
        """Begin to claim work."""
        self._workers.start()
        self._house = asyncio.create_task(keep_house(self._rooms))

    async def drain(self) -> None:
        """Not ready any more, nothing new claimed; what runs may finish."""
        self._draining = True
        self._ready = (0.0, False, [])
        await self._workers.drain(DRAIN_DEADLINE)

    async def close(self) -> None:
        if self._house is not None:
            self._house.cancel()
            await asyncio.gather(self._house, return_exceptions=True)
        await self._rooms.client.close()
        self._rooms.cpu.close()
        await self._rooms.store.close()

    async def reload(self) -> None:
        """Read agreements and keys again. On any error the old ones stay and the error is raised."""
        pmodes, keyring = load_pmodes(self._rooms.config), load_keyring(self._rooms.config)
        check_usable(pmodes, keyring, self._backends)
        pmodes = msgspec.structs.replace(pmodes, revision=self._rooms.agreements.value.pmodes.revision + 1)
        self._rooms.agreements.value = Agreements(pmodes)
        self._rooms.keyring.value = keyring
        self._rooms.client.refresh()

    async def ready(self) -> tuple[bool, list[tuple[str, bool, str]]]:
        """Can this process take messages: (verdict, [(check, ok, text)])."""
        at, verdict, checks = self._ready
        if time.monotonic() - at < READY_CACHE and not self._draining:
            return verdict, checks
        checks = [("draining", not self._draining, "draining" if self._draining else "taking work")]
        checks.append(await self._check_store())
        checks.append(self._check_keys())
        verdict = all(ok for _, ok, _ in checks)
        self._ready = (time.monotonic(), verdict, checks)
        return verdict, checks

    async def _check_store(self) -> tuple[str, bool, str]:
        try:
            async with asyncio.timeout(2):
                health = await self._rooms.store.health()
        except (GatewayError, TimeoutError) as error:
            return "store", False, str(error) or "no answer within 2 s"
        return "store", health.writable, f"PostgreSQL {health.version}{'' if health.writable else ', read-only'}"

    def _check_keys(self) -> tuple[str, bool, str]:
        pmodes = self._rooms.agreements.value.pmodes
        try:
            for party in pmodes.selves:
                for name in {leg.profile for leg in pmodes.legs if leg.from_party == party}:
                    self._rooms.keyring.value.signing_key(party.party_id, PROFILES[name]).sign(b"ready")
        except KeyUnavailable as error:
            return "keys", False, str(error)
        return "keys", True, "signing works"


def _partner_tls(config: Config, _partner: str, ca: bytes | None) -> ssl.SSLContext:
    """The context for one partner. One each: a shared one would leak trust between partners."""
    tls = config.as4.client_tls
    return client_context(
        ca,
        certificate=tls.certificate,
        key=tls.key,
        password=tls.password,
        minimum_version=tls.minimum_version,
        ciphers=tls.ciphers,
    )


def check_usable(pmodes: PModeSet, keyring: Keyring, backends: dict[str, plugin.Backend]) -> None:
    """The agreements can be served: keys for our parties, a backend for every leg. Raises `ConfigError`."""
    for leg in pmodes.legs:
        if pmodes.is_self(leg.to_party.party_id) and leg.backend not in backends:
            raise ConfigError(
                f"there is no backend {leg.backend!r}", key=f"{leg.pmode_id}: backend",
                hint="the backends are " + ", ".join(sorted(backends)),
            )  # fmt: skip
    for party in pmodes.selves:
        for name in sorted({leg.profile for leg in pmodes.legs if party in (leg.from_party, leg.to_party)}):
            try:
                keyring.signing_key(party.party_id, PROFILES[name])
            except KeyUnavailable as error:
                raise ConfigError(
                    f"{party.name} has no key for profile {name}: {error}", key="keys.store",
                    hint="add a key store with a fitting private key; `gateway certs show FILE` says what a file holds",
                ) from None  # fmt: skip


async def build(
    config: Config, *, store: Store | None = None, open_store: Callable[[Config], Awaitable[Store]] = open_store
) -> Gateway:
    """Wire one worker process's gateway. Raises `ConfigError`, `StoreUnavailable`."""
    pmodes, keyring = load_pmodes(config), load_keyring(config)
    egress = EgressPolicy(allow_networks=config.egress.allow_networks)
    clock, cpu = SystemClock(), Cpu(config.workers.threads)
    store = store or await open_store(config)
    rooms = Rooms(
        config=config,
        store=store,
        agreements=Cell(Agreements(pmodes)),
        keyring=Cell(keyring),
        kek=load_kek(config),
        client=Client(egress, tls=partial(_partner_tls, config)),
        clock=clock,
        cpu=cpu,
        node=config.node.name,
    )
    spool = Path(config.data.folder) / "spool"
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    spools = SpoolRoom(
        spool, total=4 * config.limits.message, per_partner=2 * config.limits.message
    )
    receiver = Receiver(rooms, Signals(rooms), Refusals(store, clock), spools)
    door = Door(rooms, Submitter(rooms), egress)
    try:
        backends: dict[str, plugin.Backend] = {"rest": RestBackend(door, {})}
    except msgspec.ValidationError as error:
        raise ConfigError(str(error), key="backends.rest") from None
    check_usable(pmodes, keyring, backends)
    sender = Sender(rooms)
    workers = Workers(rooms, sender, backends)
    return Gateway(rooms, receiver=receiver, sender=sender, door=door, workers=workers, backends=backends)


__all__ = [
    "Gateway",
    "StoreUnavailable",
    "build",
    "dsn_of",
    "lint_pmodes",
    "load_config",
    "load_kek",
    "load_keyring",
    "load_pmodes",
    "log",
    "metrics",
    "open_store",
]  # fmt: skip
