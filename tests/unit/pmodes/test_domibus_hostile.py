"""P-Mode files made to hurt: refused, soon, with a word that helps, and nothing opened or written [threats A01-A05, K09]."""

import contextlib
import subprocess
import sys
import time
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.pmodes.domibus.read import MAX_SIZE, read
from gateway.pmodes.domibus.report import MAX_ERRORS, MAX_NOTES, PModeRefused

from .pmodes import EB, PIECES, legs_of, pmode, translated

#: Processor seconds. Generous: what these files are made for takes minutes, or never ends.
SOON = 5


def refused(octets: bytes | str, match: str | None = None) -> ConfigError:
    began = time.process_time()
    with pytest.raises(ConfigError, match=match) as error:
        translated(octets)
    assert time.process_time() - began < SOON
    assert len(str(error.value)) < 2000
    return error.value


def doctype(declaration: str, use: str = "blue") -> str:
    text = pmode(root=PIECES["root"].replace("blue", use))
    return text.replace("?>\n", f"?>\n<!DOCTYPE x [{declaration}]>\n", 1)


@pytest.mark.parametrize("declaration", [
    "", '<!ENTITY x "blue">', '<!ENTITY x SYSTEM "file:///etc/passwd">', '<!ENTITY x SYSTEM "http://127.0.0.1:9/x">',
    '<!ENTITY % p SYSTEM "http://127.0.0.1:9/x"> %p;',
    '<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(1, 12)),
], ids=["empty", "internal", "file", "http", "parameter", "billion laughs"])  # fmt: skip
def test_a_document_type_is_refused_before_it_is_read(declaration):
    refused(doctype(declaration, "&x;" if "ENTITY x" in declaration else "blue"), "a document type declaration is not allowed")


def test_an_external_dtd():
    refused(pmode().replace("?>\n", '?>\n<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">\n', 1), "document type declaration")


def test_an_undeclared_entity():
    refused(pmode(root=PIECES["root"].replace("blue", "&x;")), "cannot be read as XML")


def test_a_processing_instruction_and_xinclude():
    refused(pmode().replace("<mpcs>", "<?php x?><mpcs>"), "processing instruction")
    text = pmode().replace("<mpcs>", '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd"/><mpcs>')
    _, report = translated(text)
    assert any("another namespace" in note.message for note in report.ignored)


@pytest.mark.parametrize("depth", [65, 200, 100_000])
def test_deep_nesting(depth):
    refused(pmode().replace("<mpcs>", "<a>" * depth + "</a>" * depth + "<mpcs>"), "cannot be read as XML")


