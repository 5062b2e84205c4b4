"""Agreement files as TOML: what is written says exactly the same when it is read, however odd the values."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.as4.pmode import PropertyRule
from gateway.config import Duration, Size
from gateway.config.strict import build
from gateway.pmodes.agreements import Agreement, Exchange, File, Party, Reply, Retry, Terms
from gateway.pmodes.write import write

ROOT = Path(__file__).parents[3]
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_some = st.none() | _text
_seconds = st.none() | st.integers(0, 10**7).map(Duration) | st.floats(0, 1e6, allow_nan=False).map(Duration)
_retry = st.builds(Retry, first=_seconds, factor=st.none() | st.floats(1, 9), max=_seconds, count=st.none() | st.integers(0, 99),
                   window=_seconds, jitter=st.none() | st.floats(0, 0.5))  # fmt: skip
_size = st.none() | st.integers(0, 1 << 40).map(Size)
_rules = st.lists(_text | st.builds(PropertyRule, name=_text, required=st.just(False), when=_some), max_size=4).map(tuple)
_TERMS = dict(
    backend=_some, compress=st.none() | st.booleans(), retry=st.none() | _retry, max_message=_size, max_part=_size,
    signature_token=st.none() | st.sampled_from(["bst", "ski"]), properties=st.none() | _rules,
    closed_properties=st.none() | st.booleans(),
)  # fmt: skip
_exchange = st.builds(
    Exchange, action=_text, service=_text, service_type=_some, id=st.none() | st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
    from_role=_some, to_role=_some, mpc=_some, agreement=st.none() | _text | st.builds(Agreement, value=_text, type=_some),
    direction=st.sampled_from(["both", "send", "receive"]), parties=st.none() | st.lists(_text, max_size=3).map(tuple), **_TERMS,
)  # fmt: skip
_party = st.builds(Party, type=_some, id=_some, endpoint=_some, next=_some, tls_ca=_some, allow_http=st.none() | st.booleans(),
                   certificate=_some)  # fmt: skip
_file = st.builds(
    File, profile=_text, own=_text, parties=st.dictionaries(_text, _party, max_size=3), without=st.lists(_text, max_size=3).map(tuple),
    exchanges=st.lists(_exchange, max_size=2).map(tuple), overrides=st.dictionaries(_text, st.builds(Terms, **_TERMS), max_size=2),
    allow_http=st.booleans(), **_TERMS,
)  # fmt: skip


def back(text: str) -> File:
    return build(tomllib.loads(text), File, file="t.toml", base=Path())


@given(_file, st.lists(_text, max_size=2))
def test_there_and_back(file, comments):
    assert back(write(file, comments)) == file


@pytest.mark.parametrize("path", sorted((ROOT / "pmodes/examples").glob("*.toml")), ids=lambda path: path.name)
def test_the_examples(path):
    """Every word an example uses can be written."""
    raw = tomllib.loads(path.read_text())
    if "network" not in raw:
        file = build(raw, File, file=str(path), base=path.parent)
        assert back(write(file)) == file


def test_a_two_way_exchange():
    file = File(profile="p", own="a", parties={}, exchanges=(
        Exchange(service="s", action="a", mep="two-way-push-and-push", reply=Reply(action="b", retry=Retry(count=1))),))  # fmt: skip
    assert back(write(file)) == file


def test_it_is_short_and_in_order():
    file = File(
        profile="oots/2.0", own="A", retry=Retry(first=Duration(90), max=Duration(3600), window=Duration(86_400), count=3),
        max_message=Size(5 << 20), parties={"A": Party(type="t"), "B c": Party(endpoint="https://b.example/as4")},
        overrides={"B c:X": Terms(compress=False)},
    )  # fmt: skip
    assert write(file, ["head"]) == """\
# head

profile = "oots/2.0"
self = "A"
retry = { first = "90s", max = "1h", count = 3, window = "1d" }
max_message = "5MiB"

[parties]
A = { type = "t" }
"B c" = { endpoint = "https://b.example/as4" }

[overrides."B c:X"]
compress = false
"""


def test_comments_stay_comments():
    assert back(write(File(profile="p", own="s", parties={}), ["x\nbackend = 'evil'", "\x00\u2028y"])).backend is None


def test_what_cannot_be_written_is_not():
    with pytest.raises(ValueError, match="a number"):
        write(File(profile="p", own="s", parties={}, retry=Retry(factor=float("inf"))))
    assert msgspec.structs.asdict(back(write(File(profile="\ud800", own="s", parties={}))))["profile"] == "?"
