from base64 import b64encode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from gateway.as4 import ns
from gateway.as4.wss.tokens import (
    MAX_PATH,
    KeyReference,
    carried_certificates,
    join_path,
    read_key_info,
    resolve,
    ski,
    split_path,
    thumbprint,
    write_reference,
)
from gateway.as4.xml import parse
from gateway.errors import PolicyNoncompliance
from tests.unit.as4.wss.material import ECDSA, EDDSA, RSA, certify, envelope_of, mixed, send

FORMS = ["bst", "pkipath", "ski", "issuer-serial", "thumbprint", "x509"]
LEAF = RSA.sender.certificate


def document(token: str, key_info: str):
    """A Security header with a token and a ds:KeyInfo, parsed, with its ids."""
    root = parse(
        f'<wsse:Security xmlns:wsse="{ns.WSSE}" xmlns:wsse11="{ns.WSSE11}" xmlns:wsu="{ns.WSU}" xmlns:ds="{ns.DS}">'
        f"{token}<ds:KeyInfo>{key_info}</ds:KeyInfo></wsse:Security>".encode()
    )
    ids = {e.get(ns.qn(ns.WSU, "Id")): e for e in root.iter() if e.get(ns.qn(ns.WSU, "Id"))}
    return root[-1], root, ids


def read(token: str, key_info: str, *, bare=False) -> KeyReference:
    return read_key_info(*document(token, key_info), bare=bare)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suite", [RSA, EDDSA, ECDSA, mixed()], ids=repr)
def test_every_form_is_written_and_read(form, suite):
    for der in (suite.sender.certificate, suite.receiver.certificate):
        reference = read(*write_reference(form, der, suite.sender.chain, "t"))
        assert reference.names(der)
        others = [s.answerer.certificate for s in (RSA, EDDSA, ECDSA) if s.answerer.certificate != der]
        assert resolve(reference, [*others, der, *others]) == (der,)


def test_a_path_has_its_leaf_last():
    token, key_info = write_reference("pkipath", b"0\x01L", (b"0\x01I", b"0\x01R"), "t")
    assert b64encode(b"0\x090\x01R0\x01I0\x01L").decode() in token
    assert f'wsse11:TokenType="{ns.X509_PKIPATH}"' in key_info
    assert read(token, key_info).certificate == b"0\x01L"


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=MAX_PATH))
def test_path_round_trip(contents):
    certificates = [join_path(content, ()) for content in contents]  # each a SEQUENCE
    leaf, chain = certificates[-1], certificates[-2::-1]
    assert split_path(join_path(leaf, chain)) == certificates


@pytest.mark.parametrize("octets", [
    b"", b"\x30", b"\x30\x00", b"\x31\x02\x30\x00", b"\x30\x02\x31\x00", b"\x30\x03\x30\x00", b"\x30\x02\x30\x00\x00",
    b"\x30\x02\x30\x01", b"\x30\x80\x30\x00\x00\x00", b"\x30\x85\x00\x00\x00\x00\x02\x30\x00",
    join_path(b"0\x00", [b"0\x00"] * MAX_PATH), join_path(LEAF, ())[:-1],
], ids=lambda o: o[:12].hex())
def test_paths_that_are_none(octets):
    with pytest.raises(PolicyNoncompliance):
        split_path(octets)


@given(st.binary(max_size=80))
def test_no_path_is_too_odd(octets):
    try:
        assert all(split_path(octets))
    except PolicyNoncompliance:
        pass


def test_ski_is_the_extension_else_the_hash_of_the_key():
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    with_extension, without = (x509.load_der_x509_certificate(certify(key, ski=with_)) for with_ in (True, False))
    expected = x509.SubjectKeyIdentifier.from_public_key(key).digest
    assert ski(with_extension) == ski(without) == expected


def test_one_ski_may_name_two_certificates_of_one_key():
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    active, new = certify(key), certify(key)
    assert resolve(KeyReference(ski=ski(x509.load_der_x509_certificate(active))), [active, new]) == (active, new)


def test_everything_that_is_set_must_fit():
    certificate = x509.load_der_x509_certificate(LEAF)
    good = {
        "certificate": LEAF, "ski": ski(certificate), "thumbprint": thumbprint(LEAF),
        "issuer": certificate.issuer.rfc4514_string(), "serial": certificate.serial_number,
    }
    assert KeyReference(**good).names(LEAF)
    for name, value in {"certificate": b"x", "ski": b"x", "thumbprint": b"x", "issuer": "CN=x", "serial": 1}.items():
        assert not KeyReference(**{**good, name: value}).names(LEAF)


@pytest.mark.parametrize("der", [b"", b"x", LEAF[:-1]])
def test_a_certificate_that_is_none_has_no_name(der):
    assert not KeyReference(ski=b"x").names(der)
    assert not KeyReference(issuer="CN=x", serial=1).names(der)


SERIAL = "<ds:X509IssuerSerial><ds:X509IssuerName>CN=x</ds:X509IssuerName><ds:X509SerialNumber>{}</ds:X509SerialNumber></ds:X509IssuerSerial>"


