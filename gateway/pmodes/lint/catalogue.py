"""The rules by their stable ids, and what a finding is. pmodes/README.md has the same table; a test compares them."""

from typing import Literal

from msgspec import Struct

Severity = Literal["error", "warning", "info"]

#: Worst first.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


class Rule(Struct, frozen=True):
    """What a rule finds, and what to do about it where the finding says nothing better."""

    finds: str
    fix: str


RULES: dict[str, Rule] = {
    "P000": Rule("a file that cannot be read, or a value that cannot be", "mend what is named"),
    "P001": Rule("a blank in a URL", "take the blank out; sent messages would go nowhere"),
    "P002": Rule("plain http", "ask the partner for its https address"),
    "P003": Rule("an IP address instead of a name", "ask the partner for a name; certificates are made for names"),
    "P004": Rule("a path unlike those AS4 products have", "compare it with what the partner told you"),
    "P005": Rule("two parties with one id, endpoint or certificate", "find out which of the two is right"),
    "P006": Rule("a party without certificate", "ask the partner for its certificate and name its file"),
    "P007": Rule("a certificate that has expired, or will soon", "ask for the next one and name it in `next`"),
    "P008": Rule("a certificate whose subject does not look like the party's", "compare fingerprints with the partner"),
    "P009": Rule("a key or signature that is too weak, or unfit for the profile", "ask the partner for a better one"),
    "P010": Rule("one key for several uses", "ask the partner for separate keys"),
    "P011": Rule("a leg, an override or a party that can never be used", "complete it or take it out"),
    "P012": Rule("a message property that the profile has and the agreement does not declare", "declare it"),
    "P013": Rule("message metadata kept for less than the 12 months the law asks for", "keep it for 12 months or more"),
    "P014": Rule("payloads erased at once, with a backend that reads them only once", "keep them for an hour or more"),
    "P015": Rule("sending is given up before the partner's maintenance ends", "make the retry window longer"),
    "P016": Rule("many certificates that expire at the same time", "spread the renewals, begin early"),
    "P017": Rule("an unknown key", "mend its spelling or take it out"),
    "P018": Rule("a test party among productive ones", "keep test partners on a test node"),
    "P019": Rule("agreements that match the same messages, or share an id", "make them differ or keep one"),
    "P020": Rule("a name that does not follow the names of its peers", "compare it with what the partner told you"),
    "P021": Rule("an inbound action that has not exactly one backend", "name one backend for it"),
    "P022": Rule("an overlay that meets nothing in the network any more", "take it out, or mend its name"),
    "P023": Rule("something of a Domibus file that is mended, or has no meaning here", "see the message"),
}


class Finding(Struct, frozen=True, omit_defaults=True):
    """One finding. `where` is `file:line: key`, as far as it is known; `hint` says what would be right."""

    rule: str
    severity: Severity
    where: str
    message: str
    hint: str = ""
