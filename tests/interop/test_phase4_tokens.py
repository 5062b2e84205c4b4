"""Every way of naming a certificate, for signatures and for encryption, in every suite, both ways [as4 3.4, 6.4 (52)]."""

import pytest

from tests.interop.phase4_sites import SUITES, TOKENS, Site
from tests.interop.phase4_world import Payload, World

pytestmark = pytest.mark.peer

PAYLOADS = (Payload(b"<named/>"),)
#: What the peer reads out of the envelope for each of our kinds.
ON_THE_WIRE = {
    "bst": "direct-x509v3",
    "pkipath": "direct-x509pkipathv1",
    "ski": "x509subjectkeyidentifier",
    "issuer-serial": "x509issuerserial",
    "thumbprint": "thumbprintsha1",
}
#: WSS4J 4.0.1 ends with a NullPointerException at a certificate inline in ds:X509Data.
NOT_READ_THERE = {"x509"}
#: phase4's names; the path is a switch beside them.
THEIRS = {
    "BST_DIRECT_REFERENCE": "direct-x509v3",
    "ISSUER_SERIAL": "x509issuerserial",
    "ISSUER_SERIAL_QUOTE_FORMAT": "x509issuerserial",
    "X509_KEY_IDENTIFIER": "x509v3",
    "SKI_KEY_IDENTIFIER": "x509subjectkeyidentifier",
    "THUMBPRINT_IDENTIFIER": "thumbprintsha1",
    "X509_SKI_KEY_IDENTIFIER": "x509ski",
    "path": "direct-x509pkipathv1",
}
#: WSS4J names a path in signatures only, and an X509SKI in encryption only.
ONLY_FOR = {"path": "sign", "X509_SKI_KEY_IDENTIFIER": "encrypt"}
SIGNING = [token for token in THEIRS if ONLY_FOR.get(token, "sign") == "sign"]
ENCRYPTING = [token for token in THEIRS if ONLY_FOR.get(token, "encrypt") == "encrypt"]


@pytest.fixture(autouse=True)
def counted(request, site):
    direction = "ours to phase4" if "_sends" in request.node.name else "phase4 to ours"
    request.node.add_marker(pytest.mark.proves(site.title, direction))


@pytest.mark.parametrize("kind", ["sign", "encrypt"])
@pytest.mark.parametrize("token", [token for token in TOKENS if token not in NOT_READ_THERE])
@pytest.mark.parametrize("site", SUITES, ids=lambda site: site.name)
def test_the_gateway_sends(world: World, site: Site, token: str, kind: str):
    action = f"{kind}-{token}"
    report = world.check_sent(site, world.submit(site, PAYLOADS, action=action), PAYLOADS, action=action)
    found = {"sign": report["signatureToken"], "encrypt": report["encryptionToken"]}
    other = "encrypt" if kind == "sign" else "sign"
    assert found == {kind: ON_THE_WIRE[token], other: "direct-x509v3"}


@pytest.mark.parametrize(
    ("kind", "token"), [*(("sign", token) for token in SIGNING), *(("encrypt", token) for token in ENCRYPTING)]
)
@pytest.mark.parametrize("site", SUITES, ids=lambda site: site.name)
def test_the_gateway_receives(world: World, site: Site, token: str, kind: str):
    key = {"sign": "signatureKeyIdentifier", "encrypt": "encryptionKeyIdentifier"}[kind]
    message = world.message(site, PAYLOADS, **({"pkiPath": True} if token == "path" else {key: token}))
    (result,) = world.peer.send(site.name, [message])
    world.check_received(site, message, PAYLOADS, result)


@pytest.mark.parametrize("token", SIGNING)
@pytest.mark.parametrize("site", SUITES, ids=lambda site: site.name)
def test_a_receipt_of_phase4_for_what_the_gateway_sends(world: World, site: Site, token: str):
    world.peer.answer(site.name, **({"pkiPath": True} if token == "path" else {"keyIdentifier": token}))
    try:
        world.check_sent(site, world.submit(site, PAYLOADS), PAYLOADS)
    finally:
        world.peer.answer(site.name)
