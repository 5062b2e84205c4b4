"""The protocol floor: what one message costs in cryptography, XML and gzip alone.

No HTTP, no database, no Structs, no policy: the shortest program that does on each message
what the specification demands. The product is measured beside it in the same run and the
*ratio* is stated; absolute figures move with the machine.

Received: split MIME, parse, unwrap the content key, open the part, hash, verify, gunzip,
build and sign the receipt, serialise. Sent: gzip, hash, wrap, encrypt, sign, serialise, MIME.
"""

import datetime
import hashlib
import hmac
import os
from base64 import b64decode, b64encode

from cryptography import x509
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import NameOID
from isal import igzip, isal_zlib
from lxml import etree

S12 = "http://www.w3.org/2003/05/soap-envelope"
EB = "http://docs.oasis-open.org/ebxml-msg/ebms/v3.0/ns/core/200704/"
DS = "http://www.w3.org/2000/09/xmldsig#"
XENC = "http://www.w3.org/2001/04/xmlenc#"
EXC = "http://www.w3.org/2001/10/xml-exc-c14n#"
WSS = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-"
WSSE, WSU = WSS + "wssecurity-secext-1.0.xsd", WSS + "wssecurity-utility-1.0.xsd"
X509V3 = WSS + "x509-token-profile-1.0#X509v3"
SWA = "http://docs.oasis-open.org/wss/oasis-wss-SwAProfile-1.1#Attachment-Content-Signature-Transform"
OAEP = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
SIGNATURES = {
    "rsa": "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
    "ed25519": "http://www.w3.org/2021/04/xmldsig-more#eddsa-ed25519",
}


def qn(namespace, name):
    return f"{{{namespace}}}{name}"


def c14n(element):
    return etree.tostring(element, method="c14n", exclusive=True, with_comments=False)


