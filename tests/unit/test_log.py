"""Log lines: bounded, inert, without secrets and people; a closed list of events [threats M02-M04]."""

import ast
import fcntl
import io
import json
import logging
import os
from pathlib import Path
from uuid import UUID

import pytest

from gateway import log
from gateway.errors import SendFailed, StoreUnavailable

ROOT = Path(__file__).parents[2]


@pytest.fixture
def written():
    """A function that returns what was written since the last call, and clears it."""
    stream = io.StringIO()
    root, gateway = logging.getLogger(), logging.getLogger("gateway")
    before = root.handlers[:], root.level, gateway.level
    log.configure(stream=stream, node="a", plain=False)

    def take():
        text = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        return text

    yield take
    for handler in root.handlers[:]:
        if getattr(handler, "ours", False):
            root.removeHandler(handler)
    root.level, gateway.level = before[1:]
    logging.captureWarnings(False)


def line(written):
    text = written()
    assert text.endswith("\n") and text.count("\n") == 1
    return json.loads(text)


def test_a_line(written):
    token = log.message_id.set("m1@host")
    log.event("message.received", party="AP_EE_01", size=3, ok=True, missing=None, id=UUID(int=1))
    log.message_id.reset(token)
    facts = line(written)
    assert facts.pop("ts").endswith("Z")
    assert facts == {
        "level": "info", "event": "message.received", "msg_id": "m1@host", "party": "AP_EE_01", "size": 3, "ok": True,
        "id": str(UUID(int=1)), "node": "a",
    }  # fmt: skip


def test_only_known_events():
    with pytest.raises(ValueError, match="unknown event"):
        log.event("message.eaten")


def test_every_event_in_the_code_is_in_the_list_and_the_other_way_round():
    used = set()
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("log.event", "event") and node.args:
                if isinstance(node.args[0], ast.Constant):
                    used.add(node.args[0].value)
                elif ast.unparse(node.func) == "log.event":
                    used |= {n.value for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant)}
    assert used - log.EVENTS.keys() == set()
    assert log.EVENTS.keys() - used <= {"library", "log.dropped"}


def test_events_are_documented():
    page = (ROOT / "docs" / "operations.md").read_text()
    assert [name for name in log.EVENTS if f"`{name}`" not in page] == []


@pytest.mark.parametrize("text", [
    'a\nb', 'a\r\n{"event":"message.received"}', "\x1b[31mred\x1b[0m", "\x9b31m", "a\u2028b", "a\u202eb", "nul\0", "\ud800", "\ue000",
    "%s %d {} {0.__class__} ${jndi:ldap://x}", '"}', "\\",
])  # fmt: skip
def test_values_are_one_inert_line(written, text):
    log.event("message.refused", reason=text)
    raw = written()
    assert raw.count("\n") == 1 and raw[:-1].isprintable()
    assert json.loads(raw)["event"] == "message.refused"


@pytest.mark.parametrize("text", ["x" * 511, "x" * 512, "x" * 513, "ä" * 256, "ä" * 257, "x" * 10**6, "\x1b" * 600])
def test_values_are_bounded(written, text):
    log.event("message.refused", reason=text)
    shown = line(written)["reason"]
    assert len(shown.encode()) <= 512
    assert (shown == text) == (len(text.encode()) <= 512 and text.isprintable())


class Key:
    def __repr__(self):
        return "the private key"

    __str__ = __repr__


@pytest.mark.parametrize("fields", [
    {"reason": Key()}, {"reason": b"canary"}, {"reason": ["canary"]}, {"reason": {"a": "canary"}}, {"password": "canary"},
    {"client_secret": "canary"}, {"api_token": "canary"}, {"signing_key": "canary"}, {"authorization": "canary"},
    {"reason": "postgresql://gateway:canary@db/x"}, {"reason": "Bearer canary"}, {"reason": "whsec_canary"},
    {"reason": "-----BEGIN PRIVATE KEY-----\ncanary"}, {"reason": "token gw_canaryABCDEFGHIJKLMNOP refused"},
])  # fmt: skip
def test_what_is_secret_or_no_scalar_is_not_written(written, fields):
    log.event("incident", **fields)
    raw = written()
    assert "canary" not in raw and "private key" not in raw.replace("BEGIN PRIVATE KEY", "").lower()


