"""Message-layer security: assertions 38 to 55."""

import re

import pytest
from msgspec.structs import replace

from gateway.as4 import ns
from tests.peer import Keys, check_receipt, split
from tests.world import world

assertion = pytest.mark.assertion
SUITES = [("rsa", "oots/2.0"), ("rsa", "edelivery-as4/1.15"), ("ed25519", "edelivery-as4/2.0"), ("p256", "edelivery-as4/2.0-ecdsa")]
EXCHANGE = """
[[exchanges]]
service = "QueryManager"
service_type = "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0"
action = "ExecuteQueryRequest"
from_role = "http://sdg.europa.eu/edelivery/gateway"
to_role = "http://sdg.europa.eu/edelivery/gateway"
"""


def site(tmp_path, suite, profile, **more):
    return world(tmp_path / "lv", suite=suite, profile=profile, more="" if profile.startswith("oots") else EXCHANGE, **more)


@assertion(38, 39, 40, 41, 43, 95)
@pytest.mark.parametrize(("suite", "profile"), SUITES)
async def test_what_is_sent(tmp_path, suite, profile):
    async with site(tmp_path, suite, profile) as lv:
        await lv.submit([(b"<a/>", "application/xml"), (b"%PDF", "application/pdf")])
        await lv.send_due()
        envelope, parts = split(*lv.listener.received[-1])
        text = envelope.octets.decode()
        uris = re.findall(r'<ds:Reference URI="([^"]*)"', text)
        messaging = re.search(r'<eb:Messaging[^>]* wsu:Id="([^"]+)"', text)[1]
        body = re.search(r'<S12:Body[^>]* wsu:Id="([^"]+)"', text)[1]
        assert sorted(uris) == sorted([f"#{messaging}", f"#{body}", *(f"cid:{cid}" for cid, _ in parts)])
        assert set(re.findall(r'<ds:DigestMethod Algorithm="([^"]+)"[^>]*></ds:DigestMethod><ds:DigestValue', text)) == {ns.SHA256}
        expected = {"rsa": ns.RSA_SHA256, "ed25519": ns.ED25519, "p256": ns.ECDSA_SHA256}[suite]
        assert re.search(r'<ds:SignatureMethod Algorithm="([^"]+)"', text)[1] == expected
        data = re.findall(r"<xenc:EncryptedData.*?</xenc:EncryptedData>", text)
        assert [re.search(r'CipherReference URI="cid:([^"]+)"', d)[1] for d in data] == [cid for cid, _ in parts]
        assert all(ns.AES128_GCM in d for d in data)
        key = re.search(r"<xenc:EncryptedKey.*?</xenc:EncryptedKey>", text)[0]
        if suite == "rsa":
            assert ns.RSA_OAEP in key and ns.SHA256 in key and ns.MGF1_SHA256 in key
        else:
            assert ns.KW_AES128 in key and ns.HKDF in key and ns.HMAC_SHA256 in key
            assert re.search(r"KeyLength>16<", key)
            assert (ns.X25519 in key and "DEREncodedKeyValue" in key) if suite == "ed25519" else (
                ns.ECDH_ES in key and "ECKeyValue" in key)
            assert "SecurityTokenReference" in key
        # EncryptedKey and EncryptedData come before the signature: WSS4J works in document order.
        assert text.index("<xenc:EncryptedKey") < text.index("<xenc:EncryptedData") < text.index("<ds:Signature")


@assertion(2, 41, 43, 60, 61)
@pytest.mark.parametrize(("suite", "profile"), SUITES)
async def test_what_is_received(tmp_path, suite, profile):
    async with site(tmp_path, suite, profile) as lv:
        sent = lv.peer.message([("application/xml", b"<a/>"), ("application/pdf", b"%PDF")])
        check_receipt(await lv.give(sent), sent)
        [delivery] = await lv.inbox()
        assert await lv.content(delivery) == [b"<a/>", b"%PDF"]


