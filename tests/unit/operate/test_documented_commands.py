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
    kept = (ROOT / "docs/operations.md").read_text().partition("## How long things are kept")[2].partition("\n## ")[0]
    for text in (kept, (ROOT / "docs/operators/backup.md").read_text()):
        yield from re.findall(r"^ {4,8}gateway (.*)$", text, re.MULTILINE)


def test_there_are_some():
    assert len(list(shown())) >= 20


@pytest.mark.parametrize("line", list(shown()))
def test_parses(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = [re.sub(r"^/var/log/.*", "README.md", word) for word in shlex.split(line, comments=True)]
    context, command = None, root
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context, info_name=command.name)
        _, command, arguments = command.resolve_command(context, arguments)
    assert command.make_context(command.name, arguments, parent=context)
