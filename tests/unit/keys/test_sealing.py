"""What lies in the database opens only with the right key, for the right message, in the right place."""

import base64
import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Config, Secret
from gateway.errors import ConfigError, KeyUnavailable
from gateway.keys import sealing
from gateway.keys.sealing import KeyEncryptionKey, create_file, new_message_key, open_chunk, seal_chunk

KEK = KeyEncryptionKey(bytes(range(32)))
KEY = bytes(range(32, 64))


class TestChunks:
    @given(st.binary(max_size=2000), st.integers(0, 65_535), st.integers(0, 2**32 - 1))
    def test_round_trip(self, octets, part, number):
        sealed = seal_chunk(KEY, "m", part, number, octets)
        assert type(sealed) is bytes and len(sealed) == len(octets) + 16
        assert open_chunk(KEY, "m", part, number, sealed) == octets

    @pytest.mark.parametrize("octets", [bytearray(b"evidence"), memoryview(b"evidence")])
    def test_any_buffer(self, octets):
        assert open_chunk(KEY, "m", 0, 0, memoryview(seal_chunk(KEY, "m", 0, 0, octets))) == b"evidence"

    @pytest.mark.parametrize("place", [("n", 0, 0), ("m", 1, 0), ("m", 0, 1), ("m0", 0, 0)])
    def test_chunks_cannot_change_places(self, place):
        """Threats M06: rows exchanged in the database."""
        with pytest.raises(KeyUnavailable):
            open_chunk(KEY, *place, seal_chunk(KEY, "m", 0, 0, b"evidence"))

    def test_every_flipped_bit_is_noticed(self):
        sealed = seal_chunk(KEY, "m", 0, 0, b"evidence")
        for at in range(len(sealed)):
            with pytest.raises(KeyUnavailable):
                open_chunk(KEY, "m", 0, 0, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
        for wrong in (b"", sealed[:-1], sealed + b"x", sealed[:15], os.urandom(40)):
            with pytest.raises(KeyUnavailable):
                open_chunk(KEY, "m", 0, 0, wrong)

    def test_no_nonce_twice_within_a_message(self):
        nonces = {sealing._nonce(p, n, s) for p in range(5) for n in range(50) for s in (0, 1, 65_536, 524_288)}
        assert len(nonces) == 5 * 50 * 4 and {len(n) for n in nonces} == {12}

    def test_one_piece_and_first_chunk_of_the_same_content_share_no_key_stream(self):
        content = bytes(1000)
        small, large = seal_chunk(KEY, "m", 0, 0, content[:500]), seal_chunk(KEY, "m", 0, 0, content)
        assert small[:500] != large[:500]


class TestMessageKeys:
    def test_round_trip(self):
        key = new_message_key(os.urandom)
        wrapped = KEK.wrap(key, "m1")
        assert len(key) == 32 and len(wrapped) == 49 and KEK.unwrap(wrapped, "m1") == key

    def test_bound_to_message_and_site(self):
        wrapped = KEK.wrap(KEY, "m1")
        with pytest.raises(KeyUnavailable, match="was changed"):
            KEK.unwrap(wrapped, "m2")
        with pytest.raises(KeyUnavailable, match="another key-encryption key"):
            KeyEncryptionKey(os.urandom(32)).unwrap(wrapped, "m1")

    @given(st.binary(max_size=80))
    def test_rubbish(self, octets):
        for start in (b"", KEK.wrap(KEY, "m")[:9]):
            with pytest.raises(KeyUnavailable):
                KEK.unwrap(start + octets, "m")

    def test_flipped_bits(self):
        wrapped = KEK.wrap(KEY, "m1")
        for at in range(len(wrapped)):
            with pytest.raises(KeyUnavailable):
                KEK.unwrap(wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :], "m1")

    def test_a_new_key_opens_what_the_old_one_sealed(self):
        new = KeyEncryptionKey(os.urandom(32), [bytes(range(32))])
        assert new.unwrap(KEK.wrap(KEY, "m1"), "m1") == KEY
        assert new.open_secret(KEK.seal_secret(b"s", "n"), "n") == b"s"
        assert new.wrap(KEY, "m1") != KEK.wrap(KEY, "m1")
        with pytest.raises(KeyUnavailable):
            KEK.unwrap(new.wrap(KEY, "m1"), "m1")

    def test_nothing_of_the_key_in_repr_and_errors(self):
        text = repr(KEK)
        with pytest.raises(KeyUnavailable) as error:
            KEK.unwrap(b"\x01" + bytes(48), "m")
        for shown in (text, str(error.value)):
            assert bytes(range(32)).hex()[:8] not in shown

    @pytest.mark.parametrize("size", [0, 16, 31, 33])
    def test_only_32_octets(self, size):
        with pytest.raises(KeyUnavailable):
            KeyEncryptionKey(bytes(size))


