"""The composition root: configuration in, a wired gateway out. Nothing else constructs rooms.

`build` makes what one worker process runs. The loaders beside it are used by the command
line as well, so that `gateway doctor` judges what `gateway run` would load.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import msgspec

from gateway import log, metrics, plugin, traces
from gateway.as4.pmode import PModeSet
from gateway.as4.profiles import PROFILES
from gateway.as4.wss.keys import SigningKey
from gateway.backends.domibus_ws import DomibusWsBackend
from gateway.backends.filesystem import FilesystemBackend
from gateway.backends.rest import RestBackend
from gateway.backends.soap_push import SoapPushBackend
from gateway.backends.webhook import WebhookSender
from gateway.clock import Clock, SystemClock
from gateway.config import Config, Secret
from gateway.errors import ConfigError, GatewayError, KeyUnavailable, StoreUnavailable
from gateway.keys import sealing
from gateway.keys.formats import truststore
from gateway.keys.keyring import Keyring
from gateway.keys.keyring import load_keyring as read_keyring
from gateway.keys.own import TlsKey
from gateway.keys.tls import client_context
from gateway.msh.census import keep_count
from gateway.msh.door import Door
from gateway.msh.duty import Duty
from gateway.msh.health import Health, Verdict
from gateway.msh.hold import Holder
from gateway.msh.housekeeping import keep_house
from gateway.msh.partners import Partners, Paths
from gateway.msh.pull import Puller
from gateway.msh.receive import Receiver
from gateway.msh.refusals import Refusals
from gateway.msh.revisions import Revisions
from gateway.msh.revocations import Revocations
from gateway.msh.ring import NoTokens, OwnRing, Tokens, open_one, open_ring
from gateway.msh.rooms import Agreements, Cell, Cpu, Rooms
from gateway.msh.rotation import Rotation
from gateway.msh.send import Sender
from gateway.msh.sightings import Sightings
from gateway.msh.signals import Signals
from gateway.msh.spool import SpoolRoom
from gateway.msh.submit import Submitter
from gateway.msh.workers import Workers
from gateway.operate import agreements as agreement_verbs
from gateway.operate.alerting import Hook
from gateway.operate.anchors import Kept, keep_anchored
from gateway.operate.anchors import signer as audit_signer
from gateway.operate.lint import backends_of, findings
from gateway.operate.partner_certificates import known_issuers
from gateway.operate.ping import OneRevision
from gateway.operate.plan import bundle_of
from gateway.operate.updates.desk import UpdateDesk
from gateway.operate.updates.staging import Stager
from gateway.operate.updates.work import UpdateWork
from gateway.operate.watch import OwnCertificates, Watch
from gateway.operate.watched import Watched
from gateway.operate.watched import lists as watched_lists
from gateway.operate.watched import ring as watched_ring
from gateway.pmodes import toml as pmode_toml
from gateway.pmodes.bundle import Bundle, Files
from gateway.pmodes.updates import BACKEND as UPDATES
from gateway.store.api import Store
from gateway.store.keys import OwnKey, Ring
from gateway.store.memory import MemoryStore
from gateway.transport.client import Client, Timeouts
from gateway.transport.egress import EgressPolicy
from gateway.web.as4 import As4App

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


def load_tokens(config: Config) -> Tokens:
    """The PKCS#11 tokens of the configuration. The library is loaded where there is one, and nowhere else.

    Raises `ConfigError`.
    """
    if not config.keys.tokens:
        return NoTokens()
    from gateway.keys import pkcs11

    return pkcs11.Tokens(config.keys.tokens)


async def open_store(config: Config) -> Store:
    """The message store. Raises `StoreUnavailable`, `ConfigError`."""
    from gateway.store.postgres import PostgresStore

    return await PostgresStore.open(
        dsn_of(config), pool_size=config.store.pool_size, synchronous=config.store.synchronous
    )


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


async def test_ring(config: Config, store: Store, ring: Ring) -> None:
    """What every process does with a ring before it acknowledges it. Raises `GatewayError`."""
    opened = open_ring(ring, await store.own_keys(), load_kek(config), load_tokens(config))
    active = await store.active_agreements()
    if active is not None:
        pmodes = pmode_toml.expanded(bundle_of(active, base_of(config)))
        check_usable(pmodes, opened.over(load_keyring(config)), backends_of(config))


async def own_keyring(config: Config, store: Store) -> Keyring:
    """The keys that are in force: the active ring over the files. Raises `GatewayError`."""
    files = load_keyring(config)
    if (await store.health()).migrations_pending:
        return files  # an earlier release has none
    active = await store.active_ring()
    if active is None:
        return files
    opened = open_ring(Ring.decode(active.content), await store.own_keys(), load_kek(config), load_tokens(config))
    return opened.over(files)


async def agreed(config: Config, store: Store) -> PModeSet:
    """The agreements in force, or those of the files where there are none yet. Raises `ConfigError`."""
    active = await store.active_agreements()
    return pmode_toml.expanded(bundle_of(active, base_of(config)) if active is not None else load_bundle(config))


def open_signer(config: Config, key: OwnKey) -> SigningKey:
    """A signing key of the database, whatever its state. Raises `KeyUnavailable`."""
    return open_one(key, "sign", load_kek(config), load_tokens(config))


def signs_today(keyring: Keyring, pmodes: PModeSet, like: OwnKey) -> tuple[str, SigningKey]:
    """The name of our party that `like` is for, and the key that signs for it today. Raises `ConfigError`,
    `KeyUnavailable`."""
    ours = [party for party in pmodes.selves if like.party in (None, party.party_id.value)]
    if len(ours) != 1:
        names = ", ".join(party.name for party in pmodes.selves) or "none"
        raise ConfigError(f"key {like.id} is not for one party of ours but for any of: {names}", key="party",
                          hint="import it with --party")  # fmt: skip
    party = ours[0]
    profiles = dict.fromkeys(leg.profile for leg in pmodes.legs if party in (leg.from_party, leg.to_party))
    if not profiles:
        raise ConfigError(f"there is no agreement of {party.name}", key="pmodes")
    return party.name, keyring.signing_key(party.party_id, PROFILES[next(iter(profiles))])


class Gateway:
    """One worker process's gateway: three ASGI applications, claim loops, and its end."""

    def __init__(
        self, rooms: Rooms, *, receiver: Receiver, sender: Sender, holder: Holder, puller: Puller, door: Door,
        workers: Workers, duty: Duty, health: Callable[..., Health], backends: dict[str, plugin.Backend],
    ) -> None:  # fmt: skip
        self._rooms, self._workers, self._backends, self.duty = rooms, workers, backends, duty
        self.sender, self.holder, self.puller, self.door = sender, holder, puller, door
        teller = WebhookSender(door, f"urn:oots-as4-gateway:{rooms.node}")
        self.watch = Watch(rooms, Hook(rooms.config, rooms.store, teller), sources=[partial(_more_to_watch, rooms)])
        self._draining = False
        self._tasks: list[asyncio.Task] = []
        self.health = health(draining=lambda: self._draining, certificates=OwnCertificates(rooms))
        duty.watch(self.health.fit)
        self.as4 = As4App(
            receiver,
            paths=rooms.config.as4.paths,
            concurrent=rooms.config.limits.uploads,
            # A passive node takes what reaches it all the same: during a switch somebody sends to either.
            accepting=lambda: (
                not self._draining and rooms.revisions.ring.usable and (duty.fresh or not self._tasks)
                and duty.clock_wrong() is None
            ),
        )
        self.plugin = _by_path(backends)

    async def start(self) -> None:
        """Begin to claim work."""
        if _first():
            await self._tell_drift()
        if not self.duty.alone:
            await self.duty.beat()
        self._workers.start()
        own = {id(backend): backend for backend in self._backends.values()}.values()
        self._tasks = [
            asyncio.create_task(self.duty.keep(), name="duty"),
            asyncio.create_task(keep_house(self._rooms, self.duty), name="house"),
            asyncio.create_task(self._rooms.revisions.keep(), name="agreements"),
            asyncio.create_task(self._rooms.rotation.keep(), name="rotation"),
            asyncio.create_task(self._rooms.revocations.keep(), name="revocations"),
            *self._once_a_node(),
            *(asyncio.create_task(backend.run(), name=backend.name) for backend in own),
        ]

    def _once_a_node(self) -> list[asyncio.Task]:
        """The watch over certificates, the anchors of the audit, what is counted: by the first process of each node."""
        if not _first():
            return []
        rooms = self._rooms
        anchored = keep_anchored(
            rooms.store, lambda: audit_signer(rooms.keyring.value), rooms.clock, Kept(rooms.config.data.folder),
            node=rooms.node, every=rooms.config.audit.anchor_every,
        )  # fmt: skip
        return [
            asyncio.create_task(self.watch.keep(), name="watch"),
            asyncio.create_task(anchored, name="anchors"),
            asyncio.create_task(keep_count(rooms), name="census"),
        ]

    async def _tell_drift(self) -> None:
        """Whoever edits files and restarts is told that this changed nothing."""
        try:
            difference = await agreement_verbs.drift(self._rooms.store, load_bundle(self._rooms.config))
        except GatewayError as error:
            difference = f"the files cannot be read: {error}"
        if difference is not None:
            log.event("agreements.drift", level="warning", reason=difference)

    async def step_down(self) -> None:
        """This process will end: nothing new is claimed, and another node of a pair becomes active. What comes is
        served all the same, until load balancers have noticed."""
        self.health.forget()
        await self.duty.step_down()

    async def drain(self) -> None:
        """Not ready any more, nothing new claimed; what runs may finish."""
        self._draining = True
        self.health.forget()
        self.door.drain()
        await self._workers.drain(DRAIN_DEADLINE)

    async def close(self) -> None:
        self.door.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._rooms.revisions.leave()
        if self._tasks:  # it was started
            await self.duty.leave()
        await self._rooms.revocations.close()
        await self._rooms.client.close()
        self._rooms.cpu.close()
        await self._rooms.store.close()
        if self._rooms.config.traces.endpoint is not None:
            await asyncio.to_thread(traces.end)  # what waits is sent

    async def reload(self) -> None:
        """Read key files and agreements again. On any error the old ones stay and the error is raised.

        Files that say something new become a revision, for every process of every node; files that
        say what was in force once do not: going back is asked for by name.
        """
        rooms = self._rooms
        ring, files = rooms.revisions.ring, load_keyring(rooms.config)
        check_usable(rooms.agreements.value.pmodes, ring.with_files(files), self._backends)
        ring.take_files(files)
        await agreement_verbs.follow(
            rooms.store, load_bundle(rooms.config), rooms.revisions,
            author=f"{rooms.node} (reload)", lint=lambda files: lint_pmodes(rooms.config, path=files),
        )  # fmt: skip

    async def ready(self) -> Verdict:
        """Can this process take messages: (verdict, [(check, ok, text)])."""
        return await self.health.ready()

    async def role(self) -> tuple[str, Verdict]:
        """The role of this node in its pair, and whether it is well."""
        return await self.health.role()

    def tls_key(self, use: str) -> TlsKey | None:
        """The key for TLS that the ring has, if any."""
        return self._rooms.keyring.value.tls(use)