def test_messages_of_foreign_exceptions_are_left_out(written):
    class CheckViolationError(Exception):
        sqlstate, constraint_name, table_name = "23514", "message_state", "message"

    try:
        try:
            raise CheckViolationError("Failing row contains (Jānis Bērziņš)")
        except CheckViolationError:
            int("Jānis")
    except ValueError as error:
        log.event("incident", level="error", exc_info=error)
    raw = written()
    facts = json.loads(raw)
    assert "Jānis" not in raw and "J\\u0101nis" not in raw
    assert (facts["error"], facts["cause"]) == ("ValueError", "CheckViolationError")
    assert facts["stack"] and "test_log.py" in facts["stack"][-1]


def test_our_own_and_the_systems_messages_are_written(written):
    for error, shown in [
        (StoreUnavailable("no writer"), "StoreUnavailable: no writer"),
        (SendFailed("see postgresql://u:canary@h/x"), "SendFailed: see postgresql://[redacted]@h/x"),
        (OSError(28, "No space left on device", "/a/file/of/somebody"), "OSError: [28] No space left on device"),
    ]:
        log.event("incident", exc_info=error)
        assert line(written)["error"] == shown


def test_database_errors_tell_code_and_constraint(written):
    error = type("UniqueViolationError", (Exception,), {"sqlstate": "23505", "constraint_name": "message_once"})("DETAIL: x")
    log.event("incident", exc_info=error)
    facts = line(written)
    assert (facts["sqlstate"], facts["constraint_name"]) == ("23505", "message_once")


def test_libraries_end_in_the_same_stream_at_warning(written):
    for name in ("hypercorn.error", "signxml", "zeep", "some.library"):
        logging.getLogger(name).info("chatter")
        assert written() == ""
        logging.getLogger(name).warning("first\nsecond %s", "third")
        facts = line(written)
        assert (facts["event"], facts["logger"], facts["text"]) == ("library", name, "first")


def test_levels(written):
    log.event("stage", level="debug", stage="verify")
    assert written() == ""
    log.event("store.unavailable", level="error")
    assert line(written)["level"] == "error"


def test_plain_lines_are_inert_too():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(log.PlainFormatter())
    record = logging.LogRecord("gateway", 30, "", 0, "message.refused", None, None)
    record.fields = {"reason": "a\x1b[2Jb c", "code": "EBMS:0101"}
    handler.handle(record)
    text = stream.getvalue()
    assert text[:-1].isprintable() and 'reason="a\\x1b[2Jb c" code=EBMS:0101' in text


class Pipe:
    """A pipe nobody reads until told to."""

    def __init__(self):
        self.read_end, self.write_end = os.pipe()
        fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, 4096)
        self.writer = log.LineWriter(self.write_end)
        self.writer.setFormatter(log.JsonFormatter())

    def event(self, **fields):
        record = logging.LogRecord("gateway", 20, "", 0, "message.received", None, None)
        record.fields = fields
        self.writer.handle(record)

    def lines(self):
        os.set_blocking(self.read_end, False)
        text = b""
        while True:
            self.writer._drain()
            try:
                block = os.read(self.read_end, 65536)
            except BlockingIOError:
                return [json.loads(item) for item in text.decode().splitlines()]
            text += block

    def close(self):
        os.close(self.read_end)
        os.close(self.write_end)


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_a_stuck_reader_stops_nobody_and_costs_only_what_does_not_fit(pipe, monkeypatch):
    monkeypatch.setattr(log, "WAITING_LINES", 50)
    for number in range(200):
        pipe.event(number=number)
    before = pipe.lines()
    assert [facts["number"] for facts in before] == list(range(len(before)))
    assert 50 <= len(before) < 200
    pipe.event(number=200)
    dropped, last = pipe.lines()
    assert dropped["event"] == "log.dropped" and dropped["count"] == 200 - len(before)
    assert last["number"] == 200


def test_long_lines_come_out_whole(pipe):
    for number in range(3):
        pipe.event(number=number, **{f"f{n}": "x" * 512 for n in range(12)})
    assert [facts["number"] for facts in pipe.lines()] == [0, 1, 2]


def test_a_full_disk_keeps_nobody_from_ending(monkeypatch):
    with open("/dev/full", "wb", buffering=0) as full:
        writer = log.LineWriter(full.fileno())
        writer.setFormatter(log.JsonFormatter(""))
        for _ in range(3):
            writer.handle(logging.LogRecord("gateway", logging.INFO, "", 0, "gateway.stopped", None, None))
        writer.flush()
