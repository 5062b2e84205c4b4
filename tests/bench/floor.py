"""The protocol floor: what one message costs in cryptography, XML and gzip alone.

No HTTP, no database, no Structs, no policy, no certificate checks: the shortest program that
does on each message what the specification demands, on whole messages as they stand on the
wire. The product is measured beside it in the same run and the *ratio* is stated;
absolute figures move with the machine.

Received: split MIME, parse, unwrap the content key, open the part, hash, verify, gunzip,
build and sign the receipt, serialise. Sent: gzip, hash, wrap, encrypt, sign, serialise, MIME.
Checked: parse and verify a receipt.
"""

import hashlib
import hmac
import os
from base64 import b64decode, b64encode

from cryptography import x509
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from isal import igzip, isal_zlib
from lxml import etree

S12 = "http://www.w3.org/2003/05/soap-envelope"
EB = "http://docs.oasis-open.org/ebxml-msg/ebms/v3.0/ns/core/200704/"
EBBP = "http://docs.oasis-open.org/ebxml-bp/ebbp-signals-2.0"
DS = "http://www.w3.org/2000/09/xmldsig#"
DS_MORE = "http://www.w3.org/2021/04/xmldsig-more#"
DS11 = "http://www.w3.org/2009/xmldsig11#"
XENC, XENC11 = "http://www.w3.org/2001/04/xmlenc#", "http://www.w3.org/2009/xmlenc11#"
EXC = "http://www.w3.org/2001/10/xml-exc-c14n#"
OASIS = "http://docs.oasis-open.org/wss/"
WSS = OASIS + "2004/01/oasis-200401-wss-"
WSSE, WSU = WSS + "wssecurity-secext-1.0.xsd", WSS + "wssecurity-utility-1.0.xsd"
WSSE11 = OASIS + "oasis-wss-wssecurity-secext-1.1.xsd"
X509V3, BASE64 = WSS + "x509-token-profile-1.0#X509v3", WSS + "soap-message-security-1.0#Base64Binary"
KEY_TOKEN = OASIS + "oasis-wss-soap-message-security-1.1#EncryptedKey"
SWA = OASIS + "oasis-wss-SwAProfile-1.1#Attachment-"
OAEP = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
SIGNATURES = {"rsa": "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256", "ed25519": DS_MORE + "eddsa-ed25519"}


def qn(namespace, name):
    return f"{{{namespace}}}{name}"


_IDS = (qn(WSU, "Id"), "Id", "ID", "id", "{http://www.w3.org/XML/1998/namespace}id")


def c14n(element):
    return etree.tostring(element, method="c14n", exclusive=True, with_comments=False)


def parse(octets):
    return etree.fromstring(octets, etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True))


def digest_of(element):
    return hashlib.sha256(c14n(element)).digest()


def octets_of(element):
    return b64decode(element.text)


def token(certificate, name):
    return (f'<wsse:BinarySecurityToken EncodingType="{BASE64}" ValueType="{X509V3}" wsu:Id="{name}">'
            f'{b64encode(certificate).decode()}</wsse:BinarySecurityToken>')  # fmt: skip


def token_reference(name):
    return (f'<wsse:SecurityTokenReference><wsse:Reference URI="#{name}" ValueType="{X509V3}"></wsse:Reference>'
            "</wsse:SecurityTokenReference>")  # fmt: skip


def reference(uri, transform, digest):
    return (f'<ds:Reference URI="{uri}"><ds:Transforms><ds:Transform Algorithm="{transform}"></ds:Transform>'
            f'</ds:Transforms><ds:DigestMethod Algorithm="{XENC}sha256"></ds:DigestMethod><ds:DigestValue>'
            f'{b64encode(digest).decode()}</ds:DigestValue></ds:Reference>')  # fmt: skip