@assertion(44)
@pytest.mark.parametrize(("suite", "profile"), SUITES[2:])
async def test_salt_and_ephemeral_key_are_fresh(tmp_path, suite, profile):
    async with site(tmp_path, suite, profile) as lv:
        for _ in range(3):
            await lv.submit()
        await lv.send_due()
        texts = [split(*r)[0].octets.decode() for r in lv.listener.received]
        for pattern in (r"Salt>([^<]+)<", r"(?:DEREncodedKeyValue|PublicKey)[^>]*>([^<]+)<", r"CipherValue>([^<]+)<"):
            assert len({re.search(pattern, text)[1] for text in texts}) == 3


@assertion(42)
async def test_other_oaep_hashes_are_refused(lv):
    sent = lv.peer.message()
    for old, new in ((ns.MGF1_SHA256, ns.MGF1_SHA1), (ns.RSA_OAEP + '"', ns.RSA_OAEP_MGF1P + '"')):
        answer = await lv.post(sent.content_type, sent.body.replace(old.encode(), new.encode()))
        assert answer.code in ("EBMS:0103", "EBMS:0102", "EBMS:0007")
    assert await lv.nothing_stored()


@assertion(45)
@pytest.mark.parametrize("spoil", [
    lambda b: re.sub(rb"<wsse:Security .*</wsse:Security>", b"", b, flags=re.S),
    lambda b: re.sub(rb"<ds:Signature .*</ds:Signature>", b"", b, flags=re.S),
    lambda b: re.sub(rb"(<wsse:Security [^>]*>).*</wsse:Security>", rb"\1</wsse:Security>", b, flags=re.S),
])
@pytest.mark.parametrize("payloads", [[], [("application/xml", b"<a/>")]])
async def test_unsigned_is_refused(lv, spoil, payloads):
    sent = lv.peer.message(payloads)
    answer = await lv.post(sent.content_type, spoil(sent.body))
    assert answer.code == "EBMS:0103"
    assert await lv.nothing_stored()


@assertion(46)
async def test_an_unencrypted_part_is_refused(lv):
    sent = lv.peer.message([("application/xml", b"<a/>"), ("application/xml", b"<b/>")])
    # One EncryptedData is taken out: its part counts as plain now.
    body = re.sub(rb"<xenc:EncryptedData.*?</xenc:EncryptedData>", b"", sent.body, count=1, flags=re.S)
    answer = await lv.post(sent.content_type, body)
    assert answer.code == "EBMS:0103"
    assert await lv.nothing_stored()


@assertion(47)
@pytest.mark.parametrize(("spoil", "codes"), [
    (lambda b: b.replace(b"ExecuteQueryRequest<", b"ExecuteQueryResponse<"), ("EBMS:0101",)),
    (lambda b: b.replace(b">C1<", b">C9<"), ("EBMS:0101",)),
    (lambda b: re.sub(rb"(<S12:Body [^>]*)>", rb'\1 x="y">', b), ("EBMS:0101",)),
    (lambda b: re.sub(rb"(<ds:SignatureValue>)(.)", lambda m: m[1] + (b"A" if m[2] != b"A" else b"B"), b), ("EBMS:0101",)),
    (lambda b: re.sub(rb"(<ds:DigestValue>)(.)", lambda m: m[1] + (b"A" if m[2] != b"A" else b"B"), b, count=1), ("EBMS:0101",)),
])
async def test_broken_signatures_are_refused(lv, spoil, codes):
    sent = lv.peer.message()
    answer = await lv.post(sent.content_type, spoil(sent.body))
    assert answer.code in codes
    assert await lv.nothing_stored()


@assertion(47)
@pytest.mark.parametrize("at", [0, 5, 20, -1, -17])
async def test_a_flipped_bit_in_a_part_is_refused(lv, at):
    sent = lv.peer.message()
    _, parts = split(sent.content_type, sent.body)
    octets = parts[0][1]
    spoilt = bytearray(octets)
    spoilt[at] ^= 1
    answer = await lv.post(sent.content_type, sent.body.replace(octets, bytes(spoilt)))
    assert answer.code == "EBMS:0102"
    assert await lv.nothing_stored()


