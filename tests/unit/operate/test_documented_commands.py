"""The commands that the pages for operators show are commands there are."""

import re
import shlex
from pathlib import Path

import click
import pytest

from gateway.cli.main import root

ROOT = Path(__file__).parents[3]


def shown():
    section = (ROOT / "docs/operations.md").read_text().partition("## Changing agreements")[2].partition("\n## ")[0]
    for text in (section, (ROOT / "pmodes/README.md").read_text()):
        yield from re.findall(r"^    gateway (pmodes (?:plan|apply|rollback|history|diff|show)\b.*)$", text, re.MULTILINE)
    for page in sorted((ROOT / "docs/operators").glob("*.md")):
        yield from re.findall(r"^ +gateway ((?:certs|store) .*)$", page.read_text(), re.MULTILINE)
    kept = (ROOT / "docs/operations.md").read_text().partition("## How long things are kept")[2].partition("\n## ")[0]
    for text in (kept, (ROOT / "docs/operators/backup.md").read_text()):
        yield from re.findall(r"^ {4,8}gateway (.*)$", text, re.MULTILINE)


def test_there_are_some():
    assert len(list(shown())) >= 20


@pytest.mark.parametrize("line", list(dict.fromkeys(shown())))
def test_parses(line, monkeypatch, tmp_path):
    arguments = shlex.split(line, comments=True)
    monkeypatch.chdir(tmp_path if arguments[0] in ("certs", "store") else ROOT)
    arguments = [Path(word).name if word.startswith("/var/log/") else word for word in arguments]
    for name in arguments:  # files that a command wants to be there
        if arguments[0] in ("certs", "store") and name.endswith((".pem", ".p12", ".txt", ".crl", ".log", ".gz", ".jsonl")):
            Path(name).touch()
    context, command = None, root
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context, info_name=command.name)
        _, command, arguments = command.resolve_command(context, arguments)
    assert command.make_context(command.name, arguments, parent=context)
