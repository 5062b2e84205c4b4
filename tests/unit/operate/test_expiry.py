"""When certificates that end are told, and how it is said."""

import datetime
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import SystemClock
from gateway.operate import expiry
from gateway.operate.expiry import STORM, THRESHOLDS, judge, say
from gateway.operate.watched import Watched
from gateway.store.memory import MemoryStore

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


class Clock(SystemClock):
    moment = NOW

    def now(self):
        return self.moment


def cert(id="a", days=100.0, *, owner="AP_EE_01", use="sign", ours=False, state="active"):
    return Watched(
        id=id, owner=owner, use=use, ours=ours, state=state, subject=f"CN={owner}", not_before=NOW - 300 * DAY,
        not_after=NOW + days * DAY,
    )  # fmt: skip


def told(watched, now=NOW, about="expiry"):
    return {(d.certificate, d.threshold) for d in judge(watched, now) if d.about == about and not d.early}


@pytest.mark.parametrize(("days", "threshold"), [
    (90.01, None), (90, 90), (60.01, 90), (60, 60), (30.01, 60), (30, 30), (14, 14), (7.5, 14), (7, 7), (3, 3), (1.01, 3),
    (1, 1), (0.01, 1), (0, 0), (-0.01, 0), (-4000, 0),
])  # fmt: skip
def test_the_most_urgent_threshold_counts(days, threshold):
    assert told([cert(days=days)]) == ({("a", threshold)} if threshold is not None else set())


def test_one_certificate_of_many_is_one():
    """A CA that ten partners lead to, and a certificate that signs and decrypts."""
    shared = [cert("ca", 29, owner=f"AP_{n:02}", use="ca") for n in range(10)]
    both = [cert("rsa", 5, owner="AP_LV_01", use=use, ours=True) for use in ("sign", "decrypt")]
    found = [d for d in judge([*shared, *both], NOW) if d.about == "expiry"]
    assert {(d.certificate, d.threshold) for d in found} == {("ca", 30), ("rsa", 7)} and len(found) == 2
    facts = {d.certificate: d.facts for d in found}
    assert facts["ca"]["owners"] == [f"AP_{n:02}" for n in range(10)]
    assert facts["rsa"]["uses"] == ["decrypt", "sign"] and facts["rsa"]["days"] == 5


def test_what_drains_is_nobodys_business():
    assert judge([cert(days=-3, use="decrypt", ours=True, state="draining")], NOW) == []


@pytest.mark.parametrize(("others", "missing"), [
    ([], True),
    ([cert("b", 400, state="next")], False),
    ([cert("b", 40.5, state="next")], True),  # ends with it
    ([cert("b", 400, use="encrypt")], True),  # is for something else
    ([cert("b", 400, owner="AP_FI_01")], True),
], ids=["alone", "a next one", "ends with it", "other use", "other owner"])  # fmt: skip
def test_a_next_certificate_is_missed_45_days_before(others, missing):
    one = cert(days=40)
    assert (("a", 45) in told([one, *others], about="successor")) is missing
    assert ("a", 45) not in told([one, *others], NOW - 6 * DAY, about="successor")
    assert ("a", 45) not in told([one, *others], NOW + 41 * DAY, about="successor"), "then it is over, and that is said"


def test_of_cas_and_lists_nobody_has_a_next_one():
    assert told([cert(days=10, use=use) for use in ("ca", "tls-ca", "crl")], about="successor") == set()


# -- storms ------------------------------------------------------------------------------


def partners(*days, first=0):
    return [cert(f"c{n}", d, owner=f"AP_{n:02}") for n, d in enumerate(days, first)]


async def life(watched, days, every=1.0):
    """The alerts of so many days of looking once a day: [(day, data)]."""
    store = MemoryStore(Clock())
    store._clock.moment = NOW
    alerts = []
    for step in range(int(days / every) + 1):
        store._clock.moment = NOW + step * every * DAY
        if await store.tell(judge(watched, store._clock.moment), say):
            alerts.append((step * every, store._events[-1][5]))
    return alerts


async def test_twenty_partners_of_one_ca_are_one_alert_a_threshold():
    watched = partners(*(100 + n / 4 for n in range(20)))  # within five days
    alerts = await life(watched, 106)
    every_day = [(day, data["certificates"][0]["threshold"]) for day, data in alerts]
    for days in (90, 60, 30):
        [(_, data)] = [(day, data) for day, data in alerts if {c["threshold"] for c in data["certificates"]} == {days}]
        assert data["storm"] and len(data["certificates"]) == 20
        assert all(f"AP_{n:02}" in data["summary"]["en"] for n in range(20)), data["summary"]
    assert len(alerts) <= 3 + 1 + 2 + 3 + 5 + 5 + 5 + 5, every_day  # near the end there is one a day


