"""The schema of Domibus 5.1 P-Modes, written down a second time and independently of the code [domibus 3.1].

    check(xml) → what is wrong with it, as a list of texts

Order of elements, how often they may stand, attributes with their types, uniqueness, and references. Only
the standard library: what our own reader forgives must not pass here.
"""

import re
import xml.etree.ElementTree as ET

NAMESPACE = "http://domibus.eu/configuration"

N255, S255, TEXT, URI, BOOL, INT, LONG = "n255", "s255", "text", "uri", "bool", "int", "long"
_TYPES = {
    N255: r"(?s).{1,255}", S255: r"(?s).{0,255}", TEXT: r"(?s).*", URI: r"\S{0,1024}", BOOL: r"true|false|0|1",
    INT: r"[+-]?\d{1,10}", LONG: r"[+-]?\d{1,19}", "profile": r"RSA|ECC|rsa|ecc|ecdsa",
}  # fmt: skip

# element: (attributes: type, "?" behind it when optional), [(child, least, most)], unique attributes of its children
GRAMMAR = {
    "configuration": ({"party": TEXT}, [("mpcs", 1, 1), ("businessProcesses", 1, 1)], {}),
    "mpcs": ({}, [("mpc", 1, None)], {"mpc": ("name", "qualifiedName")}),
    "mpc": ({"name": N255, "qualifiedName": N255, "enabled": BOOL, "default": BOOL, "retention_downloaded": INT,
             "retention_undownloaded": INT, "retention_sent": "int?", "retention_metadata_offset": "int?",
             "delete_message_metadata": "bool?", "max_batch_delete": "int?"}, [], {}),
    "businessProcesses": ({}, [
        ("roles", 1, 1), ("parties", 1, 1), ("meps", 1, 1), ("properties", 1, 1), ("payloadProfiles", 0, 1),
        ("securities", 1, 1), ("errorHandlings", 1, 1), ("agreements", 1, 1), ("services", 1, 1), ("actions", 1, 1),
        ("as4", 1, 1), ("splittingConfigurations", 0, 1), ("legConfigurations", 1, 1), ("process", 1, None),
    ], {"process": ("name",)}),
    "roles": ({}, [("role", 1, None)], {"role": ("name",)}),
    "role": ({"name": N255, "value": N255}, [], {}),
    "parties": ({}, [("partyIdTypes", 1, 1), ("party", 1, None)], {"party": ("name",)}),
    "partyIdTypes": ({}, [("partyIdType", 1, None)], {"partyIdType": ("name", "value")}),
    "partyIdType": ({"name": S255, "value": URI}, [], {}),
    "party": ({"name": TEXT, "endpoint": URI, "userName": "n255?", "password": "n255?", "allowChunking": "text?"},
              [("identifier", 1, None)], {}),
    "identifier": ({"partyId": N255, "partyIdType": "s255?"}, [], {}),
    "meps": ({}, [("mep", 1, None), ("binding", 1, None)], {"mep": ("name", "value"), "binding": ("name", "value")}),
    "mep": ({"name": N255, "value": URI, "legs": "int?"}, [], {}),
    "binding": ({"name": N255, "value": URI}, [], {}),
    "properties": ({}, [("property", 1, None), ("propertySet", 1, None)], {"property": ("name", "key"), "propertySet": ("name",)}),
    "property": ({"name": N255, "key": N255, "datatype": N255, "required": BOOL}, [], {}),
    "propertySet": ({"name": N255}, [("propertyRef", 1, None)], {"propertyRef": ("property",)}),
    "propertyRef": ({"property": N255}, [], {}),
    "payloadProfiles": ({}, [("payload", 0, None), ("payloadProfile", 0, None)], {"payload": ("name",), "payloadProfile": ("name",)}),
    "payload": ({"name": N255, "cid": S255, "mimeType": "n255?", "inBody": "text?", "schemaFile": "uri?",
                 "maxSize": "int?", "required": BOOL}, [], {}),
    "payloadProfile": ({"name": N255, "maxSize": LONG}, [("attachment", 1, None)], {"attachment": ("name",)}),
    "attachment": ({"name": N255}, [], {}),
    "securities": ({}, [("security", 1, None)], {"security": ("name",)}),
    "security": ({"name": N255, "policy": N255, "signatureMethod": "text?", "profile": "profile?"}, [], {}),
    "errorHandlings": ({}, [("errorHandling", 1, None)], {"errorHandling": ("name",)}),
    "errorHandling": ({"name": N255, "errorAsResponse": BOOL, "businessErrorNotifyProducer": BOOL,
                       "businessErrorNotifyConsumer": BOOL, "deliveryFailureNotifyProducer": BOOL}, [], {}),
    "agreements": ({}, [("agreement", 1, None)], {"agreement": ("name",)}),
    "agreement": ({"name": N255, "value": S255, "type": S255}, [], {}),
    "services": ({}, [("service", 1, None)], {"service": ("name",)}),
    "service": ({"name": N255, "value": N255, "type": "n255?"}, [], {}),
    "actions": ({}, [("action", 1, None)], {"action": ("name",)}),
    "action": ({"name": N255, "value": N255}, [], {}),
    "as4": ({}, [("receptionAwareness", 1, None), ("reliability", 1, None)],
            {"receptionAwareness": ("name",), "reliability": ("name",)}),
    "receptionAwareness": ({"name": N255, "retry": "n255?", "duplicateDetection": "bool?"}, [], {}),
    "reliability": ({"name": N255, "replyPattern": N255, "nonRepudiation": BOOL}, [], {}),
    "splittingConfigurations": ({}, [("splitting", 1, None)], {"splitting": ("name",)}),
    "splitting": ({"name": N255, "fragmentSize": INT, "compression": BOOL, "compressionAlgorithm": "n255?",
                   "joinInterval": INT}, [], {}),
    "legConfigurations": ({}, [("legConfiguration", 1, None)], {"legConfiguration": ("name",)}),
    "legConfiguration": ({"name": N255, "service": N255, "action": N255, "security": N255, "defaultMpc": N255,
                          "receptionAwareness": N255, "reliability": N255, "errorHandling": N255, "compressPayloads": BOOL,
                          "propertySet": "n255?", "payloadProfile": "n255?", "splitting": "n255?"}, [], {}),
    "process": ({"name": N255, "mep": TEXT, "binding": TEXT, "initiatorRole": TEXT, "responderRole": TEXT, "agreement": "text?"},
                [("initiatorParties", 0, 1), ("responderParties", 0, 1), ("legs", 1, 1)], {}),
    "initiatorParties": ({}, [("initiatorParty", 1, None)], {"initiatorParty": ("name",)}),
    "responderParties": ({}, [("responderParty", 1, None)], {"responderParty": ("name",)}),
    "initiatorParty": ({"name": N255}, [], {}),
    "responderParty": ({"name": N255}, [], {}),
    "legs": ({}, [("leg", 1, None)], {"leg": ("name",)}),
    "leg": ({"name": N255}, [], {}),
}  # fmt: skip

