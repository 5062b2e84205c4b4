"""Agreements as a Domibus P-Mode: valid by an independent schema, and the same when read again."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gateway.as4 import ns
from gateway.as4.pmode import RetryPolicy
from gateway.cli.pmodes import group
from gateway.config.strict import build
from gateway.errors import ConfigError
from gateway.pmodes.agreements import File
from gateway.pmodes.domibus.export import export
from gateway.pmodes.domibus.read import read
from gateway.pmodes.domibus.translate import translate
from gateway.pmodes.shorten import materialise, shorten
from gateway.pmodes.write import write

from . import network as net
from .pmodes import PIECES, UNREGISTERED, legs_of, pmode, short
from .schema_5_1 import check

ROOT = Path(__file__).parents[3]
OWN = "AP_LV_01"


def again(file: File) -> tuple[File, str]:
    """The file after export and import."""
    text = export(legs_of(file)).xml
    root, report = read(text.encode(), "again.xml")
    return shorten(translate(root, report).file), text


def toml(text: str) -> File:
    import tomllib

    return build(tomllib.loads(text), File, file="t.toml", base=Path())


def comparable(file: File) -> File:
    """Names of exchanges and the order of parties are the file's own; certificates are not in a P-Mode."""
    return msgspec.structs.replace(file, parties=dict(sorted(file.parties.items())))


class TestRoundTrip:
    @pytest.mark.parametrize("network", [
        net.Network(), net.planted()[0], net.Network(lcm=False), net.Network(security='profile="rsa"'),
        net.Network(security='policy="eDeliveryAS4Policy.xml"'),
        net.Network(properties=(("originalSender", True), ("finalRecipient", True), ("ExchangeId", False), ("SpecificationId", False))),
        net.Network(properties=(("originalSender", False),)),
    ], ids=["published", "planted", "no lcm", "rsa", "ski", "2.0", "two corners"])  # fmt: skip
    def test_of_a_network(self, network):
        file = short(network.xml(OWN), OWN)
        second, text = again(file)
        assert comparable(second) == comparable(file) and check(text) == []
        third, text_again = again(second)
        assert comparable(third) == comparable(second) and text_again == text

    @pytest.mark.parametrize("pieces", [
        {},
        {"process": PIECES["process"].replace('"none"', '"a1"')},
        {"securities": '<security name="policy" profile="ecc"/>'},
        {"securities": '<security name="policy" profile="ecdsa"/>'},
        {"securities": '<security name="policy" policy="eDeliveryAS4Policy_BST_PKIP.xml"/>'},
        {"securities": '<security name="policy" policy="eDeliveryAS4Policy_IS.xml"/>'},
        {"as4": PIECES["as4"].replace("12;4;CONSTANT", "9;1;2;PROGRESSIVE")},
        {"as4": PIECES["as4"].replace("12;4;CONSTANT", "1;1;SEND_ONCE")},
        {"legs": PIECES["legs"].replace('propertySet="corners"', "")},
        {"legs": PIECES["legs"].replace('Payloads="true"', 'Payloads="false"')},
        {"mpcs": PIECES["mpcs"].replace("defaultMPC", "otherMPC")},
        {"parties": PIECES["parties"].replace("https://red.example/services/msh", "")},
        {"parties": PIECES["parties"].replace("https://red", "http://red")},
        {"parties": PIECES["parties"].replace('partyId="red" partyIdType="urn"', 'partyId="urn:red"')},
        {"parties": PIECES["parties"].replace('"red"', '"r&amp;d &quot;x&quot;"'),
         "responders": PIECES["responders"].replace('"red"', '"r&amp;d &quot;x&quot;"')},
        {"payloads": '<payloadProfiles><payload name="p" cid="cid:message" maxSize="10" required="true"/>'
                     '<payloadProfile name="s" maxSize="20"><attachment name="p"/></payloadProfile></payloadProfiles>',
         "legs": PIECES["legs"].replace("compressPayloads", 'payloadProfile="s" compressPayloads')},
        {"mpcs": PIECES["mpcs"].replace(f"{ns.EB}defaultMPC", "urn:mpc"),
         "process": PIECES["process"].replace('binding="push"', 'binding="pull"')},
    ])  # fmt: skip
    def test_of_single_constructions(self, pieces):
        file = short(pmode(**pieces))
        second, text = again(file)
        assert comparable(second) == comparable(file) and check(text) == []

    def test_the_legs_are_the_same_octet_for_octet(self):
        pmodes = legs_of(short(net.Network().xml(OWN), OWN))
        second, _ = again(short(net.Network().xml(OWN), OWN))
        assert set(map(repr, legs_of(second).legs)) == set(map(repr, pmodes.legs))


