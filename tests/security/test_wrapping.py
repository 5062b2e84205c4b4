"""B: nothing opens to something else than what was signed, however it is wrapped."""

import os
import re

import pytest

from gateway.as4 import ns, soap
from gateway.errors import EbmsError, InvalidHeader, PolicyNoncompliance
from tests.security import wrapping
from tests.unit.as4.wss.material import RSA, Payload, craft, open_octets

FULL = os.environ.get("GATEWAY_WRAPPING") == "full"
#: At least so many distinct mutants for each message when all are asked for [threats 1.2 B].
TARGET = 20_000
FIXTURES = wrapping.fixtures()


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda f: f.name)
def test_mutants(fixture):
    verdicts = wrapping.run(fixture, distinct=TARGET if FULL else 300)
    assert verdicts["distinct"] == (TARGET if FULL else 300)
    # Some mutants change nothing that was signed, and must still open: the check is not just refusing all.
    assert verdicts["EBMS:0009"] and verdicts["distinct"] > verdicts["same"]


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda f: f.name)
def test_the_second_wall(fixture, monkeypatch):
    """The same with the shape check blind for guarded elements and shared ids: coverage holds alone.

    What is covered is decided by the identity of the nodes that are read, so even a mutant
    whose forged and signed elements share an id cannot open.
    """
    def first_wins(root):
        ids = {}
        for element in root.iter():
            for name, text in element.items():
                if name in soap._IDS:
                    ids.setdefault(text, element)
        return ids

    monkeypatch.setattr(soap, "_GUARDED", ("{urn:none}none",))
    monkeypatch.setattr(soap, "_ids", first_wins)
    verdicts = wrapping.run(fixture, distinct=TARGET if FULL else 300, seed=7)
    assert verdicts["EBMS:0101"] + verdicts["EBMS:0103"] > verdicts["distinct"] / 10


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda f: f.name)
def test_there_are_enough_of_them(fixture):
    assert sum(1 for _ in zip(range(TARGET * 3), wrapping.recipes(fixture), strict=False)) == TARGET * 3


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda f: f.name)
def test_harmless_differences_are_accepted(fixture):
    """B20: a guard against comparing octets instead of meaning."""
    text = fixture.octets.decode()
    spaced = re.sub(r'(<[\w:]+)((?: [\w:]+="[^"]*")+)(/?>)', lambda m: m[1] + "\n " + m[2] + " " + m[3], text)
    turned = re.sub(
        r'(<(?:wsse|xenc|ds|eb|S12):\w+)((?: [\w:]+="[^"]*")+)',
        lambda m: m[1] + "".join(reversed(re.findall(r' [\w:]+="[^"]*"', m[2]))), text,
    )
    quoted = re.sub(r'="([^"\'<&]*)"', r"='\1'", text)
    for changed in (spaced, turned, quoted):
        assert changed != text
        assert wrapping.check(fixture, changed.encode()) == "same"