# (element, attribute) → the element it names
REFERENCES = {
    ("identifier", "partyIdType"): "partyIdType", ("propertyRef", "property"): "property", ("attachment", "name"): "payload",
    ("legConfiguration", "service"): "service", ("legConfiguration", "action"): "action",
    ("legConfiguration", "security"): "security", ("legConfiguration", "defaultMpc"): "mpc",
    ("legConfiguration", "receptionAwareness"): "receptionAwareness", ("legConfiguration", "reliability"): "reliability",
    ("legConfiguration", "errorHandling"): "errorHandling", ("legConfiguration", "propertySet"): "propertySet",
    ("legConfiguration", "payloadProfile"): "payloadProfile", ("legConfiguration", "splitting"): "splitting",
    ("process", "mep"): "mep", ("process", "binding"): "binding", ("process", "initiatorRole"): "role",
    ("process", "responderRole"): "role", ("process", "agreement"): "agreement", ("initiatorParty", "name"): "party",
    ("responderParty", "name"): "party", ("leg", "name"): "legConfiguration", ("configuration", "party"): "party",
}  # fmt: skip


def check(text: str) -> list[str]:
    root = ET.fromstring(text.encode())
    if root.tag != f"{{{NAMESPACE}}}configuration":
        return [f"the root is {root.tag}"]
    wrong: list[str] = []
    _element(root, "configuration", wrong)
    names: dict[str, set[str]] = {}
    for element in root.iter():
        if "name" in element.attrib:
            names.setdefault(element.tag, set()).add(element.attrib["name"])
    for element in root.iter():
        for attribute, value in element.attrib.items():
            kind = REFERENCES.get((element.tag.rpartition("}")[2], attribute))
            if kind and value and value not in names.get(kind, ()):
                wrong.append(f"{element.tag}@{attribute}: no {kind} {value}")
    return wrong


def _element(element: ET.Element, name: str, wrong: list[str]) -> None:
    attributes, children, unique = GRAMMAR[name]
    for attribute in element.attrib.keys() - attributes.keys():
        wrong.append(f"{name}@{attribute} is not known")
    for attribute, kind in attributes.items():
        value = element.get(attribute)
        if value is None:
            if not kind.endswith("?"):
                wrong.append(f"{name}@{attribute} is missing")
        elif not re.fullmatch(_TYPES[kind.rstrip("?")], value):
            wrong.append(f"{name}@{attribute} is {value!r}, not {kind}")
    if (element.text or "").strip() or any((child.tail or "").strip() for child in element):
        wrong.append(f"text in {name}")
    rest = list(element)
    for child, least, most in children:
        count = 0
        while rest and rest[0].tag == child:
            _element(rest.pop(0), child, wrong)
            count += 1
        if count < least or (most is not None and count > most):
            wrong.append(f"{count} {child} in {name}")
    wrong += [f"{child.tag} in {name}, or out of order" for child in rest]
    for child, keys in unique.items():
        for key in keys:
            values = [c.get(key) for c in element if c.tag == child]
            if len(set(values)) < len(values):
                wrong.append(f"{child}@{key} is not unique in {name}")
