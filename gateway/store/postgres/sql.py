"""The statements, as text in `queries/*.sql` and nowhere else [threats L08].

A block begins with its name on a comment line of its own, then says in one or more comment
lines what it does:

    -- renew
    -- Keep job $1 ...
    UPDATE ...

A test PREPAREs every block against the migrated schema.
"""

import re
from importlib.resources import files
from types import MappingProxyType

_HEAD = re.compile(r"^-- ([a-z][a-z0-9_]*)\n(?=-- )", re.MULTILINE)


def load(name: str) -> MappingProxyType[str, str]:
    """The statements of `queries/NAME.sql` by name. Raises `ValueError` for a file that is not in that form."""
    text = (files(__package__) / "queries" / f"{name}.sql").read_text()
    return parse(text)


def parse(text: str) -> MappingProxyType[str, str]:
    """The blocks of one file. The description stays in the text, where the server's log shows it."""
    preamble, *pieces = _HEAD.split(text)
    found: dict[str, str] = {}
    if any(line.strip() and not line.startswith("--") for line in preamble.splitlines()):
        raise ValueError("a statement before the first name")
    for block, body in zip(pieces[::2], pieces[1::2], strict=True):
        if block in found:
            raise ValueError(f"two statements are named {block}")
        statement = body.strip().removesuffix(";")
        if all(line.startswith("--") or not line.strip() for line in statement.splitlines()):
            raise ValueError(f"{block} has no statement")
        if ";" in re.sub(r"--.*", "", statement):
            raise ValueError(f"{block} has more than one statement")
        found[block] = f"-- {block}\n{statement}"
    return MappingProxyType(found)


def names() -> list[str]:
    """The files of statements."""
    return sorted(entry.name.removesuffix(".sql") for entry in (files(__package__) / "queries").iterdir()
                  if entry.name.endswith(".sql"))  # fmt: skip
