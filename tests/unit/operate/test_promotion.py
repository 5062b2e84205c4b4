"""Who moves to the next key and who stays, and the way back: plans made of keys and of what partners answered."""

import datetime
import functools

import pytest

from gateway.errors import NotFound, NotPossible
from gateway.msh.cutover import Keys
from gateway.operate import promotion
from gateway.operate.certificates import Held
from gateway.operate.rotation import Row
from gateway.store.keys import Choice, Place, Ring
from tests.unit.msh.test_cutover import NOW, own

DAYS = datetime.timedelta(days=1)


def held(*keys, choices=()):
    places = tuple(Place(k.id, use, state) for k in keys for use, state in k.states.items() if state not in ("PLANNED", "RETIRED"))
    return Held(keys=keys, ring=Ring(places=places, choices=tuple(choices)), number=7)


def row(party, verdict="green", on="old", **more):
    return Row(partner=f"urn:x:{party}", party=party, party_id=party, on=on, verdict=verdict, **more)


OLD, NEW = functools.partial(own, "old", age=100), functools.partial(own, "new")


def site(old="ACTIVE", new="ANNOUNCED", **more):
    have = held(OLD(old), NEW(new), **more)
    return have, have.key("new")


def planned(have, rows, key, **more):
    return promotion.plan_promotion(have, rows, [key], now=NOW, **more)


def signers(have, plan, *partners):
    keys = Keys.of(have.keys, plan.ring)
    return {partner: keys.signer(have.key("new"), partner).id for partner in partners}


def test_all_green_and_everybody_moves():
    have, key = site()
    found = planned(have, [row("EE"), row("FI")], key)
    assert (found.share, found.short, found.moved, found.left) == (1.0, False, ("EE", "FI"), ())
    assert {(m.key, m.after) for m in found.plan.moves} == {("new", "ACTIVE"), ("old", "DRAINING")}
    assert found.plan.choices == () and signers(have, found.plan, "EE", "XX") == {"EE": "new", "XX": "new"}
    promotion.check_reason(found, None)


@pytest.mark.parametrize("verdict", ["amber", "unknown", None])
def test_who_is_not_ready_stays_on_the_old_certificate(verdict):
    have, key = site()
    found = planned(have, [row("EE"), row("FI", verdict), row("SE")], key)
    assert (found.moved, found.left) == (("EE", "SE"), ("FI",)) and found.short
    assert signers(have, found.plan, "EE", "FI", "SE", "XX") == {"EE": "new", "FI": "old", "SE": "new", "XX": "new"}
    for reason in (None, "", "because", "two words"):
        with pytest.raises(NotPossible, match=r"67% of the partners.*FI"):
            promotion.check_reason(found, reason)
    promotion.check_reason(found, "FI agreed on Tuesday")


def test_the_threshold_is_the_operators():
    have, key = site()
    rows = [row("EE"), row("FI", "amber"), row("SE"), row("LT")]
    assert not planned(have, rows, key, threshold=0.75).short and planned(have, rows, key, threshold=0.76).short


def test_who_cannot_be_asked_is_not_counted_and_moves():
    have, key = site()
    found = planned(have, [row("EE"), row("FI", None, asked=False)], key)
    assert (found.share, found.left) == (1.0, ())


def test_everybody_moves_when_it_is_said():
    have, key = site(choices=[Choice(partner="FI", key="old", why="x")])
    found = planned(have, [row("EE"), row("FI", "amber")], key, everybody=True)
    assert found.short and found.left == () and found.plan.ring.choices == ()


def test_who_stayed_on_an_even_older_one_stays_on_that():
    """The third certificate comes while a partner still knows only the first."""
    have = held(own("first", "DRAINING", age=300), OLD("ACTIVE"), NEW("STAGED"),
                choices=[Choice(partner="FI", key="first", why="x"), Choice(partner="SE", key="first", why="x")])  # fmt: skip
    rows = [row("EE", "amber"), row("FI", "amber", on="first"), row("SE", on="first")]
    found = planned(have, rows, have.key("new"))
    assert signers(have, found.plan, "EE", "FI", "SE", "XX") == {"EE": "old", "FI": "first", "SE": "new", "XX": "new"}


