"""`why`: agrees with the matcher whatever the agreements and messages; matching never depends on order."""

import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.as4 import ns
from gateway.as4.matching import PARAMETERS, Matcher
from gateway.as4.pmode import PModeSet
from gateway.as4.units import AgreementRef, PartyId, Property, Service
from gateway.errors import ConfigError, ProcessingModeMismatch
from gateway.pmodes.expand import expand
from gateway.pmodes.toml import load
from gateway.pmodes.why import Question, leg_id, why
from tests.unit.pmodes import generated
from tests.unit.pmodes.test_pmode_files import OOTS, UNREGISTERED, certs  # noqa: F401 - a fixture
from tests.world import EE, LV, world


def expanded(tables):
    """The agreements of these tables; None where they contradict each other."""
    try:
        return expand(generated.documents(tables))
    except ConfigError:
        return None


def found(pmodes, message):
    """The leg as the gateway finds it, or the refusal."""
    try:
        return Matcher(pmodes).find_leg(message)
    except ProcessingModeMismatch as error:
        return error.detail


# -- order -----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(generated.files(), min_size=1, max_size=3), st.lists(generated.messages(), min_size=3, max_size=8), st.randoms())
def test_matching_does_not_depend_on_any_order(tables, messages, dice):
    pmodes = expanded(tables)
    shuffled = []
    for raw in tables:
        parties, exchanges = list(raw["parties"].items()), list(raw["exchanges"])
        dice.shuffle(parties)
        dice.shuffle(exchanges)
        shuffled.append({**raw, "parties": dict(parties), "exchanges": exchanges})
    dice.shuffle(shuffled)
    other = expanded(shuffled)
    assert (pmodes is None) == (other is None), "an order decides whether agreements contradict each other"
    assume(pmodes is not None)
    assert sorted(map(leg_id, pmodes.legs)) == sorted(map(leg_id, other.legs))
    for message in messages:
        assert found(pmodes, message) == found(other, message)
        one, two = why(pmodes, message), why(other, message)
        assert (one.matches, one.nearly, one.refusal) == (two.matches, two.nearly, two.refusal)


# -- agreement with the matcher ----------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(generated.files(), min_size=1, max_size=2), st.lists(generated.messages(), min_size=3, max_size=8))
def test_of_a_whole_header_why_says_what_find_leg_does(tables, messages):
    pmodes = expanded(tables)
    assume(pmodes is not None)
    for message in [*messages, *(as_agreed(leg, message) for leg in pmodes.legs[:4] for message in messages[:1])]:
        leg, answer = found(pmodes, message), why(pmodes, message)
        if isinstance(leg, str):
            assert not answer.matches and leg in answer.refusal and answer.refusal.startswith("EBMS:0010")
            assert answer.nearly, "there is always a nearest leg"
        else:
            assert [match.leg for match in answer.matches] == [leg] and answer.refusal is None and not answer.ask


def as_agreed(leg, message):
    """The header that a leg asks for."""
    return replace(
        message, from_party=leg.from_party.party_id, to_party=leg.to_party.party_id, from_role=leg.from_role,
        to_role=leg.to_role, service=leg.service, action=leg.action, mpc=leg.mpc, agreement_ref=leg.agreement,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(generated.files(), min_size=1, max_size=2), generated.messages(), st.data())
