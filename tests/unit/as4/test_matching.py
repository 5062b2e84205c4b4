from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from gateway.as4 import ns
from gateway.as4.matching import PARAMETERS, Matcher
from gateway.as4.pmode import Leg, Party, PModeSet
from gateway.as4.units import AgreementRef, PartyId, Service, UserMessage
from gateway.errors import ProcessingModeMismatch, SubmissionRefused

SCHEME = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:oots"
BINDING = "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0"
ROLE = "http://sdg.europa.eu/edelivery/gateway"
WE = Party("we", PartyId("AP_LV", SCHEME))
FR = Party("fr", PartyId("AP_FR", SCHEME))
FI = Party("fi", PartyId("AP_FI", SCHEME))
QUERY = Service("QueryManager", BINDING)
LIFECYCLE = Service("LifecycleManager", BINDING)
AGREED = AgreementRef("urn:agreement:1")


def leg(sender: Party, receiver: Party, **other) -> Leg:
    return Leg(**{
        "pmode_id": f"{sender.name}-{receiver.name}", "profile": "oots/1.2",
        "from_party": sender, "from_role": ROLE, "to_party": receiver, "to_role": ROLE,
        "service": QUERY, "action": "ExecuteQueryRequest", **other,
    })  # fmt: skip


LEGS = (
    leg(FR, WE),
    leg(FR, WE, action="ExecuteQueryResponse"),
    leg(FR, WE, service=LIFECYCLE, action="SubmitObjectsRequest"),
    leg(FI, WE),
    leg(FR, WE, service=Service(ns.TEST_SERVICE), action=ns.TEST_ACTION, pmode_id="fr-test"),
    leg(WE, FR),
    leg(WE, FR, action="ExecuteQueryResponse"),
    leg(WE, FI),
    leg(WE, FI, service=LIFECYCLE, action="SubmitObjectsRequest"),
)


def matcher(*legs: Leg) -> Matcher:
    return Matcher(PModeSet(legs=legs or LEGS, selves=(WE,)))


MESSAGE = UserMessage(
    message_id="m@x", timestamp=datetime(2026, 11, 21, tzinfo=UTC),
    from_party=FR.party_id, from_role=ROLE, to_party=WE.party_id, to_role=ROLE,
    service=QUERY, action="ExecuteQueryRequest", conversation_id="c",
)  # fmt: skip


def test_all_parameters_equal():
    assert matcher().find_leg(MESSAGE) is LEGS[0]
    assert matcher().find_leg(replace(MESSAGE, action="ExecuteQueryResponse")) is LEGS[1]
    assert matcher().find_leg(replace(MESSAGE, mpc=ns.DEFAULT_MPC)) is LEGS[0]


def test_the_test_service_is_a_leg_like_others():
    ping = replace(MESSAGE, service=Service(ns.TEST_SERVICE), action=ns.TEST_ACTION)
    assert matcher().find_leg(ping) is LEGS[4]
    with pytest.raises(ProcessingModeMismatch):
        matcher().find_leg(replace(ping, from_party=FI.party_id))


MISMATCHES = [
    ({"from_party": PartyId("AP_DE", SCHEME)}, "eb:From/eb:PartyId"),
    ({"from_party": PartyId("AP_FR")}, "eb:From/eb:PartyId"),
    ({"from_party": PartyId("AP_FR", "")}, "eb:From/eb:PartyId"),
    ({"from_party": PartyId("ap_fr", SCHEME)}, "eb:From/eb:PartyId"),
    ({"from_party": PartyId("AP_FR ", SCHEME)}, "eb:From/eb:PartyId"),
    ({"from_party": PartyId("AP_F", SCHEME)}, "eb:From/eb:PartyId"),
    ({"to_party": PartyId("AP_LT", SCHEME)}, "eb:To/eb:PartyId"),
    ({"to_party": PartyId("AP_LV", SCHEME + "x")}, "eb:To/eb:PartyId"),
    ({"from_role": ROLE + "/"}, "eb:From/eb:Role"),
    ({"to_role": ns.ROLE_RESPONDER}, "eb:To/eb:Role"),
    ({"service": Service("QueryManager")}, "eb:Service"),
    ({"service": Service("Other", BINDING)}, "eb:Service"),
    ({"action": "executequeryrequest"}, "eb:Action"),
    ({"action": "SubmitObjectsRequest"}, "eb:Action"),
    ({"mpc": "urn:other"}, "eb:UserMessage/@mpc"),
    ({"service": Service("Other"), "action": "Other", "mpc": "urn:other"}, "eb:Service"),
]


