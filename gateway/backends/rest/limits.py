"""What the REST door bears, and the options an operator may set for it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

from gateway.backends.rest.problems import Refused

#: Header block and request line, as on the AS4 listener [threats 1.5]; hypercorn's own header
#: limit does not hold [stack 4.2 no. 8], so they are counted here.
HEADER_LINES = 100
HEADER_BYTES = 32_768
REQUEST_LINE = 8_192

#: Body left unread when we refuse: so much is read and dropped, so that the caller gets to read
#: the answer instead of a connection reset; a larger one finds the connection closed.
DRAIN_BYTES = 1 << 20
DRAIN_SECONDS = 5.0

#: RFC 2046 allows text after the last boundary; senders add a line end at most.
EPILOGUE = 1_024


class RestOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[backends.rest]`; every field has a default that suits."""

    #: Bytes of a JSON request, and of the decoded payloads in it. Base64 of 1 MB is 1.34 MB.
    json_bytes: int = 1_500_000
    inline_bytes: int = 1_000_000
    #: Bytes of the form field `meta`.
    meta_bytes: int = 256 << 10
    #: A body may stall for `grace` seconds in all, and earns one more with each `rate` bytes [threats H01].
    grace: float = 10.0
    rate: float = 8_000.0
    #: Submissions that one client may have under way in one process [threats 1.5].
    uploads: int = 16
    #: Event streams that one client may have open in one process.
    streams: int = 8
    #: The CloudEvents `source` of webhooks: a URI reference that names this access point.
    source: str = "/gateway"


class Places:
    """How many requests of one kind each client has under way in this process."""

    def __init__(self, most: int, slug: str) -> None:
        """`slug` is the problem of whoever comes when there is no place left."""
        self._most, self._slug = most, slug
        self._running: Counter[str] = Counter()

    @contextmanager
    def slot(self, client: str) -> Iterator[None]:
        """Take a place for one request of `client`. Raises `Refused` when there is none left."""
        if self._running[client] >= self._most:
            raise Refused(self._slug, headers={"Retry-After": "1"})
        self._running[client] += 1
        try:
            yield
        finally:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]
