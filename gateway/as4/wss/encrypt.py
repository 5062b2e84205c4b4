"""Encrypt: parts with AES-GCM as they stream, and the content key for one recipient [as4 3.7-3.10].

A part becomes  IV (12 octets) | ciphertext | tag (16)  [xenc11 5.2.4]. Content key, IVs,
ephemeral key and salt are fresh for every message and attempt; a `PartSealer` works once,
because a key and an IV used twice give both plaintexts away [threats E13].
"""

from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.as4 import ns
from gateway.as4.pmode import TokenReference
from gateway.as4.profiles.profile import Profile
from gateway.as4.wss.algorithms import CONTENT_KEY_SIZES, curve_uri, encode_base64, oaep, public_key_of
from gateway.as4.wss.tokens import write_reference
from gateway.as4.xml import quoted
from gateway.errors import CertificateRefused, SendFailed

IV_SIZE = 12
TAG_SIZE = 16
#: What encryption adds to a part.
OVERHEAD = IV_SIZE + TAG_SIZE
SALT_SIZE = 32
KEK_SIZE = 16


class PartSealer:
    """Encrypt one part of `size` octets. Feed it blocks, then call `finish` once."""

    def __init__(self, content_key: bytes, iv: bytes, size: int) -> None:
        self._cipher = Cipher(algorithms.AES(content_key), modes.GCM(iv)).encryptor()
        self._iv: bytes = iv
        self._left = size

    def update(self, block: bytes) -> bytes:
        """The octets for the wire; the IV comes before the first."""
        self._left -= len(block)
        if self._left < 0:
            # The length is announced and the digest signed: more would break both.
            raise SendFailed("a payload is longer than when it was signed", temporary=False)
        iv, self._iv = self._iv, b""
        return iv + self._cipher.update(block)

    def finish(self) -> bytes:
        """The tag, after the last block."""
        if self._left:
            raise SendFailed("a payload is shorter than when it was signed", temporary=False)
        iv, self._iv = self._iv, b""
        return iv + self._cipher.finalize() + self._cipher.tag


def wrapping_key(shared: bytes, salt: bytes | None, info: bytes | None) -> bytes:
    """HKDF-HMAC-SHA256 to 16 octets. Absent salt is 32 zero octets, absent info is empty [as4 3.9]."""
    return HKDF(SHA256(), KEK_SIZE, salt or None, info or b"").derive(shared)


# -- the content key ------------------------------------------------------------

_ENCRYPTED_KEY = (
    f'<xenc:EncryptedKey xmlns:xenc="{ns.XENC}" Id="{{id}}">{{method}}'
    "<xenc:CipherData><xenc:CipherValue>{wrapped}</xenc:CipherValue></xenc:CipherData>"
    "<xenc:ReferenceList>{references}</xenc:ReferenceList></xenc:EncryptedKey>"
)
_TRANSPORT = (
    f'<xenc:EncryptionMethod Algorithm="{ns.RSA_OAEP}"><ds:DigestMethod xmlns:ds="{ns.DS}" Algorithm="{ns.SHA256}">'
    f'</ds:DigestMethod><xenc11:MGF xmlns:xenc11="{ns.XENC11}" Algorithm="{ns.MGF1_SHA256}"></xenc11:MGF>'
    f'</xenc:EncryptionMethod><ds:KeyInfo xmlns:ds="{ns.DS}">{{recipient}}</ds:KeyInfo>'
)
_AGREEMENT = (
    f'<xenc:EncryptionMethod Algorithm="{ns.KW_AES128}"></xenc:EncryptionMethod><ds:KeyInfo xmlns:ds="{ns.DS}">'
    f'<xenc:AgreementMethod Algorithm="{{algorithm}}"><xenc11:KeyDerivationMethod xmlns:xenc11="{ns.XENC11}" '
    f'Algorithm="{ns.HKDF}"><dsigmore:HKDFParams xmlns:dsigmore="{ns.DSIGMORE}">'
    f'<dsigmore:PRF Algorithm="{ns.HMAC_SHA256}"></dsigmore:PRF><dsigmore:Salt>{{salt}}</dsigmore:Salt>'
    f"<dsigmore:KeyLength>{KEK_SIZE}</dsigmore:KeyLength></dsigmore:HKDFParams></xenc11:KeyDerivationMethod>"
    "<xenc:OriginatorKeyInfo>{originator}</xenc:OriginatorKeyInfo>"
    "<xenc:RecipientKeyInfo>{recipient}</xenc:RecipientKeyInfo></xenc:AgreementMethod></ds:KeyInfo>"
)
_DATA_REFERENCE = '<xenc:DataReference URI="#{id}"></xenc:DataReference>'


