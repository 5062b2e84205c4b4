"""The JSON Schema of an agreement file, for editors: made from the Structs that read the file.

It knows the shape: keys, types, the words that may stand somewhere, how durations and sizes are written.
What depends on several keys, on other files or on a profile is for `lint`. So the schema never refuses
what the loader takes; a test holds the two together.
"""

import inspect
import types
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Struct

from gateway.as4.profiles import PROFILES
from gateway.config.reference import descriptions as described
from gateway.config.strict import Duration, Reference, Size
from gateway.pmodes.agreements import File
from gateway.pmodes.network import NetworkFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_NUMBER = r"\d{1,12}(\.\d{1,6})?\s*"
#: Numbers are taken as they are up to here [gateway.config.strict].
_MOST = 10**15
_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    Duration: {
        "description": 'Seconds, or a text such as "30s", "12m", "24h", "14d".',
        "anyOf": [
            {"type": "number", "minimum": 0, "exclusiveMaximum": _MOST},
            {"type": "string", "pattern": f"^{_NUMBER}(ms|s|m|h|d)$"},
        ],
    },
    Size: {
        "description": 'Octets, or a text such as "64KiB", "200MiB", "1GiB".',
        "anyOf": [
            {"type": "number", "minimum": 0, "exclusiveMaximum": _MOST},
            {"type": "string", "pattern": f"^{_NUMBER}(B|kB|MB|GB|KiB|MiB|GiB)?$"},
        ],
    },
}
#: What the Struct leaves to a rule of its own and an editor can know at once.
_MORE: dict[str, dict[str, Any]] = {
    "profile": {"enum": list(PROFILES)},
    "first": {"examples": ["30s"]},
    "window": {"examples": ["24h"]},
    "maintenance": {"examples": ["4h"]},
    "endpoint": {"examples": ["https://ap.example.ee/services/msh"]},
}


def schema() -> dict[str, Any]:
    """The schema of one agreement file, JSON Schema 2020-12."""
    definitions: dict[str, Any] = {}
    for struct in (File, NetworkFile):
        _table(struct, definitions)
    file, network = definitions.pop("File"), definitions.pop("NetworkFile")
    return {
        "$schema": DIALECT,
        "title": "Agreements of an AS4 access point",
        "description": "The agreements of one party with others, or those of a whole network.",
        "type": "object",
        # Both kinds at once, so that editors can complete; which keys go together is said below.
        "properties": {**network["properties"], **file["properties"]},
        "additionalProperties": False,
        "if": {"required": ["network"]},
        "then": _only(network, file),
        "else": _only(file, network),
        "$defs": definitions,
    }


def _only(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What one kind of file needs, and may not have because the other kind has it."""
    foreign = [name for name in other["properties"] if name not in one["properties"]]
    return {"required": one["required"], "properties": dict.fromkeys(foreign, False)}


def _table(struct: type[Struct], definitions: dict[str, Any]) -> dict[str, Any]:
    """A reference to the definition of a table; made when it is needed first."""
    name = struct.__name__
    if name not in definitions:
        definitions[name] = {}  # named before it is filled: tables may hold themselves
        about, texts = descriptions(struct)
        fields = msgspec.structs.fields(struct)
        properties = {}
        for field in fields:
            shape = _shape(field.type, definitions)
            text = texts.get(field.encode_name)
            # A reference beside other keywords is allowed in 2020-12.
            said = {"description": text} if text else {}
            more = _MORE.get(field.encode_name, {}) if shape in _SCALARS.values() else {}
            properties[field.encode_name] = {**shape, **said, **more}
        definitions[name] = {
            "description": about,
            "type": "object",
            "properties": properties,
            "required": [field.encode_name for field in fields if field.required],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{name}"}


def _shape(type: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """What may stand for a value of this type."""
    origin, arguments = get_origin(type), get_args(type)
    if origin in (Union, types.UnionType):
        options = [_shape(option, definitions) for option in arguments if option is not types.NoneType]
        return options[0] if len(options) == 1 else {"anyOf": options}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _shape(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _shape(arguments[1], definitions)}
    if isinstance(type, msgspec.StructMeta):
        return _table(type, definitions)
    if inspect.isclass(type) and issubclass(type, Reference):
        return {"type": "string", "description": type.EXPECTED}
    return _SCALARS[type]


def descriptions(struct: type[Struct]) -> tuple[str, dict[str, str]]:
    """What docstrings say: of the Struct itself, and field by field, those of what it extends included."""
    about, fields = "", {}
    for owner in reversed(struct.__mro__):
        if issubclass(owner, Struct) and owner is not Struct and owner.__doc__:
            about, own = described(owner)
            fields |= own
    return about, fields
