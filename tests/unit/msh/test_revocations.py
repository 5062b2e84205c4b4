"""Asking whether certificates were revoked: whom, how often, how long, and what each policy makes of the answer."""

import asyncio
import contextlib
import datetime
import time

import pytest
from aiohttp import web

from gateway.clock import SystemClock
from gateway.config import Duration, Revocation, Size, Trust
from gateway.errors import CertificateRefused
from gateway.msh import revocations as module
from gateway.msh.revocations import Revocations
from gateway.msh.rooms import Cpu
from gateway.store.memory import MemoryStore
from gateway.transport.client import Client
from gateway.transport.egress import EgressPolicy
from tests.pki import Ca, key
from tests.responder import HOUR, Responder, access, crl, now, ocsp_answer, points, serial_of

ROOT = Ca.root("Root")
DAY = datetime.timedelta(days=1)


class Clock(SystemClock):
    ahead = datetime.timedelta()

    def now(self):
        return super().now() + self.ahead


class Site:
    """One process that asks, and the CA's responder."""

    def __init__(self, responder, *, networks=("127.0.0.0/8",), store=None, **settings):
        self.responder, self.clock = responder, Clock()
        self.store = store or MemoryStore(self.clock)
        self.client = Client(EgressPolicy(networks))
        self.cpu = Cpu(1)
        settings = {"timeout": Duration(5), "deadline": Duration(10)} | settings
        self.asks = Revocations(
            Revocation(**settings), self.store, self.client, self.cpu, self.clock, allow=Trust(), issuers=(ROOT.certificate,)
        )

    def leaf(self, *kinds, name="x", ca=ROOT, **more):
        made = {"ocsp": access(f"{self.responder.url}/ocsp/{name}"), "crl": points(f"{self.responder.url}/crl/{name}")}
        return ca.leaf("AP_EE_01", key("rsa", 1).public_key(), extensions=[made[kind] for kind in kinds], **more)

    async def check(self, leaf, policy="hard", ca=ROOT):
        await self.asks.check_path((leaf, ca.certificate), policy)

    async def refusal(self, leaf, policy="hard"):
        with pytest.raises(CertificateRefused) as refused:
            await self.check(leaf, policy)
        return refused.value.reason

    async def known(self, leaf):
        import hashlib

        [found] = await self.store.revocations(certificate=hashlib.sha256(leaf).hexdigest())
        return found

    async def settled(self):
        """Wait for the questions that are under way."""
        while self.asks._asking:
            await asyncio.sleep(0.005)

    async def close(self):
        await self.asks.close()
        await self.client.close()
        self.cpu.close()


@pytest.fixture
async def responder():
    async with Responder().running() as found:
        yield found


@pytest.fixture
async def make(responder):
    made = []

    def site(**more):
        made.append(Site(responder, **more))
        return made[-1]

    yield site
    for one in made:
        await one.close()


@pytest.fixture
async def site(make):
    return make()


