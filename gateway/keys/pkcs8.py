"""Private keys in PKCS#8 and its successor [RFC 5208, 5958], encrypted or not.

The `cryptography` library does the work. It does not read version 2 of the structure,
which carries the public key as well and which Bouncy Castle writes for Ed25519 and
X25519; there the public key is taken out first.

Iteration counts are read before anything is derived from a password [threats K09].
"""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.serialization import load_der_private_key

from gateway.errors import CertificateRefused
from gateway.keys import der

#: OWASP advises 600,000 to 1,300,000 for PBKDF2 today; this many are about two seconds.
MAX_ITERATIONS = 5_000_000

_PBES2, _PBKDF2, _PBMAC1 = "1.2.840.113549.1.5.13", "1.2.840.113549.1.5.12", "1.2.840.113549.1.5.14"
_PKCS12_PBE = "1.2.840.113549.1.12.1."
_AES_CBC = {"2.16.840.1.101.3.4.1.2": 16, "2.16.840.1.101.3.4.1.22": 24, "2.16.840.1.101.3.4.1.42": 32}
_PRF = {
    "1.2.840.113549.2.7": hashes.SHA1(),  # noqa: S303 - the default of PBKDF2
    "1.2.840.113549.2.9": hashes.SHA256(),
    "1.2.840.113549.2.10": hashes.SHA384(),
    "1.2.840.113549.2.11": hashes.SHA512(),
}


def load(octets: bytes) -> PrivateKeyTypes:
    """A private key in DER. Raises `CertificateRefused`: damaged, unsupported-key."""
    try:
        return load_der_private_key(_version_1(octets), None)
    except UnsupportedAlgorithm as error:
        raise CertificateRefused("unsupported-key", str(error)) from None
    except (ValueError, TypeError) as error:
        raise CertificateRefused("damaged", f"private key: {error}") from None


def load_encrypted(octets: bytes, password: bytes) -> PrivateKeyTypes:
    """A private key in an EncryptedPrivateKeyInfo. Raises `CertificateRefused`: wrong-password, unsupported-key …"""
    judge_iterations(der.read(octets).expect(der.SEQUENCE).items()[0])
    try:
        return load_der_private_key(octets, password)
    except UnsupportedAlgorithm as error:
        raise CertificateRefused("unsupported-key", str(error)) from None
    except (ValueError, TypeError):
        plain = _decrypt(octets, password)
    if plain is None or plain == _version_1(plain):
        raise CertificateRefused("wrong-password", "wrong password for a private key, or it is damaged")
    return load(plain)


def judge_iterations(algorithm: der.Value) -> None:
    """Refuse an AlgorithmIdentifier whose key derivation would take too long, or is not known here."""
    name, *parameters = algorithm.items()
    oid = name.oid()
    if oid in (_PBES2, _PBMAC1):
        derivation = parameters[0].items()[0].items()
        if (function := derivation[0].oid()) != _PBKDF2:
            raise CertificateRefused("unsupported-format", f"key derivation {function}")
        judge(derivation[1].items()[1].integer())
    elif oid.startswith(_PKCS12_PBE):
        judge(parameters[0].items()[1].integer())


def judge(iterations: int) -> None:
    if not 1 <= iterations <= MAX_ITERATIONS:
        raise CertificateRefused("too-many-iterations", f"{iterations} iterations; at most {MAX_ITERATIONS} are done")


def _version_1(octets: bytes) -> bytes:
    """The same key without attributes and public key, if this is version 2; else the octets as they are."""
    version, *rest = der.read(octets).expect(der.SEQUENCE).items()
    if version.whole != b"\x02\x01\x01" or len(rest) < 2 or rest[0].tag != der.SEQUENCE:
        return octets
    content = b"\x02\x01\x00" + rest[0].whole + rest[1].whole
    return b"\x30" + _length(len(content)) + content


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([0x80 | len(octets)]) + octets


def _decrypt(octets: bytes, password: bytes) -> bytes | None:
    """The content of PBES2 with PBKDF2 and AES-CBC; None for other schemes and wrong passwords."""
    algorithm, sealed = der.read(octets).items()
    if algorithm.items()[0].oid() != _PBES2:
        return None
    derivation, cipher = algorithm.items()[1].items()
    salt, iterations, *options = derivation.items()[1].items()
    size = _AES_CBC.get(cipher.items()[0].oid())
    prf = options[-1].items()[0].oid() if options and options[-1].tag == der.SEQUENCE else "1.2.840.113549.2.7"
    if size is None or prf not in _PRF:
        return None
    key = PBKDF2HMAC(_PRF[prf], size, salt.content, iterations.integer()).derive(password)
    decryptor = Cipher(algorithms.AES(key), modes.CBC(cipher.items()[1].content)).decryptor()
    try:
        padded = decryptor.update(sealed.expect(der.OCTET_STRING).content) + decryptor.finalize()
    except ValueError:
        return None
    padding = padded[-1] if padded else 0
    plain = padded[: len(padded) - padding]
    if not 1 <= padding <= 16 or padded[len(plain) :] != bytes([padding]) * padding:
        return None
    try:
        der.read(plain).expect(der.SEQUENCE).items()
    except CertificateRefused:
        return None
    return plain
