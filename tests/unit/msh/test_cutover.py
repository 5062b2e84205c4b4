"""Arithmetic on rings: which key signs for a partner, and the ways there and back."""

import datetime
import functools
import hashlib

import pytest

from gateway.msh.cutover import Keys, digest
from gateway.store.keys import Choice, OwnKey, Place, Ring, moves
from gateway.store.rotation import Standing
from tests.peer import Authority
from tests.pki import key as private

NOW = datetime.datetime.now(datetime.UTC)
AUTHORITY = functools.cache(Authority)
STATES = ("PLANNED", "STAGED", "ANNOUNCED", "ACTIVE", "DRAINING", "RETIRED")


def own(id, state, *, age=0, party=None, algorithm="RSA 3072", days=30.0, start=-1.0):
    """A signing key of ours. Its certificate stands for the kind that `algorithm` names."""
    der = AUTHORITY().issue(id, private("ec", sum(id.encode())).public_key(), "sign", days=days, start=start)
    return OwnKey(id=id, uses=("sign",), algorithm=algorithm, public=id.encode(), sealed=b"x", certificate=der, party=party,
                  states={"sign": state}, since={"sign": NOW - datetime.timedelta(days=age)},
                  created_at=NOW - datetime.timedelta(days=age), author="anna")


def keys(*owned, choices=()):
    places = tuple(Place(k.id, "sign", k.states["sign"]) for k in owned if k.states["sign"] not in ("PLANNED", "RETIRED"))
    return Keys.of(owned, Ring(places=places, choices=tuple(choices)))


OLD, NEW = functools.partial(own, "old", age=100), functools.partial(own, "new")


def choice(key, partner="EE", party="", why="x"):
    return Choice(partner=partner, key=key, party=party, why=why)


def back(found, key, partner="EE", known=()):
    """Who signs after the way back, None where there is none; the ring is one the store would take."""
    way = found.way_back(digest(key), partner, NOW, known)
    if way is None:
        return None
    moves(found.by_id.values(), way[1])
    after = Keys.of(found.by_id.values(), way[1])
    assert after.signer(key, partner).id == way[0].id
    assert after.way_back(digest(key), partner, NOW, known) is None, "once"
    assert after.signer(key, "FI") == found.signer(key, "FI"), "nobody else is moved"
    return way[0].id


def test_after_a_global_cutover_the_partner_gets_the_old_key():
    old, new = OLD("DRAINING"), NEW("ACTIVE")
    assert back(keys(old, new), new) == "old"


def test_a_partner_that_was_promoted_alone_loses_its_choice():
    old, new = OLD("ACTIVE"), NEW("ANNOUNCED")
    found = keys(old, new, choices=[choice("new")])
    assert back(found, new) == "old"
    assert found.way_back(digest(new), "EE", NOW, ())[1].choices == ()


@pytest.mark.parametrize("why, found, refused", [
    ("it is signed for with the old one already", lambda: keys(o := OLD("DRAINING"), NEW("ACTIVE"), choices=[choice(o.id)]), "new"),
    ("what is refused is the old one", lambda: keys(o := OLD("DRAINING"), NEW("ACTIVE"), choices=[choice(o.id)]), "old"),
    ("the old one has expired", lambda: keys(OLD("DRAINING", start=-20, days=10), NEW("ACTIVE")), "new"),
    ("the old one is retired", lambda: keys(OLD("RETIRED"), NEW("ACTIVE")), "new"),
    ("there was no other", lambda: keys(NEW("ACTIVE")), "new"),
    ("nobody signs with it", lambda: keys(OLD("ACTIVE"), NEW("STAGED")), "new"),
    ("the old one is of another kind", lambda: keys(OLD("DRAINING", algorithm="Ed25519"), NEW("ACTIVE")), "new"),
    ("the old one is another party's", lambda: keys(OLD("DRAINING", party="AP_XX_01"), NEW("ACTIVE")), "new"),
])  # fmt: skip
def test_there_is_no_way_back(why, found, refused):
    made = found()
    assert back(made, made.by_id[refused]) is None, why


def test_an_unknown_certificate():
    found = keys(OLD("DRAINING"), NEW("ACTIVE"))
    assert found.way_back(hashlib.sha256(b"x").digest(), "EE", NOW, ()) is None


def test_back_to_the_newest_that_is_still_valid():
    oldest, newer, expired = own("a", "DRAINING", age=300), own("b", "DRAINING", age=200), own("c", "DRAINING", age=100, start=-9, days=5)
    new = NEW("ACTIVE")
    assert back(keys(oldest, newer, expired, new), new) == "b"


def standing(key, **facts):
    return Standing(partner="urn:x:EE", certificate=digest(key), **facts)


def test_back_to_one_that_the_partner_is_known_to_take_and_did_not_refuse():
    oldest, newer, new = own("a", "DRAINING", age=300), own("b", "DRAINING", age=200), NEW("ACTIVE")
    found = keys(oldest, newer, new)
    assert back(found, new, known=[standing(oldest, used_at=NOW)]) == "a", "it stayed on that when the others moved"
    assert back(found, new, known=[standing(oldest, used_at=NOW), standing(newer, used_at=NOW)]) == "b"
    refused = standing(newer, used_at=NOW, returned_at=NOW)
    assert back(found, new, known=[refused]) == "a", "it refused the other"
    assert back(found, new, known=[refused, standing(oldest, returned_at=NOW)]) is None
    later = standing(newer, returned_at=NOW, asked_at=NOW + datetime.timedelta(1), verdict="green", why="x")
    assert back(found, new, known=[later]) == "b", "and has said since that it takes it"


def test_choices_of_other_kinds_and_parties_stay():
    old, new, edwards = OLD("DRAINING"), NEW("ACTIVE"), own("ed", "STAGED", algorithm="Ed25519")
    other = own("p", "STAGED", party="AP_XX_01")
    kept = [choice("ed"), choice("p", party="AP_XX_01"), choice("old", partner="FI")]
    _, ring = keys(old, new, edwards, other, choices=kept).way_back(digest(new), "EE", NOW, ())
    assert set(ring.choices) > set(kept) and len(ring.choices) == 4


def test_the_same_ring_whoever_computes_it():
    old, new = OLD("DRAINING"), NEW("ACTIVE")
    one, two = (keys(*pair).way_back(digest(new), "EE", NOW, ())[1].encode() for pair in ((old, new), (new, old)))
    assert one == two


def test_choosing_the_active_key_takes_choices_away():
    old, new = OLD("ACTIVE"), NEW("ANNOUNCED")
    found = keys(old, new, choices=[choice("new"), choice("new", partner="FI")])
    assert [c.partner for c in found.choosing(old, ["EE"], why="x").choices] == ["FI"]
    more = found.choosing(new, ["SE", "EE"], why="y")
    assert sorted((c.partner, c.why) for c in more.choices) == [("EE", "y"), ("FI", "x"), ("SE", "y")]
