"""Every exception the gateway raises, in one tree.

An error has two texts. `wire` is what a peer may read: constant per class, so that
nothing of ours (and nothing an attacker sent) leaks through it. `detail` is for our
log. A peer's engineer may also get `where`: the element or the rule at fault, in words
of ours. Of what the sender stated it may repeat one name, by `told` and no other way;
security errors have none, so that all causes of one code look alike [threats 1.0].

Errors are raised low and translated once at each edge: towards the peer in `msh`,
towards producers in the backends, towards operators in `cli`.
"""


import re

_NO_NAME = re.compile(r"[^A-Za-z0-9_.:@/#-]")


class GatewayError(Exception):
    """Something the gateway itself can name."""

    #: Whether trying the same thing again later can help.
    temporary = False

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return self.detail or (self.__doc__ or type(self).__name__).strip().splitlines()[0]


# -- what we tell a peer ------------------------------------------------------


def told(name: str) -> str:
    """A name the sender of a message stated, as it may stand in `where`: 40 characters, all of them harmless."""
    return _NO_NAME.sub("_", name[:40])


class EbmsError(GatewayError):
    """An ebMS error that becomes an Error signal [as4 2.9].

    `where` names the element or rule at fault; it becomes eb:ErrorDetail. Every error that a
    message can cause has one, or is `uniform`. `status` is the HTTP status of the answer:
    200 where an ebMS header could be read, 4xx where the bytes were not even a message [as4 1.5].
    """

    code = "EBMS:0004"
    severity = "failure"
    category = "Content"
    origin = "ebMS"
    short_description = "Other"
    wire = "The message could not be processed."
    #: True when causes must not be told apart by the peer.
    uniform = False

    def __init__(self, detail: str = "", *, where: str | None = None, status: int = 200) -> None:
        super().__init__(detail)
        self.where = None if self.uniform else where
        self.status = status


class ValueNotRecognized(EbmsError):
    """A well-formed element has a value this access point does not know."""

    code, short_description = "EBMS:0001", "ValueNotRecognized"
    wire = "A header value is not known here."


class FeatureNotSupportedWarning(EbmsError):
    """An optional feature in the header is not supported; the message is still processed."""

    code, short_description, severity = "EBMS:0002", "FeatureNotSupported", "warning"
    wire = "An optional feature of the message is not supported."


class ValueInconsistent(EbmsError):
    """An element contradicts another one or its own type rule."""

    code, short_description = "EBMS:0003", "ValueInconsistent"
    wire = "A header value contradicts another value or its own rule."


class Other(EbmsError):
    """An internal error; the incident number is in our log."""


class ConnectionFailure(EbmsError):
    """No connection to the peer (reported locally only)."""

    code, short_description, category = "EBMS:0005", "ConnectionFailure", "Communication"
    wire = "The peer could not be reached."
    temporary = True


class EmptyMessagePartitionChannel(EbmsError):
    """A pull found no message waiting."""

    code, short_description = "EBMS:0006", "EmptyMessagePartitionChannel"
    category, severity = "Communication", "warning"
    wire = "No message is waiting on this channel."


class MimeInconsistency(EbmsError):
    """The multipart structure is broken, or header and parts do not fit."""

    code, short_description, category = "EBMS:0007", "MimeInconsistency", "Unpackaging"
    wire = "The MIME structure of the message is not usable."


class FeatureNotSupported(EbmsError):
    """A required feature is not supported."""

    code, short_description, category = "EBMS:0008", "FeatureNotSupported", "Unpackaging"
    wire = "A required feature of the message is not supported."


class InvalidHeader(EbmsError):
    """eb:Messaging is missing, not well-formed or not valid."""

    code, short_description, category = "EBMS:0009", "InvalidHeader", "Unpackaging"
    wire = "The ebMS header is missing or not valid."


class ProcessingModeMismatch(EbmsError):
    """No agreement covers the message, or the message does not fit its agreement."""

    code, short_description, category = "EBMS:0010", "ProcessingModeMismatch", "Processing"
    wire = "No agreement covers this message."


