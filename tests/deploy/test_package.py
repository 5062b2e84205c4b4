"""The systemd unit, and the Debian package: built, unpacked, run from where it was unpacked."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway import __version__
from gateway.config import Config
from tests.deploy.tools import ROOT, needs

UNIT = ROOT / "deploy/systemd/oots-as4-gateway.service"
DEBIAN = ROOT / "deploy/debian"


@needs("systemd-analyze")
def test_the_unit_is_confined():
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", str(UNIT)], capture_output=True, text=True)
    exposure = float(re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)[1])
    assert exposure <= 2.0, done.stdout


@needs("systemd-analyze")
def test_systemd_understands_the_unit(tmp_path):
    program = tmp_path / "gateway"
    program.touch(mode=0o755)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/oots-as4-gateway/bin/gateway", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert not complaints, complaints


def test_the_unit_of_the_documentation_and_the_command_fit():
    import click

    from gateway.cli.run import run

    command = re.search(r"ExecStart=\S+/gateway run (.*)", UNIT.read_text())[1].split()
    options = {o for p in run.params if isinstance(p, click.Option) for o in p.opts}
    assert {word for word in command if word.startswith("--")} <= options


def test_the_configuration_of_the_package_is_read(tmp_path):
    target = tmp_path / "gateway.toml"
    shutil.copy(DEBIAN / "gateway.toml", target)
    config = Config.load(target, environ={})
    assert str(config.data.folder) == "/var/lib/oots-as4-gateway" and config.log.format == "json"
    # And with every line that is proposed in it.
    text = target.read_text()
    target.write_text(re.sub(r"^# (\[|\w+ = )", r"\1", text, flags=re.MULTILINE))
    config = Config.load(target, environ={})
    assert config.store.dsn is not None and config.as4.tls is not None and len(config.keys.store) == 1


@pytest.mark.parametrize("name", ["build", "postinst", "prerm", "postrm"])
def test_scripts_are_good_shell(name):
    assert os.access(DEBIAN / name, os.X_OK)
    assert subprocess.run(["sh", "-n", str(DEBIAN / name)]).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@needs("dpkg-deb")
def test_the_package(tmp_path):
    if not Path("/usr/bin/python3").exists():
        pytest.skip("Debian's Python is not here")
    built = subprocess.run([DEBIAN / "build", tmp_path], env={**os.environ, "COMPRESSION": "gzip"}, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    package = Path(built.stdout.strip())
    root = tmp_path / "root"
    subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    subprocess.run(["dpkg-deb", "-e", package, tmp_path / "control"], check=True)
    facts = dict(line.split(": ", 1) for line in (tmp_path / "control/control").read_text().splitlines() if not line.startswith(" "))
    assert facts["Package"] == "oots-as4-gateway" and facts["Version"].startswith(__version__.split(".dev")[0])
    assert (tmp_path / "control/conffiles").read_text() == "/etc/oots-as4-gateway/gateway.toml\n"
    home = root / "opt/oots-as4-gateway"
    # Nothing names the folder it was built in, nothing of the tests or of pip came along.
    assert (home / "bin/gateway").read_text().startswith("#!/opt/oots-as4-gateway/bin/python -I\n")
    said = subprocess.run(["grep", "-rIl", str(tmp_path), root], capture_output=True, text=True).stdout
    assert said == ""
    assert not list(home.glob("lib/python*/site-packages/pytest")) and not list(home.glob("lib/python*/site-packages/pip"))
    assert not [p for p in root.rglob("*") if not p.is_symlink() and p.stat().st_mode & 0o022]
    # It runs with its own libraries and with nothing of this checkout.
    done = subprocess.run([home / "bin/python", "-I", "-m", "gateway", "version", "--json"], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0 and f'"version": "{__version__}"' in done.stdout, done.stderr
    where = subprocess.run([home / "bin/python", "-I", "-c", "import gateway; print(gateway.__file__)"], capture_output=True, text=True).stdout
    assert where.startswith(str(root))
    config = root / "etc/oots-as4-gateway/gateway.toml"
    doctor = subprocess.run([home / "bin/python", "-I", "-m", "gateway", "doctor", "--config", config], cwd="/", capture_output=True, text=True,
                            env={**os.environ, "GATEWAY__DATA__FOLDER": str(tmp_path / "data")})
    assert doctor.returncode in (1, 3) and "Traceback" not in doctor.stderr
