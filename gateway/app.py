"""The composition root: configuration in, a wired gateway out. Nothing else constructs rooms.

`build` makes what one worker process runs. The loaders beside it are used by the command
line as well, so that `gateway doctor` judges what `gateway run` would load.
"""

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path

import msgspec

from gateway import log, metrics, plugin, traces
from gateway.as4.pmode import PModeSet
from gateway.as4.profiles import PROFILES
from gateway.backends.domibus_ws import DomibusWsBackend
from gateway.backends.filesystem import FilesystemBackend
from gateway.backends.rest import RestBackend
from gateway.backends.soap_push import SoapPushBackend
from gateway.clock import Clock, SystemClock
from gateway.config import Config, Secret
from gateway.errors import ConfigError, GatewayError, KeyUnavailable, StoreUnavailable
from gateway.keys import sealing
from gateway.keys.formats import truststore
from gateway.keys.keyring import Keyring
from gateway.keys.keyring import load_keyring as read_keyring
from gateway.keys.tls import client_context
from gateway.msh.census import keep_count
from gateway.msh.door import Door
from gateway.msh.hold import Holder
from gateway.msh.housekeeping import keep_house
from gateway.msh.partners import Partners, Paths
from gateway.msh.pull import Puller
from gateway.msh.receive import Receiver
from gateway.msh.refusals import Refusals
from gateway.msh.revisions import Revisions
from gateway.msh.rooms import Agreements, Cell, Cpu, Rooms
from gateway.msh.send import Sender
from gateway.msh.signals import Signals
from gateway.msh.spool import SpoolRoom
from gateway.msh.submit import Submitter
from gateway.msh.workers import Workers
from gateway.operate import agreements as agreement_verbs
from gateway.operate.lint import backends_of, findings
from gateway.operate.ping import OneRevision
from gateway.pmodes import toml as pmode_toml
from gateway.pmodes.bundle import Bundle, Files
from gateway.store.api import Store
from gateway.store.memory import MemoryStore
from gateway.transport.client import Client, Timeouts
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
    return pmode_toml.load(config.pmodes, certs=config.certs, read_truststore=truststore)


def load_bundle(config: Config) -> Bundle:
    """The files of the configured folder as a revision would have them. Raises `ConfigError`."""
    return Bundle.collect(config.pmodes, config.certs, truststore)


def base_of(config: Config) -> Path:
    """The folder that references of agreements to secrets start from."""
    return config.pmodes if config.pmodes.is_dir() else config.pmodes.parent


def lint_pmodes(config: Config, *, path: Path | Files | None = None, certs: Path | None = None) -> list:
    """Findings about the configured agreements, or those at `path`, as agreements of this node."""
    return findings(config, path, certs)


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


def database_runs(config: Config) -> bool:
    """Whether this node's private PostgreSQL runs; that of a DSN is not asked."""
    try:
        dsn_of(config)
    except StoreUnavailable:
        return False
    return True


def self_test(config: Config, bundle: Bundle) -> None:
    """What every process does with a revision before it acknowledges it. Raises `GatewayError`."""
    check_usable(pmode_toml.expanded(bundle), load_keyring(config), backends_of(config))


