"""From a participant to an access point, over a real DNS server and real publishers; and everything that is no answer."""

import asyncio
import base64
import contextlib
import datetime
from dataclasses import dataclass, field

import pytest
import signxml
from aiohttp import web
from lxml import etree
from msgspec.structs import replace

from gateway.as4.pmode import Discovery, Identifier, PathTrust
from gateway.clock import SystemClock
from gateway.config import Discovery as Settings
from gateway.config import Duration, Trust
from gateway.errors import DiscoveryFailed
from gateway.msh.partners import Paths
from gateway.transport.client import Client
from gateway.transport.discovery.bdxl import name_of
from gateway.transport.discovery.finder import FAILED_TTL, FRESH, MAX_METADATA, Finder
from gateway.transport.discovery.smp import EXCHANGE, SIGNATURE, Found, Query
from gateway.transport.egress import EgressPolicy
from tests.discovery import TRANSPORT, DnsServer, Publisher, Signer, metadata_1, metadata_2, now, path_1, path_2
from tests.pki import SIGN, Ca, key

ZONE = "sml.example"
GLN = Identifier("0088:4035811991021", "iso6523-actorid-upis")
QUERY = Query(GLN, Identifier("urn:doc"), Identifier("urn:process"), TRANSPORT)
WHO = "iso6523-actorid-upis::0088:4035811991021"
PATH, PATH2 = path_1(WHO, "::urn:doc"), path_2(WHO, "::urn:doc")
URL = "https://ap.example.ee/as4"

ROOT = Ca.root("SMP Root")
SMP = Signer(key("rsa", 1), ROOT.leaf("SMP_1", key("rsa", 1).public_key(), key_usage=SIGN))
OTHER_SMP = Signer(key("ec", 2), ROOT.leaf("SMP_2", key("ec", 2).public_key(), key_usage=SIGN))
STRANGER = Signer(key("rsa", 3), Ca.root("Stranger").leaf("SMP_1", key("rsa", 3).public_key(), key_usage=SIGN))
AP = ROOT.leaf("AP_EE_01")


