"""One authenticated request, as the verbs of the REST door see it, and the answers they give."""

import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode

import msgspec
from msgspec import Struct
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from gateway.backends.rest.body import Body
from gateway.backends.rest.limits import Places, RestOptions
from gateway.backends.rest.problems import Place, Refused, invalid
from gateway.plugin import Caller, Msh, NotFound

T = TypeVar("T")
#: More query parameters than any address of ours has.
PARAMETERS = 32


class Request:
    """What came in. `caller` has been authenticated before this object exists."""

    def __init__(
        self, scope: Scope, body: Body, *, caller: Caller, msh: Msh, options: RestOptions, uploads: Places,
        streams: Places, again: Callable[[], Awaitable[Caller]],
    ) -> None:  # fmt: skip
        """`again` authenticates the caller once more; it raises `GatewayError`."""
        self.body, self.caller, self.msh, self.options, self.uploads = body, caller, msh, options, uploads
        self.streams, self.again = streams, again
        self.method: str = scope["method"]
        self.headers = Headers(scope=scope)
        self.prefix: str = scope.get("root_path", "")
        self._path: dict[str, str] = scope.get("path_params", {})
        self._query: bytes = scope.get("query_string", b"")

    def path(self, name: str) -> str:
        """A segment of the path. One that cannot be an id of ours names nothing: `NotFound`."""
        value = self._path[name]
        if not 1 <= len(value) <= 255 or not value.isprintable():
            raise NotFound
        return value

    def query(self, kind: type[T]) -> T:
        """The query string as a Struct. Raises `Refused`."""
        try:
            pairs = parse_qsl(self._query.decode("latin-1"), errors="strict", max_num_fields=PARAMETERS)
        except ValueError:  # too many, or not UTF-8
            raise Refused("invalid-parameter", "the query string cannot be read") from None
        values = dict(pairs)
        if len(values) < len(pairs):
            raise Refused("invalid-parameter", "a query parameter is given twice")
        try:
            return msgspec.convert(values, kind, strict=False)
        except msgspec.ValidationError as error:
            raise invalid(error, "invalid-parameter") from None

    @property
    def media_type(self) -> str:
        """Type and subtype of the content, lower case."""
        kinds = self.headers.getlist("content-type")
        if len(kinds) > 1:
            raise Refused("bad-request", "Content-Type is given twice")
        return parse_options_header(kinds[0])[0].decode("latin-1") if kinds else ""

    async def document(self, kind: type[T]) -> T:
        """The JSON body as a Struct. Raises `Refused`."""
        if self.media_type != "application/json":
            raise Refused("unsupported-media-type")
        return decode(await self.body.whole(self.options.json_bytes), kind)

    def single(self, name: str) -> str | None:
        """A header that may be given once. Raises `Refused`."""
        values = self.headers.getlist(name)
        if len(values) > 1:
            raise Refused("invalid-parameter", errors=(Place("#", f"the header {name} is given twice"),))
        return values[0] if values else None


def decode(octets: bytes, kind: type[T]) -> T:
    """JSON octets as a Struct. Raises `Refused`."""
    try:
        return msgspec.json.decode(octets, type=kind)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refused("malformed-json") from None


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key: a quoted string as the draft has it, or bare as most clients send it."""
    value = request.single("idempotency-key")
    if value is None:
        return None
    key = re.fullmatch(r'(?P<quote>"?)([!#-\[\]-~]{1,255})(?P=quote)', value)
    if key is None:
        place = Place("#", "Idempotency-Key must be 1 to 255 visible ASCII characters")
        raise Refused("invalid-parameter", errors=(place,))
    return key[2]


def moments(asked: Struct, *names: str) -> dict[str, Any]:
    """The fields of a query, those with these names as times. Raises `Refused`."""
    values = msgspec.structs.asdict(asked)
    for name in names:
        try:
            values[name] = values[name] and datetime.fromisoformat(values[name])
        except ValueError:
            raise Refused("invalid-parameter", errors=(Place(f"#/{name}", "there is no such time"),)) from None
    return values


def next_link(request: Request, path: str, asked: Struct, after: str | None) -> dict[str, str]:
    """The header that names the next page, the same query with another cursor; none after the last page."""
    if after is None:
        return {}
    query = {k: v for k, v in msgspec.to_builtins(asked).items() if v is not None} | {"after": after}
    return {"Link": f'<{request.prefix}{path}?{urlencode(query)}>; rel="next"'}


def answer(value: Struct | dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def nothing() -> Response:
    """204: done, and there is nothing to say."""
    return Response(status_code=204)
