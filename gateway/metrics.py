"""What the gateway counts, shared by the worker processes of one supervisor.

Every process owns one file of doubles in the run folder and adds to it through a memory map,
so that counting costs a fraction of a microsecond and whichever process is asked for
/metrics reads all files and answers for all. Which double means what stands in a text file
beside it, one line for each metric with its labels, written once. A worker that takes a dead
one's place takes its files over, so that counters never fall and files never pile up.

Names follow Prometheus: base units, `_total`, the prefix `gateway_`. Labels are bounded:
parties and actions come from agreements, never from a message that was refused, and no label
is an id. prometheus_client writes the exposition; its own shared-memory values cost
several times as much for each count, which is why the counting is here.
"""

import bisect
import contextlib
import json
import math
import mmap
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from gateway import __version__, stages


class Metric(NamedTuple):
    """One family. `kind`: counter, gauge or histogram; `name` without the suffix of its kind."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str
    buckets: tuple[float, ...] = ()


#: From a quarter of a millisecond (parsing) to a minute (a large payload on a slow line).
STAGE_BUCKETS = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
)  # fmt: skip
#: From the fastest exchange to the last retry of a day.
MESSAGE_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0, 86400.0,
)  # fmt: skip

MESSAGES = Metric(
    "gateway_messages", "counter", ("direction", "party", "action", "outcome"), "Messages by what became of them."
)
DURATION = Metric(
    "gateway_message_duration_seconds", "histogram", ("direction", "outcome"),
    "From submission to acknowledgement, or from the first byte to the receipt.", MESSAGE_BUCKETS,
)  # fmt: skip
STAGE = Metric(
    "gateway_stage_duration_seconds", "histogram", ("direction", "stage"), "Time spent in a stage.", STAGE_BUCKETS
)
RETRIES = Metric("gateway_retries", "counter", ("party",), "Attempts that will be followed by another.")
DUPLICATES = Metric("gateway_duplicates", "counter", ("party",), "Messages that came again.")
ERRORS = Metric(
    "gateway_errors", "counter", ("code", "stage", "who"),
    "ebMS errors by code, and at whose side: us, the partner, or the network between.",
)
PAYLOAD = Metric("gateway_payload_bytes", "counter", ("direction",), "Payload content, before compression.")
RECEIPTS = Metric("gateway_receipt_verifications", "counter", ("result",), "Receipts judged, by result.")
WEBHOOKS = Metric("gateway_webhook_deliveries", "counter", ("backend", "outcome"), "Notifications to backends.")
PULLS = Metric(
    "gateway_pulls", "counter", ("side", "party", "outcome"), "PullRequests, held for them or fetched by us."
)
REVOCATION = Metric(
    "gateway_revocation_checks", "counter", ("result",), "Certificates judged, by what their issuers say of them."
)
QUEUE = Metric("gateway_queue_depth", "gauge", ("queue", "state"), "Jobs in the queue; the same on every node.")
OLDEST = Metric(
    "gateway_queue_oldest_seconds", "gauge", ("queue",), "Age of the oldest job that is not done and not given up."
)
OVERDUE = Metric(
    "gateway_queue_overdue_seconds", "gauge", ("queue",), "How long the first job that is due has waited for a worker."
)
IN_FLIGHT = Metric(
    "gateway_messages_in_flight", "gauge", ("direction", "state"),
    "Messages on their way. `later`: between two attempts, or held for the partner.",
)
INBOX = Metric("gateway_inbox_unclaimed", "gauge", ("backend",), "Messages that the backend has not taken.")
INBOX_OLDEST = Metric("gateway_inbox_oldest_seconds", "gauge", ("backend",), "Age of the oldest of them.")
PARTY_UP = Metric("gateway_party_up", "gauge", ("party",), "0: the partner does not answer, and its messages wait.")
PARTY_SUCCESS = Metric(
    "gateway_party_last_success_timestamp_seconds", "gauge", ("party",), "When the partner last gave a good receipt."
)
PARTY_RTT = Metric(
    "gateway_party_rtt_seconds", "gauge", ("party",), "Connection, body and receipt of the newest acknowledged message."
)
STORE_UP = Metric("gateway_db_up", "gauge", (), "1: the database answered the last time it was asked.")
ROLE = Metric("gateway_db_role", "gauge", ("role",), "1 for what the database is: primary, standby; all 0: away.")
SKEW = Metric("gateway_clock_skew_seconds", "gauge", (), "How far this node's clock is off the database's, at least.")
DISK = Metric("gateway_disk_free_ratio", "gauge", ("place",), "Free room of the data folder and of the spool, 0 to 1.")
ERASED = Metric("gateway_erased", "counter", ("what",), "Payloads and whole messages erased, their time over.")
HOUSE = Metric(
    "gateway_retention_last_success_timestamp_seconds", "gauge", (),
    "When retention last went through, or the node began.",
)
AUDIT = Metric(
    "gateway_audit_broken", "gauge", ("check",),
    "1: the audit does not hold. `whole`: the chain from its beginning; `seen`: from what this node has seen of it.",
)  # fmt: skip
EVENTS = Metric("gateway_events", "counter", ("event",), "Lines of the log by event, warnings and errors only.")
RESTARTS = Metric("gateway_worker_restarts", "counter", (), "Worker processes that died or hung and were replaced.")
AGREEMENTS = Metric(
    "gateway_config_revision", "gauge", ("worker",), "Revision of the agreements in force in a worker process."
)
REFUSALS = Metric(
    "gateway_signature_refusals", "counter", ("party", "proof"),
    "Errors of partners that may be about the certificate that signed the message.",
)
RETURNS = Metric(
    "gateway_signature_returns", "counter", ("party",), "Times a partner went back to an earlier certificate by itself."
)
RING = Metric("gateway_keys_ring", "gauge", ("worker",), "Ring of own keys in force in a worker process.")
CERT_END = Metric(
    "gateway_cert_not_after_timestamp_seconds", "gauge", ("owner", "use", "fingerprint"),
    "When a certificate comes to its end. `owner`: the partner, or us.",
)  # fmt: skip
CERT_USED = Metric(
    "gateway_cert_lifetime_used_ratio", "gauge", ("owner", "use", "fingerprint"),
    "Share of a certificate's time that is over.",
)  # fmt: skip
COMMIT = Metric("gateway_db_commit_seconds", "histogram", (), "A durable commit: what a node of a pair reports with.",
                STAGE_BUCKETS)  # fmt: skip
DURABLE = Metric("gateway_db_synchronous", "gauge", (), "1: a standby confirms commits; 0: none does.")
LAG = Metric("gateway_db_replication_lag_bytes", "gauge", ("standby",), "How far a standby is behind in replaying.")
ACTIVE = Metric("gateway_node_active", "gauge", ("worker",), "1: this process takes work; 0: it does not.")
LEADS = Metric("gateway_node_leads", "gauge", ("worker",), "1: the node of this process has the lease of the pair.")
BUILD = Metric("gateway_build_info", "gauge", ("version", "python"), "Always 1; the labels say what runs.")
METRICS = {m.name: m for m in list(globals().values()) if isinstance(m, Metric)}

#: Doubles in a file. 100 partners with 4 actions and 4 outcomes take 1,600; 256 KiB is nothing.
SLOTS = 32_768
#: Label sets of one metric in one process; later ones are counted as "other".
SERIES = 4_000
LABEL = 120


class Values:
    """The doubles of one process. In `folder`, or in memory alone when there is none."""

    def __init__(self, folder: Path | None = None, name: str = "0") -> None:
        self._places: dict[tuple, int] = {}
        self._series: list[tuple[Metric, tuple[str, ...], int]] = []
        self._used = 0
        self._kinds: dict[str, int] = {}
        self._index = None
        if folder is None:
            self._map = mmap.mmap(-1, SLOTS * 8)
        else:
            path = folder / f"{name}.values"
            path.touch(mode=0o600)
            with path.open("r+b") as file:
                file.truncate(SLOTS * 8)
                self._map = mmap.mmap(file.fileno(), SLOTS * 8)
            self._take_over(folder / f"{name}.index")
        self.doubles = memoryview(self._map).cast("d")

    def _take_over(self, path: Path) -> None:
        for metric, labels, place in read_index(path):
            self._places[(metric.name, *labels)] = place
            self._series.append((metric, labels, place))
            self._kinds[metric.name] = self._kinds.get(metric.name, 0) + 1
            self._used = place + size_of(metric)
        path.touch(mode=0o600)
        # Line by line, so that a reader never sees a line that is half there for long.
        self._index = path.open("a", buffering=1)
        if path.read_bytes()[-1:] not in (b"", b"\n"):
            self._index.write("\n")  # the one before was killed in the middle of a line

    def place(self, metric: Metric, labels: tuple[str, ...]) -> int:
        """Where the value of `metric` with `labels` stands; room is made at the first use."""
        place = self._places.get((metric.name, *labels))
        return place if place is not None else self._make(metric, labels)

    def _make(self, metric: Metric, labels: tuple[str, ...]) -> int:
        count = self._kinds.get(metric.name, 0)
        if count >= SERIES or self._used + size_of(metric) > SLOTS - 1024:
            labels = ("other",) * len(labels)  # the last 1024 doubles are kept for these
        key = (metric.name, *(label[:LABEL] for label in labels))
        if key in self._places:
            place = self._places[key]
        else:
            place, self._used = self._used, self._used + size_of(metric)
            self._kinds[metric.name] = count + 1
            self._series.append((metric, key[1:], place))
            if self._index is not None:
                self._index.write(json.dumps([metric.name, list(key[1:]), place]) + "\n")
        if count < SERIES:
            self._places[(metric.name, *labels)] = self._places[key] = place
        return place

    def series(self) -> list[tuple[Metric, tuple[str, ...], int]]:
        """Every metric with labels and place."""
        return list(self._series)


def size_of(metric: Metric) -> int:
    """Doubles: a histogram has one a bucket, one above all, and the sum; a gauge its value and its time."""
    return {"counter": 1, "gauge": 2, "histogram": len(metric.buckets) + 2}[metric.kind]


def read_index(path: Path) -> Iterator[tuple[Metric, tuple[str, ...], int]]:
    """What stands where in the values file beside `path`. A line that is half written is left out."""
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("]\n"):
                name, labels, place = json.loads(line)
                yield METRICS[name], tuple(labels), place


_folder: Path | None = None
_name = "memory"
_values = Values()


def configure(folder: Path | None, name: str) -> None:
    """Count in `folder` from now on, under the name of this process's place (not its pid).

    Without a folder counts are kept in memory, which is how a process begins.
    """
    global _folder, _name, _values
    _folder, _name, _values = folder, name, Values(folder, name)
    _gauge(BUILD, (__version__, platform.python_version()), 1.0)


# -- counting -------------------------------------------------------------------


def _count(metric: Metric, labels: tuple[str, ...], amount: float = 1.0) -> None:
    values = _values
    values.doubles[values.place(metric, labels)] += amount


def _gauge(metric: Metric, labels: tuple[str, ...], value: float) -> None:
    values = _values
    place = values.place(metric, labels)
    values.doubles[place] = value
    values.doubles[place + 1] = time.time()


def _observe(metric: Metric, labels: tuple[str, ...], value: float) -> None:
    values = _values
    place = values.place(metric, labels)
    doubles = values.doubles
    doubles[place + bisect.bisect_left(metric.buckets, value)] += 1.0
    doubles[place + len(metric.buckets) + 1] += value


def message(direction: str, party: str, action: str, outcome: str, seconds: float | None = None) -> None:
    """A message of an agreement reached `outcome`; `seconds` is how long that took, where it is an end."""
    _count(MESSAGES, (direction, party, action, outcome))
    if seconds is not None:
        _observe(DURATION, (direction, outcome), seconds)


def pull(side: str, party: str, outcome: str) -> None:
    """A PullRequest was answered: `held` is our side of a partner's, `fetched` our own."""
    _count(PULLS, (side, party, outcome))