class Gateway:
    """One worker process's gateway: three ASGI applications, claim loops, and its end."""

    def __init__(
        self, rooms: Rooms, *, receiver: Receiver, sender: Sender, holder: Holder, puller: Puller, door: Door,
        workers: Workers, backends: dict[str, plugin.Backend],
    ) -> None:  # fmt: skip
        self._rooms, self._workers, self._backends = rooms, workers, backends
        self.sender, self.holder, self.puller, self.door = sender, holder, puller, door
        self._draining = False
        self._tasks: list[asyncio.Task] = []
        self._ready: tuple[float, bool, list[tuple[str, bool, str]]] = (0.0, False, [])
        self.as4 = As4App(
            receiver,
            paths=rooms.config.as4.paths,
            concurrent=rooms.config.limits.uploads,
            accepting=lambda: not self._draining,
        )
        self.plugin = _by_path(backends)

    async def start(self) -> None:
        """Begin to claim work."""
        first = metrics.place() in ("0", "memory")  # what is done once a node
        if first:
            await self._tell_drift()
        self._workers.start()
        own = {id(backend): backend for backend in self._backends.values()}.values()
        self._tasks = [
            asyncio.create_task(keep_house(self._rooms), name="house"),
            asyncio.create_task(self._rooms.revisions.keep(), name="agreements"),
            *([asyncio.create_task(keep_count(self._rooms), name="census")] if first else []),
            *(asyncio.create_task(backend.run(), name=backend.name) for backend in own),
        ]

    async def _tell_drift(self) -> None:
        """Whoever edits files and restarts is told that this changed nothing."""
        try:
            difference = await agreement_verbs.drift(self._rooms.store, load_bundle(self._rooms.config))
        except GatewayError as error:
            difference = f"the files cannot be read: {error}"
        if difference is not None:
            log.event("agreements.drift", level="warning", reason=difference)

    async def drain(self) -> None:
        """Not ready any more, nothing new claimed; what runs may finish."""
        self._draining = True
        self._ready = (0.0, False, [])
        self.door.drain()
        await self._workers.drain(DRAIN_DEADLINE)

    async def close(self) -> None:
        self.door.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._rooms.revisions.leave()
        await self._rooms.client.close()
        self._rooms.cpu.close()
        await self._rooms.store.close()
        if self._rooms.config.traces.endpoint is not None:
            await asyncio.to_thread(traces.end)  # what waits is sent

    async def reload(self) -> None:
        """Read keys and agreements again. On any error the old ones stay and the error is raised.

        Files that say something new become a revision, for every process of every node; files that
        say what was in force once do not: going back is asked for by name.
        """
        rooms = self._rooms
        keyring = load_keyring(rooms.config)
        check_usable(rooms.agreements.value.pmodes, keyring, self._backends)
        rooms.keyring.value = keyring
        rooms.client.refresh()
        await agreement_verbs.follow(
            rooms.store, load_bundle(rooms.config), rooms.revisions,
            author=f"{rooms.node} (reload)", lint=lambda files: lint_pmodes(rooms.config, path=files),
        )  # fmt: skip

    async def ready(self) -> tuple[bool, list[tuple[str, bool, str]]]:
        """Can this process take messages: (verdict, [(check, ok, text)])."""
        at, verdict, checks = self._ready
        if time.monotonic() - at < READY_CACHE and not self._draining:
            return verdict, checks
        checks = [("draining", not self._draining, "draining" if self._draining else "taking work")]
        checks.append(await self._check_store())
        checks.append(self._check_keys())
        checks.append(self._check_agreements())
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


    def _check_agreements(self) -> tuple[str, bool, str]:
        """A process that cannot serve the active revision takes no messages under the one before."""
        revisions = self._rooms.revisions
        return "agreements", revisions.trouble is None, revisions.trouble or f"revision {revisions.number}"


def _finder(client: Client, paths: Paths, clock: SystemClock, config: Config, cpu: Cpu):
    """What looks partners up. DNS and XML-DSig are loaded where somebody is looked up, and nowhere else."""
    from gateway.transport.discovery.finder import Finder

    return Finder(client, paths.publisher, clock, config.discovery, run=cpu.run)


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


def check_usable(pmodes: PModeSet, keyring: Keyring, backends: Collection[str]) -> None:
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
                keyring.signing_key(party.party_id, PROFILES[name]).sign(b"agreements")
            except KeyUnavailable as error:
                raise ConfigError(
                    f"{party.name} has no key for profile {name}: {error}", key="keys.store",
                    hint="add a key store with a fitting private key; `gateway certs show FILE` says what a file holds",
                ) from None  # fmt: skip


#: The doors where producers and consumers come to us; one of each, for all backends.
DOORS: dict[str, Callable[..., plugin.Backend]] = {"rest": RestBackend, "domibus_ws": DomibusWsBackend}
#: What we go to; each has a name and options of its own.
PUSHING: dict[str, Callable[..., plugin.Backend]] = {
    "filesystem": FilesystemBackend, "soap_push": SoapPushBackend,
}  # fmt: skip


def _backends(config: Config, door: Door) -> dict[str, plugin.Backend]:
    """Every backend by name. Raises `ConfigError`.

    `[backends.NAME]` says its `kind`; a table with the name of a door has the door's options. A
    backend of the kind of a door is a queue of its own, whose clients come to that door.
    """
    made: dict[str, plugin.Backend] = {}
    for name in [*DOORS, *(name for name in config.backends if name not in DOORS)]:
        options = _with_password(config.backends.get(name, {}), name)
        kind = name if name in DOORS else options.get("kind")
        try:
            if name in DOORS:
                made[name] = DOORS[name](door, options)
            elif kind in DOORS and set(options) == {"kind"}:
                made[name] = made[kind]
            elif kind in PUSHING:
                made[name] = PUSHING[kind](door, options, name=name)
            else:
                hint = f"kind is one of {', '.join((*DOORS, *PUSHING))}; options of a door stand in its own table"
                raise ConfigError("is not the description of a backend", key=f"backends.{name}", hint=hint)
        except msgspec.ValidationError as error:
            raise ConfigError(str(error), key=f"backends.{name}") from None
    return made


def _with_password(options: dict, name: str) -> dict:
    """The options with the password that a reference names. Raises `ConfigError`."""
    if "password" not in options:
        return options
    try:
        return options | {"password": Secret.parse(options["password"], Path.cwd()).line().decode()}
    except (ValueError, OSError) as error:
        raise ConfigError(str(error), key=f"backends.{name}.password") from None


def _by_path(backends: dict[str, plugin.Backend]) -> Callable[..., Awaitable[None]]:
    """One ASGI application for the plugin listener: SOAP under /services, all else REST."""
    rest, soap = backends["rest"].asgi, backends["domibus_ws"].asgi

    async def door(scope: dict, receive, send) -> None:
        path = scope.get("path", "")
        await (soap if path.startswith(("/services/", "/domibus/services/")) else rest)(scope, receive, send)

    return door


