"""Certificates for development fit what the gateway demands of them."""

import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from gateway.errors import ConfigError
from gateway.keys.development import file_stem, make_development
from gateway.keys.formats import read_keystore
from gateway.keys.trust import check_certificate

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def pinned(path) -> bytes:
    (entry,) = read_keystore(path.read_bytes())
    return entry.certificate


def test_every_suite_has_keys_of_its_kind_that_pass_the_checks(tmp_path):
    made = make_development(tmp_path, ["AP_LV_01"], now=NOW, suites=["rsa", "eddsa", "ecdsa"])
    kinds = {"rsa": (rsa.RSAPublicKey,) * 2, "eddsa": (ed25519.Ed25519PublicKey, x25519.X25519PublicKey),
             "ecdsa": (ec.EllipticCurvePublicKey,) * 2}  # fmt: skip
    for party in made.parties:
        for path, use, kind in zip((party.signing, party.encryption), ("sign", "encrypt"), kinds[party.suite], strict=True):
            check_certificate(pinned(path), use=use, now=NOW)
            assert isinstance(x509.load_der_x509_certificate(pinned(path)).public_key(), kind)
    rsa_, eddsa, ecdsa = made.parties
    assert rsa_.signing == rsa_.encryption  # one certificate for both [oots 1.1]
    assert eddsa.signing != eddsa.encryption and ecdsa.signing != ecdsa.encryption
    assert [p.keys.name for p in made.parties] == [
        "ap_lv_01.key.pem", "ap_lv_01-eddsa.key.pem", "ap_lv_01-ecdsa.key.pem"]  # fmt: skip


def test_private_keys_are_for_the_owner_only(tmp_path):
    make_development(tmp_path / "certs", ["A"], now=NOW, suites=["rsa", "eddsa"])
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "certs").iterdir()}
    assert all((mode == 0o600) == name.endswith(".key.pem") for name, mode in modes.items())
    for path in (tmp_path / "certs").iterdir():
        assert (b"PRIVATE KEY" in path.read_bytes()) == path.name.endswith(".key.pem")
    assert stat.S_IMODE((tmp_path / "certs").stat().st_mode) == 0o700


def test_validity(tmp_path):
    made = make_development(tmp_path, ["A"], now=NOW, valid_for=timedelta(hours=24))
    certificate = x509.load_der_x509_certificate(pinned(made.parties[0].signing))
    assert certificate.not_valid_after_utc == NOW + timedelta(hours=24)
    assert certificate.not_valid_before_utc < NOW


def test_tls_certificate(tmp_path):
    made = make_development(tmp_path, [], now=NOW, valid_for=timedelta(days=3000), hosts=["ap.example", "::1"])
    leaf, ca = x509.load_pem_x509_certificates(made.tls_certificate.read_bytes())
    leaf.verify_directly_issued_by(ca)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(days=398)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["ap.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["::1"]


def test_a_party_can_be_added_under_the_same_ca(tmp_path):
    make_development(tmp_path, ["A"], now=NOW)
    ca, first = (tmp_path / "ca.pem").read_bytes(), (tmp_path / "a.pem").read_bytes()
    make_development(tmp_path, ["B"], now=NOW + timedelta(days=5))
    assert (tmp_path / "ca.pem").read_bytes() == ca and (tmp_path / "a.pem").read_bytes() == first
    issuer = x509.load_pem_x509_certificate(ca)
    for name in ("a", "b"):
        x509.load_der_x509_certificate(pinned(tmp_path / f"{name}.pem")).verify_directly_issued_by(issuer)
    # When the CA is at its end a new one is made.
    make_development(tmp_path, ["C"], now=NOW + timedelta(days=30))
    assert (tmp_path / "ca.pem").read_bytes() != ca


def test_nothing_is_replaced_unasked(tmp_path):
    made = make_development(tmp_path, ["A"], now=NOW)
    before = made.parties[0].keys.read_bytes()
    with pytest.raises(ConfigError, match="is there already"):
        make_development(tmp_path, ["B", "A"], now=NOW)
    assert made.parties[0].keys.read_bytes() == before and not (tmp_path / "b.pem").exists()
    make_development(tmp_path, ["A"], now=NOW, replace=True)
    assert made.parties[0].keys.read_bytes() != before


@pytest.mark.parametrize(("party", "stem"), [
    ("AP_LV_01", "ap_lv_01"), ("../../etc/passwd", "_.._etc_passwd"), ("urn:x:9939:LV1", "urn_x_9939_lv1"), ("...", "party"),
])
def test_file_names_are_harmless(party, stem):
    assert file_stem(party) == stem


def test_two_parties_with_one_file_name(tmp_path):
    with pytest.raises(ConfigError):
        make_development(tmp_path, ["AP_LV_01", "ap_lv_01"], now=NOW)