def retry(party: str) -> None:
    """An attempt failed and another will follow."""
    _count(RETRIES, (party,))


def duplicate(party: str) -> None:
    """A message came again."""
    _count(DUPLICATES, (party,))


def error(code: str, stage: str, who: str) -> None:
    """An ebMS error was made here or came from a partner. `who` has the cause: us, partner, network."""
    _count(ERRORS, (code, stage, who))


def logged(event: str) -> None:
    """A warning or an error was logged."""
    _count(EVENTS, (event,))


def reached(party: str, seconds: float | None) -> None:
    """A partner gave a good receipt; `seconds` is what connection, body and receipt took, where that is known."""
    _gauge(PARTY_UP, (party,), 1.0)
    _gauge(PARTY_SUCCESS, (party,), time.time())
    if seconds is not None:
        _gauge(PARTY_RTT, (party,), seconds)


def store(*, up: bool, standby: bool = False) -> None:
    """What a look at the database found."""
    _gauge(STORE_UP, (), float(up))
    _gauge(ROLE, ("primary",), float(up and not standby))
    _gauge(ROLE, ("standby",), float(up and standby))


def clock_skew(seconds: float) -> None:
    """How far our clock is off."""
    _gauge(SKEW, (), seconds)


def disk(place: str, free: float) -> None:
    """Free room, 0 to 1."""
    _gauge(DISK, (place,), free)


