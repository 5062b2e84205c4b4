"""Messages of every shape between the gateway and phase4, in every suite, both ways [as4 6.1, 6.3, 6.4]."""

import os
import random

import pytest

from gateway.as4 import ns
from tests.interop.phase4_sites import AGREEMENT, AGREEMENT_TYPE, SUITES, Site
from tests.interop.phase4_world import Payload, World

pytestmark = pytest.mark.peer

FULL = os.environ.get("GATEWAY_INTEROP") == "full"
#: Everything that canonicalisation changes: order of attributes, empty elements, unused and repeated
#: namespaces, comments, CDATA, a declaration, character references, CRLF.
XML = (
    '<?xml version="1.0" encoding="UTF-8"?>\r\n<!-- before -->\r\n'
    '<b:root z="1" a="2" xmlns:unused="urn:unused" xmlns:b="urn:b" xmlns="urn:default">\r\n'
    "  <empty></empty><b:x xmlns:b='urn:b' b:k='v' c='&#10;&quot;'/><![CDATA[<raw & text>]]>&#xD;é\r\n"
    "  <!-- inside --><?pi data?>\t</b:root>\n<!-- after -->\n"
).encode()
TEXT = b"unix\nmac\rdos\r\nmixed\n\r\n\r end without line end\xc3\xa9"
BINARY = bytes(range(256)) * 16 + b"\r\n--boundary\r\n\r\n" + bytes(255)


def noise(size: int, seed: int = 1) -> bytes:
    """Octets that do not compress, the same in every run."""
    return random.Random(seed).randbytes(size)


SHAPES: dict[str, tuple[Payload, ...]] = {
    "none": (),
    "one": (Payload(b"<evidence>1</evidence>", charset="UTF-8"),),
    "several": (
        Payload(XML, charset="UTF-8", properties=(("documentType", "main", "urn:interop:kinds"),)),
        Payload(noise(70_000), "application/pdf", compress=False),
        Payload(TEXT, "text/plain"),
    ),
    "empty": (Payload(b"<a/>"), Payload(b"", "application/octet-stream")),
    "empty-plain": (Payload(b"", "application/octet-stream", compress=False),),
    "20MB": (Payload(noise(20_000_000), "application/zip"),),
    "20MB-plain": (Payload(noise(20_000_000, 2), "application/zip", compress=False),),
    "xml-plain": (Payload(XML, "application/xml", compress=False),),
    "xml-suffix-plain": (Payload(XML, "application/x-ebrs+xml", compress=False),),
    "text-plain": (Payload(TEXT, "text/plain", compress=False),),
    "binary-plain": (Payload(BINARY, "application/octet-stream", compress=False),),
    # phase4 takes no more: Santuario refuses signatures over more than 30 references, and two are Messaging and Body.
    "28-parts": tuple(Payload(f"<part>{n}</part>".encode() * n) for n in range(28)),
}
SHORT = ("one", "several", "empty", "xml-plain", "text-plain", "20MB-plain")


def cases() -> list:
    found = []
    for site in SUITES:
        for shape in SHAPES:
            if FULL or shape in SHORT:
                found.append(pytest.param(site, shape, id=f"{site.name}-{shape}"))
    return found


@pytest.fixture(autouse=True)
def counted(request, site):
    direction = "ours to phase4" if "_sends" in request.node.name else "phase4 to ours"
    request.node.add_marker(pytest.mark.proves(site.title, direction))


@pytest.mark.parametrize(("site", "shape"), cases())
def test_the_gateway_sends(world: World, site: Site, shape: str):
    payloads = SHAPES[shape]
    world.check_sent(site, world.submit(site, payloads), payloads)


@pytest.mark.parametrize(("site", "shape"), cases())
def test_the_gateway_receives(world: World, site: Site, shape: str):
    payloads = SHAPES[shape]
    message = world.message(site, payloads)
    (result,) = world.peer.send(site.name, [message])
    world.check_received(site, message, payloads, result)


@pytest.mark.parametrize("site", SUITES, ids=lambda site: site.name)
def test_an_agreement_reference_sends(world: World, site: Site):
    payloads = SHAPES["one"]
    world.check_sent(site, world.submit(site, payloads, action="Agreed", agreement_ref=AGREEMENT,
                                        agreement_type=AGREEMENT_TYPE), payloads, action="Agreed")  # fmt: skip


@pytest.mark.parametrize("site", SUITES, ids=lambda site: site.name)
def test_an_agreement_reference_receives(world: World, site: Site):
    payloads = SHAPES["one"]
    message = world.message(site, payloads, action="Agreed", agreement=AGREEMENT, agreementType=AGREEMENT_TYPE)
    (result,) = world.peer.send(site.name, [message])
    world.check_received(site, message, payloads, result)


@pytest.mark.parametrize("site", SUITES, ids=lambda site: site.name)
def test_the_test_service_receives(world: World, site: Site):
    """A ping has the security of the real thing and a receipt, and reaches nobody [as4 2.7]."""
    ping = world.message(site, SHAPES["one"], service=ns.TEST_SERVICE, action=ns.TEST_ACTION)
    del ping["serviceType"]
    real = world.message(site, SHAPES["one"])
    for message in (ping, real):
        (result,) = world.peer.send(site.name, [message])
        assert result["ok"] is True, result
    world.gateway.wait_taken(real["messageId"])
    assert ping["messageId"] not in world.gateway.taken
