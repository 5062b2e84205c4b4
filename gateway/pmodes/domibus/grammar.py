"""The grammar of a P-Mode file as data: every element and attribute of Domibus 5.0 to 5.2 and of Harmony.

An attribute is either used (`translate` reads it) or has a reason why it is not; `read` reports
the second kind. What Domibus demands and real files leave out is not demanded here: 5.2 made the
policy of a security optional, Harmony the type of an agreement.
"""

from typing import Literal

from msgspec import Struct

NAMESPACE = "http://domibus.eu/configuration"

Kind = Literal["text", "uri", "boolean", "integer"]


class Attribute(Struct, frozen=True):
    """One attribute. `expected` are the values the gateway always obeys; `ignored` is why any other is not."""

    name: str
    kind: Kind = "text"
    required: bool = False
    most: int = 255
    #: The empty text is a value, not a mistake.
    empty: bool = False
    default: str | None = None
    expected: tuple[str, ...] = ()
    ignored: str | None = None
    #: Domibus' own schema demands it; what we write has it.
    schema: bool | None = None

    @property
    def demanded(self) -> bool:
        """Whether the schema of Domibus 5.1 demands it."""
        return self.required if self.schema is None else self.schema


class Element(Struct, frozen=True):
    """One element. `key` is the attribute that must differ among its likes; a definition can be referred to by it."""

    name: str
    attributes: tuple[Attribute, ...] = ()
    children: tuple["Element", ...] = ()
    key: str | None = None
    definition: bool = False
    unique: tuple[str, ...] = ()
    many: bool = True
    optional: bool = False
    ignored: str | None = None

    def attribute(self, name: str) -> Attribute | None:
        return next((a for a in self.attributes if a.name == name), None)

    def child(self, name: str) -> "Element | None":
        return next((c for c in self.children if c.name == name), None)


def _name(name: str = "name", *, required: bool = True, most: int = 255, **more: object) -> Attribute:
    return Attribute(name, required=required, most=most, **more)  # type: ignore[arg-type]


def _flag(name: str, *, required: bool = False, **more: object) -> Attribute:
    return Attribute(name, "boolean", required, **more)  # type: ignore[arg-type]


def _list(name: str, *children: Element, optional: bool = False) -> Element:
    """An element that only holds others."""
    return Element(name, children=children, many=False, optional=optional)


def _named(name: str, *attributes: Attribute, **more: object) -> Element:
    """One entry of a list, known by its name."""
    return Element(name, (_name(), *attributes), key="name", definition=True, **more)  # type: ignore[arg-type]


_RETENTION = "how long messages are kept is set for the node ([retention] in gateway.toml), not in agreements"
_PARTS = "which parts a message has, and of what type, is for the application to check"
_TELLS = "producers and consumers are always told, over the plugin API"
_SPLIT = "Split/Join is not spoken"


def _retention(name: str, default: str | None = None) -> Attribute:
    return Attribute(name, "integer", default=default, ignored=_RETENTION)


MPC = _named(
    "mpc",
    _name("qualifiedName"),
    _flag("enabled", schema=True, expected=("true",), ignored="what no leg names is not used"),
    _flag("default", schema=True, ignored="a leg names its own channel"),
    Attribute("retention_downloaded", "integer", schema=True, ignored=_RETENTION),
    Attribute("retention_undownloaded", "integer", schema=True, ignored=_RETENTION),
    _retention("retention_sent", "-1"),
    _retention("retention_sent_success"),
    _retention("retention_sent_failure"),
    _retention("retention_metadata_offset", "0"),
    Attribute("delete_message_metadata", "boolean", default="false", expected=("false",), ignored=_RETENTION),
    Attribute("max_batch_delete", "integer", default="-1", ignored="erasing goes in batches of its own choice"),
    unique=("qualifiedName",),
)
ROLE = _named("role", _name("value"))
PARTY_ID_TYPE = _named("partyIdType", Attribute("value", "uri", True, 1024, empty=True), unique=("value",))
IDENTIFIER = Element("identifier", (_name("partyId"), _name("partyIdType", required=False, empty=True)))
PARTY = _named(
    "party",
    Attribute("endpoint", "uri", False, 1024, empty=True, schema=True),
    Attribute("userName", ignored="messages are signed; Domibus does not use it either"),
    Attribute("password", ignored="messages are signed; Domibus does not use it either, and it should not stand here"),
    Attribute("allowChunking", expected=("false",), ignored=_SPLIT),
    children=(IDENTIFIER,),
)
MEP = _named(
    "mep",
    Attribute("value", "uri", True, 1024),
    Attribute("legs", "integer", default="1", ignored="follows from the value"),
    unique=("value",),
)
BINDING = _named("binding", Attribute("value", "uri", True, 1024), unique=("value",))
PROPERTY = _named("property", _name("key"), _name("datatype", required=False, schema=True),
                  _flag("required", schema=True), unique=("key",))  # fmt: skip
