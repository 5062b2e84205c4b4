"""Read a Content-Type value strictly [rfc2045 5.1, rfc2387 3].

Two readers that understand one header differently are how parts are smuggled past a
firewall, so whatever has more than one reading is refused: a parameter given twice,
continued (`boundary*0=`), with a comment, a control character or an octet above ASCII.
Not refused is what senders really do: unquoted values with `/`, `<` or `=` in them, any
case, any order, blanks around `;`, an empty parameter at the end.
"""

import re

from msgspec import Struct

from gateway.errors import MimeInconsistency

#: Longest value read; senders stay below 300 octets, 4 KiB must be accepted [as4 1.1].
MAX_CONTENT_TYPE = 8 << 10

_NAME = r"[!#$%&'+\-.^_`|~0-9A-Za-z]+"  # without `*`: RFC 2231 continuations are refused
_TYPE = re.compile(rf"[ \t]*({_NAME}/{_NAME})")
_PARAMETER = re.compile(
    rf"[ \t]*;[ \t]*(?:({_NAME})="
    r'(?:"((?:[^"\\\x00-\x1f\x7f-\U0010ffff]|\\[ -~])*)"'
    r'|([^\s";\\\x00-\x20\x7f-\U0010ffff]+)))?'
)
_END = re.compile(r"[ \t]*")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")


class MediaType(Struct, frozen=True):
    """A media type in lower case with its parameters; their names are in lower case, values as given."""

    type: str
    parameters: dict[str, str]


def parse_media_type(value: str) -> MediaType:
    """Parse a Content-Type value. Raises `MimeInconsistency` with status 415 or 400."""
    start = _TYPE.match(value) if len(value) <= MAX_CONTENT_TYPE else None
    if start is None:
        raise MimeInconsistency("Content-Type is missing or unreadable", where="Content-Type", status=415)
    parameters: dict[str, str] = {}
    at = start.end()
    while parameter := _PARAMETER.match(value, at):
        at = parameter.end()
        name, quoted, plain = parameter.groups()
        if name is None:
            continue
        if name.lower() in parameters:
            raise MimeInconsistency("a Content-Type parameter is given twice", where="Content-Type", status=400)
        parameters[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    if not _END.fullmatch(value, at):
        raise MimeInconsistency("a Content-Type parameter is unreadable", where="Content-Type", status=400)
    return MediaType(start[1].lower(), parameters)


def boundary_of(media_type: MediaType) -> str:
    """The `boundary` parameter: 1 to 70 characters of those allowed [rfc2046 5.1.1]."""
    boundary = media_type.parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise MimeInconsistency("boundary is missing or not allowed", where="Content-Type/boundary", status=400)
    return boundary


def bare_type(value: str) -> str:
    """The media type alone, in lower case, of a value that need not be well-formed."""
    return value.partition(";")[0].strip().lower()
