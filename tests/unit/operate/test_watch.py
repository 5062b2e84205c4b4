"""The watch on a real gateway: what it sees, tells, and to whom."""

import asyncio
import base64
import dataclasses
import datetime
import json
import os
import stat
import sys

import pytest
from msgspec.structs import replace

from gateway import log, metrics
from gateway.as4.pmode import PModeSet
from gateway.backends.webhook import WebhookSender
from gateway.client import verify_webhook
from gateway.clock import SystemClock
from gateway.config import Alerts, Secret, Tls
from gateway.config.sections import Alerts as Section
from gateway.operate import alerting
from gateway.operate.alerting import RETRIES, Hook
from gateway.operate.watch import SETTLE, OwnCertificates, Watch
from gateway.operate.watched import Watched, everything, lists, ours, ring
from gateway.store.keys import OwnKey
from gateway.store.memory import MemoryStore
from gateway.store.partner_certificates import Revocation
from tests import pki
from tests.peer import Authority, Keys
from tests.world import Listener, key_pem, to_pem, world

DAY = datetime.timedelta(days=1)
SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two octets ok").decode()


class Clock(SystemClock):
    """Time that a test moves. `jump` moves the wall clock alone."""

    def __init__(self):
        self.moment, self.mono = datetime.datetime.now(datetime.UTC), 1000.0

    def now(self):
        return self.moment

    def monotonic(self):
        return self.mono

    def pass_(self, seconds):
        self.moment += datetime.timedelta(seconds=seconds)
        self.mono += seconds

    def jump(self, days):
        self.moment += days * DAY


@pytest.fixture
async def lv(tmp_path):
    async with world(tmp_path / "lv") as made:
        yield made


@pytest.fixture
def clock():
    return Clock()


def watch_of(lv, clock, *, node_clock=None, store=None, sources=(), alerts=None):
    rooms = dataclasses.replace(
        lv.gateway._rooms, clock=node_clock or clock, store=store or MemoryStore(clock),
        config=replace(lv.gateway._rooms.config, alerts=alerts or Alerts()),
    )  # fmt: skip
    return Watch(rooms, Hook(rooms.config, rooms.store, WebhookSender(lv.gateway.door, "urn:test")), sources)


def source(*ends, clock, owner="AP_{n:02}", use="sign"):
    """So many partners whose certificates end in so many days."""
    made = [
        Watched(id=f"{n:064}", owner=owner.format(n=n), use=use, ours=False, subject=f"CN={n}",
                not_before=clock.now() - 300 * DAY, not_after=clock.now() + end * DAY)
        for n, end in enumerate(ends)
    ]  # fmt: skip
    async def more():
        return made

    return more


@pytest.fixture
def logged(monkeypatch):
    lines = []
    monkeypatch.setattr(log, "event", lambda name, **fields: lines.append((name, fields)))
    return lines


# -- what is seen --------------------------------------------------------------------------


async def test_everything_that_ends_is_seen(lv, tmp_path):
    rooms, ca, other = lv.gateway._rooms, pki.Ca.root("TLS CA"), pki.Ca.root("client CA")
    server = ca.leaf("lv.example", pki.key("ec", 1).public_key())
    (tmp_path / "server.pem").write_bytes(to_pem(server) + to_pem(ca.certificate) + key_pem(pki.key("ec", 1)))
    (tmp_path / "clients.pem").write_bytes(to_pem(other.certificate))
    tls = Tls(certificate=tmp_path / "server.pem", client_ca=tmp_path / "clients.pem")
    config = replace(rooms.config, as4=replace(rooms.config.as4, tls=tls))
    found = everything(config, rooms.keyring.value, rooms.agreements.value.pmodes)
    seen = {(w.owner, w.use, w.ours) for w in found}
    assert seen == {
        ("AP_LV_01", "sign", True), ("AP_LV_01", "decrypt", True), ("AP_EE_01", "sign", False),
        ("AP_EE_01", "encrypt", False), ("AS4 listener", "tls-server", True), ("AS4 listener", "ca", True),
        ("AS4 listener", "tls-ca", True),
    }  # fmt: skip


