"""A remark about a message that is accepted all the same.

What an agreement demands is enforced (`policy`); what a community asks for beyond it is advice:
it is stored with the message, shown to people and to the backend, and decides nothing on the way in.
"""

from typing import Literal

from msgspec import Struct

#: `fatal`: a receiver may answer with an error of the application. `warning`: it should not.
Severity = Literal["fatal", "warning"]

#: More than this of one message tells nobody anything; a peer chose how many there are.
MOST = 32


class Finding(Struct, frozen=True, omit_defaults=True):
    """One remark.

    `rule` is our stable number of it, `official` the published one where it is attested, `line` the
    version line of the specification by which it was judged (numbers are not stable across
    lines). `where` is a place spelled by us. `message` holds no payload and no personal data: values
    of a peer stand in it only where they are identifiers of the header, shortened and escaped.
    """

    rule: str
    severity: Severity
    message: str
    where: str | None = None
    official: str | None = None
    line: str | None = None

    def __str__(self) -> str:
        names = [self.rule, self.official, f"line {self.line}" if self.line else None]
        return f"{', '.join(filter(None, names))} ({self.severity}): {self.message}"


def shown(value: str | None) -> str:
    """An identifier of a header, fit for a finding or a log: quoted, escaped, at most 80 characters."""
    return "absent" if value is None else ascii(value[:80])
