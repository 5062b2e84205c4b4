"""What the protocol core needs of a private key. A file, a database row or an HSM may stand behind."""

from typing import Protocol


class SigningKey(Protocol):
    """A key that signs for one of our parties.

    `certificate` is DER, `chain` DER certificates from the issuer upwards (may be empty).
    """

    @property
    def certificate(self) -> bytes: ...

    @property
    def chain(self) -> tuple[bytes, ...]: ...

    @property
    def algorithm(self) -> str:
        """The XML Signature URI this key signs with (`ns.RSA_SHA256` …)."""
        ...

    def sign(self, octets: bytes) -> bytes:
        """The SignatureValue in XML Signature encoding (ECDSA: r||s, not DER)."""
        ...


class DecryptionKey(Protocol):
    """A key that content keys are protected for."""

    @property
    def certificate(self) -> bytes: ...

    def unwrap_oaep(self, wrapped: bytes, *, digest: str, mgf: str) -> bytes:
        """RSA-OAEP with the hashes of these URIs and an empty label. Raises `ValueError`."""
        ...

    def agree(self, originator: bytes) -> bytes:
        """The shared secret with the public key in `originator` (SPKI DER). Raises `ValueError`."""
        ...
