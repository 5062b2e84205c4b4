"""Supervisor and workers as real processes: death, drain, hurry, orphans, reload."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

SUPERVISE = """
import json, sys, msgspec
from pathlib import Path
from gateway import log
from gateway.config import Config
from gateway.cli.supervisor import Listener, Plan, Supervisor, supervise

given = json.loads(sys.argv[1])
config = Config.load(Path(given["config"]) if given["config"] else None)
plan = Plan(
    listeners=tuple(Listener(role, given["binds"].get(role, "127.0.0.1:0"), f"{role}.bind") for role in ("operations", "as4", "plugin")),
    run_folder=Path(given["folder"]) / "run", config=config, factory=given["factory"], workers=given["workers"],
    drain_delay=given["drain_delay"], grace=given["grace"], hang=given["hang"], log_plain=False, node="n",
)

class Database:
    def __init__(self): self.up = Path(given["folder"]) / "database"
    def start(self): self.up.write_text("up")
    def healthy(self):
        if (sick := self.up.with_name("sick")).exists():
            sick.unlink()
            raise RuntimeError("nobody expected this")
        return self.up.exists()
    def stop(self): self.up.unlink()

log.configure(node="n", stream=sys.stderr, plain=False)
try:
    supervise(Supervisor(plan, Database(), on_started=lambda addresses: print(json.dumps(addresses), flush=True)))
finally:
    log.flush()
"""


class Running:
    """A supervisor in a process of its own."""

    def __init__(self, folder, *, workers=2, drain_delay=0.0, grace=10.0, hang=30.0, config="", factory="trivial_gateway:build",
                 binds=None, **environment):  # fmt: skip
        self.folder, self.notes = folder, folder / "notes"
        given = {"folder": str(folder), "workers": workers, "drain_delay": drain_delay, "grace": grace, "hang": hang, "config": str(config),
                     "factory": factory, "binds": binds or {}}  # fmt: skip
        self.errors = (folder / "stderr").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, json.dumps(given)],
            stdout=subprocess.PIPE, stderr=self.errors, text=True, cwd=ROOT, start_new_session=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}", "GATEWAY_TRIVIAL_LOG": str(self.notes),
                 **environment},
        )  # fmt: skip

    def started(self):
        line = self.process.stdout.readline()
        assert line, self.log()
        self.ports = {role: int(addresses[0].rpartition(":")[2]) for role, addresses in json.loads(line).items()}
        return self

    def log(self):
        return (self.folder / "stderr").read_text()

    def events(self, name):
        return [facts for line in self.log().splitlines() if line.startswith("{") and (facts := json.loads(line))["event"] == name]

    def noted(self, what):
        with contextlib.suppress(FileNotFoundError):
            return [int(line.split()[0]) for line in self.notes.read_text().splitlines() if line.split()[1] == what]
        return []

    def get(self, path, role="operations"):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[role]}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def post(self, path="/as4", body=b"abc", role="as4"):
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[role]}{path}", body, {"Content-Type": "a/b"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()

    def workers(self):
        """Process ids of the living workers."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, IndexError):
                fields = entry.read_text().rpartition(")")[2].split()
                command = (entry.parent / "cmdline").read_bytes()
                if int(fields[1]) in (self.process.pid, 1) and fields[0] != "Z" and b"gateway.cli.worker" in command:
                    found.append(int(entry.parent.name))
        return [pid for pid in found if pid in self.known()]

    def known(self):
        with contextlib.suppress(FileNotFoundError):
            return {int(line.split()[0]) for line in self.notes.read_text().splitlines()}
        return set()

    def end(self, number=signal.SIGTERM, timeout=15):
        self.process.send_signal(number)
        return self.process.wait(timeout)


def eventually(condition, timeout=10.0):
    until = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.02)
    return found