def erased(what: str, count: int) -> None:
    """`what` is payloads or messages."""
    _count(ERASED, (what,), count)


def house_kept() -> None:
    """Retention went through."""
    _gauge(HOUSE, (), time.time())


def payload_bytes(direction: str, size: int) -> None:
    """Payload content that was stored."""
    _count(PAYLOAD, (direction,), size)


def receipt(result: str) -> None:
    """A receipt was judged: verified, mismatch, unsigned, refused, late."""
    _count(RECEIPTS, (result,))


def webhook(backend: str, outcome: str) -> None:
    """A notification was delivered or failed."""
    _count(WEBHOOKS, (backend, outcome))


def revocation(result: str) -> None:
    """A certificate was judged: good, revoked, unknown, no answer."""
    _count(REVOCATION, (result,))


def place() -> str:
    """The name of this process's place, as `configure` was told."""
    return _name


def agreements_revision(number: int) -> None:
    """This process serves revision `number` of the agreements from now on."""
    _gauge(AGREEMENTS, (_name,), float(number))


def refusal(party: str, proof: str) -> None:
    """A partner may have refused a message for the certificate that signed it."""
    _count(REFUSALS, (party, proof))


def went_back(party: str) -> None:
    """A partner is signed for with the certificate before."""
    _count(RETURNS, (party,))