async def test_what_cannot_be_read_is_passed_over(lv, tmp_path):
    rooms = lv.gateway._rooms
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for name in ("broken.pem", "missing.pem"):
        config = replace(rooms.config, as4=replace(rooms.config.as4, tls=Tls(certificate=tmp_path / name)))
        assert {w.use for w in ours(config, rooms.keyring.value, rooms.agreements.value.pmodes)} == {"sign", "decrypt"}


async def test_the_gateway_tells_of_its_certificates_in_its_health(lv):
    ok, checks = await lv.gateway.ready()
    assert ok and [(name, good) for name, good, _ in checks if name == "certificates"] == [("certificates", True)]
    clock, rooms = Clock(), lv.gateway._rooms
    end = min(w.not_after for w in ours(rooms.config, rooms.keyring.value, rooms.agreements.value.pmodes))
    lv.gateway.health._certificates._rooms = dataclasses.replace(rooms, clock=clock)
    for left, good, word in ((6 * DAY, True, "warning: "), (-DAY, False, "has ended")):
        clock.moment = end - left
        lv.gateway.health.forget()
        ok, checks = await lv.gateway.ready()
        [(_, verdict, text)] = [c for c in checks if c[0] == "certificates"]
        assert (ok, verdict) == (good, good) and word in text


async def test_a_disk_that_hangs_does_not_hold_the_gateway(lv, tmp_path, monkeypatch):
    """A pipe that nobody writes to stands for a file that cannot be read for a while."""
    monkeypatch.setattr("gateway.msh.health.PATIENCE", 0.3)
    rooms, pipe = lv.gateway._rooms, tmp_path / "tls.pem"
    os.mkfifo(pipe)
    config = replace(rooms.config, as4=replace(rooms.config.as4, tls=Tls(certificate=pipe)))
    lv.gateway.health._certificates = known = OwnCertificates(dataclasses.replace(rooms, config=config))

    async def asked():
        lv.gateway.health.forget()
        ok, checks = await lv.gateway.ready()
        return ok, next(text for name, _, text in checks if name == "certificates")

    async def written():
        await asyncio.to_thread(pipe.write_bytes, (tmp_path / "lv" / "lv-sign.pem").read_bytes())

    async with asyncio.timeout(20):
        for _ in range(3):
            assert await asked() == (False, "their files cannot be read within 0.3 s")
        await written()  # one reader has waited, whoever asked
        while known._keyring is None:
            await asyncio.sleep(0.01)
        assert (await asked())[0]
        known._until = 0.0
        assert (await asked())[0], "it is read anew, and nobody waits for that"
        await written()


async def test_the_metric_has_every_certificate_and_forgets_those_that_are_gone(lv, clock):
    one = watch_of(lv, clock, sources=[source(5, 50, clock=clock)])
    await one.look()
    text = metrics.exposition()[1].decode()
    end = int((clock.now() + 5 * DAY).timestamp())
    lines = [line for line in text.splitlines() if line.startswith("gateway_cert_not_after") and 'owner="AP_00"' in line]
    assert len(lines) == 1 and 'use="sign"' in lines[0] and f'fingerprint="{0:012}"' in lines[0]
    assert abs(float(lines[0].split()[-1]) - end) < 2
    assert 'gateway_cert_lifetime_used_ratio{' in text and 'owner="us"' in text
    await watch_of(lv, clock).look()
    assert 'owner="AP_00"' not in metrics.exposition()[1].decode()