class Clock(SystemClock):
    """A clock that a test moves on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self):
        return super().now() + datetime.timedelta(seconds=self.ahead)

    def monotonic(self):
        return super().monotonic() + self.ahead


@dataclass
class Net:
    """A locator, a publisher, another publisher, and who asks them."""

    dns: DnsServer
    smp: Publisher
    other: Publisher
    client: Client
    clock: Clock = field(default_factory=Clock)

    def finder(self, **settings) -> Finder:
        settings = Settings(dns_servers=(self.dns.address,), **settings)
        return Finder(self.client, Paths(Trust(), self.clock).publisher, self.clock, settings)

    def how(self, **more) -> Discovery:
        more.setdefault("publisher_trust", PathTrust(anchors=(ROOT.certificate,)))
        return Discovery(zone=ZONE, **more)

    def publish(self, octets=None, *, path=PATH, at=None) -> None:
        (at or self.smp).resources[path] = SMP.sign(metadata_1(endpoints=[(TRANSPORT, URL, AP)])) if octets is None else octets

    async def find(self, *, query=QUERY, finder=None, fresh=False, **more) -> Found:
        return await (finder or self.finder()).find(self.how(**more), query, fresh=fresh)

    async def failed(self, **more) -> str:
        with pytest.raises(DiscoveryFailed) as error:
            await self.find(**more)
        self.error = error.value
        return error.value.reason


@contextlib.asynccontextmanager
async def nets(allow=("127.0.0.0/8",)):
    client = Client(EgressPolicy(allow))
    async with DnsServer().running() as dns, Publisher().running() as smp, Publisher().running() as other:
        dns.naptr(name_of(GLN, ZONE), f'100 10 "U" "Meta:SMP" "!.*!{smp.url}!" .')
        try:
            yield Net(dns, smp, other, client)
        finally:
            await client.close()


@pytest.fixture
async def net():
    async with nets() as made:
        yield made


class TestVersion1:
    async def test_an_access_point(self, net):
        net.publish()
        assert await net.find() == Found(URL, AP, (AP,))
        assert net.smp.asked == [PATH]

    async def test_without_a_locator(self, net):
        net.publish()
        assert (await net.finder().find(replace(net.how(), zone=None, smp=net.smp.url + "/"), QUERY)).endpoint == URL
        assert not net.dns.asked

    async def test_an_ebcore_participant(self, net):
        urn = "urn:oasis:names:tc:ebcore:partyid-type:iso6523:0088"
        who = Identifier("4035811991021", urn)
        net.dns.naptr(name_of(who, ZONE), f'100 10 "U" "Meta:SMP" "!.*!{net.smp.url}!" .')
        made = metadata_1(participant=(None, f"{urn}:4035811991021"), endpoints=[(TRANSPORT, URL, AP)])
        net.publish(SMP.sign(made), path=path_1(f"{urn}:4035811991021", "::urn:doc"))
        assert (await net.find(query=replace(QUERY, participant=who))).endpoint == URL
        net.publish(SMP.sign(made), path=path_1(f"{urn}::4035811991021", "::urn:doc"))
        assert (await net.find(query=replace(QUERY, participant=who), participant_path="scheme")).endpoint == URL

    async def test_schemes_of_document_and_process(self, net):
        doc, process = ("busdox-docid-qns", "urn:a::b##c/d"), ("cenbii-procid-ubl", "urn:p")
        made = metadata_1(document=doc, process=process, endpoints=[(TRANSPORT, URL, AP)])
        net.publish(SMP.sign(made), path=path_1(WHO, "busdox-docid-qns::urn:a::b##c/d"))
        query = replace(QUERY, document=Identifier(doc[1], doc[0]), process=Identifier(process[1], process[0]))
        assert (await net.find(query=query)).endpoint == URL
        assert await net.failed(query=replace(query, process=Identifier("urn:p"))) == "no-process"

    async def test_participants_are_compared_without_case(self, net):
        net.publish(SMP.sign(metadata_1(participant=("ISO6523-actorid-upis", GLN.value.upper()), endpoints=[(TRANSPORT, URL, AP)])))
        assert await net.find()

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"participant": ("iso6523-actorid-upis", "0088:other")}, "other-metadata"),
            ({"participant": (None, "0088:4035811991021")}, "other-metadata"),
            ({"document": (None, "urn:DOC")}, "other-metadata"),
            ({"document": ("x", "urn:doc")}, "other-metadata"),
            ({"process": (None, "urn:other")}, "no-process"),
        ],
    )
    async def test_metadata_about_something_else(self, net, change, reason):
        net.publish(SMP.sign(metadata_1(endpoints=[(TRANSPORT, URL, AP)], **change)))
        assert await net.failed() == reason
        assert not net.error.temporary

    @pytest.mark.parametrize(
        ("endpoints", "reason"),
        [
            ([], "no-endpoint"),
            ([("peppol-transport-as4-v2_0", URL, AP)], "no-endpoint"),
            ([(TRANSPORT, URL, AP, None, now(days=-1))], "expired"),
            ([(TRANSPORT, URL, AP, now(days=1))], "not-active"),
            ([(TRANSPORT, URL, AP, "yesterday")], "not-metadata"),
            ([(TRANSPORT, URL, AP, None, "2026-13-40T00:00:00Z")], "not-metadata"),
            ([(TRANSPORT, URL, b"")], "certificate"),
            ([(TRANSPORT, URL, b"x" * 20_000)], "certificate"),
        ],
    )
    async def test_endpoints_that_are_none(self, net, endpoints, reason):
        net.publish(SMP.sign(metadata_1(endpoints=endpoints)))
        assert await net.failed() == reason
        assert not net.error.temporary

    async def test_the_endpoint_in_force(self, net):
        net.publish(SMP.sign(metadata_1(endpoints=[
            ("busdox-transport-as2-ver1p0", "https://as2.example/", AP),
            (TRANSPORT, "https://old.example/", AP, now(days=-9), now(days=-1)),
            (TRANSPORT, "https://short.example/", AP, now(days=-1), now(days=2)),
            (TRANSPORT, URL, AP, now(days=-1), now(days=9)),
            (TRANSPORT, "https://next.example/", AP, now(days=1)),
        ])))  # fmt: skip
        found = await net.find()
        assert found.endpoint == URL
        assert found.until > net.clock.now() + datetime.timedelta(days=8)

    async def test_dates_at_the_end_of_time(self, net):
        net.publish(SMP.sign(metadata_1(endpoints=[(TRANSPORT, URL, AP, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z")])))
        assert await net.find()
        net.publish(SMP.sign(metadata_1(endpoints=[(TRANSPORT, URL, AP, None, "9999-12-31")])))
        assert await net.failed() == "not-metadata"

    async def test_certificates_as_text(self, net):
        pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(AP) + b"-----END CERTIFICATE-----\n"
        root = metadata_1(endpoints=[(TRANSPORT, URL, pem)])
        net.publish(SMP.sign(root))
        assert (await net.find()).encryption == AP  # base64 of PEM
        root = metadata_1(endpoints=[(TRANSPORT, URL, AP)])
        next(root.iter("{*}Certificate")).text = pem.decode()
        net.publish(SMP.sign(root))
        assert (await net.find()).encryption == AP  # PEM as it is


class TestVersion2:
    QUERY = replace(QUERY, transport_profile="bdxr-transport-ebms3-as4-v2p0")

    async def find(self, net, **more):
        return await net.find(query=self.QUERY, smp_version="2.0", participant_path="scheme", **more)

    def publish(self, net, *, path=PATH2, at=None, signer=SMP, **more):
        more.setdefault("endpoints", [(self.QUERY.transport_profile, URL, [(EXCHANGE, b"enc"), (SIGNATURE, b"sig")])])
        net.publish(signer.sign(metadata_2(**more)), path=path, at=at)

    async def test_an_access_point_with_two_certificates(self, net):
        self.publish(net)
        assert await self.find(net) == Found(URL, b"enc", (b"sig",))
        assert net.smp.asked == [PATH2]

    async def test_one_certificate_for_both(self, net):
        self.publish(net, endpoints=[(self.QUERY.transport_profile, URL, [(None, b"both")])])
        assert await self.find(net) == Found(URL, b"both", (b"both",))

    async def test_metadata_for_no_process_in_particular(self, net):
        self.publish(net, process=None)
        assert await self.find(net)
        self.publish(net, process=(None, "urn:other"))
        with pytest.raises(DiscoveryFailed, match="process"):
            await self.find(net)

    async def test_a_date_is_part_of_the_time(self, net):
        today = now()[:10]
        code = self.QUERY.transport_profile
        self.publish(net, endpoints=[(code, URL, [(None, b"c")], today, today)])
        assert await self.find(net)
        self.publish(net, endpoints=[(code, URL, [(None, b"c")], None, now(days=-1)[:10])])
        with pytest.raises(DiscoveryFailed, match="expired"):
            await self.find(net)

    async def test_without_a_certificate_to_encrypt_to(self, net):
        self.publish(net, endpoints=[(self.QUERY.transport_profile, URL, [(SIGNATURE, b"sig")])])
        with pytest.raises(DiscoveryFailed, match="encrypt"):
            await self.find(net)

    @pytest.mark.parametrize("whole", [True, False])
    async def test_a_redirect(self, net, whole):
        """To the publisher, or written as the whole resource; signed by the one it names."""
        url = net.other.url + (PATH2.removeprefix("/smp") if whole else "")
        self.publish(net, endpoints=(), redirect=(url, (OTHER_SMP.certificate,)))
        self.publish(net, at=net.other, signer=OTHER_SMP)
        assert await self.find(net)
        self.publish(net, at=net.other)
        with pytest.raises(DiscoveryFailed) as error:
            await self.find(net)
        assert error.value.reason == "redirect"

    async def test_the_other_version_is_none(self, net):
        net.publish(path=PATH2)
        with pytest.raises(DiscoveryFailed, match=r"2\.0"):
            await self.find(net)


class TestSignatures:
    async def test_publishers_by_certificate(self, net):
        net.publish()
        assert await net.find(publisher_trust=None, publishers=(SMP.certificate,))
        assert await net.failed(publisher_trust=None, publishers=(OTHER_SMP.certificate,)) == "publisher"

    async def test_publishers_by_path_and_subject(self, net):
        net.publish()
        anchors = (ROOT.certificate,)
        assert await net.find(publisher_trust=PathTrust(anchors=anchors, subject=(("CN", "/SMP_.*/"),)))
        assert await net.failed(publisher_trust=PathTrust(anchors=anchors, subject=(("CN", "AP_EE_01"),))) == "publisher"

    async def test_a_path_that_the_publisher_brings_along(self, net):
        issuing = ROOT.ca("Issuing")
        signer = Signer(key("rsa", 1), issuing.leaf("SMP_3", key("rsa", 1).public_key(), key_usage=SIGN), (issuing.certificate,))
        net.publish(signer.sign(metadata_1(endpoints=[(TRANSPORT, URL, AP)])))
        assert await net.find()

    async def test_nobody_signed(self, net):
        net.publish(etree.tostring(metadata_1(endpoints=[(TRANSPORT, URL, AP)])))
        assert await net.failed() == "not-signed"

    async def test_a_stranger_signed(self, net):
        net.publish(STRANGER.sign(metadata_1(endpoints=[(TRANSPORT, URL, AP)])))
        assert await net.failed() == "publisher"
        assert not net.error.temporary

    async def test_a_stranger_signed_and_carries_the_certificate_of_the_publisher(self, net):
        forged = Signer(STRANGER.key, SMP.certificate)
        net.publish(forged.sign(metadata_1(endpoints=[(TRANSPORT, URL, AP)])))
        assert await net.failed() == "bad-signature"

    async def test_an_expired_publisher(self, net):
        expired = Signer(SMP.key, ROOT.leaf("SMP_1", SMP.key.public_key(), key_usage=SIGN, start=-9, days=5))
        net.publish(expired.sign(metadata_1(endpoints=[(TRANSPORT, URL, AP)])))
        assert await net.failed() == "publisher"

    @pytest.mark.parametrize("old", [b"ap.example.ee", b"urn:process", TRANSPORT.encode()])
    async def test_something_was_changed(self, net, old):
        octets = SMP.sign(metadata_1(endpoints=[(TRANSPORT, URL, AP)]))
        assert old in octets
        net.publish(octets.replace(old, bytes(reversed(old))))
        assert await net.failed() == "bad-signature"

    async def test_a_comment_cuts_no_value(self, net):
        """Comments are not signed; a reader that stops at one would read another host [threats 0.7]."""
        octets = SMP.sign(metadata_1(endpoints=[(TRANSPORT, "https://ap.example.ee.evil.example/as4", AP)]))
        net.publish(octets.replace(b"example.ee.evil", b"example.ee<!-- -->.evil"))
        assert (await net.find()).endpoint == "https://ap.example.ee.evil.example/as4"

    @pytest.mark.parametrize(
        "more",
        [
            {"signature_algorithm": "rsa-sha512", "digest_algorithm": "sha512"},
            {"c14n_algorithm": signxml.CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0},
            {"c14n_algorithm": signxml.CanonicalizationMethod.CANONICAL_XML_1_1},
        ],
    )
    async def test_algorithms(self, net, more):
        net.publish(SMP.sign(metadata_1(endpoints=[(TRANSPORT, URL, AP)]), **more))
        assert await net.find()

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"xmldsig-more#rsa-sha256", b"xmldsig#rsa-sha1"),
            (b"2001/04/xmldsig-more#rsa-sha256", b"2001/04/xmldsig-more#hmac-sha256"),
            (b"xmldsig#enveloped-signature", b"xmldsig#base64"),
            (b'Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>',
             b'Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"/>'),
            (b'<ds:Reference URI="">', b'<ds:Reference URI="#x">'),
            (b'<ds:Reference URI="">', b'<ds:Reference URI="http://169.254.169.254/">'),
            (b'<ds:Reference URI="">', b"<ds:Reference>"),
        ],
    )  # fmt: skip
    async def test_algorithms_and_references_that_are_not_taken(self, net, old, new):
        octets = SMP.sign(metadata_1(endpoints=[(TRANSPORT, URL, AP)]))
        assert old in octets
        net.publish(octets.replace(old, new))
        assert await net.failed() == "bad-signature"

    async def test_sha1_is_not_taken_even_when_it_is_right(self, net):
        class Lenient(signxml.XMLSigner):
            def check_deprecated_methods(self):
                pass

        root = metadata_1(endpoints=[(TRANSPORT, URL, AP)])
        try:
            signed = Lenient(digest_algorithm="sha1", c14n_algorithm=signxml.CanonicalizationMethod.CANONICAL_XML_1_0).sign(
                root, key=SMP.key, cert=_pem(SMP.certificate)
            )
        except signxml.InvalidInput:
            pytest.skip("signxml makes no SHA-1 digests any more")
        net.publish(etree.tostring(signed))
        assert await net.failed() == "bad-signature"


def _pem(der):
    return f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"


class TestWrapping:
    """What was signed stands somewhere, and something else is read: the attack in all its usual forms."""

    EVIL = "https://evil.example/as4"

    def both(self):
        good = etree.fromstring(SMP.sign(metadata_1(endpoints=[(TRANSPORT, URL, AP)])))
        evil = metadata_1(endpoints=[(TRANSPORT, self.EVIL, STRANGER.certificate)])
        return good, evil

    async def nothing_evil(self, net, root):
        net.publish(etree.tostring(root))
        try:
            found = await net.find()
        except DiscoveryFailed as failure:
            return failure.reason
        assert found.endpoint == URL
        return None

    async def test_the_signature_in_another_document(self, net):
        good, evil = self.both()
        evil.append(good[-1])
        assert await self.nothing_evil(net, evil) == "bad-signature"

    @pytest.mark.parametrize("place", [0, 1, 2])
    async def test_a_second_metadata_beside_the_signed_one(self, net, place):
        good, evil = self.both()
        good.insert(place, evil[0])
        assert await self.nothing_evil(net, good) == "bad-signature"

    @pytest.mark.parametrize("place", [0, 1])
    async def test_the_signed_document_within_another(self, net, place):
        good, evil = self.both()
        evil.insert(place, good)
        assert await self.nothing_evil(net, evil) == "bad-signature"

    async def test_the_signed_document_within_the_signature_of_another(self, net):
        good, evil = self.both()
        signature = good[-1]
        evil.append(signature)
        holder = etree.SubElement(signature, "{http://www.w3.org/2000/09/xmldsig#}Object")
        holder.append(good)
        assert await self.nothing_evil(net, evil) == "bad-signature"

    async def test_content_hidden_in_the_signature(self, net):
        """What the enveloped-signature transform takes out is not signed, and is not read."""
        good, evil = self.both()
        holder = etree.SubElement(good[-1], "{http://www.w3.org/2000/09/xmldsig#}Object")
        holder.append(evil[0])
        assert await self.nothing_evil(net, good) in (None, "bad-signature")

    @pytest.mark.parametrize("first", [True, False])
    async def test_two_signatures(self, net, first):
        good, evil = self.both()
        strange = etree.fromstring(STRANGER.sign(evil))
        good.insert(0 if first else len(good), strange[-1])
        assert await self.nothing_evil(net, good) == "bad-signature"

    async def test_an_id_in_place_of_the_whole(self, net):
        good, evil = self.both()
        good[0].set("Id", "signed")
        evil.append(good[0])
        signature = good[-1]
        signature.find(".//{*}Reference").set("URI", "#signed")
        evil.append(signature)
        assert await self.nothing_evil(net, evil) == "bad-signature"

    async def test_a_redirect_that_nobody_signed(self, net):
        good, _ = self.both()
        good[0].insert(0, metadata_1(redirect=(net.other.url + "/x", "CN=SMP_1"))[0][0])
        assert await self.nothing_evil(net, good) == "bad-signature"
        assert not net.other.asked


class TestXml:
    @pytest.mark.parametrize(
        "octets",
        [
            b"", b"not xml", b"<html/>", b"<a>" * 300, b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x"><a/>',
            b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', b'<?xml-stylesheet href="http://127.0.0.1:9/"?><a/>',
            b"<a " + b" ".join(b'xmlns:n%d="urn:%d"' % (n, n) for n in range(60)) + b"/>",
            b'<?xml version="1.0" encoding="EBCDIC-CP-US"?><a/>',
        ],
    )  # fmt: skip
    async def test_what_is_no_metadata(self, net, octets):
        net.publish(octets)
        assert await net.failed() in ("not-metadata", "not-signed")
        assert not net.error.temporary

    async def test_a_signed_document_of_another_kind(self, net):
        net.publish(SMP.sign(etree.fromstring("<html><body>signed</body></html>")))
        assert await net.failed() == "not-metadata"


class TestRedirects:
    async def redirect(self, net, *, uid="CN=SMP_2", signer=OTHER_SMP, made=None, url=None):
        net.publish(SMP.sign(metadata_1(redirect=(url or net.other.url + "/resource", uid))))
        made = metadata_1(endpoints=[(TRANSPORT, URL, AP)]) if made is None else made
        net.other.resources["/smp/resource"] = signer.sign(made)

    @pytest.mark.parametrize("uid", ["CN=SMP_2", "SMP_2", "cn = SMP_2", ""])
    async def test_to_another_publisher(self, net, uid):
        await self.redirect(net, uid=uid)
        assert (await net.find()).endpoint == URL
        assert net.other.asked == ["/smp/resource"]

    async def test_signed_there_by_another(self, net):
        await self.redirect(net, uid="CN=SMP_9")
        assert await net.failed() == "redirect"
        await self.redirect(net, uid="CN=SMP_1", signer=STRANGER)
        assert await net.failed() == "publisher"

    async def test_only_one_is_followed(self, net):
        await self.redirect(net, made=metadata_1(redirect=(net.smp.url + "/again", "CN=SMP_1")))
        assert await net.failed() == "redirect"
        assert "/smp/again" not in net.smp.asked

    @pytest.mark.parametrize(
        "url", ["http://169.254.169.254/latest/meta-data", "http://10.0.0.1/", "file:///etc/passwd", "http://user:pw@127.0.0.1/", "x", ""]
    )
    async def test_to_where_nobody_may_go(self, net, url):
        await self.redirect(net, url=url or "http://")
        assert await net.failed() == "publisher-unreachable"
        assert not net.error.temporary

    async def test_http_redirects_are_not_followed(self, net):
        async def moved(request):
            return web.Response(status=302, headers={"Location": net.other.url + "/resource"})

        net.smp.resources[PATH] = moved
        assert await net.failed() == "publisher-answer"
        assert not net.other.asked


class TestTransport:
    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:{port}/", "http://[::1]:{port}/", "http://localhost:{port}/", "http://10.1.2.3/", "http://169.254.169.254/"]
    )
    async def test_a_locator_that_points_into_our_network(self, url):
        """Nothing of ours is listed: no connection is made to any of them [threats J01]."""
        async with nets(allow=()) as net:
            port = net.smp.url.split(":")[2].split("/")[0]
            net.dns.naptr(name_of(GLN, ZONE), f'100 10 "U" "Meta:SMP" "!.*!{url.format(port=port)}!" .')
            assert await net.failed() == "publisher-unreachable"
            assert not net.error.temporary
            assert not net.smp.asked

    async def test_a_huge_answer(self, net):
        net.publish(b"<a>" + b"x" * MAX_METADATA + b"</a>")
        assert await net.failed() == "publisher-unreachable"
        assert not net.error.temporary

    async def test_an_answer_without_end(self, net):
        async def endless(request):
            response = web.StreamResponse()
            await response.prepare(request)
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                while True:
                    await response.write(b"x" * 65_536)
            return response

        net.smp.resources[PATH] = endless
        assert await net.failed() == "publisher-unreachable"

    async def test_a_bomb_in_the_encoding(self, net):
        async def compressed(request):
            return web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

        net.smp.resources[PATH] = compressed
        assert await net.failed() == "publisher-unreachable"

    async def test_a_slow_answer(self, net):
        async def slow(request):
            await asyncio.sleep(60)

        net.smp.resources[PATH] = slow
        assert await net.failed(finder=net.finder(smp_timeout=Duration(0.2))) == "publisher-unreachable"
        assert net.error.temporary

    async def test_the_whole_look_up_has_an_end(self, net):
        async def slow(request):
            await asyncio.sleep(60)

        net.smp.resources[PATH] = slow
        assert await net.failed(finder=net.finder(timeout=Duration(0.3))) == "slow"
        assert net.error.temporary

    @pytest.mark.parametrize(
        ("status", "reason", "temporary"),
        [(404, "not-registered", False), (500, "publisher-answer", True), (503, "publisher-answer", True), (429, "publisher-answer", True),
         (403, "publisher-answer", False), (204, "publisher-answer", False)],
    )  # fmt: skip
    async def test_what_a_publisher_says(self, net, status, reason, temporary):
        net.smp.resources[PATH] = status
        assert await net.failed() == reason
        assert net.error.temporary == temporary

    async def test_nobody_listens(self, net):
        net.dns.naptr(name_of(GLN, ZONE), '100 10 "U" "Meta:SMP" "!.*!http://127.0.0.1:9999/!" .')
        assert await net.failed() == "publisher-unreachable"
        assert net.error.temporary

    async def test_the_next_publisher_when_the_first_is_down(self, net):
        net.publish()
        net.dns.naptr(
            name_of(GLN, ZONE), '1 1 "U" "Meta:SMP" "!.*!http://127.0.0.1:9999/!" .', f'2 1 "U" "Meta:SMP" "!.*!{net.smp.url}!" .'
        )
        assert await net.find()


class TestCache:
    async def test_what_was_found_is_asked_once(self, net):
        net.publish()
        finder = net.finder()
        for _ in range(5):
            await net.find(finder=finder)
        assert len(net.smp.asked) == len(net.dns.asked) == 1
        net.clock.ahead = 3601
        await net.find(finder=finder)
        assert len(net.smp.asked) == 2

    async def test_all_who_ask_at_the_same_time_share_one_look_up(self, net):
        net.publish()
        finder = net.finder()
        found = await asyncio.gather(*(net.find(finder=finder) for _ in range(50)))
        assert len(set(found)) == 1
        assert len(net.smp.asked) == 1
        net.smp.resources.clear()
        net.clock.ahead = 4000
        failures = await asyncio.gather(*(net.find(finder=finder) for _ in range(50)), return_exceptions=True)
        assert {failure.reason for failure in failures} == {"not-registered"}
        assert len(net.smp.asked) == 2

    async def test_whoever_gives_up_does_not_end_it_for_the_others(self, net):
        net.publish()
        net.dns.delay = 0.1
        finder = net.finder()
        first = asyncio.ensure_future(net.find(finder=finder))
        second = asyncio.ensure_future(net.find(finder=finder))
        await asyncio.sleep(0.02)
        first.cancel()
        assert (await second).endpoint == URL

    async def test_agreements_do_not_share_what_they_found(self, net):
        net.publish()
        finder = net.finder()
        await net.find(finder=finder)
        assert await net.failed(finder=finder, publisher_trust=None, publishers=(OTHER_SMP.certificate,)) == "publisher"

    async def test_who_does_not_exist_is_remembered_for_a_while(self, net):
        finder = net.finder()
        for _ in range(3):
            assert await net.failed(finder=finder) == "not-registered"
        assert len(net.smp.asked) == 1
        net.publish()
        net.clock.ahead = 61
        assert await net.find(finder=finder)

    async def test_a_failure_is_remembered_for_a_moment(self, net):
        net.smp.resources[PATH] = 500
        finder = net.finder()
        for _ in range(3):
            assert await net.failed(finder=finder) == "publisher-answer"
        assert len(net.smp.asked) == 1
        net.publish()
        net.clock.ahead = FAILED_TTL + 1
        assert await net.find(finder=finder)

    async def test_while_nobody_answers_what_was_known_is_used(self, net):
        net.publish()
        finder = net.finder()
        await net.find(finder=finder)
        net.smp.resources[PATH] = 503
        net.clock.ahead = 4000
        assert await net.find(finder=finder)
        asked = len(net.smp.asked)
        assert await net.find(finder=finder)
        assert len(net.smp.asked) == asked  # not at every message
        net.clock.ahead = 4000 + FAILED_TTL + 1
        assert await net.find(finder=finder)
        assert len(net.smp.asked) == asked + 1
        net.clock.ahead = 90_000
        assert await net.failed(finder=finder) == "publisher-answer"

    async def test_but_not_beyond_the_time_of_the_endpoint(self, net):
        net.publish(SMP.sign(metadata_1(endpoints=[(TRANSPORT, URL, AP, None, now(seconds=4500))])))
        finder = net.finder()
        await net.find(finder=finder)
        net.smp.resources[PATH] = 503
        net.clock.ahead = 4000
        assert await net.find(finder=finder)
        net.clock.ahead = 5000
        assert await net.failed(finder=finder) == "publisher-answer"

    async def test_what_was_refused_makes_what_was_known_forgotten(self, net):
        net.publish()
        finder = net.finder()
        await net.find(finder=finder)
        net.publish(STRANGER.sign(metadata_1(endpoints=[(TRANSPORT, URL, AP)])))
        net.clock.ahead = 4000
        assert await net.failed(finder=finder) == "publisher"
        net.smp.resources[PATH] = 503
        net.clock.ahead = 4100
        assert await net.failed(finder=finder) == "publisher-answer"

    async def test_fresh_asks_again_within_reason(self, net):
        net.publish()
        finder = net.finder()
        await net.find(finder=finder)
        await net.find(finder=finder, fresh=True)
        assert len(net.smp.asked) == 1
        net.clock.ahead = FRESH + 1
        await net.find(finder=finder, fresh=True)
        assert len(net.smp.asked) == 2

    async def test_only_so_many_are_remembered(self, net):
        finder = net.finder(cache=3)
        for n in range(10):
            query = replace(QUERY, document=Identifier(f"urn:{n}"))
            with pytest.raises(DiscoveryFailed):
                await finder.find(net.how(), query)
        assert len(finder._known) == 3
        assert not finder._running
