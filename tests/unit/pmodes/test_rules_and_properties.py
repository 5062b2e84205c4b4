"""`rules` and `properties` as terms: at every level, per partner, and refused where they mean nothing."""

import pytest

from gateway.as4.pmode import PropertyRule
from gateway.as4.profiles import PROFILES
from gateway.errors import ConfigError
from gateway.pmodes.agreements import File
from gateway.pmodes.lint import lint
from gateway.pmodes.toml import load

OOTS = """
profile = "{profile}"
self = "AP_LV_01"
{top}
[parties.AP_LV_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:LV"

[parties.AP_EE_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:EE"
endpoint = "https://ap.example.ee/services/msh"

[parties.AP_LT_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:LT"
endpoint = "https://ap.example.lt/services/msh"
{rest}
"""
EXCHANGE = """
[[exchanges]]
service = "urn:s"
action = "Order"
from_role = "urn:r"
to_role = "urn:r"
"""
TWO = (PropertyRule("originalSender"), PropertyRule("finalRecipient"))
FOUR = (*TWO, PropertyRule("ExchangeId", when="2.0"), PropertyRule("SpecificationId", when="2.0"))


@pytest.fixture
def legs(tmp_path):
    def made(profile="oots/2.0", top="", rest="") -> dict:
        (tmp_path / "a.toml").write_text(OOTS.format(profile=profile, top=top, rest=rest))
        return {leg.pmode_id: leg for leg in load(tmp_path).legs if not leg.is_test}

    return made


def test_the_profiles(legs):
    assert {leg.properties for leg in legs("oots/2.0").values()} == {FOUR}
    assert {leg.properties for leg in legs("oots/1.2").values()} == {TWO}
    assert {leg.rules for leg in legs().values()} == {"advise"}
    assert {name for name, profile in PROFILES.items() if profile.rules} == {"oots/1.2", "oots/2.0"}


def test_both_versions_under_one_agreement_of_1_2(legs):
    """A partner moves to 2.0 under the profile the agreement was made with."""
    properties = '"originalSender", "finalRecipient", {name="ExchangeId",when="2.0"}, {name="SpecificationId",when="2.0"}'
    found = legs("oots/1.2", rest=f"[overrides.AP_EE_01]\nclosed_properties = true\nproperties = [{properties}]")
    for name, leg in found.items():
        assert (leg.properties, leg.closed_properties) == ((FOUR, True) if "AP_EE_01" in name else (TWO, False))


def test_rules_at_every_level(legs):
    assert {leg.rules for leg in legs(top='rules = "refuse"').values()} == {"refuse"}
    found = legs(top='rules = "refuse"', rest='[overrides."*:ExceptionResponse"]\nrules = "advise"')
    assert {leg.rules for name, leg in found.items() if name.endswith(":ExceptionResponse")} == {"advise"}
    assert {leg.rules for name, leg in found.items() if name.endswith("Request")} == {"refuse"}


def test_what_means_nothing_is_refused(legs):
    with pytest.raises(ConfigError) as refused:
        legs("edelivery-as4/1.15", top='rules = "refuse"', rest=EXCHANGE)
    assert refused.value.key == "rules" and "no rules" in refused.value.detail
    assert legs("edelivery-as4/1.15", top='rules = "advise"', rest=EXCHANGE)
    with pytest.raises(ConfigError):
        legs(top='rules = "maybe"')
    with pytest.raises(ConfigError):
        legs(top='properties = [{ name = "x", whenever = "2.0" }]')


def test_a_corner_that_only_one_version_has_is_a_lint_finding(tmp_path):
    properties = 'properties = ["originalSender", { name = "finalRecipient", when = "2.0" }]'
    (tmp_path / "a.toml").write_text(OOTS.format(profile="oots/2.0", top=properties, rest=""))
    assert "P012" in {finding.rule for finding in lint(tmp_path)}


def test_every_level_may_say_it():
    assert {"properties", "rules", "closed_properties"} <= set(File.__struct_fields__)