def test_a_revocation_list_is_watched_while_no_newer_one_can_be_had(clock):
    now = clock.now()
    known = Revocation(certificate="a" * 64, issuer="b" * 64, status="good", source="crl", host="crl.example", tried_at=now,
                       this_update=now - DAY, next_update=now + DAY, answered_at=now)  # fmt: skip
    failing = replace(known, failing_since=now)
    assert lists([known, replace(failing, source="ocsp"), replace(failing, next_update=None)]) == []
    [found] = lists([failing, replace(failing, certificate="c" * 64)])
    assert (found.use, found.owner, found.not_after, found.ours) == ("crl", "crl.example", now + DAY, False)
    [later] = lists([replace(failing, next_update=now + 2 * DAY)])
    assert later.id != found.id, "the next list is another one, and told of anew"


def test_keys_of_the_ring_are_watched_with_their_states():
    ca = Authority()
    keys = {state: Keys.make("AP_LV_01", "rsa", ca).signing for state in ("ACTIVE", "ANNOUNCED", "DRAINING", "RETIRED")}
    own = [
        OwnKey(id=state, uses=("sign",), algorithm="RSA 2048", public=b"", certificate=der, states={"sign": state}, since={},
               created_at=datetime.datetime.now(datetime.UTC), author="a", chain=(ca.certificate,))
        for state, der in keys.items()
    ]  # fmt: skip
    found = ring(own, PModeSet())
    assert [(w.use, w.state) for w in found] == [("sign", "active"), ("ca", "active"), ("sign", "next"), ("sign", "draining")]
    assert all(w.owner == "our parties" and w.ours for w in found)


# -- what is told ----------------------------------------------------------------------------


async def test_a_restart_and_the_other_node_tell_nothing_again(lv, clock, logged):
    store = MemoryStore(clock)
    first = [watch_of(lv, clock, store=store, sources=[source(29, clock=clock)]) for _ in range(2)]
    told = [d.threshold for d in await first[0].look() if d.certificate == f"{0:064}"]
    assert sorted(told) == [30, 45] and await first[1].look() == [] and await first[0].look() == []
    again = watch_of(lv, clock, store=store, sources=[source(29, clock=clock)])
    assert await again.look() == []
    names = [(name, fields["threshold"]) for name, fields in logged if name.startswith("cert.") and fields["owner"] == "AP_00"]
    assert sorted(names) == [("cert.due", 30), ("cert.missing", 45)]


async def test_after_a_long_outage_only_the_most_urgent_is_told(lv, clock):
    store, certificates = MemoryStore(clock), source(95, clock=clock)
    one = watch_of(lv, clock, store=store, sources=[certificates])
    await one.look()
    clock.pass_(93 * 86_400)
    told = [(d.about, d.threshold) for d in await one.look() if d.certificate == f"{0:064}"]
    assert sorted(told) == [("expiry", 3), ("successor", 45)]


async def test_a_revocation_list_that_somebody_else_keeps_is_watched_like_a_certificate(lv, clock):
    one = watch_of(lv, clock, sources=[source(0.5, clock=clock, owner="CA of them", use="crl")])
    [due] = [d for d in await one.look() if "CA of them" in d.facts["owners"]]
    assert (due.about, due.threshold) == ("expiry", 1)
    assert 'use="crl"' in metrics.exposition()[1].decode()


async def test_a_storm_is_one_alert_that_names_them(lv, clock):
    store = MemoryStore(clock)
    await watch_of(lv, clock, store=store, sources=[source(*[29 + n / 10 for n in range(12)], clock=clock)]).look()
    [alert] = [a for a, *_ in store._alerts.values()]
    assert alert.data["storm"] and all(f"AP_{n:02}" in alert.data["summary"]["en"] for n in range(12))


@pytest.mark.parametrize("days", [400, -400])
async def test_a_clock_that_jumps_tells_nothing_and_a_clock_put_right_tells_as_before(lv, clock, logged, days):
    """Both clocks jump: the database's machine is the node's."""
    store = MemoryStore(clock)
    one = watch_of(lv, clock, store=store, sources=[source(*range(95, 145, 5), clock=clock)])
    await one.look()
    clock.jump(days)
    assert await one.look() == [] and ("clock.jumped" in [name for name, _ in logged])
    clock.pass_(600)
    assert await one.look() == []
    clock.jump(-days)
    clock.pass_(600)
    assert await one.look() == []
    clock.pass_(SETTLE + 1)
    before = len(store._alerts)
    assert await one.look() == [] and len(store._alerts) == before
    clock.pass_(6 * 86_400)
    assert {(d.certificate, d.threshold) for d in await one.look() if d.about == "expiry"} >= {(f"{0:064}", 90)}


