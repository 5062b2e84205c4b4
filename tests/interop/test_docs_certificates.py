"""docs/operators/certificates.md, pasted: a rotation between the two access points of the demo, command by command."""

import re
import shutil

import pytest

from tests.interop.test_docs_backends import BLOCK, ROOT, demo, shell  # noqa: F401 - demo is a fixture

PAGE = (ROOT / "docs" / "operators" / "certificates.md").read_text()
BLOCKS = [match.groupdict() for match in BLOCK.finditer(PAGE)]


@pytest.mark.skipif(not all(map(shutil.which, ("openssl", "jq"))), reason="the commands need openssl and jq")
def test_a_rotation_as_the_page_has_it(demo, tmp_path):  # noqa: F811
    assert len(BLOCKS) >= 10 and all(block["mark"] == "runs" and block["kind"] == "sh" for block in BLOCKS)
    for block in BLOCKS:
        printed, place = shell(block["text"], tmp_path, demo), 0
        for wanted in re.findall(r"<!-- prints: (.*?) -->", block["prints"]):
            found = printed.find(wanted, place)
            assert found >= 0, f"{wanted!r} is not printed by\n{block['text']}\nbut:\n{printed}"
            place = found + len(wanted)


def test_every_mark_belongs_to_a_command_and_every_verb_is_named():
    assert len(re.findall(r"<!-- runs -->", PAGE)) == len(BLOCKS)
    assert len(re.findall(r"<!-- prints:", PAGE)) == sum(b["prints"].count("<!-- prints:") for b in BLOCKS)
    from gateway.cli.certs import VERBS

    assert [verb for verb in VERBS if f"certs {verb}" not in PAGE and f"`{verb}`" not in PAGE] == []
