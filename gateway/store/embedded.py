"""The private PostgreSQL: a real database in the gateway's data folder, with nothing to install.

    FOLDER/lock         held by the process that looks after the server
    FOLDER/password     of the only role, random, 0600
    FOLDER/data         the cluster: checksums on, SCRAM, our own postgresql.conf
    FOLDER/socket       the Unix socket, 0700; there is no TCP

One process, the supervisor, calls `start` and `stop`; any number of processes may use the
DSN. The server outlives a supervisor that is killed: worker processes keep their
connections, and the next `start` on the folder adopts the running server as it is. Nothing
is gained by stopping it first, and a stop would cut the workers off.

PostgreSQL refuses to run as root, so where we are root another user runs it: the owner of
the folder if that is somebody else, else `postgres`, else `nobody`. That user must be able
to pass the folders above. Of those, the folder next above and whatever lies in the system's
temporary folder are ours to open, or all from `reach` down: the server's group, and nobody
else, may then pass (0710). Other folders are never changed; if one is closed, `start` says so.
"""

import fcntl
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from gateway.errors import StoreUnavailable
from gateway.store import binaries
from gateway.store.binaries import ENVIRONMENT, Binaries
from gateway.store.postmaster import Postmaster, postmaster, processes_in

ROLE = DATABASE = "gateway"
#: Linux allows 107 bytes for a socket's path; its own name in the folder takes 20.
LONGEST_SOCKET_FOLDER = 85
SOCKET_LOCK = ".s.PGSQL.5432.lock"
#: A server that does not stop when asked is stopped at once; recovery mends what that leaves.
STOP_PATIENCE = 60.0
REPORT_EVERY = 5.0

CONF = """\
# Written by the gateway at every start. Put your own settings into postgresql.local.conf.
listen_addresses = ''
unix_socket_directories = '{socket}'
unix_socket_permissions = 0700
max_connections = 200
password_encryption = 'scram-sha-256'

# A receipt promises that the message is kept.
fsync = on
full_page_writes = on
synchronous_commit = on

shared_buffers = 128MB
wal_buffers = 16MB
max_wal_size = 2GB
# After a crash all since the last checkpoint is done once more before anybody is served; most of it are whole pages.
checkpoint_timeout = 30s
checkpoint_completion_target = 0.3
wal_compression = on
# Short statements on two cores: compiling and parallel workers only cost.
jit = off
max_parallel_workers_per_gather = 0

lock_timeout = 30s
idle_in_transaction_session_timeout = 10min
timezone = 'UTC'

# No values in the log: `terse` leaves out the DETAIL lines that quote rows.
logging_collector = on
log_directory = 'log'
log_filename = 'postgresql-%a.log'
log_truncate_on_rotation = on
log_rotation_size = 0
log_file_mode = 0600
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %a '
log_error_verbosity = terse
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_checkpoints = off
{more}
include_if_exists = 'postgresql.local.conf'
"""
#: Settings that older versions do not know.
CONF_SINCE = {14: "client_connection_check_interval = 1s", 18: "io_method = sync"}