# -- configurations nobody thought of ------------------------------------------------

_word = st.text("abcdefghijklmnopqrstuvwxyzABCDEFG0123456789_.", min_size=1, max_size=8)
_uri = _word.map(lambda word: f"urn:{word}")


@st.composite
def configurations(draw):
    """A random P-Mode: parties, roles, services, legs of every kind, processes of any shape."""
    count = draw(st.integers(2, 5))
    parties = "".join(
        f'<party name="p{n}" endpoint="{draw(st.sampled_from([f"https://p{n}.example/as4", "", f"http://p{n}.example:81/msh?d=x"]))}">'
        f'<identifier partyId="id{n}" partyIdType="urn"/></party>'
        for n in range(count)
    )
    roles = "".join(f'<role name="r{n}" value="urn:role:{n}"/>' for n in range(3))
    services = "".join(f'<service name="s{n}" value="S{n}" type="t"/>' for n in range(2))
    actions = "".join(f'<action name="a{n}" value="{draw(_uri)}:{n}"/>' for n in range(3))
    agreements = '<agreement name="none" value="" type=""/><agreement name="g1" value="G1" type="T"/><agreement name="g2" value="urn:g2" type=""/>'
    policies = ["eDeliveryAS4Policy", "eDeliveryAS4Policy_BST", "eDeliveryAS4Policy_BST_PKIP", "eDeliveryAS4Policy_IS", "signOnly"]
    securities = "".join(f'<security name="sec{n}" policy="{policy}.xml"/>' for n, policy in enumerate(policies))
    retries = draw(st.lists(st.sampled_from(["12;4;CONSTANT", "60;5;CONSTANT", "9;1;2;PROGRESSIVE", "1;1;SEND_ONCE"]), min_size=1, max_size=3, unique=True))
    as4 = "".join(f'<receptionAwareness name="ra{n}" retry="{text}"/>' for n, text in enumerate(retries))
    as4 += '<reliability name="rel" replyPattern="response" nonRepudiation="true"/>'
    names = draw(st.lists(_word.filter(lambda w: w not in ("a", "b")), max_size=2, unique_by=str.lower))
    keys = ["originalSender", "finalRecipient", *names]
    required = [True, True, *(draw(st.booleans()) for _ in names)]
    properties = "".join(f'<property name="n{k}" key="{key}" datatype="string" required="{str(r).lower()}"/>' for k, (key, r) in enumerate(zip(keys, required, strict=True)))
    properties += '<propertySet name="all">' + "".join(f'<propertyRef property="n{k}"/>' for k in range(len(keys))) + "</propertySet>"
    properties += '<propertySet name="two"><propertyRef property="n0"/><propertyRef property="n1"/></propertySet>'
    mpcs = PIECES["mpcs"] + PIECES["mpcs"].replace("defaultMpc", "other").replace("defaultMPC", "other")
    legs, process_legs = "", []
    for n in range(draw(st.integers(1, 5))):
        test = draw(st.integers(0, 9)) == 0
        service, action = ("testService", "testAction") if test else (f"s{draw(st.integers(0, 1))}", f"a{draw(st.integers(0, 2))}")
        legs += (
            f'<legConfiguration name="leg{n}" service="{service}" action="{action}" security="sec{draw(st.integers(0, 4))}" '
            f'defaultMpc="{draw(st.sampled_from(["defaultMpc", "other"]))}" receptionAwareness="ra{draw(st.integers(0, len(retries) - 1))}" '
            f'reliability="rel" errorHandling="errors" {draw(st.sampled_from(["", PS.format("all"), PS.format("two")]))} '
            f'compressPayloads="{draw(st.sampled_from(["true", "false"]))}"/>'
        )
        process_legs.append(f"leg{n}")
    processes = []
    everybody = st.lists(st.integers(0, count - 1), min_size=1, max_size=count, unique=True)
    for n in range(draw(st.integers(1, 3))):
        chosen = draw(st.lists(st.sampled_from(process_legs), min_size=1, unique=True))
        sides = "".join(
            f"<{side}Parties>" + "".join(f'<{side}Party name="p{k}"/>' for k in draw(everybody)) + f"</{side}Parties>"
            for side in ("initiator", "responder")
        )
        processes.append(
            f'<process name="process{n}" mep="oneway" binding="push" initiatorRole="r{draw(st.integers(0, 2))}" '
            f'responderRole="r{draw(st.integers(0, 2))}" agreement="{draw(st.sampled_from(["none", "g1", "g2"]))}">'
            f'{sides}<legs>{"".join(f"<leg name={chr(34)}{leg}{chr(34)}/>" for leg in chosen)}</legs></process>'
        )
    text = pmode(
        root=PIECES["root"].replace("blue", "p0"), mpcs=mpcs, roles=roles, parties=parties, properties=properties,
        securities=securities, agreements=agreements, services=PIECES["services"].replace("orders", "sx") + services,
        actions=PIECES["actions"] + actions, as4=as4, legs=legs, process="", initiators="", responders="", process_legs="@@",
        more="",
    )  # fmt: skip
    return text.replace("@@</process>", "".join(processes))


