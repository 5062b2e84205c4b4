"""Every construction of a Domibus P-Mode file: what it becomes, what is mended, left aside, refused [domibus 3.1-3.4]."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.as4 import ns
from gateway.as4.pmode import PropertyRule, RetryPolicy
from gateway.as4.retry import next_wait
from gateway.as4.units import AgreementRef, PartyId, Service
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Retry
from gateway.pmodes.domibus import retry as retries
from gateway.pmodes.domibus.report import PModeRefused

from .pmodes import EB, PIECES, UNREGISTERED, imported, legs_of, pmode, short, translated

ORDER = ("blue", "red", "Order")


def said(notes) -> str:
    return "\n".join(f"{note.where}: {note.message}" for note in notes)


def refusal(own: str | None = "blue", **pieces: str) -> PModeRefused:
    with pytest.raises(PModeRefused) as error:
        imported(own, **pieces)
    return error.value


class TestALeg:
    def test_everything_a_leg_has(self):
        legs, report = imported()
        leg = legs[ORDER]
        assert (leg.from_party.party_id, leg.to_party.party_id) == (
            PartyId("blue-id", UNREGISTERED), PartyId("red", UNREGISTERED),
        )  # fmt: skip
        assert (leg.from_party.name, leg.to_party.endpoint) == ("blue", "https://red.example/services/msh")
        assert (leg.from_role, leg.to_role) == ("urn:role:buyer", "urn:role:seller")
        assert (leg.service, leg.action) == (Service("urn:orders"), "Order")
        assert leg.agreement is None and leg.mpc == ns.DEFAULT_MPC and leg.mep_binding == ns.BINDING_PUSH
        assert leg.properties == (PropertyRule("originalSender"), PropertyRule("finalRecipient")) and leg.closed_properties
        assert leg.compress and leg.signature_token == "ski" and leg.profile == "edelivery-as4/1.15"
        assert leg.retry == RetryPolicy(first=180, factor=1, max=180, count=4, window=720, jitter=0)
        assert legs.keys() == {ORDER, ("blue", "red", "test")} and not report.errors and not report.repaired

    def test_the_direction_is_who_may_initiate(self):
        legs, _ = imported("red")
        assert legs.keys() == {ORDER, ("blue", "red", "test")}
        both = "<{0}Parties><{0}Party name='blue'/><{0}Party name='red'/></{0}Parties>"
        legs, _ = imported(initiators=both.format("initiator"), responders=both.format("responder"))
        assert {ORDER, ("red", "blue", "Order")} <= legs.keys()

    def test_the_process_names_the_agreement(self):
        leg = imported(process=PIECES["process"].replace('agreement="none"', 'agreement="a1"'))[0][ORDER]
        assert leg.agreement == AgreementRef("A1", "T1")

    @pytest.mark.parametrize("piece", ["", 'agreement=""', 'agreement="none"'])
    def test_no_agreement_and_an_empty_one_are_the_same(self, piece):
        assert imported(process=PIECES["process"].replace('agreement="none"', piece))[0][ORDER].agreement is None

    def test_an_agreement_without_type(self):
        uri = PIECES["agreements"].replace('value="A1" type="T1"', 'value="urn:a:1"')
        leg = imported(agreements=uri, process=PIECES["process"].replace("none", "a1"))[0][ORDER]
        assert leg.agreement == AgreementRef("urn:a:1")
        plain = PIECES["agreements"].replace('type="T1"', 'type=""')
        with pytest.raises(ConfigError, match="nothing that blue can use") as error:
            imported(agreements=plain, process=PIECES["process"].replace("none", "a1"))
        assert "has no type and is no URI" in error.value.hint

    def test_a_service_without_type(self):
        with pytest.raises(ConfigError, match="nothing that blue can use"):
            imported(services='<service name="orders" value="orders"/>')
        typed = '<service name="orders" value="orders" type="t"/>'
        assert imported(services=typed)[0][ORDER].service == Service("orders", "t")

    def test_no_property_set_is_open_to_all(self):
        leg = imported(legs=PIECES["legs"].replace('propertySet="corners"', ""))[0][ORDER]
        assert leg.properties == () and not leg.closed_properties
        assert leg.profile == "edelivery-as4/1.15-two-corner"

    def test_a_property_that_is_not_required(self):
        text = PIECES["properties"].replace('"string" required="true"/><propertySet', '"string" required="false"/><propertySet')
        leg = imported(properties=text)[0][ORDER]
        assert leg.properties[1] == PropertyRule("finalRecipient", False)
        # Without two required corners it is no four-corner agreement.
        assert leg.profile == "edelivery-as4/1.15-two-corner"

    @pytest.mark.parametrize("datatype", ["int", "Integer", "boolean"])
    def test_datatypes_are_told(self, datatype):
        _, report = imported(properties=PIECES["properties"].replace("string", datatype, 1))
        assert f"property 'os' datatype: '{datatype.lower()}': values are not checked" in said(report.ignored)

    def test_sizes_of_a_payload_profile(self):
        payloads = (
            '<payloadProfiles><payload name="body" cid="cid:message" mimeType="text/xml" inBody="true" schemaFile="a.xsd" '
            'maxSize="1024" required="true"/><payload name="pdf" cid="cid:pdf" maxSize="2048" required="false"/>'
            '<payloadProfile name="small" maxSize="4096"><attachment name="body"/><attachment name="pdf"/></payloadProfile>'
            "</payloadProfiles>"
        )
        leg_text = PIECES["legs"].replace("compressPayloads", 'payloadProfile="small" compressPayloads')
        legs, report = imported(payloads=payloads, legs=leg_text)
        assert (legs[ORDER].max_message, legs[ORDER].max_part) == (4096, 2048)
        ignored = said(report.ignored)
        for attribute in ("cid", "mimeType", "inBody", "schemaFile", "required"):
            assert f"payload 'body' {attribute}: " in ignored
        # One payload without a bound: no part has one.
        legs, _ = imported(payloads=payloads.replace('maxSize="2048"', ""), legs=leg_text)
        assert legs[ORDER].max_part == 1 << 30
        error = refusal(payloads=payloads.replace('maxSize="4096"', 'maxSize="-1"'))
        assert "payloadProfile 'small' maxSize: is negative" in str(error)

    def test_a_channel_of_its_own(self):
        leg = imported(mpcs=PIECES["mpcs"].replace(f"{EB}defaultMPC", "urn:mpc:orders"))[0][ORDER]
        assert leg.mpc == "urn:mpc:orders"

    def test_compression(self):
        assert not imported(legs=PIECES["legs"].replace('Payloads="true"', 'Payloads="false"'))[0][ORDER].compress

    def test_names_are_found_whatever_their_case_and_that_is_told(self):
        legs, report = imported(legs=PIECES["legs"].replace('security="policy"', 'security="POLICY"'))
        assert ORDER in legs
        assert "legConfiguration 'orderLeg' security: 'POLICY' read as 'policy'" in said(report.repaired)

    def test_two_legs_with_one_action_are_named_after_the_legs(self):
        second = PIECES["legs"].replace("orderLeg", "otherLeg").replace('service="orders"', 'service="others"')
        legs, _ = imported(
            legs=PIECES["legs"] + second, services=PIECES["services"] + '<service name="others" value="urn:others"/>',
            process_legs='<legs><leg name="orderLeg"/><leg name="otherLeg"/></legs>',
        )  # fmt: skip
        assert {key[2] for key in legs} == {"orderLeg", "otherLeg", "test"}

    def test_a_test_leg_of_its_own_settings_stays(self):
        test = PIECES["legs"].replace("orderLeg", "testLeg").replace('"orders"', '"testService"').replace(
            'action="order"', 'action="testAction"')  # fmt: skip
        common = {"legs": PIECES["legs"] + test, "process_legs": '<legs><leg name="orderLeg"/><leg name="testLeg"/></legs>'}
        assert [e.name for e in translated(pmode(**common))[0].file.exchanges] == ["Order"]
        other = {**common, "securities": PIECES["securities"] + '<security name="bst" policy="eDeliveryAS4Policy_BST.xml"/>'}
        other["legs"] = PIECES["legs"] + test.replace('security="policy"', 'security="bst"')
        file = translated(pmode(**other))[0].file
        assert [e.name for e in file.exchanges] == ["Order", "test"]
        (leg,) = (leg for leg in legs_of(file).legs if leg.is_test)
        assert leg.signature_token == "bst"


class TestProcesses:
    def test_not_in_a_process(self):
        third = '<party name="green" endpoint="https://green.example/as4"><identifier partyId="green" partyIdType="urn"/></party>'
        other = PIECES["process"].replace("ordering", "elsewhere") + (
            '<initiatorParties><initiatorParty name="red"/></initiatorParties>'
            '<responderParties><responderParty name="green"/></responderParties>'
            '<legs><leg name="orderLeg"/></legs></process>'
        )
        legs, report = imported(parties=PIECES["parties"] + third, more=other)
        assert "process 'elsewhere': blue is not in it; it is not imported" in said(report.warnings)
        assert {key[1] for key in legs} == {"red"}
        assert "party 'green': has no leg with blue" in said(report.ignored)

    def test_two_processes_with_other_partners(self):
        third = '<party name="green" endpoint="https://green.example/as4"><identifier partyId="green" partyIdType="urn"/></party>'
        more = PIECES["process"].replace("ordering", "second").replace("none", "a1") + (
            PIECES["initiators"] + '<responderParties><responderParty name="green"/></responderParties>'
            + PIECES["process_legs"] + "</process>"
        )
        file = short(pmode(parties=PIECES["parties"] + third, more=more))
        assert [(e.name, e.parties, e.direction) for e in file.exchanges] == [
            ("orderLeg", ("red",), "send"), ("orderLeg-second", ("green",), "send"),
        ]  # fmt: skip
        assert {leg.to_party.name: leg.agreement for leg in legs_of(file).legs if not leg.is_test} == {
            "red": None, "green": AgreementRef("A1", "T1"),
        }  # fmt: skip

    def test_the_first_of_two_legs_for_the_same_messages_wins(self):
        twin = PIECES["legs"].replace("orderLeg", "twinLeg").replace('Payloads="true"', 'Payloads="false"')
        legs, report = imported(
            legs=PIECES["legs"] + twin, process_legs='<legs><leg name="orderLeg"/><leg name="twinLeg"/></legs>'
        )
        assert legs[ORDER].compress and len(legs) == 2
        assert "matches the same messages as process 'ordering', legConfiguration 'orderLeg'" in said(report.warnings)

    def test_dynamic_processes_are_told(self):
        legs, report = imported("red", initiators="")
        assert ORDER in legs and "no initiatorParties: unknown senders may come" in said(report.warnings)
        legs, report = imported(responders="")
        assert ORDER in legs and "no responderParties: receivers are looked up" in said(report.warnings)

    @pytest.mark.parametrize("binding", ["pushAndPush", "push-and-push", "PUSHANDPUSH"])
    def test_two_way_is_two_one_ways(self, binding):
        bindings = f'<binding name="pushAndPush" value="{EB}{binding}"/>'
        process = PIECES["process"].replace('"oneway"', '"twoway"').replace('binding="push"', 'binding="pushAndPush"')
        legs, report = imported(bindings=bindings, process=process)
        assert legs[ORDER].mep == ns.MEP_ONE_WAY and legs[ORDER].mep_binding == ns.BINDING_PUSH
        assert "two-way" in said(report.warnings) and "pushAndPush" in said(report.warnings)

    @pytest.mark.parametrize("binding", ["sync", "pushAndPull", "pull-and-push", "carrierPigeon"])
    def test_bindings_nobody_speaks(self, binding):
        process = PIECES["process"].replace('binding="push"', 'binding="x"')
        with pytest.raises(ConfigError, match="nothing that blue can use") as error:
            imported(bindings=f'<binding name="x" value="{EB}{binding}"/>', process=process)
        assert "binding" in error.value.hint

    def test_an_unknown_mep(self):
        with pytest.raises(ConfigError, match="nothing"):
            imported(meps='<mep name="oneway" value="urn:three-way"/>')

    def test_equal_roles_are_a_warning(self):
        _, report = imported(process=PIECES["process"].replace('responderRole="seller"', 'responderRole="buyer"'))
        assert "both roles are the same" in said(report.warnings)


class TestPull:
    MPC = PIECES["mpcs"].replace(f"{EB}defaultMPC", "urn:mpc:red")
    PROCESS = PIECES["process"].replace('binding="push"', 'binding="pull"')

    def test_the_initiator_pulls(self):
        # blue initiates: it pulls from red, so red sends.
        legs, _ = imported(mpcs=self.MPC, process=self.PROCESS)
        leg = legs[("red", "blue", "Order")]
        assert leg.pulled and leg.mpc == "urn:mpc:red" and (leg.from_role, leg.to_role) == ("urn:role:buyer", "urn:role:seller")
        legs, _ = imported("red", mpcs=self.MPC, process=self.PROCESS)
        assert legs[("red", "blue", "Order")].pulled

    def test_a_puller_needs_no_endpoint(self):
        parties = PIECES["parties"].replace("https://blue.example/services/msh", "")
        legs, report = imported("red", mpcs=self.MPC, process=self.PROCESS, parties=parties)
        assert legs[("red", "blue", "Order")].to_party.endpoint is None
        assert "party 'blue': has no endpoint" in said(report.warnings)

    def test_nothing_can_be_pulled_from_nowhere(self):
        parties = PIECES["parties"].replace("https://red.example/services/msh", "")
        with pytest.raises(ConfigError, match="nothing") as error:
            imported(mpcs=self.MPC, process=self.PROCESS, parties=parties)
        assert "nothing can be pulled from red" in error.value.hint + said([])

    def test_the_default_channel_cannot_be_pulled(self):
        with pytest.raises(ConfigError, match="nothing") as error:
            imported(process=self.PROCESS)
        assert "default MPC" in error.value.hint

    def test_a_channel_has_one_puller(self):
        third = '<party name="green" endpoint=""><identifier partyId="green" partyIdType="urn"/></party>'
        both = '<initiatorParties><initiatorParty name="blue"/><initiatorParty name="green"/></initiatorParties>'
        with pytest.raises(ConfigError, match="nothing") as error:
            imported("red", mpcs=self.MPC, process=self.PROCESS, parties=PIECES["parties"] + third, initiators=both)
        assert "a channel belongs to one party" in error.value.hint


class TestParties:
    def test_self_by_name_by_case_and_by_id(self):
        assert short(pmode(), "blue").own == "blue"
        translation, report = translated(pmode(), "BLUE")
        assert translation.file.own == "blue" and "is the party meant by 'BLUE'" in said(report.repaired)
        assert short(pmode(), "blue-id").own == "blue"

    def test_without_self_the_file_says_who_we_are(self):
        assert short(pmode(), None).own == "blue"

    def test_a_wrong_self_gets_suggestions(self):
        with pytest.raises(ConfigError) as error:
            short(pmode(), "bleu")
        assert error.value.key == "--self" and error.value.hint == "did you mean 'blue'?; the file was made for 'blue'"

    def test_the_party_of_the_file_is_not_there(self):
        text = pmode(root=PIECES["root"].replace("blue", "nobody"))
        with pytest.raises(ConfigError, match="there is no party 'nobody'"):
            short(text, None)
        _, report = translated(text, "blue")
        assert "'nobody' is none of the parties" in said(report.warnings)

    def test_a_party_id_that_is_not_the_name(self):
        file = short(pmode())
        assert file.parties["blue"].id == "blue-id" and file.parties["red"].id is None

    def test_several_identifiers_are_several_parties(self):
        more = PIECES["parties"].replace(
            '<identifier partyId="red" partyIdType="urn"/>',
            '<identifier partyId="red" partyIdType="urn"/><identifier partyId="urn:red:2"/>',
        )  # fmt: skip
        legs, report = imported(parties=more)
        assert legs[("blue", "red-2", "Order")].to_party.party_id == PartyId("urn:red:2")
        assert "is imported as party red-2" in said(report.warnings)
        own = PIECES["parties"].replace(
            '<identifier partyId="blue-id" partyIdType="urn"/>',
            '<identifier partyId="blue-id" partyIdType="urn"/><identifier partyId="urn:blue:2"/>',
        )  # fmt: skip
        legs, report = imported(parties=own)
        assert legs.keys() == {ORDER, ("blue", "red", "test")} and "ours is the first" in said(report.warnings)

    @pytest.mark.parametrize("kind", ["", 'partyIdType=""'])
    def test_an_id_without_type_must_be_a_uri(self, kind):
        uri = PIECES["parties"].replace('partyId="red" partyIdType="urn"', f'partyId="urn:red" {kind}')
        assert imported(parties=uri)[0][ORDER].to_party.party_id == PartyId("urn:red")
        with pytest.raises(ConfigError, match="nothing"):
            imported(parties=PIECES["parties"].replace('partyId="red" partyIdType="urn"', f'partyId="red" {kind}'))

    def test_blanks_around_a_url_are_taken_off_and_told(self):
        legs, report = imported(parties=PIECES["parties"].replace("red.example/services/msh", "red.example/services/msh "))
        assert legs[ORDER].to_party.endpoint == "https://red.example/services/msh"
        (note,) = report.repaired
        assert note.rule == "P001" and note.where == "p.xml, line 7: party 'red' endpoint"

    def test_a_query_string_is_kept(self):
        legs, _ = imported(parties=PIECES["parties"].replace("red.example/services/msh", "red.example/msh?domain=oots&amp;x=1"))
        assert legs[ORDER].to_party.endpoint == "https://red.example/msh?domain=oots&x=1"

    def test_plain_http_is_a_warning_and_marked(self):
        text = pmode(parties=PIECES["parties"].replace("https://red", "http://red"))
        translation, report = translated(text)
        assert [(n.rule, n.where) for n in report.warnings if n.rule == "P002"] == [("P002", "p.xml, line 7: party 'red'")]
        file = translation.file
        assert file.parties["red"].allow_http and file.parties["blue"].allow_http is None and not file.allow_http

    @pytest.mark.parametrize("url", ["ftp://red.example", "https://user:pw@red.example/", "https://red.example/#x", "https://re d.example/"])
    def test_an_endpoint_that_is_none_is_left_out(self, url):
        legs, report = imported(parties=PIECES["parties"].replace("https://red.example/services/msh", url))
        assert legs[ORDER].to_party.endpoint is None and "left out" in said(report.warnings)

    def test_a_shared_endpoint_is_told(self):
        third = '<party name="green" endpoint="https://red.example/services/msh"><identifier partyId="green" partyIdType="urn"/></party>'
        _, report = imported(parties=PIECES["parties"] + third)
        assert [n.rule for n in report.warnings if "same endpoint as red" in n.message] == ["P005"]

    def test_two_parties_with_one_id(self):
        third = '<party name="green" endpoint=""><identifier partyId="red" partyIdType="urn"/></party>'
        assert "has the same id and type as party red" in str(refusal(parties=PIECES["parties"] + third))

    def test_ids_that_differ_in_case_are_two_parties(self):
        third = '<party name="green" endpoint=""><identifier partyId="RED" partyIdType="urn"/></party>'
        responders = '<responderParties><responderParty name="red"/><responderParty name="green"/></responderParties>'
        legs, report = imported(parties=PIECES["parties"] + third, responders=responders)
        assert legs[("blue", "green", "Order")].to_party.party_id.value == "RED"
        assert "differs from that of red in letter case only" in said(report.warnings)

    def test_user_and_password_are_ignored_and_the_password_is_not_repeated(self):
        _, report = imported(parties=PIECES["parties"].replace('name="red"', 'name="red" userName="u" password="geheim" allowChunking="true"'))
        ignored = said(report.ignored)
        assert "party 'red' userName: u: " in ignored and "party 'red' password: " in ignored and "geheim" not in ignored
        assert "party 'red' allowChunking: true: Split/Join is not spoken" in ignored

    def test_somebody_who_talks_to_himself(self):
        """France's example: one party, initiator and responder of everything."""
        file = short(pmode(
            parties='<party name="blue" endpoint="http://localhost:8080/msh"><identifier partyId="blue" partyIdType="urn"/></party>',
            responders='<responderParties><responderParty name="blue"/></responderParties>',
        ))  # fmt: skip
        assert list(file.parties) == ["blue"] and [e.name for e in file.exchanges] == ["Order"] and not legs_of(file).legs