@pytest.fixture
def run(tmp_path):
    made = []

    def start(**options):
        made.append(Running(tmp_path, **options))
        return made[-1]

    yield start
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        one.process.stdout.close()
        one.errors.close()
        for pid in one.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Upload:
    """A POST whose body comes in two halves."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.socket.sendall(b"POST /as4 HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
        time.sleep(0.2)

    def finish(self):
        self.socket.sendall(b"def")
        self.socket.settimeout(5)
        octets = b""
        while block := self.socket.recv(65536):
            octets += block
        return octets


# -- life -------------------------------------------------------------------------


def test_a_whole_life(run, tmp_path):
    running = run().started()
    assert running.get("/readyz")[0] == 200 and "[+]store there is none" in running.get("/readyz?verbose")[1]
    assert running.get("/livez") == (200, "ok\n") and running.get("/startupz")[0] == 200
    seen = {running.post().split()[0] for _ in range(5)}
    assert seen <= {str(pid) for pid in running.workers()} and len(running.workers()) == 2
    assert running.post(role="plugin").endswith(" 3 [] 77")
    assert (tmp_path / "database").exists()
    # Whoever is asked answers for all.
    for _ in range(5):
        metrics = running.get("/metrics")[1]
        assert 'gateway_messages_total{action="A",direction="inbound",outcome="received",party="P"} 6.0' in metrics
    assert running.end() == 0
    assert running.workers() == [] and not (tmp_path / "database").exists() and not (tmp_path / "run").exists()
    assert len(running.noted("drain")) == len(running.noted("close")) == 2
    [started] = running.events("gateway.started")
    assert started["as4"] == f"127.0.0.1:{running.ports['as4']}" and running.events("gateway.stopped")


def test_ctrl_c_stops_quickly(run):
    running = run(grace=60).started()
    began = time.monotonic()
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.process.wait(10) == 0 and time.monotonic() - began < 3


def test_workers_have_nothing_to_tell_and_nothing_to_read(run):
    running = run(workers=1, SSLKEYLOGFILE="/tmp/never-written").started()
    [pid] = running.workers()
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert command[1:3] == [b"-m", b"gateway.cli.worker"] and len(command) == 4
    if os.geteuid():
        with pytest.raises(PermissionError):
            Path(f"/proc/{pid}/environ").read_bytes()
    limits = Path(f"/proc/{pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    assert oct(Path(running.folder / "run" / "0.values").stat().st_mode & 0o777) == "0o600"


# -- death ------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_the_other_serves_on(run):
    running = run().started()
    for _ in range(3):
        victim = running.workers()[0]
        os.kill(victim, signal.SIGKILL)
        running.post()  # at once, by the other
        eventually(lambda: victim not in running.workers() and len(running.workers()) == 2)
    assert [e["level"] for e in running.events("worker.died")] == ["error"] * 3
    assert "SIGKILL" in running.events("worker.died")[0]["reason"]
    assert "gateway_worker_restarts_total 3.0" in running.get("/metrics")[1]
    assert running.end() == 0


def test_what_was_counted_before_is_not_lost(run):
    running = run(workers=1).started()
    for _ in range(4):
        running.post()
    with contextlib.suppress(OSError):
        running.post("/die")
    eventually(lambda: len(running.noted("start")) == 2)
    running.post()
    assert 'party="P"} 5.0' in running.get("/metrics")[1]


def test_a_worker_that_dies_again_and_again_is_started_ever_more_rarely(run):
    running = run(workers=1).started()
    for number in range(1, 5):
        eventually(lambda: len(running.noted("start")) == number)
        os.kill(running.noted("start")[-1], signal.SIGKILL)
    eventually(lambda: len(running.events("worker.died")) == 4)
    assert [e["retry_in"] for e in running.events("worker.died")] == [0.1, 0.2, 0.4, 0.8]


def test_a_crash_test_strikes_once(run):
    running = run(workers=1, GATEWAY_CRASH="IB21").started()
    assert "I" in running.post()
    os.kill(running.workers()[0], signal.SIGKILL)
    eventually(lambda: len(running.noted("start")) == 2)
    assert eventually(lambda: running.post().split()[2]) == "[]"


def test_a_worker_whose_loop_stands_still_is_killed(run):
    running = run(hang=2.0).started()
    threading.Thread(target=_ignore, args=(running,), daemon=True).start()
    eventually(lambda: running.events("worker.hung"))
    eventually(lambda: len(running.noted("start")) == 3)
    assert running.end() == 0


def _ignore(running):
    with contextlib.suppress(OSError):
        running.post("/hang")


def test_workers_end_when_their_supervisor_is_killed(run):
    running = run().started()
    workers = running.workers()
    upload = Upload(running.ports["as4"])
    running.process.kill()
    running.process.wait()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 6)
    assert len(running.noted("close")) == 2
    upload.socket.close()


def test_workers_end_even_if_their_loop_hangs(run):
    running = run(workers=1).started()
    [pid] = running.workers()
    threading.Thread(target=_ignore, args=(running,), daemon=True).start()
    time.sleep(0.3)
    running.process.kill()
    running.process.wait()
    eventually(lambda: not Path(f"/proc/{pid}").exists(), 6)


def test_the_database_is_started_again(run, tmp_path):
    running = run(workers=1).started()
    (tmp_path / "sick").touch()
    eventually(lambda: running.events("incident"))
    (tmp_path / "database").unlink()
    eventually(lambda: (tmp_path / "database").exists())
    assert running.events("store.unavailable")


# -- the end ------------------------------------------------------------------------


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_drain_lets_an_upload_finish(run):
    running = run(drain_delay=3.0).started()
    upload = Upload(running.ports["as4"])
    running.process.send_signal(signal.SIGTERM)
    # Not ready yet still serving: the load balancer has not noticed; connections are not kept.
    eventually(lambda: "[-]worker draining" in running.get("/readyz?verbose")[1])
    eventually(lambda: running.get("/readyz")[0] == 503)
    with urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{running.ports['as4']}/as4", b"x"), timeout=5
    ) as answer:
        assert answer.status == 200 and answer.headers["connection"] == "close"
    eventually(lambda: refuses(running.ports["as4"]))
    assert running.get("/readyz")[0] == 503 and running.get("/livez")[0] == 200
    octets = upload.finish()
    assert octets.startswith(b"HTTP/1.1 200") and b" 6 " in octets and b"connection: close" in octets.lower()
    assert running.process.wait(5) == 0


def test_an_upload_that_does_not_finish_is_cut_off_in_the_end(run):
    running = run(grace=0.5).started()
    upload = Upload(running.ports["as4"])
    began = time.monotonic()
    assert running.end() == 0
    assert 0.4 < time.monotonic() - began < 5
    upload.socket.close()


def test_the_second_signal_hurries(run):
    running = run(drain_delay=30, grace=60).started()
    upload = Upload(running.ports["as4"])
    running.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert running.process.poll() is None
    began = time.monotonic()
    assert running.end() == 0
    assert time.monotonic() - began < 4
    upload.socket.close()


def test_running_work_is_drained_too(run):
    running = run(workers=1, GATEWAY_TRIVIAL_DRAIN="0.7").started()
    began = time.monotonic()
    assert running.end() == 0
    assert 0.6 < time.monotonic() - began < 5 and running.noted("close")


def test_rolling_restarts_lose_no_request(run, tmp_path):
    """A client that asks readyz first, as a load balancer does, sees no error."""
    running = run(drain_delay=0.4).started()
    failures, done, stop = [], [], threading.Event()

    def ask():
        while not stop.is_set():
            try:
                if running.get("/readyz")[0] != 200:
                    return
                done.append(running.post())
            except OSError as error:
                failures.append(error)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    time.sleep(0.5)
    assert running.end() == 0
    stop.set()
    for client in clients:
        client.join()
    assert done and failures == []


# -- reload -------------------------------------------------------------------------


def test_sighup_reloads_every_worker(run):
    running = run().started()
    running.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(set(running.noted("reload"))) == 2)
    eventually(lambda: len(running.events("gateway.reloaded")) == 2)
    assert running.end() == 0


def test_a_reload_that_fails_changes_nothing(run):
    running = run(workers=1, GATEWAY_TRIVIAL_BAD_RELOAD="1").started()
    running.process.send_signal(signal.SIGHUP)
    [failed] = eventually(lambda: running.events("gateway.reload_failed"))
    assert failed["reason"] == "the new agreements are wrong"
    assert running.post() and len(running.noted("start")) == 1


def test_certificates_of_listeners_are_read_again(run, pki, tmp_path):
    def subject():
        context = ssl.create_default_context(cafile=pki.ca)
        with socket.create_connection(("127.0.0.1", running.ports["as4"]), 5) as raw:
            with context.wrap_socket(raw, server_hostname="localhost") as tls:
                return dict(pair[0] for pair in tls.getpeercert()["subject"])["commonName"]

    pem = tmp_path / "server.pem"
    pem.write_bytes(pki.pair("first").read_bytes())
    config = tmp_path / "gateway.toml"
    config.write_text('[as4.tls]\ncertificate = "server.pem"\n')
    running = run(workers=1, config=config).started()
    assert subject() == "first"
    pem.write_text("nonsense")
    running.process.send_signal(signal.SIGHUP)
    eventually(lambda: running.events("gateway.reload_failed"))
    assert subject() == "first" and running.noted("reload") == []
    pem.write_bytes(pki.pair("second").read_bytes())
    running.process.send_signal(signal.SIGHUP)
    eventually(lambda: running.events("gateway.reloaded"))
    assert subject() == "second"


# -- what keeps it from starting --------------------------------------------------------


def test_a_port_in_use(run):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        running = run(binds={"as4": f"127.0.0.1:{port}"})
        assert running.process.wait(10) == 1
    assert f"port {port} is in use by" in running.log() and "as4.bind" in running.log()
    assert not (running.folder / "database").exists() and running.known() == set()


def test_a_worker_that_cannot_start_says_why(run, tmp_path):
    running = run(GATEWAY_TRIVIAL_BROKEN="no such path")
    assert running.process.wait(15) == 1
    assert "ConfigError: as4.paths: no such path (mend it)" in running.log()
    assert not (tmp_path / "database").exists()


def test_a_factory_that_is_not_there(run):
    running = run(factory="trivial_gateway:nothing")
    assert running.process.wait(15) == 1
    assert "AttributeError" in running.log()


def test_stopping_while_starting(run):
    running = run(workers=1, factory="trivial_gateway:build_slowly")
    eventually((running.folder / "database").exists)
    time.sleep(0.5)
    running.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    assert running.end(timeout=20) == 0
    assert not (running.folder / "database").exists()


def test_two_in_one_folder(run):
    run().started()
    second = run()
    assert second.process.wait(10) == 1
    assert "another gateway runs" in second.log()


def test_the_service_manager_is_told(run, tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(10)
        running = run(workers=1, NOTIFY_SOCKET=path, WATCHDOG_USEC="3000000").started()
        assert manager.recv(1000).startswith(b"READY=1")
        assert manager.recv(1000) == b"WATCHDOG=1"
        running.process.send_signal(signal.SIGHUP)
        told = [manager.recv(1000) for _ in range(2)]
        assert any(t.startswith(b"RELOADING=1\nMONOTONIC_USEC=") for t in told)
        running.process.send_signal(signal.SIGTERM)
        told = [manager.recv(1000)]
        while not told[-1].startswith(b"STOPPING=1"):
            told.append(manager.recv(1000))


def test_a_worker_by_hand_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli.worker"], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1 and "gateway run" in done.stderr
