"""docs/configuration.md, made from the Structs. `python -m gateway.config.reference > docs/configuration.md`."""

import inspect
import re
import types
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import Struct

from gateway.config.sections import Config
from gateway.config.strict import Dsn, Duration, Secret, Size, shape_of

HEAD = """\
# Configuration

Made from `gateway/config/sections.py` by `python -m gateway.config.reference`; a test keeps it current.

The node is configured by one TOML file, `gateway.toml`. Unknown keys are refused. Relative paths start from the folder
of the file. Any key can be set by an environment variable instead: `GATEWAY__SECTION__KEY`, for instance
`GATEWAY__AS4__BIND=0.0.0.0:8443`; values that are not texts are written as in TOML.

Secrets never stand in the file. Where one is needed there is a reference:

| Reference | Means |
|---|---|
| `file:PATH` | the content of a file; of a password file the first line |
| `env:NAME` | an environment variable |
| `credential:NAME` | a credential of the service manager (`LoadCredential=` of systemd) |

Durations are seconds or texts such as `"30s"`, `"12m"`, `"24h"`, `"14d"`; sizes are octets or texts such as `"64KiB"`
and `"1GiB"`.

A node with one party of its own needs no more than this:

```toml
[[keys.store]]
path = "certs/ap_lv_01.p12"
password = "file:certs/ap_lv_01.password"
```
"""

NAMES: dict[Any, str] = {
    str: "text", int: "number", bool: "true or false", Path: "path", Duration: "duration", Size: "size",
    Secret: "reference", Dsn: "text or reference", dict[str, dict[str, Any]]: "tables by name",
}  # fmt: skip


def descriptions(struct: type[Struct]) -> tuple[str, dict[str, str]]:
    """What the docstring of a Struct says: about itself, and field by field."""
    about, _, rest = inspect.cleandoc(struct.__doc__ or "").partition("\n\n")
    fields: dict[str, str] = {}
    name = ""
    for line in rest.splitlines():
        if match := re.match(r"([a-z_0-9]+): (.+)", line):
            name = match[1]
            fields[name] = match[2]
        elif name and line.strip():
            fields[name] += " " + line.strip()
    return " ".join(about.split()), fields


def reference() -> str:
    """The whole page."""
    out = [HEAD]
    _section(out, {}, Config, "", "At the top of the file")
    return "\n".join(out).rstrip() + "\n"


def _section(out: list[str], told: dict[type, str], struct: type[Struct], key: str, title: str) -> None:
    if struct in told:
        out += [f"## {title}", "", f"The same keys as {told[struct]}.", ""]
        return
    told[struct] = title
    about, described = descriptions(struct)
    rows, below = [], []
    for field in msgspec.structs.fields(struct):
        shape, inner = shape_of(field.type)
        path = f"{key}.{field.encode_name}" if key else field.encode_name
        if shape == "value":
            rows.append((field.encode_name, _type(field.type), _default(field), described[field.encode_name]))
        else:
            below.append((inner, path, f"`[[{path}]]`" if shape == "tables" else f"`[{path}]`"))
    out += [f"## {title}", "", about, ""]
    if rows:
        out += ["| Key | Type | Default | Meaning |", "|---|---|---|---|"]
        out += [f"| `{name}` | {kind} | {default} | {text} |" for name, kind, default, text in rows]
        out.append("")
    for inner, path, heading in below:
        _section(out, told, inner, path, heading)


def _type(type: Any) -> str:
    if get_origin(type) is Literal:
        return " or ".join(f'`"{option}"`' for option in get_args(type))
    if get_origin(type) is tuple:
        return f"list of {_type(get_args(type)[0])}"
    if get_origin(type) in (types.UnionType,):
        return _type(next(t for t in get_args(type) if t is not types.NoneType))
    return NAMES[type]


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default
    if field.required:
        return "required"
    if value is None or value in ("", (), {}) or field.default_factory is not msgspec.NODEFAULT:
        return ""
    if isinstance(value, tuple):
        return ", ".join(f'`"{item}"`' for item in value)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Duration):
        unit, size = next((u, s) for u, s in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)) if value % s == 0)
        return f'`"{int(value) // size}{unit}"`'
    if isinstance(value, Size):
        unit, size = next((u, s) for u, s in (("GiB", 30), ("MiB", 20), ("KiB", 10)) if value % (1 << s) == 0)
        return f'`"{value >> size}{unit}"`'
    return f'`"{value}"`' if isinstance(value, (str, Path)) else f"`{value}`"


if __name__ == "__main__":
    print(reference(), end="")