class TestSecurity:
    @pytest.mark.parametrize(("security", "profile", "token"), [
        ('policy="eDeliveryAS4Policy.xml"', "edelivery-as4/1.15", "ski"),
        ('policy="eDeliveryAS4Policy_BST.xml" signatureMethod="RSA_SHA256"', "edelivery-as4/1.15", "bst"),
        ('policy="edeliveryas4policy_bst"', "edelivery-as4/1.15", "bst"),
        ('policy="eDeliveryAS4Policy_BST_PKIP.xml" profile="RSA"', "edelivery-as4/1.15", "pkipath"),
        ('policy="eDeliveryAS4Policy_IS.xml"', "edelivery-as4/1.15", "issuer-serial"),
        ('profile="rsa"', "edelivery-as4/1.15", "bst"),
        ('profile="RSA"', "edelivery-as4/1.15", "bst"),
        ('profile="ecc"', "edelivery-as4/2.0", "bst"),
        ('policy="eDeliveryAS4Policy_BST.xml" profile="ECC" signatureMethod="ECC_SHA256"', "edelivery-as4/2.0", "bst"),
        ('profile="ecdsa"', "edelivery-as4/2.0-ecdsa", "bst"),
    ])  # fmt: skip
    def test_policies_and_profiles(self, security, profile, token):
        leg = imported(securities=f'<security name="policy" {security}/>')[0][ORDER]
        assert (leg.profile, leg.signature_token) == (profile, token)

    @pytest.mark.parametrize("policy", ["signOnly.xml", "doNothingPolicy.xml", "DONOTHINGPOLICY", "eDeliveryAS4PolicyEncryptBody.xml"])
    def test_a_weak_policy_never_becomes_usable(self, policy):
        weak = f'<security name="weak" policy="{policy}"/>'
        _, report = imported(securities=PIECES["securities"] + weak)
        assert "security 'weak': no process of blue uses it; it does not become usable" in said(report.ignored)
        second = PIECES["legs"].replace("orderLeg", "weakLeg").replace('"policy"', '"weak"').replace('"order"', '"weak"')
        legs, report = imported(
            securities=PIECES["securities"] + weak, legs=PIECES["legs"] + second,
            actions=PIECES["actions"] + '<action name="weak" value="Weak"/>',
            process_legs='<legs><leg name="orderLeg"/><leg name="weakLeg"/></legs>',
        )  # fmt: skip
        assert legs.keys() == {ORDER, ("blue", "red", "test")}
        (note,) = (n for n in report.warnings if "weakLeg" in n.where)
        assert "is never usable" in note.message and note.rule == "P009"
        with pytest.raises(ConfigError, match="nothing that blue can use"):
            imported(securities=weak.replace('"weak"', '"policy"'))

    @pytest.mark.parametrize("security", ['policy="ourOwnPolicy.xml"', 'policy="../../etc/passwd"', 'profile="pqc"', ""])
    def test_a_policy_nobody_knows(self, security):
        error = refusal(securities=f'<security name="policy" {security}/>')
        assert "security 'policy'" in str(error)
        # Where no leg of ours uses it, it may stand there.
        _, report = imported(securities=PIECES["securities"] + f'<security name="odd" {security}/>')
        assert "security 'odd': no process of blue uses it" in said(report.ignored)

    def test_one_file_has_one_profile(self):
        second = PIECES["legs"].replace("orderLeg", "eccLeg").replace('"policy"', '"ecc"').replace('"order"', '"other"')
        legs, report = imported(
            securities=PIECES["securities"] + '<security name="ecc" profile="ECC"/>', legs=PIECES["legs"] + second,
            actions=PIECES["actions"] + '<action name="other" value="Other"/>',
            process_legs='<legs><leg name="orderLeg"/><leg name="eccLeg"/></legs>',
        )  # fmt: skip
        assert {leg.profile for leg in legs.values()} == {"edelivery-as4/1.15"}
        assert "is edelivery-as4/2.0, the other legs are edelivery-as4/1.15" in said(report.warnings)


