"""BDXL: names of participants, and what a locator's records may make us do."""

import pytest

from gateway.as4.pmode import Identifier
from gateway.errors import ConfigError, DiscoveryFailed
from gateway.transport.discovery.bdxl import MAX_HOPS, MAX_RECORDS, Locator, name_of, nameserver
from tests.discovery import EBCORE, DnsServer

ZONE = "sml.example"
GLN = Identifier("0088:4035811991021", "iso6523-actorid-upis")
NAME = name_of(GLN, ZONE)


def u(url="https://smp.example/x", *, order=100, preference=10, flags="U", service="Meta:SMP", regexp=None, to="."):
    regexp = f"!.*!{url}!" if regexp is None else regexp
    return f'{order} {preference} "{flags}" "{service}" "{regexp}" {to}'


@pytest.fixture
async def dns():
    async with DnsServer().running() as server:
        yield server


async def ask(dns, participant=GLN, lookup="naptr", timeout=5.0):
    return await Locator([dns.address], timeout).publishers(participant, ZONE, lookup)


async def failed(dns, **more) -> tuple[str, bool]:
    with pytest.raises(DiscoveryFailed) as error:
        await ask(dns, **more)
    return error.value.reason, error.value.temporary


class TestNames:
    @pytest.mark.parametrize(
        ("participant", "label"),
        [
            (Identifier("4035811991021", EBCORE + "iso6523:0088"), "i3qyb36ctayrfgthbycqzdtojfhgazjeglfooe7727egvdwrk5qq"),
            (Identifier(EBCORE + "iso6523:0088:4035811991021"), "i3qyb36ctayrfgthbycqzdtojfhgazjeglfooe7727egvdwrk5qq"),
            (Identifier("0088:4035811991021"), "lzmedsmzxyd37yc74tzvpycmuanfcmn667jhgbfqddrvmse6nyta"),
        ],
    )
    def test_published_vectors(self, participant, label):
        assert name_of(participant, ZONE) == f"{label}.sml.example"

    def test_a_scheme_stands_in_the_name_and_case_does_not_count(self):
        label = "lzmedsmzxyd37yc74tzvpycmuanfcmn667jhgbfqddrvmse6nyta"
        assert NAME == f"{label}.iso6523-actorid-upis.sml.example"
        upper, lower = Identifier("9915:ABC", "iso6523-actorid-upis"), Identifier("9915:abc", "iso6523-actorid-upis")
        assert name_of(upper, ZONE) == name_of(lower, ZONE)

    def test_the_older_names(self):
        """The example of the Peppol policy for identifiers."""
        participant = Identifier("0010:5798000000001", "iso6523-actorid-upis")
        expected = "B-e49b223851f6e97cbfce4f72c3402aac.iso6523-actorid-upis.sml.example"
        assert name_of(participant, ZONE, "cname") == expected

    @pytest.mark.parametrize("scheme", ["a.b", "-a", "a" * 64, "a b", "č", "a\0"])
    def test_a_scheme_that_is_no_label(self, scheme):
        with pytest.raises(DiscoveryFailed, match="cannot stand"):
            name_of(Identifier("x", scheme), ZONE)


class TestAnswers:
    async def test_a_publisher(self, dns):
        dns.naptr(NAME, u())
        assert await ask(dns) == ["https://smp.example/x"]
        assert dns.asked == [("udp", NAME, "NAPTR")]

    async def test_order_then_preference_and_other_services_do_not_count(self, dns):
        dns.naptr(
            NAME, u("https://c.example/", order=2), u("https://b.example/", order=1, preference=2), u("https://a.example/", order=1, preference=1),
            u("https://no.example/", order=0, service="E2U+sip"), u("https://no.example/", order=0, flags="S"),
        )  # fmt: skip
        assert await ask(dns) == ["https://a.example/", "https://b.example/", "https://c.example/"]

    async def test_spelling_of_flag_and_service(self, dns):
        dns.naptr(NAME, u(flags="u", service="META:smp"))
        assert await ask(dns) == ["https://smp.example/x"]

    async def test_a_long_answer_comes_over_tcp(self, dns):
        dns.truncate = True
        dns.naptr(NAME, u())
        assert await ask(dns) == ["https://smp.example/x"]
        assert [how for how, *_ in dns.asked] == ["udp", "tcp"]

    async def test_through_a_cname(self, dns):
        dns.records[NAME] = {"CNAME": ["other.example."]}
        dns.naptr("other.example", u())
        assert await ask(dns) == ["https://smp.example/x"]

    async def test_who_is_not_registered(self, dns):
        assert await failed(dns) == ("not-registered", False)
        dns.records[NAME] = {"TXT": ['"x"']}
        assert await failed(dns) == ("not-registered", False)
        dns.naptr(NAME, u(service="other"))
        assert await failed(dns) == ("not-registered", False)

    @pytest.mark.parametrize("code", ["SERVFAIL", "REFUSED"])
    async def test_a_server_that_fails(self, dns, code):
        dns.records[NAME] = code
        assert await failed(dns, timeout=0.5) == ("dns", True)

    async def test_a_server_that_does_not_answer_in_time(self, dns):
        dns.delay = 60
        assert await failed(dns, timeout=0.2) == ("dns", True)

    async def test_a_server_that_answers_nonsense(self, dns):
        dns.garbage = True
        assert await failed(dns, timeout=0.5) == ("dns", True)

    async def test_nobody_there(self, dns):
        dns.address = "127.0.0.1:9"
        assert await failed(dns, timeout=0.5) == ("dns", True)


