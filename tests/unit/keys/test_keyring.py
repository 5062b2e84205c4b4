"""Our keys: which one signs, which ones decrypt, and that they do it as the wire wants it."""

import pickle
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gateway.as4 import ns
from gateway.as4.profiles import PROFILES
from gateway.as4.units import PartyId
from gateway.config import KeyStore, Secret
from gateway.errors import ConfigError, KeyUnavailable
from gateway.keys.development import make_development
from gateway.keys.formats import Entry, read_keystore
from gateway.keys.keyring import Keyring, SoftwareDecryptionKey, decryption_key, load_keyring, signing_key

WIRE = Path(__file__).parents[2] / "vectors/phase4-4.5.4-wire"
OOTS, EDDSA, ECDSA = PROFILES["oots/2.0"], PROFILES["edelivery-as4/2.0"], PROFILES["edelivery-as4/2.0-ecdsa"]
SHA1 = "http://www.w3.org/2000/09/xmldsig#sha1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs")
    make_development(folder, ["A", "B"], now=datetime.now(UTC), suites=["rsa", "eddsa", "ecdsa"])
    return folder


@pytest.fixture(scope="module")
def entries(folder):
    return {suite: read_keystore((folder / f"a{suite}.key.pem").read_bytes()) for suite in ("", "-eddsa", "-ecdsa")}


def spki(key) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class TestSigning:
    @pytest.mark.parametrize(("suite", "algorithm"), [("", ns.RSA_SHA256), ("-eddsa", ns.ED25519), ("-ecdsa", ns.ECDSA_SHA256)])
    def test_each_kind(self, entries, suite, algorithm):
        entry = entries[suite][0]
        key = signing_key(entry)
        assert (key.algorithm, key.certificate, key.chain) == (algorithm, entry.certificate, entry.chain)
        public, value = entry.private_key.public_key(), key.sign(b"SignedInfo")
        match algorithm:
            case ns.RSA_SHA256:
                public.verify(value, b"SignedInfo", padding.PKCS1v15(), hashes.SHA256())
            case ns.ED25519:
                public.verify(value, b"SignedInfo")
            case _:
                assert len(value) == 64
                signature = encode_dss_signature(int.from_bytes(value[:32]), int.from_bytes(value[32:]))
                public.verify(signature, b"SignedInfo", ec.ECDSA(hashes.SHA256()))

    @pytest.mark.parametrize(("curve", "size"), [(ec.SECP384R1(), 96), (ec.SECP521R1(), 132), (ec.BrainpoolP256R1(), 64)])
    def test_r_and_s_are_as_long_as_the_order(self, entries, curve, size):
        entry = Entry("x", ec.generate_private_key(curve), entries[""][0].certificate)
        key = signing_key(entry)
        assert {len(key.sign(bytes([n]))) for n in range(30)} == {size}

    def test_a_certificate_for_encryption_does_not_sign(self, entries):
        assert [signing_key(e) is not None for e in entries["-ecdsa"]] == [True, False]
        assert [decryption_key(e) is not None for e in entries["-ecdsa"]] == [False, True]
        assert [decryption_key(e) is not None for e in entries["-eddsa"]] == [False, True]

    def test_no_certificate_no_key(self, entries):
        entry = Entry("x", entries[""][0].private_key, None)
        assert signing_key(entry) is None and decryption_key(entry) is None


