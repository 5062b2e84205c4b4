import os
import re

import pytest
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.as4 import ns
from gateway.as4.wss.algorithms import SHA1_DIGEST, SHA512_DIGEST, encode_base64
from gateway.as4.wss.decrypt import Agreement, EncryptedKey, PartOpener, unwrap_content_key
from gateway.as4.wss.encrypt import OVERHEAD, PartSealer, wrapping_key
from gateway.as4.wss.tokens import KeyReference
from gateway.errors import FailedDecryption, PolicyNoncompliance, SendFailed
from tests.unit.as4.wss.material import (
    ECDSA,
    EDDSA,
    RSA,
    SUITES,
    Payload,
    SoftDecryptionKey,
    certify,
    craft,
    envelope_of,
    open_octets,
    send,
    with_terms,
)

KEY = bytes(range(16))


def sealed(plaintext: bytes) -> bytes:
    iv = os.urandom(12)
    return iv + AESGCM(KEY).encrypt(iv, plaintext, None)


class TestParts:
    @pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4096, 65_536])
    @pytest.mark.parametrize("step", [1, 7, 16, 28, 4096, 1 << 20])
    def test_opens_whatever_the_cuts(self, size, step):
        if size > 5000 and step < 16:
            return  # slow, and nothing new in it
        plaintext = os.urandom(size)
        wire, opener = sealed(plaintext), PartOpener(KEY)
        opened = b"".join(opener.update(wire[i : i + step]) for i in range(0, len(wire), step))
        opener.finish()
        assert opened == plaintext

    @pytest.mark.parametrize("spoil", [
        pytest.param(lambda wire: b"", id="empty"),
        pytest.param(lambda wire: wire[:5], id="shorter than an IV"),
        pytest.param(lambda wire: wire[:12], id="an IV alone"),
        pytest.param(lambda wire: wire[:27], id="shorter than IV and tag"),
        *(pytest.param(lambda wire, n=n: wire[:-n], id=f"{n} octets of the tag lost") for n in range(1, 17)),
        pytest.param(lambda wire: wire[:-16] + bytes(16), id="a tag of zeros"),
        pytest.param(lambda wire: wire + b"x", id="one octet too many"),
        pytest.param(lambda wire: bytes([wire[0] ^ 1]) + wire[1:], id="bit flipped in the IV"),
        pytest.param(lambda wire: wire[:12] + bytes([wire[12] ^ 1]) + wire[13:], id="bit flipped in the text"),
        pytest.param(lambda wire: wire[:-1] + bytes([wire[-1] ^ 1]), id="bit flipped in the tag"),
    ])
    def test_spoiled_parts_all_get_the_same_answer(self, spoil):
        """E05"""
        opener = PartOpener(KEY)
        opener.update(spoil(sealed(b"evidence")))
        with pytest.raises(FailedDecryption) as refusal:
            opener.finish()
        assert refusal.value.detail == "" and refusal.value.where is None

    @given(st.lists(st.binary(max_size=40), max_size=6))
    def test_sealer_and_opener(self, blocks):
        size = sum(map(len, blocks))
        sealer = PartSealer(KEY, b"i" * 12, size)
        wire = b"".join([*map(sealer.update, blocks), sealer.finish()])
        assert len(wire) == size + OVERHEAD
        assert AESGCM(KEY).decrypt(wire[:12], wire[12:], None) == b"".join(blocks)

    def test_vector(self):
        """[as4 8.2]: GCM of `hello` with a zero IV."""
        sealer = PartSealer(KEY, bytes(12), 5)
        assert (sealer.update(b"hello") + sealer.finish()).hex() == "00" * 12 + "21b3eb3ff6d5da0429e8cdfe3e7c225048a22ae7c0"

    def test_a_payload_of_another_size_is_not_sent(self):
        sealer = PartSealer(KEY, bytes(12), 4)
        with pytest.raises(SendFailed):
            sealer.update(b"hello")
        sealer = PartSealer(KEY, bytes(12), 6)
        sealer.update(b"hello")
        with pytest.raises(SendFailed):
            sealer.finish()


class Encrypted:
    """What `unwrap_content_key` needs of an opened message."""

    def __init__(self, key: EncryptedKey | None, algorithm=ns.AES128_GCM) -> None:
        from gateway.as4.wss.decrypt import EncryptedPart

        self.encrypted_key = key
        self.encrypted_parts = {"p": EncryptedPart(None, algorithm)}