class TestHostile:
    @pytest.mark.parametrize(
        "regexp",
        [
            "",
            "!",
            "!.*!",
            "!(.*)!https://smp.example/\\\\1!",
            "!.*!https://smp.example/\\\\0!",
            "!^(a+)+$!https://smp.example/!",
            "!^((a|b)*)*c$!https://smp.example/!",
            "!.*!https://smp.example/!x",
            "!.*!ftp://smp.example/!",
            "!.*!file:///etc/passwd!",
            "!.*!smp.example!",
            "!.*!!",
        ],
    )
    async def test_records_that_are_no_u_naptr(self, dns, regexp):
        dns.naptr(NAME, u(regexp=regexp))
        assert await failed(dns) == ("locator-answer", False)

    async def test_a_loop(self, dns):
        dns.naptr(NAME, u(flags="", regexp="", to=NAME + "."))
        assert await failed(dns) == ("locator-answer", False)
        assert len(dns.asked) == 1

    async def test_a_loop_of_two(self, dns):
        dns.naptr(NAME, u(flags="", regexp="", to="b.example."))
        dns.naptr("b.example", u(flags="", regexp="", to=NAME.upper() + "."))
        assert await failed(dns) == ("locator-answer", False)
        assert len(dns.asked) == 2

    async def test_a_chain_without_end(self, dns):
        dns.naptr(NAME, u(flags="", regexp="", to="0.example."))
        for n in range(20):
            dns.naptr(f"{n}.example", u(flags="", regexp="", to=f"{n + 1}.example."))
        assert await failed(dns) == ("locator-answer", False)
        assert len(dns.asked) == MAX_HOPS

    async def test_a_name_that_leads_to_another(self, dns):
        dns.naptr(NAME, u(flags="", regexp="", to="b.example."))
        dns.naptr("b.example", u())
        assert await ask(dns) == ["https://smp.example/x"]

    async def test_too_many_records(self, dns):
        dns.truncate = True
        dns.naptr(NAME, *(u(f"https://{n}.example/") for n in range(MAX_RECORDS + 1)))
        assert await failed(dns) == ("locator-answer", False)

    async def test_a_cname_loop(self, dns):
        dns.records[NAME] = {"CNAME": [NAME + "."]}
        reason, _ = await failed(dns, timeout=0.5)
        assert reason in ("dns", "not-registered")


class TestOlderNames:
    async def test_the_host_is_the_name(self, dns):
        name = name_of(GLN, ZONE, "cname")
        dns.records[name.lower()] = {"CNAME": ["smp.example."], "A": ["127.0.0.1"]}
        assert await ask(dns, lookup="cname") == [f"http://{name}/"]

    async def test_who_is_not_registered(self, dns):
        assert await failed(dns, lookup="cname") == ("not-registered", False)


class TestServers:
    @pytest.mark.parametrize(
        ("text", "address", "port"),
        [
            ("192.0.2.53", "192.0.2.53", 53), ("192.0.2.53:5353", "192.0.2.53", 5353),
            ("[2001:db8::53]:5353", "2001:db8::53", 5353), ("2001:db8::53", "2001:db8::53", 53),
        ],
    )  # fmt: skip
    def test_addresses(self, text, address, port):
        made = nameserver(text)
        assert (made.address, made.port) == (address, port)

    @pytest.mark.parametrize("text", ["", "dns.example", "192.0.2.53:", "192.0.2.999", "https://1.1.1.1/", "[192.0.2.1"])
    def test_what_is_none(self, text):
        with pytest.raises(ConfigError):
            nameserver(text)
