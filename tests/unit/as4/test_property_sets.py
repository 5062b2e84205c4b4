"""Property sets of several versions side by side on one leg [oots 1.6, 2.4 H-14 H-15]."""

import itertools

import pytest

from gateway.as4 import ns
from gateway.as4.pmode import PropertyRule
from gateway.as4.policy import check_properties
from gateway.as4.profiles import PROFILES
from gateway.as4.units import Property
from gateway.errors import EbmsError, ProcessingModeMismatch, ValueInconsistent
from tests.unit.as4.wss.material import RSA, user_message

SENDER, RECIPIENT = PropertyRule(ns.ORIGINAL_SENDER), PropertyRule(ns.FINAL_RECIPIENT)
EXCHANGE, SPECIFICATION = (PropertyRule(name, when="2.0") for name in ("ExchangeId", "SpecificationId"))
BOTH = (SENDER, RECIPIENT, EXCHANGE, SPECIFICATION)
NAMES = [rule.name for rule in BOTH]


def verdict(names, rules=BOTH, *, closed, profile="oots/2.0") -> str:
    message = user_message(properties=tuple(Property(name, "x", "t") for name in names))
    try:
        check_properties(message, RSA.leg(properties=rules, closed_properties=closed), PROFILES[profile])
    except EbmsError as error:
        return error.code
    return "taken"


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("names", [c for n in range(5) for c in itertools.combinations(NAMES, n)])
def test_every_choice_of_properties(names, closed):
    """Exactly two or exactly four where the sets are closed; the corners and anything else where they are open."""
    corners = {ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT} <= set(names)
    right = len(names) in (2, 4) if closed else True
    assert (verdict(names, closed=closed) == "taken") == (corners and right)


def test_a_message_is_told_what_its_own_version_lacks():
    """Of three properties the set of four is meant, of a strange one that of two."""
    assert verdict(NAMES[:3], closed=True) == ValueInconsistent.code
    assert verdict([*NAMES[:2], "colour"], closed=True) == ProcessingModeMismatch.code
    assert verdict([*NAMES, "colour"], closed=True) == ProcessingModeMismatch.code


def test_one_version_alone():
    assert verdict(NAMES[:2], (SENDER, RECIPIENT), closed=True, profile="oots/1.2") == "taken"
    assert verdict(NAMES, (SENDER, RECIPIENT), closed=True, profile="oots/1.2") == ProcessingModeMismatch.code
    assert verdict(NAMES, (SENDER, RECIPIENT), closed=False, profile="oots/1.2") == "taken"


def test_optional_is_not_a_version():
    """`required = false` leaves each property to the sender, closed or not."""
    rules = (SENDER, RECIPIENT, PropertyRule("ExchangeId", False), PropertyRule("SpecificationId", False))
    for count in (2, 3, 4):
        assert verdict(NAMES[:count], rules, closed=True) == "taken"


def test_three_versions():
    rules = (SENDER, PropertyRule("a", when="1"), PropertyRule("b", when="2"), PropertyRule("b", when="3"),
             PropertyRule("c", required=False, when="3"))  # fmt: skip
    corners = [ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT]
    for names in ([], ["a"], ["b"], ["b", "c"]):
        assert verdict([*corners, *names], rules, closed=True) == "taken", names
    for names in (["c"], ["a", "b"], ["a", "c"], ["a", "b", "c"]):
        assert verdict([*corners, *names], rules, closed=True) != "taken", names


def test_sets_of_a_leg():
    assert RSA.leg(properties=BOTH).property_sets == ((SENDER, RECIPIENT), BOTH)
    assert RSA.leg(properties=(SENDER, RECIPIENT)).property_sets == ((SENDER, RECIPIENT),)
    assert RSA.leg().property_sets == ((),)
