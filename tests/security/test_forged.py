"""C, D, E, F, I, A08 by id: messages that are false in one place, through the whole gateway in this process.

What tests/conformance proves by assertion is not repeated here.
"""

import base64
import gzip
import re
import time
import zlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec.structs import replace

from gateway.as4 import ns
from gateway.as4.units import Property, Receipt
from gateway.keys.keyring import SoftwareSigningKey
from tests.peer import Keys, check_receipt
from tests.security.forge import Packed, Part, forge
from tests.security.site import Witness
from tests.world import to_pem, world

DAY = 86_400


async def refused(lv, made, *codes: str):
    """Refused with one of the codes, signed, and nothing stays."""
    answer = await lv.post(*made[:2])
    assert answer.code in codes, (answer.code, answer.unit)
    assert answer.signer == lv.peer.partner_signing[0]
    assert await lv.nothing_stored()
    return answer


async def delivered(lv, made) -> tuple[object, list[bytes]]:
    answer = await lv.post(*made[:2])
    assert isinstance(answer.unit, Receipt), answer.unit
    [delivery] = await lv.inbox()
    return delivery.message, await lv.content(delivery)


def packed(lv, payloads=(("application/xml", b"<a/>"),), **more) -> Packed:
    sent = lv.peer.message(list(payloads), **more)
    return Packed.of(sent.content_type, sent.body)


# -- A08 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("element", ["MessageId", "PartyId", "Role", "Service", "Action", "ConversationId", "Property"])
async def test_a08_a_comment_does_not_cut_a_value(lv, element):
    """On the way: the signature holds, and so does the value."""
    sent = lv.peer.message()
    right, true = Packed.of(sent.content_type, sent.body), sent.message
    text = re.sub(rb"(<eb:%s[^>]*>..)" % element.encode(), rb"\1<!-- x -->", right.envelope)
    message, _ = await delivered(lv, right.with_envelope(text).out)
    assert (message.message_id, message.from_party.id, message.action, message.conversation_id) == (
        true.message_id, true.from_party.value, true.action, true.conversation_id)
    assert [(p.name, p.value) for p in message.properties] == [(p.name, p.value) for p in true.properties]


@pytest.mark.parametrize("element", [b"ds:DigestValue", b"ds:SignatureValue", b"wsse:BinarySecurityToken", b"xenc:CipherValue"])
async def test_a08_a_comment_does_not_cut_base64(lv, element):
    right = packed(lv)
    text = re.sub(rb"(<%s[^>]*>....)" % element, rb"\1<!-- x -->", right.envelope)
    await delivered(lv, right.with_envelope(text).out)


@pytest.mark.parametrize("element", [b"eb:MessageId", b"eb:PartyId", b"ds:DigestValue", b"ds:SignatureValue", b"eb:Messaging"])
async def test_a08_an_instruction_is_refused(lv, element):
    right = packed(lv)
    text = re.sub(rb"(<%s[^>]*>)" % element, rb"\1<?x y?>", right.envelope, count=1)
    await refused(lv, right.with_envelope(text).out, "EBMS:0009")


@pytest.mark.parametrize(("cut", "whole"), [("<!-- -->_EVIL", "_EVIL"), ("<![CDATA[]]>_EVIL", "_EVIL")])
async def test_a08_who_signs_a_comment_gains_nothing(lv, cut, whole):
    party = replace(lv.peer.party, value=lv.peer.party.value + whole)
    made = forge(lv.peer, [Part(b"x")], from_party=party, messaging=lambda t: t.replace(whole + "<", cut + "<"))
    await refused(lv, made, "EBMS:0010")


# -- D: parts and references --------------------------------------------------------------


@pytest.mark.parametrize("other", ["{}", "{upper}", "<{}>", "%70{rest}", " {} "])
async def test_d03_content_ids_that_somebody_may_confuse(lv, other):
    def doubled(parts):
        cid = "part-1@peer.example"
        spelled = other.format(cid, upper=cid.upper(), rest=cid[1:])
        head = f"Content-Type: text/plain\r\nContent-ID: {spelled if spelled[0] == '<' else f'<{spelled}>'}"
        return [*parts, (head.encode(), b"second")]

    made = forge(lv.peer, [Part(b"first", cid="part-1@peer.example")], order=doubled)
    await refused(lv, made, "EBMS:0007")


