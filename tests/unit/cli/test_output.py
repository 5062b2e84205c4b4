"""Tables for people, tabs and JSON for programs."""

import json
from datetime import datetime, timedelta, timezone

import pytest

from gateway.cli import output

ROWS = [
    {"state": "ACKNOWLEDGED", "party": "AP_EE_01", "ok": True, "at": datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))},
    {"state": "FAILED", "party": "evil\x1b[2J\tx\ny", "ok": False, "at": None},
]


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(output, "is_terminal", lambda: True)


def test_tab_separated_for_programs(capsys):
    output.show_table(ROWS, ["state", "party", "ok", "at"])
    assert capsys.readouterr().out.splitlines() == [
        "state\tparty\tok\tat",
        "ACKNOWLEDGED\tAP_EE_01\tyes\t2026-01-01T00:00:00.000Z",
        "FAILED\tevil\\x1b[2J\\x09x\\x0ay\tno\t",
    ]


def test_aligned_for_people(capsys, terminal):
    output.show_table([*ROWS, {"state": "x" * 200, "party": None, "ok": True}], ["state", "party"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("STATE") and lines[0].index("PARTY") == lines[1].index("AP_EE_01")
    assert "\x1b" not in "".join(lines) and lines[3] == "x" * 79 + "…"


def test_nothing_found_is_said_beside_the_data(capsys, terminal):
    output.show_table([], ["state"])
    streams = capsys.readouterr()
    assert streams.out == "" and "nothing" in streams.err


def test_json(capsys):
    output.show_json(ROWS)
    shown = json.loads(capsys.readouterr().out)
    assert shown[0]["at"] == "2026-01-01T00:00:00.000Z" and shown[1]["party"] == ROWS[1]["party"]
