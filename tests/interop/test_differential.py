"""Our verdict on signatures, held against signxml's: we may be stricter, never laxer.

signxml is the independent reader for RSA and ECDSA (it knows no Ed25519). It finds elements by
any id, canonicalises and digests them itself, and is given the octets of the parts, whose SwA
transform it passes over: for octet-stream and gzip that transform is the identity, so its
digests are ours. What it does not ask (where a signed element stands, whether there is more than
one of it, how base64 is spelled) is where we refuse what it accepts; every such reason is in
`STRICTER` with its explanation, and a refusal for any other reason fails the test.

`GATEWAY_DIFFERENTIAL=full` makes 45 times as many mutants.
"""

import base64
import logging
import os
import random
import re
from collections import Counter

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from lxml import etree
from signxml import XMLVerifier
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration

from gateway.as4 import ns
from gateway.as4.inbound import Terms, open_envelope
from gateway.as4.profiles import PROFILES
from gateway.as4.wss.algorithms import UNREADABLE
from gateway.as4.wss.verify import PartDigest
from gateway.errors import EbmsError
from tests.peer import Keys, Peer, split
from tests.world import EE, LV, _made

logging.getLogger("signxml").setLevel(logging.WARNING)  # canonical octets would go to the log

MUTANTS = 40 * (45 if os.environ.get("GATEWAY_DIFFERENTIAL") == "full" else 1)
SUITES = {"rsa": "oots/2.0", "ecdsa": "edelivery-as4/2.0-ecdsa"}
#: The signer's certificate in the message.
SIGNER = re.compile(rb'(?<=wsu:Id="signer">)[^<]*(?=</wsse:BinarySecurityToken>)')
TOKENS = ["bst", "pkipath", "ski", "issuer-serial", "thumbprint", "x509"]
#: What signxml raises for what it refuses, and what it trips over.
REFUSALS = (SignXMLException, InvalidSignature, ValueError, etree.LxmlError, KeyError, TypeError, AttributeError, IndexError,
            *UNREADABLE)

#: Our refusal (a regular expression) → why we refuse what signxml accepts. All there is; a test fails for any other.
STRICTER = {
    r"the signer's certificate is not one of the claimed party's":
        "a certificate counts only when the agreement has it, octet by octet; signxml is told which to use",
    r"a token reference with another ValueType|a direct reference to something that is no|a token (of a kind|that is not base64)|"
    r"a key identifier|not exactly one child element|ds:X509|a serial number|base64: not the one spelling|an element inside base64":
        "how a certificate is named has the forms of the profile, with one spelling of base64; signxml reads none of it",
    r"encrypt|RSA-OAEP with|HKDF|a key (derivation|agreement|transport|wrap) that|a curve that":
        "what is encrypted, and how, is judged in the same step; signxml looks at the signature alone",
    r"one id on two elements": "an id names one element; signxml takes the first",
    r"an element in wsse:Security|an element that does not belong there": "every container is a place to hide a signed original in",
}


def peers(suite: str) -> tuple[Peer, Keys]:
    _, ours, theirs = _made(suite)
    return Peer(EE, LV, theirs, (ours.signing,), ours.encryption, SUITES[suite]), theirs


class Signed:
    """A message that our sender wrote, with the octets of its parts as they were signed."""

    def __init__(self, suite: str, token: str = "bst") -> None:
        peer, self.keys = peers(suite)
        octets: list[bytes] = []
        sent = peer.message([("application/xml", b"<a/>"), ("application/pdf", b"%PDF \0\xff")], signature_token=token,
                            encryption_token=token, wire_octets=lambda o: octets.append(o) or o)
        self.envelope = split(sent.content_type, sent.body)[0].octets
        self.parts = {info.href: o for info, o in zip(sent.message.parts, octets, strict=True)}
        self.terms = Terms(PROFILES[SUITES[suite]], (self.keys.signing,))

    def ours(self, envelope: bytes, parts=None) -> EbmsError | None:
        """Our refusal, or None."""
        try:
            opened = open_envelope(envelope, None, choose=lambda _: self.terms, trust=lambda _: None)
            for cid, reference in opened.promised.items():
                digest = PartDigest(reference.digest_method, "raw", 0)
                digest.update((parts or self.parts).get(f"cid:{cid}", b""))
                if not digest.meets(reference.digest):
                    raise EbmsError("part digest")
        except EbmsError as error:
            return error
        return None

    def theirs(self, envelope: bytes, parts=None, *, carried: bool = False) -> Exception | None:
        """signxml's refusal, or None. `carried`: with the certificate that the message brings."""
        parts = parts or self.parts
        try:
            der = base64.b64decode(SIGNER.search(envelope)[0]) if carried else self.keys.signing
            results = XMLVerifier().verify(
                etree.fromstring(envelope), x509_cert=x509.load_der_x509_certificate(der),
                validate_schema=False, uri_resolver=parts.get,
                expect_config=SignatureConfiguration(
                    location=".//", expect_references=2 + len(self.parts),
                    signature_methods=frozenset({SignatureMethod.RSA_SHA256, SignatureMethod.ECDSA_SHA256}),
                    digest_algorithms=frozenset({DigestAlgorithm.SHA256}),
                ),
            )
            # It passes over what it was not asked for: all references must have come back.
            assert len(results) == 2 + len(self.parts)
        except REFUSALS as error:
            return error
        return None


