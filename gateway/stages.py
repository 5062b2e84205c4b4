"""The stage vocabulary, and the points at which a test may strike.

A *stage* is a named step of a message. `with stage("verify"):` is the only instrument
in the code: it feeds the message's timeline, the histograms and the DEBUG log, and
nothing else measures. A *point* is a place where a crash test may kill, pause or fail
the process [reliability 3]; in a process whose environment names none, it costs one
dictionary look-up.

    GATEWAY_CRASH=IB21        SIGKILL at the first hit of IB21
    GATEWAY_CRASH=IB21:3      at the third hit
    GATEWAY_CRASH=IB21:1:pause    SIGSTOP instead (also: raise, delay, disk_full)
    GATEWAY_CRASH=IB21,OB14   several points
    GATEWAY_CRASH_ONCE=FILE   note a point in FILE before it strikes and leave noted ones alone, so
                              that a process that is started again goes on to the next; and it is started at once
    GATEWAY_CRASH_MESSAGE=TEXT  strike only at messages whose MessageId contains TEXT, every time, and in every
                              process that is started anew: a message that kills whoever works on it
    GATEWAY_POINTS=FILE       append the name of every point at its first hit
"""

import errno
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from msgspec import Struct

OUTBOUND = (
    "submit", "validate", "match", "advise", "store", "package", "sign", "encrypt",
    "wait", "connect", "send", "receipt", "settle", "notify",
)
INBOUND = (
    "pull", "accept", "read", "parse", "match", "verify", "decrypt", "inflate", "validate", "advise",
    "dedupe", "store", "receipt", "respond", "deliver", "ack",
)
STAGES = frozenset(OUTBOUND + INBOUND)

#: Every point, with the stage it belongs to. A test fails when one is never hit.
POINTS: dict[str, str] = {
    "IB01": "accept",   # request line and headers are here, nothing of the body
    "IB03": "read",     # in the middle of a payload part
    "IB04": "read",     # the spool takes its first block
    "IB05": "read",     # after the last byte
    "IB06": "parse",    # before the envelope is parsed
    "IB07": "match",    # before the claimed party's certificates are looked up
    "IB08": "verify",   # SignatureValue is right
    "IB09": "verify",   # digests of Messaging and Body are right
    "IB10": "decrypt",  # in the middle of a part
    "IB11": "decrypt",  # the tag of a part is right
    "IB12": "verify",   # a part does not meet its digest
    "IB13": "inflate",  # in the middle of inflating
    "IB14": "receipt",  # before the receipt is signed
    "IB15": "store",    # transaction begun
    "IB16": "store",    # before the message row
    "IB17": "store",    # after a payload chunk
    "IB21": "store",    # before COMMIT
    "IB23": "store",    # COMMIT done, we do not know it yet
    "IB24": "respond",  # before the answer
    "IB26": "respond",  # after the answer
    "DL01": "deliver",  # a delivery job is claimed
    "DL02": "deliver",  # in the middle of a payload download
    "DL03": "deliver",  # the webhook was posted, its answer is not noted
    "DL04": "ack",      # before the ack is committed
    "DL05": "ack",      # the ack is committed, the answer not sent
    "OB01": "store",    # before the submission is committed
    "OB02": "store",    # submission committed, producer not answered
    "OB03": "wait",     # a send job is claimed
    "OB04": "wait",     # the attempt row is committed
    "OB06": "encrypt",  # before the content key is wrapped
    "OB07": "sign",     # before the signature
    "OB08": "connect",  # before the connection
    "OB09": "send",     # in the middle of the body
    "OB10": "receipt",  # body sent, no answer read
    "OB12": "receipt",  # answer read, not judged
    "OB13": "receipt",  # receipt verified
    "OB14": "settle",   # before the result is committed
    "OB15": "settle",   # result committed
    "OB17": "notify",   # before the producer is notified
    "HD01": "wait",     # a held message is claimed for who pulls
    "HD02": "respond",  # it is handed out, nothing of the answer is sent
    "HD03": "respond",  # in the middle of the answer
    "HD04": "settle",   # before a held message is made ready again, or given up
    "PL01": "pull",     # a channel is claimed, nothing is asked
    "PL02": "pull",     # the answer to our PullRequest begins
    "PL03": "receipt",  # the receipt of a pulled message is claimed
    "PL04": "receipt",  # it was sent, and that is not noted
    "AG01": "store",    # a revision of agreements or keys is proposed, nobody has looked at it
    "AG02": "match",    # loaded and tested, not acknowledged
    "AG03": "match",    # acknowledged, not settled
    "AG04": "store",    # everybody has acknowledged, before it is made active
    "AG05": "match",    # active, not in force in this process
    "AG06": "match",    # in force in this process, nobody was told
    "RT01": "settle",   # a partner refuses a new certificate, nobody has proposed to go back
    "RT02": "settle",   # it is back on the one before, its messages are not queued
    "RT03": "settle",   # a refused message is about to be queued again
    "RT04": "settle",   # it is queued, others are not
    "AU01": "deliver",  # a request for an agreement update is read, before it is noted
    "AU02": "deliver",  # it is noted, and its delivery is not
    "AU03": "store",    # it is approved, before the certificate is staged
    "AU04": "store",    # the certificate is staged, and that is not noted
    "AU05": "submit",   # the answer is submitted, and that is not noted
    "AU06": "deliver",  # an answer to a request of ours is read, before it is noted
    "AU07": "submit",   # a request of ours is submitted, and that is not noted
    "AL01": "notify",   # what is due of certificates is told, nobody has heard of it
    "AL02": "notify",   # an alert is claimed, the hook is not told
    "AL03": "notify",   # the hook was told, and that is not noted
    "MT01": "deliver",  # retention, in the middle of a batch
    "MT02": "store",    # between two batches of sealing anew
    "MT03": "store",    # between two migrations
    "MT04": "store",    # messages past their time are deleted, not committed
}