def test_nobody_is_left_on_a_certificate_that_has_ended():
    have = held(OLD("ACTIVE", start=-20, days=10), NEW("STAGED"))
    with pytest.raises(NotPossible, match=r"FI is not ready.*--everybody"):
        planned(have, [row("EE"), row("FI", "amber")], have.key("new"))
    assert planned(have, [row("EE"), row("FI", "amber")], have.key("new"), everybody=True).plan.moves


def test_one_partner_alone_before_and_after():
    have, key = site()
    found = planned(have, [row("EE"), row("FI", "amber")], key, partners=["EE"])
    assert (found.share, found.moved, found.plan.moves) == (1.0, ("EE",), ())
    assert signers(have, found.plan, "EE", "FI") == {"EE": "new", "FI": "old"}
    assert planned(have, [row("EE"), row("FI", "amber")], key, partners=["FI"]).short
    with pytest.raises(NotFound, match=r"XX.*EE"):
        planned(have, [row("EE")], key, partners=["XX"])
    # Left behind at the cutover, ready now.
    have, key = site("DRAINING", "ACTIVE", choices=[Choice(partner="FI", key="old", why="x")])
    found = planned(have, [row("EE", on="new"), row("FI")], key, partners=["FI"])
    assert found.plan.ring.choices == ()


def test_promoted_once_more_those_move_that_are_ready_now():
    have, key = site("DRAINING", "ACTIVE", choices=[Choice(partner=p, key="old", why="x") for p in ("FI", "SE")])
    found = planned(have, [row("EE", on="new"), row("FI"), row("SE", "amber")], key)
    assert (found.moved, found.left, found.short) == (("FI",), ("SE",), False)
    assert signers(have, found.plan, "EE", "FI", "SE") == {"EE": "new", "FI": "new", "SE": "old"}


def test_a_key_that_is_not_in_the_ring_moves_nobody():
    have, key = site(new="PLANNED")
    for more in ({}, {"partners": ["EE"]}):
        with pytest.raises(NotPossible, match="PLANNED"):
            planned(have, [row("EE")], key, **more)


def test_back_for_everybody_takes_the_choices_of_those_who_stayed():
    have, key = site("DRAINING", "ACTIVE", choices=[Choice(partner="FI", key="old", why="x")])
    plan = promotion.plan_return(have, [row("EE", on="new"), row("FI")], [key], now=NOW)
    assert {(m.key, m.after) for m in plan.moves} == {("old", "ACTIVE"), ("new", "STAGED")} and plan.ring.choices == ()


def test_back_for_one_partner_alone():
    have, key = site("DRAINING", "ACTIVE")
    rows = [row("EE", on="new"), row("FI", on="new")]
    plan = promotion.plan_return(have, rows, [key], now=NOW, partners=["FI"])
    assert plan.moves == () and signers(have, plan, "EE", "FI") == {"EE": "new", "FI": "old"}
    after = Held(keys=have.keys, ring=plan.ring, number=8)
    with pytest.raises(NotPossible, match="FI cannot go back from new: it is signed for with old"):
        promotion.plan_return(after, [row("EE", on="new"), row("FI")], [key], now=NOW, partners=["FI"])
    have = held(NEW("ACTIVE"))
    with pytest.raises(NotPossible, match="no valid certificate came before"):
        promotion.plan_return(have, [row("FI", on="new")], [have.key("new")], now=NOW, partners=["FI"])


def test_one_signing_key_at_a_time():
    have = held(OLD("ACTIVE"), NEW("STAGED"), own("third", "STAGED"))
    with pytest.raises(NotPossible, match="one signing key at a time"):
        promotion.plan_promotion(have, [], have.keys[1:], now=NOW)
