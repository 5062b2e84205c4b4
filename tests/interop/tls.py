"""Certificates for TLS on this machine."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.peer import Authority
from tests.world import key_pem, to_pem


def certificate(folder: Path, name: str, authority: Authority, *addresses: str) -> Path:
    """`name`.pem with a key and a certificate for `addresses` (127.0.0.1) and gateway.internal, good for both sides of TLS."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    der = (
        x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.name).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([
            *(x509.IPAddress(ipaddress.ip_address(a)) for a in addresses or ("127.0.0.1",)), x509.DNSName("gateway.internal"),
        ]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(authority.key, hashes.SHA256()).public_bytes(Encoding.DER)
    )
    path = folder / f"{name}.pem"
    path.write_bytes(key_pem(key) + to_pem(der))
    path.chmod(0o600)
    return path
