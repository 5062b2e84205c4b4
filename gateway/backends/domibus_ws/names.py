"""Namespaces, element names and status names of the Domibus WS plugin."""

SOAP = "http://www.w3.org/2003/05/soap-envelope"
EB = "http://docs.oasis-open.org/ebxml-msg/ebms/v3.0/ns/core/200704/"
XOP = "http://www.w3.org/2004/08/xop/include"
PLUGIN = "http://eu.domibus.wsplugin/"
OLD = "http://org.ecodex.backend/1_1/"
DEFAULT_MPC = EB + "defaultMPC"

#: What our states are called in Domibus [product 4.7].
STATUS = {
    "SUBMITTED": "SEND_ENQUEUED",
    "WAITING_FOR_RETRY": "WAITING_FOR_RETRY",
    "READY_TO_PULL": "READY_TO_PULL",
    "WAITING_FOR_RECEIPT": "WAITING_FOR_RECEIPT",
    "ACKNOWLEDGED": "ACKNOWLEDGED",
    "FAILED": "SEND_FAILURE",
    "CANCELLED": "SEND_FAILURE",
    "RECEIVED": "RECEIVED",
    "DELIVERED": "DOWNLOADED",
    "PURGED": "DELETED",
}
#: Every value of the enumeration in the WSDL, in its order.
STATUSES = (
    "READY_TO_SEND", "READY_TO_PULL", "BEING_PULLED", "SEND_ENQUEUED", "SEND_IN_PROGRESS", "WAITING_FOR_RECEIPT",
    "ACKNOWLEDGED", "ACKNOWLEDGED_WITH_WARNING", "SEND_ATTEMPT_FAILED", "SEND_FAILURE", "NOT_FOUND",
    "WAITING_FOR_RETRY", "RECEIVED", "RECEIVED_WITH_WARNINGS", "DELETED", "DOWNLOADED",
)  # fmt: skip
ROLES = {"SENDING": "outbound", "RECEIVING": "inbound"}
