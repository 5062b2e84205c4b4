"""Agreement files: what legs they become, and what is refused with which words."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.as4 import ns
from gateway.as4.matching import Matcher
from gateway.as4.pmode import PropertyRule, RetryPolicy
from gateway.as4.profiles import PROFILES
from gateway.as4.units import AgreementRef, PartyId, Service
from gateway.config.strict import build
from gateway.errors import ConfigError
from gateway.keys.development import make_development
from gateway.keys.formats import read_keystore
from gateway.pmodes.agreements import Document, File
from gateway.pmodes.defaults import defaults_of
from gateway.pmodes.expand import expand
from gateway.pmodes.toml import load

ROOT = Path(__file__).parents[3]
UNREGISTERED = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:"
OOTS = f"""
profile = "oots/2.0"
self = "AP_LV_01"
[parties.AP_LV_01]
type = "{UNREGISTERED}LV"
[parties.AP_EE_01]
type = "{UNREGISTERED}EE"
endpoint = "https://ap.example.ee/services/msh"
certificate = "ap_ee_01.pem"
"""
PLAIN = """
profile = "edelivery-as4/1.15"
self = "urn:a"
[parties."urn:a"]
[parties."urn:b"]
endpoint = "https://b.example/as4"
certificate = "ap_ee_01.pem"
[[exchanges]]
service = "urn:s"
action = "Order"
from_role = "buyer"
to_role = "seller"
"""


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs")
    make_development(folder, ["AP_EE_01", "AP_FR_01"], now=datetime.now(UTC))
    make_development(folder, ["ORG-B"], now=datetime.now(UTC), suites=["eddsa"])
    return folder


@pytest.fixture
def read(tmp_path, certs):
    """Load these texts as files of one folder."""
    def load_(*texts: str, **named: str):
        for number, text in enumerate(texts):
            (tmp_path / f"{number}.toml").write_text(text)
        for name, text in named.items():
            (tmp_path / f"{name}.toml").write_text(text)
        return load(tmp_path, certs=certs)

    return load_


@pytest.fixture
def refused(read):
    def refusal(*texts: str) -> ConfigError:
        with pytest.raises(ConfigError) as error:
            read(*texts)
        return error.value

    return refusal


def pin(path: Path) -> bytes:
    return read_keystore(path.read_bytes())[0].certificate


def by_id(pmodes) -> dict:
    return {(leg.pmode_id, leg.number): leg for leg in pmodes.legs}


class TestOots:
    def test_a_few_lines_are_the_whole_network_agreement(self, read, certs):
        pmodes = read(OOTS)
        lv, ee = PartyId("AP_LV_01", f"{UNREGISTERED}LV"), PartyId("AP_EE_01", f"{UNREGISTERED}EE")
        assert [p.party_id for p in pmodes.selves] == [lv] and pmodes.is_self(lv) and not pmodes.is_self(ee)
        business = [leg for leg in pmodes.legs if not leg.is_test]
        assert {(leg.service.value, leg.action) for leg in business} == {
            ("QueryManager", "ExecuteQueryRequest"), ("QueryManager", "ExecuteQueryResponse"),
            ("QueryManager", "ExceptionResponse"), ("LifecycleManager", "SubmitObjectsRequest"),
            ("LifecycleManager", "SubmitObjectsResponse"), ("LifecycleManager", "ExceptionResponse"),
        }  # fmt: skip
        assert len(business) == 12
        der = pin(certs / "ap_ee_01.pem")
        for leg in pmodes.legs:
            assert {leg.from_party.party_id, leg.to_party.party_id} == {lv, ee}
            assert leg.from_role == leg.to_role == "http://sdg.europa.eu/edelivery/gateway"
            assert leg.agreement is None and leg.mpc == ns.DEFAULT_MPC and leg.mep_binding == ns.BINDING_PUSH
            assert (leg.profile, leg.backend, leg.signature_token) == ("oots/2.0", "rest", "bst")
            assert leg.properties == (
                PropertyRule("originalSender"), PropertyRule("finalRecipient"),
                PropertyRule("ExchangeId", when="2.0"), PropertyRule("SpecificationId", when="2.0"),
            )  # fmt: skip
            partner = leg.to_party if leg.from_party.party_id == lv else leg.from_party
            assert (partner.signing, partner.encryption) == ((der,), der)
            assert partner.endpoint == "https://ap.example.ee/services/msh"
            us = leg.from_party if partner is leg.to_party else leg.to_party
            assert us == pmodes.selves[0] and us.signing == () and us.encryption is None
        for leg in business:
            assert leg.service.type == "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0"

    def test_compression_and_patience_are_those_of_the_network(self, read):
        legs = by_id(read(OOTS))
        assert legs["AP_LV_01:AP_EE_01:ExecuteQueryRequest", 1].compress
        assert not legs["AP_EE_01:AP_LV_01:ExecuteQueryResponse", 1].compress
        retry = legs["AP_LV_01:AP_EE_01:ExecuteQueryRequest", 1].retry
        waits = [min(retry.first * retry.factor**n, retry.max) for n in range(retry.count)]
        # 12;4;CONSTANT: twelve minutes and at least four retries [oots 1.6].
        assert len(waits) >= 4 and 600 <= sum(waits) <= 800 and waits[0] <= 60
        assert sum(waits) * (1 + retry.jitter) <= retry.window

    def test_version_1_has_two_properties(self, read):
        pmodes = read(OOTS.replace("oots/2.0", "oots/1.2"))
        assert {leg.properties for leg in pmodes.legs} == {(PropertyRule("originalSender"), PropertyRule("finalRecipient"))}

    def test_a_leg_for_the_test_service_in_each_direction(self, read):
        """Assertion 26: one for each Initiator, Responder and Agreement, other parameters identical."""
        pmodes = read(OOTS)
        tests = [leg for leg in pmodes.legs if leg.is_test]
        assert {leg.pmode_id for leg in tests} == {"AP_LV_01:AP_EE_01:test", "AP_EE_01:AP_LV_01:test"}
        for leg in tests:
            like = next(other for other in pmodes.legs if other.from_party == leg.from_party)
            same = {"pmode_id": leg.pmode_id, "service": leg.service, "action": leg.action}
            assert leg == msgspec.structs.replace(like, **same)
            assert leg.service == Service(ns.TEST_SERVICE)

    def test_the_matcher_takes_the_set(self, read):
        matcher = Matcher(read(OOTS))
        leg = matcher.outbound(to_party=PartyId("AP_EE_01"), action="ExecuteQueryRequest")
        assert leg.pmode_id == "AP_LV_01:AP_EE_01:ExecuteQueryRequest"
        test = matcher.outbound(to_party=PartyId("AP_EE_01"), action=ns.TEST_ACTION)
        assert test.is_test

    def test_every_pmode_id_and_leg_occurs_once(self, read):
        legs = read(OOTS).legs
        assert len({(leg.pmode_id, leg.number) for leg in legs}) == len(legs)


class TestPlain:
    def test_both_directions(self, read):
        legs = by_id(read(PLAIN))
        assert set(legs) == {("urn:a:urn:b:Order", 1), ("urn:b:urn:a:Order", 1), ("urn:a:urn:b:test", 1), ("urn:b:urn:a:test", 1)}
        order = legs["urn:a:urn:b:Order", 1]
        assert (order.from_role, order.to_role, order.service, order.mep) == ("buyer", "seller", Service("urn:s"), ns.MEP_ONE_WAY)
        assert order.properties == () and order.retry == RetryPolicy() and order.compress
        assert legs["urn:b:urn:a:Order", 1].from_party.name == "urn:b"

    @pytest.mark.parametrize(("direction", "ids"), [("send", ["urn:a:urn:b:Order"]), ("receive", ["urn:b:urn:a:Order"])])
    def test_one_direction(self, read, direction, ids):
        pmodes = read(PLAIN + f'direction = "{direction}"\n')
        assert [leg.pmode_id for leg in pmodes.legs if not leg.is_test] == ids
        assert len([leg for leg in pmodes.legs if leg.is_test]) == 1

    def test_two_way(self, read):
        text = PLAIN + 'mep = "two-way-push-and-push"\nreply = { action = "Answer", compress = false }\n'
        legs = by_id(read(text))
        first, second = legs["urn:a:urn:b:Order", 1], legs["urn:a:urn:b:Order", 2]
        assert {first.mep, second.mep} == {ns.MEP_TWO_WAY}
        assert {first.mep_binding, second.mep_binding} == {ns.BINDING_PUSH_AND_PUSH}
        assert (second.from_party, second.to_party) == (first.to_party, first.from_party)
        assert (second.from_role, second.to_role, second.action) == ("seller", "buyer", "Answer")
        assert first.compress and not second.compress
        test = legs["urn:a:urn:b:test", 1]
        assert (test.mep, test.mep_binding, test.number) == (ns.MEP_ONE_WAY, ns.BINDING_PUSH, 1)

    def test_agreements(self, read):
        text = PLAIN + 'agreement = "urn:ag"\n[[exchanges]]\nid = "again"\nservice = "urn:s"\naction = "Order"\n'
        text += 'from_role = "buyer"\nto_role = "seller"\nagreement = { value = "2026", type = "T" }\n'
        legs = read(text).legs
        assert {leg.agreement for leg in legs} == {AgreementRef("urn:ag"), AgreementRef("2026", "T")}
        assert {leg.pmode_id for leg in legs if leg.is_test} == {
            "urn:a:urn:b:test@urn:ag", "urn:b:urn:a:test@urn:ag", "urn:a:urn:b:test@2026", "urn:b:urn:a:test@2026"}  # fmt: skip

    def test_a_uri_action_is_named_by_its_end(self, read):
        text = PLAIN.replace('"Order"', '"http://docs.example/200704/do-it"')
        assert "urn:a:urn:b:do-it" in {leg.pmode_id for leg in read(text).legs}

    def test_an_explicit_test_service_is_not_doubled(self, read):
        text = PLAIN.replace('"urn:s"', f'"{ns.TEST_SERVICE}"').replace('"Order"', f'"{ns.TEST_ACTION}"')
        assert len(read(text).legs) == 2

    def test_values_over_the_defaults(self, read):
        text = PLAIN + ('backend = "orders"\ncompress = false\nmax_part = "5MiB"\nsignature_token = "ski"\n'
                        'closed_properties = true\nproperties = ["a", { name = "b", required = false }]\nmpc = "urn:mpc"\n'
                        'retry = { count = 2, first = "10s" }\n')  # fmt: skip
        leg = by_id(read(text))["urn:a:urn:b:Order", 1]
        assert (leg.backend, leg.compress, leg.max_part, leg.signature_token) == ("orders", False, 5 << 20, "ski")
        assert leg.closed_properties and leg.mpc == "urn:mpc"
        assert leg.properties == (PropertyRule("a"), PropertyRule("b", False))
        assert leg.retry == RetryPolicy(first=10.0, count=2)
        # Plain numbers, so that every encoder takes them.
        assert type(leg.max_part) is int and type(leg.retry.first) is float
        msgspec.json.encode(leg)


class TestOverrides:
    def test_the_more_specific_wins(self, read):
        text = 'backend = "all"\n' + OOTS + """
