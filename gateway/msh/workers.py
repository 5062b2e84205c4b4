"""The claim loops: what is due is taken, done, and finished under its claim.

One loop a kind of job. NOTIFY wakes them, a poll every few seconds stands beside it: a lost
notification costs seconds, never a message. Every process of every node runs these
loops; claims keep them apart.

Work whose process died comes back when its claim is over. What came back like this twice in a row
is done alone, one such job at a time in a process, so that nothing else suspicious dies with it.
After `workers.deaths` it is not done any more, and an operator sees it [reliability R24].
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from gateway import log, metrics
from gateway.errors import ClaimLost, DeliveryDelayed, DeliveryRefused, GatewayError, StoreUnavailable
from gateway.msh.door import delivery
from gateway.msh.duty import Duty
from gateway.msh.hold import Holder
from gateway.msh.pull import LONGEST_REST, Puller
from gateway.msh.rooms import Rooms
from gateway.msh.send import Sender
from gateway.msh.webhooks import TEST, target
from gateway.plugin import Backend, Event
from gateway.pmodes.updates import BACKEND as UPDATES
from gateway.stages import point, stage, timeline
from gateway.store.api import Job, JobKind, NewEvent
from gateway.store.webhooks import NoticeAttempt, Webhook

POLL = 5.0
#: After one look for work so long until the next one that a bell may cause: a busy gateway rings
#: for every message, and each look costs as much of the database as storing one.
GATHER = 0.02
#: How long a claim lasts. Renewed at a third of it while the work runs, so it is also how long the work of a
#: process that died lies still [reliability I10].
LEASE = 9.0
#: Claims lost in a row from which on a job is done alone.
SUSPECT = 2
#: Notifications made at once by one process, and of these for one webhook: those that do not answer
#: wait among themselves.
NOTICES, SHARE = 16, 4
#: Between two looks for messages of partners that do not answer whose time is over; so many at once.
OVERDUE, OVERDUE_AT_ONCE = 10.0, 20
#: A backend or webhook gets this long for one delivery or notification, and a backend a second more for
#: each so many bytes of the message.
DELIVERY_DEADLINE = 30.0
DELIVERY_RATE = 250_000
#: While the process drains a notification gets only this long: another node makes it anew, and the
#: restart does not wait for a listener that says nothing.
LAST_NOTICE = 3.0


class Workers:
    """Runs the loops of one process."""

    def __init__(
        self, rooms: Rooms, sender: Sender, holder: Holder, puller: Puller, backends: Mapping[str, Backend], duty: Duty
    ) -> None:
        self._rooms, self._sender, self._backends, self._duty = rooms, sender, backends, duty
        self._holder, self._puller = holder, puller
        self._tasks: list[asyncio.Task] = []
        self._running: set[asyncio.Task] = set()
        self._notifying: set[asyncio.Task] = set()
        self._claiming: set[asyncio.Task] = set()
        self._stopping = asyncio.Event()
        self._work = asyncio.Event()

    def start(self) -> None:
        count, sends = self._rooms.config.workers.claimers, self._rooms.config.workers.sends
        self._tasks = [
            asyncio.create_task(self._listen(), name="listen"),
            # To one partner no more at once than there are claimers: whoever is slow is slow for himself.
            asyncio.create_task(self._loop("send", None, self._sender.send, sends, each=count), name="send"),
            asyncio.create_task(self._give_up(), name="give up"),
            asyncio.create_task(self._suspects(), name="suspects"),
            asyncio.create_task(self._loop("notify", None, self._notify, NOTICES, each=SHARE), name="notify"),
            # What is pulled goes by the clock: these look when one of them has something to come
            # back to, and every few seconds, but not at every bell.
            asyncio.create_task(self._loop("hold", None, self._holder.review, count, self._holder.due), name="hold"),
            asyncio.create_task(self._loop("pull", self._puller.channels, self._pull, count, self._puller.due),
                                name="pull"),
            asyncio.create_task(self._loop("receipt", None, self._puller.answer, count, self._puller.answers),
                                name="receipt"),
        ]  # fmt: skip
        if pushing := sum(backend.pushes for backend in self._backends.values()):
            deliver = self._loop("deliver", self._pushing, self._deliver, count * pushing, each=count)
            self._tasks.append(asyncio.create_task(deliver, name="deliver"))

    async def drain(self, timeout: float) -> None:
        """Claim nothing more; let what runs finish, for `timeout` seconds at most. Notifications that
        are not made by then are given back at once."""
        self._stopping.set()
        for wake in (self._work, self._holder.due, self._puller.due, self._puller.answers):
            wake.set()
        began = self._rooms.clock.monotonic()
        if self._claiming:
            await asyncio.wait(self._claiming, timeout=timeout)
        if self._notifying:
            await asyncio.wait(self._notifying, timeout=min(timeout, LAST_NOTICE))
            for task in self._notifying:
                task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=max(timeout - self._rooms.clock.monotonic() + began, 0.0))
        for task in [*self._tasks, *self._running]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._running, return_exceptions=True)

    # -- loops --------------------------------------------------------------------

    async def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._rooms.store.wait_for_work(POLL)
            except StoreUnavailable:
                await self._rooms.clock.sleep(1.0)
            self._work.set()
            await self._rooms.clock.sleep(GATHER)

    async def _loop(
        self, kind: JobKind, queues: tuple[str, ...] | Callable[[], Awaitable[tuple[str, ...]]] | None,
        do: Callable[[Job], Awaitable[None]], limit: int, wake: asyncio.Event | None = None, each: int | None = None,
    ) -> None:  # fmt: skip
        """Claim as much as there are free hands, never more: a claim that waits for a hand runs out. With `each`
        no queue has more hands than that, whoever does not answer there."""
        wake = wake or self._work
        busy: dict[asyncio.Task, str] = {}

        def free_hand(task: asyncio.Task) -> None:
            queue = busy.pop(task)
            if each is not None and sum(name == queue for name in busy.values()) + 1 >= each:
                wake.set()  # it had no hand left, and may have more to do

        def begin(job: Job) -> asyncio.Task:
            task = self._begin(do, job)
            busy[task] = job.queue
            task.add_done_callback(free_hand)
            if kind == "notify":
                self._notifying.add(task)
                task.add_done_callback(self._notifying.discard)
            return task

        while not self._stopping.is_set():
            if len(busy) >= limit:
                await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)
                continue
            if not self._duty.working:
                self._duty.on.clear()  # it may have run out since the last report
                await self._duty.on.wait()
                continue
            wake.clear()
            hands = Counter(busy.values())
            full = {name for name, taken in hands.items() if each is not None and taken >= each}
            free = None if each is None else each - max((n for name, n in hands.items() if name not in full), default=0)
            try:
                wanted = await queues() if callable(queues) else queues
                begun = [] if wanted == () else await self._take(partial(
                    self._rooms.store.claim, kind, queues=wanted, worker=self._rooms.node, limit=limit - len(busy),
                    lease=LEASE, each=free, without=tuple(full), losses=SUSPECT,
                ), begin)  # fmt: skip
            except StoreUnavailable as error:
                log.event("store.unavailable", level="error", reason=str(error))
                # Spread: all processes of all nodes wait for the same database.
                await self._rooms.clock.sleep(random.uniform(0.5, 1.5))  # noqa: S311
                continue
            if not begun:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await wake.wait()

    async def _take(
        self, claim: Callable[[], Awaitable[list[Job]]], begin: Callable[[Job], asyncio.Task]
    ) -> list[asyncio.Task]:
        """Claim, and begin with what was claimed. The end of the process does not cut this off: it would leave jobs
        that nobody works on, and that look as if somebody had died of them."""

        async def take() -> list[asyncio.Task]:
            jobs = await claim()
            if not self._stopping.is_set():
                return [begin(job) for job in jobs]
            for job in jobs:
                await self._give_back(job, 0.0, "the process ends")
            return []

        task = asyncio.create_task(take())
        self._claiming.add(task)
        task.add_done_callback(self._claiming.discard)
        return await asyncio.shield(task)

    def _begin(self, do: Callable[[Job], Awaitable[None]], job: Job) -> asyncio.Task:
        task = asyncio.create_task(self._run(do, job))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _give_up(self) -> None:
        """What waits for a partner that does not answer fails when its time is over, though nothing is tried."""
        while not self._stopping.is_set():
            await self._rooms.clock.sleep(OVERDUE * random.uniform(0.75, 1.25))  # noqa: S311
            try:
                while self._duty.working and not self._stopping.is_set() and (begun := await self._take(
                    partial(
                        self._rooms.store.claim_overdue, worker=self._rooms.node, limit=OVERDUE_AT_ONCE, lease=LEASE
                    ),
                    partial(self._begin, self._sender.send),
                )):  # fmt: skip
                    await asyncio.wait(begun)
            except StoreUnavailable as error:
                log.event("store.unavailable", level="error", reason=str(error))

    async def _suspects(self) -> None:
        """Do what processes died of, or were thought to, one by one; what they died of too often is left alone."""
        doing = {
            "send": self._sender.send, "notify": self._notify, "deliver": self._deliver, "hold": self._holder.review,
            "pull": self._pull, "receipt": self._puller.answer,
        }  # fmt: skip

        async def claim() -> list[Job]:
            job = await self._rooms.store.claim_suspect(
                pushed=await self._pushing(), worker=self._rooms.node, lease=LEASE, losses=SUSPECT
            )
            return [] if job is None else [job]

        def begin(job: Job) -> asyncio.Task:
            isolated = job.lost >= self._rooms.config.workers.deaths
            return self._begin(self._isolate if isolated else doing[job.kind], job)

        while not self._stopping.is_set():
            begun = []
            try:
                if self._duty.working:
                    begun = await self._take(claim, begin)
            except StoreUnavailable as error:
                log.event("store.unavailable", level="error", reason=str(error))
            if begun:
                await asyncio.wait(begun)
            else:
                await self._rooms.clock.sleep(POLL * random.uniform(0.75, 1.25))  # noqa: S311

    async def _isolate(self, job: Job) -> None:
        """Not once more. A channel rests, because others' messages wait in it."""
        why = f"{job.lost} processes in a row died or were cut off while they worked on it"
        log.event("message.isolated", level="error", kind=job.kind, queue=job.queue, reason=why)
        if job.kind == "send":
            await self._sender.isolate(job, why)
        elif job.kind == "hold":
            await self._holder.isolate(job, why)
        elif job.kind == "pull":
            await self._rooms.store.rest(job.id, job.claim, due_in=LONGEST_REST, error=why)
        elif job.kind == "notify":
            await self._rooms.store.finish_notify(job.id, job.claim, NoticeAttempt(outcome="failed", detail=why))
        else:
            await self._rooms.store.park(job.id, job.claim, error=why)

    async def _run(self, do: Callable[[Job], Awaitable[None]], job: Job) -> None:
        keeper = asyncio.create_task(self._keep(job))
        try:
            await do(job)
        except asyncio.CancelledError:
            if job.kind in ("notify", "pull", "receipt"):
                await self._give_back(job, 0.0, "the process stopped")
            raise
        except ClaimLost:
            log.event("claim.lost", level="warning", kind=job.kind)
        except StoreUnavailable as error:
            log.event("store.unavailable", level="error", reason=str(error))
            await self._return(job)
        except Exception as error:
            log.event("incident", level="error", kind=job.kind, exc_info=error)
            await self._give_back(job, 30.0, type(error).__name__)
        finally:
            keeper.cancel()

    async def _return(self, job: Job) -> None:
        """Give back what the database kept us from finishing, when it can be reached again: else it would look as if a
        process had died of it. If that takes long the claim runs out, and nothing is lost either."""
        until = self._rooms.clock.monotonic() + LEASE
        while self._rooms.clock.monotonic() < until:
            await self._rooms.clock.sleep(random.uniform(0.5, 1.5))  # noqa: S311
            try:
                await self._rooms.store.release(job.id, job.claim, error="the database could not be reached")
            except StoreUnavailable:
                continue
            except ClaimLost:
                pass
            return

    async def _keep(self, job: Job) -> None:
        """Renew the claim until the work is done or the claim is lost."""
        while True:
            await self._rooms.clock.sleep(LEASE / 3)
            try:
                await self._rooms.store.renew(job.id, job.claim, LEASE)
            except ClaimLost:
                return
            except StoreUnavailable as error:
                log.event("store.unavailable", level="warning", reason=str(error))

    async def _pushing(self) -> tuple[str, ...]:
        """The backends that messages are pushed to; the gateway itself is one where a partner has updates."""
        updates = self._rooms.agreements.value.updates
        return tuple(n for n, backend in self._backends.items() if backend.pushes and (updates or n != UPDATES))

    async def _pull(self, job: Job) -> None:
        await self._puller.pull(job, more=lambda: not self._stopping.is_set())

    # -- deliver and notify -------------------------------------------------------

    async def _deliver(self, job: Job) -> None:
        """Push one message to a backend that takes pushes."""
        point("DL01")
        backend = self._backends[job.queue]
        message = await self._rooms.store.message(job.message)
        if message is None:
            return
        log.message_id.set(message.user_message.message_id)
        patience = DELIVERY_DEADLINE + sum(part.size for part in message.parts) / DELIVERY_RATE
        with timeline("inbound") as steps:
            try:
                with stage("deliver"):
                    async with asyncio.timeout(patience):
                        await backend.deliver(delivery(job, message))
            except (DeliveryDelayed, DeliveryRefused, TimeoutError) as error:
                await self._again(job, backend, error)
                return
        point("DL04")
        await self._rooms.store.finish_delivery(job.id, job.claim, (NewEvent("message.delivered"),), tuple(steps))
        point("DL05")
        log.event("message.delivered", backend=job.queue)

    async def _notify(self, job: Job) -> None:
        """Tell one webhook about one event, and note how that went."""
        store = self._rooms.store
        webhook = await store.webhook(job.queue)
        backend = self._backends.get(webhook.backend) if webhook else None
        event = _event(job)
        log.message_id.set(event.data.get("message_id"))
        if webhook is None or backend is None or (webhook.disabled and event.type != TEST):
            gone = "the webhook is disabled" if webhook is not None and backend is not None else "the webhook is gone"
            await store.finish_notify(job.id, job.claim, NoticeAttempt(outcome="refused", detail=gone))
            return
        point("OB17")
        began = self._rooms.clock.monotonic()

        def noted(outcome: str, status: int | None, detail: str = "") -> NoticeAttempt:
            seconds = round(self._rooms.clock.monotonic() - began, 3)
            return NoticeAttempt(outcome=outcome, status=status, detail=log.printable(detail, 300), seconds=seconds)

        with timeline("outbound"):
            try:
                with stage("notify"):
                    async with asyncio.timeout(DELIVERY_DEADLINE):
                        status = await backend.notify(target(self._rooms, webhook, now=self._rooms.clock.now()), event)
            except DeliveryRefused as error:
                await store.disable_webhook(webhook.id)
                await store.finish_notify(job.id, job.claim, noted("refused", error.status, str(error)))
                metrics.webhook(webhook.backend, "refused")
                log.event("webhook.disabled", level="error", backend=webhook.backend, reason=str(error))
                return
            except (DeliveryDelayed, TimeoutError) as error:
                why = str(error) or f"no answer within {DELIVERY_DEADLINE:g} s"
                await self._later(job, webhook, backend, event, noted("failed", getattr(error, "status", None), why),
                                  getattr(error, "retry_after", None))  # fmt: skip
                return
        point("DL03")
        await store.finish_notify(job.id, job.claim, noted("delivered", status))
        metrics.webhook(webhook.backend, "delivered")

    async def _later(
        self, job: Job, webhook: Webhook, backend: Backend, event: Event, attempt: NoticeAttempt, asked: float | None
    ) -> None:
        """Another attempt when the schedule, or the webhook, says so; parked and visible when the schedule ends."""
        metrics.webhook(webhook.backend, "failed")
        wait = backend.retry_in(job.attempt) if event.type != TEST else None
        due_in = None if wait is None else max(wait, asked or 0.0)
        await self._rooms.store.finish_notify(job.id, job.claim, attempt, due_in=due_in)
        if due_in is None and event.type != TEST:
            metrics.webhook(webhook.backend, "parked")
            log.event("delivery.parked", level="error", backend=backend.name, kind=job.kind, reason=attempt.detail)

    async def _again(self, job: Job, backend: Backend, error: BaseException) -> None:
        """Later, when the schedule says so; parked and visible when it ends."""
        wait = backend.retry_in(job.attempt) if not isinstance(error, DeliveryRefused) else None
        if wait is None:
            await self._rooms.store.park(job.id, job.claim, error=str(error))
            log.event("delivery.parked", level="error", backend=backend.name, kind=job.kind, reason=str(error))
            return
        asked = getattr(error, "retry_after", None)
        await self._give_back(job, max(wait, asked or 0.0), str(error) or type(error).__name__)

    async def _give_back(self, job: Job, seconds: float, error: str) -> None:
        try:
            await self._rooms.store.release(job.id, job.claim, due_in=seconds, error=error)
        except GatewayError as lost:
            log.event("claim.lost", level="warning", kind=job.kind, reason=str(lost))


def _event(job: Job) -> Event:
    """The event a `notify` job carries. Its id is the same however often it is sent."""
    data = dict(job.data)
    return Event(
        id=str(data.pop("id", job.id)),
        type=str(data.pop("type")),
        at=job.created_at,
        subject=str(job.message) if job.message else "",
        data=data,
    )
