"""What is answered when it cannot be done. Clients compare these texts, so they are Domibus', word by word."""

from msgspec import Struct

#: The Reason of whatever goes wrong while a submission is judged.
SUBMISSION_FAILED = "Message submission failed"
#: Texts are cut here, as the database column of Domibus does.
DETAIL = 255


class Fault(Exception):
    """A declared fault: Reason, and code and message of its FaultDetail."""

    def __init__(self, reason: str, code: str, message: str) -> None:
        super().__init__(reason)
        self.reason, self.code, self.message = reason, code, message


class Undeclared(Exception):
    """A SOAP fault without detail: `sender` says whose mistake it is."""

    def __init__(self, reason: str, *, status: int = 500, sender: bool = False, headers: dict[str, str] | None = None):
        super().__init__(reason)
        self.reason, self.status, self.sender, self.headers = reason, status, sender, headers or {}


class Error(Struct, frozen=True):
    """An entry of the error log of a message."""

    code: str
    detail: str


def empty_id(detail: str = "MessageId is empty") -> Fault:
    return Fault("Message ID is empty", "WS_PLUGIN:0007", detail)


def long_id(id: str) -> Fault:
    return Fault(
        "Invalid Message Id. ", "WS_PLUGIN:0007", f"Value of messageId [{id}] is too long (over 255 characters)."
    )


def not_found(id: str) -> Fault:
    return Fault(f"Message not found, id [{id}]", "WS_PLUGIN:0009", f"No message with id [{id}] found")


def twice(id: str) -> Fault:
    reason = f"An attempt was made to download message [{id}] multiple times"
    return Fault(reason, "WS_PLUGIN:0001", "Error retrieving message")


def bad_role() -> Fault:
    return Fault("Access point role is invalid", "WS_PLUGIN:0007", "Access point role is invalid")


def duplicate_status(id: str) -> Fault:
    reason = f"Duplicated message found, id [{id}]"
    return Fault(reason, "WS_PLUGIN:0007", f"Duplicate message with id [{id}] found in both roles")


def duplicate_errors(id: str) -> Fault:
    return Fault(
        f"Duplicate message found with Id [{id}].", "WS_PLUGIN:00010",
        f"Duplicate message Id [{id}] found. For self sending please call the method with access point role to get "
        "the errors of the message.",
    )  # fmt: skip


def repush_limit(limit: int, given: int) -> Fault:
    return Fault(
        "Invalid argument", "WS_PLUGIN:0007",
        f"Too many messages. the limit is [wsplugin.messages.repush.list.max]:{limit}. Actual is: {given}",
    )  # fmt: skip


def not_failed(id: str) -> Fault:
    return Fault(
        "Invalid Message Id. ", "WS_PLUGIN:0007", f"The message [{id}] is not in the list of push failed messages"
    )


def no_payload_id() -> Fault:
    return Fault(
        "Invalid request", "WS_PLUGIN_0005", "Attribute 'payloadId' of the 'payload' element must not be empty"
    )


def bodyload_with_id() -> Fault:
    return Fault(
        "Invalid request", "WS_PLUGIN_0005", "Attribute 'payloadId' must not appear on element 'bodyload'"
    )


def empty_properties() -> Fault:
    return Fault("Invalid request", "WS_PLUGIN_0005", "PartProperties should not be empty.")


def nothing_for(href: str) -> Fault:
    return Fault(f"No Payload or Bodyload found for PartInfo with href: {href}", "WS_PLUGIN_0001", href)


def no_payload_for(href: str) -> Fault:
    return Fault(f"No payload found for PartInfo with href: {href}", "WS_PLUGIN_0005", href)


def file_path(path: str) -> Fault:
    """Loading a payload from a URL of the producer's choice is not offered: it would read our own files."""
    return Fault("Invalid filepath property", "WS_PLUGIN_0005", path)


def refused(code: str, short: str | None, detail: str) -> Fault:
    """A submission the core would refuse. `short` is the name of the error, None for a duplicate."""
    text = detail if short is None else f"{short} detail: {detail}"
    return Fault(SUBMISSION_FAILED, code, text if len(text) <= DETAIL else text[: DETAIL - 3] + "...")


def duplicate(id: str) -> Fault:
    return refused(
        "EBMS:0004", None, f"Message with id [{id}] and role SENDING already exists. Message identifiers must be unique"
    )
