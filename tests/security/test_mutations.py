"""Whatever happens to a message on its way: it is refused by a name, or it is what was sent.

Each round takes a valid message, changes it in ways drawn at random, in octets, in the
MIME structure, in the tree of the envelope, and gives it to the whole gateway. Never an
incident (a cause we have no name for), never stored with another content or another
header. `GATEWAY_SECURITY=full` does very many; a failure names its seed, and
GATEWAY_SEED=n plays it again.
"""

import asyncio
import copy
import os
import random
import re
from collections import Counter

import pytest
from lxml import etree

from gateway.as4 import ns
from gateway.as4.units import Error, Receipt
from gateway.store.api import MessageFilter
from tests.security.forge import Packed, Part, forge

ROUNDS = 100_000 if os.environ.get("GATEWAY_SECURITY") == "full" else 1500
SEED = int(os.environ.get("GATEWAY_SEED", "20261121"))
CONTENTS = [b"<evidence>" + bytes(range(32, 127)) * 8 + b"</evidence>", b"%PDF-1.7 " + bytes(range(256)) * 4]

#: What an attacker writes where somebody else wrote something.
VALUES = [
    b"", b" ", b"\0", b"\xff\xfe", b"<", b"&", b"&#0;", b"&lol;", b"]]>", b"<!--", b"<?x?>", b"<!DOCTYPE x>", b"-1", b"1e999", b"9" * 400,
    b"A" * 5000, b"\xc2\x9b31m", b"\xe2\x80\xae", b"\xed\xa0\x80", b"../../etc/passwd", b"${jndi:ldap://x}", b"%n%s", b"http://127.0.0.1:9/",
    b"cid:", b"#", b'"', b"'", b"\r\n", b"\r\n\r\n", b"--", b"=", b"xmlns", b"true", b"0", b"null", b"2026-13-45T25:61:61Z",
]


# -- octets -------------------------------------------------------------------------------


def flip(r: random.Random, octets: bytes) -> bytes:
    spoilt = bytearray(octets)
    for _ in range(r.choice((1, 1, 1, 2, 8))):
        if spoilt:
            spoilt[r.randrange(len(spoilt))] ^= 1 << r.randrange(8)
    return bytes(spoilt)


def cut(r: random.Random, octets: bytes) -> bytes:
    start = r.randrange(len(octets) + 1)
    return octets[:start] + octets[start + r.choice((1, 2, 16, 100, 1000, len(octets))) :]


def insert(r: random.Random, octets: bytes) -> bytes:
    at = r.randrange(len(octets) + 1)
    return octets[:at] + r.choice(VALUES) + octets[at:]


def repeat(r: random.Random, octets: bytes) -> bytes:
    start, size = r.randrange(len(octets) + 1), r.choice((1, 16, 200, 2000))
    return octets[: start + size] + octets[start:]


def swap(r: random.Random, octets: bytes) -> bytes:
    a, b, c = sorted(r.randrange(len(octets) + 1) for _ in range(3))
    return octets[:a] + octets[b:c] + octets[a:b] + octets[c:]


def value(r: random.Random, octets: bytes) -> bytes:
    """Another text between two tags, or in quotes."""
    found = list(re.finditer(rb'(?<=>)[^<>]+(?=<)|(?<==")[^"]*(?=")', octets))
    if not found:
        return insert(r, octets)
    place = r.choice(found)
    new = r.choice([r.choice(VALUES), r.choice(found)[0], place[0].swapcase(), place[0] + b" ", place[0][:-1], place[0] * 2])
    return octets[: place.start()] + new + octets[place.end() :]


OCTETS = [flip, cut, insert, repeat, swap, value]


# -- the tree -----------------------------------------------------------------------------


