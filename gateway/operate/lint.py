"""Lint of agreements as those of this node: its idea of certificates, its backends, what it keeps."""

from datetime import datetime
from functools import partial
from pathlib import Path

from gateway.config import Config
from gateway.keys.formats import truststore
from gateway.keys.trust import check_certificate
from gateway.pmodes.bundle import Files
from gateway.pmodes.lint import Finding, Node, lint

#: The doors that are always there; `[backends.NAME]` adds others.
DOORS = frozenset({"rest", "domibus_ws"})


def backends_of(config: Config) -> frozenset[str]:
    """The names an agreement may route to."""
    return DOORS | frozenset(config.backends)


def _read_once(config: Config) -> frozenset[str]:
    """Backends behind the SOAP door, where reading a message takes it over."""
    named = (name for name, options in config.backends.items() if options.get("kind") == "domibus_ws")
    return frozenset({"domibus_ws", *named})


def findings(
    config: Config, path: Path | Files | None = None, certs: Path | None = None, *, now: datetime | None = None
) -> list[Finding]:
    """Findings about the configured agreements, or those at `path`; errors first. Never raises for what they say."""
    return lint(
        config.pmodes if path is None else path,
        certs=certs or config.certs,
        check_certificate=partial(check_certificate, allow=config.trust),
        read_truststore=truststore,
        now=now,
        node=Node(
            backends=backends_of(config), read_once=_read_once(config), metadata=config.retention.messages,
            delivered_payloads=config.retention.delivered_payloads,
        ),
    )