@pytest.mark.parametrize("swap", [
    lambda p: p.with_parts([p.parts[0], (p.parts[1][0], p.parts[2][1]), (p.parts[2][0], p.parts[1][1])]),
    lambda p: p.with_parts([p.parts[0], (p.parts[2][0], p.parts[1][1]), (p.parts[1][0], p.parts[2][1])]),
])
async def test_d04_swapped_parts(lv, swap):
    await refused(lv, swap(packed(lv, [("text/plain", b"one"), ("text/plain", b"two")])).out, "EBMS:0101")


@pytest.mark.parametrize(("parts", "codes"), [
    ([Part(b"x", content_id="")], ("EBMS:0007",)),                                         # PartInfo without part
    ([Part(b"x"), Part(b"y", href="")], ("EBMS:0103",)),                                   # signed, in no PartInfo
    ([Part(b"x"), Part(b"y", href="", signed="", encrypted="")], ("EBMS:0007",)),          # a part alone
    ([Part(b"x"), Part(b"y", signed="")], ("EBMS:0103",)),                                 # D01
    ([Part(b"x", cid="a@p"), Part(b"y", href="cid:a@p")], ("EBMS:0003",)),                 # two for one
    ([Part(b"x", cid="a@p"), Part(b"y", href="cid:%61@p")], ("EBMS:0003",)),
    ([Part(b"x", cid="a@p", href="cid:a@")], ("EBMS:0103",)),                              # a prefix
    ([Part(b"x", cid="a@p", href="cid:a@p", content_id="<a@p.example>")], ("EBMS:0007",)),
    ([Part(b"x", cid="a@p", content_id="<xa@p>")], ("EBMS:0007",)),                        # contained
    ([Part(b"x", cid="a@p", signed="cid:a@p.example")], ("EBMS:0103",)),
    ([Part(b"x", cid="a@p", encrypted="a@p.example")], ("EBMS:0103",)),
    ([Part(b"x", cid="a@p", signed="cid:A@P")], ("EBMS:0103",)),
])
async def test_d05_everything_names_the_same_parts(lv, parts, codes):
    await refused(lv, forge(lv.peer, parts), *codes)


@pytest.mark.parametrize("change", [
    lambda h: re.sub(rb"Content-Type: [^\r]*", b"Content-Type: text/html; charset=utf-16", h),
    lambda h: re.sub(rb"Content-Type: [^\r]*\r\n", b"", h),
    lambda h: h + b'\r\nContent-Disposition: attachment; filename="../../etc/cron.d/x"',
    lambda h: h + b"\r\nContent-Description: evil.exe\r\nContent-Location: http://127.0.0.1:9/x\r\nX-MimeType: text/html",
    lambda h: h + b"\r\nMimeType: text/html\r\nCharacterSet: utf-16\r\nFileName: evil.exe",
])
async def test_d06_what_nobody_signed_has_no_effect(lv, change):
    name = Property("FileName", "evidence.xml")
    right = packed(lv, part_properties=(name,))
    message, contents = await delivered(lv, right.with_head(1, change).out)
    [part] = message.parts
    assert contents == [b"<a/>"] and part.mime_type == "application/xml"
    assert ("FileName", "evidence.xml") in [(p.name, p.value) for p in part.properties]
    assert not re.search(r"evil|html|utf-16|cron", repr(message))


@pytest.mark.parametrize("cid", [
    "../../etc/x", "%2e%2e/%2e%2e/x", "/etc/passwd", "a/../../b@x", "C:\\x@y", "-rf@x", "con@x", "x" * 1000 + "@y",
    "%00@x", "file:///etc/passwd", "x;y@z",
])
async def test_d07_a_content_id_is_never_a_path(lv, tmp_path, cid):
    """Refused, or kept as what it is: data. Rows and files have names of our own."""
    before = sorted(tmp_path.rglob("*"))
    content_type, body, _ = forge(lv.peer, [Part(b"content", cid=cid)])
    answer = await lv.post(content_type, body)
    if answer.code is None:
        [delivery] = await lv.inbox()
        assert await lv.content(delivery) == [b"content"]
        assert delivery.message.parts[0].cid == cid
    else:
        assert answer.code in ("EBMS:0003", "EBMS:0007", "EBMS:0009", "EBMS:0011")
        assert await lv.nothing_stored()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("href", ["http://127.0.0.1:{}/x", "https://127.0.0.1:{}/x", "ftp://127.0.0.1:{}/x",
                                  "file:///etc/passwd", "//127.0.0.1:{}/x", "x", "cid:"])