class TestRetry:
    @pytest.mark.parametrize(("text", "waits"), [
        ("12;4;CONSTANT", [180] * 4),
        ("12; 4 ;constant", [180] * 4),
        ("10;3;CONSTANT", [200] * 3),
        ("9;1;2;PROGRESSIVE", [60, 120, 240, 120]),
        ("12;4;SEND_ONCE", []),
        ("0;4;CONSTANT", []),
        ("12;0;CONSTANT", []),
    ])  # fmt: skip
    def test_waits(self, text, waits):
        """The fourth wait of PROGRESSIVE is drawn nearer: Domibus gives up nine minutes after the submission."""
        policy = retries.parse(text).over(RetryPolicy())
        found, elapsed = [], 0.0
        while (wait := next_wait(policy, retries_made=len(found), elapsed=elapsed, entropy=lambda n: b"\x80" + bytes(n - 1))) is not None:
            found.append(wait)
            elapsed += wait
        assert found == pytest.approx(waits)

    def test_no_string_is_once(self):
        assert retries.parse(None) == Retry(count=0)
        leg = imported(as4=PIECES["as4"].replace('retry="12;4;CONSTANT"', ""))[0][ORDER]
        assert leg.retry.count == 0

    def test_a_leg_without_reception_awareness_is_sent_once(self):
        assert imported(legs=PIECES["legs"].replace('receptionAwareness="awareness"', ""))[0][ORDER].retry.count == 0

    def test_progressive_as_terms(self):
        assert retries.parse("9;1;2;PROGRESSIVE") == Retry(first=60.0, factor=2.0, max=480.0, count=4, window=540.0, jitter=0.0)

    @pytest.mark.parametrize("text", [
        "12", "12;4", "12;4;SOMETIMES", "a;4;CONSTANT", "-1;4;CONSTANT", "12;101;CONSTANT", "9;1;1;PROGRESSIVE",
        "9;10;2;PROGRESSIVE", "12;4;5;CONSTANT", "9;1;PROGRESSIVE", "1e9;4;CONSTANT", "99999999999;4;CONSTANT",
    ])  # fmt: skip
    def test_bad_strings_stop_the_import(self, text):
        error = refusal(as4=PIECES["as4"].replace("12;4;CONSTANT", text))
        assert "receptionAwareness 'awareness' retry" in str(error)

    @given(st.integers(1, 10_000), st.integers(1, 100))
    def test_constant_there_and_back(self, timeout, count):
        policy = retries.parse(f"{timeout};{count};CONSTANT").over(RetryPolicy())
        assert retries.write(policy) == (f"{timeout};{count};CONSTANT", True)

    @given(st.integers(1, 10_000), st.integers(1, 100), st.integers(2, 9))
    def test_progressive_there_and_back(self, timeout, initial, factor):
        if initial > timeout:
            return
        policy = retries.parse(f"{timeout};{initial};{factor};PROGRESSIVE").over(RetryPolicy())
        text, exact = retries.write(policy)
        assert exact and retries.parse(text).over(RetryPolicy()) == policy


