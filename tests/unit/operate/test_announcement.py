"""The package that announces a certificate, checked as a partner checks it: with the commands of its text."""

import datetime
import functools
import json
import re
import shutil
import subprocess
import zipfile

import pytest

from gateway.errors import ConfigError
from gateway.operate import announcement as made
from tests.peer import Authority, Keys
from tests.world import to_pem

NOW = datetime.datetime(2026, 11, 21, 12, 0, tzinfo=datetime.UTC)
SUITES = ["rsa", "ec", "ed25519"]

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="partners have openssl")


AUTHORITY = functools.cache(Authority)


@functools.cache
def keys_of(suite: str, number: int) -> Keys:
    return Keys.make(f"AP_LV_{number:02}", suite, AUTHORITY())


@pytest.fixture(params=SUITES)
def rotation(request):
    old, new = keys_of(request.param, 1), keys_of(request.param, 2)
    chain = (AUTHORITY().certificate,)
    keys = (made.NextKey(uses=("sign",), certificate=new.signing, chain=chain, replaces=old.signing),
            made.NextKey(uses=("decrypt",), certificate=new.encryption, replaces=old.encryption))  # fmt: skip
    return old, new, made.Announcement(
        party="AP_LV_01", keys=keys, contact="as4@example.lv, +371 0000 0000", made_at=NOW,
        begins=NOW + datetime.timedelta(days=14),
    )  # fmt: skip


def check(folder) -> tuple[int, str]:
    """What the partner's engineer types: the indented commands of the English text."""
    english = (folder / "READ-ME.txt").read_text().split("Is this package from us?")[1]
    commands = re.findall(r"^    ((?:openssl|sha256sum) .*)$", english, re.M)
    assert len(commands) >= 3
    done = subprocess.run(["bash", "-ec", "\n".join(commands)], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_partner_checks_the_package_with_the_certificate_it_has(rotation, tmp_path):
    old, _new, announcement = rotation
    made.write(made.package(announcement, old.signing_key), tmp_path / "package")
    (tmp_path / "package" / "current.pem").write_bytes(to_pem(old.signing))
    status, printed = check(tmp_path / "package")
    assert status == 0, printed
    assert "Verification successful" in printed or "Verified Successfully" in printed
    assert printed.count(": OK") == 4
    facts = json.loads((tmp_path / "package" / "announcement.json").read_text())
    assert facts["changes"][0]["uses"] == ["sign"]
    fingerprint = facts["signed_with"]["sha256"].upper()
    assert fingerprint in printed.replace(":", ""), "the command and the text name one fingerprint"


@pytest.mark.parametrize("spoil", ["the text", "a certificate", "the sums", "signed by the next key", "another's"])
def test_a_package_that_is_not_ours_is_found_out(rotation, tmp_path, spoil):
    old, new, announcement = rotation
    folder = tmp_path / "package"
    stranger = keys_of("rsa", 3)
    # Somebody who has the next key, or a key of his own, vouches for nothing.
    signer = {"signed by the next key": new, "another's": stranger}.get(spoil, old).signing_key
    made.write(made.package(announcement, signer), folder)
    (folder / "current.pem").write_bytes(to_pem(old.signing))
    if spoil == "the text":
        (folder / "READ-ME.txt").write_text((folder / "READ-ME.txt").read_text().replace("371", "372"))
    elif spoil == "a certificate":
        (folder / "next-sign.pem").write_bytes(to_pem(stranger.signing))
    elif spoil == "the sums":
        (folder / "SHA256SUMS").write_bytes((folder / "SHA256SUMS").read_bytes().replace(b"a", b"b"))
    status, printed = check(folder)
    assert status != 0, printed


def test_both_languages_say_the_same_facts(rotation):
    old, _new, announcement = rotation
    files = made.package(announcement, old.signing_key)
    latvian, english = files["READ-ME.txt"].decode().split("=" * 78)
    told = made.facts(announcement, old.signing_key)
    for text in (latvian, english):
        assert "2026-12-05" in text and "as4@example.lv" in text
        for change in told.changes:
            for certificate in (change.next, change.replaces):
                assert certificate.sha256.upper() in text.replace(":", "")
                assert f"{certificate.valid_until:%Y-%m-%d}" in text
            assert change.file in text
    assert "parakstīšana" in latvian and "signing" not in latvian.replace("signing.", "")
    assert max(map(len, (latvian + english).splitlines())) <= 160
    assert "BEGIN" in files["next-sign.pem"].decode() and files["next-sign.pem"].count(b"BEGIN CERT") == 2


def test_it_is_one_file_where_a_zip_is_named(rotation, tmp_path):
    old, _, announcement = rotation
    files = made.package(announcement, old.signing_key)
    [path] = made.write(files, tmp_path / "new" / "package.zip")
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
    assert made.zipped(files) == path.read_bytes()
    with pytest.raises(ConfigError, match="there already"):
        made.write(files, path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(ConfigError, match="not empty"):
        made.write(files, tmp_path / "full")
