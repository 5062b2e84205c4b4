"""TOML into Structs, strictly: every mistake names the file, the key and what would be right.

Unknown keys are refused with a suggestion, because a mistyped key that is silently ignored
is a setting the operator believes in. Paths are relative to the file they stand in, never
to where the process was started. Secrets are references (`file:`, `env:`, `credential:`),
never values, so that a configuration file can be shown and kept in a repository.
"""

import difflib
import functools
import os
import re
import tomllib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from gateway.config.places import dotted
from gateway.errors import ConfigError

T = TypeVar("T", bound=Struct)

#: No configuration written by people comes near it; a wrong file (a dump, a log) does.
MAX_FILE = 4 << 20

_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_SIZE_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Duration(float):
    """Seconds. Written as a number of seconds or with a unit: `"90s"`, `"12m"`, `"24h"`, `"14d"`."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        number = _quantity(value, _DURATION_UNITS, 'seconds, or a text such as "30s", "12m", "24h", "14d"')
        return cls(number)


class Size(int):
    """Octets. Written as a number or with a unit: `"64KiB"`, `"200MiB"`, `"1GiB"`."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        number = _quantity(value, _SIZE_UNITS, 'octets, or a text such as "64KiB", "200MiB", "1GiB"')
        return cls(number)


def _quantity(value: object, units: Mapping[str, float], expected: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value
    else:
        match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([A-Za-z]*)", value) if isinstance(value, str) else None
        if match is None or match[2] not in units:
            raise ValueError(f"expected {expected}")
        number = float(match[1]) * units[match[2]]
    if not 0 <= number < 1e15:
        raise ValueError("out of range")
    return number


class Reference:
    """Where something secret is: `file:PATH`, `env:NAME` or `credential:NAME` (of the service manager).

    Holds the reference only; the secret is read when it is needed and kept nowhere here.
    """

    __slots__ = ("scheme", "target")

    SCHEMES = ("file", "env", "credential")
    EXPECTED = 'write a reference: "file:PATH", "env:NAME" or "credential:NAME"'

    def __init__(self, scheme: str, target: str) -> None:
        self.scheme, self.target = scheme, target

    @classmethod
    def parse(cls, value: object, base: Path) -> Self:
        if not isinstance(value, str):
            raise ValueError(f"expected a reference; {cls.EXPECTED}")
        scheme, colon, target = value.partition(":")
        if not colon or scheme not in cls.SCHEMES or not target:
            # The value is not repeated: it may well be the secret.
            raise ValueError(f"the secret itself may not stand here; {cls.EXPECTED}")
        if scheme == "file":
            target = str(base / Path(target).expanduser())
        return cls(scheme, target)

    def octets(self) -> bytes:
        """What the reference points to. Raises `ConfigError` when it is not there."""
        try:
            match self.scheme:
                case "file":
                    return _read_file(Path(self.target))
                case "env":
                    return os.environb[self.target.encode()]
                case _:
                    folder = os.environ["CREDENTIALS_DIRECTORY"]
                    return _read_file(Path(folder) / Path(self.target).name)
        except KeyError:
            missing = "CREDENTIALS_DIRECTORY" if self.scheme == "credential" else self.target
            raise ConfigError(f"the environment variable {missing} is not set", key=str(self)) from None
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", file=self.target) from None

    def line(self) -> bytes:
        """The first line without its end: what a password file or variable holds."""
        lines = self.octets().splitlines()
        return lines[0] if lines else b""

    def __str__(self) -> str:
        return f"{self.scheme}:{self.target}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(str(self))


class Secret(Reference):
    """A password or a key."""

    __slots__ = ()


class Dsn(Reference):
    """Where the database is: `postgresql://…` without a password, or a reference to the whole text."""

    __slots__ = ()

    EXPECTED = 'write "postgresql://user@host/database" without a password, or "file:PATH" or "env:NAME"'

    @classmethod
    def parse(cls, value: object, base: Path) -> Self:
        if isinstance(value, str) and value.startswith(("postgresql://", "postgres://")):
            if urlsplit(value).password is not None or "password=" in value:
                raise ValueError("a password may not stand here; put the whole text into a file and write file:PATH")
            return cls("text", value)
        return super().parse(value, base)

    def read(self) -> str:
        """The connection string. May contain a password; not for logs."""
        return self.target if self.scheme == "text" else self.line().decode()

    def __str__(self) -> str:
        return self.target if self.scheme == "text" else super().__str__()


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        octets = file.read(MAX_FILE + 1)
    if len(octets) > MAX_FILE:
        raise ConfigError(f"is larger than {MAX_FILE >> 20} MiB", file=str(path))
    return octets


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises `ConfigError` with the line where TOML itself is wrong."""
    try:
        octets = _read_file(path)
    except FileNotFoundError:
        raise ConfigError("there is no such file", file=str(path)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from None
    return parse_toml(octets, str(path))


def parse_toml(octets: bytes, file: str) -> dict[str, Any]:
    """The tables of TOML text that came from `file`. Raises `ConfigError` with the line where it is wrong."""
    try:
        return tomllib.loads(octets.decode())
    except UnicodeDecodeError as error:
        line = octets[: error.start].count(b"\n") + 1
        raise ConfigError("is not UTF-8", file=file, line=line) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        at = re.search(r"\(at line (\d+), column \d+\)$", str(error))
        raise ConfigError(f"is not TOML: {error}", file=file, line=int(at[1]) if at else 0) from None


def suggestion(word: str, known: Iterable[str]) -> str:
    """`did you mean …?` for a mistyped word, or the words there are."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, 1, 0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known here: " + ", ".join(known) if known else ""


def build(raw: object, type: type[T], *, file: str, base: Path, key: str = "") -> T:
    """A Struct from the tables of a TOML file.

    `base` is the folder that relative paths start from, `key` where in the file `raw` was.
    Raises `ConfigError` with the full key of the first mistake.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"expected a table, not {_kind(raw)}", file=file, key=key)
    fields = _fields(type)
    for name in raw:
        if name not in fields:
            raise ConfigError("unknown key", file=file, key=dotted(key, name), hint=suggestion(name, fields))
    values = {}
    for name, field in fields.items():
        here = dotted(key, name)
        if name in raw:
            values[field.name] = value_of(raw[name], field.type, file=file, base=base, key=here)
        elif field.required:
            raise ConfigError("is missing", file=file, key=here)
        else:
            default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
            # Defaults are relative to the file, too, however deep they stand.
            if isinstance(default, Struct):
                values[field.name] = build({}, default.__class__, file=file, base=base, key=here)
            elif isinstance(default, Path):
                values[field.name] = base / default
    try:
        return type(**values)
    except ValueError as error:
        # A rule of the Struct; it names the field first where there is one at fault.
        name, colon, detail = str(error).partition(": ")
        if not colon or name not in fields:
            name, detail = "", str(error)
        raise ConfigError(detail, file=file, key=dotted(key, name) if name else key) from None


@functools.cache
def _fields(type: type[Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """By the name they have in a file. Reading annotations takes longer than reading the file."""
    return {field.encode_name: field for field in msgspec.structs.fields(type)}


def value_of(raw: object, type: Any, *, file: str, base: Path, key: str) -> Any:
    """One value as the type of its field. Raises `ConfigError`."""
    shape, inner = shape_of(type)
    if shape == "table":
        return build(raw, inner, file=file, base=base, key=key)
    if shape == "tables":
        if not isinstance(raw, list):
            raise ConfigError(f"expected an array of tables ([[{key}]]), not {_kind(raw)}", file=file, key=key)
        return tuple(
            build(item, inner, file=file, base=base, key=f"{key}[{number}]") for number, item in enumerate(raw)
        )
    if shape == "named":
        if not isinstance(raw, Mapping):
            raise ConfigError(f"expected a table, not {_kind(raw)}", file=file, key=key)
        return {
            name: build(item, inner, file=file, base=base, key=dotted(key, name)) for name, item in raw.items()
        }

    def hook(wanted: Any, value: object) -> Any:
        if wanted is Path:
            if not isinstance(value, str) or not value or "\0" in value:
                raise ValueError("expected a path")
            return base / Path(value).expanduser()
        if issubclass(wanted, Reference):
            return wanted.parse(value, base)
        return wanted.parse(value)

    try:
        return msgspec.convert(raw, type, dec_hook=hook)
    except msgspec.ValidationError as error:
        detail = str(error).partition(" - at `$")[0]
        raise ConfigError(detail[:1].lower() + detail[1:], file=file, key=key) from None


Shape = Literal["table", "tables", "named", "value"]


def shape_of(type: Any) -> tuple[Shape, Any]:
    """How a field is written in TOML, and the Struct inside if there is one."""
    options = [t for t in get_args(type) if t is not types.NoneType] if _is_union(type) else [type]
    if len(options) == 1:
        only, arguments = options[0], get_args(options[0])
        if _is_struct(only):
            return "table", only
        if get_origin(only) is tuple and _is_struct(arguments[0]):
            return "tables", arguments[0]
        if get_origin(only) is dict and _is_struct(arguments[1]):
            return "named", arguments[1]
    return "value", type


def _is_union(type: Any) -> bool:
    return get_origin(type) in (Union, types.UnionType)


def _is_struct(type: Any) -> bool:
    return isinstance(type, msgspec.StructMeta)


def _kind(raw: object) -> str:
    return {dict: "a table", list: "an array", str: "a text", bool: "a boolean"}.get(raw.__class__, "a number")
