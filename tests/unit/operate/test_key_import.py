"""What is wrong with a key is said when it is imported, each in its own words."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.clock import SystemClock
from gateway.config import Config
from gateway.errors import CertificateRefused, NotPossible
from gateway.keys.sealing import KeyEncryptionKey
from gateway.operate import certificates, key_import
from gateway.store.memory import MemoryStore
from tests.pki import AGREE, NOW, SIGN, Ca, build, key, usage

KEK = KeyEncryptionKey(b"k" * 32)
NOTHING = certificates.Held(keys=(), ring=certificates.Ring(), number=0)
CA = Ca.root("Import CA")


def pem(*certificates_: bytes, private=None, password: bytes | None = None) -> bytes:
    octets = b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in certificates_)
    if private is not None:
        sealed = BestAvailableEncryption(password) if password else NoEncryption()
        octets = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed) + octets
    return octets


def p12(certificate: bytes, private, password: bytes) -> bytes:
    return pkcs12.serialize_key_and_certificates(
        b"mine", private, x509.load_der_x509_certificate(certificate), None, BestAvailableEncryption(password)
    )


def crl(*serials: int, issuer: Ca = CA, days: float = 1) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
        .last_update(NOW - datetime.timedelta(days=9)).next_update(NOW + datetime.timedelta(days=days))
    )
    for serial in serials:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
        )
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.PEM)


RSA = key("rsa", 1)
GOOD = CA.leaf("AP_LV_01")
SERIAL = x509.load_der_x509_certificate(GOOD).serial_number
TLS_ONLY = CA.leaf("gw.example", extensions=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)])
WEAK = rsa.generate_private_key(public_exponent=65537, key_size=1024)


def read(octets: bytes, **more):
    return key_import.read(octets, NOTHING, now=datetime.datetime.now(datetime.UTC), **more)


MISTAKES = {
    "wrong key": ("key-certificate-mismatch", lambda: dict(octets=pem(GOOD, private=key("rsa", 7)))),
    "wrong use": ("wrong-use", lambda: dict(
        octets=pem(CA.leaf("e", key_usage=usage("key_encipherment")), private=RSA), uses=["sign"])),
    "no use": ("wrong-use", lambda: dict(octets=pem(CA.leaf("n", key_usage=usage("crl_sign")), private=RSA))),
    "only for TLS": ("wrong-use", lambda: dict(octets=pem(TLS_ONLY, private=RSA), uses=["sign"])),
    "not for TLS": ("wrong-use", lambda: dict(
        octets=pem(CA.leaf("c", extensions=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)]), private=RSA),
        uses=["tls-server"])),
    "a signing EC key to decrypt": ("wrong-use", lambda: dict(
        octets=pem(CA.leaf("ec", key("ec", 1).public_key(), key_usage=SIGN), private=key("ec", 1)), uses=["decrypt"])),
    "expired": ("expired", lambda: dict(octets=pem(CA.leaf("x", start=-30, days=20), private=RSA))),
    "not yet valid": ("not-yet-valid", lambda: dict(octets=pem(CA.leaf("y", start=5), private=RSA))),
    "revoked": ("revoked", lambda: dict(octets=pem(GOOD, CA.certificate, private=RSA), crl=crl(SERIAL))),
    "a CRL of another CA": ("crl", lambda: dict(octets=pem(GOOD, private=RSA), crl=crl(SERIAL, issuer=Ca.root("Other")))),
    "a CRL that nobody signed": ("crl", lambda: dict(
        octets=pem(GOOD, CA.certificate, private=RSA), crl=crl(issuer=Ca(CA.subject, key("ec", 99), b"", None)))),
    "a CRL that ended": ("crl", lambda: dict(octets=pem(GOOD, private=RSA), crl=crl(days=-1))),
    "no CRL at all": ("crl", lambda: dict(octets=pem(GOOD, private=RSA), crl=b"nothing")),
    "a CA as leaf": ("ca-as-leaf", lambda: dict(octets=pem(CA.ca("Sub", RSA).certificate, private=RSA))),
    "weak key": ("weak-key", lambda: dict(octets=pem(CA.leaf("w", WEAK.public_key()), private=WEAK))),
    "weak curve": ("weak-key", lambda: dict(octets=pem(
        CA.leaf("w", (p192 := ec.derive_private_key(7, ec.SECP224R1())).public_key(), key_usage=SIGN), private=p192))),
    "wrong password of a PEM": ("wrong-password", lambda: dict(octets=pem(GOOD, private=RSA, password=b"right"), password=b"wrong")),
    "wrong password of a PKCS#12": ("wrong-password", lambda: dict(octets=p12(GOOD, RSA, b"right"), password=b"wrong")),
    "no password": ("password-needed", lambda: dict(octets=pem(GOOD, private=RSA, password=b"right"))),
    "truncated PEM": ("truncated", lambda: dict(octets=pem(GOOD, private=RSA)[:-40])),
    "truncated PKCS#12": ("truncated", lambda: dict(octets=p12(GOOD, RSA, b"p")[:-40], password=b"p")),
    "empty": ("empty", lambda: dict(octets=b"")),
    "something else": ("unknown-format", lambda: dict(octets=b"GIF89a, no key at all")),
    "no private key": ("no-private-key", lambda: dict(octets=pem(GOOD))),
    "no certificate": ("no-certificate", lambda: dict(octets=pem(private=RSA))),
    "another alias": ("no-private-key", lambda: dict(octets=p12(GOOD, RSA, b"p"), password=b"p", alias="other")),
    "twenty years and more": ("validity-too-long", lambda: dict(octets=pem(CA.leaf("l", days=9000), private=RSA))),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_has_its_own_error(mistake):
    reason, make = MISTAKES[mistake]
    with pytest.raises(CertificateRefused) as refused:
        read(**make())
    assert refused.value.reason == reason and len(str(refused.value)) > 10, "a reason for programs, words for people"


def test_what_keys_are_good_for():
    cases = {
        "RSA 2048": (pem(GOOD, CA.certificate, private=RSA), ("decrypt", "sign")),
        "EC P-256": (pem(CA.leaf("s", key("ec", 1).public_key(), key_usage=SIGN), private=key("ec", 1)), ("sign",)),
        "Ed25519": (pem(CA.leaf("d", key("ed25519", 1).public_key(), key_usage=SIGN), private=key("ed25519", 1)), ("sign",)),
        "X25519": (pem(CA.leaf("x", key("x25519", 1).public_key(), key_usage=AGREE), private=key("x25519", 1)), ("decrypt",)),
    }
    for algorithm, (octets, uses) in cases.items():
        [found] = read(octets)
        assert (found.algorithm, found.uses) == (algorithm, uses)
    assert read(cases["RSA 2048"][0])[0].chain == (CA.certificate,) and not read(cases["RSA 2048"][0])[0].notes
    assert read(cases["EC P-256"][0])[0].notes == ("the file has no certificate of the issuer",)
    [tls] = read(pem(TLS_ONLY, private=RSA), uses=["tls-server"])
    assert tls.uses == ("tls-server",) and "PRIVATE" not in repr(tls)
    with pytest.raises(NotPossible, match="for all parties"):
        read(pem(TLS_ONLY, private=RSA), uses=["tls-server"], party="AP_LV_01")
    [one] = read(p12(GOOD, RSA, b"p"), password=b"p", alias="MINE", party="AP_LV_01", uses=["decrypt"], crl=crl(SERIAL + 1))
    assert (one.party, one.uses) == ("AP_LV_01", ("decrypt",))


@pytest.fixture
def store():
    return MemoryStore(SystemClock())


async def test_what_is_kept_is_sealed_under_the_name_of_its_key(store):
    [found] = read(pem(GOOD, private=RSA))
    kept = await key_import.keep(store, KEK, found, author="anna")
    assert b"PRIVATE" not in kept.sealed and kept.fingerprint == certificates.x509.load_der_x509_certificate(GOOD).fingerprint(hashes.SHA256()).hex()
    opened = key_import.own.private_key(KEK.open_secret(kept.sealed, f"own key {kept.id}"))
    assert opened.private_numbers() == RSA.private_numbers()
    with pytest.raises(Exception, match="was changed"):
        KEK.open_secret(kept.sealed, "own key key_other")
    have = await certificates.held(store)
    with pytest.raises(NotPossible, match=f"this is key {kept.id} already"):
        key_import.read(pem(GOOD, private=RSA), have, now=NOW)


@pytest.mark.parametrize("kind", sorted(key_import.KINDS.keys() - {"rsa-4096"}))
async def test_a_request_and_the_certificate_that_comes_for_it(store, kind):
    uses = ("sign", "decrypt") if kind.startswith("rsa") else ("sign",)
    made = await key_import.make(store, KEK, kind=kind, uses=uses, party="AP_LV_01", author="anna")
    asked = x509.load_pem_x509_csr(key_import.request(made, KEK, subject="CN=AP_LV_01,O=Ministry,C=LV"))
    assert asked.is_signature_valid and asked.subject.rfc4514_string() == "CN=AP_LV_01,O=Ministry,C=LV"
    asked_usage = asked.extensions.get_extension_for_class(x509.KeyUsage).value
    assert asked_usage.digital_signature and asked_usage.key_encipherment == kind.startswith("rsa")
    again = x509.load_pem_x509_csr(key_import.request(made, KEK, subject="CN=AP_LV_01,O=Ministry,C=LV"))
    assert again.public_key() == asked.public_key()
    have = await certificates.held(store)
    for wrong, reason in ((pem(GOOD), "wrong-key"), (pem(build(asked.subject, asked.public_key(), CA.subject, CA.key, ca=False, start=5)), "not-yet-valid")):
        with pytest.raises(CertificateRefused) as refused:
            key_import.read(wrong, have, now=NOW)
        assert refused.value.reason == reason
    issued = CA.leaf("AP_LV_01", asked.public_key(), key_usage=asked_usage)
    [found] = key_import.read(pem(issued, CA.certificate), have, now=NOW)
    assert (found.completes, found.chain, found.uses) == (made.id, (CA.certificate,), tuple(sorted(uses)))
    with pytest.raises(NotPossible, match="was made for"):
        key_import.read(pem(issued), have, now=NOW, party="AP_EE_01")
    done = await key_import.keep(store, KEK, found, author="berta")
    assert done.id == made.id and done.certificate == issued
    assert [e.kind for e in await store.audit_entries()] == ["key.added", "key.completed"]
    have = await certificates.held(store)
    assert certificates.plan_stage(have, [made.id]).moves


async def test_requests_that_make_no_sense(store):
    for kind, uses, why in (("ed25519", ("sign", "decrypt"), "does not decrypt"), ("ec-p256", ("sign", "decrypt"), "not both"),
                            ("rsa-3072", ("tls-server",), "all parties")):
        with pytest.raises(NotPossible, match=why):
            await key_import.make(store, KEK, kind=kind, uses=uses, party="AP", author="anna")
    made = await key_import.make(store, KEK, kind="ec-p256", uses=("tls-server",), party=None, author="anna")
    for subject in ("nonsense", "", "CN"):
        with pytest.raises(NotPossible, match="CN=AP_LV_01"):
            key_import.request(made, KEK, subject=subject)
    asked = x509.load_pem_x509_csr(key_import.request(made, KEK, subject="CN=gw", names=["gw.example.lv"]))
    assert asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName) == ["gw.example.lv"]
    assert ExtendedKeyUsageOID.SERVER_AUTH in asked.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value


async def test_files_are_taken_over_each_key_once(store, tmp_path):
    (tmp_path / "mine.pem").write_bytes(pem(GOOD, private=RSA))
    late = CA.leaf("old", key("rsa", 5).public_key(), start=-30, days=20)
    (tmp_path / "old.pem").write_bytes(pem(late, private=key("rsa", 5)))
    for file in tmp_path.iterdir():
        file.chmod(0o600)
    (tmp_path / "gateway.toml").write_text(
        '[[keys.store]]\npath = "mine.pem"\n[[keys.store]]\npath = "old.pem"\nuses = ["decrypt"]\n')
    stores = Config.load(tmp_path / "gateway.toml", environ={}).keys.store
    found = key_import.from_stores(stores, await certificates.held(store), now=NOW)
    assert [(f.certificate == GOOD, f.uses) for f in found] == [(True, ("decrypt", "sign")), (False, ("decrypt",))]
    for one in found:
        await key_import.keep(store, KEK, one, author="anna")
    assert key_import.from_stores(stores, await certificates.held(store), now=NOW) == []
