"""Complete exchanges recorded from phase4 4.5.4: every one gets the verdict of their index."""

from pathlib import Path

import pytest

from gateway.as4 import receipts
from gateway.as4.inbound import Opened, Terms, Unauthenticated
from gateway.as4.pmode import Party
from gateway.as4.policy import accept
from gateway.as4.units import Error, PullRequest, Receipt
from gateway.errors import (
    EbmsError,
    FailedAuthentication,
    FailedDecryption,
    InvalidHeader,
    InvalidReceipt,
    MimeInconsistency,
    PolicyNoncompliance,
)
from tests.unit.as4.wss.material import (
    RECORDED,
    VECTORS,
    SoftDecryptionKey,
    open_octets,
    receive,
    recorded,
    split,
)

#: What the payloads of the exchanges are, in the order of PartInfo.
PAYLOADS = {
    "gzip-xml": ["invoice.xml"], "plain-xml": ["invoice.xml"], "two-parts": ["invoice.xml", "random.bin"],
    "empty-part": [b""], "plain-binary": ["random.bin"],
    "duplicate-first": ["invoice.xml"], "duplicate-second": ["invoice.xml"],
    "plain-xml-needs-c14n": ["needs-c14n.xml"], "plain-text-mixed-eol": ["mixed-eol.txt"],
}  # fmt: skip
FORM = {"plain-xml": "xml", "plain-xml-needs-c14n": "xml", "plain-text-mixed-eol": "text"}

REFUSED = {
    "ciphertext-bit-flipped": FailedDecryption,
    "messaging-header-changed": FailedAuthentication,
    "signature-value-changed": FailedAuthentication,
    "encrypted-for-another": FailedDecryption,
    "signature-wrapping-messaging": InvalidHeader,
    "two-messaging-headers": InvalidHeader,
    "extra-unsigned-attachment": MimeInconsistency,
    "unsigned-unencrypted": PolicyNoncompliance,
    "unsigned-no-corner-properties": PolicyNoncompliance,
    "unsigned-bad-gzip": PolicyNoncompliance,
    "unsigned-compressed-without-mimetype": PolicyNoncompliance,
    "doctype-external-entity": InvalidHeader,
    "not-xml": InvalidHeader,
    "empty-body": MimeInconsistency,
    "content-type-text-plain": MimeInconsistency,
    "other-profile-other-ca": FailedAuthentication,
}


def exchanges(folder: str) -> list[tuple[str, str]]:
    """(key set, name) of every request in it."""
    return [
        (keys, path.name.removesuffix(".request.body"))
        for keys in RECORDED
        for path in sorted((VECTORS / keys / folder).glob("*.request.body"))
    ]


def load(path: Path) -> tuple[str, bytes] | None:
    """(Content-Type, body) of one recorded message; None when the answer had no body."""
    headers = path.with_suffix(".headers").read_text()
    content_type = next((line.partition(":")[2].strip() for line in headers.splitlines()
                         if line.lower().startswith("content-type:")), None)
    return None if content_type is None else (content_type, path.read_bytes())


def payload(entry) -> bytes:
    if isinstance(entry, bytes):
        return entry
    return (VECTORS / "payloads" / entry).read_bytes()


POSITIVE = [(keys, name) for keys, name in exchanges("") if name != "pullrequest"]
NEGATIVE = exchanges("negative")


def test_nothing_is_left_out():
    assert {name for _, name in NEGATIVE} == {*REFUSED, "duplicate-first", "duplicate-second"}
    for keys in RECORDED:
        assert {"gzip-xml", "plain-xml", "two-parts", "empty-part"} <= {n for k, n in POSITIVE if k == keys}


@pytest.mark.parametrize(("keys", "name"), [*POSITIVE, *(n for n in NEGATIVE if n[1].startswith("duplicate"))])
def test_request(keys, name):
    suite = recorded(keys)
    path = VECTORS / keys / ("negative" if name.startswith("duplicate") else "") / f"{name}.request.body"
    proven, contents = receive(*load(path), suite.terms, [suite.receiver])
    expected = PAYLOADS.get(name, ["invoice.xml"])
    assert [contents[part.cid] for part in proven.parts] == [payload(entry) for entry in expected]
    assert {part.digest_form for part in proven.parts} == {FORM.get(name, "raw")}
    assert proven.signer == suite.sender.certificate
    message = proven.user_message
    leg = suite.leg(
        from_party=Party("a", message.from_party, signing=(suite.sender.certificate,)),
        to_party=Party("b", message.to_party),
    )
    accepted = accept(proven, leg)
    assert bool(accepted.findings) == (name in FORM)


