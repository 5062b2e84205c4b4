"""gateway.toml: what is read, what is refused, and with which words."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from gateway.config import As4, Config, Dsn, Duration, Limits, Secret, Size
from gateway.config.reference import descriptions, reference
from gateway.config.strict import build, shape_of
from gateway.errors import ConfigError

ROOT = Path(__file__).parents[2]


def load(tmp_path: Path, text: str = "", **environ: str) -> Config:
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    return Config.load(file, environ)


def refused(tmp_path: Path, text: str = "", **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text, **environ)
    return error.value


def test_an_empty_file_is_a_configuration(tmp_path):
    config = load(tmp_path)
    assert config.as4.bind == "127.0.0.1:8443"
    assert config.as4.paths == ("/as4", "/services/msh", "/domibus/services/msh")
    assert config.node.name and config.node.host == config.node.name
    assert config.limits == Limits()
    assert config.store.dsn is None


def test_defaults_without_a_file():
    assert Config.load(None, {}).data.folder == Path.cwd() / "data"


def test_paths_start_from_the_folder_of_the_file(tmp_path):
    config = load(tmp_path, 'pmodes = "agreements"\n[data]\nfolder = "/var/lib/gateway"\n'
                            '[[keys.store]]\npath = "certs/a.p12"\npassword = "file:certs/a.pw"\n')
    assert config.pmodes == tmp_path / "agreements"
    assert config.certs == tmp_path / "certs"
    assert config.data.folder == Path("/var/lib/gateway")
    assert config.keys.store[0].path == tmp_path / "certs/a.p12"
    assert str(config.keys.store[0].password) == f"file:{tmp_path}/certs/a.pw"


def test_the_host_comes_from_the_public_url(tmp_path):
    text = '[as4]\npublic_url = "https://ap.example.lv/as4"\n'
    assert load(tmp_path, text).node.host == "ap.example.lv"
    assert load(tmp_path, text + '[node]\nhost = "other.example"\n').node.host == "other.example"


def test_durations_and_sizes_have_units(tmp_path):
    config = load(tmp_path, '[limits]\npart = "50MiB"\nmessage = 104857600\nbody_deadline = "2m"\n'
                            '[retention]\nsent_payloads = "1.5h"\ndelivered_payloads = 0\n')
    assert (config.limits.part, config.limits.message, config.limits.body_deadline) == (50 << 20, 100 << 20, 120)
    assert (config.retention.sent_payloads, config.retention.delivered_payloads) == (5400, 0)


def test_what_the_law_says_is_the_default():
    kept = Config().retention
    assert (kept.delivered_payloads, kept.sent_payloads, kept.messages) == (0, 3600 * 60, 365 * 86_400)
    with pytest.raises(ValueError, match="messages"):
        type(kept)(messages=Duration(60))


@pytest.mark.parametrize(("text", "key", "words"), [
    ("[as4]\nbnid = 1", "as4.bnid", "did you mean 'bind'?"),
    ("[as5]\nbind = 1", "as5", "did you mean 'as4'?"),
    ("[[keys.store]]\npath = 'a'\npasword = 'env:X'", "keys.store[0].pasword", "did you mean 'password'?"),
    ("[as4.tls]\nkey = 'x'", "as4.tls.key", "belongs to a certificate"),
    ("[as4]\nbind = 8443", "as4.bind", "expected `str`, got `int`"),
    ("[as4]\nbind = '127.0.0.1'", "as4.bind", "expected ADDRESS:PORT"),
    ("[as4]\nbind = '127.0.0.1:99999'", "as4.bind", "expected ADDRESS:PORT"),
    ("[as4]\npaths = ['as4']", "as4.paths", "starts with /"),
    ("[as4]\npaths = 'x'", "as4.paths", "expected `array`"),
    ("as4 = 1", "as4", "expected a table, not a number"),
    ("[keys.store]\npath = 'a'", "keys.store", "array of tables ([[keys.store]])"),
    ("[store]\npool_size = 1", "store.pool_size", "expected 2 to 200"),
    ("[log]\nlevel = 'loud'", "log.level", "invalid enum value"),
    ("[limits]\npart = '1 parsec'", "limits.part", "octets"),
    ("[limits]\npart = true", "limits.part", "octets"),
    ("[limits]\nbody_deadline = '-1s'", "limits.body_deadline", "seconds"),
    ("[limits]\npart = '2GiB'", "limits.part", "may not be larger than message"),
    ("[egress]\nallow_networks = ['10.0.0.1/8']", "egress.allow_networks", "has host bits set"),
    ("[as4.tls]\ncertificate = 'x'\nrequire_client_certificate = true", "as4.tls", "needs client_ca"),
    ("[data]\nfolder = ''", "data.folder", "expected a path"),
])
def test_mistakes_name_file_key_and_what_is_right(tmp_path, text, key, words):
    error = refused(tmp_path, text)
    assert (error.file, error.key) == (str(tmp_path / "gateway.toml"), key)
    assert words in str(error)


def test_broken_toml_names_the_line(tmp_path):
    error = refused(tmp_path, "[as4]\nbind = \n")
    assert "line 2" in str(error)


def test_a_file_that_is_not_utf8_names_the_line(tmp_path):
    (tmp_path / "gateway.toml").write_bytes(b"[node]\nname = '\xff'\n")
    with pytest.raises(ConfigError, match=r"gateway\.toml:2: is not UTF-8"):
        Config.load(tmp_path / "gateway.toml", {})


def test_no_such_file(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        Config.load(tmp_path / "nothing.toml", {})


class TestSecrets:
    @pytest.mark.parametrize("text", ["hunter2", "file:", "https://vault/x", "", "plain:hunter2"])
    def test_a_literal_is_refused_and_not_repeated(self, tmp_path, text):
        error = refused(tmp_path, f"[[keys.store]]\npath = 'a'\npassword = '{text}'\n")
        assert error.key == "keys.store[0].password"
        assert "file:PATH" in str(error) and "hunter2" not in str(error)

    def test_from_a_file_without_the_line_end(self, tmp_path):
        (tmp_path / "pw").write_text("test123\r\nsecond line\n")
        assert Secret("file", str(tmp_path / "pw")).line() == b"test123"
        (tmp_path / "empty").touch()
        assert Secret("file", str(tmp_path / "empty")).line() == b""

    def test_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("GATEWAY_TEST_PW", "päss")
        assert Secret("env", "GATEWAY_TEST_PW").line() == "päss".encode()
        with pytest.raises(ConfigError, match="GATEWAY_TEST_NO is not set"):
            Secret("env", "GATEWAY_TEST_NO").line()

    def test_from_the_service_manager(self, tmp_path, monkeypatch):
        (tmp_path / "kek").write_text("x")
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
        assert Secret("credential", "kek").octets() == b"x"
        assert Secret("credential", "../../etc/kek").octets() == b"x"  # never out of its folder
        monkeypatch.delenv("CREDENTIALS_DIRECTORY")
        with pytest.raises(ConfigError, match="CREDENTIALS_DIRECTORY"):
            Secret("credential", "kek").octets()

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            Secret("file", str(tmp_path / "no")).octets()

    def test_repr_shows_the_reference_only(self, tmp_path):
        config = load(tmp_path, "[[keys.store]]\npath = 'a'\npassword = 'env:PW'\n", PW="hunter2")
        assert "env:PW" in repr(config) and "hunter2" not in repr(config)


class TestDsn:
    KEK = '[keys]\nkey_encryption_key = "env:KEK"\n'

    def test_without_a_password_it_may_stand_there(self, tmp_path):
        config = load(tmp_path, self.KEK + '[store]\ndsn = "postgresql://gateway@db/gateway"\n')
        assert config.store.dsn.read() == "postgresql://gateway@db/gateway"

    @pytest.mark.parametrize("dsn", ["postgresql://u:hunter2@db/x", "postgresql://db/x?password=hunter2"])
    def test_a_password_in_it_is_refused(self, tmp_path, dsn):
        error = refused(tmp_path, f'{self.KEK}[store]\ndsn = "{dsn}"\n')
        assert "may not stand here" in str(error) and "hunter2" not in str(error)

    def test_a_reference_is_read_when_needed(self, tmp_path):
        (tmp_path / "dsn").write_text("postgresql://u:hunter2@db/x\n")
        config = load(tmp_path, self.KEK + '[store]\ndsn = "file:dsn"\n')
        assert isinstance(config.store.dsn, Dsn) and config.store.dsn.read() == "postgresql://u:hunter2@db/x"
        assert "hunter2" not in repr(config)

    def test_a_shared_database_needs_a_named_key(self, tmp_path):
        error = refused(tmp_path, '[store]\ndsn = "postgresql://db/x"\n')
        assert error.key == "keys.key_encryption_key"


class TestEnvironment:
    def test_variables_lie_over_the_file(self, tmp_path):
        config = load(
            tmp_path, '[as4]\nbind = "127.0.0.1:1"\n[limits]\npart = 1\n',
            GATEWAY__AS4__BIND="0.0.0.0:8443", GATEWAY__LIMITS__PARTS="3", GATEWAY__LIMITS__PART="1MiB",
            GATEWAY__TRUST__KEY_USAGE="false", GATEWAY__AS4__PATHS="/a, /b", GATEWAY__PMODES="elsewhere",
            GATEWAY__EGRESS__ALLOW_NETWORKS='["10.0.0.0/8"]', OTHER="x", GATEWAY_CRASH="IB21",
        )  # fmt: skip
        assert config.as4 == As4(bind="0.0.0.0:8443", paths=("/a", "/b"))
        assert (config.limits.parts, config.limits.part, config.trust.key_usage) == (3, 1 << 20, False)
        assert config.pmodes == tmp_path / "elsewhere" and config.egress.allow_networks == ("10.0.0.0/8",)

    def test_a_table_that_the_file_lacks_is_made(self, tmp_path):
        config = load(tmp_path, GATEWAY__AS4__TLS__CERTIFICATE="/x.pem", GATEWAY__AS4__TLS__MINIMUM_VERSION="1.3")
        assert config.as4.tls.certificate == Path("/x.pem") and config.as4.tls.minimum_version == "1.3"

    def test_tables_are_written_as_in_toml(self, tmp_path):
        config = load(tmp_path, GATEWAY__KEYS__STORE='[{path = "a.p12", party = "AP_LV_01"}]')
        assert config.keys.store[0].party == "AP_LV_01"

    @pytest.mark.parametrize(("variable", "value", "words"), [
        ("GATEWAY__AS4__BNID", "x", "did you mean 'bind'?"),
        ("GATEWAY__ASS4__BIND", "x", "did you mean 'as4'?"),
        ("GATEWAY__LIMITS__PARTS", "many", "TOML value"),
        ("GATEWAY__LIMITS__PARTS", "'3'", "expected `int`"),
        ("GATEWAY__LIMITS__PART", "lots", "octets"),
        ("GATEWAY__PMODES__X", "1", "has no keys of its own"),
        ("GATEWAY__KEYS__STORE__PATH", "x", "has no keys of its own"),
        ("GATEWAY__KEYS__KEY_ENCRYPTION_KEY", "hunter2", "the secret itself may not stand here"),
    ])
    def test_mistakes_name_the_variable(self, tmp_path, variable, value, words):
        error = refused(tmp_path, **{variable: value})
        assert (error.file, error.key) == ("environment", variable)
        assert words in str(error) and "hunter2" not in str(error)


# -- the reference page -----------------------------------------------------------


def structs(struct: type[Struct] = Config):
    yield struct
    for field in msgspec.structs.fields(struct):
        shape, inner = shape_of(field.type)
        if shape != "value":
            yield from structs(inner)


@pytest.mark.parametrize("struct", dict.fromkeys(structs()), ids=lambda s: s.__name__)
def test_every_field_is_described(struct):
    about, described = descriptions(struct)
    keys = {f.encode_name for f in msgspec.structs.fields(struct) if shape_of(f.type)[0] == "value"}
    assert about and keys <= described.keys() <= {f.encode_name for f in msgspec.structs.fields(struct)}


def test_the_reference_page_is_current():
    assert (ROOT / "docs/configuration.md").read_text() == reference(), (
        "run: python -m gateway.config.reference > docs/configuration.md"
    )


# -- whatever comes ---------------------------------------------------------------

toml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
sections = st.sampled_from([f.encode_name for f in msgspec.structs.fields(Config)])


@given(st.dictionaries(sections, toml_values, max_size=4))
def test_any_tables_give_a_configuration_or_a_config_error(raw):
    try:
        build(raw, Config, file="x", base=Path("/base"))
    except ConfigError as error:
        assert error.detail


@given(st.sampled_from([Duration, Size]), st.text(max_size=30) | st.floats() | st.integers() | st.booleans())
def test_quantities_are_positive_or_refused(kind, value):
    try:
        parsed = kind.parse(value)
    except ValueError:
        return
    assert 0 <= parsed < 1e15


def test_mistakes_have_their_line_and_value_but_secrets_are_not_repeated(tmp_path):
    error = refused(tmp_path, "[log]\nlevel = 'loud'\n")
    assert str(error).startswith(f'{tmp_path}/gateway.toml:2: log.level = "loud": ')
    for text in ("[keys]\nkey_encryption_key = 'hunter2'", "[[keys.store]]\npath = 'x'\npassword = 'hunter2'",
                 "[store]\ndsn = 'hunter2'", "[keys]\nkey_encryption_kee = 'hunter2'"):  # fmt: skip
        error = refused(tmp_path, text)
        assert error.line and "hunter2" not in str(error)
