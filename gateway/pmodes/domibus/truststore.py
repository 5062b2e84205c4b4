"""Which certificate of a truststore belongs to which party.

Two conventions are understood at once: one entry for each party under its name, as the OOTS network
publishes, and `<party>_rsa_sign` beside `<party>_rsa_encrypt`, as Domibus 5.1 wants. Letter case never
matters. The party id serves where the name finds nothing. An entry nobody asks for and a party
without an entry are both told: in Domibus the symptom is a message that is never acknowledged.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from gateway.pmodes.agreements import Party
from gateway.pmodes.domibus.report import Report
from gateway.pmodes.domibus.security import ALIAS_NAMES


class Found(Struct, frozen=True):
    """One certificate of a party: the alias it stands under, DER."""

    alias: str
    certificate: bytes


class Pair(Struct, frozen=True):
    """The certificates of one party."""

    signing: Found | None = None
    encryption: Found | None = None


def assign(
    entries: Sequence[tuple[str, bytes]], parties: Mapping[str, Party], names: Mapping[str, str], own: str,
    profile: str, report: Report,
) -> dict[str, Pair]:  # fmt: skip
    """The certificates of each party. `entries` are alias and DER, `names` the parties' names in the P-Mode file."""
    by_alias: dict[str, Found] = {}
    doubtful: set[str] = set()
    for alias, der in entries:
        first = by_alias.setdefault(alias.strip().lower(), Found(alias, der))
        if first.certificate != der:
            doubtful.add(alias.strip().lower())
    for alias in sorted(doubtful):
        report.warn(None, f"truststore entry {alias!r}", "two different certificates have this alias; none is used")
        del by_alias[alias]
    suites = ALIAS_NAMES.get(profile.removesuffix("-two-corner"), ("rsa",))
    used: set[str] = set()
    made: dict[str, Pair] = {}
    for name, party in parties.items():
        made[name] = _pair([names.get(name, name), party.id or name], suites, by_alias, used)
        if name == own:
            continue
        pair = made[name]
        missing = [use for use, found in (("sign", pair.signing), ("encrypt", pair.encryption)) if not found]
        if missing:
            report.warn(None, f"party {name!r}", f"no certificate to {' and '.join(missing)} in the truststore", "P006")
    for alias, found in by_alias.items():
        if alias not in used:
            report.warn(None, f"truststore entry {found.alias!r}", "belongs to no party of ours; not imported")
    return made


def _pair(names: Sequence[str], suites: Sequence[str], by_alias: Mapping[str, Found], used: set[str]) -> Pair:
    def find(use: str) -> Found | None:
        for name in names:
            for alias in (*(f"{name}_{suite}_{use}" for suite in suites), name):
                if (found := by_alias.get(alias.lower())) is not None:
                    used.add(alias.lower())
                    return found
        return None

    pair = Pair(find("sign"), find("encrypt"))
    # The bare entry beside the pair is the same party's, too.
    used.update(name.lower() for name in names if pair.signing or pair.encryption)
    return pair
