"""The description and the door fit: requests made from the one, against the other, good and bad ones.

The gateway is a real one. Seed and number of requests are fixed, so that a failure is one for everybody.
"""

import asyncio
import contextlib
import io
import json
import threading

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, seed, settings
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance

from gateway.backends.rest import openapi
from gateway.backends.rest.operations import OPERATIONS
from tests.unit.backends.rest.real import real

#: A stream has no end, and a form is tested elsewhere (test_rest_multipart.py).
ENDLESS = "/v1/events"
EXAMPLES = 12


def description():
    found = openapi.document(OPERATIONS, "0")
    del found["paths"][ENDLESS]
    for verbs in found["paths"].values():
        for operation in verbs.values():
            content = operation.get("requestBody", {}).get("content", {})
            content.pop("multipart/form-data", None)
    return json.loads(json.dumps(found))


class Loop:
    """A gateway in an event loop of its own thread, for tests that are not asynchronous."""

    def __init__(self, folder) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.stack = contextlib.AsyncExitStack()
        self.http = self.run(self._open(folder))

    async def _open(self, folder):
        site = await self.stack.enter_async_context(real(folder))
        http = await site.client()
        sent = await site.submit(http)
        received = await site.receive()
        self.ids = [sent["id"], sent["message_id"], str(received.id)]
        return http

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def close(self) -> None:
        self.run(self.stack.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    made = Loop(tmp_path_factory.mktemp("site") / "lv")
    yield made
    made.close()


schema = schemathesis.openapi.from_file(io.StringIO(json.dumps(description())))
#: What is well-formed may still say nothing that can be sent, a cursor or offset be none of ours; and to JSON Schema
#: 89.0 is an integer, to us it is not.
MEANING = tuple(f"/v1/{noun}" for noun in ("messages", "webhooks", "uploads", "conversations", "event", "inbox"))


@schema.parametrize()
@seed(20261121)
@settings(
    max_examples=EXAMPLES, deadline=None, database=None, phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_requests_made_from_the_description(site, case):
    answer = asked(site, case)
    # Every request is made with our token; who comes without one is in test_rest_door.py.
    excluded = [ignored_auth, *([positive_data_acceptance] if case.operation.path.startswith(MEANING) else [])]
    if "" in dict(case.query or {}).values():
        excluded.append(negative_data_rejection)  # an empty value is no filter
    case.validate_response(answer, excluded_checks=excluded)


def asked(site, case) -> httpx.Response:
    kwargs = case.as_transport_kwargs(base_url="http://gw")
    kwargs = {k: v for k, v in kwargs.items() if v is not None and k in ("method", "url", "headers", "params", "json", "data", "content")}
    if "data" in kwargs:
        kwargs["content"] = kwargs.pop("data")
    kwargs["headers"] = {**dict(kwargs.get("headers") or {}), "Authorization": site.http.headers["authorization"]}
    return site.run(site.http.request(**kwargs))
