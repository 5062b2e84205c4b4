"""What a revision is made of: the files that agreements name, and nothing else."""

import os
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.keys.development import make_development
from gateway.pmodes.bundle import MAX_BUNDLE, MAX_FILES, Bundle, Folder
from gateway.pmodes.toml import expanded, load
from tests.unit.pmodes.test_pmode_files import OOTS


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    make_development(folder, ["AP_EE_01"], now=datetime.now(UTC), valid_for=timedelta(days=300))
    return folder


@pytest.fixture
def site(tmp_path, made):
    """pmodes/ with an agreement, certs/ with the certificate it names and another one."""
    (tmp_path / "pmodes" / "drafts").mkdir(parents=True)
    (tmp_path / "certs").mkdir()
    (tmp_path / "pmodes" / "oots.toml").write_text(OOTS)
    (tmp_path / "pmodes" / "drafts" / "later.toml").write_text("not TOML at all [")
    (tmp_path / "pmodes" / "notes.txt").write_text("keep out")
    for name in ("ap_ee_01.pem", "unused.pem"):
        (tmp_path / "certs" / name).write_bytes((made / "ap_ee_01.pem").read_bytes())
    return tmp_path


def collect(site):
    return Bundle.collect(site / "pmodes", site / "certs")


def test_only_what_is_named(site):
    bundle = collect(site)
    assert bundle.agreements == ("oots.toml",)
    assert sorted(bundle.files) == ["ap_ee_01.pem", "oots.toml"]
    assert bundle.files["oots.toml"] == OOTS.encode()


def test_a_bundle_makes_the_same_agreements_as_the_folder(site):
    assert expanded(collect(site), revision=7) == load(site / "pmodes", certs=site / "certs", revision=7)


def test_the_place_of_a_file_is_no_part_of_it(site):
    """Two nodes with other folders, one with the certificate beside its agreements, have the same revision."""
    before = collect(site)
    os.rename(site / "certs" / "ap_ee_01.pem", site / "pmodes" / "ap_ee_01.pem")
    os.rename(site / "pmodes", site / "agreements")
    after = Bundle.collect(site / "agreements", None)
    assert after.encode() == before.encode() and after.digest == before.digest


def test_there_and_back(site):
    bundle = collect(site)
    again = Bundle.decode(bundle.encode(), label="revision 4")
    assert again.files == bundle.files and again.agreements == bundle.agreements and again.digest == bundle.digest
    assert str(again.path("oots.toml")) == "revision 4/oots.toml"
    with pytest.raises(TypeError):
        again.files["x"] = b""


@given(st.dictionaries(st.text(max_size=8), st.binary(max_size=32), max_size=5), st.randoms())
def test_one_form_whatever_the_order(files, random):
    names = list(files)
    random.shuffle(names)
    shuffled = {name: files[name] for name in names}
    one, other = Bundle((), files), Bundle((), shuffled)
    assert one.encode() == other.encode()
    assert dict(Bundle.decode(one.encode()).files) == files


@pytest.mark.parametrize("octets", [
    b"", b"junk", msgspec.msgpack.encode([2, [], []]), msgspec.msgpack.encode([1, ["a.toml"], []]),
    msgspec.msgpack.encode([1, [], [["b", b""], ["a", b""]]]), msgspec.msgpack.encode([1, [], [["a", b"1"], ["a", b"2"]]]),
    msgspec.msgpack.encode([1, [], []]) + b"\0", msgspec.msgpack.encode([1, [], [], "more"]),
])  # fmt: skip
def test_other_octets_are_none(octets):
    with pytest.raises(ConfigError, match="no bundle of agreements"):
        Bundle.decode(octets, label="revision 9")


def refusal(site, text):
    (site / "pmodes" / "oots.toml").write_text(OOTS.replace('"ap_ee_01.pem"', text))
    with pytest.raises(ConfigError) as refused:
        collect(site)
    assert refused.value.key == "parties.AP_EE_01.certificate" and "oots.toml" in refused.value.file
    return str(refused.value)


def test_files_outside_are_out_of_reach(site, made):
    (site / "outside.pem").write_bytes((made / "ap_ee_01.pem").read_bytes())
    assert "leads out of" in refusal(site, '"../outside.pem"')
    assert "leads out of" in refusal(site, f'"{site}/outside.pem"')
    (site / "certs" / "link.pem").symlink_to(site / "outside.pem")
    assert "leads out of" in refusal(site, '"link.pem"')
    (site / "pmodes" / "folder").symlink_to(site)
    assert "leads out of" in refusal(site, '"folder/outside.pem"')


def test_links_within_are_followed(site):
    """As a mounted Kubernetes ConfigMap has them; and the folders themselves may be links."""
    os.rename(site / "certs" / "ap_ee_01.pem", site / "certs" / "v2.pem")
    (site / "certs" / "ap_ee_01.pem").symlink_to("v2.pem")
    (site / "linked").symlink_to(site / "pmodes")
    assert len(Bundle.collect(site / "linked", site / "certs").files) == 2
    assert "ap_ee_01.pem" in collect(site).files


def test_a_private_key_is_never_taken(site, made):
    secret = next(path for path in made.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes())
    (site / "certs" / "both.pem").write_bytes((made / "ap_ee_01.pem").read_bytes() + secret.read_bytes())
    assert "holds a private key" in refusal(site, '"both.pem"')


def test_what_would_block_or_never_end(site):
    os.mkfifo(site / "certs" / "pipe")
    assert "not a file" in refusal(site, '"pipe"')
    assert "leads out of" in refusal(site, '"/dev/zero"')


@pytest.mark.parametrize("name", ["\\u0000", "a" * 300, "a\\nb"])
def test_names_that_are_none(site, name):
    assert "is not the name of a file" in refusal(site, f'"{name}"')


def test_bounds(site):
    folder = Folder(site / "pmodes", site / "certs")
    folder._size = MAX_BUNDLE - 10
    with pytest.raises(ConfigError, match=f"more than {MAX_FILES} files or 32 MiB"):
        folder.agreement("oots.toml")


def test_a_file_that_changes_while_it_is_read_counts_once(site):
    folder = Folder(site / "pmodes", site / "certs")
    first = folder.agreement("oots.toml")
    (site / "pmodes" / "oots.toml").write_text("changed")
    assert folder.agreement("oots.toml") == first == folder.bundle().files["oots.toml"]


def test_what_is_not_in_the_bundle(site):
    bundle = collect(site)
    broken = Bundle(bundle.agreements, {"oots.toml": bundle.files["oots.toml"]}, label="revision 3")
    with pytest.raises(ConfigError, match=r"no ap_ee_01\.pem among the files of this revision") as refused:
        expanded(broken)
    assert refused.value.file == "revision 3/oots.toml" and refused.value.key == "parties.AP_EE_01.certificate"