async def test_d07_references_to_elsewhere(lv, href):
    witness = Witness()
    made = forge(lv.peer, [Part(b"x", href=href.format(witness.port))])
    await refused(lv, made, "EBMS:0011", "EBMS:0003")
    assert witness.connections == 0
    witness.close()


@pytest.mark.parametrize("change", [
    lambda p: p.with_head(1, lambda h: re.sub(rb"Content-Type: [^\r]*", b'Content-Type: multipart/mixed; boundary="b"', h)),
    lambda p: p.with_head(1, lambda h: re.sub(rb"Content-Type: [^\r]*", b"Content-Type: message/rfc822", h)),
    lambda p: p.with_head(1, lambda h: re.sub(rb"Content-Type: [^\r]*", b"Content-Type: Multipart/Related", h)),
    lambda p: p.with_parts([p.parts[1], p.parts[0]]),
    lambda p: Packed(p.content_type + '; start="<p0@x>"', p.boundary, p.parts),
    lambda p: Packed(re.sub(r'start="[^"]*"', 'start="<p0@x>"', p.content_type), p.boundary, p.parts),
    lambda p: p.with_parts([p.parts[0], p.parts[0], p.parts[1]]),
    lambda p: p.with_parts([p.parts[0], (p.parts[0][0].replace(b"root", b"toor"), p.parts[0][1]), p.parts[1]]),
])
async def test_d10_one_root_and_nothing_nested(lv, change):
    right = packed(lv)
    spoilt = change(right)
    assert spoilt != right
    await refused(lv, spoilt.out, "EBMS:0007")


# -- E: encryption ------------------------------------------------------------------------


def _cut(count):
    return lambda octets: octets[:-count]


E05 = {
    **{f"tag cut by {n}": Part(b"x" * 100, spoil=_cut(n)) for n in (1, 2, 4, 8, 12, 15, 16)},
    "tag zero": Part(b"x" * 100, spoil=lambda o: o[:-16] + bytes(16)),
    **{f"IV of {n}": Part(b"x" * 100, iv=n) for n in (8, 11, 13, 16)},
    **{f"only {n}": Part(b"x" * 100, spoil=lambda o, n=n: o[:n]) for n in (0, 1, 11, 12, 13, 27)},
    "one more": Part(b"x" * 100, spoil=lambda o: o + b"\0"),
    "IV flipped": Part(b"x" * 100, spoil=lambda o: bytes([o[0] ^ 1]) + o[1:]),
    **{f"large, flipped at {at}": Part(b"x" * 2_000_000, spoil=lambda o, at=at: (
        o[: int(len(o) * at)] + bytes([o[int(len(o) * at)] ^ 1]) + o[int(len(o) * at) + 1 :])) for at in (0.01, 0.5, 0.99)},
    "gzip inside, flipped": Part(gzip.compress(b"x" * 1000), gzip=True, spoil=lambda o: o[:20] + bytes([o[20] ^ 1]) + o[21:]),
}


@pytest.mark.parametrize("part", E05.values(), ids=E05)
async def test_e05_gcm(lv, part):
    answer = await refused(lv, forge(lv.peer, [part]), "EBMS:0102")
    [error] = answer.unit.errors
    assert (error.description, error.detail) == ("The message could not be decrypted.", None)


async def test_e05_the_good_part_of_two_does_not_stay(lv):
    await refused(lv, forge(lv.peer, [Part(b"good" * 1000), Part(b"bad", spoil=_cut(1))]), "EBMS:0102")


def _key_of(lv) -> str:
    """The EncryptedKey of another message that was captured."""
    return re.search(rb"<xenc:CipherValue>[^<]*</xenc:CipherValue>", packed(lv).envelope)[0].decode()