class Floor:
    """The bare operations of one party.

    `own` are its keys and `partner` those of whom it talks to (`tests.peer.Keys`), both of `suite`:
    rsa (2048, OAEP) or ed25519 (with X25519).
    """

    def __init__(self, suite: str, own, partner) -> None:
        self._suite, self._own = suite, own
        self._recipient = partner.encryption

    # -- the two suites -------------------------------------------------------------

    def _sign(self, octets):
        key = self._own.signing_private
        return key.sign(octets, padding.PKCS1v15(), SHA256()) if self._suite == "rsa" else key.sign(octets)

    def _check(self, key, value, octets):
        if self._suite == "rsa":
            key.verify(value, octets, padding.PKCS1v15(), SHA256())
        else:
            key.verify(value, octets)

    def _wrap(self, content_key):
        """The wrapped key, and what EncryptedKey says of how."""
        recipient = x509.load_der_x509_certificate(self._recipient).public_key()
        if self._suite == "rsa":
            return recipient.encrypt(content_key, OAEP), (
                f'<xenc:EncryptionMethod Algorithm="{XENC11}rsa-oaep"><ds:DigestMethod xmlns:ds="{DS}" '
                f'Algorithm="{XENC}sha256"></ds:DigestMethod><xenc11:MGF xmlns:xenc11="{XENC11}" '
                f'Algorithm="{XENC11}mgf1sha256"></xenc11:MGF></xenc:EncryptionMethod>'
                f'<ds:KeyInfo xmlns:ds="{DS}">{token_reference("recipient")}</ds:KeyInfo>'
            )
        ephemeral, salt = X25519PrivateKey.generate(), os.urandom(32)
        key = HKDF(SHA256(), 16, salt, b"").derive(ephemeral.exchange(recipient))
        originator = ephemeral.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return keywrap.aes_key_wrap(key, content_key), (
            f'<xenc:EncryptionMethod Algorithm="{XENC}kw-aes128"></xenc:EncryptionMethod><ds:KeyInfo xmlns:ds="{DS}">'
            f'<xenc:AgreementMethod Algorithm="{DS_MORE}x25519"><xenc11:KeyDerivationMethod xmlns:xenc11="{XENC11}" '
            f'Algorithm="{DS_MORE}hkdf"><dsigmore:HKDFParams xmlns:dsigmore="{DS_MORE}"><dsigmore:PRF '
            'Algorithm="http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"></dsigmore:PRF><dsigmore:Salt>'
            f'{b64encode(salt).decode()}</dsigmore:Salt><dsigmore:KeyLength>16</dsigmore:KeyLength>'
            '</dsigmore:HKDFParams></xenc11:KeyDerivationMethod><xenc:OriginatorKeyInfo><dsig11:DEREncodedKeyValue '
            f'xmlns:dsig11="{DS11}">{b64encode(originator).decode()}</dsig11:DEREncodedKeyValue>'
            f'</xenc:OriginatorKeyInfo><xenc:RecipientKeyInfo>{token_reference("recipient")}</xenc:RecipientKeyInfo>'
            "</xenc:AgreementMethod></ds:KeyInfo>"
        )  # fmt: skip

    def _unwrap(self, encrypted_key):
        wrapped = octets_of(encrypted_key.find(f"{qn(XENC, 'CipherData')}/{qn(XENC, 'CipherValue')}"))
        own = self._own.decryption_private
        if self._suite == "rsa":
            return own.decrypt(wrapped, OAEP)
        agreement = encrypted_key.find(f"{qn(DS, 'KeyInfo')}/{qn(XENC, 'AgreementMethod')}")
        salt, originator = agreement[0][0].find(qn(DS_MORE, "Salt")), agreement[1][0]
        shared = own.exchange(load_der_public_key(octets_of(originator)))
        return keywrap.aes_key_unwrap(HKDF(SHA256(), 16, octets_of(salt), b"").derive(shared), wrapped)

    # -- signing --------------------------------------------------------------------

    def _signed(self, content, parts, encryption=""):
        """The octets of an envelope with `content` in eb:Messaging, signed; `parts` are (cid, digest)."""
        envelope = parse(
            f'<S12:Envelope xmlns:S12="{S12}" xmlns:wsu="{WSU}"><S12:Header><eb:Messaging xmlns:eb="{EB}" '
            f'S12:mustUnderstand="true" wsu:Id="msg-{os.urandom(16).hex()}">{content}</eb:Messaging></S12:Header>'
            f'<S12:Body wsu:Id="body-{os.urandom(16).hex()}"/></S12:Envelope>'.encode()
        )  # fmt: skip
        header, body = envelope
        references = [reference("#" + e.get(qn(WSU, "Id")), EXC, digest_of(e)) for e in (header[0], body)]
        references += [reference("cid:" + cid, SWA + "Content-Signature-Transform", digest) for cid, digest in parts]
        info = (f'<ds:SignedInfo xmlns:ds="{DS}"><ds:CanonicalizationMethod Algorithm="{EXC}">'
                f'</ds:CanonicalizationMethod><ds:SignatureMethod Algorithm="{SIGNATURES[self._suite]}">'
                f'</ds:SignatureMethod>{"".join(references)}</ds:SignedInfo>')  # fmt: skip
        header.insert(0, etree.fromstring(
            f'<wsse:Security xmlns:wsse="{WSSE}" xmlns:wsse11="{WSSE11}" xmlns:wsu="{WSU}" xmlns:S12="{S12}" '
            f'S12:mustUnderstand="true">{encryption}{token(self._own.signing, "signer")}<ds:Signature xmlns:ds="{DS}">'
            f'{info}<ds:SignatureValue>{b64encode(self._sign(info.encode())).decode()}</ds:SignatureValue><ds:KeyInfo>'
            f'{token_reference("signer")}</ds:KeyInfo></ds:Signature></wsse:Security>'
        ))  # fmt: skip
        return etree.tostring(envelope)

    def send(self, content: str, cid: str, payload: bytes) -> bytes:
        """A signed, encrypted, compressed message with one part, as a MIME body.

        `content` is the eb:UserMessage, which names the part `cid`.
        """
        packed = igzip.compress(payload, 1, mtime=0)
        content_key, iv = os.urandom(16), os.urandom(12)
        wrapped, method = self._wrap(content_key)
        encryption = (
            f'{token(self._recipient, "recipient")}<xenc:EncryptedKey xmlns:xenc="{XENC}" Id="EK">{method}'
            f'<xenc:CipherData><xenc:CipherValue>{b64encode(wrapped).decode()}</xenc:CipherValue></xenc:CipherData>'
            '<xenc:ReferenceList><xenc:DataReference URI="#ED"></xenc:DataReference></xenc:ReferenceList>'
            f'</xenc:EncryptedKey><xenc:EncryptedData xmlns:xenc="{XENC}" Id="ED" MimeType="application/gzip" '
            f'Type="{SWA}Content-Only"><xenc:EncryptionMethod Algorithm="{XENC11}aes128-gcm"></xenc:EncryptionMethod>'
            f'<ds:KeyInfo xmlns:ds="{DS}"><wsse:SecurityTokenReference wsse11:TokenType="{KEY_TOKEN}"><wsse:Reference '
            'URI="#EK"></wsse:Reference></wsse:SecurityTokenReference></ds:KeyInfo><xenc:CipherData>'
            f'<xenc:CipherReference URI="cid:{cid}"><xenc:Transforms><ds:Transform xmlns:ds="{DS}" '
            f'Algorithm="{SWA}Ciphertext-Transform"></ds:Transform></xenc:Transforms></xenc:CipherReference>'
            "</xenc:CipherData></xenc:EncryptedData>"
        )  # fmt: skip
        envelope = self._signed(content, [(cid, hashlib.sha256(packed).digest())], encryption)
        boundary = b"=_" + os.urandom(16).hex().encode()
        return (
            b"--" + boundary + b"\r\nContent-Type: application/soap+xml; charset=UTF-8\r\nContent-Transfer-Encoding: "
            b"binary\r\nContent-ID: <root@floor>\r\n\r\n" + envelope + b"\r\n--" + boundary + b"\r\nContent-Type: "
            b"application/octet-stream\r\nContent-Transfer-Encoding: binary\r\nContent-ID: <" + cid.encode()
            + b">\r\n\r\n" + iv + AESGCM(content_key).encrypt(iv, packed, None) + b"\r\n--" + boundary + b"--\r\n"
        )  # fmt: skip

    # -- receiving ------------------------------------------------------------------

    def receive(self, body: bytes) -> bytes:
        """Open a message with one part, a MIME body; return its signed receipt."""
        delimiter = b"\r\n" + body[: body.index(b"\r\n")]
        first, second, _ = body.split(delimiter)
        octets, part = (piece.partition(b"\r\n\r\n")[2] for piece in (first, second))
        security, messaging, references = self._verified(octets)
        packed = AESGCM(self._unwrap(security.find(qn(XENC, "EncryptedKey")))).decrypt(part[:12], part[12:], None)
        assert hmac.compare_digest(hashlib.sha256(packed).digest(), octets_of(references[-1].find(qn(DS, "DigestValue"))))
        inflater = isal_zlib.decompressobj(31)
        inflater.decompress(packed)
        assert inflater.eof
        message_id = messaging.find(f"{qn(EB, 'UserMessage')}/{qn(EB, 'MessageInfo')}/{qn(EB, 'MessageId')}").text
        copies = "".join(f"<e:MessagePartNRInformation>{c14n(r).decode()}</e:MessagePartNRInformation>" for r in references)
        return self._signed(
            '<eb:SignalMessage><eb:MessageInfo><eb:Timestamp>2026-11-21T12:00:00.000Z</eb:Timestamp><eb:MessageId>'
            f'{os.urandom(16).hex()}@floor.example</eb:MessageId><eb:RefToMessageId>{message_id}</eb:RefToMessageId>'
            f'</eb:MessageInfo><eb:Receipt><e:NonRepudiationInformation xmlns:e="{EBBP}">{copies}'
            "</e:NonRepudiationInformation></eb:Receipt></eb:SignalMessage>", []
        )  # fmt: skip

    def check(self, receipt: bytes) -> None:
        """Verify a receipt, an envelope."""
        self._verified(receipt)

    def _verified(self, octets):
        """Security, Messaging and the references of a signed envelope."""
        root = parse(octets)
        header, body = root
        security, messaging = header.find(qn(WSSE, "Security")), header.find(qn(EB, "Messaging"))
        ids = {}
        for element in root.iter(etree.Element):
            for spelling in _IDS:
                if (name := element.get(spelling)) is not None:
                    assert ids.setdefault(name, element) is element
        signature = security.find(qn(DS, "Signature"))
        info, value, key_info = signature
        signer = ids[key_info[0][0].get("URI")[1:]]
        key = x509.load_der_x509_certificate(octets_of(signer)).public_key()
        self._check(key, octets_of(value), c14n(info))
        references = info.findall(qn(DS, "Reference"))
        for entry, node in zip(references, (messaging, body), strict=False):
            assert ids[entry.get("URI")[1:]] is node
            assert hmac.compare_digest(digest_of(node), octets_of(entry.find(qn(DS, "DigestValue"))))
        return security, messaging, references
