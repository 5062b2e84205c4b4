"""The root command: fast help, exit statuses, errors in two lines."""

import ast
import importlib
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from gateway import errors
from gateway.cli import main as cli
from gateway.client import GatewayProblem

ROOT = Path(__file__).parents[3]


def run(capsys, *args):
    with pytest.raises(SystemExit) as leaving:
        cli.main(list(args))
    streams = capsys.readouterr()
    return leaving.value.code, streams.out, streams.err


@pytest.fixture
def failing(monkeypatch):
    """A command `fail` that raises what it is given."""

    def arm(error):
        @click.command()
        def fail():
            raise error

        monkeypatch.setitem(cli.VERBS, "fail", cli.Verb("x:fail", ""))
        monkeypatch.setattr(cli.importlib, "import_module", lambda name: type("module", (), {"fail": fail}))

    return arm


def test_help_names_every_command_and_imports_none():
    script = (
        "import sys; from gateway.cli import main\n"
        "try: main.main(['--help'])\n"
        "except SystemExit: print(sorted(m for m in sys.modules if m.startswith('gateway')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert all(f"  {name} " in done.stdout for name in cli.VERBS)
    assert ast.literal_eval(done.stderr) == ["gateway", "gateway.cli", "gateway.cli.main", "gateway.cli.verbs"]


def test_help_is_there_at_once():
    def once():
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "gateway", "--help"], capture_output=True, cwd=ROOT, check=True)
        return time.perf_counter() - began

    assert min(once() for _ in range(5)) < 0.25  # 50-70 ms on two quiet cores


@pytest.mark.parametrize("name", cli.VERBS)
def test_the_table_is_true(name):
    module, _, attribute = cli.VERBS[name].place.partition(":")
    assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)


@pytest.mark.parametrize(("typed", "meant"), [("docter", "doctor"), ("mesages", "messages"), ("pmode", "pmodes")])
def test_typos_are_answered_with_what_was_meant(capsys, typed, meant):
    code, out, err = run(capsys, typed)
    assert code == 2 and out == "" and f"did you mean {meant}" in err
    assert err.splitlines()[1].startswith("hint:")


def test_nonsense_is_sent_to_help(capsys):
    code, _, err = run(capsys, "xyzzy")
    assert code == 2 and "--help" in err


@pytest.mark.parametrize(("error", "code"), [
    (errors.StoreUnavailable("no writer"), 1),
    (errors.ConfigError("unknown key", file="gateway.toml", key="as5", hint="did you mean 'as4'?"), 1),
    (errors.NotFound("no such message"), 5),
    (errors.SubmissionConflict("used for something else"), 6),
    (errors.SendFailed("ap.example.ee: nobody listens there"), 7),
    (errors.PeerAnswered("EBMS:0004", "no", authenticated=True), 7),
    (errors.ConnectionFailure("x"), 7),
    (ConnectionRefusedError(111, "Connection refused"), 7),
    (TimeoutError("no receipt within 30 s"), 8),
    (GatewayProblem(401, {"title": "Unauthorized"}), 4),
    (GatewayProblem(404, {"title": "Not found"}), 5),
    (click.BadParameter("x"), 2),
    (click.ClickException("x"), 1),
    (KeyboardInterrupt(), 130),
    (click.Abort(), 130),
    (RuntimeError("x"), 1),
])  # fmt: skip
def test_exit_statuses(capsys, failing, error, code):
    failing(error)
    found, out, err = run(capsys, "fail")
    assert found == code and out == ""
    assert code == 130 or err.startswith("error: ")


def test_errors_say_what_and_what_to_do(capsys, failing):
    failing(errors.ConfigError("unknown key", file="gateway.toml", key="as5", hint="did you mean 'as4'?"))
    assert run(capsys, "fail")[2] == "error: gateway.toml: as5: unknown key\nhint:  did you mean 'as4'?\n"


def test_nothing_from_outside_runs_in_the_terminal(capsys, failing):
    failing(errors.SendFailed("\x1b[2Jsurprise\nerror: not ours"))
    assert run(capsys, "fail")[2] == "error: \\x1b[2Jsurprise\\x0aerror: not ours\n"


def test_unexpected_errors_show_where_on_demand(capsys, failing, monkeypatch):
    failing(ZeroDivisionError())
    assert "Traceback" not in run(capsys, "fail")[2]
    monkeypatch.setenv("GATEWAY_DEBUG", "1")
    assert "Traceback" in run(capsys, "fail")[2]


def test_version(capsys):
    from gateway import __version__

    assert run(capsys, "version") == (0, f"{__version__}\n", "")
    assert run(capsys, "--version") == (0, f"{__version__}\n", "")


def test_a_reader_that_has_enough_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m gateway --help | head -c 1", shell=True, capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stderr == ""