@pytest.mark.parametrize(("keys", "name"), POSITIVE)
def test_response(keys, name):
    """Signed by b-sign, for this message, and its references those of the request's signature."""
    suite = recorded(keys)
    request, _ = receive(*load(VECTORS / keys / f"{name}.request.body"), suite.terms, [suite.receiver])
    content_type, body = load(VECTORS / keys / f"{name}.response.body")
    ready, parts = split(content_type, body)
    answer = open_octets(
        ready.octets, Terms(suite.profile, (suite.answerer.certificate,)), charset=ready.charset, allow_unsigned=True
    )
    assert isinstance(answer, Opened) and not parts
    if name == "keyref-ENC-X509_SKI":  # phase4 does not read what it can write; we do
        assert isinstance(answer.unit, Error) and answer.unit.errors[0].code == "EBMS:0102"
        assert answer.unit.about == request.user_message.message_id
        return
    assert isinstance(answer.unit, Receipt)
    receipts.check(answer.unit, request.references, request.user_message.message_id)
    with pytest.raises(InvalidReceipt):
        receipts.check(answer.unit, request.references[:-1], request.user_message.message_id)
    with pytest.raises(InvalidReceipt):
        receipts.check(answer.unit, request.references, "other@x")


@pytest.mark.parametrize("keys", RECORDED)
def test_pull_request(keys):
    suite = recorded(keys)
    ready, _ = split(*load(VECTORS / keys / "pullrequest.request.body"))
    opened = open_octets(ready.octets, Terms(suite.profile, (suite.answerer.certificate,)))
    assert isinstance(opened.unit, PullRequest) and opened.unit.mpc == "urn:example:mpc"


@pytest.mark.parametrize(("keys", "name"), [n for n in NEGATIVE if n[1] in REFUSED])
def test_negative_request(keys, name):
    suite = recorded(keys)
    with pytest.raises(REFUSED[name]) as refusal:
        receive(*load(VECTORS / keys / "negative" / f"{name}.request.body"), suite.terms, [suite.receiver])
    assert isinstance(refusal.value, EbmsError)
    if isinstance(refusal.value, FailedAuthentication | FailedDecryption | PolicyNoncompliance):
        assert refusal.value.where is None


@pytest.mark.parametrize(("keys", "name"), NEGATIVE)
def test_negative_response(keys, name):
    """Whatever phase4 answered is a signed signal of its signer, or nothing."""
    suite = recorded(keys)
    path = VECTORS / keys / "negative" / f"{name}.response.body"
    if not path.exists() or (message := load(path)) is None or not message[1]:
        return
    ready, _ = split(*message)
    terms = Terms(suite.profile, (suite.answerer.certificate,))
    answer = open_octets(ready.octets, terms, charset=ready.charset, allow_unsigned=True)
    assert isinstance(answer.unit, Receipt | Error)
    if isinstance(answer, Unauthenticated):
        assert isinstance(answer.unit, Error)


@pytest.mark.parametrize(("keys", "name"), [("edelivery1-rsa2048", "gzip-xml"), ("edelivery2-eddsa", "gzip-xml")])
def test_another_key_with_our_certificate(keys, name):
    suite = recorded(keys)
    other = recorded("edelivery2-eddsa" if keys == "edelivery1-rsa2048" else "edelivery2-ecdsa")
    with pytest.raises(FailedDecryption):
        receive(*load(VECTORS / keys / f"{name}.request.body"), suite.terms,
                [SoftDecryptionKey(other.receiver.key, other.receiver.certificate)])


@pytest.mark.parametrize("keys", RECORDED)
def test_each_octet_of_a_recorded_part(keys):
    """A bit flipped anywhere in the part's octets is EBMS:0102, never anything else."""
    suite = recorded(keys)
    content_type, body = load(VECTORS / keys / "gzip-xml.request.body")
    _, parts = split(content_type, body)
    octets = next(iter(parts.values()))
    start = body.index(octets)
    for at in range(0, len(octets), 5):
        spoiled = body[: start + at] + bytes([octets[at] ^ 0x10]) + body[start + at + 1 :]
        with pytest.raises(FailedDecryption):
            receive(content_type, spoiled, suite.terms, [suite.receiver])
