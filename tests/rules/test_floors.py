"""The floors of docs/architecture.md: imports go down, never up, never sideways."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {
    "app": 6, "cli": 6, "__main__": 6,
    "web": 5, "backends": 5,
    "operate": 4,
    "msh": 3,
    "keys": 2, "pmodes": 2, "store": 2, "transport": 2, "oots": 2, "plugin": 2, "config": 2, "metrics": 2, "log": 2, "traces": 2,
    "as4": 1,
    "errors": 0, "clock": 0, "scope": 0, "stages": 0, "client": 0, "__init__": 0,
}  # fmt: skip
#: Rooms that may be imported from their own floor: what every room may say and how it is configured.
SHARED = {"log", "metrics", "config"}
AS4_MAY_NOT = {"asyncio", "os", "pathlib", "socket", "time", "logging", "subprocess", "ssl", "select", "random"}
ONLY_HERE = {
    "asyncpg": ("gateway/store/postgres/",),
    "aiohttp": ("gateway/transport/",),
    "hypercorn": ("gateway/cli/",),
    "pkcs11": ("gateway/keys/pkcs11.py",),
    "zeep": ("gateway/backends/soap_push.py",),
    "joserfc": ("gateway/msh/tokens.py",),
    "opentelemetry": ("gateway/traces.py",),
    "signxml": ("gateway/transport/discovery/",),
    "dns": ("gateway/transport/discovery/",),
}


def modules():
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text())


def imports(tree):
    """Every module named by an import statement, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, "imports are absolute"
            if node.module == "gateway":
                yield from ((f"gateway.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


def room(path: Path) -> str:
    return path.parts[1].removesuffix(".py")


CASES = list(modules())


@pytest.mark.parametrize(("path", "tree"), CASES, ids=[str(p) for p, _ in CASES])
def test_imports_go_down(path, tree):
    here = room(path)
    assert here in FLOORS, f"{path}: a new room; give it a floor"
    wrong = []
    for name, line in imports(tree):
        parts = name.split(".")
        if parts[0] != "gateway" or len(parts) < 2 or parts[1] == "__version__":
            continue
        there = parts[1]
        if there == here or (there in SHARED and FLOORS[here] >= FLOORS[there]):
            continue
        if here == "backends" and there != "plugin" and there != "stages":
            wrong.append(f"{path}:{line} backends import gateway.plugin only, not {name}")
        elif FLOORS.get(there, 99) >= FLOORS[here] and FLOORS[here] != 6:
            wrong.append(f"{path}:{line} {here} may not import {there}")
        elif here == "client":
            wrong.append(f"{path}:{line} the client is one file of the standard library")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("path", "tree"), [c for c in CASES if room(c[0]) == "as4"],
                         ids=[str(p) for p, _ in CASES if room(p) == "as4"])
def test_the_protocol_does_no_io(path, tree):
    wrong = [f"{path}:{line} {name}" for name, line in imports(tree) if name.split(".")[0] in AS4_MAY_NOT]
    calls = [f"{path}:{n.lineno} open()" for n in ast.walk(tree)
             if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "open"]
    assert not wrong + calls


def test_one_importer_per_outside_library():
    wrong = []
    for path, tree in CASES:
        for name, line in imports(tree):
            homes = ONLY_HERE.get(name.split(".")[0])
            if homes and not str(path).startswith(homes):
                wrong.append(f"{path}:{line} imports {name}; its home is {homes[0]}")
    assert not wrong, "\n".join(wrong)


def test_no_cycles():
    known = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): tree for path, tree in CASES}
    graph = {name: set() for name in known}
    for name, tree in known.items():
        for node in tree.body:  # imports that run on import; those in functions do not
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules_ = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= {m if m in known else node.module for m in modules_}
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path, name])
        if name in done or name not in graph:
            return
        path.append(name)
        for other in graph[name] - {name}:
            visit(other)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)


def test_no_sql_is_built_from_strings():
    """SQL lives in queries/*.sql [threats L08]; what looks like a statement in Python is refused."""
    verbs = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ")
    wrong = []
    for path, tree in CASES:
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(v.value for v in node.values if isinstance(v, ast.Constant))
                if text.lstrip().startswith(verbs):
                    wrong.append(f"{path}:{node.lineno}")
    assert not wrong


def test_xml_has_one_door():
    """etree.fromstring, XSLT and XPath from anywhere but as4/xml.py are refused [threats C05]."""
    banned = {"fromstring", "XML", "parse", "iterparse", "XSLT", "XPath", "HTML"}
    wrong = []
    for path, tree in CASES:
        if path == Path("gateway/as4/xml.py"):
            continue
        for node in ast.walk(tree):
            if (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
                    and node.value.id in {"etree", "ElementTree", "ET", "lxml"} and node.attr in banned):
                wrong.append(f"{path}:{node.lineno} etree.{node.attr}")
    assert not wrong
