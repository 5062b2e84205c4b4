"""The wsse:Security header: what may stand in it, and how ours is put together [as4 3.2].

Reading is strict and in any order: an element we do not expect is refused, not skipped,
because every container is a place to hide a signed original in [threats B04]. Whatever is
wrong with the shape is EBMS:0103, before any cryptography. The elements returned are live;
they stay inside the one call of `inbound.open_envelope`.
"""

from collections.abc import Iterable
from typing import NamedTuple, NoReturn

from gateway.as4 import ns
from gateway.as4.wss.algorithms import decode_base64
from gateway.as4.xml import Element
from gateway.errors import PolicyNoncompliance

_TOKEN = ns.qn(ns.WSSE, "BinarySecurityToken")
_SIGNATURE = ns.qn(ns.DS, "Signature")
_ENCRYPTED_KEY = ns.qn(ns.XENC, "EncryptedKey")
_ENCRYPTED_DATA = ns.qn(ns.XENC, "EncryptedData")
#: Not used by eDelivery; some stacks cannot leave it out. Unsigned, so it is not looked at.
_TIMESTAMP = ns.qn(ns.WSU, "Timestamp")

#: One token for the signature, one for the encrypted key.
MAX_TOKENS = 2


class SecurityHeader(NamedTuple):
    """The children of one wsse:Security."""

    element: Element
    signature: Element | None
    encrypted_key: Element | None
    encrypted_data: list[Element]


def refuse(detail: str) -> NoReturn:
    """The security of the message is not what we take."""
    raise PolicyNoncompliance(detail)


def read_security(security: Element) -> SecurityHeader:
    """Sort the children of wsse:Security. Raises `PolicyNoncompliance`."""
    found: dict[str, list[Element]] = {}
    for child in security:
        found.setdefault(child.tag, []).append(child)
    tokens = found.pop(_TOKEN, [])
    signatures = found.pop(_SIGNATURE, [])
    keys = found.pop(_ENCRYPTED_KEY, [])
    data = found.pop(_ENCRYPTED_DATA, [])
    timestamps = found.pop(_TIMESTAMP, [])
    if found:
        refuse("an element in wsse:Security that the profiles do not know")
    if len(tokens) > MAX_TOKENS or len(signatures) > 1 or len(keys) > 1 or len(timestamps) > 1:
        refuse("too many elements of one kind in wsse:Security")
    return SecurityHeader(security, signatures[0] if signatures else None, keys[0] if keys else None, data)


def children(parent: Element, *allowed: str) -> dict[str, Element]:
    """The children of `parent` by tag: each at most once, none but `allowed`."""
    found: dict[str, Element] = {}
    for child in parent:
        if child.tag not in allowed or child.tag in found:
            refuse("an element that does not belong there, or one that stands there twice")
        found[child.tag] = child
    return found


def only(parent: Element, *allowed: str) -> Element:
    """The one child of `parent`, which must be one of `allowed`."""
    if len(parent) != 1 or parent[0].tag not in allowed:
        refuse("not exactly one child element of the expected kind")
    return parent[0]


def octets_of(element: Element) -> bytes:
    """The decoded content of a base64 element."""
    if len(element):
        refuse("an element inside base64")
    try:
        return decode_base64(element.text)
    except ValueError as error:
        refuse(str(error))


# -- writing ------------------------------------------------------------------

_OPEN = (
    f'<wsse:Security xmlns:wsse="{ns.WSSE}" xmlns:S12="{ns.S12}" xmlns:wsse11="{ns.WSSE11}" xmlns:wsu="{ns.WSU}" '
    'S12:mustUnderstand="true">'
)


def security_header(children_: Iterable[str]) -> str:
    """wsse:Security around its children.

    WSS4J works through them in document order, so the caller gives EncryptedKey and
    EncryptedData before the signature, and each token before what refers to it
    [bsp R3208, R5205].
    """
    return f"{_OPEN}{''.join(children_)}</wsse:Security>"