class TestAnswers:
    async def test_good_by_ocsp_is_asked_once_and_kept(self, site, responder):
        leaf = site.leaf("ocsp", "crl")
        responder.ocsp(ROOT, leaf)
        for _ in range(3):
            await site.check(leaf)
        assert responder.asked == ["/ocsp/x"]
        found = await site.known(leaf)
        assert (found.status, found.source, found.host, found.failing_since) == ("good", "ocsp", "127.0.0.1", None)

    async def test_revoked(self, site, responder):
        leaf = site.leaf("ocsp")
        responder.ocsp(ROOT, leaf, status="revoked")
        assert await site.refusal(leaf) == await site.refusal(leaf, "soft") == "revoked"
        await site.check(leaf, "off")

    async def test_a_list(self, site, responder):
        good, bad = site.leaf("crl"), site.leaf("crl")
        responder.answers["/crl/x"] = crl(ROOT, serial_of(bad))
        await site.check(good)
        assert await site.refusal(bad) == "revoked"
        assert responder.asked == ["/crl/x"]  # one list for all of its issuer's certificates

    async def test_the_list_where_the_responder_has_no_answer(self, site, responder):
        leaf = site.leaf("ocsp", "crl")
        responder.answers["/crl/x"] = crl(ROOT)
        for answer in (503, b"<html>", lambda body: ocsp_answer(ROOT, leaf, status="unknown")):
            responder.answers["/ocsp/x"] = answer
            site.asks._known.clear()
            site.store._revocations.clear()
            await site.check(leaf)
            assert (await site.known(leaf)).source == "crl"

    @pytest.mark.parametrize("policy", ["hard", "soft"])
    async def test_unknown_is_refused(self, site, responder, policy):
        leaf = site.leaf("ocsp")
        responder.ocsp(ROOT, leaf, status="unknown")
        assert await site.refusal(leaf, policy) == "revocation-unknown"

    async def test_every_certificate_of_a_path_but_the_anchor(self, site, responder):
        issuing = ROOT.ca("Issuing", extensions=[points(f"{responder.url}/crl/root")])
        leaf = issuing.leaf("AP_EE_01", extensions=[points(f"{responder.url}/crl/issuing")])
        path = (leaf, issuing.certificate, ROOT.certificate)
        responder.answers |= {"/crl/root": crl(ROOT), "/crl/issuing": crl(issuing)}
        await site.asks.check_path(path, "hard")
        assert sorted(responder.asked) == ["/crl/issuing", "/crl/root"]
        responder.answers["/crl/root"] = crl(ROOT, serial_of(issuing.certificate))
        site.asks._known.clear()
        site.asks._lists.clear()
        site.store._revocations.clear()
        with pytest.raises(CertificateRefused, match="revoked"):
            await site.asks.check_path(path, "soft")

    async def test_a_recorded_answer_does_not_undo_a_revocation(self, site, responder):
        leaf = site.leaf("ocsp")
        old = now() - HOUR / 2
        responder.ocsp(ROOT, leaf, status="revoked")
        assert await site.refusal(leaf) == "revoked"
        responder.ocsp(ROOT, leaf, this=old, until=2 * HOUR)
        await site.asks._ask((leaf, ROOT.certificate))
        assert await site.refusal(leaf) == "revoked"
        responder.ocsp(ROOT, leaf, this=now())  # a certificate on hold is given free by a later word
        await site.asks._ask((leaf, ROOT.certificate))
        await site.check(leaf)

    async def test_what_was_revoked_stays_so_when_the_word_has_run_out(self, site, responder):
        leaf = site.leaf("ocsp")
        responder.ocsp(ROOT, leaf, status="revoked")
        assert await site.refusal(leaf) == "revoked"
        responder.answers.clear()
        site.clock.ahead = 3 * DAY
        assert await site.refusal(leaf, "soft") == "revoked"


