"""Every value of a leg with the layer it comes from: what is shown is what is in force, and stands where it is said to."""

import json
import tomllib

import pytest
import tomlkit
from hypothesis import HealthCheck, assume, given, settings

from gateway.config.places import walk
from gateway.config.strict import Duration, Size
from gateway.errors import ConfigError
from gateway.keys.formats import truststore
from gateway.pmodes.bundle import Folder
from gateway.pmodes.origin import Explained
from tests.unit.pmodes import generated
from tests.unit.pmodes import network as made
from tests.unit.pmodes.test_pmode_files import OOTS, certs  # noqa: F401 - a fixture

LAYERS = """
backend = "top"
retry = { first = "20s" }
""" + OOTS + """
[[exchanges]]
id = "Own"
service = "urn:s"
action = "Order"
backend = "mine"
mep = "two-way-push-and-push"
reply = { action = "Answer", max_part = "1MiB" }
[overrides."*:ExecuteQueryRequest"]
retry = { count = 9 }
[overrides."AP_EE_01:ExecuteQueryRequest"]
compress = true
"""


def explained(folder, **more) -> Explained:
    return Explained(Folder(folder, **more))


def origins(found: Explained, pmode_id: str, number: int = 1) -> dict:
    (leg,) = [leg for leg in found.pmodes.legs if (leg.pmode_id, leg.number) == (pmode_id, number)]
    return {name: str(origin) for name, _, origin in found.values(leg)}


@pytest.fixture
def layered(tmp_path, certs):  # noqa: F811
    (tmp_path / "a.toml").write_text(LAYERS)
    return explained(tmp_path, certs=certs)


def test_every_layer_is_named(layered, tmp_path):
    request = origins(layered, "AP_LV_01:AP_EE_01:ExecuteQueryRequest")
    assert request["retry.count"].startswith('override (') and request["retry.count"].endswith('"*:ExecuteQueryRequest".retry.count)')
    assert request["compress"].startswith("override (") and '"AP_EE_01:ExecuteQueryRequest".compress' in request["compress"]
    assert request["retry.first"] == f"file ({tmp_path}/a.toml:3: retry.first)"
    assert request["retry.window"] == request["service"] == request["from_role"] == "profile oots/2.0"
    assert request["max_message"] == request["mpc"] == "default"
    assert request["endpoint"].startswith(f"party ({tmp_path}/a.toml:") and request["profile"].startswith("file (")
    answer = origins(layered, "AP_LV_01:AP_EE_01:Own", 2)
    assert answer["max_part"].startswith("reply (") and answer["max_part"].endswith("exchanges[0].reply.max_part)")
    assert answer["action"].startswith("reply (") and answer["backend"].startswith("exchange (")
    assert origins(layered, "AP_LV_01:AP_EE_01:test")["service"] == "test service"


def test_the_answer_has_the_roles_the_other_way_round(tmp_path, certs):  # noqa: F811
    text = OOTS + '[[exchanges]]\nservice = "urn:s"\naction = "A"\nfrom_role = "x"\nmep = "two-way-push-and-push"\nreply = { action = "B" }\n'
    (tmp_path / "a.toml").write_text(text)
    found = explained(tmp_path, certs=certs)
    assert origins(found, "AP_LV_01:AP_EE_01:A")["from_role"].startswith("exchange (")
    answer = origins(found, "AP_LV_01:AP_EE_01:A", 2)
    assert answer["to_role"].startswith("exchange (") and answer["from_role"] == "profile oots/2.0"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(generated.files())
def test_the_place_that_is_named_says_the_value_that_is_in_force(tmp_path, raw):
    text = tomlkit.dumps(raw)
    (tmp_path / "a.toml").write_text(text)
    try:
        found = explained(tmp_path)
    except ConfigError:
        assume(False)
    values = {key: value for key, value, _, _ in walk(tomllib.loads(text))}
    for leg in found.pmodes.legs:
        for name, value, origin in found.values(leg):
            if origin.file != str(tmp_path / "a.toml") or name in ("from_party", "to_party", "service", "mep", "mep_binding"):
                continue
            said = values[origin.key]
            if name.startswith("retry") and isinstance(said, str):
                said = Duration.parse(said)
            elif name == "max_part":
                said = Size.parse(said)
            elif name == "properties":
                value, said = [r.name for r in value], [p if isinstance(p, str) else p["name"] for p in said]
            elif name == "agreement":
                value = value.value
            assert said == value, (name, origin)
            assert origin.line and origin.key.rpartition(".")[2].partition("[")[0] in text.splitlines()[origin.line - 1]


def test_the_layers_of_a_network(tmp_path):
    (tmp_path / "network.xml").write_text(made.Network().xml("AP_LV_01"))
    (tmp_path / "trust.jks").write_bytes(made.jks(made.truststore(made.Network())))
    (tmp_path / "password").write_text(made.PASSWORD)
    (tmp_path / "a.toml").write_text("""\
profile = "oots/2.0"
self = "AP_LV_01"
[network]
pmode = "network.xml"
truststore = { path = "trust.jks", password = "file:password" }
[overlay]
retry = { first = "45s" }
[overlay.parties.AP_FI_01]
endpoint = "https://mended.example/as4"
[overrides."AP_EE_01:ExecuteQueryRequest"]
max_part = "5MiB"
""")
    found = explained(tmp_path, read_truststore=truststore)
    request = origins(found, "AP_LV_01:AP_EE_01:ExecuteQueryRequest")
    assert request["retry.first"] == f"overlay ({tmp_path}/a.toml:7: overlay.retry.first)"
    assert request["retry.window"] == request["endpoint"] == f"network ({tmp_path}/network.xml)"
    assert request["max_part"].startswith(f"override ({tmp_path}/a.toml:11: ")
    assert request["service"] == "profile oots/2.0"
    mended = origins(found, "AP_LV_01:AP_FI_01:ExecuteQueryRequest")
    assert mended["endpoint"] == f"overlay ({tmp_path}/a.toml:9: overlay.parties.AP_FI_01.endpoint)"


def test_facts_are_plain(layered):
    for leg in layered.pmodes.legs:
        assert json.dumps(layered.facts(leg))