class TestAgreementVector:
    """[as4 8.2]"""

    own = x25519.X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
    ephemeral = x25519.X25519PrivateKey.from_private_bytes(bytes(range(33, 65)))
    salt = bytes(range(16))
    wrapped = "Qsx0q29Ewur+b8IIwT8NpHAaLPN+M1Yx"
    originator = "MCowBQYDK2VuAyEAWGmv9FBUlzLLqu1eXfmzCm2jHLDldCutWtShp2jxpns="

    def test_pieces(self):
        assert self.own.public_key().public_bytes_raw().hex() == (
            "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c")
        spki = self.ephemeral.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert encode_base64(spki) == self.originator
        shared = self.ephemeral.exchange(self.own.public_key())
        assert shared.hex() == "a84dc7c3c8f058b1b2dc4cd1e9b5dc0a7987f88b6a9564cde3391fc421159e77"
        kek = wrapping_key(shared, self.salt, None)
        assert kek.hex() == "1a8d9048b12789327087be463e3b71e8"
        assert encode_base64(keywrap.aes_key_wrap(kek, KEY)) == self.wrapped

    def encrypted(self, **changes) -> EncryptedKey:
        from base64 import b64decode

        certificate = certify(self.own.public_key())
        self.keys = [SoftDecryptionKey(self.own, certificate)]
        agreement = Agreement(ns.X25519, b64decode(self.originator), None, self.salt, b"")
        key = EncryptedKey(
            ns.KW_AES128, b64decode(self.wrapped), KeyReference(certificate=certificate), agreement=agreement
        )
        return replace(key, **changes)

    def test_unwrap(self):
        assert unwrap_content_key(Encrypted(self.encrypted()), self.keys) == KEY

    @pytest.mark.parametrize("spoiled", [
        {"salt": bytes(16)}, {"info": b"x"}, {"originator": b""}, {"originator": b"garbage"},
        {"originator": bytes.fromhex("302a300506032b656e032100") + bytes(32)},
        {"originator": bytes.fromhex("302a300506032b656e032100") + b"\x01" + bytes(31)},
        {"originator": ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo)},
    ])
    def test_spoiled(self, spoiled):
        """E11: all-zero and low-order points, other keys, other parameters: one answer."""
        encrypted = self.encrypted()
        encrypted = replace(encrypted, agreement=replace(encrypted.agreement, **spoiled))
        with pytest.raises(FailedDecryption):
            unwrap_content_key(Encrypted(encrypted), self.keys)

    @pytest.mark.parametrize("wrapped", [b"", b"x", bytes(24), bytes(25), bytes(16), bytes(4096)])
    def test_what_is_no_wrapped_key(self, wrapped):
        with pytest.raises(FailedDecryption):
            unwrap_content_key(Encrypted(self.encrypted(wrapped=wrapped)), self.keys)

    def test_a_content_key_of_another_length(self):
        """E12"""
        with pytest.raises(FailedDecryption):
            unwrap_content_key(Encrypted(self.encrypted(), ns.AES256_GCM), self.keys)


class TestContentKey:
    @pytest.mark.parametrize("suite", SUITES, ids=repr)
    def test_only_the_named_key_is_tried(self, suite):
        opened = open_octets(envelope_of(*send(suite, Payload(b"x"))), suite.terms)
        ours = SoftDecryptionKey(suite.receiver.key, suite.receiver.certificate)
        other = SoftDecryptionKey(suite.receiver.key, suite.sender.certificate)
        assert len(unwrap_content_key(opened, [other, ours])) == 16
        assert (other.used, ours.used) == (0, 1)
        with pytest.raises(FailedDecryption):
            unwrap_content_key(opened, [other])
        assert other.used == 0
        with pytest.raises(FailedDecryption):
            unwrap_content_key(opened, [])

    @pytest.mark.parametrize("suite", SUITES, ids=repr)
    def test_named_for_us_but_wrapped_for_another(self, suite):
        """E08"""
        opened = open_octets(envelope_of(*send(suite, Payload(b"x"))), suite.terms)
        key = {
            RSA: lambda: rsa.generate_private_key(65537, 2048),
            EDDSA: x25519.X25519PrivateKey.generate,
            ECDSA: lambda: ec.generate_private_key(ec.SECP256R1()),
        }[suite]()
        with pytest.raises(FailedDecryption) as refusal:
            unwrap_content_key(opened, [SoftDecryptionKey(key, suite.receiver.certificate)])
        assert refusal.value.where is None and refusal.value.wire == FailedDecryption.wire

    def test_a_message_without_key(self):
        opened = open_octets(envelope_of(*send(RSA)), RSA.terms)
        assert opened.encrypted_key is None
        with pytest.raises(FailedDecryption):
            unwrap_content_key(opened, [RSA.receiver])

    def test_many_wrong_keys_one_answer(self):
        """E03, in small: whatever the wrapped octets are."""
        opened = open_octets(envelope_of(*send(RSA, Payload(b"x"))), RSA.terms)
        answers = set()
        for number in range(60):
            wrapped = bytearray(opened.encrypted_key.wrapped)
            wrapped[number * 4] ^= 1 << number % 8
            spoiled = replace(opened, encrypted_key=replace(opened.encrypted_key, wrapped=bytes(wrapped)))
            with pytest.raises(FailedDecryption) as refusal:
                unwrap_content_key(spoiled, [RSA.receiver])
            answers.add((refusal.value.code, refusal.value.wire, refusal.value.where, refusal.value.status))
        assert len(answers) == 1


