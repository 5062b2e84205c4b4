import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from gateway.as4 import ns
from gateway.as4.wss import algorithms
from gateway.as4.wss.algorithms import (
    check_public_key,
    check_signature,
    curve_uri,
    decode_base64,
    encode_base64,
    fits,
    public_key_of,
)
from tests.unit.as4.wss.material import EDDSA, RSA, SoftSigningKey, certify


class TestBase64:
    @given(st.binary())
    def test_round_trip(self, octets):
        assert decode_base64(encode_base64(octets)) == octets

    @pytest.mark.parametrize("text", ["AAEC\r\nAwQF", " AAEC AwQF\t", "\nAAECAwQF\n"])
    def test_white_space_of_xml_is_legal(self, text):
        assert decode_base64(text) == bytes(range(6))

    @pytest.mark.parametrize(
        "text", ["A", "AA", "AAA", "AA=", "AB==", "AAF=", "AA==AA==", "A-_A", "AA\u00a0==", "AAAA=", "====", "ÄAAA", "AA=A"]
    )
    def test_a_second_spelling_is_refused(self, text):
        with pytest.raises(ValueError):
            decode_base64(text)

    def test_nothing_is_no_octets(self):
        assert decode_base64(None) == decode_base64("") == b""

    @given(st.text(alphabet="AB=+/ \n-é", max_size=12))
    def test_what_is_taken_has_one_spelling(self, text):
        try:
            octets = decode_base64(text)
        except ValueError:
            return
        assert encode_base64(octets) == text.replace(" ", "").replace("\n", "")


