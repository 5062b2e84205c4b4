"""`gateway run`: from configuration to plan, and the database of a node."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway import metrics
from gateway.cli import run as command
from gateway.cli import supervisor
from gateway.config import Config
from gateway.errors import ConfigError


@pytest.fixture
def plan_of(monkeypatch, tmp_path):
    """A function that returns the plan `gateway run` would carry out."""
    plans = []
    monkeypatch.setattr(supervisor, "supervise", lambda made: plans.append(made.plan))
    monkeypatch.chdir(tmp_path)

    def invoke(*args, config=""):
        (tmp_path / "gateway.toml").write_text(config)
        result = CliRunner().invoke(command.run, list(args), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return plans[-1]

    yield invoke
    metrics.configure(None, "memory")
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if getattr(handler, "ours", False):
            root.removeHandler(handler)


def test_the_plan_follows_the_configuration(plan_of, tmp_path):
    plan = plan_of(config='[as4]\nbind = ":8443"\n[workers]\nprocesses = 3\n[node]\nname = "a"\n[log]\nlevel = "warning"\n')
    assert {one.role: (one.bind, one.key) for one in plan.listeners} == {
        "as4": (":8443", "as4.bind"), "plugin": ("127.0.0.1:8080", "plugin.bind"),
        "operations": ("127.0.0.1:9090", "operations.bind"),
    }  # fmt: skip
    assert (plan.workers, plan.node, plan.log_level) == (3, "a", "warning")
    assert plan.run_folder == tmp_path / "data" / "run" and plan.factory == "gateway.app:build"
    assert (plan.drain_delay, plan.grace, plan.hang) == (0.0, 60.0, 30.0)


def test_one_worker_a_core_and_options_on_top(plan_of, monkeypatch):
    assert plan_of().workers == len(os.sched_getaffinity(0))
    monkeypatch.setenv("GATEWAY_DRAIN_DELAY", "2.5")
    plan = plan_of("--workers", "5", "--grace", "7", "--hang-timeout", "0")
    assert (plan.workers, plan.drain_delay, plan.grace, plan.hang) == (5, 2.5, 7.0, 0.0)


def test_a_mistake_in_the_configuration_is_told(plan_of):
    with pytest.raises(ConfigError, match="binds"):
        plan_of(config='[as4]\nbinds = ":1"\n')


@pytest.fixture
def folder():
    """Not below pytest's own folder: where we are root, PostgreSQL's user could not pass that."""
    made = Path(tempfile.mkdtemp(prefix="gateway-test-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


SECOND = """
import sys
from pathlib import Path
from gateway.cli.run import Database
from gateway.config import Config
database = Database(Config.load(Path(sys.argv[1]), {}))
try:
    database.start()
except Exception as error:
    print(type(error).__name__, error)
finally:
    database.stop()
"""


def test_the_private_database_is_started_migrated_and_stopped_by_its_owner_only(folder):
    (folder / "gateway.toml").write_text("")
    config = Config.load(folder / "gateway.toml", {})
    database = command.Database(config)
    try:
        database.start()
        assert database.healthy()
        done = subprocess.run(
            [sys.executable, "-c", SECOND, folder / "gateway.toml"], capture_output=True, text=True, cwd=Path(__file__).parents[3]
        )
        assert done.stdout.startswith("StoreUnavailable another gateway"), done.stderr
        assert database.healthy()
        database.start()  # as after a crash; migrating again changes nothing
    finally:
        database.stop()
    assert not database.healthy()