class TestReading:
    """What the profile does not allow is refused before a private key is used [E02]."""

    def refused(self, suite, edit, payloads=(Payload(b"x"),), terms=None):
        with pytest.raises(PolicyNoncompliance):
            open_octets(craft(suite, *payloads, security=edit), terms or suite.terms)

    def edit(self, old: str, new: str, count: int = -1):
        def change(children):
            text = "\0".join(children)
            assert re.search(old, text), old
            return re.sub(old, new, text, count=max(count, 0)).split("\0")

        return change

    @pytest.mark.parametrize("suite", SUITES, ids=repr)
    def test_untouched(self, suite):
        assert open_octets(craft(suite, Payload(b"x")), suite.terms).encrypted_parts

    @pytest.mark.parametrize(("old", "new"), [
        (ns.RSA_OAEP, ns.XENC + "rsa-1_5"),
        (ns.RSA_OAEP, ns.RSA_OAEP_MGF1P),
        (r"<ds:DigestMethod xmlns:ds=\"[^\"]*\" Algorithm=\"[^\"]*\"></ds:DigestMethod><xenc11", "<xenc11"),
        (r"<xenc11:MGF .*?</xenc11:MGF>", ""),
        (ns.MGF1_SHA256, ns.MGF1_SHA1),
        (r'(<xenc:EncryptedKey.*?)' + re.escape(ns.SHA256), r"\1" + SHA1_DIGEST),
        (r'(<xenc:EncryptedKey.*?)' + re.escape(ns.SHA256), r"\1" + SHA512_DIGEST),
        ("<ds:DigestMethod xmlns", "<xenc:OAEPparams>AAEC</xenc:OAEPparams><ds:DigestMethod xmlns"),
        ("(<xenc11:MGF .*?</xenc11:MGF>)", r"\1\1"),
        ("(<xenc11:MGF .*?</xenc11:MGF>)", rf'\1<xenc:MGF Algorithm="{ns.MGF1_SHA256}"/>'),
        ("<ds:DigestMethod xmlns", "<xenc:KeySize>128</xenc:KeySize><ds:DigestMethod xmlns"),
    ])
    def test_key_transport(self, old, new):
        self.refused(RSA, self.edit(old, new))

    def test_oaep_settings_are_read_one_by_one(self):
        """[as4 7.33]: missing means SHA-1, and neither hash is derived from the other."""
        sha1 = with_terms(RSA, accept_oaep=frozenset({(SHA1_DIGEST, ns.MGF1_SHA256)}))
        edit = self.edit(r"<ds:DigestMethod xmlns:ds=\"[^\"]*\" Algorithm=\"[^\"]*\"></ds:DigestMethod><xenc11", "<xenc11")
        key = open_octets(craft(RSA, Payload(b"x"), security=edit), sha1).encrypted_key
        assert (key.digest, key.mgf) == (SHA1_DIGEST, ns.MGF1_SHA256)
        mgf1 = with_terms(RSA, accept_oaep=frozenset({(ns.SHA256, ns.MGF1_SHA1)}))
        edit = self.edit(r"<xenc11:MGF .*?</xenc11:MGF>", "")
        key = open_octets(craft(RSA, Payload(b"x"), security=edit), mgf1).encrypted_key
        assert (key.digest, key.mgf) == (ns.SHA256, ns.MGF1_SHA1)

    def test_mgf_in_the_other_namespace_and_an_empty_label(self):
        edit = self.edit(
            r"<xenc11:MGF .*?</xenc11:MGF>", f'<xenc:MGF Algorithm="{ns.MGF1_SHA256}"/><xenc:OAEPparams/>'
        )
        assert open_octets(craft(RSA, Payload(b"x"), security=edit), RSA.terms).encrypted_key.mgf == ns.MGF1_SHA256

    @pytest.mark.parametrize("suite", [EDDSA, ECDSA], ids=repr)
    @pytest.mark.parametrize(("old", "new"), [
        (ns.KW_AES128, ns.XENC + "kw-aes256"),
        (re.escape(ns.HKDF), ns.CONCAT_KDF),
        (ns.HMAC_SHA256, ns.HMAC_SHA256.replace("256", "512")),
        (r"<dsigmore:PRF.*?</dsigmore:PRF>", ""),
        (">16<", ">128<"),
        (">16<", "><"),
        (r"<dsigmore:Salt>.*?</dsigmore:Salt>", "<dsigmore:Salt>A</dsigmore:Salt>"),
        (r"<xenc:OriginatorKeyInfo>.*?</xenc:OriginatorKeyInfo>", ""),
        (r"<xenc:OriginatorKeyInfo>.*?</xenc:OriginatorKeyInfo>", "<xenc:OriginatorKeyInfo/>"),
        (r"<xenc:RecipientKeyInfo>.*?</xenc:RecipientKeyInfo>", ""),
        (r"<xenc:RecipientKeyInfo>.*?</xenc:RecipientKeyInfo>", "<xenc:RecipientKeyInfo/>"),
        ("Algorithm=\"(" + ns.X25519 + "|" + ns.ECDH_ES + ")\"", f'Algorithm="{ns.XENC11}dh-es"'),
    ])
    def test_key_agreement(self, suite, old, new):
        self.refused(suite, self.edit(old, new))

    def test_each_suite_has_its_own_agreement(self):
        self.refused(ECDSA, lambda c: c, terms=with_terms(ECDSA, accept_agreement=frozenset({ns.X25519})))
        self.refused(EDDSA, lambda c: c, terms=with_terms(EDDSA, accept_agreement=frozenset({ns.ECDH_ES})))
        self.refused(RSA, lambda c: c, terms=with_terms(RSA, key_protection="key-agreement"))
        self.refused(EDDSA, lambda c: c, terms=with_terms(EDDSA, key_protection="key-transport"))

    def test_curves(self):
        only = with_terms(ECDSA, accept_curves=frozenset({"urn:oid:1.3.132.0.34"}))
        self.refused(ECDSA, lambda c: c, terms=only)
        for urn in ("urn:oid:1.3.132.0.10", "urn:oid:", "", "http://x"):
            self.refused(ECDSA, self.edit(r"urn:oid:[0-9.]+", urn))

    def test_optional_pieces_may_be_missing(self):
        edit = self.edit(r"<dsigmore:KeyLength>16</dsigmore:KeyLength>", "")
        assert open_octets(craft(EDDSA, Payload(b"x"), security=edit), EDDSA.terms).encrypted_key
        edit = self.edit(r"<dsigmore:Salt>.*?</dsigmore:Salt>", "<dsigmore:Info>AAEC</dsigmore:Info>")
        agreement = open_octets(craft(EDDSA, Payload(b"x"), security=edit), EDDSA.terms).encrypted_key.agreement
        assert (agreement.salt, agreement.info) == (b"", b"\0\1\2")

    @pytest.mark.parametrize(("old", "new"), [
        (re.escape(ns.SWA_CONTENT_ONLY), ns.SWA + "Attachment-Complete"),
        (re.escape(ns.SWA_CONTENT_ONLY), ns.XENC + "Content"),
        (f' Type="{ns.SWA_CONTENT_ONLY}"', ""),
        (re.escape(ns.AES128_GCM), ns.XENC + "aes128-cbc"),
        (re.escape(ns.AES128_GCM), ns.AES256_GCM),
        (re.escape(ns.AES128_GCM), ns.XENC11 + "aes192-gcm"),
        (re.escape(ns.SWA_CIPHERTEXT), ns.SWA_SIGNATURE),
        (r"<xenc:Transforms>.*?</xenc:Transforms>", ""),
        (r"(<xenc:Transforms>)(.*?)(</xenc:Transforms>)", r"\1\2\2\3"),
        ('CipherReference URI="cid:part-1', 'CipherReference URI="cid:part-2'),
        ('CipherReference URI="cid:part-1', 'CipherReference URI="http://x/part-1'),
        ('CipherReference URI="cid:part-1', 'CipherReference URI="part-1'),
        (r"<xenc:CipherReference.*?</xenc:CipherReference>", "<xenc:CipherValue>AAEC</xenc:CipherValue>"),
        ('Reference URI="#EK"', 'Reference URI="#ED-1"'),
        ('Reference URI="#EK"', 'Reference URI="#none"'),
        ('Reference URI="#EK"', 'Reference URI="http://x/#EK"'),
        ('DataReference URI="#ED-1"', 'DataReference URI="#ED-2"'),
        (r"<xenc:DataReference URI=\"#ED-1\"></xenc:DataReference>", "<xenc:KeyReference URI='#ED-1'/>"),
        (r"<xenc:EncryptedData .*</xenc:EncryptedData>", ""),
        (r'(<xenc:EncryptedData [^>]*)Id="ED-1"(.*</xenc:EncryptedData>)', r'\1Id="ED-1"\2\1Id="ED-2"\2'),
        (r"<xenc:EncryptedKey .*</xenc:EncryptedKey>", ""),
        (r'(<xenc:EncryptedKey [^>]*)Id="EK"(.*</xenc:EncryptedKey>)', r'\1Id="EK"\2\1Id="EK2"\2'),
        (r"</xenc:EncryptedKey>", "<xenc:CarriedKeyName>x</xenc:CarriedKeyName></xenc:EncryptedKey>"),
        (r"</xenc:EncryptedData>", "<xenc:EncryptionProperties/></xenc:EncryptedData>"),
    ])
    def test_encrypted_data(self, old, new):
        """E04, E06, E09, E12, and hiding places of the wrapping kind."""
        self.refused(RSA, self.edit(old, new))

    def test_data_without_key_info_is_taken_when_the_key_lists_it(self):
        edit = self.edit(r"(<xenc:EncryptedData .*?)<ds:KeyInfo .*?</ds:KeyInfo>", r"\1")
        assert open_octets(craft(RSA, Payload(b"x"), security=edit), RSA.terms).encrypted_parts

    def test_but_not_when_nobody_does(self):
        both = self.edit(r"(<xenc:EncryptedData .*?)<ds:KeyInfo .*?</ds:KeyInfo>", r"\1")
        unlisted = self.edit(r"<xenc:ReferenceList>.*</xenc:ReferenceList>", "")
        self.refused(RSA, lambda children: unlisted(both(children)))
        assert open_octets(craft(RSA, Payload(b"x"), security=unlisted), RSA.terms).encrypted_parts

    def test_one_of_three_parts_in_the_clear(self):
        """E01"""
        self.refused(RSA, self.edit(r"<xenc:EncryptedData [^>]*Id=\"ED-2\".*?</xenc:EncryptedData>", ""),
                     payloads=[Payload(b"x")] * 3)

    def test_two_algorithms_for_one_key(self):
        terms = with_terms(RSA, accept_encryption=frozenset({ns.AES128_GCM, ns.AES256_GCM}))
        self.refused(RSA, self.edit(re.escape(ns.AES128_GCM), ns.AES256_GCM, 1), payloads=[Payload(b"x")] * 2, terms=terms)

    def test_a_key_without_parts_is_passed_over(self):
        """[as4 7.28]: some stacks write one; it is not even read."""
        edit = lambda children: ["<xenc:EncryptedKey xmlns:xenc='" + ns.XENC + "'>anything</xenc:EncryptedKey>", *children]  # noqa: E731
        opened = open_octets(craft(RSA, security=edit), RSA.terms)
        assert opened.encrypted_key is None and opened.encrypted_parts == {}

    def test_but_data_without_parts_is_not(self):
        children = []
        craft(RSA, Payload(b"x"), security=lambda c: children.extend(c) or c)
        data = next(child for child in children if "<xenc:EncryptedData" in child)
        self.refused(RSA, lambda c: [data, *c], payloads=())