PROPERTY_SET = _named("propertySet", children=(Element("propertyRef", (_name("property"),), key="property"),))
PAYLOAD = _named(
    "payload",
    _name("cid", required=False, empty=True, schema=True, ignored=_PARTS),
    _name("mimeType", required=False, ignored=_PARTS),
    Attribute("inBody", ignored=_PARTS),
    Attribute("schemaFile", "uri", False, 1024, ignored="no product validates with it"),
    Attribute("maxSize", "integer"),
    _flag("required", schema=True, ignored=_PARTS),
    optional=True,
)
PAYLOAD_PROFILE = _named("payloadProfile", Attribute("maxSize", "integer", schema=True),
                         children=(Element("attachment", (_name(),), key="name"),), optional=True)  # fmt: skip
SECURITY = _named(
    "security",
    _name("policy", required=False, schema=True),
    Attribute("signatureMethod", expected=("rsa_sha256", "ecc_sha256", "eddsa", "ecdsa_sha256"),
              ignored="the algorithms are those of the profile"),
    Attribute("profile"),
)  # fmt: skip
ERROR_HANDLING = _named(
    "errorHandling",
    _flag("errorAsResponse", schema=True, expected=("true",), ignored="errors always go back in the response"),
    _flag("businessErrorNotifyProducer", schema=True, expected=("true",), ignored=_TELLS),
    _flag("businessErrorNotifyConsumer", schema=True, expected=("true",), ignored=_TELLS),
    _flag("deliveryFailureNotifyProducer", schema=True, expected=("true",), ignored=_TELLS),
)
AGREEMENT = _named("agreement", _name("value", required=False, empty=True, schema=True),
                   _name("type", required=False, empty=True, schema=True))  # fmt: skip
SERVICE = _named("service", _name("value"), _name("type", required=False, empty=True))
ACTION = _named("action", _name("value"))
RECEPTION_AWARENESS = _named(
    "receptionAwareness",
    _name("retry", required=False),
    _flag("duplicateDetection", expected=("true",), ignored="duplicates are always found and answered with a receipt"),
)
RELIABILITY = _named(
    "reliability",
    _name("replyPattern", required=False, schema=True, expected=("response",),
          ignored="receipts always come in the response of the same connection"),
    _flag("nonRepudiation", schema=True, expected=("true",),
          ignored="receipts always hold non-repudiation information"),
)  # fmt: skip
SPLITTING = _named(
    "splitting",
    Attribute("fragmentSize", "integer", schema=True, ignored=_SPLIT),
    _flag("compression", schema=True, ignored=_SPLIT),
    _name("compressionAlgorithm", required=False, ignored=_SPLIT),
    Attribute("joinInterval", "integer", schema=True, ignored=_SPLIT),
)
LEG_CONFIGURATION = _named(
    "legConfiguration",
    _name("service"),
    _name("action"),
    _name("security"),
    _name("defaultMpc"),
    _name("receptionAwareness", required=False, schema=True),
    _name("reliability", required=False, schema=True),
    _name("errorHandling", required=False, schema=True),
    _flag("compressPayloads", schema=True),
    _name("propertySet", required=False, empty=True),
    _name("payloadProfile", required=False, empty=True),
    _name("splitting", required=False, empty=True),
)
PROCESS = _named(
    "process",
    _name("mep", most=1024),
    _name("binding", most=1024),
    _name("initiatorRole", most=1024),
    _name("responderRole", most=1024),
    _name("agreement", required=False, most=1024, empty=True),
    children=(
        _list("initiatorParties", Element("initiatorParty", (_name(),), key="name"), optional=True),
        _list("responderParties", Element("responderParty", (_name(),), key="name"), optional=True),
        _list("legs", Element("leg", (_name(),), key="name")),
    ),
)

CONFIGURATION = Element(
    "configuration",
    (Attribute("party", most=1024, empty=True, schema=True),),
    (
        _list("mpcs", MPC),
        _list(
            "businessProcesses",
            _list("roles", ROLE),
            _list("parties", _list("partyIdTypes", PARTY_ID_TYPE), PARTY),
            _list("meps", MEP, BINDING),
            _list("properties", PROPERTY, PROPERTY_SET),
            _list("payloadProfiles", PAYLOAD, PAYLOAD_PROFILE, optional=True),
            _list("securities", SECURITY),
            _list("errorHandlings", ERROR_HANDLING),
            _list("agreements", AGREEMENT),
            _list("services", SERVICE),
            _list("actions", ACTION),
            _list("as4", RECEPTION_AWARENESS, RELIABILITY),
            _list("splittingConfigurations", SPLITTING, optional=True),
            _list("legConfigurations", LEG_CONFIGURATION),
            PROCESS,
        ),
    ),
    many=False,
)
