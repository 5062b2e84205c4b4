"""One line for each thing that happened: JSON for machines, plain text on a terminal.

A line has a time, a level, an event name from the closed list `EVENTS`, the message it is
about, and fields. What is written is bounded and inert: a value is a number, a truth value
or a text of at most 512 bytes with every control character escaped, so that no peer can
forge a line or run an escape sequence in somebody's terminal [threats M02]. Anything else
(a key, a message, bytes) shows as its type, never as its content, and texts that look like
credentials are cut out [threats M03]. Payloads and the people in them are never logged
[threats M04]; that is also why the message of an exception that is not ours is left out:
libraries quote the data they choked on.

A line is written with one `write` while the pipe has room for it, so lines of several
processes do not mix and a stuck reader never holds up the event loop; what finds no room
waits in a bounded queue, and what finds no place there is counted and reported.

The standard library's logging carries the records, so foreign libraries end in the same
stream, at WARNING and above.
"""

import collections
import contextlib
import functools
import logging
import os
import re
import select
import sys
import time
import traceback
from datetime import UTC, datetime
from enum import Enum
from pathlib import PurePath
from typing import Any, TextIO
from uuid import UUID

import msgspec

from gateway import metrics, stages
from gateway.errors import GatewayError

#: Every event, with what it means. The list is part of the product: alerts are built on it.
EVENTS: dict[str, str] = {
    # messages
    "message.submitted": "a producer's message is stored and will be sent",
    "message.acknowledged": "the partner's receipt is verified; the message is done",
    "message.retrying": "an attempt failed; the next one has its time",
    "message.failed": "the message will not be sent any more",
    "message.received": "a partner's message is stored and the receipt goes out",
    "message.duplicate": "a message came again; the receipt was repeated, nothing was delivered",
    "message.conflict": "a MessageId came again with another content and was refused",
    "message.refused": "a message was refused; code and reason say why",
    "message.deferred": "a message was turned away for lack of room; the partner will try again",
    "advice.failed": "a message could not be judged by the rules of OOTS; it went its way all the same",
    "message.delivered": "the consumer has taken the message over",
    "message.cancelled": "the producer had the gateway stop trying to send a message",
    "message.resent": "the producer had a message sent again at once",
    "message.held": "a backend has a message kept from being sent or delivered",
    "message.released": "a backend let a held message go",
    "message.redelivered": "the consumer has a message delivered once more",
    "receipt.late": "a receipt came for a message that was already settled or waiting",
    "discovery.failed": "a partner that no agreement names could not be looked up; `reason` is the kind of failure",
    "partner.found": "a partner no agreement names, or its certificate, is seen for the first time here",
    "certificate.next_used": "a partner signs with its next certificate for the first time; it can be promoted",
    "certificate.quarantined": "who claims to be a partner signs with a certificate nobody pinned; decide on it",
    "certificate.quarantine_full": "another such certificate was not kept: there is no room; decide on those that wait",
    "certificate.revoked": "its issuer has revoked a certificate of a partner; what is signed with it is refused",
    "revocation.unavailable": "nobody says whether a certificate was revoked; `policy` says what that means",
    "error.late": "an error signal came for a message that was already settled or waiting",
    "message.handed_out": "a partner has pulled the message; its receipt is waited for",
    "pull.repeated": "a PullRequest came a second time and was given nothing",
    "pull.failed": "a partner could not be asked for messages, or answered with an error; it is asked again later",
    "receipt.sent": "the partner has the receipt of a message we pulled",
    "receipt.unsent": "the receipt of a message we pulled did not arrive; with `retry_in` it is sent again then",
    "error.unsent": "a partner could not be told that a message we pulled from it was refused",
    "message.isolated": "processes died of it, one after the other; it is not tried any more until an operator says so",
    "delivery.parked": "a delivery or notification is given up until an operator acts",
    "webhook.disabled": "a webhook refused for good and gets no more events",
    "webhook.rotated": "a webhook signs with a new secret from now on",
    "token.refused": "a signed token was not believed; `reason` says why, the caller was not told",
    "issuer.unreachable": "the keys of a token issuer could not be fetched; those that are known serve on for a while",
    "payloads.erased": "payloads past their retention were erased",
    "partner.shut": "a partner has not answered several times in a row; its messages wait, one at a time tries",
    "partner.open": "a partner that did not answer does; its messages go out again",
    "messages.forgotten": "messages past their retention were erased; the audit has what proves it",
    "claim.lost": "work was taken over by another process while this one was doing it",
    # rooms
    "store.unavailable": "the database cannot be reached or refuses writes",
    "key.unavailable": "a private key that is needed cannot be used",
    "incident": "something the gateway cannot name; `incident` is the number the peer was told",
    # agreements
    "agreements.in_force": "this process serves a revision of the agreements from now on",
    "agreements.refused": "this process cannot serve a revision that was proposed; nothing changes anywhere",
    "agreements.trouble": "this process cannot serve the active revision; it is not ready and tries again",
    "agreements.unavailable": "an earlier revision cannot be loaded; its messages go on under the one in force",
    "certificate.refused": "a partner may refuse the certificate that signed a message; `proof`: who vouches for that",
    "certificate.going_back": "a partner refuses a certificate of ours; it is to be signed for with the one before",
    "certificate.went_back": "a partner is signed for with the certificate before, because it refused the new one",
    "certificate.resent": "messages that a partner refused for their certificate are due again, under another one",
    "certificate.used": "a partner uses a certificate of ours for the first time",
    "listener.nameless": "the AS4 listener has no certificate, neither configured nor in the ring; handshakes fail",
    "keys.in_force": "this process signs and decrypts with a ring of keys from now on",
    "keys.refused": "this process cannot open a ring of keys that was proposed; nothing changes anywhere",
    "keys.trouble": "this process cannot open the active ring of keys; it is not ready and tries again",
    "agreements.drift": "the files are not those of the revision in force; `gateway pmodes plan` shows how they differ",
    # agreement updates
    "update.received": "a partner asks to change the agreement; `update` is its number in the ledger",
    "update.repeated": "a request, or an answer, came a second time",
    "update.waiting": "a partner's request waits for an operator: `gateway parties updates show`; `reason` says why",
    "update.taken": "a partner's request was taken: its next certificate is staged",
    "update.refused": "a partner's request was refused; code and reason say why",
    "update.unusable": "a message for agreement updates was receipted and then put aside: nobody can make use of it",
    "update.delayed": "a step of an agreement update could not be done now; it is tried again",
    "update.sent": "a request of ours is on its way to the partner",
    "update.answered": "a partner answered our request; `state` says how",
    "update.undelivered": "a request of ours did not reach the partner",
    "update.timed_out": "a partner did not answer our request in the time it was given",
    # certificates, and who is told
    "cert.due": "a certificate, ours or a partner's, comes to its end in `days` days; told once a threshold",
    "cert.expired": "a certificate, ours or a partner's, has come to its end",
    "cert.missing": "a certificate comes to its end and has no successor yet",
    "clock.differs": "the clocks of this node and of the database differ by `seconds`; nothing is told of certificates",
    "clock.jumped": "the time has made a jump of `seconds`; nothing is told of certificates until it runs evenly",
    "alert.told": "the operator's hook has taken an alert",
    "alert.retrying": "the operator's hook did not take an alert; it is told again later",
    "alert.parked": "the operator's hook did not take an alert, and it is given up",
    # the audit
    "audit.anchored": "the head of the audit chain was signed; kept elsewhere, the line shows if rows go missing",
    "audit.broken": "the audit does not hold, or not from what this node has seen of it; see `gateway audit verify`",
    # processes
    "gateway.started": "all workers serve",
    "gateway.stopping": "the gateway drains and will stop",
    "gateway.stopped": "every worker is gone",
    "gateway.reloaded": "agreements and keys were read again",
    "gateway.reload_failed": "the new agreements or keys cannot be used; the old ones stay",
    "worker.started": "a worker process serves",
    "worker.stopped": "a worker process is gone because it was told to go",
    "worker.died": "a worker process is gone although nobody told it to; it is replaced",
    "worker.hung": "a worker's event loop stood still for too long; the process is killed",
    # nodes that share a database
    "node.active": "this process takes work from now on; `epoch` is that of the lease",
    "node.passive": "this process takes no work; `reason` says why",
    "store.degraded": "commits are kept by one server alone, and more is asked for",
    "store.restored": "a standby confirms commits again",
    "database.starting": "the private PostgreSQL is made, recovers, or is taken over; `text` says which",
    "database.started": "the database is there and its schema is up to date",
    "database.stopped": "the private PostgreSQL was stopped",
    "request.refused": "a request was refused before anybody looked at its body",
    # the rest
    "stage": "one stage of one message (level debug)",
    "library": "a library had something to say; `logger` names it",
    "log.dropped": "so many lines found no room because nobody read them",
}

