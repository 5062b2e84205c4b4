"""Keys that never leave a PKCS#11 token: they sign, unwrap and agree there.

A key is named by a PKCS#11 URI [RFC 7512] of which `token`, `object` and `id` are read:
`pkcs11:token=gateway;object=lv-2027`. There is no way around the token: what it cannot do fails, and a token that is
gone is `KeyUnavailable`, in whichever process notices. Each process has one session of a token, with the handles found
in it; it serves one call at a time and is made anew when it breaks. More processes are how more is done at once.

Calls block, some for milliseconds, those over a network for longer: whoever has a loop to care for makes them
in a thread (`Keyring.remote`).

Some tokens know RSA-OAEP with SHA-1 only, and eDelivery wants SHA-256. There the token does the RSA operation itself
(CKM_RSA_X_509) and the padding is taken off here, without telling by its time where it is wrong.
"""

import contextlib
import hashlib
import hmac
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from gateway.as4 import ns
from gateway.config import Token as TokenSettings
from gateway.errors import ConfigError, KeyUnavailable

try:
    import pkcs11
    from pkcs11 import KDF, MGF, Attribute, KeyType, Mechanism, ObjectClass
    from pkcs11.exceptions import (
        ArgumentsBad,
        FunctionNotSupported,
        MechanismInvalid,
        MechanismParamInvalid,
        PKCS11Error,
        UserAlreadyLoggedIn,
    )
except ImportError as error:
    raise ConfigError(
        "tokens need a library that is not installed", key="keys.tokens", hint='pip install "oots-as4-gateway[pkcs11]"'
    ) from error

T = TypeVar("T")

#: The library initialises modules without locks of their own (C_Initialize without arguments).
_one_at_a_time = threading.Lock()
_HASHES = {ns.SHA256: ("sha256", Mechanism.SHA256), "http://www.w3.org/2000/09/xmldsig#sha1": ("sha1", Mechanism.SHA_1)}
_MGFS = {ns.MGF1_SHA256: ("sha256", MGF.SHA256), ns.MGF1_SHA1: ("sha1", MGF.SHA1)}
#: What a token says that does not know these parameters of OAEP.
_UNKNOWN = (ArgumentsBad, MechanismInvalid, MechanismParamInvalid, FunctionNotSupported)

#: Errors that are about what was to be opened; and those that some tokens use for that, and others for anything:
#: in a new session that found the key they are about the content, too.
_ABOUT_CONTENT = ("EncryptedData", "Data")
_VAGUE = ("GeneralError", "FunctionFailed")


class Tokens:
    """The tokens of the configuration, opened when a key in one is first asked for."""

    def __init__(self, settings: Iterable[TokenSettings]) -> None:
        self._settings = {one.token: one for one in settings}
        self._open: dict[str, _Token] = {}

    def key(self, name: str, certificate: bytes, chain: tuple[bytes, ...] = ()) -> "TokenKey":
        """The key of that URI, which belongs to the certificate (DER). Raises `KeyUnavailable`, `ConfigError`."""
        label, found = _parsed(name)
        if label not in self._settings:
            known = ", ".join(sorted(self._settings)) or "none"
            raise KeyUnavailable(f"the configuration has no token {label!r} (keys.tokens: {known})")
        if label not in self._open:
            self._open[label] = _Token(self._settings[label])
        key = TokenKey(self._open[label], found, certificate, chain)
        key.find()
        return key


