"""The table of the failure suite adds up, and claims no bound where something went wrong."""

import pytest

from tests.failover import table


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(table, "_lines", {})


def test_lines_of_one_id_are_added_and_the_longest_gap_counts():
    table.record("R06", "primary killed", messages=100, gap=2.0, limit=10, seed=1)
    table.record("R06", "primary killed", messages=200, gap=4.04, limit=10, seed=2)
    table.record("R02", "node killed", messages=10)
    shown = table.markdown()
    assert [line.split("|")[1].strip() for line in shown.splitlines()[2:4]] == ["R02", "R06"]
    assert [cell.strip() for cell in shown.splitlines()[3].split("|")[1:-1]] == [
        "R06", "primary killed", "2", "300", "0", "0", "4.0 s", "10.0 s", "1.0e-02"]  # fmt: skip
    assert shown.endswith("Seeds: R06: 1, 2")


def test_what_was_lost_has_no_bound():
    table.record("R06", "primary killed", messages=100, lost=1)
    assert [cell.strip() for cell in table.markdown().splitlines()[2].split("|")[4:-1]] == ["100", "1", "0", "", "", ""]


def test_a_part_of_the_suite_writes_its_own_lines_of_the_page_anew():
    table.record("R02", "node killed", messages=10, seed=7)
    table.record("R06", "primary killed", messages=100)
    first = table.page("one")
    table._lines.clear()
    table.record("R06", "primary killed", messages=300)
    table.record("L3", "random kills", messages=9)
    rows = table._rows(table.page("two", first))
    assert [(row[0], row[3], row[-2], row[-1]) for row in rows] == [
        ("L3", "9", "", "two"), ("R02", "10", "7", "one"), ("R06", "300", "", "two")]  # fmt: skip
    assert table.page("two", table.page("two", first)) == table.page("two", first)