@assertion(48)
async def test_a_part_nobody_signed_is_refused(lv):
    sent = lv.peer.message()
    boundary = re.search(r'boundary="([^"]+)"', sent.content_type)[1].encode()
    extra = b"--" + boundary + b"\r\nContent-Type: text/plain\r\nContent-ID: <extra@x>\r\n\r\nhello\r\n"
    body = sent.body.replace(b"--" + boundary + b"--", extra + b"--" + boundary + b"--")
    answer = await lv.post(sent.content_type, body)
    assert answer.code in ("EBMS:0103", "EBMS:0007")
    assert await lv.nothing_stored()


@assertion(48)
@pytest.mark.parametrize("leave_out", [0, 1, 2])
async def test_everything_must_be_covered(lv, leave_out, monkeypatch):
    """Messaging, Body or the part left out of a signature that is right otherwise."""
    from gateway.as4 import outbound
    from gateway.as4.wss.sign import sign

    def without(key, references, **kw):
        kept = tuple(r for n, r in enumerate(references) if n != leave_out)
        return sign(key, kept, **kw)

    monkeypatch.setattr(outbound, "sign", without)
    sent = lv.peer.message()
    monkeypatch.undo()
    answer = await lv.give(sent)
    assert answer.code == "EBMS:0103"
    assert await lv.nothing_stored()


@assertion(48, 55)
@pytest.mark.parametrize("spoil", [
    # the signed Messaging moved aside, a forged one in its place
    lambda b: re.sub(rb"(<eb:Messaging .*?</eb:Messaging>)", lambda m: (
        m[1].replace(b'wsu:Id="', b'wsu:Id="x').replace(b">C4<", b">EVIL<") + b"<x xmlns=\"urn:x\">" + m[1] + b"</x>"), b, flags=re.S),
    # two Messaging
    lambda b: re.sub(rb"(<eb:Messaging .*?</eb:Messaging>)", rb"\1\1", b, flags=re.S),
    # an id that two elements share
    lambda b: re.sub(rb'<S12:Body ([^>]*)wsu:Id="[^"]*"', lambda m: b"<S12:Body " + m[1] + re.search(
        rb'<eb:Messaging [^>]*(wsu:Id="[^"]*")', b)[1], b),
    # a second Body
    lambda b: re.sub(rb"(<S12:Body [^>]*></S12:Body>)", rb"\1\1", b),
])
async def test_wrapping_is_refused(lv, spoil):
    sent = lv.peer.message([])
    answer = await lv.post(sent.content_type, spoil(sent.body))
    assert answer.code is not None and answer.code.startswith("EBMS:0")
    assert await lv.nothing_stored()


@assertion(49)
async def test_another_partners_signature_is_refused(lv):
    stranger = Keys.make("AP_FI_01", "rsa", lv.authority)
    answer = await lv.give(lv.peer.message(key=stranger.signing_key))
    assert answer.code == "EBMS:0101"
    assert await lv.nothing_stored()


@assertion(49)
@pytest.mark.parametrize(("start", "days"), [(-10, 9), (1, 10)])
async def test_expired_and_future_certificates_are_refused(lv, start, days):
    key = lv.peer.keys.signing_private
    der = lv.authority.issue("AP_EE_01", key.public_key(), days=days, start=start)
    agreements = lv.gateway._rooms.agreements
    pmodes = agreements.value.pmodes
    legs = tuple(replace(leg, from_party=replace(leg.from_party, signing=(der,)) if leg.from_party.signing else leg.from_party)
                 for leg in pmodes.legs)
    agreements.value = type(agreements.value)(replace(pmodes, legs=legs))
    from gateway.keys.keyring import SoftwareSigningKey

    answer = await lv.give(lv.peer.message(key=SoftwareSigningKey(key, der)))
    assert answer.code == "EBMS:0101"
    assert await lv.nothing_stored()


@assertion(50)
@pytest.mark.parametrize(("suite", "profile"), SUITES)
async def test_encrypted_for_another_is_refused(tmp_path, suite, profile):
    async with site(tmp_path, suite, profile) as lv:
        stranger = Keys.make("AP_FI_01", suite, lv.authority)
        answer = await lv.give(lv.peer.message(recipient=stranger.encryption))
        assert answer.code == "EBMS:0102"
        assert await lv.nothing_stored()


