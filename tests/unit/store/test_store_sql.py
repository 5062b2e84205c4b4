import ast
from pathlib import Path
from typing import get_args

import pytest

from gateway.store.postgres import sql
from gateway.store.seals import SealedKind

STATEMENTS = [(file, name, text) for file in sql.names() for name, text in sql.load(file).items()]
ROOT = Path(sql.__file__).parent


async def test_every_statement_fits_the_migrated_schema(database):
    for file, name, text in STATEMENTS:
        await database.sql.prepare(text), (file, name)


def test_every_statement_is_described():
    for file, name, text in STATEMENTS:
        lines = text.splitlines()
        assert lines[0] == f"-- {name}" and lines[1].startswith("-- ") and len(lines[1]) > 10, (file, name)


def test_every_statement_is_used_and_every_used_one_is_there():
    used = set()
    for path in ROOT.glob("*.py"):
        tree = ast.parse(path.read_text())
        files = {
            node.targets[0].id: node.value.args[0].value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Name) and node.value.func.id == "load"
        }  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in files:
                # `for statement in (...): Q[statement]` names them as plain strings.
                names = [node.slice.value] if isinstance(node.slice, ast.Constant) else [
                    c.value for c in ast.walk(tree) if isinstance(c, ast.Constant) and isinstance(c.value, str)
                ]  # fmt: skip
                used |= {(files[node.value.id], name) for name in names if isinstance(node.slice, ast.Constant)
                         or name in sql.load(files[node.value.id])}  # fmt: skip
    # `seals` puts the name together of what is sealed and what is asked.
    used |= {("seal", f"{kind.replace('-', '_')}_{verb}") for kind in get_args(SealedKind) for verb in ("others", "anew")}
    assert used == {(file, name) for file, name, _ in STATEMENTS}


def test_blocks():
    found = sql.parse("-- Head.\n\n-- one\n-- Says.\nSELECT 1;\n\n-- two\n-- Says more.\n-- And more.\nSELECT 2\n")
    assert dict(found) == {"one": "-- one\n-- Says.\nSELECT 1", "two": "-- two\n-- Says more.\n-- And more.\nSELECT 2"}


@pytest.mark.parametrize("text", [
    pytest.param("SELECT 1;", id="no name"),
    pytest.param("-- one\n-- Says.\nSELECT 1; SELECT 2;", id="two statements"),
    pytest.param("-- one\n-- Says.\nSELECT 1;\n\n-- one\n-- Says.\nSELECT 1;", id="one name twice"),
    pytest.param("-- one\n-- Says.\n\n-- two\n-- Says.\nSELECT 1;", id="no statement"),
])  # fmt: skip
def test_other_forms_are_refused(text):
    with pytest.raises(ValueError):
        sql.parse(text)