def ring_revision(number: int) -> None:
    """This process uses ring `number` of our own keys from now on."""
    _gauge(RING, (_name,), float(number))


def commit(seconds: float) -> None:
    """A durable commit of ours took so long."""
    _observe(COMMIT, (), seconds)


def pair(*, active: bool, leads: bool) -> None:
    """The role of this process now."""
    _gauge(ACTIVE, (_name,), float(active))
    _gauge(LEADS, (_name,), float(leads))


def replication(lags: Mapping[str, int], *, durable: bool) -> None:
    """Standbys by name, with how far they are behind (octets), and whether commits wait for one."""
    _gauge(DURABLE, (), float(durable))
    for standby, lag in lags.items():
        _gauge(LAG, (standby,), float(lag))


def parties_up(shut: Iterable[str]) -> None:
    """These partners do not answer; all others that were ever named here do."""
    down = {(party,) for party in shut}
    for labels in down | {labels for metric, labels, _ in _values.series() if metric is PARTY_UP}:
        _gauge(PARTY_UP, labels, float(labels not in down))


def worker_restarted() -> None:
    """The supervisor replaced a worker."""
    _count(RESTARTS, ())


def backlog(jobs: Mapping[str, int]) -> None:
    """Jobs by `kind.state`, as the store counts them. A queue that is no longer named is empty."""
    _gauges(QUEUE, {tuple((*name.split(".", 1), "")[:2]): float(count) for name, count in jobs.items()})


def ages(oldest: Mapping[str, float], overdue: Mapping[str, float]) -> None:
    """Ages by queue, in seconds."""
    _gauges(OLDEST, {(queue,): seconds for queue, seconds in oldest.items()})
    _gauges(OVERDUE, {(queue,): seconds for queue, seconds in overdue.items()})


def inboxes(waiting: Mapping[str, tuple[int, float]]) -> None:
    """Backend -> messages it has not taken, and the age of the oldest."""
    _gauges(INBOX, {(backend,): float(count) for backend, (count, _) in waiting.items()})
    _gauges(INBOX_OLDEST, {(backend,): oldest for backend, (_, oldest) in waiting.items()})


def in_flight(messages: Mapping[tuple[str, str], int]) -> None:
    """(direction, state) -> messages."""
    _gauges(IN_FLIGHT, {labels: float(count) for labels, count in messages.items()})