@assertion(51)
async def test_no_username_token(lv):
    answer = await lv.give(lv.peer.message())
    await lv.submit()
    await lv.send_due()
    assert b"UsernameToken" not in answer.envelope + lv.listener.received[-1][1]


@assertion(52)
@pytest.mark.parametrize("token", ["bst", "pkipath", "ski", "issuer-serial", "thumbprint", "x509"])
@pytest.mark.parametrize(("suite", "profile"), SUITES)
async def test_key_references_are_taken(tmp_path, token, suite, profile):
    async with site(tmp_path, suite, profile) as lv:
        sent = lv.peer.message(signature_token=token, encryption_token=token)
        check_receipt(await lv.give(sent), sent)


@assertion(52, 79)
@pytest.mark.parametrize("token", ["bst", "pkipath", "ski", "issuer-serial", "thumbprint"])
async def test_key_references_are_sent(tmp_path, token):
    async with world(tmp_path / "lv") as lv:
        agreements = lv.gateway._rooms.agreements
        pmodes = agreements.value.pmodes
        legs = tuple(replace(leg, signature_token=token, encryption_token=token) for leg in pmodes.legs)
        agreements.value = type(agreements.value)(replace(pmodes, legs=legs))
        submitted = await lv.submit()
        await lv.send_due()
        assert (await lv.view(submitted)).state == "ACKNOWLEDGED"
        envelope, _ = split(*lv.listener.received[-1])
        mark = {"bst": b"#X509v3", "pkipath": b"#X509PKIPathv1", "ski": b"X509SubjectKeyIdentifier",
                "issuer-serial": b"X509IssuerSerial", "thumbprint": b"ThumbprintSHA1"}[token]
        assert envelope.octets.count(mark) >= 2


@assertion(53)
async def test_the_header_is_never_encrypted(lv):
    await lv.submit()
    await lv.send_due()
    envelope, _ = split(*lv.listener.received[-1])
    assert b"<eb:Messaging" in envelope.octets and b"EncryptedHeader" not in envelope.octets
    assert not re.search(rb"EncryptedData[^>]*#(Content|Element)", envelope.octets)


@assertion(54)
async def test_prefix_lists_are_honoured(tmp_path):
    """Every exchange of tests/vectors is signed with PrefixList="S12"; see tests/unit/as4 for the vectors."""
    from pathlib import Path

    vectors = Path(__file__).parents[1] / "vectors" / "phase4-4.5.4-wire"
    bodies = [p.read_bytes() for p in vectors.glob("*/gzip-xml.request.body")]
    assert bodies and all(b'PrefixList="S12"' in body for body in bodies)


@assertion(55)
@pytest.mark.parametrize(("old", "new"), [
    (b"http://www.w3.org/2001/10/xml-exc-c14n#", b"http://www.w3.org/TR/1999/REC-xpath-19991116"),
    (b"http://www.w3.org/2001/10/xml-exc-c14n#", b"http://www.w3.org/TR/1999/REC-xslt-19991116"),
    (b"http://www.w3.org/2001/10/xml-exc-c14n#", b"http://www.w3.org/TR/2001/REC-xml-c14n-20010315"),
    (b"Attachment-Content-Signature-Transform", b"Attachment-Complete-Signature-Transform"),
    (b"xmlenc#sha256", b"xmldsig#sha1"),
    (b"rsa-sha256", b"rsa-sha1"),
    (b"rsa-sha256", b"hmac-sha256"),
])
async def test_other_algorithms_and_transforms_are_refused(lv, old, new):
    sent = lv.peer.message()
    answer = await lv.post(sent.content_type, sent.body.replace(old, new))
    assert answer.code == "EBMS:0103"
    assert await lv.nothing_stored()


@assertion(55)
@pytest.mark.parametrize("doctype", [
    b"<!DOCTYPE x>", b'<!DOCTYPE x [<!ENTITY e "x">]>', b'<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">',
])
async def test_document_types_are_refused(lv, doctype):
    sent = lv.peer.message([])
    answer = await lv.post(sent.content_type, doctype + sent.body)
    assert answer.status == 400 and answer.code == "EBMS:0009"
    assert await lv.nothing_stored()
