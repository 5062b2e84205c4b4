"""The REST door of a real gateway, in process, and clients for it."""

import contextlib
import json

import httpx

from gateway.operate import backends
from gateway.plugin import PropertyValue
from gateway.scope import Scope
from tests.unit.backends.rest.conftest import Http
from tests.world import CORNERS, EE, world

__all__ = ["EE", "Real", "Scope", "real", "streamed"]

META = {
    "to_party": {"id": EE.value},
    "action": "ExecuteQueryRequest",
    "properties": [{"name": p.name, "value": p.value, **({"type": p.type} if p.type else {})} for p in CORNERS],
    "parts": [{"mime_type": "application/x-ebrs+xml", "content": "PHF1ZXJ5Lz4="}],
}


class Real:
    """A world, and who talks to its plugin listener."""

    def __init__(self, lv) -> None:
        self.lv, self.store = lv, lv.store

    async def client(self, name="alpha", backend="rest", *, http=None, **scope) -> Http:
        client, token = await backends.create(self.store, name, backend, Scope(**scope))
        transport = http or httpx.ASGITransport(self.lv.gateway.plugin, raise_app_exceptions=False)
        made = Http(transport=transport, base_url="http://gw", headers={"Authorization": f"Bearer {token}"})
        made.id, made.token = client.id, token
        return made

    async def submit(self, http, key="k", **more) -> dict:
        answer = await http.post("/v1/messages", json=META | more, headers={"Idempotency-Key": key})
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def receive(self, body=b"<request/>", **more) -> dict:
        """A message of the peer, received."""
        sent = self.lv.peer.message([("application/x-ebrs+xml", body)], **more)
        assert (await self.lv.give(sent)).status == 200
        [message] = await self.store.find(sent.message.message_id)
        return message


@contextlib.asynccontextmanager
async def real(folder, **more):
    async with world(folder, **more) as lv:
        yield Real(lv)


def corners(**values) -> tuple[PropertyValue, ...]:
    """The usual properties with other values."""
    return tuple(PropertyValue(p.name, values.get(p.name, p.value), p.type) for p in CORNERS)


async def streamed(app, path: str, headers: dict[str, str], *, until):
    """GET `path` and feed what comes to `until(text)`, which says when it is enough; status, headers, text."""
    import asyncio

    gone, status, text = asyncio.Event(), [], [""]
    raw, _, query = path.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "path": raw, "raw_path": raw.encode(), "query_string": query.encode(), "root_path": "", "scheme": "http",
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()], "client": ("192.0.2.1", 1),
        "server": ("gw", 80), "state": {},
    }  # fmt: skip
    asked = False

    async def receive():
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.start":
            status.append((message["status"], {k.decode().lower(): v.decode() for k, v in message["headers"]}))
        else:
            text[0] += message.get("body", b"").decode()
            if until(text[0]):
                gone.set()

    async with asyncio.timeout(20):
        await app(scope, receive, send)
    return *status[0], text[0]


def events_in(text: str) -> list[dict]:
    """The events of a stream, with their ids."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append({"cursor": fields["id"], **json.loads(fields["data"])})
    return found
