"""Non-repudiation information: copied, read, and held against what was signed."""

import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from gateway.as4 import ns
from gateway.as4.header import read_messaging
from gateway.as4.receipts import check, nri_xml, read_references
from gateway.as4.units import Receipt, Reference, Transform
from gateway.as4.xml import canonical, parse
from gateway.errors import InvalidReceipt

VECTORS = Path(__file__).parents[2] / "vectors/phase4-4.5.4-wire"
ENVELOPE = re.compile(rb"<S12:Envelope.*?</S12:Envelope>", re.S)
EXCHANGES = [
    path
    for path in sorted(VECTORS.rglob("*.response.body"))
    if path.parent.name != "negative" and b"NonRepudiationInformation" in path.read_bytes()
]

HEADER = Reference(
    "#m", (Transform(ns.EXC_C14N, "S12 eb"),), ns.SHA256, b"\1" * 32, "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
)
BODY = Reference("#b", (Transform(ns.EXC_C14N),), ns.SHA256, b"\2" * 32, "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=")
PART = Reference(
    "cid:a&b", (Transform(ns.SWA_SIGNATURE),), ns.SHA256, b"\3" * 32, "AwMDAwMDAwMDAwMDAwMD\nAwMDAwMDAwMDAwMDAwMDAwM="
)
SIGNED = (HEADER, BODY, PART)


def receipt(references=SIGNED, ref_to="m@x"):
    return Receipt("r@x", datetime(2026, 1, 1, tzinfo=UTC), ref_to, tuple(references))


def test_a_copy_is_a_copy():
    text = nri_xml(SIGNED)
    information = parse(text.encode())
    assert canonical(information) == text.encode()
    assert read_references(information) == SIGNED
    assert "AwMDAwMDAwMDAwMDAwMD\nAwMDAwMDAwMDAwMDAwMDAwM=" in text


def test_an_empty_prefix_list_and_no_transforms_are_kept():
    odd = (
        msgspec.structs.replace(HEADER, transforms=(Transform(ns.EXC_C14N, ""),)),
        msgspec.structs.replace(BODY, transforms=()),
    )
    assert read_references(parse(nri_xml(odd).encode())) == odd


def signed_in(path: Path):
    root = parse(ENVELOPE.search(path.read_bytes()).group())
    copies = b"".join(
        b"<b:MessagePartNRInformation>" + canonical(r) + b"</b:MessagePartNRInformation>"
        for r in root.find(f".//{ns.qn(ns.DS, 'SignedInfo')}").iterfind(ns.qn(ns.DS, "Reference"))
    )
    return read_references(parse(f'<b:N xmlns:b="{ns.EBBP}">'.encode() + copies + b"</b:N>"))


