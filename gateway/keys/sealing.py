"""What lies in the database is sealed: payloads under a key per message, secrets under one per name.

    key-encryption key ── HMAC(purpose, name) ─→ a key of its own for every message and secret
                                                  └ wraps the message key (AES-KW), or seals the secret (AES-GCM)
    message key (random, 32 octets) ── AES-256-GCM ─→ every chunk of its payloads

Deriving a key for each wrap binds the wrapped key to its message and leaves no nonce that
could run out or repeat under the one long-lived key. A chunk is bound to version, message,
part and number, so that rows cannot be exchanged unnoticed [threats M06]. Purging a message
deletes its wrapped key, and with it every copy of its payloads, in backups too [threats M08].

Wrapped keys and sealed secrets start with a version octet and name the key-encryption key they
need, so that a new one can stand beside the old ones.
"""

import base64
import binascii
import contextlib
import hmac
import os
import stat
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from gateway.config import Config, Secret
from gateway.errors import ConfigError, KeyUnavailable

KEY_SIZE = 32
NONCE_SIZE = 12
TAG_SIZE = 16
ID_SIZE = 8
#: File in the data folder, for nodes with a database of their own.
DEFAULT_FILE = "key-encryption-key"

_VERSION = b"\x01"
_ID = b"oots-as4-gateway key id"
_MESSAGE = b"oots-as4-gateway message key\0"
_SECRET = b"oots-as4-gateway secret\0"


class KeyEncryptionKey:
    """The site's key that seals all other secrets. `previous` ones still open what they sealed."""

    __slots__ = ("_keys", "id")

    def __init__(self, octets: bytes, previous: Sequence[bytes] = ()) -> None:
        for key in (octets, *previous):
            if len(key) != KEY_SIZE:
                raise KeyUnavailable(f"a key-encryption key has {KEY_SIZE} octets")
        self._keys = {_id(key): key for key in (*reversed(previous), octets)}
        #: Names the key without telling anything about it.
        self.id = _id(octets)

    @classmethod
    def load(cls, reference: Secret, previous: Sequence[Secret] = ()) -> "KeyEncryptionKey":
        """From where the configuration says. Raises `ConfigError`."""
        return cls(_key_from(reference), [_key_from(older) for older in previous])

    def __repr__(self) -> str:
        return f"KeyEncryptionKey(id={self.id.hex()})"

    def has(self, id: bytes) -> bool:
        """Whether what the key-encryption key of that name sealed can be opened here."""
        return id in self._keys

    # -- message keys -----------------------------------------------------------

    def wrap(self, message_key: bytes, message_id: str) -> bytes:
        """The message key, to be stored beside the message. 49 octets."""
        key = _derive(self._keys[self.id], _MESSAGE, message_id)
        return _VERSION + self.id + aes_key_wrap(key, message_key)

    def unwrap(self, wrapped: bytes, message_id: str) -> bytes:
        """The message key. Raises `KeyUnavailable`: other key-encryption key, other message, changed."""
        key = _derive(self._named(wrapped), _MESSAGE, message_id)
        try:
            return aes_key_unwrap(key, wrapped[1 + ID_SIZE :])
        except (InvalidUnwrap, ValueError):
            raise KeyUnavailable(f"the wrapped key of message {message_id} was changed") from None

    # -- secrets ----------------------------------------------------------------

    def seal_secret(self, secret: bytes, name: str) -> bytes:
        """A secret, to be stored under `name`."""
        nonce = os.urandom(NONCE_SIZE)
        key = AESGCM(_derive(self._keys[self.id], _SECRET, name))
        return _VERSION + self.id + nonce + key.encrypt(nonce, secret, _VERSION)

    def open_secret(self, sealed: bytes, name: str) -> bytes:
        """The secret. Raises `KeyUnavailable`."""
        key = AESGCM(_derive(self._named(sealed), _SECRET, name))
        nonce, octets = sealed[1 + ID_SIZE :][:NONCE_SIZE], sealed[1 + ID_SIZE + NONCE_SIZE :]
        try:
            return key.decrypt(nonce, octets, _VERSION)
        except (InvalidTag, ValueError):
            raise KeyUnavailable(f"the sealed secret {name} was changed") from None

    def _named(self, sealed: bytes) -> bytes:
        id = bytes(sealed[1 : 1 + ID_SIZE])
        if sealed[:1] != _VERSION or id not in self._keys:
            raise KeyUnavailable(f"sealed with another key-encryption key ({id.hex()}); this node has {self.id.hex()}")
        return self._keys[id]


