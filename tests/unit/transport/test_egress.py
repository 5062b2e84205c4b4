"""Where the gateway may connect to: URLs as written, addresses as resolved [threats J01]."""

import pytest

from gateway.errors import ConfigError, SubmissionRefused
from gateway.transport.egress import EgressPolicy, Target


def refused(url, purpose="webhook", allow=()):
    with pytest.raises(SubmissionRefused) as refusal:
        EgressPolicy(allow).check_url(url, purpose)
    assert refusal.value.field == "url"
    return str(refusal.value)


@pytest.mark.parametrize("url", [
    "ftp://ap.example.ee/", "file:///etc/passwd", "gopher://ap.example.ee:70/", "//ap.example.ee/as4", "ap.example.ee",
    "", "https://", "https:///as4", "https://user@ap.example.ee/", "https://user:pw@ap.example.ee/", "https://@ap.example.ee/",
    "https://ap.example.ee/#x", "https://ap.example.ee/#", "https://ap.example.ee/a b", "https://ap.example.ee/\n",
    "https://ap.example.ee\\@evil.example/", "https://ap.example.ee:0/", "https://ap.example.ee:99999/",
    "https://ap.example.ee:x/", "https://[::1/", "https://-x.example/", "https://a..b/", "https://exämple.ee/",
    "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://0177.0.0.1/", "https://127.1/",
    "https://127.0.0.1./", "https://[127.0.0.1]/", "https://" + "a" * 64 + ".example/", "https://x.example/" + "a" * 2048,
])  # fmt: skip
@pytest.mark.parametrize("purpose", ["as4", "webhook", "smp", "discovered"])
def test_what_no_purpose_may_reach(url, purpose):
    refused(url, purpose, ["0.0.0.0/0", "::/0"])


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "0.0.0.0", "0.1.2.3",
    "169.254.169.254", "169.254.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "198.18.0.1", "192.0.2.1", "192.0.0.8",
    "[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]",
    "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::a00:1]", "[2002:7f00:1::]", "[2001:db8::1]", "[fec0::1]",
])  # fmt: skip
@pytest.mark.parametrize("purpose", ["webhook", "smp", "discovered"])
def test_urls_that_others_name_reach_public_addresses_only(address, purpose):
    assert "address" in refused(f"https://{address}/hook", purpose)


def test_plain_http_by_purpose():
    """Metadata is signed; a message to a discovered partner is not to go in the clear unless the operator lists where."""
    EgressPolicy().check_url("http://smp.example.ee/", "smp")
    refused("http://127.0.0.1/", "smp")
    refused("http://ap.example.ee/as4", "discovered")
    EgressPolicy(["10.0.0.0/8"]).check_url("http://10.0.0.1/as4", "discovered")
    refused("http://193.40.5.1/as4", "discovered", ["10.0.0.0/8"])
    refused("https://ap.example.ee:25/", "discovered")


@pytest.mark.parametrize("url", [
    "https://193.40.5.1/", "https://[2a00:1450:4001::1]/", "https://hooks.example.ee/a?b=c", "https://hooks.example.ee:8443/",
    "https://[64:ff9b::c128:501]/",
])  # fmt: skip
def test_public_webhooks(url):
    EgressPolicy().check_url(url, "webhook")


def test_listed_networks_open_exactly_themselves():
    policy = EgressPolicy(["10.1.0.0/16", "127.0.0.0/8", "fd00:1::/32"])
    for host in ("10.1.2.3", "127.0.0.1", "[fd00:1::5]", "[::ffff:10.1.2.3]"):
        policy.check_url(f"https://{host}/", "webhook")
    for host in ("10.2.0.1", "192.168.0.1", "[::1]", "[fd00:2::5]", "[::ffff:10.2.0.1]", "169.254.169.254"):
        with pytest.raises(SubmissionRefused):
            policy.check_url(f"https://{host}/", "webhook")


def test_a_wide_network_opens_no_metadata_server():
    refused("https://169.254.169.254/latest/meta-data", "webhook", ["0.0.0.0/0"])
    refused("https://100.100.100.200/", "webhook", ["100.64.0.0/10"])
    EgressPolicy(["169.254.169.254/32"]).check_url("https://169.254.169.254/", "webhook")
    EgressPolicy(["fe80::/64"]).check_url("https://[fe80::1]/", "webhook")


def test_plain_http_to_webhooks_is_for_listed_networks():
    refused("http://hooks.example.ee/")
    policy = EgressPolicy(["127.0.0.0/8"])
    policy.check_url("http://127.0.0.1:9999/hook", "webhook")
    with pytest.raises(SubmissionRefused, match="plain http"):
        policy.check_url("http://193.40.5.1/", "webhook")
    # A name is judged when it is resolved.
    policy.check_url("http://hooks.example.ee/", "webhook")
    with pytest.raises(SubmissionRefused, match="plain http"):
        policy.check_addresses(["193.40.5.1"], "webhook", "hooks.example.ee", plain=True)
    policy.check_addresses(["127.0.0.1"], "webhook", "hooks.example.ee", plain=True)


@pytest.mark.parametrize("port", [22, 25, 53, 110, 143, 445, 1023])
def test_ports_of_other_protocols_are_not_for_webhooks(port):
    refused(f"https://hooks.example.ee:{port}/")
    EgressPolicy().check_url(f"https://ap.example.ee:{port}/as4", "as4")


@pytest.mark.parametrize("host", ["10.0.0.1", "127.0.0.1", "192.168.1.1", "[fd00::1]", "100.64.1.1", "203.0.113.7", "ap.local"])
def test_partners_may_be_on_private_networks(host):
    EgressPolicy().check_url(f"https://{host}/as4", "as4")
    EgressPolicy().check_url(f"http://{host}/as4", "as4")


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "224.0.0.5", "0.0.0.0", "[::]", "[::ffff:169.254.169.254]",
                                  "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "100.100.100.200", "255.255.255.255"])
def test_but_not_where_only_mistakes_and_attacks_are(host):
    refused(f"https://{host}/as4", "as4")


def test_every_address_of_a_name_counts():
    policy = EgressPolicy()
    policy.check_addresses(["193.40.5.1", "2a00:1450:4001::1"], "webhook", "x")
    with pytest.raises(SubmissionRefused) as refusal:
        policy.check_addresses(["193.40.5.1", "10.7.7.7"], "webhook", "x")
    assert "10.7.7.7" not in str(refusal.value)
    with pytest.raises(SubmissionRefused):
        policy.check_addresses(["fe80::1%eth0"], "as4", "x")
    with pytest.raises(SubmissionRefused):
        policy.check_addresses(["not an address"], "as4", "x")


def test_the_pieces_are_what_was_written():
    check = EgressPolicy().check_url
    assert check("https://AP.Example.EE/services/msh", "as4") == Target("https", "ap.example.ee", 443, "/services/msh")
    assert check("http://ap:8080?x=%2F", "as4") == Target("http", "ap", 8080, "/?x=%2F")
    assert check("https://[2A00:0:0::1]:444/", "as4").origin == "https://[2a00::1]:444"


def test_a_wrong_network_is_a_configuration_error():
    with pytest.raises(ConfigError) as error:
        EgressPolicy(["10.0.0.1/8"])
    assert error.value.key == "egress.allow_networks"
