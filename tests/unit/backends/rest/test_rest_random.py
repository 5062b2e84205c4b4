"""Whatever is asked, the answer is one of the described ones and never a 5xx.

Over the MSH in memory, which has the verbs of submitting and the inbox; the others are asked over a real
gateway (test_schemathesis.py).
"""

import asyncio
import re

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.backends.rest import RestBackend
from gateway.backends.rest.operations import OPERATIONS
from tests.unit.backends.memory_msh import MemoryMsh

KNOWN = tuple(
    o for o in OPERATIONS if o.verb.__module__.rpartition(".")[2] in ("messages", "payloads", "inbox", "webhooks")
    and o.path != "/v1/inbox/peek"
)  # fmt: skip
NAMES = ("limit", "lease", "claim", "url", "events", "action", "to_party", "parts", "content", "id", "x", "deadline")
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
SEGMENT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    operation=st.sampled_from(KNOWN),
    segment=SEGMENT,
    query=st.dictionaries(st.sampled_from(("wait", "limit", "state", "after", "action", "x")), SEGMENT, max_size=2),
    body=JSON,
    key=st.none() | st.just("k"),
)
def test_no_request_is_our_mistake(operation, segment, query, body, key):
    msh = MemoryMsh()
    headers = {"Authorization": f"Bearer {msh.client('alpha', 'evidence')}"} | ({"Idempotency-Key": key} if key else {})
    path = re.sub(r"\{.*?\}", lambda _: "".join(f"%{b:02X}" for b in segment.encode()), operation.path)

    async def ask():
        transport = httpx.ASGITransport(RestBackend(msh).asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://gw", headers=headers) as http:
            answer = await http.request(operation.method, path, params=query, json=body)
            assert answer.status_code < 500, answer.text
            assert answer.status_code == 204 or answer.json() is not None

    asyncio.run(ask())