def tree(r: random.Random, octets: bytes) -> bytes:
    """Elements removed, doubled, moved, renamed, with attributes more or fewer."""
    try:
        root = etree.fromstring(octets, etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.LxmlError:
        return octets
    for _ in range(r.choice((1, 1, 2, 3))):
        elements = list(root.iter(etree.Element))
        one, other = r.choice(elements), r.choice(elements)
        match r.randrange(9):
            case 0 if one is not root:
                one.getparent().remove(one)
            case 1 if one is not root:
                one.addnext(copy.deepcopy(one))
            case 2:
                other.insert(r.randrange(len(other) + 1), copy.deepcopy(one))
            case 3 if one is not root and one not in other.iterancestors() and one is not other:
                other.insert(r.randrange(len(other) + 1), one)
            case 4:
                one.tag = r.choice([other.tag, "x", "{urn:x}y", etree.QName(one).localname])
            case 5 if one.attrib:
                del one.attrib[r.choice(list(one.attrib))]
            case 6:
                name = r.choice([ns.qn(ns.WSU, "Id"), "Id", ns.qn(ns.S12, "mustUnderstand"), ns.qn(ns.S12, "role"), "Algorithm", "URI", "x"])
                one.set(name, r.choice([*(v for e in elements for v in e.attrib.values()), "x", "true", "1"]))
            case 7:
                one.text = r.choice([other.text, "", " ", "x", (one.text or "") + "x"])
            case 8:
                children = list(one)
                r.shuffle(children)
                one[:] = children
    return etree.tostring(root)


# -- MIME ---------------------------------------------------------------------------------


def mime(r: random.Random, packed: Packed) -> Packed:
    number = r.randrange(len(packed.parts))
    match r.randrange(7):
        case 0:
            return packed.with_parts([p for n, p in enumerate(packed.parts) if n != number])
        case 1:
            return packed.with_parts([*packed.parts, packed.parts[number]])
        case 2:
            return packed.with_parts(r.sample(packed.parts, len(packed.parts)))
        case 3:
            return packed.with_head(number, lambda h: r.choice(OCTETS)(r, h))
        case 4:
            other = r.randrange(len(packed.parts))
            return packed.with_part(number, lambda _: packed.parts[other][1])
        case 5:
            kind = r.choice((b"base64", b"quoted-printable", b"7bit", b"x-uuencode", b""))
            return packed.with_head(number, lambda h: h + b"\r\nContent-Transfer-Encoding: " + kind)
        case _:
            return Packed(r.choice(OCTETS)(r, packed.content_type.encode()).decode("latin-1"), packed.boundary, packed.parts)


def mutate(r: random.Random, packed: Packed) -> tuple[str, bytes]:
    for _ in range(r.choice((1, 1, 1, 2, 3))):
        match r.randrange(10):
            case 0:
                return packed.content_type, r.choice(OCTETS)(r, packed.body())
            case 1 | 2:
                packed = mime(r, packed)
            case 3 | 4 if packed.parts:
                packed = packed.with_part(r.randrange(len(packed.parts)), lambda o: r.choice(OCTETS)(r, o))
            case 5 | 6 | 7 if packed.parts:
                packed = packed.with_part(0, lambda o: tree(r, o))
            case _ if packed.parts:
                packed = packed.with_part(0, lambda o: r.choice((flip, value, value))(r, o))
    return packed.out


# -- the rule -----------------------------------------------------------------------------


def _right(lv):
    parts = [Part(CONTENTS[0], mime="application/xml"), Part(CONTENTS[1], mime="application/pdf")]
    return forge(lv.peer, parts)


async def _check(lv, made, message) -> str:
    status, headers, octets = await lv.raw(*made, step=1 << 16)
    await asyncio.sleep(0)  # what was left unread of the body is closed by the loop
    found = await lv.store.messages(MessageFilter(limit=10))
    if not found:
        if not octets:
            assert status == 400, status  # what looks like a signal gets no signal
            return "400"
        if b"Fault" in octets and b"eb:Messaging" not in octets:
            return "fault"
        answer = lv.peer.answer(status, headers["content-type"], octets)
        assert isinstance(answer.unit, Error) and answer.signer is not None
        assert answer.code != "EBMS:0004", "an incident"
        return answer.code
    assert len(found) == 1 and found[0].user_message == message
    [delivery] = await lv.inbox()
    assert await lv.content(delivery) == CONTENTS
    assert isinstance(lv.peer.answer(status, headers["content-type"], octets).unit, Receipt)
    lv.store._messages.clear()
    lv.store._jobs.clear()
    return "same"


async def test_refused_by_a_name_or_what_was_sent(lv):
    content_type, body, message = _right(lv)
    right, verdicts = Packed.of(content_type, body), Counter()
    assert await _check(lv, right.out, message) == "same"
    for number in [SEED] if "GATEWAY_SEED" in os.environ else range(SEED, SEED + ROUNDS):
        made = mutate(random.Random(number), right)
        try:
            verdicts[await _check(lv, made, message)] += 1
        except Exception as error:
            pytest.fail(f"GATEWAY_SEED={number}: {type(error).__name__}: {error}")
    print(verdicts)
    if len(verdicts) > 1:
        assert verdicts["same"] and {"EBMS:0007", "EBMS:0009", "EBMS:0101", "EBMS:0102", "EBMS:0103"} <= verdicts.keys()


async def test_signed_as_it_is(lv):
    """The same with a header that the partner signed: what is stored is what he signed, whatever it says."""
    verdicts = Counter()
    for number in range(SEED, SEED + ROUNDS // 5):
        r = random.Random(number)

        def changed(text: str) -> str:
            try:
                return value(r, text.encode()).decode()
            except UnicodeDecodeError:
                return text

        try:
            content_type, body, _ = forge(lv.peer, [Part(CONTENTS[0])], messaging=changed)
        except Exception as error:  # not even our forge signs that
            verdicts[type(error).__name__] += 1
            continue
        status, headers, octets = await lv.raw(content_type, body)
        await asyncio.sleep(0)
        found = await lv.store.messages(MessageFilter(limit=10))
        if found:
            [delivery] = await lv.inbox()
            assert await lv.content(delivery) == [CONTENTS[0]]
            lv.store._messages.clear()
            lv.store._jobs.clear()
            verdicts["stored"] += 1
            continue
        if octets and b"S12:Fault" not in octets:
            code = lv.peer.answer(status, headers["content-type"], octets).code
            assert code != "EBMS:0004", f"incident: seed {number}"
            verdicts[code] += 1
    print(verdicts)
    assert verdicts["stored"] and verdicts["EBMS:0010"] and verdicts["EBMS:0009"]