PS = 'propertySet="{}"'


class TestAnything:
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
    @given(configurations())
    def test_there_and_back_is_the_same(self, text):
        try:
            file = short(text, "p0")
        except ConfigError as error:
            assume("nothing that p0 can use" not in str(error))
            raise
        pmodes = legs_of(file)
        written = toml(write(file))
        assert written == file, "TOML says something else than the file"
        full = materialise(file)
        assert same_legs(legs_of(full), pmodes) and same_legs(legs_of(shorten(full)), pmodes)
        second, exported = again(file)
        assert check(exported) == []
        assert same_legs(legs_of(second), pmodes)
        third, exported_again = again(second)
        assert same_legs(legs_of(third), pmodes) and check(exported_again) == []


def same_legs(one, other) -> bool:
    """Whether two sets have the same legs but for their ids.

    A ping is made like the first leg by name, and names of exchanges are not in a P-Mode: its parties, roles, agreement,
    channel and token count, its patience and compression do not.
    """
    whatever = {"properties": (), "closed_properties": False, "compress": True, "retry": RetryPolicy(), "max_message": 0, "max_part": 0}

    def facts(pmodes):
        return {repr(msgspec.structs.replace(leg, pmode_id="", **(whatever if leg.is_test else {}))) for leg in pmodes.legs}

    return facts(one) == facts(other)


