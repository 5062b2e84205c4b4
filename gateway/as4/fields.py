"""The fields of eb:Messaging that all message units share, and the rules by which values are read.

Reading is strict in order and number of elements, as the schema is, and lenient where
products are known to differ [as4 2.2, oots 2.7]: time zones and fractions of a
Timestamp, white space around values, attributes nobody knows. White space around a value
is layout, not value, and is dropped; inside a token it is collapsed as xs:token says. A
MessageId is never touched: with white space it is refused. An empty optional attribute
says nothing and reads as absent.

Every `where` is a literal of ours: it goes to the peer [threats 1.0].
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from gateway.as4 import ns
from gateway.as4.xml import Element, escaped, text_of
from gateway.errors import InvalidHeader

#: Limits of values [threats 1.5]. 255 and 1024 are also what Domibus' database and plugins hold.
MAX_VALUE = 255
MAX_TEXT = 1024

#: The characters of an RFC 5322 msg-id, without angle brackets [threats A09]. A missing `@`
#: is accepted, because products send bare UUIDs.
MESSAGE_ID = re.compile(r"[!-;=?-~]{1,255}")

_DATE_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))?", re.ASCII
)
_SPACE = " \t\r\n"
_SPACES = re.compile(r"[ \t\r\n]+")
_EB = f"{{{ns.EB}}}"


def eb(name: str) -> str:
    return _EB + name


def is_foreign(tag: str) -> bool:
    """What a schema calls ##other: in a namespace, and not in ours."""
    return tag.startswith("{") and not tag.startswith(_EB)


class Sequence:
    """Child elements in the order of the schema, each at most once; `?` marks the optional ones."""

    def __init__(self, where: str, *names: str) -> None:
        self.where = where
        self._names = [name.rstrip("?") for name in names]
        self._place = {eb(name): number for number, name in enumerate(self._names)}
        self._required = [number for number, name in enumerate(names) if not name.endswith("?")]

    def read(self, children: Iterable[Element]) -> list[Element | None]:
        """One entry for each name, None where an optional element is absent. Raises `InvalidHeader`."""
        found: list[Element | None] = [None] * len(self._names)
        last = -1
        for child in children:
            number = self._place.get(child.tag)
            if number is None:
                raise InvalidHeader("an element that does not belong here", where=self.where)
            if number <= last:
                raise InvalidHeader("repeated or out of order", where=self._path(number))
            found[number], last = child, number
        for number in self._required:
            if found[number] is None:
                raise InvalidHeader("missing", where=self._path(number))
        return found

    def _path(self, number: int) -> str:
        return f"{self.where}/eb:{self._names[number]}"


# -- values ------------------------------------------------------------------------


def value(element: Element, where: str, limit: int = MAX_VALUE) -> str:
    """The text without the white space around it; not empty, not overlong."""
    text = text_of(element, where=where).strip(_SPACE)
    if not 0 < len(text) <= limit:
        raise InvalidHeader("an empty or overlong value", where=where)
    return text


def token(element: Element, where: str, *, empty: bool = False) -> str:
    """The text with its white space collapsed. Only ConversationId may be empty [as4 2.2]."""
    text = _SPACES.sub(" ", text_of(element, where=where).strip(_SPACE))
    if len(text) > MAX_VALUE or not (text or empty):
        raise InvalidHeader("an empty or overlong value", where=where)
    return text


def attribute(element: Element, name: str, where: str, limit: int = MAX_VALUE) -> str | None:
    """The attribute without the white space around it, None where it is absent or empty."""
    text = element.get(name)
    if not text:
        return None
    text = text.strip(_SPACE)
    if len(text) > limit:
        raise InvalidHeader("an overlong attribute", where=where)
    return text or None


# -- eb:MessageInfo ------------------------------------------------------------------

_MESSAGE_INFO = Sequence("eb:MessageInfo", "Timestamp", "MessageId", "RefToMessageId?")


def read_message_info(element: Element) -> tuple[str, datetime, str | None]:
    """MessageId, Timestamp and RefToMessageId. An empty RefToMessageId refers to nothing."""
    timestamp, message_id, reference = _MESSAGE_INFO.read(element)
    where = "eb:MessageInfo/eb:RefToMessageId"
    ref_to = None
    if reference is not None and text_of(reference, where=where).strip(_SPACE):
        ref_to = _message_id(reference, where)
    moment = date_time(timestamp, "eb:MessageInfo/eb:Timestamp")
    return _message_id(message_id, "eb:MessageInfo/eb:MessageId"), moment, ref_to


def _message_id(element: Element, where: str) -> str:
    text = text_of(element, where=where)
    if not MESSAGE_ID.fullmatch(text):
        raise InvalidHeader("not a message id", where=where)
    return text


def date_time(element: Element, where: str) -> datetime:
    """xs:dateTime, UTC unless it says otherwise, cut to milliseconds [as4 2.2]. Raises `InvalidHeader`."""
    match = _DATE_TIME.fullmatch(text_of(element, where=where).strip(_SPACE))
    if not match:
        raise InvalidHeader("not a dateTime", where=where)
    *date_and_time, fraction, sign, hours, minutes = match.groups()
    year, month, day, hour, minute, second = map(int, date_and_time)
    millisecond = int(fraction[:3].ljust(3, "0")) if fraction else 0
    days = 0
    if hour == 24 and minute == second == millisecond == 0:  # xs:dateTime: the end of that day
        hour, days = 0, 1
    try:
        moment = datetime(year, month, day, hour, minute, second, millisecond * 1000, tzinfo=UTC)
        if sign or days:
            offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
            if offset > timedelta(hours=14) or int(minutes or 0) > 59:
                raise ValueError("no such time zone")
            moment += timedelta(days=days) + (offset if sign == "-" else -offset)
    except (ValueError, OverflowError):
        raise InvalidHeader("not a date of this world", where=where) from None
    return moment


def message_info_xml(message_id: str, timestamp: datetime, ref_to_message_id: str | None) -> str:
    """eb:MessageInfo in canonical form: UTC, exactly three fraction digits, `Z` [as4 2.2].

    `timestamp` is aware. Raises `InvalidHeader` for an id that no peer would take.
    """
    if timestamp.tzinfo is not UTC:
        timestamp = timestamp.astimezone(UTC)
    reference = ""
    if ref_to_message_id is not None:
        reference = f"<eb:RefToMessageId>{_message_id_xml(ref_to_message_id)}</eb:RefToMessageId>"
    return (
        f"<eb:MessageInfo><eb:Timestamp>{timestamp.isoformat(timespec='milliseconds')[:23]}Z</eb:Timestamp>"
        f"<eb:MessageId>{_message_id_xml(message_id)}</eb:MessageId>{reference}</eb:MessageInfo>"
    )


def _message_id_xml(message_id: str) -> str:
    if not MESSAGE_ID.fullmatch(message_id):
        raise InvalidHeader("not a message id", where="eb:MessageInfo/eb:MessageId")
    return escaped(message_id)