class ExternalPayloadError(EbmsError):
    """A payload reference points outside the message or to nothing."""

    code, short_description = "EBMS:0011", "ExternalPayloadError"
    wire = "A payload reference cannot be resolved."


class RoutingFailure(EbmsError):
    """An intermediary cannot route the message."""

    code, short_description, category = "EBMS:0020", "RoutingFailure", "Processing"


class MpcCapacityExceeded(EbmsError):
    """An intermediary's message channel is full."""

    code, short_description, category = "EBMS:0021", "MPCCapacityExceeded", "Processing"


class MessagePersistenceTimeout(EbmsError):
    """An intermediary gave up holding the message."""

    code, short_description, category = "EBMS:0022", "MessagePersistenceTimeout", "Processing"


class MessageExpired(EbmsError):
    """The message was dropped because it had expired."""

    code, short_description, category = "EBMS:0023", "MessageExpired", "Processing"
    severity = "warning"


class BundlingError(EbmsError):
    """The message units in one message may not travel together."""

    code, short_description = "EBMS:0030", "BundlingError"
    wire = "These message units may not travel together."


class RelatedMessageFailed(EbmsError):
    """A message of the same bundle failed."""

    code, short_description, category = "EBMS:0031", "RelatedMessageFailed", "Processing"


class BadFragmentGroup(EbmsError):
    """A fragment belongs to a rejected group."""

    code, short_description = "EBMS:0040", "BadFragmentGroup"


class DuplicateMessageSize(EbmsError):
    """MessageSize is given by more than one fragment."""

    code, short_description = "EBMS:0041", "DuplicateMessageSize"


class DuplicateFragmentCount(EbmsError):
    """FragmentCount is given more than once."""

    code, short_description = "EBMS:0042", "DuplicateFragmentCount"


class DuplicateMessageHeader(EbmsError):
    """MessageHeader is given more than once."""

    code, short_description = "EBMS:0043", "DuplicateMessageHeader"


class DuplicateAction(EbmsError):
    """Action is given more than once."""

    code, short_description = "EBMS:0044", "DuplicateAction"


class DuplicateCompressionInfo(EbmsError):
    """A compression element is given more than once."""

    code, short_description = "EBMS:0045", "DuplicateCompressionInfo"


class DuplicateFragment(EbmsError):
    """The same fragment number came again."""

    code, short_description = "EBMS:0046", "DuplicateFragment"


class BadFragmentStructure(EbmsError):
    """A fragment is not built as the specification says."""

    code, short_description, category = "EBMS:0047", "BadFragmentStructure", "Unpackaging"


class BadFragmentNum(EbmsError):
    """FragmentNum is larger than FragmentCount."""

    code, short_description = "EBMS:0048", "BadFragmentNum"


class BadFragmentCount(EbmsError):
    """FragmentCount is smaller than a fragment number already seen."""

    code, short_description = "EBMS:0049", "BadFragmentCount"


class FragmentSizeExceeded(EbmsError):
    """A fragment is larger than agreed."""

    code, short_description, category = "EBMS:0050", "FragmentSizeExceeded", "Unpackaging"
    severity = "warning"


class ReceiveIntervalExceeded(EbmsError):
    """The fragments did not all arrive in time."""

    code, short_description, category = "EBMS:0051", "ReceiveIntervalExceeded", "Unpackaging"


class BadProperties(EbmsError):
    """A fragment header carries an unexpected property."""

    code, short_description, category = "EBMS:0052", "BadProperties", "Unpackaging"
    severity = "warning"


class HeaderMismatch(EbmsError):
    """A fragment header differs from the joined source header."""

    code, short_description, category = "EBMS:0053", "HeaderMismatch", "Unpackaging"


class OutOfStorageSpace(EbmsError):
    """There is no room for the fragment group."""

    code, short_description, category = "EBMS:0054", "OutOfStorageSpace", "Unpackaging"