class Floor:
    """One pair of keys of one suite, and the bare operations with it."""

    def __init__(self, suite: str) -> None:
        self.suite = suite
        if suite == "rsa":
            self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            self.decryption = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            issuer = self.key
        else:
            self.key = ed25519.Ed25519PrivateKey.generate()
            self.decryption = x25519.X25519PrivateKey.generate()
            issuer = self.key
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "floor")])
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.key.public_key())
            .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
            .sign(issuer, SHA256() if suite == "rsa" else None).public_bytes(Encoding.DER)
        )  # fmt: skip

    def _sign(self, octets):
        return self.key.sign(octets, padding.PKCS1v15(), SHA256()) if self.suite == "rsa" else self.key.sign(octets)

    def _check(self, key, value, octets):
        if self.suite == "rsa":
            key.verify(value, octets, padding.PKCS1v15(), SHA256())
        else:
            key.verify(value, octets)

    def _wrap(self, content_key):
        if self.suite == "rsa":
            return self.decryption.public_key().encrypt(content_key, OAEP)
        ephemeral, salt = x25519.X25519PrivateKey.generate(), os.urandom(32)
        shared = ephemeral.exchange(self.decryption.public_key())
        wrapped = keywrap.aes_key_wrap(HKDF(SHA256(), 16, salt, b"").derive(shared), content_key)
        return ephemeral.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) + salt + wrapped

    def _unwrap(self, wrapped):
        if self.suite == "rsa":
            return self.decryption.decrypt(wrapped, OAEP)
        peer, salt, wrapped = load_der_public_key(wrapped[:44]), wrapped[44:76], wrapped[76:]
        return keywrap.aes_key_unwrap(HKDF(SHA256(), 16, salt, b"").derive(self.decryption.exchange(peer)), wrapped)

    def _reference(self, uri, transform, digest):
        return (f'<ds:Reference URI="{uri}"><ds:Transforms><ds:Transform Algorithm="{transform}"></ds:Transform>'
                f'</ds:Transforms><ds:DigestMethod Algorithm="{XENC}sha256"></ds:DigestMethod><ds:DigestValue>'
                f'{b64encode(digest).decode()}</ds:DigestValue></ds:Reference>')  # fmt: skip

    def _signature(self, references):
        info = (f'<ds:SignedInfo xmlns:ds="{DS}"><ds:CanonicalizationMethod Algorithm="{EXC}">'
                f'</ds:CanonicalizationMethod><ds:SignatureMethod Algorithm="{SIGNATURES[self.suite]}">'
                f'</ds:SignatureMethod>{"".join(references)}</ds:SignedInfo>')  # fmt: skip
        value = b64encode(self._sign(info.encode())).decode()
        return (f'<wsse:BinarySecurityToken wsu:Id="t">{b64encode(self.certificate).decode()}'
                f'</wsse:BinarySecurityToken><ds:Signature xmlns:ds="{DS}">{info}<ds:SignatureValue>{value}'
                f'</ds:SignatureValue><ds:KeyInfo><wsse:SecurityTokenReference><wsse:Reference URI="#t" '
                f'ValueType="{X509V3}"/></wsse:SecurityTokenReference></ds:KeyInfo></ds:Signature>')  # fmt: skip

    def _envelope(self, messaging, security):
        return (f'<S12:Envelope xmlns:S12="{S12}" xmlns:wsu="{WSU}"><S12:Header>{messaging}<wsse:Security '
                f'xmlns:wsse="{WSSE}" S12:mustUnderstand="true">{security}</wsse:Security></S12:Header>'
                f'<S12:Body wsu:Id="b"></S12:Body></S12:Envelope>').encode()  # fmt: skip

    BODY = f'<S12:Body xmlns:S12="{S12}" xmlns:wsu="{WSU}" wsu:Id="b"></S12:Body>'.encode()

    def _messaging(self, inner):
        return (f'<eb:Messaging xmlns:S12="{S12}" xmlns:eb="{EB}" xmlns:wsu="{WSU}" S12:mustUnderstand="true" '
                f'wsu:Id="m">{inner}</eb:Messaging>')  # fmt: skip

    def send(self, header: str, payload: bytes) -> bytes:
        """A signed, encrypted, compressed message with one part, as a MIME body."""
        packed = igzip.compress(payload, 1, mtime=0)
        messaging = self._messaging(header)
        signed = etree.fromstring(messaging.encode())
        references = [
            self._reference("#m", EXC, hashlib.sha256(c14n(signed)).digest()),
            self._reference("#b", EXC, hashlib.sha256(self.BODY).digest()),
            self._reference("cid:p@x", SWA, hashlib.sha256(packed).digest()),
        ]
        content_key, iv = os.urandom(16), os.urandom(12)
        encrypted_key = (f'<xenc:EncryptedKey xmlns:xenc="{XENC}"><xenc:CipherValue>'
                         f'{b64encode(self._wrap(content_key)).decode()}</xenc:CipherValue></xenc:EncryptedKey>')  # fmt: skip
        envelope = self._envelope(messaging, encrypted_key + self._signature(references))
        part = iv + AESGCM(content_key).encrypt(iv, packed, None)
        return (b"--B\r\nContent-Type: application/soap+xml\r\n\r\n" + envelope
                + b"\r\n--B\r\nContent-ID: <p@x>\r\n\r\n" + part + b"\r\n--B--\r\n")  # fmt: skip

    def receive(self, body: bytes) -> bytes:
        """Open a message of `send` and return its signed receipt."""
        at = body.find(b"\r\n\r\n") + 4
        end = body.find(b"\r\n--B", at)
        envelope, start = body[at:end], body.find(b"\r\n\r\n", end) + 4
        part = body[start : body.rfind(b"\r\n--B--")]
        root, references, _ = self._verify(envelope)
        wrapped = b64decode(root.find(f".//{qn(XENC, 'CipherValue')}").text)
        packed = AESGCM(self._unwrap(wrapped)).decrypt(part[:12], part[12:], None)
        digest = references[-1].find(qn(DS, "DigestValue")).text
        assert hmac.compare_digest(hashlib.sha256(packed).digest(), b64decode(digest))
        inflater = isal_zlib.decompressobj(31)
        inflater.decompress(packed)
        assert inflater.eof
        copies = "".join(f"<e:MessagePartNRInformation>{c14n(r).decode()}</e:MessagePartNRInformation>" for r in references)
        messaging = self._messaging(f'<eb:Receipt><e:NonRepudiationInformation xmlns:e="urn:e">{copies}'
                                    '</e:NonRepudiationInformation></eb:Receipt>')  # fmt: skip
        signed = etree.fromstring(messaging.encode())
        return self._envelope(messaging, self._signature([
            self._reference("#m", EXC, hashlib.sha256(c14n(signed)).digest()),
            self._reference("#b", EXC, hashlib.sha256(self.BODY).digest()),
        ]))  # fmt: skip

    def check(self, receipt: bytes) -> None:
        """Verify a receipt of `receive`."""
        self._verify(receipt)

    def _verify(self, envelope):
        root = etree.fromstring(envelope, etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True))
        header, body = root[0], root[1]
        messaging, security = header[0], header[1]
        signature = security.find(qn(DS, "Signature"))
        info = signature.find(qn(DS, "SignedInfo"))
        token = security.find(qn(WSSE, "BinarySecurityToken"))
        certificate = x509.load_der_x509_certificate(b64decode(token.text))
        self._check(certificate.public_key(), b64decode(signature.find(qn(DS, "SignatureValue")).text), c14n(info))
        references = info.findall(qn(DS, "Reference"))
        for reference, node in zip(references, (messaging, body), strict=False):
            promised = b64decode(reference.find(qn(DS, "DigestValue")).text)
            assert hmac.compare_digest(hashlib.sha256(c14n(node)).digest(), promised)
        return root, references, messaging