class TestDecryption:
    @pytest.mark.parametrize(("digest", "mgf", "hash_", "mgf_hash"), [
        (ns.SHA256, ns.MGF1_SHA256, hashes.SHA256(), hashes.SHA256()),
        (SHA1, ns.MGF1_SHA1, hashes.SHA1(), hashes.SHA1()),
        (ns.SHA256, ns.MGF1_SHA1, hashes.SHA256(), hashes.SHA1()),
        (ns.XENC + "sha512", ns.XENC11 + "mgf1sha512", hashes.SHA512(), hashes.SHA512()),
    ])
    def test_oaep_by_uri(self, entries, digest, mgf, hash_, mgf_hash):
        entry = entries[""][0]
        wrapped = entry.private_key.public_key().encrypt(
            b"k" * 16, padding.OAEP(padding.MGF1(mgf_hash), hash_, None))  # fmt: skip
        assert decryption_key(entry).unwrap_oaep(wrapped, digest=digest, mgf=mgf) == b"k" * 16

    @pytest.mark.parametrize("wrapped", [b"", b"x", b"x" * 255, b"\xff" * 256, b"x" * 257])
    def test_what_does_not_unwrap_is_a_value_error(self, entries, wrapped):
        with pytest.raises(ValueError):
            decryption_key(entries[""][0]).unwrap_oaep(wrapped, digest=ns.SHA256, mgf=ns.MGF1_SHA256)

    def test_unknown_algorithms_and_other_keys_are_value_errors(self, entries):
        rsa_key, x_key = decryption_key(entries[""][0]), decryption_key(entries["-eddsa"][1])
        with pytest.raises(ValueError):
            rsa_key.unwrap_oaep(b"x" * 256, digest="urn:md5", mgf=ns.MGF1_SHA256)
        with pytest.raises(ValueError):
            x_key.unwrap_oaep(b"x" * 256, digest=ns.SHA256, mgf=ns.MGF1_SHA256)
        with pytest.raises(ValueError):
            rsa_key.agree(spki(x25519.X25519PrivateKey.generate().public_key()))

    def test_agreement_on_x25519(self, entries):
        entry, mine = entries["-eddsa"][1], x25519.X25519PrivateKey.generate()
        shared = decryption_key(entry).agree(spki(mine.public_key()))
        assert shared == mine.exchange(entry.private_key.public_key()) and len(shared) == 32

    @pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP521R1()])
    def test_agreement_on_curves(self, entries, curve):
        own, mine = ec.generate_private_key(curve), ec.generate_private_key(curve)
        key = SoftwareDecryptionKey(own, entries["-ecdsa"][1].certificate)
        shared = key.agree(spki(mine.public_key()))
        assert shared == mine.exchange(ec.ECDH(), own.public_key())
        assert len(shared) == (curve.key_size + 7) // 8

    def test_invalid_originators(self, entries):
        ec_key, x_key = decryption_key(entries["-ecdsa"][1]), decryption_key(entries["-eddsa"][1])
        p256 = spki(ec.generate_private_key(ec.SECP256R1()).public_key())
        off_curve = p256[:-1] + bytes([p256[-1] ^ 1])
        weak = bytes.fromhex("302a300506032b656e032100") + bytes(32)
        for key, originator in [
            (ec_key, off_curve), (ec_key, spki(ec.generate_private_key(ec.SECP384R1()).public_key())),
            (ec_key, spki(x25519.X25519PrivateKey.generate().public_key())), (ec_key, b""), (ec_key, b"\x30\x00"),
            (x_key, p256), (x_key, weak), (x_key, weak[:-1]),
            (x_key, spki(rsa.generate_private_key(public_exponent=65_537, key_size=2048).public_key())),
        ]:  # fmt: skip
            with pytest.raises(ValueError):
                key.agree(originator)