def test_a_hundred_megabytes_are_not_read(tmp_path):
    """A sparse file: as large as it says, and no octet of it is parsed."""
    path = tmp_path / "big.xml"
    with path.open("wb") as out:
        out.write(pmode().encode())
        out.truncate(100 << 20)
    done = subprocess.run([sys.executable, "-m", "gateway", "pmodes", "import-domibus", path, "--out", tmp_path / "out"],
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 1 and "is larger than 4 MiB" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_size_is_bounded():
    assert len(pmode()) < MAX_SIZE
    refused(pmode().encode() + b" " * MAX_SIZE, "is larger than 4 MiB")
    translated(pmode().encode() + b" " * (MAX_SIZE - len(pmode().encode())))


def _party(n: int) -> str:
    return f'<party name="p{n}" endpoint=""><identifier partyId="p{n}"/></party>'


def test_a_million_parties():
    refused(pmode(parties="".join(_party(n) for n in range(1_000_000))), "is larger than 4 MiB")


def test_as_many_parties_as_go_into_the_file():
    many = "".join(_party(n) for n in range(50_000))
    refused(pmode(parties=PIECES["parties"] + many), "too many elements")


def test_as_many_parties_as_are_elements():
    """9 000 parties in all processes: legs times parties is bounded."""
    names = [f"p{n}" for n in range(4500)]
    many = "".join(f'<party name="{n}" endpoint="https://{n}.example/as4"><identifier partyId="{n}" partyIdType="urn"/></party>' for n in names)
    responders = "<responderParties>" + "".join(f'<responderParty name="{n}"/>' for n in names) + "</responderParties>"
    legs = "".join(PIECES["legs"].replace("orderLeg", f"leg{n}").replace('"order"', f'"act{n}"') for n in range(30))
    actions = PIECES["actions"] + "".join(f'<action name="act{n}" value="A{n}"/>' for n in range(30))
    process_legs = "<legs>" + "".join(f'<leg name="leg{n}"/>' for n in range(30)) + "</legs>"
    refused(pmode(parties=PIECES["parties"] + many, responders=responders, legs=legs, actions=actions, process_legs=process_legs),
            "more than 2000 legs that are ours, or 100000 with partners")  # fmt: skip


def test_thousands_of_errors_end_early():
    bad = "".join(f'<leg name="nowhere{n}"/>' for n in range(15_000))
    error = refused(pmode(process_legs=f"<legs>{bad}</legs>"), "there is no legConfiguration")
    assert isinstance(error, PModeRefused) and len(error.report.errors) == MAX_ERRORS


def test_thousands_of_unknown_names_are_counted():
    began = time.process_time()
    _, report = translated(pmode(roles=PIECES["roles"] + "".join(f'<r{n} x{n}="1"/>' for n in range(15_000))))
    assert time.process_time() - began < SOON and len(report.ignored) <= MAX_NOTES


def test_thousands_of_names_that_are_the_same():
    began = time.process_time()
    _, report = translated(pmode(initiators="<initiatorParties>" + '<initiatorParty name="blue"/>' * 15_000 + "</initiatorParties>"))
    assert time.process_time() - began < SOON and len(report.repaired) <= MAX_NOTES


def test_names_as_long_as_they_may_be():
    long = "x" * 3_000_000
    refused(pmode(roles=f'<role name="{long}" value="v"/>'), "is longer than 255 characters")
    refused(pmode(process=PIECES["process"].replace('"ordering"', f'"{long}"')), "is longer than 255 characters")
    error = refused(pmode(initiators=f'<initiatorParties><initiatorParty name="{"y" * 255}"/></initiatorParties>'), "there is no party")
    assert "y" * 100 not in str(error)
    _, report = translated(pmode(parties=PIECES["parties"].replace("<party ", f'<party userName="{long[:2_000_000]}" ', 1)))
    assert all(len(note.message) < 500 for note in report.ignored)


def test_attributes_and_namespaces_without_number():
    many = " ".join(f'a{n}="x"' for n in range(100))
    refused(pmode(roles=f"<role {many}/>"), "too many")
    spaces = " ".join(f'xmlns:n{n}="urn:{n}"' for n in range(300))
    refused(pmode().replace("<mpcs>", f"<mpcs {spaces}>"), "too many namespace")


@pytest.mark.parametrize("octets", [
    b"\x00" * 1000, b"\xff\xfe" + b"<" * 999, b"\xef\xbb\xbf", b"<?xml version='1.0' encoding='UTF-7'?><a/>",
    b"<?xml version='1.1'?><a/>", b"PK\x03\x04" + b"\x00" * 100, b"\x1f\x8b\x08" + b"\x00" * 100,
    pmode().encode()[:500], pmode().encode()[:-30], pmode().encode("utf-16-be"), pmode().encode() + b"<a/>",
    pmode().replace("UTF-8", "windows-1252").encode() + b"\x81",
])  # fmt: skip
def test_what_is_no_xml(octets):
    refused(octets)


@pytest.mark.parametrize("cut", range(0, 3000, 149))
def test_a_file_that_ends_early_is_refused(cut):
    whole = pmode().encode()
    if cut < len(whole.rstrip()) - 1:
        refused(whole[:cut])


def test_values_are_inert_in_the_toml():
    """Quotes, line breaks and brackets in names cannot become TOML of their own."""
    from gateway.pmodes.shorten import shorten
    from gateway.pmodes.write import write

    evil = 'x" }&#10;backend = "evil" [overrides] # &#x7f;'
    # A control character is refused; what is printable is kept as it is.
    refused(pmode(parties=PIECES["parties"].replace('name="red"', f'name="{evil}"'.replace('" }', "&quot; }").replace(
        ' "evil"', " &quot;evil&quot;"))), "breaks the wire")  # fmt: skip
    printable = 'x"}] = {evil = "1"} # \\u0041 \\" \u2028 \u00a0 \u202e'
    attribute = printable.replace("&", "&amp;").replace('"', "&quot;")
    file = shorten(translated(pmode(
        parties=PIECES["parties"].replace('name="red"', f'name="{attribute}"'),
        responders=PIECES["responders"].replace('"red"', f'"{attribute}"'),
        mpcs=PIECES["mpcs"].replace(f"{EB}defaultMPC", f"urn:{attribute}"),
    ))[0].file)  # fmt: skip
    made = tomllib.loads(write(file, ["a comment\nbackend = 'evil'"]))
    assert set(made["parties"]) == {"blue", printable} and "backend" not in made
    assert made["exchanges"][0]["mpc"] == f"urn:{printable}"


def test_reading_does_not_depend_on_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eDeliveryAS4Policy.xml").write_text("<evil/>")
    assert read(pmode().encode(), "x.xml")


WHOLE = pmode(payloads='<payloadProfiles><payload name="p" cid="c" maxSize="9" required="true"/><payloadProfile name="s" maxSize="9">'
              '<attachment name="p"/></payloadProfile></payloadProfiles>',
              legs=PIECES["legs"].replace("compressPayloads", 'payloadProfile="s" compressPayloads')).encode()  # fmt: skip
WORDS = [b'""', b"blue", b"&#0;", b"&#xA;", b"\xff", b"<", b">", b'" x="', b"-1", b"99999999999999999999", b"urn", b"<!--", b"/>", b"\x00",
         b"name", b"party", b"{urn:x}", b"xmlns=''", b"\xe2\x80\xae"]  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 40), st.sampled_from(WORDS) | st.binary(max_size=4)), min_size=1, max_size=4))
def test_whatever_is_changed_the_answer_is_ours(changes):
    """A changed file is imported, or refused with a `ConfigError`; what is imported can be written and read."""
    from gateway.pmodes.shorten import shorten
    from gateway.pmodes.write import write

    octets = WHOLE
    for at, length, word in changes:
        octets = octets[:at] + word + octets[at + length :]
    with contextlib.suppress(ConfigError):
        file = shorten(translated(octets, None)[0].file)
        assert tomllib.loads(write(file))["self"] == file.own
        legs_of(file)