class DecompressionError(EbmsError):
    """The joined message cannot be decompressed."""

    code, short_description, category = "EBMS:0055", "DecompressionError", "Processing"


class ResponseUsingAlternateMep(EbmsError):
    """The response will come over another binding."""

    code, short_description, category = "EBMS:0060", "ResponseUsingAlternateMEP", "Processing"
    severity = "warning"


class FailedAuthentication(EbmsError):
    """Signature or certificate refused. One text for all causes.

    `stranger` is a DER certificate that is none of the claimed party's, where all else is right: the signature
    is, and it was made with this certificate's key. For us; nothing of it is told.
    """

    stranger: bytes | None = None
    code, short_description, category = "EBMS:0101", "FailedAuthentication", "Processing"
    origin, uniform = "security", True
    wire = "The message could not be authenticated."


class FailedDecryption(EbmsError):
    """Decryption refused. One text for all causes."""

    code, short_description, category = "EBMS:0102", "FailedDecryption", "Processing"
    origin, uniform = "security", True
    wire = "The message could not be decrypted."


class PolicyNoncompliance(EbmsError):
    """The security of the message is not what the agreement demands."""

    code, short_description, category = "EBMS:0103", "PolicyNoncompliance", "Processing"
    origin, uniform = "security", True
    wire = "The security of the message does not meet the agreement."


class DysfunctionalReliability(EbmsError):
    """WS-ReliableMessaging only; unused in AS4."""

    code, short_description, category = "EBMS:0201", "DysfunctionalReliability", "Processing"
    origin = "reliability"


class DeliveryFailure(EbmsError):
    """The message was understood but could not be kept or handed over."""

    code, short_description, category = "EBMS:0202", "DeliveryFailure", "Communication"
    origin = "reliability"
    wire = "The message could not be taken over. Please send it again later."
    temporary = True


class MissingReceipt(EbmsError):
    """No valid receipt after the last attempt (reported to the producer)."""

    code, short_description, category = "EBMS:0301", "MissingReceipt", "Communication"
    wire = "No receipt arrived for the message."


class InvalidReceipt(EbmsError):
    """A receipt does not belong to the message that was sent.

    `stranger`: as in `FailedAuthentication`.
    """

    stranger: bytes | None = None
    code, short_description, category = "EBMS:0302", "InvalidReceipt", "Communication"
    wire = "The receipt does not match the message."
    temporary = True


class DecompressionFailure(EbmsError):
    """A payload cannot be decompressed, or grows beyond its limits."""

    code, short_description, category = "EBMS:0303", "DecompressionFailure", "Communication"
    wire = "A payload could not be decompressed."


#: Code to class, for reading what peers send and for the table test.
EBMS_ERRORS: dict[str, type[EbmsError]] = {
    error.code: error for error in [Other, *(e for e in EbmsError.__subclasses__() if e is not Other)]
}


# -- sending and submitting ---------------------------------------------------


class PeerAnswered(GatewayError):
    """The peer answered with an error signal. `opened` is the signed one: a `gateway.as4.inbound.Opened`."""

    opened: object = None

    def __init__(self, code: str, detail: str, *, authenticated: bool) -> None:
        super().__init__(detail)
        self.code, self.authenticated = code, authenticated


class SendFailed(GatewayError):
    """An attempt ended without a usable answer. `stage` says how far it came."""

    def __init__(self, detail: str, *, temporary: bool = True, stage: str = "send") -> None:
        super().__init__(detail)
        self.temporary, self.stage = temporary, stage


class DiscoveryFailed(GatewayError):
    """The responder of a message could not be discovered. `reason` is a short stable word [as4 4.10]."""

    def __init__(self, reason: str, detail: str, *, temporary: bool = False) -> None:
        super().__init__(detail)
        self.reason, self.temporary = reason, temporary


class SubmissionRefused(GatewayError):
    """A producer's submission cannot be sent as it is. `field` says what to mend."""

    def __init__(self, detail: str, *, field: str | None = None, hint: str = "") -> None:
        super().__init__(detail)
        self.field, self.hint = field, hint


