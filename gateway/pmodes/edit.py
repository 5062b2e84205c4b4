"""Adding and removing a party in the text of an agreement file, comments and order kept.

What comes out is read again and must say exactly what was meant; text that cannot be edited so (a table
written in some unusual way) is left alone, and the operator is told to do it by hand.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from gateway.config.places import Places, dotted, walk
from gateway.errors import ConfigError


def with_party(text: str, name: str, table: Mapping[str, Any], *, file: str) -> str:
    """The text with one more party. Raises `ConfigError`."""
    before = tomllib.loads(text)
    expected = {**before, "parties": {**before.get("parties", {}), name: dict(table)}}

    def by_structure() -> str:
        document = tomlkit.parse(text)
        parties = document.setdefault("parties", tomlkit.table(is_super_table=True))
        inline = isinstance(parties, tomlkit.items.InlineTable)
        made = tomlkit.inline_table() if inline else tomlkit.table()
        for key, value in table.items():
            made[key] = value
        if not inline:
            made.add(tomlkit.nl())
        parties[name] = made
        return tomlkit.dumps(document).rstrip() + "\n"

    def at_the_end() -> str:
        head = f"[{dotted('parties', name)}]\n"
        lines = "".join(f"{key} = {tomlkit.item(value).as_string()}\n" for key, value in table.items())
        return f"{text.rstrip()}\n\n{head}{lines}"

    return _first([by_structure, at_the_end], expected, file, dotted("parties", name))


def with_keys(text: str, name: str, keys: Mapping[str, str | None], *, file: str) -> str:
    """The text with these keys of a party set, or taken out where the value is None. Raises `ConfigError`.

    In a file about a network they are keys of the overlay.
    """
    expected = tomllib.loads(text)
    where = ("overlay", "parties", name) if "network" in expected else ("parties", name)

    def by_structure() -> str:
        document = tomlkit.parse(text)
        _set_keys(document, where, keys, tomlkit.table)
        return tomlkit.dumps(document)

    _set_keys(expected, where, keys, dict)
    place = dotted(".".join(where[:-1]), name)
    return _first([by_structure], expected, file, place, empty=(name, "parties", "overlay"))


def _set_keys(top: Any, where: tuple[str, ...], keys: Mapping[str, Any], new: Callable[[], Any]) -> None:
    table = top
    for step in where:
        table = table[step] if step in table else table.setdefault(step, new())
    for key, value in keys.items():
        if value is not None:
            table[key] = value
        elif key in table:
            del table[key]


def with_agreed(text: str, name: str, agreed: Sequence[str | Mapping[str, str]], *, file: str) -> str:
    """The text with these as the names that updates gave the agreement with a party. Raises `ConfigError`."""
    expected = tomllib.loads(text)
    where = (*(("overlay", "parties", name) if "network" in expected else ("parties", name)), "updates")

    def by_structure() -> str:
        document = tomlkit.parse(text)
        _set_keys(document, where, {"agreed": list(agreed)}, tomlkit.table)
        return tomlkit.dumps(document)

    _set_keys(expected, where, {"agreed": [*agreed]}, dict)
    return _first([by_structure], expected, file, f"{dotted('parties', name)}.updates")


def without_party(text: str, name: str, *, file: str) -> str:
    """The text without a party, its overrides, and its place in exchanges. Raises `ConfigError`."""
    before = tomllib.loads(text)
    if "network" in before:
        return _left_out(text, before, name, file)
    expected = {**before, "parties": {key: value for key, value in before["parties"].items() if key != name}}
    overrides = before.get("overrides", {})
    gone = [key for key in overrides if key == name or key.startswith(f"{name}:")]
    if gone:
        expected["overrides"] = {key: value for key, value in overrides.items() if key not in gone}
    exchanges = [dict(exchange) for exchange in before.get("exchanges", [])]
    for number, exchange in enumerate(exchanges):
        if name in exchange.get("parties", ()):
            exchange["parties"] = [party for party in exchange["parties"] if party != name]
            if not exchange["parties"]:
                raise ConfigError(
                    f"is with {name} alone", file=file, key=f"exchanges[{number}].parties",
                    hint="take the exchange out first, or name another partner",
                )  # fmt: skip
    if exchanges:
        expected["exchanges"] = exchanges

    def by_lines() -> str:
        left = text
        for key in (dotted("parties", name), *(dotted("overrides", key) for key in gone)):
            left = _cut(left, key)
        return left

    def by_structure() -> str:
        document = tomlkit.parse(text)
        del document["parties"][name]
        for key in gone:
            del document["overrides"][key]
        for number, exchange in enumerate(exchanges):
            if exchange != before["exchanges"][number]:
                document["exchanges"][number]["parties"] = exchange["parties"]
        return tomlkit.dumps(document)

    return _first([by_lines, by_structure], expected, file, dotted("parties", name), empty=("overrides",))


def _left_out(text: str, before: Mapping[str, Any], name: str, file: str) -> str:
    """A network's file keeps the party; the overlay leaves it out."""
    overlay = before.get("overlay", {})
    parties = {key: value for key, value in overlay.get("parties", {}).items() if key != name}
    without = [*overlay.get("without", []), name]
    of_party = f"{name}:"
    overrides = {k: v for k, v in before.get("overrides", {}).items() if k != name and not k.startswith(of_party)}
    over = {**overlay, "without": without, "parties": parties}
    expected = {**before, "overlay": over, "overrides": overrides}

    def by_structure() -> str:
        document = tomlkit.parse(text)
        table = document.setdefault("overlay", tomlkit.table())
        table["without"] = without
        if name in overlay.get("parties", {}):
            del table["parties"][name]
        for key in set(before.get("overrides", {})) - set(overrides):
            del document["overrides"][key]
        return tomlkit.dumps(document)

    return _first([by_structure], expected, file, "overlay.without", empty=("overrides", "parties"))


def _cut(text: str, key: str) -> str:
    """The text without the lines of a table and the comments in it; those after a blank line stay."""
    first, last = Places(text).span(key)
    lines = text.splitlines(keepends=True)
    expected = tomllib.loads(text)
    container, _, name = next((c, k, n) for k, _, c, n in walk(expected) if k == key)
    del container[name]
    for end in range(last, len(lines) + 1):
        # The last value may go on over several lines.
        if _parsed("".join(lines[: first - 1] + lines[end:])) in (expected, _bare(expected, (key.partition(".")[0],))):
            break
    while end < len(lines) and lines[end].lstrip().startswith("#"):
        end += 1
    while end < len(lines) and not lines[end].strip():
        end += 1
    left = "".join(lines[: first - 1] + lines[end:])
    return left if end < len(lines) else left.rstrip() + "\n"


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _first(ways: list, expected: Mapping[str, Any], file: str, key: str, *, empty: tuple[str, ...] = ()) -> str:
    """What the first way gives that says exactly what is expected. Raises `ConfigError`."""
    for way in ways:
        try:
            made = way()
            if _bare(tomllib.loads(made), empty) == _bare(expected, empty):
                return made
        except (TOMLKitError, tomllib.TOMLDecodeError, TypeError, AttributeError, KeyError, ValueError, IndexError):
            continue
    raise ConfigError("cannot be changed here without losing something", file=file, key=key, hint="edit it by hand")


def _bare(value: Any, empty: tuple[str, ...]) -> Any:
    """A table without those of its tables that may be empty or missing alike."""
    if not isinstance(value, Mapping):
        return value
    return {key: _bare(inner, empty) for key, inner in value.items() if inner or key not in empty}