@pytest.fixture(scope="module", params=SUITES)
def signed(request) -> Signed:
    return Signed(request.param)


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("suite", SUITES)
def test_what_we_sign_is_accepted(suite, token):
    made = Signed(suite, token)
    assert made.theirs(made.envelope) is None and made.ours(made.envelope) is None
    signature = re.search(rb"<ds:SignatureValue>([^<]*)", made.envelope)[1]
    assert made.theirs(made.envelope.replace(signature, base64.b64encode(bytes(len(base64.b64decode(signature)))))) is not None


# -- mutants ------------------------------------------------------------------------


def span(octets: bytes, pattern: bytes, dice: random.Random) -> tuple[int, int]:
    return dice.choice([m.span() for m in re.finditer(pattern, octets, re.S)])


def octet(inside: bytes):
    """One octet changed, left out or put in, somewhere in what the pattern finds."""
    def mutate(octets: bytes, dice: random.Random) -> bytes:
        start, end = span(octets, inside, dice)
        at = dice.randrange(start, end)
        return dice.choice([
            octets[:at] + bytes([octets[at] ^ (1 << dice.randrange(7))]) + octets[at + 1 :],
            octets[:at] + octets[at + 1 :],
            octets[:at] + dice.choice([b" ", b"\n", b"A", b"=", b"&#13;", b"<!-- -->", b">", b'"']) + octets[at:],
        ])
    return mutate


def swapped(element: bytes):
    """Two elements of one kind change places, one is doubled, or one goes."""
    def mutate(octets: bytes, dice: random.Random) -> bytes:
        found = [m.span() for m in re.finditer(element, octets, re.S)]
        (a, b), (c, d) = sorted(dice.sample(found, 2))
        return dice.choice([
            octets[:a] + octets[c:d] + octets[b:c] + octets[a:b] + octets[d:],
            octets[:a] + octets[a:b] * 2 + octets[b:],
            octets[:a] + octets[b:],
            octets[:a] + octets[c:d] + octets[b:],
        ])
    return mutate


ALGORITHMS = [
    ns.EXC_C14N, "http://www.w3.org/2001/10/xml-exc-c14n#WithComments", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
    "http://www.w3.org/2006/12/xml-c14n11", ns.SHA256, "http://www.w3.org/2000/09/xmldsig#sha1",
    "http://www.w3.org/2001/04/xmlenc#sha512", ns.RSA_SHA256, "http://www.w3.org/2000/09/xmldsig#rsa-sha1",
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512", "http://www.w3.org/2007/05/xmldsig-more#sha256-rsa-MGF1",
    ns.ECDSA_SHA256, "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512", "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256",
    ns.ED25519, ns.SWA_SIGNATURE, "http://www.w3.org/2000/09/xmldsig#enveloped-signature", "http://www.w3.org/TR/1999/REC-xslt-19991116", "",
]


def algorithm(octets: bytes, dice: random.Random) -> bytes:
    start, end = span(octets, rb'(?<=Algorithm=")[^"]*(?=")', dice)
    return octets[:start] + dice.choice(ALGORITHMS).encode() + octets[end:]


def certificate(octets: bytes, dice: random.Random) -> bytes:
    """Another certificate, or this one changed."""
    authority, ours, theirs = _made(dice.choice(list(SUITES)))
    other = dice.choice([ours.signing, theirs.signing, authority.certificate])
    start, end = SIGNER.search(octets).span()
    der = bytearray(base64.b64decode(octets[start:end]))
    der[dice.randrange(len(der))] ^= 1 << dice.randrange(8)
    return octets[:start] + base64.b64encode(dice.choice([other, bytes(der), b"", bytes(der)[:-1]])) + octets[end:]