class TestNamed:
    """The named minimum set, so that each is seen by its id."""

    octets = craft(RSA, Payload(b"<a/>"))
    messaging = re.search(rb"<eb:Messaging.*</eb:Messaging>", octets)[0]
    forged = messaging.replace(b">act<", b">evil<")

    def refused(self, octets, *kinds):
        assert octets != self.octets
        with pytest.raises(EbmsError) as refusal:
            open_octets(octets, RSA.terms)
        assert isinstance(refusal.value, kinds), refusal.value

    def test_b01_original_under_an_unknown_header(self):
        hidden = b'<x:y xmlns:x="urn:x">' + self.messaging + b"</x:y>"
        for forged in (self.forged, self.forged.replace(b'wsu:Id="m"', b'wsu:Id="n"')):
            self.refused(self.octets.replace(self.messaging, forged + hidden), InvalidHeader)

    def test_b02_two_messagings(self):
        forged = self.forged.replace(b'wsu:Id="m"', b'wsu:Id="n"')
        self.refused(self.octets.replace(self.messaging, forged + self.messaging), InvalidHeader)
        self.refused(self.octets.replace(self.messaging, self.messaging + forged), InvalidHeader)

    @pytest.mark.parametrize(("old", "new"), [
        (b"<S12:Header>", b"<S12:Header/><S12:Header>"),
        (b"</S12:Envelope>", b"<S12:Body/></S12:Envelope>"),
        (b"</S12:Envelope>", b"<x/></S12:Envelope>"),
        (b"(<S12:Header>.*</S12:Header>)(<S12:Body.*</S12:Body>)", rb"\2\1"),
    ])
    def test_b03_headers_and_bodies(self, old, new):
        self.refused(re.sub(old, new, self.octets), InvalidHeader)

    def test_b04_original_inside_the_signature(self):
        forged = self.forged.replace(b'wsu:Id="m"', b'wsu:Id="n"')
        octets = self.octets.replace(self.messaging, forged)
        for box in (b"<ds:Object>%s</ds:Object>", b"<ds:KeyInfo>%s</ds:KeyInfo>", b"%s"):
            self.refused(octets.replace(b"</ds:Signature>", box % self.messaging + b"</ds:Signature>"),
                         InvalidHeader, PolicyNoncompliance)

    @pytest.mark.parametrize("name", [b"wsu:Id", b"Id", b"ID", b"id", b"xml:id"])
    @pytest.mark.parametrize("place", [b"<eb:UserMessage", b"<wsse:Security", b"<ds:Signature", b"<eb:Action"])
    def test_b05_one_id_twice(self, name, place):
        scope = b"" if place == b"<wsse:Security" else b' xmlns:wsu="' + ns.WSU.encode() + b'"'
        self.refused(self.octets.replace(place, place + scope + b" " + name + b'="m"', 1), InvalidHeader)

    def test_b10_signature_in_other_places(self):
        signature = re.search(rb"<ds:Signature .*</ds:Signature>", self.octets)[0]
        without = self.octets.replace(signature, b"")
        self.refused(self.octets.replace(signature, signature + signature), PolicyNoncompliance)
        signature = signature.replace(b"<ds:Signature ", b'<ds:Signature xmlns:wsse="' + ns.WSSE.encode() + b'" ', 1)
        self.refused(without.replace(b"</S12:Header>", signature + b"</S12:Header>"), PolicyNoncompliance)
        self.refused(without.replace(b"</eb:Messaging>", signature + b"</eb:Messaging>"), InvalidHeader, PolicyNoncompliance)

    def test_b11_two_securities(self):
        security = re.search(rb"<wsse:Security .*</wsse:Security>", self.octets)[0]
        again = re.sub(rb'((?:wsu:)?Id=")', rb"\1x", security)
        for role in (b"", b' S12:role="http://www.w3.org/2003/05/soap-envelope/role/next"',
                     b' S12:role="http://www.w3.org/2003/05/soap-envelope/role/ultimateReceiver"'):
            second = again.replace(b"<wsse:Security ", b"<wsse:Security" + role + b" ", 1)
            self.refused(self.octets.replace(security, security + second), InvalidHeader)

    def test_b14_body_in_a_header(self):
        body = re.search(rb"<S12:Body.*</S12:Body>", self.octets)[0]
        forged = body.replace(b'wsu:Id="b"', b'wsu:Id="c"')
        octets = self.octets.replace(body, forged).replace(b"</S12:Header>", b"<x>" + body + b"</x></S12:Header>")
        self.refused(octets, InvalidHeader)

    def test_c13_signed_info_of_another_message(self):
        other = craft(RSA, Payload(b"<b/>"))
        signature = re.search(rb"<ds:Signature .*</ds:Signature>", other)[0]
        octets = re.sub(rb"<ds:Signature .*</ds:Signature>", lambda _: signature, self.octets)
        opened = open_octets(octets, RSA.terms)  # the same header and Body; the part's digest is the other's
        assert opened.promised["part-1@as4.example"] != open_octets(self.octets, RSA.terms).promised["part-1@as4.example"]
        self.refused(octets.replace(b">act<", b">evil<"), EbmsError)