def test_of_a_few_words_why_finds_every_leg_that_could_be_meant_and_no_other(tables, message, data):
    pmodes = expanded(tables)
    assume(pmodes is not None)
    said = {}
    for name, value in (("from_party", message.from_party), ("to_party", message.to_party), ("service", message.service)):
        if data.draw(st.booleans()):
            said[name] = value.value
            said[{"from_party": "from_type", "to_party": "to_type", "service": "service_type"}[name]] = value.type or ""
    for name in ("from_role", "to_role", "action"):
        if data.draw(st.booleans()):
            said[name] = getattr(message, name)
    answer = why(pmodes, Question(**said), limit=50)
    matcher, expected = Matcher(pmodes), set()
    for leg in pmodes.legs:
        meant = as_agreed(leg, message)
        changes = {name: getattr(message, name) for name in said if not name.endswith("type")}
        meant = replace(meant, **changes)
        try:
            expected.add(leg_id(matcher.find_leg(meant)))
        except ProcessingModeMismatch:
            pass
    assert {leg_id(match.leg) for match in answer.matches} == expected
    assert bool(answer.ask) == (len(expected) > 1)
    for match in answer.matches:
        assert matcher.find_leg(match.message) == match.leg


@settings(max_examples=60, deadline=None)
@given(st.lists(generated.files(), min_size=1, max_size=2), generated.messages())
def test_near_misses_are_sorted_and_say_exactly_what_differs(tables, message):
    pmodes = expanded(tables)
    assume(pmodes is not None)
    nearly = why(pmodes, message, limit=50).nearly
    counts = [len(near.differs) for near in nearly]
    assert counts == sorted(counts) and all(counts)
    for near in nearly:
        leg = near.leg
        same = {
            "eb:From/eb:PartyId": message.from_party == leg.from_party.party_id,
            "eb:To/eb:PartyId": message.to_party == leg.to_party.party_id,
            "eb:From/eb:Role": message.from_role == leg.from_role, "eb:To/eb:Role": message.to_role == leg.to_role,
            "eb:Service": message.service == leg.service, "eb:Action": message.action == leg.action,
            "eb:UserMessage/@mpc": (message.mpc or ns.DEFAULT_MPC) == leg.mpc,
            "eb:AgreementRef": leg.agreement is None or message.agreement_ref == leg.agreement,
        }  # fmt: skip
        assert [d.parameter for d in near.differs] == [name for name in PARAMETERS if not same[name]]
        assert all(d.message != d.agreement for d in near.differs)


@settings(max_examples=40, deadline=None)
@given(generated.files(), generated.messages(), st.data())
def test_one_typing_error_is_the_first_near_miss(raw, message, data):
    pmodes = expanded([raw])
    assume(pmodes is not None)
    leg = data.draw(st.sampled_from([leg for leg in pmodes.legs if not leg.is_test]))
    wrong = replace(as_agreed(leg, message), action=leg.action + "s")
    answer = why(pmodes, wrong)
    assert not answer.matches
    assert [d.parameter for d in answer.nearly[0].differs] == ["eb:Action"]


# -- the words ---------------------------------------------------------------------------


@pytest.fixture
def oots(tmp_path, certs):  # noqa: F811
    (tmp_path / "a.toml").write_text(OOTS)
    return load(tmp_path, certs=certs)


def test_names_and_ids_are_enough(oots):
    answer = why(oots, Question(from_party="AP_LV_01", to_party="AP_EE_01", action="ExecuteQueryRequest"))
    (match,) = answer.matches
    assert match.leg.pmode_id == "AP_LV_01:AP_EE_01:ExecuteQueryRequest" and match.refusal is None


def test_the_nearer_spelling_comes_first(oots):
    answer = why(oots, Question(from_party="AP_LV_01", to_party="AP_EE_01", action="ExecuteQueryReqest"))
    assert answer.nearly[0].leg.action == "ExecuteQueryRequest"


@pytest.mark.parametrize(("change", "hint"), [
    ({"to_party": "ap_ee_01"}, "upper and lower case differ"),
    ({"to_type": ""}, "the type differs"),
    ({"action": "ExecuteQueryRequest "}, "a blank at an end"),
    ({"from_role": "http://sdg.europa.eu/edelivery/gatewy"}, ""),
])
def test_what_differs_is_shown_with_both_values_and_a_hint(oots, change, hint):
    said = {"from_party": "AP_LV_01", "to_party": "AP_EE_01", "action": "ExecuteQueryRequest"} | change
    answer = why(oots, Question(**said))
    assert not answer.matches and answer.nearly[0].leg.pmode_id == "AP_LV_01:AP_EE_01:ExecuteQueryRequest"
    (difference,) = answer.nearly[0].differs
    assert difference.hint == hint and difference.message != difference.agreement


