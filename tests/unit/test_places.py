"""Lines and values of TOML keys: the second reading knows the keys the first one does, and where they stand."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.places import Places, around, dotted, walk
from gateway.errors import ConfigError

TEXT = '''\
# a comment with [brackets] and "quotes"
profile = "oots/2.0"   # behind
self = 'AP_LV_01'

[parties.AP_LV_01]
type = "x"

[parties."urn:a.b"]
endpoint = """https://
[not.a.table]
""" # end
retry = { first = "1m", max = [ 1, { deep = 2 },
  3.5 ], "a b" = 1979-05-27 07:32:00 }

[[exchanges]]
action = "One"
properties = [
  "a", # first
  { name = "b", required = false },
]
[exchanges.reply]
action = "Back"

[[exchanges]]
action = "Two"
reply.action = "Dotted"
'''


@pytest.mark.parametrize(("key", "line"), [
    ("profile", 2), ("self", 3), ("parties", 5), ("parties.AP_LV_01", 5), ("parties.AP_LV_01.type", 6),
    ('parties."urn:a.b"', 8), ('parties."urn:a.b".endpoint', 9), ('parties."urn:a.b".retry', 12),
    ('parties."urn:a.b".retry.max[1].deep', 12), ('parties."urn:a.b".retry.max[2]', 13),
    ('parties."urn:a.b".retry."a b"', 13), ("exchanges", 15), ("exchanges[0]", 15), ("exchanges[0].action", 16),
    ("exchanges[0].properties[0]", 18), ("exchanges[0].properties[1].required", 19), ("exchanges[0].reply", 21),
    ("exchanges[0].reply.action", 22), ("exchanges[1]", 24), ("exchanges[1].action", 25), ("exchanges[1].reply.action", 26),
])
def test_lines(key, line):
    assert Places(TEXT).line(key) == line


@pytest.mark.parametrize(("key", "line"), [
    ("parties.AP_LV_01.endpoint", 5), ("exchanges[1].service", 24), ("exchanges[7].service", 15), ("backend", 0),
    ('parties."urn:a.b".retry.count', 12), ("", 0), ("no (sense) at all", 0),
])
def test_what_is_missing_stands_where_it_would_be(key, line):
    assert Places(TEXT).line(key) == line


def test_values_as_they_are_written():
    places = Places(TEXT + 'password = "hunter2"\ntls_password = "x"\n' + f'long = "{"x" * 200}"\non = true\n')
    assert places.value("self") == '"AP_LV_01"'
    assert places.value("exchanges[0].properties[1].required") == "false"
    assert places.value("exchanges[1].on") == "true"
    for nothing in ("parties", "exchanges", "exchanges[1].password", "exchanges[1].tls_password", "exchanges[1].long", "x"):
        assert places.value(nothing) == ""


def test_an_error_is_located_once():
    error = Places(TEXT).locate(ConfigError("is odd", file="a.toml", key="exchanges[0].action", hint="even"))
    assert (error.line, error.value, error.where) == (16, '"One"', "a.toml:16: exchanges[0].action")
    assert str(error) == 'a.toml:16: exchanges[0].action = "One": is odd (even)'
    Places("").locate(error)
    assert error.line == 16


def test_the_value_of_an_unknown_key_is_not_repeated():
    error = Places('pasword = "hunter2"').locate(ConfigError("unknown key", file="a", key="pasword"))
    assert error.line == 1 and "hunter2" not in str(error)


@pytest.mark.parametrize("text", [
    "", "=", "[", "[[", "[a", "a", "a =", "a = [", "a = {", "a = {b", 'a = "', "a = '''", "[a]\nb = 1\nrubbish", "\0", "a.=1", "]" * 50,
    "a = " + "[" * 5000, '"\\q" = 1',
])
def test_what_is_no_toml_gives_what_was_found(text):
    places = Places(text)
    assert places.line("nothing") == 0 and places.value("nothing") == ""


def test_what_was_found_before_the_mistake_stays():
    assert Places("[a]\nb = 1\n= rubbish").line("a.b") == 2


@given(st.text(max_size=60))
def test_any_text(text):
    assert Places(text).line("a") >= 0


# -- against the real reader ---------------------------------------------------------

NAMES = st.one_of(st.sampled_from(["a", "b-c", "AP_LV_01", "1"]), st.text(max_size=4).filter(lambda t: "\r" not in t))
SCALARS = st.one_of(st.integers(-9, 9), st.booleans(), st.sampled_from([1.5, "", "x # [y]", 'q"q', "l\nm", "'''", '"""', "\\"]))
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(NAMES, v, max_size=3), max_leaves=6)


def name(text: str) -> str:
    return dotted("", text)


def basic(text: str) -> str:
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'


@st.composite
def written(draw, value):
    """`value` in one of the ways TOML has for it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        forms = [basic(value)]
        if "'" not in value and "\n" not in value:
            forms.append(f"'{value}'")
        if '"' not in value and "\\" not in value:
            forms.append(f'"""{value}"""' if not value.startswith("\n") else f'"""\n{value}"""')
        if "'" not in value:
            forms.append(f"'''\n{value}'''")
        return draw(st.sampled_from(forms))
    if isinstance(value, list):
        gap = draw(st.sampled_from([" ", "\n", " # [c]\n  ", ""]))
        return "[" + "".join(f"{gap}{draw(written(v))}{gap}," for v in value) + gap + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name(k)} = {draw(written(v))}" for k, v in value.items()) + " }"
    return str(value)


@st.composite
def documents(draw):
    """A TOML text: pairs, then tables, then arrays of tables, in several spellings."""
    text = ""
    table = draw(st.dictionaries(NAMES, VALUES | st.lists(st.dictionaries(NAMES, VALUES, max_size=2), min_size=1, max_size=2), max_size=5))
    last = []
    for key, value in table.items():
        if isinstance(value, dict) and value and draw(st.booleans()):
            last.append((f"[{name(key)}]", value))
        elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value) and draw(st.booleans()):
            last += [(f"[[ {name(key)} ]]", v) for v in value]
        elif isinstance(value, dict) and value and all(not isinstance(v, dict) for v in value.values()) and draw(st.booleans()):
            text += "".join(f"{name(key)} . {name(k)} = {draw(written(v))} # .\n" for k, v in value.items())
        else:
            text += f"{name(key)} = {draw(written(value))}\n"
    for head, inner in last:
        text += f"\n {head} # head\n" + "".join(f"  {name(k)} = {draw(written(v))}\n" for k, v in inner.items())
    return text, table


@settings(max_examples=80, deadline=None)
@given(documents())
def test_the_same_keys_as_the_standard_library(made):
    text, table = made
    assert tomllib.loads(text) == table
    keys = [key for key, *_ in walk(table)]
    places = Places(text)
    assert set(places._lines) == set(keys)
    lines = text.split("\n")
    for key in keys:
        line = places.line(key)
        assert 1 <= line <= len(lines)
        if not key.endswith("]"):
            assert name_in(lines[line - 1], key), (key, lines[line - 1])
        assert around(key) == "" or around(key) in keys


def name_in(line: str, key: str) -> bool:
    return key[len(around(key)):].removeprefix(".") in line
