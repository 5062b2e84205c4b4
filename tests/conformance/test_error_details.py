"""What a partner's engineer learns from a refusal, and what nobody does [as4 7.15, threats 1.0].

Every place that refuses a message names the element or the rule at fault in eb:ErrorDetail, in
words of ours; security errors have none, and all causes of one code give the same octets. The
source is walked for places that name nothing, and the refusals of the other suites are carried
out to see what really leaves.
"""

import ast
import re
from pathlib import Path

import pytest

from gateway import errors
from gateway.as4 import soap, xml
from gateway.as4.units import Error, Property, Receipt
from gateway.errors import EBMS_ERRORS, EbmsError, told
from tests.interop.inside import inside  # noqa: F401 - the fixture lv
from tests.interop.test_tolerance import REFUSED, XML, foreign, pack
from tests.security.attacks import ATTACKS, maker

ROOT = Path(__file__).parents[2] / "gateway"
#: What may stand in a detail: no quotes, no markup, no line ends; and how long it may be.
DETAIL = re.compile(r"[\w:@/\[\]. #,;'-]{1,100}")
UNIFORM = {code for code, error in EBMS_ERRORS.items() if error.uniform}
#: Errors that are raised for us and never sent: answers of partners, and what `PartProver` gives its place.
LOCAL = {
    ("msh/outcome.py", "InvalidReceipt"), ("msh/signals.py", "InvalidReceipt"), ("msh/send.py", "InvalidReceipt"),
    ("as4/compression.py", "DecompressionFailure"),
    ("as4/xml.py", "XmlRefused"),
}  # fmt: skip
CLASSES = {
    name: kind for module in (errors, soap, xml) for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, EbmsError)
}  # fmt: skip