def value(octets: bytes, dice: random.Random) -> bytes:
    """SignatureValue: bits, length, DER for raw, zeros, the digest in its place."""
    start, end = span(octets, rb"(?<=<ds:SignatureValue>)[^<]*", dice)
    raw = base64.b64decode(octets[start:end])
    flipped = bytearray(raw)
    flipped[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
    half = len(raw) // 2
    der = encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))
    made = dice.choice([bytes(flipped), raw[:-1], raw + b"\0", b"\0" + raw, bytes(len(raw)), der, raw[half:] + raw[:half], b""])
    return octets[:start] + base64.b64encode(made) + octets[end:]


def ids(octets: bytes, dice: random.Random) -> bytes:
    """An id, or a reference to one, becomes another; or a copy of the signed element stands beside it."""
    start, end = span(octets, rb'(?<=wsu:Id=")[^"]*|(?<=URI=")[^"]*', dice)
    names = re.findall(rb'wsu:Id="([^"]*)"|URI="([^"]*)"', octets)
    other = dice.choice([n for pair in names for n in pair if n] + [b"", b"#", b"x", b"#xpointer(/)"])
    return octets[:start] + other + octets[end:]


FAMILIES = {
    "signed info": octet(rb"<ds:SignedInfo.*</ds:SignedInfo>"),
    "references": swapped(rb"<ds:Reference .*?</ds:Reference>"),
    "digests": octet(rb"(?<=<ds:DigestValue>)[^<]*"),
    "digests swapped": swapped(rb"(?<=<ds:DigestValue>)[^<]*"),
    "signature value": value,
    "certificate": certificate,
    "header": octet(rb"<eb:Messaging.*</eb:Messaging>"),
    "header values": swapped(rb"<eb:(?:PartyId|Role|Action|Property|PartInfo)\b.*?</eb:(?:PartyId|Role|Action|Property|PartInfo)>"),
    "body": octet(rb"<S12:Body.*</S12:Body>"),
    "algorithms": algorithm,
    "ids": ids,
    "key info": octet(rb"<ds:KeyInfo>.*?</ds:KeyInfo>"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_never_laxer(signed, family):
    dice = random.Random(f"{family} 20261121")
    verdicts, unexplained = Counter(), {}
    for _ in range(MUTANTS):
        mutant = FAMILIES[family](signed.envelope, dice)
        if mutant == signed.envelope:
            continue
        ours, theirs = signed.ours(mutant), signed.theirs(mutant, carried=family == "certificate")
        assert ours is not None or theirs is None, f"we accept what signxml refuses ({theirs!r}): {mutant!r}"
        if ours is None:
            verdicts["both accept"] += 1
        elif theirs is not None:
            verdicts["both refuse"] += 1
        else:
            verdicts["stricter"] += 1
            said = f"{ours.detail} {ours.where or ''}"
            if not any(re.search(reason, said) for reason in STRICTER):
                unexplained[said] = mutant
    assert not unexplained, unexplained
    assert sum(verdicts.values()) >= MUTANTS // 2, verdicts
    if family != "key info":  # which signxml does not read
        assert verdicts["both refuse"] >= 3, verdicts


def test_never_laxer_about_parts(signed):
    """Parts that were changed, cut, exchanged or left out on the way."""
    dice = random.Random(20261121)
    one, two = signed.parts
    for _ in range(MUTANTS // 4):
        octets = bytearray(signed.parts[one])
        octets[dice.randrange(len(octets))] ^= 1 << dice.randrange(8)
        parts = dice.choice([
            {**signed.parts, one: bytes(octets)}, {**signed.parts, one: signed.parts[one][:-1]},
            {one: signed.parts[two], two: signed.parts[one]}, {two: signed.parts[two]}, {**signed.parts, one: b""},
        ])
        assert signed.theirs(signed.envelope, parts) is not None
        assert signed.ours(signed.envelope, parts) is not None


def test_the_known_hole_of_the_oracle(signed):
    """A moved Messaging verifies there: it asks what is signed, not where it stands. Here it is refused."""
    messaging = re.search(rb"<eb:Messaging.*</eb:Messaging>", signed.envelope, re.S)[0]
    forged = re.sub(rb'wsu:Id="[^"]*"', b'wsu:Id="forged"', messaging, count=1).replace(b"ExecuteQueryRequest", b"Evil")
    wrapped = signed.envelope.replace(messaging, forged + b'<w:w xmlns:w="urn:w">' + messaging + b"</w:w>")
    assert signed.theirs(wrapped) is None
    assert signed.ours(wrapped) is not None
