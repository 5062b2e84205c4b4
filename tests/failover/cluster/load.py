"""Senders and a consumer on the partner's host, their logs, and the judge who reads nothing but these.

A sender writes down what it will send before it sends it, and what it heard before it goes on. As a partner's access
point would, it sends what has no receipt again: the same octets, with the same MessageId.
"""

import contextlib
import hashlib
import http.client
import itertools
import json
import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gateway.client import GatewayProblem
from tests.failover.cluster.site import Site
from tests.peer import check_receipt

#: How long a sender waits for an answer.
PATIENCE = 10.0


class Log:
    """Lines that are on the disk before whoever writes them goes on."""

    def __init__(self, path: Path) -> None:
        self.path, self._file, self._lock = path, path.open("a"), threading.Lock()

    def note(self, what: str, **facts) -> float:
        at = time.monotonic()
        with self._lock:
            self._file.write(json.dumps({"at": at, "what": what, **facts}) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        return at

    def lines(self) -> Iterator[dict]:
        return map(json.loads, self.path.read_text().splitlines())


class Senders:
    """`count` senders, each with a connection for each message, through the load balancer or straight to `host`.

    `pace`: messages a second of all together, as far as they get them through; None: as fast as they can.
    """

    def __init__(self, site: Site, log: Path, *, count: int = 12, pace: float | None = 25, host: str = "front",
                 limit: int | None = None, patience: float = PATIENCE) -> None:  # fmt: skip
        self.log, self._site, self._patience = Log(log), site, patience
        self._place = (site.hosts[host].address, 443 if host == "front" else 8443)
        self._every = count / pace if pace else 0.0
        self._left = itertools.count() if limit is None else iter(range(limit))
        self._ahead: queue.Queue = queue.Queue(maxsize=max(400, 2 * count))
        self._stop = threading.Event()
        self._context = site.context()
        #: When receipts came; the log has the same.
        self._receipts: list[float] = []
        self._peer = site.peer
        self._builder = threading.Thread(target=self._build, daemon=True)
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(count)]

    def __enter__(self) -> "Senders":
        for thread in (self._builder, *self._threads):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(self) -> None:
        for number in self._left:
            content = b"<evidence>%d %s</evidence>" % (number, os.urandom(300).hex().encode())
            sent = self._peer.message([("application/octet-stream", content)])
            made = (sent, hashlib.sha256(content).hexdigest())
            while not self._stop.is_set():
                with contextlib.suppress(queue.Full):
                    self._ahead.put(made, timeout=0.5)
                    break
            if self._stop.is_set():
                return
        for _ in self._threads:
            self._ahead.put(None)

    def _run(self, number: int) -> None:
        with self._site.hosts["partner"]:
            due = time.monotonic() + self._every * number / max(1, len(self._threads))
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                try:
                    made = self._ahead.get(timeout=0.5)
                except queue.Empty:
                    continue
                if made is None:
                    return
                self._deliver(*made)
                due = max(due + self._every, time.monotonic() - 1)

    def _deliver(self, sent, digest: str) -> None:
        """Until it has its receipt, or the senders end."""
        id = sent.message.message_id
        self.log.note("send", message_id=id, digest=digest)
        while True:
            began = time.monotonic()
            status, again, why = 0, None, ""
            try:
                status, again = self._post(sent)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                why = repr(error)[:200]
            took = time.monotonic() - began
            if status == 200 and not why:
                self._receipts.append(self.log.note("receipted", message_id=id, took=took))
                return
            self.log.note("refused", message_id=id, took=took, status=status, again=again, why=why)
            if self._stop.wait(0.25):
                return

    def _post(self, sent) -> tuple[int, str | None]:
        connection = http.client.HTTPSConnection(*self._place, timeout=self._patience, context=self._context)
        try:
            connection.request("POST", "/as4", sent.body, {"Content-Type": sent.content_type})
            answer = connection.getresponse()
            octets = answer.read()
            if answer.status == 200:
                heard = self._peer.answer(200, answer.getheader("Content-Type", ""), octets)
                check_receipt(heard, sent)
            return answer.status, answer.getheader("Retry-After")
        finally:
            connection.close()

    # -- how it goes --------------------------------------------------------------

    def receipted(self, since: float = 0.0) -> int:
        return sum(1 for at in list(self._receipts) if at > since)

    def wait(self, count: int, seconds: float = 60) -> None:
        """Until so many more have receipts."""
        since, began = time.monotonic(), time.monotonic()
        while self.receipted(since) < count:
            assert time.monotonic() - began < seconds, list(self.log.lines())[-5:]
            time.sleep(0.2)

    def gap(self, since: float, until: float | None = None) -> float:
        """The longest time in seconds, from `since` on, in which no sender got a receipt."""
        until = until or time.monotonic()
        moments = sorted(at for at in list(self._receipts) if since < at < until)
        return max(later - earlier for earlier, later in itertools.pairwise([since, *moments, until]))

    def refusals(self, since: float = 0.0, until: float = float("inf")) -> list[dict]:
        """What senders were refused with, or what became of their connections; `at` is when they heard it."""
        return [line for line in self.log.lines() if line["what"] == "refused" and since < line["at"] < until]

    def close(self, seconds: float = 30) -> None:
        self._stop.set()
        for thread in (self._builder, *self._threads):
            thread.join(max(self._patience, seconds))

    def finish(self, seconds: float) -> None:
        """Until `limit` messages are through."""
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.1, end - time.monotonic()))
            assert not thread.is_alive(), f"not through after {seconds} s: {list(self.log.lines())[-5:]}"


