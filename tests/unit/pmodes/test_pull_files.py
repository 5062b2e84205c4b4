"""Agreements that are pulled: what legs they become, and what is refused."""

import pytest

from gateway.as4 import ns
from gateway.as4.matching import Matcher
from gateway.as4.units import PartyId
from gateway.pmodes.lint import lint
from tests.unit.pmodes.test_pmode_files import PLAIN, certs, read, refused

__all__ = ["certs", "read", "refused"]

PULLED = PLAIN.replace('action = "Order"', 'action = "Order"\nmep = "one-way-pull"\nmpc = "urn:mpc:{to}"')
#: One more partner, without an endpoint: it cannot be reached, so it fetches.
WITH_C = PULLED.replace("[[exchanges]]", '[parties."urn:c"]\ncertificate = "ap_fr_01.pem"\n[[exchanges]]\ndirection = "send"')


def by_name(pmodes):
    return {leg.pmode_id: leg for leg in pmodes.legs if not leg.is_test}


def test_each_direction_has_the_channel_of_who_receives(read):
    legs = by_name(read(PULLED))
    assert {name: (leg.mpc, leg.mep, leg.mep_binding, leg.pulled) for name, leg in legs.items()} == {
        "urn:a:urn:b:Order": ("urn:mpc:urn:b", ns.MEP_ONE_WAY, ns.BINDING_PULL, True),
        "urn:b:urn:a:Order": ("urn:mpc:urn:a", ns.MEP_ONE_WAY, ns.BINDING_PULL, True),
    }
    assert [leg.from_role for leg in legs.values()] == ["buyer", "buyer"]  # of the message, not of who asks


def test_one_exchange_serves_partners_that_cannot_be_reached(read):
    legs = by_name(read(WITH_C))
    assert {leg.mpc for leg in legs.values()} == {"urn:mpc:urn:b", "urn:mpc:urn:c"}
    assert all(leg.from_party.name == "urn:a" for leg in legs.values())


def test_where_everything_is_pulled_so_is_the_ping(read):
    for leg in read(PULLED).legs:
        if leg.is_test:
            assert leg.pulled and leg.mpc == f"urn:mpc:{leg.to_party.name}" and leg.number == 1


def test_where_something_is_pushed_the_ping_is_pushed(read):
    both = PULLED + '\n[[exchanges]]\nservice = "urn:s"\naction = "Aaa"\nfrom_role = "buyer"\nto_role = "seller"\n'
    tests = [leg for leg in read(both).legs if leg.is_test]
    assert len(tests) == 2 and not any(leg.pulled for leg in tests) and {leg.mpc for leg in tests} == {ns.DEFAULT_MPC}


@pytest.mark.parametrize(("mep", "mpc", "reply", "pulled"), [
    ("two-way-push-and-push", "", "", [False, False]),
    ("two-way-push-and-pull", "", ', mpc = "urn:mpc:{to}"', [False, True]),
    ("two-way-pull-and-push", 'mpc = "urn:mpc:{to}"', "", [True, False]),
])
def test_two_way_exchanges(read, mep, mpc, reply, pulled):
    text = PLAIN.replace('action = "Order"', f'action = "Order"\nmep = "{mep}"\ndirection = "send"\n{mpc}\nreply = {{ action = "Reply"{reply} }}')
    first, answer = [leg for leg in read(text).legs if not leg.is_test]
    assert [first.pulled, answer.pulled] == pulled and first.pmode_id == answer.pmode_id
    assert (first.from_party.name, answer.from_party.name) == ("urn:a", "urn:b")
    assert [leg.mpc for leg in (first, answer)] == [
        f"urn:mpc:{leg.to_party.name}" if leg.pulled else ns.DEFAULT_MPC for leg in (first, answer)
    ]


def test_how_often_is_a_plain_number(read):
    assert {leg.pull_every for leg in by_name(read(PULLED)).values()} == {60.0}
    found = by_name(read(PULLED.replace('self = ', 'pull_every = "5m"\nself = ')))
    assert {type(leg.pull_every) for leg in found.values()} == {float} and found.popitem()[1].pull_every == 300.0


def test_what_may_be_pushed_or_pulled_is_pushed(read):
    both = PLAIN + '\n[[exchanges]]\nid = "Fetched"\nservice = "urn:s"\naction = "Order"\nfrom_role = "buyer"\n' \
        'to_role = "seller"\nmep = "one-way-pull"\nmpc = "urn:mpc:{to}"\n'
    matcher = Matcher(read(both))
    assert not matcher.outbound(to_party=PartyId("urn:b"), action="Order").pulled


@pytest.mark.parametrize(("old", "new", "words"), [
    ('mpc = "urn:mpc:{to}"', "", "channel of its own"),
    ('mpc = "urn:mpc:{to}"', f'mpc = "{ns.DEFAULT_MPC}"', "channel of its own"),
    ('mpc = "urn:mpc:{to}"', 'mpc = "no uri"', "channel of its own"),
    ('mpc = "urn:mpc:{to}"', 'mpc = "urn:mpc:{to} "', "channel of its own"),
    ('mpc = "urn:mpc:{to}"', 'mpc = "urn:mpc"', "two parties"),
    ('endpoint = "https://b.example/as4"\n', "", "no endpoint"),
    ('mep = "one-way-pull"', 'mep = "one-way-pull"\npull_every = "0s"', "tenth of a second"),
    ('mep = "one-way-pull"', 'mep = "one-way-pull"\npull_every = "2d"', "to a day"),
    ('mep = "one-way-pull"', 'mep = "one-way-pulled"', "one-way-pull"),
    ('mep = "one-way-pull"', 'mep = "two-way-push-and-pull"', "reply"),
    ('mep = "one-way-pull"', 'mep = "two-way-push-and-pull"\nreply = { action = "x", mpc = "urn:x" }', "two parties"),
])
def test_what_cannot_be_pulled_is_refused_with_its_place(refused, old, new, words):
    assert old in PULLED
    error = refused(PULLED.replace(old, new))
    assert words in str(error) and "exchanges" in str(error)


def test_who_pulls_has_a_pinned_certificate(refused):
    assert "pinned certificate" in str(refused(WITH_C.replace('certificate = "ap_fr_01.pem"\n', "")))


def test_two_files_cannot_give_one_channel_to_two_parties(refused):
    def to(party, certificate):
        return PULLED.replace('"urn:b"', f'"{party}"').replace("ap_ee_01", certificate).replace("{to}", "one") \
            .replace('mep =', 'direction = "send"\nmep =')

    assert "two parties" in str(refused(to("urn:b", "ap_ee_01"), to("urn:c", "ap_fr_01")))


def test_one_channel_has_one_profile(refused):
    other = PULLED.replace("edelivery-as4/1.15", "oots/2.0").replace('action = "Order"', 'action = "Other"')
    assert "two profiles" in str(refused(PULLED, other))


def test_pushed_legs_are_as_they_were(read):
    for leg in read(PLAIN).legs:
        assert (leg.pulled, leg.mep_binding, leg.mpc) == (False, ns.BINDING_PUSH, ns.DEFAULT_MPC)


def test_who_fetches_everything_needs_no_endpoint(tmp_path, certs):
    def said(text):
        (tmp_path / "a.toml").write_text(text)
        return [finding for finding in lint(tmp_path, certs=certs) if finding.rule == "P011"]

    assert said(WITH_C) == []
    pushed = '\n[[exchanges]]\nservice = "urn:s"\naction = "Aaa"\nfrom_role = "buyer"\nto_role = "seller"\n'
    assert len(said(WITH_C + pushed)) == 1
