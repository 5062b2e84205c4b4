"""docs/backends.md, pasted: every example marked `runs` against a running demo, every one marked `loads` as configuration."""

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import mkdtemp

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "backends.md").read_text()
BLOCK = re.compile(
    r"^<!-- (?P<mark>runs|loads) -->\n```(?P<kind>\w+)\n(?P<text>.*?)^```\n(?P<prints>(?:<!-- prints: .*? -->\n)*)", re.M | re.S
)
BLOCKS = [match.groupdict() for match in BLOCK.finditer(PAGE)]
#: `gateway` stands for `.venv/bin/gateway`; blocks follow one another as in one terminal.
PRELUDE = 'set -ea\ngateway() { "$PYTHON" -m gateway "$@"; }\n[ ! -f .state ] || . ./.state\n'
#: What a shell will not let itself be told.
EPILOGUE = "\nset +a\ndeclare -f > .state; declare -p | grep -v '^declare -[a-zA-Z]*r' | grep -v -E ' (BASH|FUNCNAME|DIRSTACK|GROUPS|PIPESTATUS)' >> .state\n"


@pytest.fixture(scope="module")
def demo():
    """`make demo` in a folder everybody may pass, until its hints are printed; the environment of its `export` line."""
    folder = Path(mkdtemp(prefix="docs-", dir="/tmp"))
    folder.chmod(0o711)
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "demo"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment, start_new_session=True,
    )  # fmt: skip
    printed = ""
    try:
        for line in process.stdout:
            printed += line
            if "not for production" in line:
                break
        exported = re.search(r"export (.*)", printed)
        assert exported, printed
        yield dict(pair.split("=", 1) for pair in exported[1].split())
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        shutil.rmtree(folder, ignore_errors=True)


def shell(text: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", PRELUDE + text + EPILOGUE], cwd=folder, capture_output=True, text=True, timeout=120,
        env={**os.environ, **environment, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def python(text: str, names: dict) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(text, "docs/backends.md", "exec"), names)
    return out.getvalue()


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="the examples are for curl and jq")
def test_every_example_runs_in_the_order_of_the_page(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in demo.items():
        monkeypatch.setenv(name, value)
    names = {"__name__": "docs"}
    kinds = []
    for block in BLOCKS:
        if block["mark"] != "runs":
            continue
        kinds.append(block["kind"])
        printed = shell(block["text"], tmp_path, demo) if block["kind"] == "sh" else python(block["text"], names)
        place = 0
        for wanted in re.findall(r"<!-- prints: (.*?) -->", block["prints"]):
            found = printed.find(wanted, place)
            assert found >= 0, f"{wanted!r} is not printed by\n{block['text']}\nbut:\n{printed}"
            place = found + len(wanted)
    assert kinds.count("sh") >= 5 and kinds.count("python") >= 5


@pytest.mark.parametrize("text", [b["text"] for b in BLOCKS if b["mark"] == "loads"])
def test_every_configuration_loads(text, tmp_path):
    from gateway import app
    from gateway.config import Config

    for name in ("certs/api.pem", "certs/api.key.pem", "certs/clients-ca.pem", "register-password"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    path = tmp_path / "gateway.toml"
    path.write_text(text.replace('"file:register-password"', f'"file:{tmp_path}/register-password"'))
    made = app._backends(Config.load(path, environ={}), None)
    assert set(tomllib.loads(text).get("backends", {})) <= set(made)


def test_the_option_tables_are_complete():
    from gateway.backends.domibus_ws.operations import Options as Soap
    from gateway.backends.filesystem import Options as Folder
    from gateway.backends.rest.limits import RestOptions
    from gateway.backends.soap_push import Options as Push

    for options in (Push, Folder):
        for name in set(options.__struct_fields__) - {"kind"}:
            assert f"`{name}`" in PAGE, f"{options.__module__}: {name} is not explained"
    for name in set(Soap.__struct_fields__) - {"grace", "rate"}:
        assert f"{name} =" in PAGE
    for name in RestOptions.__struct_fields__:
        assert re.search(rf"\b{name}\b", PAGE), name


def test_every_mark_belongs_to_an_example():
    assert len(re.findall(r"<!-- (?:runs|loads) -->", PAGE)) == len(BLOCKS)
    assert len(re.findall(r"<!-- prints:", PAGE)) == sum(b["prints"].count("<!-- prints:") for b in BLOCKS)