class Step(Struct, frozen=True, omit_defaults=True):
    """One stage of one message: when it began (Unix seconds), how long it took, how it ended."""

    stage: str
    started: float
    seconds: float
    error: str | None = None


Listener = Callable[[str, Step], None]
#: Gets the stages of one piece of work when it is done.
Watcher = Callable[[str, list[Step]], None]

_timeline: ContextVar[list[Step] | None] = ContextVar("timeline", default=None)
_direction: ContextVar[str] = ContextVar("direction", default="inbound")
_listeners: list[Listener] = []
_watchers: list[Watcher] = []
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
#: The W3C trace context (`traceparent`) this piece of work belongs to, if any.
trace: ContextVar[str | None] = ContextVar("trace", default=None)


def listen(listener: Listener) -> None:
    """Call `listener(direction, step)` for every stage that ends in this process."""
    _listeners.append(listener)


def traceparent_of(header: str) -> str | None:
    """A W3C traceparent as it came, or None if it is not one [trace-context 3.2]."""
    return header if _TRACEPARENT.fullmatch(header) else None


def watch(watcher: Watcher | None) -> None:
    """Call `watcher(direction, steps)` at the end of every timeline; None: nobody any more."""
    _watchers[:] = [watcher] if watcher else []


@contextmanager
def timeline(direction: str) -> Iterator[list[Step]]:
    """Collect the stages of one message, in order of their end. `direction`: inbound, outbound."""
    steps: list[Step] = []
    token, other = _timeline.set(steps), _direction.set(direction)
    try:
        yield steps
    finally:
        for watcher in _watchers:
            watcher(direction, steps)
        _timeline.reset(token)
        _direction.reset(other)


class stage:
    """Run the body as stage `name`: `with stage("verify"):`. A class, at a third of the price of a generator."""

    __slots__ = ("_begin", "_name", "_started")

    def __init__(self, name: str) -> None:
        if name not in STAGES:
            raise ValueError(f"unknown stage {name}")
        self._name = name

    def __enter__(self) -> None:
        self._started, self._begin = time.time(), time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        record(self._name, self._started, time.perf_counter() - self._begin, None if kind is None else kind.__name__)


def record(name: str, started: float, seconds: float, error: str | None = None) -> None:
    """Note a stage that was measured elsewhere (parts of a streamed pass, for one)."""
    step = Step(name, started, seconds, error)
    steps = _timeline.get()
    if steps is not None:
        steps.append(step)
    direction = _direction.get()
    for listener in _listeners:
        listener(direction, step)


# -- points -------------------------------------------------------------------


class Struck(Exception):
    """Raised by a point in mode `raise`."""


def _armed(setting: str | None, struck: str | None) -> dict[str, list]:
    if not setting:
        return {}
    done: set[str] = set()
    if struck and os.path.exists(struck):
        with open(struck) as notes:
            done = set(notes.read().split())
    found = {}
    for item in setting.split(","):
        name, _, rest = item.partition(":")
        count, _, mode = rest.partition(":")
        if name not in POINTS:
            raise ValueError(f"GATEWAY_CRASH names no known point: {name}")
        if name not in done:
            found[name] = [int(count or 1), mode or "kill"]
    return found


#: The message that is worked on, for the log and for whoever strikes at it.
message_id: ContextVar[str | None] = ContextVar("message_id", default=None)

_once = os.environ.get("GATEWAY_CRASH_ONCE")
_poison = os.environ.get("GATEWAY_CRASH_MESSAGE")
_crash = _armed(os.environ.get("GATEWAY_CRASH"), _once)
_log = os.environ.get("GATEWAY_POINTS")
_seen: set[str] = set()


def point(name: str) -> None:
    """A place where a test may strike. Does nothing unless the environment asks."""
    if _log and name not in _seen:
        _seen.add(name)
        with open(_log, "a") as log:
            log.write(name + "\n")
    armed = _crash.get(name)
    if armed is None:
        return
    if _poison is not None:
        if _poison in (message_id.get() or ""):
            _strike(name, armed[1])
        return
    armed[0] -= 1
    if armed[0] == 0:
        _strike(name, armed[1])


def _strike(name: str, mode: str) -> None:
    if _once:
        with open(_once, "a") as notes:
            notes.write(name + "\n")
            notes.flush()
            os.fsync(notes.fileno())
    if mode == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif mode == "pause":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif mode == "delay":
        time.sleep(2)
    elif mode == "disk_full":
        raise OSError(errno.ENOSPC, f"no space left on device (point {name})")
    else:
        raise Struck(name)
