"""Key stores of other programs are read, and what is wrong with a file has a name of its own."""

import base64
import hashlib
import os
import shutil
import struct
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs7,
    pkcs12,
)
from cryptography.x509 import load_der_x509_certificate
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import CertificateRefused
from gateway.keys import der, jks, pkcs8
from gateway.keys.development import make_development
from gateway.keys.formats import MAX_SIZE, certificates, read_keystore

WIRE = Path(__file__).parents[2] / "vectors/phase4-4.5.4-wire"
#: Stores that other programs made and that do not travel with this repository.
SHARED = Path(__file__).parents[4] / "shared/vectors"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the vectors of other programs are not here")
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
needs_keytool = pytest.mark.skipif(not shutil.which("keytool"), reason="keytool is not installed")


def seen(entries) -> list[tuple[str, str, int]]:
    return [(e.alias, type(e.private_key).__name__.removesuffix("PrivateKey"), len(e.chain)) for e in entries]


def reason(octets: bytes, password: bytes | None = b"x", **how) -> str:
    with pytest.raises(CertificateRefused) as refused:
        read_keystore(octets, password, **how)
    return refused.value.reason


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs")
    return make_development(folder, ["A"], now=datetime.now(UTC), suites=["rsa", "eddsa", "ecdsa"])


@pytest.fixture(scope="module")
def rsa_entry(made):
    return read_keystore(made.parties[0].keys.read_bytes())[0]


@pytest.fixture(scope="module")
def eddsa_pem(made):
    return made.parties[1].keys.read_bytes()


# -- stores that other programs made -----------------------------------------------


@pytest.mark.parametrize(("suite", "kinds"), [
    ("edelivery1-rsa2048", ["RSA"]), ("edelivery2-eddsa", ["Ed25519", "X25519"]), ("edelivery2-ecdsa", ["EC", "EC"]),
])
@pytest.mark.parametrize("side", ["a", "b"])
def test_both_keys_of_a_party_are_found(suite, kinds, side):
    """A PKCS#12 of an eDelivery 2.0 party holds two keys; the library alone would give one."""
    folder = WIRE / suite / "keys"
    entries = read_keystore((folder / f"{side}.p12").read_bytes(), b"test1234")
    assert [k for _, k, _ in seen(entries)] == kinds
    assert [e.alias for e in entries] == ["sign", "enc"][: len(kinds)]
    for entry, name in zip(entries, ("sign", "enc"), strict=False):
        (pinned,) = read_keystore((folder / f"{side}-{name}.cert.pem").read_bytes())
        assert entry.certificate == pinned.certificate
        (ca,) = read_keystore((folder / "ca.cert.pem").read_bytes())
        assert entry.chain == (ca.certificate,)


@pytest.mark.parametrize("suite", ["edelivery1-rsa2048", "edelivery2-eddsa", "edelivery2-ecdsa"])
def test_a_truststore_has_certificates_only(suite):
    entries = read_keystore((WIRE / suite / "keys/trust.p12").read_bytes(), b"test1234")
    assert all(e.private_key is None and e.certificate for e in entries)
    assert {"ca", "a-sign", "b-sign"} <= {e.alias for e in entries}


