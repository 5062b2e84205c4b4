"""`gateway demo`, whole: two gateways, their databases, the exchange over AS4, and nothing left behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from gateway.cli.demo.ledger import DemoFailed
from gateway.cli.demo.nodes import Node, Ports

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "gateway", "demo"]
ACTIONS = ["ExecuteQueryRequest", "ExceptionResponse", "ExecuteQueryRequest", "ExecuteQueryResponse"]


@pytest.fixture
def temporary():
    """A temporary folder with a short path that every user may pass."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        os.chmod(folder, 0o711)
        yield Path(folder)


def environment(temporary: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def processes_in(folder: Path) -> list[str]:
    """Processes that work in the folder or were told about it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = os.readlink(process / "cwd")
        except OSError:
            continue
        if str(folder) in told or where.startswith(str(folder)):
            found.append(f"{process.name} {told} in {where}")
    return found


def shell(command: str) -> str:
    """What a command of the demo prints when it is pasted."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30, cwd=ROOT, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def test_once_as_json(temporary):
    run = subprocess.run(
        [*DEMO, "--once", "--json"], capture_output=True, text=True, timeout=120, env=environment(temporary), check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    answer = json.loads(run.stdout)
    assert answer["ok"] is True and "error" not in answer and 0 < answer["seconds"] < 60
    messages = answer["messages"]
    assert [m["action"] for m in messages] == ACTIONS
    assert [m["direction"] for m in messages] == ["LV->EE", "EE->LV", "LV->EE", "EE->LV"]
    for message in messages:
        assert set(message) == {
            "direction", "action", "bytes", "ms", "receipt_verified", "payload_digest_equal", "message_id",
        }  # fmt: skip
        assert message["receipt_verified"] is True and message["payload_digest_equal"] is True
        assert message["bytes"] > 1000 and message["ms"] >= 0 and "@" in message["message_id"]
    assert len({m["message_id"] for m in messages}) == 4
    assert list(temporary.iterdir()) == [] and processes_in(temporary) == []


def test_running_until_interrupted(temporary):
    process = subprocess.Popen(
        [*DEMO, "--keep"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(temporary),
        start_new_session=True,
    )  # fmt: skip
    try:
        printed = ""
        for line in process.stdout:
            printed += line
            if "not for production" in line:
                break
        assert printed.count("receipt verified") == 4 and "signed webhook" in printed, printed
        (folder,) = temporary.iterdir()
        assert (folder / "birth-certificate.pdf").read_bytes().startswith(b"%PDF-1.4")
        for command in re.findall(r"^ +(\S.* messages .*)$", printed, re.M):
            assert "ExecuteQuery" in shell(command)
        assert shell(re.search(r"export (?:.*\n)(?:.*\\\n)+.*", printed)[0]).startswith("ACKNOWLEDGED")
        assert json.loads(shell(re.search(r"curl (?:.*\\\n)+.*", printed)[0]))["state"] == "ACKNOWLEDGED"
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        printed += process.stdout.read()
        assert process.wait(20) == 0, printed + process.stderr.read()
        assert time.monotonic() - began < 5  # two seconds by promise; this machine may be busy with other tests
        assert "everything stopped" in printed and str(folder) in printed
        assert processes_in(temporary) == []
        assert (folder / "lv" / "gateway.log").stat().st_size > 0
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("after", [0.0, 0.8, 1.6])
def test_interrupted_while_starting(temporary, after):
    """In the middle of making a database, or of starting the workers, for instance."""
    process = subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(temporary),
        start_new_session=True,
    )  # fmt: skip
    try:
        for line in process.stdout:
            if "keys and certificates" in line:
                break
        time.sleep(after)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130 and "interrupted" in err, out + err
    assert list(temporary.iterdir()) == [] and processes_in(temporary) == []


def test_shared_memory_of_a_killed_database_is_given_back(temporary):
    ports = Ports()
    node = Node("LV", temporary, ports, 0)
    node.make_keys()
    node.write_configuration([node])
    node.start()
    node.wait_until_ready(time.monotonic() + 60)
    postmaster = int((node.folder / "data/postgres/data/postmaster.pid").read_text().splitlines()[0])
    held = re.findall(r"/dev/shm/PostgreSQL\.\d+", Path(f"/proc/{postmaster}/maps").read_text())
    node.stop(0)
    assert held and not any(Path(segment).exists() for segment in held)
    creators = [line.split()[4] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    assert str(postmaster) not in creators and processes_in(temporary) == []
    ports.close()


def test_a_node_that_cannot_start_is_explained_in_one_sentence(temporary):
    ports = Ports()
    node = Node("LV", temporary, ports, 0)
    node.make_keys()
    node.write_configuration([node])
    node.config.write_text(node.config.read_text().replace("[workers]", "[wrokers]"))
    node.start()
    with pytest.raises(DemoFailed, match=r"AP_LV_01 did not start: .*wrokers") as failure:
        node.wait_until_ready(time.monotonic() + 30)
    assert "\n" not in str(failure.value)
    node.stop(time.monotonic())
    ports.close()


def test_two_demos_take_different_ports(temporary):
    one, other = Ports(), Ports()
    assert one.take(18443) != other.take(18443)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert one.take(port) != port
    one.close()
    other.close()
