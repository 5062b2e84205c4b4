import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from gateway.as4.wss.names import name_text, parse_name, same_name

NAME = x509.Name([
    x509.NameAttribute(NameOID.COUNTRY_NAME, "EU"),
    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Doe, John & Sons"),
    x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@b.example"),
    x509.NameAttribute(NameOID.COMMON_NAME, "Rīgas AP"),
])


@pytest.mark.parametrize("text", [
    "CN=Rīgas AP,1.2.840.113549.1.9.1=a@b.example,O=Doe\\, John & Sons,C=EU",
    "CN=Rīgas AP, E=a@b.example, O=Doe\\2C John & Sons, C=EU",
    'cn=R\\C4\\ABgas AP;emailAddress=a@b.example;o="Doe, John & Sons";c=eu',
    "OID.2.5.4.3=Rīgas  AP , EMAILADDRESS = a@b.example,O=Doe\\, John & Sons,C=EU",
    "CN=#0c0952c4ab676173204150,E=#160b6140622e6578616d706c65,O=Doe\\, John & Sons,C=EU",
    "C=EU,O=Doe\\, John & Sons,E=a@b.example,CN=Rīgas AP",
], ids=["rfc4514", "spaces", "old", "oid prefix", "hexadecimal", "front to back"])
def test_one_name_in_many_spellings(text):
    assert same_name(text, NAME)


@pytest.mark.parametrize("text", [
    "", "CN=Rīgas AP", "CN=Rīgas AP,E=a@b.example,O=Doe,C=EU", "CN=Rīgas AP,E=a@b.example,O=Doe\\, John & Sons,C=LV",
    "CN=Rīgas AP,O=Doe\\, John & Sons,E=a@b.example,C=EU", "no name", "CN", "XYZ=1", "=", ",,,", "CN=#zz",
])
def test_other_names(text):
    assert not same_name(text, NAME)


def test_values_of_several_attributes():
    name = x509.Name([x509.RelativeDistinguishedName([
        x509.NameAttribute(NameOID.COMMON_NAME, "a+b"), x509.NameAttribute(NameOID.SERIAL_NUMBER, "7")])])
    assert same_name("SERIALNUMBER=7+CN=a\\+b", name)
    assert same_name("CN=a\\+b + serialNumber=7", name)
    assert not same_name("CN=a+b", name)


def test_our_own_spelling_is_read_back():
    assert same_name(name_text(NAME).replace("&amp;", "&"), NAME)


@given(st.text(max_size=200))
def test_no_text_is_too_odd(text):
    parse_name(text)


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20),
                min_size=1, max_size=4))
def test_what_cryptography_writes_is_what_we_read(values):
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, value) for value in values])
    assert same_name(name.rfc4514_string(), name)


def test_a_long_name_takes_no_time():
    for text in ('"' * 200_000, "\\" * 200_000, '"\\"' * 60_000, "CN=a," * 40_000):
        parse_name(text)