class TestWhatAFileCannotSay:
    FILE = f"""
profile = "oots/2.0"
self = "AP_LV_01"
backend = "portal"
[parties.AP_LV_01]
type = "{UNREGISTERED}:LV"
[parties.AP_EE_01]
type = "{UNREGISTERED}:EE"
endpoint = "https://ap.example.ee/as4"
[overrides."AP_EE_01:ExecuteQueryRequest"]
signature_token = "thumbprint"
"""

    def test_it_is_told(self):
        made = export(legs_of(toml(self.FILE)))
        notes = "\n".join(made.notes)
        assert check(made.xml) == []
        for words in ("backend 'portal'", "retry of ExecuteQueryRequest", "signature_token 'thumbprint': written as bst",
                      "Domibus refuses those that are not declared", "of one version only"):  # fmt: skip
            assert words in notes

    def test_two_way_is_two_one_ways(self):
        made = export(legs_of(toml("""
profile = "edelivery-as4/2.0"
self = "urn:a"
[parties."urn:a"]
[parties."urn:b"]
[[exchanges]]
service = "urn:s"
action = "Ask"
from_role = "x"
to_role = "y"
mep = "two-way-push-and-push"
reply = { action = "Answer" }
properties = ["originalSender", "finalRecipient"]
"""))).xml  # fmt: skip
        assert check(made) == []
        root, report = read(made.encode(), "x.xml")
        # The ping of one direction has the roles of the other's answer: it stays an exchange of its own.
        assert {e.action for e in translate(root, report).file.exchanges} == {"Ask", "Answer", ns.TEST_ACTION}

    def test_nothing_to_export(self):
        with pytest.raises(ConfigError, match="there is nothing to export"):
            export(legs_of(toml('profile = "oots/2.0"\nself = "urn:a"\n[parties."urn:a"]\n')))

    def test_which_party_of_ours(self):
        with pytest.raises(ConfigError, match="there is no party of ours 'x'"):
            export(legs_of(toml(self.FILE)), "x")


class TestCommand:
    def run(self, *args):
        return CliRunner().invoke(group, [str(a) for a in args], catch_exceptions=False)

    def test_both_forms(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "n.xml").write_text(net.Network().xml(OWN))
        self.run("import-domibus", "n.xml", "--out", "pm")
        assert self.run("export", "pm", "--out", "back.xml").exit_code == 0
        assert check((tmp_path / "back.xml").read_text()) == []
        self.run("import-domibus", "back.xml", "--out", "pm2")
        first, second = ((tmp_path / folder / "AP_LV_01.toml").read_text().split("\n\n", 1)[1] for folder in ("pm", "pm2"))
        assert first == second
        result = self.run("export", "pm", "--format", "toml")
        assert toml(result.stdout) == toml((tmp_path / "pm/AP_LV_01.toml").read_text())

    def test_the_examples_of_the_project(self, tmp_path):
        for path in sorted((ROOT / "pmodes/examples").glob("*.toml")):
            text = path.read_text()
            if any(word in text for word in ("any = true", "[network]")):
                continue
            made = self.run("export", path, "--certs", certificates(tmp_path, text), "--out", tmp_path / "x.xml")
            assert made.exit_code == 0 and check((tmp_path / "x.xml").read_text()) == [], path


def certificates(folder: Path, text: str) -> Path:
    """A folder with a certificate under every name the text asks for."""
    import re

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    pem = x509.load_der_x509_certificate(net.certificate("anybody")).public_bytes(Encoding.PEM)
    for name in re.findall(r'= "([^"]+\.pem)"', text):
        (folder / name).write_bytes(pem)
    return folder


def test_the_independent_schema_finds_faults():
    """What it is worth: each of these is refused by Domibus, and forgiven by our reader."""
    good = export(legs_of(short(pmode()))).xml
    assert check(good) == []
    for old, new in (
        ('reliability="reliability"', ""), ("<roles>", "<roles/><roles>"), ('datatype="string"', ""),
        ("<services>", "<x/><services>"), ('enabled="true"', 'enabled="TRUE"'), ('service="service1"', 'service="SERVICE1"'),
        ("<agreements>", "words<agreements>"), ('endpoint="https://red.example/services/msh"', 'endpoint="https://red.example/ "'),
    ):  # fmt: skip
        assert old in good and check(good.replace(old, new, 1)), old
    assert json.dumps(check(good)) == "[]"