class TestIgnored:
    """What the gateway does not obey is said, with a reason, once for each kind."""

    @pytest.mark.parametrize(("piece", "old", "new", "expected"), [
        ("mpcs", 'enabled="true"', 'enabled="false"', "mpc 'defaultMpc' enabled: false"),
        ("mpcs", 'retention_downloaded="0"', 'retention_downloaded="-1"', "retention_downloaded: -1: how long messages are kept"),
        ("mpcs", "enabled", 'retention_sent="5" enabled', "retention_sent: 5: "),
        ("mpcs", "enabled", 'retention_sent_success="5" retention_sent_failure="6" enabled', "retention_sent_failure: 6: "),
        ("mpcs", "enabled", 'retention_metadata_offset="525600" enabled', "retention_metadata_offset: 525600: "),
        ("mpcs", "enabled", 'delete_message_metadata="true" enabled', "delete_message_metadata: true: "),
        ("mpcs", "enabled", 'max_batch_delete="1000" enabled', "max_batch_delete: 1000: "),
        ("errors", 'errorAsResponse="true"', 'errorAsResponse="false"', "errorAsResponse: false: errors always go back"),
        ("errors", 'NotifyProducer="true"', 'NotifyProducer="false"', "businessErrorNotifyProducer: false: "),
        ("as4", 'replyPattern="response"', 'replyPattern="callback"', "replyPattern: callback: receipts always come in the response"),
        ("as4", 'nonRepudiation="true"', 'nonRepudiation="false"', "nonRepudiation: false: receipts always hold"),
        ("as4", 'Detection="true"', 'Detection="false"', "duplicateDetection: false: duplicates are always found"),
        ("securities", "RSA_SHA256", "RSA_SHA1", "signatureMethod: RSA_SHA1: the algorithms are those of the profile"),
        ("meps", "<mep ", '<mep legs="2" ', "mep 'oneway' legs: 2: follows from the value"),
        ("parties", "<party ", '<party colour="blue" ', "party 'blue' colour: an attribute this grammar does not know"),
        ("roles", "<role ", "<rule/><role ", "'rule': an element this grammar does not know (did you mean 'role'?)"),
    ])  # fmt: skip
    def test_attributes(self, piece, old, new, expected):
        assert old in PIECES[piece]
        _, report = imported(**{piece: PIECES[piece].replace(old, new, 1)})
        assert expected in said(report.ignored)

    def test_splitting(self):
        splitting = ('<splittingConfigurations><splitting name="s" fragmentSize="20" compression="true" '
                     'compressionAlgorithm="br" joinInterval="1440"/></splittingConfigurations>')  # fmt: skip
        legs, report = imported(splitting=splitting, legs=PIECES["legs"].replace("compressPayloads", 'splitting="s" compressPayloads'))
        assert ORDER in legs
        for attribute in ("fragmentSize: 20", "compression: true", "compressionAlgorithm: br", "joinInterval: 1440"):
            assert f"splitting 's' {attribute}: Split/Join is not spoken" in said(report.ignored)

    def test_what_the_gateway_does_anyway_is_not_worth_a_word(self):
        _, report = imported()
        assert {note.where.rpartition(" ")[2] for note in report.ignored} <= {"default", "retention_downloaded",
                                                                            "retention_undownloaded", "'a1'",
                                                                            "'testService'", "'testAction'"}  # fmt: skip

    def test_the_same_thing_is_told_once(self):
        third = "".join(f'<party name="p{n}" endpoint="https://p{n}.example/as4" userName="u"><identifier partyId="p{n}" partyIdType="urn"/></party>' for n in range(9))
        _, report = imported(parties=PIECES["parties"] + third)
        (note,) = (n for n in report.ignored if "userName" in n.where)
        assert note.message.endswith("(9 times)")

    def test_unused_definitions_are_told(self):
        _, report = imported(agreements=PIECES["agreements"] + '<agreement name="a9" value="A9" type="T"/>')
        assert "agreement 'a9': no process of blue uses it" in said(report.ignored)