class Consumer:
    """Claims, reads and acknowledges what came, at whichever node lets it."""

    def __init__(self, site: Site, log: Path, *, threads: int = 6) -> None:
        self.log, self._site, self.doors = Log(log), site, site.doors()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)]

    def __enter__(self) -> "Consumer":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, number: int) -> None:
        with self._site.hosts["partner"]:
            for door in itertools.cycle(self.doors[number % 2 :] + self.doors[: number % 2]):
                if self._stop.is_set():
                    return
                try:
                    while not self._stop.is_set():
                        found = door.claim(limit=10, lease=30)
                        for delivery in found:
                            self._take(door, delivery)
                        if not found:
                            self._stop.wait(0.2)
                except (OSError, GatewayProblem, http.client.HTTPException):
                    self._stop.wait(0.2)

    def _take(self, door, delivery: dict) -> None:
        message = delivery["message"]
        digests = [hashlib.sha256(door.payload(message["id"], part["cid"])).hexdigest() for part in message["parts"]]
        self.log.note("delivered", message_id=message["message_id"], digest="+".join(digests), redelivered=delivery["redelivered"])
        door.ack(delivery)
        self.log.note("acked", message_id=message["message_id"])

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


@dataclass
class Verdict:
    """What the logs say. Ids of messages; all but `sent` and `receipted` are to be empty."""

    sent: set[str] = field(default_factory=set)
    receipted: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    twice: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    strange: set[str] = field(default_factory=set)
    redelivered: int = 0

    def __add__(self, other: "Verdict") -> "Verdict":
        return Verdict(self.sent | other.sent, self.receipted | other.receipted, self.lost | other.lost, self.twice + other.twice,
                       self.changed + other.changed, self.strange | other.strange, self.redelivered + other.redelivered)  # fmt: skip

    @property
    def good(self) -> bool:
        return bool(self.receipted) and not (self.lost or self.twice or self.changed or self.strange)


def judge(senders: list[Log], consumer: Log, before: list[Log] = ()) -> Verdict:
    """Hold what was sent and receipted against what was delivered. `before`: senders whose messages may still come."""
    found, digests = Verdict(), {}
    earlier = {line["message_id"] for log in before for line in log.lines() if line["what"] == "send"}
    for line in itertools.chain.from_iterable(log.lines() for log in senders):
        if line["what"] == "send":
            digests[line["message_id"]] = line["digest"]
        elif line["what"] == "receipted":
            found.receipted.add(line["message_id"])
    found.sent = set(digests)
    delivered, acked = set(), set()
    for line in consumer.lines():
        id = line["message_id"]
        if id in earlier:
            continue
        if line["what"] == "acked":
            acked.add(id)
            continue
        if id in delivered:
            # Once more, because the consumer did not say that it had it; and it is told so.
            found.redelivered += 1
            if not line["redelivered"] or id in acked:
                found.twice.append(id)
        delivered.add(id)
        if line["digest"] != digests.get(id, line["digest"]):
            found.changed.append(id)
    found.lost = found.receipted - delivered
    found.strange = delivered - found.sent
    return found


def settle(senders: list[Log], consumer: Consumer, seconds: float = 60, before: list[Log] = ()) -> Verdict:
    """The verdict when nothing more is to come, or time is over."""
    end = time.monotonic() + seconds
    while judge(senders, consumer.log, before).lost and time.monotonic() < end:
        time.sleep(1)
    time.sleep(1)  # what would come twice comes now
    return judge(senders, consumer.log, before)