class TestKeyring:
    def test_the_profile_chooses(self, folder):
        ring = load_keyring([KeyStore(path=folder / f"a{s}.key.pem", party="A") for s in ("", "-eddsa", "-ecdsa")])
        party = PartyId("A", "urn:type")
        for profile in PROFILES.values():
            assert ring.signing_key(party, profile).algorithm == profile.send_signature
        assert len(ring.decryption_keys(party)) == 3

    def test_the_first_signs_and_a_draining_one_decrypts(self, folder, tmp_path):
        make_development(tmp_path, ["A"], now=datetime.now(UTC))
        new, old = tmp_path / "a.key.pem", folder / "a.key.pem"
        ring = load_keyring([KeyStore(path=new), KeyStore(path=old, uses=("decrypt",))])
        assert ring.signing_key("A", OOTS).certificate == read_keystore(new.read_bytes())[0].certificate
        assert [k.certificate for k in ring.decryption_keys("A")] == [
            read_keystore(p.read_bytes())[0].certificate for p in (new, old)
        ]

    def test_keys_belong_to_a_party(self, folder):
        ring = load_keyring([KeyStore(path=folder / "a.key.pem", party="A"), KeyStore(path=folder / "b.key.pem", party="B")])
        assert ring.signing_key("A", OOTS).certificate != ring.signing_key("B", OOTS).certificate
        assert ring.decryption_keys("C") == () and ring.decryption_keys("a") == ()
        with pytest.raises(KeyUnavailable, match="no key of C"):
            ring.signing_key("C", OOTS)

    def test_no_fitting_key_says_what_there_is(self, folder):
        ring = load_keyring([KeyStore(path=folder / "a.key.pem", party="A")])
        with pytest.raises(KeyUnavailable, match=r"eddsa-ed25519 \(signing keys: rsa-sha256\)"):
            ring.signing_key("A", EDDSA)
        with pytest.raises(KeyUnavailable, match="none"):
            Keyring({}, {}).signing_key("A", EDDSA)

    def test_two_keys_in_one_pkcs12(self, tmp_path):
        (tmp_path / "pw").write_text("test1234\n")
        path = WIRE / "edelivery2-eddsa/keys/a.p12"
        ring = load_keyring([KeyStore(path=path, password=Secret("file", str(tmp_path / "pw")))])
        assert ring.signing_key("a", EDDSA).algorithm == ns.ED25519
        assert len(ring.decryption_keys("a")) == 1

    def test_key_and_certificate_in_two_files(self):
        keys = WIRE / "edelivery2-ecdsa/keys"
        ring = load_keyring([
            KeyStore(path=keys / f"a-{n}.key.pem", certificate=keys / f"a-{n}.cert.pem") for n in ("sign", "enc")
        ])
        assert ring.signing_key("a", ECDSA) and ring.decryption_keys("a")

    def test_one_entry_by_its_alias(self, monkeypatch):
        monkeypatch.setenv("PW", "test1234")
        store = KeyStore(path=WIRE / "edelivery2-ecdsa/keys/a.p12", password=Secret("env", "PW"), alias="ENC", uses=("decrypt",))
        ring = load_keyring([store])
        assert len(ring.decryption_keys("a")) == 1 and "0 signing" in repr(ring)

    @pytest.mark.parametrize(("change", "words"), [
        ({"path": "nothing.pem"}, "cannot be read"),
        ({"path": "ca.pem"}, "no private key in it"),
        ({"path": "a.key.pem", "alias": "B"}, "no private key named 'B'"),
        ({"path": "a-eddsa.key.pem", "uses": ("decrypt",)}, "can do nothing of"),
        ({"path": "tls.key.pem"}, "has no certificate"),
        ({"path": "tls.key.pem", "certificate": "ca.pem"}, "no certificate in it is for the private key"),
        ({"path": "locked.pem"}, "set `password`"),
    ])
    def test_mistakes_name_file_and_table(self, folder, change, words):
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / "locked.pem").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))  # fmt: skip
        change = {k: folder / v if k in ("path", "certificate") else v for k, v in change.items()}
        with pytest.raises(ConfigError) as error:
            load_keyring([KeyStore(path=folder / "a.key.pem"), KeyStore(**change)])
        assert words in str(error.value) and error.value.key == "keys.store[1]"
        assert error.value.file.startswith(str(folder))


def test_private_keys_stay_inside(entries):
    for entry in (entries[""][0], entries["-eddsa"][0]):
        key = signing_key(entry)
        secret = entry.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        assert "CN=A" in repr(key)
        assert not any(secret[i : i + 8].hex() in repr(key) for i in range(0, len(secret), 8))
        with pytest.raises(TypeError):
            pickle.dumps(key)


def test_certificates_of_entries_parse(entries):
    for found in entries.values():
        assert all(x509.load_der_x509_certificate(e.certificate) for e in found)
