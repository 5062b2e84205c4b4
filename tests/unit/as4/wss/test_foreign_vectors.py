"""Octets that other stacks made. They are no part of this project: skipped where they are absent.

Legacy algorithms do not exist here, so many of these must be *refused*, by the profile and
before a key is used; what they say about names of keys is read all the same.
"""

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12
from lxml import etree

from gateway.as4 import ns
from gateway.as4.inbound import Opened, Terms, Unauthenticated
from gateway.as4.profiles import PROFILES
from gateway.as4.profiles.profile import Profile
from gateway.as4.soap import read_envelope
from gateway.as4.units import Error, Receipt, UserMessage
from gateway.as4.wss.algorithms import SHA1_DIGEST, SHA384_DIGEST, check_signature, decode_base64, oaep, public_key_of
from gateway.as4.wss.decrypt import EncryptedPart, PartOpener, read_encryption, unwrap_content_key
from gateway.as4.wss.security import SecurityHeader, read_security
from gateway.as4.wss.tokens import carried_certificates, read_key_info, resolve
from gateway.as4.wss.verify import check_digest, check_value, read_signature, read_signed_info
from gateway.as4.xml import canonical_document, parse
from gateway.errors import EbmsError, FailedAuthentication, InvalidHeader, PolicyNoncompliance
from tests.unit.as4.wss.material import FOREIGN, SoftDecryptionKey, open_octets, split

pytestmark = pytest.mark.skipif(not FOREIGN.is_dir(), reason="the vectors of other projects are not here")

RSA_PROFILE, EC_PROFILE = PROFILES["edelivery-as4/1.15"], PROFILES["edelivery-as4/2.0-ecdsa"]


def pkcs12(path: str, password: bytes):
    """(private key, DER certificate) of one entry."""
    store = load_pkcs12((FOREIGN / path).read_bytes(), password)
    return store.key, store.cert.certificate.public_bytes(Encoding.DER)


def octets(path: str) -> bytes:
    return (FOREIGN / path).read_bytes()


def captured(path: str) -> tuple[str, bytes]:
    """Content-Type and body of a capture that holds its HTTP headers."""
    head, _, body = octets(path).partition(b"\r\n\r\n")
    if not body:
        head, _, body = octets(path).partition(b"\n\n")
    line = next(line for line in head.decode("latin-1").splitlines() if line.lower().startswith("content-type:"))
    return line.partition(":")[2].strip(), body


# -- phase4: live captures of several products -------------------------------------------


class TestCaptures:
    def open(self, content_type, body, **options):
        ready, _ = split(content_type, body)
        terms = Terms(RSA_PROFILE, tuple(carried_certificates(ready.octets)))
        return open_octets(ready.octets, terms, charset=ready.charset, **options)

    @pytest.mark.parametrize("name", [
        "receipt-helger.as4in", "receipt-governikus.as4in", "receipt-dataport1-mustunderstand.as4in",
    ])
    def test_receipts_of_three_products(self, name):
        opened = self.open(*captured(f"phase4/{name}"))
        assert isinstance(opened, Opened) and isinstance(opened.unit, Receipt) and len(opened.unit.references) == 3

    def test_a_receipt_from_a_file(self):
        opened = self.open("application/soap+xml", octets("phase4/receipt-btc-2027.xml"))
        assert isinstance(opened.unit, Receipt) and len(opened.unit.references) == 3

    def test_a_receipt_changed_after_signing(self):
        with pytest.raises(FailedAuthentication):
            self.open(*captured("phase4/NEG-receipt-dataport1.as4in"))

    def test_a_peppol_message(self):
        opened = self.open(*captured("phase4/peppol-usermessage-2026.as4out"))
        assert isinstance(opened.unit, UserMessage) and len(opened.promised) == 1
        assert opened.encrypted_key.digest == ns.SHA256 and opened.encrypted_key.recipient.certificate

    @pytest.mark.parametrize("name", ["error-ebms0001.xml", "error-no-reftomessageid.xml", "error-with-soap-fault.xml"])
    def test_unsigned_errors(self, name):
        opened = self.open("application/soap+xml", octets(f"phase4/{name}"), allow_unsigned=True)
        assert isinstance(opened, Unauthenticated) and isinstance(opened.unit, Error)

    @pytest.mark.parametrize("name", [
        "NEG-no-partyid.xml", "NEG-no-responder.xml", "NEG-two-usermessages.xml", "NEG-unknown-digest-algorithm.xml",
        "NEG-unknown-signature-algorithm.xml",
    ])
    def test_refused(self, name):
        with pytest.raises(EbmsError):
            self.open("application/soap+xml", octets(f"phase4/{name}"))


