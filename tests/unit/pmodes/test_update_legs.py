"""Legs for agreement updates, made where a partner's table says so."""

import re

import pytest

from gateway.as4 import ns
from gateway.as4.matching import Matcher
from gateway.as4.units import AgreementRef
from gateway.errors import ConfigError
from gateway.pmodes.bundle import Bundle
from gateway.pmodes.edit import with_agreed
from gateway.pmodes.toml import expanded
from tests import pki
from tests.world import to_pem

FILE = """
profile = "oots/2.0"
self = "AP_LV_01"
allow_http = true
{top}
[parties.AP_LV_01]
type = "urn:x"
[parties.AP_EE_01]
type = "urn:x"
endpoint = "http://127.0.0.1:9/as4"
certificate = "ee.pem"
{more}
"""
UPDATES = '[parties.AP_EE_01.updates]\nagreement = "agreement 7"\n'


def made(more=UPDATES, top="", file=FILE):
    pem = to_pem(pki.Ca.root().leaf("AP_EE_01"))
    return expanded(Bundle(("a.toml",), {"a.toml": file.format(more=more, top=top).encode(), "ee.pem": pem}))


def test_off_by_default():
    assert not any(leg.is_update for leg in made("").legs)


def test_both_exchanges_in_both_directions():
    pmodes = made()
    legs = [leg for leg in pmodes.legs if leg.is_update]
    assert len(legs) == 12 and len({leg.pmode_id for leg in legs}) == 12
    for leg in legs:
        assert (leg.mep, leg.mep_binding, leg.pulled) == (ns.MEP_TWO_WAY, ns.BINDING_PUSH_AND_PUSH, False)
        assert (leg.properties, leg.closed_properties, leg.mpc, leg.profile) == ((), False, ns.DEFAULT_MPC, "oots/2.0")
        roles = (ns.ROLE_INITIATOR, ns.ROLE_RESPONDER)
        assert (leg.from_role, leg.to_role) == (roles if leg.number == 1 else roles[::-1])
        assert leg.max_message == 256 << 10 and leg.backend == "agreement-update"
    ours = next(leg for leg in legs if leg.pmode_id == "AP_LV_01:AP_EE_01:RejectCertificateUpdate")
    assert (ours.from_party.name, ours.to_party.name, ours.number) == ("AP_EE_01", "AP_LV_01", 2)
    partner = next(p for p in pmodes.parties if p.name == "AP_EE_01")
    assert partner.updates.approve == "operator" and partner.updates.agreement == AgreementRef("agreement 7")
    Matcher(pmodes)


@pytest.mark.parametrize(("more", "what"), [
    ("[parties.AP_EE_01.updates]\n", "no exchange with the partner has an AgreementRef"),
    ('[parties.AP_EE_01.updates]\napprove = "always"\n', "approve"),
    ('[parties.AP_EE_01.updates]\nagreement = " "\n', "1 to 255"),
    ('[parties.AP_EE_01.updates]\nwho = "x"\n', "who"),
])  # fmt: skip
def test_refused(more, what):
    with pytest.raises(ConfigError, match=re.escape(what)):
        made(more)


def test_an_exchange_that_is_pushed_is_needed():
    receive = FILE.replace("{more}", '{more}\n[[exchanges]]\naction = "A"\nservice = "urn:s"\ndirection = "receive"\nfrom_role = "f"\nto_role = "t"\n')
    receive = receive.replace('"oots/2.0"', '"edelivery-as4/1.15"')
    with pytest.raises(ConfigError, match="push"):
        made(file=receive)


NAMED = '\n[[exchanges]]\nid = "x"\naction = "A"\nservice = "urn:s"\nagreement = "urn:a:1"\nfrom_role = "f"\nto_role = "t"\n'


def test_names_given_later_are_taken_in_what_arrives():
    table = '[parties.AP_EE_01.updates]\nagreed = ["urn:a:2", {{ value = "3", type = "n" }}]\n'.replace("{{", "{").replace("}}", "}")
    named = FILE.replace('"oots/2.0"', '"edelivery-as4/1.15"')
    pmodes = made(table + NAMED, file=named)
    inbound = [leg for leg in pmodes.legs if leg.to_party.name == "AP_LV_01" and not leg.is_update]
    assert inbound and all(leg.also == (AgreementRef("urn:a:2"), AgreementRef("3", "n")) for leg in inbound)
    assert all(not leg.also for leg in pmodes.legs if leg.from_party.name == "AP_LV_01")
    requests = [leg for leg in pmodes.legs if leg.is_update and leg.from_party.name == "AP_LV_01"]
    assert {leg.agreement for leg in requests} == {AgreementRef("urn:a:1")}
    assert all(leg.agreement is None for leg in pmodes.legs if leg.is_update and leg.from_party.name != "AP_LV_01")


def test_names_are_written_into_the_file():
    text = with_agreed(FILE.format(more=UPDATES + "# kept\n", top=""), "AP_EE_01", ["urn:a:2", {"value": "3", "type": "n"}], file="a")
    assert "# kept" in text
    pmodes = made(text.partition('certificate = "ee.pem"\n')[2])
    partner = next(p for p in pmodes.parties if p.name == "AP_EE_01")
    assert partner.updates.agreed == (AgreementRef("urn:a:2"), AgreementRef("3", "n"))


def test_any_party_has_none():
    more = '[parties.all]\ntype = "urn:y"\nany = true\ntrust = { anchors = "ee.pem" }\nupdates = { agreement = "x" }\n'
    with pytest.raises(ConfigError, match="one party"):
        made(more)


def test_values_say_where_they_come_from():
    from gateway.pmodes.origin import Explained

    pem = to_pem(pki.Ca.root().leaf("AP_EE_01"))
    files = Bundle(("a.toml",), {"a.toml": FILE.format(more=UPDATES, top='compress = false\nmax_part = "1MiB"').encode(), "ee.pem": pem})
    found = Explained(files)
    leg = next(leg for leg in found.pmodes.legs if leg.is_update)
    origins = {value.name: value.origin.layer for value in found.values(leg)}
    assert {origins[n] for n in ("action", "from_role", "mep", "backend", "max_part", "retry.first")} == {"agreement update"}
    assert origins["compress"] == "file" and origins["to_party"] == "party"