E06 = {
    "of another message": (lambda lv, x: re.sub("<xenc:CipherValue>[^<]*</xenc:CipherValue>", _key_of(lv), x), "EBMS:0102"),
    "two": (lambda lv, x: x + x.replace('Id="EK"', 'Id="EK2"'), "EBMS:0103"),
    "two recipients": (lambda lv, x: x.replace("<ds:KeyInfo", re.search("<ds:KeyInfo.*</ds:KeyInfo>", x)[0] + "<ds:KeyInfo", 1),
                       "EBMS:0103"),
    "not referenced": (lambda lv, x: x.replace('Id="EK"', 'Id="EK2"'), "EBMS:0103"),
    "other data listed": (lambda lv, x: x.replace("#ED-0", "#ED-9"), "EBMS:0103"),
    "none": (lambda lv, x: "", "EBMS:0103"),
    "by URL": (lambda lv, x: re.sub(r"<wsse:Reference [^>]*>", '<wsse:Reference URI="http://127.0.0.1:9/k">', x), "EBMS:0103"),
    "by RetrievalMethod": (lambda lv, x: re.sub(
        "<wsse:SecurityTokenReference.*</wsse:SecurityTokenReference>",
        '<ds:RetrievalMethod URI="http://127.0.0.1:9/k"></ds:RetrievalMethod>', x), "EBMS:0103"),
    "itself": (lambda lv, x: re.sub(r'(<wsse:Reference URI=")[^"]*', r"\1#EK", x), "EBMS:0103"),
    "cut short": (lambda lv, x: re.sub("<xenc:CipherValue>....", "<xenc:CipherValue>", x), "EBMS:0102"),
    "empty": (lambda lv, x: re.sub("<xenc:CipherValue>[^<]*", "<xenc:CipherValue>", x), "EBMS:0102"),
    "all zero": (lambda lv, x: re.sub("<xenc:CipherValue>[^<]*", "<xenc:CipherValue>" + base64.b64encode(bytes(256)).decode(), x),
                 "EBMS:0102"),
    "no base64": (lambda lv, x: re.sub("<xenc:CipherValue>....", "<xenc:CipherValue>....", x), "EBMS:0103"),
    "CipherReference": (lambda lv, x: re.sub("<xenc:CipherValue>.*</xenc:CipherValue>",
        '<xenc:CipherReference URI="http://127.0.0.1:9/k"></xenc:CipherReference>', x), "EBMS:0103"),
}


@pytest.mark.parametrize(("change", "code"), E06.values(), ids=E06)
async def test_e06_encrypted_keys(lv, change, code):
    def changed(text):
        other = change(lv, text)
        assert other != text
        return other

    await refused(lv, forge(lv.peer, [Part(b"x")], key_xml=changed), code)


@pytest.mark.parametrize("change", [
    ('URI="cid:', 'URI="http://127.0.0.1:9/'), ('URI="cid:', 'URI="cid:other-'), ("#Attachment-Content-Only", "#Attachment-Complete"),
    ("#Attachment-Content-Only", "#Content"), ("#Attachment-Ciphertext-Transform", "#Attachment-Content-Signature-Transform"),
])
async def test_e09_encrypted_data(lv, change):
    right = packed(lv)
    data = re.search(rb"<xenc:EncryptedData.*</xenc:EncryptedData>", right.envelope)[0]
    spoilt = data.replace(change[0].encode(), change[1].encode())
    assert spoilt != data
    await refused(lv, right.with_envelope(right.envelope.replace(data, spoilt)).out, "EBMS:0103")


async def test_e08_a_key_that_names_us_and_is_for_another(lv):
    stranger = Keys.make("AP_LV_01", "rsa", lv.authority)  # the same subject, the same issuer
    content_type, body, _ = forge(lv.peer, [Part(b"x")], recipient=stranger.encryption)
    theirs, ours = (base64.b64encode(der) for der in (stranger.encryption, lv.peer.partner_encryption))
    assert theirs in body
    await refused(lv, (content_type, body), "EBMS:0102")
    await refused(lv, (content_type, body.replace(theirs, ours)), "EBMS:0102")


# -- F: certificates ----------------------------------------------------------------------


def _pin(lv, *certificates: bytes) -> None:
    agreements = lv.gateway._rooms.agreements
    pmodes = agreements.value.pmodes
    legs = tuple(replace(leg, from_party=replace(leg.from_party, signing=certificates)) if leg.from_party.signing else leg
                 for leg in pmodes.legs)
    agreements.value = type(agreements.value)(replace(pmodes, legs=legs))


async def test_f02_the_same_name_with_another_key(lv):
    twin = Keys.make("AP_EE_01", "rsa", lv.authority)
    await refused(lv, forge(lv.peer, [Part(b"x")], key=twin.signing_key), "EBMS:0101")
    # Signed by the twin, and the true certificate beside it.
    content_type, body, _ = forge(lv.peer, [Part(b"x")], key=twin.signing_key)
    true, false = (base64.b64encode(der) for der in (lv.peer.keys.signing, twin.signing))
    await refused(lv, (content_type, body.replace(false, true)), "EBMS:0101")


