"""Counting: cheap, shared between processes, bounded."""

import os
import subprocess
import sys
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway import metrics, stages


@pytest.fixture(autouse=True)
def fresh(tmp_path):
    metrics.configure(tmp_path, "0")
    yield tmp_path
    metrics.configure(None, "memory")


def samples(accept=""):
    content_type, text = metrics.exposition(accept)
    assert content_type.startswith("text/plain")
    return {
        (s.name, *sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(text.decode())
        for s in family.samples
    }


def value(name, **labels):
    return samples().get((name, *sorted(labels.items())))


def test_counters():
    metrics.message("inbound", "AP_EE_01", "ExecuteQueryRequest", "received", seconds=0.02)
    metrics.message("inbound", "AP_EE_01", "ExecuteQueryRequest", "received")
    metrics.retry("AP_EE_01")
    metrics.duplicate("AP_EE_01")
    metrics.error("EBMS:0101", "verify", "partner")
    metrics.payload_bytes("inbound", 1000)
    metrics.payload_bytes("inbound", 24)
    metrics.receipt("verified")
    metrics.webhook("rest", "delivered")
    labels = {"direction": "inbound", "party": "AP_EE_01", "action": "ExecuteQueryRequest", "outcome": "received"}
    assert value("gateway_messages_total", **labels) == 2
    assert value("gateway_message_duration_seconds_count", direction="inbound", outcome="received") == 1
    assert value("gateway_retries_total", party="AP_EE_01") == 1
    assert value("gateway_duplicates_total", party="AP_EE_01") == 1
    assert value("gateway_errors_total", code="EBMS:0101", stage="verify", who="partner") == 1
    assert value("gateway_payload_bytes_total", direction="inbound") == 1024
    assert value("gateway_receipt_verifications_total", result="verified") == 1
    assert value("gateway_webhook_deliveries_total", backend="rest", outcome="delivered") == 1
    assert [v for k, v in samples().items() if k[0] == "gateway_build_info"] == [1]


def test_stages_feed_the_histogram():
    with stages.timeline("outbound"), stages.stage("sign"):
        pass
    stages.record("wait", 0.0, 120.0)
    found = samples()
    assert found["gateway_stage_duration_seconds_count", ("direction", "outbound"), ("stage", "sign")] == 1
    wait = {dict(k[1:])["le"]: v for k, v in found.items()
            if k[0].endswith("_bucket") and ("stage", "wait") in k and ("direction", "inbound") in k}  # fmt: skip
    assert wait["60.0"] == 0 and wait["+Inf"] == 1


@pytest.mark.parametrize(("seconds", "bucket"), [(0.00025, "0.00025"), (0.000251, "0.0005"), (60.0, "60.0"), (60.1, "+Inf")])
def test_buckets_include_their_bound(seconds, bucket):
    stages.record("sign", 0.0, seconds)
    counts = [(dict(k[1:])["le"], v) for k, v in samples().items() if k[0].endswith("_bucket") and ("stage", "sign") in k]
    assert next(le for le, v in counts if v) == bucket


COUNT = """
import sys, pathlib
from gateway import metrics
metrics.configure(pathlib.Path(sys.argv[1]), sys.argv[2])
for _ in range(1000): metrics.message("inbound", "P", "A", "received")
metrics.backlog({"send.ready": int(sys.argv[2])})
"""


def run(folder, slot):
    subprocess.run([sys.executable, "-c", COUNT, folder, slot], check=True, cwd=os.getcwd())


def test_processes_are_added_up_and_a_successor_goes_on(fresh):
    run(fresh, "1")
    run(fresh, "2")
    run(fresh, "1")  # the worker in place 1 was replaced
    labels = {"direction": "inbound", "party": "P", "action": "A", "outcome": "received"}
    assert value("gateway_messages_total", **labels) == 3000
    assert sorted(p.name for p in fresh.iterdir()) == [f"{n}.{k}" for n in "012" for k in ("index", "values")]
    assert value("gateway_queue_depth", queue="send", state="ready") == 1  # who looked last


def test_a_successor_of_one_that_was_killed_in_the_middle_of_a_line(fresh):
    metrics.retry("A")
    with (fresh / "0.index").open("a") as index:
        index.write('["gateway_retries", ["B"')
    assert value("gateway_retries_total", party="A") == 1
    metrics.configure(fresh, "0")
    metrics.retry("A")
    metrics.retry("C")
    assert value("gateway_retries_total", party="A") == 2
    assert value("gateway_retries_total", party="C") == 1


def test_queues_that_are_no_longer_named_are_empty():
    metrics.backlog({"send.ready": 4, "notify.parked": 1})
    metrics.backlog({"send.ready": 2})
    assert value("gateway_queue_depth", queue="send", state="ready") == 2
    assert value("gateway_queue_depth", queue="notify", state="parked") == 0


def test_label_sets_are_bounded(monkeypatch):
    monkeypatch.setattr(metrics, "SERIES", 3)
    for n in range(10):
        metrics.retry(f"P{n}")
    found = {dict(k[1:])["party"]: v for k, v in samples().items() if k[0] == "gateway_retries_total"}
    assert found == {"P0": 1, "P1": 1, "P2": 1, "other": 7}


def test_room_is_bounded(monkeypatch):
    monkeypatch.setattr(metrics, "SLOTS", 1024 + 20)
    metrics.configure(None, "memory")
    for n in range(200):
        metrics.message("inbound", f"P{n}", "A", "received", seconds=1.0)
    assert sum(v for k, v in samples().items() if k[0] == "gateway_messages_total") == 200


def test_labels_are_escaped_and_cut():
    metrics.retry('a"\n\\' + "x" * 500)
    [party] = [dict(k[1:])["party"] for k in samples() if k[0] == "gateway_retries_total"]
    assert len(party) == metrics.LABEL and party.startswith('a"\n\\')


def test_openmetrics_on_demand():
    metrics.retry("A")
    content_type, text = metrics.exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text") and text.endswith(b"# EOF\n")


def test_names_follow_the_conventions():
    for metric in metrics.METRICS.values():
        assert metric.name.startswith("gateway_") and not metric.name.endswith("_total")
        assert not set(metric.labels) & {"message_id", "id", "conversation", "msg_id"}


def test_a_message_costs_less_than_twenty_microseconds():
    steps = [stages.Step(s, 0.0, 0.003) for s in ("read", "match", "verify", "decrypt", "inflate", "validate", "receipt", "store")]

    def one():
        for step in steps:
            metrics._stage("inbound", step)
        metrics.message("inbound", "AP_EE_01", "ExecuteQueryRequest", "received", seconds=0.01)
        metrics.payload_bytes("inbound", 1000)

    best = min(_timed(one) for _ in range(5))
    assert best < 20e-6


def _timed(call, count=2000):
    began = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - began) / count
