"""Adding and removing a party in a text: everything else stays, comments included, or nothing is changed."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.pmodes.edit import with_party, without_party

ROOT = Path(__file__).parents[3]
EXAMPLE = (ROOT / "pmodes/examples/oots.toml").read_text()
FINLAND = {"type": "urn:t:FI", "endpoint": "https://ap.example.fi/services/msh", "certificate": "ap_fi_01.pem"}

FORMS = {
    "tables": EXAMPLE,
    "between": EXAMPLE + '\n# before\n[overrides.AP_EE_01]\ncompress = true # why\n# after\n',
    "inline": 'profile = "oots/2.0"\nself = "A" # us\nparties = { A = {}, AP_EE_01 = { type = "x" } }\n',
    "dotted": 'profile = "oots/2.0"\nself = "A"\nparties.A.type = "t"\nparties.AP_EE_01 = { type = "x" } # c\n',
    "one table": 'self = "A"\nprofile = "p"\n[parties]\nA = {}\nAP_EE_01 = { type = "x" } # c\n',
    "no end": 'self = "A"\nprofile = "p"\n[parties.A]\n[parties.AP_EE_01]\ntype = """x\ny"""',
    "scattered": 'self = "A"\nprofile = "p"\n[parties.AP_EE_01]\ntype = "x"\n[parties.A]\n[parties.AP_EE_01.retry]\nx = 1\n# end\n',
    "crlf": EXAMPLE.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_party_comes_and_goes_and_comments_stay(form):
    text = FORMS[form]
    before = tomllib.loads(text)
    added = with_party(text, "AP_FI_01", FINLAND, file="a.toml")
    assert tomllib.loads(added)["parties"]["AP_FI_01"] == FINLAND
    comments = [part.strip() for line in text.splitlines() if (part := line.partition("#")[2])]
    assert all(comment in added for comment in comments)
    back = without_party(added, "AP_FI_01", file="a.toml")
    assert tomllib.loads(back) == before
    assert all(comment in back for comment in comments)
    gone = without_party(text, "AP_EE_01", file="a.toml")
    rest = tomllib.loads(gone)
    assert "AP_EE_01" not in rest["parties"] and not any("AP_EE_01" in key for key in rest.get("overrides", {}))


def test_the_others_lines_stay_octet_for_octet():
    added = with_party(EXAMPLE, "AP_FI_01", FINLAND, file="a.toml")
    assert added.startswith(EXAMPLE.rstrip())
    assert without_party(added, "AP_FI_01", file="a.toml").rstrip() == EXAMPLE.rstrip()


def test_overrides_and_places_in_exchanges_go_with_it():
    text = EXAMPLE + """
[[exchanges]]
service = "urn:s"
action = "A"
parties = ["AP_EE_01", "AP_FI_01"] # both
[overrides."AP_EE_01:A"]
compress = true
[overrides."*:A"]
compress = false
"""
    left = tomllib.loads(without_party(text, "AP_EE_01", file="a.toml"))
    assert left["exchanges"][0]["parties"] == ["AP_FI_01"] and list(left["overrides"]) == ["*:A"]
    alone = text.replace('"AP_EE_01", "AP_FI_01"', '"AP_EE_01"')
    with pytest.raises(ConfigError, match=r"exchanges\[0\]\.parties: is with AP_EE_01 alone"):
        without_party(alone, "AP_EE_01", file="a.toml")


def test_a_party_of_a_network_is_left_out_by_the_overlay():
    text = 'self = "A"\n[network]\npmode = "n.xml" # as downloaded\n[overlay.parties.B]\nendpoint = "https://b"\n'
    left = without_party(text, "B", file="a.toml")
    tables = tomllib.loads(left)
    assert tables["overlay"]["without"] == ["B"] and not tables["overlay"].get("parties")
    assert "# as downloaded" in left
    assert tomllib.loads(without_party(left, "C", file="a.toml"))["overlay"]["without"] == ["B", "C"]


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@settings(max_examples=80, deadline=None)
@given(names, st.dictionaries(st.sampled_from(["type", "id", "endpoint"]), names, max_size=3), st.sampled_from(sorted(FORMS)))
def test_whatever_the_name_and_the_values(name, table, form):
    before = tomllib.loads(FORMS[form])
    if name in before["parties"]:
        return
    added = with_party(FORMS[form], name, table, file="a.toml")
    assert tomllib.loads(added) == {**before, "parties": {**before["parties"], name: table}}
    assert tomllib.loads(without_party(added, name, file="a.toml")) == before