class TestReading:
    def test_x509_data_without_reference_where_it_may_be(self):
        data = "<ds:X509Data><ds:X509SKI>AAEC</ds:X509SKI></ds:X509Data>"
        assert read("", data, bare=True) == KeyReference(ski=b"\0\1\2")
        with pytest.raises(PolicyNoncompliance):
            read("", data)

    def test_reference_inside_a_key_value(self):
        data = "<ds:KeyValue><wsse:SecurityTokenReference><ds:X509Data><ds:X509SKI>AAEC</ds:X509SKI></ds:X509Data></wsse:SecurityTokenReference></ds:KeyValue>"
        assert read("", data, bare=True) == KeyReference(ski=b"\0\1\2")

    def test_white_space_and_line_ends(self):
        text = SERIAL.format(" 12\n")
        key_info = f"<wsse:SecurityTokenReference>\n <ds:X509Data>\n{text}</ds:X509Data></wsse:SecurityTokenReference>"
        assert read("", key_info) == KeyReference(issuer="CN=x", serial=12)

    @pytest.mark.parametrize("key_info", [
        "",
        "<ds:KeyName>me</ds:KeyName>",
        "<ds:KeyValue><ds:RSAKeyValue/></ds:KeyValue>",
        "<ds:RetrievalMethod URI='http://x/'/>",
        "<wsse:SecurityTokenReference/>",
        "<wsse:SecurityTokenReference><ds:KeyName>me</ds:KeyName></wsse:SecurityTokenReference>",
        "<wsse:SecurityTokenReference><wsse:Embedded/></wsse:SecurityTokenReference>",
        "<wsse:SecurityTokenReference><ds:X509Data/></wsse:SecurityTokenReference>",
        "<wsse:SecurityTokenReference><ds:X509Data><ds:X509SubjectName>CN=x</ds:X509SubjectName></ds:X509Data></wsse:SecurityTokenReference>",
        "<wsse:SecurityTokenReference><ds:X509Data><ds:X509SKI>AA==</ds:X509SKI><ds:X509SKI>AA==</ds:X509SKI></ds:X509Data></wsse:SecurityTokenReference>",
        "<wsse:SecurityTokenReference><wsse:Reference URI='#t'/><wsse:Reference URI='#t'/></wsse:SecurityTokenReference>",
        f"<wsse:SecurityTokenReference><wsse:KeyIdentifier ValueType='{ns.X509_SKI}' EncodingType='x'>AA==</wsse:KeyIdentifier></wsse:SecurityTokenReference>",
        f"<wsse:SecurityTokenReference><wsse:KeyIdentifier ValueType='{ns.X509_SKI}'>A</wsse:KeyIdentifier></wsse:SecurityTokenReference>",
        f"<wsse:SecurityTokenReference><wsse:KeyIdentifier ValueType='{ns.X509_SKI}'><x/>AA==</wsse:KeyIdentifier></wsse:SecurityTokenReference>",
        "<wsse:SecurityTokenReference><wsse:KeyIdentifier ValueType='saml'>AA==</wsse:KeyIdentifier></wsse:SecurityTokenReference>",
        "<wsse:SecurityTokenReference><wsse:KeyIdentifier>AA==</wsse:KeyIdentifier></wsse:SecurityTokenReference>",
        *(f"<wsse:SecurityTokenReference><ds:X509Data>{SERIAL.format(bad)}</ds:X509Data></wsse:SecurityTokenReference>"
          for bad in ("", "-1", "0x10", "1_0", "١", "9" * 61, "<x/>1")),
    ])
    def test_what_is_no_reference_of_ours(self, key_info):
        """C10: KeyValue, KeyName, RetrievalMethod and all the rest; only names of certificates."""
        with pytest.raises(PolicyNoncompliance):
            read("", key_info, bare=False)


class TestDirectReferences:
    def direct(self, token_attributes="", reference_attributes="URI='#t'", content=None, where="{token}"):
        content = b64encode(LEAF).decode() if content is None else content
        token = f"<wsse:BinarySecurityToken wsu:Id='t' {token_attributes}>{content}</wsse:BinarySecurityToken>"
        reference = f"<wsse:Reference {reference_attributes}/>"
        return read(where.format(token=token), f"<wsse:SecurityTokenReference>{reference}</wsse:SecurityTokenReference>")

    GOOD = f"ValueType='{ns.X509V3}' EncodingType='{ns.BASE64_BINARY}'"

    def test_right(self):
        assert self.direct(self.GOOD).certificate == LEAF
        assert self.direct(self.GOOD, f"URI='#t' ValueType='{ns.X509V3}'").certificate == LEAF
        assert self.direct(f"ValueType='{ns.X509V3}'").certificate == LEAF

    @pytest.mark.parametrize("spoiled", [
        {"token_attributes": ""},
        {"token_attributes": "ValueType='PKCS7'"},
        {"token_attributes": GOOD.replace("Base64Binary", "HexBinary")},
        {"reference_attributes": "URI='t'"},
        {"reference_attributes": "URI='#other'"},
        {"reference_attributes": "URI='http://x/#t'"},
        {"reference_attributes": "URI=''"},
        {"reference_attributes": ""},
        {"reference_attributes": f"URI='#t' ValueType='{ns.X509_PKIPATH}'"},
        {"content": "A"},
        {"content": "<x/>"},
        {"content": b64encode(bytes(20_000)).decode()},
        {"token_attributes": GOOD.replace("X509v3", "X509PKIPathv1")[:-1] + "'"},
        {"where": "<wsse:Other>{token}</wsse:Other>"},
    ])
    def test_wrong(self, spoiled):
        if "X509PKIPathv1" in spoiled.get("token_attributes", ""):
            spoiled = {**spoiled, "content": b64encode(LEAF + LEAF).decode()}
        with pytest.raises(PolicyNoncompliance):
            self.direct(**{"token_attributes": self.GOOD, **spoiled})


def test_carried_certificates():
    octets = envelope_of(*send(RSA))
    assert carried_certificates(octets) == [LEAF]
    octets = envelope_of(*send(RSA, signature_token="x509"))
    assert carried_certificates(octets) == [LEAF]
    octets = envelope_of(*send(RSA, signature_token="ski"))
    assert carried_certificates(octets) == []
