"""What is to be told of certificates that come to their end, and when. Pure: time comes in, facts go out.

A certificate is told of at 90, 60, 30, 14, 7, 3 and 1 days before its end, and at its end; whoever looks after a long
time hears the most urgent only. What makes that bearable:

- What several owners share, or one uses for several things, is one certificate and is told once.
- Everything that is due in one look is one alert. Of many partners whose certificates end within a few days of each
  other (a storm: a CA issued them together) those that come to the same threshold within the next days are told at
  once, so that a storm of twenty partners is one alert a threshold and not twenty.
- At 45 days our own and the partners' certificates that have no successor yet are told as such.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from gateway.operate.watched import Watched
from gateway.store.alerts import Due, NewAlert

#: Days before the end; 0 is the end itself.
THRESHOLDS = (90, 60, 30, 14, 7, 3, 1, 0)
SUCCESSOR = 45
#: Below this health checks warn.
URGENT = 7
#: So many owners are many: fewer can be telephoned to.
STORM = 4
#: How far apart certificates that were issued together end.
STORM_DAYS = 7
#: Uses that have an owner who must make a new one in time.
HELD = frozenset({"sign", "decrypt", "encrypt", "tls-server", "tls-client"})
DAY = timedelta(days=1)

#: Octets of certificates that an alert carries in full; the others only with the names of their owners. Receivers
#: cap bodies, and ours are cut at 20,000.
MOST = 10_000
MOST_NAMES = 3000

_USES = {
    "sign": ("signing", "parakstīšana"), "decrypt": ("decryption", "atšifrēšana"),
    "encrypt": ("encryption", "šifrēšana"), "tls-server": ("TLS server", "TLS serveris"),
    "tls-client": ("TLS client", "TLS klients"), "tls-ca": ("CA of TLS", "TLS sertificētājs"),
    "ca": ("CA", "sertificētājs"), "crl": ("revocation list", "atsaukto sertifikātu saraksts"),
}  # fmt: skip


class Group(Struct, frozen=True):
    """One certificate with all its uses; those that matter most first."""

    uses: tuple[Watched, ...]

    @property
    def first(self) -> Watched:
        return self.uses[0]

    @property
    def owners(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(w.owner for w in self.uses))


def grouped(watched: Iterable[Watched]) -> list[Group]:
    """By certificate, the first to end first. What only drains is left out: nobody has to do anything about it."""
    found: dict[str, list[Watched]] = {}
    for one in watched:
        if one.state != "draining":
            found.setdefault(one.id, []).append(one)
    groups = [Group(tuple(sorted(uses, key=lambda w: (not w.ours, w.use, w.owner)))) for uses in found.values()]
    return sorted(groups, key=lambda g: (g.first.not_after, g.first.id))


def threshold(not_after: datetime, now: datetime, thresholds: Sequence[int] = THRESHOLDS) -> int | None:
    """The most urgent threshold that is passed; None: there is time."""
    return min((days for days in thresholds if not_after - now <= days * DAY), default=None)


def judge(watched: Sequence[Watched], now: datetime) -> list[Due]:
    """Everything that is due `now` (aware), whether or not it was told before."""
    groups = grouped(watched)
    orphans = [g for g in groups if lacks_successor(g, watched) and g.first.not_after > now]
    return [*_judge(groups, "expiry", THRESHOLDS, now), *_judge(orphans, "successor", (SUCCESSOR,), now)]


def _judge(groups: Sequence[Group], about: str, thresholds: Sequence[int], now: datetime) -> Iterator[Due]:
    for group in groups:
        if (passed := threshold(group.first.not_after, now, thresholds)) is not None:
            yield _due(group, about, passed, now)
    for days in thresholds:
        reach = min(STORM_DAYS, days // 4) * DAY
        near = [g for g in groups if not g.first.ours and abs(g.first.not_after - now - days * DAY) <= reach]
        if len({owner for g in near for owner in g.owners}) >= STORM:
            for group in near:
                if group.first.not_after - now > days * DAY:
                    yield _due(group, about, days, now, early=True)


def lacks_successor(group: Group, watched: Iterable[Watched]) -> bool:
    """Whether nothing of one of its owners goes on, in the same use, when it ends."""
    return any(
        one.use in HELD and not any(
            (other.owner, other.use) == (one.owner, one.use) and other.not_after > one.not_after + DAY
            for other in watched
        )
        for one in group.uses
    )  # fmt: skip


def _due(group: Group, about: str, days: int, now: datetime, *, early: bool = False) -> Due:
    one = group.first
    facts = {
        "certificate": one.id, "subject": one.subject[:300], "owners": list(group.owners[:20]),
        "uses": sorted({w.use for w in group.uses}), "ours": one.ours, "not_after": written(one.not_after),
        "days": days_left(one.not_after, now), "threshold": days, "about": about,
    }  # fmt: skip
    return Due(certificate=one.id, about=about, threshold=days, early=early, facts=facts)


def days_left(not_after: datetime, now: datetime) -> int:
    """Whole days; 0 on the last one, below zero when it is over."""
    return (not_after - now) // DAY


def written(moment: datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


# -- saying it ---------------------------------------------------------------------------


def say(due: Sequence[Due]) -> NewAlert:
    """One alert of all that is told at one time: the most urgent first, in two languages, and never too long."""
    # One that is due and taken along with a storm is said once.
    latest = {(d.certificate, d.about): d.facts for d in sorted(due, key=lambda d: -d.threshold)}
    facts = sorted(latest.values(), key=lambda f: (f["days"], not f["ours"], f["certificate"]))
    partners = dict.fromkeys(owner for f in facts if not f["ours"] for owner in f["owners"])
    over = any(f["about"] == "expiry" and f["threshold"] == 0 for f in facts)
    storm = len(partners) >= STORM
    data: dict[str, Any] = {
        "severity": severity(due),
        "summary": {"en": _sentence(facts, list(partners), storm, 0), "lv": _sentence(facts, list(partners), storm, 1)},
        "storm": storm,
        "certificates": (shown := list(_fitting(facts))),
    }  # fmt: skip
    if len(facts) > len(shown):
        data["more"] = len(facts) - len(shown)
    return NewAlert("cert.expired" if over else "cert.due", data)


def _fitting(facts: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    room = MOST
    for one in facts:
        room -= len(msgspec.json.encode(one))
        if room < 0:
            return
        yield one


def severity(due: Iterable[Due]) -> str:
    """info, warning from 30 days on, critical from 7 on."""
    nearest = min(d.threshold for d in due)
    return "critical" if nearest <= URGENT else "warning" if nearest <= 45 else "info"


def _sentence(facts: Sequence[Mapping[str, Any]], partners: Sequence[str], storm: bool, language: int) -> str:
    if storm:
        first, last = (pick(f["not_after"] for f in facts if not f["ours"])[:10] for pick in (min, max))
        names = _names(partners)
        text = (
            f"Certificates of {len(partners)} partners end between {first} and {last}: {names}",
            f"Laikā no {first} līdz {last} beidzas {len(partners)} partneru sertifikāti: {names}",
        )[language]
        own = [f for f in facts if f["ours"]]
        return "; ".join([text, *(_one(f, language) for f in own[:5])])
    rest = len(facts) - 5
    more = [(f"and {rest} more", f"un vēl {rest}")[language]] if rest > 0 else []
    return "; ".join([*(_one(f, language) for f in facts[:5]), *more])


def _one(facts: Mapping[str, Any], language: int) -> str:
    who = f"{_names(facts['owners'][:3])} ({', '.join(_USES[use][language] for use in facts['uses'])})"
    day, days = facts["not_after"][:10], facts["days"]
    if facts["about"] == "successor":
        text = (f"{who} has no next certificate, and the one it has ends on {day}",
                f"{who}: nav nākamā sertifikāta, pašreizējais beidzas {day}")  # fmt: skip
    elif days < 0:
        text = (f"{who} has ended on {day}", f"{who}: beidzies {day}")
    else:
        text = (f"{who} ends on {day}, in {days} days", f"{who}: beidzas {day}, pēc {days} dienām")
    return text[language]


def _names(names: Sequence[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= MOST_NAMES else text[:MOST_NAMES].rpartition(",")[0] + ", …"


def used_as(uses: Iterable[str], language: str) -> str:
    """The uses of a certificate in words."""
    return ", ".join(_USES[use][language == "lv"] for use in uses)


# -- health ------------------------------------------------------------------------------


def health(ours: Iterable[Watched], now: datetime) -> tuple[bool, str]:
    """Whether our own certificates let us work, and what to say of them: a warning below 7 days, a failure when what
    we sign or serve TLS with is over."""
    found = grouped(one for one in ours if one.state == "active")
    over = [g for g in found if g.first.not_after < now and {w.use for w in g.uses} & {"sign", "tls-server"}]
    if over:
        return False, "; ".join(_told(g, now) for g in over)
    soon = [g for g in found if g.first.not_after - now < URGENT * DAY]
    if soon:
        return True, "warning: " + "; ".join(_told(g, now) for g in soon)
    ends = min((g.first.not_after for g in found), default=None)
    return True, "none" if ends is None else f"the first ends on {ends:%Y-%m-%d}"


def _told(group: Group, now: datetime) -> str:
    return _one(_due(group, "expiry", 0, now).facts, 0)