# -- Domibus and Harmony: names of keys ---------------------------------------------------


class TestDomibus:
    KEYREFS = ("keyref-bst_x509v3.xml", "keyref-bst_X509PKIPathv1.xml", "keyref-is.xml", "keyref-ski.xml")

    def header(self, name):
        envelope = read_envelope(octets(f"domibus-harmony/{name}"))
        return envelope, read_security(envelope.security)

    @pytest.mark.parametrize("name", KEYREFS)
    def test_the_content_key(self, name):
        """The four ways in which Domibus names the recipient; each leads to red_gw and its key."""
        envelope, header = self.header(name)
        key, parts = read_encryption(header, envelope.ids, ["message"], RSA_PROFILE)
        red = SoftDecryptionKey(*pkcs12("domibus-harmony/keys/red_gw.p12", b"test123"))
        blue = SoftDecryptionKey(*pkcs12("domibus-harmony/keys/blue_gw.p12", b"test123"))

        class Encrypted:
            encrypted_key, encrypted_parts = key, parts

        assert len(unwrap_content_key(Encrypted, [blue, red])) == 16
        assert (blue.used, red.used) == (0, 1)

    @pytest.mark.parametrize("name", KEYREFS)
    def test_the_signer(self, name):
        """Named in the same four ways; pretty-printed since, so the signature must fail."""
        envelope, header = self.header(name)
        signature = read_signature(header.signature)
        reference = read_key_info(signature.key_info, header.element, envelope.ids, bare=False)
        _, red = pkcs12("domibus-harmony/keys/red_gw.p12", b"test123")
        (leaf,) = {*carried_certificates(octets("domibus-harmony/keyref-bst_x509v3.xml"))} - {red}
        assert resolve(reference, [red, leaf]) == (leaf,)
        with pytest.raises(FailedAuthentication, match="SignatureValue"):
            open_octets(octets(f"domibus-harmony/{name}"), Terms(RSA_PROFILE, (leaf,)))
        with pytest.raises(FailedAuthentication, match="claimed"):
            open_octets(octets(f"domibus-harmony/{name}"), Terms(RSA_PROFILE, (red,)))

    @pytest.mark.parametrize("name", ["request_BST_PKIP.xml", "response_BST_PKIP.xml"])
    def test_paths(self, name):
        envelope, header = self.header(name)
        signature = read_signature(header.signature)
        reference = read_key_info(signature.key_info, header.element, envelope.ids, bare=False)
        leaf = reference.certificate
        assert public_key_of(leaf)
        assert leaf in carried_certificates(octets(f"domibus-harmony/{name}"))

    def test_only_messaging_is_signed(self):
        """Value and digest are right, by blue_gw; but the Body is not signed, so it is 0103."""
        name = "usermessage-signed-messaging-only.xml"
        envelope, header = self.header(name)
        _, blue = pkcs12("domibus-harmony/keys/blue_gw.p12", b"test123")
        signature = read_signature(header.signature)
        reference = read_key_info(signature.key_info, header.element, envelope.ids, bare=False)
        assert reference.ski and resolve(reference, [blue]) == (blue,)
        info = read_signed_info(signature.signed_info, len(signature.signed_info) - 2)
        check_value(signature, info, blue, RSA_PROFILE)
        (messaging,) = [r for r in info.references if envelope.ids.get(r.uri[1:]) is envelope.messaging]
        check_digest(envelope.messaging, messaging)
        with pytest.raises((PolicyNoncompliance, InvalidHeader)):
            open_octets(octets(f"domibus-harmony/{name}"), Terms(RSA_PROFILE, (blue,)))


# -- WSS4J: ConcatKDF, four ways to name the recipient --------------------------------------


