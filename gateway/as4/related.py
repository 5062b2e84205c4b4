"""Lay out an outgoing message as multipart/related [as4 1.2, rfc2387].

Everything but the payload octets is known beforehand, so the Content-Length is too: some
peers and firewalls refuse chunked bodies. The shape is the one every stack reads: `type`,
`boundary`, `start` and `start-info` quoted, no `charset` on the outer type (firewall rule
sets refuse it), parts in the order of eb:PartInfo, `binary` throughout.
"""

import re
from collections.abc import Callable, Sequence

from gateway.as4 import ns
from gateway.errors import ValueInconsistent

#: WSS4J decodes `cid:` as if it were a form, so `+` and `%` would be misread there [as4 1.2].
CONTENT_ID = re.compile(r"[A-Za-z0-9._@-]+")

_MEDIA_TYPE = re.compile(r"[!#$&^_.+\-0-9A-Za-z]+/[!#$&^_.+\-0-9A-Za-z]+(?:; ?[!-~][ -~]*)?")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=?]{1,70}")


def new_boundary(entropy: Callable[[int], bytes]) -> str:
    """A boundary that no payload contains: 128 random bits."""
    return "=_" + entropy(16).hex()


class RelatedWriter:
    """The octets around the payloads of one message.

    `root` is the SOAP envelope in UTF-8, `parts` are (Content-ID, media type, number of
    octets). The body is `root()`, then for each part `part_head(i)`, its octets and
    `part_tail`, then `epilogue`; `content_length` octets in all. Raises `ValueInconsistent`
    for a Content-ID or media type that may not go into a header.
    """

    #: Nothing follows a part's octets: the CRLF after them belongs to the next delimiter.
    part_tail = b""

    def __init__(self, boundary: str, root: bytes, parts: Sequence[tuple[str, str, int]]) -> None:
        if not _BOUNDARY.fullmatch(boundary):
            raise ValueError("not a boundary")
        root_id = f"root-{re.sub('[^0-9A-Za-z]', '', boundary)}@as4"
        seen = {root_id}
        for cid, media_type, _ in parts:
            if not CONTENT_ID.fullmatch(cid):
                raise ValueInconsistent("a Content-ID beyond A-Z a-z 0-9 . _ @ -", where="eb:PartInfo/@href")
            if cid.lower() in seen:
                raise ValueInconsistent("two parts with one Content-ID", where="eb:PartInfo/@href")
            if not _MEDIA_TYPE.fullmatch(media_type):
                raise ValueInconsistent("not a media type", where="eb:PartProperties/eb:Property[MimeType]")
            seen.add(cid.lower())
        delimiter = b"\r\n--" + boundary.encode("ascii")
        self.content_type = (
            f'multipart/related; type="{ns.SOAP_MEDIA_TYPE}"; boundary="{boundary}"; '
            f'start="<{root_id}>"; start-info="{ns.SOAP_MEDIA_TYPE}"'
        )
        self.epilogue = delimiter + b"--\r\n"
        self._root = _head(delimiter, f"{ns.SOAP_MEDIA_TYPE}; charset=UTF-8", root_id)[2:] + root
        self._heads = tuple(_head(delimiter, media_type, cid) for cid, media_type, _ in parts)
        self.content_length = (
            len(self._root)
            + sum(len(head) for head in self._heads)
            + sum(octets for _, _, octets in parts)
            + len(self.epilogue)
        )

    def root(self) -> bytes:
        """The first delimiter and the whole root part."""
        return self._root

    def part_head(self, index: int) -> bytes:
        """What comes before the octets of part `index`, from the end of the part before it."""
        return self._heads[index]


def _head(delimiter: bytes, media_type: str, cid: str) -> bytes:
    fields = f"\r\nContent-Type: {media_type}\r\nContent-Transfer-Encoding: binary\r\nContent-ID: <{cid}>\r\n\r\n"
    return delimiter + fields.encode("ascii")