def new_message_key(entropy: Callable[[int], bytes]) -> bytes:
    """A fresh key for the payloads of one message."""
    return entropy(KEY_SIZE)


def seal_chunk(message_key: bytes, message_id: str, part: int, number: int, octets: bytes) -> bytes:
    """One chunk of a payload, sealed: 16 octets more than came in.

    A place (part, number) is sealed under one key with one content: the key is made for one
    message, whose payloads do not change.
    """
    nonce = _nonce(part, number, len(octets))
    return AESGCM(message_key).encrypt(nonce, octets, _bound_to(message_id, part, number))


def open_chunk(message_key: bytes, message_id: str, part: int, number: int, sealed: bytes) -> bytes:
    """The octets of a chunk. Raises `KeyUnavailable` when it is not the one that was sealed for this place."""
    try:
        nonce = _nonce(part, number, max(0, len(sealed) - TAG_SIZE))
        return AESGCM(message_key).decrypt(nonce, sealed, _bound_to(message_id, part, number))
    except (InvalidTag, ValueError):
        raise KeyUnavailable(f"chunk {number} of part {part} of message {message_id} was changed") from None


def _nonce(part: int, number: int, size: int) -> bytes:
    # With the size in it, content that was sealed as one small piece first and as a full chunk
    # later does not meet the same nonce. A random one would cost a second copy of every chunk.
    return part.to_bytes(2) + number.to_bytes(4) + size.to_bytes(6)


def _bound_to(message_id: str, part: int, number: int) -> bytes:
    return _VERSION + struct.pack(">HI", part, number) + message_id.encode()


def load(config: Config) -> KeyEncryptionKey:
    """The key the configuration means. Raises `ConfigError`.

    A node with a database of its own gets one in its data folder at the first call. Where
    nodes share a database the configuration has to name it (`Config.load` sees to that):
    otherwise each would make a key that the others do not have.
    """
    keys = config.keys
    if keys.key_encryption_key is not None:
        return KeyEncryptionKey.load(keys.key_encryption_key, keys.previous_key_encryption_keys)
    path = config.data.folder / DEFAULT_FILE
    if not path.exists():
        with contextlib.suppress(FileExistsError):  # another process of this node was quicker
            _create(path, os.urandom)
    return KeyEncryptionKey.load(Secret("file", str(path)), keys.previous_key_encryption_keys)


def create_file(path: Path, entropy: Callable[[int], bytes] = os.urandom) -> None:
    """A new key-encryption key in a file of its own, mode 0600. Raises `ConfigError` if there is one already."""
    try:
        _create(path, entropy)
    except FileExistsError:
        raise ConfigError("is there already; a key-encryption key is never overwritten", file=str(path)) from None
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", file=str(path)) from None


def _create(path: Path, entropy: Callable[[int], bytes]) -> None:
    """Whole or not at all, and durable: losing this file in a power cut would lose every message after it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64encode(entropy(KEY_SIZE)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike rename it does not replace
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _key_from(reference: Secret) -> bytes:
    if reference.scheme == "file":
        _check_mode(Path(reference.target))
    octets = reference.octets()
    if len(octets) == KEY_SIZE:
        return octets
    text = octets.strip()
    try:
        if len(text) == 2 * KEY_SIZE:
            return bytes.fromhex(text.decode())
        key = base64.b64decode(text.translate(bytes.maketrans(b"-_", b"+/")) + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_SIZE:
        raise ConfigError(
            f"is not a key-encryption key: {KEY_SIZE} octets are needed, raw, hexadecimal or base64",
            key=str(reference), hint="make one: openssl rand -base64 32",
        )  # fmt: skip
    return key


def _check_mode(path: Path) -> None:
    """Refuse a key file that everybody on the machine can read."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # reading it will tell
    if stat.S_ISREG(mode) and mode & 0o007:
        raise ConfigError("can be read or changed by everybody", file=str(path), hint=f"chmod 600 {path}")


def _derive(key: bytes, purpose: bytes, name: str) -> bytes:
    return hmac.digest(key, purpose + name.encode(), "sha256")


def _id(key: bytes) -> bytes:
    return hmac.digest(key, _ID, "sha256")[:ID_SIZE]