@needs_shared
@pytest.mark.parametrize(("file", "password", "expected"), [
    ("phase4/keys/dummy-pw-test.jks", b"test", [("ph-as4", "RSA", 0)]),
    ("domibus-harmony/keys/gateway_keystore.jks", b"test123", [("blue_gw", "RSA", 0), ("red_gw", "RSA", 0)]),
    ("domibus-harmony/keys/expired_gateway_keystore.jks", b"test123", [("blue_gw", "RSA", 0), ("red_gw", "RSA", 0)]),
    ("domibus-harmony/keys/blue_gw.p12", b"test123", [("blue_gw", "RSA", 0)]),
    ("wss4j/keys/wss-ecdh.p12", b"security", [
        ("issuer-ca", "Ed25519", 0), ("x25519", "X25519", 1), ("x448", "X448", 1),
        ("secp521r1", "EC", 1), ("secp256r1", "EC", 1), ("secp384r1", "EC", 1)]),
    ("wss4j/keys/wss-eddsa.p12", b"security", [("ed25519", "Ed25519", 0), ("ed448", "Ed448", 0)]),
    # Written by Bouncy Castle: PKCS#8 version 2 with the public key inside.
    ("santuario/keys/eddsa.p12", b"security", [("ed25519", "Ed25519", 0), ("ed448", "Ed448", 0)]),
    # The key bag is in the encrypted safe.
    ("santuario/keys/RSA-2048_SHA256WithRSA.p12", b"passwd", [("RSA-2048_SHA256WithRSA", "RSA", 0)]),
])
def test_foreign_stores(file, password, expected):
    entries = read_keystore((SHARED / file).read_bytes(), password)
    assert seen(entries) == expected
    for entry in entries:
        assert load_der_x509_certificate(entry.certificate).public_key() == entry.private_key.public_key()


@needs_shared
def test_a_store_with_a_broken_certificate_is_damaged_not_locked():
    octets = (SHARED / "santuario/keys/EC-P256_SHA256WithECDSA-v02.p12").read_bytes()
    assert reason(octets, b"passwd") == "damaged"


# -- JKS ---------------------------------------------------------------------------


def utf16(password: str) -> bytes:
    return password.encode("utf-16-be")


def text(value: str) -> bytes:
    octets = value.encode("utf-8")
    return struct.pack(">H", len(octets)) + octets


def protect(pkcs8_: bytes, password: str) -> bytes:
    """Sun's key protector, written from its description, for stores of our own."""
    salt = os.urandom(20)
    stream, block = b"", salt
    while len(stream) < len(pkcs8_):
        block = hashlib.sha1(utf16(password) + block).digest()
        stream += block
    octets = salt + bytes(a ^ b for a, b in zip(pkcs8_, stream, strict=False))
    octets += hashlib.sha1(utf16(password) + pkcs8_).digest()
    algorithm = bytes.fromhex("300e060a2b060104012a021101010500")
    return tlv(0x30, algorithm + tlv(4, octets))


def tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else (lambda o: bytes([0x80 | len(o)]) + o)(
        size.to_bytes((size.bit_length() + 7) // 8))  # fmt: skip
    return bytes([tag]) + length + content


def store(*entries: bytes, password: str = "pw", version: int = 2, count: int | None = None) -> bytes:
    body = jks.MAGIC + struct.pack(">II", version, len(entries) if count is None else count) + b"".join(entries)
    return body + hashlib.sha1(utf16(password) + b"Mighty Aphrodite" + body).digest()


def trusted(alias: str, certificate: bytes, version: int = 2, kind: str = "X.509") -> bytes:
    head = struct.pack(">I", 2) + text(alias) + bytes(8) + (text(kind) if version == 2 else b"")
    return head + struct.pack(">I", len(certificate)) + certificate


def private(alias: str, key: bytes, *chain: bytes) -> bytes:
    octets = struct.pack(">I", 1) + text(alias) + bytes(8) + struct.pack(">I", len(key)) + key
    octets += struct.pack(">I", len(chain))
    return octets + b"".join(text("X.509") + struct.pack(">I", len(c)) + c for c in chain)


class TestJks:
    @pytest.mark.parametrize("version", [1, 2])
    def test_truststore(self, rsa_entry, version):
        octets = store(trusted("ap_lv_01 ā", rsa_entry.certificate, version), version=version)
        (entry,) = read_keystore(octets, b"pw")
        assert (entry.alias, entry.certificate, entry.private_key) == ("ap_lv_01 ā", rsa_entry.certificate, None)

    def test_private_key_with_chain(self, rsa_entry):
        key = rsa_entry.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        octets = store(trusted("peer", rsa_entry.chain[0]), private("own", protect(key, "pw"), rsa_entry.certificate,
                                                                    *rsa_entry.chain))
        entries = read_keystore(octets, b"pw")
        assert seen(entries) == [("own", "RSA", 1), ("peer", "NoneType", 0)]
        assert entries[0].private_key.public_key() == rsa_entry.private_key.public_key()

    def test_a_key_may_have_another_password(self, rsa_entry):
        key = rsa_entry.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        octets = store(private("own", protect(key, "other"), rsa_entry.certificate))
        assert reason(octets, b"pw") == "wrong-password"
        assert read_keystore(octets, b"pw", key_password=b"other")[0].private_key is not None

    def test_a_key_with_a_foreign_certificate(self, rsa_entry):
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.DER, PrivateFormat.PKCS8, NoEncryption())  # fmt: skip
        octets = store(private("own", protect(key, "pw"), rsa_entry.certificate))
        assert reason(octets, b"pw") == "key-certificate-mismatch"

    def test_wrong_password_truncated_and_changed_are_told_apart(self, rsa_entry):
        octets = store(trusted("a", rsa_entry.certificate))
        assert reason(octets, b"wrong") == "wrong-password"
        assert reason(octets, None) == "password-needed"
        assert reason(octets, b"\xff") == "wrong-password"
        for cut in range(12, len(octets), 37):
            assert reason(octets[:cut], b"pw") == "truncated"
        for at in range(12, len(octets), 41):
            assert reason(octets[:at] + bytes([octets[at] ^ 0x40]) + octets[at + 1 :], b"pw") in (
                "wrong-password", "truncated", "damaged", "too-large", "unsupported-format"
            )  # fmt: skip

    def test_what_only_looks_like_a_store(self, rsa_entry):
        certificate = rsa_entry.certificate
        assert reason(store(trusted("a", certificate), count=2), b"pw") == "damaged"
        assert reason(store(trusted("a", certificate), count=0), b"pw") == "damaged"
        assert reason(store(version=3), b"pw") == "unsupported-format"
        assert reason(store(count=100_000), b"pw") == "too-large"
        assert reason(store(trusted("a", certificate, kind="PGP")), b"pw") == "unsupported-format"
        assert reason(store(trusted("a", b"rubbish")), b"pw") == "damaged"
        assert reason(store(struct.pack(">I", 3) + text("s") + bytes(8)), b"pw") == "damaged"
        assert reason(store(private("a", b"\x30\x03\x02\x01\x00", certificate)), b"pw") == "damaged"

    def test_jceks_is_refused_with_a_way_out(self):
        with pytest.raises(CertificateRefused, match="keytool -importkeystore") as refused:
            read_keystore(b"\xce\xce\xce\xce" + bytes(100), b"pw")
        assert refused.value.reason == "unsupported-format"

    def test_nothing_of_a_key_in_a_repr(self, rsa_entry):
        key = rsa_entry.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        assert repr(jks.JksEntry("a", (), key)) == "JksEntry('a')"
        assert repr(rsa_entry) == "Entry('A', private key)"

    @needs_keytool
    @pytest.mark.parametrize("kind", ["JKS", "PKCS12"])
    def test_what_java_writes_today(self, tmp_path, kind):
        file = tmp_path / "store"
        for alias, algorithm in (("Ap_LV_01", "RSA"), ("ec", "EC")):
            subprocess.run(
                ["keytool", "-genkeypair", "-keyalg", algorithm, "-alias", alias, "-dname", f"CN={alias}",
                 "-keystore", file, "-storetype", kind, "-storepass", "test1234"],
                check=True, capture_output=True,
            )  # fmt: skip
        entries = read_keystore(file.read_bytes(), b"test1234")
        assert sorted(seen(entries)) == [("ap_lv_01", "RSA", 0), ("ec", "EC", 0)]

    @given(st.binary(max_size=300))
    def test_any_octets_after_the_magic(self, octets):
        assert reason(jks.MAGIC + octets, b"pw")


# -- PKCS#12 -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def octets(rsa_entry):
    certificate = load_der_x509_certificate(rsa_entry.certificate)
    ca = load_der_x509_certificate(rsa_entry.chain[0])
    return pkcs12.serialize_key_and_certificates(
        b"own", rsa_entry.private_key, certificate, [ca], BestAvailableEncryption(b"pw")
    )


class TestPkcs12:
    def test_round_trip(self, octets, rsa_entry):
        (entry,) = read_keystore(octets, b"pw")
        assert (entry.alias, entry.certificate, entry.chain) == ("own", rsa_entry.certificate, rsa_entry.chain)

    def test_wrong_password_and_truncated_are_told_apart(self, octets):
        assert reason(octets, b"wrong") == "wrong-password"
        assert reason(octets, None) == "password-needed"
        for cut in range(2, len(octets), 31):
            assert reason(octets[:cut], b"pw") in ("truncated", "damaged")
        assert reason(octets + b"\0", b"pw") == "damaged"

    def test_kind_can_be_demanded(self, octets):
        assert reason(octets, b"pw", kind="pem") == "unknown-format"

    @needs_openssl
    @pytest.mark.parametrize("options", [
        ["-legacy"], ["-certpbe", "AES-256-CBC", "-keypbe", "AES-128-CBC"], ["-keypbe", "NONE", "-certpbe", "NONE"],
        ["-iter", "1"], ["-keypbe", "PBE-SHA1-3DES"],
    ])
    def test_protections_of_openssl(self, tmp_path, made, options):
        pem = made.parties[0].keys
        done = subprocess.run(
            ["openssl", "pkcs12", "-export", "-in", pem, "-inkey", pem, "-passout", "pass:pw", "-name", "x", *options],
            capture_output=True,
        )
        if done.returncode:
            pytest.skip(f"this openssl cannot {options}")
        assert seen(read_keystore(done.stdout, b"pw"))[0][:2] == ("x", "RSA")

    def test_iterations_are_judged_before_anything_is_derived(self, octets):
        """Threats K09: 10^9 iterations must not cost a second."""
        spoiled = list(mutants(octets))
        assert len(spoiled) == 3  # MAC, certificates, key
        for mutant in spoiled:
            assert reason(mutant, b"pw") == "too-many-iterations"

    @given(st.integers(0, 3000), st.integers(1, 255))
    def test_a_changed_octet_never_raises_anything_else(self, at, change):
        octets = (WIRE / "edelivery2-eddsa/keys/a.p12").read_bytes()
        at %= len(octets)
        spoiled = octets[:at] + bytes([octets[at] ^ change]) + octets[at + 1 :]
        try:
            read_keystore(spoiled, b"test1234")
        except CertificateRefused as refused:
            assert refused.reason


#: DER of the counts that the library and OpenSSL write (2048, 10,000, 20,000), and of 10^9.
COUNTS = (b"\x02\x02\x08\x00", b"\x02\x02\x27\x10", b"\x02\x02\x4e\x20")
HUGE = b"\x02\x04\x3b\x9a\xca\x00"


def mutants(octets: bytes):
    """The store with one iteration count after another replaced, lengths mended."""
    def rebuild(value: der.Value, path):
        if not path:
            return HUGE
        content = b"".join(rebuild(v, path[1:]) if n == path[0] else v.whole for n, v in enumerate(inner(value)))
        return tlv(value.tag, content)

    def inner(value: der.Value):
        if value.tag & 0x20:
            return value.items()
        return [der.read(value.content)]

    def find(value: der.Value, path=()):
        if value.whole in COUNTS:
            yield path
        elif value.tag & 0x20 or (value.tag == 4 and value.content[:1] == b"\x30" and len(value.content) > 200):
            for n, v in enumerate(inner(value)):
                yield from find(v, (*path, n))

    root = der.read(octets)
    paths = list(find(root))
    assert paths
    for path in paths:
        yield rebuild(root, path)


def test_the_first_key_may_be_x25519(eddsa_pem):
    """The library cannot hand out X25519 keys of a PKCS#12 at all."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    entry = next(e for e in read_keystore(eddsa_pem) if isinstance(e.private_key, x25519.X25519PrivateKey))
    pem = entry.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem += load_der_x509_certificate(entry.certificate).public_bytes(Encoding.PEM)
    done = subprocess.run(["openssl", "pkcs12", "-export", "-passout", "pass:pw", "-name", "enc"], input=pem,
                          capture_output=True)  # fmt: skip
    assert not done.returncode, done.stderr
    assert seen(read_keystore(done.stdout, b"pw")) == [("enc", "X25519", 0)]


# -- PEM, DER, PKCS#7 ------------------------------------------------------------------


class TestPem:
    def test_keys_certificates_and_ca_in_any_order(self, eddsa_pem):
        entries = read_keystore(eddsa_pem)
        assert seen(entries) == [("A", "Ed25519", 1), ("A", "X25519", 1)]
        blocks = eddsa_pem.split(b"-----BEGIN")
        turned = b"-----BEGIN".join([blocks[0], *reversed(blocks[1:])])
        assert sorted(seen(read_keystore(turned))) == sorted(seen(entries))

    def test_text_around_blocks_and_windows_line_ends(self, made):
        octets = made.parties[0].signing.read_bytes().replace(b"\n", b"\r\n")
        assert len(read_keystore(b"subject=CN=A\r\n" + octets + b"\r\nrest\r\n")) == 1

    @pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
    def test_encrypted_keys(self, rsa_entry, form):
        octets = rsa_entry.private_key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"pw"))
        assert seen(read_keystore(octets, b"pw")) == [("key", "RSA", 0)]
        assert reason(octets, b"wrong") == "wrong-password"
        assert reason(octets, None) == "password-needed"

    def test_a_password_that_is_not_needed_does_no_harm(self, rsa_entry):
        octets = rsa_entry.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        assert read_keystore(octets, b"unused")[0].private_key is not None

    def test_a_key_and_a_foreign_certificate(self, made, rsa_entry):
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # fmt: skip
        assert reason(key + made.parties[0].signing.read_bytes()) == "key-certificate-mismatch"

    def test_what_is_broken_has_a_name(self, made):
        octets = made.parties[0].signing.read_bytes()
        assert reason(octets[:-30]) == "truncated"
        assert reason(octets[:200] + b"\n" + octets) == "truncated"
        assert reason(octets.replace(b"\nMII", b"\n!II", 1)) == "damaged"
        assert reason(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n") == "damaged"
        assert reason(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n") == "damaged"
        assert reason(b"-----BEGIN OPENSSH PRIVATE KEY-----\n\n-----END OPENSSH PRIVATE KEY-----\n") == (
            "unsupported-format")  # fmt: skip
        assert reason(b"a -----BEGIN in a sentence") == "unknown-format"
        assert reason(b"a -----BEGIN CERTIFICATE----- in a sentence") == "unknown-format"

    def test_iterations_are_judged(self, rsa_entry):
        octets = rsa_entry.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw"))
        for mutant in mutants(octets):
            pem = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n" + base64.encodebytes(mutant)
            assert reason(pem + b"-----END ENCRYPTED PRIVATE KEY-----\n", b"pw") == "too-many-iterations"
            assert reason(mutant, b"pw") == "too-many-iterations"

    def test_many_begins_cost_little(self):
        assert reason(b"-----BEGIN CERTIFICATE-----\n" * 30_000) == "truncated"

    @given(st.lists(st.sampled_from([
        b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"-----BEGIN PRIVATE KEY-----",
        b"-----END PRIVATE KEY-----", b"AAAA", b"", b"MII=", b"Proc-Type: 4,ENCRYPTED", b"-----BEGIN RSA PRIVATE KEY-----",
        b"-----END RSA PRIVATE KEY-----", b"\xff\xfe",
    ])))
    def test_any_lines(self, lines):
        assert reason(b"-----BEGIN \n" + b"\n".join(lines))


def test_bare_der_and_pkcs7(rsa_entry):
    (entry,) = read_keystore(rsa_entry.certificate)
    assert (entry.alias, entry.certificate) == ("A", rsa_entry.certificate)
    found = [load_der_x509_certificate(c) for c in (rsa_entry.certificate, *rsa_entry.chain)]
    for encoding in (Encoding.DER, Encoding.PEM):
        octets = pkcs7.serialize_certificates(found, encoding)
        assert {e.certificate for e in read_keystore(octets)} == {rsa_entry.certificate, *rsa_entry.chain}
    key = rsa_entry.private_key
    assert seen(read_keystore(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))) == [("key", "RSA", 0)]
    locked = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw"))
    assert seen(read_keystore(locked, b"pw")) == [("key", "RSA", 0)]
    assert reason(locked, None) == "password-needed"


def test_certificates_of_a_file(rsa_entry, made):
    assert certificates(made.parties[0].keys.read_bytes()) == [rsa_entry.certificate, *rsa_entry.chain]


def test_sizes_and_other_files():
    assert reason(b"x" * (MAX_SIZE + 1)) == "too-large"
    assert reason(b"") == reason(b" \n") == "empty"
    assert reason(b"hello") == "unknown-format"
    assert reason(b"\x30\x80\x02\x01\x03\x00\x00") == "unsupported-format"  # BER


@given(st.binary(max_size=200))
def test_any_octets(octets):
    for start in (b"", b"\x30", b"\x30\x20"):
        try:
            read_keystore(start + octets, b"pw")
        except CertificateRefused as refused:
            assert refused.reason


# -- PKCS#8 ------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), x25519.X25519PrivateKey.generate()])
@pytest.mark.parametrize("encrypted", [False, True])
def test_pkcs8_version_2_with_a_public_key(key, encrypted):
    """What Bouncy Castle writes; neither OpenSSL 3.0 nor the library reads it [RFC 5958]."""
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    _, algorithm, private_ = der.read(plain).items()
    public = tlv(0x81, b"\0" + key.public_key().public_bytes_raw())
    version_2 = tlv(0x30, b"\x02\x01\x01" + algorithm.whole + private_.whole + public)
    if not encrypted:
        assert pkcs8.load(version_2).private_bytes_raw() == key.private_bytes_raw()
        return
    sealed = pbes2(version_2, b"pw")
    assert pkcs8.load_encrypted(sealed, b"pw").private_bytes_raw() == key.private_bytes_raw()
    with pytest.raises(CertificateRefused) as refused:
        pkcs8.load_encrypted(sealed, b"wrong")
    assert refused.value.reason == "wrong-password"


def pbes2(plain: bytes, password: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    salt, iv = os.urandom(16), os.urandom(16)
    key = PBKDF2HMAC(hashes.SHA256(), 32, salt, 1000).derive(password)
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    padding = 16 - len(plain) % 16
    octets = encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()
    prf = bytes.fromhex("300c06082a864886f70d02090500")
    kdf = tlv(0x30, bytes.fromhex("06092a864886f70d01050c") + tlv(0x30, tlv(4, salt) + b"\x02\x02\x03\xe8" + prf))
    cipher = tlv(0x30, bytes.fromhex("060960864801650304012a") + tlv(4, iv))
    algorithm = tlv(0x30, bytes.fromhex("06092a864886f70d01050d") + tlv(0x30, kdf + cipher))
    return tlv(0x30, algorithm + tlv(4, octets))


def test_rsa_keys_are_rsa(rsa_entry):
    assert isinstance(rsa_entry.private_key, rsa.RSAPrivateKey)
