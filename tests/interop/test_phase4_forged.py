"""What phase4 does with messages that the gateway would never send: broken, unsigned, unencrypted, of somebody else."""

import http.client
import re
import ssl

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.as4.units import PartyId, Property, Receipt, Service
from gateway.keys.keyring import SoftwareSigningKey
from tests.interop.phase4_sites import INITIATOR, RESPONDER, RSA2048, SERVICE, SERVICE_TYPE, TYPE
from tests.interop.phase4_world import PROPERTIES, World
from tests.peer import Answer, Keys, Peer, Sent, split

pytestmark = pytest.mark.peer


def impostor(world: World) -> Peer:
    """The gateway's party and keys in the hands of a test, for messages that the gateway would never send."""
    ours, theirs = world.keys[RSA2048]
    key = load_pem_private_key(ours.keys.read_bytes(), None)
    der, partner = (ssl.PEM_cert_to_DER_cert(files.signing.read_text()) for files in (ours, theirs))
    return Peer(PartyId(RSA2048.us, TYPE), PartyId(RSA2048.peer, TYPE), Keys(key, der, key, der), (partner,), partner,
                RSA2048.profile)  # fmt: skip


def made(peer: Peer, **how) -> Sent:
    payloads = how.pop("payloads", [("application/xml", b"<forged/>")])
    properties = tuple(Property(p["name"], p["value"], p.get("type")) for p in PROPERTIES)
    return peer.message(
        payloads, from_role=INITIATOR, to_role=RESPONDER, service=Service(SERVICE, SERVICE_TYPE), action="Exchange",
        **{"properties": properties, **how},
    )  # fmt: skip


def posted(world: World, content_type: str, body: bytes) -> Answer:
    """What phase4 answers; read and verified as the gateway would."""
    connection = http.client.HTTPConnection("127.0.0.1", world.peer.facts["port"], timeout=60)
    connection.request("POST", f"/as4/{RSA2048.name}", body, {"Content-Type": content_type})
    response = connection.getresponse()
    answer = impostor(world).answer(response.status, response.getheader("Content-Type"), response.read())
    connection.close()
    return answer


@pytest.mark.proves(RSA2048.title, "ours to phase4")
@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("no gzip", ("EBMS:0303", True)),
        ("no final recipient", ("EBMS:0010", True)),
        ("broken ciphertext", ("EBMS:0102", True)),
        ("broken digest", ("EBMS:0102", True)),
    ],
)
def test_what_phase4_says_to_broken_messages(world: World, what: str, expected):
    how = {
        "no gzip": {"compress": False, "part_properties": (Property("CompressionType", "application/gzip"),),
                    "content_type_of": lambda mime, compressed: "application/gzip"},
        "no final recipient": {"properties": (Property("originalSender", "C1"),)},
        "broken ciphertext": {"wire_octets": lambda octets: octets + b"x"},
        "broken digest": {"digest": lambda octets, content_type: bytes(32)},
    }[what]  # fmt: skip
    sent = made(impostor(world), **how)
    answer = posted(world, sent.content_type, sent.body)
    assert (answer.code, answer.signer is not None) == expected
    assert not world.peer.of(sent.message.message_id)


def without(name: str, envelope: bytes) -> bytes:
    """The envelope without an element of the Security header (nothing there is signed)."""
    return re.sub(rb"<(\w+:" + name.encode() + rb")[ >].*?</\1>", b"", envelope, flags=re.S)


def test_phase4_leaves_the_security_policy_to_the_application(world: World):
    """Difference 3: without a signature, without encryption, or signed by somebody else whom the same CA certified -
    phase4 takes and receipts it under a P-Mode that demands more. That is why every test here asserts `signed`, `encrypted` and
    the signer; the gateway refuses all three (tests/conformance/test_security.py)."""
    peer = impostor(world)
    unsigned = made(peer, payloads=[])
    answer = posted(world, unsigned.content_type, without("Security", unsigned.body))
    assert isinstance(answer.unit, Receipt)
    assert world.peer.wait(unsigned.message.message_id)["signed"] is False

    plain = made(peer, compress=False, content_type_of=lambda mime, compressed: "application/octet-stream")
    envelope, [(cid, _)] = split(plain.content_type, plain.body)
    stripped = without("EncryptedKey", without("EncryptedData", envelope.octets))
    body = (b"--b\r\nContent-Type: application/soap+xml; charset=UTF-8\r\n\r\n" + stripped + b"\r\n--b\r\nContent-Type: "
            b"application/octet-stream\r\nContent-ID: <" + cid.encode() + b">\r\n\r\n<forged/>\r\n--b--\r\n")
    answer = posted(world, 'multipart/related; type="application/soap+xml"; boundary="b"', body)
    assert isinstance(answer.unit, Receipt)
    report = world.peer.wait(plain.message.message_id)
    assert (report["signed"], report["encrypted"]) == (True, False)

    theirs = world.keys[RSA2048][1]
    key = load_pem_private_key(theirs.keys.read_bytes(), None)
    other = SoftwareSigningKey(key, ssl.PEM_cert_to_DER_cert(theirs.signing.read_text()))
    foreign = made(peer, key=other)
    assert isinstance(posted(world, foreign.content_type, foreign.body).unit, Receipt)
    assert world.peer.wait(foreign.message.message_id)["signer"].startswith(f"CN={RSA2048.peer}")
