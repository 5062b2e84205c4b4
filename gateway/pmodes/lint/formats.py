"""Findings for other tools: SARIF for code scanners and editors, annotations for GitHub."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from gateway import __version__
from gateway.pmodes.lint.catalogue import RULES, Finding

_LEVELS = {"error": "error", "warning": "warning", "info": "note"}
_ANNOTATIONS = {"error": "error", "warning": "warning", "info": "notice"}


class Place(NamedTuple):
    """`where` of a finding, in its parts. Line 0: the file as a whole."""

    file: str
    line: int
    key: str


def place_of(finding: Finding) -> Place:
    match = re.fullmatch(r"(.+?)(?::(\d+))?(?:: (.*))?", finding.where, re.DOTALL)
    return Place(match[1], int(match[2] or 0), match[3] or "") if match else Place(finding.where, 0, "")


def sarif(findings: Sequence[Finding]) -> dict[str, Any]:
    """A SARIF 2.1.0 log."""
    driver = {
        "name": "gateway pmodes lint",
        "version": __version__,
        "rules": [
            {"id": id, "shortDescription": {"text": rule.finds}, "help": {"text": rule.fix}}
            for id, rule in RULES.items()
        ],
    }
    results = [_result(finding) for finding in findings]
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}],
    }


def _result(finding: Finding) -> dict[str, Any]:
    place = place_of(finding)
    path = Path(place.file)
    uri = path.as_uri() if path.is_absolute() else quote(place.file)
    physical: dict[str, Any] = {"artifactLocation": {"uri": uri}}
    if place.line:
        physical["region"] = {"startLine": place.line}
    location: dict[str, Any] = {"physicalLocation": physical}
    if place.key:
        location["logicalLocations"] = [{"fullyQualifiedName": place.key}]
    return {
        "ruleId": finding.rule,
        "ruleIndex": list(RULES).index(finding.rule),
        "level": _LEVELS[finding.severity],
        "message": {"text": _text(finding)},
        "locations": [location],
    }


def github(findings: Sequence[Finding]) -> list[str]:
    """Workflow commands that GitHub shows beside the lines."""
    lines = []
    for finding in findings:
        place = place_of(finding)
        facts = {"file": place.file, **({"line": str(place.line)} if place.line else {}), "title": finding.rule}
        told = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in facts.items())
        lines.append(f"::{_ANNOTATIONS[finding.severity]} {told}::{_escaped(f'{place.key}: {_text(finding)}', '')}")
    return lines


def _text(finding: Finding) -> str:
    return f"{finding.message} ({finding.hint})" if finding.hint else finding.message


def _escaped(text: str, more: str) -> str:
    return "".join(f"%{ord(c):02X}" if c in "%\r\n" + more else c for c in text)
