"""One run: two nodes on one database, two partners, a producer and a consumer, under the weather of a seed.

First everything goes wrong that the seed wants; then all is well again, and nothing may be left undone. The
judge knows what the partners, the producer and the consumer wrote down, and only at the end looks into the
store [reliability 2: I1 to I6, I8, I11].
"""

import asyncio
import atexit
import functools
import hashlib
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from gateway import app, log, stages
from gateway.as4.units import PartyId
from gateway.config import Config
from gateway.errors import StoreUnavailable
from gateway.keys.keyring import Keyring
from gateway.keys.keyring import load_keyring as read_keyring
from gateway.store.api import MessageFilter
from gateway.store.memory import MemoryStore
from tests.peer import Authority, Keys, Peer
from tests.simulation.cast import Consumer, Partner, Producer
from tests.simulation.database import Database
from tests.simulation.faults import HERE, Faults, Killed, Life
from tests.simulation.loop import VirtualClock, VirtualLoop
from tests.simulation.network import Client, Network, serve, within
from tests.world import EE, LV, to_pem, write_site

FI = PartyId("AP_FI_01", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI")
FINLAND = """
[parties.AP_FI_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI"
endpoint = "http://127.0.0.1:9/fi"
certificate = "fi.pem"
"""
RETRY = 'retry = { first = "1s", factor = 1.5, max = "20s", count = 100, window = "90m" }\n'
GATEWAY = "http://127.0.0.1:9/lv"
#: Seconds of bad weather, and how long afterwards everything may take to settle.
STORM, CALM = 90.0, 3600.0


class Verdict(NamedTuple):
    """What came of a run. `wrong`: broken promises; empty when all is well."""

    wrong: list[str]
    figures: dict[str, int]
    trace: list[str]

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]


class Ground(NamedTuple):
    """What all runs of a process share: files and keys."""

    config: Config
    lv: Keys
    ee: Keys
    fi: Keys