def _first() -> bool:
    """Whether this process is the one of its node that does what is done once a node."""
    return metrics.place() in ("0", "memory")


async def _more_to_watch(rooms: Rooms) -> list[Watched]:
    """Keys that wait and keys that drain are no keys of the keyring; and what only the database knows of."""
    ring = watched_ring(await rooms.store.own_keys(), rooms.agreements.value.pmodes)
    return [*ring, *watched_lists(await rooms.store.revocations())]


def _revocations(config: Config, store: Store, client: Client, cpu: Cpu, clock: Clock) -> Revocations:
    """Who asks whether certificates were revoked. Raises `ConfigError`."""
    return Revocations(
        config.revocation, store, client, cpu, clock, allow=config.trust, issuers=known_issuers(config)
    )  # fmt: skip


def _finder(client: Client, paths: Paths, clock: SystemClock, config: Config, cpu: Cpu):
    """What looks partners up. DNS and XML-DSig are loaded where somebody is looked up, and nowhere else."""
    from gateway.transport.discovery.finder import Finder

    return Finder(client, paths.publisher, clock, config.discovery, run=cpu.run)


def _partner_tls(config: Config, keys: Cell[Keyring], _partner: str, ca: bytes | None) -> ssl.SSLContext:
    """The context for one partner. One each: a shared one would leak trust between partners."""
    tls = config.as4.client_tls
    return client_context(
        ca,
        certificate=tls.certificate,
        key=tls.key,
        password=tls.password,
        minimum_version=tls.minimum_version,
        ciphers=tls.ciphers,
        identity=keys.value.tls("tls-client"),
    )