#: The message this piece of work is about; set by the rooms, shown in every line.
message_id = stages.message_id

VALUE_BYTES = 512
#: POSIX: a write of up to so many bytes into a pipe that has room is atomic and does not block.
PIPE_ATOMIC = 4096
WAITING_LINES = 2000
FRAMES = 12

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
#: Libraries that talk too much; the root logger's WARNING would do, but some set their own level.
QUIET = ("hypercorn", "hypercorn.error", "hypercorn.access", "signxml", "zeep", "aiohttp", "asyncio", "urllib3")

_SECRET_NAME = re.compile(r"passw|secret|token|credential|authori[sz]ation|cookie|(^|_)key($|_)|dsn")
_SECRET_TEXT = re.compile(
    r"(?P<url>(?<=://)[^\s/@]*:[^\s/@]*(?=@))"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*"
    r"|(?<=[Bb]earer )\S+"
    r"|whsec_\S+|gw_[A-Za-z0-9_-]{16,}"
)
REDACTED = "[redacted]"

_logger = logging.getLogger("gateway")
_logger.addHandler(logging.NullHandler())  # a library that is not configured keeps silent


def event(name: str, *, level: str = "info", exc_info: BaseException | None = None, **fields: Any) -> None:
    """Log the event `name` of `EVENTS`. A field that is None is left out.

    Raises `ValueError` for a name that is not in the list: a slip of ours, found by a test.
    """
    if name not in EVENTS:
        raise ValueError(f"unknown event {name}")
    number = LEVELS[level]
    if number >= logging.WARNING:
        metrics.logged(name)
    if not _logger.isEnabledFor(number):
        return
    # Not through Logger.log: it would look for the caller's line, which nobody needs here.
    record = logging.LogRecord("gateway", number, "", 0, name, None, None)
    record.fields = fields
    record.error = exc_info
    _logger.handle(record)