async def test_a_jump_that_stays_is_believed_after_a_while_and_is_one_alert(lv, clock):
    store = MemoryStore(clock)
    one = watch_of(lv, clock, store=store, sources=[source(*range(95, 145, 5), clock=clock)])
    await one.look()
    before = len(store._events)
    clock.jump(200)
    assert await one.look() == []
    clock.pass_(SETTLE + 1)
    assert len([d for d in await one.look() if d.threshold == 0]) >= 10
    assert len(store._events) == before + 1


async def test_a_node_whose_clock_differs_from_the_databases_tells_nothing(lv, clock, logged):
    wrong = Clock()
    wrong.jump(100)
    one = watch_of(lv, clock, node_clock=wrong, sources=[source(5, clock=clock)])
    assert await one.look() == [] and [name for name, _ in logged] == ["clock.differs"]
    wrong.jump(-100)
    wrong.pass_(SETTLE + 1)
    clock.pass_(SETTLE + 1)
    assert await one.look() != []


# -- the hook --------------------------------------------------------------------------------


@pytest.fixture
async def receiver():
    made = Listener(answer=lambda content_type, body: (204, "", b""))
    made.headers = []
    handle = made.handle

    async def keep(request):
        made.headers.append(dict(request.headers))
        return await handle(request)

    made.handle = keep
    async with made.running():
        yield made


def secret_file(tmp_path):
    (tmp_path / "secret").write_text(SECRET + "\n")
    return Secret("file", str(tmp_path / "secret"))


async def test_a_url_gets_a_signed_event(lv, clock, receiver, tmp_path):
    alerts = Alerts(url=receiver.url, secret=secret_file(tmp_path))
    one = watch_of(lv, clock, sources=[source(5, clock=clock)], alerts=alerts)
    await one.look()
    await one._hook.run()
    [(content_type, body)] = receiver.received
    headers = {name.lower(): value for name, value in receiver.headers[0].items()}
    verify_webhook(headers, body, SECRET)
    event = json.loads(body)
    assert content_type == "application/cloudevents+json" and event["type"] == "gateway.cert.due"
    assert event["data"]["severity"] == "critical" and "AP_00" in event["data"]["summary"]["en"]
    await one._hook.run()
    assert len(receiver.received) == 1, "told once"


async def test_what_is_not_taken_is_told_again_and_given_up_in_the_end(lv, clock, receiver, tmp_path, logged):
    receiver.answer = lambda content_type, body: (500, "", b"")
    one = watch_of(lv, clock, sources=[source(5, clock=clock)],
                   alerts=Alerts(url=receiver.url, secret=secret_file(tmp_path)))  # fmt: skip
    await one.look()
    for wait in (0.0, *RETRIES):
        clock.pass_(wait + 0.1)
        await one._hook.run()
        await one._hook.run()
    assert len(receiver.received) == len(RETRIES) + 1 and len({json.loads(body)["id"] for _, body in receiver.received}) == 1
    clock.pass_(86_400)
    await one._hook.run()
    assert len(receiver.received) == len(RETRIES) + 1
    names = [name for name, _ in logged if name.startswith("alert.")]
    assert names == ["alert.retrying"] * len(RETRIES) + ["alert.parked"]
    assert SECRET not in str(logged)


async def test_the_egress_policy_holds_for_alerts(lv, clock, tmp_path, logged):
    one = watch_of(lv, clock, sources=[source(5, clock=clock)],
                   alerts=Alerts(url="https://169.254.169.254/latest", secret=secret_file(tmp_path)))  # fmt: skip
    await one.look()
    await one._hook.run()
    [(name, fields)] = [line for line in logged if line[0].startswith("alert.")]
    assert name == "alert.parked" and "169.254.169.254" in fields["reason"]