def _gauges(metric: Metric, now: Mapping[tuple[str, ...], float]) -> None:
    """A family as it is now; what was there before and is not named any more becomes 0."""
    before = {labels for known, labels, _ in _values.series() if known is metric}
    for labels in before | now.keys():
        _gauge(metric, labels, now.get(labels, 0.0))


def audit_broken(check: str, broken: bool) -> None:
    """Whether the audit holds as a whole (`check` whole), and is still the one this node knows (`seen`)."""
    _gauge(AUDIT, (check,), float(broken))


def certificates(found: Iterable[tuple[str, str, str, float, float]]) -> None:
    """Owner, use, short fingerprint, and from when to when (Unix seconds) of every certificate there is. One that is
    no longer named is gone, and no alert may stand on it."""
    now, left = time.time(), {(m, labels) for m, labels, _ in _values.series() if m in (CERT_END, CERT_USED)}
    for owner, use, fingerprint, begin, end in found:
        labels = tuple(label[:LABEL] for label in (owner, use, fingerprint))
        _gauge(CERT_END, labels, end)
        _gauge(CERT_USED, labels, min(max((now - begin) / max(end - begin, 1.0), 0.0), 1.0))
        left -= {(CERT_END, labels), (CERT_USED, labels)}
    for metric, labels in left:
        _gauge(metric, labels, math.nan)


def _stage(direction: str, step: stages.Step) -> None:
    _observe(STAGE, (direction, step.stage), step.seconds)


stages.listen(_stage)


# -- exposition -----------------------------------------------------------------


def _sources() -> Iterator[tuple[memoryview, list[tuple[Metric, tuple[str, ...], int]]]]:
    if _folder is None:
        yield _values.doubles, _values.series()
        return
    for path in sorted(_folder.glob("*.index")):
        with contextlib.suppress(FileNotFoundError):
            octets = path.with_suffix(".values").read_bytes()
            yield memoryview(octets).cast("d"), list(read_index(path))


def collected() -> dict[str, dict[tuple[str, ...], list[float]]]:
    """Metric -> labels -> doubles, all processes together: sums, and for gauges the latest."""
    found: dict[str, dict[tuple[str, ...], list[float]]] = {}
    for doubles, series in _sources():
        for metric, labels, place in series:
            own = doubles[place : place + size_of(metric)].tolist()
            family = found.setdefault(metric.name, {})
            other = family.get(labels)
            if other is None:
                family[labels] = own
            elif metric.kind == "gauge":
                family[labels] = max(own, other, key=lambda pair: pair[1])
            else:
                family[labels] = [a + b for a, b in zip(own, other, strict=True)]
    return found


class _Collector:
    """Hands the numbers to prometheus_client."""

    def collect(self) -> Iterator:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, family in collected().items():
            metric = METRICS[name]
            if metric.kind == "histogram":
                made = HistogramMetricFamily(name, metric.text, labels=metric.labels)
                for labels, doubles in family.items():
                    counts, total, buckets = doubles[:-1], 0.0, []
                    for bound, count in zip((*metric.buckets, math.inf), counts, strict=True):
                        total += count
                        buckets.append(("+Inf" if bound == math.inf else str(bound), total))
                    made.add_metric(labels, buckets, doubles[-1])
            else:
                kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                made = kind(name, metric.text, labels=metric.labels)
                for labels, doubles in family.items():
                    if not math.isnan(doubles[0]):  # a gauge that was taken back
                        made.add_metric(labels, doubles[0])
            yield made


def exposition(accept: str = "") -> tuple[str, bytes]:
    """Content type and text of /metrics, for all processes, as the Accept header asks."""
    from prometheus_client import exposition as writer

    encode, content_type = writer.choose_encoder(accept)
    return content_type, encode(_Collector())


configure(None, "memory")


# -- the page ---------------------------------------------------------------------


def public_name(metric: Metric) -> str:
    """As Prometheus shows it: counters end in `_total`."""
    return f"{metric.name}_total" if metric.kind == "counter" else metric.name


def page(before: str, after: str) -> str:
    """The table of docs/operators/metrics.md between what people wrote before and after it."""
    rows = [
        f"| `{public_name(m)}` | {m.kind} | {' '.join(f'`{label}`' for label in m.labels) or '–'} | {m.text} |"
        for m in sorted(METRICS.values())
    ]
    table = ("| Name | Kind | Labels | |", "|---|---|---|---|", *rows)
    return "\n".join((before.rstrip(), "", *table, "", after.lstrip()))