class TestPublicKeys:
    @pytest.mark.parametrize("y", sorted(algorithms._SMALL_ORDER))
    @pytest.mark.parametrize("sign", [0, 0x80])
    def test_ed25519_of_small_order(self, y, sign):
        """C09: OpenSSL accepts an all-zero signature under such a key; we never ask it."""
        key = ed25519.Ed25519PublicKey.from_public_bytes(y[:31] + bytes([y[31] | sign]))
        with pytest.raises(ValueError, match="small order"):
            check_public_key(key)

    def test_the_table_of_small_order_points_is_complete(self):
        """Multiply points by the prime order of the group: what is left is of small order."""
        p, order = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
        d = -121665 * pow(121666, -1, p) % p

        def add(one, other):
            (x1, y1), (x2, y2) = one, other
            k = d * x1 * x2 * y1 * y2 % p
            return (x1 * y2 + y1 * x2) * pow(1 + k, -1, p) % p, (y1 * y2 + x1 * x2) * pow(1 - k, -1, p) % p

        def times(point, n):
            result = (0, 1)
            while n:
                if n & 1:
                    result = add(result, point)
                point, n = add(point, point), n >> 1
            return result

        found = set()
        for y in range(2, 60):
            square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
            x = pow(square, (p + 3) // 8, p)
            if (x * x - square) % p:
                x = x * pow(2, (p - 1) // 4, p) % p
            if (x * x - square) % p:
                continue
            small = times((x, y), order)
            found |= {times(small, n)[1] for n in range(8)}
        spellings = {y.to_bytes(32, "little") for y in found} | {
            (y + p).to_bytes(32, "little") for y in found if y + p < 2**255
        }
        assert spellings == algorithms._SMALL_ORDER

    def test_the_threat_is_real(self):
        """If this fails, OpenSSL has learned it too; the check may stay."""
        key = ed25519.Ed25519PublicKey.from_public_bytes(b"\x01" + bytes(31))
        key.verify(b"\x01" + bytes(63), b"anything")

    def test_rsa_sizes(self):
        with pytest.raises(ValueError, match="1024"):
            check_public_key(rsa.RSAPublicNumbers(65537, (1 << 1023) + 1).public_key())
        with pytest.raises(ValueError, match="exponent"):
            check_public_key(rsa.RSAPublicNumbers(2**33 + 1, (1 << 2047) + 1).public_key())
        check_public_key(rsa.RSAPublicNumbers(3, (1 << 2047) + 1).public_key())

    def test_a_certificate_that_is_none(self):
        for octets in (b"", b"\x30\x00", b"garbage", RSA.sender.certificate[:-1]):
            with pytest.raises(ValueError):
                public_key_of(octets)


class TestSignatures:
    def test_ed25519_vector(self):
        """[as4 8.3]"""
        key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
        public = key.public_key()
        assert public.public_bytes_raw().hex() == "79b5562e8fe654f94078b112e8a98ba7901f853ae695bed7e0e3910bad049664"
        value = decode_base64(
            "cdy2XwHTJVYTTKRNEwcVrbAiEJGaikfgFnc9dCtCGJXr8d89m/RHuFet7Jg/BVhVyaQmCtmh+W2kyC9QvsfOAQ=="
        )
        check_signature(ns.ED25519, public, value, b"abc")
        with pytest.raises(InvalidSignature):
            check_signature(ns.ED25519, public, value, b"abd")
        # S + L: the same point, another spelling [threats C09].
        order = 2**252 + 27742317777372353535851937790883648493
        malleable = value[:32] + (int.from_bytes(value[32:], "little") + order).to_bytes(32, "little")
        for other in (malleable, value[:-1], value + b"\0", b""):
            with pytest.raises(InvalidSignature):
                check_signature(ns.ED25519, public, other, b"abc")

    @pytest.mark.parametrize("curve", algorithms.CURVES.values(), ids=lambda c: c.name)
    def test_ecdsa_is_raw_r_and_s(self, curve):
        key = ec.generate_private_key(curve())
        public, octets = key.public_key(), b"signed"
        size, order = (key.key_size + 7) // 8, curve().group_order
        der = key.sign(octets, ec.ECDSA(SHA256()))
        r, s = decode_dss_signature(der)

        def raw(r, s, size=size):
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")

        check_signature(ns.ECDSA_SHA256, public, raw(r, s), octets)
        for value in (
            der, raw(0, s), raw(r, 0), raw(order, s), raw(r, order), raw(r, s)[:-1], b"\0" + raw(r, s),
            raw(r, s, size + 1), b"", raw(s, r),
        ):  # fmt: skip
            with pytest.raises(InvalidSignature):
                check_signature(ns.ECDSA_SHA256, public, value, octets)

    def test_algorithm_and_key_must_belong_together(self):
        """C08: neither chooses the other."""
        keys = [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1()),
                ed25519.Ed25519PrivateKey.generate()]
        publics = [key.public_key() for key in keys] + [x25519.X25519PrivateKey.generate().public_key()]
        uris = [ns.RSA_SHA256, ns.ECDSA_SHA256, ns.ED25519]
        for number, uri in enumerate(uris):
            assert [fits(uri, public) for public in publics] == [n == number for n in range(4)]
            for other, public in enumerate(publics):
                if other != number:
                    with pytest.raises(InvalidSignature):
                        check_signature(uri, public, bytes(64), b"")
        for uri in ("http://www.w3.org/2000/09/xmldsig#rsa-sha1", "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256", ""):
            assert not any(fits(uri, public) for public in publics)

    def test_curves_are_an_allow_list(self):
        koblitz = ec.generate_private_key(ec.SECP256K1()).public_key()
        assert curve_uri(koblitz.curve) is None
        assert not fits(ns.ECDSA_SHA256, koblitz)
        p384 = ec.generate_private_key(ec.SECP384R1()).public_key()
        assert fits(ns.ECDSA_SHA256, p384)
        assert not fits(ns.ECDSA_SHA256, p384, frozenset({algorithms.P256}))

    def test_soft_keys_and_the_checker_agree(self):
        for suite in (RSA, EDDSA):
            key = suite.sender
            check_signature(key.algorithm, public_key_of(key.certificate), key.sign(b"x"), b"x")

    def test_rsa_with_another_padding(self):
        """C03: what PSS made does not verify as PKCS#1 v1.5."""
        from cryptography.hazmat.primitives.asymmetric import padding

        key = rsa.generate_private_key(65537, 2048)
        value = key.sign(b"x", padding.PSS(padding.MGF1(SHA256()), 0), SHA256())
        with pytest.raises(InvalidSignature):
            check_signature(ns.RSA_SHA256, key.public_key(), value, b"x")


def test_certify_makes_what_the_other_tests_need():
    key = ed25519.Ed25519PrivateKey.generate()
    assert public_key_of(certify(key.public_key())) == key.public_key()
    assert SoftSigningKey(key, b"").algorithm == ns.ED25519
