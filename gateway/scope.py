"""What an API client may see and touch: one small value, judged the same in Python and in SQL.

A client belongs to a backend; the scope bounds it further. Each bound is a list of what is
allowed, and an empty one bounds nothing. A corner (originalSender, finalRecipient) is
written as its value, or as `type:value` where the value alone could be somebody else's.

    outbound  partner, service, action, and the original sender must be allowed
    inbound   partner, service, action, and the final recipient must be allowed

A message without the property is outside of every scope that bounds it. The same rule is
the function `in_scope` of the database (migration 0009), and a test compares the two.
"""

from typing import Literal

from msgspec import Struct

ORIGINAL_SENDER, FINAL_RECIPIENT = "originalSender", "finalRecipient"


class Scope(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The bounds of one client.

    partners: party ids of the other access point, `type:value` or the value.
    services, actions: values of eb:Service and eb:Action.
    original_senders: for whom the client may send, and whose submissions it may follow.
    final_recipients: for whom the client receives.
    """

    partners: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    original_senders: tuple[str, ...] = ()
    final_recipients: tuple[str, ...] = ()

    @property
    def unbounded(self) -> bool:
        return self == EVERYTHING

    def covers(
        self, direction: Literal["inbound", "outbound"], *, partner: tuple[str, ...], service: str, action: str,
        original_sender: tuple[str, ...], final_recipient: tuple[str, ...],
    ) -> bool:  # fmt: skip
        """Whether a message is within. Names are what `names` makes of them."""
        corners, corner = (
            (self.original_senders, original_sender)
            if direction == "outbound"
            else (self.final_recipients, final_recipient)
        )
        return (
            _allowed(self.partners, partner)
            and _allowed(self.services, (service,))
            and _allowed(self.actions, (action,))
            and _allowed(corners, corner)
        )


EVERYTHING = Scope()


def names(value: str | None, type: str | None) -> tuple[str, ...]:
    """The ways in which a scope may write a party or corner; none if there is none."""
    if value is None:
        return ()
    return (value, f"{type}:{value}") if type else (value,)


def _allowed(bound: tuple[str, ...], found: tuple[str, ...]) -> bool:
    return not bound or any(name in bound for name in found)