@pytest.mark.parametrize("path", EXCHANGES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_receipt_of_phase4(path):
    root = parse(ENVELOPE.search(path.read_bytes()).group())
    found = read_messaging(next(root.iter(ns.qn(ns.EB, "Messaging"))))
    sent = signed_in(path.with_name(path.name.replace(".response.", ".request.")))
    check(found, sent, found.ref_to_message_id)
    assert found.references == sent
    # What we would have written for the same signature, octet for octet.
    assert canonical(next(root.iter(ns.qn(ns.EBBP, "NonRepudiationInformation")))) == nri_xml(sent).encode()


def test_order_and_spelling_do_not_matter():
    respelled = msgspec.structs.replace(PART, digest_text=" other spelling ")
    check(receipt((respelled, BODY, HEADER)), SIGNED, "m@x")


@pytest.mark.parametrize(
    "references",
    [
        (),
        (HEADER, BODY),
        (HEADER, BODY, PART, PART),
        (HEADER, BODY, BODY),
        (HEADER, HEADER, PART),
        (HEADER, BODY, msgspec.structs.replace(PART, digest=b"\4" * 32)),
        (HEADER, BODY, msgspec.structs.replace(PART, digest=b"\3" * 31)),
        (HEADER, BODY, msgspec.structs.replace(PART, uri="cid:a")),
        (HEADER, BODY, msgspec.structs.replace(PART, digest_method=ns.XENC + "sha512")),
        (HEADER, BODY, msgspec.structs.replace(PART, transforms=(Transform(ns.EXC_C14N),))),
        (HEADER, BODY, msgspec.structs.replace(PART, transforms=())),
        (
            msgspec.structs.replace(HEADER, digest=BODY.digest),
            msgspec.structs.replace(BODY, digest=HEADER.digest),
            PART,
        ),
    ],
)
def test_what_does_not_match(references):
    with pytest.raises(InvalidReceipt):
        check(receipt(references), SIGNED, "m@x")


@pytest.mark.parametrize("ref_to", ["M@x", "m@x ", "", None])
def test_a_receipt_for_another_message(ref_to):
    with pytest.raises(InvalidReceipt) as refusal:
        check(receipt(ref_to=ref_to), SIGNED, "m@x")
    assert refusal.value.temporary


def test_an_unsigned_message_has_no_such_receipt():
    with pytest.raises(InvalidReceipt):
        check(receipt(()), (), "m@x")


def information(parts: str) -> str:
    return f'<b:NonRepudiationInformation xmlns:b="{ns.EBBP}" xmlns:d="{ns.DS}" xmlns:e="{ns.EC}">{parts}</b:NonRepudiationInformation>'


GOOD = (
    '<d:Reference URI="#m"><d:Transforms><d:Transform Algorithm="urn:t"/></d:Transforms><d:DigestMethod Algorithm="urn:d"/>'
    "<d:DigestValue>AQ==</d:DigestValue></d:Reference>"
)


def part(content: str) -> str:
    return f"<b:MessagePartNRInformation>{content}</b:MessagePartNRInformation>"


def test_form_does_not_matter():
    odd = (
        '<d:Reference Type="urn:x" Id="r" URI="#m" xmlns:env="urn:env"> <d:Transforms>\n<d:Transform Algorithm="urn:t"><e:InclusiveNamespaces'
        ' PrefixList="a b"/></d:Transform> </d:Transforms><d:DigestMethod Algorithm="urn:d"/><d:DigestValue>\n A Q\r\n== </d:DigestValue></d:Reference>'
    )
    assert read_references(parse(information("\n " + part(f" {odd} ")).encode())) == (
        Reference("#m", (Transform("urn:t", "a b"),), "urn:d", b"\1", "\n A Q\n== "),
    )
    assert len(read_references(parse(information(part(GOOD + GOOD) + part(GOOD)).encode()))) == 3


@pytest.mark.parametrize(
    "parts",
    [
        "",
        part(""),
        part("<b:MessagePartIdentifier>x</b:MessagePartIdentifier>"),
        part(GOOD + "<b:MessagePartIdentifier>x</b:MessagePartIdentifier>"),
        GOOD,
        part(GOOD) + "<b:Other/>",
        part(GOOD.replace(' URI="#m"', "")),
        part(GOOD.replace(' URI="#m"', ' URI=""')),
        part(GOOD.replace('<d:DigestMethod Algorithm="urn:d"/>', "")),
        part(GOOD.replace(' Algorithm="urn:d"', "")),
        part(GOOD.replace(' Algorithm="urn:t"', "")),
        part(GOOD.replace("<d:DigestValue>AQ==</d:DigestValue>", "")),
        part(GOOD.replace("AQ==", "AQ")),
        part(GOOD.replace("AQ==", "A*==")),
        part(GOOD.replace("AQ==", "é")),
        part(GOOD.replace("AQ==", "<x/>AQ==")),
        part(GOOD.replace("AQ==", "A" * 257)),
        part(GOOD) * 1025,
    ],
)
def test_values_matter(parts):
    with pytest.raises(InvalidReceipt) as refusal:
        read_references(parse(information(parts).encode()))
    assert refusal.value.where == "ebbp:NonRepudiationInformation"
