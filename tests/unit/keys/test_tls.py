"""TLS contexts, tried in real handshakes over memory."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.config import Secret, Tls
from gateway.errors import ConfigError
from gateway.keys.development import make_development
from gateway.keys.tls import client_context, server_context


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    return make_development(folder, ["A"], now=datetime.now(UTC))


@pytest.fixture
def tls(files):
    return Tls(certificate=files.tls_certificate, key=files.tls_key)


def shake(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost"):
    """One handshake; the two ends. Raises `ssl.SSLError`."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    waiting = list(ends)
    for _ in range(20):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            break
    assert not waiting
    # With TLS 1.3 the server's refusal of a client certificate comes after the client's handshake.
    ends[1].write(b"x")
    assert ends[0].read(1) == b"x"
    return ends


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_both_versions(files, tls, version, host):
    client = client_context(files.ca)
    client.maximum_version = ssl.TLSVersion.TLSv1_2 if version == "TLSv1.2" else ssl.TLSVersion.TLSv1_3
    ours, theirs = shake(server_context(tls), client, host)
    assert ours.version() == theirs.version() == version
    assert ours.selected_alpn_protocol() == "http/1.1"
    assert "GCM" in ours.cipher()[0]


def test_the_server_must_be_who_it_should_be(files, tls):
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake(server_context(tls), client_context(files.ca), "ap.example.ee")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unable to get local issuer|self-signed"):
        shake(server_context(tls), client_context())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions_and_weak_suites_are_refused(files, tls):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(files.ca)
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        shake(server_context(tls), old)
    cbc = client_context(files.ca, ciphers="ECDHE-ECDSA-AES128-SHA256")
    cbc.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake(server_context(tls), cbc)


def test_only_forward_secrecy_and_aead(tls):
    for context in (server_context(tls), client_context()):
        for cipher in context.get_ciphers():
            assert cipher["aead"], cipher["name"]
            assert cipher["protocol"] == "TLSv1.3" or cipher["name"].startswith("ECDHE-"), cipher["name"]


def test_tls_13_only(files, tls):
    client = client_context(files.ca)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake(server_context(Tls(certificate=tls.certificate, key=tls.key, minimum_version="1.3")), client)


class TestClientCertificates:
    @pytest.fixture
    def wanting(self, files, tls):
        def context(required: bool) -> ssl.SSLContext:
            return server_context(Tls(certificate=tls.certificate, key=tls.key, client_ca=files.ca,
                                      require_client_certificate=required))  # fmt: skip

        return context

    def test_asked_for(self, files, wanting):
        own = files.parties[0].keys
        _, server = shake(wanting(True), client_context(files.ca, certificate=own))
        assert server.getpeercert(True)
        _, server = shake(wanting(False), client_context(files.ca))
        assert server.getpeercert(True) is None

    def test_required(self, files, wanting):
        with pytest.raises(ssl.SSLError):
            shake(wanting(True), client_context(files.ca))

    def test_of_another_ca(self, files, wanting, tmp_path):
        other = make_development(tmp_path, ["A"], now=datetime.now(UTC)).parties[0].keys
        for required in (True, False):
            with pytest.raises(ssl.SSLError):
                shake(wanting(required), client_context(files.ca, certificate=other))


def test_session_keys_are_never_written_down(files, tls, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    shake(server_context(tls), client_context(files.ca))
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("form", ["path", "pem", "der"])
def test_anchors_in_any_form(files, tls, form):
    pem = files.ca.read_bytes()
    ca = {"path": files.ca, "pem": pem, "der": ssl.PEM_cert_to_DER_cert(pem.decode())}[form]
    shake(server_context(tls), client_context(ca))


def test_an_expired_server_is_refused(tmp_path):
    long_ago = datetime.now(UTC) - timedelta(days=60)
    made = make_development(tmp_path, [], now=long_ago, valid_for=timedelta(days=1))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake(server_context(Tls(certificate=made.tls_certificate, key=made.tls_key)), client_context(made.ca))


class TestMistakes:
    def test_files_are_named(self, files, tmp_path):
        nothing, rubbish = tmp_path / "nothing.pem", tmp_path / "rubbish.pem"
        rubbish.write_text("rubbish")
        for made, file in [
            (Tls(certificate=nothing), nothing),
            (Tls(certificate=files.tls_certificate, key=nothing), nothing),
            (Tls(certificate=rubbish), rubbish),
            (Tls(certificate=files.tls_certificate, key=files.tls_key, client_ca=nothing), nothing),
            (Tls(certificate=files.tls_certificate, key=files.tls_key, client_ca=rubbish), rubbish),
        ]:
            with pytest.raises(ConfigError) as error:
                server_context(made)
            assert error.value.file == str(file)

    def test_key_of_another_certificate(self, files):
        with pytest.raises(ConfigError, match="does not belong"):
            server_context(Tls(certificate=files.tls_certificate, key=files.parties[0].keys))
        with pytest.raises(ConfigError, match="does not belong"):
            server_context(Tls(certificate=files.tls_certificate, key=files.ca.with_name("ca.key.pem")))

    def test_wrong_password_does_not_ask_on_the_terminal(self, files, tmp_path, monkeypatch):
        from cryptography.hazmat.primitives.serialization import (
            BestAvailableEncryption,
            Encoding,
            PrivateFormat,
            load_pem_private_key,
        )

        key = load_pem_private_key(files.tls_key.read_bytes(), None)
        locked = tmp_path / "locked.pem"
        locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"right")))
        monkeypatch.setenv("PW", "right")
        server_context(Tls(certificate=files.tls_certificate, key=locked, password=Secret("env", "PW")))
        monkeypatch.setenv("PW", "wrong")
        for password in (Secret("env", "PW"), None):
            with pytest.raises(ConfigError) as error:
                server_context(Tls(certificate=files.tls_certificate, key=locked, password=password))
            assert error.value.file == str(locked)

    def test_unknown_ciphers(self, files, tls):
        with pytest.raises(ConfigError, match="knows none"):
            server_context(Tls(certificate=tls.certificate, key=tls.key, ciphers="NOTHING"))

    def test_bad_anchor_octets(self):
        for octets in (b"", b"rubbish", b"-----BEGIN \xff"):
            with pytest.raises(ConfigError):
                client_context(octets)


def test_paths_are_paths(files):
    assert isinstance(files.ca, Path)