async def test_a_few_partners_are_no_storm():
    watched = partners(*(91 + n for n in range(STORM - 1)))
    alerts = await life(watched, 10)
    assert [len(data["certificates"]) for _, data in alerts] == [1] * (STORM - 1)
    assert not any(data["storm"] for _, data in alerts)


async def test_a_long_row_of_ends_is_told_in_batches():
    alerts = await life(partners(*(91 + n for n in range(28))), 29)
    assert len(alerts) <= 5 and sum(len(data["certificates"]) for _, data in alerts) == 28


async def test_ours_is_not_told_early_because_of_a_storm():
    watched = [*partners(90, 90, 90, 90), cert("ours", 93, ours=True, owner="AP_LV_01")]
    alerts = await life(watched, 4)
    assert [{c["certificate"] for c in data["certificates"]} for _, data in alerts] == [{"c0", "c1", "c2", "c3"}, {"ours"}]


@given(ends=st.lists(st.floats(-5, 200), min_size=1, max_size=12), gaps=st.lists(st.floats(0.01, 60), min_size=1, max_size=25))
@settings(max_examples=150, deadline=None)
def test_each_threshold_once_and_the_most_urgent_always(ends, gaps):
    """Whenever somebody looks: what was passed since is told, the most urgent only, and nothing ever twice."""
    import asyncio

    async def run():
        store, watched, seen = MemoryStore(Clock()), partners(*ends), []
        now = NOW
        for gap in gaps:
            now += gap * DAY
            store._clock.moment = now
            fresh = [(d.certificate, d.threshold) for d in await store.tell(judge(watched, now), say) if d.about == "expiry"]
            for certificate, threshold in fresh:
                assert all(t > threshold for c, t in seen if c == certificate), "neither twice nor less urgent than before"
                seen.append((certificate, threshold))
            for one in watched:
                passed = expiry.threshold(one.not_after, now)
                assert passed is None or any(c == one.id and t <= passed for c, t in seen)

    asyncio.run(run())


# -- saying it ---------------------------------------------------------------------------


def test_it_is_said_in_two_languages():
    data = say(judge([cert(days=13, ours=True, owner="AP_LV_01", use="tls-server")], NOW)).data
    assert "AP_LV_01 (TLS server) ends on 2026-12-04, in 13 days" in data["summary"]["en"]
    assert "AP_LV_01 (TLS serveris): beidzas 2026-12-04, pēc 13 dienām" in data["summary"]["lv"]
    assert "has no next certificate" in data["summary"]["en"] and "nav nākamā" in data["summary"]["lv"]


@pytest.mark.parametrize(("days", "type", "severity"), [
    (80, "cert.due", "info"), (44, "cert.due", "warning"), (20, "cert.due", "warning"), (6, "cert.due", "critical"),
    (-1, "cert.expired", "critical"),
])  # fmt: skip
def test_how_urgent_it_is(days, type, severity):
    alert = say(judge([cert(days=days)], NOW))
    assert (alert.type, alert.data["severity"]) == (type, severity)


def test_an_alert_never_is_too_long_for_who_gets_it():
    watched = [
        cert(f"{n:064}", 25, owner=f"AP_WITH_A_LONG_NAME_{n:040}", use=use) for n in range(1000) for use in ("sign", "encrypt")
    ]
    watched += [cert(f"ca{c}", 25, owner=f"AP_WITH_A_LONG_NAME_{n:040}", use="ca") for n in range(300) for c in range(40)]
    data = say(judge(watched, NOW)).data
    assert len(json.dumps(data)) < 19_000 and data["storm"]
    assert len(data["certificates"]) + data["more"] == 2040 and "AP_WITH_A_LONG_NAME_" in data["summary"]["en"]


# -- health ------------------------------------------------------------------------------


@pytest.mark.parametrize(("watched", "ok", "text"), [
    ([], True, "none"),
    ([cert(days=8, ours=True)], True, "the first ends on 2026-11-29"),
    ([cert(days=6.9, ours=True)], True, "warning: AP_EE_01 (signing) ends on 2026-11-28, in 6 days"),
    ([cert(days=-0.1, ours=True)], False, "AP_EE_01 (signing) has ended on 2026-11-21"),
    ([cert(days=-1, ours=True, use="tls-server")], False, "AP_EE_01 (TLS server) has ended on 2026-11-20"),
    ([cert(days=-1, ours=True, use="decrypt")], True, "warning: AP_EE_01 (decryption) has ended on 2026-11-20"),
    ([cert(days=-1, ours=True, state="next")], True, "none"),
    ([cert(days=-1, ours=True, use="decrypt", state="draining")], True, "none"),
], ids=["nothing", "time", "soon", "over", "tls over", "decryption over", "next", "draining"])  # fmt: skip
def test_health_warns_below_seven_days_and_fails_when_it_is_over(watched, ok, text):
    assert expiry.health(watched, NOW) == (ok, text)


def test_thresholds_are_those_that_were_promised():
    assert THRESHOLDS == (90, 60, 30, 14, 7, 3, 1, 0)