class PrivatePostgres:
    """The private server of one folder. `report` hears what takes long. Not for several threads."""

    def __init__(
        self,
        folder: Path,
        *,
        binaries: Path | None = None,
        reach: Path | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.folder = Path(folder).absolute()
        self._data = self.folder / "data"
        self._binaries, self._reach = binaries and Path(binaries).absolute(), reach
        self._report = report or (lambda _: None)
        self._lock: int | None = None
        self._user: tuple[int, int] | None = None
        self._child: subprocess.Popen | None = None

    # -- the verbs ----------------------------------------------------------------

    def start(self) -> str:
        """Run the server, or adopt one that runs already; its DSN once it takes connections.

        Waits for recovery without limit. After a crash of the server, call it again.
        Raises `StoreUnavailable`.
        """
        self._user = _server_user(self.folder)
        try:
            self._prepare_folder()
            self._take_lock()
            running = self._settled()
            if running is None:
                found = self._found()
                if not (self._data / "PG_VERSION").exists():
                    self._initialise(found)
                self._launch(found)
            elif self._child is None or self._child.pid != running.pid:
                self._report(f"PostgreSQL runs already (process {running.pid}): taken over")
            self._wait_until_ready()
            return self.dsn
        except OSError as error:
            self._release_lock()
            raise StoreUnavailable(f"the private PostgreSQL: {error.filename or ''}: {error.strerror}") from error
        except BaseException:
            self._release_lock()
            raise

    def stop(self) -> None:
        """End the server and its connections, and let go of the folder. Does nothing when it does not run."""
        try:
            if (running := postmaster(self._data)) is None:
                return
            self._signal(running.pid, signal.SIGINT)  # fast: ends open connections
            if not self._gone(running.pid, STOP_PATIENCE):
                self._report("PostgreSQL does not stop; stopping it at once")
                self._signal(running.pid, signal.SIGQUIT)
                self._gone(running.pid, STOP_PATIENCE)
            if running.socket and self.folder not in (socket := Path(running.socket)).parents:
                shutil.rmtree(socket, ignore_errors=True)
        finally:
            self._child = None
            self._release_lock()

    @property
    def running(self) -> bool:
        """Whether the server of this folder takes connections, whoever started it."""
        if self._child is not None:
            self._child.poll()  # collects a child that ended, which would look alive as a zombie
        found = postmaster(self._data)
        return found is not None and found.status == "ready"

    @property
    def pid(self) -> int | None:
        """The server's process id while it is alive."""
        return found.pid if (found := postmaster(self._data)) else None

    @property
    def dsn(self) -> str:
        """How to connect. Raises `StoreUnavailable` while the server does not run."""
        return running_dsn(self.folder)

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # -- the folder ---------------------------------------------------------------

    def _prepare_folder(self) -> None:
        """The folder, open for us and passable for the server's group."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._user is None:
            self.folder.chmod(0o700)
            return
        top = (self._reach or self.folder.parent).absolute()
        temporary = Path(tempfile.gettempdir()).absolute()
        for step in [*reversed(self.folder.parents), self.folder]:
            if step == top or top in step.parents or temporary in step.parents:
                self._let_pass(step)
        if closed := binaries.closed_to(self.folder, self._user):
            name = pwd.getpwuid(self._user[0]).pw_name
            raise StoreUnavailable(
                f"PostgreSQL does not run as root, and {name} cannot pass {closed}. Put [data] folder elsewhere "
                "(/var/lib/oots-as4-gateway, for one), run the gateway as another user, or set [store] dsn"
            )

    def _let_pass(self, step: Path) -> None:
        """Let the server's group through `step` if it is root's own and closed. Others see no change."""
        entry = step.stat()
        if entry.st_uid != 0 or entry.st_mode & 0o001 or binaries.closed_to(step, self._user) != step:
            return
        if entry.st_gid in (0, self._user[1]):
            os.chown(step, 0, self._user[1])
            os.chmod(step, stat.S_IMODE(entry.st_mode) | 0o010)  # noqa: S103 - one group, and passing only

    def _take_lock(self) -> None:
        """One supervisor a folder. The lock dies with the process; forked children do not inherit it."""
        if self._lock is not None:
            return
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(lock, 20).decode("ascii", "replace").strip() or "?"
            os.close(lock)
            raise StoreUnavailable(
                f"another gateway (process {holder}) uses {self.folder}: "
                "stop it, or give this one its own [data] folder"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._lock = lock

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- making a cluster ---------------------------------------------------------

    def _found(self) -> Binaries:
        version = self._data / "PG_VERSION"
        major = int(version.read_text()) if version.exists() else None
        if self._binaries is None:
            return binaries.find(major=major, user=self._user)
        found = binaries.look(self._binaries, user=self._user)
        if isinstance(found, str):
            raise StoreUnavailable(found)
        if major not in (None, found.major):
            raise StoreUnavailable(f"{self._data} was made by PostgreSQL {major}; {found.folder} is {found.major}")
        return found

    def _initialise(self, found: Binaries) -> None:
        """Make the cluster beside its place and move it there when it is whole."""
        self._report(f"making a private PostgreSQL {found.major} in {self.folder}")
        making = self.folder / "data.new"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        password = secrets.token_urlsafe(32)
        _write(self.folder / "password", password, 0o600)
        handed = self.folder / "password.new"
        _write(handed, password, 0o600)
        if self._user is not None:
            os.chown(making, *self._user)
            os.chown(handed, *self._user)
        provider = ["--locale-provider=builtin", "--locale=C.UTF-8"] if found.major >= 17 else ["--locale=C"]
        try:
            self._run(
                [found.initdb, "-D", making, f"--username={ROLE}", f"--pwfile={handed}", "--auth=scram-sha-256",
                 "--encoding=UTF8", "--data-checksums", *provider]
            )  # fmt: skip
            self._run([found.postgres, "--single", "-D", making, "postgres"], f"CREATE DATABASE {DATABASE}\n")
        finally:
            handed.unlink()
        making.rename(self._data)

    def _run(self, command: list, text: str | None = None) -> None:
        done = subprocess.run(  # noqa: S603 - programs and paths of ours, no shell
            command, input=text, capture_output=True, text=True, env=ENVIRONMENT, cwd=self.folder, check=False,
            start_new_session=True, **self._as_user(),
        )  # fmt: skip
        if done.returncode:
            raise StoreUnavailable(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-500:]}")

    def _as_user(self) -> dict:
        return {} if self._user is None else {"user": self._user[0], "group": self._user[1], "extra_groups": []}

    # -- running it ---------------------------------------------------------------

    def _settled(self) -> Postmaster | None:
        """The running server to adopt. One that is stopping, or leaves processes behind, is waited for."""
        begun = reported = time.monotonic()
        hurried = False
        while True:
            found = postmaster(self._data)
            if found is not None and found.status != "stopping":
                return found
            if found is None and not processes_in(self._data):
                return None
            if found is not None and not hurried:
                # It may be waiting for its clients to leave.
                self._signal(found.pid, signal.SIGINT)
                hurried = True
            if time.monotonic() - reported > REPORT_EVERY:
                reported = time.monotonic()
                self._report(f"waiting for the former PostgreSQL to end ({reported - begun:.0f} s)")
            time.sleep(0.02)

    def _launch(self, found: Binaries) -> None:
        # PostgreSQL clears away what a dead server left, but is taken in when the process id in
        # the file has since gone to a stranger, as happens in containers, or when nobody has
        # collected the dead one yet. Here nothing of this folder runs any more, and the lock keeps it so.
        socket = self._socket_folder()
        if Path("/proc/self").exists():
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            (socket / SOCKET_LOCK).unlink(missing_ok=True)
        more = "\n".join(line for since, line in CONF_SINCE.items() if found.major >= since)
        _write(self._data / "postgresql.conf", CONF.format(socket=socket, more=more), 0o644)
        if not (self._data / "postgresql.local.conf").exists():
            _write(self._data / "postgresql.local.conf", "# Yours; read after postgresql.conf.\n", 0o644)
        log = os.open(self.folder / "start.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            # A session of its own: Ctrl-C reaches the gateway, which stops its database last.
            self._child = subprocess.Popen(  # noqa: S603 - a program and a path of ours, no shell
                [found.postgres, "-D", self._data], env=ENVIRONMENT, cwd=self.folder, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as_user(),
            )  # fmt: skip
        finally:
            os.close(log)

    def _socket_folder(self) -> Path:
        """A folder only the server's user (and root) can enter, with a path short enough for a socket."""
        place = self.folder / "socket"
        if len(os.fsencode(place)) > LONGEST_SOCKET_FOLDER:
            place = Path(tempfile.mkdtemp(prefix="gateway-", dir="/tmp"))
        place.mkdir(mode=0o700, exist_ok=True)
        if self._user is not None:
            os.chown(place, *self._user)
        return place

    def _wait_until_ready(self) -> None:
        begun = reported = time.monotonic()
        while True:
            found = postmaster(self._data)
            if found is not None and found.status == "ready":
                return
            ended = self._child is not None and self._child.poll() is not None
            if ended or (self._child is None and found is None):
                said = (self.folder / "start.log").read_text(errors="replace").strip().splitlines()[-3:]
                raise StoreUnavailable(
                    f"the private PostgreSQL ended: {' / '.join(said)[-500:] or 'it said nothing'} "
                    f"(more in {self._data / 'log'})"
                )
            if time.monotonic() - reported > REPORT_EVERY:
                reported = time.monotonic()
                self._report(f"waiting for PostgreSQL to recover ({reported - begun:.0f} s)")
            time.sleep(0.01)

    def _signal(self, pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return

    def _gone(self, pid: int, patience: float) -> bool:
        """Wait for a server to end; an adopted one is no child of ours."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if self._child is not None and self._child.pid == pid:
                if self._child.poll() is not None:
                    return True
            elif postmaster(self._data) is None:
                return True
            time.sleep(0.01)
        return False


def running_dsn(folder: Path) -> str:
    """The DSN of the private PostgreSQL in `folder`, for any process beside the supervisor.

    Raises `StoreUnavailable` when it does not run.
    """
    folder = Path(folder).absolute()
    try:
        found = postmaster(folder / "data")
        password = (folder / "password").read_text().strip() if found else ""
    except PermissionError as error:
        raise StoreUnavailable(f"{error.filename} belongs to another user: run this as the gateway's user") from None
    except FileNotFoundError as error:
        raise StoreUnavailable(f"{error.filename} is missing") from None
    if found is None:
        raise StoreUnavailable(f"the private PostgreSQL in {folder} does not run; `gateway run` starts it")
    return f"postgresql://{ROLE}:{quote(password)}@/{DATABASE}?host={quote(found.socket, safe='/')}"


def _server_user(folder: Path) -> tuple[int, int] | None:
    """(uid, gid) of who is to run the server, or None: we ourselves."""
    if os.geteuid() != 0:
        return None
    for place in (folder / "data", folder, *folder.parents):
        if place.exists():
            if (entry := place.stat()).st_uid != 0:
                return entry.st_uid, entry.st_gid
            if place not in (folder / "data", folder):
                break
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise StoreUnavailable("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def _write(path: Path, text: str, mode: int) -> None:
    """Replace a file as a whole."""
    making = path.with_name(path.name + ".part")
    making.unlink(missing_ok=True)
    descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    making.replace(path)
