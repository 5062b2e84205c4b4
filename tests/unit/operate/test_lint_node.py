"""What lint knows of the node: how long it keeps things, and who reads only once."""

from msgspec.structs import replace

from gateway.config import Config, Duration, Retention
from gateway.operate.lint import findings
from tests.world import Authority, Keys, write_site


def rules(tmp_path, *, backend="rest", **retention):
    if not (tmp_path / "gateway.toml").exists():
        authority = Authority()
        write_site(tmp_path, *(Keys.make(name, "p256", authority) for name in ("AP_LV_01", "AP_EE_01")))
    agreement = tmp_path / "pmodes/agreement.toml"
    text = agreement.read_text().partition("\nbackend =")[0]
    agreement.write_text(f'backend = "{backend}"\n' + text if not text.startswith("backend") else
                         f'backend = "{backend}"\n' + text.partition("\n")[2])
    config = Config.load(tmp_path / "gateway.toml", environ={})
    return {f.rule for f in findings(replace(config, retention=Retention(**retention)))} & {"P013", "P014"}


def test_the_defaults_keep_to_the_law_and_warn_who_reads_once(tmp_path):
    assert rules(tmp_path) == set()
    assert rules(tmp_path, backend="domibus_ws") == {"P014"}
    assert rules(tmp_path, backend="domibus_ws", delivered_payloads=Duration(3600)) == set()


def test_less_than_twelve_months_is_an_error(tmp_path):
    assert rules(tmp_path, messages=Duration(300 * 86_400)) == {"P013"}