class TestSloppyFiles:
    def test_a_root_in_the_default_namespace(self):
        text = pmode(root='<configuration xmlns="http://domibus.eu/configuration" party="blue">').replace("</db:", "</")
        assert ORDER in {tuple(leg.pmode_id.split(":")) for leg in legs_of(short(text)).legs}

    def test_any_prefix(self):
        text = pmode(root=PIECES["root"].replace("db", "ns2")).replace("</db:", "</ns2:")
        assert short(text) == short(pmode())

    def test_no_namespace_is_mended(self):
        text = pmode(root='<configuration party="blue">').replace("</db:", "</")
        _, report = translated(text)
        assert "the namespace http://domibus.eu/configuration is missing" in said(report.repaired)

    @pytest.mark.parametrize("change", [
        lambda t: t.replace("<roles>", "<!-- roles --><roles>").replace("<?xml", "<?xml", 1) + "<!-- end -->",
        lambda t: t.replace("\n", "\r\n"),
        lambda t: t.replace("<businessProcesses>", "<businessProcesses>\n\t"),
        lambda t: t.replace('<?xml version="1.0" encoding="UTF-8"?>\n', ""),
        lambda t: t.replace("<db:configuration ", '<db:configuration xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
                            'xsi:schemaLocation="http://domibus.eu/configuration domibus-pmode.xsd" '),
    ], ids=["comments", "crlf", "blanks", "no declaration", "schemaLocation"])  # fmt: skip
    def test_the_same_file_written_otherwise(self, change):
        assert short(change(pmode())) == short(pmode())

    @pytest.mark.parametrize("octets", [
        lambda t: b"\xef\xbb\xbf" + t.encode(),
        lambda t: t.replace("UTF-8", "UTF-16").encode("utf-16"),
        lambda t: t.replace("UTF-8", "ISO-8859-1").encode("latin-1"),
        lambda t: t.replace("UTF-8", "windows-1252").encode("cp1252"),
    ], ids=["bom", "utf-16", "latin-1", "cp1252"])  # fmt: skip
    def test_encodings(self, octets):
        text = pmode(roles=PIECES["roles"].replace("urn:role:buyer", "urn:role:käufer"))
        assert short(octets(text)) == short(text)

    def test_the_order_of_the_lists_does_not_matter(self):
        text = pmode()
        actions, services = f"<actions>{PIECES['actions']}</actions>", f"<services>{PIECES['services']}</services>"
        assert short(text.replace(actions, "").replace(services, actions + services)) == short(text)

    @pytest.mark.parametrize(("value", "spelled"), [("1", None), ("TRUE", "true"), ("True", "true")])
    def test_booleans(self, value, spelled):
        legs, report = imported(legs=PIECES["legs"].replace('Payloads="true"', f'Payloads="{value}"'))
        assert legs[ORDER].compress and bool(report.repaired) == bool(spelled)

    def test_something_listed_twice(self):
        twice = '<initiatorParties><initiatorParty name="blue"/><initiatorParty name="BLUE"/></initiatorParties>'
        _, report = imported(initiators=twice)
        assert "initiatorParty 'BLUE': stands twice" in said(report.repaired)

    def test_the_same_party_twice_is_mended_and_another_one_of_its_name_is_not(self):
        red = PIECES["parties"][PIECES["parties"].index('<party name="red"'):]
        _, report = imported(parties=PIECES["parties"] + red)
        assert "party 'red': stands twice" in said(report.repaired)
        error = refusal(parties=PIECES["parties"] + red.replace("red.example", "evil.example"))
        assert "party 'red': another one with this name stands in line 7" in str(error)

    def test_a_retention_that_is_missing(self):
        assert imported(mpcs=f'<mpc name="defaultMpc" qualifiedName="{EB}defaultMPC"/>')[0][ORDER]


