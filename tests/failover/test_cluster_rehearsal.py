"""`make rehearsal`, as an operator runs it; and ended in the middle: nothing stays behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.failover.cluster.case import needed

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.failover, pytest.mark.slow, pytest.mark.timeout(900), needed()]


def left_by(pid: int) -> list[str]:
    """Namespaces and folders that carry its process id."""
    spaces = [name for name in os.listdir("/run/netns") if name.startswith(f"gwt-{pid}-")]
    return spaces + [str(path) for path in Path(tempfile.gettempdir()).glob(f"gateway-cluster-{pid}-*")]


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "tests.failover.cluster", *arguments], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip


def test_it_tells_what_it_does_and_what_senders_saw():
    process = start()
    said, _ = process.communicate(timeout=800)
    print(said)
    assert process.returncode == 0, said
    assert "5. Line between the data centres cut" in said and "0 lost, 0 delivered twice" in said
    assert said.count("longest time without one") == 5
    assert left_by(process.pid) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_early_it_leaves_nothing(number):
    process = start("--keep")
    end = time.monotonic() + 60
    while len(left_by(process.pid)) < 9:
        assert time.monotonic() < end
        time.sleep(0.2)
    time.sleep(5)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert left_by(process.pid) == []


def test_what_a_dead_run_left_is_swept():
    process = start()
    end = time.monotonic() + 60
    while len(left_by(process.pid)) < 9:
        assert time.monotonic() < end
        time.sleep(0.2)
    process.kill()
    process.communicate()
    assert left_by(process.pid)
    from tests.failover.cluster.network import sweep

    sweep()
    assert left_by(process.pid) == []
