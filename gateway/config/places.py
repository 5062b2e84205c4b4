"""Where in a TOML file a key stands, so that a mistake can be shown with its line and its value.

The standard library reads TOML and forgets the lines. This is a second, lenient reading that looks for
nothing but keys; it is made only after the real one has found the text to be TOML, or to show how far
it got. Keys are written as everywhere in our errors: `parties.AP_EE_01.endpoint`, `exchanges[0].action`,
`overrides."AP_EE_01:Order"`.
"""

import contextlib
import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from gateway.errors import ConfigError

#: Longer values are not repeated.
LONGEST_VALUE = 120
#: The last part of a key whose value is never shown, whatever stands there.
_CONFIDENTIAL = re.compile(r"password|secret|token$|dsn|key", re.IGNORECASE)
_TOKEN = re.compile(
    r"""
      (?P<blank>(?:[ \t\r]+|\#[^\n]*)+)
    | (?P<line>\n)
    | (?P<text>\"{3}(?:[^"\\]|\\.|\"{1,2}(?!\"))*\"{3,5} | '{3}(?:[^']|'{1,2}(?!'))*'{3,5}
             | "(?:[^"\\\n]|\\.)*" | '[^'\n]*')
    | (?P<mark>[\[\]{}=,.])
    | (?P<bare>[^\s\[\]{}=,."'\#]+)
    """,
    re.VERBOSE | re.DOTALL,
)


def dotted(key: str, name: str) -> str:
    """The key of `name` in the table `key`, as it would be written in TOML."""
    part = name
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        part = json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"{key}.{part}" if key else part


class Places:
    """The lines and values of the keys of one TOML text. Never raises."""

    def __init__(self, text: str) -> None:
        self._lines: dict[str, int] = {}
        self._text = text
        self._values: dict[str, Any] | None = None
        with contextlib.suppress(_Lost, RecursionError):  # what was found until then is right
            _Scan(text, self._lines).document()

    def line(self, key: str) -> int:
        """The line of a key, or of the nearest table around it that is there; 0 for the file as a whole."""
        while key:
            if key in self._lines:
                return self._lines[key]
            key = around(key)
        return 0

    def span(self, key: str) -> tuple[int, int]:
        """The first and the last line on which `key` or something in it begins; (0, 0) where it is not there."""
        inside = [line for name, line in self._lines.items() if name == key or name.startswith((f"{key}.", f"{key}["))]
        return (min(inside), max(inside)) if inside else (0, 0)

    def value(self, key: str) -> str:
        """What stands at a key, as it would be written; empty for tables, secrets and long texts."""
        if self._values is None:
            try:
                self._values = {name: value for name, value, _, _ in walk(tomllib.loads(self._text))}
            except (tomllib.TOMLDecodeError, RecursionError):
                self._values = {}
        value = self._values.get(key)
        if isinstance(value, dict | list) or value is None or _CONFIDENTIAL.search(key.rpartition(".")[2]):
            return ""
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)
        return text if len(text) <= LONGEST_VALUE else ""

    def locate(self, error: ConfigError) -> ConfigError:
        """The same error with line and value, unless it has a line already."""
        if not error.line:
            error.line = self.line(error.key)
            # What is unknown may be anything, a password under a mistyped name too.
            error.value = "" if error.detail == "unknown key" else self.value(error.key)
        return error


def around(key: str) -> str:
    """The key of the table or array that holds `key`; empty at the top."""
    outer = re.sub(r'(?:\.?(?:"(?:[^"\\]|\\.)*"|[^."\[\]]+)|\[\d+\])$', "", key) if key else ""
    return "" if outer == key else outer  # what is no key has nothing around it


def walk(table: Any, key: str = "") -> Iterator[tuple[str, Any, Any, Any]]:
    """Every (key, value, container, name in the container) of nested tables, outer ones first."""
    if isinstance(table, dict):
        inner = [(dotted(key, name), name) for name in table]
    elif isinstance(table, list):
        inner = [(f"{key}[{number}]", number) for number in range(len(table))]
    else:
        return
    for path, name in inner:
        yield path, table[name], table, name
        yield from walk(table[name], path)


class _Lost(Exception):
    """The text is not TOML here."""


class _Scan:
    """One pass over the tokens of a text."""

    def __init__(self, text: str, lines: dict[str, int]) -> None:
        self._lines = lines
        self._tokens = self._read(text)
        self._kind, self._token, self._line = "", "", 0
        #: How many tables an array of tables has so far.
        self._arrays: dict[str, int] = {}
        self._next()

    def _read(self, text: str) -> Iterator[tuple[str, str, int]]:
        at, line = 0, 1
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                break
            if match.lastgroup != "blank":
                yield match.lastgroup or "", match[0], line
            line += match[0].count("\n")
            at = match.end()
        while True:
            yield "end", "", line

    def _next(self) -> None:
        self._kind, self._token, self._line = next(self._tokens)

    def _take(self, mark: str) -> bool:
        if self._kind == "mark" and self._token == mark:
            self._next()
            return True
        return False

    def _note(self, key: str, line: int) -> str:
        self._lines.setdefault(key, line)
        return key

    def document(self) -> None:
        table = ""
        while self._kind != "end":
            if self._kind == "line":
                self._next()
            elif self._take("["):
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> str:
        line, several = self._line, self._take("[")
        key = ""
        names = self._names()
        for depth, name in enumerate(names, 1):
            key = dotted(key, name)
            if several and depth == len(names):
                number = self._arrays.get(key, -1) + 1
                self._arrays[key] = number
                self._note(key, line)
                key = self._note(f"{key}[{number}]", line)
            else:
                self._note(key, line)
                if key in self._arrays:
                    key = f"{key}[{self._arrays[key]}]"
        for _ in range(1 + several):
            if not self._take("]"):
                raise _Lost
        return key

    def _names(self) -> list[str]:
        names = []
        while True:
            if self._kind == "bare":
                names.append(self._token)
            elif self._kind == "text" and "\n" not in self._token:
                try:
                    names.append(tomllib.loads(f"k={self._token}")["k"])
                except tomllib.TOMLDecodeError:
                    raise _Lost from None
            else:
                raise _Lost
            self._next()
            if not self._take("."):
                return names

    def _pair(self, key: str) -> None:
        line = self._line
        for name in self._names():
            key = self._note(dotted(key, name), line)
        if not self._take("="):
            raise _Lost
        self._value(key)

    def _value(self, key: str) -> None:
        if self._take("{"):
            while not self._take("}"):
                self._skip_lines()
                if self._take("}"):
                    return
                self._pair(key)
                self._skip_lines()
                self._take(",")
        elif self._take("["):
            number = 0
            while True:
                self._skip_lines()
                if self._take("]"):
                    return
                self._value(self._note(f"{key}[{number}]", self._line))
                number += 1
                self._skip_lines()
                self._take(",")
        else:
            if self._kind not in ("text", "bare"):
                raise _Lost
            # Numbers with a point and dates with a blank are several tokens here.
            while self._kind in ("text", "bare") or (self._kind == "mark" and self._token == "."):  # noqa: S105
                self._next()

    def _skip_lines(self) -> None:
        while self._kind == "line":
            self._next()