def made():
    """Every construction of an ebMS error in the rooms that a message passes."""
    for room in ("as4", "msh", "web"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLASSES:
                    yield str(path.relative_to(ROOT)), node, node.func.id


def test_every_place_that_refuses_names_what_is_wrong():
    nameless = [f"{path}:{node.lineno} {name}" for path, node, name in made()
                if not CLASSES[name].uniform and CLASSES[name].severity == "failure" and (path, name) not in LOCAL
                and not any(keyword.arg == "where" for keyword in node.keywords)]
    assert not nameless, "\n".join(nameless)
    assert len(list(made())) > 100


def test_no_place_tells_a_value():
    """`where` is a literal, or one with numbers, places and names that went through `told`."""
    allowed = re.compile(
        r"number|n\b|place|self\._place|_?PROPERTY|_place\(error\)|found|told|name|where|sequence\.where|self\.where|"
        r"self\._path\(number\)|self\._names\[number\]|incident|failure\.detail|told or detail|PARAMETERS\[unknown\]|WHERE|_WHERE")
    wrong = []
    for path, node, name in made():
        for keyword in node.keywords:
            if keyword.arg == "where" and not isinstance(keyword.value, ast.Constant):
                for part in ast.walk(keyword.value):
                    if isinstance(part, ast.FormattedValue) and not allowed.match(ast.unparse(part.value)):
                        wrong.append(f"{path}:{node.lineno} {name} {ast.unparse(part.value)}")
    assert not wrong, "\n".join(wrong)


def test_security_errors_cannot_have_a_place():
    for kind in CLASSES.values():
        if kind.uniform:
            assert kind("why", where="eb:Action").where is None


@pytest.mark.parametrize(("name", "expected"), [
    ("ExchangeId", "ExchangeId"), ("urn:x:y#z/1.2@3", "urn:x:y#z/1.2@3"), ("a b", "a_b"), ("<x>&\"'", "_x____"),
    ("\u202e\x1b[31m", "___31m"), ("é", "_"), ("%s{}${jndi:", "_s____jndi:"), ("x" * 500, "x" * 40), ("", ""),
])
def test_a_name_is_told_short_and_harmless(name, expected):
    assert told(name) == expected


def shots(lv):
    """(name, content type, body) of everything that the other suites have refused."""
    for attack in ATTACKS:
        if attack.id == "oversized part":  # for a node with small limits
            continue
        make = maker(lv.peer, 9)
        shot = make.shot(attack.make(make))
        yield f"attack: {attack.id}", shot.content_type, shot.body
    for name, (make, _, _) in REFUSED.items():
        yield f"deviation: {name}", *make(lv.peer)


async def test_what_leaves(lv):
    """All refusals at once: a detail for each that is no security error, and for those one text for each code."""
    uniform: dict[str, dict[str, str]] = {}
    seen = set()
    for name, content_type, body in shots(lv):
        status, headers, octets = await lv.raw(content_type, body)
        if b"<S12:Fault>" in octets:
            assert re.search(rb"understood here\. S12:\w+/?\w*<", octets), name
            continue
        assert octets, f"{name}: nothing but HTTP {status}"
        unit = lv.peer.answer(status, headers["content-type"], octets).unit
        assert isinstance(unit, Error), name
        [error] = unit.errors
        seen.add(error.code)
        assert error.description == EBMS_ERRORS[error.code].wire
        if error.code in UNIFORM:
            # All of it but what must differ: ids, time, digests, signature.
            text = re.sub(rb">[^<>]*</(eb:MessageId|eb:Timestamp|eb:RefToMessageId|ds:DigestValue|ds:SignatureValue)>", rb">\1", octets)
            text = re.sub(rb'(refToMessageInError|wsu:Id|URI)="[^"]*"', rb"\1", text)
            relevant = tuple((k, v) for k, v in headers.items() if k not in ("date", "content-length"))
            uniform.setdefault(error.code, {}).setdefault(str((status, relevant, text)), name)
        else:
            assert error.detail and DETAIL.fullmatch(error.detail), f"{name}: {error.code} {error.detail!r}"
            assert "CANARY" not in error.detail, name
    assert UNIFORM <= seen and len(seen) >= 9
    assert {code: len(texts) for code, texts in uniform.items()} == dict.fromkeys(UNIFORM, 1), {
        code: list(texts.values()) for code, texts in uniform.items()}


async def test_a_hostile_name_is_not_repeated_as_it_is(lv):
    """The one place where a name of the sender goes back: a property that a closed agreement does not know."""
    cell = lv.gateway._rooms.agreements
    from msgspec.structs import replace

    legs = tuple(replace(leg, closed_properties=True) for leg in cell.value.pmodes.legs)
    cell.value = type(cell.value)(replace(cell.value.pmodes, legs=legs))
    hostile = "zz<script>\u202e${jndi:ldap://x}" + "A" * 200
    header = lv.peer.header()
    packed, _ = foreign(lv.peer, [pack(XML)], properties=(*header.properties, Property(hostile, "a value nobody may read")))
    answer = await lv.post(*packed.out)
    [error] = answer.unit.errors
    assert error.code == "EBMS:0010"
    assert error.detail == f"eb:MessageProperties/eb:Property[{told(hostile)}]" and len(error.detail) == 74
    assert DETAIL.fullmatch(error.detail) and "script" in error.detail and "<" not in error.detail
    assert b"a value nobody may read" not in answer.envelope


async def test_a_stranger_learns_what_it_said_and_nothing_of_the_agreement(lv):
    """Unsigned, with a header that fits: nothing but 0103. With one that does not: the parameter, not its value."""
    right = re.sub(rb"<wsse:Security .*</wsse:Security>", b"", foreign(lv.peer, [])[0].envelope)
    answer = await lv.post("application/soap+xml", right)
    assert (answer.code, answer.unit.errors[0].detail) == ("EBMS:0103", None)
    wrong = right.replace(b">QueryManager<", b">OtherManager<")
    answer = await lv.post("application/soap+xml", wrong)
    assert (answer.code, answer.unit.errors[0].detail) == ("EBMS:0010", "eb:Service")
    # Which properties are demanded is only told to who has proven to be the partner.
    bare = re.sub(rb"<eb:MessageProperties>.*</eb:MessageProperties>", b"", right)
    assert (await lv.post("application/soap+xml", bare)).code == "EBMS:0103"


async def test_a_sound_message_has_no_error(lv):
    """The walk above does not refuse everything."""
    assert isinstance((await lv.post(*foreign(lv.peer, [pack(XML)])[0].out)).unit, Receipt)