def check_usable(pmodes: PModeSet, keyring: Keyring, backends: Collection[str]) -> None:
    """The agreements can be served: keys for our parties, a backend for every leg. Raises `ConfigError`."""
    for leg in pmodes.legs:
        ours = leg.is_update and leg.backend == UPDATES
        if pmodes.is_self(leg.to_party.party_id) and not ours and leg.backend not in backends:
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
    if UPDATES in config.backends:
        raise ConfigError("is the gateway's own consumer of agreement updates", key=f"backends.{UPDATES}",
                          hint="choose another name")  # fmt: skip
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
    client = client or Client(egress, tls=partial(_partner_tls, config, keys))
    kek = load_kek(config)
    ring = OwnRing(
        store, keys, kek, cpu, read_files=partial(load_keyring, config), tokens=load_tokens(config),
        tell=lambda: client.refresh(),
    )  # fmt: skip
    revisions = Revisions(
        store, agreements, ring, cpu,
        test=lambda found, keyring: check_usable(found.pmodes, keyring, backends_of(config)),
        base=base_of(config), node=config.node.name, place=metrics.place(),
    )  # fmt: skip
    revocations = _revocations(config, store, client, cpu, clock)
    paths = Paths(config.trust, clock, revocations.hook)
    rooms = Rooms(
        config=config,
        store=store,
        agreements=agreements,
        revisions=revisions,
        keyring=keys,
        kek=kek,
        client=client,
        clock=clock,
        cpu=cpu,
        node=config.node.name,
        paths=paths,
        partners=Partners(
            partial(_finder, client, paths, clock, config, cpu), paths, store, config.node.name
        ),
        rotation=Rotation(store, clock, config.rotation),
        sightings=Sightings(store, agreements, clock, config.node.name, config.trust),
        revocations=revocations,
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
    submitter = Submitter(rooms)
    door = Door(rooms, submitter, egress, spools)
    backends = _backends(config, door)
    stager = Stager(
        store, config, lint=lambda files: lint_pmodes(config, path=files), files=partial(load_bundle, config),
        look=revisions.look,
    )  # fmt: skip
    backends[UPDATES] = UpdateDesk(rooms, UpdateWork(rooms, submitter, stager))
    await revisions.begin(partial(load_bundle, config))
    duty = Duty(
        store, clock, node=config.node.name, instance=_instance(Path(config.data.folder)) if config.store.dsn else None,
        roles=config.pair.roles, demand=config.store.synchronous,
    )  # fmt: skip
    workers = Workers(rooms, sender, holder, puller, backends, duty)
    return Gateway(
        rooms, receiver=receiver, sender=sender, holder=holder, puller=puller, door=door, workers=workers, duty=duty,
        health=partial(Health, rooms, duty, spool), backends=backends,
    )  # fmt: skip


def _instance(folder: Path) -> UUID:
    """Which data folder this is: made with it, and kept. What tells two nodes of one name apart."""
    file = folder / "instance"
    try:
        return UUID(file.read_text())
    except FileNotFoundError:
        pass
    except ValueError:
        raise ConfigError("is not the id of this node", file=str(file), hint="remove it; it is made anew") from None
    mine = folder / f"instance.{os.getpid()}"
    mine.write_text(str(uuid4()))
    with contextlib.suppress(FileExistsError):  # another process of this node was first
        os.link(mine, file)
    mine.unlink()
    return UUID(file.read_text())


def trial(config: Config, pmodes: PModeSet, *, timeouts: Timeouts, keyring: Keyring | None = None) -> Rooms:
    """What it takes to send a message beside the running node, as the node would. Raises `ConfigError`.

    Keys (`keyring`, or the files), agreements, TLS and egress are the node's; the store and what seals it live in
    memory. Nothing is written anywhere, and no running process hears of it.
    """
    kek = sealing.KeyEncryptionKey(os.urandom(sealing.KEY_SIZE))
    return _aside(config, pmodes, MemoryStore(SystemClock()), kek, timeouts, keyring or load_keyring(config))


async def door_aside(config: Config, store: Store) -> Door:
    """What clients see, for a command on this machine. It claims nothing, and is not asked about revisions.
    Raises `ConfigError`, `StoreUnavailable`."""
    keyring = await own_keyring(config, store)
    rooms = _aside(config, await agreed(config, store), store, load_kek(config), Timeouts(), keyring)
    most = config.limits.message
    spools = SpoolRoom(Path(config.data.folder) / "spool", total=most, per_partner=most)
    return Door(rooms, Submitter(rooms), EgressPolicy(allow_networks=config.egress.allow_networks), spools)


def _aside(
    config: Config, pmodes: PModeSet, store: Store, kek: sealing.KeyEncryptionKey, timeouts: Timeouts, keyring: Keyring
) -> Rooms:
    """Rooms of a process that is no node: one set of agreements, nothing that runs."""
    agreements, keys = Cell(Agreements(pmodes)), Cell(keyring)
    clock, cpu, egress = SystemClock(), Cpu(1), EgressPolicy(allow_networks=config.egress.allow_networks)
    client = Client(egress, tls=partial(_partner_tls, config, keys), timeouts=timeouts)
    revocations = _revocations(config, store, client, cpu, clock)
    paths = Paths(config.trust, clock, revocations.hook)
    finder = partial(_finder, client, paths, clock, config, cpu)
    return Rooms(
        config=config,
        store=store,
        agreements=agreements,
        revisions=OneRevision(agreements.value),
        keyring=keys,
        kek=kek,
        client=client,
        clock=clock,
        cpu=cpu,
        node=config.node.name,
        paths=paths,
        partners=Partners(finder, paths, store, config.node.name),
        rotation=Rotation(store, clock, config.rotation),
        sightings=Sightings(store, agreements, clock, config.node.name, config.trust),
        revocations=revocations,
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
    "load_tokens",
    "log",
    "metrics",
    "open_store",
    "own_keyring",
    "self_test",
    "test_ring",
    "trial",
]  # fmt: skip
