"""What is wrong or unwise in agreement files, each finding with a stable id.

Loading refuses what cannot work and stops at the first mistake; lint tells all of them and also what
will only hurt later. Each rule comes from a defect that was seen in the field; `catalogue.RULES` lists them.
Rules are functions from the `Ground`, everything that could be read, to findings.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from gateway.errors import ConfigError
from gateway.pmodes.bundle import Files, Folder, ReadTruststore
from gateway.pmodes.lint.catalogue import RULES, SEVERITIES, Finding, Severity
from gateway.pmodes.lint.certificates import certificates, storm
from gateway.pmodes.lint.endpoints import endpoints, shared, testing
from gateway.pmodes.lint.ground import Check, Ground, Node
from gateway.pmodes.lint.legs import alike, backends, names, patience, properties, retention, unreachable
from gateway.pmodes.lint.reading import read_all, told

__all__ = ["RULES", "SEVERITIES", "Check", "Finding", "Node", "Severity", "lint"]

_RULES: tuple[Callable[[Ground], Iterable[Finding | None]], ...] = (
    endpoints,
    shared,
    testing,
    certificates,
    storm,
    unreachable,
    properties,
    retention,
    patience,
    alike,
    names,
    backends,
)


def lint(
    path: Path | str | Files,
    *,
    certs: Path | None = None,
    check_certificate: Check | None = None,
    read_truststore: ReadTruststore | None = None,
    now: datetime | None = None,
    node: Node | None = None,
) -> list[Finding]:
    """All findings about a file, a folder or a bundle, errors first. Never raises for what the files say."""
    try:
        files = Folder(path, certs, read_truststore) if isinstance(path, str | Path) else path
    except ConfigError as error:
        return [Finding("P000", "error", error.where, error.detail, error.hint)]
    read = read_all(files)
    ground = Ground(read.readings, read.made, read.parties, node or Node(), check_certificate, now or datetime.now(UTC))
    found = told(read)
    found += [finding for rule in _RULES for finding in rule(ground) if finding is not None]
    if not read.readings:
        found.append(Finding("P011", "warning", str(files.path("")), "there is no agreement in it", RULES["P011"].fix))
    return sorted(dict.fromkeys(found), key=lambda finding: SEVERITIES.index(finding.severity))