class TestPolicies:
    @pytest.mark.parametrize("answer", [
        503, 404, 302, b"", b"x" * 100_000, lambda body: web.Response(status=302, headers={"Location": "/ocsp/y"}),
        lambda body: web.Response(body=b"x", headers={"Content-Encoding": "gzip"}),
        lambda body: ocsp_answer(ROOT, ROOT.leaf("x"), this=now() - 3 * DAY),
    ])  # fmt: skip
    async def test_no_answer(self, site, responder, answer):
        leaf = site.leaf("ocsp")
        responder.answers["/ocsp/x"] = answer
        responder.ocsp(ROOT, leaf, "y")  # where a redirect would lead
        await site.check(leaf, "soft")
        assert await site.refusal(leaf, "hard") == "revocation-unknown"
        await site.check(leaf, "off")
        assert set(responder.asked) == {"/ocsp/x"}
        found = await site.known(leaf)
        assert found.status == "none" and found.trouble and found.failing_since is not None

    async def test_soft_ends_after_a_day(self, site, responder):
        leaf = site.leaf("ocsp")
        await site.check(leaf, "soft")
        for hours in range(1, 24):
            site.clock.ahead = hours * HOUR
            await site.check(leaf, "soft")
            await site.settled()
        site.clock.ahead = 24 * HOUR + HOUR / 10
        assert await site.refusal(leaf, "soft") == "revocation-unknown"
        responder.ocsp(ROOT, leaf, this=site.clock.now())
        await site.settled()
        site.clock.ahead += HOUR / 30
        await site.asks._ask((leaf, ROOT.certificate))
        await site.check(leaf, "hard")

    async def test_the_day_begins_anew_where_nobody_asked_for_long(self, site):
        leaf = site.leaf("ocsp")
        await site.check(leaf, "soft")
        site.clock.ahead = 20 * DAY
        await site.check(leaf, "soft")

    async def test_a_restart_does_not_begin_the_day_anew(self, site, make):
        leaf = site.leaf("ocsp")
        await site.check(leaf, "soft")
        other = make(store=site.store)
        other.clock.ahead = 23 * HOUR
        await other.check(leaf, "soft")
        third = make(store=site.store)
        third.clock.ahead = 25 * HOUR
        assert await third.refusal(leaf, "soft") == "revocation-unknown"

    async def test_a_good_answer_bridges_an_outage_until_it_runs_out(self, site, responder):
        leaf = site.leaf("ocsp")
        responder.ocsp(ROOT, leaf, until=2 * DAY)
        await site.check(leaf)
        responder.answers.clear()
        site.clock.ahead = 1.9 * DAY
        await site.check(leaf, "hard")
        site.clock.ahead = 2.1 * DAY
        assert await site.refusal(leaf, "hard") == "revocation-unknown"

    async def test_who_names_nobody_to_ask(self, site, responder):
        leaf = site.leaf()
        for _ in range(2):
            await site.check(leaf, "soft")
            assert await site.refusal(leaf, "hard") == "revocation-unknown"
            site.clock.ahead += 30 * DAY
        assert responder.asked == []

    async def test_pinned(self, site, responder):
        leaf = site.leaf("ocsp")
        responder.ocsp(ROOT, leaf, status="revoked")
        await site.asks.check_pinned(leaf)  # off, unless somebody says otherwise
        with pytest.raises(CertificateRefused, match="revoked"):
            await site.asks.check_pinned(leaf, "soft")
        stranger = Ca.root("Unknown").leaf("x")
        await site.asks.check_pinned(stranger, "soft")
        with pytest.raises(CertificateRefused, match="issuer is not known"):
            await site.asks.check_pinned(stranger, "hard")
        await site.asks.check_pinned(ROOT.certificate, "hard")  # issued by itself: nobody else could revoke it

    async def test_an_unavailable_one_is_told_once(self, site, monkeypatch):
        told = []
        monkeypatch.setattr(module.log, "event", lambda name, **facts: told.append(name))
        leaf = site.leaf("ocsp")
        for _ in range(3):
            await site.check(leaf, "soft")
        assert told == ["revocation.unavailable"]


class TestBounds:
    async def test_private_addresses_are_not_asked(self, make, responder):
        site = make(networks=())
        leaf = site.leaf("ocsp", "crl")
        responder.ocsp(ROOT, leaf)
        assert await site.refusal(leaf) == "revocation-unknown" and responder.asked == []
        assert "loopback" in (await site.known(leaf)).trouble

    async def test_a_huge_list_is_not_read_to_its_end(self, make, responder):
        site = make(max_crl=Size(1 << 20))

        async def endless(request):
            response = web.StreamResponse()
            await response.prepare(request)
            with contextlib.suppress(ConnectionError):
                for _ in range(400):
                    await response.write(bytes(1 << 18))
                    sent.append(1 << 18)
            return response

        sent = []
        runner = web.ServerRunner(web.Server(endless))
        await runner.setup()
        tcp = web.TCPSite(runner, "127.0.0.1", 0)
        await tcp.start()
        leaf = ROOT.leaf("x", extensions=[points(f"http://127.0.0.1:{tcp._server.sockets[0].getsockname()[1]}/crl")])
        try:
            assert await site.refusal(leaf) == "revocation-unknown"
            assert "exceeds 1024 KiB" in (await site.known(leaf)).trouble and sum(sent) < 40 << 20
        finally:
            await runner.cleanup()

    async def test_a_slow_one_costs_its_own_clients_a_second_and_others_nothing(self, make, responder):
        site = make(timeout=Duration(1), deadline=Duration(1))
        async with Responder().running() as quick:
            slow_leaf, quick_leaf = site.leaf("ocsp"), ROOT.leaf("x", extensions=[access(f"{quick.url}/ocsp/x")])
            quick.ocsp(ROOT, quick_leaf)
            responder.delay = 3
            began = time.monotonic()
            waiting = [asyncio.create_task(site.check(slow_leaf, "soft")) for _ in range(50)]
            await asyncio.sleep(0.05)
            await site.check(quick_leaf)
            assert not any(task.done() for task in waiting)
            await asyncio.gather(*waiting)
            assert time.monotonic() - began < 3.0 and responder.asked == ["/ocsp/x"]
            await site.settled()
            began = time.monotonic()
            await site.check(slow_leaf, "soft")  # nobody waits a second time
            assert time.monotonic() - began < 0.9

    async def test_a_waiter_that_goes_takes_nobody_with_it(self, site, responder):
        leaf = site.leaf("ocsp")
        responder.ocsp(ROOT, leaf)
        responder.delay = 0.1
        first, second = asyncio.create_task(site.check(leaf)), asyncio.create_task(site.check(leaf))
        await asyncio.sleep(0.02)
        first.cancel()
        await second
        assert responder.asked == ["/ocsp/x"]

    async def test_lists_that_are_kept_are_bounded(self, site, responder, monkeypatch):
        monkeypatch.setattr(module, "MAX_LISTS", 1000)
        for number in range(4):
            responder.answers[f"/crl/{number}"] = crl(ROOT, number + 1)
            await site.check(site.leaf("crl", name=str(number)))
        assert sum(len(octets) for _, octets in site.asks._lists.values()) <= 1000 and site.asks._lists

    async def test_certificates_that_are_remembered_are_bounded(self, site, responder, monkeypatch):
        monkeypatch.setattr(module, "MAX_KNOWN", 2)
        for _ in range(4):
            await site.check(site.leaf(), "soft")
        assert len(site.asks._known) == 2 and len(site.asks._used) <= 3

    async def test_a_hundred_thousand_entries(self, site, responder):
        bad = site.leaf("crl")
        responder.answers["/crl/x"] = crl(ROOT, *range(10**40, 10**40 + 100_000), serial_of(bad), reason=None)
        began = time.process_time()  # of all threads; the machine may have other things to do
        assert await site.refusal(bad) == "revoked"
        for _ in range(5):
            await site.check(site.leaf("crl"))
        assert time.process_time() - began < 2.0 and responder.asked == ["/crl/x"]


