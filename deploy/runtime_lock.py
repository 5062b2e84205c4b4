"""The part of requirements.lock that a running gateway needs, with its hashes: `python deploy/runtime_lock.py`.

Packages and images install this and nothing else; `make lock` writes it to deploy/requirements.lock.
Run with the Python of the environment that requirements.lock is installed in.
"""

import re
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path(__file__).parents[1] / "requirements.lock"
#: What configuration switches on must be there.
EXTRAS = frozenset({"", "otel", "pkcs11"})


def needed(name: str, extras: frozenset[str] = frozenset(), seen: dict | None = None) -> set[str]:
    """The names of everything `name` needs to run, itself left out."""
    seen = {} if seen is None else seen
    for text in requires(name) or ():
        one = Requirement(text)
        wanted = any(one.marker.evaluate({"extra": extra}) for extra in extras or {""}) if one.marker else True
        key = canonicalize_name(one.name)
        if wanted and not frozenset(one.extras) | {""} <= seen.get(key, frozenset()):
            seen[key] = seen.get(key, frozenset()) | frozenset(one.extras) | {""}
            needed(one.name, frozenset(one.extras) | {""}, seen)
    return set(seen)


def blocks(text: str) -> dict[str, str]:
    """Name -> its pinned version with hashes, comments left out."""
    found = {}
    for block in re.split(r"\n(?=[a-zA-Z0-9])", text):
        lines = [line for line in block.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if lines and "==" in lines[0]:
            body = "\n".join(lines)
            found[canonicalize_name(lines[0].partition("==")[0].partition("[")[0])] = body.rstrip("\\ \n")
    return found


def main() -> None:
    pinned, names = blocks(LOCK.read_text()), needed("oots-as4-gateway", EXTRAS)
    if missing := names - pinned.keys():
        raise SystemExit(f"not in requirements.lock: {', '.join(sorted(missing))}; run `make lock`")
    print("\n".join(pinned[name] for name in sorted(names)))


if __name__ == "__main__":
    main()