class TestSecrets:
    @given(st.binary(max_size=100), st.text(max_size=30))
    def test_round_trip(self, secret, name):
        sealed = KEK.seal_secret(secret, name)
        assert KEK.open_secret(sealed, name) == secret
        with pytest.raises(KeyUnavailable):
            KEK.open_secret(sealed, name + "x")

    def test_sealing_twice_differs(self):
        assert KEK.seal_secret(b"s", "n") != KEK.seal_secret(b"s", "n")

    @given(st.binary(max_size=60))
    def test_rubbish(self, octets):
        for start in (b"", KEK.seal_secret(b"s", "n")[:9]):
            with pytest.raises(KeyUnavailable):
                KEK.open_secret(start + octets, "n")

    def test_a_secret_is_no_message_key(self):
        with pytest.raises(KeyUnavailable):
            KEK.open_secret(KEK.wrap(KEY, "n"), "n")


class TestFromConfiguration:
    RAW = bytes(range(32))

    @pytest.mark.parametrize("octets", [
        RAW, RAW.hex().encode(), RAW.hex().upper().encode() + b"\n", base64.b64encode(RAW) + b"\n",
        base64.urlsafe_b64encode(RAW).rstrip(b"="),
    ])
    def test_spellings(self, tmp_path, octets):
        file = tmp_path / "kek"
        file.write_bytes(octets)
        file.chmod(0o640)
        assert KeyEncryptionKey.load(Secret("file", str(file))).id == KEK.id

    @pytest.mark.parametrize("octets", [b"", b"short", base64.b64encode(bytes(31)), b"x" * 33, b"!" * 44, b"g" * 64])
    def test_what_is_no_key(self, tmp_path, octets):
        file = tmp_path / "kek"
        file.write_bytes(octets)
        file.chmod(0o600)
        with pytest.raises(ConfigError, match="openssl rand -base64 32"):
            KeyEncryptionKey.load(Secret("file", str(file)))

    def test_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("KEK", self.RAW.hex())
        assert KeyEncryptionKey.load(Secret("env", "KEK")).id == KEK.id

    def test_a_file_that_everybody_can_read_is_refused(self, tmp_path):
        file = tmp_path / "kek"
        file.write_bytes(self.RAW)
        file.chmod(0o644)
        with pytest.raises(ConfigError, match="chmod 600"):
            KeyEncryptionKey.load(Secret("file", str(file)))

    def test_create_file(self, tmp_path):
        file = tmp_path / "new" / "kek"
        create_file(file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert list(file.parent.iterdir()) == [file]
        before = KeyEncryptionKey.load(Secret("file", str(file))).id
        with pytest.raises(ConfigError, match="never overwritten"):
            create_file(file)
        assert KeyEncryptionKey.load(Secret("file", str(file))).id == before

    def test_a_node_with_its_own_database_makes_one_once(self, tmp_path):
        config = config_in(tmp_path)
        first = sealing.load(config)
        assert sealing.load(config).id == first.id
        assert stat.S_IMODE((tmp_path / "data" / "key-encryption-key").stat().st_mode) == 0o600

    def test_a_named_one_and_its_predecessor(self, tmp_path, monkeypatch):
        monkeypatch.setenv("NEW", os.urandom(32).hex())
        monkeypatch.setenv("OLD", self.RAW.hex())
        text = '[keys]\nkey_encryption_key = "env:NEW"\nprevious_key_encryption_keys = ["env:OLD"]\n'
        assert sealing.load(config_in(tmp_path, text)).unwrap(KEK.wrap(KEY, "m"), "m") == KEY
        assert not (tmp_path / "data").exists()

    def test_processes_that_start_together_agree(self, tmp_path):
        context = multiprocessing.get_context("fork")
        with context.Pool(4) as pool:
            ids = set(pool.map(_id_in, [tmp_path] * 8))
        assert len(ids) == 1


def config_in(folder: Path, text: str = "") -> Config:
    (folder / "gateway.toml").write_text(text)
    return Config.load(folder / "gateway.toml", {})


def _id_in(folder: Path) -> bytes:
    return sealing.load(Config.load(None, {"GATEWAY__DATA__FOLDER": str(folder / "data")})).id