async def build(
    config: Config, *, store: Store | None = None, open_store: Callable[[Config], Awaitable[Store]] = open_store,
    clock: Clock | None = None, client: Client | None = None,
) -> Gateway:  # fmt: skip
    """Wire one worker process's gateway. Raises `ConfigError`, `StoreUnavailable`."""
    if config.traces.endpoint is not None:
        traces.begin(config.traces.endpoint, config.node.name, log.message_id.get)
    keyring = load_keyring(config)
    egress = EgressPolicy(allow_networks=config.egress.allow_networks)
    clock, cpu = clock or SystemClock(), Cpu(config.workers.threads)
    store = store or await open_store(config)
    agreements, keys = Cell(Agreements(PModeSet())), Cell(keyring)
    revisions = Revisions(
        store, agreements, keys, cpu,
        test=lambda found, keyring: check_usable(found.pmodes, keyring, backends_of(config)),
        read_keyring=partial(load_keyring, config), base=base_of(config), node=config.node.name, place=metrics.place(),
    )  # fmt: skip
    client = client or Client(egress, tls=partial(_partner_tls, config))
    paths = Paths(config.trust, clock)
    rooms = Rooms(
        config=config,
        store=store,
        agreements=agreements,
        revisions=revisions,
        keyring=keys,
        kek=load_kek(config),
        client=client,
        clock=clock,
        cpu=cpu,
        node=config.node.name,
        paths=paths,
        partners=Partners(
            partial(_finder, client, paths, clock, config, cpu), paths, store, config.node.name
        ),
    )
    spool = Path(config.data.folder) / "spool"
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    spools = SpoolRoom(
        spool, total=4 * config.limits.message, per_partner=2 * config.limits.message
    )
    sender = Sender(rooms)
    holder = Holder(rooms, sender)
    receiver = Receiver(rooms, Signals(rooms), holder, Refusals(store, clock), spools)
    puller = Puller(rooms, receiver)
    door = Door(rooms, Submitter(rooms), egress, spools)
    backends = _backends(config, door)
    await revisions.begin(partial(load_bundle, config))
    workers = Workers(rooms, sender, holder, puller, backends)
    return Gateway(
        rooms, receiver=receiver, sender=sender, holder=holder, puller=puller, door=door, workers=workers,
        backends=backends,
    )  # fmt: skip


def trial(config: Config, pmodes: PModeSet, *, timeouts: Timeouts) -> Rooms:
    """What it takes to send a message beside the running node, as the node would. Raises `ConfigError`.

    Keys, agreements, TLS and egress are the node's; the store and what seals it live in memory. Nothing is
    written anywhere, and no running process hears of it.
    """
    kek = sealing.KeyEncryptionKey(os.urandom(sealing.KEY_SIZE))
    return _aside(config, pmodes, MemoryStore(SystemClock()), kek, timeouts)


async def door_aside(config: Config, store: Store) -> Door:
    """What clients see, for a command on this machine. It claims nothing, and is not asked about revisions.
    Raises `ConfigError`, `StoreUnavailable`."""
    revision = await store.active_agreements()
    if revision is None or revision.content is None:
        pmodes = load_pmodes(config)
    else:
        bundle = Bundle.decode(revision.content, base=base_of(config), label=f"revision {revision.number}")
        pmodes = pmode_toml.expanded(bundle, revision=revision.number)
    rooms = _aside(config, pmodes, store, load_kek(config), Timeouts())
    most = config.limits.message
    spools = SpoolRoom(Path(config.data.folder) / "spool", total=most, per_partner=most)
    return Door(rooms, Submitter(rooms), EgressPolicy(allow_networks=config.egress.allow_networks), spools)


def _aside(config: Config, pmodes: PModeSet, store: Store, kek: sealing.KeyEncryptionKey, timeouts: Timeouts) -> Rooms:
    """Rooms of a process that is no node: one set of agreements, nothing that runs."""
    agreements, clock, cpu = Cell(Agreements(pmodes)), SystemClock(), Cpu(1)
    client = Client(
        EgressPolicy(allow_networks=config.egress.allow_networks), tls=partial(_partner_tls, config), timeouts=timeouts
    )
    paths = Paths(config.trust, clock)
    finder = partial(_finder, client, paths, clock, config, cpu)
    return Rooms(
        config=config,
        store=store,
        agreements=agreements,
        revisions=OneRevision(agreements.value),
        keyring=Cell(load_keyring(config)),
        kek=kek,
        client=client,
        clock=clock,
        cpu=cpu,
        node=config.node.name,
        paths=paths,
        partners=Partners(finder, paths, store, config.node.name),
    )


__all__ = [
    "Gateway",
    "StoreUnavailable",
    "build",
    "database_runs",
    "door_aside",
    "dsn_of",
    "lint_pmodes",
    "load_bundle",
    "load_config",
    "load_kek",
    "load_keyring",
    "load_pmodes",
    "log",
    "metrics",
    "open_store",
    "self_test",
    "trial",
]  # fmt: skip
