"""Keys in a token, with SoftHSM: they do what keys in software do, and nothing goes around the token."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from gateway.as4 import ns
from gateway.config import Config, Secret, Token
from gateway.errors import ConfigError, KeyUnavailable
from gateway.keys import own
from gateway.keys.keyring import Keyring, SoftwareDecryptionKey
from tests.pki import AGREE, SIGN, Ca
from tests.softhsm import LABEL, PIN, SoftHsm

SHA1 = "http://www.w3.org/2000/09/xmldsig#sha1"
CA = Ca.root("Token CA")


@pytest.fixture(scope="module")
def hsm():
    return SoftHsm()


@pytest.fixture(scope="module")
def tokens(hsm, tmp_path_factory):
    from gateway.keys.pkcs11 import Tokens

    pin = tmp_path_factory.mktemp("pin") / "pin"
    pin.write_text(PIN + "\n")
    pin.chmod(0o600)
    return Tokens([Token(token=LABEL, module=hsm.module, pin=Secret("file", str(pin)))])


def in_token(hsm, tokens, private, usage=None):
    """The key in the token, and its certificate."""
    name = hsm.add(private, f"k{os.urandom(4).hex()}")
    certificate = CA.leaf("AP_LV_01", private.public_key(), **({"key_usage": usage} if usage else {}))
    return tokens.key(name, certificate, (CA.certificate,))


@pytest.fixture(scope="module")
def rsa_key(hsm, tokens):
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return private, in_token(hsm, tokens, private)


def test_rsa_signs_and_unwraps(rsa_key):
    private, key = rsa_key
    assert key.algorithm == ns.RSA_SHA256 and key.chain == (CA.certificate,) and key.remote
    own.prove_signing(key)
    own.prove_decryption(key)
    assert key.sign(b"octets") == private.sign(b"octets", padding.PKCS1v15(), hashes.SHA256()), "bit for bit"
    pairs = [(ns.SHA256, ns.MGF1_SHA256, hashes.SHA256(), hashes.SHA256()), (ns.SHA256, ns.MGF1_SHA1, hashes.SHA256(), hashes.SHA1()),
             (SHA1, ns.MGF1_SHA1, hashes.SHA1(), hashes.SHA1())]  # fmt: skip
    for digest, mgf, hash_, mask in pairs:
        for secret in (os.urandom(16), os.urandom(32), b"", b"\x01" * 20, b"\0" * 16):
            wrapped = private.public_key().encrypt(secret, padding.OAEP(padding.MGF1(mask), hash_, None))
            assert key.unwrap_oaep(wrapped, digest=digest, mgf=mgf) == secret


def test_rsa_refuses_what_was_not_wrapped_for_it(rsa_key):
    private, key = rsa_key
    public = private.public_key()
    software = SoftwareDecryptionKey(private, key.certificate)
    good = public.encrypt(b"s" * 16, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
    labelled = public.encrypt(b"s" * 16, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"label"))
    bad = [b"", good[:-1], good + b"x", bytes(256), b"\xff" * 256, labelled, public.encrypt(b"s" * 16, padding.PKCS1v15()),
           *(os.urandom(256) for _ in range(5)), *(good[:n] + bytes([good[n] ^ 1]) + good[n + 1 :] for n in (0, 100, 255))]  # fmt: skip
    for octets in bad:
        for one in (software, key):
            with pytest.raises(ValueError):
                one.unwrap_oaep(octets, digest=ns.SHA256, mgf=ns.MGF1_SHA256)
    with pytest.raises(ValueError, match="not for this key"):
        key.unwrap_oaep(good, digest="md5", mgf=ns.MGF1_SHA256)
    with pytest.raises(ValueError):
        key.agree(own.public_octets(public))
    assert key.unwrap_oaep(good, digest=ns.SHA256, mgf=ns.MGF1_SHA256) == b"s" * 16, "and goes on"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda c: c.name)
def test_elliptic_keys_sign_and_agree(hsm, tokens, curve):
    private = ec.generate_private_key(curve)
    signer = in_token(hsm, tokens, private, SIGN)
    name = hsm.add_agreeing(private, f"agree-{curve.name}")
    opener = tokens.key(name, CA.leaf("AP_LV_01", private.public_key(), key_usage=AGREE))
    assert signer.algorithm == ns.ECDSA_SHA256 and len(signer.sign(b"x")) == 2 * (curve.key_size // 8)
    own.prove_signing(signer)
    own.prove_decryption(opener)
    theirs = ec.generate_private_key(curve)
    assert opener.agree(own.public_octets(theirs.public_key())) == theirs.exchange(ec.ECDH(), private.public_key())
    other = ec.generate_private_key(ec.SECP521R1())
    with pytest.raises(KeyUnavailable, match="does not let"):
        signer.agree(own.public_octets(theirs.public_key()))
    for octets in (own.public_octets(other.public_key()), b"", b"nothing"):
        with pytest.raises(ValueError):
            opener.agree(octets)


def test_edwards_keys_sign(hsm, tokens):
    private = ed25519.Ed25519PrivateKey.generate()
    key = in_token(hsm, tokens, private, SIGN)
    own.prove_signing(key)
    assert key.algorithm == ns.ED25519 and key.sign(b"octets") == private.sign(b"octets")


def test_many_threads_share_one_session(rsa_key):
    private, key = rsa_key
    expected = private.sign(b"octets", padding.PKCS1v15(), hashes.SHA256())
    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(lambda _: key.sign(b"octets"), range(100))) == {expected}


def test_a_session_that_breaks_is_made_anew(rsa_key, tokens):
    _, key = rsa_key
    [token] = tokens._open.values()
    before = token._session
    before.close()
    own.prove_signing(key)
    own.prove_decryption(key)
    assert token._session is not before


def test_what_is_wrong_is_said(hsm, tokens, tmp_path):
    from gateway.keys.pkcs11 import Tokens

    certificate = CA.leaf("AP_LV_01")
    wrong = {
        f"pkcs11:token={LABEL};object=missing": "no private key with label 'missing'",
        "pkcs11:token=other;object=x": "no token 'other'",
        "pkcs11:object=x": "is no name such as",
        "lv-2027": "is no name such as",
    }
    for name, why in wrong.items():
        with pytest.raises(KeyUnavailable, match=why):
            tokens.key(name, certificate)
    (tmp_path / "pin").write_text("0000")
    (tmp_path / "pin").chmod(0o600)
    (tmp_path / "gateway.toml").write_text(
        f'[[keys.tokens]]\ntoken = "{LABEL}"\nmodule = "{tmp_path}/none.so"\npin = "file:pin"\n')
    config = Config.load(tmp_path / "gateway.toml", environ={})
    with pytest.raises(KeyUnavailable, match=r"none\.so cannot be used"):
        Tokens(config.keys.tokens).key(f"pkcs11:token={LABEL};object=x", certificate)
    gone = Tokens([Token(token="gone", module=hsm.module, pin=Secret("file", str(tmp_path / "pin")))])
    with pytest.raises(KeyUnavailable, match="there is no token 'gone'"):
        gone.key("pkcs11:token=gone;object=x", certificate)
    twice = '[[keys.tokens]]\ntoken = "a"\nmodule = "m"\npin = "env:P"\n' * 2
    (tmp_path / "gateway.toml").write_text(twice)
    with pytest.raises(ConfigError, match="there twice"):
        Config.load(tmp_path / "gateway.toml", environ={"P": "x"})


def test_a_certificate_of_another_key_is_found(hsm, tokens):
    private, other = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    name = hsm.add(private, "mismatch")
    key = tokens.key(name, CA.leaf("AP_LV_01", other.public_key()))
    with pytest.raises(KeyUnavailable, match="does not verify"):
        own.prove_signing(key)
    with pytest.raises(KeyUnavailable, match="does not open"):
        own.prove_decryption(key)


def test_a_keyring_knows_that_it_may_take_its_time(rsa_key):
    _, key = rsa_key
    ring = Keyring({None: [key]}, {None: [key]})
    assert ring.remote and not Keyring({}, {}).remote and "PRIVATE" not in repr(key)
    assert x509.load_der_x509_certificate(key.certificate)
