"""An agreement file as TOML: short, in a fixed order, every value escaped.

    write(file) → text; reading the text gives the same `File`.

One line for each party, one table for each exchange: what a person compares in a review.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from gateway.config.places import dotted
from gateway.pmodes.agreements import Agreement, File, Retry, Terms

_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
_SIZES = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
_LINE = 118
#: Fields of `File` that are tables of their own and so come last.
_TABLES = ("parties", "exchanges", "overrides")


def write(file: File, comments: Iterable[str] = ()) -> str:
    """The file as TOML; `comments` are lines at its head."""
    lines = [f"# {_comment(line)}".rstrip() for line in comments]
    lines += [""] if lines else []
    lines += _assignments(file, skip=_TABLES)
    lines += ["", "[parties]"]
    lines += [f"{_key(name)} = {_inline(_fields(party))}" for name, party in file.parties.items()]
    for exchange in file.exchanges:
        lines += ["", "[[exchanges]]", *_assignments(exchange)]
    for key, terms in file.overrides.items():
        lines += ["", f"[{dotted('overrides', key)}]", *_assignments(terms)]
    return "\n".join(lines) + "\n"


def _assignments(struct: Struct, skip: Iterable[str] = ()) -> list[str]:
    found = {name: value for name, value in _fields(struct).items() if name not in skip}
    return [f"{_key(name)} = {_value(value, len(name))}" for name, value in found.items()]


def _fields(struct: Struct) -> dict[str, Any]:
    """What a Struct says beyond its defaults, under the names of the file; own fields before inherited ones."""
    fields = msgspec.structs.fields(struct)
    inherited = set(Terms.__struct_fields__) if type(struct) is not Terms and isinstance(struct, Terms) else set()
    found = {}
    for field in sorted(fields, key=lambda f: f.name in inherited):
        value = getattr(struct, field.name)
        default = field.default if field.default is not msgspec.NODEFAULT else (
            field.default_factory() if field.default_factory is not msgspec.NODEFAULT else msgspec.NODEFAULT
        )  # fmt: skip
        if value != default:
            found[field.encode_name] = _typed(struct, field.name, value)
    return found


def _typed(struct: Struct, name: str, value: Any) -> Any:
    """Durations and sizes in the unit a person would choose."""
    if isinstance(struct, Retry) and name in ("first", "max", "window"):
        return _duration(float(value))
    if name in ("max_message", "max_part"):
        return _size(int(value))
    return value


def _duration(seconds: float) -> Any:
    for unit, size in _UNITS:
        if seconds and seconds % size == 0 and seconds < 1e12:
            return f"{int(seconds // size)}{unit}"
    return int(seconds) if seconds == int(seconds) else seconds


def _size(octets: int) -> Any:
    for unit, size in _SIZES:
        if octets and octets % size == 0:
            return f"{octets // size}{unit}"
    return octets


def _value(value: Any, column: int = 0) -> str:
    if isinstance(value, Struct):
        return _inline(_fields(value)) if not isinstance(value, Agreement) else _inline(_agreement(value))
    if isinstance(value, Mapping):
        return _inline(value)
    if isinstance(value, list | tuple):
        items = [_value(_short(item)) for item in value]
        line = f"[{', '.join(items)}]"
        return line if len(line) + column + 3 <= _LINE else "[\n" + "".join(f"    {item},\n" for item in items) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number that TOML files of ours do not hold")
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
    return str(value) if isinstance(value, int) else _text(value)


def _short(item: Any) -> Any:
    """A property that is merely required is its name."""
    if isinstance(item, Struct) and list(_fields(item)) == ["name"]:
        return item.name
    return item


def _agreement(agreement: Agreement) -> dict[str, str]:
    return {"value": agreement.value} | ({"type": agreement.type} if agreement.type is not None else {})


def _inline(fields: Mapping[str, Any]) -> str:
    """An inline table stands on one line."""
    if not fields:
        return "{}"
    return "{ " + ", ".join(f"{_key(name)} = {_value(value, -_LINE * 1000)}" for name, value in fields.items()) + " }"


def _key(name: str) -> str:
    return dotted("", name)


def _text(value: str) -> str:
    # JSON's escapes are TOML's, but for the one character that JSON leaves as it is; lone surrogates are no text.
    return json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(line: str) -> str:
    """A comment cannot break out of its line."""
    return "".join(c if c.isprintable() else " " for c in line)


