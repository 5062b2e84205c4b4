"""Which certificate a listener shows: that of the ring, else that of its file; each handshake anew."""

import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.cli.listening import Context
from gateway.config import Tls
from gateway.errors import KeyUnavailable
from gateway.keys import own
from gateway.keys.tls import client_context, tls_test
from tests.pki import SIGN, Ca, key
from tests.unit.keys.test_tls import shake
from tests.world import key_pem, to_pem

CA = Ca.root("Listener CA")
NAMES = (x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)


def tls_key(number: int) -> own.TlsKey:
    private = key("ec", 40 + number)
    return own.TlsKey(private, CA.leaf(f"gw {number}", private.public_key(), key_usage=SIGN, extensions=[NAMES]))


def shown(context: Context) -> bytes:
    client = client_context(to_pem(CA.certificate))
    return shake(context(), client)[0].getpeercert(True)


@pytest.fixture
def tls(tmp_path):
    file = tls_key(0)
    (tmp_path / "tls.pem").write_bytes(key_pem(key("ec", 40)) + to_pem(file.certificate))
    return file, Tls(certificate=tmp_path / "tls.pem")


def test_the_ring_goes_before_the_file_and_the_file_comes_back(tls):
    file, settings = tls
    now = [None]
    context = Context(settings, lambda: now[0])
    assert shown(context) == file.certificate
    for number in (1, 2):
        now[0] = tls_key(number)
        assert shown(context) == now[0].certificate
        assert context() is context(), "made once"
    now[0] = None
    assert shown(context) == file.certificate


def test_what_else_the_table_says_holds_for_the_key_of_the_ring_too(tmp_path):
    (tmp_path / "ca.pem").write_bytes(to_pem(CA.certificate))
    strict = Tls(client_ca=tmp_path / "ca.pem", require_client_certificate=True, minimum_version="1.3")
    context = Context(strict, lambda: tls_key(1))
    with pytest.raises(ssl.SSLError):
        shown(context)
    mine = tls_key(3)
    ours, theirs = shake(context(), client_context(to_pem(CA.certificate), identity=mine))
    assert ours.version() == "TLSv1.3" and theirs.getpeercert(True) == mine.certificate


def test_without_any_certificate_handshakes_fail_and_the_log_says_so(caplog):
    context = Context(Tls(), lambda: None)
    assert any("listener.nameless" in record.getMessage() for record in caplog.records)
    with pytest.raises(ssl.SSLError):
        shown(context)


def test_a_key_that_is_not_its_certificates_is_found():
    wrong = own.TlsKey(ec.generate_private_key(ec.SECP256R1()), tls_key(1).certificate)
    with pytest.raises(KeyUnavailable, match="not usable for TLS"):
        tls_test(wrong)
    tls_test(tls_key(1))
    with pytest.raises(TypeError):
        wrong.__reduce__()
    assert "gw 1" in repr(wrong)