class TokenKey:
    """A `SigningKey` and `DecryptionKey` whose private part is in a token."""

    __slots__ = ("_find", "_public", "_raw_oaep", "_token", "algorithm", "certificate", "chain")
    #: Calls may take long.
    remote = True

    def __init__(self, token: "_Token", find: tuple, certificate: bytes, chain: tuple[bytes, ...]) -> None:
        self._token, self._find, self.certificate, self.chain = token, find, certificate, chain
        self._public = x509.load_der_x509_certificate(certificate).public_key()
        self._raw_oaep = False
        match self._public:
            case rsa.RSAPublicKey():
                self.algorithm = ns.RSA_SHA256
            case ec.EllipticCurvePublicKey():
                self.algorithm = ns.ECDSA_SHA256
            case ed25519.Ed25519PublicKey():
                self.algorithm = ns.ED25519
            case _:
                raise KeyUnavailable("a key of this type is not used from a token")

    def __repr__(self) -> str:
        return f"TokenKey({self._token.label!r}, {dict(self._find)})"

    def find(self) -> None:
        """Raises `KeyUnavailable` unless the token has it."""
        self._call(lambda key: None)

    def sign(self, octets: bytes) -> bytes:
        """The SignatureValue; for ECDSA r||s, which is what tokens give. Raises `KeyUnavailable`."""
        match self._public:
            case rsa.RSAPublicKey():
                return self._call(lambda key: key.sign(octets, mechanism=Mechanism.SHA256_RSA_PKCS))
            case ec.EllipticCurvePublicKey():
                digest = hashlib.sha256(octets).digest()
                return self._call(lambda key: key.sign(digest, mechanism=Mechanism.ECDSA))
        return self._call(lambda key: key.sign(octets, mechanism=Mechanism.EDDSA))

    def unwrap_oaep(self, wrapped: bytes, *, digest: str, mgf: str) -> bytes:
        """RSA-OAEP. Raises `ValueError` for what cannot be opened, `KeyUnavailable` when the token fails."""
        public = self._public
        if not isinstance(public, rsa.RSAPublicKey) or digest not in _HASHES or mgf not in _MGFS:
            raise ValueError("not for this key")
        if len(wrapped) != (public.key_size + 7) // 8:
            raise ValueError("not as long as the key")
        (hash_name, mechanism), (mgf_name, mask) = _HASHES[digest], _MGFS[mgf]
        if not self._raw_oaep:
            parameters = (mechanism, mask, None)
            try:
                return self._call(
                    lambda key: key.decrypt(wrapped, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=parameters),
                    opening=True,
                )
            except _UNKNOWN:
                self._raw_oaep = True
        try:
            padded = self._call(lambda key: key.decrypt(wrapped, mechanism=Mechanism.RSA_X_509), opening=True)
        except _UNKNOWN:
            what = f"neither OAEP with {hash_name} nor raw RSA"
            raise KeyUnavailable(f"the token {self._token.label!r} knows {what}") from None
        return _unpadded(padded.rjust(len(wrapped), b"\0"), hash_name, mgf_name)

    def agree(self, originator: bytes) -> bytes:
        """ECDH on the curve of our key; the x-coordinate in full length. Raises `ValueError`, `KeyUnavailable`."""
        try:
            theirs = load_der_public_key(originator)
        except Exception as error:  # cryptography has several for what is no key
            raise ValueError(str(error)) from None
        ours = self._public
        if not (isinstance(ours, ec.EllipticCurvePublicKey) and isinstance(theirs, ec.EllipticCurvePublicKey)):
            raise ValueError("not for this key")
        if theirs.curve.name != ours.curve.name:
            raise ValueError("another curve")
        point = theirs.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        size = (ours.curve.key_size + 7) // 8
        # The secret is taken out at once; the token need not keep what is used a single time.
        template = {Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True, Attribute.TOKEN: False}

        def derive(key: Any) -> bytes:
            secret = key.derive_key(
                KeyType.GENERIC_SECRET, size * 8, mechanism=Mechanism.ECDH1_DERIVE,
                mechanism_param=(KDF.NULL, None, point), template=template,
            )  # fmt: skip
            try:
                return secret[Attribute.VALUE]
            finally:
                secret.destroy()

        return self._call(derive).rjust(size, b"\0")

    def _call(self, do: Callable[[Any], T], *, opening: bool = False) -> T:
        return self._token.call(self._find, do, opening=opening)