def encrypted_key(
    content_key: bytes,
    recipient: bytes,
    profile: Profile,
    *,
    token: TokenReference,
    token_id: str,
    key_id: str,
    data_ids: Sequence[str],
    entropy: Callable[[int], bytes],
) -> tuple[str, str]:
    """(BinarySecurityToken or "", xenc:EncryptedKey): the content key for the DER certificate `recipient`.

    Raises `CertificateRefused` when its key does not fit the profile.
    """
    try:
        public = public_key_of(recipient)
    except ValueError as error:
        raise CertificateRefused("key", f"the recipient's key cannot be used: {error}") from None
    token_xml, str_xml = write_reference(token, recipient, (), token_id)
    if profile.key_protection == "key-transport":
        if not isinstance(public, rsa.RSAPublicKey):
            raise CertificateRefused("key-type", f"{profile.name} encrypts for RSA keys")
        wrapped = public.encrypt(content_key, oaep(ns.SHA256, ns.MGF1_SHA256))
        method = _TRANSPORT.format(recipient=str_xml)
    else:
        wrapped, method = _agreed(content_key, public, profile, str_xml, entropy)
    return token_xml, _ENCRYPTED_KEY.format(
        id=key_id,
        method=method,
        wrapped=encode_base64(wrapped),
        references="".join(_DATA_REFERENCE.format(id=id) for id in data_ids),
    )


def _agreed(
    content_key: bytes, public: PublicKeyTypes, profile: Profile, recipient: str, entropy: Callable[[int], bytes]
) -> tuple[bytes, str]:
    """Ephemeral-static agreement, HKDF, AES key wrap: a new key pair and a new salt each time."""
    if isinstance(public, x25519.X25519PublicKey) and ns.X25519 in profile.accept_agreement:
        algorithm, ephemeral = ns.X25519, x25519.X25519PrivateKey.generate()
        shared = ephemeral.exchange(public)
        spki = ephemeral.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        originator = (
            f'<dsig11:DEREncodedKeyValue xmlns:dsig11="{ns.DSIG11}">{encode_base64(spki)}</dsig11:DEREncodedKeyValue>'
        )
    elif (
        isinstance(public, ec.EllipticCurvePublicKey)
        and ns.ECDH_ES in profile.accept_agreement
        and curve_uri(public.curve) in profile.accept_curves
    ):
        algorithm, ephemeral = ns.ECDH_ES, ec.generate_private_key(public.curve)
        shared = ephemeral.exchange(ec.ECDH(), public)
        point = ephemeral.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        originator = (
            f'<ds:KeyValue><dsig11:ECKeyValue xmlns:dsig11="{ns.DSIG11}"><dsig11:NamedCurve '
            f'URI="{curve_uri(public.curve)}"></dsig11:NamedCurve><dsig11:PublicKey>{encode_base64(point)}'
            "</dsig11:PublicKey></dsig11:ECKeyValue></ds:KeyValue>"
        )
    else:
        raise CertificateRefused("key-type", f"{profile.name} does not agree on keys with the recipient's kind")
    salt = entropy(SALT_SIZE)
    wrapped = keywrap.aes_key_wrap(wrapping_key(shared, salt, None), content_key)
    return wrapped, _AGREEMENT.format(
        algorithm=algorithm, salt=encode_base64(salt), originator=originator, recipient=recipient
    )


# -- the parts ------------------------------------------------------------------

_ENCRYPTED_DATA = (
    f'<xenc:EncryptedData xmlns:xenc="{ns.XENC}" Id="{{id}}" MimeType={{mime_type}} Type="{ns.SWA_CONTENT_ONLY}">'
    '<xenc:EncryptionMethod Algorithm="{algorithm}"></xenc:EncryptionMethod>'
    f'<ds:KeyInfo xmlns:ds="{ns.DS}"><wsse:SecurityTokenReference wsse11:TokenType="{ns.TOKEN_ENCRYPTED_KEY}">'
    '<wsse:Reference URI="#{key_id}"></wsse:Reference></wsse:SecurityTokenReference></ds:KeyInfo>'
    '<xenc:CipherData><xenc:CipherReference URI="cid:{cid}"><xenc:Transforms>'
    f'<ds:Transform xmlns:ds="{ns.DS}" Algorithm="{ns.SWA_CIPHERTEXT}"></ds:Transform>'
    "</xenc:Transforms></xenc:CipherReference></xenc:CipherData></xenc:EncryptedData>"
)


def encrypted_data(data_id: str, key_id: str, cid: str, mime_type: str, algorithm: str) -> str:
    """xenc:EncryptedData for one part; `mime_type` is the part's media type when it was signed.

    `cid` has been through `sign.part_reference`.
    """
    return _ENCRYPTED_DATA.format(id=data_id, key_id=key_id, cid=cid, mime_type=quoted(mime_type), algorithm=algorithm)


def new_content_key(profile: Profile, entropy: Callable[[int], bytes]) -> bytes:
    return entropy(CONTENT_KEY_SIZES[profile.send_encryption])
