"""Which certificates may be used for what, and when. Threats F03, F05-F07."""

import timeit
import warnings
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Trust
from gateway.errors import CertificateRefused
from gateway.keys.formats import read_keystore
from gateway.keys.trust import _P, _WEAK_ED25519, _WEAK_X25519, MAX_CERTIFICATE, check_certificate

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ISSUER = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2048).public_key()
P256 = ec.generate_private_key(ec.SECP256R1()).public_key()
ED = ed25519.Ed25519PrivateKey.generate().public_key()
X = x25519.X25519PrivateKey.generate().public_key()
SIGN = {"digital_signature"}
USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in names for name in USAGES})


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(
    key=RSA, *extensions: tuple[x509.ExtensionType, bool], start=NOW - timedelta(days=1), end=NOW + timedelta(days=365),
    subject="AP_LV_01", issuer="CA", signer=ISSUER, digest=hashes.SHA256(),
) -> bytes:
    builder = (
        x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(key)
        .serial_number(7).not_valid_before(start).not_valid_after(end)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, digest).public_bytes(Encoding.DER)


def reason(der: bytes, use: str = "sign", now: datetime = NOW, **allow) -> str:
    with pytest.raises(CertificateRefused) as refused:
        check_certificate(der, use=use, now=now, allow=Trust(**allow))
    return refused.value.reason


def accept(der: bytes, use: str = "sign", now: datetime = NOW, **allow) -> None:
    check_certificate(der, use=use, now=now, allow=Trust(**allow))


@pytest.mark.parametrize(("key", "uses"), [
    (RSA, {"sign", "encrypt"}), (P256, {"sign", "encrypt"}), (ED, {"sign"}), (X, {"encrypt"}),
])
def test_keys_do_what_their_type_can(key, uses):
    for use in ("sign", "encrypt"):
        if use in uses:
            accept(certificate(key), use)
        else:
            assert reason(certificate(key), use) == "key-type"


def test_time_has_no_tolerance():
    der = certificate(start=NOW, end=NOW + timedelta(hours=1))
    accept(der, now=NOW)
    accept(der, now=NOW + timedelta(hours=1))
    assert reason(der, now=NOW - timedelta(seconds=1)) == "not-yet-valid"
    assert reason(der, now=NOW + timedelta(hours=1, seconds=1)) == "expired"


def test_twenty_years_is_a_mistake():
    start = NOW - timedelta(days=1)
    accept(certificate(start=start, end=start + timedelta(days=20 * 365)))
    assert reason(certificate(start=start, end=start + timedelta(days=20 * 365, seconds=1))) == "validity-too-long"


class TestKeyUsage:
    @pytest.mark.parametrize(("names", "sign", "encrypt"), [
        ({"digital_signature"}, True, False), ({"content_commitment"}, True, False),
        ({"key_encipherment"}, False, True), ({"data_encipherment"}, False, True), ({"key_agreement"}, False, True),
        ({"digital_signature", "key_encipherment"}, True, True), ({"key_cert_sign", "crl_sign"}, False, False),
    ])
    def test_it_must_fit(self, names, sign, encrypt):
        der = certificate(RSA, (usage(*names), True))
        for use, fits in (("sign", sign), ("encrypt", encrypt)):
            if fits:
                accept(der, use)
            else:
                assert reason(der, use) == "key-usage"
                accept(der, use, key_usage=False)

    def test_absent_means_anything(self):
        accept(certificate(), "sign")
        accept(certificate(), "encrypt")

    def test_for_tls_servers_only(self):
        server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
        assert reason(certificate(RSA, (x509.ExtendedKeyUsage([server]), False))) == "extended-key-usage"
        accept(certificate(RSA, (x509.ExtendedKeyUsage([server]), False)), key_usage=False)
        # What access points with a certificate of a public CA have.
        accept(certificate(RSA, (x509.ExtendedKeyUsage([server, client]), False)))