class TestErrors:
    @pytest.mark.parametrize(("piece", "old", "new", "expected"), [
        ("process", 'mep="oneway"', 'mep="threeway"', "process 'ordering' mep: there is no mep 'threeway' (known here: oneway, twoway)"),
        ("process", 'binding="push"', 'binding="shove"', "there is no binding 'shove'"),
        ("process", 'initiatorRole="buyer"', 'initiatorRole="byer"', "there is no role 'byer' (did you mean 'buyer'?)"),
        ("process", 'agreement="none"', 'agreement="a9"', "there is no agreement 'a9'"),
        ("initiators", '"blue"', '"blau"', "there is no party 'blau'"),
        ("responders", '"red"', '"rot"', "there is no party 'rot'"),
        ("process_legs", "orderLeg", "odrerLeg", "there is no legConfiguration 'odrerLeg' (did you mean 'orderleg'?)"),
        ("legs", 'service="orders"', 'service="x"', "there is no service 'x'"),
        ("legs", 'action="order"', 'action="x"', "there is no action 'x'"),
        ("legs", 'defaultMpc="defaultMpc"', 'defaultMpc="x"', "there is no mpc 'x'"),
        ("legs", 'security="policy"', 'security="x"', "there is no security 'x'"),
        ("legs", 'errorHandling="errors"', 'errorHandling="x"', "there is no errorHandling 'x'"),
        ("legs", 'reliability="nrr"', 'reliability="x"', "there is no reliability 'x'"),
        ("legs", '"awareness"', '"x"', "there is no receptionAwareness 'x'"),
        ("legs", 'propertySet="corners"', 'propertySet="x"', "there is no propertySet 'x'"),
        ("legs", "compressPayloads", 'payloadProfile="x" compressPayloads', "there is no payloadProfile 'x'"),
        ("legs", "compressPayloads", 'splitting="x" compressPayloads', "there is no splitting 'x'"),
        ("properties", 'propertyRef property="os"', 'propertyRef property="x"', "there is no property 'x'"),
        ("parties", 'partyIdType="urn"', 'partyIdType="x"', "there is no partyIdType 'x'"),
        ("parties", '<identifier partyId="red" partyIdType="urn"/>', "", "party 'red': has no identifier"),
        ("parties", 'partyId="red"', "", "identifier 'urn': partyId is missing"),
        ("parties", 'name="red"', 'name="r&lt;d"', "holds a character that breaks the wire"),
        ("parties", 'partyId="red"', 'partyId="r&gt;d"', "holds a character that breaks the wire"),
        ("parties", "red.example", "red&lt;example", "holds a character that breaks the wire"),
        ("process", 'name="ordering"', 'name="&lt;ordering"', "holds a character that breaks the wire"),
        ("services", "urn:orders", "urn:a=b", "service 'orders' value: holds '='"),
        ("actions", 'value="Order"', 'value="a=b"', "action 'order' value: holds '='"),
        ("roles", 'value="urn:role:buyer"', "", "role 'buyer': value is missing"),
        ("roles", 'name="buyer"', 'name=""', "role name: is empty"),
        ("legs", 'Payloads="true"', 'Payloads="yes"', "'yes' is neither true nor false"),
        ("roles", "urn:role:buyer", "x" * 256, "is longer than 255 characters"),
    ])  # fmt: skip
    def test_what_stops_the_import(self, piece, old, new, expected):
        assert old in PIECES[piece]
        error = refusal(**{piece: PIECES[piece].replace(old, new, 1)})
        assert expected in said(error.report.errors)
        assert all(note.line for note in error.report.errors)

    def test_every_error_is_told(self):
        error = refusal(initiators=PIECES["initiators"].replace("blue", "blau"), as4=PIECES["as4"].replace("12;4", "x;4"))
        assert len(error.report.errors) == 2 and "(2 errors)" in str(error)

    @pytest.mark.parametrize("text", ["", "<a/>", "not xml", '<db:configuration xmlns:db="urn:other" party="a"/>'])
    def test_no_p_mode(self, text):
        with pytest.raises(ConfigError):
            translated(text)
