"""The JSON Schema of agreement files: valid, current, described, and never stricter than the loader."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.as4.profiles import PROFILES
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Exchange, File, Party, Retry, Terms
from gateway.pmodes.bundle import Bundle
from gateway.pmodes.expand import expand
from gateway.pmodes.schema import schema
from gateway.pmodes.toml import document

ROOT = Path(__file__).parents[3]
SCHEMA = schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
BASE = {
    "profile": "edelivery-as4/1.15", "self": "urn:a",
    "parties": {"urn:a": {}, "urn:b": {"endpoint": "https://b.example/as4"}},
    "exchanges": [{"service": "urn:s", "action": "A", "from_role": "x", "to_role": "y"}],
}  # fmt: skip


def taken(raw: dict) -> bool:
    """Whether the loader takes these tables."""
    try:
        expand([document(raw, Path("a.toml"), Bundle((), {}))])
    except ConfigError:
        return False
    return True


def allowed(raw: dict) -> bool:
    return VALIDATOR.is_valid(raw)


def test_it_is_a_schema_of_its_dialect():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_committed_one_is_current():
    text = (ROOT / "pmodes/agreement.schema.json").read_text()
    assert json.loads(text) == SCHEMA, "run: gateway pmodes schema > pmodes/agreement.schema.json"


def tables(node: dict):
    yield "File", node
    yield from node["$defs"].items()


def test_every_key_is_described_and_profiles_are_listed():
    missing = [f"{name}.{key}" for name, table in tables(SCHEMA) for key, value in table["properties"].items()
               if not value.get("description")]
    assert not missing, "say in the docstring of the Struct what they are for"
    assert SCHEMA["properties"]["profile"]["enum"] == list(PROFILES)


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "pmodes/examples").glob("*.toml")))
def test_the_examples_are_valid_and_name_the_schema(name):
    text = (ROOT / "pmodes/examples" / name).read_text()
    assert text.startswith("#:schema ../agreement.schema.json\n")
    assert not [error.message for error in VALIDATOR.iter_errors(tomllib.loads(text))]


def test_what_is_generated_is_valid():
    from gateway.pmodes.edit import with_party

    made = with_party((ROOT / "pmodes/examples/oots.toml").read_text(), "AP_FI_01", {"type": "urn:x"}, file="x")
    assert allowed(tomllib.loads(made))


def test_every_key_is_in_the_readme():
    page = (ROOT / "pmodes/README.md").read_text()
    missing = [field for struct in (File, Terms, Party, Exchange, Retry) for field in struct.__struct_encode_fields__
               if f"`{field}`" not in page and f"{field} =" not in page and f"[{field}." not in page and f"[[{field}]]" not in page]
    assert not missing


def with_value(path: tuple, value) -> dict:
    raw = json.loads(json.dumps(BASE))
    at = raw
    for step in path[:-1]:
        at = at[step] if isinstance(step, int) else at.setdefault(step, {})
    at[path[-1]] = value
    return raw


PLACES = [("",), ("retry", ""), ("parties", "urn:b", ""), ("exchanges", 0, ""), ("exchanges", 0, "retry", ""),
          ("overrides", "urn:b", "")]
KNOWN = sorted({key for _, table in tables(SCHEMA) for key in table["properties"]})
VALUES = [
    1, 0, -1, 2.5, True, "", "x", "30s", "12 m", "1h30", "5parsecs", "64KiB", "1 B", "1e3", [], ["a"], {}, {"first": "1s"}, [{"name": "p"}],
    "both", "send", "bst", "oots/2.0", "one-way", "urn:b", {"value": "urn:v"}, {"nonsense": 1}, ["originalSender", {"name": "x", "required": False}],
]  # fmt: skip


def test_the_base_is_taken():
    assert taken(BASE) and allowed(BASE)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from(KNOWN) | st.text(max_size=6), st.sampled_from(VALUES))
def test_what_the_schema_refuses_the_loader_refuses(place, key, value):
    raw = with_value((*place[:-1], key), value)
    assert allowed(raw) or not taken(raw)


@given(st.sampled_from(PLACES), st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12))
def test_unknown_keys_are_refused_by_both(place, key):
    if key in KNOWN:
        return
    raw = with_value((*place[:-1], key), 1)
    assert not allowed(raw) and not taken(raw)


@given(st.text(alphabet="0123456789. smhdkKMGiB", max_size=10))
def test_quantities_are_written_the_same_way(text):
    for key in ("max_part", "pull_every"):
        raw = {**BASE, key: text}
        assert allowed(raw) or not taken(raw)
        if taken(raw):
            assert allowed(raw)


def test_a_network_file_has_other_keys():
    network = {"self": "AP_LV_01", "network": {"pmode": "network.xml"}, "overlay": {"retry": {"first": "1m"}}}
    assert allowed(network)
    assert not allowed(network | {"parties": {}}) and not allowed(BASE | {"overlay": {}})
    assert not allowed({"self": "x"}), "neither kind"