@pytest.mark.parametrize(("change", "where"), MISMATCHES)
def test_a_mismatch_is_0010_and_names_the_first_parameter(change, where):
    with pytest.raises(ProcessingModeMismatch) as refusal:
        matcher().find_leg(replace(MESSAGE, **change))
    assert (refusal.value.code, refusal.value.where) == ("EBMS:0010", where)
    assert where in PARAMETERS


def test_no_agreements_at_all():
    with pytest.raises(ProcessingModeMismatch) as refusal:
        Matcher(PModeSet()).find_leg(MESSAGE)
    assert refusal.value.where == "eb:From/eb:PartyId"
    assert Matcher(PModeSet()).candidates(MESSAGE) == ()
    assert Matcher(PModeSet()).near_misses(MESSAGE) == ()


# -- AgreementRef -----------------------------------------------------------------


def test_a_leg_without_agreement_takes_any():
    assert matcher().find_leg(replace(MESSAGE, agreement_ref=AgreementRef("urn:any", "t", pmode="p"))) is LEGS[0]


@pytest.mark.parametrize("theirs", [
    None, AgreementRef("urn:agreement:2"), AgreementRef("urn:agreement:1", "t"), AgreementRef("urn:agreement"),
])  # fmt: skip
def test_a_leg_with_agreement_wants_it(theirs):
    with pytest.raises(ProcessingModeMismatch) as refusal:
        matcher(leg(FR, WE, agreement=AGREED)).find_leg(replace(MESSAGE, agreement_ref=theirs))
    assert refusal.value.where == "eb:AgreementRef"


def test_the_pmode_attribute_never_matters():
    agreed = leg(FR, WE, agreement=replace(AGREED, pmode="ours"))
    for pmode in (None, "theirs"):
        assert matcher(agreed).find_leg(replace(MESSAGE, agreement_ref=replace(AGREED, pmode=pmode))) is agreed


@pytest.mark.parametrize("order", [1, -1])
def test_the_most_specific_wins(order):
    open_, agreed = leg(FR, WE, pmode_id="a"), leg(FR, WE, pmode_id="b", agreement=AGREED)
    both = matcher(*(open_, agreed)[::order])
    assert both.find_leg(replace(MESSAGE, agreement_ref=AGREED)) is agreed
    assert both.find_leg(replace(MESSAGE, agreement_ref=AgreementRef("urn:agreement:2"))) is open_
    assert both.find_leg(MESSAGE) is open_


@pytest.mark.parametrize("order", [1, -1])
def test_equals_are_chosen_alike_on_every_node(order):
    first, second = leg(FR, WE, pmode_id="a", number=2), leg(FR, WE, pmode_id="b", number=1)
    assert matcher(*(first, second)[::order]).find_leg(MESSAGE) is first


# -- candidates, near misses --------------------------------------------------------


def test_candidates_are_the_legs_of_the_claimed_sender():
    assert set(matcher().candidates(replace(MESSAGE, action="whatever"))) == {LEGS[0], LEGS[1], LEGS[2], LEGS[4]}
    assert matcher().candidates(replace(MESSAGE, from_party=PartyId("AP_FR"))) == ()


def test_near_misses_differ_least_first():
    found = matcher().near_misses(replace(MESSAGE, from_party=PartyId("AP_FI"), action="ExecuteQueryRequest"))
    assert found[0].differs == ("eb:From/eb:PartyId",)
    assert {miss.leg for miss in found if len(miss.differs) == 1} == {LEGS[0], LEGS[3]}
    assert len(found) == 5
    assert [len(miss.differs) for miss in found] == sorted(len(miss.differs) for miss in found)


def test_near_misses_know_the_agreement():
    found = matcher(leg(FR, WE, agreement=AGREED)).near_misses(MESSAGE)
    assert [miss.differs for miss in found] == [("eb:AgreementRef",)]
    assert matcher(leg(FR, WE)).near_misses(MESSAGE) == ()