class TestSharing:
    async def test_what_one_process_has_asked_the_others_know(self, site, make, responder):
        leaf = site.leaf("ocsp")
        responder.ocsp(ROOT, leaf)
        await site.check(leaf)
        await make(store=site.store).check(leaf)
        assert responder.asked == ["/ocsp/x"]

    async def test_it_is_asked_again_in_the_background_before_it_runs_out(self, site, responder):
        leaf = site.leaf("ocsp")
        responder.ocsp(ROOT, leaf, until=HOUR)
        await site.check(leaf)
        site.clock.ahead = datetime.timedelta(minutes=50)
        responder.ocsp(ROOT, leaf, status="revoked", this=site.clock.now())
        await site.check(leaf)  # still good, and nobody waits
        await site.settled()
        assert await site.refusal(leaf) == "revoked"

    async def test_the_background_looks_after_what_was_shown_lately(self, site, responder, monkeypatch):
        leaf = site.leaf("ocsp")
        responder.ocsp(ROOT, leaf, until=HOUR)
        await site.check(leaf)
        site.clock.ahead = datetime.timedelta(minutes=50)
        monkeypatch.setattr(module, "INTERVAL", 0.01)
        keeper = asyncio.create_task(site.asks.keep())
        while len(responder.asked) < 2:
            await asyncio.sleep(0.01)
        site.clock.ahead = 3 * DAY
        await asyncio.sleep(0.1)
        keeper.cancel()
        assert not site.asks._used  # nobody shows it any more

    async def test_where_nobody_can_wait(self, site, responder, monkeypatch):
        leaf = site.leaf("ocsp")
        responder.ocsp(ROOT, leaf, status="revoked")
        path = (leaf, ROOT.certificate)
        site.asks.hook(path, site.clock.now())  # not known yet
        monkeypatch.setattr(module, "INTERVAL", 0.01)
        keeper = asyncio.create_task(site.asks.keep())
        while not site.asks._known:
            await asyncio.sleep(0.01)
        keeper.cancel()
        with pytest.raises(CertificateRefused, match="revoked"):
            site.asks.hook(path, site.clock.now())

    async def test_a_store_that_is_away_is_no_reason_not_to_ask(self, site, responder, monkeypatch):
        from gateway.errors import StoreUnavailable

        async def away(*_):
            raise StoreUnavailable

        for verb in ("revocation", "save_revocation"):
            monkeypatch.setattr(site.store, verb, away)
        leaf = site.leaf("ocsp")
        responder.ocsp(ROOT, leaf)
        await site.check(leaf)