class TestCa:
    CA = (x509.BasicConstraints(ca=True, path_length=None), True)

    def test_a_ca_is_no_party(self):
        assert reason(certificate(RSA, self.CA)) == "ca-as-leaf"
        assert reason(certificate(RSA, self.CA), self_signed_ca=True) == "ca-as-leaf"

    def test_a_self_signed_pin_may_call_itself_a_ca_where_allowed(self):
        der = certificate(RSA, self.CA, subject="A", issuer="A")
        assert reason(der) == "ca-as-leaf"
        accept(der, self_signed_ca=True)

    def test_self_signed_without_that_is_fine(self):
        accept(certificate(RSA, (x509.BasicConstraints(ca=False, path_length=None), True), subject="A", issuer="A"))
        accept(certificate(RSA, subject="A", issuer="A"))


class TestWeakness:
    @pytest.mark.parametrize("bits", [1024, 2047])
    def test_short_rsa(self, bits):
        key = rsa.RSAPublicNumbers(65_537, (1 << (bits - 1)) | 1).public_key()
        assert reason(certificate(key)) == "weak-key"

    def test_long_rsa(self):
        accept(certificate(rsa.RSAPublicNumbers(65_537, (1 << 8191) | 1).public_key()))
        assert reason(certificate(rsa.RSAPublicNumbers(65_537, (1 << 8192) | 1).public_key())) == "weak-key"

    @pytest.mark.parametrize(("exponent", "fine"), [(3, True), (65_537, True), ((1 << 32) - 1, True), ((1 << 33) - 1, False)])
    def test_exponents(self, exponent, fine):
        der = certificate(rsa.RSAPublicNumbers(exponent, (1 << 2047) | 1).public_key())
        if fine:
            accept(der)
        else:
            assert reason(der) == "weak-key"

    @pytest.mark.parametrize(("curve", "fine"), [
        (ec.SECP256R1, True), (ec.SECP384R1, True), (ec.SECP521R1, True), (ec.BrainpoolP256R1, True),
        (ec.SECP192R1, False), (ec.SECP224R1, False), (ec.SECP256K1, False),
    ])
    def test_curves(self, curve, fine):
        try:
            with warnings.catch_warnings(action="ignore"):
                der = certificate(ec.generate_private_key(curve()).public_key())
        except Exception as unsupported:
            pytest.skip(str(unsupported))
        if fine:
            accept(der)
        else:
            assert reason(der) == "weak-key"

    def test_other_kinds_of_keys(self):
        with warnings.catch_warnings(action="ignore"):
            others = [dsa.generate_private_key(2048), ed448.Ed448PrivateKey.generate(), x448.X448PrivateKey.generate()]
            for key in others:
                for use in ("sign", "encrypt"):
                    assert reason(certificate(key.public_key()), use) == "key-type"

    def test_sha1(self):
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
        der = certificate(signer=key, digest=hashes.SHA256())
        # sha256WithRSAEncryption -> sha1WithRSAEncryption, twice; the signature itself is not looked at here.
        sha1 = der.replace(bytes.fromhex("06092a864886f70d01010b"), bytes.fromhex("06092a864886f70d010105"))
        md5 = der.replace(bytes.fromhex("06092a864886f70d01010b"), bytes.fromhex("06092a864886f70d010104"))
        assert reason(sha1) == reason(md5) == reason(md5, sha1_signatures=True) == "weak-signature"
        accept(sha1, sha1_signatures=True)

    def test_an_unknown_signature_algorithm(self):
        der = certificate(digest=hashes.SHA256())
        other = der.replace(bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d0403ff"[:-2] + "7f"))
        assert reason(other) == "weak-signature"


# -- points of small order ------------------------------------------------------------


D = -121665 * pow(121666, -1, _P) % _P


def add(one, other):
    (x1, y1), (x2, y2) = one, other
    t = D * x1 * x2 * y1 * y2 % _P
    return (x1 * y2 + x2 * y1) * pow(1 + t, -1, _P) % _P, (y1 * y2 + x1 * x2) * pow(1 - t, -1, _P) % _P


def test_the_weak_ed25519_points_are_those_of_small_order():
    """Counted by doubling thrice on the curve; all eight of them, each y once."""
    orders = set()
    for y in {y % _P for y in _WEAK_ED25519}:
        square = (y * y - 1) * pow(D * y * y + 1, -1, _P) % _P
        x = pow(square, (_P + 3) // 8, _P)
        if (x * x - square) % _P:
            x = x * pow(2, (_P - 1) // 4, _P) % _P
        assert (x * x - square) % _P == 0
        point = (x, y)
        order, at = 1, point
        while at != (0, 1):
            at, order = add(at, point), order + 1
        orders.add(order)
    assert orders == {1, 2, 4, 8} and len({y % _P for y in _WEAK_ED25519}) == 5


@pytest.mark.parametrize("y", sorted(_WEAK_ED25519))
@pytest.mark.parametrize("sign", [0, 1 << 255])
def test_small_order_ed25519(y, sign):
    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes((y | sign).to_bytes(32, "little"))
    except ValueError:
        return  # refused before us
    assert reason(certificate(key)) == "weak-key"


@pytest.mark.parametrize("u", sorted(_WEAK_X25519))
def test_small_order_x25519(u):
    key = x25519.X25519PublicKey.from_public_bytes(u.to_bytes(32, "little"))
    with pytest.raises(ValueError):
        x25519.X25519PrivateKey.generate().exchange(key)
    assert reason(certificate(key), "encrypt") == "weak-key"


# -- structure --------------------------------------------------------------------------


class TestStructure:
    def test_unknown_critical_extension(self):
        odd = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
        assert reason(certificate(RSA, (odd, True))) == "unknown-critical-extension"
        accept(certificate(RSA, (odd, False)))

    def test_a_known_one_that_we_do_not_judge_is_unknown_too(self):
        constraints = x509.NameConstraints([x509.DNSName("example.org")], None)
        assert reason(certificate(RSA, (constraints, True))) == "unknown-critical-extension"

    def test_too_large(self):
        names = x509.SubjectAlternativeName([x509.DNSName(f"{'a' * 60}{n}.example.org") for n in range(230)])
        der = certificate(RSA, (names, False))
        assert len(der) > MAX_CERTIFICATE and reason(der) == "too-large"

    def test_nul_in_the_subject(self):
        der = certificate(subject="AP_LV_01x.evil").replace(b"AP_LV_01x.evil", b"AP_LV_01\0.evil")
        assert reason(der) == "malformed"

    def test_serial_numbers(self):
        with warnings.catch_warnings(action="ignore"):
            der = certificate()
            assert reason(der.replace(b"\xa0\x03\x02\x01\x02\x02\x01\x07", b"\xa0\x03\x02\x01\x02\x02\x01\xf9")) == "malformed"

    def test_duplicate_extension(self):
        der = certificate(RSA, (usage("digital_signature"), True), (x509.InhibitAnyPolicy(0), False))
        # The second extension becomes another key usage: id-ce-inhibitAnyPolicy -> id-ce-keyUsage.
        der = der.replace(bytes.fromhex("0603551d36"), bytes.fromhex("0603551d0f"))
        assert reason(der) == "malformed"

    @given(st.binary(max_size=64))
    def test_rubbish(self, octets):
        assert reason(octets) == "malformed"

    @pytest.mark.parametrize("change", [0x01, 0x02, 0x03, 0x20, 0x80, 0xFF])
    def test_a_changed_octet_never_raises_anything_else(self, change):
        """Every octet in turn: the version, each tag and each length meet every reader."""
        for at in range(len(CHANGED)):
            octets = CHANGED[:at] + bytes([CHANGED[at] ^ change]) + CHANGED[at + 1 :]
            with warnings.catch_warnings(action="ignore"):
                for read in (accept, read_keystore):
                    try:
                        read(octets)
                    except CertificateRefused as refused:
                        assert refused.reason


CHANGED = certificate(RSA, (usage("digital_signature"), True), (x509.BasicConstraints(False, None), True))


def test_it_is_cheap():
    """It runs for every message. The bound leaves room for a busy machine; alone it is about 20 µs."""
    der = certificate(RSA, (usage("digital_signature"), True), (x509.BasicConstraints(False, None), True))
    assert min(timeit.repeat(lambda: accept(der), number=200, repeat=5)) / 200 < 200e-6