def printable(text: str, most: int = VALUE_BYTES) -> str:
    """`text` on one line, without control, format or private characters, in at most `most` bytes of UTF-8."""
    if len(text) > most:
        text = text[: most + 1]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escape(c) for c in text)
    if len(text) * 4 > most and len(octets := text.encode("utf-8", "backslashreplace")) > most:
        text = octets[: most - 3].decode("utf-8", "ignore") + "…"
    return text


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


@functools.lru_cache(1024)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def inert(name: str, value: Any) -> str | int | float | bool:
    """What a field may show of its value."""
    if _is_secret(name):
        return REDACTED
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        if isinstance(value, Enum):
            value = value.value
        return printable(_SECRET_TEXT.sub(REDACTED, value[: 4 * VALUE_BYTES]))
    if isinstance(value, UUID | PurePath):
        return printable(str(value))
    if isinstance(value, datetime):
        return value.isoformat()
    return f"<{type(value).__name__}>"


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a line, in the order in which they are written."""
    moment = datetime.fromtimestamp(record.created, UTC)
    facts: dict[str, Any] = {
        "ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
    }
    fields = getattr(record, "fields", None)
    error = getattr(record, "error", None)
    if fields is None:
        text = printable(_SECRET_TEXT.sub(REDACTED, record.getMessage().partition("\n")[0][: 4 * VALUE_BYTES]))
        facts |= {"event": "library", "logger": record.name, "text": text}
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    else:
        facts["event"] = record.msg
    if (about := message_id.get()) is not None:
        facts["msg_id"] = printable(about)
    for name, value in (fields or {}).items():
        if value is not None:
            facts[name] = inert(name, value)
    if error is not None:
        facts |= _error_facts(error)
    return facts


def _error_facts(error: BaseException) -> dict[str, Any]:
    """Type and place of an exception; its message only where we know that it is ours or the system's."""
    facts: dict[str, Any] = {"error": _describe(error)}
    if (cause := error.__cause__ or error.__context__) is not None:
        facts["cause"] = _describe(cause)
    # PostgreSQL: the code and the constraint say it all; DETAIL quotes the row.
    for attribute in ("sqlstate", "constraint_name", "table_name"):
        if isinstance(value := getattr(error, attribute, None), str) and value:
            facts[attribute] = printable(value)
    frames = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), limit=-FRAMES, lookup_lines=False)
    if frames:
        facts["stack"] = [f"{_short(f.filename)}:{f.lineno} {f.name}" for f in frames]
    return facts


def _describe(error: BaseException) -> str:
    kind = type(error).__name__
    if isinstance(error, GatewayError):
        return printable(f"{kind}: {inert('', str(error))}")
    if isinstance(error, OSError) and error.errno is not None:
        return printable(f"{kind}: [{error.errno}] {error.strerror}")
    return kind


