"""The ends of certificates as a calendar: iCalendar [rfc5545], for whoever plans with one.

An event a certificate, at the second of its end, with an alarm for each threshold. Its UID is made of the certificate
alone: a calendar that imports or fetches the file again changes what it has and doubles nothing. Names come from
certificates of others; they are escaped, and control characters are gone.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

from gateway import __version__
from gateway.operate.expiry import THRESHOLDS, Group, grouped, used_as
from gateway.operate.watched import Watched

#: Octets in a line, its end not counted [rfc5545 3.1].
LINE = 75

_WORDS = {
    "en": ("Certificate ends", "Certificates that end", "Subject", "Used for", "SHA-256"),
    "lv": ("Beidzas sertifikāts", "Sertifikātu termiņi", "Subjekts", "Lietojums", "SHA-256"),
}  # fmt: skip


def calendar(watched: Sequence[Watched], *, now: datetime, language: Literal["en", "lv"] = "en") -> bytes:
    """The calendar, complete. `now` is when it was made."""
    lines = [
        "BEGIN:VCALENDAR", "VERSION:2.0", f"PRODID:-//oots-as4-gateway//{_text(__version__)}//{language.upper()}",
        "CALSCALE:GREGORIAN", "METHOD:PUBLISH", f"X-WR-CALNAME:{_text(_WORDS[language][1])}",
    ]  # fmt: skip
    for group in grouped(watched):
        lines += _event(group, now, language)
    lines.append("END:VCALENDAR")
    return b"".join(map(_folded, lines))


def _event(group: Group, now: datetime, language: str) -> Iterator[str]:
    title, _, subject, used, print_ = _WORDS[language]
    one = group.first
    uses = used_as(sorted({w.use for w in group.uses}), language)
    owners = ", ".join(group.owners[:20]) + (", …" if len(group.owners) > 20 else "")
    about = f"{subject}: {one.subject}\n{used}: {uses}\n{print_}: {one.id}"
    yield from (
        "BEGIN:VEVENT",
        f"UID:certificate-{one.id}@oots-as4-gateway",
        f"DTSTAMP:{_moment(now)}",
        f"DTSTART:{_moment(one.not_after)}",
        f"SUMMARY;LANGUAGE={language}:{_text(f'{title}: {owners} ({uses})')}",
        f"DESCRIPTION;LANGUAGE={language}:{_text(about)}",
        f"CATEGORIES:{'OURS' if one.ours else 'PARTNER'}",
        "TRANSP:TRANSPARENT",
    )
    for days in THRESHOLDS:
        yield from (
            "BEGIN:VALARM", "ACTION:DISPLAY", f"TRIGGER:{f'-P{days}D' if days else 'PT0S'}",
            f"DESCRIPTION:{_text(f'{title}: {owners}')}", "END:VALARM",
        )  # fmt: skip
    yield "END:VEVENT"


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _text(text: str) -> str:
    """A value of type TEXT [rfc5545 3.3.11]."""
    for plain, escaped in (("\\", "\\\\"), (";", "\\;"), (",", "\\,"), ("\n", "\\n")):
        text = text.replace(plain, escaped)
    return "".join(c for c in text if c.isprintable())


def _folded(line: str) -> bytes:
    """The line in pieces of 75 octets at most, none of which ends within a character [rfc5545 3.1]."""
    pieces, piece = [], b""
    for character in line:
        octets = character.encode()
        if len(piece) + len(octets) > LINE:
            pieces.append(piece)
            piece = b" "
        piece += octets
    return b"\r\n".join([*pieces, piece]) + b"\r\n"
