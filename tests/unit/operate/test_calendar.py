"""The calendar, read by a parser of others (icalendar) and by the rules of RFC 5545."""

import datetime
import random

import icalendar
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.operate.calendar import LINE, calendar
from gateway.operate.watched import Watched

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)


def cert(id="a" * 64, owner="AP_EE_01", subject="CN=AP_EE_01", days=50, use="sign", ours=False, state="active"):
    return Watched(id=id, owner=owner, use=use, ours=ours, state=state, subject=subject,
                   not_before=NOW - datetime.timedelta(days=300), not_after=NOW + datetime.timedelta(days=days))  # fmt: skip


def events(octets):
    found = icalendar.Calendar.from_ical(octets)
    assert not found.errors
    for event in found.walk("VEVENT"):
        assert not event.errors
    return found.walk("VEVENT")


def test_a_certificate_is_an_event_with_alarms():
    [event] = events(calendar([cert(), cert(use="encrypt")], now=NOW))
    assert event["UID"] == f"certificate-{'a' * 64}@oots-as4-gateway"
    assert event["DTSTART"].dt == NOW + datetime.timedelta(days=50) and event["DTSTAMP"].dt == NOW
    assert event["SUMMARY"] == "Certificate ends: AP_EE_01 (encryption, signing)"
    assert event["DESCRIPTION"] == f"Subject: CN=AP_EE_01\nUsed for: encryption, signing\nSHA-256: {'a' * 64}"
    triggers = [alarm["TRIGGER"].dt for alarm in event.walk("VALARM")]
    assert triggers == [datetime.timedelta(days=-d) for d in (90, 60, 30, 14, 7, 3, 1, 0)]
    assert all(alarm["ACTION"] == "DISPLAY" and alarm["DESCRIPTION"] for alarm in event.walk("VALARM"))


def test_it_speaks_latvian():
    [event] = events(calendar([cert(owner="Pļaviņu ķīselis")], now=NOW, language="lv"))
    assert event["SUMMARY"] == "Beidzas sertifikāts: Pļaviņu ķīselis (parakstīšana)"
    assert event["SUMMARY"].params["LANGUAGE"] == "lv"


def test_the_same_certificate_is_the_same_event_whoever_asks_and_when():
    one = [e["UID"] for e in events(calendar([cert(), cert("b" * 64, "AP_FI_01")], now=NOW))]
    later = [e["UID"] for e in events(calendar([cert("b" * 64, "AP_FI_01", days=30), cert(owner="renamed")],
                                               now=NOW + datetime.timedelta(days=9), language="lv"))]  # fmt: skip
    assert sorted(one) == sorted(later) and len(set(one)) == 2


def test_nothing_to_plan_is_a_calendar_too():
    assert events(calendar([], now=NOW)) == [] and events(calendar([cert(state="draining")], now=NOW)) == []


@pytest.mark.parametrize("text", [
    "a;b,c\\d", "one\nBEGIN:VEVENT\nX:y", "\x00\x07\x1b[31m", "\r\nEND:VCALENDAR", "\\n", "ķ" * 200, "𐍈" * 60, "\u202e", '"',
])  # fmt: skip
def test_names_of_others_are_text_and_nothing_else(text):
    octets = calendar([cert(owner=text, subject=text)], now=NOW)
    [event] = events(octets)
    plain = "".join(c for c in text if c.isprintable())
    if "\n" not in text:
        assert event["SUMMARY"] == f"Certificate ends: {plain} (signing)"
    assert octets.count(b"BEGIN:VEVENT\r\n") == 1 and octets.endswith(b"END:VCALENDAR\r\n")


@given(owner=st.text(max_size=300), subject=st.text(max_size=300), language=st.sampled_from(["en", "lv"]))
@settings(max_examples=200, deadline=None)
def test_lines_are_folded_within_75_octets_and_never_within_a_character(owner, subject, language):
    try:
        (owner + subject).encode()
    except UnicodeEncodeError:
        return
    octets = calendar([cert(owner=owner, subject=subject)], now=NOW, language=language)
    lines = octets.split(b"\r\n")
    assert lines.pop() == b"" and all(0 < len(line) <= LINE for line in lines)
    for line in lines:
        line.decode()
        assert b"\n" not in line and b"\r" not in line
    [event] = events(octets)
    title = {"en": "Certificate ends", "lv": "Beidzas sertifikāts"}[language]
    # Line breaks become the escape, which the parser turns into breaks again; other controls are gone.
    shown = "".join(c for c in owner if c.isprintable() or c == "\n")
    assert str(event["SUMMARY"]).startswith(f"{title}: {shown}"[:20].rstrip())


def test_a_thousand_partners():
    random.seed(1)
    many = [cert(f"{n:064}", f"AP_{n}", days=random.randint(-5, 700)) for n in range(1000)]
    found = events(calendar(many, now=NOW))
    assert len(found) == 1000 and [e["DTSTART"].dt for e in found] == sorted(e["DTSTART"].dt for e in found)