@functools.cache
def ground() -> Ground:
    folder = Path(tempfile.mkdtemp(prefix="gateway-simulation-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    authority = Authority()
    lv, ee, fi = (Keys.make(name, "rsa", authority) for name in ("AP_LV_01", "AP_EE_01", "AP_FI_01"))
    write_site(folder, lv, ee, endpoint="http://127.0.0.1:9/ee", more=FINLAND)
    agreement = folder / "pmodes" / "agreement.toml"
    agreement.write_text(agreement.read_text().replace("allow_http = true\n", "allow_http = true\n" + RETRY, 1))
    (folder / "pmodes" / "fi.pem").write_bytes(to_pem(fi.signing))
    # What was delivered is looked at again at the end. In this weather one message may be there at every death.
    environ = {"GATEWAY__RETENTION__DELIVERED_PAYLOADS": "1d", "GATEWAY__WORKERS__DEATHS": "1000"}
    return Ground(Config.load(folder / "gateway.toml", environ=environ), lv, ee, fi)


@functools.cache
def _keyring_of_all() -> Keyring:
    return read_keyring(ground().config.keys.store)


def _keyring(_config: Config) -> Keyring:
    """Reading keys takes most of a start, and they are the same in every one."""
    return _keyring_of_all()


class Node:
    """A place in a data centre: started, killed, started again."""

    def __init__(self, name: str, scene: "Scene") -> None:
        self.name, self._scene, self.life, self.gateway = name, scene, None, None
        self.clock = VirtualClock(scene.loop, scene.clock.begin)
        self._starting: asyncio.Task | None = None
        self.starts = 0

    @property
    def up(self) -> bool:
        return self.gateway is not None

    async def start(self) -> None:
        """Raises `GatewayError` when the database is away."""
        self.starts += 1
        life = Life(f"{self.name}.{self.starts}")
        token = HERE.set(life)
        try:
            store = Database(self._scene.store, life, self._scene.faults, asyncio.sleep)
            gateway = await app.build(
                ground().config, store=store, clock=self.clock, client=Client(self._scene.network, life)
            )
            # Watch and anchors have tests of their own; here a seed does not yet mean the same every time with them.
            gateway._once_a_node = list
            await gateway.start()
        finally:
            HERE.reset(token)
        self.life, self.gateway = life, gateway
        self._scene.faults.note(f"{life.name} is up")

    def kill(self, why: str) -> None:
        if self.life is not None:
            self._scene.faults.note(f"{self.life.name} is killed: {why}")
            self._scene.kills += 1
            self.life.dead.set()
        self.life = self.gateway = None

    async def keep_up(self) -> None:
        """The service manager: start again whenever it is down."""
        while True:
            if not self.up:
                try:
                    await within_start(self)
                except (StoreUnavailable, Killed) as error:
                    self._scene.faults.note(f"{self.name} does not start: {error!r}")
            await asyncio.sleep(self._scene.faults.random.uniform(0.5, 3.0))


async def within_start(node: Node) -> None:
    """A start of its own task: what dies in it takes nobody with it."""
    task = asyncio.ensure_future(node.start())
    await asyncio.wait((task,), timeout=60.0)
    if not task.done():
        task.cancel()
        return
    task.result()


class Scene:
    """Everything of one run."""

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        self.loop, self.faults = loop, Faults.of(seed)
        self.clock = VirtualClock(loop)
        self.store, self.network = MemoryStore(self.clock), Network(self.faults)
        self.nodes = [Node("lv-a", self), Node("lv-b", self)]
        self.kills = 0
        site = ground()
        self.partners = []
        for name, party, keys in (("ee", EE, site.ee), ("fi", FI, site.fi)):
            peer = Peer(party, LV, keys, (site.lv.signing,), site.lv.encryption)
            partner = Partner(name, peer, self.network, self.faults, GATEWAY, self.clock)
            self.network.listen(f"http://127.0.0.1:9/{name}", partner.listen)
            self.partners.append(partner)
        self.network.listen(GATEWAY, self._balanced)
        self.producer = Producer(self._call, self.faults)
        self.consumer = Consumer(self._call, self.faults)

    # -- the way in -----------------------------------------------------------------

    def _pick(self) -> Node:
        up = [node for node in self.nodes if node.up]
        if not up:
            raise ConnectionRefusedError("no node is up")
        return self.faults.random.choice(up)

    async def _balanced(self, content_type: str, body: bytes) -> tuple[int, str, bytes]:
        node = self._pick()
        return await serve(node.life, node.gateway.as4, content_type, body)

    async def _call(self, verb):
        node = self._pick()
        life, door = node.life, node.gateway.door

        async def work():
            await life.alive()
            result = await verb(door)
            await life.alive()
            return result

        return await within(life, work())

    # -- the play -------------------------------------------------------------------

    async def play(self) -> Verdict:
        chance, loop = self.faults.random, self.loop
        keepers = [loop.create_task(node.keep_up()) for node in self.nodes]
        while not all(node.up for node in self.nodes):
            await asyncio.sleep(0.1)
        consumer = loop.create_task(self.consumer.work())
        work = []
        for partner in self.partners:
            work += [self._at(chance.uniform(0, STORM * 0.8), partner.send(self._size())) for _ in range(chance.randint(2, 4))]
            work += [
                self._at(chance.uniform(0, STORM * 0.8), self.producer.submit(partner.peer.party, self._size()))
                for _ in range(chance.randint(2, 4))
            ]
        weather = loop.create_task(self._weather())
        await asyncio.sleep(STORM)
        weather.cancel()
        self.faults.calm = True
        self.faults.note("the storm is over")
        for node in self.nodes:
            node.clock.ahead = 0.0
        wrong = []
        try:
            async with asyncio.timeout(CALM):
                await asyncio.gather(*work)
                await self._settled()
        except TimeoutError:
            wrong.append("not settled an hour after all was well again")
        self.consumer.closed = True
        for task in (*work, consumer, *keepers):
            task.cancel()
        await asyncio.sleep(40.0)  # what was underway twice arrives now
        wrong += [f"died: {task.exception()!r}" for task in work if task.done() and not task.cancelled() and task.exception()]
        return Verdict(wrong + await self._judged(), self._figures(), self.faults.trace)

    def _at(self, seconds: float, work) -> asyncio.Task:
        async def later() -> None:
            await asyncio.sleep(seconds)
            await work

        return self.loop.create_task(later())

    def _size(self) -> int:
        return self.faults.random.choice((0, 1, 900, 20_000, 300_000))

    async def _weather(self) -> None:
        chance, faults = self.faults.random, self.faults
        while True:
            await asyncio.sleep(chance.expovariate(1 / 6.0))
            node = chance.choice(self.nodes)
            match chance.choice(("kill", "pause", "partner", "database", "clock", "fair")):
                case "kill":
                    node.kill("at random")
                case "pause" if node.up:
                    node.life.paused_until = self.loop.time() + chance.choice((2.0, 15.0, 40.0))
                    faults.note(f"{node.life.name} stands still")
                case "partner":
                    name = chance.choice(("http://127.0.0.1:9/ee", "http://127.0.0.1:9/fi", GATEWAY))
                    faults.away[name] = self.loop.time() + chance.choice((1.0, 10.0, 30.0))
                    faults.note(f"{name} is cut off")
                case "database":
                    faults.away["database"] = self.loop.time() + chance.choice((0.5, 5.0, 20.0))
                    faults.note("the database is away")
                case "clock":
                    node.clock.ahead = chance.choice((-3600.0, -5.0, 0.0, 5.0, 3600.0))
                    faults.note(f"the clock of {node.name} is {node.clock.ahead:g} s ahead")

    async def _settled(self) -> None:
        """Until every job is done: all that is left must get done without help."""
        while True:
            left = await self.store.backlog()
            if not any(not kind.startswith("notify") for kind in left):
                return
            await asyncio.sleep(1.0)

    # -- the judge -------------------------------------------------------------------

    async def _judged(self) -> list[str]:
        wrong: list[str] = []
        seen: dict[str, list[tuple[str, bool]]] = {}
        for id, found, redelivered in self.consumer.delivered:
            seen.setdefault(id, []).append((found, redelivered))
        sent = {id: what for partner in self.partners for id, what in partner.sent.items()}
        receipted = {id for partner in self.partners for id in partner.receipted}
        for id in sent.keys() - seen.keys():
            wrong.append(f"I1: {id} was {'receipted and' if id in receipted else ''} never delivered")
        for id in seen.keys() - sent.keys():
            wrong.append(f"{id} was delivered and nobody sent it")
        for id, deliveries in seen.items():
            if any(found != sent.get(id) for found, _ in deliveries):
                wrong.append(f"I1: {id} was delivered with other content")
            # The first one may be marked, too: somebody may have claimed it before and never been heard of again.
            if not all(again for _, again in deliveries[1:]):
                wrong.append(f"I3: {id} was delivered {len(deliveries)} times, and that is not marked")
            if self.consumer.acknowledged.get(id, 0) > 1:
                wrong.append(f"I3: {id} came again after its acknowledgement was answered")
        partners = {partner.peer.party.value: partner for partner in self.partners}
        for id, (party, content) in self.producer.accepted.items():
            partner = partners[party]
            if partner.contents.get(id) != {content}:
                wrong.append(f"I4: {id} was accepted; {party} has {partner.contents.get(id)}")
            if len(partner.taken.get(id, ())) > 1:
                wrong.append(f"I5: attempts of {id} signed different digests")
        for partner in self.partners:
            strange = partner.contents.keys() - self.producer.accepted.keys()
            wrong += [f"{id} was sent and nobody submitted it" for id in strange]
            wrong += [f"{id} was refused with {code}" for id, code in partner.refused.items()]
        wrong += await self._kept(sent)
        return wrong

    async def _kept(self, sent: dict[str, str]) -> list[str]:
        """What the store says at the end."""
        messages = await self.store.messages(MessageFilter(limit=500))
        count = Counter((m.direction, m.user_message.message_id) for m in messages)
        wrong = [f"I2: {id} is there {n} times" for (_, id), n in count.items() if n > 1]
        for m in messages:
            expected = "DELIVERED" if m.direction == "inbound" else "ACKNOWLEDGED"
            if m.state != expected:
                wrong.append(f"I4: {m.user_message.message_id} ended {m.state}, {m.error_code} {m.error_detail}")
        if (number := await self.store.verify_audit()) is not None:
            wrong.append(f"I8: the audit is broken at {number}")
        return wrong

    def _figures(self) -> dict[str, int]:
        return {
            "received": len({id for id, _, _ in self.consumer.delivered}),
            "redelivered": sum(again for _, _, again in self.consumer.delivered),
            "sent": len(self.producer.accepted), "arrivals": sum(p.arrivals for p in self.partners),
            "kills": self.kills,
        }  # fmt: skip


class _Points(dict):
    """Stands in for the armed points of `stages`: kills the node that comes by, when the seed wants it."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self._scene = scene

    def get(self, name: str, default: object = None) -> None:
        life = HERE.get()
        if life is None or life.dead.is_set() or not self._scene.faults.strikes(self._scene.faults.kill_at_point):
            return
        for node in self._scene.nodes:
            if node.life is life:
                node.kill(f"at {name}")
                raise Killed(name)


async def _nothing(_) -> None:
    pass


@contextmanager
def _one_source(seed: int, scene: Scene):
    """All randomness of Python comes from the seed; that of OpenSSL changes octets, never what happens."""
    chance = random.Random(seed ^ 0x5EED)
    before = os.urandom, random._urandom, stages._crash, log.event, app.load_keyring, app.keep_count
    random.seed(seed)
    os.urandom = random._urandom = chance.randbytes
    stages._crash, log.event = _Points(scene), lambda *_, **__: None
    app.keep_count = _nothing  # numbers for Prometheus decide nothing
    app.load_keyring = _keyring
    try:
        yield
    finally:
        os.urandom, random._urandom, stages._crash, log.event, app.load_keyring, app.keep_count = before


def run(seed: int, sabotage: Callable[[Scene], Scene] = lambda scene: scene) -> Verdict:
    """Play one seed. `sabotage` breaks something, for a test of the judge."""
    _keyring_of_all()
    loop, hook = VirtualLoop(), sys.unraisablehook
    asyncio.set_event_loop(loop)
    sys.unraisablehook = lambda _: None
    try:
        scene = sabotage(Scene(seed, loop))
        with _one_source(seed, scene):
            return loop.run_until_complete(scene.play())
    finally:
        for task in asyncio.all_tasks(loop):  # of dead nodes: they were never to end
            task._log_destroy_pending = False
            with suppress(BaseException):
                task.get_coro().close()
        asyncio.set_event_loop(None)
        loop.close()
        sys.unraisablehook = hook