async def test_a_node_without_a_hook_leaves_it_to_the_other(lv, clock, receiver, tmp_path):
    store = MemoryStore(clock)
    bare = watch_of(lv, clock, store=store, sources=[source(5, clock=clock)])
    await bare.look()
    await bare._hook.run()
    other = watch_of(lv, clock, store=store, alerts=Alerts(url=receiver.url, secret=secret_file(tmp_path)))
    await other._hook.run()
    assert len(receiver.received) == 1


def script(tmp_path, text):
    path = tmp_path / "hook"
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{text}\n")
    path.chmod(stat.S_IRWXU)
    return str(path)


async def test_a_command_gets_the_event_and_nothing_of_our_environment(lv, clock, tmp_path, monkeypatch):
    monkeypatch.setenv("GATEWAY_SECRET", "canary")
    out = tmp_path / "out.json"
    command = script(tmp_path, f"json.dump([json.load(sys.stdin), dict(os.environ), sys.argv[1:]], open({str(out)!r}, 'w'))")
    one = watch_of(lv, clock, sources=[source(5, clock=clock)], alerts=Alerts(command=(command, "--to", "duty")))
    await one.look()
    await one._hook.run()
    event, environment, arguments = json.loads(out.read_text())
    assert event["type"] == "gateway.cert.due" and arguments == ["--to", "duty"]
    assert "canary" not in str(environment) and set(environment) <= {"PATH", "LANG", "LC_CTYPE"}
    assert [state for _, state, *_ in one._rooms.store._alerts.values()] == ["DONE"]


@pytest.mark.parametrize(("text", "reason"), [
    ("sys.exit(3)", "status 3"),
    ("os.close(0); sys.exit(1)", "status 1"),
    ("time.sleep(60)", "no answer"),
    ("os.kill(os.getpid(), 9)", "status -9"),
], ids=["fails", "does not read", "hangs", "killed"])  # fmt: skip
async def test_a_command_that_fails_is_tried_again(lv, clock, tmp_path, logged, monkeypatch, text, reason):
    monkeypatch.setattr(alerting, "DEADLINE", 1.0)
    command = script(tmp_path, f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n{text}")
    one = watch_of(lv, clock, sources=[source(5, clock=clock)], alerts=Alerts(command=(command,)))
    await one.look()
    await one._hook.run()
    [(name, fields)] = [line for line in logged if line[0].startswith("alert.")]
    assert name == "alert.retrying" and reason in fields["reason"]
    await asyncio.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_a_command_that_is_not_there(lv, clock, logged):
    one = watch_of(lv, clock, sources=[source(5, clock=clock)], alerts=Alerts(command=("/no/such/program",)))
    await one.look()
    await one._hook.run()
    assert [name for name, _ in logged if name.startswith("alert.")] == ["alert.retrying"]


@pytest.mark.parametrize("wrong", [
    {"url": "https://x.example/a"},
    {"url": "ftp://x.example/a", "secret": Secret("env", "X")},
    {"url": "https://x.example/a", "secret": Secret("env", "X"), "command": ("/bin/true",)},
    {"command": ("mail",)},
    {"secret": Secret("env", "X")},
])  # fmt: skip
def test_a_hook_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ValueError):
        Section(**wrong)


async def test_the_watch_survives_what_nobody_has_thought_of(lv, clock, logged, monkeypatch):
    async def broken():
        raise OverflowError("a date of another age")

    one = watch_of(lv, clock, sources=[broken])
    monkeypatch.setattr("gateway.operate.watch.FIRST", 0.0)
    monkeypatch.setattr("gateway.operate.watch.ALERTS", 0.01)
    task = asyncio.create_task(one.keep())
    async with asyncio.timeout(5):
        while not [name for name, _ in logged if name == "incident"]:
            await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
