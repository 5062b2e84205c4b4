"""Which changes of state there are, as data: (before, event, after).

Statements take the states an event may start from out of these tables, so that SQL refuses
any other change; triggers refuse it once more, whoever asks. A test holds the triggers to
these tables, and the diagrams of the documentation are drawn from them.
"""

from typing import NamedTuple


class Change(NamedTuple):
    """One allowed change. `before` is None for a birth."""

    before: str | None
    event: str
    after: str


INBOUND = (
    Change(None, "receive", "RECEIVED"),
    Change("RECEIVED", "deliver", "DELIVERED"),
    #: The consumer wants it once more.
    Change("DELIVERED", "redeliver", "RECEIVED"),
    Change("DELIVERED", "erase", "PURGED"),
    #: The test service is delivered to nobody.
    Change("RECEIVED", "erase_test", "PURGED"),
)

OUTBOUND = (
    Change(None, "submit", "SUBMITTED"),
    Change("SUBMITTED", "acknowledge", "ACKNOWLEDGED"),
    Change("WAITING_FOR_RETRY", "acknowledge", "ACKNOWLEDGED"),
    Change("SUBMITTED", "retry", "WAITING_FOR_RETRY"),
    Change("WAITING_FOR_RETRY", "retry", "WAITING_FOR_RETRY"),
    Change("SUBMITTED", "fail", "FAILED"),
    Change("WAITING_FOR_RETRY", "fail", "FAILED"),
    Change("SUBMITTED", "cancel", "CANCELLED"),
    Change("WAITING_FOR_RETRY", "cancel", "CANCELLED"),
    #: An authentic receipt that comes after we gave up.
    Change("FAILED", "acknowledge_late", "ACKNOWLEDGED"),
    Change("SUBMITTED", "requeue", "WAITING_FOR_RETRY"),
    Change("WAITING_FOR_RETRY", "requeue", "WAITING_FOR_RETRY"),
    Change("FAILED", "requeue", "WAITING_FOR_RETRY"),
    Change("ACKNOWLEDGED", "erase", "PURGED"),
    Change("CANCELLED", "erase", "PURGED"),
    #: What failed stays visible as failed; only its payloads go.
    Change("FAILED", "erase", "FAILED"),
    # A message that the partner fetches [as4 4.6]: never pulled, or pulled and not acknowledged in time;
    # pulled, and waiting for its receipt.
    Change(None, "hold", "READY_TO_PULL"),
    Change("READY_TO_PULL", "hand_out", "WAITING_FOR_RECEIPT"),
    Change("WAITING_FOR_RECEIPT", "lapse", "READY_TO_PULL"),
    Change("READY_TO_PULL", "acknowledge", "ACKNOWLEDGED"),
    Change("WAITING_FOR_RECEIPT", "acknowledge", "ACKNOWLEDGED"),
    Change("READY_TO_PULL", "fail", "FAILED"),
    Change("WAITING_FOR_RECEIPT", "fail", "FAILED"),
    Change("READY_TO_PULL", "cancel", "CANCELLED"),
    Change("READY_TO_PULL", "requeue", "READY_TO_PULL"),
    Change("WAITING_FOR_RECEIPT", "requeue", "READY_TO_PULL"),
    Change("FAILED", "hold_again", "READY_TO_PULL"),
)

JOB = (
    Change(None, "queue", "READY"),
    Change("READY", "claim", "CLAIMED"),
    #: The lease of a claimer that died has run out.
    Change("CLAIMED", "claim", "CLAIMED"),
    Change("ATTEMPT_OPEN", "claim", "CLAIMED"),
    Change("CLAIMED", "begin", "ATTEMPT_OPEN"),
    Change("CLAIMED", "release", "READY"),
    Change("ATTEMPT_OPEN", "release", "READY"),
    Change("CLAIMED", "park", "PARKED"),
    Change("ATTEMPT_OPEN", "park", "PARKED"),
    Change("CLAIMED", "finish", "DONE"),
    Change("ATTEMPT_OPEN", "end", "DONE"),
    Change("ATTEMPT_OPEN", "retry", "READY"),
    #: The message was settled outside an attempt, or cancelled.
    Change("READY", "settle", "DONE"),
    Change("CLAIMED", "settle", "DONE"),
    Change("ATTEMPT_OPEN", "settle", "DONE"),
    Change("PARKED", "settle", "DONE"),
    Change("READY", "requeue", "READY"),
    Change("CLAIMED", "requeue", "READY"),
    Change("ATTEMPT_OPEN", "requeue", "READY"),
    Change("PARKED", "requeue", "READY"),
    Change("DONE", "requeue", "READY"),
    #: Kept back until somebody says otherwise; nobody can claim it.
    Change("READY", "suspend", "HELD"),
    Change("CLAIMED", "suspend", "HELD"),
    Change("ATTEMPT_OPEN", "suspend", "HELD"),
    Change("HELD", "resume", "READY"),
    Change("HELD", "settle", "DONE"),
)

