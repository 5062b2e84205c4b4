"""OpenTelemetry, with the SDK's exporter in memory."""

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway import log, stages, traces
from gateway.errors import ConfigError
from gateway.stages import traceparent_of
from tests.world import CALLER, PartSubmission, PartyRef, PropertyValue, Submission, world

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def exported():
    exporter = InMemorySpanExporter()
    traces.begin("http://127.0.0.1:4318/v1/traces", "lv-test", log.message_id.get, exporter=exporter)
    stages.trace.set(None)

    def spans(name=None):
        traces.end()  # what waits is sent
        return [s for s in exporter.get_finished_spans() if name in (None, s.name)]

    yield spans
    traces.end()
    stages.trace.set(None)


def trace_of(span) -> str:
    return f"{span.context.trace_id:032x}"


async def test_one_trace_from_the_producer_to_the_last_attempt(tmp_path, exported):
    async with world(tmp_path) as lv:
        stages.trace.set(traceparent_of(GIVEN))
        submitted = await lv.submit()
        stages.trace.set(None)  # another day, another process
        lv.listener.answer = lambda *_: None
        await lv.send_due()
        lv.listener.answer = lv.receipting
        await lv.store.requeue((await lv.store.find(submitted.message_id))[0].id)
        await lv.send_due()
    [create] = exported("as4 submit")
    sends = exported("as4 send")
    assert {trace_of(s) for s in (create, *sends)} == {GIVEN.split("-")[1]} and len(sends) == 2
    assert f"{create.parent.span_id:016x}" == GIVEN.split("-")[2]
    assert create.attributes["messaging.message.id"] == submitted.message_id and create.attributes["messaging.system"] == "as4"
    assert [s.status.is_ok for s in sends] == [False, True]
    inside = {s.name for s in exported() if s.parent is not None and s.parent.span_id == sends[1].context.span_id}
    assert {"wait", "sign", "connect", "send", "receipt", "settle"} <= inside
    for span in exported():
        assert span.start_time <= span.end_time
    [connect] = [s for s in exported("receipt") if s.parent.span_id == sends[1].context.span_id][:1]
    assert sends[1].start_time <= connect.start_time and connect.end_time <= sends[1].end_time


async def test_a_message_without_a_trace_gets_one_that_lasts(tmp_path, exported):
    async with world(tmp_path) as lv:
        await lv.submit()
        stages.trace.set(None)
        await lv.send_due()
    [create], [send] = exported("as4 submit"), exported("as4 send")
    assert trace_of(create) == trace_of(send)


async def test_what_comes_in_is_a_trace_of_its_own(tmp_path, exported):
    async with world(tmp_path) as lv:
        first, second = (lv.peer.message([("application/xml", b"<a/>")]) for _ in range(2))
        await lv.give(first)
        await lv.give(second)
    found = exported("as4 receive")
    assert [s.attributes["messaging.message.id"] for s in found] == [first.message.message_id, second.message.message_id]
    assert len({trace_of(s) for s in found}) == 2


async def test_nobody_is_in_a_trace(tmp_path, exported):
    """M04: neither originalSender, finalRecipient, payload nor the text of an error."""
    person = "Vaira-Canary"
    async with world(tmp_path) as lv:
        async def content(_):
            yield f"<Person>{person}</Person>".encode()

        await lv.door.submit(CALLER, Submission(
            to_party=PartyRef("AP_EE_01"), action="ExecuteQueryRequest", parts=(PartSubmission(mime_type="application/xml"),),
            properties=(PropertyValue("originalSender", person), PropertyValue("finalRecipient", person))), content)
        lv.listener.answer = lambda *_: (500, "text/html", f"<html>{person}</html>".encode())
        await lv.send_due()
        spoilt = lv.peer.message([("application/xml", person.encode())], digest=lambda *_: bytes(32))
        await lv.give(spoilt)
    spans = exported()
    assert len(spans) > 10 and not [s for s in spans if person in s.to_json()]


@pytest.mark.parametrize("header", ["", "00-0-0-01", GIVEN + "-x", GIVEN.upper(), GIVEN.replace("00f067aa0ba902b7", "0" * 16),
                                    "ff" + GIVEN[2:], "00-" + "0" * 32 + GIVEN[35:], GIVEN + "\r\nx: y"])
def test_what_is_no_traceparent_is_left_alone(header):
    assert traceparent_of(header) is None


def test_off_means_nothing_is_imported_and_nobody_watches():
    program = ("import sys, gateway.app, gateway.cli.worker; from gateway import stages; "
               "print([m for m in sys.modules if m.startswith('opentelemetry')], stages._watchers)")
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[] []"


def test_without_the_extra_it_is_said_at_the_start(monkeypatch):
    for name in [m for m in sys.modules if m.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigError, match=r"traces\.endpoint"):
        traces.begin("http://127.0.0.1:1", "n", lambda: None)