class _Token:
    """One token: its session, logged in, and the handles that were found in it."""

    def __init__(self, settings: TokenSettings) -> None:
        self._settings, self.label = settings, settings.token
        self._session: Any = None
        self._handles: dict[tuple, Any] = {}

    def call(self, find: tuple, do: Callable[[Any], T], *, opening: bool = False) -> T:
        """`do(key)`, in a new session if the one there is broken. Raises `KeyUnavailable`; `opening`: also
        `ValueError` for what the token says of the content, and `_UNKNOWN` as they are."""
        with _one_at_a_time:
            for again in (True, False):
                try:
                    return do(self._key(find))
                except AttributeError:  # how the library says that the object may not
                    raise KeyUnavailable(f"the token does not let the key {_told(find)} do that") from None
                except _UNKNOWN:
                    if opening:
                        raise
                    raise KeyUnavailable(f"the token {self.label!r} cannot do that with its key") from None
                except PKCS11Error as error:
                    name = type(error).__name__
                    if opening and (name.startswith(_ABOUT_CONTENT) or (not again and name in _VAGUE)):
                        raise ValueError("cannot be opened") from None
                    self._drop()
                    if not again or name.startswith("Pin"):
                        raise KeyUnavailable(f"the token {self.label!r}: {name} {error}".rstrip()) from None
        raise AssertionError("unreachable")

    def _key(self, find: tuple) -> Any:
        if self._session is None:
            token = self._found()
            try:
                self._session = token.open(user_pin=self._settings.pin.line().decode())
            except UserAlreadyLoggedIn:  # in another session of this process: it is logged in for all of them
                self._session = token.open()
        if find not in self._handles:
            found = list(self._session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY} | dict(find)))
            if len(found) != 1:
                what = "no private key" if not found else "more than one private key"
                raise KeyUnavailable(f"the token has {what} {_told(find)}")
            self._handles[find] = found[0]
        return self._handles[find]

    def _found(self) -> Any:
        module = str(self._settings.module)
        try:
            library = pkcs11.lib(module)
        except (RuntimeError, PKCS11Error) as error:
            what = str(error) or type(error).__name__
            raise KeyUnavailable(f"the PKCS#11 module {module} cannot be used: {what}") from None
        try:
            return library.get_token(token_label=self.label)
        except PKCS11Error as error:
            raise KeyUnavailable(f"there is no token {self.label!r} ({type(error).__name__})") from None

    def _drop(self) -> None:
        session, self._session, self._handles = self._session, None, {}
        with contextlib.suppress(PKCS11Error):  # that is why it is dropped
            if session is not None:
                session.close()


def _parsed(name: str) -> tuple[str, tuple]:
    """Token label and search attributes of a URI. Raises `KeyUnavailable`."""
    scheme, _, path = name.partition(":")
    facts = dict(part.partition("=")[::2] for part in path.partition("?")[0].split(";") if part)
    if scheme != "pkcs11" or "token" not in facts or not ({"object", "id"} & facts.keys()):
        raise KeyUnavailable(f"{name!r} is no name such as pkcs11:token=LABEL;object=LABEL")
    find = []
    if "object" in facts:
        find.append((Attribute.LABEL, unquote(facts["object"])))
    if "id" in facts:
        find.append((Attribute.ID, unquote(facts["id"], "latin-1").encode("latin-1")))
    return unquote(facts["token"]), tuple(find)


def _told(find: tuple) -> str:
    return " and ".join(f"with {attribute.name.lower()} {value!r}" for attribute, value in find)


def _unpadded(padded: bytes, digest: str, mgf: str) -> bytes:
    """Take OAEP off [RFC 8017 7.1.2 step 3]. One error for all that can be wrong, after all was looked at."""
    size = hashlib.new(digest).digest_size
    masked_seed, masked = padded[1 : 1 + size], padded[1 + size :]
    seed = _xor(masked_seed, _mask(masked, size, mgf))
    block = _xor(masked, _mask(seed, len(masked), mgf))
    wrong = padded[0] | (not hmac.compare_digest(block[:size], hashlib.new(digest).digest()))
    # The first 1 after zeros, found without stopping at it.
    start, seen = 0, 0
    for place in range(size, len(block)):
        one, zero = block[place] == 1, block[place] == 0
        start += (1 - seen) * one * (place + 1)
        wrong |= (1 - seen) * (1 - one) * (1 - zero)
        seen |= one
    if wrong or not seen:
        raise ValueError("cannot be opened")
    return block[start:]


def _mask(seed: bytes, size: int, digest: str) -> bytes:
    count = -(-size // hashlib.new(digest).digest_size)
    return b"".join(hashlib.new(digest, seed + n.to_bytes(4)).digest() for n in range(count))[:size]


def _xor(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a) ^ int.from_bytes(b)).to_bytes(len(a))