[overrides."*:ExecuteQueryRequest"]
backend = "requests"
retry = { count = 9 }
[overrides."AP_EE_01"]
backend = "estonia"
[overrides."AP_EE_01:ExecuteQueryRequest"]
retry = { first = "1m", max = "10m" }
"""
        legs = by_id(read(text))
        leg = legs["AP_LV_01:AP_EE_01:ExecuteQueryRequest", 1]
        assert leg.backend == "estonia"
        assert (leg.retry.count, leg.retry.first, leg.retry.max, leg.retry.factor) == (9, 60, 600, 2)
        assert legs["AP_EE_01:AP_LV_01:ExecuteQueryRequest", 1].retry == leg.retry
        assert legs["AP_LV_01:AP_EE_01:ExceptionResponse", 1].retry.first == 30

    def test_the_file_over_the_profile_and_the_exchange_over_the_file(self, read):
        legs = by_id(read("compress = true\n" + OOTS))
        assert legs["AP_LV_01:AP_EE_01:ExecuteQueryResponse", 1].compress
        legs = by_id(read("compress = false\n" + PLAIN + "compress = true\n"))
        assert legs["urn:a:urn:b:Order", 1].compress

    def test_one_that_meets_nothing_is_refused(self, refused):
        error = refused(OOTS + '[overrides."AP_EE_01:ExecuteQueryReqest"]\ncompress = false\n')
        assert "meets no exchange" in str(error) and "AP_EE_01:ExecuteQueryRequest" in error.hint


class TestFolders:
    def test_files_merge(self, read):
        france = OOTS.replace("AP_EE_01", "AP_FR_01").replace(":EE", ":FR").replace("ap_ee", "ap_fr")
        pmodes = read(OOTS, france)
        assert {p.name for p in pmodes.parties} == {"AP_LV_01", "AP_EE_01", "AP_FR_01"}
        assert len(pmodes.selves) == 1 and len(pmodes.legs) == 28

    def test_two_parties_of_our_own(self, read):
        other = OOTS.replace("AP_LV_01", "AP_LV_02")
        pmodes = read(OOTS, other)
        assert [p.name for p in pmodes.selves] == ["AP_LV_01", "AP_LV_02"] and len(pmodes.legs) == 28

    def test_the_same_pair_twice_is_refused(self, refused):
        error = refused(OOTS, OOTS)
        assert "match the same messages" in str(error)

    def test_a_party_says_the_same_everywhere(self, refused):
        error = refused(OOTS, OOTS.replace("AP_LV_01", "AP_LV_02").replace("services/msh", "other"))
        assert "says something else than" in str(error) and error.key == "parties.AP_EE_01"

    def test_one_id_under_two_names(self, refused):
        text = OOTS + f'[parties.twin]\nid = "AP_EE_01"\ntype = "{UNREGISTERED}EE"\n'
        assert "the same id as AP_EE_01" in str(refused(text))

    def test_a_shared_file_may_name_our_own_certificate(self, read):
        text = OOTS.replace('LV"\n', 'LV"\ncertificate = "not-even-there.pem"\nendpoint = "https://us.example/as4"\n', 1)
        pmodes = read(text)
        assert pmodes.selves[0].signing == () and pmodes.selves[0].endpoint == "https://us.example/as4"

    def test_an_empty_folder_is_an_empty_set(self, tmp_path):
        assert load(tmp_path).legs == ()

    def test_what_is_not_read(self, read, tmp_path):
        (tmp_path / "examples").mkdir()
        (tmp_path / "examples" / "x.toml").write_text("rubbish")
        (tmp_path / ".hidden.toml").write_text("rubbish")
        (tmp_path / "notes.txt").write_text("rubbish")
        assert len(read(OOTS).legs) == 14

    def test_one_file(self, tmp_path, certs):
        (tmp_path / "only.toml").write_text(OOTS)
        assert len(load(tmp_path / "only.toml", certs=certs, revision=7).legs) == 14
        assert load(tmp_path / "only.toml", certs=certs, revision=7).revision == 7

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(ConfigError, match=r"examples/oots\.toml"):
            load(tmp_path / "nothing")

    def test_the_examples_load(self, certs, tmp_path):
        for name in ("oots", "edelivery"):
            (tmp_path / f"{name}.toml").write_text((ROOT / f"pmodes/examples/{name}.toml").read_text())
        assert len(load(tmp_path / "oots.toml", certs=certs).legs) == 14
        pmodes = load(tmp_path / "edelivery.toml", certs=certs)
        assert {leg.action for leg in pmodes.legs} == {"SubmitOrder", "OrderResponse", "Invoice", ns.TEST_ACTION}
        assert load(ROOT / "pmodes").legs == (), "the examples must not be loaded by accident"


class TestCertificates:
    def test_beside_the_file_comes_first(self, read, tmp_path, certs):
        make_development(tmp_path, ["AP_EE_01"], now=datetime.now(UTC))
        partner = next(p for p in read(OOTS).parties if p.name == "AP_EE_01")
        assert partner.signing == (pin(tmp_path / "ap_ee_01.pem"),) != (pin(certs / "ap_ee_01.pem"),)

    def test_der_and_chains(self, read, tmp_path, certs):
        der = pin(certs / "ap_ee_01.pem")
        (tmp_path / "a.der").write_bytes(der)
        (tmp_path / "chain.pem").write_bytes((certs / "ca.pem").read_bytes() + (certs / "ap_ee_01.pem").read_bytes())
        for file in ("a.der", "chain.pem"):
            pmodes = read(OOTS.replace("ap_ee_01.pem", file))
            assert pmodes.parties[1].signing == (der,)

    def test_next_is_a_further_signer(self, read, certs):
        pmodes = read(OOTS + 'next = "ap_fr_01.pem"\n')
        partner = pmodes.parties[1]
        assert partner.signing == (pin(certs / "ap_ee_01.pem"), pin(certs / "ap_fr_01.pem"))
        assert partner.encryption == partner.signing[0]

    def test_separate_ones_and_a_ca(self, read, certs):
        text = OOTS.replace('certificate = "ap_ee_01.pem"',
                            'signing = "ap_ee_01.pem"\nencryption = "ap_fr_01.pem"\ntls_ca = "ca.pem"')
        partner = read(text).parties[1]
        assert partner.signing == (pin(certs / "ap_ee_01.pem"),) and partner.encryption == pin(certs / "ap_fr_01.pem")
        assert partner.tls_ca == (certs / "ca.pem").read_bytes()

    @pytest.mark.parametrize(("file", "words"), [
        ("nothing.pem", "there is no"), ("0.toml", "is not a certificate in PEM or DER"),
        ("two.pem", "holds 2 certificates"), (".", "cannot be read"), ("long", "too large"),
    ])
    def test_mistakes(self, refused, tmp_path, certs, file, words):
        (tmp_path / "two.pem").write_bytes((certs / "ap_fr_01.pem").read_bytes() + (certs / "ap_ee_01.pem").read_bytes())
        (tmp_path / "long").write_bytes(bytes(1 << 20))
        error = refused(OOTS.replace("ap_ee_01.pem", file))
        assert words in str(error) and error.key == "parties.AP_EE_01.certificate"
        assert error.file == str(tmp_path / "0.toml")


REFUSED = [
    ("profile = \"oots/2.0\"", "profile = \"oots/2\"", "profile", "did you mean"),
    ("endpoint =", "endpont =", "parties.AP_EE_01.endpont", "did you mean 'endpoint'?"),
    ("self =", "sefl =", "sefl", "did you mean 'self'?"),
    ("self = \"AP_LV_01\"", "self = \"AP_LV_1\"", "self", "did you mean 'AP_LV_01'?"),
    ("https://ap", "http://ap", "parties.AP_EE_01.endpoint", "plain http"),
    ("ap.example.ee/", "ap.example.ee /", "parties.AP_EE_01.endpoint", "blank"),
    ("/services/msh", "/services/msh ", "parties.AP_EE_01.endpoint", "blank"),
    ("https://ap", "ftp://ap", "parties.AP_EE_01.endpoint", "https://host/path"),
    ("https://ap", "https://user:pw@ap", "parties.AP_EE_01.endpoint", "https://host/path"),
    ("/services/msh", "/services/msh#x", "parties.AP_EE_01.endpoint", "https://host/path"),
    ("example.ee", "example.ee:99999", "parties.AP_EE_01.endpoint", "https://host/path"),
    (f'type = "{UNREGISTERED}EE"', "", "parties.AP_EE_01.type", "must be a URI"),
    (f'"{UNREGISTERED}EE"', f'"{UNREGISTERED}EE "', "parties.AP_EE_01.type", "blank at an end"),
    ("certificate =", "signing = 'x'\ncertificate =", "parties.AP_EE_01.certificate", "either it or the two"),
]


@pytest.mark.parametrize(("old", "new", "key", "words"), REFUSED)
def test_mistakes_name_file_key_and_what_is_right(refused, tmp_path, old, new, key, words):
    assert old in OOTS
    error = refused(OOTS.replace(old, new))
    assert (error.file, error.key) == (str(tmp_path / "0.toml"), key)
    assert words in str(error)
    named = OOTS.replace(old, new).splitlines()[error.line - 1]
    assert error.line and (key.rpartition(".")[2] in named or "AP_EE_01" in named), "the line of the key, or of its table"
    assert str(error).startswith(f"{tmp_path}/0.toml:{error.line}: {key}")


@pytest.mark.parametrize(("old", "new", "words"), [
    ('service = "urn:s"', 'service = "Orders"', "must be a URI"),
    ('from_role = "buyer"\n', "", "from_role"),
    ('action = "Order"', 'action = ""', "is empty"),
    ('action = "Order"', 'action = "a<b"', "breaks the wire"),
    ('action = "Order"', 'action = "Order"\nmep = "two-way-push-and-push"', "reply"),
    ('action = "Order"', 'action = "Order"\nreply = { action = "x" }', "two-way-push-and-push"),
    ('action = "Order"', 'action = "Order"\nmep = "two-way"', "invalid enum value"),
    ('action = "Order"', 'action = "Order"\nagreement = "2026"', "must be a URI"),
    ('action = "Order"', 'action = "Order"\nid = "a:b"', "letters, digits"),
    ('action = "Order"', 'action = "Order"\nretry = { first = "0s" }', "first wait must be positive"),
    ('action = "Order"', 'action = "Order"\nretry = { count = 101 }', "count of 0 to 100"),
    ('action = "Order"', 'action = "Order"\nretry = { firts = "1s" }', "did you mean 'first'?"),
    ('action = "Order"', 'action = "Order"\nproperties = [{ nam = "x" }]', "unknown field"),
])
def test_mistakes_in_exchanges(refused, old, new, words):
    assert words in str(refused(PLAIN.replace(old, new)))


def test_a_plain_profile_needs_exchanges(refused):
    assert "has none of its own" in str(refused(PLAIN.partition("[[exchanges]]")[0]))


def test_two_exchanges_with_one_name(refused):
    assert "give one of them an id" in str(refused(PLAIN + PLAIN[PLAIN.index("[[exchanges]]") :]))


def test_a_two_way_exchange_whose_legs_look_alike(refused):
    error = refused(PLAIN.replace('"seller"', '"buyer"') + 'mep = "two-way-push-and-push"\nreply = { action = "Order" }\n')
    assert "match the same messages" in str(error)


def test_plain_http_where_it_is_allowed(read):
    pmodes = read("allow_http = true\n" + OOTS.replace("https://ap.example.ee", "http://127.0.0.1:8080"))
    assert pmodes.parties[1].endpoint == "http://127.0.0.1:8080/services/msh"


def test_a_query_string_is_kept(read):
    assert read(OOTS.replace("/msh", "/msh?domain=oots")).parties[1].endpoint.endswith("/services/msh?domain=oots")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_has_defaults_that_read(profile):
    defaults = defaults_of(profile)
    assert bool(defaults.exchanges) == profile.startswith("oots/")


# -- whatever comes ----------------------------------------------------------------

names = st.sampled_from(["a", "AP_LV_01", "urn:x", ""])
values = st.recursive(
    st.booleans() | st.integers(-5, 5) | names | st.sampled_from(["oots/2.0", "edelivery-as4/2.0", "https://h/as4", "30s"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["service", "action", "type", "endpoint", "retry", "reply", "mep", "from_role",
                                       "to_role", "properties", "name", "AP_LV_01", "urn:x"]), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip
tables = st.fixed_dictionaries(
    {"profile": st.sampled_from(["oots/2.0", "edelivery-as4/1.15"]), "self": names, "parties": values},
    optional={"exchanges": values, "overrides": values, "backend": values, "compress": values},
)


@given(tables)
def test_any_tables_give_legs_or_a_config_error(raw):
    try:
        file = build(raw, File, file="x", base=Path("/nowhere"))
        expand([Document(Path("/nowhere/x"), file)])
    except ConfigError as error:
        assert error.detail
