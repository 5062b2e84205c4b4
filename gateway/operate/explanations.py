"""The explanation catalogue: from an error code and its detail to what happened, why, and what to do.

One catalogue for every door: `gateway parties test`, `messages trace`, `inspect`, `explain`.
The entries are data (`explanations.toml`), in English and Latvian. What a partner wrote is
looked at with the catalogue's patterns and never becomes part of an explanation.
"""

import functools
import re
import tomllib
from importlib.resources import files
from typing import Literal

import msgspec
from msgspec import Struct

from gateway.errors import EBMS_ERRORS

#: Who found the error: we while sending, the partner in what we sent, we in what a partner sent.
On = Literal["sending", "partner", "receiving"]
Language = Literal["en", "lv"]

LANGUAGES: tuple[Language, ...] = ("en", "lv")
#: Characters of a detail that are looked at.
MAX_DETAIL = 2048

#: What `who` says, in words.
ACTORS = {
    "en": {
        "we": "we", "partner": "the partner", "both": "both sides", "network": "the network in between",
        "producer": "the system that made the message", "nobody": "nobody",
    },
    "lv": {
        "we": "mēs", "partner": "partneris", "both": "abas puses", "network": "tīkls starp abām pusēm",
        "producer": "sistēma, kas veidoja ziņojumu", "nobody": "neviens",
    },
}  # fmt: skip
#: What a message that is given up says of its last attempt.
_LAST = re.compile(r"\blast: (\S+) ?(.*)", re.DOTALL)
_CODE = re.compile(r"(EBMS:|AU:)?(\d{4})", re.IGNORECASE | re.ASCII)


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the catalogue; `en` and `lv` are (what happened, why, what to do)."""

    key: str
    on: On
    who: Literal["we", "partner", "both", "network", "producer", "nobody"]
    en: tuple[str, str, str]
    lv: tuple[str, str, str]
    codes: frozenset[str] = frozenset()
    match: str | None = None

    def fits(self, on: On, code: str, detail: str) -> bool:
        return (
            self.on == on
            and (not self.codes or code in self.codes)
            and (self.match is None or re.search(self.match, detail, re.IGNORECASE) is not None)
        )


class Explanation(Struct, frozen=True):
    """What to tell a person. `who` is a word of the catalogue, `actor` the same in their language."""

    key: str
    what: str
    why: str
    fix: str
    who: str
    actor: str


@functools.cache
def catalogue() -> tuple[Entry, ...]:
    """All entries, the particular before the general."""
    text = files("gateway.operate").joinpath("explanations.toml").read_text("utf-8")
    return tuple(msgspec.convert(tomllib.loads(text)["entry"], list[Entry]))


def explain(on: On, code: str, detail: str = "", *, language: Language = "en") -> Explanation:
    """The explanation of an error. There is one for every code and every detail."""
    detail = f"{code} {detail}"[:MAX_DETAIL]
    if code == "EBMS:0301" and (last := _LAST.search(detail)):
        code, detail = last[1], last[0]
    return _worded(next(entry for entry in catalogue() if entry.fits(on, code, detail)), language)


def explain_attempt(
    outcome: str | None, code: str, detail: str, *, language: Language = "en"
) -> Explanation:
    """The explanation of what ended an attempt to send; `outcome` is that of the attempt row."""
    on: On = "partner" if outcome in ("error", "unverified-error") else "sending"
    return explain(on, code, detail, language=language)


def look_up(wanted: str, *, language: Language = "en") -> list[tuple[Entry, Explanation]]:
    """Entries for a code (`EBMS:0101`, `0101`, `AU:0006`), a key (that one first), or a word in them."""
    number = _CODE.fullmatch(wanted.strip())
    if number is not None:
        code = f"{(number[1] or 'EBMS:').upper()}{number[2]}"
        found = [e for e in catalogue() if code in e.codes]
        if not found and code in EBMS_ERRORS:
            found = [e for e in catalogue() if not e.codes and e.match is None]
    else:
        word = wanted.strip().casefold()
        found = [
            e for e in catalogue() if word and (word in e.key or any(word in t.casefold() for t in (*e.en, *e.lv)))
        ]
        found.sort(key=lambda entry: entry.key != word)
    return [(entry, _worded(entry, language)) for entry in found]


def _worded(entry: Entry, language: Language) -> Explanation:
    what, why, fix = entry.lv if language == "lv" else entry.en
    return Explanation(entry.key, what, why, fix, entry.who, ACTORS[language][entry.who])