class TestWss4j:
    NAMES = ("x509ski", "issuerserial", "x509certificate", "eckeyvalue")

    @pytest.mark.parametrize("how", NAMES)
    def test_recipients(self, how):
        root = parse(octets(f"wss4j/ecdh-es-concatkdf-recipient-{how}.xml"))
        recipient = next(root.iter(ns.qn(ns.XENC, "RecipientKeyInfo")))
        if how == "eckeyvalue":
            with pytest.raises(PolicyNoncompliance):
                read_key_info(recipient, root, {}, bare=True)
            return
        reference = read_key_info(recipient, root, {}, bare=True)
        if how == "x509certificate":
            assert public_key_of(reference.certificate).curve.name == "secp521r1"
        else:
            assert reference.ski or (reference.serial and reference.issuer.startswith("CN=issuer-ca, OU="))

    @pytest.mark.parametrize("how", NAMES)
    def test_concat_kdf_is_refused(self, how):
        root = parse(octets(f"wss4j/ecdh-es-concatkdf-recipient-{how}.xml"))
        key = next(root.iter(ns.qn(ns.XENC, "EncryptedKey")))
        header = SecurityHeader(root, None, key, [key])
        with pytest.raises(PolicyNoncompliance, match="key derivation"):
            read_encryption(header, {}, ["x"], EC_PROFILE)


# -- Santuario: W3C encryption vectors, EdDSA signatures --------------------------------------


class TestSantuario:
    CIPHERTEXTS = (
        "EC-P256__aes128-gcm__kw-aes128__ECDH-ES__ConcatKDF-1", "EC-P256__aes128-gcm__kw-aes128__ECDH-ES__ConcatKDF-4",
        "RSA-2048__aes128-gcm__rsa-oaep-mgf1p", "RSA-3072__aes192-gcm__rsa-oaep-mgf1p__Sha256",
        "RSA-3072__aes256-gcm__rsa-oaep__Sha384-MGF_Sha1", "RSA-4096__aes256-gcm__rsa-oaep__Sha512-MGF_Sha1_PSource",
    )  # fmt: skip

    def read(self, name: str, profile: Profile) -> dict[str, EncryptedPart]:
        root = parse(octets(f"santuario/cipherText__{name}.xml"))
        key = next(root.iter(ns.qn(ns.XENC, "EncryptedKey")))
        return read_encryption(SecurityHeader(root, None, key, [root]), {}, ["x"], profile)

    @pytest.mark.parametrize("name", CIPHERTEXTS)
    def test_legacy_is_refused(self, name):
        """By every profile, before a private key is looked for."""
        for profile in PROFILES.values():
            with pytest.raises(PolicyNoncompliance):
                self.read(name, profile)

    def test_digest_and_mask_are_two_things(self):
        """Not ours to accept, but the rows say it right: OAEP with SHA-384 and MGF1 with SHA-1."""
        root = parse(octets("santuario/cipherText__RSA-3072__aes256-gcm__rsa-oaep__Sha384-MGF_Sha1.xml"))
        key, _ = pkcs12("santuario/keys/RSA-3072_SHA256WithRSA.p12", b"passwd")
        wrapped, content = (decode_base64(e.text) for e in root.iter(ns.qn(ns.XENC, "CipherValue")))
        content_key = key.decrypt(wrapped, oaep(SHA384_DIGEST, ns.MGF1_SHA1))
        opener = PartOpener(content_key)
        plain = opener.update(content)
        opener.finish()
        assert canonical_document(plain) == canonical_document(octets("santuario/plaintext.xml"))
        for digest, mgf in ((SHA384_DIGEST, ns.MGF1_SHA256), (SHA1_DIGEST, ns.MGF1_SHA1)):
            with pytest.raises(ValueError):
                key.decrypt(wrapped, oaep(digest, mgf))

    @pytest.mark.parametrize("name", [
        "eddsaEd25519Signature.xml", "envelopingSignatureEd25519.xml", "envelopingInvalidSignatureEd25519.xml",
    ])
    def test_ed25519_signatures(self, name):
        """The value over SignedInfo is right in all three; in the last the digest is wrong.

        Digest and transforms are SHA-1, enveloped and C14N with comments: refused either way.
        """
        root = etree.fromstring(octets(f"santuario/{name}"))
        info = next(root.iter(ns.qn(ns.DS, "SignedInfo")))
        value = decode_base64(next(root.iter(ns.qn(ns.DS, "SignatureValue"))).text)
        key = public_key_of(decode_base64(next(root.iter(ns.qn(ns.DS, "X509Certificate"))).text))
        canonical = etree.tostring(info, method="c14n", exclusive=True, with_comments=False)
        method = info.find(ns.qn(ns.DS, "SignatureMethod")).get("Algorithm")
        assert method == ns.ED25519
        check_signature(method, key, value, canonical)
        for spoiled in (canonical + b" ", canonical.replace(b"sha1", b"sha2")):
            with pytest.raises(InvalidSignature):
                check_signature(method, key, value, spoiled)
        with pytest.raises(PolicyNoncompliance):
            read_signed_info(info, 1)