async def test_f02_the_same_key_under_a_new_certificate(lv):
    """Not registered is not trusted, whoever holds the key."""
    again = lv.authority.issue("AP_EE_01", lv.peer.keys.signing_private.public_key())
    await refused(lv, forge(lv.peer, [Part(b"x")], key=SoftwareSigningKey(lv.peer.keys.signing_private, again)), "EBMS:0101")


@pytest.mark.parametrize(("start", "days", "accepted"), [
    (-1, 1 - 2 / DAY, False),          # expired a second ago
    (-1, 1 + 30 / DAY, True),          # has half a minute left
    (30 / DAY, 1, False),              # begins in half a minute: the tolerance for certificates is nought
    (-2 / DAY, 1, True),               # began just now
    (-1, 25 * 365, False),             # F07
])
async def test_f03_time(lv, start, days, accepted):
    key = lv.peer.keys.signing_private
    der = lv.authority.issue("AP_EE_01", key.public_key(), start=start, days=days)
    _pin(lv, der)
    made = forge(lv.peer, [Part(b"x")], key=SoftwareSigningKey(key, der))
    if accepted:
        await delivered(lv, made)
    else:
        await refused(lv, made, "EBMS:0101")


def _certificate(lv, *extensions, ca: bool = False, usage: str | None = "sign") -> bytes:
    der = lv.authority.issue("AP_EE_01", lv.peer.keys.signing_private.public_key(), usage or "sign", ca=ca)
    if not extensions:
        return der
    old = x509.load_der_x509_certificate(der)
    builder = x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), x509.random_serial_number(),
                                      old.not_valid_before_utc, old.not_valid_after_utc, list(old.extensions))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(lv.authority.key, hashes.SHA256()).public_bytes(Encoding.DER)