class OutOfScope(SubmissionRefused):
    """The client may not send this."""


class RulesBroken(SubmissionRefused):
    """The agreement refuses submissions that break the rules of its community. `findings` says which."""

    def __init__(self, detail: str, *, findings: tuple = ()) -> None:
        super().__init__(detail, hint="mend what the fatal findings say; the receiving application would refuse it")
        self.findings = findings


class SubmissionConflict(SubmissionRefused):
    """The same MessageId or Idempotency-Key was used for something else."""


class DeliveryRefused(GatewayError):
    """The consumer will not take this message; trying again is of no use. `status` is of its HTTP answer."""

    def __init__(self, detail: str = "", *, status: int | None = None) -> None:
        super().__init__(detail)
        self.status = status


class DeliveryDelayed(GatewayError):
    """The consumer cannot take this message now. `retry_after` is in seconds, `status` of its HTTP answer."""

    temporary = True

    def __init__(self, detail: str = "", *, retry_after: float | None = None, status: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after, self.status = retry_after, status


# -- the rooms ----------------------------------------------------------------


class StoreUnavailable(GatewayError):
    """The message store cannot be reached or does not accept writes."""

    temporary = True


class OutcomeUnknown(StoreUnavailable):
    """A commit that may or may not be durable: no receipt is sent, a retry decides."""


class AgreementsUnavailable(StoreUnavailable):
    """The agreements of a message cannot be loaded in this process; another one may have them."""


class ClaimLost(GatewayError):
    """The claim on a job has passed to another worker; nothing of ours may be written."""


class StalePlan(GatewayError):
    """What the plan was made on has changed; make it again."""


class NotFound(GatewayError):
    """There is no such thing, or the caller may not see it."""


class NotPossible(GatewayError):
    """What is asked for does not go with the state of the message. `state` is what it is in."""

    def __init__(self, detail: str, *, state: str = "") -> None:
        super().__init__(detail)
        self.state = state


class OffsetConflict(GatewayError):
    """An upload goes on somewhere else: at `received`."""

    def __init__(self, received: int) -> None:
        super().__init__(f"the upload goes on at octet {received}")
        self.received = received


class DigestMismatch(GatewayError):
    """Content does not have the digest it was announced with."""


class QuotaReached(GatewayError):
    """The client has as much as it may have; something must go first."""


class Overloaded(GatewayError):
    """A limit on concurrent work is reached."""

    temporary = True


class PeerGone(GatewayError):
    """The client went away, or was cut off, in the middle of its request. Nobody is left to answer."""


class TooLarge(GatewayError):
    """More bytes than the limit allows."""


class KeyUnavailable(GatewayError):
    """A private key that is needed is not there or cannot be used."""


class CertificateRefused(GatewayError):
    """A certificate may not be used for this. `reason` is a short stable word."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason


class ConfigError(GatewayError):
    """Something in a configuration file is wrong: which file, line and key, what stands there, what would be right.

    `line` counts from 1; 0 where it is not known. `value` is as it would be written, empty where it is not to be shown.
    `rule` is the lint rule that finds the same, where there is one.
    """

    def __init__(
        self, detail: str, *, file: str = "", key: str = "", hint: str = "", line: int = 0, value: str = "",
        rule: str = "",
    ) -> None:  # fmt: skip
        super().__init__(detail)
        self.file, self.key, self.hint, self.line, self.value, self.rule = file, key, hint, line, value, rule

    @property
    def where(self) -> str:
        """`file:line: key`, as far as they are known."""
        return ": ".join(p for p in (f"{self.file}:{self.line}" if self.line else self.file, self.key) if p)

    def __str__(self) -> str:
        place = f"{self.where} = {self.value}" if self.value else self.where
        text = f"{place}: {self.detail}" if place else self.detail
        return f"{text} ({self.hint})" if self.hint else text
