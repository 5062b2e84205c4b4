"""An envelope with payloads beside it: MTOM, each payload as it is in a part of its own [mtom, xop]."""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence

from gateway.backends.domibus_ws.names import XOP
from gateway.plugin import PartView

Contents = Sequence[tuple[PartView, AsyncIterator[bytes]]]


def include(id: str) -> str:
    """What stands in a payload value instead of base64. Our ids need no escaping."""
    return f'<xop:Include xmlns:xop="{XOP}" href="cid:{id}"/>'


class Related:
    """One multipart. `envelope` is made from the content ids, which are not those of the message: two messages
    in one conversation may use the same."""

    def __init__(self, contents: Contents, envelope: Callable[[Sequence[str]], bytes]) -> None:
        self._contents = contents
        self._boundary = f"uuid:{secrets.token_hex(16)}"
        root = f"root.{secrets.token_hex(8)}@gateway"
        ids = [f"{n}.{secrets.token_hex(8)}@gateway" for n in range(len(contents))]
        self._root = self._head(root, 'application/xop+xml; charset=UTF-8; type="application/soap+xml"') + envelope(ids)
        self._heads = [b"\r\n" + self._head(id, p.mime_type) for id, (p, _) in zip(ids, contents, strict=True)]
        self._end = f"\r\n--{self._boundary}--\r\n".encode()
        self.content_type = (
            f'multipart/related; type="application/xop+xml"; boundary="{self._boundary}"; start="<{root}>"; '
            'start-info="application/soap+xml"'
        )

    @property
    def length(self) -> int:
        """Bytes of the whole."""
        return len(self._root) + sum(map(len, self._heads)) + sum(p.size for p, _ in self._contents) + len(self._end)

    async def blocks(self) -> AsyncIterator[bytes]:
        yield self._root
        for head, (_, content) in zip(self._heads, self._contents, strict=True):
            yield head
            async for block in content:
                yield block
        yield self._end

    def _head(self, id: str, content_type: str) -> bytes:
        return (
            f"--{self._boundary}\r\nContent-Type: {content_type}\r\nContent-Transfer-Encoding: binary\r\n"
            f"Content-ID: <{id}>\r\n\r\n"
        ).encode()
