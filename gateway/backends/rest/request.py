"""One authenticated request, as the verbs of the REST door see it, and the answers they give."""

from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from gateway.backends.rest.body import Body
from gateway.backends.rest.limits import RestOptions, Uploads
from gateway.backends.rest.problems import Place, Refused, invalid
from gateway.plugin import Caller, Msh, NotFound

T = TypeVar("T")
#: More query parameters than any address of ours has.
PARAMETERS = 32


class Request:
    """What came in. `caller` has been authenticated before this object exists."""

    def __init__(
        self, scope: Scope, body: Body, *, caller: Caller, msh: Msh, options: RestOptions, uploads: Uploads
    ) -> None:
        self.body, self.caller, self.msh, self.options, self.uploads = body, caller, msh, options, uploads
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


def answer(value: Struct | dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def nothing() -> Response:
    """204: done, and there is nothing to say."""
    return Response(status_code=204)