def _short(path: str) -> str:
    for root in ("/site-packages/", "/lib/python3"):
        if root in path:
            return path.rpartition(root)[2]
    return "/".join(PurePath(path).parts[-3:]).lstrip("/")


# -- writing --------------------------------------------------------------------


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, node: str = "") -> None:
        super().__init__()
        self._node = {"node": printable(node)} if node else {}

    def format(self, record: logging.LogRecord) -> str:
        return msgspec.json.encode(_facts(record) | self._node).decode()


COLOURS = {"warning": "33", "error": "31", "critical": "31", "debug": "2"}


class PlainFormatter(logging.Formatter):
    """For people: time, level, event, fields."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        facts = _facts(record)
        moment, level, name = (facts.pop(key) for key in ("ts", "level", "event"))
        stack = facts.pop("stack", ())
        text = f"{moment[11:23]} {level:<7} {name:<22} " + " ".join(
            f"{key}={_quoted(value)}" for key, value in facts.items()
        )
        if self._colour and level in COLOURS:
            text = f"\x1b[{COLOURS[level]}m{text}\x1b[0m"
        return "\n    ".join([text.rstrip(), *stack])


def _quoted(value: Any) -> str:
    text = str(value)
    return f'"{text}"' if " " in text or not text else text


class LineWriter(logging.Handler):
    """Writes whole lines to a file descriptor and never waits for whoever reads them."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._waiting: collections.deque[bytes] = collections.deque()
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._pass_on()
            self._send((self.format(record) + "\n").encode("utf-8", "backslashreplace"))
        except Exception:
            # A log that cannot be written must not take a message down with it.
            self._dropped += 1

    def _send(self, line: bytes) -> None:
        if len(self._waiting) >= WAITING_LINES:
            self._dropped += 1
            return
        for start in range(0, len(line), PIPE_ATOMIC):
            self._waiting.append(line[start : start + PIPE_ATOMIC])
        self._drain()

    def _drain(self) -> None:
        """Write what is waiting, as far as there is room."""
        while self._waiting and any(mask & select.POLLOUT for _, mask in self._poll.poll(0)):
            piece = self._waiting[0]
            try:
                written = os.write(self._fd, piece)
            except BlockingIOError:
                return
            if written == len(piece):
                self._waiting.popleft()
            else:
                self._waiting[0] = piece[written:]

    def _pass_on(self) -> None:
        """Make room for the next line; once there is, say how many were lost before."""
        self._drain()
        if self._dropped and len(self._waiting) < WAITING_LINES:
            record = logging.LogRecord("gateway", logging.WARNING, "", 0, "log.dropped", None, None)
            record.fields = {"count": self._dropped}
            self._dropped = 0
            self._send((self.format(record) + "\n").encode())

    def flush(self) -> None:
        """Wait up to a second for the reader; for the end of a process. A disk that is full is not waited for."""
        with self.lock, contextlib.suppress(OSError):
            deadline = time.monotonic() + 1.0
            self._drain()
            while self._waiting and time.monotonic() < deadline:
                time.sleep(0.01)
                self._drain()


def configure(*, level: str = "info", node: str = "", stream: TextIO | None = None, plain: bool | None = None) -> None:
    """Send everything to `stream` (standard output). `plain` is for people; None: when it is a terminal.

    Called once by a program's main; calling it again replaces what was set up before.
    """
    stream = stream or sys.stdout
    terminal = stream.isatty()
    handler: logging.Handler
    try:
        handler = LineWriter(stream.fileno())
    except (OSError, AttributeError, ValueError):  # not a real file: tests, mostly
        handler = logging.StreamHandler(stream)
    if terminal if plain is None else plain:
        handler.setFormatter(PlainFormatter(colour=terminal and "NO_COLOR" not in os.environ))
    else:
        handler.setFormatter(JsonFormatter(node))
    root = logging.getLogger()
    for old in root.handlers[:]:
        if getattr(old, "ours", False):
            root.removeHandler(old)
            old.close()
    handler.ours = True
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    _logger.setLevel(LEVELS[level])
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    if level == "debug" and _stage not in stages._listeners:
        stages.listen(_stage)


def _stage(direction: str, step: stages.Step) -> None:
    if _logger.isEnabledFor(logging.DEBUG):
        event("stage", level="debug", stage=step.stage, direction=direction, ms=round(step.seconds * 1e3, 3),
              error=step.error)  # fmt: skip


def flush() -> None:
    """Give lines that are waiting a second to get out; for the end of a process."""
    for handler in logging.getLogger().handlers:
        handler.flush()