# -- submission ---------------------------------------------------------------------


def test_outbound():
    assert matcher().outbound(to_party=FR.party_id, service=QUERY, action="ExecuteQueryRequest") is LEGS[5]
    assert matcher().outbound(to_party=FR.party_id, action="ExecuteQueryResponse") is LEGS[6]
    assert matcher().outbound(to_party=PartyId("AP_FI"), service=Service("LifecycleManager"),
                              action="SubmitObjectsRequest", from_party=PartyId("AP_LV")) is LEGS[8]  # fmt: skip


def refused(*legs: Leg, **wanted) -> SubmissionRefused:
    with pytest.raises(SubmissionRefused) as refusal:
        matcher(*legs).outbound(**{"to_party": FR.party_id, "action": "ExecuteQueryRequest", **wanted})
    return refusal.value


@pytest.mark.parametrize(("wanted", "field", "hint"), [
    ({"to_party": PartyId("AP_FRR", SCHEME)}, "to_party", "did you mean AP_FR (type "),
    ({"to_party": PartyId("AP_FR", "urn:wrong")}, "to_party", f"(type {SCHEME})"),
    ({"to_party": PartyId("zzz")}, "to_party", "known: AP_FI (type "),
    ({"from_party": FR.party_id}, "from_party", "AP_LV"),
    ({"service": Service("QueryManger", BINDING)}, "service", "did you mean QueryManager"),
    ({"service": Service("QueryManager", "urn:wrong")}, "service", BINDING),
    ({"action": "ExecuteQueryReqest"}, "action", "did you mean ExecuteQueryRequest"),
    ({"agreement": AGREED}, "agreement_ref", "known: none"),
])  # fmt: skip
def test_outbound_without_a_leg(wanted, field, hint):
    refusal = refused(**wanted)
    assert refusal.field == field
    assert hint in refusal.hint


@pytest.mark.parametrize(("others", "wanted", "field", "hint"), [
    ([{"service": LIFECYCLE}], {}, "service", "LifecycleManager"),
    ([{"agreement": AGREED}], {}, "agreement_ref", "none, urn:agreement:1"),
    ([{"to_party": Party("fr2", PartyId("AP_FR", "urn:x"))}], {"to_party": PartyId("AP_FR")}, "to_party", "urn:x"),
    ([{"pmode_id": "again"}], {}, None, "keep one of again, we-fr"),
])  # fmt: skip
def test_outbound_with_several_legs(others, wanted, field, hint):
    refusal = refused(leg(WE, FR), *(leg(WE, FR, **{"pmode_id": "other", **other}) for other in others), **wanted)
    assert refusal.field == field
    assert hint in refusal.hint


def test_outbound_with_its_agreement():
    open_, agreed = leg(WE, FR, pmode_id="a"), leg(WE, FR, pmode_id="b", agreement=AgreementRef("x", "t", "p"))
    both = matcher(open_, agreed)
    for wanted in (AgreementRef("x", "t"), AgreementRef("x")):
        assert both.outbound(to_party=FR.party_id, action="ExecuteQueryRequest", agreement=wanted) is agreed


def test_a_party_without_a_type_of_its_own_comes_first():
    typed, untyped = leg(WE, FR, pmode_id="a"), leg(WE, Party("fr2", PartyId("AP_FR")), pmode_id="b")
    assert matcher(typed, untyped).outbound(to_party=PartyId("AP_FR"), action="ExecuteQueryRequest") is untyped


def test_outbound_without_any_agreement():
    with pytest.raises(SubmissionRefused) as refusal:
        Matcher(PModeSet(selves=(WE,))).outbound(to_party=FR.party_id, action="x")
    assert refusal.value.field == "to_party"


def test_a_long_wrong_name_stays_cheap_and_short():
    refusal = refused(action="x" * 100_000)
    assert len(str(refusal)) < 500


def test_many_agreements_are_found_at_once():
    many = tuple(leg(Party(f"p{n}", PartyId(f"AP_{n}", SCHEME)), WE, pmode_id=f"{n}") for n in range(2000))
    assert matcher(*many).find_leg(replace(MESSAGE, from_party=PartyId("AP_1999", SCHEME))) is many[1999]
