"""Programs of others that tests of the deployment run. What is missing is skipped, and says so."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Package of Debian, or where else it comes from.
FROM = {
    "promtool": "Debian package prometheus", "haproxy": "Debian package haproxy", "nginx": "Debian package nginx-light",
    "dpkg-deb": "Debian package dpkg", "helm": "https://helm.sh", "systemd-analyze": "Debian package systemd",
    "docker-compose": "Debian package docker-compose",
}  # fmt: skip
#: Where Debian puts what only root is thought to want.
os.environ["PATH"] = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def found(tool: str) -> str | None:
    return shutil.which(tool)


def needs(tool: str):
    """Skip where `tool` is not installed; with GATEWAY_DEPLOY=full its absence is a failure."""
    missing = found(tool) is None and os.environ.get("GATEWAY_DEPLOY") != "full"
    return pytest.mark.skipif(missing, reason=f"{tool} is not installed ({FROM[tool]})")
