"""The judges of the failure suite see what they are there for."""

import pytest

from tests.failover.cluster import load, outbound

SUBMITTED = [("submit", {"key": "k", "digest": "d1"}), ("submitted", {"key": "k", "digest": "d1", "message_id": "m1"})]
TAKEN = [("taken", {"digest": "d1", "message_id": "m1"})]


def log(path, lines):
    made = load.Log(path)
    for what, facts in lines:
        made.note(what, **facts)
    return made


@pytest.mark.parametrize(("submitted", "taken", "found"), [
    (SUBMITTED, TAKEN, {}),
    (SUBMITTED, TAKEN * 2, {"redelivered": 1}),
    (SUBMITTED, [], {"lost": {"d1"}}),
    (SUBMITTED[:1], [], {}),
    (SUBMITTED[:1], TAKEN, {}),
    (SUBMITTED, [("taken", {"digest": "d1", "message_id": "m2"})], {"changed": ["d1"]}),
    (SUBMITTED[:1], [*TAKEN, ("taken", {"digest": "d1", "message_id": "m2"})], {"twice": ["d1"], "redelivered": 1}),
    ([], TAKEN, {"strange": {"d1"}}),
])  # fmt: skip
def test_what_was_submitted_against_what_came(tmp_path, submitted, taken, found):
    verdict = outbound.judge(log(tmp_path / "p", submitted), log(tmp_path / "r", taken))
    shown = {name: getattr(verdict, name) for name in ("lost", "twice", "changed", "strange", "redelivered")}
    assert {name: value for name, value in shown.items() if value} == found


def test_what_an_earlier_case_submitted_is_nothing_strange(tmp_path):
    verdict = outbound.judge(log(tmp_path / "p", []), log(tmp_path / "r", TAKEN), [log(tmp_path / "e", SUBMITTED)])
    assert not verdict.strange


SENT = [("send", {"message_id": "m1", "digest": "d1"}), ("receipted", {"message_id": "m1"})]
DELIVERED = [("delivered", {"message_id": "m1", "digest": "d1", "redelivered": False}), ("acked", {"message_id": "m1"})]
AGAIN = [("delivered", {"message_id": "m1", "digest": "d1", "redelivered": True})]


@pytest.mark.parametrize(("sent", "delivered", "found"), [
    (SENT, DELIVERED, {}),
    (SENT, [], {"lost": {"m1"}}),
    (SENT[:1], [], {}),
    (SENT, [*DELIVERED[:1], *AGAIN], {"redelivered": 1}),
    (SENT, [*DELIVERED, *AGAIN], {"redelivered": 1, "twice": ["m1"]}),
    (SENT, [*DELIVERED[:1], *DELIVERED[:1]], {"redelivered": 1, "twice": ["m1"]}),
    (SENT, [("delivered", {"message_id": "m1", "digest": "d2", "redelivered": False})], {"changed": ["m1"]}),
    ([], DELIVERED, {"strange": {"m1"}}),
])  # fmt: skip
def test_what_was_receipted_against_what_was_delivered(tmp_path, sent, delivered, found):
    verdict = load.judge([log(tmp_path / "s", sent)], log(tmp_path / "c", delivered))
    shown = {name: getattr(verdict, name) for name in ("lost", "twice", "changed", "strange", "redelivered")}
    assert {name: value for name, value in shown.items() if value} == found