F05 = {
    "keyEncipherment only": lambda lv: _certificate(lv, usage="encrypt"),
    "a CA": lambda lv: _certificate(lv, ca=True),
    "for servers only": lambda lv: _certificate(lv, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)),
    "an unknown critical extension": lambda lv: _certificate(
        lv, (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00"), True)),
}


@pytest.mark.parametrize("make", F05.values(), ids=F05)
async def test_f05_usage(lv, make):
    der = make(lv)
    _pin(lv, der)
    await refused(lv, forge(lv.peer, [Part(b"x")], key=SoftwareSigningKey(lv.peer.keys.signing_private, der)), "EBMS:0101")


async def test_f07_a_weak_key(lv):
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    der = lv.authority.issue("AP_EE_01", weak.public_key())
    _pin(lv, der)
    await refused(lv, forge(lv.peer, [Part(b"x")], key=SoftwareSigningKey(weak, der)), "EBMS:0101")


async def test_f08_two_certificates_of_an_overlap(tmp_path):
    folder = tmp_path / "lv"
    async with world(tmp_path / "first") as first:
        authority = first.authority
    following, third = Keys.make("AP_EE_01", "rsa", authority), Keys.make("AP_EE_01", "rsa", authority)
    (folder / "pmodes").mkdir(parents=True)
    (folder / "pmodes" / "ee-next.pem").write_bytes(to_pem(following.signing))
    async with world(folder, more='next = "ee-next.pem"') as lv:
        for key in (lv.peer.keys.signing_key, following.signing_key):
            sent = lv.peer.message(key=key)
            check_receipt(await lv.give(sent), sent)
        assert (await lv.give(lv.peer.message(key=third.signing_key))).code == "EBMS:0101"
        assert len(await lv.inbox()) == 2


async def test_f10_another_certificate_than_the_key_that_signed(lv):
    """The token is the partner's, the signature somebody's; and a token beside it changes nothing."""
    stranger = Keys.make("AP_FI_01", "rsa", lv.authority)
    content_type, body, _ = forge(lv.peer, [Part(b"x")], key=stranger.signing_key)
    theirs, true = (base64.b64encode(der) for der in (stranger.signing, lv.peer.keys.signing))
    await refused(lv, (content_type, body.replace(theirs, true)), "EBMS:0101")


# -- I: compression -----------------------------------------------------------------------

CONTENT = b"<evidence>" + bytes(range(32, 127)) * 30 + b"</evidence>"
MADE = gzip.compress(CONTENT, mtime=0)
_EXTRA = b"\x1f\x8b\x08\x04" + bytes(6) + (60_000).to_bytes(2, "little") + b"x" * 60_000 + MADE[10:]
_NAMED = b"\x1f\x8b\x08\x08" + bytes(6) + b"../../etc/cron.d/x\0" + MADE[10:]

I01 = {
    "100 kB to 100 MB": lambda: gzip.compress(bytes(100 << 20), 9),
    "just beyond the ratio": lambda: gzip.compress(bytes(4 << 20), 9),
    "many members": lambda: gzip.compress(b"") * 1100 + MADE,
}
I02 = {
    "cut": MADE[:-1], "cut before the trailer": MADE[:-8], "only a header": MADE[:10], "nothing": b"",
    "wrong check sum": MADE[:-8] + bytes(4) + MADE[-4:], "wrong length": MADE[:-4] + bytes(4),
    "trailing octet": MADE + b"\0", "trailing text": MADE + b"evil", "half a second member": MADE + MADE[:20],
    "reserved flags": MADE[:3] + b"\xe0" + MADE[4:], "a large extra field": _EXTRA,
}


@pytest.mark.parametrize("make", I01.values(), ids=I01)
async def test_i01_bombs(lv, make):
    octets = make()
    began = time.process_time()
    await refused(lv, forge(lv.peer, [Part(octets, gzip=True)]), "EBMS:0303")
    assert time.process_time() - began < 1.0


async def test_i01_a_bomb_in_a_bomb_is_opened_once(lv):
    """334 octets that are 100 MB after two steps: we take one, and the rest is the consumer's content."""
    inner = gzip.compress(bytes(100 << 20), 9)
    outer = gzip.compress(inner, 9)
    _, [content] = await delivered(lv, forge(lv.peer, [Part(outer, gzip=True)]))
    assert content == inner


@pytest.mark.parametrize("octets", I02.values(), ids=I02)
async def test_i02_damaged_gzip(lv, octets):
    await refused(lv, forge(lv.peer, [Part(octets, gzip=True)]), "EBMS:0303")


async def test_i02_a_name_in_the_gzip_header_has_no_effect(lv):
    message, contents = await delivered(lv, forge(lv.peer, [Part(_NAMED, gzip=True)]))
    assert contents == [CONTENT] and "cron" not in repr(message)


async def test_i02_members_in_a_row_are_one_content(lv):
    """Legal gzip; the same caps hold for all of them together."""
    _, contents = await delivered(lv, forge(lv.peer, [Part(MADE + MADE, gzip=True)]))
    assert contents == [CONTENT + CONTENT]


async def test_i03_gzip_that_nobody_announced_is_content(lv):
    message, contents = await delivered(lv, forge(lv.peer, [Part(MADE)]))
    assert contents == [MADE] and message.parts[0].mime_type == "application/octet-stream"


@pytest.mark.parametrize(("octets", "kind", "code"), [
    (CONTENT, ns.GZIP, "EBMS:0303"), (zlib.compress(CONTENT), ns.GZIP, "EBMS:0303"),
    (zlib.compress(CONTENT, wbits=-15), ns.GZIP, "EBMS:0303"), (zlib.compress(CONTENT), "application/zlib", "EBMS:0003"),
    (b"\x28\xb5\x2f\xfd" + CONTENT, "application/zstd", "EBMS:0003"), (MADE, "gzip", "EBMS:0003"),
    (MADE, "APPLICATION/GZIP", "EBMS:0003"),
])
async def test_i03_what_is_announced_must_be_there(lv, octets, kind, code):
    properties = (Property(ns.MIME_TYPE, "application/xml"), Property(ns.COMPRESSION_TYPE, kind))
    await refused(lv, forge(lv.peer, [Part(octets, properties=properties)]), code)


async def test_i03_two_compression_types(lv):
    properties = (Property(ns.MIME_TYPE, "a/b"), Property(ns.COMPRESSION_TYPE, ns.GZIP), Property(ns.COMPRESSION_TYPE, ns.GZIP))
    await refused(lv, forge(lv.peer, [Part(MADE, properties=properties)]), "EBMS:0003")


async def test_i04_compressed_after_encryption(lv):
    """The order is compress, sign, encrypt: gzip round the ciphertext is no ciphertext."""
    await refused(lv, forge(lv.peer, [Part(CONTENT, spoil=gzip.compress)]), "EBMS:0102")