#: One use of one of our own keys.
KEY = (
    Change(None, "plan", "PLANNED"),
    Change("PLANNED", "stage", "STAGED"),
    Change("STAGED", "announce", "ANNOUNCED"),
    Change("STAGED", "promote", "ACTIVE"),
    Change("ANNOUNCED", "promote", "ACTIVE"),
    #: Another one was promoted: signs no more, still decrypts.
    Change("ACTIVE", "supersede", "DRAINING"),
    # Back again: the one before takes over, and the one that was promoted waits once more.
    Change("DRAINING", "restore", "ACTIVE"),
    Change("ACTIVE", "withdraw", "STAGED"),
    #: What is in use does not go; what was given up before it was used does.
    Change("PLANNED", "retire", "RETIRED"),
    Change("STAGED", "retire", "RETIRED"),
    Change("ANNOUNCED", "retire", "RETIRED"),
    Change("DRAINING", "retire", "RETIRED"),
)

#: Agreement updates that partners asked us for.
UPDATE_INBOUND = (
    Change(None, "receive", "RECEIVED"),
    #: It waits for an operator.
    Change("RECEIVED", "ask", "WAITING"),
    Change("RECEIVED", "approve", "APPROVED"),
    Change("WAITING", "approve", "APPROVED"),
    Change("APPROVED", "take", "TAKEN"),
    Change("RECEIVED", "refuse", "REFUSED"),
    Change("WAITING", "refuse", "REFUSED"),
    Change("APPROVED", "refuse", "REFUSED"),
)

#: Those we asked partners for.
UPDATE_OUTBOUND = (
    Change(None, "prepare", "PREPARED"),
    Change("PREPARED", "send", "SENT"),
    Change("SENT", "accept", "ACCEPTED"),
    Change("SENT", "reject", "REJECTED"),
    Change("SENT", "lapse", "TIMED_OUT"),
    Change("PREPARED", "fail", "UNDELIVERED"),
    Change("SENT", "fail", "UNDELIVERED"),
    #: An answer that comes after we stopped waiting counts.
    Change("TIMED_OUT", "accept", "ACCEPTED"),
    Change("TIMED_OUT", "reject", "REJECTED"),
    Change("UNDELIVERED", "accept", "ACCEPTED"),
    Change("UNDELIVERED", "reject", "REJECTED"),
)

#: States of a message whose work may be kept back: none of it is under way.
SUSPENDABLE = ("SUBMITTED", "WAITING_FOR_RETRY", "READY_TO_PULL", "RECEIVED")

#: What an attempt's result means for message and job: (event of the message, event of the job).
RESULTS = {
    "ACKNOWLEDGED": ("acknowledge", "end"),
    "WAITING_FOR_RETRY": ("retry", "retry"),
    "FAILED": ("fail", "end"),
}
#: The same for a held message whose time is over.
LAPSES = {"READY_TO_PULL": ("lapse", "release"), "FAILED": ("fail", "finish")}


def before(table: tuple[Change, ...], *events: str) -> list[str]:
    """The states from which one of `events` may happen."""
    return list(dict.fromkeys(c.before for c in table if c.event in events and c.before is not None))


def after(table: tuple[Change, ...], state: str, event: str) -> str | None:
    """The state that `event` leads to, or None where it may not happen."""
    return next((c.after for c in table if c.before == state and c.event == event), None)


def following(table: tuple[Change, ...], state: str) -> list[str]:
    """The states that a change may lead to from `state`."""
    return list(dict.fromkeys(c.after for c in table if c.before == state))