def test_several_matches_say_what_to_ask(oots):
    answer = why(oots, Question(from_party="AP_LV_01", service="QueryManager"))
    assert len(answer.matches) == 3 and answer.ask == ("--action",)


def test_properties_are_judged_by_the_leg(oots):
    said = {"from_party": "AP_EE_01", "to_party": "AP_LV_01", "action": "ExecuteQueryRequest"}
    (match,) = why(oots, Question(**said, properties=(Property("originalSender", "x"),))).matches
    assert match.refusal.startswith("EBMS:0003") and "finalRecipient" in match.refusal


def test_without_an_agreement_or_with_another(oots):
    said = {"from_party": "AP_EE_01", "to_party": "AP_LV_01", "action": "ExecuteQueryRequest"}
    assert why(oots, Question(**said, agreement="")).matches and why(oots, Question(**said, agreement="urn:any")).matches


def test_no_agreements_at_all():
    answer = why(PModeSet(), Question(action="x"))
    assert (answer.matches, answer.nearly, answer.refusal) == ((), (), "there is no agreement")


# -- the real inbound ladder ---------------------------------------------------------------

MORE = f"""
[[exchanges]]
id = "Agreed"
service = "QueryManager"
service_type = "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0"
action = "ExecuteQueryRequest"
agreement = "urn:agreed"
max_part = "2MiB"

[[exchanges]]
service = "urn:orders"
action = "Order"
mep = "two-way-push-and-push"
reply = {{ action = "Confirm" }}
# {UNREGISTERED}
"""


async def test_why_agrees_with_what_the_gateway_does(tmp_path):
    dice = random.Random(20261121)
    from_party = [EE] * 5 + [PartyId("ap_ee_01", EE.type), PartyId("urn:AP_EE_01"), PartyId("AP_EE_01", LV.type)]
    to_party = [LV] * 5 + [PartyId("AP_LV_02", LV.type), EE]
    services = [Service("QueryManager", "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0")] * 3
    services += [Service("urn:QueryManager"), Service("urn:orders"), Service("LifecycleManager", services[0].type)]
    actions = ["ExecuteQueryRequest"] * 3 + ["ExceptionResponse", "Order", "Confirm", "executequeryrequest"]
    agreements = [None, None, AgreementRef("urn:agreed"), AgreementRef("urn:other"), AgreementRef("urn:agreed", "t")]
    async with world(tmp_path / "lv", more=MORE) as lv:
        pmodes = lv.gateway._rooms.agreements.value.pmodes
        outcomes = set()
        for _ in range(60):
            sent = lv.peer.message(
                from_party=dice.choice(from_party), to_party=dice.choice(to_party), service=dice.choice(services),
                action=dice.choice(actions), agreement_ref=dice.choice(agreements),
                to_role=dice.choice(["http://sdg.europa.eu/edelivery/gateway"] * 9 + ["http://sdg.europa.eu/edelivery/other"]),
            )  # fmt: skip
            said = why(pmodes, sent.message)
            answer = await lv.give(sent)
            stored = await lv.store.find(sent.message.message_id)
            if said.matches:
                (match,) = said.matches
                assert answer.code is None and match.refusal is None
                assert (stored[0].pmode_id, stored[0].backend) == (match.leg.pmode_id, match.leg.backend)
            else:
                assert answer.code == "EBMS:0010" and not stored and said.refusal.startswith("EBMS:0010")
            outcomes.add(said.matches[0].leg.pmode_id if said.matches else said.refusal)
        assert len(outcomes) >= 8, "the messages did not try enough"
